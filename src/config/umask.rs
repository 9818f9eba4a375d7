//! Which rights files and folders do not get when they are made: `umask: "027"`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer};

/// A mask of rights, as `umask` takes it. The owner always keeps all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMask(u32);

/// Why a text is no mask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileMaskError {
    /// It is no octal number of three or four digits.
    #[error("{0:?} is no umask: write three octal digits such as 027")]
    Digits(String),
    /// It takes rights from the owner, who must read what was written.
    #[error("the umask {0:?} takes rights from the owner, who then could not read or write the files; begin it with 0")]
    Owner(String),
}

impl FileMask {
    /// Nothing for others, and no writing for the group.
    pub const PRIVATE: Self = Self(0o027);

    /// Returns the bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for FileMask {
    type Err = FileMaskError;

    fn from_str(text: &str) -> Result<Self, FileMaskError> {
        let octal = text.bytes().all(|b| (b'0'..=b'7').contains(&b)) && matches!(text.len(), 3 | 4);
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| octal && *bits <= 0o777);
        let bits = bits.ok_or_else(|| FileMaskError::Digits(text.to_owned()))?;
        if bits & 0o700 != 0 {
            return Err(FileMaskError::Owner(text.to_owned()));
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for FileMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03o}", self.0)
    }
}

impl<'de> Deserialize<'de> for FileMask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = FileMask;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a umask in quotes, such as \"027\"")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<FileMask, E> {
                text.parse().map_err(E::custom)
            }
        }
        // A number would leave open whether it is octal.
        deserializer.deserialize_any(Text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerConfig;

    #[test]
    fn three_octal_digits() {
        for (text, bits) in [("027", 0o027), ("0027", 0o027), ("000", 0), ("077", 0o077)] {
            assert_eq!(text.parse(), Ok(FileMask(bits)));
        }
        for text in ["", "27", "028", "00027", "1027", "+27", "0o27", "u=rwx"] {
            assert_eq!(text.parse::<FileMask>(), Err(FileMaskError::Digits(text.to_owned())));
        }
        assert_eq!("127".parse::<FileMask>(), Err(FileMaskError::Owner("127".to_owned())));
        assert_eq!(FileMask::PRIVATE.to_string(), "027");
    }

    #[test]
    fn a_number_is_not_guessed_at() {
        let umask = |yaml: &str| ServerConfig::parse(yaml).map(|config| config.umask).map_err(|e| e.to_string());
        assert_eq!(umask(""), Ok(None));
        assert_eq!(umask("umask: \"027\""), Ok(Some(FileMask::PRIVATE)));
        assert_eq!(umask("umask: 027"), Ok(Some(FileMask::PRIVATE)), "YAML 1.2 takes it for text");
        for yaml in ["umask: 27", "umask: 0o27", "umask: 23", "umask: [027]"] {
            let error = umask(yaml).unwrap_err();
            assert!(error.contains("a umask in quotes"), "{yaml}: {error}");
        }
        assert!(umask("umask: \"127\"").unwrap_err().contains("from the owner"));
    }
}
