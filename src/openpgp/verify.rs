//! Verification: these bytes, signed by that key, acceptable now. The acceptance table of
//! spec containers-image 4.3, column "we should", row by row.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sequoia_openpgp::types::HashAlgorithm;

use super::arithmetic;
use super::client::{sequoia_refuses, x_crypto_refuses};
use super::fingerprint::{Fingerprint, KeyId};
use super::keyring::{Candidate, Keyring};
use super::message::{self, Message, MessageError};
use super::signature_packet::{BINARY, LineFault, SignaturePacket, TEXT};
use super::standing::{self, KeyFault, Standing, timestamp};
use super::subpacket::Forbidden;

/// What to accept, and when "now" is.
#[derive(Clone, Copy, Debug)]
pub struct VerifyOptions {
    /// The time at which keys and signatures must be valid: now, and never the signature's own time.
    pub at: SystemTime,
    /// Accept signatures over SHA-1, as gpg 2.2 does. Keys' self-signatures may always use it.
    pub allow_sha1: bool,
    /// Accept RSA and DSA keys with less than 2048 bits, as gpg 2.2 does.
    pub allow_weak_keys: bool,
}

impl VerifyOptions {
    /// The default: nothing weak.
    pub fn at(at: SystemTime) -> Self {
        Self { at, allow_sha1: false, allow_weak_keys: false }
    }
}

/// A signature that may be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The signed content, verbatim.
    pub content: Vec<u8>,
    /// The signer's identity: the fingerprint of the primary key.
    pub signer: Fingerprint,
    /// The key that made the signature: the primary key or one of its subkeys.
    pub signing_key: Fingerprint,
    /// When the signature says that it was made.
    pub created: Timestamp,
    /// What some clients may dislike although we accept it, each a sentence.
    pub warnings: Vec<String>,
}

/// Why a signature is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It is not exactly one signed message.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The keyring has no key. The sentence is containers/image's own.
    #[error("No public keys imported")]
    NoKeys,
    /// No key of the keyring has the signature's key ID. The sentence begins as x/crypto's.
    #[error("Key not found for key ID {key_id:x} in signature{}", .fingerprint.as_ref().map(|f| format!(" (fingerprint {f})")).unwrap_or_default())]
    KeyNotFound {
        /// The key ID that the signature names.
        key_id: KeyId,
        /// The fingerprint that it names, if it names one.
        fingerprint: Option<Fingerprint>,
    },
    /// The signature does not say who made it.
    #[error("the signature does not name the key that made it")]
    NoIssuer,
    /// The signature names several keys, or not the one that made it.
    #[error("the signature names different keys as its maker")]
    IssuersDiffer,
    /// The one-pass packet and the signature packet differ.
    #[error("the one-pass packet and the signature packet disagree on {0}")]
    OnePassDiffers(&'static str),
    /// A certification, a revocation or anything else that signs no document.
    #[error("a signature of type {0:#04x} signs no document")]
    Kind(u8),
    /// No (hashed) creation time.
    #[error("the signature does not say when it was made")]
    NoCreationTime,
    /// MD5 or RIPEMD-160.
    #[error("the signature uses {0}, which is broken or refused by some clients; sign again with SHA-256")]
    WeakHash(&'static str),
    /// SHA-1, and it is not allowed.
    #[error("the signature uses SHA-1, which is broken; sign again with SHA-256, or allow SHA-1")]
    Sha1,
    /// A hash function that gpg does not know either.
    #[error("the signature uses hash algorithm {0}, which is not supported")]
    HashUnsupported(u8),
    /// A public key algorithm that is not known here.
    #[error("the signature uses public key algorithm {0}, which is not supported")]
    AlgorithmUnsupported(u8),
    /// A critical notation.
    #[error("the signature has a critical notation {0:?} that nobody here understands")]
    CriticalNotation(String),
    /// A critical subpacket.
    #[error("the signature has a critical subpacket of type {0}, which clients do not know; sign without it")]
    CriticalSubpacket(u8),
    /// A subpacket that makes some clients refuse the signature, critical or not.
    #[error("the signature has a subpacket for which clients with x/crypto refuse it: {0}")]
    Subpacket(&'static str),
    /// Text with a carriage return that ends no line.
    #[error("the signed text has a stray carriage return, which clients hash differently")]
    StrayCarriageReturn,
    /// Text with a line feed before which there is no carriage return.
    #[error(
        "the signed text has a line feed without a carriage return, which clients hash differently; sign without --textmode"
    )]
    BareLineFeed,
    /// Its expiration time does not fit OpenPGP's 32 bits: beyond 2106.
    #[error(
        "the signature expires after 2106, which clients with GnuPG read as long ago; sign again with a shorter time"
    )]
    ExpiryTooFar,
    /// Past its own expiration time.
    #[error("Signature expired on {at}; sign again")]
    Expired {
        /// When it expired.
        at: Timestamp,
    },
    /// Made before its key existed.
    #[error("the signature was made on {created}, before its key {key} on {key_created}")]
    OlderThanKey {
        /// The key.
        key: Fingerprint,
        /// When the signature says it was made.
        created: Timestamp,
        /// When the key was made.
        key_created: Timestamp,
    },
    /// Made after its key had expired; only asked about where keys are judged as of an earlier time.
    #[error("the signature was made on {created}, after its key {key} expired on {expired}")]
    YoungerThanKey {
        /// The key, or its primary key, whichever expired first.
        key: Fingerprint,
        /// When the signature says it was made.
        created: Timestamp,
        /// When the key expired.
        expired: Timestamp,
    },
    /// The arithmetic says no: content or signature was changed.
    #[error("bad signature: the content is not what key {key} signed")]
    Bad {
        /// The key that should have made it.
        key: Fingerprint,
    },
    /// The signature is good, its key is not.
    #[error("the signature is good, but {0}")]
    Key(#[from] KeyFault),
}

