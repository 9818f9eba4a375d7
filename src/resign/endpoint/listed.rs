//! The images of a source that a list or a registry names: from names to digests.
//!
//! ```text
//! line or catalog -> tags of the repository -> manifest of the tag -> set of the digest
//! ```
//!
//! Many registry calls are under way at a time, and their order is kept. Memory holds the digests
//! of one repository, so that several tags of one image are worked on once.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use super::images::{Line, Lister};
use super::line::ImageLine;
use super::{Endpoint, EndpointError, Image, Left, Why};
use crate::image::{Digest, Repository, Tag};
use crate::registry::{RegistryClient, Selector};
use crate::resign::journal::{ItemKey, item_key};
use crate::resign::pipeline::Shard;
use crate::store::{Layout, SetAddress, StorePath};

/// How many repositories' tags are looked up ahead of their use.
const REPOSITORIES_AHEAD: usize = 2;
/// How many digests of one repository are remembered; beyond them some images are visited twice.
const REMEMBERED: usize = 100_000;

/// A source that works on what it is told to.
#[derive(Clone, Debug)]
pub struct Listed {
    pub(super) at: Endpoint,
    names: Arc<Names>,
}

#[derive(Debug)]
struct Names {
    lister: Lister,
    /// The registries that a line may name.
    hosts: BTreeSet<String>,
    client: RegistryClient,
    jobs: usize,
}

/// A name on its way to a digest.
enum Wanted {
    Image(Image),
    Tag(TagWanted),
    Stop(EndpointError),
}

struct TagWanted {
    line: ImageLine,
    /// Where it is asked for.
    repository: Repository,
    tag: Tag,
    /// Nobody named it, so nobody misses it.
    discovered: bool,
}

impl Listed {
    /// Restricts a source to what `lister` names. `hosts` are the registries that a line may name:
    /// both sides of the rename rules; the source's own is added. `client` resolves tags, `jobs`
    /// at a time.
    pub fn new(at: Endpoint, lister: Lister, mut hosts: BTreeSet<String>, client: RegistryClient, jobs: usize) -> Self {
        if let Endpoint::Registry(registry) = &at {
            hosts.insert(registry.host().to_owned());
        }
        Self { at, names: Arc::new(Names { lister, hosts, client, jobs: jobs.max(1) }) }
    }

