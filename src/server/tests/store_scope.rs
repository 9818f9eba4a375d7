//! What the tests of the writable lookaside share: addresses, blobs, users, an audit log.

use std::path::PathBuf;

use crate::config::ServerConfig;
use crate::image::Digest;
use crate::server::testing::Told;
use crate::store::{SetAddress, StorePath};

pub(super) const BOB: (&str, &str) = ("authorization", "Basic Ym9iOng=");
pub(super) const EVE: (&str, &str) = ("authorization", "Basic ZXZlOng=");

pub(super) fn digest() -> Digest {
    Digest::sha256(b"manifest")
}

pub(super) fn set(path: &str) -> SetAddress {
    SetAddress::image(StorePath::parse(path).unwrap(), digest()).unwrap()
}

pub(super) fn release(path: &str) -> SetAddress {
    SetAddress::release(StorePath::parse(path).unwrap(), digest())
}

pub(super) fn blob(note: &str) -> Vec<u8> {
    [b"\xa3", format!("{} {note}", digest()).as_bytes()].concat()
}

pub(super) fn at(set: &SetAddress, last: &str) -> String {
    format!("/lookaside/{set}/signature-{last}")
}

/// A folder with bob's password, x, and a configuration with these access rules.
pub(super) struct Room {
    pub(super) dir: tempfile::TempDir,
    pub(super) config: ServerConfig,
}

impl Room {
    pub(super) fn new(access: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let users = format!("bob:{}\n", bcrypt::hash("x", 4).unwrap());
        std::fs::write(dir.path().join("users"), users).unwrap();
        std::fs::write(dir.path().join("tokens"), "ci:0123456789abcdef\n").unwrap();
        let yaml = access
            .replace("USERS", &format!("{{htpasswd: {}/users}}", dir.path().display()))
            .replace("TOKENS", &format!("{{token: {}/tokens}}", dir.path().display()));
        let mut config = ServerConfig::parse(&yaml).unwrap();
        config.audit_log = Some(dir.path().join("audit"));
        Self { dir, config }
    }

    pub(super) fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.audit_path()).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(super) fn audit_path(&self) -> PathBuf {
        self.dir.path().join("audit")
    }
}

pub(super) fn placed(told: &Told) -> (u16, &str) {
    (told.status.as_u16(), told.header("location").rsplit('/').next().unwrap())
}
