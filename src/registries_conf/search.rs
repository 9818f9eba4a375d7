//! Which files are read, in two generations of containers/image (spec containers-image 8.1):
//! Podman 6 takes the first main file of several places, then of each drop-in name the nearest;
//! Podman 5 takes the user's main file or the system's, then every drop-in of one or two directories.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::document::Form;
use crate::go;
use crate::host::{Environment, Generation, SearchError, drop_in_directories};

const MAIN: &str = "registries.conf";
const SUFFIX: &[u8] = b".conf";

/// A file that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationFile {
    /// Where it is.
    pub path: PathBuf,
    /// Which formats it may have.
    pub form: Form,
    /// Whether it was named by somebody, so that its absence is an error.
    pub named: bool,
}

/// Where to look for registries.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// This file in the place of the main file (`--registries-conf`). For Podman 6 nothing else is
    /// read then; Podman 5 goes on to read the drop-ins.
    pub explicit: Option<PathBuf>,
    /// An alternate root for the system's files.
    pub root: Option<PathBuf>,
    /// Which release is followed.
    pub generation: Generation,
    /// The user and his variables.
    pub environment: Environment,
}

impl Search {
    /// Lists the places of the main file, the most important first; the first that exists counts.
    pub fn main_files(&self) -> Vec<PathBuf> {
        if let Some(path) = named(self.explicit.as_ref()) {
            return vec![path.clone()];
        }
        let environment = &self.environment;
        let in_home = || go::join([environment.home.as_path(), Path::new(".config/containers"), Path::new(MAIN)]);
        let root = self.root.as_deref().unwrap_or(Path::new(""));
        let system = |place: &str| go::join([root, Path::new(place), Path::new(MAIN)]);
        match self.generation {
            Generation::Podman5 => vec![in_home(), system("/etc/containers")],
            Generation::Podman6 => {
                // Set but empty makes a relative path, in Go as here.
                let user = match &environment.xdg_config_home {
                    Some(config) => go::join([config.as_path(), Path::new("containers"), Path::new(MAIN)]),
                    None => in_home(),
                };
                vec![user, system("/etc/containers"), system("/usr/share/containers")]
            }
        }
    }

    /// Lists the files in the order in which they are read: what a later one says of a prefix
    /// counts.
    ///
    /// # Errors
    /// [`SearchError`] when a directory is there but cannot be listed.
    pub fn files(&self) -> Result<Vec<ConfigurationFile>, SearchError> {
        match self.generation {
            Generation::Podman6 => self.podman_6(),
            Generation::Podman5 => self.podman_5(),
        }
    }

    fn podman_6(&self) -> Result<Vec<ConfigurationFile>, SearchError> {
        let file = |path: PathBuf, named| ConfigurationFile { path, form: Form::V2, named };
        if let Some(path) = named(self.explicit.as_ref()) {
            return Ok(vec![file(path.clone(), true)]);
        }
        let mut files = Vec::new();
        if let Some(path) = named(self.environment.registries_conf.as_ref()) {
            files.push(file(path.clone(), true));
        } else {
            // Not "that can be read": what is there and cannot be read is an error later.
            let first = self.main_files().into_iter().find(|path| !matches!(path.try_exists(), Ok(false)));
            files.extend(first.map(|path| file(path, false)));
            let mut nearest: BTreeMap<OsString, PathBuf> = BTreeMap::new();
            let directories = drop_in_directories(&self.environment, self.generation, self.root.as_deref(), MAIN);
            for directory in directories.iter().rev() {
                for name in list(directory)? {
                    let path = go::join([directory.as_path(), Path::new(&name)]);
                    nearest.insert(name, path);
                }
            }
            files.extend(nearest.into_values().map(|path| file(path, false)));
        }
        if let Some(path) = named(self.environment.registries_conf_override.as_ref()) {
            files.push(file(path.clone(), true));
        }
        Ok(files)
    }

    fn podman_5(&self) -> Result<Vec<ConfigurationFile>, SearchError> {
        let mains = self.main_files();
        let explicit = named(self.explicit.as_ref()).is_some();
        let chosen = mains.iter().position(|path| path.exists()).unwrap_or(mains.len().saturating_sub(1));
        let main = mains.into_iter().nth(chosen);
        let mut files: Vec<_> =
            main.map(|path| ConfigurationFile { path, form: Form::V1OrV2, named: explicit }).into_iter().collect();
        let mut directories = drop_in_directories(&self.environment, self.generation, self.root.as_deref(), MAIN);
        // The user's own main file hides all of the system's.
        if chosen == 0 && !explicit {
            directories.truncate(1);
        }
        for directory in directories.iter().rev() {
            // The reference does not enter a directory through a link.
            if fs::symlink_metadata(directory).is_ok_and(|meta| meta.is_symlink()) {
                continue;
            }
            for name in list(directory)? {
                let path = go::join([directory.as_path(), Path::new(&name)]);
                files.push(ConfigurationFile { path, form: Form::V2DropIn, named: false });
            }
        }
        Ok(files)
    }
}

/// A variable or flag that is empty counts as absent.
fn named(path: Option<&PathBuf>) -> Option<&PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// Lists the names of one directory that count, sorted; a missing directory has none.
fn list(directory: &Path) -> Result<Vec<OsString>, SearchError> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SearchError::new("open", directory, error)),
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|error| SearchError::new("readdirent", directory, error))?;
        let name = entry.file_name();
        if is_configuration(&name) && !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn is_configuration(name: &OsStr) -> bool {
    name.as_bytes().ends_with(SUFFIX)
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
