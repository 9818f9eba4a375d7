//! The right to be the only remover on one set.
//!
//! Numbers are only ever created, so what a number holds changes only when somebody deletes it
//! and another creates it anew. With a single remover at a time, what it has read under a number
//! is what it deletes: no race can make it delete a signature that it did not mean.
//!
//! A folder uses an advisory lock (`flock`), which ends with its process. A bucket has none, so
//! an object `.countersign-lock` beside the signatures stands for it. Its holder stops work long
//! before others may call it stale; the distance covers the 15 minutes of clock difference beyond
//! which S3 refuses requests anyhow.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tokio::sync::OwnedMutexGuard;

use super::error::StoreError;
use super::layout::SetAddress;

/// The object that stands for the right in a bucket. Readers of the tree never ask for it.
pub(super) const LOCK_NAME: &str = ".countersign-lock";
/// The holder of a lease does nothing more after this time.
const WORKING_TIME: Duration = Duration::from_mins(2);
/// An older lock object belongs to a process that died.
pub(super) const STALE: Duration = Duration::from_mins(20);

/// The right itself; give it back with [`Lease::release`].
#[derive(Debug)]
pub(super) struct Lease {
    taken: Instant,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// The locked folder; closing it unlocks.
    Folder { _locked: File },
    /// This process' own turn, and the lock object if other processes may come.
    Bucket { _turn: OwnedMutexGuard<()>, lock: Option<(Arc<dyn ObjectStore>, Path)> },
}

/// How an attempt to become the only remover went.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The right is ours.
    Taken(Lease),
    /// Somebody else has it.
    Busy,
    /// There is no such set, hence nothing to remove.
    NoSet,
}

impl Lease {
    pub(super) fn folder(locked: File) -> Self {
        Self { taken: Instant::now(), held: Held::Folder { _locked: locked } }
    }

    /// `since` is when the lock object was asked for, not when the answer came.
    pub(super) fn bucket(
        since: Instant,
        turn: OwnedMutexGuard<()>,
        lock: Option<(Arc<dyn ObjectStore>, Path)>,
    ) -> Self {
        Self { taken: since, held: Held::Bucket { _turn: turn, lock } }
    }

    /// Refuses work that might outlive the lease.
    pub(super) fn check(&self, at: &SetAddress) -> Result<(), StoreError> {
        let expires = matches!(&self.held, Held::Bucket { lock: Some(_), .. });
        if expires && self.taken.elapsed() > WORKING_TIME {
            let reason = "the removal took too long and stopped half-way, nothing is lost; run it again".to_owned();
            return Err(StoreError::Busy { at: at.to_string(), reason });
        }
        Ok(())
    }

    /// Gives the right back. A lock object that cannot be deleted becomes stale by itself.
    pub(super) async fn release(self) {
        let Held::Bucket { lock: Some((store, path)), .. } = &self.held else { return };
        // Past its time the object may be another's already.
        if self.taken.elapsed() > WORKING_TIME {
            return;
        }
        if let Err(error) = store.delete(path).await {
            let reason = super::objects::describe(&error);
            tracing::warn!(lock = %path, reason, "the removal lock could not be deleted and blocks writes until it is stale");
        }
    }
}
