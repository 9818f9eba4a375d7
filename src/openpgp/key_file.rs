//! Key files: binary, or armoured blocks with any text around them; and where each certificate in
//! them begins and ends, by the rules of gpg (spec containers-image 4.4).

use std::borrow::Cow;

use sequoia_openpgp::Cert;
use sequoia_openpgp::parse::Parse;

use super::armor;
use super::packet::{Packet, Packets, frame, tag};

/// The most bytes read of one keyring. A key has some kilobytes; all of Debian's keys have 10 MiB.
pub const KEYRING_LIMIT: usize = 32 * 1024 * 1024;

/// Reads all certificates of one file, with their secrets if they have them, whether or not clients
/// would import them.
pub(super) fn certificates(blob: &[u8], notes: &mut Vec<String>) -> Vec<Cert> {
    let Some(file) = File::open(blob, notes) else { return Vec::new() };
    let mut certs = Vec::new();
    for chunk in file.chunks(notes).0 {
        let bytes: Vec<u8> = chunk.packets.iter().flat_map(|p| frame(p.tag, &p.body)).collect();
        match Cert::from_bytes(&bytes) {
            Ok(cert) => certs.push(cert),
            Err(error) => notes.push(format!("a key was skipped: {error}")),
        }
    }
    certs
}

/// The octets of a key file, without its armour.
pub(super) struct File<'a> {
    bytes: Cow<'a, [u8]>,
    /// Where the first armoured block ends, the only one that x/crypto reads.
    pub first_block: usize,
    /// What makes x/crypto refuse the first block.
    pub x_crypto: Option<&'static str>,
}

/// The packets of one certificate and where in the file it ends.
pub(super) struct Chunk<'a> {
    pub packets: Vec<Packet<'a>>,
    pub end: usize,
}

impl<'a> File<'a> {
    pub fn open(blob: &'a [u8], notes: &mut Vec<String>) -> Option<Self> {
        if blob.len() > KEYRING_LIMIT {
            notes.push(format!("a keyring with more than {KEYRING_LIMIT} bytes was skipped"));
            return None;
        }
        if blob.get(8..12) == Some(b"KBXf") {
            notes.push("a GnuPG keybox was skipped; export its keys with `gpg --export`".to_owned());
            return None;
        }
        let first = blob.first().copied().unwrap_or_default();
        if first & 0x80 != 0 {
            let file = Self { bytes: Cow::Borrowed(blob), first_block: blob.len(), x_crypto: None };
            // Without any key it may still be text that begins with a character outside ASCII. For
            // gpg some of these, such as umlauts, begin a packet.
            let mut faults = Vec::new();
            let (begins, holds_keys) = (begins_packet(first), !file.chunks(&mut faults).0.is_empty());
            if holds_keys && !may_be_first(first) {
                notes.push(format!(
                    "a keyring was skipped: GnuPG reads no key of a file that begins with a packet of type {}",
                    packet_type(first)
                ));
                return None;
            }
            if begins || holds_keys {
                return Some(file);
            }
        }
        match armor::decode(blob) {
            Ok(decoded) => Some(Self {
                bytes: Cow::Owned(decoded.bytes),
                first_block: decoded.first_block,
                x_crypto: decoded.x_crypto,
            }),
            Err(error) => {
                notes.push(format!("a keyring without any OpenPGP key was skipped: {error}"));
                None
            }
        }
    }

    /// Splits the packets at the primary keys, so that a certificate that cannot be read takes no
    /// other with it. Also returns where reading stopped before the end.
    pub fn chunks(&self, notes: &mut Vec<String>) -> (Vec<Chunk<'_>>, Option<usize>) {
        let mut chunks: Vec<Chunk<'_>> = Vec::new();
        let mut packets = Packets::new(&self.bytes);
        let mut stopped_at = None;
        loop {
            let start = self.bytes.len() - packets.remaining();
            let stopped = match packets.next() {
                None => break,
                Some(Err(error)) => error.to_string(),
                Some(Ok(packet)) => match packet.tag {
                    tag::PUBLIC_KEY | tag::SECRET_KEY => {
                        let end = self.bytes.len() - packets.remaining();
                        chunks.push(Chunk { packets: vec![packet], end });
                        continue;
                    }
                    tag::SIGNATURE | tag::SECRET_SUBKEY | tag::PUBLIC_SUBKEY | tag::USER_ID | tag::USER_ATTRIBUTE => {
                        if let Some(chunk) = chunks.last_mut() {
                            chunk.packets.push(packet);
                            chunk.end = self.bytes.len() - packets.remaining();
                        }
                        continue;
                    }
                    tag::PKESK
                    | tag::SKESK
                    | tag::ONE_PASS
                    | tag::COMPRESSED
                    | tag::ENCRYPTED
                    | tag::LITERAL
                    | tag::ENCRYPTED_INTEGRITY
                    | tag::ENCRYPTED_AEAD => format!("a packet of type {} has no place in it", packet.tag),
                    tag::MARKER if *packet.body != *b"PGP" => {
                        notes.push("a keyring was skipped: a marker packet in it does not say PGP".to_owned());
                        return (Vec::new(), Some(start));
                    }
                    // Trust packets, markers and what is not known belong to no certificate.
                    _ => continue,
                },
            };
            chunks.pop();
            notes.push(format!("a keyring was read only in part: {stopped}"));
            stopped_at = Some(start);
            break;
        }
        if chunks.is_empty() && stopped_at.is_none() {
            notes.push("a keyring without any OpenPGP key was skipped".to_owned());
        }
        (chunks, stopped_at)
    }
}

/// The type of the packet that begins with this octet.
fn packet_type(octet: u8) -> u8 {
    if octet & 0x40 == 0 { (octet >> 2) & 0x0F } else { octet & 0x3F }
}

/// Whether gpg takes a file that begins with this octet for binary (`is_armored` of gpg 2.2).
fn begins_packet(octet: u8) -> bool {
    matches!(packet_type(octet), 1..=6 | 8..=11 | 16 | 18 | 60..=63)
}

/// Whether gpg 2.2.40 reads the keys of a binary file that begins with a packet of this type
/// (measured; spec containers-image 4.4).
fn may_be_first(octet: u8) -> bool {
    matches!(packet_type(octet), 2 | 5 | 6 | 10 | 12 | 13 | 14 | 19 | 61)
}
