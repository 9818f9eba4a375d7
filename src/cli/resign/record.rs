//! Keeps the account of a running job for `--report`.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::resign::report::{self, JournalAccount, ReportError, Spool};
use crate::resign::{Item, JobIdentity};

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
