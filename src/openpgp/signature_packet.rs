//! The signature packet, versions 3 and 4 (RFC 4880, 5.2.2; RFC 9580, 5.2.3), and the digest it signs.

use sequoia_openpgp::crypto::mpi::{self, MPI};
use sequoia_openpgp::types::HashAlgorithm;

use super::message::MessageError;
use super::subpacket::{Forbidden, Subpackets};

/// Signature types that sign a document.
pub(super) const BINARY: u8 = 0;
pub(super) const TEXT: u8 = 1;

/// A signature packet, taken apart to the last octet. Nothing in it is verified.
#[derive(Clone, Debug)]
pub(super) struct SignaturePacket {
    pub kind: u8,
    pub key_algorithm: u8,
    pub hash_algorithm: u8,
    pub subpackets: Subpackets,
    /// What is hashed after the content.
    hashed_tail: Vec<u8>,
    /// The first two octets of the digest, in clear.
    pub digest_prefix: [u8; 2],
    /// `None` if the algorithm is not known here.
    pub value: Option<mpi::Signature>,
}

impl SignaturePacket {
    /// Takes the body of a signature packet apart; every octet must belong to something.
    pub(super) fn parse(body: &[u8]) -> Result<Self, MessageError> {
        match body.first() {
            Some(3) => Self::parse_3(body),
            Some(4) => Self::parse_4(body),
            Some(_) => Err(MessageError::Malformed("its signature packet is of a version other than 3 and 4")),
            None => Err(CUT),
        }
    }

    fn parse_3(body: &[u8]) -> Result<Self, MessageError> {
        let [_, five, kind, t0, t1, t2, t3, rest @ ..] = body else { return Err(CUT) };
        let (issuer, rest) = rest.split_first_chunk::<8>().ok_or(CUT)?;
        let [key_algorithm, hash_algorithm, p0, p1, value @ ..] = rest else { return Err(CUT) };
        if *five != 5 {
            return Err(MessageError::Malformed("its version 3 signature packet hashes not 5 octets"));
        }
        Ok(Self {
            kind: *kind,
            key_algorithm: *key_algorithm,
            hash_algorithm: *hash_algorithm,
            subpackets: Subpackets {
                created: Some(u32::from_be_bytes([*t0, *t1, *t2, *t3])),
                issuers: vec![super::fingerprint::KeyId(*issuer)],
                ..Subpackets::default()
            },
            hashed_tail: vec![*kind, *t0, *t1, *t2, *t3],
            digest_prefix: [*p0, *p1],
            value: read_value(*key_algorithm, value)?,
        })
    }

    fn parse_4(body: &[u8]) -> Result<Self, MessageError> {
        let [_, kind, key_algorithm, hash_algorithm, rest @ ..] = body else { return Err(CUT) };
        let (hashed, rest) = area(rest)?;
        let (unhashed, rest) = area(rest)?;
        let [p0, p1, value @ ..] = rest else { return Err(CUT) };
        Ok(Self {
            kind: *kind,
            key_algorithm: *key_algorithm,
            hash_algorithm: *hash_algorithm,
            subpackets: Subpackets::parse(hashed, unhashed)?,
            hashed_tail: hashed_tail_4(body.get(..6 + hashed.len()).ok_or(CUT)?),
            digest_prefix: [*p0, *p1],
            value: read_value(*key_algorithm, value)?,
        })
    }

    /// Returns the digest that this signature should sign if it is over `content`.
    ///
    /// Content is hashed as it stands, also by text signatures: gpg 2.2 does so, and x/crypto makes
    /// network line ends of what [`Self::line_fault`] refuses.
    pub(super) fn digest(&self, algorithm: HashAlgorithm, content: &[u8]) -> Result<Vec<u8>, HashError> {
        hash(algorithm, &[content, &self.hashed_tail])
    }

    /// Returns why this signature cannot be judged over `content`: it signs text, and clients hash
    /// different octets for lines that end otherwise than with CR LF.
    pub(super) fn line_fault(&self, content: &[u8]) -> Option<LineFault> {
        if self.kind != TEXT {
            return None;
        }
        let mut after_return = false;
        for &octet in content {
            match octet {
                b'\n' if !after_return => return Some(LineFault::BareLineFeed),
                b'\n' => {}
                _ if after_return => return Some(LineFault::StrayCarriageReturn),
                _ => {}
            }
            after_return = octet == b'\r';
        }
        after_return.then_some(LineFault::StrayCarriageReturn)
    }

    /// Returns the subpacket that forbids accepting this signature.
    pub(super) fn forbidden(&self) -> Option<&Forbidden> {
        self.subpackets.forbidden.as_ref()
    }
}

/// A line of signed text that ends otherwise than with CR LF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineFault {
    BareLineFeed,
    StrayCarriageReturn,
}

/// The hash function is not there.
#[derive(Debug)]
pub(super) struct HashError;

/// Hashes the parts one after another.
pub(super) fn hash(algorithm: HashAlgorithm, parts: &[&[u8]]) -> Result<Vec<u8>, HashError> {
    let mut context = algorithm.context().map_err(|_| HashError)?.for_digest();
    for part in parts {
        context.update(part);
    }
    context.into_digest().map_err(|_| HashError)
}

