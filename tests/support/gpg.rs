//! A temporary GnuPG home and the real `gpg` in it. Missing gpg is a failure, never a skip.
//!
//! Keys are made once a process, exported, and imported into the homes that need them; no home and
//! no gpg-agent outlives its test.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

/// A key as exported by gpg.
pub struct Exported {
    /// The primary fingerprint, 40 upper-case hex digits.
    pub fingerprint: String,
    pub public: Vec<u8>,
    pub secret: Vec<u8>,
}

/// A GnuPG home folder that goes away with its agent.
pub struct Home {
    dir: tempfile::TempDir,
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.dir.path()).args(["--kill", "all"]).output();
    }
}

impl Home {
    pub fn new() -> Self {
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        // Not below target/: the path of the agent's socket must be short.
        Self { dir: tempfile::Builder::new().prefix("cs-gpg").permissions(private).tempdir().unwrap() }
    }

    pub fn with(keys: &[&Exported]) -> Self {
        let home = Self::new();
        for key in keys {
            home.ok(&["--import"], &key.secret);
        }
        home
    }

    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// Runs gpg whatever comes of it.
    pub fn run(&self, args: &[&str], input: &[u8]) -> Output {
        self.run_with(&[], args, input)
    }

    fn run_with(&self, options: &[&str], args: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new("gpg")
            .arg("--homedir")
            .arg(self.dir.path())
            .args(["--batch", "--no-tty", "--yes", "--quiet", "--pinentry-mode", "loopback", "--trust-model", "always"])
            .args(options)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the tests of OpenPGP need gpg: apt-get install gnupg");
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        output
    }

    /// Runs gpg with an empty passphrase, insisting on success; returns its standard output.
    pub fn ok(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        self.ok_with("", args, input)
    }

    pub fn ok_with(&self, passphrase: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run_with(&["--passphrase", passphrase], args, input);
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Generates a key and returns its primary fingerprint.
    pub fn generate(&self, options: &[&str], user: &str, algorithm: &str, usage: &str, expires: &str) -> String {
        let args = [options, &["--status-fd", "1", "--quick-gen-key", user, algorithm, usage, expires]].concat();
        created(&self.ok(&args, b""))
    }

    /// Adds a subkey and returns its fingerprint.
    pub fn add_subkey(&self, options: &[&str], key: &str, algorithm: &str, usage: &str, expires: &str) -> String {
        let args = [options, &["--status-fd", "1", "--quick-add-key", key, algorithm, usage, expires]].concat();
        self.ok(&args, b"");
        let listing = self.ok(&["--with-colons", "--with-subkey-fingerprint", "--list-keys", key], b"");
        let listing = String::from_utf8(listing).unwrap();
        let last = listing.lines().rfind(|l| l.starts_with("fpr:")).unwrap();
        last.split(':').nth(9).unwrap().to_owned()
    }

    pub fn public(&self, key: &str) -> Vec<u8> {
        self.ok(&["--export", key], b"")
    }

    pub fn secret(&self, key: &str) -> Vec<u8> {
        self.ok(&["--export-secret-keys", key], b"")
    }

    pub fn exported(&self, key: &str) -> Exported {
        Exported { fingerprint: key.to_owned(), public: self.public(key), secret: self.secret(key) }
    }

    /// What gpgme would say: the content and the primary fingerprint of the one good signature.
    pub fn accepts(&self, message: &[u8]) -> Option<(Vec<u8>, String)> {
        let file = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        let path = file.path().to_str().unwrap();
        let output = self.run(&["--status-fd", "1", "--output", path, "--decrypt"], message);
        let status = String::from_utf8_lossy(&output.stdout).into_owned();
        let count = |word: &str| status.lines().filter(|l| l.starts_with(&format!("[GNUPG:] {word}"))).count();
        if !output.status.success() || count("GOODSIG") != 1 || count("NEWSIG") != 1 {
            return None;
        }
        let valid = status.lines().find(|l| l.starts_with("[GNUPG:] VALIDSIG"))?;
        Some((std::fs::read(path).unwrap(), valid.split(' ').next_back()?.to_owned()))
    }
}

fn created(status: &[u8]) -> String {
    let status = String::from_utf8_lossy(status);
    let line = status.lines().find(|l| l.starts_with("[GNUPG:] KEY_CREATED")).expect("gpg made a key");
    line.split(' ').nth(3).unwrap().to_owned()
}

/// The kinds of keys that a keyring may hold.
pub const KINDS: [&str; 5] = ["rsa2048", "rsa3072", "ed25519", "nistp256", "dsa2048"];

/// Returns the shared signing key of a kind, without passphrase, never expiring, made at [`key_time`].
pub fn key(kind: &str) -> &'static Exported {
    static KEYS: [OnceLock<Exported>; KINDS.len()] = [const { OnceLock::new() }; KINDS.len()];
    let index = KINDS.iter().position(|k| *k == kind).unwrap();
    KEYS[index].get_or_init(|| {
        let home = Home::new();
        let options = ["--faked-system-time", "20240101T000000!"];
        let fingerprint = home.generate(&options, &format!("Test <{kind}@example.com>"), kind, "sign", "never");
        home.exported(&fingerprint)
    })
}

/// 2024-01-01T00:00:00Z, when the shared keys were made.
pub fn key_time() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_704_067_200)
}
