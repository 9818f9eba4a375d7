//! The `countersign` program: parse, run, exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    countersign::cli::Cli::parse().main()
}
