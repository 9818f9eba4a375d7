//! All signature sets of a tree, one by one, in memory that does not grow with the tree.

use futures_util::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::ObjectMeta;

use super::backend::Backend;
use super::error::StoreError;
use super::layout::{SetAddress, SignatureAddress, StorePath};
use super::local_walk;
use super::objects::{ObjectTree, failed, path};
use super::signatures::Store;

impl Store {
    /// Lists every signature set whose path is `under` or lies below it, each once, in the order
    /// in which the back end lists them. Foreign files and empty folders are passed over.
    ///
    /// After an error (a folder that may not be read) the stream goes on with the rest where it
    /// can: who must see everything takes any error for a failure of the whole.
    pub fn walk(&self, under: &StorePath) -> BoxStream<'_, Result<SetAddress, StoreError>> {
        match &self.backend {
            Backend::Local(tree) => local_walk::walk(tree.clone(), under.clone()),
            Backend::Objects(tree) => objects(tree, under),
        }
    }
}

fn objects<'a>(tree: &'a ObjectTree, under: &StorePath) -> BoxStream<'a, Result<SetAddress, StoreError>> {
    let below = match path(under.as_str()) {
        Ok(below) => below,
        Err(error) => return stream::iter([Err(error)]).boxed(),
    };
    let prefix = (!under.is_empty()).then_some(&below);
    let below_it = sets(tree.store().list(prefix), under.to_string());
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
    sets(own.boxed(), format!("{under}@")).chain(below_it).boxed()
}

/// Turns a listing of objects into one of sets: the objects of a set lie side by side.
fn sets<'a>(
    listing: BoxStream<'a, object_store::Result<ObjectMeta>>,
    shown: String,
) -> BoxStream<'a, Result<SetAddress, StoreError>> {
    let listing = listing.map_err(move |error| match path(&shown) {
        Ok(shown) => failed("listing below", &shown, &error),
        Err(error) => error,
    });
    let mut last: Option<SetAddress> = None;
    listing
        .try_filter_map(move |meta| {
            let set = SignatureAddress::parse(meta.location.as_ref()).ok().map(|address| address.set);
            let fresh = set.filter(|set| last.as_ref() != Some(set));
            if fresh.is_some() {
                last.clone_from(&fresh);
            }
            std::future::ready(Ok(fresh))
        })
        .boxed()
}
