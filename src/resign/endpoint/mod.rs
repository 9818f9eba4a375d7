//! Where old signatures come from and new ones go: a tree, a registry's signature extension, or a
//! lookaside on the web. All of them address a set by its path and digest, the path of a registry
//! being a repository's path below the host.

mod images;
mod line;
mod listed;
mod lookaside;
mod registry;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::pipeline::Shard;
use super::vouch::Vouched;
use crate::image::Digest;
use crate::registries_d;
use crate::registry::{ConnectError, DepositError, LookasideError, RegistryError};
use crate::store::{Append, SetAddress, Store, StoreError, StorePath};

pub use images::{Discover, ImageFile, Lister};
pub use line::{ImageLine, LineError};
pub use listed::Listed;
pub use lookaside::LookasideEnd;
pub use registry::RegistryEnd;

/// Why a place did not give or take a signature.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A tree failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A registry did not answer its ping.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A lookaside could not be read.
    #[error(transparent)]
    Lookaside(#[from] LookasideError),
    /// A lookaside did not take an upload.
    #[error(transparent)]
    Deposit(#[from] DepositError),
    /// A lookaside's base is no URL.
    #[error(transparent)]
    Base(#[from] registries_d::LookasideError),
    /// The location of a registry is none.
    #[error("{0:?} is no registry: docker://host[:port] or docker://host[:port]/namespace")]
    Location(String),
    /// The registry keeps no signatures.
    #[error(
        "{0} does not announce X-Registry-Supports-Signatures: 1 and so keeps no signatures; put `countersign serve \
         --upstream` before it and name that, or name the lookaside where its signatures are"
    )]
    NoExtension(String),
    /// The set has a path or a layout that this place cannot have.
    #[error("{place} cannot have {set}")]
    NoPlace {
        /// The endpoint.
        place: String,
        /// The key of the set.
        set: String,
    },
    /// The list of images cannot be read.
    #[error("list of images {file}: {source}")]
    Images {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A repository comes a second time where each must be seen whole.
    #[error(
        "the list of images names {0} in two places with others between; the newest claim of a repository can only be \
         told if all its lines follow each other: sort the list"
    )]
    Ungrouped(String),
}

/// One image of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Image {
    /// Its signatures are to be worked on.
    Found(SetAddress),
    /// The list names it, but nothing can be done.
    Left(Left),
}

/// An image of a list that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// What the list says.
    pub image: String,
    /// The repository's path, which decides whose part of the work it is; of a line that names
    /// none, its text.
    pub part: String,
    /// Its digest, if that is known.
    pub digest: Option<Digest>,
    /// Why it is left out.
    pub why: Why,
}

/// Why an image of a list is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is not there.
    Absent(String),
    /// The list must not name it.
    Refused(String),
    /// It could not be found out; another time it may be.
    Failed(String),
}

/// Where old signatures come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// All of a lookaside tree.
    Tree(Store),
    /// Those images of any place that a list names.
    Listed(Listed),
}

impl Source {
    /// Lists the images that may have signatures, each once (of a list: unless the list has them
    /// twice, far from each other; the second visit then finds the work of the first).
    ///
    /// If `grouped`, all images of a repository follow each other. Images of other parts of the
    /// work than `shard` are left out, and registries not asked about them.
    pub fn images(&self, grouped: bool, shard: Shard) -> BoxStream<'static, Result<Image, EndpointError>> {
        let images = match self {
            Self::Tree(store) => whole_tree(store.clone(), grouped).map_ok(Image::Found).boxed(),
            Self::Listed(listed) => listed.images(grouped, shard),
        };
        let mine = move |image: &Result<Image, EndpointError>| match image {
            Ok(Image::Found(set)) => shard.has(set.path().as_str()),
            Ok(Image::Left(left)) => shard.has(&left.part),
            Err(_) => true,
        };
        images.filter(move |image| std::future::ready(mine(image))).boxed()
    }

    /// Counts the images of a part of the work where that costs next to nothing: by the names in a
    /// folder, so that sets without a signature count, too. `None` anywhere else.
    pub async fn count(&self, shard: Shard) -> Option<u64> {
        let Self::Tree(store) = self else { return None };
        if !store.is_local() {
            return None;
        }
        let names = store.walk_names(&StorePath::root());
        // What cannot be listed is told by whoever lists it for work.
        let mine = names.filter(|set| std::future::ready(set.as_ref().is_ok_and(|set| shard.has(set.path().as_str()))));
        Some(mine.count().await as u64)
    }

    /// Reads the signatures of one image.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn signatures(&self, set: &SetAddress) -> Result<Vec<Bytes>, EndpointError> {
        match self {
            Self::Tree(store) => tree_signatures(store, set).await,
            Self::Listed(listed) => listed.at.signatures(set).await,
        }
    }

    /// Tells whether somebody named the images, and so wants to hear of those without signatures.
    pub fn is_listed(&self) -> bool {
        matches!(self, Self::Listed(_))
    }
}

