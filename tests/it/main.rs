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

mod admin;
mod agent;
mod architecture;
mod attachments;
mod cli;
mod corpus;
mod deploy;
mod differential;
mod doctor;
mod gate;
mod lookaside;
mod names;
mod openpgp;
mod proxy;
mod registry;
mod resign;
mod resign_faults;
mod sigstore;
mod store;
mod store_cli;
