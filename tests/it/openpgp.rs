//! OpenPGP against the real gpg: what it makes we judge, what we make it judges
//! (spec containers-image 4.3, 4.4).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

#[path = "../support/gpg.rs"]
pub mod gpg;

#[path = "openpgp/craft.rs"]
pub mod craft;

#[path = "openpgp/accepted.rs"]
mod accepted;
#[path = "openpgp/forgery.rs"]
mod forgery;
#[path = "openpgp/key_files.rs"]
mod key_files;
#[path = "openpgp/keys.rs"]
mod keys;
#[path = "openpgp/refused.rs"]
mod refused;
#[path = "openpgp/signing.rs"]
mod signing;

use std::time::SystemTime;

use countersign::openpgp::{Keyring, Verified, VerifyError, VerifyOptions, verify};

/// A claim as it is in the wild, with characters that text modes might touch.
const CLAIM: &[u8] = br#"{"critical":{"identity":{"docker-reference":"us.icr.io/birds/bluebird:build1"},"image":{"docker-manifest-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"type":"atomic container signature"},"optional":{"creator":"countersign 0.1.0","timestamp":1767225600}}"#;

fn now() -> VerifyOptions {
    VerifyOptions::at(SystemTime::now())
}

fn check(message: &[u8], public: &[u8]) -> Result<Verified, VerifyError> {
    verify(message, &Keyring::parse([public]), &now())
}
