//! What no item of a report is about: sets of the source that it passes over, and sets of the
//! destination with signatures by the job's keys.

use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

use super::stores::{Blobs, by_hash};
use super::{Audit, AuditError, Desk, Found, Problem, set_key};
use crate::resign::endpoint::Endpoint;
use crate::resign::journal::ItemKey;
use crate::store::{SetAddress, Store, StoreError, StorePath};

/// Looks through both stores, as far as they are trees and the report should tell of all that is
/// in them; sets that were `visited` are not read again.
pub(super) async fn look(
    desk: &Arc<Desk>,
    (mut old, mut new): (Vec<ItemKey>, Vec<ItemKey>),
) -> Result<Vec<Found>, AuditError> {
    let mut all = Vec::new();
    if let (Endpoint::Tree(store), true) = (&desk.audit.source, desk.went_through_all()) {
        let mine = |set: &SetAddress| desk.parts.has(set.path().as_str());
        let sets = unvisited(store, &mut old, mine);
        all.extend(each(desk, sets, Side { name: "source", end: |audit| &audit.source, check: source_set }).await?);
    }
    if let (Endpoint::Tree(store), true) = (&desk.audit.destination, desk.whole) {
        let sets = unvisited(store, &mut new, |_| true);
        all.extend(
            each(desk, sets, Side { name: "destination", end: |audit| &audit.destination, check: destination_set })
                .await?,
        );
    }
    Ok(all)
}

/// One of the two stores.
#[derive(Clone, Copy)]
struct Side {
    name: &'static str,
    end: fn(&Audit) -> &Endpoint,
    check: fn(&Desk, &SetAddress, Blobs, &mut Found),
}

type Sets<'a> = BoxStream<'a, Result<SetAddress, StoreError>>;

fn unvisited<'a>(
    store: &'a Store,
    visited: &'a mut Vec<ItemKey>,
    wanted: impl Fn(&SetAddress) -> bool + Send + 'a,
) -> Sets<'a> {
    visited.sort_unstable();
    visited.dedup();
    let other = move |set: &SetAddress| wanted(set) && visited.binary_search(&set_key(&set.to_string())).is_err();
    store.walk(&StorePath::root()).filter(move |set| std::future::ready(set.as_ref().map_or(true, &other))).boxed()
}

/// Reads and checks sets, several at a time; most trees have none that the report is not about.
async fn each(
    desk: &Arc<Desk>,
    sets: Sets<'_>,
    Side { name: store, end, check }: Side,
) -> Result<Vec<Found>, AuditError> {
    let unknown = |what: String| Found { problems: vec![Problem::unknown_of_report(what)], ..Found::default() };
    let mut looked = sets
        .map(|set| {
            let desk = desk.clone();
            async move {
                let set = match set {
                    Ok(set) => set,
                    Err(error) => return Ok(unknown(format!("cannot list all of the {store}: {error}"))),
                };
                let blobs = match end(&desk.audit).signatures(&set).await {
                    Ok(blobs) => by_hash(blobs),
                    Err(error) => return Ok(unknown(format!("cannot read the {store} at {set}: {error}"))),
                };
                let work = tokio::task::spawn_blocking(move || {
                    let mut found = Found::default();
                    check(&desk, &set, blobs, &mut found);
                    found
                });
                work.await.map_err(AuditError::from)
            }
        })
        .buffer_unordered(desk.audit.jobs.max(1));
    let mut all = Vec::new();
    while let Some(found) = looked.next().await {
        let found = found?;
        if !(found.problems.is_empty() && found.unexplained.is_empty() && found.untold.is_empty()) {
            all.push(found);
        }
    }
    Ok(all)
}

fn source_set(desk: &Desk, set: &SetAddress, blobs: Blobs, found: &mut Found) {
    found.untold.extend(blobs.iter().filter_map(|(hash, blob)| desk.untold(set, hash, blob)));
}

fn destination_set(desk: &Desk, set: &SetAddress, blobs: Blobs, found: &mut Found) {
    found.unexplained.extend(blobs.iter().filter_map(|(hash, blob)| desk.own(set, hash, blob, true)));
}
