//! Reading a configuration file as Go's containers/image reads it, but bounded, and only if it is one.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::go;

/// The largest file that is read; the reference has no limit, memory has.
const FILE_LIMIT: u64 = 64 * 1024 * 1024;

/// Why a directory or file of a configuration cannot be read; prints as Go's `PathError` does.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {}", .path.display(), go::error_text(.source))]
pub struct SearchError {
    /// What was tried: `open`, `read`, `readdirent`.
    operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    source: io::Error,
}

impl SearchError {
    pub(crate) fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.to_owned(), source }
    }

    /// Tells whether it could not even be opened, which Podman 6 says without naming its purpose.
    pub(crate) fn is_open(&self) -> bool {
        self.operation == "open"
    }

    /// Tells whether the file is simply not there.
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Reads one file.
///
/// # Errors
/// [`SearchError`] for anything else than an ordinary file that can be read.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, SearchError> {
    let failed = |operation, error| SearchError::new(operation, path, error);
    // Looked at before it is opened, for opening a pipe would wait for ever.
    let meta = fs::metadata(path).map_err(|error| failed("open", error))?;
    if meta.is_dir() {
        return Err(failed("read", io::ErrorKind::IsADirectory.into()));
    }
    if !meta.is_file() {
        return Err(failed("read", io::Error::other("not a regular file")));
    }
    let file = fs::File::open(path).map_err(|error| failed("open", error))?;
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| failed("read", error))?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(failed("read", io::Error::other(format!("exceeds {FILE_LIMIT} bytes"))));
    }
    Ok(bytes)
}
