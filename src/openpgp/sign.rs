//! Signing: the whole OpenPGP message around a claim, in the one form that every client accepts
//! (spec containers-image 4.3): one-pass packet, literal, version 4 signature, uncompressed.

use std::time::SystemTime;

use sequoia_openpgp::crypto::mpi;
use sequoia_openpgp::types::HashAlgorithm;

use super::fingerprint::{Fingerprint, KeyId};
use super::message::CONTENT_LIMIT;
use super::packet::{frame, tag};
use super::signature_packet::{BINARY, hash, hashed_tail_4};
use super::signer::AgentError;
use super::standing::KeyFault;
use super::subpacket::kind;
use super::verify::VerifyError;

/// Something that signs claims: a key file, an agent, a hardware module.
pub trait Signer: Send + Sync {
    /// The identity under which the signatures will be known: the fingerprint of the primary key.
    fn fingerprint(&self) -> &Fingerprint;

    /// Signs `payload` and returns the whole OpenPGP message, ready to be stored.
    ///
    /// # Errors
    /// [`SignError`], also if the key is not valid at the time `created`.
    fn sign(&self, payload: &[u8], created: SystemTime) -> Result<Vec<u8>, SignError>;
}

/// Why a key cannot be used, or did not sign. Never says anything of a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The file has no secret key.
    #[error("the key file has no secret key{}; export one with `gpg --export-secret-keys`", if *.public { ", only a public one" } else { "" })]
    NoSecretKey {
        /// It has at least a public key.
        public: bool,
    },
    /// The file has secret keys of several owners.
    #[error("the key file has several secret keys ({}); put the one to sign with into a file of its own", .0.iter().map(Fingerprint::as_str).collect::<Vec<_>>().join(", "))]
    SeveralKeys(Vec<Fingerprint>),
    /// The secret part is protected, and no passphrase was given.
    #[error("secret key {key} is protected: give its passphrase, for example with --passphrase-file")]
    PassphraseNeeded {
        /// The protected key.
        key: Fingerprint,
    },
    /// The passphrase does not open the secret part.
    #[error(
        "the passphrase does not open secret key {key} (a passphrase file must hold nothing else on its first line)"
    )]
    PassphraseWrong {
        /// The protected key.
        key: Fingerprint,
    },
    /// The key may not sign: revoked, expired, weak, or meant for something else.
    #[error("cannot sign with it: {0}")]
    Key(#[from] KeyFault),
    /// All secret parts are kept elsewhere (an offline primary key, a smart card).
    #[error("the key file has no secret part of any signing key of {primary}: it is kept elsewhere, maybe on a card")]
    SecretElsewhere {
        /// The primary key.
        primary: Fingerprint,
    },
    /// The secret part is not the one of the public part, or its algorithm cannot sign here.
    #[error("secret key {key} cannot be used: {reason}")]
    Unusable {
        /// The key.
        key: Fingerprint,
        /// Why.
        reason: String,
    },
    /// The first signature of the key could not be verified, so there will be no second.
    #[error("the key was tried and its signature does not verify ({0}); it will not be used")]
    SelfTest(VerifyError),
    /// gpg-agent, which has the key, did not sign.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Nobody would read it.
    #[error("the payload has more than {CONTENT_LIMIT} bytes")]
    PayloadTooLarge,
    /// The time is before the key's creation, or no OpenPGP time at all.
    #[error("cannot sign with this time: {0}")]
    Time(&'static str),
}

/// What a signature packet says about its key.
#[derive(Clone, Debug)]
pub(super) struct Imprint {
    pub key: Fingerprint,
    pub key_algorithm: u8,
    pub hash: HashAlgorithm,
}

/// Builds the message; `sign` turns a digest into the numbers of the signature.
pub(super) fn message(
    imprint: &Imprint,
    payload: &[u8],
    created: u32,
    sign: impl FnOnce(&[u8]) -> Result<mpi::Signature, SignError>,
) -> Result<Vec<u8>, SignError> {
    if payload.len() > CONTENT_LIMIT {
        return Err(SignError::PayloadTooLarge);
    }
    let unusable = |reason: &str| SignError::Unusable { key: imprint.key.clone(), reason: reason.to_owned() };
    let hash_id = u8::from(imprint.hash);
    let KeyId(key_id) = imprint.key.key_id();
    let fingerprint = hex::decode(imprint.key.as_str()).map_err(|_| unusable("its fingerprint is malformed"))?;

    // As gpg lays it out: the fingerprint and the time are signed, the key ID is not.
    let mut head = vec![4, BINARY, imprint.key_algorithm, hash_id];
    let hashed = [&[22, kind::ISSUER_FINGERPRINT, 4][..], &fingerprint, &[5, kind::CREATED], &created.to_be_bytes()];
    let hashed = hashed.concat();
    head.extend(u16::try_from(hashed.len()).unwrap_or_default().to_be_bytes());
    head.extend(hashed);
    let digest =
        hash(imprint.hash, &[payload, &hashed_tail_4(&head)]).map_err(|_| unusable("its hash is not supported"))?;
    let value = sign(&digest)?;

    let mut signature = head;
    signature.extend([0, 10, 9, kind::ISSUER]);
    signature.extend(key_id);
    signature.extend(digest.get(..2).unwrap_or_default());
    write_value(&value, &mut signature).ok_or_else(|| unusable("its algorithm is not supported"))?;

    let one_pass = [&[3, BINARY, hash_id, imprint.key_algorithm][..], &key_id, &[1]].concat();
    // Binary, no file name, no date: nothing that is not signed.
    let literal = [&[b'b', 0, 0, 0, 0, 0], payload].concat();
    Ok([frame(tag::ONE_PASS, &one_pass), frame(tag::LITERAL, &literal), frame(tag::SIGNATURE, &signature)].concat())
}

fn write_value(value: &mpi::Signature, out: &mut Vec<u8>) -> Option<()> {
    let numbers: &[&mpi::MPI] = match value {
        mpi::Signature::RSA { s } => &[s],
        mpi::Signature::DSA { r, s } | mpi::Signature::ECDSA { r, s } | mpi::Signature::EdDSA { r, s } => &[r, s],
        _ => return None,
    };
    for number in numbers {
        out.extend(u16::try_from(number.bits()).ok()?.to_be_bytes());
        out.extend_from_slice(number.value());
    }
    Some(())
}
