//! The subpackets of a version 4 signature (RFC 9580, 5.2.3.7): what they say, which critical ones
//! clients know, and which ones make a client refuse the signature.

use super::fingerprint::{Fingerprint, KeyId};
use super::message::MessageError;

/// Subpacket type IDs that matter here.
pub(super) mod kind {
    pub const CREATED: u8 = 2;
    pub const EXPIRES: u8 = 3;
    pub const EXPORTABLE: u8 = 4;
    pub const KEY_EXPIRES: u8 = 9;
    pub const ISSUER: u8 = 16;
    pub const NOTATION: u8 = 20;
    pub const PRIMARY_USER_ID: u8 = 25;
    pub const KEY_FLAGS: u8 = 27;
    pub const REASON: u8 = 29;
    pub const EMBEDDED_SIGNATURE: u8 = 32;
    pub const ISSUER_FINGERPRINT: u8 = 33;
}

/// The subpacket types that gpg 2.2.40 knows when they are critical, each with whether x/crypto
/// knows it too. Every other critical type makes both refuse the signature, in either area
/// (spec containers-image 4.3; asked for all 128 types by `tests/it/openpgp/critical.rs`).
const KNOWN_WHEN_CRITICAL: [(u8, bool); 20] = [
    (2, true),   // signature creation time
    (3, true),   // signature expiration time
    (4, false),  // exportable certification
    (5, false),  // trust signature
    (6, false),  // regular expression
    (7, false),  // revocable
    (9, true),   // key expiration time
    (11, true),  // preferred symmetric ciphers
    (12, false), // revocation key
    (16, true),  // issuer key ID
    (21, true),  // preferred hash algorithms
    (22, true),  // preferred compression algorithms
    (24, false), // preferred key server
    (25, true),  // primary user ID
    (26, false), // policy URI
    (27, true),  // key flags
    (29, true),  // reason for revocation
    (30, true),  // features
    (32, true),  // embedded signature
    (33, false), // issuer fingerprint
];

/// The critical notations that gpg knows. x/crypto knows none.
const KNOWN_NOTATIONS: [&str; 2] = ["preferred-email-encoding@pgp.com", "pka-address@gnupg.org"];

/// Whether gpg takes a signature of a key in which this subpacket is critical.
pub(super) fn gnupg_knows(kind: u8, body: &[u8]) -> bool {
    if kind == kind::NOTATION {
        return KNOWN_NOTATIONS.contains(&notation_name(body).as_str());
    }
    KNOWN_WHEN_CRITICAL.iter().any(|(known, _)| *known == kind)
}

/// Whether x/crypto takes a signature of a key in which this subpacket is critical.
pub(super) fn x_crypto_knows(kind: u8) -> bool {
    KNOWN_WHEN_CRITICAL.contains(&(kind, true))
}

/// A reason to refuse the signature because of a subpacket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Forbidden {
    /// A critical notation.
    Notation(String),
    /// A critical subpacket that says nothing about a document, or that some client does not know.
    Critical(u8),
    /// A subpacket, critical or not, that makes x/crypto refuse the whole signature.
    Malformed(&'static str),
}

/// One subpacket of an area.
pub(super) struct Subpacket<'a> {
    pub kind: u8,
    pub critical: bool,
    pub body: &'a [u8],
}

/// Splits an area into its subpackets.
pub(super) fn split(mut area: &[u8]) -> Result<Vec<Subpacket<'_>>, MessageError> {
    let mut found = Vec::new();
    while !area.is_empty() {
        let (subpacket, rest) =
            split_first(area).ok_or(MessageError::Malformed("a subpacket of the signature is cut off"))?;
        area = rest;
        let Some((&octet, body)) = subpacket.split_first() else {
            return Err(MessageError::Malformed("a subpacket of the signature has no type"));
        };
        found.push(Subpacket { kind: octet & 0x7F, critical: octet & 0x80 != 0, body });
    }
    Ok(found)
}

/// What the two subpacket areas of a signature say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subpackets {
    /// From the hashed area only, as is `expires_after`: outside it nobody vouches for them.
    pub created: Option<u32>,
    /// Seconds after creation; 0 means never.
    pub expires_after: Option<u32>,
    /// From both areas: hints that are proved by the key they lead to.
    pub issuers: Vec<KeyId>,
    pub issuer_fingerprints: Vec<Fingerprint>,
    /// The first reason in either area (as gpg and x/crypto look) to refuse the signature.
    pub forbidden: Option<Forbidden>,
}

