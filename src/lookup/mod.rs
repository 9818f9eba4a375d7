//! From an image name to its stores and its policy: where signatures are, what they are, and the
//! cryptography that a policy asks for. Joins the rooms below for those above.

mod mechanism;
mod signatures;

pub use mechanism::{Fault, OpenPgp};
pub use signatures::{Found, LookupError, Place, Signatures};
