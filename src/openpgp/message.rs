//! The shape of a signed message: exactly one literal with exactly one signature, in one of the
//! forms that clients accept, and not an octet more (spec containers-image 4.3).
//!
//! ```text
//! one-pass  literal  signature          what everybody writes
//! signature literal                     the old style
//! compressed( either of the above )     what gpg writes by default
//! ```
//!
//! Marker packets may stand anywhere. No cryptography here.

use super::decompress::{DecompressError, decompress};
use super::fingerprint::KeyId;
use super::packet::{FramingError, Packet, Packets, tag};
use super::signature_packet::SignaturePacket;
use crate::signature::BLOB_LIMIT;

/// The most bytes a signed claim may have. Real ones have under 4 KiB.
pub const CONTENT_LIMIT: usize = 64 * 1024;
/// Room for the content, a signature packet and their framing, after decompression.
const UNPACKED_LIMIT: usize = CONTENT_LIMIT + 160 * 1024;
/// More packets than any acceptable message has; the rest is not looked at.
const PACKET_LIMIT: usize = 8;

/// Why bytes are not exactly one signed message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// No bytes, or nothing but marker packets.
    #[error("the signature is empty: an OpenPGP message was expected")]
    Empty,
    /// More bytes than any client reads.
    #[error("the signature has more than {BLOB_LIMIT} bytes")]
    TooLarge,
    /// `-----BEGIN PGP …`.
    #[error("the signature is ASCII-armoured, which clients refuse; convert it with `gpg --dearmor`")]
    Armoured,
    /// `-----BEGIN PGP SIGNED MESSAGE-----`.
    #[error("this is a cleartext signature, which clients refuse; sign with `gpg --sign`, not `--clearsign`")]
    Cleartext,
    /// The first octet begins no packet: text, HTML, JSON, zeros.
    #[error("this is no OpenPGP message: it begins with octet {0:#04x}")]
    NotOpenPgp(u8),
    /// An octet inside the message begins no packet, or a length is missing.
    #[error("the OpenPGP message is malformed: {0}")]
    Malformed(&'static str),
    /// A packet says that it is longer than what is there.
    #[error("the OpenPGP message is cut off")]
    CutOff,
    /// Encrypted, with or without a signature inside.
    #[error("this OpenPGP message is encrypted; a signed one, readable by everybody, was expected")]
    Encrypted,
    /// A literal without a signature.
    #[error("the input is not a signature: the OpenPGP message is not signed")]
    NotSigned,
    /// A signature without the content it signs.
    #[error("this is a detached signature; the signed content must be inside (`gpg --sign`, not `--detach-sign`)")]
    Detached,
    /// Two or more signatures over one literal.
    #[error("the message has more than one signature; store one signature a file, each made by one key")]
    ManySignatures,
    /// The one-pass packet says that another signature follows.
    #[error("the one-pass signature packet announces a nested signature, which some clients refuse")]
    Nested,
    /// Bytes, packets or a whole message after the signed message.
    #[error("there is something after the signed message, and nothing may be there")]
    Trailing,
    /// A compressed packet inside a compressed packet.
    #[error("the message is compressed more than once")]
    CompressedTwice,
    /// A packet that has no place in a signed message.
    #[error("a packet of type {0} has no place in a signed message")]
    Unexpected(u8),
    /// Unknown algorithm, damaged data or too much of it.
    #[error("cannot unpack the compressed message: {0}")]
    Compression(String),
    /// The literal is larger than [`CONTENT_LIMIT`].
    #[error("the signed content has more than {CONTENT_LIMIT} bytes; a container signature has a few hundred")]
    ContentTooLarge,
}

impl From<FramingError> for MessageError {
    fn from(error: FramingError) -> Self {
        match error {
            FramingError::NotAPacket(_) => Self::Malformed("an octet inside it begins no packet"),
            FramingError::CutOff => Self::CutOff,
            FramingError::NoLength(_) => Self::Malformed("a packet has no definite length"),
        }
    }
}

