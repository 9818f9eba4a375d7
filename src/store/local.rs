//! A store in a folder: how a set is read, and how a file comes to be whole, durable and alone.
//!
//! object_store's own file back end is not used: it follows symbolic links out of the tree, fails
//! a whole listing for one odd file name, and two writers of one new folder may be told "stored"
//! before the folder's own entry is on the disk.
//!
//! A file is written beside its name (`signature-1#…`), flushed, hard-linked to its name (which
//! fails when the name exists), and the folders above it are flushed up to the root. A link that
//! leads out of the tree is as good as missing; one that stays inside is followed.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::backend::{Created, Found, Snapshot};
use super::error::StoreError;
use super::layout::{SetAddress, is_leftover, signature_name, signature_number};
use super::lease::{Attempt, Lease};
use super::signatures::{SET_LIMIT, StoredSignature};
use super::staging::Staging;
use crate::signature::BLOB_LIMIT;

/// A write is over within this time; what is older was left by a crash.
const LEFTOVER_AGE: Duration = Duration::from_hours(1);
/// How many folders are remembered as flushed, so that memory does not grow with the tree.
const REMEMBERED: usize = 65_536;

/// A tree in a folder.
#[derive(Debug)]
pub(super) struct LocalTree {
    /// Canonical.
    pub(super) root: PathBuf,
    pub(super) fsync: bool,
    /// Folders whose own entries, up to the root, this process has seen flushed.
    durable: Mutex<HashSet<PathBuf>>,
    counter: AtomicU32,
    pub(super) staging: Staging,
}

/// A set's folder and the numbers in it, in order.
struct Listing {
    folder: PathBuf,
    numbers: Vec<u32>,
}

