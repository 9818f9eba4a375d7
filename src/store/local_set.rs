//! One set's folder, opened once: its lock, the numbers in it, the bytes under them. Everything is
//! asked of the open folder, so that a set costs few calls however deep it lies.

use std::fs::{File, TryLockError};
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, fstat, openat, openat2, statat};
use rustix::io::Errno;

use super::error::StoreError;
use super::layout::{SetAddress, signature_name, signature_number};
use super::local::{LocalTree, failed, is_missing};
use super::set_state::SetState;
use super::settled::{Standing, is_young_file, standing};
use super::signatures::SET_LIMIT;
use crate::signature::BLOB_LIMIT;

/// Names of a folder are read by this many bytes: all of an ordinary set at once.
const NAMES: usize = 4096;
/// What is read of a file at first: all of an ordinary signature.
const ORDINARY: usize = 4096;

/// Opens a path of which no part may be a symbolic link; `None` when there is nothing, and no link
/// that could lead to it.
///
/// # Errors
/// There is a link in it, or something else is to be found out step by step.
pub(super) fn open_unlinked(path: &Path, flags: OFlags) -> Result<Option<OwnedFd>, Errno> {
    // `..` would be resolved without being taken out of the path; no address has it.
    if !path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_))) {
        return Err(Errno::LOOP);
    }
    match openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        // Also where the system has no such call.
        Err(error) => Err(error),
    }
}

/// Something that has a signature's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) number: u32,
    kind: EntryKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum EntryKind {
    File,
    /// A link to a file inside the tree.
    Link,
    /// No file: a folder, a pipe, a link out of the tree or to nowhere.
    Other,
}

/// What came of reading an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// A signature's bytes.
    Bytes(Bytes),
    /// It is no file, or a file that stays empty: its number is taken, and nothing is there to read.
    Taken,
    /// Somebody may be writing it.
    Unfinished,
    /// It is gone by now.
    Gone,
}

/// How much an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// A signature of so many bytes.
    Bytes(u64),
    /// As [`Reading::Taken`].
    Taken,
    /// It is gone by now.
    Gone,
}

/// A set's folder.
pub(super) struct OpenSet<'a> {
    tree: &'a LocalTree,
    at: &'a SetAddress,
    pub(super) path: PathBuf,
    folder: File,
}

impl<'a> OpenSet<'a> {
    /// Opens a set's folder, if there is one inside the tree.
    pub(super) fn open(tree: &'a LocalTree, at: &'a SetAddress) -> Result<Option<Self>, StoreError> {
        let path = tree.root().join(at.to_string());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match tree.read_unnoted(|unnoted| open_unlinked(&path, flags | unnoted)) {
            Ok(Some(folder)) => Ok(Some(Self { tree, at, path, folder: folder.into() })),
            Ok(None) => tree.check_root().map(|()| None),
            Err(_) => match tree.inside(&path)? {
                Some(path) => Self::open_found(tree, at, path),
                None => Ok(None),
            },
        }
    }

    /// Opens the folder that a walk has found; `None` when it is gone by now.
    pub(super) fn open_found(
        tree: &'a LocalTree,
        at: &'a SetAddress,
        path: PathBuf,
    ) -> Result<Option<Self>, StoreError> {
        Ok(open_folder(&path)?.map(|folder| Self { tree, at, path, folder }))
    }

