//! Signature sets in memory: one store visit for a client's whole walk 1, 2, 3, 404.
//!
//! A cached set lives a few seconds, for the changes of other processes; one that is asked for again
//! is loaded anew in time (`renewal`), so that nobody waits for it. Own writes are seen at once: each
//! write moves the set's *generation* on before it is acknowledged, and the generation is part of the
//! cache's key. So what a reader loads while a write is under way is kept under the old generation
//! and is never asked for again.

mod renewal;

use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::BoxStream;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use renewal::Renewal;

use crate::config::ServerConfig;
use crate::image::Digest;
use crate::metrics::{self, AppendResult, LoadResult, LookupResult, StoreOperation, StoreOutcome};
use crate::store::{Appended, Removed, SetAddress, SetState, Store, StoreError, StorePath, StoredSignature};

/// Sets share generations by hash; a clash costs one needless reload.
const GENERATIONS: usize = 1024;
/// How long a set in a folder is served without a look at the folder, in milliseconds.
const COMPARED_MILLIS: u64 = 900;
/// What a cached set costs beside its bytes, about.
const OVERHEAD: usize = 512;

/// What the server needs of the store; tests put faults behind it.
pub(crate) trait Backend: Send + Sync {
    /// Returns the whole set in order.
    fn signatures<'a>(&'a self, set: &'a SetAddress) -> BoxFuture<'a, Result<Vec<StoredSignature>, StoreError>>;
    /// Returns the same for a thread that may block, if reading is file work.
    fn here(&self) -> Option<Arc<dyn Backend>> {
        None
    }
    /// Returns what a set looks like from outside, where that can be asked on a thread that must not wait.
    fn state(&self, _set: &SetAddress) -> Option<SetState> {
        None
    }
    /// Tells whether [`Backend::state`] knows.
    fn has_state(&self) -> bool {
        false
    }
    /// Appends to the set what is not there yet.
    fn append<'a>(&'a self, set: &'a SetAddress, bytes: &'a [u8]) -> BoxFuture<'a, Result<Appended, StoreError>>;
    /// Removes from the set the signature whose bytes have this digest.
    fn remove<'a>(&'a self, set: &'a SetAddress, signature: &'a Digest) -> BoxFuture<'a, Result<Removed, StoreError>>;
    /// Lists all sets.
    fn walk(&self) -> BoxStream<'_, Result<SetAddress, StoreError>>;
}

impl Backend for Store {
    fn signatures<'a>(&'a self, set: &'a SetAddress) -> BoxFuture<'a, Result<Vec<StoredSignature>, StoreError>> {
        Box::pin(Store::signatures(self, set))
    }

    fn here(&self) -> Option<Arc<dyn Backend>> {
        self.is_local().then(|| Arc::new(self.for_bulk(1)) as Arc<dyn Backend>)
    }

    fn state(&self, set: &SetAddress) -> Option<SetState> {
        Store::state(self, set)
    }

    fn has_state(&self) -> bool {
        self.has_quick_state()
    }

    fn append<'a>(&'a self, set: &'a SetAddress, bytes: &'a [u8]) -> BoxFuture<'a, Result<Appended, StoreError>> {
        Box::pin(Store::append(self, set, bytes))
    }

    fn remove<'a>(&'a self, set: &'a SetAddress, signature: &'a Digest) -> BoxFuture<'a, Result<Removed, StoreError>> {
        Box::pin(Store::remove(self, set, signature))
    }

    fn walk(&self) -> BoxStream<'_, Result<SetAddress, StoreError>> {
        Store::walk(self, &StorePath::root())
    }
}

/// Counts an operation of the store, and the time that it takes.
pub(crate) async fn timed<T>(
    operation: StoreOperation,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let begun = Instant::now();
    let result = work.await;
    metrics::STORE_SECONDS.observe(operation, begun.elapsed());
    let outcome = match &result {
        Ok(_) => StoreOutcome::Ok,
        Err(error) if error.is_unavailable() => StoreOutcome::Failed,
        Err(_) => StoreOutcome::Refused,
    };
    metrics::STORE_OPERATIONS.inc((operation, outcome));
    result
}

/// One signature, ready to be served.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The bytes as stored.
    pub(crate) bytes: Bytes,
    /// The SHA-256 of the bytes.
    pub(crate) hash: [u8; 32],
    /// The quoted hash.
    pub(crate) etag: HeaderValue,
}