impl From<DecompressError> for MessageError {
    fn from(error: DecompressError) -> Self {
        Self::Compression(error.to_string())
    }
}

/// A one-pass signature packet, version 3 (RFC 9580, 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OnePass {
    pub kind: u8,
    pub hash_algorithm: u8,
    pub key_algorithm: u8,
    pub issuer: KeyId,
    pub last: bool,
}

/// A signed message, taken apart. Nothing in it is verified.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub content: Vec<u8>,
    pub signature: SignaturePacket,
    /// `None` in the old style.
    pub one_pass: Option<OnePass>,
}

/// All packets but markers up to the first fault, with compression undone once.
struct Outline {
    packets: Vec<Packet<'static>>,
    fault: Option<MessageError>,
}

/// Takes a message apart, accepting nothing but the three forms.
pub(super) fn read(bytes: &[u8]) -> Result<Message, MessageError> {
    opening(bytes)?;
    let outline = outline(bytes, true);
    let tags: Vec<u8> = outline.packets.iter().map(|p| p.tag).collect();
    let complete = tags.starts_with(&[tag::ONE_PASS, tag::LITERAL, tag::SIGNATURE])
        || tags.starts_with(&[tag::SIGNATURE, tag::LITERAL]);
    match outline.fault {
        Some(_) if complete => return Err(MessageError::Trailing),
        Some(fault) => return Err(fault),
        None => {}
    }
    match outline.packets.as_slice() {
        [one_pass, literal, signature] if tags == [tag::ONE_PASS, tag::LITERAL, tag::SIGNATURE] => {
            let one_pass = read_one_pass(&one_pass.body)?;
            if !one_pass.last {
                return Err(MessageError::Nested);
            }
            let content = read_literal(&literal.body)?;
            Ok(Message { content, signature: SignaturePacket::parse(&signature.body)?, one_pass: Some(one_pass) })
        }
        [signature, literal] if tags == [tag::SIGNATURE, tag::LITERAL] => {
            let content = read_literal(&literal.body)?;
            Ok(Message { content, signature: SignaturePacket::parse(&signature.body)?, one_pass: None })
        }
        _ => Err(misshapen(&tags, complete)),
    }
}

/// What can be shown of a message that may be damaged, doubled or otherwise unacceptable.
pub(super) struct Glance {
    pub content: Vec<u8>,
    pub one_pass: Option<OnePass>,
    pub signature: Option<SignaturePacket>,
}

/// Takes the first literal and the first issuer out of a message, whatever else is in it.
///
/// For display of unverified signatures only (spec containers-image 4.5).
pub(super) fn glance(bytes: &[u8]) -> Result<Glance, MessageError> {
    opening(bytes)?;
    let outline = outline(bytes, true);
    let first = |wanted: u8| outline.packets.iter().find(|p| p.tag == wanted);
    let one_pass = first(tag::ONE_PASS).and_then(|p| read_one_pass(&p.body).ok());
    let signature = first(tag::SIGNATURE).and_then(|p| SignaturePacket::parse(&p.body).ok());
    let Some(literal) = first(tag::LITERAL) else {
        let tags: Vec<u8> = outline.packets.iter().map(|p| p.tag).collect();
        return Err(outline.fault.unwrap_or_else(|| misshapen(&tags, false)));
    };
    if one_pass.is_none() && signature.is_none() {
        return Err(outline.fault.unwrap_or(MessageError::NotSigned));
    }
    Ok(Glance { content: read_literal(&literal.body)?, one_pass, signature })
}

