//! The store's face: reading a set whole and in order, and appending to it without ever
//! overwriting, losing or doubling a signature.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::backend::{Backend, Created, Found};
use super::bulk::Bulk;
use super::error::StoreError;
use super::layout::{SetAddress, signature_name};
use super::objects::{ObjectTree, Stripes};
use crate::signature::BLOB_LIMIT;

/// The most signatures that are read of one set: trees of other tools may hold more than we write.
pub const SET_LIMIT: usize = 10_000;
/// The highest number that is ever written: newer clients fail the pull at a 128th signature
/// (spec containers-image 2.3).
pub const MOST_SIGNATURES: u32 = 127;
/// How often a batch job reads a set of a bucket again after a failure.
const READ_AGAIN: u32 = 3;
/// How long a reader waits for somebody else to end the writing of a file.
const UNFINISHED: Duration = Duration::from_secs(1);
/// How many numbers that are passed over are remembered, so that each is told once.
const REMEMBERED: usize = 4096;
/// How long a reader or writer waits for others on the same set.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// One stored signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSignature {
    /// The number in the file's name. What clients ask for is the position in the set instead.
    pub number: u32,
    /// The bytes as they lie.
    pub bytes: Bytes,
}

/// A whole set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredSet {
    /// The signatures, in the order of their numbers.
    pub signatures: Vec<StoredSignature>,
    /// Numbers that are taken by what is no signature, ascending: a folder, a pipe, a link to
    /// nowhere, a file that stays empty. They are passed over, and no gaps.
    pub taken: Vec<u32>,
}

/// How an append went; the signature is durably stored either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Stored now, under this number.
    Created(u32),
    /// The same bytes were there already, under this number.
    AlreadyThere(u32),
}

/// A store of signatures; cloning shares it.
#[derive(Clone)]
pub struct Store {
    pub(super) backend: Backend,
    pub(super) read_limit: u64,
    location: Arc<str>,
    /// Appends of one process to one set queue up here rather than collide in the back end.
    appending: Arc<Stripes>,
    /// How bulk work goes about it.
    pub(super) bulk: Option<Arc<Bulk>>,
    /// What was passed over, and told.
    told: Arc<Mutex<HashSet<(SetAddress, u32)>>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.location).finish()
    }
}

impl Store {
    pub(super) fn new(backend: Backend, location: &str, read_limit: u64) -> Self {
        Self {
            backend,
            read_limit,
            location: location.into(),
            appending: Arc::new(Stripes::new(1024)),
            bulk: None,
            told: Arc::default(),
        }
    }

    /// Returns an empty store in memory.
    pub fn memory() -> Self {
        let memory = ObjectTree::new(Arc::new(object_store::memory::InMemory::new()), false);
        let limit = super::open::StoreOptions::default().read_limit;
        Self::new(Backend::Objects(Arc::new(memory)), "memory:", limit)
    }

    /// Returns where the store lies, printable and without secrets.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Reads the signatures of one digest, in the order of their numbers; a gap is skipped, and
    /// so is all that is not called `signature-N` or is no file. A missing set is empty.
    ///
    /// # Errors
    /// As [`Store::read_set`].
    pub async fn signatures(&self, at: &SetAddress) -> Result<Vec<StoredSignature>, StoreError> {
        self.read_set(at).await.map(|set| set.signatures)
    }

