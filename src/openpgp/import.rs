//! What an import into gpg leaves of a certificate, as containers/image with gpgme does it for every
//! verification, and what makes x/crypto refuse the same certificate
//! (spec containers-image 4.4, rows of key files).
//!
//! Signatures that gpg passes over are taken out before Sequoia sees the certificate, so that none
//! of them can lend it a user ID, a flag or a longer life. Revocations always stay.

use sequoia_openpgp::Cert;
use sequoia_openpgp::packet::{Key, key};
use sequoia_openpgp::parse::Parse;
use sequoia_openpgp::types::Curve;

use super::packet::{Packet, frame, tag};
use super::self_signatures::unix;
use super::subpacket::{Subpacket, gnupg_knows, kind, split, x_crypto_knows};

/// gpg drops longer user IDs.
const USER_ID_LIMIT: usize = 2048;
const MD5: u8 = 1;

/// Types of signatures in keys.
mod signature_type {
    pub const GENERIC: u8 = 0x10;
    pub const POSITIVE: u8 = 0x13;
    pub const SUBKEY_BINDING: u8 = 0x18;
    pub const DIRECT: u8 = 0x1F;
    pub const KEY_REVOCATION: u8 = 0x20;
    pub const SUBKEY_REVOCATION: u8 = 0x28;
    pub const USER_ID_REVOCATION: u8 = 0x30;
}

/// A certificate that gpg imports.
pub(super) struct Imported {
    pub cert: Cert,
    /// Why x/crypto refuses it although gpg imports it.
    pub x_crypto: Option<&'static str>,
}

/// Takes the packets of one certificate, its primary key first.
///
/// # Errors
/// Why gpg imports no such key.
pub(super) fn import(packets: &[Packet<'_>]) -> Result<Imported, String> {
    let framed = |packets: &[&Packet<'_>]| packets.iter().flat_map(|p| frame(p.tag, &p.body)).collect::<Vec<u8>>();
    let parse = |bytes: &[u8]| Cert::from_bytes(bytes).map_err(|e| e.to_string());
    let whole = parse(&framed(&packets.iter().collect::<Vec<_>>()))?;
    let primary = whole.primary_key().key().clone();
    if primary.version() != 4 {
        // No client of today verifies with it, nor do we.
        return Ok(Imported { cert: whole, x_crypto: Some(UNKNOWN_ALGORITHM) });
    }
    let (kept, stumbles) = sift(packets, &primary)?;
    let cert = if kept.len() == packets.len() { whole } else { parse(&framed(&kept))? };
    if !cert.userids().any(|id| id.self_signatures().next().is_some()) {
        return Err("it has no user ID with a valid self-signature, so GnuPG imports nothing".to_owned());
    }
    let x_crypto = if !readable(&primary) {
        Some(UNKNOWN_ALGORITHM)
    } else if !cert.keys().subkeys().all(|subkey| readable(subkey.key())) {
        Some("they do not know the algorithm of one of the key's subkeys")
    } else if cert.bad_signatures().next().is_some() {
        Some("a signature in the key is bad")
    } else {
        stumbles
    };
    Ok(Imported { cert, x_crypto })
}

const UNKNOWN_ALGORITHM: &str = "they do not know the algorithm of the key";

/// Reads what revokes a key or its subkeys out of a certificate that gpg does not import on its own:
/// beside a whole copy of the key it counts. Key servers hand out such certificates.
pub(super) fn revocations(packets: &[Packet<'_>]) -> Option<Cert> {
    let revokes = |packet: &Packet<'_>| {
        let kind = match *packet.body {
            [2..=3, _, kind, ..] | [4, kind, ..] => kind,
            _ => return false,
        };
        matches!(kind, signature_type::KEY_REVOCATION | signature_type::SUBKEY_REVOCATION)
    };
    let kept = packets.iter().filter(|packet| match packet.tag {
        tag::SIGNATURE => revokes(packet),
        tag::USER_ID | tag::USER_ATTRIBUTE => false,
        _ => true,
    });
    let bytes: Vec<u8> = kept.flat_map(|packet| frame(packet.tag, &packet.body)).collect();
    Cert::from_bytes(&bytes).ok()
}

/// Whether x/crypto can read this packet of a primary key. If not, it loses the key before it, too.
pub(super) fn x_crypto_reads(packet: &Packet<'_>) -> bool {
    matches!(&*packet.body, [4, _, _, _, _, 1..=3 | 16..=19, ..] | [2..=3, ..])
}

/// Chooses the packets that gpg keeps, and says what of all of them x/crypto stumbles over.
fn sift<'a>(
    packets: &'a [Packet<'a>],
    primary: &Key<key::PublicParts, key::PrimaryRole>,
) -> Result<(Vec<&'a Packet<'a>>, Option<&'static str>), String> {
    let key_id = primary.keyid().as_bytes().to_vec();
    let created = u32::try_from(unix(primary.creation_time())).unwrap_or(u32::MAX);
    let mut kept = Vec::with_capacity(packets.len());
    let mut fault = None;
    let mut user_id_kept = true;
    let mut identities = 0;
    let mut after_subkey = false;
    let mut subkeys_begun = false;
    let mut says = Vec::new();
    let mut user_ids = 0;
    let mut behind: Option<&Packet<'_>> = None;
    for packet in packets {
        let mut keep = true;
        if after_subkey && packet.tag != tag::SIGNATURE {
            fault.get_or_insert("a subkey of the key has no signature");
        }
        match packet.tag {
            tag::USER_ID | tag::USER_ATTRIBUTE => {
                // gpg judges a primary key by what stands before its first subkey only.
                user_id_kept = packet.body.len() <= USER_ID_LIMIT && !subkeys_begun;
                keep = user_id_kept;
                says.clear();
                user_ids += usize::from(keep && packet.tag == tag::USER_ID);
            }
            tag::PUBLIC_SUBKEY | tag::SECRET_SUBKEY => {
                user_id_kept = true;
                subkeys_begun = true;
            }
            tag::SIGNATURE => {
                let signature = Signature::parse(&packet.body)?;
                keep = (user_id_kept || signature.revokes()) && signature.kept_by_gnupg(&key_id, created);
                if signature.certifies() && signature.first_issuer() == Some(&key_id[..]) {
                    says.extend(signature.says_it_signs());
                    if says.contains(&true) && says.contains(&false) {
                        fault.get_or_insert("self-signatures of one user ID differ about whether the key may sign");
                    }
                    if signature.version < 4 {
                        fault.get_or_insert("a self-signature of the key is of version 3");
                    } else if !stands_behind(&packet.body, behind, primary) {
                        fault.get_or_insert("a self-signature of the key does not stand behind its user ID");
                    }
                }
                if let Some(why) = signature.refused_by_x_crypto() {
                    fault.get_or_insert(why);
                }
                if after_subkey
                    && !matches!(signature.kind, signature_type::SUBKEY_BINDING | signature_type::SUBKEY_REVOCATION)
                {
                    fault.get_or_insert("a subkey of the key has no signature");
                }
                let certifies = matches!(signature.kind, signature_type::GENERIC | signature_type::POSITIVE);
                identities += usize::from(certifies && signature.last_issuer() == Some(&key_id[..]));
            }
            _ => {}
        }
        after_subkey = matches!(packet.tag, tag::PUBLIC_SUBKEY | tag::SECRET_SUBKEY);
        if packet.tag != tag::SIGNATURE {
            behind = Some(packet);
        }
        if keep {
            kept.push(packet);
        }
    }
    if after_subkey {
        fault.get_or_insert("a subkey of the key has no signature");
    }
    if user_ids == 0 {
        return Err("it has no user ID before its subkeys, so GnuPG imports nothing".to_owned());
    }
    if identities == 0 {
        fault.get_or_insert("no user ID of the key has a self-signature of a type that they know");
    }
    Ok((kept, fault))
}

