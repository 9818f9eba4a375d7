//! The names of keys: fingerprints and 64-bit key IDs, upper-case hex as everybody prints them.

use std::fmt;
use std::str::FromStr;

/// The fingerprint of an OpenPGP key: 40 (or, for version 6 keys, 64) upper-case hex digits.
///
/// The identity of a signer is the fingerprint of the *primary* key (spec containers-image 4.4).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(Box<str>);

/// Text that is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no OpenPGP fingerprint: 40 or 64 hex digits expected, without spaces")]
pub struct FingerprintError(String);

impl Fingerprint {
    /// Reads a fingerprint in either case; it is kept and printed in upper case.
    ///
    /// # Errors
    /// [`FingerprintError`] for anything but 40 or 64 hex digits.
    pub fn parse(text: &str) -> Result<Self, FingerprintError> {
        if matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self(text.to_ascii_uppercase().into()));
        }
        // A key or a whole file given by mistake must not fill the log.
        Err(FingerprintError(text.chars().take(80).collect()))
    }

    /// Returns the hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(hex::encode_upper(bytes).into())
    }

    pub(super) fn of<P, R>(key: &sequoia_openpgp::packet::Key<P, R>) -> Self
    where
        P: sequoia_openpgp::packet::key::KeyParts,
        R: sequoia_openpgp::packet::key::KeyRole,
    {
        Self::from_bytes(key.fingerprint().as_bytes())
    }

    /// Returns the key ID: the last 8 octets of a version 4 fingerprint, the first 8 of a version 6 one.
    pub fn key_id(&self) -> KeyId {
        let digits = if self.0.len() == 40 { self.0.get(24..) } else { self.0.get(..16) };
        let number = digits.and_then(|d| u64::from_str_radix(d, 16).ok());
        KeyId(number.unwrap_or_default().to_be_bytes())
    }
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        Self::parse(text)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A 64-bit key ID, printed as 16 upper-case hex digits. A hint where to look, never a proof.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub(super) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::LowerHex for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl serde::Serialize for KeyId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_case_is_read_and_upper_case_is_printed() {
        let text = "0123456789abcdef0123456789ABCDEF89abcdef";
        let fingerprint: Fingerprint = text.parse().unwrap();
        assert_eq!(fingerprint.to_string(), text.to_uppercase());
        assert_eq!(fingerprint.key_id().to_string(), "89ABCDEF89ABCDEF");
        assert_eq!(format!("{:x}", fingerprint.key_id()), "89abcdef89abcdef");
        assert_eq!(Fingerprint::parse(&"A".repeat(64)).unwrap().key_id().to_string(), "A".repeat(16));
        assert_eq!(serde_json::to_string(&fingerprint).unwrap(), format!("\"{}\"", text.to_uppercase()));
    }

    #[test]
    fn nothing_else_is_a_fingerprint() {
        for bad in ["", "89ABCDEF", &"A".repeat(41), &"G".repeat(40), &format!("0x{}", "A".repeat(38)), &"é".repeat(20)]
        {
            assert!(Fingerprint::parse(bad).is_err(), "{bad}");
        }
        assert!(Fingerprint::parse(&"x".repeat(10_000)).unwrap_err().to_string().len() < 200);
    }
}
