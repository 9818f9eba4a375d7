//! What an image is called and what it is: references, digests, manifests. Pure; no I/O.

mod digest;
mod manifest;
mod reference;
mod scope;

pub use digest::{Algorithm, Digest, DigestError};
pub use manifest::{Instance, MANIFEST_LIMIT, ManifestError, ManifestKind, inspect_list, kind, manifest_digest};
pub use reference::{ImageReference, Reference, ReferenceError, Repository, Tag, is_name_prefix};
pub use scope::{is_within, namespaces, scopes};
