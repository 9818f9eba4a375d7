//! An uploaded signature, once its form is known.

use bytes::Bytes;

use crate::signature::{BlobError, BlobKind, classify};

/// An OpenPGP message in the only form in which the store keeps it: without a format line in front, and not to be
/// mistaken for one that has it. Every later step takes this type, so none has to look at the form again.
#[derive(Clone, Debug)]
pub(crate) struct SignatureMessage(Bytes);

/// Why an upload is no signature in this form. The sentences are for the uploader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("ASCII armour and cleartext signatures are not accepted, only binary ones: {0}")]
    Armoured(#[source] BlobError),
    #[error(transparent)]
    Form(#[from] BlobError),
    #[error("the content has two format prefixes")]
    TwoPrefixes,
}

impl SignatureMessage {
    /// Reads what a client sent: a message, or one behind the line `simple-signing`.
    ///
    /// # Errors
    /// [`MessageError`].
    pub(crate) fn parse(blob: &Bytes) -> Result<Self, MessageError> {
        let message = match classify(blob) {
            Ok(BlobKind::SimpleSigning(message)) => message,
            Ok(BlobKind::SigstoreJson(_)) => return Err(BlobError::NotSimpleSigning.into()),
            Err(error) if blob.starts_with(b"-----BEGIN PGP") => return Err(MessageError::Armoured(error)),
            Err(error) => return Err(error.into()),
        };
        if message.len() < blob.len() {
            // Clients would read the message's own first bytes as a format line.
            match classify(message)? {
                BlobKind::SimpleSigning(inner) if inner.len() == message.len() => {}
                _ => return Err(MessageError::TwoPrefixes),
            }
        }
        Ok(Self(blob.slice_ref(message)))
    }

    /// Returns the message's bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_raw_messages_with_and_without_the_format_line() {
        for blob in [&b"\xa3abc"[..], b"\0simple-signing\n\xa3abc"] {
            assert_eq!(SignatureMessage::parse(&Bytes::from_static(blob)).unwrap().bytes(), &b"\xa3abc"[..]);
        }
    }

    #[test]
    fn refuses_other_forms_with_a_reason() {
        let refused = |blob: &'static [u8]| SignatureMessage::parse(&Bytes::from_static(blob)).unwrap_err();
        assert_eq!(refused(b"\0sigstore-json\n{}"), BlobError::NotSimpleSigning.into());
        assert_eq!(refused(b"\0simple-signing\n\0simple-signing\n\xa3"), MessageError::TwoPrefixes);
        assert_eq!(refused(b"\0simple-signing\n\0sigstore-json\n{}"), MessageError::TwoPrefixes);
        assert_eq!(refused(b"\0simple-signing\n"), BlobError::Empty.into());
        assert!(matches!(refused(b"-----BEGIN PGP MESSAGE-----"), MessageError::Armoured(_)));
        assert!(matches!(refused(b"<html>"), MessageError::Form(BlobError::UnknownBinary(b'<'))));
    }
}
