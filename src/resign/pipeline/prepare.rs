//! Work for the processors: fetch, judge, compare and sign, for many images at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Job, ResignError};
use crate::image::{Digest, Reference};
use crate::openpgp::{self, VerifyOptions};
use crate::resign::choice::{self, Candidate, Newest, Wanted};
use crate::resign::endpoint::{Destination, EndpointError, Image, Left, Source, Why};
use crate::resign::item::{Item, State};
use crate::resign::journal::{ItemKey, Journal, item_key};
use crate::resign::vouch::{Finding, Vouched, judge};
use crate::signature::{Claim, simple_signing};
use crate::store::{MOST_SIGNATURES, SetAddress, Store, StoreError};

/// How many images of a folder are prepared in one go: a hop from thread to thread costs as much
/// as a small signature.
const CHUNK: usize = 16;
/// How many signatures may be prepared and not yet settled for good: memory is bounded by that,
/// whether an image has one or thousands. Room for two groups that are being flushed and for a
/// third that is gathered.
const ROOM: u32 = 4096;

/// One image's work, ready to be written.
#[derive(Default)]
pub(super) struct Ready {
    /// Settled already; nothing is to be written for them.
    pub(super) settled: Vec<Item>,
    /// New signatures.
    pub(super) unwritten: Vec<Unwritten>,
    /// Old signatures that an earlier run settled.
    pub(super) resumed: u64,
    /// How many of them it refused.
    pub(super) refused_before: u64,
    /// A part of the source that could not be listed, in the place of an image.
    pub(super) unlisted: Option<String>,
    /// How many items wait for what becomes of others.
    pub(super) waiting: usize,
    /// Their room in memory, until they are settled for good.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// New signatures that one item becomes true by.
pub(super) struct Unwritten {
    pub(super) item: Item,
    pub(super) place: SetAddress,
    pub(super) blobs: Vec<Bytes>,
    /// Given back when they are written.
    pub(super) turn: Turn,
}

/// The new claims that are being made at this moment. The same claim may be vouched for by several
/// signatures of an image, also in several places of the source (both names of a moved registry),
/// or as a list's instance. It is made once, and the others wait to hear what became of it: none is
/// said to be there before it is.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<ItemKey, Vec<Item>>>);

/// The right to make one new claim, until dropped.
pub(super) struct Turn {
    turns: Arc<Turns>,
    claim: ItemKey,
    ended: bool,
}

impl Turns {
    /// Takes the turn for a candidate, or has it wait for whoever makes the same claim.
    fn take(self: &Arc<Self>, place: &SetAddress, candidate: Candidate) -> Option<Wish> {
        let Candidate { item, vouched, others } = candidate;
        let claim = item_key(&place.to_string(), &vouched.new.to_string(), "");
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.entry(claim) {
            Entry::Occupied(mut waiting) => {
                waiting.get_mut().push(item);
                waiting.get_mut().extend(others);
                None
            }
            Entry::Vacant(free) => {
                free.insert(others);
                Some(Wish { item, vouched, turn: Turn { turns: self.clone(), claim, ended: false } })
            }
        }
    }

    fn end(&self, claim: ItemKey) -> Vec<Item> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&claim).unwrap_or_default()
    }
}

impl Turn {
    /// Gives the turn back, and returns the account of the item that had it and of all that waited.
    pub(super) fn end(mut self, item: Item) -> Vec<Item> {
        self.ended = true;
        let waited = self.turns.end(self.claim);
        let (state, reason) = match item.state {
            State::Failed => (State::Failed, item.reason.clone()),
            _ => (State::Already, Some("another signature of this job vouches for the same new claim".to_owned())),
        };
        let told = |other| Item { state, reason: reason.clone(), ..other };
        std::iter::once(item).chain(waited.into_iter().map(told)).collect()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Only where a worker died is the end not said: then nobody is told that all is well.
        if !self.ended {
            self.turns.end(self.claim);
        }
    }
}

