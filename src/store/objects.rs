//! A store in a bucket (S3, Google, Azure) or in memory, by the object_store crate.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, UpdateVersion};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::backend::{Created, Found, Snapshot};
use super::error::StoreError;
use super::layout::{SetAddress, signature_name, signature_number};
use super::lease::{Attempt, LOCK_NAME, Lease, STALE};
use super::settled::is_young;
use super::signatures::{SET_LIMIT, StoredSignature};
use crate::signature::BLOB_LIMIT;

/// How many objects of one set are read at a time.
const PARALLEL: usize = 16;

/// A tree in a bucket or in memory.
#[derive(Debug)]
pub(super) struct ObjectTree {
    store: Arc<dyn ObjectStore>,
    /// Other processes may write to it too.
    shared: bool,
    /// The removers of this process take turns here, and only the first asks the bucket.
    removing: Stripes,
    counter: AtomicU64,
    /// A lock object older than this was left by a crash.
    stale: Duration,
}

/// A set's objects in order of their numbers.
struct Listing {
    entries: Vec<(u32, ObjectMeta)>,
    locked: bool,
}

impl Listing {
    /// Takes out what is empty and stays so: a bucket that is mounted as a folder can have some. What
    /// is young may be filled yet.
    fn take_empty(&mut self) -> Vec<u32> {
        let now = SystemTime::now();
        let stays = |meta: &ObjectMeta| meta.size == 0 && !is_young(modified(meta), now);
        let taken = self.entries.iter().filter(|(_, meta)| stays(meta)).map(|(number, _)| *number).collect();
        self.entries.retain(|(_, meta)| !stays(meta));
        taken
    }
}

impl ObjectTree {
    pub(super) fn new(store: Arc<dyn ObjectStore>, shared: bool) -> Self {
        Self { store, shared, removing: Stripes::new(64), counter: AtomicU64::new(0), stale: STALE }
    }

    pub(super) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    pub(super) async fn read(&self, at: &SetAddress, limit: u64, alone: bool) -> Result<Snapshot, StoreError> {
        let mut listing = self.list(at).await?;
        let taken = listing.take_empty();
        if let Some((number, _)) = listing.entries.iter().find(|(_, meta)| meta.size == 0) {
            return Ok(Snapshot { unfinished: Some(*number), ..Snapshot::empty() });
        }
        if let Some((number, _)) = listing.entries.iter().find(|(_, meta)| meta.size > BLOB_LIMIT as u64) {
            return Err(StoreError::TooLarge(format!("{at}/{}", signature_name(*number))));
        }
        if listing.entries.iter().map(|(_, meta)| meta.size).sum::<u64>() > limit {
            return Err(StoreError::TooMany { at: at.to_string(), limit: format!("{limit} bytes") });
        }
        let reads = listing
            .entries
            .into_iter()
            .map(|(number, meta)| async move { Ok::<_, StoreError>((number, self.get(at, number, &meta).await?)) });
        let read: Vec<_> = stream::iter(reads).buffered(PARALLEL).try_collect().await?;
        let missing = read.iter().any(|(_, bytes)| bytes.is_none());
        let shaken = (listing.locked && !alone) || missing;
        let present = read.into_iter().filter_map(|(number, bytes)| Some(StoredSignature { number, bytes: bytes? }));
        Ok(Snapshot { signatures: present.collect(), shaken, missing, taken, unfinished: None })
    }

    pub(super) async fn find(&self, at: &SetAddress, blob: &[u8]) -> Result<Found, StoreError> {
        let mut listing = self.list(at).await?;
        let taken = listing.take_empty();
        let highest = listing.entries.last().map_or(0, |(number, _)| *number);
        let same_length = listing.entries.into_iter().filter(|(_, meta)| meta.size == blob.len() as u64);
        let reads = same_length
            .map(|(number, meta)| async move { Ok::<_, StoreError>((number, self.get(at, number, &meta).await?)) });
        let mut read = stream::iter(reads).buffered(PARALLEL);
        let mut found = Found { same: None, highest, taken, unsettled: listing.locked };
        while let Some((number, bytes)) = read.try_next().await? {
            match bytes {
                Some(bytes) if *bytes == *blob => {
                    found.same = Some(number);
                    break;
                }
                Some(_) => {}
                None => found.unsettled = true,
            }
        }
        Ok(found)
    }

