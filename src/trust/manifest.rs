//! The manifest of a folder: every file of every repository with its hash, time and source, in one
//! document that a time stamp can be put on.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::folder::{FILES, FileRecord, FolderError, GunRecord, RECORD, State, UNFINISHED, read_record, write};
use super::problem::{Problem, ProblemKind};

/// The manifest's name in the folder of all repositories.
pub const MANIFEST: &str = "manifest.json";
const FORMAT: &str = "countersign trust manifest 1";
/// How deep repositories' folders may lie.
const DEPTH: usize = 64;

/// A written manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// How many repositories it tells of.
    pub guns: u64,
    /// It was there already: nothing has changed since.
    pub unchanged: bool,
}

/// Why there is no manifest.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct ManifestError {
    /// What was read or written.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ManifestError {
    move |source| ManifestError { path: path.to_owned(), source }
}

/// Writes bytes on, and hashes them.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: io::Write> io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes `manifest.json`: every file of every repository below `top`, as it is on the disk now, with the source
/// that its record names, in the order of the repositories' names. One repository is in memory at a time.
///
/// A manifest that has a time stamp is never lost: before another one takes its place, both get names with its hash,
/// `manifest-{hash}.json` and `manifest-{hash}.json.tsr`.
///
/// # Errors
/// [`ManifestError`].
pub fn write_manifest(top: &Path) -> Result<Manifest, ManifestError> {
    let path = top.join(MANIFEST);
    sweep_top(top);
    let file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(top)
        .map_err(failed(top))?;
    let mut out = Hashing { inner: io::BufWriter::new(file), hash: Sha256::new() };
    let mut guns = 0;
    let written = (|| -> io::Result<()> {
        writeln!(out, "{{\"format\":\"{FORMAT}\",\"guns\":[")?;
        gather(top, top, 0, &mut |record| {
            if guns > 0 {
                writeln!(out, ",")?;
            }
            guns += 1;
            let json = crate::escape::json::to_string(record)?;
            out.write_all(json.as_bytes())
        })?;
        writeln!(out, "\n]}}")?;
        out.flush()
    })();
    written.map_err(failed(&path))?;
    let sha256 = out.hash.finalize().into();
    let file = out.inner.into_inner().map_err(|e| failed(&path)(e.into_error()))?;
    let there = hash_of(&path).map_err(failed(&path))?;
    if there == Some(sha256) {
        return Ok(Manifest { path, sha256, guns, unchanged: true });
    }
    let stamp = stamp_of(&path);
    let is_stamped = std::fs::exists(&stamp).map_err(failed(&stamp))?;
    if let Some(old) = there.filter(|_| is_stamped) {
        let aside = keep_by_hash(&path, &old)?;
        keep_beside(&stamp, &stamp_of(&aside))?;
    }
    let kept = file.as_file().sync_all().and_then(|()| file.persist(&path).map(drop).map_err(|e| e.error));
    kept.map_err(failed(&path))?;
    if is_stamped {
        std::fs::remove_file(&stamp).map_err(failed(&stamp))?;
    }
    std::fs::File::open(top).and_then(|folder| folder.sync_all()).map_err(failed(top))?;
    Ok(Manifest { path, sha256, guns, unchanged: false })
}

/// Stores a time stamp of a manifest as `manifest.json.tsr` and under a name with the manifest's hash. No other
/// time stamp is overwritten.
///
/// # Errors
/// [`ManifestError`].
pub fn keep_stamp(manifest: &Manifest, stamp: &[u8]) -> Result<PathBuf, ManifestError> {
    let path = stamp_of(&manifest.path);
    let failed = |source: FolderError| ManifestError { path: source.path, source: source.source };
    let aside = stamp_of(&keep_by_hash(&manifest.path, &manifest.sha256)?);
    if path.exists() {
        // Of an older manifest, or by an authority that is not trusted any more.
        keep_beside(&path, &aside)?;
    }
    write(&path, stamp).map_err(failed)?;
    keep_beside(&path, &aside)?;
    Ok(path)
}