/// What all preparations share.
pub(super) struct Shared {
    pub(super) job: Arc<Job>,
    pub(super) journal: Option<Arc<Journal>>,
    /// The job's ends, as a batch job uses them.
    pub(super) source: Source,
    pub(super) destination: Destination,
    /// Both are folders, and nobody else is asked: an image is prepared on one thread, from its reading to its signature.
    pub(super) here: bool,
    pub(super) turns: Arc<Turns>,
    /// Room for what is prepared and not settled for good.
    room: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(job: Arc<Job>, journal: Option<Journal>) -> Self {
        // A folder is never waited for; everything else has answers to wait for.
        let read_here = matches!(&job.source, Source::Tree(store) if store.is_local());
        let compared_here = matches!(&job.destination, Destination::Tree(store) if store.is_local());
        let here = read_here && compared_here && job.choice.check.is_none();
        // A folder beside such does its work off the runtime's threads.
        let bulk = |store: &Store| if store.is_local() && !here { store.clone() } else { store.for_bulk(job.jobs) };
        let source = match &job.source {
            Source::Tree(store) => Source::Tree(bulk(store)),
            listed @ Source::Listed(_) => listed.clone(),
        };
        let destination = match &job.destination {
            Destination::Tree(store) => Destination::Tree(bulk(store)),
            elsewhere => elsewhere.clone(),
        };
        // This run has the journal, so that the earlier ones with it are over.
        if let (Destination::Tree(store), Some(journal)) = (&destination, &journal) {
            store.stage_for(journal.id());
        }
        Self {
            journal: journal.map(Arc::new),
            turns: Arc::default(),
            room: Arc::new(Semaphore::new(ROOM as usize)),
            job,
            source,
            destination,
            here,
        }
    }

    /// Waits until there is room for one image's signatures; there is for any image by itself.
    async fn make_room(&self, ready: &mut Ready) {
        let wanted =
            u32::try_from(ready.settled.len() + ready.unwritten.len() + ready.waiting).unwrap_or(ROOM).clamp(1, ROOM);
        ready.room = self.room.clone().acquire_many_owned(wanted).await.ok();
    }

    /// Takes the turns for new claims.
    fn take_turns(&self, place: &SetAddress, candidates: Vec<Candidate>, ready: &mut Ready) -> Vec<Wish> {
        let mut wishes = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            ready.waiting += candidate.others.len();
            match self.turns.take(place, candidate) {
                Some(wish) => wishes.push(wish),
                None => ready.waiting += 1,
            }
        }
        wishes
    }

    /// Returns the journal if one is to be written.
    pub(super) fn journal(&self) -> Option<&Journal> {
        self.journal.as_deref().filter(|_| !self.job.dry_run)
    }
}

/// Prepares images until there are no more, or nobody takes them.
pub(super) async fn produce(shared: Arc<Shared>, sender: mpsc::Sender<Result<Ready, ResignError>>) {
    let job = &shared.job;
    let listed = images(job)
        .inspect(|image| job.progress.found(image.is_ok().into()))
        // The end of the list is known before its last images are done.
        .chain(stream::once(async { job.progress.listed() }).filter_map(|()| std::future::ready(None)));
    let mut prepared = listed
        .ready_chunks(if shared.here { CHUNK } else { 1 })
        .map(|images| prepare_chunk(shared.clone(), images))
        .buffer_unordered(job.jobs.max(1))
        .flat_map(stream::iter)
        .boxed();
    while let Some(mut ready) = prepared.next().await {
        if let Ok(ready) = &mut ready {
            shared.make_room(ready).await;
        }
        let last = ready.is_err();
        if sender.send(ready).await.is_err() || last {
            return;
        }
    }
}

type Listed = Result<(Image, Arc<Newest>), EndpointError>;

/// This process's part of the source, each image with what is the newest in its repository.
fn images(job: &Arc<Job>) -> BoxStream<'static, Listed> {
    let newest = job.choice.newest;
    let images = job.source.images(newest, job.shard);
    if newest {
        return choice::settle(job.clone(), images);
    }
    let any = Arc::new(Newest::Any);
    images.map(move |image| image.map(|image| (image, any.clone()))).boxed()
}

/// The account of an image that a list names in vain.
fn left_out(left: Left) -> Item {
    let (state, reason) = match left.why {
        Why::Absent(reason) => (State::Unmatched, reason),
        Why::Refused(reason) => (State::Refused, reason),
        Why::Failed(reason) => (State::Failed, reason),
    };
    Item { repository: left.image, digest: left.digest, state, reason: Some(reason), ..Item::default() }
}

/// One folder that cannot be listed stops nothing else, and is not forgotten.
fn unlisted(error: &EndpointError) -> Ready {
    tracing::error!(%error, "a part of the source cannot be listed; the rest goes on");
    Ready { unlisted: Some(error.to_string()), ..Ready::default() }
}

