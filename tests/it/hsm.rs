//! A key that never leaves its hardware module (here SoftHSM, in software), behind gpg-agent: the
//! agent's smart card daemon is replaced by one that speaks PKCS#11.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::client::{Host, text};
use crate::support::keys;

const PIN: &str = "5678";

/// A token with one RSA key and its certificate, and a GnuPG home whose agent finds it.
struct Token {
    dir: tempfile::TempDir,
}

impl Token {
    fn new() -> Self {
        // In /tmp, for the agent's socket path must be short.
        let token = Self { dir: tempfile::Builder::new().prefix("cs-hsm").tempdir_in("/tmp").unwrap() };
        let dir = token.path();
        for folder in ["tokens", "gnupg"] {
            std::fs::create_dir(dir.join(folder)).unwrap();
        }
        std::fs::set_permissions(dir.join("gnupg"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            text(&dir.join("tokens"))
        );
        std::fs::write(dir.join("softhsm2.conf"), conf).unwrap();
        token.run("softhsm2-util", &["--init-token", "--free", "--label", "cs", "--so-pin", "1234", "--pin", PIN]);
        token.run(
            "openssl",
            &[
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days",
                "99", "-subj", "/CN=cs",
            ],
        );
        token.run("openssl", &["x509", "-in", "cert.pem", "-outform", "DER", "-out", "cert.der"]);
        token.run("openssl", &["pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-out", "key.pk8"]);
        token.run(
            "softhsm2-util",
            &["--import", "key.pk8", "--token", "cs", "--label", "cs", "--id", "A1", "--pin", PIN],
        );
        let library = library();
        // The daemon finds keys by their certificates.
        let write = ["--write-object", "cert.der", "--type", "cert", "--id", "a1", "--label", "cs"];
        let login = ["--module", &library, "--token-label", "cs", "--login", "--pin", PIN];
        token.run("pkcs11-tool", &[&login[..], &write].concat());
        for secret in ["key.pem", "key.pk8"] {
            std::fs::remove_file(dir.join(secret)).unwrap();
        }
        let daemon = format!("providers p1\nprovider-p1-library {library}\n");
        std::fs::write(dir.join("gnupg/gnupg-pkcs11-scd.conf"), daemon).unwrap();
        let agent = "scdaemon-program /usr/bin/gnupg-pkcs11-scd\nallow-loopback-pinentry\n";
        std::fs::write(dir.join("gnupg/gpg-agent.conf"), agent).unwrap();
        token
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path()).env("SOFTHSM2_CONF", self.path().join("softhsm2.conf"));
        command.env("GNUPGHOME", self.path().join("gnupg")).stdin(std::process::Stdio::null());
        command
    }

    #[track_caller]
    fn run(&self, program: &str, args: &[&str]) -> String {
        let output: Output =
            self.command(program).args(args).output().unwrap_or_else(|e| {
                panic!("{program}: {e}; `make test` installs softhsm2, opensc and gnupg-pkcs11-scd")
            });
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Makes an OpenPGP certificate around the token's key; returns its fingerprint.
    fn certificate(&self) -> String {
        self.run("gpg-connect-agent", &["learn --force", "/bye"]);
        let info = self.run("gpg-connect-agent", &["keyinfo --list", "/bye"]);
        let keygrip = info.lines().find_map(|line| line.strip_prefix("S KEYINFO ")?.split(' ').next()).unwrap();
        let parameters = format!(
            "Key-Type: RSA\nKey-Grip: {keygrip}\nKey-Usage: sign\nName-Email: hsm@test.invalid\nExpire-Date: 0\n%commit\n"
        );
        std::fs::write(self.path().join("parameters"), parameters).unwrap();
        let pin = ["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", PIN];
        self.run("gpg", &[&pin[..], &["--full-gen-key", "parameters"]].concat());
        let keys = self.run("gpg", &["--with-colons", "--list-secret-keys"]);
        let line = keys.lines().find(|line| line.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let _ = self.command("gpgconf").args(["--kill", "all"]).output();
    }
}

fn library() -> String {
    let folders = std::fs::read_dir("/usr/lib").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let places = folders.chain([PathBuf::from("/usr/lib")]).map(|folder| folder.join("softhsm/libsofthsm2.so"));
    let found = places.into_iter().find(|library| library.exists());
    text(&found.expect("make test installs softhsm2")).to_owned()
}

#[test]
fn a_key_in_a_hardware_module_signs_in_bulk() {
    let token = Token::new();
    let fingerprint = token.certificate();
    let host = Host::new(Path::new("/nonexistent"));
    let from = host.path().join("from");
    let digest = |n: usize| format!("sha256:{n:064x}");
    for n in 0..20 {
        let name = format!("registry.ng.bluemix.net/birds/bluebird:{n}");
        let alice = keys::secret("alice");
        host.countersign(&["sign", &name, "--key", text(&alice), "--digest", &digest(n), "--to", text(&from)])
            .accepted();
    }
    let pin = host.write("pin", PIN);
    let policy = host.signed_by_policy("old.json", &keys::public("alice"));
    let (to, key) = (host.path().join("to"), format!("gpg-agent:{fingerprint}"));
    // One connection: gnupg-pkcs11-scd serves each in a thread, and crashes at times when there are several.
    let output = token
        .command(env!("CARGO_BIN_EXE_countersign"))
        .args(["--format", "json", "resign", "--rename", "ibm", "--from", text(&from), "--to", text(&to)])
        .args(["--policy", text(&policy), "--key", &key, "--passphrase-file", text(&pin), "--jobs", "1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["signed"], 20, "{summary}");
    let public = host.write("hsm.asc", token.run("gpg", &["--armor", "--export"]));
    let new = host.signed_by_policy("new.json", &public);
    let name = format!("us.icr.io/birds/bluebird@{}", digest(7));
    host.countersign(&["verify", &name, "--lookaside", text(&to), "--policy", text(&new)]).accepted();
}
