//! What kind of thing a stored signature is, decided by its first bytes as containers/image
//! decides it when reading a lookaside (spec containers-image 6).

/// The most bytes that clients read of one signature, and so the most that is ever stored.
pub const BLOB_LIMIT: usize = 4 * 1024 * 1024;

/// A signature's stored form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind<'a> {
    /// An OpenPGP message holding a simple-signing claim.
    SimpleSigning(&'a [u8]),
    /// A sigstore signature as containers/image stores it: the JSON after the format line.
    SigstoreJson(&'a [u8]),
}

/// Why bytes are no signature. The sentences are containers/image's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// Nothing there.
    #[error("empty signature blob")]
    Empty,
    /// The format line does not end.
    #[error("invalid signature format, missing newline")]
    NoNewline,
    /// The format line has a byte that is not printable ASCII.
    #[error("invalid signature format, non-ASCII byte {0:#x}")]
    NotAscii(u8),
    /// A format that nobody knows.
    #[error("unrecognized signature format {0:?}")]
    UnknownFormat(String),
    /// Armour, HTML, JSON or anything else.
    #[error("unrecognized signature format, starting with binary {0:#x}")]
    UnknownBinary(u8),
    /// More bytes than any client would read.
    #[error("exceeded maximum allowed size of {BLOB_LIMIT} bytes")]
    TooLarge,
    /// A sigstore signature where only simple signing has a place.
    #[error("signature is in sigstore-json form, simple signing expected")]
    NotSimpleSigning,
}

/// Tells what `blob` is.
///
/// # Errors
/// [`BlobError`], exactly where containers/image would fail the pull.
pub fn classify(blob: &[u8]) -> Result<BlobKind<'_>, BlobError> {
    let Some((&first, rest)) = blob.split_first() else { return Err(BlobError::Empty) };
    if blob.len() > BLOB_LIMIT {
        return Err(BlobError::TooLarge);
    }
    match first {
        // OpenPGP packet tags of a compressed message, a one-pass signature and a signature.
        // 0x3D is upstream's slip for 0x93: no OpenPGP begins so, and 0x93 is refused by clients.
        0xA0..=0xA3 | 0xC8 | 0x90..=0x92 | 0x3D | 0xC4 | 0x88..=0x8B | 0xC2 => Ok(BlobKind::SimpleSigning(blob)),
        0 => {
            let end = rest.iter().position(|b| *b == b'\n').ok_or(BlobError::NoNewline)?;
            let (format, data) = rest.split_at(end);
            let data = data.get(1..).unwrap_or_default();
            if let Some(bad) = format.iter().find(|b| !(b' '..=b'~').contains(b)) {
                return Err(BlobError::NotAscii(*bad));
            }
            match format {
                b"simple-signing" => Ok(BlobKind::SimpleSigning(data)),
                b"sigstore-json" => Ok(BlobKind::SigstoreJson(data)),
                other => Err(BlobError::UnknownFormat(String::from_utf8_lossy(other).into_owned())),
            }
        }
        other => Err(BlobError::UnknownBinary(other)),
    }
}

/// Returns the OpenPGP message of a simple-signing blob.
///
/// # Errors
/// [`BlobError`]; [`BlobError::NotSimpleSigning`] for a valid blob of the other kind.
pub fn simple_signing(blob: &[u8]) -> Result<&[u8], BlobError> {
    match classify(blob)? {
        BlobKind::SimpleSigning(message) => Ok(message),
        BlobKind::SigstoreJson(_) => Err(BlobError::NotSimpleSigning),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_decides() {
        let known = [0xA0, 0xA1, 0xA2, 0xA3, 0xC8, 0x90, 0x91, 0x92, 0x3D, 0xC4, 0x88, 0x89, 0x8A, 0x8B, 0xC2];
        for first in 1..=255u8 {
            let blob = [first, 1, 2];
            let expected = if known.contains(&first) {
                Ok(BlobKind::SimpleSigning(&blob[..]))
            } else {
                Err(BlobError::UnknownBinary(first))
            };
            assert_eq!(classify(&blob), expected, "{first:#x}");
        }
    }

    #[test]
    fn the_format_line_decides() {
        assert_eq!(classify(b"\0simple-signing\nx"), Ok(BlobKind::SimpleSigning(b"x")));
        assert_eq!(classify(b"\0sigstore-json\n{}"), Ok(BlobKind::SigstoreJson(b"{}")));
        assert_eq!(classify(b"\0sigstore-json\n"), Ok(BlobKind::SigstoreJson(b"")));
        for (blob, sentence) in [
            (&b""[..], "empty signature blob"),
            (b"\0simple-signing", "invalid signature format, missing newline"),
            (b"\0a\x07b\n", "invalid signature format, non-ASCII byte 0x7"),
            (b"\0other\nx", "unrecognized signature format \"other\""),
            (b"-----BEGIN", "unrecognized signature format, starting with binary 0x2d"),
            (b"<html>", "unrecognized signature format, starting with binary 0x3c"),
        ] {
            assert_eq!(classify(blob).unwrap_err().to_string(), sentence);
        }
        assert_eq!(simple_signing(b"\0sigstore-json\n{}"), Err(BlobError::NotSimpleSigning));
        assert_eq!(classify(&vec![0xA3; BLOB_LIMIT + 1]), Err(BlobError::TooLarge));
    }
}
