//! What the new registry says of an image: whether a tag still points at it, whether it is there,
//! and which instances a signed list has.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::image::{Digest, ManifestError, ManifestKind, Reference, ReferenceError, Repository, inspect_list, kind};
use crate::registry::{FetchedManifest, RegistryClient, RegistryError, Selector};
use crate::resign::journal::{ItemKey, item_key};
use crate::store::SetAddress;

/// How many manifests one signed list may name, those in its lists included.
const MOST_INSTANCES: usize = 2000;
/// How long a tag's digest is taken for current.
const TAG_LIFE: Duration = Duration::from_secs(300);
const TAGS_KEPT: u64 = 4096;
/// New claims that are remembered as being made; more than can be under way at a time.
const CLAIMS_KEPT: u64 = 200_000;

/// What is asked of the new registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// Whether the tag of the new name points at the digest, itself or through a list: pulls of a
    /// list check its instances under the list's tag. A name without tag must exist.
    Current,
    /// Whether the digest is there.
    Exists,
    /// As [`CheckKind::Exists`]; and of a list, its instances are signed under the same name.
    ///
    /// Why the old signature vouches for them: it says that the digest D may be called N. The
    /// bytes that the new registry gave for D were hashed here and have that digest, so they are
    /// the list that was signed, whoever serves it, and every digest in its `manifests` (and, in
    /// the same way, in those of lists within it) was fixed by that signature. Who signed N = D
    /// meant that a pull of N runs one of them, and clients check the chosen instance's own
    /// signature under N. No more is vouched for than that: not other manifests of the
    /// repository, not other names.
    ///
    /// What it widens: afterwards a registry can serve an instance alone in the place of the list,
    /// and clients take it for N on any platform. Tools that sign a list with its members
    /// (`podman manifest push --all --sign-by`) make the very same claims.
    Instances,
}

/// A question to the registry of the new names.
#[derive(Clone, Debug)]
pub struct Check {
    kind: CheckKind,
    client: RegistryClient,
    /// Where the new names are served, if not where they say.
    registry: Option<String>,
    tags: moka::future::Cache<String, Arc<Option<Current>>>,
    claims: moka::future::Cache<ItemKey, ()>,
}

/// What a tag points at.
#[derive(Debug)]
struct Current {
    digest: Digest,
    /// Everything that it names, if it is a list.
    members: BTreeSet<Digest>,
}

/// The answer for one claim.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// To be signed, and under the same name these instances, but not those that are absent.
    Sign { instances: Vec<Digest>, absent: Vec<Digest> },
    /// Left out.
    Leave(String),
    /// Not fit to be signed.
    Refuse(String),
}

impl Verdict {
    const SIGN: Self = Self::Sign { instances: Vec::new(), absent: Vec::new() };
}

/// Answers for one digest, by repository: many tags ask the same.
pub(super) type Known = HashMap<String, Verdict>;

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum CheckError {
    #[error(transparent)]
    Registry(#[from] Arc<RegistryError>),
    #[error("{repository}@{digest}: {source}")]
    List { repository: Repository, digest: Digest, source: Arc<ManifestError> },
    #[error("{repository}@{digest} has more than {MOST_INSTANCES} instances")]
    TooMany { repository: Repository, digest: Digest },
    #[error("{name:?}: {source}")]
    Name { name: String, source: ReferenceError },
}

impl From<RegistryError> for CheckError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Arc::new(error))
    }
}

impl Check {
    /// Makes a check. New names are asked at the registry that they name, or all at `registry`
    /// (`host` or `host:port`).
    pub fn new(kind: CheckKind, client: RegistryClient, registry: Option<String>) -> Self {
        Self {
            kind,
            client,
            registry,
            tags: moka::future::Cache::builder().max_capacity(TAGS_KEPT).time_to_live(TAG_LIFE).build(),
            claims: moka::future::Cache::builder().max_capacity(CLAIMS_KEPT).build(),
        }
    }

    /// Returns what is asked.
    pub fn kind(&self) -> CheckKind {
        self.kind
    }

