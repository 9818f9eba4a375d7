//! The subpackets of a version 4 signature (RFC 9580, 5.2.3.7): what they say, and which critical
//! ones we must not pass over.

use super::fingerprint::{Fingerprint, KeyId};
use super::message::MessageError;

/// Subpacket type IDs that matter here.
pub(super) mod kind {
    pub const CREATED: u8 = 2;
    pub const EXPIRES: u8 = 3;
    pub const EXPORTABLE: u8 = 4;
    pub const REVOCABLE: u8 = 7;
    pub const ISSUER: u8 = 16;
    pub const NOTATION: u8 = 20;
    pub const POLICY_URI: u8 = 26;
    pub const SIGNER_USER_ID: u8 = 28;
    pub const ISSUER_FINGERPRINT: u8 = 33;
}

/// A critical subpacket that we do not know, and so must refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Critical {
    Notation(String),
    Subpacket(u8),
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
    /// The first critical subpacket that is not understood, in either area (as gpg looks).
    pub critical: Option<Critical>,
}

impl Subpackets {
    /// Reads both areas.
    pub(super) fn parse(hashed: &[u8], unhashed: &[u8]) -> Result<Self, MessageError> {
        let mut found = Self::default();
        found.area(hashed, true)?;
        found.area(unhashed, false)?;
        Ok(found)
    }

    fn area(&mut self, mut area: &[u8], hashed: bool) -> Result<(), MessageError> {
        while !area.is_empty() {
            let (subpacket, rest) =
                split(area).ok_or(MessageError::Malformed("a subpacket of the signature is cut off"))?;
            area = rest;
            let Some((&octet, body)) = subpacket.split_first() else {
                return Err(MessageError::Malformed("a subpacket of the signature has no type"));
            };
            self.one(octet & 0x7F, octet & 0x80 != 0, body, hashed)?;
        }
        Ok(())
    }

    fn one(&mut self, kind: u8, critical: bool, body: &[u8], hashed: bool) -> Result<(), MessageError> {
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
            kind::NOTATION if critical => self.refuse(Critical::Notation(notation_name(body))),
            kind::CREATED
            | kind::EXPIRES
            | kind::EXPORTABLE
            | kind::REVOCABLE
            | kind::POLICY_URI
            | kind::SIGNER_USER_ID => {}
            other if critical => self.refuse(Critical::Subpacket(other)),
            _ => {}
        }
        Ok(())
    }

    fn refuse(&mut self, critical: Critical) {
        self.critical.get_or_insert(critical);
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

fn split(area: &[u8]) -> Option<(&[u8], &[u8])> {
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
        assert_eq!(Subpackets::parse(&[], &area).unwrap(), Subpackets::default());
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
    fn unknown_critical_ones_are_kept_in_mind() {
        let notation = [&[0x80, 0, 0, 0, 0, 3, 0, 1][..], b"x@yz"].concat();
        let critical = |kind: u8, body: &[u8]| Subpackets::parse(&sub(kind, body), &[]).unwrap().critical;
        assert_eq!(critical(0x80 | 20, &notation), Some(Critical::Notation("x@y".to_owned())));
        assert_eq!(critical(20, &notation), None);
        assert_eq!(critical(0x80 | 99, &[]), Some(Critical::Subpacket(99)));
        assert_eq!(critical(99, &[]), None);
        assert_eq!(critical(0x80 | 31, &[]), Some(Critical::Subpacket(31)));
        assert_eq!(critical(0x80 | kind::CREATED, &[0; 4]), None);
        let unhashed = Subpackets::parse(&[], &sub(0x80 | 99, &[])).unwrap();
        assert_eq!(unhashed.critical, Some(Critical::Subpacket(99)));
    }

    proptest! {
        #[test]
        fn never_panics(hashed in proptest::collection::vec(any::<u8>(), 0..200), unhashed in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = Subpackets::parse(&hashed, &unhashed);
        }
    }
}
