//! The walk of a folder: depth first, a batch at a time, never out of the tree and never in
//! circles, whatever links somebody has laid in it.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream, StreamExt as _};

use super::error::StoreError;
use super::layout::{SetAddress, StorePath};
use super::local::{LocalTree, failed};

/// How many sets are looked for at a time.
const BATCH: usize = 256;
/// Each level holds an open folder.
const DEEPEST: usize = 64;

type Item = Result<SetAddress, StoreError>;

/// Walks the sets whose path is `under` or lies below it.
pub(super) fn walk(tree: Arc<LocalTree>, under: StorePath) -> BoxStream<'static, Item> {
    let start = (Walker { tree, stack: Vec::new(), start: Some(under) }, VecDeque::new());
    let step = |(mut walker, mut batch): (Walker, VecDeque<Item>)| async move {
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
                Err(stopped) => {
                    tracing::error!(%stopped, "a walk of the store was cut short");
                    return None;
                }
            }
        }
        batch.pop_front().map(|item| (item, (walker, batch)))
    };
    stream::unfold(start, step).boxed()
}

/// A folder that is being listed.
struct Level {
    path: StorePath,
    /// The folder without links, to see when a link leads back up.
    folder: PathBuf,
    entries: fs::ReadDir,
    /// Only the sets of this repository are wanted here.
    only: Option<String>,
}

struct Walker {
    tree: Arc<LocalTree>,
    stack: Vec<Level>,
    start: Option<StorePath>,
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
                Ok(entry) => self.visit(&entry),
                Err(error) => {
                    let failure = failed("listing", &level.folder, &error);
                    self.stack.pop();
                    Err(failure)
                }
            };
            match found {
                Ok(None) => {}
                Ok(Some(set)) => return Some(Ok(set)),
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
        let Some(folder) = self.tree.inside(&self.tree.root().join(path.as_str()))? else { return Ok(()) };
        match fs::read_dir(&folder) {
            Ok(entries) => self.stack.push(Level { path, folder, entries, only }),
            // A file, or a folder that has just gone.
            Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {}
            Err(error) => return Err(failed("listing", &folder, &error)),
        }
        Ok(())
    }

    fn visit(&mut self, entry: &fs::DirEntry) -> Result<Option<SetAddress>, StoreError> {
        let Some(level) = self.stack.last() else { return Ok(None) };
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return Ok(None) };
        if level.only.as_ref().is_some_and(|only| !name.starts_with(only)) {
            return Ok(None);
        }
        // Entries that are no directories are most of a set's folder, but not of the folders here.
        let is_link = match entry.file_type() {
            Ok(kind) if kind.is_dir() => false,
            Ok(kind) if kind.is_symlink() => true,
            _ => return Ok(None),
        };
        match SetAddress::parse_name(level.path.as_str(), name) {
            Ok(Some(set)) => {
                let Some(folder) = self.tree.inside(&entry.path())? else { return Ok(None) };
                return Ok(self.tree.holds_signature(&folder)?.then_some(set));
            }
            Ok(None) if level.only.is_none() && self.stack.len() < DEEPEST => {}
            Ok(None) | Err(_) => return Ok(None),
        }
        let Ok(path) = StorePath::parse(name).and_then(|name| level.path.join(&name)) else { return Ok(None) };
        if is_link {
            let Some(target) = self.tree.inside(&entry.path())? else { return Ok(None) };
            if self.stack.iter().any(|above| above.folder.starts_with(&target)) {
                return Ok(None);
            }
        }
        self.descend(path, None)?;
        Ok(None)
    }
}
