//! From an image name to its stores and its policy: where signatures are, what they are, and the
//! cryptography that a policy asks for. Joins the rooms below for those above.

mod mechanism;
mod signatures;
mod trust_root;
mod unverified;
mod vouch;

pub use mechanism::OpenPgp;
pub use signatures::{Found, LookupError, Place, Signatures};
pub use unverified::{Unreadable, Unverified};
pub use vouch::{NotVouched, Vouched, name_of, vouched};
