//! Which directories and files are read, in two generations of containers/image
//! (spec containers-image 1.1): Podman 6 looks into many directories, from the user's to the
//! vendor's, and takes the nearest file of each name; Podman 5 takes one directory, whole.
//!
//! The list of directories is pure; [`Search::files`] alone touches the disk.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::go;
use crate::host::{self, Environment, Generation, SearchError, drop_in_directories};

const SUFFIX: &[u8] = b".yaml";

/// Where to look for registries.d files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// Exactly this directory and nothing else (`--registries.d`); not below `root`, not expanded.
    pub explicit: Option<PathBuf>,
    /// An alternate root for the system's directories.
    pub root: Option<PathBuf>,
    /// Which release is followed.
    pub generation: Generation,
    /// The user and his variables.
    pub environment: Environment,
}

impl Search {
    /// Looks into one directory only.
    pub fn explicit(directory: impl Into<PathBuf>) -> Self {
        Self { explicit: Some(directory.into()), ..Self::default() }
    }

    /// Lists the directories that are looked into, the highest priority first. For Podman 5 this
    /// asks which of the two exists.
    pub fn directories(&self) -> Vec<PathBuf> {
        if let Some(explicit) = self.explicit.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            return vec![explicit.clone()];
        }
        let mut all = drop_in_directories(&self.environment, self.generation, self.root.as_deref(), "registries");
        if self.generation == Generation::Podman5 {
            let chosen = all.iter().position(|path| path.exists()).unwrap_or(all.len().saturating_sub(1));
            all = all.drain(chosen..).take(1).collect();
        }
        all
    }

    /// Lists the files in the order in which they are read: sorted by name for Podman 6, in the
    /// directory's own order for Podman 5. Of one name only the file of the highest priority is there.
    ///
    /// # Errors
    /// [`SearchError`] when a directory is there but cannot be listed, or is no directory.
    pub fn files(&self) -> Result<Vec<PathBuf>, SearchError> {
        let directories = self.directories();
        if self.generation == Generation::Podman5 {
            let mut files = Vec::new();
            for directory in &directories {
                files.extend(
                    list(directory, Generation::Podman5)?
                        .into_iter()
                        .map(|name| go::join([directory, Path::new(&name)])),
                );
            }
            return Ok(files);
        }
        let mut nearest: BTreeMap<OsString, PathBuf> = BTreeMap::new();
        for directory in directories.iter().rev() {
            for name in list(directory, Generation::Podman6)? {
                let path = go::join([directory.as_path(), Path::new(&name)]);
                nearest.insert(name, path);
            }
        }
        Ok(nearest.into_values().collect())
    }
}

/// Lists the names of one directory that count; a missing directory has none.
fn list(directory: &Path, generation: Generation) -> Result<Vec<OsString>, SearchError> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            // The older library opens whatever is there and fails at the first entry.
            let is_file =
                generation == Generation::Podman5 && error.kind() == io::ErrorKind::NotADirectory && directory.exists();
            return Err(SearchError::new(if is_file { "readdirent" } else { "open" }, directory, error));
        }
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|error| SearchError::new("readdirent", directory, error))?;
        let name = entry.file_name();
        // A link counts as what it is, whatever it leads to: this is the entry's own kind.
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_configuration(&name) && !(is_directory && generation == Generation::Podman6) {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_configuration(name: &OsStr) -> bool {
    name.as_bytes().ends_with(SUFFIX)
}

/// Reads one file; `None` when it has vanished, or is a link that leads nowhere.
///
/// # Errors
/// [`SearchError`] for anything else than an ordinary file that can be read.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, SearchError> {
    match host::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_open() && error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
