//! The job: list, fetch, judge, sign, append, journal. Many images at once, memory bounded.
//!
//! ```text
//! list -> prepare (fetch, judge, compare, sign) x jobs -> channel -> commit (append, journal, tell)
//! ```
//!
//! Preparing is work for the processors; committing waits for the disk, and takes whatever is
//! ready by then in one group. The channel between them is bounded, so that neither runs away.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use super::choice::{self, Choice, Newest, Wanted};
use super::endpoint::{Destination, EndpointError, Image, Left, Source, Why};
use super::item::{Item, State, Summary};
use super::journal::{Journal, JournalError, item_key};
use super::keys::Keys;
use super::rename::RenameMap;
use super::vouch::{Finding, Vouched, judge};
use crate::image::{Digest, Reference};
use crate::openpgp::{self, VerifyOptions};
use crate::policy::{Mechanism, Policy};
use crate::signature::{Claim, simple_signing};
use crate::store::SetAddress;

/// How many images may be ready and not yet committed; what waits there is their signatures.
const READY: usize = 4096;

/// Everything that a job needs to know.
pub struct Job {
    /// Where the old signatures are.
    pub source: Source,
    /// Where the new ones go; may be the same place.
    pub destination: Destination,
    /// Which names become which.
    pub renames: RenameMap,
    /// The policy that old signatures must satisfy, each for the name in its own claim.
    pub old_policy: Policy,
    /// The cryptography behind the policy, as of the time that the operator states.
    pub mechanism: Arc<dyn Mechanism>,
    /// Who signs the new claims.
    pub keys: Keys,
    /// `creator` of the new claims.
    pub creator: String,
    /// How many images are worked on at once.
    pub jobs: usize,
    /// Decide everything, write nothing.
    pub dry_run: bool,
    /// Which of the claims that could be signed are.
    pub choice: Choice,
    /// Which part of the work is this process's: `index` of `count`, by repository.
    pub shard: Shard,
}

/// A part of the work, so that several processes share it without talking to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 1.
    pub index: u32,
    /// At least 1.
    pub count: u32,
}

impl Shard {
    /// All of it.
    pub const WHOLE: Self = Self { index: 1, count: 1 };

    /// Tells whether a repository belongs to this part; each belongs to exactly one.
    pub fn has(self, repository: &str) -> bool {
        let key = item_key(repository, "", "") % u128::from(self.count.max(1));
        key + 1 == u128::from(self.index)
    }
}

