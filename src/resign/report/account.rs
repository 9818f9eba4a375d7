//! Items that can be read again and again: those of a journal, one for each old signature.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::seen::{Seen, key_of};
use super::{Item, ReportError};
use crate::resign::item::State;
use crate::resign::journal::{ItemKey, JobIdentity, Journal, JournalError, Line, item_key, read};

/// A stream of items that can be read several times, the same each time.
pub trait Account {
    /// Hands over every item.
    ///
    /// # Errors
    /// [`ReportError`] of reading, or the first one that `take` returns.
    fn each(&self, take: &mut dyn FnMut(&Item) -> Result<(), ReportError>) -> Result<(), ReportError>;
}

/// What a journal says at last of each old signature, whatever number of runs wrote to it.
///
/// A line gives way to a later one of the same old signature if that is signed or a failure, or if
/// it is itself a failure; where the failure was the last, what was signed before is named by it,
/// for it is there. Further copies of the same bytes are one item. In memory are only the old
/// signatures that have several lines.
#[derive(Debug)]
pub struct JournalAccount {
    path: PathBuf,
    job: JobIdentity,
    /// Which line counts, of those that have several.
    counts: HashMap<ItemKey, u64>,
    /// Images that could not be read, and could later.
    read_later: HashSet<ItemKey>,
    /// The line by which a run came to its end: then all that it was to do could be read.
    finished: u64,
}

impl JournalAccount {
    /// Looks through a journal.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let mut seen = Seen::new();
        let mut unread: HashMap<ItemKey, u64> = HashMap::new();
        let (mut number, mut finished) = (0u64, 0);
        let job = read(path, |line| {
            number += 1;
            let Line::Item(item) = line else {
                finished = number;
                return;
            };
            let key = key_of(&item);
            seen.note(key);
            if item.blob.is_none() {
                unread.insert(key, number);
            }
        })?;
        let mut best: HashMap<ItemKey, (u8, u64)> = HashMap::new();
        // What failed at last, and the line that says so.
        let mut failed: HashMap<ItemKey, u64> = HashMap::new();
        let mut read_later = HashSet::new();
        let suspects = seen.suspects();
        if !suspects.is_empty() || !unread.is_empty() {
            number = 0;
            read(path, |line| {
                number += 1;
                let Line::Item(item) = line else { return };
                let key = key_of(&item);
                let set = item_key(&item.repository, &item.digest_text(), "");
                if item.blob.is_some() && unread.get(&set).is_some_and(|before| *before < number) {
                    read_later.insert(set);
                }
                if !suspects.contains_key(&key) {
                    return;
                }
                let (rank, latest_counts) = match item.state {
                    State::Failed => (0, true),
                    State::Signed => (2, true),
                    State::Already | State::Unmatched | State::Refused => (1, false),
                };
                if rank == 0 {
                    failed.insert(key, number);
                } else {
                    failed.remove(&key);
                }
                let known = best.entry(key).or_insert((rank, number));
                if rank > known.0 || (rank == known.0 && latest_counts) {
                    *known = (rank, number);
                }
            })?;
        }
        let mut counts: HashMap<ItemKey, u64> = best.into_iter().map(|(key, (_, line))| (key, line)).collect();
        counts.extend(failed);
        Ok(Self { path: path.to_owned(), job, counts, read_later, finished })
    }

    /// Returns which job the journal is of.
    pub fn job(&self) -> &JobIdentity {
        &self.job
    }
}

impl Account for JournalAccount {
    fn each(&self, take: &mut dyn FnMut(&Item) -> Result<(), ReportError>) -> Result<(), ReportError> {
        let mut number = 0u64;
        let mut outcome = Ok(());
        let mut written: HashMap<ItemKey, (Vec<String>, Vec<String>)> = HashMap::new();
        read(&self.path, |line| {
            number += 1;
            let Line::Item(mut item) = line else { return };
            let key = key_of(&item);
            let counts = self.counts.get(&key).copied();
            if counts.is_some_and(|line| line > number) && item.state != State::Failed && !item.new_blobs.is_empty() {
                written.insert(key, (item.signed_by.clone(), item.new_blobs.clone()));
            }
            if counts == Some(number)
                && let Some(before) = written.remove(&key)
                && item.state == State::Failed
                && item.new_blobs.is_empty()
            {
                (item.signed_by, item.new_blobs) = before;
            }
            let passed = counts.is_some_and(|line| line != number)
                || (item.blob.is_none() && self.read_later.contains(&key))
                || (item.blob.is_none() && item.state == State::Failed && number < self.finished);
            if outcome.is_ok() && !passed {
                outcome = take(&item);
            }
        })?;
        outcome
    }
}