impl LocalTree {
    /// Opens a folder.
    ///
    /// # Errors
    /// The reason, as text for the user.
    pub(super) fn open(folder: &Path, create: bool, fsync: bool) -> Result<Self, String> {
        match fs::metadata(folder) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err("it is a file, not a directory".to_owned()),
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.to_string()),
            Err(_) if !create => return Err("the directory does not exist; create it first".to_owned()),
            Err(_) => create_root(folder, fsync).map_err(|error| format!("cannot create it: {error}"))?,
        }
        let root = fs::canonicalize(folder).map_err(|error| error.to_string())?;
        Ok(Self { root, fsync, durable: Mutex::default(), counter: AtomicU32::new(0), staging: Staging::default() })
    }

    /// Returns the folder, absolute and without links.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Reads a set. Unless `alone` (the caller has the lease), a shared lock keeps removers out
    /// meanwhile: one could move a file from a number yet to be read to one that was.
    pub(super) fn read(&self, at: &SetAddress, limit: u64, alone: bool) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot { signatures: Vec::new(), shaken: false, missing: false };
        let Some(folder) = self.folder(at)? else { return Ok(snapshot) };
        let guard = if alone { Shared::Kept(None) } else { share(&folder)? };
        snapshot.shaken = matches!(guard, Shared::Moving);
        let Some(listing) = self.list(at, folder)? else { return Ok(snapshot) };
        let mut left = limit;
        for number in listing.numbers {
            match self.read_file(at, &listing.folder.join(signature_name(number)), number, left)? {
                Some(bytes) => {
                    left = left.saturating_sub(bytes.len() as u64);
                    snapshot.signatures.push(StoredSignature { number, bytes });
                }
                None => (snapshot.shaken, snapshot.missing) = (true, true),
            }
        }
        Ok(snapshot)
    }

    /// Looks for `blob` and for the highest number; what is found is flushed before it is told.
    pub(super) fn find(&self, at: &SetAddress, blob: &[u8]) -> Result<Found, StoreError> {
        self.look_for(at, blob, self.fsync)
    }

    /// As [`LocalTree::find`]; without `flush` the caller sees to durability.
    pub(super) fn look_for(&self, at: &SetAddress, blob: &[u8], flush: bool) -> Result<Found, StoreError> {
        let mut found = Found { same: None, highest: 0, unsettled: false };
        let Some(folder) = self.folder(at)? else { return Ok(found) };
        let guard = share(&folder)?;
        found.unsettled = matches!(guard, Shared::Moving);
        let Some(listing) = self.list(at, folder)? else { return Ok(found) };
        found.highest = listing.numbers.last().copied().unwrap_or(0);
        for number in listing.numbers {
            let path = listing.folder.join(signature_name(number));
            // A file of another length is another signature.
            match fs::metadata(&path) {
                Ok(file) if file.len() == blob.len() as u64 => {}
                Ok(_) => continue,
                Err(error) if is_missing(&error) => continue,
                Err(error) => return Err(failed("reading", &path, &error)),
            }
            if self.read_file(at, &path, number, u64::MAX)?.is_some_and(|stored| *stored == *blob) {
                // "Already there" is a promise too: whoever wrote it may not have flushed it yet.
                if flush {
                    let flushed = File::open(&path).and_then(|file| file.sync_all());
                    flushed
                        .and_then(|()| self.flush_folders(&listing.folder))
                        .map_err(|e| failed("flushing", &path, &e))?;
                }
                found.same = Some(number);
                break;
            }
        }
        Ok(found)
    }

    pub(super) fn create(&self, at: &SetAddress, number: u32, blob: &[u8]) -> Result<Created, StoreError> {
        let folder = self.make_folder(at)?;
        let path = folder.join(signature_name(number));
        let (mut file, staged) = self.stage(&path)?;
        let written = file.write_all(blob).and_then(|()| if self.fsync { file.sync_all() } else { Ok(()) });
        drop(file);
        let linked = written.and_then(|()| fs::hard_link(&staged, &path));
        // Before the flush of the folder, so that it is gone for good with the same flush.
        let unstaged = fs::remove_file(&staged);
        match linked {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Created::Taken),
            Err(error) if error.kind() == ErrorKind::Unsupported || error.kind() == ErrorKind::PermissionDenied => {
                let reason = format!("{error} (a store needs a file system with hard links)");
                return Err(StoreError::unavailable(format!("writing {}", path.display()), reason));
            }
            Err(error) => return Err(failed("writing", &path, &error)),
        }
        if let Err(error) = unstaged {
            tracing::warn!(file = %staged.display(), %error, "a staging file could not be removed; `store repair` does it");
        }
        if self.fsync {
            self.flush_folders(&folder).map_err(|error| failed("flushing", &folder, &error))?;
        }
        let before = number.saturating_sub(1);
        if before > 0 && fs::symlink_metadata(folder.join(signature_name(before))).is_err_and(|e| is_missing(&e)) {
            return Ok(Created::AfterGap);
        }
        Ok(Created::Done)
    }

    pub(super) fn delete(&self, at: &SetAddress, number: u32) -> Result<(), StoreError> {
        let Some(folder) = self.folder(at)? else { return Ok(()) };
        let path = folder.join(signature_name(number));
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if is_missing(&error) => return Ok(()),
            Err(error) => return Err(failed("deleting", &path, &error)),
        }
        if self.fsync {
            flush(&folder).map_err(|error| failed("flushing", &folder, &error))?;
        }
        Ok(())
    }

    pub(super) fn try_lease(&self, at: &SetAddress) -> Result<Attempt, StoreError> {
        let Some(path) = self.folder(at)? else { return Ok(Attempt::NoSet) };
        let folder = match File::open(&path) {
            Ok(folder) => folder,
            Err(error) if is_missing(&error) => return Ok(Attempt::NoSet),
            Err(error) => return Err(failed("opening", &path, &error)),
        };
        match folder.try_lock() {
            Ok(()) => Ok(Attempt::Taken(Lease::folder(folder))),
            Err(TryLockError::WouldBlock) => Ok(Attempt::Busy),
            Err(TryLockError::Error(error)) => Err(failed("locking", &path, &error)),
        }
    }

    pub(super) fn sweep(&self, at: &SetAddress) -> Result<u32, StoreError> {
        let Some(folder) = self.folder(at)? else { return Ok(0) };
        let mut swept = 0;
        for entry in entries(&folder)?.into_iter().flatten() {
            let entry = entry.map_err(|error| failed("listing", &folder, &error))?;
            if !entry.file_name().to_str().is_some_and(is_leftover) {
                continue;
            }
            let age = |found: fs::Metadata| SystemTime::now().duration_since(found.modified().ok()?).ok();
            let old = entry.metadata().ok().and_then(age).is_some_and(|age| age > LEFTOVER_AGE);
            if old && fs::remove_file(entry.path()).is_ok() {
                swept += 1;
            }
        }
        Ok(swept)
    }

    /// Tells whether a set's folder holds any signature; the walk asks it.
    pub(super) fn holds_signature(&self, folder: &Path) -> Result<bool, StoreError> {
        for entry in entries(folder)?.into_iter().flatten() {
            let entry = entry.map_err(|error| failed("listing", folder, &error))?;
            if self.number_of(&entry)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Follows a link: the folder or file it leads to, if that exists and lies inside the tree.
    pub(super) fn inside(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        // Mostly there is no link at all, and then one call tells that; links are resolved step by step.
        let canonical = if path.starts_with(&self.root) && is_without_links(path) {
            Ok(path.to_owned())
        } else {
            fs::canonicalize(path)
        };
        match canonical {
            Ok(target) if target.starts_with(&self.root) => Ok(Some(target)),
            Ok(_) => Ok(None),
            Err(error) if is_missing(&error) => {
                // The tree itself being gone (a lost mount) is a failure, not an empty store.
                fs::metadata(&self.root).map_err(|error| failed("reading", &self.root, &error))?;
                Ok(None)
            }
            Err(error) => Err(failed("reading", path, &error)),
        }
    }

    /// Returns a set's existing folder.
    fn folder(&self, at: &SetAddress) -> Result<Option<PathBuf>, StoreError> {
        self.inside(&self.root.join(at.to_string()))
    }

    fn list(&self, at: &SetAddress, folder: PathBuf) -> Result<Option<Listing>, StoreError> {
        let Some(found) = entries(&folder)? else { return Ok(None) };
        let mut numbers = Vec::new();
        for entry in found {
            let entry = entry.map_err(|error| failed("listing", &folder, &error))?;
            if let Some(number) = self.number_of(&entry)? {
                if numbers.len() >= SET_LIMIT {
                    return Err(StoreError::TooMany { at: at.to_string(), limit: format!("{SET_LIMIT} signatures") });
                }
                numbers.push(number);
            } else {
                self.staging.take_away(&entry);
            }
        }
        numbers.sort_unstable();
        Ok(Some(Listing { folder, numbers }))
    }

    /// Returns the number of a signature's file, `None` for anything foreign.
    fn number_of(&self, entry: &fs::DirEntry) -> Result<Option<u32>, StoreError> {
        let Some(number) = entry.file_name().to_str().and_then(signature_number) else { return Ok(None) };
        let path = entry.path();
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed("reading", &path, &error)),
        };
        let counts =
            kind.is_file() || (kind.is_symlink() && self.inside(&path)?.is_some_and(|target| target.is_file()));
        Ok(counts.then_some(number.get()))
    }

    /// Reads one file; `None` when it is gone by now.
    fn read_file(&self, at: &SetAddress, path: &Path, number: u32, left: u64) -> Result<Option<Bytes>, StoreError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(failed("reading", path, &error)),
        };
        let length = file.metadata().map_err(|error| failed("reading", path, &error))?.len();
        let limit = left.min(BLOB_LIMIT as u64);
        let mut bytes = Vec::with_capacity(usize::try_from(length.min(limit)).unwrap_or(0).saturating_add(1));
        // A file may grow between the two calls: what counts is what was read.
        (&mut file).take(limit + 1).read_to_end(&mut bytes).map_err(|error| failed("reading", path, &error))?;
        if bytes.len() > BLOB_LIMIT {
            return Err(StoreError::TooLarge(format!("{at}/{}", signature_name(number))));
        }
        if bytes.len() as u64 > limit {
            return Err(StoreError::TooMany {
                at: at.to_string(),
                limit: "the bytes that are read of one set".to_owned(),
            });
        }
        Ok(Some(bytes.into()))
    }

    /// Makes a set's folder, never through a link that leads out of the tree.
    pub(super) fn make_folder(&self, at: &SetAddress) -> Result<PathBuf, StoreError> {
        self.make_path(at, &at.to_string())
    }

    /// Makes a folder of the tree for the sake of a set.
    pub(super) fn make_path(&self, at: &SetAddress, path: &str) -> Result<PathBuf, StoreError> {
        let wanted = self.root.join(path);
        let mut existing = wanted.as_path();
        let base = loop {
            match fs::canonicalize(existing) {
                Ok(base) if base.starts_with(&self.root) => break base,
                Ok(_) => return Err(StoreError::unwritable(at, "a symbolic link leads out of the store")),
                Err(error) if error.kind() == ErrorKind::NotFound && existing != self.root => {}
                Err(error) => return Err(unwritable(at, existing, &error)),
            }
            existing = existing.parent().unwrap_or(&self.root);
        };
        let mut folder = base;
        let below = wanted.strip_prefix(existing).unwrap_or(Path::new(""));
        for component in below.components() {
            folder.push(component);
            match fs::create_dir(&folder) {
                Ok(()) => {
                    self.durable.lock().unwrap_or_else(PoisonError::into_inner).remove(&folder);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(unwritable(at, &folder, &error)),
            }
        }
        Ok(folder)
    }

    /// Opens a fresh file beside `path`, under a name that readers ignore.
    pub(super) fn stage(&self, path: &Path) -> Result<(File, PathBuf), StoreError> {
        loop {
            let count = self.counter.fetch_add(1, Ordering::Relaxed);
            let mut name = path.as_os_str().to_owned();
            name.push(format!("#{}", self.staging.suffix(count)));
            let staged = PathBuf::from(name);
            match OpenOptions::new().write(true).create_new(true).open(&staged) {
                Ok(file) => return Ok((file, staged)),
                // A process of the same number on another machine, or before a restart.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed("writing", path, &error)),
            }
        }
    }

    /// Flushes a set's folder, and every folder above whose entry might not be on the disk yet:
    /// also one that another process has just made.
    fn flush_folders(&self, folder: &Path) -> io::Result<()> {
        flush(folder)?;
        let mut fresh = Vec::new();
        for below in folder.ancestors().take_while(|below| *below != self.root) {
            if self.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(below) {
                break;
            }
            let Some(above) = below.parent() else { break };
            flush(above)?;
            // Sets are many and written once or twice; the folders above them are few.
            if below != folder {
                fresh.push(below.to_owned());
            }
        }
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        if durable.len() + fresh.len() > REMEMBERED {
            durable.clear();
        }
        durable.extend(fresh);
        Ok(())
    }
}

