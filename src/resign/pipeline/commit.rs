//! Work for the disk or the network: appending what is prepared, group by group.
//!
//! A folder takes large groups, since a group costs two flushes whatever its size; while one is
//! flushed the next is written. Anything with requests takes each image by itself, as many at once
//! as the job says.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};

use super::ResignError;
use super::prepare::{Ready, Shared};
use crate::resign::endpoint::Destination;
use crate::resign::item::{Item, State};

/// The most images of a group.
const GROUP: usize = 1365;
/// How many groups a folder gets at a time.
const FLUSHED: usize = 2;
/// How long the first group may be gathered, and how long any: the longer, the fewer flushes, and
/// the more is done again after a loss of power.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

type Prepared = Result<Ready, ResignError>;

/// What became of some images.
#[derive(Default)]
pub(super) struct Group {
    /// How many they are.
    pub(super) images: u64,
    pub(super) items: Vec<Item>,
    pub(super) resumed: u64,
    pub(super) refused_before: u64,
    /// Parts of the source that could not be listed.
    pub(super) unlisted: Vec<String>,
    /// Held until the items are settled for good.
    pub(super) rooms: Vec<OwnedSemaphorePermit>,
}

/// Appends until nothing more comes, or nobody wants to know.
pub(super) async fn commit(
    shared: Arc<Shared>,
    prepared: mpsc::Receiver<Prepared>,
    durable: mpsc::Sender<Result<Group, ResignError>>,
) {
    let local = matches!(&shared.destination, Destination::Tree(store) if store.is_local());
    let (size, at_once) = if local { (GROUP, FLUSHED) } else { (1, shared.job.jobs.max(1)) };
    let groups = stream::unfold((prepared, PATIENCE.0), |(mut prepared, patience)| async move {
        let group = gather(&mut prepared, size, patience).await;
        (!group.is_empty()).then(|| (group, (prepared, (patience * 2).min(PATIENCE.1))))
    });
    let appended = groups.map(|group| {
        let work = tokio::spawn(append(shared.clone(), group));
        async move { work.await.unwrap_or_else(|died| vec![Err(died.into())]) }
    });
    let mut appended = std::pin::pin!(appended.buffer_unordered(at_once).flat_map(stream::iter));
    while let Some(group) = appended.next().await {
        if durable.send(group).await.is_err() {
            return;
        }
    }
}

/// Takes what is prepared: at least one image, and more until the group is full or it takes too long.
async fn gather(prepared: &mut mpsc::Receiver<Prepared>, size: usize, patience: Duration) -> Vec<Prepared> {
    let mut group = Vec::new();
    prepared.recv_many(&mut group, size).await;
    let end = Instant::now() + patience;
    while !group.is_empty() && group.len() < size {
        let room = size - group.len();
        if !matches!(timeout_at(end, prepared.recv_many(&mut group, room)).await, Ok(1..)) {
            break;
        }
    }
    group
}

/// Makes one group durable. What stopped the preparing comes after it.
async fn append(shared: Arc<Shared>, prepared: Vec<Prepared>) -> Vec<Result<Group, ResignError>> {
    let mut group = Group::default();
    let mut stopped = Vec::new();
    let (mut waiting, mut batch) = (Vec::new(), Vec::new());
    for one in prepared {
        let Ready { settled, unwritten, resumed, refused_before, unlisted, waiting: _, room } = match one {
            Ok(ready) => ready,
            Err(error) => {
                stopped.push(Err(error));
                continue;
            }
        };
        group.images += u64::from(unlisted.is_none());
        group.unlisted.extend(unlisted);
        group.rooms.extend(room);
        group.resumed += resumed;
        group.refused_before += refused_before;
        group.items.extend(settled);
        for made in unwritten {
            batch.extend(made.blobs.into_iter().map(|blob| (made.place.clone(), blob)));
            waiting.push((made.item, made.turn, batch.len()));
        }
    }
    let results = if batch.is_empty() { Vec::new() } else { shared.destination.append_many(batch).await };
    let mut results = results.into_iter().enumerate().peekable();
    for (mut item, turn, end) in waiting {
        while let Some((_, result)) = results.next_if(|(index, _)| *index < end) {
            if let Err(e) = result {
                item.state = State::Failed;
                item.reason = Some(format!("cannot write: {e}"));
            }
        }
        group.items.extend(turn.end(item));
    }
    std::iter::once(Ok(group)).chain(stopped).collect()
}
