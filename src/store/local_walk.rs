//! The walk of a folder: depth first, a batch at a time, never out of the tree and never in
//! circles, whatever links somebody has laid in it. A *thorough* one also tells of all that is no
//! signature, for which it must look at every file.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::error::StoreError;
use super::layout::{SetAddress, StorePath, is_leftover, signature_number};
use super::local::{LocalTree, failed};
use super::local_set::OpenSet;
use super::settled::is_young_file;
use super::survey::{Foreign, Stray, Surveyed};

/// How many sets are looked for at a time.
const BATCH: usize = 256;
/// Each level holds an open folder.
const DEEPEST: usize = 64;

type Item = Result<Surveyed, StoreError>;

/// What a walk tells, and in what order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    /// Also of all that is no signature.
    pub(super) thorough: bool,
    /// Each folder's entries by name, so that a repository's sets lie side by side; this holds the
    /// names of a folder in memory.
    pub(super) sorted: bool,
    /// Sets by their names, whether there is a signature in them or not.
    pub(super) names: bool,
}

/// Walks the sets whose path is `under` or lies below it.
pub(super) fn walk(tree: Arc<LocalTree>, under: StorePath, manner: Manner) -> BoxStream<'static, Item> {
    let start = Some((Walker { tree, stack: Vec::new(), start: Some(under), manner }, VecDeque::new()));
    let step = |state: Option<(Walker, VecDeque<Item>)>| async move {
        let (mut walker, mut batch) = state?;
        if batch.is_empty() {
            let task = tokio::task::spawn_blocking(move || {
                while batch.len() < BATCH {
                    match walker.next() {
                        Some(item) => batch.push_back(item),
                        None => break,
                    }
                }
                (walker, batch)
            });
            match task.await {
                Ok(state) => (walker, batch) = state,
                // Never an end that looks like the end of the tree.
                Err(stopped) => return Some((Err(StoreError::unavailable("a walk of the store", stopped)), None)),
            }
        }
        batch.pop_front().map(|item| (item, Some((walker, batch))))
    };
    stream::unfold(start, step).boxed()
}

type Entries = Box<dyn Iterator<Item = std::io::Result<fs::DirEntry>> + Send>;

/// A folder that is being listed.
struct Level {
    path: StorePath,
    /// The folder without links, to see when a link leads back up.
    folder: PathBuf,
    entries: Entries,
    /// Only the sets of this repository are wanted here.
    only: Option<String>,
    /// This is a set's own folder; told as soon as a signature is seen in it.
    set: Option<InSet>,
}

struct InSet {
    address: SetAddress,
    told: bool,
}

struct Walker {
    tree: Arc<LocalTree>,
    stack: Vec<Level>,
    start: Option<StorePath>,
    manner: Manner,
}

/// What could not be listed comes last.
fn by_name(entries: fs::ReadDir) -> Entries {
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_cached_key(|entry| match entry {
        Ok(entry) => (false, entry.file_name()),
        Err(_) => (true, std::ffi::OsString::new()),
    });
    Box::new(entries.into_iter())
}

