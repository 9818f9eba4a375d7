//! The server against nginx, in one run, under one load driver (`wrk`).
//!
//! `make bench`, or `cargo bench --bench serve -- [all|lookaside|extension|proxy|idle|s3]…`.
//! Prints ratios and whether each bar is met; asserts nothing about time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench")]
#![allow(missing_docs, reason = "a bench")]

mod extension;
mod idle;
mod load;
mod lookaside;
mod peers;
mod proxy;
mod s3;
#[allow(dead_code, reason = "a bench needs only some of what tests share")]
#[path = "../../tests/support/mod.rs"]
mod support;
mod tree;

use std::path::Path;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wants = |section: &str| wanted.is_empty() || wanted.iter().any(|one| one == "all" || one == section);
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    std::fs::create_dir_all(&target).unwrap();
    let work = tempfile::Builder::new().prefix("countersign-bench").tempdir_in(&target).unwrap();
    // nginx' workers drop their rights when it is started by root, and still have to read.
    std::fs::set_permissions(work.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("countersign and nginx side by side, {cores} cores shared with the load driver");
    if wants("lookaside") {
        lookaside::run(work.path());
    }
    if wants("extension") {
        extension::run(work.path());
    }
    if wants("s3") {
        s3::run(work.path());
    }
    if wants("proxy") {
        proxy::run(work.path());
    }
    if wants("idle") {
        idle::run(work.path());
    }
}
