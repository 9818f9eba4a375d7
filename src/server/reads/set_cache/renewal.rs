//! Loads sets anew before they are too old, so that nobody waits for one that is asked for all the
//! time: to send a single load to a thread for file work costs more than the load itself.
//!
//! A set that is asked for once the first fifth of its life is over (so the walk 1, 2, 3, 404 of
//! one client is not enough) is loaded anew at the beginning of its last fifth, together with
//! others. When the store fails then, the old one stays for its time.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::server::reads::set_cache::{Backend, Key, Sets, SignatureSet, load};

/// From which part of its life on it counts that a set is asked for.
const ASKED_FROM: f32 = 0.2;
/// At which part of its life it is loaded anew.
const RENEWED_AT: f32 = 0.8;
/// How long such sets are gathered at least.
const GATHERED: Duration = Duration::from_millis(50);
/// How many are loaded at a time: a bucket answers many, and in a folder one that somebody is writing
/// does not hold up the others.
const AT_ONCE: usize = 16;
/// How many can wait for it; what is more is loaded by who asks for it.
const MOST: usize = 1 << 16;

/// What is to be loaded anew.
pub(crate) struct Renewal {
    backend: Arc<dyn Backend>,
    sets: Sets,
    asked_from: Duration,
    renewed_at: Duration,
    /// The longest sleep: what is asked for meanwhile can be due earlier than all others.
    late: Duration,
    /// By when they were loaded; each set at most once in its life.
    waiting: Mutex<BTreeMap<(Instant, u64), Key>>,
    /// One task is at work on them, as long as there are any. Taken and given back under the lock
    /// of `waiting`.
    turn: Arc<Semaphore>,
}

