//! Packet framing: where an OpenPGP packet begins and ends (RFC 9580, 4.2). Nothing is skipped and
//! nothing is repaired: an octet that belongs to no packet is an error.

use std::borrow::Cow;

/// Packet type IDs that matter here (RFC 9580, 5).
pub(super) mod tag {
    pub const PKESK: u8 = 1;
    pub const SIGNATURE: u8 = 2;
    pub const SKESK: u8 = 3;
    pub const ONE_PASS: u8 = 4;
    pub const SECRET_KEY: u8 = 5;
    pub const PUBLIC_KEY: u8 = 6;
    pub const SECRET_SUBKEY: u8 = 7;
    pub const COMPRESSED: u8 = 8;
    pub const ENCRYPTED: u8 = 9;
    pub const MARKER: u8 = 10;
    pub const LITERAL: u8 = 11;
    pub const USER_ID: u8 = 13;
    pub const PUBLIC_SUBKEY: u8 = 14;
    pub const USER_ATTRIBUTE: u8 = 17;
    pub const ENCRYPTED_INTEGRITY: u8 = 18;
    pub const ENCRYPTED_AEAD: u8 = 20;
}

/// One packet, its length decoded and its parts joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub tag: u8,
    pub body: Cow<'a, [u8]>,
}

/// What is wrong with the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    #[error("no packet begins with octet {0:#04x}")]
    NotAPacket(u8),
    #[error("the last packet is cut off")]
    CutOff,
    #[error("a packet of type {0} has no definite length")]
    NoLength(u8),
}

/// Iterates over the packets of `rest`; ends at the first framing error.
pub(super) struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Packets<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns how many octets have not been read yet.
    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn octet(&mut self) -> Result<u8, FramingError> {
        let (&first, rest) = self.rest.split_first().ok_or(FramingError::CutOff)?;
        self.rest = rest;
        Ok(first)
    }

    fn number(&mut self, octets: usize) -> Result<usize, FramingError> {
        (0..octets).try_fold(0usize, |n, _| Ok((n << 8) | usize::from(self.octet()?)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], FramingError> {
        let (body, rest) = self.rest.split_at_checked(length).ok_or(FramingError::CutOff)?;
        self.rest = rest;
        Ok(body)
    }

    fn packet(&mut self) -> Result<Packet<'a>, FramingError> {
        let header = self.octet()?;
        if header & 0x80 == 0 {
            return Err(FramingError::NotAPacket(header));
        }
        if header & 0x40 != 0 {
            return self.new_format(header & 0x3F).and_then(|p| reserved(p, header));
        }
        let tag = (header >> 2) & 0x0F;
        let body = match header & 3 {
            3 if streamable(tag) => std::mem::take(&mut self.rest),
            3 => return Err(FramingError::NoLength(tag)),
            size => {
                let length = self.number(1 << size)?;
                self.take(length)?
            }
        };
        reserved(Packet { tag, body: Cow::Borrowed(body) }, header)
    }

    fn new_format(&mut self, tag: u8) -> Result<Packet<'a>, FramingError> {
        let mut parts: Option<Vec<u8>> = None;
        loop {
            let first = self.octet()?;
            let length = match first {
                0..=191 => usize::from(first),
                192..=223 => ((usize::from(first) - 192) << 8) + usize::from(self.octet()?) + 192,
                255 => self.number(4)?,
                224..=254 if streamable(tag) => {
                    let part = self.take(1 << (first & 0x1F))?;
                    parts.get_or_insert_default().extend_from_slice(part);
                    continue;
                }
                224..=254 => return Err(FramingError::NoLength(tag)),
            };
            let last = self.take(length)?;
            let body = match parts {
                None => Cow::Borrowed(last),
                Some(mut joined) => {
                    joined.extend_from_slice(last);
                    Cow::Owned(joined)
                }
            };
            return Ok(Packet { tag, body });
        }
    }
}

/// Only data packets may come in parts or without a length (RFC 9580, 4.2.1.4).
fn streamable(tag: u8) -> bool {
    matches!(tag, tag::COMPRESSED | tag::ENCRYPTED | tag::LITERAL | tag::ENCRYPTED_INTEGRITY | tag::ENCRYPTED_AEAD)
}

fn reserved(packet: Packet<'_>, header: u8) -> Result<Packet<'_>, FramingError> {
    if packet.tag == 0 { Err(FramingError::NotAPacket(header)) } else { Ok(packet) }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Packet<'a>, FramingError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = self.packet();
        if packet.is_err() {
            self.rest = &[];
        }
        Some(packet)
    }
}

/// Frames `body` in the new format with the shortest definite length.
pub(super) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xC0 | tag];
    match body.len() {
        n @ 0..=191 => out.extend(u8::try_from(n)),
        n @ 192..=8383 => {
            let [high, low] = u16::try_from(n - 192).unwrap_or_default().to_be_bytes();
            out.extend([high + 192, low]);
        }
        n => {
            out.push(255);
            out.extend(u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(body);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, FramingError> {
        Packets::new(bytes).map(|p| p.map(|p| (p.tag, p.body.into_owned()))).collect()
    }

    #[test]
    fn both_formats_and_all_lengths() {
        let one = |tag, body: &[u8]| Ok(vec![(tag, body.to_vec())]);
        assert_eq!(all(&[0x88, 1, 7]), one(2, &[7]));
        assert_eq!(all(&[0x89, 0, 1, 7]), one(2, &[7]));
        assert_eq!(all(&[0x8A, 0, 0, 0, 1, 7]), one(2, &[7]));
        assert_eq!(all(&[0xC2, 1, 7]), one(2, &[7]));
        assert_eq!(all(&[0xC2, 255, 0, 0, 0, 1, 7]), one(2, &[7]));
        assert_eq!(all(&[0xA3, 1, 2, 3]), one(8, &[1, 2, 3]));
        // Parts: one of two octets, one of one, the last of one.
        assert_eq!(all(&[0xCB, 0xE1, 1, 2, 0xE0, 3, 1, 4]), one(11, &[1, 2, 3, 4]));
        assert_eq!(all(&[]), Ok(vec![]));
    }

    #[test]
    fn nothing_is_repaired() {
        assert_eq!(all(b"x"), Err(FramingError::NotAPacket(b'x')));
        assert_eq!(all(&[0xC2, 1, 7, 0]), Err(FramingError::NotAPacket(0)));
        assert_eq!(all(&[0x80, 0]), Err(FramingError::NotAPacket(0x80)));
        assert_eq!(all(&[0xC0, 0]), Err(FramingError::NotAPacket(0xC0)));
        for cut in [&[0xC2][..], &[0xC2, 2, 7], &[0xC2, 193], &[0x89, 0], &[0xCB, 0xE1, 1, 2], &[0xCB, 0xFE, 1]] {
            assert_eq!(all(cut), Err(FramingError::CutOff), "{cut:x?}");
        }
        assert_eq!(all(&[0x8B, 1]), Err(FramingError::NoLength(2)));
        assert_eq!(all(&[0xC2, 0xE0, 1, 0]), Err(FramingError::NoLength(2)));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = all(&bytes);
        }

        #[test]
        fn frames_round_trip(tag in 1u8..64, length in prop_oneof![0usize..400, 8300usize..8500, 65_000usize..66_000]) {
            let body = vec![7u8; length];
            prop_assert_eq!(all(&frame(tag, &body)), Ok(vec![(tag, body)]));
        }
    }
}
