//! Keyrings: public keys out of whatever file an administrator has, indexed by key ID
//! (spec containers-image 4.4).

use std::collections::HashMap;
use std::io::Read;
use std::sync::Arc;

use sequoia_openpgp::Cert;
use sequoia_openpgp::armor::{Reader, ReaderMode};
use sequoia_openpgp::cert::amalgamation::key::ErasedKeyAmalgamation;
use sequoia_openpgp::packet::key::PublicParts;
use sequoia_openpgp::parse::Parse;

use super::fingerprint::{Fingerprint, KeyId};
use super::packet::{Packets, frame, tag};

/// The most bytes read of one keyring. A key has some kilobytes; all of Debian's keys have 10 MiB.
pub const KEYRING_LIMIT: usize = 32 * 1024 * 1024;

/// A set of public keys. Cheap to clone; parse it once and verify with it as often as you like.
///
/// Self-signatures are checked when a key is first used and the result is kept.
#[derive(Clone, Default)]
pub struct Keyring(Arc<Inner>);

#[derive(Default)]
struct Inner {
    certs: Vec<Cert>,
    fingerprints: Vec<Fingerprint>,
    places: HashMap<KeyId, Vec<Place>>,
    notes: Vec<String>,
}

/// Where a key is in the keyring.
struct Place {
    cert: usize,
    key: usize,
    fingerprint: Fingerprint,
}

/// A key that might have made a signature.
pub(super) struct Candidate<'a> {
    pub cert: &'a Cert,
    pub key: ErasedKeyAmalgamation<'a, PublicParts>,
    pub fingerprint: &'a Fingerprint,
    pub primary: &'a Fingerprint,
}

impl Keyring {
    /// Reads keyrings: binary, or any number of armoured blocks with any text around them.
    ///
    /// Secret keys count as public ones. Copies of one key are merged, so that a revocation found
    /// in any of them counts. What is no key is passed over, as gpg does: a blob of something else
    /// gives no keys and no error, and [`notes`](Self::notes) tells what was passed over.
    pub fn parse(blobs: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut inner = Inner::default();
        let mut places: HashMap<Fingerprint, usize> = HashMap::new();
        for blob in blobs {
            for cert in certificates(blob.as_ref(), &mut inner.notes) {
                let cert = cert.strip_secret_key_material();
                let fingerprint = Fingerprint::of(cert.primary_key().key());
                match places.get(&fingerprint).and_then(|i| inner.certs.get_mut(*i)) {
                    Some(known) => match known.clone().merge_public(cert) {
                        Ok(merged) => *known = merged,
                        Err(error) => {
                            inner.notes.push(format!("a second copy of key {fingerprint} was skipped: {error}"))
                        }
                    },
                    None => {
                        places.insert(fingerprint.clone(), inner.certs.len());
                        inner.certs.push(cert);
                        inner.fingerprints.push(fingerprint);
                    }
                }
            }
        }
        for (cert_index, cert) in inner.certs.iter().enumerate() {
            for (key_index, key) in cert.keys().enumerate().filter(|(_, key)| key.key().version() == 4) {
                let fingerprint = Fingerprint::of(key.key());
                let place = Place { cert: cert_index, key: key_index, fingerprint };
                inner.places.entry(place.fingerprint.key_id()).or_default().push(place);
            }
        }
        Self(Arc::new(inner))
    }

    /// Whether there is no key at all; every verification fails then.
    pub fn is_empty(&self) -> bool {
        self.0.certs.is_empty()
    }

    /// Returns the fingerprints of the primary keys, each once, in the order of the files.
    pub fn fingerprints(&self) -> &[Fingerprint] {
        &self.0.fingerprints
    }

    /// Returns what was passed over while reading, for people who wonder where their key is.
    pub fn notes(&self) -> &[String] {
        &self.0.notes
    }

