//! A signer whose secret key is in memory, read from a key file.
//!
//! RSA and Ed25519 are signed by aws-lc with the key prepared once: Sequoia's own signers rebuild
//! it for every signature and are six times slower (spec rust-stack 1.1). The price: Sequoia keeps
//! secrets encrypted in memory, aws-lc keeps them in plain heap memory.

use std::cmp::Reverse;
use std::time::SystemTime;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair,
};
use sequoia_openpgp::Cert;
use sequoia_openpgp::crypto::mpi::{self, MPI};
use sequoia_openpgp::crypto::{KeyPair, Password, S2K, Signer as _};
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{SecretKeyMaterial, SecretParts, UnspecifiedRole};
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::types::{Curve, HashAlgorithm};

use super::rsa_der::{RsaNumbers, pkcs1};
use crate::openpgp::fingerprint::Fingerprint;
use crate::openpgp::keyring::{Candidate, Keyring, certificates};
use crate::openpgp::sign::{Imprint, SignError, Signer, message};
use crate::openpgp::standing::{self, KeyFault, timestamp};
use crate::openpgp::verify::{VerifyOptions, verify};

/// Signs with a secret key held in memory. Use one from as many threads as you like.
pub struct SoftSigner {
    primary: Fingerprint,
    imprint: Imprint,
    key_created: SystemTime,
    expires: Option<SystemTime>,
    secret: Secret,
}

enum Secret {
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
    Other(Box<KeyPair>),
}

impl SoftSigner {
    /// Reads a secret key file as `gpg --export-secret-keys` writes it, armoured or not, and tries
    /// the key: its first signature must verify.
    ///
    /// Signs with the primary key if it can, as all clients accept that; else with the newest
    /// subkey that can (spec containers-image 4.4). `at` is now: the key must be valid then.
    ///
    /// # Errors
    /// [`SignError`]: no or several secret keys, passphrase missing or wrong, a key that is revoked,
    /// expired, weak or not meant for signing, secret parts that do not fit the public ones.
    pub fn load(key_file: &[u8], passphrase: Option<&[u8]>, at: SystemTime) -> Result<Self, SignError> {
        let cert = the_only(certificates(key_file, &mut Vec::new()))?;
        let public = cert.to_vec().map_err(|e| SignError::Unusable {
            key: Fingerprint::of(cert.primary_key().key()),
            reason: e.to_string(),
        })?;
        let keyring = Keyring::parse([public]);
        let chosen = choose(&cert, &keyring, at)?;
        let signer = chosen.open(passphrase)?;
        signer.try_out(&keyring, at)?;
        Ok(signer)
    }

    /// Returns the fingerprint of the key that signs: the primary key or a subkey.
    pub fn signing_key(&self) -> &Fingerprint {
        &self.imprint.key
    }

    /// A signature that does not verify would be published a hundred thousand times.
    fn try_out(&self, keyring: &Keyring, at: SystemTime) -> Result<(), SignError> {
        let payload = b"countersign tries this key";
        let trial = self.sign(payload, at)?;
        let verified = verify(&trial, keyring, &VerifyOptions::at(at)).map_err(SignError::SelfTest)?;
        if verified.content == payload && verified.signer == self.primary && verified.signing_key == self.imprint.key {
            return Ok(());
        }
        Err(self.unusable("its trial signature is attributed to another key"))
    }

    fn unusable(&self, reason: &str) -> SignError {
        SignError::Unusable { key: self.imprint.key.clone(), reason: reason.to_owned() }
    }

    fn sign_digest(&self, digest: &[u8]) -> Result<mpi::Signature, SignError> {
        match &self.secret {
            Secret::Rsa(key) => {
                let (encoding, algorithm): (&'static dyn RsaEncoding, _) = match self.imprint.hash {
                    HashAlgorithm::SHA384 => (&RSA_PKCS1_SHA384, &digest::SHA384),
                    HashAlgorithm::SHA512 => (&RSA_PKCS1_SHA512, &digest::SHA512),
                    _ => (&RSA_PKCS1_SHA256, &digest::SHA256),
                };
                let failed = |_| self.unusable("RSA signing failed");
                let digest = digest::Digest::import_less_safe(digest, algorithm).map_err(failed)?;
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign_digest(encoding, &digest, &mut signature).map_err(failed)?;
                Ok(mpi::Signature::RSA { s: MPI::new(&signature) })
            }
            Secret::Ed25519(key) => {
                let signature = key.try_sign(digest).map_err(|_| self.unusable("Ed25519 signing failed"))?;
                let (r, s) = signature.as_ref().split_at_checked(32).unwrap_or_default();
                Ok(mpi::Signature::EdDSA { r: MPI::new(r), s: MPI::new(s) })
            }
            // Sequoia's signers want to be owned; copying one costs nothing beside its arithmetic.
            Secret::Other(key) => {
                key.as_ref().clone().sign(self.imprint.hash, digest).map_err(|e| self.unusable(&e.to_string()))
            }
        }
    }
}

impl Signer for SoftSigner {
    fn fingerprint(&self) -> &Fingerprint {
        &self.primary
    }

    fn sign(&self, payload: &[u8], created: SystemTime) -> Result<Vec<u8>, SignError> {
        if created < self.key_created {
            return Err(SignError::Time("it is before the key was made; is the clock right?"));
        }
        if let Some(expired) = self.expires
            && expired <= created
        {
            return Err(KeyFault::Expired { key: self.imprint.key.clone(), at: timestamp(expired) }.into());
        }
        let seconds = created.duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|d| u32::try_from(d.as_secs()).ok());
        let seconds = seconds.ok_or(SignError::Time("OpenPGP knows the years 1970 to 2106 only"))?;
        message(&self.imprint, payload, seconds, |digest| self.sign_digest(digest))
    }
}

