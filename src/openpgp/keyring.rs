//! Keyrings: public keys out of whatever file an administrator has, indexed by key ID
//! (spec containers-image 4.4).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use sequoia_openpgp::Cert;
use sequoia_openpgp::cert::amalgamation::key::ErasedKeyAmalgamation;
use sequoia_openpgp::packet::key::PublicParts;

use super::client::x_crypto_refuses;
use super::fingerprint::{Fingerprint, KeyId};
use super::import::{self, Imported, x_crypto_reads};
use super::key_file::File;
use super::standing::{self, KeyFault};

/// A set of public keys. Cheap to clone; parse it once and verify with it as often as you like.
///
/// Holds what an import into gpg would keep of the files, and no more: policies that name a file
/// out of which clients get no key must not be fulfilled by it.
#[derive(Clone, Default)]
pub struct Keyring(Arc<Inner>);

#[derive(Default)]
struct Inner {
    certs: Vec<Cert>,
    fingerprints: Vec<Fingerprint>,
    places: HashMap<KeyId, Vec<Place>>,
    notes: Vec<String>,
    /// Why clients with x/crypto cannot use each of the certificates.
    warnings: Vec<Option<String>>,
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
    /// Why clients with x/crypto cannot use the certificate.
    pub warning: Option<&'a str>,
}

