//! Whether a policy vouches for a signature on its own, under the name and for the digest that it
//! claims. Asked before a signature is admitted to a store, and when a store is checked
//! (design 5, rule 1).

use bytes::Bytes;

use crate::image::{Digest, ImageReference, Reference, ReferenceError};
use crate::policy::{
    self, Image, ManifestEvidence, Mechanism, MechanismError, Options, Origin, Policy, Reason, Refusal, Requirement,
    ScopeMatch, SignatureBlob, Signatures,
};
use crate::signature::{BlobKind, Claim, classify};

/// A signature that a policy vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// Which part of the policy spoke.
    pub scope: ScopeMatch,
    /// The fingerprint of the signer's primary key; `None` for sigstore.
    pub fingerprint: Option<String>,
    /// When it was made, Unix seconds; `None` for sigstore.
    pub created: Option<i64>,
    /// What the cryptography remarked.
    pub warnings: Vec<String>,
}

/// Why nobody vouches for a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotVouched {
    /// The claim's name cannot be any image's.
    #[error("the claim's name {name:?} is no image name: {reason}")]
    Name {
        /// The name, as it is claimed.
        name: String,
        /// What is wrong with it.
        reason: ReferenceError,
    },
    /// The claim is for another manifest.
    #[error("the claim is for {claimed}, not for {wanted}")]
    Digest {
        /// What is claimed.
        claimed: Digest,
        /// What it was asked about.
        wanted: Digest,
    },
    /// The policy refuses a sigstore signature.
    #[error("{reason} (scope {scope} of the policy)")]
    Sigstore {
        /// Why.
        reason: Reason,
        /// Which part of the policy spoke.
        scope: ScopeMatch,
    },
    /// The policy refuses.
    #[error("{refusal}{}", place(.refusal, *.requirements))]
    Refused {
        /// Why.
        refusal: Refusal,
        /// How many requirements the scope has.
        requirements: usize,
    },
}

impl NotVouched {
    /// Tells whether the policy's keys could not be had, so that this is no answer at all.
    pub fn is_without_keys(&self) -> bool {
        match self {
            Self::Refused { refusal: Refusal::Rejected { reason, .. }, .. } | Self::Sigstore { reason, .. } => {
                matches!(reason, Reason::Mechanism(MechanismError::Keys(_) | MechanismError::NoKeys))
            }
            _ => false,
        }
    }
}

fn place(refusal: &Refusal, requirements: usize) -> String {
    match refusal {
        Refusal::Rejected { scope, requirement, .. } if requirements > 1 => format!(
            " (requirement {} of {requirements} in scope {scope} of the policy; a signature must fulfil all of them)",
            requirement + 1
        ),
        Refusal::Rejected { scope, .. } => format!(" (scope {scope} of the policy)"),
        _ => String::new(),
    }
}

/// Asks a policy about a signature under its own name: the claim's name is the image's, and so it
/// decides the scope. `claim` is what [`super::Unverified::read`] found in `blob`; nothing of it
/// counts unless the policy accepts the same bytes. Which repository the claim may be of is not
/// asked.
///
/// A simple signature must have an accepted author ([`policy::author_accepted`]); a sigstore
/// signature, of which that says nothing, must be accepted by one `sigstoreSigned` requirement of
/// a scope that does not `reject`. A claim without tag and digest is judged as one by `digest`.
///
/// # Errors
/// [`NotVouched`].
pub fn vouched(
    policy: &Policy,
    mechanism: &dyn Mechanism,
    claim: &Claim,
    digest: &Digest,
    blob: &Bytes,
) -> Result<Vouched, NotVouched> {
    let reference = name_of(claim)?;
    if claim.digest != *digest {
        return Err(NotVouched::Digest { claimed: claim.digest.clone(), wanted: digest.clone() });
    }
    let identity = if reference.is_name_only() {
        Reference::new(reference.repository().clone(), None, Some(digest.clone()))
    } else {
        reference
    };
    let identity = ImageReference::from_reference(identity)
        .map_err(|reason| NotVouched::Name { name: claim.reference.clone(), reason })?;
    let image = Image::docker(&identity, ManifestEvidence::Digest(digest));
    let signature = SignatureBlob { origin: Origin::Url("the signature".to_owned()), bytes: blob.clone() };
    if matches!(classify(blob), Ok(BlobKind::SigstoreJson(_))) {
        return sigstore(policy, mechanism, claim, &identity, &image, &signature);
    }
    let accepted = policy::author_accepted(policy, &image, &signature, mechanism).map_err(|refusal| {
        let (_, requirements) = policy.docker_requirements(identity.as_reference());
        NotVouched::Refused { refusal, requirements: requirements.len() }
    })?;
    // The question was chosen by the unverified claim, so the answer must be about the same.
    if accepted.claim != *claim {
        return Err(NotVouched::Refused { refusal: Refusal::Inconsistent, requirements: 1 });
    }
    Ok(Vouched {
        scope: accepted.scope,
        fingerprint: Some(accepted.fingerprint),
        created: Some(accepted.created),
        warnings: accepted.warnings,
    })
}