    /// Returns the keys and subkeys with this key ID; they need not be usable.
    pub(super) fn candidates(&self, id: KeyId) -> impl Iterator<Item = Candidate<'_>> {
        let inner = &*self.0;
        inner.places.get(&id).into_iter().flatten().filter_map(|place| {
            let cert = inner.certs.get(place.cert)?;
            let primary = inner.fingerprints.get(place.cert)?;
            let key = cert.keys().nth(place.key)?;
            Some(Candidate { cert, key, fingerprint: &place.fingerprint, primary })
        })
    }

    /// Returns the certificate with this primary fingerprint.
    pub(super) fn certificate(&self, fingerprint: &Fingerprint) -> Option<&Cert> {
        let index = self.0.fingerprints.iter().position(|f| f == fingerprint)?;
        self.0.certs.get(index)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keyring").field(&self.0.fingerprints).finish()
    }
}

/// Reads all certificates of one file, with their secrets if they have them.
pub(super) fn certificates(blob: &[u8], notes: &mut Vec<String>) -> Vec<Cert> {
    if blob.len() > KEYRING_LIMIT {
        notes.push(format!("a keyring with more than {KEYRING_LIMIT} bytes was skipped"));
        return Vec::new();
    }
    if blob.get(8..12) == Some(b"KBXf") {
        notes.push("a GnuPG keybox was skipped; export its keys with `gpg --export`".to_owned());
        return Vec::new();
    }
    if blob.first().is_some_and(|b| b & 0x80 != 0) {
        let mut faults = Vec::new();
        let certs = binary(blob, &mut faults);
        // Without any key it may still be text that begins with an accented letter.
        if !certs.is_empty() {
            notes.append(&mut faults);
            return certs;
        }
    }
    let found = notes.len();
    let certs: Vec<Cert> = armoured(blob, notes).iter().flat_map(|block| binary(block, notes)).collect();
    if certs.is_empty() && notes.len() == found {
        notes.push("a keyring without any OpenPGP key was skipped".to_owned());
    }
    certs
}

