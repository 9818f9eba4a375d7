//! The `countersign` program: parse, run, exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

/// What one thread allocates another frees, a million times over: glibc's arenas grow by that,
/// jemalloc's do not (docs/performance.md). Its settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    countersign::cli::run()
}
