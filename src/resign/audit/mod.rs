//! Checking a report against the stores: all that it says of signatures is found out anew.
//!
//! ```text
//! read (one image's items at a time) -> channel -> check x jobs -> tell
//! walk of the stores (sets that no item is about) ---------------> tell
//! ```
//!
//! Of the whole report only what cannot be told at once stays in memory: signatures that the items
//! of their own image do not explain, for a second reading, and sixteen bytes for each set that
//! was looked at, for the walk.

mod check;
mod left;
mod reading;
mod stores;
mod told;
mod whole;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, oneshot};

pub use self::told::{AuditSummary, Problem};
use super::choice::Check;
use super::endpoint::Endpoint;
use super::item::Item;
use super::journal::{ItemKey, item_key};
use super::pipeline::Shard;
use super::rename::{RenameError, RenameMap};
use super::report::{Head, Parts, ReportError, Totals};
use crate::lookup::{OpenPgp, Unverified, vouched};
use crate::policy::Policy;
use crate::store::SetAddress;

/// How many images' items wait to be checked.
const READY: usize = 64;
/// How far the clocks of signers and of the job may be apart.
const CLOCKS: Duration = Duration::from_mins(5);
/// How many signatures that nothing explains are remembered, of a kind.
const UNEXPLAINED: usize = 1_000_000;

/// Why a report cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// It cannot be read.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// It tells of nothing that was done.
    #[error("{} is the report of a dry run: nothing was signed, so there is nothing to check", .0.display())]
    DryRun(PathBuf),
    /// The rules that it names are none.
    #[error("the rename rules in the report cannot be: {0}")]
    Rules(#[from] RenameError),
    /// A worker died.
    #[error("a worker stopped unexpectedly: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// What to check a report against.
pub struct Audit {
    /// Where the old signatures are.
    pub source: Endpoint,
    /// Where the new ones should be.
    pub destination: Endpoint,
    /// Asks the registries of the new names whether a list has an instance; of kind
    /// [`CheckKind::Instances`](super::CheckKind::Instances).
    pub check: Check,
    /// The policy that old signatures must satisfy.
    pub old_policy: Policy,
    /// The policy that new signatures must satisfy, each for its new name.
    pub new_policy: Policy,
    /// Judge old signatures as of this time; `None` for when each was signed anew.
    pub as_of: Option<SystemTime>,
    /// Judge new signatures as of this time.
    pub now: SystemTime,
    /// Accept SHA-1 and short RSA keys in old signatures.
    pub allow_weak: bool,
    /// How many images are worked on at once.
    pub jobs: usize,
}

const NOT_TOLD: &str = "the source has this signature, and the report does not tell of it";
const NOT_LATER: &str = "the source has this signature, and the report does not tell of it; that the job began before \
                         it was made, no signature of the job bears out";

/// How many places of unexplained signatures are named.
const NAMED: usize = 20;

/// A signature that the items of its own image do not explain.
#[derive(Debug)]
struct Suspect {
    /// The key of its set.
    set: String,
    hash: String,
    /// The name that it claims; empty if it cannot be read.
    name: String,
    /// It is for a name that the job's rules make.
    made: bool,
    /// The report says that it was in the source.
    told: bool,
    /// When it says of itself that it was made.
    says: Option<SystemTime>,
    /// That is after the report says that the job began.
    later: bool,
    /// When it was made, where it is verified.
    created: Option<SystemTime>,
}

type Suspects = HashMap<ItemKey, Suspect>;

/// What the checks of one image, or of sets that no item is about, found.
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    /// How many items are taken at the report's word.
    trusted: u64,
    /// Signatures by the job's keys at the destination.
    unexplained: Vec<Suspect>,
    /// Signatures of the source.
    untold: Vec<(ItemKey, Suspect)>,
    /// By place and hash, what failed items wrote all the same.
    written: BTreeSet<ItemKey>,
    /// When the first of the signatures was made that the job made and that are as they should be.
    signed: Option<SystemTime>,
    /// Which sets of the source and of the destination were looked at.
    visited: (Vec<ItemKey>, Vec<ItemKey>),
}

fn set_key(set: &str) -> ItemKey {
    item_key("", set, "")
}

