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
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::backend::{Created, Found, Snapshot};
use super::error::StoreError;
use super::layout::{SetAddress, is_leftover, signature_name};
use super::lease::{Attempt, Lease};
use super::local_set::{OpenSet, Reading, Size, open_unlinked};
use super::set_state::SetState;
use super::settled::mark_whole;
use super::signatures::StoredSignature;
use super::staging::Staging;

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
    /// Whether the files seem to be ours, so that they may be read without a note of when.
    noatime: AtomicBool,
    pub(super) staging: Staging,
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
        Ok(Self {
            root,
            fsync,
            durable: Mutex::default(),
            counter: AtomicU32::new(0),
            noatime: AtomicBool::new(true),
            staging: Staging::default(),
        })
    }

    /// Returns the folder, absolute and without links.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Reads a set. Unless `alone` (the caller has the lease), a shared lock keeps removers out
    /// meanwhile: one could move a file from a number yet to be read to one that was.
    pub(super) fn read(&self, at: &SetAddress, limit: u64, alone: bool) -> Result<Snapshot, StoreError> {
        let mut snapshot = Snapshot::empty();
        let Some(set) = OpenSet::open(self, at)? else { return Ok(snapshot) };
        snapshot.shaken = !alone && !set.keep_removers_out();
        let mut left = limit;
        for entry in set.entries()? {
            match set.read(entry, left)? {
                Reading::Bytes(bytes) => {
                    left = left.saturating_sub(bytes.len() as u64);
                    snapshot.signatures.push(StoredSignature { number: entry.number, bytes });
                }
                Reading::Taken => snapshot.taken.push(entry.number),
                Reading::Unfinished => {
                    snapshot.unfinished = Some(entry.number);
                    break;
                }
                Reading::Gone => (snapshot.shaken, snapshot.missing) = (true, true),
            }
        }
        Ok(snapshot)
    }

    /// Returns what a set looks like from outside; a missing set looks like nothing.
    pub(super) fn state(&self, at: &SetAddress) -> Result<SetState, StoreError> {
        OpenSet::open(self, at)?.map_or_else(|| Ok(SetState::default()), |set| set.state())
    }

    /// Tells whether the folder lies on another machine, or in another program, which may not answer.
    pub(super) fn is_remote(&self) -> bool {
        // NFS, SMB (three numbers), FUSE, 9P, Ceph, AFS, GFS2, OCFS2, Lustre.
        const REMOTE: [u32; 11] = [
            0x6969,
            0x517b,
            0xff53_4d42,
            0xfe53_4d42,
            0x6573_5546,
            0x0102_1997,
            0x00c3_6400,
            0x5346_414f,
            0x0116_1970,
            0x7461_636f,
            0x0bd0_0bd0,
        ];
        rustix::fs::statfs(&self.root)
            .map_or(true, |found| u32::try_from(found.f_type & 0xffff_ffff).map_or(true, |kind| REMOTE.contains(&kind)))
    }

    /// Looks for `blob` and for the highest number; what is found is flushed before it is told.
    pub(super) fn find(&self, at: &SetAddress, blob: &[u8]) -> Result<Found, StoreError> {
        self.look_for(at, blob, self.fsync)
    }

    /// As [`LocalTree::find`]; without `flush` the caller sees to durability.
    pub(super) fn look_for(&self, at: &SetAddress, blob: &[u8], flush: bool) -> Result<Found, StoreError> {
        let mut found = Found::empty();
        let Some(set) = OpenSet::open(self, at)? else { return Ok(found) };
        found.unsettled = !set.keep_removers_out();
        for entry in set.entries()? {
            let size = set.size(entry)?;
            if size == Size::Taken {
                found.taken.push(entry.number);
                continue;
            }
            found.highest = entry.number;
            // A file of another length is another signature.
            if size != Size::Bytes(blob.len() as u64) {
                continue;
            }
            match set.read(entry, u64::MAX)? {
                Reading::Bytes(stored) if *stored == *blob => {
                    // "Already there" is a promise too: whoever wrote it may not have flushed it yet.
                    if flush {
                        let path = set.path.join(signature_name(entry.number));
                        let flushed = open_file(&path).and_then(|file| file.sync_all());
                        let flushed = flushed.and_then(|()| self.flush_folders(&set.path));
                        flushed.map_err(|error| failed("flushing", &path, &error))?;
                    }
                    found.same = Some(entry.number);
                    break;
                }
                // Whether it becomes the same is seen when it is whole.
                Reading::Unfinished => found.unsettled = true,
                Reading::Bytes(_) | Reading::Taken | Reading::Gone => {}
            }
        }
        Ok(found)
    }

    pub(super) fn create(&self, at: &SetAddress, number: u32, blob: &[u8]) -> Result<Created, StoreError> {
        let folder = self.make_folder(at)?;
        let path = folder.join(signature_name(number));
        let (mut file, staged) = self.stage(&path)?;
        let written = file.write_all(blob).and_then(|()| {
            mark_whole(&file, blob);
            if self.fsync { file.sync_all() } else { Ok(()) }
        });
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
        Ok(if self.has_gap_before(&folder, number) { Created::AfterGap } else { Created::Done })
    }

    /// Tells whether the number before is missing. One that is taken by no signature was passed over,
    /// and then the one before that counts.
    pub(super) fn has_gap_before(&self, folder: &Path, number: u32) -> bool {
        for before in (1..number).rev() {
            let path = folder.join(signature_name(before));
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_file() && found.len() > 0 => return false,
                Ok(found) if found.is_symlink() => match self.inside(&path) {
                    Ok(target) if target.as_ref().is_none_or(|target| !target.is_file()) => {}
                    _ => return false,
                },
                Ok(_) => {}
                Err(error) => return is_missing(&error),
            }
        }
        false
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
        let folder = match open_folder(&path) {
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

    /// Follows a link: the folder or file it leads to, if that exists and lies inside the tree.
    pub(super) fn inside(&self, path: &Path) -> Result<Option<PathBuf>, StoreError> {
        // Mostly there is no link at all, and then one call tells that; links are resolved step by step.
        if path.starts_with(&self.root) {
            match open_unlinked(path, OFlags::PATH) {
                Ok(Some(_)) => return Ok(Some(path.to_owned())),
                Ok(None) => return self.check_root().map(|()| None),
                Err(_) => {}
            }
        }
        match fs::canonicalize(path) {
            Ok(target) if target.starts_with(&self.root) => Ok(Some(target)),
            Ok(_) => Ok(None),
            Err(error) if is_missing(&error) => self.check_root().map(|()| None),
            // In the place of a signature, a link that leads in a circle is one that leads nowhere. In that
            // of a folder it may hide signatures, and is a failure.
            Err(error) if is_errno(&error, Errno::LOOP) && is_signature(path) => self.check_root().map(|()| None),
            // Behind a link out of the tree there may be folders that we may not look into.
            Err(error) if is_errno(&error, Errno::ACCESS) && self.leads_out(path) => self.check_root().map(|()| None),
            Err(error) => Err(failed("reading", path, &error)),
        }
    }

    /// Tells whether following links from `path` leads out of the tree, by what the links say.
    fn leads_out(&self, path: &Path) -> bool {
        let mut at = path.to_owned();
        for _ in 0..LINKS {
            let Ok(below) = at.strip_prefix(&self.root) else { return true };
            let mut walked = self.root.clone();
            let mut parts = below.components();
            let link = parts.by_ref().find_map(|part| {
                walked.push(part);
                fs::read_link(&walked).ok()
            });
            let Some(link) = link else { return false };
            walked.pop();
            at = normal(&walked.join(link).join(parts.as_path()));
        }
        false
    }

    /// The tree itself being gone (a lost mount) is a failure, not an empty store.
    pub(super) fn check_root(&self) -> Result<(), StoreError> {
        fs::metadata(&self.root).map(|_| ()).map_err(|error| failed("reading", &self.root, &error))
    }

    /// Opens something without a note of when it was read: each such note is a write to the disk.
    pub(super) fn read_unnoted<T>(&self, open: impl Fn(OFlags) -> Result<T, Errno>) -> Result<T, Errno> {
        if self.noatime.load(Ordering::Relaxed) {
            match open(OFlags::NOATIME) {
                Err(Errno::PERM) => self.noatime.store(false, Ordering::Relaxed),
                opened => return opened,
            }
        }
        open(OFlags::empty())
    }

    /// Returns a set's existing folder.
    fn folder(&self, at: &SetAddress) -> Result<Option<PathBuf>, StoreError> {
        self.inside(&self.root.join(at.to_string()))
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
    open_folder(folder)?.sync_all()
}

/// Opens a folder, and nothing else: opening a pipe would wait for a writer.
fn open_folder(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(bits(OFlags::DIRECTORY)).open(path)
}

/// Opens a file for reading; should it have become a pipe, without waiting for a writer.
fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(bits(OFlags::NONBLOCK)).open(path)
}

fn bits(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// A name that cannot exist is missing like one that does not.
/// How many links are followed, as the system does.
const LINKS: usize = 40;

/// Undoes `.` and `..` in a path that begins at the root of the file system.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

fn is_signature(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("signature-"))
}

fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

pub(super) fn is_missing(error: &io::Error) -> bool {
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
