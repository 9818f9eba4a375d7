//! The server as clients see it, over loopback, with a store and an upstream that fail on command.

mod authority;
mod express;
mod extension;
mod fast_path_fuzz;
mod listener;
mod lookaside;
mod permit;
mod proxy;
mod redirects;
mod registries;
mod release_questions;
mod store_scope;
mod write;
