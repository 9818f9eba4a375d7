//! The journal: one line an item, appended and flushed in batches, so that a job that was killed
//! anywhere goes on where it was.
//!
//! The first line says which job it is; a job with other rules does not continue it. A line is
//! written only after the signature that it tells of is durable, so that what the journal says is
//! done is done, and what is done but not said is found by comparing.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::item::{Item, State};
use crate::escape;
use crate::store::{staging_number, staging_number_of};

const FORMAT: &str = "countersign resign 1";
/// A longer line was not written by us.
const LINE_LIMIT: usize = 1024 * 1024;
const LOCK_ATTEMPTS: u32 = 20;

/// What makes a job the same job: everything that decides what is signed, by name.
pub type JobIdentity = BTreeMap<String, String>;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error("journal {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is something else.
    #[error("{path} is no journal of a resign job: {reason}", path = path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The journal is of a job with other rules.
    #[error(
        "journal {path} belongs to another job: its {what} was {theirs:?}, now it is {ours:?}; \
         use another journal, or the same rules", path = path.display()
    )]
    OtherJob {
        /// Which.
        path: PathBuf,
        /// What differs.
        what: String,
        /// What the journal says.
        theirs: String,
        /// What the command says.
        ours: String,
    },
    /// Another process writes to it.
    #[error("journal {path} is in use by another process", path = .0.display())]
    InUse(PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Header {
    journal: String,
    job: JobIdentity,
    /// Names the journal itself, whatever its place.
    #[serde(default)]
    id: String,
}

#[derive(Serialize, Deserialize)]
struct Finished {
    finished: bool,
}

/// Names an old signature in little space; collisions are beyond chance (128 bits).
pub type ItemKey = u128;

/// Returns the key of an old signature.
pub fn item_key(repository: &str, digest: &str, blob: &str) -> ItemKey {
    let hash = Sha256::new().chain_update(format!("{repository}\0{digest}\0{blob}")).finalize();
    hash.iter().take(16).fold(0, |key, byte| (key << 8) | u128::from(*byte))
}

/// Names an item's image, as a key of what could not be read.
fn image_key(item: &Item) -> ItemKey {
    item_key(&item.repository, &item.digest_text(), "")
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    id: String,
    file: Mutex<File>,
    /// Sorted keys of what was settled by earlier runs: 16 bytes each, whatever the job's size.
    done: Vec<ItemKey>,
    /// Those of them that were refused, sorted.
    refused: Vec<ItemKey>,
    /// Images that could not be read when last tried.
    unread: HashSet<ItemKey>,
    /// An earlier run came to its end.
    finished: bool,
    /// Nothing was written after that.
    settled: AtomicBool,
}

impl Journal {
    /// Opens a journal: a new one, or that of the same job, whose torn last line is cut off.
    ///
    /// # Errors
    /// [`JournalError`]; [`JournalError::OtherJob`] names the first difference.
    pub fn open(path: &Path, job: &JobIdentity) -> Result<Self, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        lock(path, &file)?;
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        let (mut failed, mut unread) = (HashSet::new(), HashSet::new());
        let (mut finished, mut settled) = (false, false);
        let whole = read_lines(path, &file, job, |line| {
            let Line::Item(item) = line else {
                (finished, settled) = (true, true);
                // All could be read.
                unread.clear();
                return;
            };
            settled = false;
            match item.key() {
                Some(key) if item.state == State::Failed => drop(failed.insert(key)),
                Some(key) => {
                    failed.remove(&key);
                    done.push(key);
                    if item.state == State::Refused {
                        refused.push(key);
                    }
                }
                None if item.state == State::Failed => drop(unread.insert(image_key(&item))),
                None => {}
            }
            if item.blob.is_some() && !unread.is_empty() {
                unread.remove(&image_key(&item));
            }
        })?;
        for keys in [&mut done, &mut refused] {
            keys.sort_unstable();
            keys.dedup();
            // What failed at last is tried again, whatever was before.
            keys.retain(|key| !failed.contains(key));
        }
        file.set_len(whole).map_err(io)?;
        let id = if whole == 0 { staging_number() } else { header(path, &file)?.id };
        file.seek(SeekFrom::Start(whole)).map_err(io)?;
        if whole == 0 {
            let line = header_line(job, &id).map_err(io)?;
            file.write_all(&line).and_then(|()| file.sync_all()).map_err(io)?;
            if let Some(folder) = path.parent() {
                let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
            }
        }
        let found = file.metadata().map_err(io)?;
        // A journal from before it had a number has none: another file elsewhere may be alike.
        let id = if id.is_empty() { id } else { staging_number_of(&format!("{id} {} {}", found.dev(), found.ino())) };
        Ok(Self {
            path: path.to_owned(),
            id,
            file: Mutex::new(file),
            done,
            refused,
            unread,
            finished,
            settled: AtomicBool::new(settled),
        })
    }

    /// Returns the number of this journal, the same for all runs that write to it, one at a time: it
    /// is the locked file's, so that a copy, which somebody else may hold, has another. Empty where an
    /// older version began it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Tells whether an earlier run settled this old signature.
    pub fn is_done(&self, key: ItemKey) -> bool {
        self.done.binary_search(&key).is_ok()
    }

    /// Tells whether an earlier run settled this old signature by refusing it.
    pub fn is_refused(&self, key: ItemKey) -> bool {
        self.refused.binary_search(&key).is_ok()
    }

    /// Tells whether the image of an item could not be read when an earlier run tried last.
    pub fn was_unread(&self, item: &Item) -> bool {
        !self.unread.is_empty() && self.unread.contains(&image_key(item))
    }

    /// Tells whether an earlier run came to its end; then everything is compared anew.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Appends items; they are durable when this returns.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn record<'a>(&self, items: impl IntoIterator<Item = &'a Item>) -> Result<(), JournalError> {
        let mut lines = Vec::new();
        for item in items {
            lines.extend_from_slice(escape::json::to_string(item).map_err(|e| self.failed(e.into()))?.as_bytes());
            lines.push(b'\n');
        }
        if !lines.is_empty() {
            self.settled.store(false, Ordering::Relaxed);
        }
        self.append(&lines)
    }

    /// Notes that the job came to its end, unless that is the last thing it says.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn finish(&self) -> Result<(), JournalError> {
        if self.settled.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.append(b"{\"finished\":true}\n")?;
        self.settled.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn append(&self, bytes: &[u8]) -> Result<(), JournalError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(bytes).and_then(|()| file.sync_data()).map_err(|e| self.failed(e))
    }

    fn failed(&self, source: std::io::Error) -> JournalError {
        JournalError::Io { path: self.path.clone(), source }
    }
}