fn sigstore(
    policy: &Policy,
    mechanism: &dyn Mechanism,
    claim: &Claim,
    identity: &ImageReference,
    image: &Image<'_>,
    signature: &SignatureBlob,
) -> Result<Vouched, NotVouched> {
    let (scope, requirements) = policy.docker_requirements(identity.as_reference());
    let refused = |reason| Err(NotVouched::Sigstore { reason, scope: scope.clone() });
    if requirements.contains(&Requirement::Reject) {
        return refused(Reason::SignaturesRejected { image: image.name.clone() });
    }
    let found = std::slice::from_ref(signature);
    let decision = policy::decide(policy, image, Signatures::Found(found), mechanism, Options::default());
    let Some(verdict) = decision.signatures.into_iter().next() else { return refused(Reason::NotExamined) };
    if !verdict.accepted {
        return refused(verdict.reason.unwrap_or(Reason::NotExamined));
    }
    let same = verdict.claimed_digest.as_ref() == Some(&claim.digest)
        && verdict.claimed_reference.as_ref() == Some(&claim.reference);
    if !same {
        return Err(NotVouched::Refused { refusal: Refusal::Inconsistent, requirements: 1 });
    }
    Ok(Vouched { scope, fingerprint: None, created: None, warnings: verdict.warnings })
}

