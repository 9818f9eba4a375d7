//! The folder of one repository: files that are there whole or not at all, and the record of where each
//! came from.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::fetch::Problem;
use super::gun::Gun;

/// Below a repository's folder: the record of what was fetched.
pub(super) const RECORD: &str = "record.json";
/// Below a repository's folder: the files that clients ask for.
pub(super) const FILES: &str = "tuf";
/// What unfinished files are called by.
const UNFINISHED: &str = ".countersign-";
/// The largest record that is read.
const RECORD_LIMIT: u64 = 64 * 1024 * 1024;

/// What came of one repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All that the server's metadata names is in the folder.
    Complete,
    /// Something is; the problems say what is not.
    Incomplete,
    /// The server has no trust data under this name.
    Missing,
    /// The server does not let these credentials read it.
    Forbidden,
    /// Nothing could be had; the problems say why.
    Failed,
}

/// One file and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// SHA-256 of its bytes, in lower-case hex.
    pub sha256: String,
    /// Its length in bytes.
    pub length: u64,
    /// When it was fetched (RFC 3339).
    pub fetched: String,
    /// Where it came from, after redirects.
    pub url: String,
    /// The headers of the answer, as they came.
    pub headers: Vec<(String, String)>,
}

/// All about one repository's copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GunRecord {
    /// The repository.
    pub gun: String,
    /// The trust server that was asked last.
    pub server: String,
    /// What came of it when it was asked last.
    pub state: State,
    /// When it was asked last (RFC 3339).
    pub asked: String,
    /// What is wrong, if something is.
    pub problems: Vec<Problem>,
    /// By path below `tuf/`.
    pub files: BTreeMap<String, FileRecord>,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}", path.display())]
pub struct FolderError {
    /// What was tried.
    pub doing: &'static str,
    /// With what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// What became of a file that must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// It is there now, or was there already.
    Same,
    /// Other bytes were there, and still are.
    Differs,
}

/// One repository's folder.
#[derive(Debug)]
pub(super) struct GunFolder {
    path: PathBuf,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError { doing, path: path.to_owned(), source }
}

impl GunFolder {
    /// Opens the folder of a repository below `top`, which need not be there yet.
    pub(super) fn new(top: &Path, gun: &Gun) -> Self {
        Self { path: top.join(gun.folder()) }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(FILES).join(name)
    }

    /// Returns the bytes of a file, if it is there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, FolderError> {
        let path = self.file(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("reading", &path)(e)),
        }
    }

    /// Stores a file whose name says which one it is (by hash, by version): it never changes.
    pub(super) fn keep(&self, name: &str, bytes: &[u8]) -> Result<Kept, FolderError> {
        match self.read(name)? {
            Some(there) if there == bytes => Ok(Kept::Same),
            Some(_) => Ok(Kept::Differs),
            None => self.replace(name, bytes).map(|()| Kept::Same),
        }
    }

    /// Stores a file in the place of the present one, if there is one.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        write(&self.file(name), bytes)
    }

    /// Takes away what a process that was killed has left unfinished.
    pub(super) fn sweep(&self) {
        sweep(&self.path, 3);
    }

    /// Returns the record of earlier fetches; one that cannot be read is none.
    pub(super) fn record(&self) -> Option<GunRecord> {
        read_record(&self.path.join(RECORD)).ok()
    }

    /// Stores the record.
    pub(super) fn write_record(&self, record: &GunRecord) -> Result<(), FolderError> {
        let path = self.path.join(RECORD);
        let json =
            crate::escape::json::to_string(record).map_err(io::Error::other).map_err(failed("writing", &path))?;
        write(&path, format!("{json}\n").as_bytes())
    }
}

/// Reads a record.
pub(super) fn read_record(path: &Path) -> io::Result<GunRecord> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(RECORD_LIMIT).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(io::Error::other)
}

/// Writes a file that is there whole or not at all, and durable when this returns.
///
/// # Errors
/// [`FolderError`].
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), FolderError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed("creating", folder))?;
    let written = || -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        std::fs::File::open(folder)?.sync_all()
    };
    written().map_err(failed("writing", path))
}

fn sweep(folder: &Path, depth: usize) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED)) {
            let _ = std::fs::remove_file(entry.path());
        } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sweep(&entry.path(), depth - 1);
        }
    }
}

/// Returns the SHA-256 of bytes in lower-case hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_must_not_change_do_not() {
        let top = tempfile::tempdir().unwrap();
        let folder = GunFolder::new(top.path(), &Gun::parse("a.example/b").unwrap());
        assert_eq!(folder.read("root.json").unwrap(), None);
        assert_eq!(folder.keep("targets/1.json", b"one").unwrap(), Kept::Same);
        assert_eq!(folder.keep("targets/1.json", b"one").unwrap(), Kept::Same);
        assert_eq!(folder.keep("targets/1.json", b"two").unwrap(), Kept::Differs);
        assert_eq!(folder.read("targets/1.json").unwrap().unwrap(), b"one");
        assert!(top.path().join("a.example/b/_trust/tuf/targets/1.json").is_file());
        let left = top.path().join("a.example/b/_trust/tuf/targets/.countersign-x");
        std::fs::write(&left, "half").unwrap();
        folder.sweep();
        assert!(!left.exists() && folder.read("targets/1.json").unwrap().is_some());
    }
}
