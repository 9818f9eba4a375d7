//! GnuPG homes holding the test keys of `tests/data/keys`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use countersign::openpgp::{Signer as _, SoftSigner};
use countersign::signature::Claim;

/// Returns the armoured public key of `alice`, `bob` or `carol`.
pub fn public(name: &str) -> PathBuf {
    data(&format!("{name}.pub.asc"))
}

/// Returns the armoured secret key (no passphrase) of `alice`, `bob` or `carol`.
pub fn secret(name: &str) -> PathBuf {
    data(&format!("{name}.sec.asc"))
}

/// Returns the key of `alice`, `bob` or `carol` (Ed25519, fast), ready to sign within this process.
pub fn signer(name: &str) -> SoftSigner {
    SoftSigner::load(&std::fs::read(secret(name)).unwrap(), None, SystemTime::now()).unwrap()
}

/// Signs a claim.
pub fn signed(signer: &SoftSigner, claim: &Claim) -> Vec<u8> {
    signer.sign(&claim.render().unwrap(), SystemTime::now()).unwrap()
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/keys").join(name)
}

/// A GNUPGHOME with secret keys; its agent is stopped when dropped.
pub struct GpgHome(tempfile::TempDir);

impl GpgHome {
    pub fn with(names: &[&str]) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        // In /tmp, for the agent's socket path must be short.
        let dir = tempfile::Builder::new().prefix("cs-gpg").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let home = Self(dir);
        for name in names {
            let output = home.gpg(&["--import", secret(name).to_str().unwrap()]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        home
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn gpg(&self, args: &[&str]) -> std::process::Output {
        Command::new("gpg")
            .args(["--batch", "--quiet", "--trust-model", "always", "--pinentry-mode", "loopback"])
            .args(args)
            .env("GNUPGHOME", self.path())
            .output()
            .expect("gpg is installed (make test installs it)")
    }

    /// Returns the mail address that names a key to `--sign-by`.
    pub fn user(name: &str) -> String {
        format!("{name}@test.invalid")
    }
}

impl Drop for GpgHome {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").args(["--kill", "gpg-agent"]).env("GNUPGHOME", self.path()).status();
    }
}
