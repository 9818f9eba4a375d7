//! The integration tests: one binary, a file a capability.

#[path = "../support/mod.rs"]
mod support;

mod store;
