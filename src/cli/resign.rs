//! `countersign resign`: move signatures to new names, in bulk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;
use jiff::Timestamp;

use super::keys::KeysArgs;
use super::output::{self, Answer, Format};
use crate::image::Digest;
use crate::lookup::OpenPgp;
use crate::policy::Policy;
use crate::resign::{self, Destination, Item, Job, JobIdentity, Journal, Keys, RenameMap, Shard, Source, State};
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
    keys: KeysArgs,
    /// How many images to work on at once
    #[arg(long, value_name = "N", default_value_t = default_jobs())]
    jobs: usize,
    /// File that records what is settled; with it a killed job goes on where it was
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Do only part I of N of the work, split by repository, so that N processes share it; `auto` in
    /// a pod of a Kubernetes Indexed Job: JOB_COMPLETION_INDEX + 1 of COUNTERSIGN_SHARDS
    #[arg(long, value_name = "I/N|auto", value_parser = parse_shard)]
    shard: Option<Shard>,
    /// Judge old keys and signatures as of this time (RFC 3339 or a date), for keys that have
    /// expired since; recorded in the journal
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    as_of: Option<Timestamp>,
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
        let keys = self.keys.load()?;
        let source = Store::open(&self.from, &StoreOptions { create: false, ..StoreOptions::default() })
            .await
            .context("--from")?;
        let create = StoreOptions { create: !self.dry_run, ..StoreOptions::default() };
        let destination = match Store::open(&self.to, &create).await {
            // A dry run creates nothing; what is not there yet is empty.
            Err(_) if self.dry_run && !self.to.contains("://") => Store::memory(),
            opened => opened.context("--to")?,
        };
        let as_of = self.as_of.map_or_else(SystemTime::now, SystemTime::from);
        let identity = self.identity(&renames, &keys)?;
        // A dry run writes nothing, not even a journal.
        let journal = self.journal.as_deref().filter(|_| !self.dry_run);
        let journal = journal.map(|path| Journal::open(path, &identity)).transpose()?;
        let job = Job {
            source: Source::Tree(source),
            destination: Destination::Tree(destination),
            renames,
            old_policy,
            mechanism: Arc::new(OpenPgp::at(as_of).allow_weak(self.allow_weak)),
            keys,
            creator: super::CREATOR.to_owned(),
            jobs: self.jobs,
            dry_run: self.dry_run,
            shard: self.shard.unwrap_or(Shard::WHOLE),
        };
        let dry_run = self.dry_run;
        let summary = resign::run(Arc::new(job), journal, |item| tell(item, dry_run)).await?;
        let text = format!(
            "{}: {}, already there: {}, refused: {}, failed: {}, not concerned: {}{} ({:.1} s)",
            if dry_run { "Would sign" } else { "Signed" },
            summary.signed,
            summary.already,
            summary.refused,
            summary.failed,
            summary.unmatched,
            if summary.resumed > 0 { format!(", settled before: {}", summary.resumed) } else { String::new() },
            summary.seconds
        );
        output::result(format, &text, &summary)?;
        Ok(summary.complete().into())
    }
}

impl Resign {
    /// Everything that decides what is signed. A journal goes on only for the same.
    fn identity(&self, renames: &RenameMap, keys: &Keys) -> anyhow::Result<JobIdentity> {
        let policy = std::fs::read(&self.policy).with_context(|| self.policy.display().to_string())?;
        let rules: Vec<String> =
            renames.rules().iter().map(|rule| format!("{}={}", rule.old(), rule.new_name())).collect();
        let keys: Vec<String> = keys
            .all()
            .map(|(prefix, key)| {
                prefix.map(|p| format!("{p}=")).unwrap_or_default() + key.signer.fingerprint().as_str()
            })
            .collect();
        let shard = self.shard.map_or_else(|| "1/1".to_owned(), |shard| format!("{}/{}", shard.index, shard.count));
        let pairs = [
            ("source", self.from.clone()),
            ("destination", self.to.clone()),
            ("rename rules", rules.join(" ")),
            ("policy", Digest::sha256(&policy).to_string()),
            ("keys", keys.join(" ")),
            ("as-of time", self.as_of.map_or_else(|| "now".to_owned(), |time| time.to_string())),
            ("weak algorithms", if self.allow_weak { "accepted" } else { "refused" }.to_owned()),
            ("shard", shard),
        ];
        Ok(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

fn parse_shard(text: &str) -> Result<Shard, String> {
    if text == "auto" {
        return shard_of_job(|name| std::env::var(name).ok());
    }
    let wrong = || format!("{text:?} is not I/N with 1 <= I <= N");
    let (index, count) = text.split_once('/').ok_or_else(wrong)?;
    let shard = Shard { index: index.parse().map_err(|_| wrong())?, count: count.parse().map_err(|_| wrong())? };
    if (1..=shard.count).contains(&shard.index) { Ok(shard) } else { Err(wrong()) }
}

/// The part that a Kubernetes Indexed Job gives to this pod; Kubernetes counts from 0.
fn shard_of_job(variable: impl Fn(&str) -> Option<String>) -> Result<Shard, String> {
    let number = |name: &str| {
        let text = variable(name).ok_or_else(|| format!("auto needs {name}, which is not set"))?;
        text.parse::<u32>().map_err(|_| format!("{name} is {text:?}, which is no number"))
    };
    let (index, count) = (number("JOB_COMPLETION_INDEX")?, number("COUNTERSIGN_SHARDS")?);
    if index < count {
        Ok(Shard { index: index + 1, count })
    } else {
        Err(format!("JOB_COMPLETION_INDEX is {index}, but there are only {count} parts (COUNTERSIGN_SHARDS)"))
    }
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let day = || {
        let day: jiff::civil::Date = text.parse().ok()?;
        day.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|start| start.timestamp())
    };
    text.parse().ok().or_else(day).ok_or_else(|| format!("{text:?} is neither 2024-05-01T12:00:00Z nor 2024-05-01"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_takes_the_part_of_its_index() {
        let shard = |index: &str, count: &str| {
            shard_of_job(|name| Some(if name == "COUNTERSIGN_SHARDS" { count } else { index }.to_owned()))
        };
        assert_eq!(shard("0", "8").unwrap(), Shard { index: 1, count: 8 });
        assert_eq!(shard("7", "8").unwrap(), Shard { index: 8, count: 8 });
        insta::assert_snapshot!(shard("8", "8").unwrap_err(), @"JOB_COMPLETION_INDEX is 8, but there are only 8 parts (COUNTERSIGN_SHARDS)");
        assert!(shard("0", "0").is_err() && shard("-1", "8").is_err() && shard("", "8").is_err());
        insta::assert_snapshot!(shard_of_job(|_| None).unwrap_err(), @"auto needs JOB_COMPLETION_INDEX, which is not set");
    }
}
