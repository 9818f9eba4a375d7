//! countersign: a signature store, proxy and re-signing engine for container images.
//!
//! Data flows one way. Bytes from strangers are parsed once, at the door, into types that cannot
//! be wrong; the middle is pure and knows no I/O; effects live at the rim:
//!
//! ```text
//! cli  ->  server   resign   doctor
//!             \       |        /
//!          config   lookup (which store, which policy, for which image)
//!                     |
//!   openpgp   sigstore   policy   registries_d   registries_conf   store   registry
//!                     |
//!                 signature
//!                     |
//!                image   json
//! ```
//!
//! Below them all: `metrics` and `telemetry`, which any room may use and which use none but `escape`,
//! what is shown of strings from outside.
//!
//! An arrow may point down, never up or sideways within a row (the first row may use `lookup`).
//! `tests/it/architecture.rs` reads the `use crate::` lines and fails on a forbidden door.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod doctor;
pub mod escape;
pub mod go;
pub mod host;
pub mod image;
pub mod json;
pub mod lookup;
pub mod metrics;
pub mod openpgp;
pub mod policy;
pub mod registries_conf;
pub mod registries_d;
pub mod registry;
pub mod resign;
pub mod server;
pub mod signature;
pub mod sigstore;
pub mod store;
pub mod telemetry;
pub mod timestamp;
pub mod trust;
