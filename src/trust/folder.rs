//! The folder of one repository: files that are there whole or not at all, and the record of where each
//! came from.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::gun::Gun;
use super::metadata::{Kind, Metadata};
use super::problem::Problem;

/// Below a repository's folder: the record of what was fetched.
pub(super) const RECORD: &str = "record.json";
/// Below a repository's folder: the files that clients ask for.
pub(super) const FILES: &str = "tuf";
/// What unfinished files are called by.
pub(super) const UNFINISHED: &str = ".countersign-";
/// How deep below a repository's folder unfinished files can lie: as deep as the longest name of a role.
const SWEEP_DEPTH: usize = 130;
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
    /// When it was fetched first (RFC 3339); `None` if a fetch was killed before it could record that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched: Option<String>,
    /// Where it came from then, after redirects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The headers of the response.
    #[serde(default)]
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

impl GunRecord {
    /// Adds a later attempt. What was fetched earlier stays; an attempt that got nothing does not change the state,
    /// which says what is in the folder.
    pub(super) fn followed_by(self, mut later: Self) -> Self {
        if matches!(later.state, State::Missing | State::Forbidden | State::Failed) {
            later.state = self.state;
        }
        for (path, file) in self.files {
            later.files.entry(path).or_insert(file);
        }
        later
    }
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
    /// The folder has the file now.
    Same,
    /// The folder has another good file under this name, and still has it.
    Differs,
}

/// The folder of one repository.
#[derive(Debug)]
pub(super) struct GunFolder {
    top: PathBuf,
    /// Below `top`.
    inside: PathBuf,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError { doing, path: path.to_owned(), source }
}

impl GunFolder {
    /// Names the folder of a repository below `top`; it need not exist yet.
    pub(super) fn new(top: &Path, gun: &Gun) -> Self {
        Self { top: top.to_owned(), inside: gun.folder() }
    }

    fn path(&self) -> PathBuf {
        self.top.join(&self.inside)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join(FILES).join(name)
    }

