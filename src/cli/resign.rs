//! `countersign resign`: move signatures to new names, in bulk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;

use super::keys::KeyArgs;
use super::output::{self, Answer, Format};
use crate::lookup::OpenPgp;
use crate::policy::Policy;
use crate::resign::{self, Item, Job, RenameMap, State};
use crate::store::{Store, StoreOptions};

/// Verify signatures of an old name and sign anew for the new one, in bulk
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Resign {
    /// Store with the old signatures
    #[arg(long, value_name = "STORE")]
    from: String,
    /// Store for the new signatures; may be the same
    #[arg(long, value_name = "STORE")]
    to: String,
    /// Old and new registry or repository prefix; repeatable, the longest match wins. `ibm` is the
    /// built-in table of registry.bluemix.net and its regions
    #[arg(long, value_name = "OLD=NEW|ibm", required = true)]
    rename: Vec<String>,
    /// policy.json that each old signature must satisfy, for the name in its own claim
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// How many images to work on at once
    #[arg(long, value_name = "N", default_value_t = default_jobs())]
    jobs: usize,
    /// Decide and tell, but write nothing
    #[arg(long)]
    dry_run: bool,
    /// Accept old signatures that use SHA-1 or RSA keys under 2048 bits
    #[arg(long)]
    allow_weak: bool,
}

const EXAMPLES: &str = "\
Examples:
  countersign resign --from old-tree --to old-tree --rename ibm --policy old-policy.json --key new.asc --dry-run
  countersign resign --from s3://old --to s3://new --rename old.example/team=new.example \\
      --policy old-policy.json --key new.asc

Exit codes: 0 all that had to be signed is signed; 1 some were refused or failed; 2 could not run.";

/// Signing is work for the processors, appending for the disk: some of each at any time.
fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(4, usize::from) * 4
}

impl Resign {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let renames = RenameMap::parse(&self.rename)?;
        let old_policy = Policy::load(&self.policy)?;
        let key = self.key.load()?;
        let source = Store::open(&self.from, &StoreOptions { create: false, ..StoreOptions::default() })
            .await
            .context("--from")?;
        let create = StoreOptions { create: !self.dry_run, ..StoreOptions::default() };
        let destination = match Store::open(&self.to, &create).await {
            // A dry run creates nothing; what is not there yet is empty.
            Err(_) if self.dry_run && !self.to.contains("://") => Store::memory(),
            opened => opened.context("--to")?,
        };
        let job = Job {
            source,
            destination,
            renames,
            old_policy,
            mechanism: Arc::new(OpenPgp::at(SystemTime::now()).allow_weak(self.allow_weak)),
            signer: key.signer,
            own: key.own,
            creator: super::CREATOR.to_owned(),
            jobs: self.jobs,
            dry_run: self.dry_run,
        };
        let dry_run = self.dry_run;
        let summary = resign::run(Arc::new(job), |item| tell(item, dry_run)).await?;
        let text = format!(
            "{}: {}, already there: {}, refused: {}, failed: {}, not concerned: {} ({:.1} s)",
            if dry_run { "Would sign" } else { "Signed" },
            summary.signed,
            summary.already,
            summary.refused,
            summary.failed,
            summary.unmatched,
            summary.seconds
        );
        output::result(format, &text, &summary)?;
        Ok(summary.complete().into())
    }
}

/// Tells what a person has to look at; in a dry run all that would be signed, too.
fn tell(item: &Item, dry_run: bool) {
    let old = item.old_reference.as_deref().unwrap_or("(no readable claim)");
    let reason = item.reason.as_deref().unwrap_or_default();
    let line = match item.state {
        State::Refused => format!("refused {}@{}: {old}: {reason}", item.repository, item.digest),
        State::Failed => format!("failed  {}@{}: {old}: {reason}", item.repository, item.digest),
        State::Signed if dry_run => {
            format!("would sign {} as {}", item.digest, item.new_reference.as_deref().unwrap_or_default())
        }
        State::Signed | State::Already | State::Unmatched => return,
    };
    output::talk(&output::plain(&line));
}
