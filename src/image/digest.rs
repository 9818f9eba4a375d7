//! Content digests (`sha256:…`), checked once and then safe to put into paths and URLs.
//!
//! Grammar and error sentences are those of Go's `opencontainers/go-digest`, which
//! containers/image repeats to its users (spec containers-image 4.2, 2.1).

use std::fmt;

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// A hash algorithm that containers/image accepts in digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, 64 hex digits; the only one that signatures are ever made for in practice.
    Sha256,
    /// SHA-384, 96 hex digits.
    Sha384,
    /// SHA-512, 128 hex digits.
    Sha512,
}

impl Algorithm {
    /// Returns the name as digests spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// Returns the number of hex digits of a digest of this algorithm.
    pub fn hex_length(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha384 => 96,
            Self::Sha512 => 128,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha384" => Some(Self::Sha384),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }
}

/// Why a string is no digest. The sentences are go-digest's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text has not the form `algorithm:hex`, or its hex is not lower case.
    #[error("invalid checksum digest format")]
    Format,
    /// The algorithm is known but the number of digits is not its own.
    #[error("invalid checksum digest length")]
    Length,
    /// The form is right but the algorithm is not one of sha256, sha384 and sha512.
    #[error("unsupported digest algorithm")]
    Unsupported,
}

/// A valid digest: a known algorithm and lower-case hex of exactly its length.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl Digest {
    /// Parses `algorithm:hex`.
    ///
    /// # Errors
    /// [`DigestError`], with the sentence that go-digest gives for the same text.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once(':').ok_or(DigestError::Format)?;
        if name.is_empty() || hex.is_empty() {
            return Err(DigestError::Format);
        }
        let Some(algorithm) = Algorithm::from_name(name) else {
            return Err(if well_formed(name, hex) { DigestError::Unsupported } else { DigestError::Format });
        };
        Self::from_parts(algorithm, hex)
    }

    /// Builds a digest of a known algorithm from its hex digits.
    ///
    /// # Errors
    /// [`DigestError::Length`] before [`DigestError::Format`], as go-digest tests them.
    pub fn from_parts(algorithm: Algorithm, hex: &str) -> Result<Self, DigestError> {
        if hex.len() != algorithm.hex_length() {
            return Err(DigestError::Length);
        }
        // To the end in any case, which is faster than to look after each whether it is the end.
        if !hex.bytes().fold(true, |so_far, b| so_far & matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Format);
        }
        Ok(Self { algorithm, hex: hex.into() })
    }

    /// Parses the spelling that lookaside paths use, `algorithm=hex` (spec containers-image 2.1).
    ///
    /// # Errors
    /// As [`Digest::parse`].
    pub fn parse_path_form(text: &str) -> Result<Self, DigestError> {
        let (name, hex) = text.split_once('=').ok_or(DigestError::Format)?;
        let algorithm = Algorithm::from_name(name).ok_or(DigestError::Unsupported)?;
        Self::from_parts(algorithm, hex)
    }

    /// Returns the spelling that lookaside paths use: `sha256=…`.
    pub fn path_form(&self) -> String {
        format!("{}={}", self.algorithm.name(), self.hex)
    }

    /// Computes the SHA-256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: hex::encode(Sha256::digest(bytes)).into() }
    }

    /// Tells whether `bytes` hash to this digest.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let actual = match self.algorithm {
            Algorithm::Sha256 => hex::encode(Sha256::digest(bytes)),
            Algorithm::Sha384 => hex::encode(Sha384::digest(bytes)),
            Algorithm::Sha512 => hex::encode(Sha512::digest(bytes)),
        };
        *self.hex == *actual
    }

    /// Returns the algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the hex digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

/// go-digest's `DigestRegexpAnchored`: decides between "unsupported" and "invalid format".
fn well_formed(name: &str, hex: &str) -> bool {
    let component = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.split(['.', '+', '_', '-']).all(component) && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn parses_and_prints() {
        let text = format!("sha256:{HEX}");
        let digest = Digest::parse(&text).unwrap();
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest, Digest::sha256(b""));
        assert!(digest.matches(b"") && !digest.matches(b"x"));
        assert_eq!(digest.path_form(), format!("sha256={HEX}"));
        assert_eq!(Digest::parse_path_form(&digest.path_form()), Ok(digest));
    }

    #[test]
    fn names_what_is_wrong_as_go_digest_does() {
        for (text, error) in [
            ("", DigestError::Format),
            ("sha256", DigestError::Format),
            ("sha256:", DigestError::Format),
            (":abc", DigestError::Format),
            ("sha256:abc", DigestError::Length),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", DigestError::Unsupported),
            ("SHA256:abc", DigestError::Format),
            ("a..b:abc", DigestError::Format),
            ("unknown:XYZ", DigestError::Format),
            ("sha512:abc", DigestError::Length),
        ] {
            assert_eq!(Digest::parse(text), Err(error), "{text}");
        }
        let upper = format!("sha256:{}", HEX.to_uppercase());
        assert_eq!(Digest::parse(&upper), Err(DigestError::Format));
        assert_eq!(Digest::parse(&format!("sha256:../{}", &HEX[3..])), Err(DigestError::Format));
    }
}