impl Entry {
    pub(crate) fn new(bytes: Bytes) -> Self {
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        let etag = HeaderValue::from_str(&format!("\"{}\"", hex::encode(hash)));
        // Quotes and hex digits are always a valid header.
        Self { bytes, hash, etag: etag.unwrap_or_else(|_| HeaderValue::from_static("\"\"")) }
    }
}

/// All signatures of one digest, in order.
#[derive(Debug)]
pub(crate) struct SignatureSet {
    /// Position 1 is the first.
    pub(crate) entries: Vec<Entry>,
    /// The extension's answer, made when it is first asked for and then shared.
    pub(crate) listing: OnceLock<Bytes>,
    loaded: Instant,
    /// Whether it is to be loaded anew.
    asked: AtomicBool,
    /// What it looked like just before it was read, where that is known.
    state: Option<SetState>,
    /// When that was compared last, in milliseconds since it was loaded.
    compared: AtomicU64,
}

async fn load(backend: &dyn Backend, address: &SetAddress) -> Result<Arc<SignatureSet>, StoreError> {
    let state = if backend.has_state() { backend.state(address) } else { None };
    let stored = timed(StoreOperation::Read, backend.signatures(address)).await;
    metrics::CACHE_LOADS.inc(if stored.is_ok() { LoadResult::Ok } else { LoadResult::Failed });
    let stored = stored.inspect_err(|error| match error {
        StoreError::Unfinished(_) => tracing::warn!(set = %address, %error, "not served yet"),
        error => tracing::error!(set = %address, error = %error, "cannot read from the store"),
    })?;
    let entries = stored.into_iter().map(|signature| Entry::new(signature.bytes)).collect();
    let asked = AtomicBool::new(false);
    let (loaded, compared) = (Instant::now(), AtomicU64::new(0));
    Ok(Arc::new(SignatureSet { entries, listing: OnceLock::new(), loaded, asked, state, compared }))
}

/// A set in one of its states.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    address: SetAddress,
    generation: u64,
    /// The address's, made once for all who need one.
    hash: u64,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash ^ self.generation);
    }
}

type Sets = moka::future::Cache<Key, Arc<SignatureSet>>;

/// The store as the faces see it.
pub(crate) struct SetCache {
    backend: Arc<dyn Backend>,
    sets: Sets,
    renewal: Arc<Renewal>,
    generations: Box<[AtomicU64]>,
    writers: Box<[tokio::sync::Mutex<()>]>,
    hasher: RandomState,
}