impl Keyring {
    /// Reads keyrings: binary, or any number of armoured blocks with any text around them.
    ///
    /// Secret keys count as public ones. Copies of one key are merged, so that a revocation found
    /// in any of them counts. What gpg does not import is passed over: a blob of something else
    /// gives no keys and no error, and [`notes`](Self::notes) tells what was passed over.
    pub fn parse(blobs: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let mut inner = Inner::default();
        let mut places: HashMap<Fingerprint, usize> = HashMap::new();
        // x/crypto refuses all keys if it gets none out of one of the files.
        let mut one_file_fails = None;
        let mut revocations = Vec::new();
        for blob in blobs {
            let contents = imported(blob.as_ref(), &mut inner.notes);
            one_file_fails = one_file_fails.or(contents.fails);
            revocations.extend(contents.revocations);
            for (cert, warning) in contents.found {
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
                        inner.warnings.push(warning);
                    }
                }
            }
        }
        for revoked in revocations {
            let revoked = revoked.strip_secret_key_material();
            let place = places.get(&Fingerprint::of(revoked.primary_key().key()));
            if let Some(known) = place.and_then(|i| inner.certs.get_mut(*i))
                && let Ok(merged) = known.clone().merge_public(revoked)
            {
                *known = merged;
            }
        }
        if let Some(why) = one_file_fails {
            inner.warnings.iter_mut().for_each(|warning| *warning = warning.take().or_else(|| Some(why.clone())));
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

    /// Returns, for each primary key, why clients with x/crypto cannot use it although others can.
    pub fn warnings(&self) -> impl Iterator<Item = (&Fingerprint, &str)> {
        let named = self.0.fingerprints.iter().zip(&self.0.warnings);
        named.filter_map(|(fingerprint, warning)| Some((fingerprint, warning.as_deref()?)))
    }

    /// Judges the primary keys at the time `at`: when each expires, or why it is of no use. That a primary key may
    /// not sign itself is no fault here, since a subkey may.
    pub fn standings(&self, at: SystemTime) -> Vec<(Fingerprint, Result<Option<SystemTime>, KeyFault>)> {
        let judge = |fingerprint: &Fingerprint| {
            let mut candidates = self.candidates(fingerprint.key_id());
            let primary = candidates.find(|candidate| candidate.fingerprint == fingerprint)?;
            let standing = match standing::check(self, &primary, at, false) {
                Ok(standing) => Ok(standing.expires),
                Err(KeyFault::CannotSign { .. }) => Ok(None),
                Err(fault) => Err(fault),
            };
            Some((fingerprint.clone(), standing))
        };
        self.fingerprints().iter().filter_map(judge).collect()
    }

    /// Returns the keys and subkeys with this key ID; they need not be usable.
    pub(super) fn candidates(&self, id: KeyId) -> impl Iterator<Item = Candidate<'_>> {
        let inner = &*self.0;
        inner.places.get(&id).into_iter().flatten().filter_map(|place| {
            let cert = inner.certs.get(place.cert)?;
            let primary = inner.fingerprints.get(place.cert)?;
            let key = cert.keys().nth(place.key)?;
            let warning = inner.warnings.get(place.cert).and_then(Option::as_deref);
            Some(Candidate { cert, key, fingerprint: &place.fingerprint, primary, warning })
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

/// Certificates, each with why clients with x/crypto cannot use it.
type Found = Vec<(Cert, Option<String>)>;

/// What gpg imports of one file.
#[derive(Default)]
struct Contents {
    found: Found,
    /// Revocations in certificates that are not imported: they count where the key is known.
    revocations: Vec<Cert>,
    /// Why x/crypto gets no key at all out of the file.
    fails: Option<String>,
}

fn imported(blob: &[u8], notes: &mut Vec<String>) -> Contents {
    let nothing = || x_crypto_refuses("they get no key out of one of the key files, and then use none of the others");
    let Some(file) = File::open(blob, notes) else {
        return Contents { fails: Some(nothing()), ..Contents::default() };
    };
    let mut found: Found = Vec::new();
    let mut revocations = Vec::new();
    let mut usable = 0;
    // Whether x/crypto loses the key before, because it cannot even read the next one's primary key.
    let mut next_is_unreadable = false;
    let (chunks, stopped) = file.chunks(notes);
    let whole = stopped.is_none_or(|at| at >= file.first_block);
    for chunk in chunks.into_iter().rev() {
        match import::import(&chunk.packets) {
            Ok(Imported { cert, x_crypto }) => {
                let why = match x_crypto {
                    Some(why) => Some(why),
                    None if next_is_unreadable => {
                        Some("they lose the key to the one behind it in its file, which they cannot read")
                    }
                    None if chunk.end > file.first_block => Some("they read the first armoured block of a file only"),
                    None if !whole => Some("the key file is damaged behind the key"),
                    None => file.x_crypto,
                };
                usable += usize::from(why.is_none());
                let fingerprint = Fingerprint::of(cert.primary_key().key());
                found.push((cert, why.map(|why| x_crypto_refuses(&format!("{why} (key {fingerprint})")))));
            }
            Err(reason) => {
                notes.push(format!("a key was skipped: {reason}"));
                revocations.extend(import::revocations(&chunk.packets));
            }
        }
        next_is_unreadable = chunk.packets.first().is_some_and(|packet| !x_crypto_reads(packet));
    }
    found.reverse();
    Contents { found, revocations, fails: (usable == 0).then(nothing) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openpgp::key_file::KEYRING_LIMIT;
    use crate::openpgp::packet::{frame, tag};
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
            [b"\xE2\x80\x9Ca comment\n", &asc_a[..], b"between\n-----BEGIN PGP MESSAGE-----\nx\n", &asc_b, b"after"];
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
        let empty: [&[u8]; 10] = [
            b"",
            b"hello",
            b"\x99",
            b"<html>",
            b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!\n-----END PGP PUBLIC KEY BLOCK-----\n",
            b"\0\0\0\x20\x01\x01\0\x02KBXf....",
            &asc[..asc.len() / 2],
            // An umlaut begins a packet, so gpg looks for no armour.
            &[b"\xC3\xA9 a comment\n", &asc[..]].concat(),
            &[b"\xEF\xBB\xBF", &asc[..]].concat(),
            &[&bin[..], &asc].concat(),
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

    #[test]
    fn a_revocation_alone_counts_beside_its_key() {
        use sequoia_openpgp::serialize::MarshalInto;
        let to_vec = |cert: &Cert| SerializeInto::to_vec(cert).unwrap();
        let (a, revocation) = CertBuilder::new().add_userid("a").generate().unwrap();
        let key = frame(tag::PUBLIC_KEY, &MarshalInto::to_vec(a.primary_key().key()).unwrap());
        let bare = [key, MarshalInto::to_vec(&sequoia_openpgp::Packet::from(revocation)).unwrap()].concat();
        assert!(Keyring::parse([&bare]).is_empty());
        for blobs in [vec![to_vec(&a), bare.clone()], vec![[bare.clone(), to_vec(&a)].concat()]] {
            let keyring = Keyring::parse(blobs);
            let fingerprint = keyring.fingerprints()[0].clone();
            assert_eq!(keyring.fingerprints().len(), 1);
            assert_eq!(keyring.certificate(&fingerprint).unwrap().primary_key().self_revocations().count(), 1);
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Keyring::parse([&bytes]);
            let _ = Keyring::parse([frame(tag::PUBLIC_KEY, &bytes)]);
        }
    }
}