/// Locks the file for this process. A lock outlives its owner for a moment where that has just
/// started another program, so the first refusal is not the last word.
fn lock(path: &Path, file: &File) -> Result<(), JournalError> {
    for attempt in 1.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(std::fs::TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(std::fs::TryLockError::WouldBlock) => return Err(JournalError::InUse(path.to_owned())),
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(JournalError::Io { path: path.to_owned(), source });
            }
        }
    }
    Ok(())
}

/// What a journal's line says.
pub enum Line {
    /// An item was settled.
    Item(Box<Item>),
    /// The job came to its end.
    Finished,
}

/// Reads all items of a journal, whatever its job, and returns what job it was.
///
/// # Errors
/// [`JournalError`].
pub fn read(path: &Path, each: impl FnMut(Line)) -> Result<JobIdentity, JournalError> {
    let io = |source| JournalError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let header = header(path, &file)?;
    (&file).seek(SeekFrom::Start(0)).map_err(io)?;
    read_lines(path, &file, &header.job, each)?;
    Ok(header.job)
}

/// Reads the first line.
fn header(path: &Path, mut file: &File) -> Result<Header, JournalError> {
    let io = |source| JournalError::Io { path: path.to_owned(), source };
    file.seek(SeekFrom::Start(0)).map_err(io)?;
    let mut first = Vec::new();
    let length =
        BufReader::new(std::io::Read::take(file, LINE_LIMIT as u64)).read_until(b'\n', &mut first).map_err(io)?;
    let form = |reason: String| JournalError::Form { path: path.to_owned(), reason };
    if length >= LINE_LIMIT && first.last() != Some(&b'\n') {
        return Err(form("line 1 is too long".to_owned()));
    }
    serde_json::from_slice(&first).map_err(|e| form(e.to_string()))
}

/// Reads the whole lines and returns where the last of them ends.
fn read_lines(path: &Path, file: &File, job: &JobIdentity, mut each: impl FnMut(Line)) -> Result<u64, JournalError> {
    let io = |source| JournalError::Io { path: path.to_owned(), source };
    let form = |reason: String| JournalError::Form { path: path.to_owned(), reason };
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut end = 0;
    let mut number = 0u64;
    loop {
        line.clear();
        let length = std::io::Read::take(&mut reader, LINE_LIMIT as u64).read_until(b'\n', &mut line).map_err(io)?;
        if line.last() != Some(&b'\n') {
            // A torn header is a beginning of ours; any other file is not ours to cut.
            if number == 0 && !line.is_empty() {
                let whole = header_line(job, "").map_err(io)?;
                let (start, _) = whole.split_at(whole.len().saturating_sub("\"}\n".len()));
                if !start.starts_with(&line) && !line.starts_with(start) {
                    return Err(form("it does not begin as one".to_owned()));
                }
            }
            return if length >= LINE_LIMIT { Err(form(format!("line {} is too long", number + 1))) } else { Ok(end) };
        }
        number += 1;
        let bad = |e: serde_json::Error| form(format!("line {number}: {e}"));
        if number == 1 {
            let header: Header = serde_json::from_slice(&line).map_err(bad)?;
            check(path, &header, job)?;
        } else if line.starts_with(b"{\"finished\"") {
            let _: Finished = serde_json::from_slice(&line).map_err(bad)?;
            each(Line::Finished);
        } else {
            each(Line::Item(serde_json::from_slice(&line).map_err(bad)?));
        }
        end += length as u64;
    }
}

fn header_line(job: &JobIdentity, id: &str) -> std::io::Result<Vec<u8>> {
    let header = Header { journal: FORMAT.to_owned(), job: job.clone(), id: id.to_owned() };
    let mut line = escape::json::to_string(&header)?.into_bytes();
    line.push(b'\n');
    Ok(line)
}

fn check(path: &Path, header: &Header, job: &JobIdentity) -> Result<(), JournalError> {
    if header.journal != FORMAT {
        let reason = format!("its format is {:?}, not {FORMAT:?}", header.journal);
        return Err(JournalError::Form { path: path.to_owned(), reason });
    }
    for what in header.job.keys().chain(job.keys()) {
        let (theirs, ours) = (header.job.get(what), job.get(what));
        if theirs != ours {
            return Err(JournalError::OtherJob {
                path: path.to_owned(),
                what: what.clone(),
                theirs: theirs.cloned().unwrap_or_default(),
                ours: ours.cloned().unwrap_or_default(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
