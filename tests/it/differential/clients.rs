//! The two who answer: the real skopeo over a real registry, and countersign.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use countersign::image::{Digest, ImageReference};
use countersign::lookup::OpenPgp;
use countersign::policy::{
    Image, ManifestEvidence, Options, Origin, Policy, Reason, SignatureBlob, Signatures, decide,
};

use countersign::signature::ClaimError;

use super::cases::{Case, REPOSITORIES};
use crate::support::client::{Host, Ran, text};

/// An answer, and the kind of its reason if it is a no.
#[derive(Clone, Debug)]
pub struct Answer {
    pub accepted: bool,
    pub kind: &'static str,
    pub sentence: String,
}

/// The manifests that both judge.
pub struct Manifests {
    pub image: Vec<u8>,
    pub instance: Vec<u8>,
}

impl Manifests {
    fn of(&self, case: &Case) -> &[u8] {
        if case.of_list { &self.instance } else { &self.image }
    }
}

/// Makes the user's host: all names lead to `registry`'s one repository.
pub fn host(registry: &str, gnupg: &Path) -> Host {
    let host = Host::new(gnupg);
    let mut conf = format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n");
    for (_, full) in REPOSITORIES {
        conf.push_str(&format!("[[registry]]\nprefix = \"{full}\"\nlocation = \"{registry}/app\"\ninsecure = true\n"));
    }
    host.write(".config/containers/registries.conf", conf);
    host
}

/// The folder of one case: policy, registries.d, lookaside.
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn of(case: &Case, manifests: &Manifests) -> Self {
        let folder = tempfile::Builder::new().prefix("cs-case").tempdir().unwrap();
        let digest = Digest::sha256(manifests.of(case));
        let set = folder.path().join(format!("lookaside/app@{}", digest.path_form()));
        std::fs::create_dir_all(&set).unwrap();
        for (index, signature) in case.signatures.iter().enumerate() {
            std::fs::write(set.join(format!("signature-{}", index + 1)), signature).unwrap();
        }
        let this = Self(folder);
        std::fs::write(this.policy(), case.policy.to_string()).unwrap();
        std::fs::create_dir(this.registries_d()).unwrap();
        let lookaside = format!("default-docker:\n  lookaside: file://{}/lookaside\n", this.0.path().display());
        std::fs::write(this.registries_d().join("all.yaml"), lookaside).unwrap();
        this
    }

    pub fn policy(&self) -> PathBuf {
        self.0.path().join("policy.json")
    }

    pub fn registries_d(&self) -> PathBuf {
        self.0.path().join("registries.d")
    }

    /// Asks skopeo. `--remove-signatures`, for copying them along is no matter of the policy.
    pub fn skopeo(&self, host: &Host, case: &Case) -> Answer {
        let out = self.0.path().join("out");
        let ran = host.skopeo(&[
            "--policy",
            text(&self.policy()),
            "--registries.d",
            text(&self.registries_d()),
            "--override-os",
            "linux",
            "--override-arch",
            "amd64",
            "copy",
            "--remove-signatures",
            &format!("docker://{}", case.image),
            &format!("dir:{}", text(&out)),
        ]);
        heard(&ran, &case.label)
    }

    /// Asks our program, which takes all from the registry and the lookaside by itself.
    pub fn program(&self, host: &Host, case: &Case) -> bool {
        let ran = host.countersign(&[
            "verify",
            &case.image,
            "--tls-verify=false",
            "--policy",
            text(&self.policy()),
            "--registries-d",
            text(&self.registries_d()),
            "--format",
            "json",
        ]);
        let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:#?}"));
        let accepted = said["decision"] == "accepted";
        assert_eq!(ran.code, Some(i32::from(!accepted)), "{}: {ran:#?}", case.label);
        accepted
    }
}

/// Asks the library.
pub fn countersign(case: &Case, manifests: &Manifests, allow_weak: bool) -> Answer {
    let origin = |n: u32| Origin::File(format!("/lookaside/signature-{n}").into());
    decided(case, manifests.of(case), allow_weak, origin)
}