/// Everything that waits for the second reading, and what goes at once.
#[derive(Default)]
struct Gathered {
    unexplained: Suspects,
    untold: Suspects,
    visited: (Vec<ItemKey>, Vec<ItemKey>),
    trusted: u64,
    written: BTreeSet<ItemKey>,
    signed: Option<SystemTime>,
    /// More than can be remembered.
    overflow: bool,
}

impl Gathered {
    /// Takes what was found, but for the problems, which it returns.
    fn take(&mut self, found: Found) -> Vec<Problem> {
        for suspect in found.unexplained {
            self.overflow |= self.unexplained.len() >= UNEXPLAINED;
            if !self.overflow {
                self.unexplained.insert(item_key("", &suspect.set, &suspect.hash), suspect);
            }
        }
        for (key, suspect) in found.untold {
            self.overflow |= self.untold.len() >= UNEXPLAINED;
            if !self.overflow {
                self.untold.insert(key, suspect);
            }
        }
        self.visited.0.extend(found.visited.0);
        self.visited.1.extend(found.visited.1);
        self.trusted += found.trusted;
        self.written.extend(found.written);
        self.signed = self.signed.into_iter().chain(found.signed).min();
        found.problems
    }
}

/// What everything is checked by.
struct Desk {
    audit: Arc<Audit>,
    head: Head,
    renames: RenameMap,
    /// The job's keys by the prefix of new names that they sign; `None` for all others.
    keys: BTreeMap<Option<String>, Vec<String>>,
    old_mechanism: OpenPgp,
    new_mechanism: OpenPgp,
    started: Option<SystemTime>,
    /// The parts of the job that the report tells of.
    parts: Parts,
    /// They are all.
    whole: bool,
}

