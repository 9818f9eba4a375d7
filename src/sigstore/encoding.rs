//! Base64 as Go's `base64.StdEncoding` reads it: padding required, line breaks ignored, spare bits
//! not looked at. Every base64 text of a sigstore signature goes through here.

use base64::DecodeError;
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const GO_STANDARD: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A text that is no base64. The sentence is Go's; the number is the offset of the first bad byte,
/// or of the group of four that is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("illegal base64 data at input byte {0}")]
pub struct Base64Error(pub usize);

/// Decodes `text`.
pub(super) fn base64(text: &[u8]) -> Result<Vec<u8>, Base64Error> {
    let kept: Vec<u8> = text.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    GO_STANDARD.decode(&kept).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) => at,
            _ => kept.len() / 4 * 4,
        };
        let mut positions = text.iter().enumerate().filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'));
        Base64Error(positions.nth(at).map_or(text.len(), |(position, _)| position))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        assert_eq!(base64(b""), Ok(Vec::new()));
        assert_eq!(base64(b"Y\r\nWI=\n"), Ok(b"ab".to_vec()));
        assert_eq!(base64(b"YWJ="), Ok(b"ab".to_vec()), "spare bits are not looked at");
        for (bad, at) in [("YWI", 0), ("YWI=YWI=", 3), ("YW I=", 2), ("YWJj-_", 4), ("YWJjYQ", 4), ("YWI==", 3)] {
            assert!(base64(bad.as_bytes()).is_err(), "{bad}");
            if !bad.contains('=') {
                assert_eq!(base64(bad.as_bytes()), Err(Base64Error(at)), "{bad}");
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let _ = base64(&bytes);
        }
    }
}