/// Gives a manifest a second name, with its hash, and returns that.
fn keep_by_hash(path: &Path, hash: &[u8; 32]) -> Result<PathBuf, ManifestError> {
    let short: String = hex::encode(hash).chars().take(16).collect();
    let aside = path.with_file_name(format!("manifest-{short}.json"));
    match std::fs::hard_link(path, &aside) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        linked => linked.map_err(failed(&aside))?,
    }
    Ok(aside)
}

/// Gives a time stamp a second name: `to`, or, where that is taken by another one, `to` with a number.
fn keep_beside(from: &Path, to: &Path) -> Result<(), ManifestError> {
    let hash = hash_of(from).map_err(failed(from))?;
    for number in 0..1000 {
        let mut name = to.as_os_str().to_owned();
        if number > 0 {
            name.push(format!(".{number}"));
        }
        match std::fs::hard_link(from, &name) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(to)(e)),
            Err(_) if hash_of(Path::new(&name)).map_err(failed(to))? == hash => return Ok(()),
            Err(_) => {}
        }
    }
    Err(failed(to)(io::ErrorKind::AlreadyExists.into()))
}

/// Removes manifests that a killed process has left unfinished.
fn sweep_top(top: &Path) {
    for entry in std::fs::read_dir(top).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(UNFINISHED)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Returns the name of a manifest's time stamp.
pub fn stamp_of(manifest: &Path) -> PathBuf {
    let mut name = manifest.as_os_str().to_owned();
    name.push(".tsr");
    name.into()
}

fn hash_of(path: &Path) -> io::Result<Option<[u8; 32]>> {
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut hash = Hashing { inner: io::sink(), hash: Sha256::new() };
    io::copy(&mut file, &mut hash)?;
    Ok(Some(hash.hash.finalize().into()))
}

/// Finds the repositories below a folder, by name.
fn gather(
    top: &Path,
    folder: &Path,
    depth: usize,
    found: &mut impl FnMut(&GunRecord) -> io::Result<()>,
) -> io::Result<()> {
    let mut folders: Vec<_> = std::fs::read_dir(folder)?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name())
        .collect();
    folders.sort();
    for name in folders {
        let path = folder.join(&name);
        if name == "_trust" {
            let gun = folder.strip_prefix(top).unwrap_or(folder).to_string_lossy();
            if let Some(record) = on_disk(&path, &gun)? {
                found(&record)?;
            }
        } else if depth < DEPTH {
            gather(top, &path, depth + 1, found)?;
        }
    }
    Ok(())
}

/// Returns what is in a repository's folder, with the sources that its record names. `None` if there is nothing.
fn on_disk(folder: &Path, gun: &str) -> io::Result<Option<GunRecord>> {
    let files_folder = folder.join(FILES);
    let mut found = BTreeMap::new();
    files(&files_folder, &files_folder, &mut found)?;
    let unrecorded = |reason: String| GunRecord {
        gun: gun.to_owned(),
        server: String::new(),
        state: State::Incomplete,
        asked: String::new(),
        problems: vec![Problem::new(ProblemKind::Store, RECORD, reason)],
        files: BTreeMap::new(),
    };
    let mut record = match read_record(&folder.join(RECORD)) {
        Ok(record) => record,
        Err(e) if e.kind() == io::ErrorKind::NotFound && found.is_empty() => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            unrecorded("the fetch was interrupted before it recorded its sources; fetch again".to_owned())
        }
        Err(e) => unrecorded(format!("it cannot be read, so the sources are unknown; fetch again: {e}")),
    };
    let recorded = std::mem::take(&mut record.files);
    for (name, file) in &recorded {
        if found.get(name).is_none_or(|there| there.sha256 != file.sha256) {
            record.state = record.state.max(State::Incomplete);
            let reason = "the file is missing or was changed since it was fetched; fetch again";
            record.problems.push(Problem::new(ProblemKind::Store, name, reason));
        }
    }
    for (name, there) in &mut found {
        if let Some(known) = recorded.get(name).filter(|known| known.sha256 == there.sha256) {
            *there = known.clone();
        }
    }
    record.files = found;
    Ok(Some(record))
}