/// Why a job stopped before its end. What it signed up to then stays, and the same command goes on.
#[derive(Debug, thiserror::Error)]
pub enum ResignError {
    /// The source, or a part of it, could not be listed; all else was done.
    #[error("cannot list all of the source: {0}; what could be listed is done")]
    Source(#[source] EndpointError),
    /// The journal could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A worker died.
    #[error("a worker stopped unexpectedly: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// One image's work, ready to be written.
#[derive(Default)]
struct Ready {
    /// Settled already; nothing is to be written for them.
    settled: Vec<Item>,
    /// New signatures, each item with the blobs that it becomes true by.
    unwritten: Vec<(Item, SetAddress, Vec<Bytes>)>,
    /// Old signatures that an earlier run settled.
    resumed: u64,
    /// How many of them it refused.
    refused_before: u64,
}

/// Runs a job, handing the account of each old signature to `tell` when it is settled for good.
///
/// # Errors
/// [`ResignError`] when the job could not come to its end; what fails for one image is told and
/// counted, and the others go on.
pub async fn run(job: Arc<Job>, journal: Option<Journal>, mut tell: impl FnMut(&Item)) -> Result<Summary, ResignError> {
    let start = Instant::now();
    let mut summary = Summary::default();
    let journal = journal.map(Arc::new);
    let (sender, mut receiver) = mpsc::channel::<Result<Ready, ResignError>>(READY);
    let producer = tokio::spawn(produce(job.clone(), journal.clone(), sender));
    let mut ledger = Ledger { journal, dry_run: job.dry_run };
    let mut batch = Vec::new();
    while receiver.recv_many(&mut batch, READY).await > 0 {
        let (mut ready, mut stopped) = (Vec::with_capacity(batch.len()), None);
        for one in batch.drain(..) {
            match one {
                Ok(one) => ready.push(one),
                Err(error) => stopped = stopped.or(Some(error)),
            }
        }
        summary.resumed += ready.iter().map(|one| one.resumed).sum::<u64>();
        summary.refused += ready.iter().map(|one| one.refused_before).sum::<u64>();
        // What was ready before the job stopped is not thrown away.
        for item in ledger.commit(&job.destination, ready).await? {
            summary.count(&item);
            tell(&item);
        }
        if let Some(error) = stopped {
            return Err(error);
        }
    }
    producer.await?;
    ledger.finish()?;
    summary.seconds = start.elapsed().as_secs_f64();
    Ok(summary)
}

/// Prepares images until there are no more, or nobody takes them.
async fn produce(job: Arc<Job>, journal: Option<Arc<Journal>>, sender: mpsc::Sender<Result<Ready, ResignError>>) {
    let mut prepared = images(&job)
        .map(|image| {
            let (job, journal) = (job.clone(), journal.clone());
            async move {
                match image.map_err(ResignError::Source)? {
                    // A task of its own: what it computes runs beside the others.
                    (Image::Found(set), newest) => tokio::spawn(prepare(job, journal, set, newest)).await?,
                    (Image::Left(left), _) => Ok(Ready { settled: vec![left_out(left)], ..Ready::default() }),
                }
            }
        })
        .buffer_unordered(job.jobs.max(1));
    let mut unlistable = None;
    while let Some(ready) = prepared.next().await {
        match ready {
            // One folder that cannot be listed stops nothing else, and is not forgotten.
            Err(ResignError::Source(error)) => {
                tracing::error!(%error, "a part of the source cannot be listed; the rest goes on");
                unlistable = unlistable.or(Some(error));
            }
            ready => {
                let last = ready.is_err();
                if sender.send(ready).await.is_err() || last {
                    return;
                }
            }
        }
    }
    if let Some(error) = unlistable {
        let _ = sender.send(Err(ResignError::Source(error))).await;
    }
}

/// This process's part of the source, each image with what is the newest in its repository.
fn images(job: &Arc<Job>) -> BoxStream<'static, Result<(Image, Arc<Newest>), EndpointError>> {
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
    Item { repository: left.image, digest: left.digest, state, reason: Some(reason), ..nothing() }
}

/// Fetches, judges, compares and signs for one image.
async fn prepare(
    job: Arc<Job>,
    journal: Option<Arc<Journal>>,
    set: SetAddress,
    newest: Arc<Newest>,
) -> Result<Ready, ResignError> {
    let blobs = match job.source.signatures(&set).await {
        Ok(blobs) => blobs,
        Err(e) => {
            let item = Item { state: State::Failed, reason: Some(format!("cannot read: {e}")), ..blank(&set) };
            return Ok(Ready { settled: vec![item], ..Ready::default() });
        }
    };
    if blobs.is_empty() && job.source.is_listed() {
        let reason = Some("the source has no signatures of it".to_owned());
        return Ok(Ready { settled: vec![Item { reason, ..blank(&set) }], ..Ready::default() });
    }
    let (mut ready, wanted) = {
        let (job, set) = (job.clone(), set.clone());
        tokio::task::spawn_blocking(move || judge_all(&job, journal.as_deref(), &set, &blobs, &newest)).await?
    };
    let (wanted, left) = job.choice.apply(wanted).await;
    ready.settled.extend(left);
    for (place, vouched) in wanted {
        let present = match job.destination.signatures(&place).await {
            Ok(present) => present,
            Err(e) => {
                let reason = format!("cannot read the destination: {e}");
                let failed = |item: Item| Item { state: State::Failed, reason: Some(reason.clone()), ..item };
                ready.settled.extend(vouched.into_iter().map(|(item, _)| failed(item)));
                continue;
            }
        };
        let (job, present_at) = (job.clone(), place.clone());
        let made = tokio::task::spawn_blocking(move || make(&job, &present_at, vouched, &present)).await?;
        for (item, blobs) in made {
            if blobs.is_empty() {
                ready.settled.push(item);
            } else {
                ready.unwritten.push((item, place.clone(), blobs));
            }
        }
    }
    Ok(ready)
}

/// Judges the old signatures of one image; one new claim is wanted for each new name, whichever
/// and however many old ones vouch for it.
fn judge_all(
    job: &Job,
    journal: Option<&Journal>,
    set: &SetAddress,
    blobs: &[Bytes],
    newest: &Newest,
) -> (Ready, Wanted) {
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
                let place = match job.destination.place_of(&vouched) {
                    Ok(place) => place,
                    Err(reason) => {
                        ready.settled.push(told(State::Refused, reason));
                        continue;
                    }
                };
                let item = Item { place: Some(place.to_string()), ..item };
                let same = wanted.entry(place).or_default();
                if same.iter().any(|(_, other)| other.new == vouched.new) {
                    let reason = Some("another signature of this image vouches for the same new name".to_owned());
                    ready.settled.push(Item { state: State::Already, reason, ..item });
                } else {
                    same.push((item, vouched));
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
fn make(job: &Job, place: &SetAddress, wanted: Vec<(Item, Vouched)>, present: &[Bytes]) -> Vec<(Item, Vec<Bytes>)> {
    let now = SystemTime::now();
    wanted
        .into_iter()
        .map(|(mut item, vouched)| {
            let (mut blobs, mut missing) = (Vec::new(), Vec::new());
            for key in job.keys.for_name(&vouched.new) {
                let own = |blob: &&Bytes| is_own(&key.own, blob, place.digest(), &vouched.new, now);
                let blob = match present.iter().find(own) {
                    Some(blob) => blob.clone(),
                    None => {
                        missing.push(key.signer.fingerprint().to_string());
                        if job.dry_run {
                            continue;
                        }
                        match sign(job, key.signer.as_ref(), place.digest(), &vouched.new, now) {
                            Ok(blob) => blobs.push(Bytes::from(blob)),
                            Err(reason) => {
                                return (Item { state: State::Failed, reason: Some(reason), ..item }, Vec::new());
                            }
                        }
                        blobs.last().cloned().unwrap_or_default()
                    }
                };
                item.signed_by.push(key.signer.fingerprint().to_string());
                item.new_blobs.push(Digest::sha256(&blob).hex().to_owned());
            }
            item.state = if missing.is_empty() { State::Already } else { State::Signed };
            if job.dry_run && !missing.is_empty() {
                // What would be made has no bytes yet.
                (item.signed_by, item.new_blobs) = (missing, Vec::new());
            }
            (item, blobs)
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

/// Writes and notes: the end of the pipeline.
struct Ledger {
    journal: Option<Arc<Journal>>,
    dry_run: bool,
}

impl Ledger {
    /// Makes a group durable, journals it, and returns its items.
    async fn commit(&mut self, destination: &Destination, ready: Vec<Ready>) -> Result<Vec<Item>, ResignError> {
        let mut items = Vec::new();
        let mut waiting = Vec::new();
        let mut batch = Vec::new();
        for one in ready {
            items.extend(one.settled);
            for (item, place, blobs) in one.unwritten {
                waiting.push((item, blobs.len()));
                batch.extend(blobs.into_iter().map(|blob| (place.clone(), blob)));
            }
        }
        let mut results = if batch.is_empty() { Vec::new() } else { destination.append_many(batch).await }.into_iter();
        for (mut item, count) in waiting {
            for result in results.by_ref().take(count) {
                if let Err(e) = result {
                    item.state = State::Failed;
                    item.reason = Some(format!("cannot write: {e}"));
                }
            }
            items.push(item);
        }
        let time = jiff::Timestamp::now().to_string();
        for item in &mut items {
            item.time.clone_from(&time);
        }
        if let Some(journal) = self.journal.as_deref().filter(|_| !self.dry_run) {
            journal.record(items.iter().filter(|item| !journal.is_finished() || news(journal, item)))?;
        }
        Ok(items)
    }

    fn finish(&self) -> Result<(), ResignError> {
        match self.journal.as_deref().filter(|_| !self.dry_run) {
            Some(journal) => Ok(journal.finish()?),
            None => Ok(()),
        }
    }
}

/// After a finished run only what that run did not settle is worth a line.
fn news(journal: &Journal, item: &Item) -> bool {
    match item.key() {
        Some(key) => !journal.is_done(key) || item.state == State::Signed,
        // An image without signatures is none that run missed.
        None => item.state != State::Unmatched,
    }
}

fn blank(set: &SetAddress) -> Item {
    Item { repository: set.path().to_string(), digest: Some(set.digest().clone()), ..nothing() }
}

fn nothing() -> Item {
    Item {
        repository: String::new(),
        digest: None,
        blob: None,
        old_reference: None,
        new_reference: None,
        place: None,
        state: State::Unmatched,
        reason: None,
        rule: None,
        signer: None,
        scope: None,
        signed_by: Vec::new(),
        new_blobs: Vec::new(),
        time: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_the_work_without_overlap() {
        for count in [1, 2, 4, 7] {
            for repository in ["a", "a/b", "birds/bluebird", ""] {
                let mine = (1..=count).filter(|index| Shard { index: *index, count }.has(repository)).count();
                assert_eq!(mine, 1, "{repository} of {count}");
            }
        }
    }
}
