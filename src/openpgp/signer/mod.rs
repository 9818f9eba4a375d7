//! The kinds of signers. Each is a [`Signer`](super::Signer); agents and hardware fit behind it too.

mod rsa_der;
mod soft;

pub use soft::SoftSigner;