impl Subpackets {
    /// Reads both areas.
    pub(super) fn parse(hashed: &[u8], unhashed: &[u8]) -> Result<Self, MessageError> {
        let mut found = Self::default();
        found.area(hashed, true)?;
        found.area(unhashed, false)?;
        Ok(found)
    }

    fn area(&mut self, area: &[u8], hashed: bool) -> Result<(), MessageError> {
        for subpacket in split(area)? {
            self.one(&subpacket, hashed)?;
        }
        Ok(())
    }

    fn one(&mut self, subpacket: &Subpacket<'_>, hashed: bool) -> Result<(), MessageError> {
        let Subpacket { kind, critical, body } = *subpacket;
        match kind {
            kind::CREATED if hashed => once(&mut self.created, body)?,
            kind::EXPIRES if hashed => once(&mut self.expires_after, body)?,
            kind::ISSUER => {
                let id =
                    body.try_into().map_err(|_| MessageError::Malformed("the issuer's key ID has not 8 octets"))?;
                self.issuers.push(KeyId(id));
            }
            kind::ISSUER_FINGERPRINT => match body.split_first() {
                Some((_, fingerprint)) if matches!(fingerprint.len(), 20 | 32) => {
                    self.issuer_fingerprints.push(Fingerprint::from_bytes(fingerprint));
                }
                _ => return Err(MessageError::Malformed("the issuer's fingerprint has a wrong length")),
            },
            _ => {}
        }
        let forbidden = match kind {
            // What is critical for a key says nothing about a document, though clients know it.
            kind::CREATED | kind::EXPIRES | kind::ISSUER => None,
            kind::NOTATION if critical => Some(Forbidden::Notation(notation_name(body))),
            other if critical => Some(Forbidden::Critical(other)),
            _ => None,
        };
        if let Some(forbidden) = forbidden.or_else(|| spoilt(kind, body, hashed).map(Forbidden::Malformed)) {
            self.forbidden.get_or_insert(forbidden);
        }
        Ok(())
    }
}

/// Names what makes x/crypto refuse a signature, whether the subpacket is critical or not.
fn spoilt(kind: u8, body: &[u8], hashed: bool) -> Option<&'static str> {
    match kind {
        kind::CREATED if !hashed => Some("a creation time stands where nothing is signed"),
        kind::KEY_EXPIRES if hashed && body.len() != 4 => Some("a key expiration time has not 4 octets"),
        kind::PRIMARY_USER_ID if hashed && body.len() != 1 => Some("the mark of a primary user ID has not 1 octet"),
        kind::KEY_FLAGS if hashed && body.is_empty() => Some("key flags are empty"),
        kind::REASON if hashed && body.is_empty() => Some("a reason for revocation is empty"),
        kind::EMBEDDED_SIGNATURE => Some("a signature is embedded, which belongs into keys only"),
        _ => None,
    }
}

/// Two different times in one signature would let two clients judge differently.
fn once(slot: &mut Option<u32>, body: &[u8]) -> Result<(), MessageError> {
    let octets = body.try_into().map_err(|_| MessageError::Malformed("a time in the signature has not 4 octets"))?;
    if slot.replace(u32::from_be_bytes(octets)).is_some() {
        return Err(MessageError::Malformed("the signature says the same time twice"));
    }
    Ok(())
}

