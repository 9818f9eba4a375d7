//! Sigstore signatures: the cryptography and formats behind policy.json's `sigstoreSigned`.
//!
//! [`SigstoreAttachment`](crate::signature::SigstoreAttachment) is the stored form, [`TrustRoot`] what a policy trusts (keys, a Fulcio CA, or an own
//! PKI, with or without a Rekor log), and [`Verifier`] decides as containers/image does: which
//! key may sign, whether the log vouches for it, whether the signature is good, and only then
//! what the payload claims. Whether that claim fits an image (digest and identity) is asked
//! elsewhere (spec containers-image 5.2, 5.5, 5.6, 6).
//!
//! Where containers/image or Go accept something that the crates used here do not (RSA keys under
//! 2048 bits, P-224, version 1 certificates, a leaf that is its own root), the answer is a refusal
//! that names the reason, never an acceptance.

mod certificate;
mod fulcio;
mod hostname;
mod key;
mod name_constraints;
mod path;
mod pem;
mod pki;
mod rekor;
mod verify;

pub use certificate::CertificateError;
pub use fulcio::{FulcioError, FulcioRoot};
pub use key::{KeyError, check_public_keys};
pub use pem::labels as pem_labels;
pub use pki::{PkiError, PkiRoot};
pub use rekor::RekorError;
pub use verify::{SigstoreClaim, SigstoreError, TrustRoot, TrustRootError, TrustedSigner, Verifier, verify};