/// Prepares a few images, on a thread or task of their own: what they compute runs beside the others.
async fn prepare_chunk(shared: Arc<Shared>, images: Vec<Listed>) -> Vec<Result<Ready, ResignError>> {
    let runtime = tokio::runtime::Handle::current();
    let here = shared.here;
    let work = async move {
        let mut ready = Vec::with_capacity(images.len());
        for image in images {
            ready.push(match image {
                Ok((Image::Found(set), newest)) => prepare(&shared, set, newest).await,
                Ok((Image::Left(left), _)) => Ok(Ready { settled: vec![left_out(left)], ..Ready::default() }),
                Err(error) => Ok(unlisted(&error)),
            });
        }
        ready
    };
    let work = if here { tokio::task::spawn_blocking(move || runtime.block_on(work)) } else { tokio::spawn(work) };
    work.await.unwrap_or_else(|died| vec![Err(died.into())])
}

/// Fetches, judges, compares and signs for one image.
async fn prepare(shared: &Arc<Shared>, set: SetAddress, newest: Arc<Newest>) -> Result<Ready, ResignError> {
    let blobs = match shared.source.signatures(&set).await {
        Ok(blobs) => blobs,
        Err(e) => {
            let item = Item { state: State::Failed, reason: Some(format!("cannot read: {e}")), ..blank(&set) };
            return Ok(Ready { settled: vec![item], ..Ready::default() });
        }
    };
    if blobs.is_empty() && shared.source.is_listed() {
        let reason = Some("the source has no signatures of it".to_owned());
        return Ok(Ready { settled: vec![Item { reason, ..blank(&set) }], ..Ready::default() });
    }
    let (mut ready, wanted) = compute(shared, move |shared| judge_all(shared, &set, &blobs, &newest)).await?;
    let (wanted, left) = shared.job.choice.apply(wanted).await;
    ready.settled.extend(left);
    for (place, candidates) in wanted {
        // Before the look at what is there: whoever had the turn is done with it then.
        let wishes = shared.take_turns(&place, candidates, &mut ready);
        if wishes.is_empty() {
            continue;
        }
        let present = match shared.destination.signatures(&place).await {
            Ok(present) => present,
            Err(e) => {
                let reason = format!("cannot read the destination: {e}");
                let failed = |item: Item| Item { state: State::Failed, reason: Some(reason.clone()), ..item };
                ready.settled.extend(wishes.into_iter().flat_map(|wish| wish.turn.end(failed(wish.item))));
                continue;
            }
        };
        for made in compute(shared, move |shared| make(&shared.job, &place, wishes, &present)).await? {
            if made.blobs.is_empty() {
                ready.settled.extend(made.turn.end(made.item));
            } else {
                ready.unwritten.push(made);
            }
        }
    }
    Ok(ready)
}

/// Computes where that holds nobody up.
async fn compute<T: Send + 'static>(
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Result<T, ResignError> {
    if shared.here {
        return Ok(work(shared));
    }
    let shared = shared.clone();
    Ok(tokio::task::spawn_blocking(move || work(&shared)).await?)
}

/// A new claim whose turn it is.
struct Wish {
    item: Item,
    vouched: Vouched,
    turn: Turn,
}

/// Judges the old signatures of one image; one new claim is wanted for each new name, whichever
/// and however many old ones vouch for it.
fn judge_all(shared: &Shared, set: &SetAddress, blobs: &[Bytes], newest: &Newest) -> (Ready, Wanted) {
    let (job, journal) = (&shared.job, shared.journal.as_deref());
    let mut ready = Ready::default();
    let mut wanted = Wanted::new();
    for blob in blobs {
        let hash = Digest::sha256(blob).hex().to_owned();
        let key = item_key(set.path().as_str(), &set.digest().to_string(), &hash);
        let settled = |journal: &&Journal| {
            !journal.is_finished() && journal.is_done(key) && (job.choice.trusts_journal() || journal.is_refused(key))
        };
        if let Some(journal) = journal.filter(settled) {
            ready.resumed += 1;
            ready.refused_before += u64::from(journal.is_refused(key));
            continue;
        }
        let item = Item { blob: Some(hash), ..blank(set) };
        match judge(blob, set, &job.renames, &job.old_policy, job.mechanism.as_ref()) {
            Finding::Vouched(vouched) => {
                let item = Item {
                    old_reference: Some(vouched.old.to_string()),
                    new_reference: Some(vouched.new.to_string()),
                    rule: Some(vouched.rule.clone()),
                    signer: Some(vouched.signer.clone()),
                    scope: Some(vouched.scope.clone()),
                    ..item
                };
                let told = |state, reason| Item { state, reason: Some(reason), ..item.clone() };
                match newest.leaves_out(&vouched) {
                    Ok(None) => {}
                    Ok(Some(reason)) => {
                        ready.settled.push(told(State::Unmatched, reason));
                        continue;
                    }
                    Err(reason) => {
                        ready.settled.push(told(State::Failed, reason));
                        continue;
                    }
                }
                let place = match shared.destination.place_of(&vouched) {
                    Ok(place) => place,
                    Err(reason) => {
                        ready.settled.push(told(State::Refused, reason));
                        continue;
                    }
                };
                let item = Item { place: Some(place.to_string()), ..item };
                let same = wanted.entry(place).or_default();
                match same.iter_mut().find(|other| other.vouched.new == vouched.new) {
                    Some(other) => other.others.push(item),
                    None => same.push(Candidate { item, vouched, others: Vec::new() }),
                }
            }
            Finding::Unmatched { old_reference, reason } => {
                ready.settled.push(Item { old_reference, reason: Some(reason), ..item });
            }
            Finding::Refused { old_reference, reason } => {
                ready.settled.push(Item { state: State::Refused, old_reference, reason: Some(reason), ..item });
            }
        }
    }
    (ready, wanted)
}