impl Walker {
    fn next(&mut self) -> Option<Item> {
        if let Some(under) = self.start.take()
            && let Err(error) = self.begin(&under)
        {
            return Some(Err(error));
        }
        loop {
            let level = self.stack.last_mut()?;
            let Some(entry) = level.entries.next() else {
                self.stack.pop();
                continue;
            };
            let found = match entry {
                Ok(entry) if level.set.is_some() => self.visit_in_set(&entry),
                Ok(entry) => self.visit(&entry),
                Err(error) => {
                    let failure = failed("listing", &level.folder, &error);
                    self.stack.pop();
                    Err(failure)
                }
            };
            match found {
                Ok(None) => {}
                Ok(Some(found)) => return Some(Ok(found)),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn begin(&mut self, under: &StorePath) -> Result<(), StoreError> {
        self.descend(under.clone(), None)?;
        if let Some((parent, name)) = under.split_last() {
            self.descend(parent, Some(format!("{name}@")))?;
        }
        Ok(())
    }

    fn descend(&mut self, path: StorePath, only: Option<String>) -> Result<(), StoreError> {
        match self.tree.inside(&self.tree.root().join(path.as_str()))? {
            Some(folder) => self.enter(path, folder, only, None),
            None => Ok(()),
        }
    }

    fn enter(
        &mut self,
        path: StorePath,
        folder: PathBuf,
        only: Option<String>,
        set: Option<InSet>,
    ) -> Result<(), StoreError> {
        match fs::read_dir(&folder) {
            Ok(entries) => {
                let entries: Entries = if self.manner.sorted { by_name(entries) } else { Box::new(entries) };
                self.stack.push(Level { path, folder, entries, only, set });
            }
            // A file, or a folder that has just gone.
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(failed("listing", &folder, &error)),
        }
        Ok(())
    }

    /// Tells of something that is no signature, if anybody wants to know.
    fn stray(&self, entry: &fs::DirEntry, what: Stray) -> Option<Surveyed> {
        if !self.manner.thorough {
            return None;
        }
        let level = self.stack.last()?;
        let above = match &level.set {
            Some(set) => set.address.to_string(),
            None => level.path.to_string(),
        };
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let key = if above.is_empty() { name.into_owned() } else { format!("{above}/{name}") };
        Some(Surveyed::Foreign(Foreign { key, what }))
    }

    fn visit(&mut self, entry: &fs::DirEntry) -> Result<Option<Surveyed>, StoreError> {
        let Some(level) = self.stack.last() else { return Ok(None) };
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return Ok(self.stray(entry, Stray::Name("it is no UTF-8".to_owned()))) };
        if level.only.as_ref().is_some_and(|only| !name.starts_with(only)) {
            return Ok(None);
        }
        // Entries that are no directories are most of a set's folder, but not of the folders here.
        let is_link = match entry.file_type() {
            Ok(kind) if kind.is_dir() => false,
            Ok(kind) if kind.is_symlink() => true,
            _ => return Ok(self.stray(entry, Stray::File)),
        };
        match SetAddress::parse_name(level.path.as_str(), name) {
            Ok(Some(set)) => {
                // A folder that is no link lies where the one above it does: inside.
                let folder = if is_link { self.tree.inside(&entry.path())? } else { Some(level.folder.join(name)) };
                let Some(folder) = folder else { return Ok(self.stray(entry, Stray::Link)) };
                if self.manner.thorough {
                    let path = level.path.clone();
                    self.enter(path, folder, None, Some(InSet { address: set, told: false }))?;
                    return Ok(None);
                }
                if self.manner.names {
                    return Ok(Some(Surveyed::Set(set)));
                }
                let found = OpenSet::open_found(&self.tree, &set, folder)?;
                let holds_any = found.map_or(Ok(false), |found| found.holds_signature())?;
                return Ok(holds_any.then_some(Surveyed::Set(set)));
            }
            Ok(None) if level.only.is_some() => return Ok(None),
            Ok(None) if self.stack.len() >= DEEPEST => return Ok(self.stray(entry, Stray::Deep)),
            Ok(None) => {}
            Err(error) => return Ok(self.stray(entry, Stray::Name(error.to_string()))),
        }
        let path = match StorePath::parse(name).and_then(|name| level.path.join(&name)) {
            Ok(path) => path,
            Err(error) => return Ok(self.stray(entry, Stray::Name(error.to_string()))),
        };
        if is_link {
            let Some(target) = self.tree.inside(&entry.path())? else { return Ok(self.stray(entry, Stray::Link)) };
            if self.stack.iter().any(|above| above.folder.starts_with(&target)) {
                return Ok(self.stray(entry, Stray::Link));
            }
            if !target.is_dir() {
                return Ok(self.stray(entry, Stray::File));
            }
        }
        self.descend(path, None)?;
        Ok(None)
    }

    fn visit_in_set(&mut self, entry: &fs::DirEntry) -> Result<Option<Surveyed>, StoreError> {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let stray = match entry.file_type() {
            Ok(kind) if kind.is_file() && is_leftover(name) => match self.stack.last().and_then(|l| l.set.as_ref()) {
                Some(set) => Stray::Leftover(set.address.clone()),
                None => return Ok(None),
            },
            Ok(kind) if kind.is_file() => {
                match signature_number(name).and_then(|_| rustix::fs::lstat(entry.path()).ok()) {
                    Some(found) if found.st_size == 0 && !is_young_file(&found) => Stray::Empty,
                    _ => Stray::File,
                }
            }
            Ok(kind) if kind.is_symlink() => match self.tree.inside(&entry.path())? {
                Some(target) if target.is_file() => Stray::File,
                _ => Stray::Link,
            },
            Ok(_) if signature_number(name).is_some() => Stray::Obstacle,
            Ok(_) => Stray::File,
            // Gone by now.
            Err(_) => return Ok(None),
        };
        if signature_number(name).is_none() || stray != Stray::File {
            return Ok(self.stray(entry, stray));
        }
        let Some(set) = self.stack.last_mut().and_then(|level| level.set.as_mut()) else { return Ok(None) };
        if std::mem::replace(&mut set.told, true) {
            return Ok(None);
        }
        Ok(Some(Surveyed::Set(set.address.clone())))
    }
}