/// Cuts out and decodes the armoured key blocks.
fn armoured(text: &[u8], notes: &mut Vec<String>) -> Vec<Vec<u8>> {
    const BEGIN: &[u8] = b"-----BEGIN PGP ";
    const END: &[u8] = b"-----END PGP ";
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some(begin) = find(rest, BEGIN) {
        let block = rest.get(begin..).unwrap_or_default();
        rest = block.get(BEGIN.len()..).unwrap_or_default();
        if ![&b"PUBLIC KEY BLOCK"[..], b"PRIVATE KEY BLOCK", b"ARMORED FILE"].iter().any(|kind| rest.starts_with(kind))
        {
            continue;
        }
        let Some(end) = find(rest, END) else {
            notes.push("an armoured key block without an end was skipped".to_owned());
            break;
        };
        let line = rest.get(end..).unwrap_or_default();
        let length = BEGIN.len() + end + line.iter().position(|b| *b == b'\n').map_or(line.len(), |n| n + 1);
        let (block, after) = block.split_at_checked(length).unwrap_or((block, &[]));
        rest = after;
        let mut decoded = Vec::new();
        match Reader::from_bytes(block, ReaderMode::Tolerant(None)).read_to_end(&mut decoded) {
            Ok(_) => blocks.push(decoded),
            Err(error) => notes.push(format!("an armoured key block was skipped: {error}")),
        }
    }
    blocks
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// Splits a binary keyring at its primary keys and reads each certificate on its own, so that one
/// that cannot be read takes no other with it.
fn binary(blob: &[u8], notes: &mut Vec<String>) -> Vec<Cert> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    for packet in Packets::new(blob) {
        match packet {
            Ok(packet) => match packet.tag {
                tag::PUBLIC_KEY | tag::SECRET_KEY => chunks.push(frame(packet.tag, &packet.body)),
                tag::SIGNATURE | tag::SECRET_SUBKEY | tag::PUBLIC_SUBKEY | tag::USER_ID | tag::USER_ATTRIBUTE => {
                    if let Some(chunk) = chunks.last_mut() {
                        chunk.extend(frame(packet.tag, &packet.body));
                    }
                }
                // Trust packets, markers and what is not known belong to no certificate.
                _ => {}
            },
            Err(error) => {
                chunks.pop();
                notes.push(format!("a keyring was read only in part: {error}"));
            }
        }
    }
    let mut certs = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        match Cert::from_bytes(&chunk) {
            Ok(cert) => certs.push(cert),
            Err(error) => notes.push(format!("a key was skipped: {error}")),
        }
    }
    certs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sequoia_openpgp::cert::CertBuilder;
    use sequoia_openpgp::serialize::SerializeInto;

    fn cert(name: &str) -> Cert {
        CertBuilder::new().add_userid(name).add_signing_subkey().generate().unwrap().0
    }

    fn names(certs: &[&Cert]) -> Vec<String> {
        certs.iter().map(|c| c.fingerprint().to_hex()).collect()
    }

    fn read(blobs: &[&[u8]]) -> Vec<String> {
        Keyring::parse(blobs).fingerprints().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_form_of_a_keyring_is_read() {
        let (a, b) = (cert("a"), cert("b"));
        let both = names(&[&a, &b]);
        let (bin_a, bin_b) = (a.to_vec().unwrap(), b.to_vec().unwrap());
        let (asc_a, asc_b) = (a.armored().to_vec().unwrap(), b.armored().to_vec().unwrap());
        assert_eq!(read(&[&bin_a, &bin_b]), both);
        assert_eq!(read(&[&[&bin_a[..], &bin_b].concat()]), both);
        assert_eq!(read(&[&[&asc_a[..], &asc_b].concat()]), both);
        let text =
            [b"\xC3\xA9 a comment\n", &asc_a[..], b"between\n-----BEGIN PGP MESSAGE-----\nx\n", &asc_b, b"after"];
        assert_eq!(read(&[&text.concat()]), both);
        assert_eq!(read(&[&asc_a, &bin_b]), both);
        // Secret keys are keyrings too, and a key is counted once.
        let secret = a.as_tsk().armored().to_vec().unwrap();
        let keyring = Keyring::parse([&secret, &bin_a, &asc_b]);
        assert_eq!(keyring.fingerprints().iter().map(ToString::to_string).collect::<Vec<_>>(), both);
        assert!(keyring.0.certs.iter().all(|c| !c.is_tsk()));
        assert!(keyring.notes().is_empty());
    }

    #[test]
    fn what_is_no_key_is_passed_over_with_a_note() {
        let a = cert("a");
        let (bin, asc) = (a.to_vec().unwrap(), a.armored().to_vec().unwrap());
        let empty: [&[u8]; 7] = [
            b"",
            b"hello",
            b"\x99",
            b"<html>",
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!\n-----END PGP PUBLIC KEY BLOCK-----\n",
            b"\0\0\0\x20\x01\x01\0\x02KBXf....",
            &asc[..asc.len() / 2],
        ];
        for blob in empty {
            let keyring = Keyring::parse([blob]);
            assert!(keyring.is_empty() && !keyring.notes().is_empty(), "{}", String::from_utf8_lossy(blob));
        }
        assert!(Keyring::parse([vec![0x99; KEYRING_LIMIT + 1]]).is_empty());
        assert!(Keyring::parse([""; 0]).is_empty());
        // A key that nobody can read, a stray user ID and a trust packet beside a good key.
        let bad = frame(tag::PUBLIC_KEY, &[9, 9, 9]);
        let stray = frame(tag::USER_ID, b"nobody");
        let mixed = [&stray[..], &bad, &bin, &frame(12, b"\0\0")].concat();
        assert_eq!(read(&[&mixed, b"garbage"]), names(&[&a]));
        // A cut-off key does not take the one before it along.
        let b = cert("b").to_vec().unwrap();
        assert_eq!(read(&[&[&bin[..], &b[..b.len() - 5]].concat()]), names(&[&a]));
    }

    #[test]
    fn a_second_copy_adds_what_the_first_lacks() {
        let (a, revocation) = CertBuilder::new().add_userid("a").generate().unwrap();
        let revoked = a.clone().insert_packets(revocation).unwrap().0;
        let keyring = Keyring::parse([a.to_vec().unwrap(), revoked.to_vec().unwrap()]);
        let fingerprint = keyring.fingerprints()[0].clone();
        assert_eq!(keyring.fingerprints().len(), 1);
        assert_eq!(keyring.certificate(&fingerprint).unwrap().primary_key().self_revocations().count(), 1);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Keyring::parse([&bytes]);
            let _ = Keyring::parse([frame(tag::PUBLIC_KEY, &bytes)]);
        }
    }
}