impl SetCache {
    pub(crate) fn new(backend: Arc<dyn Backend>, config: &ServerConfig) -> Self {
        let mut lifetime = Duration::from_secs(config.cache.set_seconds);
        if backend.here().is_some() && !backend.has_state() {
            // A folder of another machine: changes are seen by reading it anew.
            lifetime = lifetime.min(Duration::from_secs(1));
        }
        let sets = moka::future::Cache::builder()
            .max_capacity(config.cache.set_bytes)
            .weigher(|Key { address, .. }: &Key, set: &Arc<SignatureSet>| {
                // The base64 listing is made later, so it is counted from the start. Of an empty
                // set the address is all there is, and strangers choose it.
                let bytes: usize = set.entries.iter().map(|e| e.bytes.len() * 7 / 3 + OVERHEAD).sum();
                let key = address.path().as_str().len() + address.digest().hex().len();
                u32::try_from(bytes + key + OVERHEAD).unwrap_or(u32::MAX)
            })
            .time_to_live(lifetime)
            .build();
        Self {
            renewal: Renewal::new(backend.clone(), sets.clone(), lifetime),
            backend,
            sets,
            generations: (0..GENERATIONS).map(|_| AtomicU64::new(0)).collect(),
            writers: (0..GENERATIONS).map(|_| tokio::sync::Mutex::new(())).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Returns a set; a missing one is empty. Askers at the same time share one store visit.
    ///
    /// In a folder of this machine, what another program wrote a second ago is seen, and a set without signatures is
    /// compared with the folder each time.
    pub(crate) async fn get(&self, address: SetAddress) -> Result<Arc<SignatureSet>, Arc<StoreError>> {
        self.get_with(address, |set| !set.entries.is_empty()).await
    }

    /// The same for who asks for one position: that there is none is compared with the folder each time, since an
    /// image pulled just after its signature was written must not be unsigned.
    pub(crate) async fn get_at(
        &self,
        address: SetAddress,
        position: usize,
    ) -> Result<Arc<SignatureSet>, Arc<StoreError>> {
        self.get_with(address, move |set| set.entries.len() >= position).await
    }

    /// The same for who shows the whole set.
    pub(crate) async fn get_whole(&self, address: SetAddress) -> Result<Arc<SignatureSet>, Arc<StoreError>> {
        self.get_with(address, |_| false).await
    }

    /// `suffices` tells whether a set has what is asked for, and so may be some time old.
    async fn get_with(
        &self,
        address: SetAddress,
        suffices: impl FnOnce(&SignatureSet) -> bool,
    ) -> Result<Arc<SignatureSet>, Arc<StoreError>> {
        let key = self.key(address);
        // There or not, nothing is waited for; and so no connection keeps room for it.
        if let Some(set) = self.sets.get(&key).now_or_never().flatten() {
            if self.is_current(&key.address, &set, suffices(&set)) {
                metrics::CACHE_LOOKUPS.inc(LookupResult::Hit);
                self.renewal.asked(key, &set);
                return Ok(set);
            }
            metrics::CACHE_LOOKUPS.inc(LookupResult::Miss);
            return Box::pin(self.reload(key, set)).await;
        }
        metrics::CACHE_LOOKUPS.inc(LookupResult::Miss);
        let address = key.address.clone();
        // Boxed: each connection has room for this future, and mostly a set is there.
        Box::pin(self.sets.try_get_with(key, load(&*self.backend, &address))).await
    }

    /// Tells whether a set is what the folder has.
    fn is_current(&self, address: &SetAddress, set: &SignatureSet, suffices: bool) -> bool {
        let Some(state) = &set.state else { return true };
        let age = u64::try_from(set.loaded.elapsed().as_millis()).unwrap_or(u64::MAX);
        if suffices && age.saturating_sub(set.compared.load(Ordering::Relaxed)) < COMPARED_MILLIS {
            return true;
        }
        // A folder that cannot be looked at is read anew, and that says why.
        let unchanged = self.backend.state(address).is_some_and(|now| now.is_unchanged_since(state));
        if unchanged {
            set.compared.store(age, Ordering::Relaxed);
        }
        unchanged
    }

    /// Loads a set that has changed. Others who noticed, too, share the visit.
    async fn reload(&self, key: Key, old: Arc<SignatureSet>) -> Result<Arc<SignatureSet>, Arc<StoreError>> {
        let is_old = self.sets.get(&key).await.is_some_and(|there| Arc::ptr_eq(&there, &old));
        if is_old {
            self.sets.invalidate(&key).await;
        }
        let address = key.address.clone();
        self.sets.try_get_with(key, load(&*self.backend, &address)).await
    }

    /// Appends to a set if `admit` agrees to the set as it is at this moment.
    ///
    /// Writers of this process take turns, so that a limit holds; other processes are kept apart by
    /// the store itself.
    pub(crate) async fn append<R>(
        &self,
        address: &SetAddress,
        bytes: &[u8],
        admit: impl FnOnce(&[StoredSignature]) -> Result<(), R>,
    ) -> Result<Result<Appended, R>, StoreError> {
        let result = self.append_in_turn(address, bytes, admit).await;
        metrics::APPENDS.inc(match &result {
            Ok(Ok(Appended::Created(_))) => AppendResult::New,
            Ok(Ok(Appended::AlreadyThere(_))) => AppendResult::Already,
            Ok(Err(_)) => AppendResult::Refused,
            Err(error) if error.is_unavailable() => AppendResult::Failed,
            Err(_) => AppendResult::Refused,
        });
        result
    }

    async fn append_in_turn<R>(
        &self,
        address: &SetAddress,
        bytes: &[u8],
        admit: impl FnOnce(&[StoredSignature]) -> Result<(), R>,
    ) -> Result<Result<Appended, R>, StoreError> {
        let shard = self.shard(address);
        let _turn = match self.writers.get(shard) {
            Some(writer) => Some(writer.lock().await),
            None => None,
        };
        let stored = timed(StoreOperation::Read, self.backend.signatures(address)).await?;
        // What is there needs no room, but still the store's word that it is there to stay: an
        // earlier attempt may have failed between the two.
        if stored.iter().all(|s| s.bytes != bytes)
            && let Err(refused) = admit(&stored)
        {
            return Ok(Err(refused));
        }
        let appended = timed(StoreOperation::Append, self.backend.append(address, bytes)).await;
        // Also after a failure: the bytes may be there all the same.
        if let Some(generation) = self.generation(address) {
            generation.fetch_add(1, Ordering::AcqRel);
        }
        appended.map(Ok)
    }

    /// Removes a signature by the digest of its bytes.
    pub(crate) async fn remove(&self, address: &SetAddress, signature: &Digest) -> Result<Removed, StoreError> {
        let _turn = match self.writers.get(self.shard(address)) {
            Some(writer) => Some(writer.lock().await),
            None => None,
        };
        let removed = timed(StoreOperation::Remove, self.backend.remove(address, signature)).await;
        // Also after a failure: the signature may be gone all the same.
        if let Some(generation) = self.generation(address) {
            generation.fetch_add(1, Ordering::AcqRel);
        }
        removed
    }

    /// Tells the metrics how much is in memory; looked at only when they are read.
    pub(crate) fn tell_size(&self) {
        metrics::CACHE_ENTRIES.set(self.sets.entry_count());
        metrics::CACHE_BYTES.set(self.sets.weighted_size());
    }

    /// Asks the store for a set that nobody has, past the cache, to see whether it answers.
    pub(crate) async fn reach(&self) -> Result<(), StoreError> {
        let nobodys = StorePath::parse("countersign-readiness")?;
        let set = SetAddress::image(nobodys, Digest::sha256(b""))?;
        timed(StoreOperation::Read, self.backend.signatures(&set)).await.map(drop)
    }

    /// Lists all sets of the store.
    pub(crate) fn walk(&self) -> BoxStream<'_, Result<SetAddress, StoreError>> {
        self.backend.walk()
    }

    fn key(&self, address: SetAddress) -> Key {
        let hash = self.hasher.hash_one(&address);
        let generation = self.generations.get(shard(hash)).map_or(0, |g| g.load(Ordering::Acquire));
        Key { address, generation, hash }
    }

    fn shard(&self, address: &SetAddress) -> usize {
        shard(self.hasher.hash_one(address))
    }

    fn generation(&self, address: &SetAddress) -> Option<&AtomicU64> {
        self.generations.get(self.shard(address))
    }
}

/// Returns the share of a hash.
fn shard(hash: u64) -> usize {
    // The remainder is below GENERATIONS, which fits.
    usize::try_from(hash % GENERATIONS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::FaultyStore;

    pub(crate) fn address() -> SetAddress {
        SetAddress::image(StorePath::parse("x").unwrap(), Digest::sha256(b"x")).unwrap()
    }

    fn cache(store: &FaultyStore) -> Arc<SetCache> {
        Arc::new(SetCache::new(Arc::new(store.clone()), &ServerConfig::default()))
    }

    #[tokio::test]
    async fn one_visit_for_a_walk_and_for_a_crowd() {
        let store = FaultyStore::default();
        let cache = cache(&store);
        let crowd: Vec<_> = (0..50)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.get(address()).await.unwrap().entries.len() })
            })
            .collect();
        for one in crowd {
            assert_eq!(one.await.unwrap(), 0);
        }
        cache.get(address()).await.unwrap();
        assert_eq!(store.reads(), 1);
    }

    #[tokio::test]
    async fn a_write_is_seen_at_once() {
        let store = FaultyStore::default();
        let cache = cache(&store);
        assert_eq!(cache.get(address()).await.unwrap().entries.len(), 0);
        cache.append(&address(), b"a", |_| Ok::<_, ()>(())).await.unwrap().unwrap();
        assert_eq!(cache.get(address()).await.unwrap().entries.len(), 1);
    }

    #[tokio::test]
    async fn a_slow_reader_does_not_leave_the_old_set_behind() {
        let store = FaultyStore::default();
        let cache = cache(&store);
        let gate = store.hold_next_read();
        let reader = {
            let cache = cache.clone();
            tokio::spawn(async move { cache.get(address()).await.unwrap().entries.len() })
        };
        gate.reached().await;
        cache.append(&address(), b"a", |_| Ok::<_, ()>(())).await.unwrap().unwrap();
        gate.open();
        assert_eq!(reader.await.unwrap(), 0, "what it read was true when it asked");
        assert_eq!(cache.get(address()).await.unwrap().entries.len(), 1, "but it is not kept");
    }

    #[tokio::test]
    async fn failures_are_not_kept() {
        let store = FaultyStore::default();
        let cache = cache(&store);
        store.fail(true);
        assert!(cache.get(address()).await.is_err());
        store.fail(false);
        assert!(cache.get(address()).await.is_ok());
    }
}
