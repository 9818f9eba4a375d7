//! Which lookaside serves an image, and who said so (spec containers-image 1.4, 8.3).
//!
//! The reference given must be the *physical* one: of the mirror, when a mirror serves the image.

use std::path::PathBuf;

use super::configuration::{Configuration, Placed};
use super::document::Key;
use super::search::Environment;
use super::url::{LookasideBase, LookasideError};
use crate::image::{Reference, scopes};

/// The name under which the section for all other images appears among the candidates.
pub const DEFAULT_DOCKER: &str = "default-docker";

/// What the lookaside is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Fetching signatures: staging keys are never looked at.
    Read,
    /// Storing or removing them.
    Write,
}

impl Mode {
    /// Returns the keys of a section in the order in which they are asked. A deprecated
    /// `sigstore-staging` comes before a modern `lookaside`.
    pub fn keys(self) -> &'static [Key] {
        match self {
            Self::Read => &[Key::Lookaside, Key::Sigstore],
            Self::Write => &[Key::LookasideStaging, Key::SigstoreStaging, Key::Lookaside, Key::Sigstore],
        }
    }
}

/// Who decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A key in a file.
    File {
        /// The file.
        path: PathBuf,
        /// The key under `docker`, or [`DEFAULT_DOCKER`].
        namespace: String,
        /// The key of the section.
        key: Key,
    },
    /// Nobody: the built-in default directory.
    BuiltIn,
}

/// One place that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The key under `docker`, or [`DEFAULT_DOCKER`].
    pub namespace: String,
    /// The file that has it; `None` when none has.
    pub path: Option<PathBuf>,
    /// The key that has an URL for this mode. A section that is there without one falls through.
    pub key: Option<Key>,
}

impl Candidate {
    /// Tells whether any file speaks of this namespace.
    pub fn found(&self) -> bool {
        self.path.is_some()
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The base; the repository's path is not part of it.
    pub base: LookasideBase,
    /// Who said so.
    pub from: Origin,
    /// Who was asked, in order, the last being the one who answered (unless nobody did).
    pub tried: Vec<Candidate>,
}

/// Whether Cosign-style attachments are looked for, and who said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachments {
    /// False when nobody says.
    pub enabled: bool,
    /// The file and the namespace that said so.
    pub from: Option<(PathBuf, String)>,
}

impl Configuration {
    /// Finds the lookaside of an image. There always is one: the built-in default directory, if
    /// nothing else.
    ///
    /// # Errors
    /// [`LookasideError::Invalid`] when what the winning key says is no URL.
    pub fn lookaside(
        &self,
        reference: &Reference,
        mode: Mode,
        environment: &Environment,
    ) -> Result<Lookup, LookasideError> {
        let mut tried = Vec::new();
        for (namespace, placed) in self.candidates(reference) {
            let key = placed.and_then(|placed| mode.keys().iter().find(|key| !placed.section.url(**key).is_empty()));
            tried.push(Candidate {
                namespace: namespace.clone(),
                path: placed.map(|placed| placed.path.clone()),
                key: key.copied(),
            });
            if let (Some(placed), Some(key)) = (placed, key) {
                let base = LookasideBase::parse(placed.section.url(*key))?;
                return Ok(Lookup {
                    base,
                    from: Origin::File { path: placed.path.clone(), namespace, key: *key },
                    tried,
                });
            }
        }
        let base = LookasideBase::from_directory(&environment.default_store());
        Ok(Lookup { base, from: Origin::BuiltIn, tried })
    }

    /// Tells whether `use-sigstore-attachments` holds for an image: the first candidate that has
    /// the key decides, whatever is said of URLs.
    pub fn attachments(&self, reference: &Reference) -> Attachments {
        self.candidates(reference)
            .find_map(|(namespace, placed)| {
                let placed = placed?;
                let enabled = placed.section.use_sigstore_attachments?;
                Some(Attachments { enabled, from: Some((placed.path.clone(), namespace)) })
            })
            .unwrap_or_default()
    }

    /// Lists all that may speak of an image, most specific first, `default-docker` last.
    fn candidates(&self, reference: &Reference) -> impl Iterator<Item = (String, Option<&Placed>)> {
        let named = scopes(reference).into_iter().map(|scope| {
            let placed = self.docker.get(&scope);
            (scope, placed)
        });
        named.chain([(DEFAULT_DOCKER.to_owned(), self.default_docker.as_ref())])
    }
}