/// A place with signatures.
#[derive(Clone, Debug)]
pub enum Endpoint {
    /// A lookaside tree.
    Tree(Store),
    /// A registry with the signature extension.
    Registry(RegistryEnd),
    /// A lookaside on the web; one that takes uploads, if anything is to be written.
    Lookaside(LookasideEnd),
}

/// Where new signatures go.
pub type Destination = Endpoint;

impl Endpoint {
    /// Reads the signatures that one image has.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub async fn signatures(&self, set: &SetAddress) -> Result<Vec<Bytes>, EndpointError> {
        match self {
            Self::Tree(store) => tree_signatures(store, set).await,
            Self::Registry(registry) => registry.signatures(set).await,
            Self::Lookaside(lookaside) => lookaside.signatures(set).await,
        }
    }

    /// Adds signatures; all that succeed are durable when this returns, the results being in the
    /// order of the batch. Whoever writes over the network does so many at a time.
    ///
    /// # Errors
    /// Each entry has its own.
    pub async fn append_many(&self, batch: Vec<Append>) -> Vec<Result<(), EndpointError>> {
        match self {
            Self::Tree(store) => {
                let results = store.append_many(batch).await.into_iter();
                results.map(|result| result.map(drop).map_err(EndpointError::from)).collect()
            }
            Self::Registry(registry) => {
                let writes = batch.into_iter().map(|(set, blob)| async move { registry.append(&set, &blob).await });
                futures_util::stream::iter(writes).buffered(registry.jobs()).collect().await
            }
            Self::Lookaside(lookaside) => {
                let writes = batch.into_iter().map(|(set, blob)| async move { lookaside.append(&set, &blob).await });
                futures_util::stream::iter(writes).buffered(lookaside.jobs()).collect().await
            }
        }
    }

    /// Returns where this place keeps the new signature of a claim that was vouched for; the
    /// error is the reason why it cannot.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn place_of(&self, vouched: &Vouched) -> Result<SetAddress, String> {
        match self {
            Self::Tree(_) => Ok(vouched.place.clone()),
            Self::Registry(registry) => registry.place_of(&vouched.new, vouched.place.digest()),
            Self::Lookaside(lookaside) => lookaside.place_of(&vouched.place),
        }
    }
}

async fn tree_signatures(store: &Store, set: &SetAddress) -> Result<Vec<Bytes>, EndpointError> {
    Ok(store.signatures(set).await?.into_iter().map(|signature| signature.bytes).collect())
}

fn whole_tree(store: Store, grouped: bool) -> BoxStream<'static, Result<SetAddress, EndpointError>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1024);
    // The walk borrows its store; a task of its own keeps both alive.
    tokio::spawn(async move {
        let root = StorePath::root();
        let mut walk = if grouped { store.walk_by_repository(&root) } else { store.walk_names(&root) };
        while let Some(set) = walk.next().await {
            if sender.send(set).await.is_err() {
                return;
            }
        }
    });
    let stream =
        futures_util::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) });
    stream.map_err(EndpointError::from).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    #[tokio::test]
    async fn folders_are_counted_by_their_names_and_buckets_are_not() {
        let folder = tempfile::tempdir().unwrap();
        for (n, file) in [(1, "signature-1"), (2, "signature-1"), (3, "notes")] {
            let digest = Digest::sha256(&[n]).path_form();
            let set = folder.path().join(format!("team{n}/app@{digest}"));
            std::fs::create_dir_all(&set).unwrap();
            std::fs::write(set.join(file), "x").unwrap();
        }
        let tree = Store::open(folder.path().to_str().unwrap(), &StoreOptions::default()).await.unwrap();
        let source = Source::Tree(tree);
        assert_eq!(source.count(Shard::WHOLE).await, Some(3), "the empty one, too");
        let parts = [1, 2].map(|index| Shard { index, count: 2 });
        let counts = [source.count(parts[0]).await, source.count(parts[1]).await];
        assert_eq!(counts.iter().flatten().sum::<u64>(), 3);
        assert_eq!(source.images(false, Shard::WHOLE).count().await, 3, "whoever reads them sees");
        assert_eq!(Source::Tree(Store::memory()).count(Shard::WHOLE).await, None);
    }
}
