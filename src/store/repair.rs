//! Removing signatures and closing gaps: the only code that ever deletes one.
//!
//! It works under a [`Lease`], one remover a set, and deletes only numbers whose bytes it has
//! read under the same lease: as a number's bytes change only by a deletion, even an appender
//! that has not seen the lease in time cannot lose anything by it.

use std::collections::HashSet;
use std::time::Duration;

use super::backend::{Backend, Created, free_numbers};
use super::error::StoreError;
use super::layout::{SetAddress, signature_name};
use super::lease::{Attempt, Lease};
use super::signatures::{PATIENCE, Store};
use crate::image::Digest;

/// Each round that does not end the work was disturbed by an append.
const MOST_ROUNDS: u32 = 100;

/// How a removal went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// So many copies of the signature were taken away (one, but for trees of other tools).
    Done(u32),
    /// The set has no such signature.
    NotThere,
}

/// What a repair did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Signatures that got a lower number, so that there is no gap.
    pub moved: u32,
    /// Further copies of a signature that were taken away.
    pub duplicates: u32,
    /// Files of crashed writers that were taken away.
    pub swept: u32,
}

#[derive(Debug, Default)]
struct Work {
    removed: u32,
    repaired: Repaired,
}

impl Store {
    /// Removes the signature whose bytes have this digest, all its copies, and closes the gap.
    ///
    /// Later signatures move down by create-then-delete: a reader of this store may see one of
    /// them twice for a moment, and never misses one. The work goes on when the caller stops
    /// waiting for it.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while somebody else removes from the same set;
    /// [`StoreError::Unavailable`] when the back end fails: then nothing else than the signature
    /// itself may be gone, and running it again finishes the work.
    pub async fn remove(&self, at: &SetAddress, blob_sha256: &Digest) -> Result<Removed, StoreError> {
        if !self.signatures(at).await?.iter().any(|stored| blob_sha256.matches(&stored.bytes)) {
            return Ok(Removed::NotThere);
        }
        let work = self.alone(at, Some(blob_sha256.clone())).await?;
        Ok(if work.removed > 0 { Removed::Done(work.removed) } else { Removed::NotThere })
    }

    /// Closes the gaps of one set, takes away second copies, and sweeps what crashes left. What is no
    /// signature but has the name of one is never touched; numbers are given around it.
    ///
    /// # Errors
    /// As [`Store::remove`]; [`StoreError::TooLarge`] names a file that must be moved away by hand.
    pub async fn repair(&self, at: &SetAddress) -> Result<Repaired, StoreError> {
        Ok(self.alone(at, None).await?.repaired)
    }

    /// Becomes the only remover on a set and settles it, as a task of its own: a half-done move
    /// should not wait for the next repair only because a caller hung up.
    async fn alone(&self, at: &SetAddress, unwanted: Option<Digest>) -> Result<Work, StoreError> {
        let (store, at) = (self.clone(), at.clone());
        let task = tokio::spawn(async move {
            let Some(lease) = acquire(&store.backend, &at).await? else { return Ok(Work::default()) };
            let result = settle(&store, &at, unwanted.as_ref(), &lease).await;
            lease.release().await;
            result
        });
        task.await.map_err(|stopped| StoreError::unavailable("a removal", stopped))?
    }
}

/// Waits for the lease; `None` when there is no such set.
async fn acquire(backend: &Backend, at: &SetAddress) -> Result<Option<Lease>, StoreError> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(5);
    loop {
        match backend.try_lease(at).await? {
            Attempt::Taken(lease) => return Ok(Some(lease)),
            Attempt::NoSet => return Ok(None),
            Attempt::Busy if tokio::time::Instant::now() < deadline => {}
            Attempt::Busy => {
                let reason =
                    "another removal is under way; try again (after 20 minutes at most, should it have crashed)";
                return Err(StoreError::Busy { at: at.to_string(), reason: reason.to_owned() });
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// Looks, deletes what is unwanted or doubled, moves the rest down, and looks again until there
/// was nothing to do. That last look is what lets an appender trust its own check: whoever
/// appends behind a number that is deleted here either is seen by it or sees the gap itself.
async fn settle(store: &Store, at: &SetAddress, unwanted: Option<&Digest>, lease: &Lease) -> Result<Work, StoreError> {
    let backend = &store.backend;
    let mut work = Work::default();
    if unwanted.is_none() {
        work.repaired.swept = backend.sweep(at).await?;
    }
    for _ in 0..MOST_ROUNDS {
        let snapshot = backend.read(at, store.read_limit, true).await?;
        if let Some(number) = snapshot.unfinished {
            // Its bytes are not known yet, so nothing can be said of it, nor of its place.
            return Err(StoreError::Unfinished(format!("{at}/{}", signature_name(number))));
        }
        let mut settled = !snapshot.shaken;
        let mut seen = HashSet::new();
        // What is no signature keeps its number: it is not ours to move.
        let mut positions = free_numbers(&snapshot.taken);
        for stored in snapshot.signatures {
            let is_unwanted = unwanted.is_some_and(|unwanted| unwanted.matches(&stored.bytes));
            if is_unwanted || !seen.insert(Digest::sha256(&stored.bytes)) {
                backend.delete(at, stored.number, lease).await?;
                settled = false;
                if is_unwanted {
                    work.removed += 1;
                } else {
                    work.repaired.duplicates += 1;
                }
                continue;
            }
            let Some(position) = positions.next().filter(|position| *position != stored.number) else { continue };
            settled = false;
            lease.check(at)?;
            if backend.create(at, position, &stored.bytes).await? == Created::Taken {
                // An appender came first; what it wrote is seen in the next round.
                break;
            }
            backend.delete(at, stored.number, lease).await?;
            work.repaired.moved += 1;
        }
        if settled {
            return Ok(work);
        }
    }
    Err(StoreError::Busy { at: at.to_string(), reason: "it does not come to rest for all the writers".to_owned() })
}
