//! All signature sets of a tree, one by one, in memory that does not grow with the tree.

use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::ObjectMeta;

use super::backend::Backend;
use super::error::StoreError;
use super::layout::{SetAddress, SignatureAddress, StorePath};
use super::local_walk::{self, Manner};
use super::objects::{ObjectTree, failed, path};
use super::signatures::Store;
use super::survey::{self, Surveyed};

impl Store {
    /// Lists every signature set whose path is `under` or lies below it, each once, in the order
    /// in which the back end lists them. Foreign files and empty folders are passed over.
    ///
    /// After an error (a folder that may not be read) the stream goes on with the rest where it
    /// can: who must see everything takes any error for a failure of the whole.
    pub fn walk(&self, under: &StorePath) -> BoxStream<'_, Result<SetAddress, StoreError>> {
        self.walk_in(under, Manner::default())
    }

    /// As [`Store::walk`], in a folder by the names of sets alone, without a look into them: some may
    /// have no signature. For who reads each anyhow, or only wants to know about how many there are.
    pub fn walk_names(&self, under: &StorePath) -> BoxStream<'_, Result<SetAddress, StoreError>> {
        self.walk_in(under, Manner { names: true, ..Manner::default() })
    }

    /// As [`Store::walk_names`], with the sets of one repository side by side. In a folder this
    /// takes memory for the names of one directory and of those above it.
    pub fn walk_by_repository(&self, under: &StorePath) -> BoxStream<'_, Result<SetAddress, StoreError>> {
        self.walk_in(under, Manner { sorted: true, names: true, ..Manner::default() })
    }

    /// A bucket lists by key: all keys of a repository begin alike, and an empty set has none.
    fn walk_in(&self, under: &StorePath, manner: Manner) -> BoxStream<'_, Result<SetAddress, StoreError>> {
        match &self.backend {
            Backend::Local { tree, .. } => local_walk::walk(tree.clone(), under.clone(), manner),
            Backend::Objects(tree) => objects(tree, under, false),
        }
        .try_filter_map(only_sets)
        .boxed()
    }

    /// As [`Store::walk`], and tells of everything in the tree that is no signature, too.
    pub fn survey(&self, under: &StorePath) -> BoxStream<'_, Result<Surveyed, StoreError>> {
        match &self.backend {
            Backend::Local { tree, .. } => {
                local_walk::walk(tree.clone(), under.clone(), Manner { thorough: true, ..Manner::default() })
            }
            Backend::Objects(tree) => objects(tree, under, true),
        }
    }
}

async fn only_sets(found: Surveyed) -> Result<Option<SetAddress>, StoreError> {
    Ok(match found {
        Surveyed::Set(set) => Some(set),
        Surveyed::Foreign(_) => None,
    })
}

fn objects<'a>(tree: &'a ObjectTree, under: &StorePath, thorough: bool) -> BoxStream<'a, Result<Surveyed, StoreError>> {
    let below = match path(under.as_str()) {
        Ok(below) => below,
        Err(error) => return stream::iter([Err(error)]).boxed(),
    };
    let prefix = (!under.is_empty()).then_some(&below);
    let below_it = sets(tree.store().list(prefix), under.to_string(), thorough.then_some(tree));
    let Some((parent, _)) = under.split_last() else { return below_it };

    // The repository's own folders, `{under}@…`, lie beside `{under}/` and not below it.
    let start = format!("{under}@");
    let (parent, offset) = match (path(parent.as_str()), path(&start)) {
        (Ok(parent), Ok(offset)) => (parent, offset),
        (Err(error), _) | (_, Err(error)) => return stream::iter([Err(error)]).boxed(),
    };
    let siblings = tree.store().list_with_offset((!parent.is_root()).then_some(&parent), &offset);
    let own = siblings.try_take_while(move |meta| {
        let ours = meta.location.as_ref().starts_with(&start);
        std::future::ready(Ok(ours))
    });
    sets(own.boxed(), format!("{under}@"), thorough.then_some(tree)).chain(below_it).boxed()
}

/// Turns a listing of objects into one of sets: the objects of a set lie side by side.
fn sets<'a>(
    listing: BoxStream<'a, object_store::Result<ObjectMeta>>,
    shown: String,
    thorough: Option<&'a ObjectTree>,
) -> BoxStream<'a, Result<Surveyed, StoreError>> {
    let listing = listing.map_err(move |error| match path(&shown) {
        Ok(shown) => failed("listing below", &shown, &error),
        Err(error) => error,
    });
    let mut last: Option<SetAddress> = None;
    listing
        .try_filter_map(move |meta| {
            let found = match SignatureAddress::parse(meta.location.as_ref()) {
                Ok(_) if thorough.is_some() && survey::is_empty(&meta) => Some(survey::empty(&meta)),
                Ok(address) if last.as_ref() == Some(&address.set) => None,
                Ok(address) => {
                    last = Some(address.set.clone());
                    Some(Surveyed::Set(address.set))
                }
                Err(_) => thorough.and_then(|tree| survey::object(tree, &meta)),
            };
            std::future::ready(Ok(found))
        })
        .boxed()
}