/// Whether removers are kept out of a folder.
enum Shared {
    /// They are (or the file system has no locks, and then there are none).
    Kept(#[expect(dead_code, reason = "held for its lock, not read")] Option<File>),
    /// One is at work.
    Moving,
}

/// Keeps removers out of a folder, if none is at work.
fn share(folder: &Path) -> Result<Shared, StoreError> {
    let opened = match File::open(folder) {
        Ok(opened) => opened,
        Err(error) if is_missing(&error) => return Ok(Shared::Kept(None)),
        Err(error) => return Err(failed("listing", folder, &error)),
    };
    Ok(match opened.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Shared::Moving,
        Ok(()) | Err(TryLockError::Error(_)) => Shared::Kept(Some(opened)),
    })
}

/// Opens a folder for listing; `None` when there is no such folder.
fn entries(folder: &Path) -> Result<Option<fs::ReadDir>, StoreError> {
    match fs::read_dir(folder) {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(failed("listing", folder, &error)),
    }
}

/// Makes the root and the folders above it, each flushed into the one that holds it.
fn create_root(folder: &Path, fsync: bool) -> io::Result<()> {
    let absolute = std::path::absolute(folder)?;
    let missing: Vec<&Path> = absolute.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(&absolute)?;
    if fsync {
        for above in missing.iter().filter_map(|made| made.parent()) {
            flush(above)?;
        }
    }
    Ok(())
}

