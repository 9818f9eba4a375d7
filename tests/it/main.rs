//! The integration tests: one binary, a file a capability.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must fail"
)]

#[path = "../support/mod.rs"]
mod support;

mod architecture;
mod doctor;
mod lookaside;
mod openpgp;
mod proxy;
mod registry;
mod resign;
mod store;
