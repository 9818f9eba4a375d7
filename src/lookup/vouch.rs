//! A stored signature on its own: what it says of itself, and whether a policy vouches for it
//! under the name and for the digest that it claims. Asked before a signature is admitted to a
//! store, and when a store is checked (design 5, rule 1).

use bytes::Bytes;
use jiff::Timestamp;

use crate::image::{Digest, ImageReference, Reference, ReferenceError};
use crate::openpgp::{self, Fingerprint, InspectError, KeyId};
use crate::policy::{
    self, AcceptedAuthor, Image, ManifestEvidence, Mechanism, MechanismError, Origin, Policy, Reason, Refusal,
    SignatureBlob,
};
use crate::signature::{BlobError, Claim, ClaimError, simple_signing};

/// What a simple signature says of itself. Anybody could have written it.
#[derive(Clone, Debug)]
pub struct Unverified {
    /// What is claimed.
    pub claim: Claim,
    /// The key that it names.
    pub key_id: KeyId,
    /// That key's fingerprint, if it is named; maybe a subkey's.
    pub fingerprint: Option<Fingerprint>,
    /// When it says that it was made.
    pub created: Option<Timestamp>,
}

/// Why a blob says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no simple signature by its first bytes.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// It is no signed OpenPGP message.
    #[error(transparent)]
    Message(#[from] InspectError),
    /// What is signed is no claim.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

impl Unverified {
    /// Reads a stored signature, verifying nothing.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(blob: &[u8]) -> Result<Self, Unreadable> {
        let said = openpgp::inspect(simple_signing(blob)?)?;
        let claim = Claim::parse(&said.content)?;
        Ok(Self { claim, key_id: said.key_id, fingerprint: said.fingerprint, created: said.created })
    }

    /// Tells whether the signature names this key as its maker: by fingerprint, or by key ID where
    /// it has no fingerprint.
    pub fn names(&self, key: &Fingerprint) -> bool {
        match &self.fingerprint {
            Some(named) => named == key,
            None => self.key_id == key.key_id(),
        }
    }
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
        let Self::Refused { refusal: Refusal::Rejected { reason, .. }, .. } = self else { return false };
        matches!(reason, Reason::Mechanism(MechanismError::Keys(_) | MechanismError::NoKeys))
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
/// decides the scope. `claim` is what [`Unverified::read`] found in `blob`; nothing of it counts
/// unless the policy accepts the same bytes. Which repository the claim may be of is not asked.
///
/// A claim without tag and digest is judged as one by `digest`.
///
/// # Errors
/// [`NotVouched`].
pub fn vouched(
    policy: &Policy,
    mechanism: &dyn Mechanism,
    claim: &Claim,
    digest: &Digest,
    blob: &Bytes,
) -> Result<AcceptedAuthor, NotVouched> {
    let reference = repository_named(claim)?;
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
    let accepted = policy::author_accepted(policy, &image, &signature, mechanism).map_err(|refusal| {
        let (_, requirements) = policy.docker_requirements(identity.as_reference());
        NotVouched::Refused { refusal, requirements: requirements.len() }
    })?;
    // The question was chosen by the unverified claim, so the answer must be about the same.
    if accepted.claim != *claim {
        return Err(NotVouched::Refused { refusal: Refusal::Inconsistent, requirements: 1 });
    }
    Ok(accepted)
}

/// Reads the name of a claim.
///
/// # Errors
/// [`NotVouched::Name`].
pub fn repository_named(claim: &Claim) -> Result<Reference, NotVouched> {
    Reference::parse(&claim.reference)
        .map_err(|reason| NotVouched::Name { name: claim.reference.chars().take(300).collect(), reason })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::lookup::OpenPgp;
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
    fn says_who_it_names() {
        let digest = Digest::sha256(b"x");
        let unverified = Unverified::read(&signed("r.example/a:1", &digest)).unwrap();
        let named = unverified.fingerprint.clone().unwrap();
        assert!(unverified.names(&named));
        let without = Unverified { fingerprint: None, ..unverified };
        assert!(without.names(&named));
        let other = Fingerprint::parse(&"A".repeat(40)).unwrap();
        assert!(!without.names(&other) && without.key_id != other.key_id());
        assert!(matches!(Unverified::read(b"<html>"), Err(Unreadable::Blob(_))));
        assert!(matches!(Unverified::read(b"\xa3\x01"), Err(Unreadable::Message(_))));
    }
}