impl Renewal {
    pub(crate) fn new(backend: Arc<dyn Backend>, sets: Sets, lifetime: Duration) -> Arc<Self> {
        Arc::new(Self {
            backend,
            sets,
            asked_from: lifetime.mul_f32(ASKED_FROM),
            renewed_at: lifetime.mul_f32(RENEWED_AT),
            late: (lifetime.mul_f32(1.0 - RENEWED_AT) / 4).max(GATHERED),
            waiting: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// Notes that a set is asked for.
    pub(crate) fn asked(self: &Arc<Self>, key: Key, set: &SignatureSet) {
        // Mostly that is known, and no clock is read for it.
        if set.asked.load(Ordering::Relaxed)
            || set.loaded.elapsed() < self.asked_from
            || set.asked.swap(true, Ordering::Relaxed)
        {
            return;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MOST {
            return;
        }
        waiting.insert((set.loaded, key.hash), key);
        if let Ok(turn) = self.turn.clone().try_acquire_owned() {
            tokio::spawn(self.clone().work(turn));
        }
    }

    /// Loads what becomes due, until nothing waits for it.
    async fn work(self: Arc<Self>, turn: OwnedSemaphorePermit) {
        loop {
            let pause = {
                let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                let Some((&(loaded, _), _)) = waiting.first_key_value() else {
                    drop(turn);
                    return;
                };
                self.renewed_at.saturating_sub(loaded.elapsed())
            };
            tokio::time::sleep(pause.clamp(GATHERED, self.late)).await;
            let due = self.due();
            if !due.is_empty() {
                self.renew(due).await;
            }
        }
    }

    /// Takes what is due.
    fn due(&self) -> Vec<(Instant, Key)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        while let Some(first) = waiting.first_entry().filter(|first| first.key().0.elapsed() >= self.renewed_at) {
            let ((loaded, _), key) = first.remove_entry();
            due.push((loaded, key));
        }
        due
    }

    /// Loads sets from a folder all on one thread, else on many.
    async fn renew(&self, due: Vec<(Instant, Key)>) {
        let sets = self.sets.clone();
        let work = match self.backend.here() {
            Some(here) => {
                let runtime = tokio::runtime::Handle::current();
                tokio::task::spawn_blocking(move || runtime.block_on(renew_all(here, sets, due, AT_ONCE)))
            }
            None => tokio::spawn(renew_all(self.backend.clone(), sets, due, AT_ONCE)),
        };
        // Should it break down, the next are renewed all the same.
        let _ = work.await;
    }
}

/// Loads sets anew, some at a time.
async fn renew_all(backend: Arc<dyn Backend>, sets: Sets, due: Vec<(Instant, Key)>, at_once: usize) {
    let renew = |(loaded, key): (Instant, Key)| {
        let (backend, sets) = (&backend, &sets);
        async move {
            let is_current = async || sets.get(&key).await.is_some_and(|set| set.loaded == loaded);
            // When the store was slow to give those before it, its life may be over.
            if !is_current().await {
                return;
            }
            let Ok(set) = load(&**backend, &key.address).await else { return };
            // When the store was slow to give this one, somebody may have loaded a newer one meanwhile.
            if is_current().await {
                // Of an old generation, if there was a write meanwhile: then nobody asks for it.
                sets.insert(key, set).await;
            }
        }
    };
    stream::iter(due).for_each_concurrent(at_once, renew).await;
}

#[cfg(test)]
mod tests {
    use super::super::SetCache;
    use super::super::tests::address;
    use super::*;
    use crate::config::ServerConfig;
    use crate::server::testing::FaultyStore;
    use crate::store::{Store, StoreOptions};

    /// A cache whose sets live for four seconds: asked for from 0.8 on, renewed at 3.2 to 3.4.
    async fn cache(store: impl Backend + 'static) -> SetCache {
        let mut config = ServerConfig::default();
        config.cache.set_seconds = 4;
        let cache = SetCache::new(Arc::new(store), &config);
        // So its life begins.
        cache.get(address()).await.unwrap();
        cache
    }

    async fn length(cache: &SetCache) -> usize {
        cache.get(address()).await.unwrap().entries.len()
    }

    async fn millis(millis: u64) {
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    #[tokio::test]
    async fn what_is_asked_for_is_renewed_before_anybody_waits() {
        let store = FaultyStore::default();
        let cache = cache(store.clone()).await;
        millis(1000).await;
        assert_eq!(length(&cache).await, 0);
        assert_eq!(length(&cache).await, 0);
        store.put(&address(), &["a"]).await;
        let gate = store.hold_next_read();
        assert_eq!(store.reads(), 1);
        gate.reached().await;
        assert_eq!(length(&cache).await, 0, "nobody waits");
        gate.open();
        millis(100).await;
        assert_eq!(length(&cache).await, 1);
        assert_eq!(store.reads(), 2, "one at a time");
        // Its life has just begun: nobody counts as asking for it, and so it ends.
        millis(4500).await;
        assert_eq!(store.reads(), 2);
        assert_eq!(length(&cache).await, 1);
        assert_eq!(store.reads(), 3);
    }

    #[tokio::test]
    async fn a_slow_renewal_does_not_bring_the_past_back() {
        let store = FaultyStore::default();
        let cache = cache(store.clone()).await;
        millis(1000).await;
        assert_eq!(length(&cache).await, 0);
        let gate = store.hold_next_read();
        gate.reached().await;
        store.put(&address(), &["a"]).await;
        // By now the old one's life is over.
        millis(1200).await;
        assert_eq!(length(&cache).await, 1);
        gate.open();
        millis(100).await;
        assert_eq!(length(&cache).await, 1);
    }

    #[tokio::test]
    async fn sets_of_a_folder_are_renewed_too() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), &StoreOptions::default()).await.unwrap();
        let cache = cache(store.clone()).await;
        millis(1000).await;
        assert_eq!(length(&cache).await, 0);
        // Past the cache, as another process would.
        store.append(&address(), b"a").await.unwrap();
        assert_eq!(length(&cache).await, 1, "that there is none is compared with the folder");
        store.append(&address(), b"b").await.unwrap();
        assert!(cache.get_at(address(), 1).await.is_ok());
        assert_eq!(cache.get_at(address(), 2).await.unwrap().entries.len(), 2, "at once");
        store.append(&address(), b"c").await.unwrap();
        millis(1000).await;
        assert_eq!(length(&cache).await, 3, "within a second");
    }

    #[tokio::test]
    async fn one_clients_walk_does_not_renew_a_set() {
        let store = FaultyStore::default();
        let cache = cache(store.clone()).await;
        for _ in 0..4 {
            assert_eq!(length(&cache).await, 0);
        }
        millis(4500).await;
        assert_eq!(store.reads(), 1);
    }

    #[tokio::test]
    async fn a_renewal_that_fails_leaves_the_old_set_and_the_next_is_tried() {
        let store = FaultyStore::default();
        store.put(&address(), &["a"]).await;
        let cache = cache(store.clone()).await;
        for worse in [FaultyStore::panic, FaultyStore::fail] {
            millis(1000).await;
            assert_eq!(length(&cache).await, 1);
            let reads = store.reads();
            worse(&store, true);
            millis(2550).await;
            assert_eq!(store.reads(), reads + 1, "it was tried");
            assert_eq!(length(&cache).await, 1, "what was known stays for its time");
            worse(&store, false);
            millis(600).await;
            assert_eq!(length(&cache).await, 1, "loaded by who asks");
            assert_eq!(store.reads(), reads + 2);
        }
    }
}
