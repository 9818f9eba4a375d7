//! The job: list, fetch, judge, sign, append; many images at once, memory bounded by `jobs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use futures_util::StreamExt as _;
use serde::Serialize;

use crate::image::{Digest, Reference};
use crate::openpgp::{self, Keyring, Signer, VerifyOptions};
use crate::policy::{Mechanism, Policy};
use crate::signature::{Claim, simple_signing};
use crate::store::{SetAddress, Store, StoreError, StorePath, StoredSignature};

use super::rename::RenameMap;
use super::vouch::{Finding, Vouched, judge};

/// Everything that a job needs to know.
pub struct Job {
    /// Where the old signatures are.
    pub source: Store,
    /// Where the new ones go; may be the same tree.
    pub destination: Store,
    /// Which names become which.
    pub renames: RenameMap,
    /// The policy that old signatures must satisfy, each for the name in its own claim.
    pub old_policy: Policy,
    /// The cryptography behind the policy.
    pub mechanism: Arc<dyn Mechanism>,
    /// Who signs the new claims.
    pub signer: Arc<dyn Signer>,
    /// The signer's own certificate, to know its signatures again.
    pub own: Keyring,
    /// `creator` of the new claims.
    pub creator: String,
    /// How many images are worked on at once.
    pub jobs: usize,
    /// Decide everything, write nothing.
    pub dry_run: bool,
}

/// What became of one old signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Signed for the new name (in a dry run: would be).
    Signed,
    /// The new signature was there already.
    Already,
    /// No rule concerns it.
    Unmatched,
    /// Not accepted, so not signed.
    Refused,
    /// Accepted, but reading or writing failed.
    Failed,
}

/// The account of one old signature.
#[derive(Clone, Debug, Serialize)]
pub struct Item {
    /// Path of the image's folder in the source, without the digest.
    pub repository: String,
    /// The image.
    pub digest: Digest,
    /// The name in the old claim.
    pub old_reference: Option<String>,
    /// The name in the new claim.
    pub new_reference: Option<String>,
    /// What became of it.
    pub state: State,
    /// Why, where it was not signed.
    pub reason: Option<String>,
    /// The rule that applied.
    pub rule: Option<String>,
    /// Who made the old signature.
    pub signer: Option<String>,
    /// The policy scope that accepted the old signature.
    pub scope: Option<String>,
}

/// Totals of a job.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// New signatures made (in a dry run: that would be).
    pub signed: u64,
    /// New signatures that were there before.
    pub already: u64,
    /// Old signatures that no rule concerns.
    pub unmatched: u64,
    /// Old signatures that were not accepted.
    pub refused: u64,
    /// Old signatures that could not be read or new ones that could not be written.
    pub failed: u64,
    /// Wall time.
    pub seconds: f64,
}

impl Summary {
    /// Tells whether all that had to be signed is signed.
    pub fn complete(&self) -> bool {
        self.refused == 0 && self.failed == 0
    }

    fn count(&mut self, state: State) {
        match state {
            State::Signed => self.signed += 1,
            State::Already => self.already += 1,
            State::Unmatched => self.unmatched += 1,
            State::Refused => self.refused += 1,
            State::Failed => self.failed += 1,
        }
    }
}

