//! Signing keys on the command line: secret key files, keys of gpg-agent, and the files of their
//! passphrases.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use zeroize::Zeroizing;

use crate::openpgp::{AgentKey, GnuPg, LoadedKey};
use crate::resign::Keys;

/// What stands before the fingerprint of an agent's key.
const AGENT: &str = "gpg-agent:";

/// The flags that name the one signing key of a command.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Secret key that signs: a file, armoured or not, or gpg-agent:FINGERPRINT for a key of the running
    /// gpg-agent, its smart cards included
    #[arg(long, value_name = "FILE|gpg-agent:FPR")]
    key: String,
    /// File whose first line is the key's passphrase; /dev/fd/N for an inherited descriptor
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl KeyArgs {
    /// Reads and unlocks the key.
    pub fn load(&self) -> anyhow::Result<LoadedKey> {
        let passphrase = self.passphrase_file.as_deref().map(read_passphrase).transpose()?;
        load(&self.key, passphrase.flatten().as_ref(), SystemTime::now())
    }
}

/// The flags that name several keys, and which names each signs.
#[derive(Debug, Args)]
pub struct KeysArgs {
    /// Secret key that signs: a file, armoured or not, or gpg-agent:FINGERPRINT for a key of the running
    /// gpg-agent, its smart cards included; repeatable, each claim is signed by all of them
    #[arg(long, value_name = "FILE|gpg-agent:FPR", required = true)]
    key: Vec<String>,
    /// Key that signs the names at and below NEWPREFIX, instead of all --key; repeatable, the longest
    /// match wins, and several keys for one NEWPREFIX all sign. A NEWPREFIX that no rename rule
    /// reaches is refused
    #[arg(long, value_name = "NEWPREFIX=K")]
    key_for: Vec<String>,
    /// File whose first line is the passphrase; /dev/fd/N for an inherited descriptor. One for all
    /// keys, or one for each --key and then for each --key-for, /dev/null where none is needed
    #[arg(long, value_name = "FILE")]
    passphrase_file: Vec<PathBuf>,
}

impl KeysArgs {
    /// Reads and unlocks the keys, each once.
    pub fn load(&self) -> anyhow::Result<Keys> {
        let mut wanted: Vec<(Option<&str>, &str)> = self.key.iter().map(|key| (None, key.as_str())).collect();
        for route in &self.key_for {
            let Some((prefix, key)) = route.split_once('=') else {
                bail!("--key-for {route:?} is not of the form NEWPREFIX=K");
            };
            wanted.push((Some(prefix), key));
        }
        let passphrases = self.passphrases(wanted.len())?;
        let now = SystemTime::now();
        let mut loaded: HashMap<&str, LoadedKey> = HashMap::new();
        let mut unrouted = Vec::new();
        let mut routes = Vec::new();
        for (number, (prefix, name)) in wanted.into_iter().enumerate() {
            let key = match loaded.get(name) {
                Some(key) => key.clone(),
                None => {
                    // One for all, or one each.
                    let passphrase = passphrases.get(number).or(passphrases.first()).and_then(Option::as_ref);
                    load(name, passphrase, now)?
                }
            };
            loaded.insert(name, key.clone());
            match prefix {
                Some(prefix) => routes.push((prefix.to_owned(), key)),
                None => unrouted.push(key),
            }
        }
        Ok(Keys::new(unrouted, routes)?)
    }

    fn passphrases(&self, keys: usize) -> anyhow::Result<Vec<Option<Zeroizing<Vec<u8>>>>> {
        let files = self.passphrase_file.len();
        ensure!(
            files <= 1 || files == keys,
            "--passphrase-file is given {files} times for {keys} keys: give one for all keys, or one for each \
             (--key first, then --key-for; /dev/null where none is needed)"
        );
        self.passphrase_file.iter().map(|path| read_passphrase(path)).collect()
    }
}

