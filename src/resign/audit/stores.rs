//! What the stores have of one image of a report.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;

use super::{Audit, Problem};
use crate::image::Digest;
use crate::resign::endpoint::{Endpoint, EndpointError};
use crate::resign::item::{Item, State};
use crate::store::{Layout, SetAddress, StorePath};

/// Signatures by the SHA-256 of their bytes.
pub(super) type Blobs = HashMap<String, Bytes>;

pub(super) fn by_hash(blobs: Vec<Bytes>) -> Blobs {
    blobs.into_iter().map(|blob| (Digest::sha256(&blob).hex().to_owned(), blob)).collect()
}

pub(super) fn is_signature(item: &Item) -> bool {
    matches!(item.state, State::Signed | State::Already)
}

/// The signatures that the items of one image may tell of.
#[derive(Default)]
pub(super) struct Stores {
    /// Old ones, by where they lie: under the image itself, and under lists that it is an instance of.
    pub(super) old: Vec<(SetAddress, Blobs)>,
    /// New ones, by the place that the report gives.
    pub(super) new: BTreeMap<String, Blobs>,
    unread_old: BTreeSet<Digest>,
    unread_new: BTreeSet<String>,
    /// The job could not read these, or not write: nobody wonders what is in them.
    pub(super) given_up: Vec<SetAddress>,
}

impl Stores {
    /// Reads all that the items name; what cannot be read is a problem.
    pub(super) async fn read(audit: &Audit, items: &[Item], problems: &mut Vec<Problem>) -> Self {
        let mut stores = Self::default();
        stores.read_old(audit, items, problems).await;
        stores.read_new(audit, items, problems).await;
        stores
    }

    /// Tells whether all that an item names could be read.
    pub(super) fn has_all_of(&self, item: &Item) -> bool {
        let signed = item.signed_digest();
        let place = item.place.as_ref();
        !signed.is_some_and(|digest| self.unread_old.contains(digest))
            && !place.is_some_and(|place| self.unread_new.contains(place))
    }

    async fn read_old(&mut self, audit: &Audit, items: &[Item], problems: &mut Vec<Problem>) {
        let mut wanted: BTreeMap<&Digest, (&Item, BTreeSet<&str>)> = BTreeMap::new();
        for item in items {
            let Some(digest) = item.signed_digest() else { continue };
            if item.blob.is_none() && item.state == State::Failed {
                self.given_up.extend(sources(&audit.source, item, digest));
                continue;
            }
            wanted.entry(digest).or_insert_with(|| (item, BTreeSet::new())).1.extend(item.blob.as_deref());
        }
        for (digest, (first, mut missing)) in wanted {
            for set in sources(&audit.source, first, digest) {
                match audit.source.signatures(&set).await {
                    Ok(blobs) => {
                        let blobs = by_hash(blobs);
                        missing.retain(|hash| !blobs.contains_key(*hash));
                        self.old.push((set, blobs));
                    }
                    Err(error) => {
                        problems.push(unread(first, "source", &error));
                        self.unread_old.insert(digest.clone());
                        break;
                    }
                }
                if missing.is_empty() {
                    break;
                }
            }
        }
    }

    async fn read_new(&mut self, audit: &Audit, items: &[Item], problems: &mut Vec<Problem>) {
        for item in items {
            let Some(place) = item.place.clone() else { continue };
            // A place that cannot be is told by the check of the item.
            let Ok(set) = SetAddress::parse_key(&place) else { continue };
            if self.new.contains_key(&place) || self.unread_new.contains(&place) {
                continue;
            }
            match audit.destination.signatures(&set).await {
                Ok(blobs) => drop(self.new.insert(place, by_hash(blobs))),
                // Neither can this place be.
                Err(EndpointError::NoPlace { .. }) => {}
                // Perhaps for the reason that it failed for.
                Err(_) if item.state == State::Failed => {}
                Err(error) => {
                    problems.push(unread(item, "destination", &error));
                    self.unread_new.insert(place);
                }
            }
        }
    }
}

fn unread(item: &Item, store: &str, error: &EndpointError) -> Problem {
    Problem::unknown(item, format!("cannot read the {store}: {error}"))
}

/// Where the old signatures of an image may lie, the likelier first: the report tells path and
/// digest, not the layout. Only a tree may have the layout of releases.
pub(super) fn sources(source: &Endpoint, item: &Item, digest: &Digest) -> Vec<SetAddress> {
    let Ok(path) = StorePath::parse(&item.repository) else { return Vec::new() };
    let image = SetAddress::image(path.clone(), digest.clone()).ok();
    if !matches!(source, Endpoint::Tree(_)) {
        return Vec::from_iter(image);
    }
    let release = SetAddress::release(path, digest.clone());
    let place = item.place.as_deref().and_then(|place| SetAddress::parse_key(place).ok());
    if place.is_some_and(|place| place.layout() == Layout::Release) {
        return std::iter::once(release).chain(image).collect();
    }
    image.into_iter().chain([release]).collect()
}
