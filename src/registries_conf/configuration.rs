//! All files as one configuration, and the sources of an image that follow from it
//! (spec containers-image 8.2).

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::document::{Document, DocumentError, Form, PullFromMirror, Registry};
use super::matching::{RewriteError, matching_length, rewrite};
use super::search::Search;
use crate::go;
use crate::host::{self, SearchError};
use crate::image::{ImageReference, Reference};

/// Why there is no configuration. Any of these makes every operation on docker images fail. The
/// sentences are containers/image's own.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// A directory cannot be listed, or a file of Podman 6 cannot be read.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A file cannot be read.
    #[error("loading {} {}: {source}", kind(*form), quoted(&source.path))]
    File {
        /// Which kind of file.
        form: Form,
        /// What the system said.
        source: SearchError,
    },
    /// A file is not TOML, or says what it may not say.
    #[error("loading {} {}: {source}", kind(*form), quoted(.path))]
    Document {
        /// The file.
        path: PathBuf,
        /// Which kind of file.
        form: Form,
        /// What is wrong with it.
        source: DocumentError,
    },
}

fn kind(form: Form) -> &'static str {
    if form == Form::V2DropIn { "drop-in registries configuration" } else { "registries configuration" }
}

fn quoted(path: &Path) -> String {
    go::quote(path.as_os_str().as_bytes())
}

/// A registry and the file that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// What is said.
    pub registry: Registry,
    /// The file.
    pub path: PathBuf,
}

/// The merged content of all files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// By prefix.
    pub registries: BTreeMap<String, Placed>,
    /// What short names stand for, and the file that says so.
    pub(super) aliases: BTreeMap<String, (String, PathBuf)>,
    /// The search registries of the last file that has some.
    pub(super) search: Option<(Vec<String>, PathBuf)>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
}

/// Why there are no sources for an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{source}")]
pub struct SourceError {
    /// The prefix that matched.
    pub prefix: String,
    /// The file that has it.
    pub from: PathBuf,
    /// What is wrong.
    pub source: RewriteError,
}

/// A `blocked = true` that forbids a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The prefix that matches the source's name.
    pub prefix: String,
    /// The file that has it.
    pub from: PathBuf,
}

/// One place from which an image is pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSource {
    /// The physical name: whom to ask, and for what.
    pub reference: Reference,
    /// Whether certificates are not checked and plain http is tried.
    pub insecure: bool,
    /// Whether it is a mirror, not the primary location.
    pub is_mirror: bool,
    /// Whether it may not be used. Judged by the *physical* name: `blocked` on a prefix whose
    /// location lies elsewhere blocks nothing (seen with skopeo 1.9.3).
    pub blocked: Option<Blocked>,
    /// The file that says so; `None` when no file speaks of the image.
    pub from: Option<PathBuf>,
}

/// From where an image is pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSources {
    /// The sources in the order in which they are tried, the primary one last. The first that has
    /// the manifest is used for everything, signatures included.
    pub sources: Vec<PullSource>,
    /// The prefix that matched, if any did.
    pub prefix: Option<String>,
}

impl Configuration {
    /// Finds, reads and merges the files.
    ///
    /// # Errors
    /// [`ConfigurationError`], the first that the reference would name.
    pub fn load(search: &Search) -> Result<Self, ConfigurationError> {
        let mut configuration = Self::default();
        for file in search.files()? {
            match host::read(&file.path) {
                Ok(bytes) => configuration.add(&file.path, &bytes, file.form)?,
                // Gone since it was listed, or a link that leads nowhere.
                Err(error) if error.is_not_found() && !file.named => {}
                Err(error) if file.form == Form::V2 && error.is_open() => return Err(error.into()),
                Err(source) => return Err(ConfigurationError::File { form: file.form, source }),
            }
        }
        Ok(configuration)
    }

    /// Adds one file's content: what it says of a prefix takes the place of what was said before.
    ///
    /// # Errors
    /// [`ConfigurationError::Document`]; nothing was added then.
    pub fn add(&mut self, path: &Path, bytes: &[u8], form: Form) -> Result<(), ConfigurationError> {
        let document = Document::parse(bytes, form).map_err(|source| ConfigurationError::Document {
            path: path.to_owned(),
            form,
            source,
        })?;
        self.files.push(path.to_owned());
        for (name, value) in document.aliases {
            match value.is_empty() {
                true => self.aliases.remove(&name),
                false => self.aliases.insert(name, (value, path.to_owned())),
            };
        }
        if let Some(search) = document.search {
            self.search = Some((search, path.to_owned()));
        }
        let placed = |registry| Placed { registry, path: path.to_owned() };
        self.registries.extend(document.registries.into_iter().map(|(prefix, registry)| (prefix, placed(registry))));
        Ok(())
    }

    /// Finds who speaks of a host or repository (without tag and digest): the longest prefix, of
    /// two equally long the smaller.
    pub fn find(&self, name: &str) -> Option<&Placed> {
        let mut best: Option<(&String, &Placed)> = None;
        for (prefix, placed) in &self.registries {
            let longer = best.is_none_or(|(known, _)| prefix.len() > known.len());
            if longer && matching_length(name, prefix).is_some() {
                best = Some((prefix, placed));
            }
        }
        best.map(|(_, placed)| placed)
    }

    /// Lists from where the image of this (logical) name is pulled.
    ///
    /// # Errors
    /// [`SourceError`] when one of the sources would have no valid name; the image cannot be pulled
    /// then, not from the other sources either.
    pub fn pull_sources(&self, image: &ImageReference) -> Result<PullSources, SourceError> {
        let reference = image.as_reference();
        let Some(Placed { registry, path }) = self.find(reference.repository().as_str()) else {
            let primary = PullSource {
                reference: reference.clone(),
                insecure: false,
                is_mirror: false,
                blocked: None,
                from: None,
            };
            return Ok(PullSources { sources: vec![primary], prefix: None });
        };
        let by_digest = reference.digest().is_some();
        let mirrors = registry.mirrors.iter().filter(|mirror| match mirror.pull_from {
            _ if registry.mirror_by_digest_only => by_digest,
            PullFromMirror::All => true,
            PullFromMirror::DigestOnly => by_digest,
            PullFromMirror::TagOnly => !by_digest,
        });
        let endpoints = mirrors.map(|mirror| (mirror.location.as_str(), mirror.insecure, true)).chain([(
            registry.location.as_str(),
            registry.insecure,
            false,
        )]);
        let source = |(location, insecure, is_mirror)| {
            let failed = |source| SourceError { prefix: registry.prefix.clone(), from: path.clone(), source };
            let reference = rewrite(reference, &registry.prefix, location).map_err(failed)?;
            let blocked = self.blocked(&reference);
            Ok(PullSource { reference, insecure, is_mirror, blocked, from: Some(path.clone()) })
        };
        let sources = endpoints.map(source).collect::<Result<_, SourceError>>()?;
        Ok(PullSources { sources, prefix: Some(registry.prefix.clone()) })
    }

    fn blocked(&self, physical: &Reference) -> Option<Blocked> {
        let Placed { registry, path } = self.find(physical.repository().as_str())?;
        registry.blocked.then(|| Blocked { prefix: registry.prefix.clone(), from: path.clone() })
    }
}

#[cfg(test)]
#[path = "configuration_tests.rs"]
mod tests;