/// Whether a self-signature is over the user ID or attribute that it stands behind. gpg and Sequoia put
/// right what is not, x/crypto does not.
fn stands_behind(
    signature: &[u8],
    before: Option<&Packet<'_>>,
    primary: &Key<key::PublicParts, key::PrimaryRole>,
) -> bool {
    use sequoia_openpgp::packet::{Signature, UserAttribute, UserID};
    let packet = sequoia_openpgp::Packet::from_bytes(&frame(tag::SIGNATURE, signature));
    let Ok(sequoia_openpgp::Packet::Signature(signature)) = packet else { return false };
    let signature: Signature = signature;
    match before {
        Some(id) if id.tag == tag::USER_ID => {
            signature.verify_userid_binding(primary, primary, &UserID::from(&*id.body)).is_ok()
        }
        Some(attribute) if attribute.tag == tag::USER_ATTRIBUTE => signature
            .verify_user_attribute_binding(primary, primary, &UserAttribute::from(attribute.body.to_vec()))
            .is_ok(),
        _ => false,
    }
}

/// A signature in a certificate, as far as it matters here.
struct Signature<'a> {
    version: u8,
    kind: u8,
    key_algorithm: u8,
    hash_algorithm: u8,
    /// Of version 3.
    created: Option<u32>,
    issuer: Option<&'a [u8]>,
    hashed: Vec<Subpacket<'a>>,
    unhashed: Vec<Subpacket<'a>>,
}

