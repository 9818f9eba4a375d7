//! A signer whose secret key is with a running gpg-agent: in its own files, or through scdaemon on a
//! smart card or in a hardware module.
//!
//! The agent gets digests and returns numbers; the message around them is ours, as for every signer.
//! The public certificate comes from gpg's keyring. `sequoia-gpg-agent` would do the same, but needs
//! Cap'n Proto's compiler and a minute to build, opens a connection for every signature, and does not
//! bound what it reads.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use sequoia_openpgp::Cert;
use sequoia_openpgp::crypto::mpi;
use zeroize::Zeroizing;

use super::agent_error::{AgentError, explain};
use super::agent_pool::{Pool, PoolError};
use super::gnupg::GnuPg;
use super::sexp;
use super::signing_key::{SigningKey, choose};
use crate::openpgp::fingerprint::Fingerprint;
use crate::openpgp::key_file::certificates;
use crate::openpgp::keyring::Keyring;
use crate::openpgp::sign::{SignError, Signer};

/// Which key of an agent signs.
///
/// The fingerprint of a primary key leaves it to us which of its keys signs (the primary key if it
/// can, else its newest subkey that can); that of a subkey means this subkey. A `!` after either
/// means this very key, as for gpg.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentKey {
    fingerprint: Fingerprint,
    exact: bool,
}

impl FromStr for AgentKey {
    type Err = AgentError;
    fn from_str(text: &str) -> Result<Self, AgentError> {
        let (digits, exact) = text.strip_suffix('!').map_or((text, false), |digits| (digits, true));
        Ok(Self { fingerprint: Fingerprint::parse(digits)?, exact })
    }
}

/// Signs through gpg-agent. Use one from as many threads as you like.
///
/// The agent works on one software key after the other; what runs at the same time is the waiting
/// for cards, and everything around.
pub struct AgentSigner {
    key: SigningKey,
    keygrip: String,
    keyring: Keyring,
    pool: Pool,
    passphrase: Option<Zeroizing<Vec<u8>>>,
    /// After a wrong passphrase nothing more is tried: a card locks itself at the third.
    locked_out: AtomicBool,
}

impl AgentSigner {
    /// Finds the key and tries it: its first signature must verify.
    ///
    /// Without a passphrase the agent asks for it with its pinentry, now and whenever it has
    /// forgotten it. `at` is now: the key must be valid then. Blocks until the agent has signed.
    ///
    /// # Errors
    /// [`SignError`]; those of the agent are [`SignError::Agent`].
    pub fn load(gnupg: &GnuPg, key: &AgentKey, passphrase: Option<&[u8]>, at: SystemTime) -> Result<Self, SignError> {
        let exported = gnupg.certificate(&key.fingerprint)?;
        let (cert, primary) = certificate_with(&exported, &key.fingerprint)?;
        let keygrips = gnupg.keygrips(&key.fingerprint)?;
        let keyring = Keyring::parse([&exported]);
        let pool = Pool::new(gnupg.agent_socket()?, terminal(), passphrase.is_some());
        // Whether there is an agent at all is the first thing to tell.
        ask(&pool, &key.fingerprint, "RESET")?;
        let only = (key.exact || key.fingerprint != primary).then_some(&key.fingerprint);
        let (signing_key, keygrip) = choose(&cert, &keyring, only, at, |fingerprint, _| {
            let missing = || AgentError::NoSecretKey { key: fingerprint.clone() };
            let keygrip = keygrips.get(fingerprint).ok_or_else(missing)?;
            ask(&pool, fingerprint, &format!("HAVEKEY {keygrip}"))?;
            Ok(keygrip.clone())
        })?;
        let passphrase = passphrase.map(|passphrase| Zeroizing::new(passphrase.to_vec()));
        let locked_out = AtomicBool::new(false);
        let signer = Self { key: signing_key, keygrip, keyring, pool, passphrase, locked_out };
        signer.key.try_out(&signer, &signer.keyring, at)?;
        Ok(signer)
    }

    /// Returns the fingerprint of the key that signs: the primary key or a subkey.
    pub fn signing_key(&self) -> &Fingerprint {
        &self.key.imprint.key
    }

