//! The installed GnuPG: where its agent listens, its public keys, and their keygrips, by which the
//! agent knows its secret keys. Asked of GnuPG's own programs, for where these are is its secret.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{Read as _, Seek as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::agent_error::AgentError;
use super::assuan::printable;
use crate::openpgp::fingerprint::Fingerprint;
use crate::openpgp::key_file::KEYRING_LIMIT;

/// A GnuPG home: the process's own (`GNUPGHOME`, else `~/.gnupg`) or a given folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GnuPg {
    home: Option<PathBuf>,
}

impl GnuPg {
    /// The home in this folder, whatever `GNUPGHOME` says.
    pub fn at(home: impl Into<PathBuf>) -> Self {
        Self { home: Some(home.into()) }
    }

    /// Where the agent listens, if one runs.
    pub(super) fn agent_socket(&self) -> Result<PathBuf, AgentError> {
        let mut output = self.run("gpgconf", &["--list-dirs", "agent-socket"])?;
        while output.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            output.pop();
        }
        if output.is_empty() {
            return Err(AgentError::Program { program: "gpgconf", reason: "it names no agent-socket".to_owned() });
        }
        // Asked for one name, gpgconf escapes nothing.
        Ok(PathBuf::from(OsString::from_vec(output)))
    }

    /// The public certificate that has `key` as its primary key or a subkey.
    pub(super) fn certificate(&self, key: &Fingerprint) -> Result<Vec<u8>, AgentError> {
        let certificate = self.run("gpg", &["--batch", "--no-tty", "--quiet", "--export", key.as_str()])?;
        if certificate.is_empty() { Err(AgentError::UnknownKey { key: key.clone() }) } else { Ok(certificate) }
    }

    /// The keygrips of all keys of that certificate.
    pub(super) fn keygrips(&self, key: &Fingerprint) -> Result<HashMap<Fingerprint, String>, AgentError> {
        // The fixed list of options keeps a gpg.conf from changing the form.
        let args =
            ["--batch", "--no-tty", "--quiet", "--with-colons", "--with-keygrip", "--with-subkey-fingerprint", "-k"];
        let listing = self.run("gpg", &[&args[..], &[key.as_str()]].concat())?;
        Ok(keygrips(&String::from_utf8_lossy(&listing)))
    }

    fn run(&self, program: &'static str, args: &[&str]) -> Result<Vec<u8>, AgentError> {
        let failed = |reason: String| AgentError::Program { program, reason };
        let cannot = |error: std::io::Error| failed(error.to_string());
        let mut complaints = tempfile::tempfile().map_err(cannot)?;
        let mut command = Command::new(program);
        if let Some(home) = &self.home {
            command.env("GNUPGHOME", home);
        }
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.stderr(complaints.try_clone().map_err(cannot)?).spawn().map_err(cannot)?;
        let mut output = Vec::new();
        let read = match child.stdout.take() {
            Some(stdout) => stdout.take(KEYRING_LIMIT as u64 + 1).read_to_end(&mut output),
            None => Ok(0),
        };
        let status = child.wait().map_err(cannot)?;
        read.map_err(cannot)?;
        if output.len() > KEYRING_LIMIT {
            return Err(failed(format!("it wrote more than {KEYRING_LIMIT} bytes")));
        }
        if status.success() {
            return Ok(output);
        }
        let mut words = Vec::new();
        complaints.rewind().and_then(|()| complaints.take(4096).read_to_end(&mut words)).map_err(cannot)?;
        let words = printable(&String::from_utf8_lossy(&words));
        // gpg -k of an unknown key, too, ends with 2.
        Err(failed(if words.is_empty() { status.to_string() } else { words }))
    }
}

/// Reads `fpr` and `grp` records, in the form of GnuPG's doc/DETAILS: after each key its fingerprint
/// and then its keygrip, in field 10.
fn keygrips(listing: &str) -> HashMap<Fingerprint, String> {
    let mut found = HashMap::new();
    let mut current: Option<Fingerprint> = None;
    for line in listing.lines() {
        let mut fields = line.split(':');
        let (kind, value) = (fields.next().unwrap_or_default(), fields.nth(8).unwrap_or_default());
        match kind {
            "pub" | "sub" => current = None,
            "fpr" => current = Fingerprint::parse(value).ok(),
            "grp" if value.len() == 40 && value.bytes().all(|b| b.is_ascii_hexdigit()) => {
                if let Some(key) = current.take() {
                    found.insert(key, value.to_ascii_uppercase());
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listings_are_read() {
        let (a, b, grip) = ("A".repeat(40), "B".repeat(40), "1".repeat(40));
        let listing = format!(
            "tru::1:1\npub:u:255:22:X:1:::u:::scSC::::::23::0:\nfpr:::::::::{a}:\ngrp:::::::::{grip}:\n\
             uid:u::::1::H::name with : colons::::\nsub:u:::\nfpr:::::::::{b}:\ngrp:::::::::short:\ngrp:::::::::{grip}:\n\
             sub:u:::\ngrp:::::::::{grip}:\n"
        );
        let found = keygrips(&listing);
        assert_eq!(found.len(), 2);
        assert_eq!(found.get(&Fingerprint::parse(&a).unwrap()), Some(&grip));
        assert_eq!(found.get(&Fingerprint::parse(&b).unwrap()), Some(&grip));
    }

    proptest! {
        #[test]
        fn any_listing_is_survived(text in "((pub|sub|fpr|grp)?:{0,10}[0-9A-F]{0,41}\n?|.){0,20}") {
            let _ = keygrips(&text);
        }
    }
}
