//! All files as one configuration: nothing may be defined twice
//! (spec containers-image 1.2).

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::document::{Document, Section};
use super::go;
use super::search::{self, Search, SearchError};
use super::yaml::YamlError;

/// Why there is no configuration. Any of these makes every operation on docker images fail, pulls
/// that need no signature too. The sentences are containers/image's own.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A directory or file cannot be read.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A file is not YAML, or not of the right shape.
    #[error("parsing {}: {source}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: YamlError,
    },
    /// Two files have `default-docker`.
    #[error(
        "Error parsing signature storage configuration: \"default-docker\" defined both in {} and {}",
        quoted(.first),
        quoted(.second)
    )]
    DefaultTwice {
        /// The file that was read first.
        first: PathBuf,
        /// The file that was read second.
        second: PathBuf,
    },
    /// Two files have the same key under `docker`.
    #[error(
        "Error parsing signature storage configuration: \"docker\" namespace {} defined both in {} and {}",
        go::quote(.namespace.as_bytes()),
        quoted(.first),
        quoted(.second)
    )]
    NamespaceTwice {
        /// The key.
        namespace: String,
        /// The file that was read first.
        first: PathBuf,
        /// The file that was read second.
        second: PathBuf,
    },
}

fn quoted(path: &Path) -> String {
    go::quote(path.as_os_str().as_bytes())
}

/// A section and the file that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The section.
    pub section: Section,
    /// The file.
    pub path: PathBuf,
}

/// The merged content of a registries.d search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// `default-docker`, if any file has it.
    pub default_docker: Option<Placed>,
    /// Each key under `docker`, as it is written.
    pub docker: BTreeMap<String, Placed>,
}

impl Configuration {
    /// Finds, reads and merges the files.
    ///
    /// # Errors
    /// [`ConfigurationError`], the first that the reference would name.
    pub fn load(search: &Search) -> Result<Self, ConfigurationError> {
        let mut configuration = Self::default();
        for path in search.files()? {
            if let Some(bytes) = search::read(&path)? {
                configuration.add(&path, &bytes)?;
            }
        }
        Ok(configuration)
    }

    /// Adds one file's content.
    ///
    /// # Errors
    /// [`ConfigurationError`]: the content does not parse, or defines what is already defined.
    /// What was added before the error stays.
    pub fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), ConfigurationError> {
        let document =
            Document::parse(bytes).map_err(|source| ConfigurationError::Parse { path: path.to_owned(), source })?;
        let placed = |section| Placed { section, path: path.to_owned() };
        if let Some(section) = document.default_docker {
            if let Some(first) = &self.default_docker {
                let (first, second) = (first.path.clone(), path.to_owned());
                return Err(ConfigurationError::DefaultTwice { first, second });
            }
            self.default_docker = Some(placed(section));
        }
        for (namespace, section) in document.docker {
            if let Some(first) = self.docker.get(&namespace) {
                let (first, second) = (first.path.clone(), path.to_owned());
                return Err(ConfigurationError::NamespaceTwice { namespace, first, second });
            }
            self.docker.insert(namespace, placed(section));
        }
        Ok(())
    }
}