    /// A create that was sent twice by a retry reports `Taken` although its first attempt stored
    /// the bytes: the caller looks, and finds its own.
    pub(super) async fn create(&self, at: &SetAddress, number: u32, blob: &Bytes) -> Result<Created, StoreError> {
        let path = signature_path(at, number)?;
        match self.store.put_opts(&path, blob.clone().into(), PutMode::Create.into()).await {
            Ok(_) => {}
            Err(Error::AlreadyExists { .. }) => return Ok(Created::Taken),
            Err(error) => return Err(failed("writing", &path, &error)),
        }
        for before in (1..number).rev() {
            match self.store.head(&signature_path(at, before)?).await {
                // What is no signature was passed over, and the number before it counts.
                Ok(found) if found.size == 0 => {}
                Ok(_) => break,
                Err(Error::NotFound { .. }) => return Ok(Created::AfterGap),
                Err(error) => return Err(failed("checking", &path, &error)),
            }
        }
        Ok(Created::Done)
    }

    pub(super) async fn delete(&self, at: &SetAddress, number: u32) -> Result<(), StoreError> {
        let path = signature_path(at, number)?;
        match self.store.delete(&path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("deleting", &path, &error)),
        }
    }

    pub(super) async fn try_lease(&self, at: &SetAddress) -> Result<Attempt, StoreError> {
        let turn = self.removing.wait(at).await;
        let since = Instant::now();
        if !self.shared {
            return Ok(Attempt::Taken(Lease::bucket(since, turn, None)));
        }
        let path = path(&format!("{at}/{LOCK_NAME}"))?;
        let mode = match self.store.head(&path).await {
            Ok(meta) if self.is_stale(&meta) => {
                PutMode::Update(UpdateVersion { e_tag: meta.e_tag.clone(), version: meta.version })
            }
            Ok(_) => return Ok(Attempt::Busy),
            Err(Error::NotFound { .. }) => PutMode::Create,
            Err(error) => return Err(failed("locking", &path, &error)),
        };
        // Unique, so that taking over a stale one changes its ETag for all others who try.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let token = format!("countersign removes signatures: {} {now} {count}\n", std::process::id());
        match self.store.put_opts(&path, token.into(), mode.into()).await {
            Ok(_) => Ok(Attempt::Taken(Lease::bucket(since, turn, Some((Arc::clone(&self.store), path))))),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Attempt::Busy),
            Err(error) => Err(failed("locking", &path, &error)),
        }
    }

    /// Every failure here is a failure: a denied listing or a missing bucket is no empty set.
    async fn list(&self, at: &SetAddress) -> Result<Listing, StoreError> {
        let folder = path(&at.to_string())?;
        let mut found = self.store.list(Some(&folder));
        // Without other processes the removers' turn stands for the lock object.
        let mut listing = Listing { entries: Vec::new(), locked: !self.shared && self.removing.is_taken(at) };
        while let Some(meta) = found.try_next().await.map_err(|error| failed("listing", &folder, &error))? {
            let inner = meta.location.as_ref().strip_prefix(folder.as_ref()).and_then(|rest| rest.strip_prefix('/'));
            let Some(name) = inner else { continue };
            if name == LOCK_NAME {
                listing.locked = !self.is_stale(&meta);
            } else if let Some(number) = signature_number(name) {
                if listing.entries.len() >= SET_LIMIT {
                    return Err(StoreError::TooMany { at: at.to_string(), limit: format!("{SET_LIMIT} signatures") });
                }
                listing.entries.push((number.get(), meta));
            }
        }
        listing.entries.sort_unstable_by_key(|(number, _)| *number);
        Ok(listing)
    }

    /// Reads one listed object; `None` when it is gone by now, or is another under the same
    /// number. A 403 is not "gone": whoever may list is told 404 for what is missing.
    async fn get(&self, at: &SetAddress, number: u32, listed: &ObjectMeta) -> Result<Option<Bytes>, StoreError> {
        let path = &listed.location;
        let result = match self.store.get(path).await {
            Ok(result) => result,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed("reading", path, &error)),
        };
        if listed.e_tag.is_some() && !is_same_tag(&result.meta, listed) {
            return Ok(None);
        }
        let mut bytes = Vec::with_capacity(usize::try_from(result.meta.size).unwrap_or(0).min(BLOB_LIMIT));
        let mut body = result.into_stream();
        while let Some(chunk) = body.try_next().await.map_err(|error| failed("reading", path, &error))? {
            if bytes.len() + chunk.len() > BLOB_LIMIT {
                return Err(StoreError::TooLarge(format!("{at}/{}", signature_name(number))));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes.into()))
    }

    pub(super) fn is_stale(&self, lock: &ObjectMeta) -> bool {
        SystemTime::now().duration_since(modified(lock)).is_ok_and(|age| age > self.stale)
    }
}

