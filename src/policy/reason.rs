//! Why an image or a signature is rejected, in the sentences of containers/image
//! (spec containers-image 4.2, 5.6).

use super::mechanism::MechanismError;
use super::requirement::KeyType;
use crate::go::quote;
use crate::image::Digest;
use crate::signature::ClaimError;

/// Why an image or a signature is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A `reject` requirement.
    #[error("Running image {image} is rejected by policy.")]
    Rejected {
        /// The image's name for messages.
        image: String,
    },
    /// A `reject` requirement, asked about a signature's author.
    #[error("Any signatures for image {image} are rejected by policy.")]
    SignaturesRejected {
        /// The image's name for messages.
        image: String,
    },
    /// A `signedBaseLayer` requirement.
    #[error("signedBaseLayer not implemented yet!")]
    SignedBaseLayer,
    /// A `signedBy` requirement with keys of a kind that nobody implemented.
    #[error("Unimplemented \"keyType\" value {}", quote(.0.name()))]
    KeyType(KeyType),
    /// There is no signature of the kind that is asked for.
    #[error("A signature was required, but no signature exists")]
    NoSignature,
    /// There is no sigstore signature, but there is something else.
    #[error(
        "A signature was required, but no signature exists ({others} non-sigstore signatures, {attachments} sigstore non-signature attachments)"
    )]
    NoSigstoreSignature {
        /// Simple signatures.
        others: usize,
        /// Sigstore attachments that are no signatures.
        attachments: usize,
    },
    /// Several signatures, none accepted.
    #[error("None of the signatures were accepted, reasons: {}", joined(.0))]
    Several(Vec<Reason>),
    /// The cryptography says no.
    #[error(transparent)]
    Mechanism(#[from] MechanismError),
    /// What is signed is no claim.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The manifest is malformed in a way that leaves it without a digest.
    #[error("computing manifest digest: {0}")]
    Manifest(String),
    /// The manifest is not the one that the reference's digest names.
    #[error("Manifest does not match provided manifest digest {0}")]
    ProvidedDigest(Digest),
    /// The claim is about another manifest.
    #[error("Signature for digest {0} does not match")]
    Digest(Digest),
    /// The claim is about another name.
    #[error("Signature for identity {} is not accepted", quote(.0))]
    Identity(String),
    /// The signatures could not be fetched.
    #[error("{0}")]
    Fetch(String),
    /// A stored signature is none, which makes all of the image's unreadable.
    #[error("parsing signature {origin}: {reason}")]
    Unreadable {
        /// Its URL, or its path in quotes.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Signatures are required by the caller (`--require-signed`), and the policy asks for none.
    #[error("No signature verification policy found for image {image}")]
    NoVerification {
        /// Transport and identity: `docker:docker.io/library/busybox:latest`.
        image: String,
    },
    /// The policy's list is empty; no parsed policy has such.
    #[error("List of verification policy requirements must not be empty")]
    NoRequirements,
    /// A `sigstoreSigned` requirement, asked about a signature's author.
    #[error("isSignatureAuthorAccepted is not implemented for sigstore")]
    SigstoreAuthor,
    /// No requirement looks at this signature; a verdict about a signature only, never about an
    /// image.
    #[error("not examined: the policy verifies no signatures of this kind for the image")]
    NotExamined,
}

fn joined(reasons: &[Reason]) -> String {
    reasons.iter().map(Reason::to_string).collect::<Vec<_>>().join("; ")
}
