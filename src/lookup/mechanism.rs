//! The policy's questions answered: key files are read, keyrings remembered, OpenPGP messages and
//! sigstore signatures verified.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use crate::go;
use crate::host::Stamp;
use crate::openpgp::{self, KEYRING_LIMIT, Keyring, Verified, VerifyError, VerifyOptions};
use crate::policy::{KeySource, Mechanism, MechanismError, SignedContent, SigstoreSigned};
use crate::signature::SigstoreAttachment;
use crate::sigstore;

/// Verifies signatures for a policy: simple signing by OpenPGP keys, and sigstore.
///
/// Keyrings are parsed once and used until one of their files changes; what is remembered is
/// bounded by the number of different key sources in the policy.
#[derive(Debug, Default)]
pub struct OpenPgp {
    at: Option<SystemTime>,
    allow_weak: bool,
    keyrings: RwLock<HashMap<KeySource, Remembered>>,
}

/// Why a message was not verified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The keys cannot be read.
    #[error("{0}")]
    Keys(String),
    /// The message was not accepted.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

#[derive(Clone, Debug)]
struct Remembered {
    keyring: Keyring,
    /// What the files looked like when they were read.
    stamps: Vec<Stamp>,
}

impl OpenPgp {
    /// Judges keys and signatures by the time at which each is asked for.
    pub fn now() -> Self {
        Self::default()
    }

    /// Judges keys and signatures as of a stated time.
    pub fn at(at: SystemTime) -> Self {
        Self { at: Some(at), ..Self::default() }
    }

    /// Whether SHA-1 signatures and keys under 2048 bits are accepted; by default they are not.
    #[must_use]
    pub fn allow_weak(mut self, allow: bool) -> Self {
        self.allow_weak = allow;
        self
    }

    /// Verifies as [`Mechanism::verify`] does, for those who explain a refusal rather than decide.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn examine(&self, message: &[u8], keys: &KeySource) -> Result<Verified, Fault> {
        let keyring = self.keyring(keys).map_err(|e| Fault::Keys(e.to_string()))?;
        let options = VerifyOptions {
            at: self.at.unwrap_or_else(SystemTime::now),
            allow_sha1: self.allow_weak,
            allow_weak_keys: self.allow_weak,
        };
        Ok(openpgp::verify(message, &keyring, &options)?)
    }

    fn keyring(&self, keys: &KeySource) -> Result<Keyring, MechanismError> {
        let stamps = match keys {
            KeySource::Path(path) => vec![stamp(path)?],
            KeySource::Paths(paths) => paths.iter().map(|path| stamp(path)).collect::<Result<_, _>>()?,
            KeySource::Data(_) => Vec::new(),
        };
        let known = self.keyrings.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(keys).filter(|known| known.stamps == stamps) {
            return Ok(known.keyring.clone());
        }
        drop(known);
        let keyring = match keys {
            KeySource::Path(path) => Keyring::parse([read(path)?]),
            KeySource::Paths(paths) => {
                Keyring::parse(paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?)
            }
            KeySource::Data(data) => Keyring::parse([data]),
        };
        let remembered = Remembered { keyring: keyring.clone(), stamps };
        self.keyrings.write().unwrap_or_else(PoisonError::into_inner).insert(keys.clone(), remembered);
        Ok(keyring)
    }
}

impl Mechanism for OpenPgp {
    fn verify(&self, message: &[u8], keys: &KeySource) -> Result<SignedContent, MechanismError> {
        match self.examine(message, keys) {
            Ok(verified) => Ok(SignedContent {
                content: verified.content,
                fingerprint: verified.signer.to_string(),
                signing_key: verified.signing_key.to_string(),
                warnings: verified.warnings,
                created: verified.created.as_second(),
            }),
            Err(Fault::Keys(sentence)) => Err(MechanismError::Keys(sentence)),
            Err(Fault::Verify(VerifyError::NoKeys)) => Err(MechanismError::NoKeys),
            Err(Fault::Verify(e)) => Err(MechanismError::Signature(e.to_string())),
        }
    }

    fn verify_sigstore(
        &self,
        signature: &SigstoreAttachment,
        requirement: &SigstoreSigned,
    ) -> Result<Vec<u8>, MechanismError> {
        let root = super::trust_root::trust_root(requirement)?;
        let now = self.at.unwrap_or_else(SystemTime::now);
        match sigstore::verify(signature, &root, now) {
            Ok(_) => Ok(signature.payload.clone()),
            Err(e) => Err(MechanismError::Signature(e.to_string())),
        }
    }
}

fn stamp(path: &Path) -> Result<Stamp, MechanismError> {
    std::fs::metadata(path).map(|meta| Stamp::of(&meta)).map_err(|e| unreadable(path, &e))
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, MechanismError> {
    let mut bytes = Vec::new();
    let limit = KEYRING_LIMIT as u64;
    let read = std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|e| unreadable(path, &e))?;
    if bytes.len() as u64 > limit {
        return Err(MechanismError::Keys(format!("keyring {} is larger than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

/// As Go says it: `open /keys/x.gpg: no such file or directory`.
fn unreadable(path: &Path, error: &std::io::Error) -> MechanismError {
    MechanismError::Keys(format!("open {}: {}", path.display(), go::error_text(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/alice.pub.asc");
    const BOB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/keys/bob.pub.asc");

    #[test]
    fn a_key_file_that_changes_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        let keys = KeySource::Paths(vec![path.clone()]);
        let mechanism = OpenPgp::now();
        let missing = mechanism.keyring(&keys).unwrap_err().to_string();
        assert_eq!(missing, format!("open {}: no such file or directory", path.display()));
        std::fs::copy(ALICE, &path).unwrap();
        let alice = mechanism.keyring(&keys).unwrap().fingerprints().to_vec();
        assert_eq!(alice.len(), 1);
        std::fs::copy(BOB, &path).unwrap();
        let bob = mechanism.keyring(&keys).unwrap().fingerprints().to_vec();
        assert_ne!(alice, bob);
        std::fs::remove_file(&path).unwrap();
        assert!(mechanism.keyring(&keys).is_err(), "a vanished file is not remembered");
    }

    #[test]
    fn no_keys_is_a_refusal_of_its_own() {
        let verdict = OpenPgp::now().verify(b"\xa3\x01", &KeySource::Data(b"rubbish".to_vec()));
        assert_eq!(verdict, Err(MechanismError::NoKeys));
    }
}
