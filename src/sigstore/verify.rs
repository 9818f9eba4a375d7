//! The one entry: from a stored signature and a trust root to a claim, or the reason why not.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::fulcio::{Fulcio, FulcioError, FulcioRoot};
use super::key::{KeyError, PublicKey};
use super::pki::{Pki, PkiError, PkiRoot};
use super::rekor::{Maker, RekorError, verify_set};
use crate::go;
use crate::signature::{
    CERTIFICATE_ANNOTATION, CHAIN_ANNOTATION, SET_ANNOTATION, SIGNATURE_ANNOTATION, SigstoreAttachment,
};
use crate::signature::{Claim, ClaimError};

/// What a `sigstoreSigned` requirement trusts, with its files already read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustRoot {
    /// Who may sign.
    pub signer: TrustedSigner,
    /// The public keys of the log, in PEM, if the log must vouch for the signature. Required with
    /// [`TrustedSigner::Fulcio`], and not allowed with [`TrustedSigner::Pki`].
    pub rekor_keys: Option<Vec<Vec<u8>>>,
}

/// Who may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustedSigner {
    /// Any of these public keys, each the content of one PEM file (of which the first block counts).
    Keys(Vec<Vec<u8>>),
    /// An identity to which a Fulcio CA gave a certificate.
    Fulcio(FulcioRoot),
    /// An identity in an own PKI.
    Pki(PkiRoot),
}

/// Why a trust root cannot be used: a fault of the policy, not of the signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustRootError {
    /// A signer's key cannot be used; so none is, as containers/image has it, lest a broken
    /// fallback key be noticed on the day it is needed.
    #[error("parsing public key {index}: {error}")]
    Key {
        /// Its position, from 1.
        index: usize,
        /// What is wrong.
        error: KeyError,
    },
    /// There is no signer's key.
    #[error("\"keyPath\", \"keyPaths\", \"keyData\" and \"keyDatas\" produced no public keys")]
    NoKeys,
    /// A log's key cannot be used.
    #[error("parsing Rekor public key {index}: {error}")]
    RekorKey {
        /// Its position, from 1.
        index: usize,
        /// What is wrong.
        error: KeyError,
    },
    /// A log's key is of another kind.
    #[error("Rekor public key {0} is not using ECDSA")]
    RekorNotEcdsa(usize),
    /// There is no log's key.
    #[error(
        "\"rekorPublicKeyPath\", \"rekorPublicKeyPaths\", \"rekorPublicKeyData\" and \"rekorPublicKeyDatas\" produced no public keys"
    )]
    NoRekorKeys,
    /// A certificate that lived for minutes proves nothing without the log's time.
    #[error("Fulcio CA specified without a Rekor public key")]
    FulcioWithoutRekor,
    /// containers/image does not combine these.
    #[error("PKI specified with a Rekor public key")]
    PkiWithRekor,
    /// The Fulcio trust root cannot be used.
    #[error(transparent)]
    Fulcio(FulcioError),
    /// The PKI trust root cannot be used.
    #[error(transparent)]
    Pki(PkiError),
}

