//! Networks as they are written in configurations: `10.0.0.0/8`, `::1`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// It is neither an address nor an address with a length.
    #[error("{0:?} is no network; expected an address, or ADDRESS/BITS such as 10.0.0.0/8")]
    Form(String),
    /// The address says more than the length takes.
    #[error("{0:?} has bits set behind its length; did you mean {1}?")]
    Bits(String, Network),
}

impl Network {
    /// Returns `address` and its width as bits, aligned to the right.
    fn number(address: IpAddr) -> (u128, u8) {
        match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        }
    }

    /// Drops the bits of `address` behind the first `bits`.
    fn start(address: IpAddr, bits: u8) -> u128 {
        let (number, width) = Self::number(address);
        let rest = u32::from(width.saturating_sub(bits));
        number.checked_shr(rest).and_then(|kept| kept.checked_shl(rest)).unwrap_or(0)
    }

    /// Tells whether `address` is in it. An IPv4 address inside of an IPv6 one is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self::start(address, self.bits) == Self::number(self.address).0
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError::Form(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let (_, width) = Self::number(address);
        let bits = match bits {
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().map_err(|_| wrong())?,
            Some(_) => return Err(wrong()),
            None => width,
        };
        if bits > width {
            return Err(wrong());
        }
        let start = Self::start(address, bits);
        if start != Self::number(address).0 {
            let start = match address {
                IpAddr::V4(_) => IpAddr::V4(u32::try_from(start).unwrap_or_default().into()),
                IpAddr::V6(_) => IpAddr::V6(start.into()),
            };
            return Err(NetworkError::Bits(text.to_owned(), Self { address: start, bits }));
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl<'de> serde::Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn who_is_in() {
        for (network, address, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "1.2.3.4", false),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("192.168.1.128/25", "192.168.1.127", false),
        ] {
            let parsed: Network = network.parse().unwrap();
            assert_eq!(parsed.contains(address.parse().unwrap()), inside, "{network} {address}");
        }
    }

    #[test]
    fn what_is_no_network() {
        for text in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10/8", "10.0.0.0/8/8", "/8"] {
            assert!(matches!(text.parse::<Network>(), Err(NetworkError::Form(_))), "{text}");
        }
        let error = "10.1.2.3/8".parse::<Network>().unwrap_err().to_string();
        assert_eq!(error, "\"10.1.2.3/8\" has bits set behind its length; did you mean 10.0.0.0/8?");
    }

    proptest! {
        #[test]
        fn never_panics_and_contains_itself(text in "[0-9a-f.:/]{0,24}", bits in 0u8..=128, v6 in any::<u128>(), v4 in any::<u32>()) {
            let _ = text.parse::<Network>();
            for address in [IpAddr::V6(v6.into()), IpAddr::V4(v4.into())] {
                let network = match format!("{address}/{bits}").parse::<Network>() {
                    Ok(network) | Err(NetworkError::Bits(_, network)) => network,
                    Err(NetworkError::Form(_)) => continue,
                };
                if address.to_canonical() == address {
                    prop_assert!(network.contains(address));
                }
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
            }
        }
    }
}
