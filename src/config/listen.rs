//! Where the server listens: one address or several, each with TLS or plain.

use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;
use serde::de::{Error as _, SeqAccess, Visitor};

use super::origin::Scheme;

/// One address: `address:port`, or `http://address:port` and `https://address:port` where it
/// matters what is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// What is spoken; if not said, TLS when the server has a certificate, else plain HTTP.
    pub scheme: Option<Scheme>,
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self { address, scheme: None }
    }
}

impl std::str::FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, address) = match text.split_once("://") {
            Some((scheme, rest)) => match Scheme::parse(scheme) {
                Some(scheme) => (Some(scheme), rest),
                None => return Err(format!("{text:?} begins with neither http:// nor https://")),
            },
            None => (None, text),
        };
        let address = address.parse().map_err(|_| format!("invalid address {text:?}, expected ADDRESS:PORT"))?;
        Ok(Self { address, scheme })
    }
}

/// At least one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddresses {
    first: ListenAddress,
    more: Vec<ListenAddress>,
}

impl ListenAddresses {
    /// Makes a list; `None` of nothing.
    pub fn new(addresses: impl IntoIterator<Item = ListenAddress>) -> Option<Self> {
        let mut addresses = addresses.into_iter();
        let first = addresses.next()?;
        Some(Self { first, more: addresses.collect() })
    }

    /// Returns the first address, by which the server calls itself when nobody knows a better name.
    pub fn first(&self) -> SocketAddr {
        self.first.address
    }

    /// Goes through all.
    pub fn iter(&self) -> impl Iterator<Item = ListenAddress> {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }
}

impl Default for ListenAddresses {
    fn default() -> Self {
        Self { first: SocketAddr::from(([127, 0, 0, 1], 8080)).into(), more: Vec::new() }
    }
}

impl<'de> Deserialize<'de> for ListenAddresses {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Addresses;

        impl<'de> Visitor<'de> for Addresses {
            type Value = ListenAddresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ADDRESS:PORT, or a list of such")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                let first = text.parse().map_err(E::custom)?;
                Ok(ListenAddresses { first, more: Vec::new() })
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
                let mut all = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    all.push(text.parse().map_err(S::Error::custom)?);
                }
                ListenAddresses::new(all).ok_or_else(|| S::Error::custom("the list of addresses is empty"))
            }
        }
        deserializer.deserialize_any(Addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Vec<(String, Option<Scheme>)>, String> {
        let read: ListenAddresses = serde_yaml::from_str(yaml).map_err(|e| e.to_string())?;
        Ok(read.iter().map(|one| (one.address.to_string(), one.scheme)).collect())
    }

    #[test]
    fn one_or_several() {
        assert_eq!(read("'[::]:80'").unwrap(), [("[::]:80".to_owned(), None)]);
        assert_eq!(
            read("[127.0.0.1:1, 'https://[::1]:2', http://127.0.0.1:3]").unwrap(),
            [
                ("127.0.0.1:1".to_owned(), None),
                ("[::1]:2".to_owned(), Some(Scheme::Https)),
                ("127.0.0.1:3".to_owned(), Some(Scheme::Http))
            ]
        );
    }

    #[test]
    fn says_what_is_wrong() {
        for (yaml, said) in [
            ("[]", "list of addresses is empty"),
            ("8080", "expected ADDRESS:PORT"),
            ("':8080'", "invalid address"),
            ("ftp://127.0.0.1:1", "neither http:// nor https://"),
            ("localhost:80", "invalid address"),
        ] {
            let error = read(yaml).unwrap_err();
            assert!(error.contains(said), "{yaml}: {error}");
        }
    }
}
