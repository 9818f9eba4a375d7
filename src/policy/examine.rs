//! One signature against one requirement, in the order that matters: cryptography and signer,
//! then the claim, then its digest, then its name (spec containers-image 4.2). Nothing of a
//! payload is parsed before it is verified.

use std::cell::OnceCell;

use super::evidence::{Form, Image, ManifestEvidence};
use super::identity::IdentityMatch;
use super::mechanism::{Mechanism, SignedContent};
use super::reason::Reason;
use super::requirement::{KeyType, Requirement, SignedBy};
use super::sigstore::SigstoreSigned;
use crate::image::{Algorithm, Digest, manifest_digest};
use crate::signature::Claim;
use crate::signature::SigstoreAttachment;

/// What came of one signature under one requirement.
#[derive(Clone, Debug)]
pub(super) struct Examined {
    /// Accepted, or why not.
    pub verdict: Result<(), Reason>,
    /// Who signed; there only if the cryptography held.
    pub signed: Option<SignedContent>,
    /// What is claimed; there only if the cryptography held.
    pub claim: Option<Claim>,
}

impl Examined {
    fn rejected(reason: impl Into<Reason>) -> Self {
        Self { verdict: Err(reason.into()), signed: None, claim: None }
    }
}

pub(super) struct Examiner<'a> {
    image: &'a Image<'a>,
    mechanism: &'a dyn Mechanism,
    manifest: OnceCell<Result<Digest, Reason>>,
}

impl<'a> Examiner<'a> {
    pub(super) fn new(image: &'a Image<'a>, mechanism: &'a dyn Mechanism) -> Self {
        Self { image, mechanism, manifest: OnceCell::new() }
    }

    /// Examines a signature; `None` when the requirement does not look at signatures of its form.
    pub(super) fn examine(&self, requirement: &Requirement, form: &Form<'_>) -> Option<Examined> {
        match (requirement, form) {
            (Requirement::SignedBy(signed_by), Form::Simple(message)) => Some(self.signed_by(signed_by, message)),
            (Requirement::SigstoreSigned(signed), Form::Sigstore(attachment)) if attachment.is_signature() => {
                Some(self.sigstore_signed(signed, attachment))
            }
            _ => None,
        }
    }

    pub(super) fn signed_by(&self, requirement: &SignedBy, message: &[u8]) -> Examined {
        if requirement.key_type != KeyType::GpgKeys {
            return Examined::rejected(Reason::KeyType(requirement.key_type));
        }
        let signed = match self.mechanism.verify(message, &requirement.keys) {
            Ok(signed) => signed,
            Err(error) => return Examined::rejected(error),
        };
        let examined = match Claim::parse(&signed.content) {
            Ok(claim) => self.claimed(claim, &requirement.identity),
            Err(error) => Examined::rejected(error),
        };
        Examined { signed: Some(signed), ..examined }
    }

    fn sigstore_signed(&self, requirement: &SigstoreSigned, attachment: &SigstoreAttachment) -> Examined {
        let payload = match self.mechanism.verify_sigstore(attachment, requirement) {
            Ok(payload) => payload,
            Err(error) => return Examined::rejected(error),
        };
        match Claim::parse_sigstore(&payload) {
            Ok(claim) => self.claimed(claim, &requirement.identity),
            Err(error) => Examined::rejected(error),
        }
    }

    /// Compares a verified claim with the image: the digest first, then the name.
    fn claimed(&self, claim: Claim, identity: &IdentityMatch) -> Examined {
        let verdict = self.check_digest(&claim.digest).and_then(|()| {
            if identity.accepts(self.image.reference, &claim.reference) {
                Ok(())
            } else {
                Err(Reason::Identity(claim.reference.clone()))
            }
        });
        Examined { verdict, signed: None, claim: Some(claim) }
    }

    fn check_digest(&self, claimed: &Digest) -> Result<(), Reason> {
        let actual = self.manifest.get_or_init(|| self.read_manifest()).as_ref().map_err(Reason::clone)?;
        if same(actual, claimed) { Ok(()) } else { Err(Reason::Digest(claimed.clone())) }
    }

    /// Reading the manifest includes the check that it is the one that was asked for.
    fn read_manifest(&self) -> Result<Digest, Reason> {
        let actual = match self.image.manifest {
            ManifestEvidence::Bytes(bytes) => manifest_digest(bytes).map_err(|e| Reason::Manifest(e.to_string()))?,
            ManifestEvidence::Digest(digest) => digest.clone(),
        };
        let of_reference = || self.image.reference.and_then(|reference| reference.digest());
        match self.image.instance.or_else(of_reference) {
            Some(provided) if !same(&actual, provided) => Err(Reason::ProvidedDigest(provided.clone())),
            _ => Ok(actual),
        }
    }
}

/// containers/image computes SHA-256 only, so no other digest ever matches (spec 4.6).
fn same(actual: &Digest, stated: &Digest) -> bool {
    actual == stated && actual.algorithm() == Algorithm::Sha256
}