    pub(super) fn images(&self, grouped: bool, shard: Shard) -> BoxStream<'static, Result<Image, EndpointError>> {
        let jobs = self.names.jobs;
        let (first, second) = (self.clone(), self.clone());
        let mut seen = Seen { grouped, ..Seen::default() };
        let wanted = match &self.names.lister {
            Lister::File { file, discover_tags } => {
                let tags = *discover_tags;
                let lines = stream::unfold(file.lines(), |mut lines| async move { Some((lines.recv().await?, lines)) });
                lines
                    .map(move |line| {
                        let this = first.clone();
                        async move {
                            match line {
                                // In a tree, part is what the set's own path says.
                                Ok(line) if !this.is_tree() && !line.is_of(shard) => Vec::new(),
                                Ok(line) => this.expand(line, tags).await,
                                Err(error) => vec![Wanted::Stop(error)],
                            }
                        }
                    })
                    .buffered(REPOSITORIES_AHEAD)
                    .flat_map(stream::iter)
                    .boxed()
            }
            Lister::Catalog => stream::once(async move { first.catalog(shard).await }).flatten().boxed(),
        };
        wanted
            .map(move |wanted| {
                let this = second.clone();
                async move {
                    match wanted {
                        Wanted::Image(image) => vec![Ok(image)],
                        Wanted::Tag(tag) => this.resolve(tag).await,
                        Wanted::Stop(error) => vec![Err(error)],
                    }
                }
            })
            .buffered(jobs)
            .flat_map(stream::iter)
            .filter_map(move |image| std::future::ready(seen.admit(image)))
            .boxed()
    }

    fn is_tree(&self) -> bool {
        matches!(self.at, Endpoint::Tree(_))
    }

    /// All repositories of the registry, within its namespace, and their tags.
    async fn catalog(self, shard: Shard) -> BoxStream<'static, Wanted> {
        let Endpoint::Registry(registry) = &self.at else { return stream::empty().boxed() };
        let repositories = match registry.client().catalog(registry.host()).await {
            Ok(repositories) => repositories,
            Err(error) => return stream::iter([Wanted::Stop(error.into())]).boxed(),
        };
        let registry = registry.clone();
        let lines = repositories.into_iter().filter_map(move |repository| {
            let path = StorePath::parse(repository.path())
                .ok()
                .filter(|path| registry.has(path) && shard.has(path.as_str()))?;
            Some((ImageLine { host: None, path, tag: None, digest: None }, repository))
        });
        stream::iter(lines)
            .map(move |(line, repository)| {
                let this = self.clone();
                async move { this.tags(line, repository, true).await }
            })
            .buffered(REPOSITORIES_AHEAD)
            .flat_map(stream::iter)
            .boxed()
    }

    /// What one line stands for.
    async fn expand(&self, Line { place, text, image }: Line, discover_tags: bool) -> Vec<Wanted> {
        let part = image.as_ref().map_or(text.as_str(), |line| line.path.as_str()).to_owned();
        let refused = |reason: String| {
            let why = Why::Refused(format!("{place}: {reason}"));
            vec![Wanted::Image(Image::Left(Left { image: text.clone(), part: part.clone(), digest: None, why }))]
        };
        let line = match image {
            Ok(line) => line,
            Err(error) => return refused(error.to_string()),
        };
        if let Some(host) = line.host.as_ref().filter(|host| !self.names.hosts.contains(*host)) {
            return refused(format!("{host} is neither the source's registry nor a side of a rename rule"));
        }
        if let Endpoint::Registry(registry) = &self.at
            && !registry.has(&line.path)
        {
            return refused(format!("{} is outside of {}", line.path, registry.shown()));
        }
        match (&line.tag, &line.digest) {
            (_, Some(digest)) => self.sets(&line, digest).await.into_iter().map(Wanted::Image).collect(),
            (Some(tag), None) => match self.registry_of(&line) {
                Ok(repository) => {
                    let tag = tag.clone();
                    vec![Wanted::Tag(TagWanted { line, repository, tag, discovered: false })]
                }
                Err(reason) => refused(reason),
            },
            (None, None) if discover_tags => match self.registry_of(&line) {
                Ok(repository) => self.tags(line, repository, false).await,
                Err(reason) => refused(reason),
            },
            (None, None) => match &self.at {
                Endpoint::Tree(_) => self.whole_repository(&line).await,
                _ => refused("it has neither tag nor digest; add one, or --discover tags for all tags".to_owned()),
            },
        }
    }

    /// Where the tags of a line's repository are: in the source, if that is a registry, else in
    /// the registry that the line names.
    fn registry_of(&self, line: &ImageLine) -> Result<Repository, String> {
        let host = match (&self.at, &line.host) {
            (Endpoint::Registry(registry), _) => registry.host(),
            (_, Some(host)) => host.as_str(),
            (_, None) => {
                return Err("only a registry knows what its tags are; write HOST/PATH, or the digest".to_owned());
            }
        };
        Repository::parse(&format!("{host}/{}", line.path)).map_err(|e| e.to_string())
    }

    async fn tags(&self, line: ImageLine, repository: Repository, discovered: bool) -> Vec<Wanted> {
        let left = |why| {
            let (image, part) = (repository.to_string(), line.path.to_string());
            vec![Wanted::Image(Image::Left(Left { image, part, digest: None, why }))]
        };
        match self.names.client.tags(&repository).await {
            Ok(tags) if tags.is_empty() => left(Why::Absent("the repository has no tags".to_owned())),
            Ok(tags) => {
                let wanted = |tag| {
                    let (line, repository) = (line.clone(), repository.clone());
                    Wanted::Tag(TagWanted { line, repository, tag, discovered: true })
                };
                tags.into_iter().map(wanted).collect()
            }
            // Registries keep names in their catalog whose last tag is gone.
            Err(error) if error.is_not_found() && discovered => left(Why::Absent(error.to_string())),
            Err(error) => left(Why::Failed(error.to_string())),
        }
    }

    /// Asks what a tag is.
    async fn resolve(&self, wanted: TagWanted) -> Vec<Result<Image, EndpointError>> {
        let TagWanted { line, repository, tag, discovered } = wanted;
        // The whole manifest, not only a header: the digest is computed, not believed.
        match self.names.client.manifest(&repository, Selector::Tag(&tag)).await {
            Ok(manifest) => self.sets(&line, &manifest.digest).await.into_iter().map(Ok).collect(),
            Err(error) => {
                let why = if error.is_not_found() && discovered { Why::Absent } else { Why::Failed };
                let (image, part) = (format!("{repository}:{tag}"), line.path.to_string());
                vec![Ok(Image::Left(Left { image, part, digest: None, why: why(error.to_string()) }))]
            }
        }
    }

    /// The sets of an image: in a tree it may lie below the registry's name, too.
    async fn sets(&self, line: &ImageLine, digest: &Digest) -> Vec<Image> {
        let mut sets = Vec::new();
        for path in self.paths(line) {
            match SetAddress::image(path, digest.clone()) {
                Ok(set) => sets.push(set),
                Err(error) => return vec![absent(line, Some(digest), error.to_string())],
            }
        }
        if sets.len() > 1 {
            let mut present = Vec::new();
            for set in &sets {
                // What cannot be read is found to be so when it is worked on.
                if !self.at.signatures(set).await.is_ok_and(|found| found.is_empty()) {
                    present.push(set.clone());
                }
            }
            if present.is_empty() {
                sets.truncate(1);
            } else {
                sets = present;
            }
        }
        sets.into_iter().map(Image::Found).collect()
    }

    /// All sets of a repository of a tree.
    async fn whole_repository(&self, line: &ImageLine) -> Vec<Wanted> {
        let Endpoint::Tree(store) = &self.at else { return Vec::new() };
        let mut wanted = Vec::new();
        for path in self.paths(line) {
            let mut walk = store.walk(&path);
            while let Some(set) = walk.next().await {
                match set {
                    Ok(set) if *set.path() == path && set.layout() == Layout::Image => {
                        wanted.push(Wanted::Image(Image::Found(set)));
                    }
                    Ok(_) => {}
                    Err(error) => wanted.push(Wanted::Stop(error.into())),
                }
            }
        }
        if wanted.is_empty() {
            wanted.push(Wanted::Image(absent(line, None, "the tree has no signatures of this repository".to_owned())));
        }
        wanted
    }

    /// Where a repository's sets may be.
    fn paths(&self, line: &ImageLine) -> Vec<StorePath> {
        let mut paths = vec![line.path.clone()];
        if let (Endpoint::Tree(_), Some(host)) = (&self.at, &line.host) {
            let below_host = StorePath::parse(host).and_then(|host| host.join(&line.path));
            paths.extend(below_host.ok());
        }
        paths
    }
}

