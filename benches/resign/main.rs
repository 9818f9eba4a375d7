//! How fast bulk re-signing is, against the bounds of this machine and the tools of today.
//!
//! ```text
//! cargo bench --bench resign -- [all|local|memory|s3|peers]... [COUNT]
//! ```
//!
//! `COUNT` is the size of the local job (100,000), and of the larger memory job where that is asked
//! for alone (1,000,000). Nothing here fails for being slow: each bar is printed with what was
//! measured. A quiet machine gives true numbers; on a busy one look at the CPU lines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench")]
#![allow(missing_docs, reason = "a bench")]

mod cpu;
mod job;
mod local;
mod memory;
#[path = "../../tests/support/moto.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod moto;
mod peers;
mod relay;
mod s3;
mod s3_server;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a section works. All is removed at the end and nothing before: ext4 does not give out the
/// places of what was just deleted, and looks for others at length.
pub struct Bench {
    work: tempfile::TempDir,
    cores: usize,
    count: Option<usize>,
}

impl Bench {
    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }
}

fn main() {
    // Errors that nobody looks at must not cost a walk of the stack, neither here nor in the job.
    if std::env::var_os("RUST_LIB_BACKTRACE").is_none_or(|set| set != "0") {
        let mut again = Command::new(std::env::current_exe().unwrap());
        let status = again.args(std::env::args_os().skip(1)).env("RUST_LIB_BACKTRACE", "0").status().unwrap();
        std::process::exit(status.code().unwrap_or(1));
    }
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let count = args.iter().find_map(|arg| arg.parse().ok());
    let named: Vec<&str> = args.iter().filter(|arg| arg.parse::<usize>().is_err()).map(String::as_str).collect();
    let wants = |section: &str| named.is_empty() || named.contains(&"all") || named.contains(&section);
    for name in &named {
        assert!(["all", "local", "memory", "s3", "peers"].contains(name), "no section {name}");
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    std::fs::create_dir_all(&target).unwrap();
    let work = tempfile::Builder::new().prefix("countersign-bench").tempdir_in(target).unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    let bench = Bench { work, cores, count };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{cores} cores, load {}, folder {}", load.trim(), bench.work.path().display());
    if wants("local") {
        local::run(&bench);
    }
    if wants("peers") {
        peers::run(&bench);
    }
    if wants("memory") {
        memory::run(&bench, named == ["memory"]);
    }
    if wants("s3") {
        s3::run(&bench);
    }
}

/// One line of the table.
pub fn row(what: &str, value: f64, unit: &str) {
    let digits = if value.abs() < 100.0 { 1 } else { 0 };
    println!("  {what:<52} {value:>10.digits$} {unit}");
}

/// One line with a bar to be reached.
pub fn bar(what: &str, value: f64, unit: &str, wanted: &str, met: bool) {
    let verdict = if met { "met" } else { "NOT met" };
    let digits = if value.abs() < 10.0 { 2 } else { 0 };
    println!("  {what:<52} {value:>10.digits$} {unit:<4} bar {wanted}: {verdict}");
}
