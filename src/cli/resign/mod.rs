//! `countersign resign`: move signatures to new names, in bulk; and what is done with its reports.

mod audit;
mod ends;
mod merge;
mod preview;
mod record;
mod shard;
mod tell;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::bail;
use clap::{ArgMatches, Args, FromArgMatches, Subcommand};
use jiff::Timestamp;

use super::keys::KeysArgs;
use super::output::{self, Answer, Format};
use super::process;
use super::progress::Display;
use crate::config::FileMask;
use crate::image::Digest;
use crate::lookup::OpenPgp;
use crate::policy::{KeySource, Policy, Requirement};
use crate::resign::{self, Job, JobIdentity, Journal, Keys, Progress, RenameFile, RenameMap, Shard, Summary};
use ends::{EndsArgs, shown};
use record::Record;

/// Verify signatures of an old name and sign anew for the new one, in bulk
#[derive(Debug)]
pub enum ResignCommand {
    /// The job itself.
    Job(Box<Resign>),
    /// What is done with its reports.
    Report(Command),
}

// By hand: a subcommand takes the place of all flags, the required ones included, and derived code
// would take flags with a default for flags of the job.
impl Args for ResignCommand {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = Command::augment_subcommands(Resign::augment_args(command));
        command.subcommand_required(false).args_conflicts_with_subcommands(true).subcommand_negates_reqs(true)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ResignCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(match matches.subcommand() {
            Some(_) => Self::Report(Command::from_arg_matches(matches)?),
            None => Self::Job(Box::new(Resign::from_arg_matches(matches)?)),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a report against the stores: every signature that it tells of, old and new
    Audit(audit::Audit),
    /// Join the reports of the parts (--shard) of one job
    MergeReports(merge::MergeReports),
}

impl ResignCommand {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        match self {
            Self::Job(job) => job.run(format).await,
            Self::Report(Command::Audit(command)) => command.run(format).await,
            Self::Report(Command::MergeReports(command)) => command.run(format),
        }
    }
}

/// Verify signatures of an old name and sign anew for the new one, in bulk
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Resign {
    /// Where the old signatures are: a store, a registry with the signature extension
    /// (docker://HOST[/NAMESPACE]) or a lookaside on the web (https://BASE)
    #[arg(long, value_name = "PLACE")]
    from: String,
    /// Where the new signatures go; may be the same. On the web: the lookaside of a countersign
    /// server
    #[arg(long, value_name = "PLACE")]
    to: String,
    #[command(flatten)]
    ends: EndsArgs,
    /// Old and new registry or repository prefix; repeatable, the longest match wins. `ibm` is the
    /// built-in table of registry.bluemix.net and its regions
    #[arg(long, value_name = "OLD=NEW|ibm")]
    rename: Vec<String>,
    /// File (YAML) of rename `rules`, and of `exceptions` for namespaces that moved elsewhere or stay;
    /// repeatable
    #[arg(long, value_name = "FILE")]
    rename_file: Vec<PathBuf>,
    /// policy.json that each old signature must satisfy, for the name in its own claim
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    #[command(flatten)]
    keys: KeysArgs,
    /// How many images to work on at once
    #[arg(long, value_name = "N", default_value_t = default_jobs(), value_parser = parse_jobs)]
    jobs: usize,
    /// File that records what is settled; with it a killed job goes on where it was
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Do only part I of N of the work, split by repository, so that N processes share it; `auto` in
    /// a pod of a Kubernetes Indexed Job: JOB_COMPLETION_INDEX + 1 of COUNTERSIGN_SHARDS
    #[arg(long, value_name = "I/N|auto", value_parser = shard::parse)]
    shard: Option<Shard>,
    /// Judge old keys and signatures as of this time (RFC 3339 or a date), for keys that have
    /// expired since; recorded in the journal
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    as_of: Option<Timestamp>,
    /// Account of the job, for `resign audit` (.json) or for people (.md, .html): all that its runs
    /// with this journal did, or what a dry run would do
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Decide and tell, but write nothing except a report
    #[arg(long)]
    dry_run: bool,
    /// Accept old signatures that use SHA-1 or RSA keys under 2048 bits
    #[arg(long)]
    allow_weak: bool,
    /// Rights that files and folders do not get when they are made, in octal, such as 027 [default:
    /// those of the process]
    #[arg(long, value_name = "MODE", env = "COUNTERSIGN_UMASK")]
    umask: Option<FileMask>,
}

const EXAMPLES: &str = "\
Examples:
  countersign resign --from old-tree --to old-tree --rename ibm --policy old-policy.json --key new.asc --dry-run
  countersign resign --from s3://old --to s3://new --rename old.example/team=new.example \\
      --policy old-policy.json --key new.asc --journal job.journal --report job.json
  countersign resign --from docker://us.icr.io/birds --to docker://us.icr.io/birds --discover catalog \\
      --check current --rename ibm --policy old-policy.json --key new.asc
  countersign resign audit job.json --policy old-policy.json --new-key new.pub.asc

A journal goes on with the same flags only, but --images may have grown: its lines are read anew.

Exit codes: 0 all that had to be signed is signed; 1 some were refused or failed, or a part of the
source could not be listed (all else is done); 2 could not run.";

/// Signing is work for the processors, appending for the disk: some of each at any time.
fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(4, usize::from) * 4
}

/// Nothing is done by nobody.
fn parse_jobs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|jobs| *jobs > 0).ok_or_else(|| format!("{text:?} is not a number above zero"))
}

