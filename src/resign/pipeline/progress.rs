//! How far a job is, for whoever shows it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::resign::item::Summary;

/// Counters of a running job, to be read at any time from any thread.
#[derive(Debug, Default)]
pub struct Progress {
    found: AtomicU64,
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
    /// There are no more than were found.
    pub listed: bool,
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
        Position {
            listed: self.listed.load(Ordering::Relaxed),
            done: read(&self.done),
            found: read(&self.found),
            refused: read(&self.refused),
            failed: read(&self.failed),
        }
    }

    pub(super) fn found(&self, images: u64) {
        self.found.fetch_add(images, Ordering::Relaxed);
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