/// Checks a report, handing each thing that is wrong to `tell`.
///
/// # Errors
/// [`AuditError`] when there is nothing to go by; what is wrong with the report is told and counted.
pub async fn audit(
    audit: Arc<Audit>,
    path: &Path,
    mut tell: impl FnMut(&Problem),
) -> Result<(Head, AuditSummary), AuditError> {
    let (head_sender, head) = oneshot::channel();
    let (sender, receiver) = mpsc::channel(READY);
    let reader = {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || reading::send_groups(&path, head_sender, &sender))
    };
    let Ok(head) = head.await else {
        let outcome = reader.await?;
        return Err(outcome.err().unwrap_or(ReportError::Stopped).into());
    };
    if head.dry_run {
        return Err(AuditError::DryRun(path.to_owned()));
    }
    let renames = RenameMap::parse_recorded(head.job.get("rename rules").map(String::as_str).unwrap_or_default())?;
    let keys = job_keys(head.job.get("keys").map(String::as_str).unwrap_or_default());
    // Where they cannot be, all of the stores is looked through.
    let (parts, wrong_parts) = match Parts::of(&head) {
        Ok(parts) => (parts, None),
        Err(wrong) => (Parts { shards: vec![Shard::WHOLE], whole: true }, Some(wrong)),
    };
    let desk = Arc::new(Desk {
        renames,
        keys,
        old_mechanism: OpenPgp::at(audit.as_of.or(time_of(&head.ended)).unwrap_or(audit.now))
            .allow_weak(audit.allow_weak),
        new_mechanism: OpenPgp::at(audit.now),
        started: time_of(&head.started),
        whole: parts.whole,
        parts,
        head: head.clone(),
        audit: audit.clone(),
    });

    let mut summary = AuditSummary { totals: head.totals, ..AuditSummary::default() };
    let mut count = |problem: &Problem| {
        let counted = if problem.unknown { &mut summary.unknown } else { &mut summary.wrong };
        *counted += 1;
        tell(problem);
    };
    if let Some(reason) = &head.incomplete {
        count(&Problem::of_report(format!("it says itself that it is incomplete: {reason}")));
    }
    if let Some(wrong) = wrong_parts {
        count(&Problem::of_report(wrong));
    }
    let mut gathered = Gathered::default();
    let groups =
        futures_util::stream::unfold(receiver, |mut groups| async move { Some((groups.recv().await?, groups)) });
    let mut found = groups
        .map(|items: Vec<Item>| {
            let desk = desk.clone();
            async move { tokio::spawn(check::group(desk, items)).await }
        })
        .buffer_unordered(audit.jobs.max(1))
        .boxed();
    while let Some(found) = found.next().await {
        gathered.take(found?).iter().for_each(&mut count);
    }
    drop(found);
    let read = reader.await??;
    if read.totals != head.totals || (read.refusals != head.refusals && head.refusals.len() < 100) {
        let what = format!("its totals say {}, its items are {}", told(&head.totals), told(&read.totals));
        count(&Problem::of_report(what));
    }
    // What the report leaves out is seen in the stores only.
    let visited = std::mem::take(&mut gathered.visited);
    for found in whole::look(&desk, visited).await? {
        gathered.take(found).iter().for_each(&mut count);
    }
    if gathered.overflow {
        let what = format!("more than {UNEXPLAINED} signatures are not told of: the further ones were not looked at");
        count(&Problem::unknown_of_report(what));
    }
    let again = {
        let (path, suspects, audit) = (path.to_owned(), read.suspects, audit.clone());
        let (left, written) = ((gathered.unexplained, gathered.untold), gathered.written);
        tokio::task::spawn_blocking(move || reading::second(&path, suspects, left, &written, &audit.source)).await??
    };
    for item in &again.doubled {
        count(&Problem::of(item, "the report tells of this old signature more than once".to_owned()));
    }
    // When the job began is the report's word: what it signed, as it says, must bear that out.
    let began = gathered.signed.and_then(|signed| signed.checked_sub(CLOCKS));
    let is_later = |suspect: &Suspect| suspect.later && began.is_some_and(|began| suspect.says > Some(began));
    let (later, mut untold): (Vec<_>, Vec<_>) = again.untold.into_values().partition(is_later);
    untold.sort_unstable_by(|a, b| (&a.set, &a.hash).cmp(&(&b.set, &b.hash)));
    for suspect in untold {
        let what = if suspect.later { NOT_LATER } else { NOT_TOLD };
        count(&Problem::of_suspect(suspect, what));
    }
    let (beside, unexplained): (Vec<_>, Vec<_>) = again.unexplained.into_values().partition(|suspect| suspect.told);
    summary.later = later.len() as u64;
    (summary.beside, summary.beside_at) = places(beside);
    (summary.unexplained, summary.unexplained_at) = places(unexplained);
    (summary.items, summary.signatures, summary.trusted) = (read.items, read.signatures, gathered.trusted);
    summary.on_trust = desk.on_trust(gathered.trusted);
    Ok((head, summary))
}

/// How many suspects there are, and some of their places.
fn places(suspects: Vec<Suspect>) -> (u64, Vec<String>) {
    let count = suspects.len() as u64;
    let mut places: Vec<String> = suspects.into_iter().map(|suspect| suspect.set).collect();
    places.sort_unstable();
    places.dedup();
    places.truncate(NAMED);
    (count, places)
}

fn told(totals: &Totals) -> String {
    let Totals { signed, already, unmatched, refused, failed } = totals;
    format!("{signed} signed, {already} already there, {refused} refused, {failed} failed, {unmatched} not concerned")
}

