//! Signing keys on the command line: a secret key file and the file of its passphrase.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use clap::Args;
use zeroize::Zeroizing;

use crate::openpgp::{Keyring, Signer, SoftSigner};

/// The flags that name a signing key.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Secret key that signs: a file, armoured or not
    #[arg(long, value_name = "FILE")]
    key: String,
    /// File whose first line is the key's passphrase; /dev/fd/N for an inherited descriptor
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// A key ready to sign, and its own certificate.
pub struct LoadedKey {
    /// Signs.
    pub signer: Arc<dyn Signer>,
    /// Verifies what the signer made.
    pub own: Keyring,
}

impl KeyArgs {
    /// Reads and unlocks the key.
    pub fn load(&self) -> anyhow::Result<LoadedKey> {
        if self.key.starts_with("gpg-agent:") {
            bail!("keys of a gpg-agent cannot be used; export the key to a file and give that to --key");
        }
        let bytes = Zeroizing::new(std::fs::read(&self.key).with_context(|| format!("reading key {}", self.key))?);
        let passphrase = self.passphrase()?;
        let signer = SoftSigner::load(&bytes, passphrase.as_ref().map(|text| text.as_slice()), SystemTime::now())
            .with_context(|| format!("loading key {}", self.key))?;
        Ok(LoadedKey { own: Keyring::parse([bytes.as_slice()]), signer: Arc::new(signer) })
    }

    fn passphrase(&self) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
        let Some(path) = &self.passphrase_file else { return Ok(None) };
        let bytes =
            Zeroizing::new(std::fs::read(path).with_context(|| format!("reading passphrase file {}", path.display()))?);
        let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some(Zeroizing::new(line.to_vec())))
    }
}