/// Returns when an object was written, in whole seconds.
pub(super) fn modified(meta: &ObjectMeta) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(meta.last_modified.timestamp()).unwrap_or(0))
}

/// Locks by address, of a bounded number: two addresses may share one and only wait a little.
#[derive(Debug)]
pub(super) struct Stripes {
    locks: Box<[Arc<Mutex<()>>]>,
    hasher: RandomState,
}

impl Stripes {
    pub(super) fn new(count: usize) -> Self {
        Self { locks: (0..count.max(1)).map(|_| Arc::default()).collect(), hasher: RandomState::new() }
    }

    /// Waits for the lock of an address.
    pub(super) async fn wait(&self, at: &SetAddress) -> OwnedMutexGuard<()> {
        self.lock(at).lock_owned().await
    }

    fn is_taken(&self, at: &SetAddress) -> bool {
        self.lock(at).try_lock().is_err()
    }

    fn lock(&self, at: &SetAddress) -> Arc<Mutex<()>> {
        let count = self.locks.len().max(1) as u64;
        let index = usize::try_from(self.hasher.hash_one(at) % count).unwrap_or(0);
        self.locks.get(index).cloned().unwrap_or_default()
    }
}

/// Gateways mark a tag as weak in one answer and not in the other, or leave out its quotes.
fn is_same_tag(one: &ObjectMeta, other: &ObjectMeta) -> bool {
    let bare =
        |meta: &ObjectMeta| meta.e_tag.as_deref().map(|tag| tag.trim_start_matches("W/").trim_matches('"').to_owned());
    bare(one) == bare(other)
}

fn signature_path(at: &SetAddress, number: u32) -> Result<Path, StoreError> {
    path(&format!("{at}/{}", signature_name(number)))
}

/// Takes a key as it is; `Path::from` would escape it.
pub(super) fn path(key: &str) -> Result<Path, StoreError> {
    Path::parse(key).map_err(|error| StoreError::unavailable("naming an object", error))
}

pub(super) fn failed(doing: &str, path: &Path, error: &Error) -> StoreError {
    StoreError::unavailable(format!("{doing} {path}"), describe(error))
}

