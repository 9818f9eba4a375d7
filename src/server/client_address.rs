//! Which addresses count as one client.

use std::net::{IpAddr, Ipv6Addr};

/// An IPv6 client may have so many bits of addresses to itself.
const V6_PREFIX: u32 = 64;

/// Returns what an address has in common with all others of the same client: an IPv4 address is
/// one client, in whichever form it is written, and so is a whole IPv6 /64.
pub(super) fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - V6_PREFIX)))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_is_one_client() {
        let of = |text: &str| client_network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), IpAddr::from([192, 0, 2, 1]));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
