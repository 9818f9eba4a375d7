//! The manifest of a folder: every file of every repository with its hash, time and source, in one
//! document that a time stamp can be put on.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::folder::{RECORD, read_record};

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

/// Gathers the records of all repositories below `top` into `manifest.json`, in the order of their
/// names. One record is in memory at a time. An older manifest that says something else stays under
/// the name `manifest-{hash}.json`, with its time stamp, which proves what it proved.
///
/// # Errors
/// [`ManifestError`].
pub fn write_manifest(top: &Path) -> Result<Manifest, ManifestError> {
    let path = top.join(MANIFEST);
    let file = tempfile::Builder::new()
        .prefix(".countersign-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(top)
        .map_err(failed(top))?;
    let mut out = Hashing { inner: io::BufWriter::new(file), hash: Sha256::new() };
    let mut guns = 0;
    let written = (|| -> io::Result<()> {
        writeln!(out, "{{\"format\":\"{FORMAT}\",\"guns\":[")?;
        gather(top, 0, &mut |record| {
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
    if let Some(old) = there {
        set_aside(top, &old).map_err(failed(&path))?;
    }
    let kept = file.as_file().sync_all().and_then(|()| file.persist(&path).map(drop).map_err(|e| e.error));
    kept.map_err(failed(&path))?;
    std::fs::File::open(top).and_then(|folder| folder.sync_all()).map_err(failed(top))?;
    Ok(Manifest { path, sha256, guns, unchanged: false })
}

/// Returns the name of a manifest's time stamp.
pub fn stamp_of(manifest: &Path) -> PathBuf {
    let mut name = manifest.as_os_str().to_owned();
    name.push(".tsr");
    name.into()
}

/// Gives an older manifest, and its time stamp, a name of its own.
fn set_aside(top: &Path, hash: &[u8; 32]) -> io::Result<()> {
    let short: String = hex::encode(hash).chars().take(16).collect();
    let (from, to) = (top.join(MANIFEST), top.join(format!("manifest-{short}.json")));
    match std::fs::rename(stamp_of(&from), stamp_of(&to)) {
        // Without a stamp it proves nothing that the files do not.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        moved => moved?,
    }
    std::fs::hard_link(&from, &to).or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
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

/// Finds the records below a folder, by name.
fn gather(
    folder: &Path,
    depth: usize,
    found: &mut impl FnMut(&super::folder::GunRecord) -> io::Result<()>,
) -> io::Result<()> {
    let mut folders: Vec<_> = std::fs::read_dir(folder)?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name())
        .collect();
    folders.sort();
    for name in folders {
        let path = folder.join(&name);
        if name != "_trust" {
            if depth < DEPTH {
                gather(&path, depth + 1, found)?;
            }
            continue;
        }
        match read_record(&path.join(RECORD)) {
            Ok(record) => found(&record)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(io::Error::other(format!("{}: {e}", path.join(RECORD).display()))),
        }
    }
    Ok(())
}
