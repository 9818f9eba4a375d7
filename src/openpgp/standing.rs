//! May this key sign, at this time? Revocation, expiry, strength and capability of keys, judged as
//! gpg judges them (spec containers-image 4.3).
//!
//! Self-signatures, bindings and back-signatures are checked by Sequoia. They may use SHA-1: old
//! distribution keys do, every client accepts them, and whoever could exploit that would have to
//! write into the administrator's keyring first.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sequoia_openpgp::Cert;
use sequoia_openpgp::cert::amalgamation::ValidateAmalgamation;
use sequoia_openpgp::packet::Signature;
use sequoia_openpgp::policy::{AsymmetricAlgorithm, StandardPolicy};
use sequoia_openpgp::types::{HashAlgorithm, PublicKeyAlgorithm, SignatureType};

use super::fingerprint::Fingerprint;
use super::keyring::{Candidate, Keyring};
use super::self_signatures::{self, unix};

/// RSA and DSA keys with fewer bits are weak.
const STRONG_BITS: usize = 2048;

/// Why a key may not sign. `key` is the key at fault: the primary key, if it is that one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFault {
    /// Revoked by its owner or a designated revoker, for whatever reason and at whatever time.
    #[error("key {key} is revoked; signatures of it count no longer, also older ones")]
    Revoked {
        /// The revoked key.
        key: Fingerprint,
    },
    /// Expired by now, even if it was valid when it signed.
    #[error("key {key} expired on {at}; extend it and distribute the new public key, or sign again with another key")]
    Expired {
        /// The expired key.
        key: Fingerprint,
        /// When it expired.
        at: Timestamp,
    },
    /// Created in the future.
    #[error("key {key} is valid only from {created} on; is the clock right?")]
    NotYetValid {
        /// The key of the future.
        key: Fingerprint,
        /// When it was created.
        created: Timestamp,
    },
    /// Not meant for signatures.
    #[error("key {key} is not meant for signing data")]
    CannotSign {
        /// The key.
        key: Fingerprint,
    },
    /// RSA or DSA with less than 2048 bits.
    #[error("key {key} is too weak: {algorithm} with {bits} bits, at least {STRONG_BITS} are wanted")]
    Weak {
        /// The key.
        key: Fingerprint,
        /// RSA or DSA.
        algorithm: &'static str,
        /// Its length.
        bits: usize,
    },
    /// No valid self-signature or binding, or an algorithm that is not accepted.
    #[error("key {key} is not valid: {reason}")]
    Invalid {
        /// The key.
        key: Fingerprint,
        /// What Sequoia found.
        reason: String,
    },
}

/// What is known of a key that may sign.
pub(super) struct Standing {
    /// When the key or its primary key expires, whichever is first.
    pub expires: Option<SystemTime>,
    /// RSA or DSA with less than 2048 bits, and allowed.
    pub weak: bool,
}

/// Judges a key at the time `at`.
pub(super) fn check(
    keyring: &Keyring,
    candidate: &Candidate<'_>,
    at: SystemTime,
    allow_weak_keys: bool,
) -> Result<Standing, KeyFault> {
    let Candidate { cert, key, fingerprint, primary, .. } = candidate;
    let subkey = fingerprint != primary;
    if cert.primary_key().self_revocations().next().is_some() || revoked_by_another(keyring, cert, at) {
        return Err(KeyFault::Revoked { key: (*primary).clone() });
    }
    if subkey && key.self_revocations().next().is_some() {
        return Err(KeyFault::Revoked { key: (*fingerprint).clone() });
    }
    if subkey && !goes_by_the_newest_binding(candidate, at, allow_weak_keys) {
        let reason = "the newest binding of the subkey is not good, and GnuPG goes by no older one".to_owned();
        return Err(KeyFault::Invalid { key: (*fingerprint).clone(), reason });
    }
    let mut weak = false;
    let both =
        [(*primary, cert.primary_key().key().clone().role_into_unspecified()), (*fingerprint, key.key().clone())];
    for (name, key) in both {
        if key.creation_time() > at {
            return Err(KeyFault::NotYetValid { key: name.clone(), created: timestamp(key.creation_time()) });
        }
        if let Some((algorithm, bits)) = weakness(key.pk_algo(), key.mpis().bits()) {
            if !allow_weak_keys {
                return Err(KeyFault::Weak { key: name.clone(), algorithm, bits });
            }
            weak = true;
        }
    }

    let policy = policy(at, allow_weak_keys);
    let invalid = |reason: String| KeyFault::Invalid { key: (*fingerprint).clone(), reason };
    let valid = key.clone().with_policy(&policy, at).map_err(|e| invalid(format!("{e:#}")))?;
    let valid_cert = cert.with_policy(&policy, at).map_err(|e| invalid(format!("{e:#}")))?;
    let valid_primary = valid_cert.primary_key();
    for (name, alive, expires) in [
        (*primary, valid_primary.alive(), valid_primary.key_expiration_time()),
        (*fingerprint, valid.alive(), valid.key_expiration_time()),
    ] {
        match (alive, expires) {
            (Ok(()), _) => {}
            (Err(_), Some(expired)) if expired <= at => {
                return Err(KeyFault::Expired { key: name.clone(), at: timestamp(expired) });
            }
            (Err(error), _) => return Err(invalid(format!("{error:#}"))),
        }
    }
    let gnupg = self_signatures::primary_key(cert, at);
    let binding_ends = valid.binding_signature().signature_expiration_time();
    for (name, ends) in [
        (*primary, gnupg.expires),
        (*primary, valid_primary.key_expiration_time().map(unix)),
        (*fingerprint, valid.key_expiration_time().map(unix)),
        (*fingerprint, binding_ends.map(unix)),
    ] {
        // gpg adds in 32 bits and comes out in the past.
        if ends.is_some_and(|ends| ends > u64::from(u32::MAX)) {
            let reason = "it expires after 2106, which clients with GnuPG read as long ago".to_owned();
            return Err(KeyFault::Invalid { key: name.clone(), reason });
        }
    }
    let gnupg_expires = gnupg.expires.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    if let Some(expired) = gnupg_expires.filter(|expired| *expired <= at) {
        return Err(KeyFault::Expired { key: (*primary).clone(), at: timestamp(expired) });
    }
    // A primary key that says nothing about its use may be used for everything, a subkey for nothing:
    // without the signing flag Sequoia has not looked for its back-signature.
    if !valid.key_flags().map_or(!subkey, |flags| flags.for_signing()) || (!subkey && !gnupg.may_sign) {
        return Err(KeyFault::CannotSign { key: (*fingerprint).clone() });
    }
    let expires = [valid_primary.key_expiration_time(), valid.key_expiration_time(), gnupg_expires];
    Ok(Standing { expires: expires.into_iter().flatten().min(), weak })
}

