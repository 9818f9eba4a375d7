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
mod authority;
mod citations;
mod cli;
mod clock;
mod corpus;
mod deploy;
mod differential;
mod doctor;
mod fairness;
mod forged_lines;
mod gate;
mod half_written;
mod hostile;
mod hostile_bodies;
mod hsm;
mod http_proxy;
mod lookaside;
mod lookaside_write;
mod names;
mod openpgp;
mod printing;
mod process;
mod proxy;
mod registry;
mod resign;
mod resign_ends;
mod resign_faults;
mod resign_flags;
mod resign_report;
mod secrets;
mod server_kill;
mod server_store;
mod sigstore;
mod sites;
mod store;
mod store_cli;
mod tls;
mod trust_faults;
mod trust_fetch;
mod trust_stamp;
mod upstream_faults;
