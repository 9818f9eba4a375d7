//! What a signature *says*, verified by nothing: for display only (spec containers-image 4.5).

use jiff::Timestamp;

use super::fingerprint::{Fingerprint, KeyId};
use super::message::{self, MessageError};

/// The claims of a signature. Anybody could have written them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted {
    /// The signed content, verbatim.
    pub content: Vec<u8>,
    /// The key ID from the one-pass packet, or else from the signature packet.
    pub key_id: KeyId,
    /// The fingerprint of the signing key (maybe a subkey), if the signature names it.
    pub fingerprint: Option<Fingerprint>,
    /// When it says that it was made.
    pub created: Option<Timestamp>,
}

/// Why nothing can be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// No signed content can be found in it.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// No part of the message names a key.
    #[error("the signature does not name the key that made it")]
    NoIssuer,
}

/// Reads a signature without verifying it. Damaged, expired, revoked and foreign ones can be read;
/// of a message with several signatures, the first is shown.
///
/// # Errors
/// [`InspectError`] for unsigned, encrypted, detached, armoured and cleartext messages.
pub fn inspect(message: &[u8]) -> Result<Untrusted, InspectError> {
    let message::Glance { content, one_pass, signature } = message::glance(message)?;
    let said = signature.as_ref().map(|s| &s.subpackets);
    let fingerprint = said.and_then(|s| s.issuer_fingerprints.first().cloned());
    let key_id = one_pass
        .map(|p| p.issuer)
        .or_else(|| said.and_then(|s| s.issuers.first().copied()))
        .or_else(|| fingerprint.as_ref().map(Fingerprint::key_id))
        .ok_or(InspectError::NoIssuer)?;
    let created = said.and_then(|s| s.created).and_then(|s| Timestamp::from_second(s.into()).ok());
    Ok(Untrusted { content, key_id, fingerprint, created })
}
