//! The command line: one file a subcommand. Alone prints, and alone uses anyhow.
//!
//! Exit 0: done or accepted. 1: the answer is no (rejected, not found, some items failed).
//! 2: could not ask (usage, configuration, network, key).

mod arguments;
mod check;
mod doctor;
mod host;
mod inspect;
mod keys;
pub mod output;
mod policy;
mod process;
mod progress;
mod registries_d;
mod requirement;
mod resign;
mod resolve;
mod serve;
mod sign;
mod sources;
mod store;
mod stream;
mod subject;
mod systemd;
mod trust;
mod verdict;
mod verify;

#[cfg(test)]
mod docs_tests;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::{self, LogForm};
use output::{Answer, Format};

/// Name and version, as claims and requests carry them.
pub const CREATOR: &str = concat!("countersign ", env!("CARGO_PKG_VERSION"));

/// A signature store, proxy and re-signing engine for container images.
#[derive(Debug, Parser)]
#[command(name = "countersign", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// Form of results on stdout (and of log lines on stderr)
    #[arg(long, global = true, value_enum, default_value_t, help_heading = GLOBAL)]
    format: Format,
    /// What to log: a level (error, warn, info, debug, trace) or a filter
    #[arg(long, global = true, env = "COUNTERSIGN_LOG", value_name = "LEVEL", help_heading = GLOBAL)]
    log: Option<String>,
    /// Form of log lines on stderr [default: as --format]
    #[arg(long, global = true, value_enum, env = "COUNTERSIGN_LOG_FORMAT", value_name = "FORM", help_heading = GLOBAL)]
    log_format: Option<LogForm>,
    /// Configuration file of the server (YAML)
    #[arg(long, global = true, env = "COUNTERSIGN_CONFIG", value_name = "FILE", help_heading = GLOBAL)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const GLOBAL: &str = "Options of every command";

const EXAMPLES: &str = "\
Examples:
  countersign serve --upstream https://registry.example
  countersign sign us.icr.io/birds/bluebird:build1 --key signer.asc --manifest manifest.json -o signature-1
  countersign verify us.icr.io/birds/bluebird:build1 --policy policy.json
  countersign doctor us.icr.io/birds/bluebird:build1
  countersign trust fetch --from https://notary.docker.io --to ./trust you/app
  countersign resign --from old-tree --to s3://signatures --rename ibm --policy old-policy.json --key new.asc

All requests go through the proxies that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name, as podman's do.

Exit codes: 0 done or accepted; 1 the answer is no; 2 could not ask.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve signatures, and proxy a registry
    Serve(serve::Serve),
    /// Make one signature
    Sign(sign::Sign),
    /// Decide about an image as podman and skopeo would
    Verify(verify::Verify),
    /// Show what a signature says, unverified, or all signatures of an image
    Inspect(inspect::Inspect),
    /// Show where the signatures of an image are looked for, and which policy speaks of it
    Resolve(resolve::Resolve),
    /// Check policy.json files
    Policy(policy::PolicyCommand),
    /// Check registries.d files
    RegistriesD(registries_d::RegistriesDCommand),
    /// Walk what a client would do for an image on this host, and name the fix
    Doctor(doctor::Doctor),
    /// Verify signatures of an old name and sign anew for the new one, in bulk
    Resign(resign::ResignCommand),
    /// Look after a tree of signatures: ls, check, repair, rm
    Store(store::StoreCommand),
    /// Save what a trust server (Docker Content Trust, Notary v1) has
    Trust(trust::TrustCommand),
}

/// Reads the command line, runs the command, and returns the exit code of the process.
pub fn run() -> ExitCode {
    output::tell_panics();
    arguments::parse().map_or_else(|code| code, Cli::main)
}

impl Cli {
    fn main(self) -> ExitCode {
        let level = self.log.clone().unwrap_or_else(|| self.command.default_log().to_owned());
        let form = if self.format == Format::Json { LogForm::Json } else { LogForm::Text };
        let form = self.log_format.unwrap_or(form);
        if let Err(sentence) = telemetry::start(&level, form) {
            output::talk(&format!("countersign: {sentence}"));
            return ExitCode::from(2);
        }
        process::no_core_dumps();
        let answer = self.run();
        telemetry::finish();
        match answer {
            Ok(Answer::Yes) => ExitCode::SUCCESS,
            Ok(Answer::No) => ExitCode::from(1),
            Err(e) => {
                output::talk(&format!("countersign: {}", output::sentence(&e)));
                ExitCode::from(2)
            }
        }
    }

    fn run(self) -> anyhow::Result<Answer> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            match self.command {
                Command::Serve(command) => command.run(self.format, self.config.as_deref()).await,
                Command::Sign(command) => command.run(self.format).await,
                Command::Verify(command) => command.run(self.format).await,
                Command::Inspect(command) => command.run(self.format).await,
                Command::Resolve(command) => command.run(self.format).await,
                Command::Policy(command) => command.run(self.format),
                Command::RegistriesD(command) => command.run(self.format),
                Command::Doctor(command) => command.run(self.format).await,
                Command::Resign(command) => command.run(self.format).await,
                Command::Store(command) => command.run(self.format).await,
                Command::Trust(command) => command.run(self.format).await,
            }
        });
        // A blocking read that nobody waits for any more must not hold the exit.
        runtime.shutdown_timeout(std::time::Duration::from_millis(200));
        answer
    }
}

impl Command {
    /// A server says what it does; a command only what went wrong.
    fn default_log(&self) -> &'static str {
        if matches!(self, Self::Serve(_)) { "info" } else { "warn" }
    }
}

/// Reads a file that the user named, `-` being stdin; bounded as manifests and signatures are.
fn read_input(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    use anyhow::Context as _;
    use std::io::Read as _;
    let limit = crate::signature::BLOB_LIMIT as u64;
    let mut bytes = Vec::new();
    let read = if path == std::path::Path::new("-") {
        std::io::stdin().lock().take(limit + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(bytes.len() as u64 <= limit, "{} is larger than {limit} bytes", path.display());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