    /// Asks about a new name and digest. A registry that fails is an error, never an absence.
    pub(super) async fn look(
        &self,
        new: &Reference,
        digest: &Digest,
        known: &mut Known,
    ) -> Result<Verdict, CheckError> {
        let repository = self.repository(new)?;
        if let (CheckKind::Current, Some(tag)) = (self.kind, new.tag()) {
            let name = format!("{repository}:{tag}");
            let current =
                self.tags.try_get_with_by_ref(&name, self.current(&repository, tag)).await.map_err(|e| (*e).clone())?;
            return Ok(match current.as_ref() {
                Some(current) if current.digest == *digest || current.members.contains(digest) => Verdict::SIGN,
                Some(current) => Verdict::Leave(format!("{name} now is {}", current.digest)),
                None => Verdict::Leave(format!("{name} is no longer in the registry")),
            });
        }
        if let Some(verdict) = known.get(repository.as_str()) {
            return Ok(verdict.clone());
        }
        let verdict = match self.kind {
            CheckKind::Instances => self.with_instances(&repository, digest).await,
            _ if self.client.manifest_exists(&repository, Selector::Digest(digest)).await? => Ok(Verdict::SIGN),
            _ => Ok(gone(&repository, digest)),
        };
        let verdict = match verdict {
            // These will not be otherwise another time.
            Err(error @ (CheckError::List { .. } | CheckError::TooMany { .. })) => Verdict::Refuse(error.to_string()),
            other => other?,
        };
        known.insert(repository.as_str().to_owned(), verdict.clone());
        Ok(verdict)
    }

    /// Tells whether nobody else of this run makes the same claim at the same place: a list's
    /// instance may have old signatures of its own, or be in a second list.
    pub(super) async fn is_first(&self, place: &SetAddress, new: &Reference) -> bool {
        if self.kind != CheckKind::Instances {
            return true;
        }
        let key = item_key(&place.to_string(), &new.to_string(), "");
        self.claims.entry(key).or_insert(()).await.is_fresh()
    }

    fn repository(&self, new: &Reference) -> Result<Repository, CheckError> {
        let Some(host) = &self.registry else { return Ok(new.repository().clone()) };
        let name = format!("{host}/{}", new.repository().path());
        Repository::parse(&name).map_err(|source| CheckError::Name { name, source })
    }

    async fn current(
        &self,
        repository: &Repository,
        tag: &crate::image::Tag,
    ) -> Result<Arc<Option<Current>>, CheckError> {
        let manifest = match self.client.manifest(repository, Selector::Tag(tag)).await {
            Ok(manifest) => manifest,
            Err(error) if error.is_not_found() => return Ok(Arc::new(None)),
            Err(error) => return Err(error.into()),
        };
        let digest = manifest.digest.clone();
        let members = self.members(repository, manifest).await?;
        let members = members.present.into_iter().chain(members.absent).collect();
        Ok(Arc::new(Some(Current { digest, members })))
    }

    async fn with_instances(&self, repository: &Repository, digest: &Digest) -> Result<Verdict, CheckError> {
        let manifest = match self.client.manifest(repository, Selector::Digest(digest)).await {
            Ok(manifest) => manifest,
            Err(error) if error.is_not_found() => return Ok(gone(repository, digest)),
            Err(error) => return Err(error.into()),
        };
        let Members { present, absent } = self.members(repository, manifest).await?;
        Ok(Verdict::Sign { instances: present, absent })
    }

    /// All that a list names, itself and through lists in it; nothing for an image. Hashes cannot
    /// run in a circle, and each is followed once.
    async fn members(&self, repository: &Repository, top: FetchedManifest) -> Result<Members, CheckError> {
        let (mut members, mut seen) = (Members::default(), BTreeSet::from([top.digest.clone()]));
        let mut lists = vec![top];
        while let Some(list) = lists.pop() {
            // A signed schema 1 manifest, whose digest is not that of all its bytes, is no list.
            if kind(&list.bytes) != ManifestKind::List {
                continue;
            }
            let entries = inspect_list(&list.bytes).map_err(|source| CheckError::List {
                repository: repository.clone(),
                digest: list.digest.clone(),
                source: Arc::new(source),
            })?;
            for entry in entries {
                if !seen.insert(entry.digest.clone()) {
                    continue;
                }
                if seen.len() > MOST_INSTANCES {
                    return Err(CheckError::TooMany { repository: repository.clone(), digest: list.digest });
                }
                if self.member(repository, &entry.digest, entry.may_be_list(), &mut lists).await? {
                    members.present.push(entry.digest);
                } else {
                    members.absent.push(entry.digest);
                }
            }
        }
        Ok(members)
    }

    /// Tells whether a member is there, and keeps it if it may be a list.
    async fn member(
        &self,
        repository: &Repository,
        digest: &Digest,
        may_be_list: bool,
        lists: &mut Vec<FetchedManifest>,
    ) -> Result<bool, CheckError> {
        if !may_be_list {
            // Whether the tag's list has it is all that the other question is about.
            let asked = self.kind == CheckKind::Instances;
            return Ok(!asked || self.client.manifest_exists(repository, Selector::Digest(digest)).await?);
        }
        match self.client.manifest(repository, Selector::Digest(digest)).await {
            Ok(manifest) => lists.push(manifest),
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }
}

#[derive(Debug, Default)]
struct Members {
    present: Vec<Digest>,
    absent: Vec<Digest>,
}

fn gone(repository: &Repository, digest: &Digest) -> Verdict {
    Verdict::Leave(format!("{repository}@{digest} is not in the registry"))
}