/// The back end's answer without its XML, which may repeat parts of the request.
pub(super) fn describe(error: &Error) -> String {
    const MOST: usize = 400;
    let text = error.to_string();
    let between = |tag: &str| {
        let (_, rest) = text.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once('<')?.0.to_owned())
    };
    let answer: Vec<String> = ["Code", "Message"].into_iter().filter_map(between).collect();
    let plain = text.split('<').next().unwrap_or_default().trim_end();
    let whole = if answer.is_empty() { plain.to_owned() } else { format!("{plain} {}", answer.join(": ")) };
    whole.chars().take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::image::Digest;
    use crate::store::StorePath;

    fn bucket(stale: Duration) -> (Arc<dyn ObjectStore>, SetAddress, impl Fn() -> ObjectTree) {
        let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let at = SetAddress::image(StorePath::parse("org/app").unwrap(), Digest::sha256(b"")).unwrap();
        let inner = Arc::clone(&bucket);
        (bucket, at, move || ObjectTree { stale, ..ObjectTree::new(Arc::clone(&inner), true) })
    }

    async fn lease(tree: &ObjectTree, at: &SetAddress) -> Option<Lease> {
        match tree.try_lease(at).await.unwrap() {
            Attempt::Taken(lease) => Some(lease),
            Attempt::Busy | Attempt::NoSet => None,
        }
    }

    #[tokio::test]
    async fn one_process_at_a_time_has_the_lease_and_gives_it_back() {
        let (_, at, process) = bucket(STALE);
        let (one, two) = (process(), process());
        let held = lease(&one, &at).await.unwrap();
        assert!(lease(&two, &at).await.is_none());
        assert!(two.find(&at, b"x").await.unwrap().unsettled && two.read(&at, 9, false).await.unwrap().shaken);
        held.release().await;
        assert!(!two.find(&at, b"x").await.unwrap().unsettled);
        assert!(lease(&two, &at).await.is_some());
        assert!(lease(&one, &at).await.is_none(), "a holder that died keeps it, until it is stale");
    }

    #[tokio::test]
    async fn a_stale_lease_is_taken_over_by_one() {
        let (bucket, at, process) = bucket(Duration::ZERO);
        drop(lease(&process(), &at).await.unwrap());
        // The store's clock is in whole seconds here: let the lock become older than nothing.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let path = path(&format!("{at}/{LOCK_NAME}")).unwrap();
        let before = bucket.head(&path).await.unwrap().e_tag;
        assert!(!process().find(&at, b"x").await.unwrap().unsettled);
        assert!(lease(&process(), &at).await.is_some());
        assert_ne!(bucket.head(&path).await.unwrap().e_tag, before, "who saw the old one comes too late");
    }

    #[tokio::test]
    async fn a_create_behind_a_gap_says_so() {
        let (_, at, process) = bucket(STALE);
        let (tree, blob) = (process(), Bytes::from_static(b"x"));
        assert_eq!(tree.create(&at, 1, &blob).await.unwrap(), Created::Done);
        assert_eq!(tree.create(&at, 2, &blob).await.unwrap(), Created::Done);
        assert_eq!(tree.create(&at, 2, &blob).await.unwrap(), Created::Taken);
        assert_eq!(tree.create(&at, 4, &blob).await.unwrap(), Created::AfterGap);
    }

    #[tokio::test]
    async fn what_changed_since_the_listing_is_not_taken_for_the_listed() {
        let (bucket, at, process) = bucket(STALE);
        let tree = process();
        tree.create(&at, 1, &Bytes::from_static(b"old")).await.unwrap();
        let listed = tree.list(&at).await.unwrap().entries.remove(0).1;
        assert_eq!(tree.get(&at, 1, &listed).await.unwrap().unwrap(), "old");
        bucket.put(&listed.location, "new".into()).await.unwrap();
        assert_eq!(tree.get(&at, 1, &listed).await.unwrap(), None);
        let mut now = bucket.head(&listed.location).await.unwrap();
        now.e_tag = now.e_tag.map(|tag| format!("W/\"{tag}\""));
        assert_eq!(tree.get(&at, 1, &now).await.unwrap().unwrap(), "new", "the same tag, marked as weak");
        bucket.delete(&listed.location).await.unwrap();
        assert_eq!(tree.get(&at, 1, &listed).await.unwrap(), None);
    }

    #[test]
    fn a_failure_is_told_without_the_servers_xml() {
        let answer = "Server returned 403: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code>\
                      <Message>no</Message><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        let error = Error::Generic { store: "S3", source: answer.into() };
        assert_eq!(describe(&error), "Generic S3 error: Server returned 403: SignatureDoesNotMatch: no");
    }
}
