//! What a stored signature says of itself: for finding out what to ask, and for display.

use jiff::Timestamp;

use crate::openpgp::{self, Fingerprint, InspectError, KeyId};
use crate::signature::{AttachmentError, BlobError, BlobKind, Claim, ClaimError, SigstoreAttachment, classify};

/// What a signature says of itself. Anybody could have written it.
#[derive(Clone, Debug)]
pub struct Unverified {
    /// What is claimed.
    pub claim: Claim,
    /// The key that it names; `None` for sigstore, which names none.
    pub key_id: Option<KeyId>,
    /// That key's fingerprint, if it is named; maybe a subkey's.
    pub fingerprint: Option<Fingerprint>,
    /// When it says that it was made.
    pub created: Option<Timestamp>,
}

/// Why a blob says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is no signature by its first bytes.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// It is no signed OpenPGP message.
    #[error(transparent)]
    Message(#[from] InspectError),
    /// It is no sigstore attachment.
    #[error(transparent)]
    Attachment(#[from] AttachmentError),
    /// It is a sigstore attachment, but no signature.
    #[error("a sigstore attachment of the type {0:?}, no signature")]
    NoSignature(String),
    /// What is signed is no claim.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

impl Unverified {
    /// Reads a stored signature of either form, verifying nothing.
    ///
    /// # Errors
    /// [`Unreadable`].
    pub fn read(blob: &[u8]) -> Result<Self, Unreadable> {
        match classify(blob)? {
            BlobKind::SimpleSigning(message) => {
                let said = openpgp::inspect(message)?;
                let claim = Claim::parse(&said.content)?;
                Ok(Self { claim, key_id: Some(said.key_id), fingerprint: said.fingerprint, created: said.created })
            }
            BlobKind::SigstoreJson(json) => {
                let attachment = SigstoreAttachment::parse(json)?;
                if !attachment.is_signature() {
                    return Err(Unreadable::NoSignature(attachment.mime_type.chars().take(80).collect()));
                }
                let claim = Claim::parse_sigstore(&attachment.payload)?;
                Ok(Self { claim, key_id: None, fingerprint: None, created: None })
            }
        }
    }

    /// Tells whether the signature names this key as its maker: by fingerprint, or by key ID where
    /// it has no fingerprint.
    pub fn names(&self, key: &Fingerprint) -> bool {
        match &self.fingerprint {
            Some(named) => named == key,
            None => self.key_id == Some(key.key_id()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::image::Digest;
    use crate::openpgp::{Signer as _, SoftSigner};

    #[test]
    fn says_who_it_names() {
        let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/alice.sec.asc");
        let now = SystemTime::now();
        let digest = Digest::sha256(b"x");
        let claim = Claim { reference: "r.example/a:1".to_owned(), digest, creator: None, timestamp: None };
        let signer = SoftSigner::load(&std::fs::read(key).unwrap(), None, now).unwrap();
        let unverified = Unverified::read(&signer.sign(&claim.render().unwrap(), now).unwrap()).unwrap();
        assert_eq!(unverified.claim, claim);
        let named = unverified.fingerprint.clone().unwrap();
        assert!(unverified.names(&named));
        let without = Unverified { fingerprint: None, ..unverified };
        assert!(without.names(&named));
        let other = Fingerprint::parse(&"A".repeat(40)).unwrap();
        assert!(!without.names(&other));
    }

    #[test]
    fn says_why_nothing_is_said() {
        assert!(matches!(Unverified::read(b"<html>"), Err(Unreadable::Blob(_))));
        assert!(matches!(Unverified::read(b"\xa3\x01"), Err(Unreadable::Message(_))));
        assert!(matches!(Unverified::read(b"\0sigstore-json\n["), Err(Unreadable::Attachment(_))));
        assert!(matches!(Unverified::read(b"\0sigstore-json\n{\"mimeType\":\"x\"}"), Err(Unreadable::NoSignature(_))));
    }
}