fn split_first(area: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match area {
        [n @ 0..=191, rest @ ..] => (usize::from(*n), rest),
        [255, a, b, c, d, rest @ ..] => (usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).ok()?, rest),
        [255, ..] => return None,
        [n, m, rest @ ..] => (((usize::from(*n) - 192) << 8) + usize::from(*m) + 192, rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Flags (4), length of the name (2), length of the value (2), name, value.
fn notation_name(body: &[u8]) -> String {
    let name = match body {
        [_, _, _, _, high, low, _, _, rest @ ..] => rest.get(..usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    };
    String::from_utf8_lossy(name.unwrap_or_default()).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sub(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[u8::try_from(body.len() + 1).unwrap(), kind], body].concat()
    }

    #[test]
    fn times_count_only_where_they_are_signed() {
        let area = [sub(kind::CREATED, &[0, 0, 0, 9]), sub(kind::EXPIRES, &[0, 0, 0, 5])].concat();
        let found = Subpackets::parse(&area, &[]).unwrap();
        assert_eq!((found.created, found.expires_after), (Some(9), Some(5)));
        let outside = Subpackets::parse(&[], &area).unwrap();
        assert_eq!((outside.created, outside.expires_after), (None, None));
        assert!(Subpackets::parse(&[&area[..], &area].concat(), &[]).is_err());
    }

    #[test]
    fn issuers_are_taken_from_both_areas() {
        let found = Subpackets::parse(&sub(33, &[&[4][..], &[7; 20]].concat()), &sub(16, &[1; 8])).unwrap();
        assert_eq!(found.issuers, [KeyId([1; 8])]);
        assert_eq!(found.issuer_fingerprints, [Fingerprint::from_bytes(&[7; 20])]);
        assert!(Subpackets::parse(&sub(16, &[1; 7]), &[]).is_err());
        assert!(Subpackets::parse(&sub(33, &[4; 20]), &[]).is_err());
    }

    #[test]
    fn critical_ones_are_refused_but_for_three() {
        let notation = [&[0x80, 0, 0, 0, 0, 3, 0, 1][..], b"x@yz"].concat();
        let of = |kind: u8, body: &[u8]| {
            let hashed = Subpackets::parse(&sub(kind, body), &[]).unwrap().forbidden;
            let unhashed = Subpackets::parse(&[], &sub(kind, body)).unwrap().forbidden;
            if kind & 0x7F != kind::CREATED {
                assert_eq!(hashed, unhashed, "{kind}");
            }
            hashed
        };
        assert_eq!(of(0x80 | 20, &notation), Some(Forbidden::Notation("x@y".to_owned())));
        assert_eq!(of(20, &notation), None);
        for kind in (0..128).filter(|kind| ![2, 3, 16, 20, 32, 33].contains(kind)) {
            assert_eq!(of(0x80 | kind, &[0; 4]), Some(Forbidden::Critical(kind)));
        }
        let issuer = [&[4][..], &[7; 20]].concat();
        assert_eq!(of(0x80 | 33, &issuer), Some(Forbidden::Critical(33)));
        assert_eq!(of(33, &issuer), None);
        for (kind, length) in [(2, 4), (3, 4), (16, 8)] {
            assert_eq!(of(0x80 | kind, &[0; 8][..length]), None, "{kind}");
        }
    }

    #[test]
    fn what_spoils_a_signature_for_x_crypto_is_refused() {
        let forbidden = |hashed: &[u8], unhashed: &[u8]| Subpackets::parse(hashed, unhashed).unwrap().forbidden;
        let spoilt = |found| assert!(matches!(found, Some(Forbidden::Malformed(_))), "{found:?}");
        spoilt(forbidden(&[], &sub(2, &[0; 4])));
        for (kind, bad, good) in [(9, 3, 4), (25, 2, 1), (27, 0, 1), (29, 0, 1)] {
            spoilt(forbidden(&sub(kind, &vec![0; bad]), &[]));
            assert_eq!(forbidden(&sub(kind, &vec![0; good]), &[]), None, "{kind}");
            assert_eq!(forbidden(&[], &sub(kind, &vec![0; bad])), None, "{kind}");
        }
        spoilt(forbidden(&sub(32, b"x"), &[]));
        spoilt(forbidden(&[], &sub(32, b"x")));
    }

    #[test]
    fn keys_may_have_what_gpg_knows() {
        let notation = |name: &str| {
            let length = u8::try_from(name.len()).unwrap();
            [&[0x80, 0, 0, 0, 0, length, 0, 0][..], name.as_bytes()].concat()
        };
        for kind in (0..128).filter(|kind| *kind != kind::NOTATION) {
            let both = [2, 3, 9, 11, 16, 21, 22, 25, 27, 29, 30, 32].contains(&kind);
            assert_eq!(x_crypto_knows(kind), both, "{kind}");
            assert_eq!(gnupg_knows(kind, b""), both || [4, 5, 6, 7, 12, 24, 26, 33].contains(&kind), "{kind}");
        }
        assert!(gnupg_knows(20, &notation("preferred-email-encoding@pgp.com")));
        assert!(!gnupg_knows(20, &notation("name@example.com")) && !x_crypto_knows(20));
    }

    proptest! {
        #[test]
        fn never_panics(hashed in proptest::collection::vec(any::<u8>(), 0..200), unhashed in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Subpackets::parse(&hashed, &unhashed);
        }
    }
}
