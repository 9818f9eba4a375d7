//! Which hosts a certificate is for, by the rules of Go's `VerifyHostname`. webpki has others: it
//! takes no wildcard directly below a top-level domain.

use std::net::IpAddr;

/// Tells whether a certificate with these DNS names and IP addresses is for `host`.
pub(super) fn is_for(host: &str, names: &[&str], addresses: &[&[u8]]) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return addresses.iter().filter_map(|octets| ip(octets)).any(|ip| ip == address.to_canonical());
    }
    names.iter().any(|name| {
        if is_valid(host.strip_suffix('.').unwrap_or(host), false) && is_valid(name, true) {
            matches(name, host.strip_suffix('.').unwrap_or(host))
        } else {
            !matches!(host, "" | ".") && name.eq_ignore_ascii_case(host)
        }
    })
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let short = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    short.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok().map(|ip| ip.to_canonical())
}

/// A name whose first label may be `*`, if it is a pattern, but not the only one.
fn is_valid(name: &str, pattern: bool) -> bool {
    let label = |(index, label): (usize, &str)| {
        let letter = |(at, b): (usize, u8)| b.is_ascii_alphanumeric() || b == b'_' || (b == b'-' && at > 0);
        (pattern && index == 0 && label == "*") || (!label.is_empty() && label.bytes().enumerate().all(letter))
    };
    name != "*" && name.split('.').enumerate().all(label)
}

/// A `*` stands for exactly one label.
fn matches(pattern: &str, host: &str) -> bool {
    let (patterns, labels): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
    patterns.len() == labels.len()
        && patterns
            .iter()
            .zip(&labels)
            .enumerate()
            .all(|(index, (pattern, label))| (index == 0 && *pattern == "*") || pattern.eq_ignore_ascii_case(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_has_it() {
        for (host, name, expected) in [
            ("a.example", "*.example", true),
            ("a.example.", "*.example", true),
            ("A.Example", "a.EXAMPLE", true),
            ("a.b.example", "*.example", false),
            ("example", "*.example", false),
            ("a.example.com", "*.example.com", true),
            ("a.example.com", "*.com", false),
            ("a.example.com", "a*.example.com", false),
            ("a.example.com", "a.*.com", false),
            ("a.example.com", "*", false),
            ("example", "*", false),
            ("*", "*", true),
            ("a_b.example", "*.example", true),
            ("-a.example", "*.example", false),
            ("a b.example", "a b.example", true),
            ("a b.example", "*.example", false),
            ("a.example", "a.example.", false),
            ("a..example", "a..example", true),
            ("", "", false),
            (".", ".", false),
            ("192.0.2.1", "192.0.2.1", false),
            ("x.0.2.1", "*.0.2.1", true),
        ] {
            assert_eq!(is_for(host, &[name], &[]), expected, "{host} {name}");
        }
        let addresses: [&[u8]; 3] = [&[192, 0, 2, 1], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], &[1, 2, 3]];
        for good in ["192.0.2.1", "[192.0.2.1]", "::1", "[::1]", "::ffff:192.0.2.1"] {
            assert!(is_for(good, &[], &addresses), "{good}");
        }
        for bad in ["192.0.2.2", "[::2]", "192.0.2.01", "1.2.3", "[::1"] {
            assert!(!is_for(bad, &[], &addresses), "{bad}");
        }
    }
}
