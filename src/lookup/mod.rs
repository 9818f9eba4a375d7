//! From an image name to its stores and its policy: where signatures are, what they are, and the
//! cryptography that a policy asks for. Joins the rooms below for those above.

mod instances;
mod mechanism;
mod platform;
mod policy_review;
mod registries_review;
mod resolution;
mod signatures;
mod trust_root;
mod unverified;
mod vouch;

pub use instances::{ListError, ManifestList, Member};
pub use mechanism::{Fault, OpenPgp};
pub use platform::{Platform, PlatformError};
pub use policy_review::{never_matches, review_policy};
pub use registries_review::review_registries;
pub use resolution::{Asked, Resolution, signature_urls};
pub use signatures::{Found, LookupError, Place, Signatures};
pub use unverified::{Unreadable, Unverified};
pub use vouch::{NotVouched, Vouched, name_of, vouched};