/// Why a job stopped before its end. What it signed up to then stays, and the same command goes on.
#[derive(Debug, thiserror::Error)]
pub enum ResignError {
    /// The source could not be listed.
    #[error("cannot list the source: {0}")]
    Source(#[source] StoreError),
    /// A worker died.
    #[error("a worker stopped unexpectedly: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// Runs a job, handing the account of each old signature to `report` as it is settled.
///
/// # Errors
/// [`ResignError`] when the job could not come to its end; what fails for one image is told to
/// `report` and counted, and the others go on.
pub async fn run(job: Arc<Job>, mut report: impl FnMut(&Item)) -> Result<Summary, ResignError> {
    let start = Instant::now();
    let mut summary = Summary::default();
    let root = StorePath::root();
    let source = job.source.clone();
    let mut settled = source
        .walk(&root)
        .map(|set| {
            let job = job.clone();
            async move { image(job, set.map_err(ResignError::Source)?).await }
        })
        .buffer_unordered(job.jobs.max(1));
    while let Some(items) = settled.next().await {
        for item in items? {
            summary.count(item.state);
            report(&item);
        }
    }
    summary.seconds = start.elapsed().as_secs_f64();
    Ok(summary)
}

/// Settles all signatures of one image.
async fn image(job: Arc<Job>, set: SetAddress) -> Result<Vec<Item>, ResignError> {
    let blobs = match job.source.signatures(&set).await {
        Ok(blobs) => blobs,
        Err(e) => return Ok(vec![item(&set, State::Failed, None, Some(format!("cannot read: {e}")))]),
    };
    let judged = {
        let (job, set) = (job.clone(), set.clone());
        tokio::task::spawn_blocking(move || {
            let one = |blob: &StoredSignature| {
                judge(&blob.bytes, &set, &job.renames, &job.old_policy, job.mechanism.as_ref())
            };
            blobs.iter().map(one).collect::<Vec<_>>()
        })
        .await?
    };

    let mut items = Vec::with_capacity(judged.len());
    // One new signature for each new name, whichever and however many old ones vouch for it.
    let mut wanted: BTreeMap<SetAddress, Vec<Vouched>> = BTreeMap::new();
    for finding in judged {
        match finding {
            Finding::Vouched(vouched) => {
                let same = wanted.entry(vouched.place.clone()).or_default();
                if same.iter().all(|other| other.new != vouched.new) {
                    same.push(vouched);
                }
            }
            Finding::Unmatched { old_reference, reason } => {
                items.push(item(&set, State::Unmatched, old_reference, Some(reason)));
            }
            Finding::Refused { old_reference, reason } => {
                items.push(item(&set, State::Refused, old_reference, Some(reason)));
            }
        }
    }
    for (place, vouched) in wanted {
        items.extend(write(&job, &set, place, vouched).await?);
    }
    Ok(items)
}

/// Writes what is not there yet at one place of the destination.
async fn write(
    job: &Arc<Job>,
    set: &SetAddress,
    place: SetAddress,
    vouched: Vec<Vouched>,
) -> Result<Vec<Item>, ResignError> {
    let failed = |reason: String| vouched.iter().map(|v| told(set, v, State::Failed, Some(reason.clone()))).collect();
    let present = match job.destination.signatures(&place).await {
        Ok(present) => present,
        Err(e) => return Ok(failed(format!("cannot read the destination: {e}"))),
    };
    let made = {
        let (job, digest) = (job.clone(), place.digest().clone());
        let names: Vec<Reference> = vouched.iter().map(|v| v.new.clone()).collect();
        tokio::task::spawn_blocking(move || make(&job, &digest, &names, &present)).await?
    };
    let mut items = Vec::with_capacity(vouched.len());
    for (vouched, made) in vouched.iter().zip(made) {
        let (state, reason) = match made {
            Ok(None) => (State::Already, None),
            Ok(Some(_)) if job.dry_run => (State::Signed, None),
            Ok(Some(blob)) => match job.destination.append(&place, &blob).await {
                Ok(_) => (State::Signed, None),
                Err(e) => (State::Failed, Some(format!("cannot write: {e}"))),
            },
            Err(reason) => (State::Failed, Some(reason)),
        };
        items.push(told(set, vouched, state, reason));
    }
    Ok(items)
}

/// Signs each name whose signature by this very key is not `present`; `None` where it is.
fn make(
    job: &Job,
    digest: &Digest,
    names: &[Reference],
    present: &[StoredSignature],
) -> Vec<Result<Option<Vec<u8>>, String>> {
    let now = SystemTime::now();
    let own_claims: Vec<Claim> = present.iter().filter_map(|blob| own_claim(job, &blob.bytes, now)).collect();
    names
        .iter()
        .map(|name| {
            let reference = name.to_string();
            if own_claims.iter().any(|claim| claim.digest == *digest && claim.reference == reference) {
                return Ok(None);
            }
            if job.dry_run {
                return Ok(Some(Vec::new()));
            }
            let seconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let claim = Claim {
                reference,
                digest: digest.clone(),
                creator: Some(job.creator.clone()),
                timestamp: i64::try_from(seconds).ok(),
            };
            let payload = claim.render().map_err(|e| e.to_string())?;
            job.signer.sign(&payload, now).map(Some).map_err(|e| e.to_string())
        })
        .collect()
}

/// Reads a claim that this job's own key has truly made; anything else does not count as done.
fn own_claim(job: &Job, blob: &[u8], now: SystemTime) -> Option<Claim> {
    let verified = openpgp::verify(simple_signing(blob).ok()?, &job.own, &VerifyOptions::at(now)).ok()?;
    Claim::parse(&verified.content).ok()
}

fn item(set: &SetAddress, state: State, old_reference: Option<String>, reason: Option<String>) -> Item {
    Item {
        repository: set.path().to_string(),
        digest: set.digest().clone(),
        old_reference,
        new_reference: None,
        state,
        reason,
        rule: None,
        signer: None,
        scope: None,
    }
}

fn told(set: &SetAddress, vouched: &Vouched, state: State, reason: Option<String>) -> Item {
    Item {
        new_reference: Some(vouched.new.to_string()),
        rule: Some(vouched.rule.clone()),
        signer: Some(vouched.signer.clone()),
        scope: Some(vouched.scope.clone()),
        ..item(set, state, Some(vouched.old.to_string()), reason)
    }
}
