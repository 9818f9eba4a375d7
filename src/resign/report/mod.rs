//! The report of a job: who signed what anew, on whose word, and what was not; written for people
//! (Markdown, HTML) and machines (JSON), which `resign audit` and `resign merge-reports` read back.
//!
//! A report is made of an [`Account`], a stream of items that can be read several times, so that
//! memory does not grow with the job: neither when it is written nor when it is read.
//!
//! ```text
//! {"report":"countersign resign 1","creator":…,"started":…,"ended":…,"job":{…},"shards":["1/1"],
//!  "dry_run":false,"incomplete":null,"totals":{…},"refusals":{…},"items":[
//! {…},
//! {…}
//! ]}
//! ```

mod account;
mod escape;
mod html;
mod markdown;
mod merge;
mod parts;
mod read;
mod seen;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::item::{Item, State, Summary};
use super::journal::{JobIdentity, JournalError};

pub use account::{Account, JournalAccount, Spool};
pub use merge::{MergeError, Merged, merge};
pub use parts::Parts;
pub use read::{read, read_head};
pub(super) use seen::{Seen, key_of};
pub use write::{writable, write};

/// The first member of every report in JSON.
pub const FORMAT: &str = "countersign resign 1";
/// The member of [`JobIdentity`] in which the parts of one job differ.
pub const SHARD: &str = "shard";

/// Why a report cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file's name does not say what to write.
    #[error("report {path}: its name must end in .json, .md or .html", path = .0.display())]
    Extension(PathBuf),
    /// The file cannot be read or written.
    #[error("report {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{path} is no report of a resign job in JSON: {reason}", path = path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The journal that the report is made of.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Whoever asked for the items wants no more.
    #[error("nobody reads on")]
    Stopped,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportForm {
    /// For machines; the one that can be read back.
    Json,
    /// For people, in a repository or ticket.
    Markdown,
    /// For people, in a browser.
    Html,
}

impl ReportForm {
    /// Reads the form off the end of a file's name.
    ///
    /// # Errors
    /// [`ReportError::Extension`].
    pub fn of(path: &Path) -> Result<Self, ReportError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Ok(Self::Json),
            Some("md") => Ok(Self::Markdown),
            Some("html") => Ok(Self::Html),
            _ => Err(ReportError::Extension(path.to_owned())),
        }
    }
}

/// How many items came to which end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Signed anew (in a dry run: would be).
    pub signed: u64,
    /// Was signed for the new name before.
    pub already: u64,
    /// No rule concerns it, or a choice of the job left it out.
    pub unmatched: u64,
    /// Not accepted.
    pub refused: u64,
    /// Could not be read or written.
    pub failed: u64,
}

impl Totals {
    /// Returns how many items came to an end.
    pub fn of(&self, state: State) -> u64 {
        match state {
            State::Signed => self.signed,
            State::Already => self.already,
            State::Unmatched => self.unmatched,
            State::Refused => self.refused,
            State::Failed => self.failed,
        }
    }
}

/// All that a report says before its items.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Who made the new signatures: the program and its version.
    pub creator: String,
    /// When the first run of the job began, RFC 3339.
    pub started: String,
    /// When the report was made, RFC 3339.
    pub ended: String,
    /// Nothing was written: `signed` means what would be signed.
    pub dry_run: bool,
    /// Which job it is.
    pub job: JobIdentity,
    /// Which parts of it are told of, `I/N` each.
    pub shards: Vec<String>,
    /// Why the items are not all; `None` if they are.
    pub incomplete: Option<String>,
    /// How many items came to which end.
    pub totals: Totals,
    /// How often each reason for a refusal was given.
    pub refusals: BTreeMap<String, u64>,
}

/// Counts items as they pass.
#[derive(Debug, Default)]
pub(super) struct Counter {
    summary: Summary,
    /// The earliest time of an item, and the latest.
    times: Option<(Timestamp, Timestamp)>,
}

impl Counter {
    pub(super) fn count(&mut self, item: &Item) {
        self.summary.count(item);
        if let Ok(time) = item.time.parse() {
            let (first, last) = self.times.unwrap_or((time, time));
            self.times = Some((first.min(time), last.max(time)));
        }
    }

    pub(super) fn end(self) -> (Totals, BTreeMap<String, u64>, Option<(Timestamp, Timestamp)>) {
        let Summary { signed, already, unmatched, refused, failed, .. } = self.summary;
        (Totals { signed, already, unmatched, refused, failed }, self.summary.refusals, self.times)
    }
}

/// Makes the head for an account by counting it; `started` gives way to the time of an earlier run,
/// and `ended` to that of an item which the clock, set back since, has yet to reach.
///
/// # Errors
/// [`ReportError`], of reading the account.
pub fn head(
    account: &dyn Account,
    creator: &str,
    job: &JobIdentity,
    (started, ended): (String, String),
) -> Result<Head, ReportError> {
    let mut counter = Counter::default();
    account.each(&mut |item| {
        counter.count(item);
        Ok(())
    })?;
    let (totals, refusals, times) = counter.end();
    let (first, last) = times.unzip();
    Ok(Head {
        creator: creator.to_owned(),
        started: other_if(first, started, |first, started| first < started),
        ended: other_if(last, ended, |last, ended| last > ended),
        dry_run: false,
        shards: vec![job.get(SHARD).cloned().unwrap_or_else(|| "1/1".to_owned())],
        job: job.clone(),
        incomplete: None,
        totals,
        refusals,
    })
}

/// Returns another time instead of `said`, if that is one and the other is `better`.
fn other_if(other: Option<Timestamp>, said: String, better: impl Fn(Timestamp, Timestamp) -> bool) -> String {
    match (other, said.parse()) {
        (Some(other), Ok(time)) if better(other, time) => other.to_string(),
        _ => said,
    }
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::testing::{head_of, item};
    use super::*;

    #[test]
    fn the_times_of_a_head_hold_those_of_its_items() {
        let at = |time: &str| Item { time: time.to_owned(), ..item() };
        let head = head_of(&vec![at("2026-01-02T00:00:00.5Z"), at("2026-01-02T00:30:00Z")]);
        assert_eq!((&head.started[..], &head.ended[..]), ("2026-01-02T00:00:00Z", "2026-01-02T01:00:00Z"));
        // The clock was set back; and of one second, the text does not tell what is earlier.
        let head = head_of(&vec![at("2026-01-02T01:00:00.25Z"), at("2026-01-02T01:00:00.125Z")]);
        assert_eq!(head.ended, "2026-01-02T01:00:00.25Z");
        let head = head_of(&vec![at("2026-01-01T23:59:59.25Z"), at("2026-01-01T23:59:59Z"), at("")]);
        assert_eq!(head.started, "2026-01-01T23:59:59Z");
    }
}
