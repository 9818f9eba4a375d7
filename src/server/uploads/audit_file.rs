//! The file of the audit log: JSON lines, each written at once, and refusals only while there is room.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the log says that refusals are not written.
const COMPLAINT: Duration = Duration::from_secs(60);

/// The file of JSON lines. It is opened for each line, so that it may be moved away at any time.
pub(crate) struct AuditFile {
    path: PathBuf,
    /// Whether the last line was not written whole; at first nobody knows, for an earlier process
    /// may have died over it.
    torn: Mutex<Option<bool>>,
    /// How many bytes the disk keeps for changes.
    reserve: u64,
    /// When the log last said that refusals are not written.
    complained: Mutex<Option<Instant>>,
}

impl AuditFile {
    /// The file at `path`, on whose disk so many bytes are kept for changes.
    pub(crate) fn new(path: &Path, reserve: u64) -> Self {
        Self { path: path.to_owned(), torn: Mutex::new(None), reserve, complained: Mutex::new(None) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line about refusals, if the disk has enough room for changes without it. Tells
    /// whether it is there.
    pub(crate) fn append_refused(&self, line: &[u8]) -> bool {
        let why = match self.check_reserve().and_then(|()| self.append(line, false)) {
            Ok(()) => return true,
            Err(error) => error.to_string(),
        };
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
            *complained = Some(Instant::now());
            tracing::warn!(path = %self.path.display(), why, "refused requests are not written to the audit log");
        }
        false
    }

    /// Makes sure that the disk has more left than is kept for changes by those whom the operator knows.
    ///
    /// # Errors
    /// It has less left.
    pub(crate) fn check_reserve(&self) -> std::io::Result<()> {
        match self.left() {
            Some(left) if left < self.reserve => Err(std::io::Error::new(
                std::io::ErrorKind::StorageFull,
                "the disk has less left than audit_reserve_mib",
            )),
            _ => Ok(()),
        }
    }

    /// How many bytes the disk has left, if it tells.
    fn left(&self) -> Option<u64> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The file may have been moved away.
        let found = rustix::fs::statvfs(&self.path).or_else(|_| rustix::fs::statvfs(folder)).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Appends one line by one write, so that several processes may share the file.
    pub(crate) fn append(&self, line: &[u8], durably: bool) -> std::io::Result<()> {
        let mut torn = self.torn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = open(&self.path)?;
        let mut whole = Vec::with_capacity(line.len() + 1);
        let is_torn = match *torn {
            Some(false) => false,
            // Another process may have ended the line since.
            maybe => ends_torn(&self.path).unwrap_or(maybe == Some(true)),
        };
        if is_torn {
            whole.push(b'\n');
        }
        whole.extend_from_slice(line);
        let written = file.write(&whole)?;
        let is_torn = written < whole.len();
        *torn = Some(is_torn);
        if is_torn {
            return Err(std::io::Error::new(std::io::ErrorKind::StorageFull, "the line was not written whole"));
        }
        if durably {
            file.sync_data()?;
        }
        Ok(())
    }
}

/// Tells whether a file's last line has no end.
fn ends_torn(path: &Path) -> std::io::Result<bool> {
    let found = std::fs::metadata(path)?;
    if !found.is_file() || found.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, found.len() - 1)?;
    Ok(last != *b"\n")
}

/// Opens the file; a new one is also made to stay in its folder.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true);
    match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let file = options.create(true).mode(0o640).open(path)?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder)?.sync_all()?;
            Ok(file)
        }
        opened => opened,
    }
}

/// Makes sure that the audit log can be written.
///
/// # Errors
/// What the system says.
pub fn check_audit_log(path: &Path) -> std::io::Result<()> {
    open(path).map(drop)
}