    /// Keeps removers out of the set until this is dropped; false if one is at work. Where the file
    /// system has no locks there are no removers either.
    pub(super) fn keep_removers_out(&self) -> bool {
        !matches!(self.folder.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// Lists what has a signature's name, in the order of the numbers.
    pub(super) fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        self.each(|entry| {
            if entries.len() >= SET_LIMIT {
                let limit = format!("{SET_LIMIT} signatures");
                return Err(StoreError::TooMany { at: self.at.to_string(), limit });
            }
            entries.push(entry);
            Ok(true)
        })?;
        entries.sort_unstable();
        Ok(entries)
    }

    /// Returns what the folder and its files look like from outside.
    pub(super) fn state(&self) -> Result<SetState, StoreError> {
        let folder = fstat(&self.folder).map_err(|error| failed("opening", &self.path, &error.into()))?;
        let mut state = SetState::new(&folder);
        for entry in self.entries()? {
            match statat(&self.folder, signature_name(entry.number), AtFlags::empty()) {
                Ok(found) => state.add(entry.number, &found),
                Err(error) if is_missing(&error.into()) => {}
                Err(error) => return Err(self.failed(entry.number, &error.into())),
            }
        }
        Ok(state)
    }

    /// Tells whether there is any signature.
    pub(super) fn holds_signature(&self) -> Result<bool, StoreError> {
        let mut any = false;
        self.each(|entry| {
            any = entry.kind != EntryKind::Other;
            Ok(!any)
        })?;
        Ok(any)
    }

    /// Hands all that has a signature's name to `take` until that says false.
    fn each(&self, mut take: impl FnMut(Entry) -> Result<bool, StoreError>) -> Result<(), StoreError> {
        let mut names = [MaybeUninit::uninit(); NAMES];
        let mut listing = RawDir::new(&self.folder, &mut names);
        while let Some(entry) = listing.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // The folder was removed since it was opened.
                Err(Errno::NOENT) => return self.tree.check_root(),
                Err(error) => return Err(failed("listing", &self.path, &error.into())),
            };
            let Ok(name) = entry.file_name().to_str() else { continue };
            let Some(number) = signature_number(name) else {
                self.tree.staging.take_away(&self.path, name);
                continue;
            };
            let number = number.get();
            let Some(kind) = self.kind(number, entry.file_type())? else { continue };
            if !take(Entry { number, kind })? {
                break;
            }
        }
        Ok(())
    }

    /// Returns what a name stands for; `None` when it is gone by now.
    fn kind(&self, number: u32, listed: FileType) -> Result<Option<EntryKind>, StoreError> {
        let kind = match listed {
            // Not all file systems tell that in a listing.
            FileType::Unknown => match statat(&self.folder, signature_name(number), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => FileType::from_raw_mode(found.st_mode),
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(self.failed(number, &error.into())),
            },
            listed => listed,
        };
        Ok(Some(match kind {
            FileType::RegularFile => EntryKind::File,
            FileType::Symlink => {
                let target = self.tree.inside(&self.path.join(signature_name(number)))?;
                if target.is_some_and(|target| target.is_file()) { EntryKind::Link } else { EntryKind::Other }
            }
            _ => EntryKind::Other,
        }))
    }

    /// Returns how much an entry holds, without reading it.
    pub(super) fn size(&self, entry: Entry) -> Result<Size, StoreError> {
        if entry.kind == EntryKind::Other {
            return Ok(Size::Taken);
        }
        match statat(&self.folder, signature_name(entry.number), AtFlags::empty()) {
            Ok(found) if found.st_size == 0 && !is_young_file(&found) => Ok(Size::Taken),
            Ok(found) => Ok(Size::Bytes(u64::try_from(found.st_size).unwrap_or_default())),
            Err(error) if is_missing(&error.into()) => Ok(Size::Gone),
            Err(error) => Err(self.failed(entry.number, &error.into())),
        }
    }

    /// Reads one entry, if it has at most `left` bytes.
    pub(super) fn read(&self, entry: Entry, left: u64) -> Result<Reading, StoreError> {
        let follow = match entry.kind {
            EntryKind::File => OFlags::NOFOLLOW,
            EntryKind::Link => OFlags::empty(),
            EntryKind::Other => return Ok(Reading::Taken),
        };
        // Should it have become a pipe meanwhile, opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | follow;
        let name = signature_name(entry.number);
        let open = |unnoted| openat(&self.folder, &name, flags | unnoted, Mode::empty());
        let mut file = match self.tree.read_unnoted(open) {
            Ok(file) => File::from(file),
            // It has become a link meanwhile: the next look sees where to.
            Err(Errno::LOOP) if entry.kind == EntryKind::File => return Ok(Reading::Gone),
            // A socket.
            Err(Errno::NXIO) => return Ok(Reading::Gone),
            Err(error) if is_missing(&error.into()) => return Ok(Reading::Gone),
            Err(error) => return Err(self.failed(entry.number, &error.into())),
        };
        let limit = left.min(BLOB_LIMIT as u64);
        let read = read_up_to(&mut file, limit).map_err(|error| self.failed(entry.number, &error))?;
        // Another thing than was listed: the next look sees what.
        let Some((bytes, found)) = read else { return Ok(Reading::Gone) };
        if bytes.len() > BLOB_LIMIT {
            return Err(StoreError::TooLarge(format!("{}/{}", self.at, signature_name(entry.number))));
        }
        if bytes.len() as u64 > limit {
            let limit = "the bytes that are read of one set".to_owned();
            return Err(StoreError::TooMany { at: self.at.to_string(), limit });
        }
        Ok(match standing(&bytes, &found) {
            Standing::Whole => Reading::Bytes(bytes),
            Standing::Empty => Reading::Taken,
            Standing::Unfinished => Reading::Unfinished,
        })
    }

    fn failed(&self, number: u32, error: &io::Error) -> StoreError {
        failed("reading", &self.path.join(signature_name(number)), error)
    }
}