impl std::fmt::Debug for SoftSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoftSigner")
            .field("primary", &self.primary)
            .field("key", &self.imprint.key)
            .finish_non_exhaustive()
    }
}

fn the_only(certs: Vec<Cert>) -> Result<Cert, SignError> {
    let public = !certs.is_empty();
    let mut secret: Vec<Cert> = certs.into_iter().filter(Cert::is_tsk).collect();
    let fingerprints = secret.iter().map(|c| Fingerprint::of(c.primary_key().key()));
    if secret.len() > 1 {
        return Err(SignError::SeveralKeys(fingerprints.collect()));
    }
    secret.pop().ok_or(SignError::NoSecretKey { public })
}

/// A key that may sign and whose secret part is there, still locked.
struct Chosen {
    primary: Fingerprint,
    key: Key<SecretParts, UnspecifiedRole>,
    expires: Option<SystemTime>,
}

fn choose(cert: &Cert, keyring: &Keyring, at: SystemTime) -> Result<Chosen, SignError> {
    let primary = Fingerprint::of(cert.primary_key().key());
    let mut keys: Vec<_> = cert.keys().map(|ka| (Fingerprint::of(ka.key()), ka.key().clone())).collect();
    keys.sort_by_key(|(fingerprint, key)| (*fingerprint != primary, Reverse(key.creation_time())));
    // Of several reasons why no key can be used, that of the first key which is at least meant for
    // signing helps most.
    let mut fault: Option<SignError> = None;
    for (fingerprint, key) in keys {
        let usable = keyring.candidates(fingerprint.key_id()).find(|c: &Candidate<'_>| *c.fingerprint == fingerprint);
        let Some(candidate) = usable else { continue };
        let error = match standing::check(keyring, &candidate, at, false) {
            Err(error) => error.into(),
            Ok(standing) => match key.parts_into_secret().ok().filter(secret_is_here) {
                Some(key) => return Ok(Chosen { primary, key, expires: standing.expires }),
                None => SignError::SecretElsewhere { primary: primary.clone() },
            },
        };
        if matches!(fault, None | Some(SignError::Key(KeyFault::CannotSign { .. }))) {
            fault = Some(error);
        }
    }
    Err(fault.unwrap_or(SignError::NoSecretKey { public: true }))
}

/// GnuPG writes a stub in place of a secret key that is offline or on a card.
fn secret_is_here(key: &Key<SecretParts, UnspecifiedRole>) -> bool {
    match key.secret() {
        SecretKeyMaterial::Unencrypted(_) => true,
        SecretKeyMaterial::Encrypted(locked) => !matches!(locked.s2k(), S2K::Private { .. } | S2K::Unknown { .. }),
    }
}

impl Chosen {
    fn open(self, passphrase: Option<&[u8]>) -> Result<SoftSigner, SignError> {
        let name = Fingerprint::of(&self.key);
        let unusable = |reason: String| SignError::Unusable { key: name.clone(), reason };
        let key = match (self.key.has_unencrypted_secret(), passphrase) {
            (true, _) => self.key,
            (false, None) => return Err(SignError::PassphraseNeeded { key: name }),
            (false, Some(passphrase)) => self
                .key
                .decrypt_secret(&Password::from(passphrase))
                .map_err(|_| SignError::PassphraseWrong { key: name.clone() })?,
        };
        let imprint = Imprint { key: name.clone(), key_algorithm: key.pk_algo().into(), hash: hash_for(key.mpis()) };
        let key_created = key.creation_time();
        let secret = match fast(&key) {
            Some(secret) => secret?,
            None => Secret::Other(Box::new(key.into_keypair().map_err(|e| unusable(e.to_string()))?)),
        };
        Ok(SoftSigner { primary: self.primary, imprint, key_created, expires: self.expires, secret })
    }
}

/// Prepares the key for aws-lc, if aws-lc knows its kind.
fn fast(key: &Key<SecretParts, UnspecifiedRole>) -> Option<Result<Secret, SignError>> {
    let SecretKeyMaterial::Unencrypted(secret) = key.secret() else { return None };
    let unusable = |reason: String| SignError::Unusable { key: Fingerprint::of(key), reason };
    secret.map(|secret| match (key.mpis(), secret) {
        (mpi::PublicKey::RSA { e, n }, mpi::SecretKeyMaterial::RSA { d, p, q, u }) if n.bits() <= 8192 => {
            let (d, p, q, u) = (d.value(), p.value(), q.value(), u.value());
            let der = pkcs1(&RsaNumbers { n: n.value(), e: e.value(), d, p, q, u });
            let pair = RsaKeyPair::from_der(&der).map_err(|e| unusable(format!("its secret part does not fit: {e}")));
            Some(pair.map(|pair| Secret::Rsa(Box::new(pair))))
        }
        (mpi::PublicKey::EdDSA { curve: Curve::Ed25519, q }, mpi::SecretKeyMaterial::EdDSA { scalar }) => {
            let public = q.value().strip_prefix(&[0x40])?;
            let seed = scalar.value_padded(32);
            let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, public);
            Some(pair.map(Secret::Ed25519).map_err(|e| unusable(format!("its secret part does not fit: {e}"))))
        }
        _ => None,
    })
}

/// A hash as long as the key is strong; every client knows these three.
fn hash_for(key: &mpi::PublicKey) -> HashAlgorithm {
    match key {
        mpi::PublicKey::ECDSA { curve, .. } => match curve.bits() {
            Ok(0..=256) => HashAlgorithm::SHA256,
            Ok(257..=384) => HashAlgorithm::SHA384,
            _ => HashAlgorithm::SHA512,
        },
        _ => HashAlgorithm::SHA256,
    }
}