/// Reads the name of a claim.
///
/// # Errors
/// [`NotVouched::Name`].
pub fn name_of(claim: &Claim) -> Result<Reference, NotVouched> {
    Reference::parse(&claim.reference)
        .map_err(|reason| NotVouched::Name { name: claim.reference.chars().take(300).collect(), reason })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::lookup::{OpenPgp, Unverified};
    use crate::openpgp::{Signer as _, SoftSigner};

    fn key(file: &str) -> String {
        format!("{}/tests/data/keys/{file}.asc", env!("CARGO_MANIFEST_DIR"))
    }

    fn signed(reference: &str, digest: &Digest) -> Bytes {
        let now = SystemTime::now();
        let claim = Claim { reference: reference.to_owned(), digest: digest.clone(), creator: None, timestamp: None };
        let signer = SoftSigner::load(&std::fs::read(key("alice.sec")).unwrap(), None, now).unwrap();
        signer.sign(&claim.render().unwrap(), now).unwrap().into()
    }

    fn ask(policy: &str, reference: &str, signed_for: &Digest, digest: &Digest) -> Result<String, String> {
        let policy = Policy::parse(policy.as_bytes()).unwrap();
        let mechanism = OpenPgp::at(SystemTime::now() + Duration::from_secs(1));
        let blob = signed(reference, signed_for);
        let unverified = Unverified::read(&blob).unwrap();
        vouched(&policy, &mechanism, &unverified.claim, digest, &blob)
            .map(|accepted| accepted.scope.to_string())
            .map_err(|e| e.to_string())
    }

    fn signed_by(name: &str) -> String {
        format!(r#"{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{}"}}"#, key(&format!("{name}.pub")))
    }

    #[test]
    fn the_claims_own_name_finds_the_scope() {
        let (alice, bob) = (signed_by("alice"), signed_by("bob"));
        let policy = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"r.example/a":[{alice}],"r.example/b":[{bob}],"any.example":[{{"type":"insecureAcceptAnything"}}],"two.example":[{alice},{bob}]}}}}}}"#
        );
        let digest = Digest::sha256(b"x");
        let ask = |reference: &str| ask(&policy, reference, &digest, &digest);
        assert_eq!(ask("r.example/a/x:1").as_deref(), Ok("r.example/a"));
        assert_eq!(ask(&format!("r.example/a/x@{digest}")).as_deref(), Ok("r.example/a"));
        assert!(ask("r.example/b/x:1").unwrap_err().ends_with("(scope r.example/b of the policy)"));
        assert!(
            ask("other.example/x:1").unwrap_err().starts_with("Any signatures for image docker://other.example/x:1")
        );
        assert!(ask("any.example/x:1").unwrap_err().contains("nobody vouches"));
        let two = ask("two.example/x:1").unwrap_err();
        assert!(two.contains("requirement 2 of 2 in scope two.example"), "{two}");
        assert!(ask("r.example/a/x").unwrap_err().contains("is not accepted"), "a name alone matches nothing");
        assert!(ask("NO NAME").unwrap_err().contains(r#"the claim's name "NO NAME" is no image name"#));
        assert!(ask(&format!("r.example/a/x:1@{digest}")).is_err(), "no client asks for both");
    }

    #[test]
    fn a_claim_for_another_manifest_is_none() {
        let policy = format!(r#"{{"default":[{}]}}"#, signed_by("alice"));
        let (one, two) = (Digest::sha256(b"1"), Digest::sha256(b"2"));
        assert_eq!(ask(&policy, "r.example/a:1", &one, &one).as_deref(), Ok("default"));
        assert_eq!(ask(&policy, "r.example/a:1", &one, &two), Err(format!("the claim is for {one}, not for {two}")));
        // The claim that the question is built from is not the one that is signed.
        let parsed = Policy::parse(policy.as_bytes()).unwrap();
        let blob = signed("r.example/a:1", &one);
        let mut forged = Unverified::read(&blob).unwrap().claim;
        forged.digest = two.clone();
        let mechanism = OpenPgp::now();
        assert!(vouched(&parsed, &mechanism, &forged, &two, &blob).is_err());
        let mut renamed = Unverified::read(&blob).unwrap().claim;
        renamed.creator = Some("x".to_owned());
        let inconsistent = vouched(&parsed, &mechanism, &renamed, &one, &blob).unwrap_err();
        assert!(matches!(inconsistent, NotVouched::Refused { refusal: Refusal::Inconsistent, .. }));
    }

    #[test]
    fn missing_keys_are_no_answer() {
        let digest = Digest::sha256(b"x");
        for file in ["/nowhere", "/dev/null"] {
            let policy = format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{file}"}}]}}"#);
            let policy = Policy::parse(policy.as_bytes()).unwrap();
            let blob = signed("r.example/a:1", &digest);
            let claim = Unverified::read(&blob).unwrap().claim;
            let not = vouched(&policy, &OpenPgp::now(), &claim, &digest, &blob).unwrap_err();
            assert!(not.is_without_keys(), "{not}");
        }
        let bob = Policy::parse(format!(r#"{{"default":[{}]}}"#, signed_by("bob")).as_bytes()).unwrap();
        let blob = signed("r.example/a:1", &digest);
        let claim = Unverified::read(&blob).unwrap().claim;
        assert!(!vouched(&bob, &OpenPgp::now(), &claim, &digest, &blob).unwrap_err().is_without_keys());
    }

    #[test]
    fn sigstore_by_its_own_requirement() {
        let data = |name: &str| format!("{}/tests/data/sigstore/{name}", env!("CARGO_MANIFEST_DIR"));
        let blob = Bytes::from(std::fs::read(data("ecdsa-p256.signature-1")).unwrap());
        let claim = Unverified::read(&blob).unwrap().claim;
        let digest = claim.digest.clone();
        let by = |key: &str| {
            format!(
                r#"{{"type":"sigstoreSigned","keyPath":"{}","signedIdentity":{{"type":"matchRepository"}}}}"#,
                data(key)
            )
        };
        let ask = |list: &str| {
            let policy = Policy::parse(format!(r#"{{"default":[{list}]}}"#).as_bytes()).unwrap();
            vouched(&policy, &OpenPgp::now(), &claim, &digest, &blob).map_err(|e| e.to_string())
        };
        assert_eq!(ask(&by("ecdsa-p256.pub")).map(|vouched| vouched.scope), Ok(ScopeMatch::Default));
        assert!(
            ask(&format!("{},{}", signed_by("alice"), by("ecdsa-p256.pub"))).is_ok(),
            "signedBy says nothing of it"
        );
        assert!(ask(&by("ecdsa-p384.pub")).is_err());
        assert!(ask(&signed_by("alice")).unwrap_err().contains("not examined"));
        assert!(ask(r#"{"type":"insecureAcceptAnything"}"#).is_err(), "nobody vouches");
        assert!(ask(&format!(r#"{},{{"type":"reject"}}"#, by("ecdsa-p256.pub"))).unwrap_err().contains("are rejected"));
        let policy = Policy::parse(format!(r#"{{"default":[{}]}}"#, by("ecdsa-p256.pub")).as_bytes()).unwrap();
        let other = Digest::sha256(b"other");
        assert!(vouched(&policy, &OpenPgp::now(), &claim, &other, &blob).is_err());
        let forged = Claim { digest: other.clone(), ..claim.clone() };
        assert!(vouched(&policy, &OpenPgp::now(), &forged, &other, &blob).is_err());
    }
}
