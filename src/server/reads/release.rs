//! The release layout, `{prefix}/sha256={hex}/signature-N`: what OpenShift's tools ask for.
//!
//! It is a view. First comes what is stored under exactly that key, then the image set of the
//! repository that the prefix names; only when both are empty, all repositories below the prefix
//! are looked through by digest (spec peers (b): a release store knows no repositories).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;

use crate::config::ServerConfig;
use crate::image::Digest;
use crate::metrics::StoreOperation;
use crate::server::error::{ErrorFormat, Problem};
use crate::server::reads::lookaside::POSITIONS;
use crate::server::reads::set_cache::{Entry, SetCache, SignatureSet, timed};
use crate::store::{Layout, SetAddress, StoreError};

/// How many signatures the view shows; its clients look at nine.
const SHOWN: usize = POSITIONS;
/// How many sets are asked about before the view is what was found.
const LOOKED_AT: usize = 1000;

/// Tells whether the caller may see a set; the error is why nobody can tell.
pub(crate) type Visible<'a> = dyn Fn(SetAddress) -> BoxFuture<'a, Result<bool, Problem>> + Send + Sync + 'a;

/// The release view of the store.
pub(crate) struct ReleaseView {
    index: DigestIndex,
}

impl ReleaseView {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        Self {
            index: DigestIndex {
                limit: config.cache.index_sets,
                lifetime: Duration::from_secs(config.cache.index_seconds),
                state: Mutex::default(),
                building: tokio::sync::Mutex::new(()),
            },
        }
    }

    /// Returns the signature at `position` (from 1) of a release address, of the sets that
    /// `visible` lets the caller see; `None` lets them see all.
    ///
    /// # Errors
    /// The store's failure, or that of `visible`: a set of which nobody knows whether the caller may
    /// see it is not taken for one that is not there.
    pub(crate) async fn at(
        &self,
        sets: &SetCache,
        address: SetAddress,
        position: usize,
        visible: Option<&Visible<'_>>,
    ) -> Result<Option<Entry>, Problem> {
        let failing = |error: Arc<StoreError>| Problem::unread(&error, ErrorFormat::Plain);
        let mut found = own(sets, &address).await.map_err(failing)?;
        if found.iter().all(|set| set.entries.is_empty()) {
            let mut looked_at = 0;
            for below in self
                .index
                .find(sets, address.digest())
                .await
                .map_err(|error| Problem::unread(&error, ErrorFormat::Plain))?
            {
                if found.iter().map(|set| set.entries.len()).sum::<usize>() >= SHOWN || looked_at >= LOOKED_AT {
                    break;
                }
                if !below.path().is_within(address.path()) {
                    continue;
                }
                looked_at += 1;
                let may = match visible {
                    Some(visible) => visible(below.clone()).await?,
                    None => true,
                };
                if may {
                    found.push(sets.get(below).await.map_err(failing)?);
                    // What comes after it is shown under other numbers.
                    if let Some(entry) = pick(&found, position) {
                        return Ok(Some(entry));
                    }
                }
            }
        }
        Ok(pick(&found, position))
    }

    /// As [`ReleaseView::at`], of what lies at that path itself.
    pub(crate) async fn own(
        &self,
        sets: &SetCache,
        address: &SetAddress,
        position: usize,
    ) -> Result<Option<Entry>, Arc<StoreError>> {
        Ok(pick(&own(sets, address).await?, position))
    }

    /// Tells whether there are signatures that are shown only because there are none at the path itself.
    pub(crate) async fn below(&self, sets: &SetCache, address: &SetAddress) -> Result<bool, Arc<StoreError>> {
        if own(sets, address).await?.iter().any(|set| !set.entries.is_empty()) {
            return Ok(false);
        }
        for below in self.index.find(sets, address.digest()).await? {
            if below.path().is_within(address.path()) && !sets.get(below.clone()).await?.entries.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes a set that this process has written to.
    pub(crate) fn note(&self, address: &SetAddress) {
        self.index.note(address);
    }
}

/// Returns the sets at the path itself, in the order in which they are shown.
async fn own(sets: &SetCache, address: &SetAddress) -> Result<Vec<Arc<SignatureSet>>, Arc<StoreError>> {
    let mut found = vec![sets.get(address.clone()).await?];
    if let Ok(image) = SetAddress::image(address.path().clone(), address.digest().clone()) {
        found.push(sets.get(image).await?);
    }
    Ok(found)
}

/// Returns the entry at `position` of the union without duplicates.
fn pick(sets: &[Arc<SignatureSet>], position: usize) -> Option<Entry> {
    if position > SHOWN {
        return None;
    }
    let mut seen: Vec<&[u8; 32]> = Vec::with_capacity(position.min(SHOWN));
    for entry in sets.iter().flat_map(|set| &set.entries) {
        if seen.contains(&&entry.hash) {
            continue;
        }
        seen.push(&entry.hash);
        if seen.len() == position {
            return Some(entry.clone());
        }
    }
    None
}

/// Which image sets there are of a digest; built by one walk when first needed, renewed by age.
struct DigestIndex {
    limit: usize,
    lifetime: Duration,
    state: Mutex<IndexState>,
    /// Held by the one who walks; all others wait for the result.
    building: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct IndexState {
    sets: HashMap<Digest, Vec<SetAddress>>,
    count: usize,
    built: Option<Instant>,
    /// Own writes since a walk has begun: it may have passed their place already.
    written: HashSet<SetAddress>,
}

impl IndexState {
    /// Adds a set unless it is there or there are too many.
    fn add(&mut self, address: SetAddress, limit: usize) -> bool {
        let known = self.sets.get(address.digest()).is_some_and(|sets| sets.contains(&address));
        if known || self.count >= limit {
            return known;
        }
        self.count += 1;
        self.sets.entry(address.digest().clone()).or_default().push(address);
        true
    }
}

impl DigestIndex {
    fn note(&self, address: &SetAddress) {
        if address.layout() != Layout::Image {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.add(address.clone(), self.limit);
        if state.written.len() < self.limit {
            state.written.insert(address.clone());
        }
    }

    fn fresh(&self, digest: &Digest) -> Option<Vec<SetAddress>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = state.built.is_some_and(|at| at.elapsed() < self.lifetime);
        fresh.then(|| state.sets.get(digest).cloned().unwrap_or_default())
    }

    /// Returns the image sets of a digest, ordered by their keys.
    async fn find(&self, sets: &SetCache, digest: &Digest) -> Result<Vec<SetAddress>, StoreError> {
        if let Some(found) = self.fresh(digest) {
            return Ok(found);
        }
        let _turn = self.building.lock().await;
        if let Some(found) = self.fresh(digest) {
            return Ok(found);
        }
        timed(StoreOperation::Walk, self.build(sets)).await?;
        Ok(self.fresh(digest).unwrap_or_default())
    }

    async fn build(&self, sets: &SetCache) -> Result<(), StoreError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).written.clear();
        let begun = Instant::now();
        let mut next = IndexState::default();
        let mut walk = sets.walk();
        while let Some(address) = walk.next().await {
            let address = address.inspect_err(|error| tracing::error!(error = %error, "cannot walk the store"))?;
            if address.layout() == Layout::Image && !next.add(address, self.limit) {
                tracing::warn!(
                    limit = self.limit,
                    "the store has more sets than the index of digests holds; the release view misses some"
                );
                break;
            }
        }
        drop(walk);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for address in std::mem::take(&mut state.written) {
            next.add(address, self.limit.saturating_mul(2));
        }
        for found in next.sets.values_mut() {
            found.sort_by_cached_key(ToString::to_string);
        }
        next.built = Some(Instant::now());
        tracing::info!(sets = next.count, duration_ms = begun.elapsed().as_millis(), "index of digests built");
        *state = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::FaultyStore;
    use crate::store::StorePath;

    struct WalkPermit {
        store: FaultyStore,
        sets: SetCache,
        view: ReleaseView,
        digest: Digest,
    }

    impl WalkPermit {
        fn new(config: &ServerConfig) -> Self {
            let store = FaultyStore::default();
            let sets = SetCache::new(Arc::new(store.clone()), config);
            Self { store, sets, view: ReleaseView::new(config), digest: Digest::sha256(b"release") }
        }

        fn image(&self, path: &str) -> SetAddress {
            SetAddress::image(StorePath::parse(path).unwrap(), self.digest.clone()).unwrap()
        }

        fn release(&self, path: &str) -> SetAddress {
            SetAddress::release(StorePath::parse(path).unwrap(), self.digest.clone())
        }

        async fn seen(&self, path: &str) -> Vec<String> {
            let mut seen = Vec::new();
            while let Some(entry) = self.view.at(&self.sets, self.release(path), seen.len() + 1, None).await.unwrap() {
                seen.push(String::from_utf8(entry.bytes.to_vec()).unwrap());
            }
            seen
        }
    }

    #[tokio::test]
    async fn a_union_in_order_without_duplicates() {
        let room = WalkPermit::new(&ServerConfig::default());
        room.store.put(&room.release("ocp/release"), &["a", "b"]).await;
        room.store.put(&room.image("ocp/release"), &["b", "c"]).await;
        room.store.put(&room.image("ocp/release/x"), &["d"]).await;
        assert_eq!(room.seen("ocp/release").await, ["a", "b", "c"]);
        assert_eq!(room.store.walks(), 0, "nobody walks when there is something");
    }

    #[tokio::test]
    async fn repositories_below_are_the_last_resort() {
        let room = WalkPermit::new(&ServerConfig::default());
        room.store.put(&room.image("ocp/b"), &["b", "x"]).await;
        room.store.put(&room.image("ocp/a"), &["a", "x"]).await;
        room.store.put(&room.image("ocpx"), &["no"]).await;
        assert_eq!(room.seen("ocp").await, ["a", "x", "b"]);
        assert_eq!(room.seen("").await, ["a", "x", "b", "no"]);
        assert_eq!(room.seen("other").await, Vec::<String>::new());
        assert_eq!(room.store.walks(), 1);
    }

    #[tokio::test]
    async fn own_writes_are_noted() {
        let room = WalkPermit::new(&ServerConfig::default());
        assert!(room.seen("ocp").await.is_empty());
        room.sets.append(&room.image("ocp/a"), b"a", |_| Ok::<_, ()>(())).await.unwrap().unwrap();
        room.view.note(&room.image("ocp/a"));
        assert_eq!(room.seen("ocp").await, ["a"]);
        assert_eq!(room.store.walks(), 1);
    }

    #[tokio::test]
    async fn the_index_has_a_limit() {
        let mut config = ServerConfig::default();
        config.cache.index_sets = 2;
        let room = WalkPermit::new(&config);
        for path in ["p/a", "p/b", "p/c"] {
            room.store.put(&room.image(path), &[path]).await;
        }
        assert_eq!(room.seen("p").await.len(), 2);
    }

    #[tokio::test]
    async fn a_failing_walk_is_a_failure() {
        let room = WalkPermit::new(&ServerConfig::default());
        room.store.fail_walks(true);
        assert!(room.view.at(&room.sets, room.release("x"), 1, None).await.is_err());
    }
}
