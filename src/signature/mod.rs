//! What a signature says (the claim) and how it is stored (the blob). Pure; no cryptography.

mod attachment;
mod blob;
mod form;
mod payload;

pub use attachment::{
    AttachmentError, CERTIFICATE_ANNOTATION, CHAIN_ANNOTATION, MIME_TYPE, SET_ANNOTATION, SIGNATURE_ANNOTATION,
    SigstoreAttachment,
};
pub use blob::{BLOB_LIMIT, BlobError, BlobKind, classify, simple_signing};
pub use form::Form;
pub use payload::{Claim, ClaimError};
