//! A healthy patient, for tests to make ill.

use crate::doctor::diagnose;
use crate::doctor::finding::Severity;
use crate::doctor::observation::{
    Judged, LookasideSeen, ManifestSeen, Observations, Paths, PlaceSeen, ReadOutcome, SignatureSeen, SourceSeen,
};
use crate::image::{Digest, ImageReference};
use crate::policy::{Policy, Reason, Requirement, ScopeMatch, SignatureVerdict};
use crate::registries_conf::PullSource;
use crate::registries_d::{Key, Origin};
use crate::registry::Ping;

pub struct Case {
    pub seen: Observations,
}

pub fn requirements(json: &str) -> Vec<Requirement> {
    Policy::parse(format!(r#"{{"default":[{json}]}}"#).as_bytes()).unwrap().default
}

pub fn lookaside(base: &str, count: usize) -> LookasideSeen {
    LookasideSeen {
        base: base.to_owned(),
        origin: Some(Origin::File { path: "/etc/x.yaml".into(), namespace: "q.io".into(), key: Key::Lookaside }),
        first: format!("{base}/birds/bluebird@sha256=x/signature-1"),
        outcome: ReadOutcome::Found(count),
    }
}

pub fn verdict(reason: Option<Reason>) -> SignatureVerdict {
    SignatureVerdict {
        source: "https://h/signature-1".to_owned(),
        accepted: reason.is_none(),
        reason,
        claimed_reference: None,
        claimed_digest: None,
        fingerprint: Some("AAAA".to_owned()),
        signing_key: Some("AAAA".to_owned()),
        created: Some(0),
        warnings: Vec::new(),
    }
}

impl Case {
    /// An image whose policy wants a signature, and that has none in its lookaside.
    pub fn new(image: &str) -> Self {
        let image = ImageReference::parse(image).unwrap();
        let reference = image.as_reference().clone();
        let ping = Ping {
            url: "https://q.io/v2/".to_owned(),
            status: 401,
            announced: None,
            signatures: false,
            failed: Vec::new(),
        };
        let source =
            PullSource { reference: reference.clone(), insecure: false, is_mirror: false, blocked: None, from: None };
        let place = PlaceSeen { lookaside: Some(lookaside("https://h/base", 0)), ..PlaceSeen::default() };
        let seen = Observations {
            paths: Paths {
                policy: "/etc/containers/policy.json".into(),
                registries_d: "/etc/containers/registries.d".into(),
                registries_conf: "/etc/containers/registries.conf.d/countersign.conf".into(),
                home: "/home/u".into(),
            },
            stop: None,
            scope: Some(ScopeMatch::Default),
            requirements: requirements(r#"{"type":"signedBy","keyType":"GPGKeys","keyPath":"/keys/alice.asc"}"#),
            docker_scopes: Vec::new(),
            namespaces: std::collections::BTreeMap::new(),
            sources: vec![SourceSeen { ping: Some(Ok(ping)), ..SourceSeen::new(source) }],
            manifest: Some(ManifestSeen {
                physical: reference,
                digest: Digest::sha256(b"manifest"),
                list: None,
                no_instance_for: None,
            }),
            place: Some(place),
            write: None,
            judged: Some(Judged { accepted: false, reason: Some(Reason::NoSignature), signatures: Vec::new() }),
            image,
        };
        Self { seen }
    }

    /// The same, with one good signature.
    pub fn accepted(mut self) -> Self {
        self.place().lookaside = Some(lookaside("https://h/base", 1));
        let signature = SignatureSeen { verdict: verdict(None), fault: None, untrusted: None };
        self.seen.judged = Some(Judged { accepted: true, reason: None, signatures: vec![signature] });
        self
    }

    /// The same, with one signature that is rejected.
    pub fn rejected(mut self, signature: SignatureSeen) -> Self {
        self.place().lookaside = Some(lookaside("https://h/base", 1));
        let reason = signature.verdict.reason.clone();
        self.seen.judged = Some(Judged { accepted: false, reason, signatures: vec![signature] });
        self
    }

    pub fn place(&mut self) -> &mut PlaceSeen {
        self.seen.place.as_mut().unwrap()
    }

    pub fn ping(&mut self) -> &mut Ping {
        self.seen.sources[0].ping.as_mut().unwrap().as_mut().unwrap()
    }
}

/// The names of the findings, notes marked as such.
pub fn names(seen: &Observations) -> Vec<String> {
    diagnose(seen)
        .into_iter()
        .map(|finding| match finding.severity {
            Severity::Fails => finding.ailment.name().to_owned(),
            Severity::Note => format!("note: {}", finding.ailment),
        })
        .collect()
}