/// Opens a folder, `None` when there is no such folder.
fn open_folder(path: &Path) -> Result<Option<File>, StoreError> {
    let opened = openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    match opened.map_err(io::Error::from) {
        Ok(folder) => Ok(Some(folder.into())),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(failed("listing", path, &error)),
    }
}

/// Reads a file to its end, or to one byte more than `limit`, and returns what the system says of it
/// afterwards; `None` for what is no file. Files grow: what counts is what was read, not what their
/// length was.
fn read_up_to(file: &mut File, limit: u64) -> io::Result<Option<(Bytes, Stat)>> {
    let mut first = [0; ORDINARY];
    let most = usize::try_from(limit.saturating_add(1)).unwrap_or(ORDINARY).min(ORDINARY);
    let filled = match file.read(first.get_mut(..most).unwrap_or_default()) {
        Ok(filled) => filled,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
        // A folder, or a pipe whose writer writes nothing.
        Err(error) if matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::WouldBlock) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let head = first.get(..filled).unwrap_or_default();
    let found = fstat(&*file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    // Mostly that is all of it, and one call told the end and the age.
    if filled < most && u64::try_from(found.st_size).is_ok_and(|length| length == filled as u64) {
        return Ok(Some((Bytes::copy_from_slice(head), found)));
    }
    let mut bytes = head.to_vec();
    file.take(limit.saturating_add(1).saturating_sub(filled as u64)).read_to_end(&mut bytes)?;
    Ok(Some((bytes.into(), fstat(&*file)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;
    use crate::store::StorePath;

    #[test]
    fn a_folder_that_is_removed_meanwhile_is_an_empty_set() {
        let root = tempfile::tempdir().unwrap();
        let tree = LocalTree::open(root.path(), false, true).unwrap();
        let at = SetAddress::image(StorePath::parse("org/app").unwrap(), Digest::sha256(b"")).unwrap();
        let folder = root.path().join(at.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let set = OpenSet::open(&tree, &at).unwrap().unwrap();
        std::fs::remove_dir(&folder).unwrap();
        assert!(!set.holds_signature().unwrap() && set.entries().unwrap().is_empty());
        // With the whole tree gone nobody can tell.
        std::fs::create_dir_all(&folder).unwrap();
        let set = OpenSet::open(&tree, &at).unwrap().unwrap();
        std::fs::remove_dir_all(root.path()).unwrap();
        set.entries().unwrap_err();
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let tree = LocalTree::open(root.path(), false, true).unwrap();
        let at = SetAddress::image(StorePath::parse("org/app").unwrap(), Digest::sha256(b"")).unwrap();
        let folder = root.path().join(at.to_string());
        std::fs::create_dir_all(folder.join("signature-2")).unwrap();
        let make = |name: &str, kind| {
            rustix::fs::mknodat(CWD, folder.join(name), kind, Mode::RUSR | Mode::WUSR, 0).unwrap();
        };
        make("signature-1", FileType::Fifo);
        make("signature-4", FileType::Socket);
        std::os::unix::fs::symlink("nowhere", folder.join("signature-3")).unwrap();
        std::fs::write(folder.join("file"), "\0sigstore-json\n{}").unwrap();
        std::os::unix::fs::symlink("file", folder.join("signature-5")).unwrap();
        let set = OpenSet::open(&tree, &at).unwrap().unwrap();
        let entries = set.entries().unwrap();
        assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        let readings: Vec<_> = entries.iter().map(|entry| set.read(*entry, 100).unwrap()).collect();
        assert_eq!(readings[..4], [Reading::Taken, Reading::Taken, Reading::Taken, Reading::Taken]);
        assert!(matches!(readings[4], Reading::Bytes(_)), "a link to a file of the tree");
        // Listed as files, and something else by now.
        for number in 1..=4 {
            let listed = Entry { number, kind: EntryKind::File };
            assert_eq!(set.read(listed, 100).unwrap(), Reading::Gone, "{number}");
        }
    }

    #[test]
    fn a_file_that_grows_is_read_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        for length in [0, 1, ORDINARY - 1, ORDINARY, ORDINARY + 1, 3 * ORDINARY] {
            let path = folder.path().join("file");
            std::fs::write(&path, vec![7; length]).unwrap();
            let read = |limit| read_up_to(&mut File::open(&path).unwrap(), limit).unwrap().unwrap().0.len();
            assert_eq!(read(u64::MAX), length);
            assert_eq!(read(10_000), length.min(10_001));
            assert_eq!(read(100), length.min(101));
        }
    }
}
