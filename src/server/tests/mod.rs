//! The server as clients see it, over loopback, with a store and an upstream that fail on command.

mod express;
mod extension;
mod listener;
mod lookaside;
mod permit;
mod proxy;
mod release_questions;
mod room;
mod sites;
mod write;
