//! Manifests by tag and by digest.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};

use crate::image::{Algorithm, Digest, MANIFEST_LIMIT, Reference, Repository, Tag, manifest_digest};

use super::client::{Call, RegistryClient, Scope};
use super::error::{CallError, Refusal, RegistryError};

/// Every manifest type there is, so that a registry need not convert or refuse.
const ACCEPT: [&str; 6] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
];

/// Which manifest of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector<'a> {
    /// The one that the tag names now.
    Tag(&'a Tag),
    /// The one with this digest.
    Digest(&'a Digest),
}

impl<'a> Selector<'a> {
    /// Chooses what `reference` names: its digest if it has one, else its tag.
    pub fn of(reference: &'a Reference) -> Option<Self> {
        reference.digest().map(Self::Digest).or_else(|| reference.tag().map(Self::Tag))
    }
}

impl std::fmt::Display for Selector<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// A manifest as the registry gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// Its bytes, unchanged.
    pub bytes: Bytes,
    /// The registry's `Content-Type` without parameters; empty if it sent none.
    pub media_type: String,
    /// The digest that signatures of it are made for (spec containers-image 4.6), computed here.
    pub digest: Digest,
}

impl RegistryClient {
    /// Fetches a manifest of at most 4 MiB. One asked by digest has that digest: it is checked.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::is_not_found`] tells an absent manifest from the rest.
    pub async fn manifest(
        &self,
        repository: &Repository,
        selector: Selector<'_>,
    ) -> Result<FetchedManifest, RegistryError> {
        let failed = |source: CallError| RegistryError::Manifest {
            reference: selector.to_string(),
            repository: repository.to_string(),
            source: Box::new(source),
        };
        let connection = self.connection(repository.domain()).await?;
        let path = path(repository, selector);
        let answer = self.call(&connection, &call(Method::GET, &path, repository)).await.map_err(failed)?;
        if answer.status != StatusCode::OK {
            return Err(failed(Refusal::of(&answer).into()));
        }
        let digest = manifest_digest(&answer.body).map_err(|source| RegistryError::ManifestForm {
            reference: selector.to_string(),
            repository: repository.to_string(),
            source,
        })?;
        if let Selector::Digest(expected) = selector {
            let matches = match expected.algorithm() {
                Algorithm::Sha256 => *expected == digest,
                Algorithm::Sha384 | Algorithm::Sha512 => expected.matches(&answer.body),
            };
            if !matches {
                let (repository, expected) = (repository.to_string(), expected.clone());
                return Err(RegistryError::ManifestDigest { repository, expected });
            }
        }
        let media_type = answer.header(CONTENT_TYPE).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        Ok(FetchedManifest { bytes: answer.body, media_type, digest })
    }

    /// Tells whether a manifest exists. Asks by HEAD; a registry that refuses that is asked by GET, as clients do.
    ///
    /// # Errors
    /// [`RegistryError`] for every status of the last request but 200 and 404.
    pub async fn manifest_exists(
        &self,
        repository: &Repository,
        selector: Selector<'_>,
    ) -> Result<bool, RegistryError> {
        let failed = |source: CallError| RegistryError::Manifest {
            reference: selector.to_string(),
            repository: repository.to_string(),
            source: Box::new(source),
        };
        let connection = self.connection(repository.domain()).await?;
        let path = path(repository, selector);
        let mut answer = self.call(&connection, &call(Method::HEAD, &path, repository)).await.map_err(failed)?;
        if refuses_head(answer.status) {
            answer = self.call(&connection, &call(Method::GET, &path, repository)).await.map_err(failed)?;
        }
        match answer.status {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(failed(Refusal::of(&answer).into())),
        }
    }
}

/// Tells whether GET may be answered otherwise than HEAD was: some registries refuse HEAD of what GET returns.
pub fn refuses_head(status: StatusCode) -> bool {
    matches!(status.as_u16(), 403 | 404 | 405 | 501)
}

fn path(repository: &Repository, selector: Selector<'_>) -> String {
    format!("/v2/{}/manifests/{selector}", repository.path())
}

fn call<'a>(method: Method, path: &'a str, repository: &'a Repository) -> Call<'a> {
    Call { method, path, scope: Scope::Pull(repository), accept: &ACCEPT, body: None, limit: MANIFEST_LIMIT }
}
