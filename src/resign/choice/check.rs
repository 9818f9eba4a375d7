//! What the new registry says of an image: whether a tag still points at it, whether it is there,
//! and which instances a signed list has.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::image::{Digest, ManifestError, ManifestKind, Reference, ReferenceError, Repository, inspect_list, kind};
use crate::registry::{FetchedManifest, RegistryClient, RegistryError, Selector};

/// How many manifests one signed list may name, those in its lists included.
const MOST_INSTANCES: usize = 2000;
/// How long what a tag or list is is taken for current.
const LIFE: Duration = Duration::from_secs(300);
const MANIFESTS_KEPT: u64 = 4096;

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
    manifests: moka::future::Cache<String, Arc<Option<Current>>>,
}

/// What a tag points at.
#[derive(Debug)]
struct Current {
    digest: Digest,
    /// Everything that it names, if it is a list.
    members: BTreeSet<Digest>,
    /// No list within it is missing, so that these are all.
    whole: bool,
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
pub(in crate::resign) enum CheckError {
    #[error(transparent)]
    Registry(#[from] Arc<RegistryError>),
    #[error("{repository}@{digest}: {source}")]
    List { repository: Repository, digest: Digest, source: Arc<ManifestError> },
    #[error("{repository}@{digest} has more than {MOST_INSTANCES} instances")]
    TooMany { repository: Repository, digest: Digest },
    #[error("{name:?}: {source}")]
    Name { name: String, source: ReferenceError },
}

impl CheckError {
    /// Tells whether it will not be otherwise another time.
    pub(in crate::resign) fn is_final(&self) -> bool {
        matches!(self, Self::List { .. } | Self::TooMany { .. })
    }
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
            manifests: moka::future::Cache::builder().max_capacity(MANIFESTS_KEPT).time_to_live(LIFE).build(),
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
            let current = self.current(&name, &repository, Selector::Tag(tag)).await?;
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
            Err(error) if error.is_final() => Verdict::Refuse(error.to_string()),
            other => other?,
        };
        known.insert(repository.as_str().to_owned(), verdict.clone());
        Ok(verdict)
    }

    /// Tells whether a list names an instance, itself or through a list in it; `None` if the
    /// registry of the new name no longer has the list, or not all of it.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(in crate::resign) async fn names(
        &self,
        new: &Reference,
        list: &Digest,
        instance: &Digest,
    ) -> Result<Option<bool>, CheckError> {
        let repository = self.repository(new)?;
        let name = format!("{repository}@{list}");
        let current = self.current(&name, &repository, Selector::Digest(list)).await?;
        let Some(list) = current.as_ref() else { return Ok(None) };
        let named = list.members.contains(instance);
        Ok((named || list.whole).then_some(named))
    }

    /// Tells whether a claim that the old policy accepts is refused for what the new registry has
    /// under its digest.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(in crate::resign) async fn refuses(&self, new: &Reference, digest: &Digest) -> Result<bool, CheckError> {
        Ok(matches!(self.look(new, digest, &mut Known::default()).await?, Verdict::Refuse(_)))
    }

    fn repository(&self, new: &Reference) -> Result<Repository, CheckError> {
        let Some(host) = &self.registry else { return Ok(new.repository().clone()) };
        let name = format!("{host}/{}", new.repository().path());
        Repository::parse(&name).map_err(|source| CheckError::Name { name, source })
    }

    /// What a manifest is and names; known under `name` for a while.
    async fn current(
        &self,
        name: &str,
        repository: &Repository,
        selector: Selector<'_>,
    ) -> Result<Arc<Option<Current>>, CheckError> {
        let ask = async {
            let manifest = match self.client.manifest(repository, selector).await {
                Ok(manifest) => manifest,
                Err(error) if error.is_not_found() => return Ok(Arc::new(None)),
                Err(error) => return Err(CheckError::from(error)),
            };
            let digest = manifest.digest.clone();
            // Whether the list has it is all that the question is about.
            let members = self.members(repository, manifest, false).await?;
            let whole = members.absent.is_empty();
            let members = members.present.into_iter().chain(members.absent).collect();
            Ok(Arc::new(Some(Current { digest, members, whole })))
        };
        self.manifests.try_get_with_by_ref(name, ask).await.map_err(|error| (*error).clone())
    }

    async fn with_instances(&self, repository: &Repository, digest: &Digest) -> Result<Verdict, CheckError> {
        let manifest = match self.client.manifest(repository, Selector::Digest(digest)).await {
            Ok(manifest) => manifest,
            Err(error) if error.is_not_found() => return Ok(gone(repository, digest)),
            Err(error) => return Err(error.into()),
        };
        let Members { present, absent } = self.members(repository, manifest, true).await?;
        Ok(Verdict::Sign { instances: present, absent })
    }

    /// All that a list names, itself and through lists in it; nothing for an image. Hashes cannot
    /// run in a circle, and each is followed once. Images are only asked for if `ask`.
    async fn members(&self, repository: &Repository, top: FetchedManifest, ask: bool) -> Result<Members, CheckError> {
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
                let there = if entry.may_be_list() {
                    self.inner_list(repository, &entry.digest, &mut lists).await?
                } else {
                    !ask || self.client.manifest_exists(repository, Selector::Digest(&entry.digest)).await?
                };
                if there { &mut members.present } else { &mut members.absent }.push(entry.digest);
            }
        }
        Ok(members)
    }

    /// Tells whether a member that may be a list is there, and keeps it.
    async fn inner_list(
        &self,
        repository: &Repository,
        digest: &Digest,
        lists: &mut Vec<FetchedManifest>,
    ) -> Result<bool, CheckError> {
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