/// Signs each new name by each of its keys whose signature is not `present`; no blobs where none
/// is missing. The item names what makes it true, present or new.
fn make(job: &Job, place: &SetAddress, wanted: Vec<Wish>, present: &[Bytes]) -> Vec<Unwritten> {
    let now = SystemTime::now();
    let mut room = usize::try_from(MOST_SIGNATURES).unwrap_or(usize::MAX).saturating_sub(present.len());
    wanted
        .into_iter()
        .map(|Wish { mut item, vouched, turn }| {
            let (mut blobs, mut missing) = (Vec::new(), Vec::new());
            let failed = |item: Item, reason: String, turn| {
                let item = Item { state: State::Failed, reason: Some(reason), ..item };
                Unwritten { item, place: place.clone(), blobs: Vec::new(), turn }
            };
            for key in job.keys.for_name(&vouched.new) {
                let own = |blob: &&Bytes| is_own(&key.own, blob, place.digest(), &vouched.new, now);
                let blob = if let Some(blob) = present.iter().find(own) {
                    blob.clone()
                } else {
                    let Some(left) = room.checked_sub(1) else {
                        return failed(item, StoreError::Full { at: place.to_string() }.to_string(), turn);
                    };
                    room = left;
                    missing.push(key.signer.fingerprint().to_string());
                    if job.dry_run {
                        continue;
                    }
                    match sign(job, key.signer.as_ref(), place.digest(), &vouched.new, now) {
                        Ok(blob) => blobs.push(Bytes::from(blob)),
                        Err(reason) => return failed(item, reason, turn),
                    }
                    blobs.last().cloned().unwrap_or_default()
                };
                item.signed_by.push(key.signer.fingerprint().to_string());
                item.new_blobs.push(Digest::sha256(&blob).hex().to_owned());
            }
            item.state = if missing.is_empty() { State::Already } else { State::Signed };
            if job.dry_run && !missing.is_empty() {
                // What would be made has no bytes yet.
                (item.signed_by, item.new_blobs) = (missing, Vec::new());
            }
            Unwritten { item, place: place.clone(), blobs, turn }
        })
        .collect()
}

fn sign(
    job: &Job,
    signer: &dyn openpgp::Signer,
    digest: &Digest,
    name: &Reference,
    now: SystemTime,
) -> Result<Vec<u8>, String> {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let claim = Claim {
        reference: name.to_string(),
        digest: digest.clone(),
        creator: Some(job.creator.clone()),
        timestamp: i64::try_from(seconds).ok(),
    };
    let payload = claim.render().map_err(|e| e.to_string())?;
    signer.sign(&payload, now).map_err(|e| e.to_string())
}

/// Tells whether a stored signature is this very claim, truly made by this very key; anything
/// else, however alike, does not count as done.
fn is_own(own: &openpgp::Keyring, blob: &[u8], digest: &Digest, name: &Reference, now: SystemTime) -> bool {
    let Ok(message) = simple_signing(blob) else { return false };
    // What is not even meant to be that claim need not be verified.
    let says = |content: &[u8]| {
        Claim::parse(content).is_ok_and(|claim| claim.digest == *digest && claim.reference == name.to_string())
    };
    openpgp::inspect(message).is_ok_and(|untrusted| says(&untrusted.content))
        && openpgp::verify(message, own, &VerifyOptions::at(now)).is_ok_and(|verified| says(&verified.content))
}

fn blank(set: &SetAddress) -> Item {
    Item { repository: set.path().to_string(), digest: Some(set.digest().clone()), ..Item::default() }
}