/// Asks the library about messages whose form is not detected first, as with the extension.
pub fn bare(case: &Case, manifest: &[u8], allow_weak: bool) -> Answer {
    decided(case, manifest, allow_weak, |n| Origin::Extension(n.to_string()))
}

fn decided(case: &Case, manifest: &[u8], allow_weak: bool, origin: impl Fn(u32) -> Origin) -> Answer {
    let mechanism = OpenPgp::at(SystemTime::now()).allow_weak(allow_weak);
    let policy = match Policy::parse(case.policy.to_string().as_bytes()) {
        Ok(policy) => policy,
        Err(e) => return Answer { accepted: false, kind: "policy", sentence: e.to_string() },
    };
    let reference = ImageReference::parse(&case.image).unwrap();
    let digest = Digest::sha256(manifest);
    let blobs: Vec<SignatureBlob> = (1..)
        .zip(&case.signatures)
        .map(|(n, bytes)| SignatureBlob { origin: origin(n), bytes: bytes.clone().into() })
        .collect();
    let mut image = Image::docker(&reference, ManifestEvidence::Bytes(manifest));
    if case.of_list {
        image = image.with_instance(&digest);
    }
    let brief = decide(
        &policy,
        &image,
        Signatures::Found(&blobs),
        &mechanism,
        Options { decision_only: true, ..Options::default() },
    );
    let full = decide(&policy, &image, Signatures::Found(&blobs), &mechanism, Options::default());
    assert_eq!(brief.accepted, full.accepted, "{}: looking further changed the decision", case.label);
    match full.reason {
        None => Answer { accepted: true, kind: "", sentence: String::new() },
        Some(reason) => Answer { accepted: false, kind: kind(&reason), sentence: reason.to_string() },
    }
}

fn kind(reason: &Reason) -> &'static str {
    match reason {
        Reason::Rejected { .. } => "reject",
        Reason::SignedBaseLayer => "base layer",
        Reason::KeyType(_) => "key type",
        Reason::NoSignature | Reason::NoSigstoreSignature { .. } => "none",
        Reason::Several(_) => "several",
        Reason::Digest(_) => "digest",
        Reason::Identity(_) => "identity",
        Reason::ProvidedDigest(_) => "provided digest",
        Reason::Unreadable { .. } => "unreadable",
        // Clients check its syntax since 2024-02 only; before that it just does not match.
        Reason::Claim(ClaimError::Digest(..)) => "digest",
        Reason::Mechanism(_) | Reason::Claim(_) => "other",
        other => panic!("a reason that no case should have: {other:?}"),
    }
}

/// The policy's own no, told from everything else that can go wrong, which is a broken test.
fn heard(ran: &Ran, label: &str) -> Answer {
    if ran.ok {
        return Answer { accepted: true, kind: "", sentence: String::new() };
    }
    let sentence = ran.stderr.trim().to_owned();
    let said = |text: &str| sentence.contains(text);
    let kinds = [
        ("invalid policy in", "policy"),
        ("None of the signatures were accepted", "several"),
        ("is rejected by policy", "reject"),
        ("signedBaseLayer not implemented yet", "base layer"),
        ("Unimplemented \\\"keyType\\\"", "key type"),
        ("but no signature exists", "none"),
        ("Signature for digest", "digest"),
        ("Signature for identity", "identity"),
        ("Manifest does not match provided manifest digest", "provided digest"),
        ("unrecognized signature format", "unreadable"),
        ("empty signature blob", "unreadable"),
        ("invalid signature format", "unreadable"),
        ("parsing signature", "unreadable"),
    ];
    let known = kinds.iter().find(|(text, _)| said(text)).map(|(_, kind)| *kind);
    assert!(
        known == Some("policy") || said("Source image rejected: "),
        "{label}: skopeo failed for no reason of the policy: {ran:#?}"
    );
    Answer { accepted: false, kind: known.unwrap_or("other"), sentence }
}
