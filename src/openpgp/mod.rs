//! OpenPGP: who signed these bytes, and signing bytes ourselves. The only room that names Sequoia.
//!
//! ```text
//! blob -> message (one signature, one literal, nothing else) -> signature packet
//!                                                                  |
//! keyring files -> armor -> import -> keyring (index by key ID) -> standing (may this key sign, now?) -> verify
//! secret key file -> signer -> sign (the whole message)
//! ```
//!
//! What counts as *one signed message* and which signature packets are acceptable is decided by our
//! own code, octet for octet, because the acceptance table (spec containers-image 4.3) is narrower
//! than what any OpenPGP library accepts. So is what an `import` into gpg leaves of a certificate.
//! The arithmetic of certificates - self-signatures, bindings, expiry, revocations - is Sequoia's,
//! and so is most of the `arithmetic` of signatures.
//!
//! Signatures are checked with [`Key::verify`](sequoia_openpgp::packet::Key::verify) and never
//! through `Signature::verify_*`: those remember every good signature in a process-wide map that
//! is never emptied: memory would grow with each signature that is read. Only the self-signatures of keyrings enter that map.

mod arithmetic;
mod armor;
mod client;
mod decompress;
mod fingerprint;
mod import;
mod inspect;
mod key_file;
mod keyring;
mod message;
mod packet;
mod self_signatures;
mod sign;
mod signature_packet;
mod signer;
mod standing;
mod subpacket;
mod verify;

pub use fingerprint::{Fingerprint, FingerprintError, KeyId};
pub use inspect::{InspectError, Untrusted, inspect};
pub use key_file::KEYRING_LIMIT;
pub use keyring::Keyring;
pub use message::{CONTENT_LIMIT, MessageError};
pub use sign::{SignError, Signer};
pub use signer::{AgentError, AgentKey, AgentSigner, GnuPg, LoadedKey, SoftSigner};
pub use standing::KeyFault;
pub use verify::{Verified, VerifyError, VerifyOptions, verify};