fn flush(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Tells whether a path exists and no part of it is a symbolic link. Also false where the system
/// cannot tell.
fn is_without_links(path: &Path) -> bool {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    // `..` would be resolved without being taken out of the path; no address has it.
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    plain && openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).is_ok()
}

/// A name that cannot exist is missing like one that does not.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

pub(super) fn failed(doing: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::unavailable(format!("{doing} {}", path.display()), error)
}

fn unwritable(at: &SetAddress, path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::NotADirectory => StoreError::unwritable(at, format!("a file is in the way at {}", path.display())),
        ErrorKind::InvalidFilename => StoreError::unwritable(at, "the name is too long for the file system"),
        _ => failed("creating", path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;
    use crate::store::StorePath;

    #[test]
    fn a_remover_keeps_others_off_and_a_gap_is_told() {
        let root = tempfile::tempdir().unwrap();
        let one = LocalTree::open(root.path(), false, true).unwrap();
        let two = LocalTree::open(root.path(), false, true).unwrap();
        let at = SetAddress::image(StorePath::parse("org/app").unwrap(), Digest::sha256(b"")).unwrap();
        assert!(matches!(one.try_lease(&at).unwrap(), Attempt::NoSet));
        assert_eq!(one.create(&at, 1, b"x").unwrap(), Created::Done);
        assert_eq!(two.create(&at, 1, b"y").unwrap(), Created::Taken);
        assert_eq!(two.create(&at, 3, b"y").unwrap(), Created::AfterGap);
        let Attempt::Taken(lease) = one.try_lease(&at).unwrap() else { panic!("the lease is free") };
        assert!(matches!(two.try_lease(&at).unwrap(), Attempt::Busy));
        assert!(two.read(&at, 9, false).unwrap().shaken && !two.read(&at, 9, true).unwrap().shaken);
        assert!(two.find(&at, b"x").unwrap().unsettled);
        drop(lease);
        assert!(!two.read(&at, 9, false).unwrap().shaken);
        assert_eq!(two.find(&at, b"y").unwrap().same, Some(3));
    }

    #[test]
    fn folders_above_are_remembered_as_flushed_and_sets_are_not() {
        let root = tempfile::tempdir().unwrap();
        let tree = LocalTree::open(root.path(), false, true).unwrap();
        let at = SetAddress::image(StorePath::parse("a/b/app").unwrap(), Digest::sha256(b"")).unwrap();
        tree.create(&at, 1, b"x").unwrap();
        let remembered: Vec<_> = tree.durable.lock().unwrap().iter().cloned().collect();
        assert_eq!(remembered.len(), 2);
        assert!(remembered.contains(&tree.root.join("a")) && remembered.contains(&tree.root.join("a/b")));
    }
}
