//! Signatures that gpg does not make (any more): built octet by octet and signed with its keys.

use sequoia_openpgp::Cert;
use sequoia_openpgp::crypto::{KeyPair, Signer as _, mpi};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::serialize::MarshalInto;
use sequoia_openpgp::types::HashAlgorithm;

use super::gpg::Exported;

/// Everything a signature can be.
#[derive(Clone)]
pub struct Craft {
    pub version: u8,
    pub kind: u8,
    pub hash: u8,
    pub created: u32,
    pub hashed: Vec<u8>,
    pub unhashed: Vec<u8>,
}

/// A key that signs what it is told to.
pub struct Key {
    pub pair: KeyPair,
    pub fingerprint: Vec<u8>,
}

impl Key {
    /// Takes the `index`th key out of an export.
    pub fn of(exported: &Exported, index: usize) -> Self {
        let cert = Cert::from_bytes(&exported.secret).unwrap();
        let key = cert.keys().nth(index).unwrap().key().clone();
        let fingerprint = key.fingerprint().as_bytes().to_vec();
        Self { pair: key.parts_into_secret().unwrap().into_keypair().unwrap(), fingerprint }
    }

    pub fn id(&self) -> &[u8] {
        &self.fingerprint[12..]
    }

    /// The primary key as signatures over it hash it.
    pub fn hashed_form(&self) -> Vec<u8> {
        let body = self.pair.public().clone().role_into_primary().to_vec().unwrap();
        [&[0x99], &u16::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
    }

    /// The packet of the primary key.
    pub fn packet(&self) -> Vec<u8> {
        frame(6, &self.hashed_form()[3..])
    }

    fn algorithm(&self) -> u8 {
        self.pair.public().pk_algo().into()
    }
}

pub fn sub(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() + 1;
    match u8::try_from(length) {
        Ok(short @ ..=191) => [&[short, kind], body].concat(),
        _ => [&[255], &u32::try_from(length).unwrap().to_be_bytes()[..], &[kind], body].concat(),
    }
}

/// Frames in the new format; long enough for all that is crafted here.
pub fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[0xC0 | tag, 255], &length[..], body].concat()
}

impl Craft {
    /// An ordinary signature: created two days after the shared keys, with issuer and fingerprint.
    pub fn ordinary(key: &Key) -> Self {
        let created = 1_704_240_000u32;
        let fingerprint = sub(33, &[&[4], &key.fingerprint[..]].concat());
        Self {
            version: 4,
            kind: 0,
            hash: 8,
            created,
            hashed: [fingerprint, sub(2, &created.to_be_bytes())].concat(),
            unhashed: sub(16, key.id()),
        }
    }

    /// A certification of the key itself with this user ID.
    pub fn certification(&self, key: &Key, user_id: &[u8]) -> Vec<u8> {
        let length = u32::try_from(user_id.len()).unwrap().to_be_bytes();
        self.signature(key, &[&key.hashed_form()[..], &[0xB4], &length, user_id].concat())
    }

    pub fn signature(&self, key: &Key, content: &[u8]) -> Vec<u8> {
        let mut head = vec![4, self.kind, key.algorithm(), self.hash];
        head.extend(u16::try_from(self.hashed.len()).unwrap().to_be_bytes());
        head.extend(&self.hashed);
        let tail = if self.version == 3 {
            [&[self.kind][..], &self.created.to_be_bytes()].concat()
        } else {
            [&head[..], &[4, 0xFF], &u32::try_from(head.len()).unwrap().to_be_bytes()].concat()
        };
        let algorithm = HashAlgorithm::from(self.hash);
        let mut context = algorithm.context().unwrap().for_digest();
        context.update(content);
        context.update(&tail);
        let digest = context.into_digest().unwrap();
        let mut body = if self.version == 3 {
            [&[3, 5][..], &tail, key.id(), &[key.algorithm(), self.hash]].concat()
        } else {
            [&head[..], &u16::try_from(self.unhashed.len()).unwrap().to_be_bytes(), &self.unhashed].concat()
        };
        body.extend(&digest[..2]);
        let value = key.pair.clone().sign(algorithm, &digest).unwrap();
        let numbers = match value {
            mpi::Signature::RSA { s } => vec![s],
            mpi::Signature::EdDSA { r, s } | mpi::Signature::DSA { r, s } | mpi::Signature::ECDSA { r, s } => {
                vec![r, s]
            }
            _ => unreachable!(),
        };
        for number in numbers {
            body.extend(u16::try_from(number.bits()).unwrap().to_be_bytes());
            body.extend(number.value());
        }
        frame(2, &body)
    }

    pub fn one_pass(&self, key: &Key, last: u8) -> Vec<u8> {
        frame(4, &[&[3, self.kind, self.hash, key.algorithm()], key.id(), &[last]].concat())
    }

    /// The message that everybody writes.
    pub fn message(&self, key: &Key, content: &[u8]) -> Vec<u8> {
        [self.one_pass(key, 1), literal(content), self.signature(key, content)].concat()
    }
}

pub fn literal(content: &[u8]) -> Vec<u8> {
    frame(11, &[&[b'b', 0, 0, 0, 0, 0], content].concat())
}

/// Splits a message into its packets, headers included. Knows what gpg and we write uncompressed.
pub fn packets(mut message: &[u8]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while !message.is_empty() {
        let (header, length) = match message {
            [0xC0..=0xFF, 255, a, b, c, d, ..] => (6, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
            [0xC0..=0xFF, n @ 0..=191, ..] => (2, usize::from(*n)),
            [0xC0..=0xFF, n @ 192..=223, m, ..] => (3, ((usize::from(*n) - 192) << 8) + usize::from(*m) + 192),
            [h, n, ..] if h & 3 == 0 => (2, usize::from(*n)),
            [h, n, m, ..] if h & 3 == 1 => (3, usize::from(u16::from_be_bytes([*n, *m]))),
            other => panic!("framing of {:x?}", &other[..other.len().min(4)]),
        };
        let (packet, rest) = message.split_at(header + length);
        out.push(packet.to_vec());
        message = rest;
    }
    out
}
