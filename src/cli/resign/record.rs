//! Keeps the account of a running job for `--report`.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use jiff::Timestamp;

use crate::resign::report::{self, JournalAccount, ReportError, ReportForm, Spool};
use crate::resign::{Item, JobIdentity};

/// Tells whether a report can be written here at all: the form, the folder, and no other file of
/// the job at its place.
pub(super) fn possible(report: &Path, journal: Option<&Path>) -> anyhow::Result<()> {
    ReportForm::of(report)?;
    let whole = |path: &Path| std::fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    if let Some(journal) = journal
        && let (Ok(one), Ok(other)) = (whole(report), whole(journal))
    {
        ensure!(one != other, "--report and --journal name the same file {}; give each its own", report.display());
    }
    report::writable(report)?;
    Ok(())
}

/// What becomes a report when the job ends.
pub(super) struct Record {
    report: PathBuf,
    started: Timestamp,
    dry_run: bool,
    job: JobIdentity,
    kept: Kept,
}

/// Where the items are.
enum Kept {
    /// The job's own journal has them, also those of earlier runs.
    Journal(PathBuf),
    /// Nobody else keeps them.
    Spool(Box<Spool>),
}

impl Record {
    /// Begins; without a journal the items go to a file beside the report, which goes away again.
    pub(super) fn begin(
        report: &Path,
        journal: Option<&Path>,
        dry_run: bool,
        job: &JobIdentity,
        started: Timestamp,
    ) -> Result<Self, ReportError> {
        let kept = match journal.filter(|_| !dry_run) {
            Some(journal) => Kept::Journal(journal.to_owned()),
            None => Kept::Spool(Box::new(Spool::beside(report, job)?)),
        };
        Ok(Self { report: report.to_owned(), started, dry_run, job: job.clone(), kept })
    }

    /// Notes an item.
    pub(super) fn note(&mut self, item: &Item) {
        if let Kept::Spool(spool) = &mut self.kept {
            spool.note(item);
        }
    }

    /// Writes the report; `stopped` says why the job did not come to its end.
    pub(super) fn end(self, stopped: Option<String>) -> Result<(), ReportError> {
        let Self { report, started, dry_run, job, mut kept } = self;
        let account = match &mut kept {
            Kept::Journal(path) => JournalAccount::open(path)?,
            Kept::Spool(spool) => spool.account()?,
        };
        let times = (started.to_string(), Timestamp::now().to_string());
        let mut head = report::head(&account, crate::cli::CREATOR, &job, times)?;
        head.dry_run = dry_run;
        head.incomplete = stopped;
        report::write(&report, &head, &account)
    }
}