fn load(name: &str, passphrase: Option<&Zeroizing<Vec<u8>>>, now: SystemTime) -> anyhow::Result<LoadedKey> {
    // A key itself in the place of its file's name must not be repeated in an error.
    ensure!(
        !name.contains('\n') && !name.contains("-----BEGIN"),
        "--key takes the name of a key file, not the key itself (which other users of this machine may just have seen)"
    );
    let passphrase = passphrase.map(|text| text.as_slice());
    let loaded = match name.strip_prefix(AGENT) {
        Some(agent_key) => {
            let key: AgentKey = agent_key.parse().with_context(|| format!("--key {AGENT}…"))?;
            LoadedKey::from_agent(&GnuPg::default(), &key, passphrase, now)
        }
        None => {
            let bytes = Zeroizing::new(std::fs::read(name).with_context(|| format!("reading key {name}"))?);
            LoadedKey::from_file(&bytes, passphrase, now)
        }
    };
    loaded.with_context(|| format!("loading key {name}"))
}

/// Reads the first line; `/dev/null` stands for no passphrase.
fn read_passphrase(path: &Path) -> anyhow::Result<Option<Zeroizing<Vec<u8>>>> {
    if path == Path::new("/dev/null") {
        return Ok(None);
    }
    let bytes =
        Zeroizing::new(std::fs::read(path).with_context(|| format!("reading passphrase file {}", path.display()))?);
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    Ok(Some(Zeroizing::new(line.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Reference;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        keys: KeysArgs,
    }

    fn file(name: &str) -> String {
        format!("{}/tests/data/keys/{name}.sec.asc", env!("CARGO_MANIFEST_DIR"))
    }

    fn parse(args: &[&str]) -> Result<KeysArgs, clap::Error> {
        Cli::try_parse_from([&["x"], args].concat()).map(|cli| cli.keys)
    }

    #[test]
    fn keys_and_routes() {
        let (alice, bob) = (file("alice"), file("bob"));
        let route = format!("icr.io/team={bob}");
        let keys = parse(&["--key", &alice, "--key-for", &route, "--key-for", &format!("quay.io={alice}")]).unwrap();
        let keys = keys.load().unwrap();
        let who = |name: &str| {
            let keys = keys.for_name(&Reference::parse(name).unwrap());
            keys.iter().map(|key| key.signer.fingerprint().clone()).collect::<Vec<_>>()
        };
        assert_eq!(who("icr.io/team/app:1").len(), 1);
        assert_ne!(who("icr.io/team/app:1"), who("icr.io/other:1"));
        assert_eq!(who("quay.io/other:1"), who("icr.io/other:1"));
        assert!(parse(&[]).is_err());
        assert!(parse(&["--key-for", &route]).is_err());
    }

    #[test]
    fn mistakes_are_told() {
        let alice = file("alice");
        let told = |args: &[&str]| format!("{:#}", parse(args).unwrap().load().unwrap_err());
        assert!(told(&["--key", &alice, "--key-for", &alice]).contains("NEWPREFIX=K"));
        assert!(told(&["--key", &alice, "--key", &alice]).contains("twice"));
        let files = ["--passphrase-file", "/dev/null", "--passphrase-file", "/dev/null"];
        assert!(told(&[&["--key", &alice][..], &files].concat()).contains("2 times for 1 keys"));
        assert!(told(&["--key", "gpg-agent:alice"]).contains("FINGERPRINT"));
        let pasted = std::fs::read_to_string(&alice).unwrap();
        let error = told(&[&format!("--key={pasted}")]);
        assert!(error.contains("not the key itself") && !error.contains("PRIVATE"), "{error}");
        parse(&[&["--key", &alice, "--key", &file("bob")][..], &files].concat()).unwrap().load().unwrap();
    }

    #[test]
    fn a_passphrase_is_the_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("word");
        for (text, expected) in [("a b\r\nsecond", "a b"), ("a", "a"), ("", ""), ("\n", "")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_passphrase(&path).unwrap().unwrap().as_slice(), expected.as_bytes());
        }
        assert!(read_passphrase(Path::new("/dev/null")).unwrap().is_none());
    }
}
