//! What a signature says (the claim) and how it is stored (the blob). Pure; no cryptography.

mod blob;
mod payload;

pub use blob::{BLOB_LIMIT, BlobError, BlobKind, classify, simple_signing};
pub use payload::{Claim, ClaimError};