/// Why a signature is not accepted. The sentences are containers/image's own where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigstoreError {
    /// The trust root cannot be used.
    #[error(transparent)]
    TrustRoot(#[from] TrustRootError),
    /// The attachment is of another type.
    #[error("sigstore attachment of type {} is no image signature", go::quote(.0))]
    MimeType(String),
    /// An annotation that must be there is not.
    #[error("missing {0} annotation")]
    Missing(&'static str),
    /// The log does not vouch for the signature by any trusted key.
    #[error("No public key verified against the RekorSET: {}", join(.0))]
    NotLogged(Vec<RekorError>),
    /// The log does not vouch for the signature by this certificate.
    #[error(transparent)]
    Rekor(#[from] RekorError),
    /// The Fulcio certificate is not trusted.
    #[error(transparent)]
    Fulcio(FulcioError),
    /// The PKI certificate is not trusted.
    #[error(transparent)]
    Pki(PkiError),
    /// The signature is no base64, from this byte on.
    #[error("base64 decoding: illegal base64 data at input byte {0}")]
    Base64(usize),
    /// No trusted key made the signature.
    #[error("cryptographic signature verification failed: {}", .0.join(", "))]
    Unverified(Vec<&'static str>),
    /// The signature is good, but what it signs is no claim.
    #[error(transparent)]
    Payload(#[from] ClaimError),
}

fn join(errors: &[RekorError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a verified signature says. Only [`Verifier`] makes one.
///
/// Whether the claim's digest is that of the image and its reference names it is still to be
/// asked, in this order (spec containers-image 5.6).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SigstoreClaim {
    /// What the payload says.
    pub claim: Claim,
    /// The key that made the signature: the SHA-256 of its SubjectPublicKeyInfo in hex.
    pub key_fingerprint: String,
    /// When the log took the signature, Unix seconds, if the trust root has a log.
    pub logged_at: Option<i64>,
}

/// A [`TrustRoot`] whose keys and certificates have been read and found usable.
#[derive(Clone, Debug)]
pub struct Verifier {
    signer: Signer,
}

/// One variant for each combination that means something.
#[derive(Clone, Debug)]
enum Signer {
    Keys(Vec<PublicKey>),
    LoggedKeys { keys: Vec<PublicKey>, rekor: Vec<PublicKey> },
    Fulcio { fulcio: Fulcio, rekor: Vec<PublicKey> },
    Pki(Pki),
}

impl Verifier {
    /// Reads a trust root.
    ///
    /// # Errors
    /// [`TrustRootError`] when any part of it cannot be used, even if other parts could.
    pub fn new(root: &TrustRoot) -> Result<Self, TrustRootError> {
        let signer = match (&root.signer, &root.rekor_keys) {
            (TrustedSigner::Keys(keys), rekor) => {
                let keys = read_keys(keys)?;
                match rekor {
                    Some(rekor) => Signer::LoggedKeys { keys, rekor: read_rekor_keys(rekor)? },
                    None => Signer::Keys(keys),
                }
            }
            (TrustedSigner::Fulcio(trusted), Some(rekor)) => Signer::Fulcio {
                fulcio: Fulcio::new(trusted).map_err(TrustRootError::Fulcio)?,
                rekor: read_rekor_keys(rekor)?,
            },
            (TrustedSigner::Fulcio(_), None) => return Err(TrustRootError::FulcioWithoutRekor),
            (TrustedSigner::Pki(_), Some(_)) => return Err(TrustRootError::PkiWithRekor),
            (TrustedSigner::Pki(trusted), None) => Signer::Pki(Pki::new(trusted).map_err(TrustRootError::Pki)?),
        };
        Ok(Self { signer })
    }

    /// Verifies a stored signature. `now` counts for [`TrustedSigner::Pki`] only: keys do not
    /// expire, and a Fulcio certificate is judged at the log's time.
    ///
    /// Nothing of the payload is parsed before its signature is good.
    ///
    /// # Errors
    /// [`SigstoreError`], the first reason in the order in which containers/image looks.
    pub fn verify(&self, attachment: &SigstoreAttachment, now: SystemTime) -> Result<SigstoreClaim, SigstoreError> {
        if !attachment.is_signature() {
            return Err(SigstoreError::MimeType(attachment.mime_type.clone()));
        }
        self.verify_parts(&attachment.payload, &attachment.annotations, now)
    }

    /// As [`Verifier::verify`], for a caller that has taken the stored form apart and has seen
    /// that its type is [`MIME_TYPE`](crate::signature::MIME_TYPE).
    ///
    /// # Errors
    /// [`SigstoreError`].
    pub fn verify_parts(
        &self,
        payload: &[u8],
        annotations: &BTreeMap<String, String>,
        now: SystemTime,
    ) -> Result<SigstoreClaim, SigstoreError> {
        let annotation = |name| annotations.get(name).map(String::as_str);
        let required = |name| annotation(name).ok_or(SigstoreError::Missing(name));
        let signature = required(SIGNATURE_ANNOTATION)?;
        let chain = || annotation(CHAIN_ANNOTATION);

        let leaf;
        let mut logged_at = None;
        let candidates: &[PublicKey] = match &self.signer {
            Signer::Keys(keys) => keys,
            Signer::LoggedKeys { keys, rekor } => {
                let (key, at) = logged_key(keys, rekor, required(SET_ANNOTATION)?, signature, payload)?;
                logged_at = Some(at);
                std::slice::from_ref(key)
            }
            Signer::Fulcio { fulcio, rekor } => {
                let set = required(SET_ANNOTATION)?;
                let certificate = required(CERTIFICATE_ANNOTATION)?;
                let at = verify_set(rekor, set, Maker::CertificatePem(certificate), signature, payload)?;
                leaf = fulcio.verify(at, certificate, chain()).map_err(SigstoreError::Fulcio)?;
                logged_at = Some(at);
                std::slice::from_ref(&leaf)
            }
            Signer::Pki(pki) => {
                leaf = pki.verify(required(CERTIFICATE_ANNOTATION)?, chain(), now).map_err(SigstoreError::Pki)?;
                std::slice::from_ref(&leaf)
            }
        };

        let signature = go::base64(signature.as_bytes()).map_err(SigstoreError::Base64)?;
        let key_fingerprint = signing_key(candidates, payload, &signature)?.fingerprint();
        Ok(SigstoreClaim { claim: Claim::parse_sigstore(payload)?, key_fingerprint, logged_at })
    }
}

/// Verifies one stored signature under `root`; [`Verifier`] does the same for many.
///
/// # Errors
/// [`SigstoreError`].
pub fn verify(blob: &SigstoreAttachment, root: &TrustRoot, now: SystemTime) -> Result<SigstoreClaim, SigstoreError> {
    Verifier::new(root)?.verify(blob, now)
}

fn read_keys(pems: &[Vec<u8>]) -> Result<Vec<PublicKey>, TrustRootError> {
    let read = |(at, pem): (usize, &Vec<u8>)| {
        PublicKey::from_pem(pem).map_err(|error| TrustRootError::Key { index: at + 1, error })
    };
    let keys: Vec<_> = pems.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(TrustRootError::NoKeys) } else { Ok(keys) }
}

fn read_rekor_keys(pems: &[Vec<u8>]) -> Result<Vec<PublicKey>, TrustRootError> {
    let read = |(at, pem): (usize, &Vec<u8>)| {
        let key = PublicKey::from_pem(pem).map_err(|error| TrustRootError::RekorKey { index: at + 1, error })?;
        if key.is_ecdsa() { Ok(key) } else { Err(TrustRootError::RekorNotEcdsa(at + 1)) }
    };
    let keys: Vec<_> = pems.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    if keys.is_empty() { Err(TrustRootError::NoRekorKeys) } else { Ok(keys) }
}

/// Finds the key that the log names; a log entry can name one only.
fn logged_key<'a>(
    keys: &'a [PublicKey],
    rekor: &[PublicKey],
    set: &str,
    signature: &str,
    payload: &[u8],
) -> Result<(&'a PublicKey, i64), SigstoreError> {
    let mut refusals = Vec::new();
    for key in keys {
        match verify_set(rekor, set, Maker::Key(key), signature, payload) {
            Ok(at) => return Ok((key, at)),
            Err(refusal) => refusals.push(refusal),
        }
    }
    Err(SigstoreError::NotLogged(refusals))
}

fn signing_key<'a>(keys: &'a [PublicKey], payload: &[u8], signature: &[u8]) -> Result<&'a PublicKey, SigstoreError> {
    let mut refusals = Vec::new();
    for key in keys {
        match key.verify(payload, signature) {
            Ok(()) => return Ok(key),
            Err(refusal) => refusals.push(refusal),
        }
    }
    Err(SigstoreError::Unverified(refusals))
}