    /// Returns the public certificate, which verifies the signatures.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    fn sign_digest(&self, digest: &[u8]) -> Result<mpi::Signature, SignError> {
        let key = &self.key.imprint.key;
        if self.locked_out.load(Ordering::Acquire) {
            return Err(SignError::PassphraseWrong { key: key.clone() });
        }
        let select = format!("SIGKEY {}", self.keygrip);
        // What pinentry shows; spaces are escaped as plus signs.
        let describe = format!("SETKEYDESC Sign+container+images+with+the+OpenPGP+key%0A{key}");
        // libgcrypt's numbers of these hashes are OpenPGP's.
        let hash = format!("SETHASH {} {}", u8::from(self.key.imprint.hash), hex::encode_upper(digest));
        let answer = self.pool.run(|connection| {
            connection.command(&select, None)?;
            connection.command(&describe, None)?;
            connection.command(&hash, None)?;
            connection.command("PKSIGN", self.passphrase.as_ref().map(|text| text.as_slice()))
        });
        let answer = answer.map_err(|error| told(error, key));
        if matches!(answer, Err(SignError::PassphraseWrong { .. })) {
            self.locked_out.store(true, Ordering::Release);
        }
        sexp::signature(&answer?, self.key.imprint.key_algorithm)
            .ok_or_else(|| AgentError::Protocol("it is no signature of this key's algorithm").into())
    }
}

impl Signer for AgentSigner {
    fn fingerprint(&self) -> &Fingerprint {
        &self.key.primary
    }

    fn sign(&self, payload: &[u8], created: SystemTime) -> Result<Vec<u8>, SignError> {
        self.key.sign(payload, created, |digest| self.sign_digest(digest))
    }
}

impl fmt::Debug for AgentSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentSigner")
            .field("primary", &self.key.primary)
            .field("key", &self.key.imprint.key)
            .field("socket", &self.pool.socket())
            .finish_non_exhaustive()
    }
}

/// Gives a command that needs no passphrase and has no result.
fn ask(pool: &Pool, key: &Fingerprint, command: &str) -> Result<(), SignError> {
    pool.run(|connection| connection.command(command, None)).map(drop).map_err(|error| told(error, key))
}

fn told(error: PoolError, key: &Fingerprint) -> SignError {
    match error {
        PoolError::Agent(error) => error.into(),
        PoolError::Command(trouble) => explain(trouble, key),
    }
}

/// The certificate with this key, and its primary fingerprint.
fn certificate_with(exported: &[u8], wanted: &Fingerprint) -> Result<(Cert, Fingerprint), AgentError> {
    let mut certs = certificates(exported, &mut Vec::new()).into_iter();
    let cert = certs.find(|cert| cert.keys().any(|ka| Fingerprint::of(ka.key()) == *wanted));
    let cert = cert.ok_or_else(|| AgentError::UnknownKey { key: wanted.clone() })?;
    let primary = Fingerprint::of(cert.primary_key().key());
    Ok((cert, primary))
}

/// Where pinentry finds the person: the agent may have been started from another terminal.
fn terminal() -> Vec<String> {
    let settings = [("GPG_TTY", "ttyname"), ("TERM", "ttytype"), ("DISPLAY", "display"), ("XAUTHORITY", "xauthority")];
    let options = settings.iter().filter_map(|(variable, option)| {
        let value = std::env::var(variable).ok().filter(|value| !value.is_empty() && value.len() < 500)?;
        (!value.contains(char::is_control)).then(|| format!("OPTION {option}={value}"))
    });
    options.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys() {
        let hex = "0123456789abcdef0123456789ABCDEF89abcdef";
        let key: AgentKey = hex.parse().unwrap();
        assert_eq!((key.fingerprint.as_str(), key.exact), (hex.to_uppercase().as_str(), false));
        assert!(format!("{hex}!").parse::<AgentKey>().unwrap().exact);
        for bad in ["", "!", "alice", "89ABCDEF89ABCDEF", &format!("{hex}!!"), &format!("0x{hex}")] {
            assert!(matches!(bad.parse::<AgentKey>(), Err(AgentError::Name(_))), "{bad}");
        }
    }
}
