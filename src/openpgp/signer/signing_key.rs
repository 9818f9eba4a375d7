//! What all kinds of signers share: which key of a certificate signs, when it may, and its trial.

use std::cmp::Reverse;
use std::time::SystemTime;

use sequoia_openpgp::Cert;
use sequoia_openpgp::crypto::mpi;
use sequoia_openpgp::packet::Key;
use sequoia_openpgp::packet::key::{PublicParts, UnspecifiedRole};
use sequoia_openpgp::types::HashAlgorithm;

use crate::openpgp::fingerprint::Fingerprint;
use crate::openpgp::keyring::{Candidate, Keyring};
use crate::openpgp::sign::{Imprint, SignError, Signer, message};
use crate::openpgp::standing::{self, KeyFault, timestamp};
use crate::openpgp::verify::{VerifyOptions, verify};

/// A key or subkey of a certificate; it may still carry its secret part.
pub(super) type PublicKey = Key<PublicParts, UnspecifiedRole>;

/// The public side of a key that signs.
#[derive(Clone, Debug)]
pub(super) struct SigningKey {
    /// The identity.
    pub primary: Fingerprint,
    /// What the signature packets say; the key itself is `imprint.key`.
    pub imprint: Imprint,
    created: SystemTime,
    expires: Option<SystemTime>,
}

/// Chooses the key that signs: the primary key if it can, as all clients accept that; else the newest
/// subkey that can (spec containers-image 4.4). With `only`, that key or none.
///
/// `secret` gets at the secret part, or tells why it cannot.
pub(super) fn choose<T>(
    cert: &Cert,
    keyring: &Keyring,
    only: Option<&Fingerprint>,
    at: SystemTime,
    mut secret: impl FnMut(&Fingerprint, PublicKey) -> Result<T, SignError>,
) -> Result<(SigningKey, T), SignError> {
    let primary = Fingerprint::of(cert.primary_key().key());
    if keyring.is_empty() {
        // Its signatures would be good, but no client could check them.
        let reason = format!("no client imports its public key: {}", keyring.notes().join("; "));
        return Err(SignError::Unusable { key: primary, reason });
    }
    let mut keys: Vec<_> = cert.keys().map(|ka| (Fingerprint::of(ka.key()), ka.key().clone())).collect();
    keys.retain(|(fingerprint, _)| only.is_none_or(|only| only == fingerprint));
    keys.sort_by_key(|(fingerprint, key)| (*fingerprint != primary, Reverse(key.creation_time())));
    // Of several reasons why no key can be used, that of the first key which is at least meant for
    // signing helps most.
    let mut fault: Option<SignError> = None;
    for (fingerprint, key) in keys {
        let usable = keyring.candidates(fingerprint.key_id()).find(|c: &Candidate<'_>| *c.fingerprint == fingerprint);
        let Some(candidate) = usable else { continue };
        let found = standing::check(keyring, &candidate, at, false).map_err(SignError::from).and_then(|standing| {
            let hash = hash_for(key.mpis());
            let imprint = Imprint { key: fingerprint.clone(), key_algorithm: key.pk_algo().into(), hash };
            let (primary, created, expires) = (primary.clone(), key.creation_time(), standing.expires);
            Ok((SigningKey { primary, imprint, created, expires }, secret(&fingerprint, key)?))
        });
        match found {
            Ok(found) => return Ok(found),
            Err(error) if matches!(fault, None | Some(SignError::Key(KeyFault::CannotSign { .. }))) => {
                fault = Some(error);
            }
            Err(_) => {}
        }
    }
    Err(fault.unwrap_or(SignError::NoSecretKey { public: true }))
}

impl SigningKey {
    /// Builds the message; `sign` turns a digest into the numbers of the signature.
    pub fn sign(
        &self,
        payload: &[u8],
        created: SystemTime,
        sign: impl FnOnce(&[u8]) -> Result<mpi::Signature, SignError>,
    ) -> Result<Vec<u8>, SignError> {
        if created < self.created {
            return Err(SignError::Time("it is before the key was made; is the clock right?"));
        }
        if let Some(expired) = self.expires
            && expired <= created
        {
            return Err(KeyFault::Expired { key: self.imprint.key.clone(), at: timestamp(expired) }.into());
        }
        let seconds = created.duration_since(SystemTime::UNIX_EPOCH).ok().and_then(|d| u32::try_from(d.as_secs()).ok());
        let seconds = seconds.ok_or(SignError::Time("OpenPGP knows the years 1970 to 2106 only"))?;
        message(&self.imprint, payload, seconds, sign)
    }

    /// A signature that does not verify would be published a hundred thousand times.
    pub fn try_out(&self, signer: &dyn Signer, keyring: &Keyring, at: SystemTime) -> Result<(), SignError> {
        let payload = b"countersign tries this key";
        let trial = signer.sign(payload, at)?;
        let verified = verify(&trial, keyring, &VerifyOptions::at(at)).map_err(SignError::SelfTest)?;
        if verified.content == payload && verified.signer == self.primary && verified.signing_key == self.imprint.key {
            return Ok(());
        }
        Err(self.unusable("its trial signature is attributed to another key"))
    }

    pub fn unusable(&self, reason: &str) -> SignError {
        SignError::Unusable { key: self.imprint.key.clone(), reason: reason.to_owned() }
    }
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