/// What a version 4 signature hashes after the content: its own beginning, from the version to the
/// end of the hashed area, and a trailer with that beginning's length (RFC 9580, 5.2.4).
pub(super) fn hashed_tail_4(head: &[u8]) -> Vec<u8> {
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    [head, &[4, 0xFF], &length.to_be_bytes()].concat()
}

const CUT: MessageError = MessageError::Malformed("its signature packet is cut off");

fn area(bytes: &[u8]) -> Result<(&[u8], &[u8]), MessageError> {
    let (length, rest) = bytes.split_first_chunk::<2>().ok_or(CUT)?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(CUT)
}

/// Reads the numbers of the signature; nothing may follow them.
fn read_value(algorithm: u8, mut bytes: &[u8]) -> Result<Option<mpi::Signature>, MessageError> {
    let value = match algorithm {
        1 | 3 => mpi::Signature::RSA { s: read_mpi(&mut bytes)? },
        17 => mpi::Signature::DSA { r: read_mpi(&mut bytes)?, s: read_mpi(&mut bytes)? },
        19 => mpi::Signature::ECDSA { r: read_mpi(&mut bytes)?, s: read_mpi(&mut bytes)? },
        22 => mpi::Signature::EdDSA { r: read_mpi(&mut bytes)?, s: read_mpi(&mut bytes)? },
        // 27, the Ed25519 of RFC 9580, is not known to gpg 2.2 and so to most clients.
        _ => return Ok(None),
    };
    if bytes.is_empty() { Ok(Some(value)) } else { Err(MessageError::Malformed("its signature packet is too long")) }
}

fn read_mpi(bytes: &mut &[u8]) -> Result<MPI, MessageError> {
    let (bits, rest) = bytes.split_first_chunk::<2>().ok_or(CUT)?;
    let bits = usize::from(u16::from_be_bytes(*bits));
    let (value, rest) = rest.split_at_checked(bits.div_ceil(8)).ok_or(CUT)?;
    *bytes = rest;
    let number = MPI::new(value);
    // Fewer bits than announced are written by gpg for Ed25519; more are a contradiction.
    if number.bits() > bits {
        return Err(MessageError::Malformed("a number in its signature packet is larger than announced"));
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_text_with_network_line_ends_is_judged() {
        let packet = |kind: u8| SignaturePacket::parse(&[4, kind, 1, 8, 0, 0, 0, 0, 0xAB, 0xCD, 0, 1, 1]).unwrap();
        let fault = |text: &str| {
            assert_eq!(packet(BINARY).line_fault(text.as_bytes()), None, "{text:?}");
            packet(TEXT).line_fault(text.as_bytes())
        };
        for good in ["", "{}", "{} ", "a\r\nb", "a\r\n\r\n"] {
            assert_eq!(fault(good), None, "{good:?}");
        }
        for bare in ["a\nb", "\n", "a\r\nb\n", "a\r\n\nb"] {
            assert_eq!(fault(bare), Some(LineFault::BareLineFeed), "{bare:?}");
        }
        for stray in ["a\rb", "a\r", "\r\r\n"] {
            assert_eq!(fault(stray), Some(LineFault::StrayCarriageReturn), "{stray:?}");
        }
    }

    #[test]
    fn every_octet_belongs_to_something() {
        let good = [4, 0, 1, 8, 0, 0, 0, 0, 0xAB, 0xCD, 0, 1, 1];
        let packet = SignaturePacket::parse(&good).unwrap();
        assert_eq!(packet.digest_prefix, [0xAB, 0xCD]);
        assert_eq!(packet.hashed_tail, [4, 0, 1, 8, 0, 0, 4, 0xFF, 0, 0, 0, 6]);
        for cut in 0..good.len() {
            assert!(SignaturePacket::parse(&good[..cut]).is_err(), "{cut}");
        }
        assert!(SignaturePacket::parse(&[&good[..], &[0]].concat()).is_err());
        // Two bits where one is announced.
        assert!(SignaturePacket::parse(&[4, 0, 1, 8, 0, 0, 0, 0, 0xAB, 0xCD, 0, 1, 2]).is_err());
        // An algorithm of the future can be shown, not verified.
        assert!(SignaturePacket::parse(&[4, 0, 99, 8, 0, 0, 0, 0, 0xAB, 0xCD, 7, 7]).unwrap().value.is_none());
    }

    #[test]
    fn version_3_says_all_in_its_fields() {
        let body = [3, 5, 0, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 17, 2, 0xAB, 0xCD, 0, 1, 1, 0, 1, 1];
        let packet = SignaturePacket::parse(&body).unwrap();
        assert_eq!(packet.subpackets.created, Some(9));
        assert_eq!(packet.subpackets.issuers[0].to_string(), "0102030405060708");
        assert_eq!(packet.hashed_tail, [0, 0, 0, 0, 9]);
        for cut in 0..body.len() {
            assert!(SignaturePacket::parse(&body[..cut]).is_err(), "{cut}");
        }
        for version in [0, 2, 5, 6] {
            let mut other = body;
            other[0] = version;
            assert!(SignaturePacket::parse(&other).is_err(), "{version}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(version in 3u8..5, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = SignaturePacket::parse(&[&[version][..], &bytes].concat());
        }
    }
}