fn time_of(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

fn seconds(since_1970: i64) -> Option<SystemTime> {
    jiff::Timestamp::from_second(since_1970).ok().map(SystemTime::from)
}

/// Tells whether a signature was made after an item says that it was there.
fn is_younger(created: Option<SystemTime>, item: &Item) -> bool {
    created.zip(time_of(&item.time)).is_some_and(|(created, settled)| created > settled + CLOCKS)
}

/// Reads the keys of a job as it records them: `FINGERPRINT` and `PREFIX=FINGERPRINT`.
fn job_keys(text: &str) -> BTreeMap<Option<String>, Vec<String>> {
    let mut keys: BTreeMap<Option<String>, Vec<String>> = BTreeMap::new();
    for word in text.split_whitespace() {
        let (prefix, key) = match word.split_once('=') {
            Some((prefix, key)) => (Some(prefix.to_owned()), key),
            None => (None, word),
        };
        keys.entry(prefix).or_default().push(key.to_owned());
    }
    keys
}

impl Desk {
    /// What the job's flags say; `None` for what they leave out.
    fn said(&self, what: &str) -> Option<&str> {
        self.head.job.get(what).map(String::as_str).filter(|said| *said != "none")
    }

    /// Tells whether the job worked on what a list or a registry named.
    fn is_listed(&self) -> bool {
        self.said("list of images").is_some() || self.said("discovery").is_some()
    }

    /// Tells whether the job may have left out what it could have signed.
    fn chose(&self) -> bool {
        self.said("claims").is_some_and(|claims| claims != "all") || self.said("check").is_some()
    }

    /// Tells whether the job, as far as it is told of, went through all of its source.
    fn went_through_all(&self) -> bool {
        matches!(self.audit.source, Endpoint::Tree(_)) && !self.is_listed() && self.head.incomplete.is_none()
    }

    /// Returns a signature of the source that no item of its image tells of, with the key that one
    /// would have.
    fn untold(&self, set: &SetAddress, hash: &str, blob: &Bytes) -> Option<(ItemKey, Suspect)> {
        let said = Unverified::read(blob).ok();
        let name = said.as_ref().map(|said| said.claim.reference.clone()).unwrap_or_default();
        let made = self.renames.makes(&name);
        // The other parts of the job may have made it, after this one had looked.
        if made && !self.whole {
            return None;
        }
        let says = said.and_then(|said| said.created).map(SystemTime::from);
        let later = says.zip(self.started).is_some_and(|(created, started)| created > started);
        let key = item_key(set.path().as_str(), &set.digest().to_string(), hash);
        let (set, hash) = (set.to_string(), hash.to_owned());
        Some((key, Suspect { set, hash, name, made, told: false, says, later, created: None }))
    }

    /// Returns a signature of the destination, if it is by one of the job's keys.
    fn own(&self, set: &SetAddress, hash: &str, blob: &Bytes, only_made: bool) -> Option<Suspect> {
        let claim = Unverified::read(blob).ok()?.claim;
        let made = self.renames.makes(&claim.reference);
        if only_made && !made {
            return None;
        }
        let accepted = vouched(&self.audit.new_policy, &self.new_mechanism, &claim, set.digest(), blob).ok()?;
        let signer = accepted.fingerprint?;
        self.keys.values().flatten().any(|key| *key == signer).then_some(())?;
        let (set, hash) = (set.to_string(), hash.to_owned());
        let created = accepted.created.and_then(seconds);
        Some(Suspect { set, hash, name: claim.reference, made, told: false, says: None, later: false, created })
    }

    /// Says what was not found out anew.
    fn on_trust(&self, trusted: u64) -> Vec<String> {
        let mut all = Vec::new();
        if trusted > 0 {
            all.push(format!(
                "of {trusted} item(s), that they failed, were left out by --newest or --check, or were not to be found"
            ));
        }
        if self.is_listed() {
            all.push("what the job's list named: only the images of the report were looked at".to_owned());
        } else if !self.went_through_all() {
            all.push("whether the report tells of all that was in the source".to_owned());
        }
        if !self.whole {
            let parts = self.head.shards.join(", ");
            all.push(format!("the job's other parts, and new names beside the places of this one ({parts})"));
        } else if !matches!(self.audit.destination, Endpoint::Tree(_)) {
            all.push("new names at other places of the destination than the report's".to_owned());
        }
        all.push(
            "the job's own flags and keys, the times between its start and its end, the wording of reasons".to_owned(),
        );
        all
    }

    /// Tells whether the job asked the new registry for the instances of signed lists.
    fn asks_for_instances(&self) -> bool {
        self.said("check") == Some("instances")
    }

    /// Returns the keys that sign a new name, as [`super::Keys`] would.
    fn keys_for(&self, repository: &str) -> &[String] {
        let mut prefix = Some(repository);
        while let Some(name) = prefix {
            if let Some(keys) = self.keys.get(&Some(name.to_owned())) {
                return keys;
            }
            prefix = name.rsplit_once('/').map(|(parent, _)| parent);
        }
        self.keys.get(&None).map(Vec::as_slice).unwrap_or_default()
    }
}