/// How many items wait to be written.
const WAITING: usize = 4096;

/// A journal for a job that has none of its own (a dry run, or no `--journal`): it lies beside the
/// report and goes away with this value.
#[derive(Debug)]
pub struct Spool {
    file: tempfile::NamedTempFile,
    journal: Journal,
    waiting: Vec<Item>,
    failed: Option<JournalError>,
}

impl Spool {
    /// Begins one beside `report`.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn beside(report: &Path, job: &JobIdentity) -> Result<Self, ReportError> {
        let folder = super::write::folder(report);
        let file = tempfile::Builder::new()
            .prefix(".countersign-journal-")
            .tempfile_in(folder)
            .map_err(|source| ReportError::Io { path: folder.to_owned(), source })?;
        let journal = Journal::open(file.path(), job)?;
        Ok(Self { file, journal, waiting: Vec::new(), failed: None })
    }

    /// Notes an item; a failure to write is told by [`Spool::account`].
    pub fn note(&mut self, item: &Item) {
        self.waiting.push(item.clone());
        if self.waiting.len() >= WAITING {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.failed.is_none() {
            self.failed = self.journal.record(&self.waiting).err();
        }
        self.waiting.clear();
    }

    /// Returns all that was noted.
    ///
    /// # Errors
    /// [`ReportError`].
    pub fn account(&mut self) -> Result<JournalAccount, ReportError> {
        self.flush();
        match self.failed.take() {
            Some(error) => Err(error.into()),
            None => Ok(JournalAccount::open(self.file.path())?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{item, job};
    use super::*;

    #[test]
    fn what_could_not_be_found_is_forgotten_when_all_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::open(&path, &job()).unwrap();
        let tag = Item { digest: None, blob: None, state: State::Failed, ..item() };
        let count = || {
            let mut count = 0;
            let mut each = |_: &Item| {
                count += 1;
                Ok(())
            };
            JournalAccount::open(&path).unwrap().each(&mut each).unwrap();
            count
        };
        journal.record([&tag, &item()]).unwrap();
        assert_eq!(count(), 2);
        journal.finish().unwrap();
        assert_eq!(count(), 1);
        journal.record([&tag]).unwrap();
        assert_eq!(count(), 2, "a later run could not");
    }

    #[test]
    fn one_item_for_each_old_signature() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::beside(&folder.path().join("r.json"), &job()).unwrap();
        let lines = [
            ("1", State::Failed),
            ("2", State::Signed),
            ("", State::Failed),
            ("3", State::Refused),
            ("1", State::Failed),
            ("2", State::Already),
            ("1", State::Signed),
            ("4", State::Signed),
            ("4", State::Signed),
            ("5", State::Unmatched),
            ("5", State::Unmatched),
            ("6", State::Signed),
            ("6", State::Failed),
        ];
        for (n, (blob, state)) in lines.into_iter().enumerate() {
            let blob = Some(blob.to_owned()).filter(|blob| !blob.is_empty());
            let new_blobs = if state == State::Signed { vec!["new".to_owned()] } else { Vec::new() };
            spool.note(&Item { blob, state, new_blobs, time: format!("{n:02}"), ..item() });
        }
        let mut found = Vec::new();
        let account = spool.account().unwrap();
        account
            .each(&mut |item| {
                assert_eq!(item.new_blobs.len(), usize::from(matches!(item.state, State::Signed | State::Failed)));
                found.push(format!("{} {} {:?}", item.time, item.blob.as_deref().unwrap_or("-"), item.state));
                Ok(())
            })
            .unwrap();
        assert_eq!(
            found,
            ["01 2 Signed", "03 3 Refused", "06 1 Signed", "08 4 Signed", "09 5 Unmatched", "12 6 Failed"]
        );
        let stopped = account.each(&mut |_| Err(ReportError::Stopped));
        assert!(matches!(stopped, Err(ReportError::Stopped)));
        drop(spool);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "it goes away");
    }
}