/// Tells from the first octets what kind of thing this is, for a helpful sentence.
fn opening(bytes: &[u8]) -> Result<(), MessageError> {
    if bytes.len() > BLOB_LIMIT {
        return Err(MessageError::TooLarge);
    }
    let first = *bytes.first().ok_or(MessageError::Empty)?;
    if first & 0x80 != 0 {
        return Ok(());
    }
    let text = bytes.trim_ascii_start();
    if text.starts_with(b"-----BEGIN PGP SIGNED MESSAGE") {
        return Err(MessageError::Cleartext);
    }
    if text.starts_with(b"-----BEGIN PGP ") {
        return Err(MessageError::Armoured);
    }
    Err(MessageError::NotOpenPgp(first))
}

fn outline(bytes: &[u8], may_be_compressed: bool) -> Outline {
    let mut packets = Vec::new();
    let mut fault = None;
    for packet in Packets::new(bytes) {
        match packet {
            Err(error) => fault = Some(error.into()),
            Ok(Packet { tag: tag::MARKER, body }) if *body == *b"PGP" => {}
            Ok(_) if packets.len() == PACKET_LIMIT => {
                fault = Some(MessageError::Trailing);
                break;
            }
            Ok(Packet { tag, body }) => packets.push(Packet { tag, body: body.into_owned().into() }),
        }
    }
    let [Packet { tag: tag::COMPRESSED, body }, after @ ..] = packets.as_slice() else {
        return Outline { packets, fault };
    };
    if !may_be_compressed {
        return Outline { packets, fault: Some(MessageError::CompressedTwice) };
    }
    let trailing = !after.is_empty() || fault.is_some();
    match decompress(body, UNPACKED_LIMIT) {
        Err(error) => Outline { packets: Vec::new(), fault: Some(error.into()) },
        Ok(inflated) => {
            let mut inner = outline(&inflated.bytes, false);
            if trailing || inflated.trailing {
                inner.fault.get_or_insert(MessageError::Trailing);
            }
            inner
        }
    }
}

/// Names the reason why a sequence of packets is no signed message.
fn misshapen(tags: &[u8], complete: bool) -> MessageError {
    const CLOSED: [u8; 5] = [tag::PKESK, tag::SKESK, tag::ENCRYPTED, tag::ENCRYPTED_INTEGRITY, tag::ENCRYPTED_AEAD];
    const SIGNED: [u8; 4] = [tag::ONE_PASS, tag::SIGNATURE, tag::LITERAL, tag::COMPRESSED];
    let count = |wanted: u8| tags.iter().filter(|t| **t == wanted).count();
    if let Some(first) = tags.first()
        && CLOSED.contains(first)
    {
        return MessageError::Encrypted;
    }
    if complete {
        return if tags.get(3..) == Some(&[tag::SIGNATURE]) {
            MessageError::ManySignatures
        } else {
            MessageError::Trailing
        };
    }
    if let Some(strange) = tags.iter().find(|t| !SIGNED.contains(t)) {
        return MessageError::Unexpected(*strange);
    }
    match (count(tag::ONE_PASS), count(tag::LITERAL), count(tag::SIGNATURE)) {
        _ if tags.is_empty() => MessageError::Empty,
        _ if tags.contains(&tag::COMPRESSED) => MessageError::Unexpected(tag::COMPRESSED),
        (0, 1.., 0) => MessageError::NotSigned,
        (0, 0, 1..) => MessageError::Detached,
        (2.., ..) | (.., 2..) => MessageError::ManySignatures,
        (1, 1, 0) => MessageError::CutOff,
        _ => MessageError::Malformed("its packets stand in the wrong order"),
    }
}

fn read_one_pass(body: &[u8]) -> Result<OnePass, MessageError> {
    let [version, kind, hash_algorithm, key_algorithm, issuer @ .., last] = body else {
        return Err(MessageError::Malformed("the one-pass signature packet is too short"));
    };
    if *version != 3 {
        return Err(MessageError::Malformed("the one-pass signature packet is not of version 3"));
    }
    // Everybody writes 1 for "the last one"; clients disagree on nothing but 0.
    if *last > 1 {
        return Err(MessageError::Malformed("the flag of its one-pass signature packet is neither 0 nor 1"));
    }
    let issuer = issuer.try_into().map_err(|_| MessageError::Malformed("the one-pass signature packet is too long"))?;
    Ok(OnePass {
        kind: *kind,
        hash_algorithm: *hash_algorithm,
        key_algorithm: *key_algorithm,
        issuer: KeyId(issuer),
        last: *last == 1,
    })
}