fn absent(line: &ImageLine, digest: Option<&Digest>, reason: String) -> Image {
    let host = line.host.as_ref().map(|host| format!("{host}/")).unwrap_or_default();
    let (image, part) = (format!("{host}{}", line.path), line.path.to_string());
    Image::Left(Left { image, part, digest: digest.cloned(), why: Why::Absent(reason) })
}

/// What went by of the repository at hand.
#[derive(Default)]
struct Seen {
    path: Option<StorePath>,
    digests: HashSet<Digest>,
    /// Repositories must come whole.
    grouped: bool,
    /// If so: those that went by, in sixteen bytes each.
    before: HashSet<ItemKey>,
    /// This turn is its repository's second.
    refused: bool,
}

impl Seen {
    /// Lets an image pass once in a repository's turn.
    fn admit(&mut self, image: Result<Image, EndpointError>) -> Option<Result<Image, EndpointError>> {
        let Ok(Image::Found(set)) = &image else { return Some(image) };
        if self.path.as_ref() != Some(set.path()) {
            self.digests.clear();
            self.path = Some(set.path().clone());
            self.refused = self.grouped && !self.before.insert(item_key(set.path().as_str(), "", ""));
            if self.refused {
                return Some(Err(EndpointError::Ungrouped(set.path().to_string())));
            }
        }
        if self.refused {
            return None;
        }
        if self.digests.len() >= REMEMBERED {
            self.digests.clear();
        }
        self.digests.insert(set.digest().clone()).then_some(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str, digest: &str) -> Result<Image, EndpointError> {
        let digest = Digest::sha256(digest.as_bytes());
        Ok(Image::Found(SetAddress::image(StorePath::parse(path).unwrap(), digest).unwrap()))
    }

    #[test]
    fn an_image_passes_once_in_its_repositorys_turn() {
        let mut seen = Seen::default();
        let mut passes = |path, digest| seen.admit(image(path, digest)).is_some();
        assert!(passes("a", "1") && passes("a", "2") && !passes("a", "1"));
        assert!(passes("b", "1") && passes("a", "1"), "a second visit is harmless");
        let mut seen = Seen { grouped: true, ..Seen::default() };
        let mut said = |path, digest| seen.admit(image(path, digest)).map(|admitted| admitted.is_ok());
        let turns = [said("a", "1"), said("a", "2"), said("b", "1"), said("a", "3"), said("a", "4"), said("c", "1")];
        assert_eq!(turns, [Some(true), Some(true), Some(true), Some(false), None, Some(true)]);
    }
}
