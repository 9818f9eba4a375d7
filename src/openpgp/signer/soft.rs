//! A signer whose secret key is in memory, read from a key file.
//!
//! RSA and Ed25519 are signed by aws-lc with the key prepared once: Sequoia's own signers rebuild
//! it for every signature and are six times slower (measured with RSA 4096). The price: Sequoia keeps
//! secrets encrypted in memory, aws-lc keeps them in plain heap memory.

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
use super::signing_key::{SigningKey, choose};
use crate::openpgp::fingerprint::Fingerprint;
use crate::openpgp::key_file::certificates;
use crate::openpgp::keyring::Keyring;
use crate::openpgp::sign::{SignError, Signer};

/// Signs with a secret key held in memory. Use one from as many threads as you like.
pub struct SoftSigner {
    key: SigningKey,
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
        let primary = Fingerprint::of(cert.primary_key().key());
        let (key, secret) = choose(&cert, &keyring, None, at, |_, key| {
            let key = key.parts_into_secret().ok().filter(secret_is_here);
            key.ok_or_else(|| SignError::SecretElsewhere { primary: primary.clone() })
        })?;
        let signer = Self { secret: open(secret, passphrase)?, key };
        signer.key.try_out(&signer, &keyring, at)?;
        Ok(signer)
    }

    /// Returns the fingerprint of the key that signs: the primary key or a subkey.
    pub fn signing_key(&self) -> &Fingerprint {
        &self.key.imprint.key
    }

    fn sign_digest(&self, digest: &[u8]) -> Result<mpi::Signature, SignError> {
        match &self.secret {
            Secret::Rsa(key) => {
                let (encoding, algorithm): (&'static dyn RsaEncoding, _) = match self.key.imprint.hash {
                    HashAlgorithm::SHA384 => (&RSA_PKCS1_SHA384, &digest::SHA384),
                    HashAlgorithm::SHA512 => (&RSA_PKCS1_SHA512, &digest::SHA512),
                    _ => (&RSA_PKCS1_SHA256, &digest::SHA256),
                };
                let failed = |_| self.key.unusable("RSA signing failed");
                let digest = digest::Digest::import_less_safe(digest, algorithm).map_err(failed)?;
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign_digest(encoding, &digest, &mut signature).map_err(failed)?;
                Ok(mpi::Signature::RSA { s: MPI::new(&signature) })
            }
            Secret::Ed25519(key) => {
                let signature = key.try_sign(digest).map_err(|_| self.key.unusable("Ed25519 signing failed"))?;
                let (r, s) = signature.as_ref().split_at_checked(32).unwrap_or_default();
                Ok(mpi::Signature::EdDSA { r: MPI::new(r), s: MPI::new(s) })
            }
            // Sequoia's signers want to be owned; copying one costs nothing beside its arithmetic.
            Secret::Other(key) => {
                key.as_ref().clone().sign(self.key.imprint.hash, digest).map_err(|e| self.key.unusable(&e.to_string()))
            }
        }
    }
}

impl Signer for SoftSigner {
    fn fingerprint(&self) -> &Fingerprint {
        &self.key.primary
    }

    fn sign(&self, payload: &[u8], created: SystemTime) -> Result<Vec<u8>, SignError> {
        self.key.sign(payload, created, |digest| self.sign_digest(digest))
    }
}

impl std::fmt::Debug for SoftSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SoftSigner")
            .field("primary", &self.key.primary)
            .field("key", &self.key.imprint.key)
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

/// GnuPG writes a stub in place of a secret key that is offline or on a card.
fn secret_is_here(key: &Key<SecretParts, UnspecifiedRole>) -> bool {
    match key.secret() {
        SecretKeyMaterial::Unencrypted(_) => true,
        SecretKeyMaterial::Encrypted(locked) => !matches!(locked.s2k(), S2K::Private { .. } | S2K::Unknown { .. }),
    }
}

fn open(key: Key<SecretParts, UnspecifiedRole>, passphrase: Option<&[u8]>) -> Result<Secret, SignError> {
    let name = Fingerprint::of(&key);
    let key = match (key.has_unencrypted_secret(), passphrase) {
        (true, _) => key,
        (false, None) => return Err(SignError::PassphraseNeeded { key: name }),
        (false, Some(passphrase)) => key
            .decrypt_secret(&Password::from(passphrase))
            .map_err(|_| SignError::PassphraseWrong { key: name.clone() })?,
    };
    fast(&key).unwrap_or_else(|| match key.into_keypair() {
        Ok(pair) => Ok(Secret::Other(Box::new(pair))),
        Err(error) => Err(SignError::Unusable { key: name, reason: error.to_string() }),
    })
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