    /// Refuses symbolic links on the way to the files: whoever made them decides where files are written.
    pub(super) fn check_links(&self) -> Result<(), FolderError> {
        let mut path = self.top.clone();
        for part in self.inside.components().chain(Path::new(FILES).components()) {
            path.push(part);
            match std::fs::symlink_metadata(&path) {
                Ok(found) if found.is_symlink() => {
                    let reason = io::Error::other("it is a symbolic link, and no file is written through one");
                    return Err(failed("using", &path)(reason));
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(e) => return Err(failed("opening", &path)(e)),
            }
        }
        Ok(())
    }

    /// Returns the bytes of a file, if it exists.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, FolderError> {
        let path = self.file(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("reading", &path)(e)),
        }
    }

    /// Returns the current file of a role with its hash; `None` if there is none, or only one that cannot be read.
    pub(super) fn current(&self, role: &str, kind: Kind) -> Result<Option<(Metadata, String)>, FolderError> {
        let there = self.read(&format!("{role}.json"))?;
        Ok(there.and_then(|there| Some((Metadata::parse(&there, kind).ok()?, sha256(&there)))))
    }

    /// Tells whether clients can read the folder: the timestamp leads to a snapshot, and that to a file of each role.
    pub(super) fn is_whole(&self) -> bool {
        let by_hash = |role: &str, hash: &str| {
            let bytes = self.read(&format!("{role}.{hash}.json")).ok().flatten()?;
            (sha256(&bytes) == hash).then_some(bytes)
        };
        let whole = || -> Option<bool> {
            let (timestamp, _) = self.current("timestamp", Kind::Timestamp).ok()??;
            let snapshot = by_hash("snapshot", &timestamp.meta.get("snapshot")?.sha256)?;
            let snapshot = Metadata::parse(&snapshot, Kind::Snapshot).ok()?;
            self.current("root", Kind::Root).ok()??;
            Some(snapshot.meta.iter().all(|(role, named)| by_hash(role, &named.sha256).is_some()))
        };
        whole().unwrap_or(false)
    }

    /// Returns the highest version of root in the folder.
    pub(super) fn highest_root(&self) -> Option<u64> {
        let entries = std::fs::read_dir(self.path().join(FILES)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| name.strip_suffix(".root.json")?.parse().ok()).max()
    }

    /// Stores a file whose name says which one it is (by hash, by version). A good file under this name stays; the
    /// remains of a crash or of a broken disk are replaced.
    pub(super) fn keep(&self, name: &str, bytes: &[u8], is_good: impl Fn(&[u8]) -> bool) -> Result<Kept, FolderError> {
        match self.read(name)? {
            Some(there) if there == bytes => Ok(Kept::Same),
            Some(there) if is_good(&there) => Ok(Kept::Differs),
            _ => self.replace(name, bytes).map(|()| Kept::Same),
        }
    }

    /// Stores a file in the place of the present one, if there is one.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
        write(&self.file(name), bytes)
    }

    /// Removes what a process that was killed has left unfinished.
    pub(super) fn sweep(&self) {
        sweep(&self.path(), SWEEP_DEPTH);
    }

    /// Returns the record of earlier fetches. One that cannot be read is set aside, and the files are judged anew.
    pub(super) fn record(&self) -> Option<GunRecord> {
        let path = self.path().join(RECORD);
        match read_record(&path) {
            Ok(record) => Some(record),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let _ = std::fs::rename(&path, path.with_extension("json.unreadable"));
                }
                None
            }
        }
    }

    /// Stores the record.
    pub(super) fn write_record(&self, record: &GunRecord) -> Result<(), FolderError> {
        let path = self.path().join(RECORD);
        let json =
            crate::escape::json::to_string(record).map_err(io::Error::other).map_err(failed("writing", &path))?;
        write(&path, format!("{json}\n").as_bytes())
    }

    /// Tells whether the record says that everything was fetched, and every file that it names has its length.
    pub(super) fn is_complete(&self) -> bool {
        let has = |(name, file): (&String, &FileRecord)| {
            std::fs::symlink_metadata(self.file(name)).is_ok_and(|found| found.is_file() && found.len() == file.length)
        };
        read_record(&self.path().join(RECORD))
            .is_ok_and(|record| record.state == State::Complete && record.files.iter().all(has))
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
    create_durably(folder).map_err(failed("creating", folder))?;
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

/// Creates a folder and its parents, all durable when this returns.
fn create_durably(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_durably(parent)?;
    match std::fs::create_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    std::fs::File::open(parent)?.sync_all()
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

    fn folder(top: &Path) -> GunFolder {
        GunFolder::new(top, &Gun::parse("a.example/b").unwrap())
    }

    #[test]
    fn keeps_good_files_and_repairs_torn_ones() {
        let top = tempfile::tempdir().unwrap();
        let folder = folder(top.path());
        let is_good = |there: &[u8]| there != b"to";
        assert_eq!(folder.read("root.json").unwrap(), None);
        assert_eq!(folder.keep("targets/1.json", b"one", is_good).unwrap(), Kept::Same);
        assert_eq!(folder.keep("targets/1.json", b"two", is_good).unwrap(), Kept::Differs);
        assert_eq!(folder.read("targets/1.json").unwrap().unwrap(), b"one");
        std::fs::write(top.path().join("a.example/b/_trust/tuf/targets/1.json"), "to").unwrap();
        assert_eq!(folder.keep("targets/1.json", b"two", is_good).unwrap(), Kept::Same);
        assert_eq!(folder.read("targets/1.json").unwrap().unwrap(), b"two");
        let left = top.path().join("a.example/b/_trust/tuf/targets/a/b/c/d/e");
        std::fs::create_dir_all(&left).unwrap();
        std::fs::write(left.join(".countersign-x"), "half").unwrap();
        folder.sweep();
        assert!(!left.join(".countersign-x").exists() && folder.read("targets/1.json").unwrap().is_some());
    }

    #[test]
    fn writes_through_no_symbolic_link() {
        let (top, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = folder(top.path());
        folder.check_links().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), top.path().join("a.example")).unwrap();
        assert!(folder.check_links().unwrap_err().to_string().contains("symbolic link"));
    }

    #[test]
    fn record_that_cannot_be_read_is_set_aside() {
        let top = tempfile::tempdir().unwrap();
        let folder = folder(top.path());
        folder.replace("root.json", b"{}").unwrap();
        let record = top.path().join("a.example/b/_trust/record.json");
        std::fs::write(&record, "{").unwrap();
        assert_eq!(folder.record(), None);
        assert!(!record.exists() && record.with_extension("json.unreadable").exists());
    }
}
