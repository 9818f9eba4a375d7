//! The few operations that the store's rules need of a back end, and the two that offer them.

use std::sync::Arc;

use bytes::Bytes;

use super::error::StoreError;
use super::layout::SetAddress;
use super::lease::{Attempt, Lease};
use super::local::LocalTree;
use super::objects::ObjectTree;
use super::signatures::{MOST_SIGNATURES, StoredSignature};

/// What one look at a set found.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// All that could be read, ordered by number.
    pub(super) signatures: Vec<StoredSignature>,
    /// A remover is at work, or something listed was no longer there or another when it was
    /// read: something may have been missed that moved meanwhile.
    pub(super) shaken: bool,
    /// Something listed was no longer there or another when it was read.
    pub(super) missing: bool,
    /// Numbers that are taken by what is no signature, ascending: a folder, a pipe, a link to
    /// nowhere, a file that stays empty.
    pub(super) taken: Vec<u32>,
    /// This number's file is empty or cut off, and so young that somebody may be writing it.
    pub(super) unfinished: Option<u32>,
}

impl Snapshot {
    /// A set of nothing.
    pub(super) fn empty() -> Self {
        Self { signatures: Vec::new(), shaken: false, missing: false, taken: Vec::new(), unfinished: None }
    }

    /// Tells whether this look, with what the one before saw, is the truth.
    ///
    /// While somebody moves files, one look may miss what a second finds elsewhere. Two that see
    /// the same are the truth: the mover rests, or has died. Unless something that is listed could
    /// not be read: leaving that out would call a signed image unsigned.
    pub(super) fn is_conclusive_after(&self, before: Option<&[StoredSignature]>) -> bool {
        !self.shaken || (!self.missing && before.is_some_and(|before| before == self.signatures))
    }
}

/// What an appender needs to know of a set.
#[derive(Debug)]
pub(super) struct Found {
    /// The number under which the same bytes are already, durably, stored.
    pub(super) same: Option<u32>,
    /// The highest number of a signature; 0 for an empty set.
    pub(super) highest: u32,
    /// As [`Snapshot::taken`].
    pub(super) taken: Vec<u32>,
    /// A remover is at work; what was found may have moved, and numbers must not be taken now.
    pub(super) unsettled: bool,
}

impl Found {
    /// A set of nothing.
    pub(super) fn empty() -> Self {
        Self { same: None, highest: 0, taken: Vec::new(), unsettled: false }
    }

    /// Returns the number for the next signature; `None` when no client would read it. A number that
    /// something else has taken is passed over: it would never become free.
    pub(super) fn next_number(&self) -> Option<u32> {
        (self.highest.saturating_add(1)..=MOST_SIGNATURES).find(|number| self.taken.binary_search(number).is_err())
    }
}

/// Lists the numbers that signatures can have, where `taken` (ascending) has others.
pub fn free_numbers(taken: &[u32]) -> impl Iterator<Item = u32> {
    (1..=u32::MAX).filter(|number| taken.binary_search(number).is_err())
}

/// How a create-if-absent went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// Stored, durably, and the number before is there too.
    Done,
    /// Stored, durably, but a remover has taken away the number before: a gap to be closed.
    AfterGap,
    /// The number is taken, or was contended; nothing is stored.
    Taken,
}

/// Where the tree lies.
#[derive(Clone, Debug)]
pub(super) enum Backend {
    /// A folder.
    Local {
        /// The folder.
        tree: Arc<LocalTree>,
        /// File work is done on the caller's thread, who has one to spare.
        here: bool,
    },
    /// A bucket, or memory.
    Objects(Arc<ObjectTree>),
}

impl Backend {
    /// Reads a whole set; `alone` says that the caller has the lease. A missing set is empty.
    pub(super) async fn read(&self, at: &SetAddress, limit: u64, alone: bool) -> Result<Snapshot, StoreError> {
        match self {
            Self::Local { tree, here } => blocking(tree, *here, at, move |tree, at| tree.read(at, limit, alone)).await,
            Self::Objects(tree) => tree.read(at, limit, alone).await,
        }
    }

    /// Looks for `blob` and for the highest number.
    pub(super) async fn find(&self, at: &SetAddress, blob: &Bytes) -> Result<Found, StoreError> {
        match self {
            Self::Local { tree, here } => {
                let blob = blob.clone();
                blocking(tree, *here, at, move |tree, at| tree.find(at, &blob)).await
            }
            Self::Objects(tree) => tree.find(at, blob).await,
        }
    }

    /// Stores `blob` under a number that is free.
    pub(super) async fn create(&self, at: &SetAddress, number: u32, blob: &Bytes) -> Result<Created, StoreError> {
        match self {
            Self::Local { tree, here } => {
                let blob = blob.clone();
                blocking(tree, *here, at, move |tree, at| tree.create(at, number, &blob)).await
            }
            Self::Objects(tree) => tree.create(at, number, blob).await,
        }
    }

    /// Takes a number away, under a lease only. It being gone already is fine.
    pub(super) async fn delete(&self, at: &SetAddress, number: u32, lease: &Lease) -> Result<(), StoreError> {
        lease.check(at)?;
        match self {
            Self::Local { tree, here } => blocking(tree, *here, at, move |tree, at| tree.delete(at, number)).await,
            Self::Objects(tree) => tree.delete(at, number).await,
        }
    }

    /// Tries to become the only remover on a set.
    pub(super) async fn try_lease(&self, at: &SetAddress) -> Result<Attempt, StoreError> {
        match self {
            Self::Local { tree, here } => blocking(tree, *here, at, LocalTree::try_lease).await,
            Self::Objects(tree) => tree.try_lease(at).await,
        }
    }

    /// Removes what crashed writers left behind, and says how much it was.
    pub(super) async fn sweep(&self, at: &SetAddress) -> Result<u32, StoreError> {
        match self {
            Self::Local { tree, here } => blocking(tree, *here, at, LocalTree::sweep).await,
            // A bucket's writes are whole or not there.
            Self::Objects(_) => Ok(0),
        }
    }
}

/// Runs file work where it does not hold up the runtime.
async fn blocking<T: Send + 'static>(
    tree: &Arc<LocalTree>,
    here: bool,
    at: &SetAddress,
    work: impl FnOnce(&LocalTree, &SetAddress) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    if here {
        return work(tree, at);
    }
    let (tree, at) = (Arc::clone(tree), at.clone());
    match tokio::task::spawn_blocking(move || work(&tree, &at)).await {
        Ok(result) => result,
        Err(stopped) => Err(StoreError::unavailable("a file operation", stopped)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_and_cannot_be_read_is_never_left_out() {
        let look = |shaken, missing| Snapshot { shaken, missing, ..Snapshot::empty() };
        assert!(look(false, false).is_conclusive_after(None));
        assert!(!look(true, false).is_conclusive_after(None));
        assert!(look(true, false).is_conclusive_after(Some(&[])), "a lock that a dead remover left");
        assert!(!look(true, true).is_conclusive_after(Some(&[])), "not an empty set: a failing back end");
    }

    #[test]
    fn the_next_number_is_free() {
        let next = |highest, taken: &[u32]| Found { highest, taken: taken.to_vec(), ..Found::empty() }.next_number();
        assert_eq!(next(0, &[]), Some(1));
        assert_eq!(next(1, &[2, 3, 5]), Some(4));
        assert_eq!(next(1, &[1, 9]), Some(2));
        assert_eq!(next(126, &[]), Some(127));
        assert_eq!((next(126, &[127]), next(127, &[])), (None, None), "no client would read it");
        assert_eq!(next(u32::MAX, &[]), None);
    }
}
