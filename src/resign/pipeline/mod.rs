//! The job: list, fetch, judge, sign, append, journal. Many images at once, memory bounded.
//!
//! ```text
//! list -> prepare x jobs -> channel -> append x groups -> channel -> journal, count, tell
//! ```
//!
//! Preparing (`prepare`: fetch, judge, compare, sign) is work for the processors; appending
//! (`commit`) waits for the disk or the network, one group while the next is gathered; the journal
//! takes whatever is durable by then. The channels are bounded, so that nothing runs away.

mod commit;
mod prepare;
mod progress;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use progress::{Position, Progress};

use self::commit::commit;
use self::prepare::{Shared, produce};
use super::choice::Choice;
use super::endpoint::{Destination, Source};
use super::item::{Item, State, Summary};
use super::journal::{Journal, JournalError, item_key};
use super::keys::Keys;
use super::rename::RenameMap;
use crate::policy::{Mechanism, Policy};

/// How many images may be ready and not yet in a group; what waits there is their signatures.
const READY: usize = 1024;

/// Everything that a job needs to know.
pub struct Job {
    /// Where the old signatures are.
    pub source: Source,
    /// Where the new ones go; may be the same place.
    pub destination: Destination,
    /// Which names become which.
    pub renames: RenameMap,
    /// The policy that old signatures must satisfy, each for the name in its own claim.
    pub old_policy: Policy,
    /// The cryptography behind the policy, as of the time that the operator states.
    pub mechanism: Arc<dyn Mechanism>,
    /// Who signs the new claims.
    pub keys: Keys,
    /// `creator` of the new claims.
    pub creator: String,
    /// How many images are worked on at once.
    pub jobs: usize,
    /// Decide everything, write nothing.
    pub dry_run: bool,
    /// Which of the claims that could be signed are.
    pub choice: Choice,
    /// Which part of the work is this process's: `index` of `count`, by repository.
    pub shard: Shard,
    /// Where others can read how far it is.
    pub progress: Arc<Progress>,
}

/// A part of the work, so that several processes share it without talking to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    pub index: u32,
    /// At least 1.
    pub count: u32,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// Tells whether a repository belongs to this part; each belongs to exactly one.
    pub fn has(self, repository: &str) -> bool {
        let key = item_key(repository, "", "") % u128::from(self.count.max(1));
        key + 1 == u128::from(self.index)
    }
}

/// Why a job stopped before its end. What it signed up to then stays, and the same command goes on.
#[derive(Debug, thiserror::Error)]
pub enum ResignError {
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A worker died.
    #[error("a worker stopped unexpectedly: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// Runs a job, handing the account of each old signature to `tell` when it is settled for good.
///
/// # Errors
/// [`ResignError`] when the job could not come to its end; what fails for one image, or for the
/// listing of a part of the source, is told and counted, and the others go on.
pub async fn run(job: Arc<Job>, journal: Option<Journal>, mut tell: impl FnMut(&Item)) -> Result<Summary, ResignError> {
    let start = Instant::now();
    let mut summary = Summary::default();
    let shared = Arc::new(Shared::new(job, journal));
    let (ready, prepared) = mpsc::channel(READY);
    let producer = tokio::spawn(produce(shared.clone(), ready));
    let (durable, mut committed) = mpsc::channel(READY);
    let committer = tokio::spawn(commit(shared.clone(), prepared, durable));
    // Ends with this function, however that ends.
    let mut counting = JoinSet::new();
    counting.spawn(progress::count_ahead(shared.job.clone()));
    let mut stopped = None;
    let mut batch = Vec::new();
    while committed.recv_many(&mut batch, READY).await > 0 {
        let mut items = Vec::new();
        let mut images = 0;
        let mut rooms = Vec::new();
        for one in batch.drain(..) {
            match one {
                Ok(group) => {
                    summary.resumed += group.resumed;
                    summary.refused += group.refused_before;
                    images += group.images;
                    group.unlisted.into_iter().for_each(|what| summary.cannot_list(what));
                    items.extend(group.items);
                    rooms.extend(group.rooms);
                }
                // What was ready before the job stopped is not thrown away.
                Err(error) => stopped = stopped.or(Some(error)),
            }
        }
        let items = record(&shared, items).await?;
        for item in &items {
            summary.count(item);
            tell(item);
        }
        shared.job.progress.settled(images, &summary);
        drop(rooms);
    }
    producer.await?;
    committer.await?;
    if let Some(error) = stopped {
        return Err(error);
    }
    // With something left to be tried again it is not at its end: the next run does that, and only that.
    if let Some(journal) = shared.journal().filter(|_| summary.failed == 0) {
        journal.finish()?;
    }
    summary.seconds = start.elapsed().as_secs_f64();
    Ok(summary)
}

/// Stamps and journals items; when this returns, they are settled for good.
async fn record(shared: &Arc<Shared>, mut items: Vec<Item>) -> Result<Vec<Item>, ResignError> {
    let time = jiff::Timestamp::now().to_string();
    for item in &mut items {
        item.time.clone_from(&time);
    }
    if shared.journal().is_none() {
        return Ok(items);
    }
    let shared = shared.clone();
    let recorded = tokio::task::spawn_blocking(move || {
        if let Some(journal) = shared.journal() {
            journal.record(items.iter().filter(|item| !journal.is_finished() || news(journal, item)))?;
        }
        Ok::<_, JournalError>(items)
    });
    Ok(recorded.await??)
}

/// After a finished run only what that run did not settle is worth a line, what fails now, and what
/// failed since and does no more.
fn news(journal: &Journal, item: &Item) -> bool {
    match item.key() {
        Some(key) => {
            let new = matches!(item.state, State::Signed | State::Failed);
            new || !journal.is_done(key) || journal.was_unread(item)
        }
        // An image without signatures is none that run missed.
        None => item.state != State::Unmatched,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_work_without_overlap() {
        for count in [1, 2, 4, 7] {
            for repository in ["a", "a/b", "birds/bluebird", ""] {
                let mine = (1..=count).filter(|index| Shard { index: *index, count }.has(repository)).count();
                assert_eq!(mine, 1, "{repository} of {count}");
            }
        }
    }
}