impl Resign {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let started = Timestamp::now();
        self.umask.into_iter().for_each(process::set_umask);
        // Before anything else: a report that cannot be must not be found out after hours.
        self.report.as_deref().map(|report| record::possible(report, self.journal.as_deref())).transpose()?;
        let renames = self.renames()?;
        let (old_policy, policy) = Policy::load_with_bytes(&self.policy)?;
        let keys = self.keys.load()?;
        if let Some(prefix) = keys.unreachable(&renames) {
            bail!(
                "--key-for {prefix}: no rename rule makes a name at or below it, so its key would sign nothing; \
                 mend the prefix (--dry-run prints the rules) or leave it out"
            );
        }
        if self.dry_run && format == Format::Text {
            output::talk_lines(&preview::table(&renames, &keys));
        }
        for collision in renames.collisions() {
            output::talk(&format!("warning: {collision}: different images may have claimed one name"));
        }
        let ends = self.ends.open(&self.from, &self.to, &renames, self.jobs, self.dry_run).await?;
        let as_of = self.as_of.map_or_else(SystemTime::now, SystemTime::from);
        let identity = self.identity(&renames, &keys, &old_policy, &policy);
        // A dry run writes nothing, not even a journal.
        let journal = self.journal.as_deref().filter(|_| !self.dry_run);
        let journal = journal.map(|path| Journal::open(path, &identity)).transpose()?;
        let mut record = match &self.report {
            Some(report) => Some(Record::begin(report, self.journal.as_deref(), self.dry_run, &identity, started)?),
            None => None,
        };
        let progress = Arc::<Progress>::default();
        let job = Job {
            source: ends.source,
            destination: ends.destination,
            renames,
            old_policy,
            mechanism: Arc::new(OpenPgp::at(as_of).allow_weak(self.allow_weak)),
            keys,
            creator: super::CREATOR.to_owned(),
            jobs: self.jobs,
            dry_run: self.dry_run,
            choice: ends.choice,
            shard: self.shard.unwrap_or(Shard::WHOLE),
            progress: progress.clone(),
        };
        let dry_run = self.dry_run;
        let display = Display::start("resign", progress);
        let outcome = resign::run(Arc::new(job), journal, |item| {
            tell::item(&display, item, dry_run, format);
            if let Some(record) = &mut record {
                record.note(item);
            }
        })
        .await;
        drop(display);
        // A job that stopped has its report, too: what it did up to then stays.
        let recorded = match record {
            Some(record) => {
                let stopped = outcome.as_ref().map_or_else(|error| Some(error.to_string()), Summary::incomplete);
                tokio::task::spawn_blocking(move || record.end(stopped)).await?
            }
            None => Ok(()),
        };
        let summary = outcome?;
        recorded?;
        if let Some(incomplete) = summary.incomplete() {
            output::talk(&format!("failed  {incomplete}"));
        }
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
        output::result(format, &[text], &summary)?;
        Ok(summary.complete().into())
    }
}

impl Resign {
    fn renames(&self) -> anyhow::Result<RenameMap> {
        let files: Result<Vec<_>, _> = self.rename_file.iter().map(|path| RenameFile::load(path)).collect();
        Ok(RenameMap::new(&self.rename, &files?)?)
    }

    /// Everything that decides what is signed. A journal goes on only for the same.
    fn identity(&self, renames: &RenameMap, keys: &Keys, old_policy: &Policy, policy: &[u8]) -> JobIdentity {
        let rules: Vec<String> = renames.rules().iter().map(ToString::to_string).collect();
        let keys: Vec<String> = keys
            .all()
            .map(|(prefix, key)| {
                prefix.map(|p| format!("{p}=")).unwrap_or_default() + key.signer.fingerprint().as_str()
            })
            .collect();
        let shard = self.shard.map_or_else(|| "1/1".to_owned(), |shard| format!("{}/{}", shard.index, shard.count));
        let pairs = [
            ("source", shown(&self.from)),
            ("destination", shown(&self.to)),
            ("rename rules", rules.join(" ")),
            ("policy", Digest::sha256(policy).to_string()),
            ("policy's keys", key_files(old_policy)),
            ("keys", keys.join(" ")),
            ("as-of time", self.as_of.map_or_else(|| "now".to_owned(), |time| time.to_string())),
            ("weak algorithms", if self.allow_weak { "accepted" } else { "refused" }.to_owned()),
            ("shard", shard),
        ];
        let pairs = pairs.into_iter().chain(self.ends.identity());
        pairs.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The digest of the key files that a policy names: with other keys, it decides otherwise. A file
/// that cannot be read accepts nothing, and counts as what it is.
fn key_files(policy: &Policy) -> String {
    let lists = policy.transports.values().flat_map(|scopes| scopes.values()).chain([&policy.default]);
    let files: BTreeSet<&PathBuf> = lists
        .flatten()
        .filter_map(|requirement| match requirement {
            Requirement::SignedBy(signed_by) => Some(&signed_by.keys),
            _ => None,
        })
        .flat_map(|keys| match keys {
            KeySource::Path(path) => std::slice::from_ref(path),
            KeySource::Paths(paths) => paths,
            KeySource::Data(_) => &[],
        })
        .collect();
    let mut all = Vec::new();
    for file in &files {
        let read =
            std::fs::read(file).map_or_else(|_| "unreadable".to_owned(), |bytes| Digest::sha256(&bytes).to_string());
        all.push(read);
    }
    all.sort();
    if all.is_empty() { "none".to_owned() } else { Digest::sha256(all.join(" ").as_bytes()).to_string() }
}

fn parse_time(text: &str) -> Result<Timestamp, String> {
    let day = || {
        let day: jiff::civil::Date = text.parse().ok()?;
        day.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|start| start.timestamp())
    };
    text.parse().ok().or_else(day).ok_or_else(|| format!("{text:?} is neither 2024-05-01T12:00:00Z nor 2024-05-01"))
}
