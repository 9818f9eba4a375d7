//! The kinds of signers. Each is a [`Signer`](super::Signer); further agents and hardware fit behind
//! it too.

mod agent;
mod agent_error;
mod agent_pool;
mod assuan;
mod gnupg;
mod rsa_der;
mod sexp;
mod signing_key;
mod soft;

pub use agent::{AgentKey, AgentSigner};
pub use agent_error::AgentError;
pub use gnupg::GnuPg;
pub use soft::SoftSigner;

use std::sync::Arc;
use std::time::SystemTime;

use super::keyring::Keyring;
use super::sign::{SignError, Signer};

/// A key that is ready to sign, and its own certificate. Cheap to clone.
#[derive(Clone)]
pub struct LoadedKey {
    /// Signs.
    pub signer: Arc<dyn Signer>,
    /// Verifies what the signer made.
    pub own: Keyring,
}

impl LoadedKey {
    /// Reads a secret key file, as [`SoftSigner::load`] does.
    ///
    /// # Errors
    /// Those of [`SoftSigner::load`].
    pub fn from_file(key_file: &[u8], passphrase: Option<&[u8]>, at: SystemTime) -> Result<Self, SignError> {
        let signer = SoftSigner::load(key_file, passphrase, at)?;
        Ok(Self { signer: Arc::new(signer), own: Keyring::parse([key_file]) })
    }

    /// Takes a key of a running gpg-agent, as [`AgentSigner::load`] does.
    ///
    /// # Errors
    /// Those of [`AgentSigner::load`].
    pub fn from_agent(
        gnupg: &GnuPg,
        key: &AgentKey,
        passphrase: Option<&[u8]>,
        at: SystemTime,
    ) -> Result<Self, SignError> {
        let signer = AgentSigner::load(gnupg, key, passphrase, at)?;
        Ok(Self { own: signer.keyring().clone(), signer: Arc::new(signer) })
    }
}

impl std::fmt::Debug for LoadedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LoadedKey").field(self.signer.fingerprint()).finish()
    }
}
