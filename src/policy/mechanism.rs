//! The one question that the policy asks of cryptography. Owned here, answered elsewhere, so that
//! the decision table is tested without a key.

use super::requirement::KeySource;
use super::sigstore::{SigstoreSigned, SigstoreTrust};
use crate::signature::SigstoreAttachment;

/// What a verified OpenPGP message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedContent {
    /// The signed bytes.
    pub content: Vec<u8>,
    /// The fingerprint of the signer's primary key, upper-case hex.
    pub fingerprint: String,
    /// The fingerprint of the key that made the signature: the primary one or a subkey.
    pub signing_key: String,
    /// What is good to know though it does not matter for the decision.
    pub warnings: Vec<String>,
    /// When the signature says that it was made, Unix seconds.
    pub created: i64,
}

/// Why a signature was not verified. Each holds the whole sentence of the mechanism.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MechanismError {
    /// The keys of the requirement cannot be read: `open /keys/x: no such file or directory`.
    #[error("{0}")]
    Keys(String),
    /// The keys of the requirement could be read, but there is none among them.
    #[error("No public keys imported")]
    NoKeys,
    /// The message is no signature, is broken, or was made by another key.
    #[error("{0}")]
    Signature(String),
    /// The signature is good, but the key that made it is none of the requirement's.
    #[error("signature by key {signing_key} of {fingerprint} is not accepted")]
    Signer {
        /// The key that made the signature.
        signing_key: String,
        /// Its primary key.
        fingerprint: String,
    },
    /// This mechanism cannot verify such signatures.
    #[error("{0}")]
    Unsupported(String),
}

/// Verifies signatures.
pub trait Mechanism: Send + Sync {
    /// Verifies a simple-signing message against the keys of `keys`, and nothing else: only a
    /// signature by one of these keys (or a subkey of one) may be accepted.
    ///
    /// Key files are read at this point, anew or from a cache that notices changes; a single one
    /// that cannot be read fails (spec containers-image 4.4).
    ///
    /// # Errors
    /// [`MechanismError`], whose sentence becomes the reason of the rejection.
    fn verify(&self, message: &[u8], keys: &KeySource) -> Result<SignedContent, MechanismError>;

    /// Verifies a sigstore signature against the trust root of a requirement, and returns the
    /// payload that it covers. The caller compares digest and identity.
    ///
    /// # Errors
    /// [`MechanismError`]; a mechanism that knows no sigstore refuses and says what it would take.
    fn verify_sigstore(
        &self,
        _signature: &SigstoreAttachment,
        requirement: &SigstoreSigned,
    ) -> Result<Vec<u8>, MechanismError> {
        let trust = match requirement.trust {
            SigstoreTrust::Keys(_) => "public keys",
            SigstoreTrust::Fulcio(_) => "Fulcio certificates",
            SigstoreTrust::Pki(_) => "certificates of an own authority (pki)",
        };
        let log = if requirement.rekor.is_some() { " and a Rekor log" } else { "" };
        Err(MechanismError::Unsupported(format!(
            "sigstoreSigned by {trust}{log} is not supported here: only signedBy with GPGKeys can be verified"
        )))
    }
}
