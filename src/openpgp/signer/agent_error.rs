//! Why gpg-agent did not sign, and what its owner can do about it.

use std::path::PathBuf;

use super::assuan::{BAD_PASSPHRASE, Refusal, Trouble};
use crate::openpgp::fingerprint::Fingerprint;
use crate::openpgp::sign::SignError;

/// Why gpg-agent did not sign. Says nothing of a secret, and repeats only the agent's own sentences.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Not of the form `FINGERPRINT` or `FINGERPRINT!`.
    #[error("{0}; give gpg-agent:FINGERPRINT, as `gpg --list-secret-keys --with-subkey-fingerprint` prints it")]
    Name(#[from] crate::openpgp::fingerprint::FingerprintError),
    /// `gpg` or `gpgconf` could not be run, or failed.
    #[error("{program} failed: {reason}; it is part of GnuPG, and GNUPGHOME says where its keys are")]
    Program {
        /// The program.
        program: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// The public key is not in gpg's keyring.
    #[error("gpg has no public key {key}: import it with `gpg --import` (GNUPGHOME says where gpg keeps its keys)")]
    UnknownKey {
        /// The key that was asked for.
        key: Fingerprint,
    },
    /// Nobody answers at the agent's socket.
    #[error(
        "no gpg-agent answers at {} ({reason}): start it with `gpgconf --launch gpg-agent`, \
         or set GNUPGHOME to where it runs",
        socket.display()
    )]
    NotRunning {
        /// Where it should be.
        socket: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The agent has no secret part of the key.
    #[error(
        "gpg-agent has no secret key {key}: `gpg --list-secret-keys` shows those it has; \
         if it is on a card, insert that and run `gpg --card-status`"
    )]
    NoSecretKey {
        /// The key that should sign.
        key: Fingerprint,
    },
    /// A passphrase or PIN is needed, and the agent has no way to ask for it.
    #[error(
        "gpg-agent needs the passphrase or PIN of {key} and could not ask for it ({reason}): give --passphrase-file, \
         or on a terminal `export GPG_TTY=$(tty)`"
    )]
    CannotAsk {
        /// The locked key.
        key: Fingerprint,
        /// The agent's words.
        reason: String,
    },
    /// The agent takes no passphrase from its clients.
    #[error(
        "gpg-agent takes no passphrase from a program ({reason}): remove no-allow-loopback-pinentry from its \
         gpg-agent.conf, or leave --passphrase-file out and let pinentry ask"
    )]
    Loopback {
        /// The agent's words.
        reason: String,
    },
    /// A person said no, or nothing.
    #[error("signing with {key} was not permitted at gpg-agent's prompt ({reason})")]
    Declined {
        /// The key.
        key: Fingerprint,
        /// The agent's words.
        reason: String,
    },
    /// The card is not there, or not well.
    #[error("the card with key {key} cannot be used ({reason}): insert it and look with `gpg --card-status`")]
    Card {
        /// The key on it.
        key: Fingerprint,
        /// The agent's words.
        reason: String,
    },
    /// Too many wrong PINs.
    #[error("the card with key {key} is locked after wrong PINs: unlock it with `gpg --change-pin`")]
    CardLocked {
        /// The key on it.
        key: Fingerprint,
    },
    /// No answer.
    #[error("gpg-agent did not answer in time; is it waiting at a prompt for a passphrase, a PIN or a touch?")]
    Silent,
    /// The connection broke in the middle.
    #[error("the connection to gpg-agent broke: {0}")]
    Lost(String),
    /// Not an answer that an agent gives.
    #[error("gpg-agent's answer makes no sense: {0}")]
    Protocol(&'static str),
    /// Any other error of the agent.
    #[error("gpg-agent does not sign with {key}: {reason} (error {code})")]
    Refused {
        /// The key.
        key: Fingerprint,
        /// libgpg-error's number.
        code: u32,
        /// The agent's words.
        reason: String,
    },
}

/// What trouble with a connection means for `key`.
pub(super) fn explain(trouble: Trouble, key: &Fingerprint) -> SignError {
    let error = match trouble {
        Trouble::Lost(reason) => AgentError::Lost(reason),
        Trouble::Silent => AgentError::Silent,
        Trouble::Protocol(what) => AgentError::Protocol(what),
        Trouble::Refused(refusal) => return refused(refusal, key.clone()),
    };
    error.into()
}

/// The numbers are libgpg-error's (`gpg-error.h`).
fn refused(refusal: Refusal, key: Fingerprint) -> SignError {
    const PINENTRY: u32 = 5;
    const NO_TERMINAL: u32 = 0x8000 | 102;
    const NO_DEVICE: u32 = 0x8000 | 80;
    let Refusal { code, source, text: reason } = refusal;
    let error = match code {
        BAD_PASSPHRASE | 87 | 177 => return SignError::PassphraseWrong { key },
        17 => AgentError::NoSecretKey { key },
        62 | 99 | 114 | 198 => AgentError::Declined { key, reason },
        130 => AgentError::CardLocked { key },
        85 | 86 | NO_TERMINAL => AgentError::CannotAsk { key, reason },
        91 | 108..=112 | 119 | 120 | NO_DEVICE => AgentError::Card { key, reason },
        _ if source == PINENTRY => AgentError::CannotAsk { key, reason },
        _ => AgentError::Refused { key, code, reason },
    };
    error.into()
}
