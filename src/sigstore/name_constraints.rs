//! Name constraints of issuers as Go's crypto/x509 reads them. webpki knows no e-mail addresses and
//! no wildcards directly below a top-level domain, and refuses them under any constraint of their
//! kind. What reads oddly is refused, though Go may take it.

use std::net::IpAddr;

use x509_cert::Certificate;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{NameConstraints, SubjectAltName};

use super::certificate::{CertificateError, extension};

/// Tells whether the constraints of `issuer` allow all names of the certificates below it.
pub(super) fn allows(issuer: &Certificate, below: &[&Certificate]) -> Result<bool, CertificateError> {
    let Some(constraints) = extension::<NameConstraints>(issuer)? else { return Ok(true) };
    let permitted = constraints.permitted_subtrees.unwrap_or_default();
    let excluded = constraints.excluded_subtrees.unwrap_or_default();
    // Go does not know the other kinds, and a constraint that it cannot check fails the path.
    if permitted.iter().chain(&excluded).any(|tree| !known(tree)) {
        return Ok(false);
    }
    for certificate in below {
        for name in extension::<SubjectAltName>(certificate)?.iter().flat_map(|names| &names.0) {
            let Some(kind) = kind(name) else { continue };
            let of_kind = |tree: &&GeneralSubtree| self::kind(&tree.base) == Some(kind);
            let mut allowed = permitted.iter().filter(of_kind).peekable();
            let inside = allowed.peek().is_none() || allowed.any(|tree| permits(&tree.base, name));
            if !inside || excluded.iter().filter(of_kind).any(|tree| excludes(&tree.base, name)) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Email,
    Dns,
    Uri,
    Ip,
}

fn kind(name: &GeneralName) -> Option<Kind> {
    match name {
        GeneralName::Rfc822Name(_) => Some(Kind::Email),
        GeneralName::DnsName(_) => Some(Kind::Dns),
        GeneralName::UniformResourceIdentifier(_) => Some(Kind::Uri),
        GeneralName::IpAddress(_) => Some(Kind::Ip),
        _ => None,
    }
}

fn known(tree: &GeneralSubtree) -> bool {
    let readable = match &tree.base {
        GeneralName::Rfc822Name(base) => match base.as_str().split_once('@') {
            Some(_) => mailbox(base.as_str()).is_some(),
            None => is_domain_constraint(base.as_str()),
        },
        GeneralName::DnsName(base) => is_domain_constraint(base.as_str()),
        GeneralName::UniformResourceIdentifier(base) => {
            is_domain_constraint(base.as_str()) && base.as_str().parse::<IpAddr>().is_err()
        }
        GeneralName::IpAddress(base) => network(base.as_bytes()).is_some(),
        _ => false,
    };
    readable && tree.minimum == 0 && tree.maximum.is_none()
}

fn permits(base: &GeneralName, name: &GeneralName) -> bool {
    match (base, name) {
        (GeneralName::Rfc822Name(base), GeneralName::Rfc822Name(name)) => {
            let Some((local, domain)) = mailbox(name.as_str()) else { return false };
            match mailbox(base.as_str()) {
                Some((only, of)) => only == local && of.eq_ignore_ascii_case(domain),
                None => host_permitted(base.as_str(), domain),
            }
        }
        (GeneralName::DnsName(base), GeneralName::DnsName(name)) => {
            let name = name.as_str();
            let (bare, deeper) = match base.as_str().strip_prefix('.') {
                Some(bare) => (bare, true),
                None => (base.as_str(), false),
            };
            let concrete = name.strip_prefix("*.").unwrap_or(name);
            is_domain(concrete) && ends_with(name, bare) && !(deeper && name.eq_ignore_ascii_case(bare))
        }
        (GeneralName::UniformResourceIdentifier(base), GeneralName::UniformResourceIdentifier(name)) => {
            host_of(name.as_str()).is_some_and(|host| host_permitted(base.as_str(), host))
        }
        (GeneralName::IpAddress(base), GeneralName::IpAddress(name)) => in_network(base.as_bytes(), name.as_bytes()),
        _ => false,
    }
}

/// Excludes rather too much than too little.
fn excludes(base: &GeneralName, name: &GeneralName) -> bool {
    match (base, name) {
        (GeneralName::Rfc822Name(base), GeneralName::Rfc822Name(name)) => {
            let Some((local, domain)) = mailbox(name.as_str()) else { return true };
            match mailbox(base.as_str()) {
                Some((only, of)) => only == local && of.eq_ignore_ascii_case(domain),
                None => host_excluded(base.as_str(), domain),
            }
        }
        (GeneralName::DnsName(base), GeneralName::DnsName(name)) => {
            let (base, name) = (base.as_str(), name.as_str());
            match name.strip_prefix("*.") {
                // The wildcard may stand for an excluded name.
                Some(above) => {
                    let base = base.trim_start_matches('.');
                    !is_domain(above) || ends_with(above, base) || ends_with(base, above)
                }
                None => host_excluded(base, name),
            }
        }
        (GeneralName::UniformResourceIdentifier(base), GeneralName::UniformResourceIdentifier(name)) => {
            host_of(name.as_str()).is_none_or(|host| host_excluded(base.as_str(), host))
        }
        (GeneralName::IpAddress(base), GeneralName::IpAddress(name)) => {
            !matches!(name.as_bytes().len(), 4 | 16) || in_network(base.as_bytes(), name.as_bytes())
        }
        _ => false,
    }
}

/// A domain means itself and what is below it; with a leading dot, only what is below it.
fn host_permitted(base: &str, host: &str) -> bool {
    is_domain(host)
        && match base.strip_prefix('.') {
            Some(bare) => ends_with(host, bare) && !host.eq_ignore_ascii_case(bare),
            None => ends_with(host, base),
        }
}

fn host_excluded(base: &str, host: &str) -> bool {
    !is_domain(host) || host_permitted(base, host)
}

/// Whether `name` is `domain` or below it. Everything is below the empty one.
fn ends_with(name: &str, domain: &str) -> bool {
    let (name, domain) = (name.to_ascii_lowercase(), domain.to_ascii_lowercase());
    domain.is_empty() || name.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn is_domain_constraint(text: &str) -> bool {
    text.is_empty() || is_domain(text.strip_prefix('.').unwrap_or(text))
}

fn is_domain(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    text.split('.').all(|label| !label.is_empty() && label.bytes().all(letter))
}

/// Parts an address. One with quotes or other rarities is none: nobody reads them alike.
fn mailbox(text: &str) -> Option<(&str, &str)> {
    let (local, domain) = text.split_once('@')?;
    let word = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b);
    let atoms = local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(word));
    (atoms && is_domain(domain)).then_some((local, domain))
}

/// The host of a URI, if it is a domain.
fn host_of(uri: &str) -> Option<&str> {
    let (_, rest) = uri.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = match authority.split_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        Some(_) => return None,
        None => authority,
    };
    (is_domain(host) && host.parse::<IpAddr>().is_err()).then_some(host)
}