    /// As [`Store::signatures`], and tells which numbers something else has taken.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] and [`StoreError::TooMany`] for what no client would read;
    /// [`StoreError::Busy`] when the set does not hold still for ten seconds;
    /// [`StoreError::Unfinished`] when somebody is writing a file of it, for a second or more;
    /// [`StoreError::Unavailable`] when the back end fails.
    pub async fn read_set(&self, at: &SetAddress) -> Result<StoredSet, StoreError> {
        let begun = Instant::now();
        let deadline = begun + PATIENCE;
        let mut pause = Duration::from_millis(2);
        let mut before: Option<Vec<StoredSignature>> = None;
        let mut again = self.bulk.as_ref().map_or(0, |_| READ_AGAIN);
        loop {
            let snapshot = match self.backend.read(at, self.read_limit, false).await {
                // An answer that breaks off is not asked for again below; a batch job can wait.
                Err(StoreError::Unavailable { .. }) if again > 0 => {
                    again -= 1;
                    sleep(Duration::from_millis(200)).await;
                    continue;
                }
                read => read?,
            };
            if let Some(number) = snapshot.unfinished {
                // Other programs truncate a file and fill it: what is read between is no signature.
                if begun.elapsed() >= UNFINISHED {
                    return Err(StoreError::Unfinished(format!("{at}/{}", signature_name(number))));
                }
                before = None;
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(50));
                continue;
            }
            if snapshot.is_conclusive_after(before.as_deref()) {
                self.tell_taken(at, &snapshot.taken);
                let nothing = !snapshot.shaken && snapshot.signatures.is_empty() && snapshot.taken.is_empty();
                if let Some(bulk) = self.bulk.as_ref().filter(|_| nothing) {
                    bulk.saw_empty(at);
                }
                return Ok(StoredSet { signatures: snapshot.signatures, taken: snapshot.taken });
            }
            if Instant::now() >= deadline {
                let reason = if snapshot.missing {
                    "what the back end lists cannot be read, or is another than listed, each time"
                } else {
                    "signatures are being removed from it all the time"
                };
                let reason = reason.to_owned();
                return Err(StoreError::Busy { at: at.to_string(), reason });
            }
            before = Some(snapshot.signatures);
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Warns of each number that is passed over, once.
    fn tell_taken(&self, at: &SetAddress, taken: &[u32]) {
        if taken.is_empty() {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for number in taken {
            if told.len() < REMEMBERED && told.insert((at.clone(), *number)) {
                tracing::warn!(
                    set = %at, name = signature_name(*number),
                    "passed over: it has a signature's name and is no file, or an empty one; \
                     clients that read the store's folder themselves fail there; `store check` tells more"
                );
            }
        }
    }

    /// Stores a signature behind the others, unless its bytes are there already.
    ///
    /// The number is the first free one above the highest. It is only
    /// ever created: whoever loses a race looks again and takes a higher number. Before the
    /// answer, files and folders are flushed to the disk.
    ///
    /// # Errors
    /// [`StoreError::Empty`] and [`StoreError::TooLarge`] for blobs that no client reads,
    /// [`StoreError::Full`] where no client would read one more, [`StoreError::Unwritable`] where the tree has no place for it, [`StoreError::Busy`] while
    /// others are at work on the same set, [`StoreError::Unavailable`] when the back end fails.
    /// After the last it is unknown whether the signature is stored; appending again is safe.
    pub async fn append(&self, at: &SetAddress, blob: &[u8]) -> Result<Appended, StoreError> {
        if blob.is_empty() {
            return Err(StoreError::Empty);
        }
        if blob.len() > BLOB_LIMIT {
            return Err(StoreError::TooLarge(format!("the signature for {at}")));
        }
        let blob = Bytes::copy_from_slice(blob);
        let (number, created) = {
            let _turn = self.appending.wait(at).await;
            self.take_number(at, &blob).await?
        };
        match created {
            None => Ok(Appended::AlreadyThere(number)),
            Some(Created::AfterGap) => Ok(self.behind_gap(at, &blob, number).await),
            Some(_) => Ok(Appended::Created(number)),
        }
    }

    /// Closes the gap before a signature of ours: a remover's last look was before our write. If
    /// that fails the signature is still stored, and readers of this store see it.
    pub(super) async fn behind_gap(&self, at: &SetAddress, blob: &Bytes, number: u32) -> Appended {
        let closed = match self.repair(at).await {
            Ok(_) => self.backend.find(at, blob).await.map(|found| found.same),
            Err(error) => Err(error),
        };
        match closed {
            Ok(moved) => Appended::Created(moved.unwrap_or(number)),
            Err(error) => {
                tracing::warn!(set = %at, %error, "a gap is left before a new signature; `store repair` closes it");
                Appended::Created(number)
            }
        }
    }

    /// Returns the blob's number, and how it came to be if it was not there before.
    async fn take_number(&self, at: &SetAddress, blob: &Bytes) -> Result<(u32, Option<Created>), StoreError> {
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            let found = match self.bulk.as_ref().filter(|bulk| bulk.was_empty(at)) {
                Some(_) => Found::empty(),
                None => self.backend.find(at, blob).await?,
            };
            self.tell_taken(at, &found.taken);
            if let Some(number) = found.same.filter(|_| !found.unsettled) {
                return Ok((number, None));
            }
            // While somebody removes no number is taken: in a bucket, his deletions may arrive
            // late or twice, and must not find a new signature under an old number.
            if !found.unsettled {
                let number = found.next_number().ok_or_else(|| StoreError::Full { at: at.to_string() })?;
                match self.backend.create(at, number, blob).await? {
                    Created::Taken => {}
                    created => return Ok((number, Some(created))),
                }
            }
            if Instant::now() >= deadline {
                let reason =
                    "others write to it, or a removal is under way (for 20 minutes at most, should it have crashed)";
                return Err(StoreError::Busy { at: at.to_string(), reason: reason.to_owned() });
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}
