//! Keys in every state that a key can be in, the keyring files they are in, and what they sign.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::openpgp::gpg::{Exported, Home};
use crate::support::keys;

/// The states; each is the name of a keyring file too.
pub const KEYS: [&str; 11] = [
    "good",
    "other",
    "ed25519",
    "nistp256",
    "dsa2048",
    "rsa1024",
    "expired",
    "revoked",
    "subkey",
    "expired-subkey",
    "both",
];

/// Keyring files that are no single key.
pub const RINGS: [&str; 9] =
    ["good-and-other", "two-blocks", "text-around", "secret", "empty", "garbage", "missing", "folder", "armour-cut"];

const THEN: [&str; 2] = ["--faked-system-time", "20240101T000000!"];

/// gpg's arguments and the content.
type Signing = (Vec<String>, Vec<u8>);

/// A GnuPG home with all keys, and a folder with all keyrings.
pub struct Keys {
    home: Home,
    folder: tempfile::TempDir,
    fingerprints: HashMap<&'static str, String>,
    signed: Mutex<HashMap<Signing, Vec<u8>>>,
}

impl Keys {
    pub fn make() -> Self {
        let home = Home::new();
        let mut fingerprints = HashMap::new();
        for (name, file) in [("good", "alice"), ("other", "bob"), ("ed25519", "carol")] {
            home.ok(&["--import"], &std::fs::read(keys::secret(file)).unwrap());
            fingerprints.insert(name, fingerprint_of(&home, file));
        }
        let mut generate = |name: &'static str, algorithm: &str, usage: &str, expires: &str| {
            let made = home.generate(&THEN, &format!("{name} <{name}@test.invalid>"), algorithm, usage, expires);
            fingerprints.insert(name, made.clone());
            made
        };
        generate("nistp256", "nistp256", "sign", "never");
        generate("dsa2048", "dsa2048", "sign", "never");
        generate("rsa1024", "rsa1024", "sign", "never");
        generate("expired", "ed25519", "sign", "2024-06-01");
        let subkey = generate("subkey", "ed25519", "cert", "never");
        let expired_subkey = generate("expired-subkey", "ed25519", "cert", "never");
        let both = generate("both", "ed25519", "sign", "never");
        home.add_subkey(&THEN, &subkey, "ed25519", "sign", "never");
        home.add_subkey(&THEN, &expired_subkey, "ed25519", "sign", "2024-06-01");
        home.add_subkey(&THEN, &both, "ed25519", "sign", "never");
        // Revoked in the keyring file only: here it must still sign.
        let elsewhere = Home::new();
        let made = elsewhere.generate(&THEN, "revoked <revoked@test.invalid>", "ed25519", "sign", "never");
        home.ok(&["--import"], &elsewhere.secret(&made));
        let revocation = elsewhere.ok(&["--no-batch", "--command-fd", "0", "--gen-revoke", &made], b"y\n0\n\ny\n");
        elsewhere.ok(&["--import"], &revocation);
        let revoked = elsewhere.public(&made);
        fingerprints.insert("revoked", made);
        let folder = tempfile::tempdir().unwrap();
        let keys = Self { home, folder, fingerprints, signed: Mutex::default() };
        keys.write_rings(&revoked);
        keys
    }

    fn write_rings(&self, revoked: &[u8]) {
        let path = |name: &str| self.folder.path().join(name);
        let write = |name: &str, bytes: &[u8]| std::fs::write(path(name), bytes).unwrap();
        let public = |name: &str| self.home.public(&self.fingerprints[name]);
        for name in KEYS {
            write(name, &public(name));
        }
        write("revoked", revoked);
        write("good-and-other", &[public("good"), public("other")].concat());
        let armoured = |name: &str| std::fs::read(keys::public(name)).unwrap();
        write("two-blocks", &[armoured("bob"), armoured("alice")].concat());
        write("text-around", &[b"Our key:\n\n", &armoured("alice")[..], b"\nThat was it.\n"].concat());
        write("secret", &self.home.secret(&self.fingerprints["good"]));
        write("empty", b"");
        write("garbage", b"This is no keyring at all.\n");
        write("armour-cut", &armoured("alice")[..400]);
        std::fs::create_dir(path("folder")).unwrap();
    }

    /// The keyring file of a name in [`KEYS`] or [`RINGS`].
    pub fn ring(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The keyring in base64, as `keyData` has it; nothing for files that cannot be read.
    pub fn data(&self, name: &str) -> String {
        STANDARD.encode(std::fs::read(self.ring(name)).unwrap_or_default())
    }

    pub fn exported(&self, name: &str) -> Exported {
        self.home.exported(&self.fingerprints[name])
    }

    /// gpg's own message over `content`, by one or several keys, with further options.
    pub fn sign(&self, signers: &[&str], options: &[&str], content: &[u8]) -> Vec<u8> {
        let mut args = vec!["--faked-system-time", "20240201T000000", "--ignore-time-conflict"];
        args.extend(options);
        let mut users = Vec::new();
        for signer in signers {
            // With `!` the primary key signs although there is a subkey that could.
            let bang = if signer.ends_with("subkey") { "" } else { "!" };
            users.push(format!("{}{bang}", self.fingerprints[*signer]));
        }
        for user in &users {
            args.extend(["--local-user", user]);
        }
        if !options.iter().any(|option| ["--clear-sign", "--detach-sign", "--store"].contains(option)) {
            args.push("--sign");
        }
        let key = (args.iter().map(|&arg| arg.to_owned()).collect::<Vec<_>>(), content.to_owned());
        if let Some(known) = self.signed.lock().unwrap().get(&key) {
            return known.clone();
        }
        let message = self.home.ok(&args, content);
        self.signed.lock().unwrap().insert(key, message.clone());
        message
    }
}

fn fingerprint_of(home: &Home, user: &str) -> String {
    let listing = home.ok(&["--with-colons", "--list-keys", &format!("{user}@test.invalid")], b"");
    let listing = String::from_utf8(listing).unwrap();
    let line = listing.lines().find(|line| line.starts_with("fpr:")).unwrap();
    line.split(':').nth(9).unwrap().to_owned()
}
