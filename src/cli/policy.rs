//! `countersign policy check`: is this a policy.json, and what does it do?

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::check::{self, Checked};
use super::output::{Answer, Format};
use super::requirement;
use crate::escape;
use crate::go;
use crate::lookup::review_policy;
use crate::policy::{LoadError, Policy, Requirement};

/// Work on policy.json files
#[derive(Debug, Args)]
pub struct PolicyCommand {
    #[command(subcommand)]
    command: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    Check(Check),
}

/// Read policy files as strictly as containers/image, and say what deserves a second look
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Check {
    /// policy.json files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  countersign policy check /etc/containers/policy.json
  countersign policy check policy/*.json --format json

Exit codes: 0 all valid; 1 one is invalid; 2 one cannot be read.";

impl PolicyCommand {
    pub fn run(self, format: Format) -> anyhow::Result<Answer> {
        let Work::Check(Check { files }) = self.command;
        check::report(format, &files.iter().map(|path| checked(path)).collect::<Vec<_>>())
    }
}

fn checked(path: &Path) -> Checked {
    let file = path.display().to_string();
    match Policy::load(path) {
        Ok(policy) => Checked::right(file, review_policy(&policy), table(&policy)),
        Err(error) => Checked::wrong(file, error.to_string(), matches!(error, LoadError::Io { .. })),
    }
}

/// One line a requirement, the scope before the first of each list.
fn table(policy: &Policy) -> Vec<String> {
    let mut rows: Vec<(String, &[Requirement])> = vec![("default".to_owned(), &policy.default)];
    for (transport, scopes) in &policy.transports {
        for (scope, requirements) in scopes {
            rows.push((format!("{} {}", escape::word(transport), go::quote(scope)), requirements));
        }
    }
    let width = rows.iter().map(|(scope, _)| scope.chars().count()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for (scope, requirements) in rows {
        for (number, requirement) in requirements.iter().enumerate() {
            let scope = if number == 0 { scope.as_str() } else { "" };
            lines.push(format!("{scope:<width$}  {}", requirement::words(requirement)));
        }
    }
    lines
}