/// Parts address and mask; the mask must be the ones of a prefix.
fn network(base: &[u8]) -> Option<(&[u8], &[u8])> {
    if !matches!(base.len(), 8 | 32) {
        return None;
    }
    let (address, mask) = base.split_at_checked(base.len() / 2)?;
    let bits = mask.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1 == 1));
    let prefix = bits.clone().skip_while(|one| *one).all(|one| !one);
    prefix.then_some((address, mask))
}

fn in_network(base: &[u8], address: &[u8]) -> bool {
    network(base).is_some_and(|(network, mask)| {
        network.len() == address.len()
            && network.iter().zip(mask).zip(address).all(|((network, mask), octet)| network & mask == octet & mask)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_cert::der::asn1::Ia5String;

    fn email(text: &str) -> GeneralName {
        GeneralName::Rfc822Name(Ia5String::new(text).unwrap())
    }

    fn dns(text: &str) -> GeneralName {
        GeneralName::DnsName(Ia5String::new(text).unwrap())
    }

    fn uri(text: &str) -> GeneralName {
        GeneralName::UniformResourceIdentifier(Ia5String::new(text).unwrap())
    }

    #[test]
    fn permitted_and_excluded() {
        for (base, name, in_it, out_of_it) in [
            (email("example.com"), email("a@example.com"), true, true),
            (email("example.com"), email("a@EXAMPLE.com"), true, true),
            // Unlike RFC 5280, 4.2.1.10, but as Go has it.
            (email("example.com"), email("a@b.example.com"), true, true),
            (email(".example.com"), email("a@b.example.com"), true, true),
            (email(".example.com"), email("a@example.com"), false, false),
            (email("a@example.com"), email("a@example.com"), true, true),
            (email("a@example.com"), email("A@example.com"), false, false),
            (email("example.com"), email("a@notexample.com"), false, false),
            (email("example.com"), email("\"a b\"@example.com"), false, true),
            (email("example.com"), email("a@b@example.com"), false, true),
            (email("example.com"), email("example.com"), false, true),
            (email(""), email("a@example.com"), true, true),
            (dns("example"), dns("*.example"), true, true),
            (dns("example"), dns("a.example"), true, true),
            (dns("example"), dns("example"), true, true),
            (dns(".example"), dns("example"), false, false),
            (dns(".example"), dns("*.example"), true, true),
            (dns("b.example"), dns("*.example"), false, true),
            (dns("other"), dns("*.example"), false, false),
            (dns("example"), dns("*"), false, true),
            (dns("example"), dns("a*.example"), false, true),
            (uri("example.com"), uri("https://example.com:8443/x?y"), true, true),
            (uri("example.com"), uri("https://a.example.com/"), true, true),
            (uri(".example.com"), uri("https://a.example.com/"), true, true),
            (uri("example.com"), uri("https://192.0.2.1/"), false, true),
            (uri("example.com"), uri("urn:example.com"), false, true),
            (uri("example.com"), uri("https://u@example.com/"), false, true),
        ] {
            assert_eq!((permits(&base, &name), excludes(&base, &name)), (in_it, out_of_it), "{base:?} {name:?}");
        }
    }

    #[test]
    fn networks_are_prefixes() {
        let net = [192, 0, 2, 0, 255, 255, 255, 0];
        assert!(in_network(&net, &[192, 0, 2, 9]) && !in_network(&net, &[192, 0, 3, 9]));
        assert!(!in_network(&net, &[0; 16]) && !in_network(&net[..7], &[192, 0, 2, 9]));
        assert!(network(&[0, 0, 0, 0, 255, 0, 255, 0]).is_none());
    }

    proptest::proptest! {
        #[test]
        fn what_is_excluded_covers_what_is_permitted(base in "[.]?[ab]{1,2}([.][ab]{1,2}){0,2}", name in "([*][.])?[ab]{1,2}([.][ab]{1,2}){0,3}") {
            let (base, name) = (dns(&base), dns(&name));
            proptest::prop_assert!(!permits(&base, &name) || excludes(&base, &name));
        }
    }
}
