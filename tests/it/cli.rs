//! The command line as scripts see it: exit codes, JSON shapes, sentences; the real binary each time.

mod bad_input;
mod checks;
mod help;
mod identities;
mod lists;
mod resolve;
mod searches;

use std::path::{Path, PathBuf};
use std::process::Command;

use countersign::image::Digest;
use serde_json::{Value, json};

use crate::support::client::{Host, Ran, text};
use crate::support::keys;

/// A machine whose user has a policy and a signature folder, and nothing from this one.
struct Desk {
    host: Host,
}

/// The manifest that most tests are about; nobody looks into it.
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;

impl Desk {
    fn new() -> Self {
        Self { host: Host::new(Path::new("/nonexistent")) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    /// Runs countersign with further variables.
    fn run_with(&self, variables: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        for name in ["XDG_CONFIG_HOME", "CONTAINERS_POLICY_JSON", "REGISTRY_AUTH_FILE", "COLUMNS", "COUNTERSIGN_LOG"] {
            command.env_remove(name);
        }
        command.env("HOME", self.host.path()).env("_CONTAINERS_ROOTLESS_UID", "1000").current_dir(self.host.path());
        Ran::of(command.envs(variables.iter().copied()).args(args).output().expect("countersign runs"))
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.run_with(&[], args)
    }

    /// Runs it for JSON, which must be one document; returns it with the exit code.
    #[track_caller]
    fn json(&self, args: &[&str]) -> (Value, i32) {
        let ran = self.run(&[&["--format", "json"], args].concat());
        let value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:#?}"));
        (value, ran.code.unwrap())
    }

    fn policy(&self, name: &str, default: Value) -> PathBuf {
        self.host.write(name, json!({"default": default}).to_string())
    }

    /// Signs a digest into a file.
    fn sign(&self, name: &str, reference: &str, key: &str, digest: &Digest) -> PathBuf {
        let path = self.path(name);
        let (key, digest) = (keys::secret(key), digest.to_string());
        self.run(&["sign", reference, "--key", text(&key), "--digest", &digest, "-o", text(&path)]).accepted();
        path
    }
}

fn signed_by(key: &str, identity: Option<Value>) -> Value {
    let mut requirement = json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": keys::public(key)});
    if let Some(identity) = identity {
        requirement["signedIdentity"] = identity;
    }
    json!([requirement])
}