impl<'a> Signature<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, String> {
        const DAMAGED: &str = "a signature in it is damaged";
        let number = |at: usize| Some(usize::from(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?])));
        let read = || match body {
            [version @ 2..=3, 5, kind, t0, t1, t2, t3, rest @ ..] => Some(Self {
                version: *version,
                kind: *kind,
                key_algorithm: *rest.get(8)?,
                hash_algorithm: *rest.get(9)?,
                created: Some(u32::from_be_bytes([*t0, *t1, *t2, *t3])),
                issuer: rest.get(..8),
                hashed: Vec::new(),
                unhashed: Vec::new(),
            }),
            [4, kind, key_algorithm, hash_algorithm, ..] => {
                let hashed_end = 6 + number(4)?;
                let unhashed_end = hashed_end + 2 + number(hashed_end)?;
                Some(Self {
                    version: 4,
                    kind: *kind,
                    key_algorithm: *key_algorithm,
                    hash_algorithm: *hash_algorithm,
                    created: None,
                    issuer: None,
                    hashed: split(body.get(6..hashed_end)?).ok()?,
                    unhashed: split(body.get(hashed_end + 2..unhashed_end)?).ok()?,
                })
            }
            _ => None,
        };
        match body.first() {
            Some(2..=4) => read().ok_or_else(|| DAMAGED.to_owned()),
            Some(other) => Err(format!("a signature in it is of version {other}, which GnuPG does not read")),
            None => Err(DAMAGED.to_owned()),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Subpacket<'a>> {
        self.hashed.iter().chain(&self.unhashed)
    }

    fn first_hashed(&self, kind: u8) -> Option<&'a [u8]> {
        self.hashed.iter().find(|s| s.kind == kind).map(|s| s.body)
    }

    /// The key ID that gpg goes by: the first one, in the hashed area before the other. It does not
    /// go by the fingerprint.
    fn first_issuer(&self) -> Option<&'a [u8]> {
        self.issuer.or_else(|| self.all().find(|s| s.kind == kind::ISSUER).map(|s| s.body))
    }

    /// The key ID that x/crypto goes by.
    fn last_issuer(&self) -> Option<&'a [u8]> {
        self.all().filter(|s| s.kind == kind::ISSUER).last().map(|s| s.body)
    }

    fn revokes(&self) -> bool {
        use signature_type::{KEY_REVOCATION, SUBKEY_REVOCATION, USER_ID_REVOCATION};
        matches!(self.kind, KEY_REVOCATION | SUBKEY_REVOCATION | USER_ID_REVOCATION)
    }

    /// Whether it is made over a user ID.
    fn certifies(&self) -> bool {
        (signature_type::GENERIC..=signature_type::POSITIVE).contains(&self.kind)
    }

    /// What its key flags say about signing, if it has any.
    fn says_it_signs(&self) -> Option<bool> {
        self.first_hashed(kind::KEY_FLAGS).map(|flags| flags.first().is_some_and(|flags| flags & 0x02 != 0))
    }

    fn kept_by_gnupg(&self, key_id: &[u8], key_created: u32) -> bool {
        if self.revokes() {
            return true;
        }
        // Sequoia and gpg read self-signatures of version 3 differently.
        if self.version < 4 {
            return false;
        }
        // Certifications by others play no part in a keyring that a policy names.
        if !matches!(
            self.kind,
            signature_type::GENERIC
                ..=signature_type::POSITIVE | signature_type::SUBKEY_BINDING | signature_type::DIRECT
        ) || self.first_issuer() != Some(key_id)
        {
            return false;
        }
        let created = self
            .created
            .or_else(|| self.first_hashed(kind::CREATED).and_then(|body| body.try_into().ok()).map(u32::from_be_bytes));
        let local = self.first_hashed(kind::EXPORTABLE).and_then(<[u8]>::first) == Some(&0);
        created.is_some_and(|created| created >= key_created)
            && self.hash_algorithm != MD5
            && !local
            && self.all().all(|s| !s.critical || gnupg_knows(s.kind, s.body))
    }

    /// Why x/crypto gives up reading the certificate at this signature, whoever made it.
    fn refused_by_x_crypto(&self) -> Option<&'static str> {
        if self.version == 4 && self.all().any(|s| s.critical && !x_crypto_knows(s.kind)) {
            return Some("a signature in the key has a critical subpacket that they do not know");
        }
        if self.unhashed.iter().any(|s| s.kind == kind::CREATED) {
            return Some("a signature in the key has a creation time where nothing is signed");
        }
        let known = matches!(self.key_algorithm, 1 | 3 | 17 | 19) && matches!(self.hash_algorithm, 1..=3 | 8..=11);
        (!known).then_some("they do not know the algorithm of a signature in the key")
    }
}

/// Whether x/crypto can read this key.
fn readable<R: key::KeyRole>(key: &Key<key::PublicParts, R>) -> bool {
    use sequoia_openpgp::crypto::mpi::PublicKey;
    let nist = |curve: &Curve| matches!(curve, Curve::NistP256 | Curve::NistP384 | Curve::NistP521);
    match key.mpis() {
        PublicKey::RSA { .. } | PublicKey::DSA { .. } | PublicKey::ElGamal { .. } => key.version() == 4,
        PublicKey::ECDSA { curve, .. } | PublicKey::ECDH { curve, .. } => key.version() == 4 && nist(curve),
        _ => false,
    }
}
