//! The journal of a fetch: which repositories are complete, so that a job that was killed goes on where
//! it was. One JSON object a line; a line is written after its repository is durable.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::folder::State;
use super::gun::Gun;

const FORMAT: &str = "countersign trust fetch 1";
/// A longer line was not written by us.
const LINE_LIMIT: u64 = 64 * 1024;

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file cannot be read or written.
    #[error("journal {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is no journal of `trust fetch`: line {line}", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// Where it stops being one, counted from 1.
        line: usize,
    },
    /// It is of a job with another server or folder.
    #[error("journal {} belongs to another job: from {server} to {}; use another journal", path.display(), to.display())]
    OtherJob {
        /// Which.
        path: PathBuf,
        /// The server of its job.
        server: String,
        /// The folder of its job.
        to: PathBuf,
    },
    /// Another process writes to it.
    #[error("journal {} is in use by another process", .0.display())]
    InUse(PathBuf),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    journal: String,
    server: String,
    to: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Line {
    gun: String,
    state: State,
}

/// An open journal; it is locked until it is dropped.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
    /// Short hashes of the names of complete repositories: 16 bytes each.
    complete: HashSet<[u8; 16]>,
}

fn key(gun: &str) -> [u8; 16] {
    let hash: [u8; 32] = Sha256::digest(gun.as_bytes()).into();
    let mut short = [0; 16];
    short.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    short
}

impl Journal {
    /// Opens a journal: a new one, or that of the same server and folder. A torn last line is cut off.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path, server: &str, to: &Path) -> Result<Self, JournalError> {
        let failed = |source| JournalError::Io { path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(JournalError::InUse(path.to_owned())),
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
        }
        let header = Header { journal: FORMAT.to_owned(), server: server.to_owned(), to: to.to_owned() };
        let (mut complete, mut whole, mut number) = (HashSet::new(), 0, 0);
        let mut reader = BufReader::new(&file);
        loop {
            let mut line = Vec::new();
            let read = reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line).map_err(failed)?;
            if !line.ends_with(b"\n") {
                if read as u64 == LINE_LIMIT {
                    return Err(JournalError::Form { path: path.to_owned(), line: number + 1 });
                }
                break;
            }
            number += 1;
            let wrong = |_| JournalError::Form { path: path.to_owned(), line: number };
            if number == 1 {
                let found: Header = serde_json::from_slice(&line).map_err(wrong)?;
                if found.journal != FORMAT {
                    return Err(JournalError::Form { path: path.to_owned(), line: 1 });
                }
                if found != header {
                    return Err(JournalError::OtherJob { path: path.to_owned(), server: found.server, to: found.to });
                }
            } else {
                let line: Line = serde_json::from_slice(&line).map_err(wrong)?;
                if line.state == State::Complete {
                    complete.insert(key(&line.gun));
                } else {
                    complete.remove(&key(&line.gun));
                }
            }
            whole += read as u64;
        }
        // A first line that is torn was the only one; anything else without a line end is not ours.
        if number == 0 && file.metadata().map_err(failed)?.len() > 0 {
            let mut begun = Vec::new();
            file.seek(SeekFrom::Start(0)).map_err(failed)?;
            (&file).take(LINE_LIMIT).read_to_end(&mut begun).map_err(failed)?;
            if !b"{\"journal\":\"".starts_with(&begun) && !begun.starts_with(b"{\"journal\":\"") {
                return Err(JournalError::Form { path: path.to_owned(), line: 1 });
            }
        }
        file.set_len(whole).map_err(failed)?;
        file.seek(SeekFrom::Start(whole)).map_err(failed)?;
        let journal = Self { path: path.to_owned(), file: Mutex::new(file), complete };
        if number == 0 {
            journal.append(&header)?;
        }
        Ok(journal)
    }

    /// Tells whether an earlier run had everything of a repository.
    pub(super) fn has(&self, gun: &Gun) -> bool {
        self.complete.contains(&key(gun.as_str()))
    }

    /// Notes what came of a repository.
    pub(super) fn note(&self, gun: &Gun, state: State) -> Result<(), JournalError> {
        self.append(&Line { gun: gun.to_string(), state })
    }

    fn append(&self, line: &impl Serialize) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), source };
        let json = crate::escape::json::to_string(line).map_err(io::Error::other).map_err(failed)?;
        let bytes = format!("{json}\n").into_bytes();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_after_a_torn_line_and_only_with_the_same_job() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let open = |server: &str| Journal::open(&path, server, folder.path());
        let (one, two) = (Gun::parse("a/1").unwrap(), Gun::parse("a/2").unwrap());
        let journal = open("https://s").unwrap();
        assert!(matches!(open("https://s"), Err(JournalError::InUse(_))));
        journal.note(&one, State::Complete).unwrap();
        journal.note(&two, State::Complete).unwrap();
        journal.note(&two, State::Incomplete).unwrap();
        drop(journal);
        let mut whole = std::fs::read(&path).unwrap();
        whole.extend_from_slice(b"{\"gun\":\"a/2\",\"sta");
        std::fs::write(&path, whole).unwrap();
        let journal = open("https://s").unwrap();
        assert!(journal.has(&one) && !journal.has(&two));
        journal.note(&two, State::Complete).unwrap();
        drop(journal);
        assert!(open("https://s").unwrap().has(&two));
        assert!(matches!(open("https://other"), Err(JournalError::OtherJob { .. })));
        for other in ["something else", "{\"gun\":\"a\"}\n", "{}\n"] {
            std::fs::write(&path, other).unwrap();
            assert!(matches!(open("https://s"), Err(JournalError::Form { .. })), "{other}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), other, "another file stays as it is");
        }
        std::fs::write(&path, "{\"journal\":\"count").unwrap();
        open("https://s").unwrap();
    }
}