/// Whether Sequoia goes by the newest binding of a subkey, as gpg does. A binding without a good
/// back-signature counts, too: Sequoia has put it among the bad signatures of the certificate, where it
/// is no longer said to which subkey it belongs.
fn goes_by_the_newest_binding(candidate: &Candidate<'_>, at: SystemTime, allow_weak_keys: bool) -> bool {
    let Candidate { cert, key, .. } = candidate;
    let policy = policy(at, allow_weak_keys);
    let Ok(valid) = key.clone().with_policy(&policy, at) else { return true };
    let used = valid.binding_signature();
    let bad = cert.bad_signatures().filter(|signature| signature.typ() == SignatureType::SubkeyBinding);
    let mut others = key.self_signatures().chain(bad).filter(|signature| *signature != used);
    // Of several of the same second it is not said which is the newest.
    others.all(|other| other.signature_creation_time() < used.signature_creation_time())
}

/// Whether a designated revoker, whose key is in the keyring too, has revoked the primary key.
fn revoked_by_another(keyring: &Keyring, cert: &Cert, at: SystemTime) -> bool {
    let primary = cert.primary_key();
    let by = |revocation: &Signature| {
        let policy = policy(at, true);
        cert.revocation_keys(&policy).any(|named| {
            let (_, revoker) = named.revoker();
            keyring.certificate(&Fingerprint::from_bytes(revoker.as_bytes())).is_some_and(|revoker| {
                revocation.clone().verify_primary_key_revocation(revoker.primary_key().key(), primary.key()).is_ok()
            })
        })
    };
    primary.other_revocations().any(by)
}

/// Sequoia's policy for certificates, with every choice of ours made explicit and none that depends
/// on the calendar.
fn policy(at: SystemTime, allow_weak_keys: bool) -> StandardPolicy<'static> {
    use AsymmetricAlgorithm::{DSA1024, DSA2048, DSA3072, DSA4096, RSA1024, RSA2048, RSA3072, RSA4096};
    let mut policy = StandardPolicy::at(at);
    policy.accept_hash(HashAlgorithm::SHA1);
    for strong in [RSA2048, RSA3072, RSA4096, DSA2048, DSA3072, DSA4096] {
        policy.accept_asymmetric_algo(strong);
    }
    for weak in [RSA1024, DSA1024] {
        if allow_weak_keys {
            policy.accept_asymmetric_algo(weak);
        } else {
            policy.reject_asymmetric_algo(weak);
        }
    }
    policy
}

fn weakness(algorithm: PublicKeyAlgorithm, bits: Option<usize>) -> Option<(&'static str, usize)> {
    let name = match u8::from(algorithm) {
        1..=3 => "RSA",
        17 => "DSA",
        _ => return None,
    };
    bits.filter(|bits| *bits < STRONG_BITS).map(|bits| (name, bits))
}

/// Times of OpenPGP are 32-bit seconds, so they always fit.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}
