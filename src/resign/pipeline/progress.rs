//! How far a job is, for whoever shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::Job;
use crate::resign::item::Summary;

/// A job that is over by then need not be counted ahead.
const SHORT: Duration = Duration::from_secs(3);

/// Counters of a running job, to be read at any time from any thread.
#[derive(Debug, Default)]
pub struct Progress {
    found: AtomicU64,
    /// How many there will be; zero while nobody has counted.
    counted: AtomicU64,
    listed: AtomicBool,
    done: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// How far a job was at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Images found so far that are this job's.
    pub found: u64,
    /// How many there are in all, as soon as that is known: the source is listed to its end, or it
    /// is a folder that was counted ahead (then sets without a signature may be among them).
    pub total: Option<u64>,
    /// Images that are settled for good.
    pub done: u64,
    /// Signatures refused, by this run or an earlier one that it goes on from.
    pub refused: u64,
    /// Signatures that could not be read or written.
    pub failed: u64,
}

impl Progress {
    /// Returns how far the job is.
    pub fn position(&self) -> Position {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let found = read(&self.found);
        let total = match read(&self.counted) {
            _ if self.listed.load(Ordering::Relaxed) => Some(found),
            0 => None,
            counted => Some(counted.max(found)),
        };
        Position { total, done: read(&self.done), found, refused: read(&self.refused), failed: read(&self.failed) }
    }

    pub(super) fn found(&self, images: u64) {
        self.found.fetch_add(images, Ordering::Relaxed);
    }

    fn counted(&self, images: u64) {
        self.counted.store(images, Ordering::Relaxed);
    }

    pub(super) fn listed(&self) {
        self.listed.store(true, Ordering::Relaxed);
    }

    pub(super) fn settled(&self, images: u64, summary: &Summary) {
        self.done.fetch_add(images, Ordering::Relaxed);
        self.refused.store(summary.refused, Ordering::Relaxed);
        self.failed.store(summary.failed, Ordering::Relaxed);
    }
}

/// Counts the images of a job beside its work, where that is cheap: the list itself is read only a
/// little ahead.
pub(super) async fn count_ahead(job: Arc<Job>) {
    tokio::time::sleep(SHORT).await;
    if let Some(images) = job.source.count(job.shard).await {
        job.progress.counted(images);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_known_when_it_is() {
        let progress = Progress::default();
        progress.found(5);
        assert_eq!(progress.position().total, None);
        progress.counted(3);
        assert_eq!(progress.position().total, Some(5), "more than were counted have come");
        progress.counted(9);
        assert_eq!(progress.position().total, Some(9));
        progress.listed();
        assert_eq!(progress.position().total, Some(5), "some were empty");
    }
}