/// Verifies a whole OpenPGP message.
///
/// # Errors
/// [`VerifyError`], with the first reason to refuse it in this order: no keys, shape of the
/// message, properties of the signature, unknown key, arithmetic, standing of the key.
pub fn verify(message: &[u8], keyring: &Keyring, options: &VerifyOptions) -> Result<Verified, VerifyError> {
    if keyring.is_empty() {
        return Err(VerifyError::NoKeys);
    }
    let message = message::read(message)?;
    let issuer = issuer(&message)?;
    let mut warnings = Vec::new();
    let hash = acceptable(&message, options, &mut warnings)?;
    let created = message.signature.subpackets.created.ok_or(VerifyError::NoCreationTime)?;
    let created = SystemTime::UNIX_EPOCH + Duration::from_secs(created.into());

    let named = message.signature.subpackets.issuer_fingerprints.first();
    let mut refusal = VerifyError::KeyNotFound { key_id: issuer, fingerprint: named.cloned() };
    for candidate in keyring.candidates(issuer) {
        if named.is_some_and(|named| named != candidate.fingerprint) {
            continue;
        }
        let judged = made_by(&message, &candidate, hash, created)
            .and_then(|()| Ok(standing::check(keyring, &candidate, options.at, options.allow_weak_keys)?));
        match judged {
            // Nobody could make it while the key was good, whatever time it is judged as of.
            Ok(Standing { expires: Some(expires), .. }) if expires <= created => {
                refusal = VerifyError::YoungerThanKey {
                    key: candidate.fingerprint.clone(),
                    created: timestamp(created),
                    expired: timestamp(expires),
                };
            }
            Ok(standing) => {
                if standing.weak {
                    let why = format!("key {} is weak: less than 2048 bits", candidate.fingerprint);
                    warnings.push(sequoia_refuses(&why));
                }
                if candidate.fingerprint != candidate.primary {
                    warnings.push("made by a subkey; clients with GnuPG from before mid-2025 refuse it".to_owned());
                }
                warnings.extend(candidate.warning.map(str::to_owned));
                return Ok(Verified {
                    content: message.content,
                    signer: candidate.primary.clone(),
                    signing_key: candidate.fingerprint.clone(),
                    created: timestamp(created),
                    warnings,
                });
            }
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Returns the one key ID that all parts of the message name.
fn issuer(message: &Message) -> Result<KeyId, VerifyError> {
    let said = &message.signature.subpackets;
    let fingerprints = &said.issuer_fingerprints;
    let mut ids = said.issuers.iter().copied().chain(fingerprints.iter().map(Fingerprint::key_id));
    let issuer = ids.next().ok_or(VerifyError::NoIssuer)?;
    if ids.any(|other| other != issuer) || fingerprints.windows(2).any(|pair| pair.first() != pair.last()) {
        return Err(VerifyError::IssuersDiffer);
    }
    let Some(one_pass) = message.one_pass else { return Ok(issuer) };
    let signature = &message.signature;
    for (same, what) in [
        (one_pass.kind == signature.kind, "the type of the signature"),
        (one_pass.hash_algorithm == signature.hash_algorithm, "the hash algorithm"),
        (one_pass.key_algorithm == signature.key_algorithm, "the public key algorithm"),
        (one_pass.issuer == issuer, "the key"),
    ] {
        if !same {
            return Err(VerifyError::OnePassDiffers(what));
        }
    }
    Ok(issuer)
}

/// Checks all that can be judged without a key; returns the hash algorithm.
fn acceptable(
    message: &Message,
    options: &VerifyOptions,
    warnings: &mut Vec<String>,
) -> Result<HashAlgorithm, VerifyError> {
    let signature: &SignaturePacket = &message.signature;
    if !matches!(signature.kind, BINARY | TEXT) {
        return Err(VerifyError::Kind(signature.kind));
    }
    match signature.forbidden() {
        Some(Forbidden::Notation(name)) => return Err(VerifyError::CriticalNotation(name.clone())),
        Some(Forbidden::Critical(kind)) => return Err(VerifyError::CriticalSubpacket(*kind)),
        Some(Forbidden::Malformed(what)) => return Err(VerifyError::Subpacket(what)),
        None => {}
    }
    match signature.line_fault(&message.content) {
        Some(LineFault::BareLineFeed) => return Err(VerifyError::BareLineFeed),
        Some(LineFault::StrayCarriageReturn) => return Err(VerifyError::StrayCarriageReturn),
        None => {}
    }
    let hash = match signature.hash_algorithm {
        1 => return Err(VerifyError::WeakHash("MD5")),
        3 => return Err(VerifyError::WeakHash("RIPEMD-160")),
        2 if !options.allow_sha1 => return Err(VerifyError::Sha1),
        2 => {
            warnings.push(sequoia_refuses("the signature uses SHA-1"));
            HashAlgorithm::SHA1
        }
        8 => HashAlgorithm::SHA256,
        9 => HashAlgorithm::SHA384,
        10 => HashAlgorithm::SHA512,
        11 => HashAlgorithm::SHA224,
        other => return Err(VerifyError::HashUnsupported(other)),
    };

    let created = u64::from(signature.subpackets.created.ok_or(VerifyError::NoCreationTime)?);
    let now = options.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    match signature.subpackets.expires_after {
        None => {}
        Some(0) => {
            warnings.push(x_crypto_refuses("its expiration time is 0, which means never; they take it for expired"));
        }
        Some(seconds) => {
            let at = created + u64::from(seconds);
            // gpg adds in 32 bits and comes out in the past.
            if at > u64::from(u32::MAX) {
                return Err(VerifyError::ExpiryTooFar);
            }
            if at <= now {
                return Err(VerifyError::Expired { at: timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(at)) });
            }
        }
    }
    if created > now {
        warnings.push(sequoia_refuses("the signature was made in the future (is a clock wrong?)"));
    }
    if message.one_pass.is_none() {
        warnings.push(x_crypto_refuses("the signature packet stands before the content"));
    }
    Ok(hash)
}

/// Checks that the key made this signature over this content.
fn made_by(
    message: &Message,
    candidate: &Candidate<'_>,
    hash: HashAlgorithm,
    created: SystemTime,
) -> Result<(), VerifyError> {
    let signature = &message.signature;
    let key = candidate.key.key();
    let bad = || VerifyError::Bad { key: candidate.fingerprint.clone() };
    let value = signature.value.as_ref().ok_or(VerifyError::AlgorithmUnsupported(signature.key_algorithm))?;
    if u8::from(key.pk_algo()) != signature.key_algorithm {
        return Err(bad());
    }
    let digest =
        signature.digest(hash, &message.content).map_err(|_| VerifyError::HashUnsupported(signature.hash_algorithm))?;
    if !digest.starts_with(&signature.digest_prefix) {
        return Err(bad());
    }
    if !arithmetic::holds(key, value, hash, &digest) {
        return Err(bad());
    }
    if created < key.creation_time() {
        return Err(VerifyError::OlderThanKey {
            key: candidate.fingerprint.clone(),
            created: timestamp(created),
            key_created: timestamp(key.creation_time()),
        });
    }
    Ok(())
}