/// Hashes the files below a folder.
fn files(top: &Path, folder: &Path, found: &mut BTreeMap<String, FileRecord>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            files(top, &path, found)?;
        } else if kind.is_file()
            && !entry.file_name().to_string_lossy().starts_with(UNFINISHED)
            && let Some(hash) = hash_of(&path)?
            && let Some(name) = path.strip_prefix(top).ok().and_then(Path::to_str)
        {
            let length = entry.metadata()?.len();
            let file = FileRecord { sha256: hex::encode(hash), length, fetched: None, url: None, headers: Vec::new() };
            found.insert(name.to_owned(), file);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuf(top: &Path, file: &str, bytes: &str) {
        let path = top.join("a.example/b/_trust/tuf").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn manifest(top: &Path) -> serde_json::Value {
        write_manifest(top).unwrap();
        serde_json::from_slice(&std::fs::read(top.join(MANIFEST)).unwrap()).unwrap()
    }

    #[test]
    fn says_what_is_on_the_disk_when_the_record_is_missing_or_wrong() {
        let top = tempfile::tempdir().unwrap();
        tuf(top.path(), "root.json", "{}");
        let found = manifest(top.path());
        let gun = &found["guns"][0];
        assert_eq!((&gun["gun"], &gun["state"]), (&"a.example/b".into(), &"incomplete".into()));
        assert_eq!(gun["files"]["root.json"]["length"], 2);
        let record = top.path().join("a.example/b/_trust/record.json");
        std::fs::write(&record, "{").unwrap();
        assert!(manifest(top.path())["guns"][0]["problems"][0]["reason"].as_str().unwrap().contains("cannot be read"));
        let file = r#"{"sha256":"00","length":1,"fetched":"t","url":"u","headers":[]}"#;
        let text = format!(
            r#"{{"gun":"a.example/b","server":"s","state":"complete","asked":"t","problems":[],"files":{{"root.json":{file}}}}}"#
        );
        std::fs::write(&record, text).unwrap();
        let gun = &manifest(top.path())["guns"][0];
        assert_eq!(gun["state"], "incomplete");
        assert_eq!(gun["files"]["root.json"]["length"], 2);
    }

    #[test]
    fn stamped_manifests_are_never_lost() {
        let top = tempfile::tempdir().unwrap();
        tuf(top.path(), "root.json", "{}");
        let first = write_manifest(top.path()).unwrap();
        keep_stamp(&first, b"stamp one").unwrap();
        keep_stamp(&first, b"stamp two").unwrap();
        tuf(top.path(), "targets.json", "{}");
        let second = write_manifest(top.path()).unwrap();
        assert!(!second.unchanged && !stamp_of(&second.path).exists());
        let mut kept: Vec<_> = std::fs::read_dir(top.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        kept.sort();
        let short = hex::encode(first.sha256)[..16].to_owned();
        let aside = format!("manifest-{short}.json");
        let wanted = ["a.example", &aside, &format!("{aside}.tsr"), &format!("{aside}.tsr.1"), MANIFEST];
        assert_eq!(kept, wanted.map(std::ffi::OsString::from));
        let hash = hash_of(&top.path().join(&aside)).unwrap().unwrap();
        assert_eq!(hash, first.sha256);
        assert_eq!(std::fs::read(top.path().join(format!("{aside}.tsr"))).unwrap(), b"stamp one");
        assert_eq!(std::fs::read(top.path().join(format!("{aside}.tsr.1"))).unwrap(), b"stamp two");
    }
}
