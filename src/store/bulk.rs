//! How a batch job uses a store: file work on its own threads, as many requests to a bucket at once
//! as it says, and no second look at what it has just seen.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::backend::Backend;
use super::layout::SetAddress;
use super::set_state::SetState;
use super::signatures::Store;

/// How long an empty set is believed to be empty. Appending to one that is not costs a look more;
/// what this must not outlast is somebody who fills the set and removes from it again meanwhile.
const BELIEVED: Duration = Duration::from_secs(2);
/// How many empty sets are remembered.
const REMEMBERED: usize = 4096;

/// What a batch job wants, and has seen.
#[derive(Debug)]
pub(super) struct Bulk {
    /// How many appends to a bucket are under way at a time.
    pub(super) at_once: usize,
    empty: Mutex<HashMap<SetAddress, Instant>>,
}

impl Bulk {
    /// Notes that a set was seen empty, and not being changed.
    pub(super) fn saw_empty(&self, at: &SetAddress) {
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        if empty.len() >= REMEMBERED {
            empty.retain(|_, seen| seen.elapsed() < BELIEVED);
        }
        if empty.len() < REMEMBERED {
            empty.insert(at.clone(), Instant::now());
        }
    }

    /// Tells, once, whether a set was empty a moment ago.
    pub(super) fn was_empty(&self, at: &SetAddress) -> bool {
        let mut empty = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        empty.remove(at).is_some_and(|seen| seen.elapsed() < BELIEVED)
    }
}

impl Store {
    /// Returns this store as a batch job uses it. Its methods may block on file work, so call them
    /// on threads that may (`spawn_blocking`); [`Store::append_many`] sees to that itself. A bucket
    /// gets `at_once` appends at a time.
    #[must_use]
    pub fn for_bulk(&self, at_once: usize) -> Self {
        let mut store = self.clone();
        match &mut store.backend {
            Backend::Local { here, .. } => *here = true,
            Backend::Objects(_) => {
                store.bulk = Some(Arc::new(Bulk { at_once: at_once.max(1), empty: Mutex::default() }));
            }
        }
        store
    }

    /// Returns what a set looks like from outside, if that is a matter of microseconds: for a folder on this machine.
    /// `None` where it is not, or cannot be found out.
    pub fn state(&self, at: &SetAddress) -> Option<SetState> {
        match &self.backend {
            Backend::Local { tree, .. } => tree.state(at).ok(),
            Backend::Objects(_) => None,
        }
    }

    /// Tells whether [`Store::state`] may be asked on a thread that must not wait.
    pub fn has_quick_state(&self) -> bool {
        matches!(&self.backend, Backend::Local { tree, .. } if !tree.is_remote())
    }

    /// Tells whether this is a folder: work for the processors and the disk, with no waiting for
    /// anybody's answers.
    pub fn is_local(&self) -> bool {
        matches!(self.backend, Backend::Local { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Digest;
    use crate::store::{Appended, StorePath};
    use bytes::Bytes;

    #[tokio::test]
    async fn an_empty_set_is_believed_once_and_checked_by_the_create() {
        let store = Store::memory();
        let bulk = store.for_bulk(8);
        let at = SetAddress::image(StorePath::parse("org/app").unwrap(), Digest::sha256(b"")).unwrap();
        assert!(bulk.signatures(&at).await.unwrap().is_empty());
        // Somebody else is faster: with other bytes, and then with the same.
        store.append(&at, b"other").await.unwrap();
        let added = bulk.append_many(vec![(at.clone(), Bytes::from_static(b"mine"))]).await;
        assert_eq!(added.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Appended::Created(2)]);
        let at = SetAddress::image(StorePath::parse("org/app").unwrap(), Digest::sha256(b"x")).unwrap();
        assert!(bulk.signatures(&at).await.unwrap().is_empty());
        store.append(&at, b"mine").await.unwrap();
        let added = bulk.append_many(vec![(at.clone(), Bytes::from_static(b"mine"))]).await;
        assert_eq!(added.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [Appended::AlreadyThere(1)]);
        assert!(!bulk.bulk.as_ref().unwrap().was_empty(&at));
    }
}