/// Returns the content of a literal data packet. Its file name and date are signed by nobody and
/// used by nobody, so they may be anything.
fn read_literal(body: &[u8]) -> Result<Vec<u8>, MessageError> {
    let short = MessageError::Malformed("the literal data packet is too short");
    let [format, name_length, rest @ ..] = body else { return Err(short) };
    if !matches!(format, b'b' | b't' | b'u') {
        return Err(MessageError::Malformed("the literal data packet is neither binary nor text"));
    }
    let content = rest.get(usize::from(*name_length) + 4..).ok_or(short)?;
    if content.len() > CONTENT_LIMIT {
        return Err(MessageError::ContentTooLarge);
    }
    Ok(content.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openpgp::packet::frame;
    use proptest::prelude::*;

    fn one_pass(last: u8) -> Vec<u8> {
        frame(tag::ONE_PASS, &[3, 0, 8, 1, 1, 2, 3, 4, 5, 6, 7, 8, last])
    }

    fn literal(content: &[u8]) -> Vec<u8> {
        frame(tag::LITERAL, &[&[b'b', 0, 0, 0, 0, 0], content].concat())
    }

    fn signature() -> Vec<u8> {
        // Version 4, RSA, SHA-256, no subpackets, an MPI of one bit.
        frame(tag::SIGNATURE, &[4, 0, 1, 8, 0, 0, 0, 0, 0xAB, 0xCD, 0, 1, 1])
    }

    fn why(parts: &[&[u8]]) -> MessageError {
        read(&parts.concat()).unwrap_err()
    }

    #[test]
    fn the_forms_are_read() {
        let (ops, lit, sig) = (one_pass(1), literal(b"hello"), signature());
        let marker = frame(tag::MARKER, b"PGP");
        let stored = |inner: &[u8]| frame(tag::COMPRESSED, &[&[0], inner].concat());
        for good in [
            [&ops[..], &lit, &sig].concat(),
            [&sig[..], &lit].concat(),
            [&marker[..], &ops, &lit, &marker, &sig, &marker].concat(),
            stored(&[&ops[..], &lit, &sig].concat()),
            [&stored(&[&sig[..], &lit].concat())[..], &marker].concat(),
        ] {
            assert_eq!(read(&good).unwrap().content, b"hello", "{good:x?}");
            assert_eq!(glance(&good).unwrap().content, b"hello");
        }
    }

    #[test]
    fn every_other_shape_has_its_reason() {
        let (ops, lit, sig) = (&one_pass(1)[..], &literal(b"hello")[..], &signature()[..]);
        let nested = &one_pass(0)[..];
        let stored = |inner: &[&[u8]]| frame(tag::COMPRESSED, &[&[0], &inner.concat()[..]].concat());
        assert_eq!(why(&[]), MessageError::Empty);
        assert_eq!(why(&[&frame(tag::MARKER, b"PGP")]), MessageError::Empty);
        assert_eq!(why(&[&frame(tag::MARKER, b"PGQ")]), MessageError::Unexpected(tag::MARKER));
        assert_eq!(why(&[b"<html>"]), MessageError::NotOpenPgp(b'<'));
        assert_eq!(why(&[b"-----BEGIN PGP SIGNED MESSAGE-----"]), MessageError::Cleartext);
        assert_eq!(why(&[b"\n-----BEGIN PGP MESSAGE-----"]), MessageError::Armoured);
        assert_eq!(why(&[lit]), MessageError::NotSigned);
        assert_eq!(why(&[sig]), MessageError::Detached);
        assert_eq!(why(&[ops, lit]), MessageError::CutOff);
        assert_eq!(why(&[ops, lit, &sig[..9]]), MessageError::CutOff);
        assert_eq!(why(&[nested, lit, sig]), MessageError::Nested);
        assert_eq!(why(&[nested, ops, lit, sig, sig]), MessageError::ManySignatures);
        assert_eq!(why(&[sig, sig, lit]), MessageError::ManySignatures);
        assert_eq!(why(&[ops, lit, sig, sig]), MessageError::ManySignatures);
        assert_eq!(why(&[ops, lit, sig, ops, lit, sig]), MessageError::Trailing);
        assert_eq!(why(&[ops, lit, sig, &[0]]), MessageError::Trailing);
        assert_eq!(why(&[ops, lit, sig, b"x"]), MessageError::Trailing);
        assert_eq!(why(&[ops, lit, sig, &frame(21, b"padding")]), MessageError::Trailing);
        assert_eq!(why(&[sig, lit, sig]), MessageError::Trailing);
        assert_eq!(why(&[&frame(tag::PKESK, b"")]), MessageError::Encrypted);
        assert_eq!(why(&[&frame(tag::ENCRYPTED_INTEGRITY, b"")]), MessageError::Encrypted);
        assert_eq!(why(&[&frame(tag::PUBLIC_KEY, b"")]), MessageError::Unexpected(tag::PUBLIC_KEY));
        assert_eq!(why(&[ops, &stored(&[lit]), sig]), MessageError::Unexpected(tag::COMPRESSED));
        assert_eq!(why(&[&stored(&[ops, lit, sig]), &[0]]), MessageError::Trailing);
        assert_eq!(why(&[&stored(&[ops, lit, sig]), lit]), MessageError::Trailing);
        assert_eq!(why(&[&stored(&[&stored(&[ops, lit, sig])])]), MessageError::CompressedTwice);
        assert_eq!(why(&[&stored(&[])]), MessageError::Empty);
        assert_eq!(why(&[&[0xC8, 1, 9]]), MessageError::Compression("algorithm 9 is not known".to_owned()));
        let large = literal(&vec![b' '; CONTENT_LIMIT + 1]);
        assert_eq!(why(&[ops, &large, sig]), MessageError::ContentTooLarge);
        assert_eq!(why(&[&vec![0xC8; BLOB_LIMIT + 1]]), MessageError::TooLarge);
        assert!(matches!(why(&[&vec![0xCA; 1000]]), MessageError::Malformed(_) | MessageError::CutOff));
    }

    #[test]
    fn a_glance_sees_through_faults_but_not_through_everything() {
        let (ops, lit, sig) = (&one_pass(0)[..], &literal(b"hello")[..], &signature()[..]);
        for bad in [
            [ops, lit, sig].concat(),
            [ops, lit].concat(),
            [ops, lit, &sig[..5]].concat(),
            [ops, ops, lit, sig, sig].concat(),
            [ops, lit, sig, b"x"].concat(),
            [sig, lit, lit].concat(),
        ] {
            assert!(read(&bad).is_err());
            assert_eq!(glance(&bad).unwrap().content, b"hello", "{bad:x?}");
        }
        assert_eq!(glance(lit).err(), Some(MessageError::NotSigned));
        assert_eq!(glance(sig).err(), Some(MessageError::Detached));
        assert_eq!(glance(b"-----BEGIN PGP MESSAGE-----").err(), Some(MessageError::Armoured));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = glance(&bytes);
        }

        #[test]
        fn never_panics_on_shuffled_packets(tags in proptest::collection::vec(prop_oneof![Just(2u8), Just(4), Just(8), Just(11), 1u8..22], 0..7), body in proptest::collection::vec(any::<u8>(), 0..30)) {
            let bytes: Vec<u8> = tags.iter().flat_map(|t| frame(*t, &body)).collect();
            let _ = read(&bytes);
            let _ = glance(&bytes);
        }
    }
}
