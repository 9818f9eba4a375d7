//! Checking a report against the stores: all that it says of signatures is found out anew.
//!
//! ```text
//! read (one image's items at a time) -> channel -> check x jobs -> tell
//! ```
//!
//! Of the whole report only what cannot be told at once stays in memory: signatures that the items
//! of their own image do not explain. A second reading decides about them.

mod check;
mod stores;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::choice::Check;
use super::endpoint::Endpoint;
use super::item::{Item, State};
use super::journal::{ItemKey, item_key};
use super::rename::{RenameError, RenameMap};
use super::report::{self, Counter, Head, ReportError, Seen, Totals, key_of};
use crate::lookup::OpenPgp;
use crate::policy::Policy;

/// How many images' items wait to be checked.
const READY: usize = 64;
/// How many items of one image are checked together; what goes beyond is another group.
const GROUP: usize = 1024;
/// How many signatures that nothing explains are remembered.
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

/// Something that is not as the report says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The image, as `repository@digest`; empty for the report as a whole.
    pub image: String,
    /// The new name that the report gives, or else the old one.
    pub name: String,
    /// The old signature.
    pub blob: Option<String>,
    /// What is wrong.
    pub what: String,
    /// It could not be found out.
    pub unknown: bool,
}

impl Problem {
    fn of_report(what: String) -> Self {
        Self { image: String::new(), name: String::new(), blob: None, what, unknown: false }
    }

    fn unknown(item: &Item, what: String) -> Self {
        Self { unknown: true, ..Self::of(item, what) }
    }

    fn of(item: &Item, what: String) -> Self {
        let name = item.new_reference.as_ref().or(item.old_reference.as_ref());
        Self {
            image: item.image(),
            name: name.cloned().unwrap_or_default(),
            blob: item.blob.clone(),
            what,
            unknown: false,
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditSummary {
    /// Items in the report.
    pub items: u64,
    /// Items about signatures for new names, all of them looked at.
    pub signatures: u64,
    /// Things that are not as the report says.
    pub wrong: u64,
    /// Things that could not be found out, since a store did not answer.
    pub unknown: u64,
    /// Signatures by the job's keys that lie at the places of the report, and that it does not tell of.
    pub unexplained: u64,
    /// What the report itself says.
    pub totals: Totals,
    /// Some of the places with unexplained signatures.
    pub unexplained_at: Vec<String>,
}

/// How many places of unexplained signatures are named.
const NAMED: usize = 20;

/// What the checks of one image found.
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    /// Signatures by the job's keys that the items do not explain: hash and place.
    unexplained: Vec<(String, String)>,
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
        tokio::task::spawn_blocking(move || send_groups(&path, head_sender, &sender))
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
    let ended = head.ended.parse::<jiff::Timestamp>().ok().map(SystemTime::from);
    let desk = Arc::new(Desk {
        renames,
        keys,
        head: head.clone(),
        old_mechanism: OpenPgp::at(audit.as_of.or(ended).unwrap_or(audit.now)).allow_weak(audit.allow_weak),
        new_mechanism: OpenPgp::at(audit.now),
        audit: audit.clone(),
    });

    let mut summary = AuditSummary { totals: head.totals, ..AuditSummary::default() };
    let mut unexplained: HashMap<ItemKey, String> = HashMap::new();
    {
        let mut count = |problem: &Problem| {
            let counted = if problem.unknown { &mut summary.unknown } else { &mut summary.wrong };
            *counted += 1;
            tell(problem);
        };
        if let Some(reason) = &head.incomplete {
            count(&Problem::of_report(format!("it says itself that it is incomplete: {reason}")));
        }
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
            let Found { problems, unexplained: more } = found?;
            problems.iter().for_each(&mut count);
            for (hash, place) in more {
                if unexplained.len() < UNEXPLAINED {
                    unexplained.insert(item_key("", &place, &hash), place);
                }
            }
        }
        drop(found);
        let read = reader.await??;
        if read.totals != head.totals || (read.refusals != head.refusals && head.refusals.len() < 100) {
            let what = format!("its totals say {}, its items are {}", told(&head.totals), told(&read.totals));
            count(&Problem::of_report(what));
        }
        let again = {
            let (path, suspects) = (path.to_owned(), read.suspects);
            let left = std::mem::take(&mut unexplained);
            let audit = audit.clone();
            tokio::task::spawn_blocking(move || second_reading(&path, suspects, left, &audit.source)).await??
        };
        for item in &again.doubled {
            count(&Problem::of(item, "the report tells of this old signature more than once".to_owned()));
        }
        unexplained = again.unexplained;
        (summary.items, summary.signatures) = (read.items, read.signatures);
    }
    summary.unexplained = unexplained.len() as u64;
    let mut places: Vec<String> = unexplained.into_values().collect();
    places.sort_unstable();
    places.dedup();
    places.truncate(NAMED);
    summary.unexplained_at = places;
    Ok((head, summary))
}

fn told(totals: &Totals) -> String {
    let Totals { signed, already, unmatched, refused, failed } = totals;
    format!("{signed} signed, {already} already there, {refused} refused, {failed} failed, {unmatched} not concerned")
}

/// What the reader of the report saw.
struct Read {
    items: u64,
    signatures: u64,
    totals: Totals,
    refusals: BTreeMap<String, u64>,
    suspects: HashMap<ItemKey, u64>,
}

/// Reads the report and sends its items, those of one image together where they stand together.
fn send_groups(
    path: &Path,
    head: oneshot::Sender<Head>,
    groups: &mpsc::Sender<Vec<Item>>,
) -> Result<Read, ReportError> {
    let mut head_sender = Some(head);
    let mut on_head = |head| {
        let sent = head_sender.take().is_some_and(|sender| sender.send(head).is_ok());
        if sent { Ok(()) } else { Err(ReportError::Stopped) }
    };
    let (mut seen, mut counter) = (Seen::new(), Counter::default());
    let (mut items, mut signatures) = (0, 0);
    let mut group: Vec<Item> = Vec::new();
    let send = |group: &mut Vec<Item>| {
        let full = std::mem::take(group);
        if full.is_empty() { Ok(()) } else { groups.blocking_send(full).map_err(|_| ReportError::Stopped) }
    };
    report::read(path, &mut on_head, &mut |item| {
        seen.note(key_of(&item));
        counter.count(&item);
        items += 1;
        signatures += u64::from(matches!(item.state, State::Signed | State::Already));
        let other = group.first().is_some_and(|one| one.repository != item.repository || one.digest != item.digest);
        if other || group.len() >= GROUP {
            send(&mut group)?;
        }
        group.push(item);
        Ok(())
    })?;
    send(&mut group)?;
    let (totals, refusals, _) = counter.end();
    Ok(Read { items, signatures, totals, refusals, suspects: seen.suspects() })
}

#[derive(Default)]
struct Again {
    doubled: Vec<Item>,
    unexplained: HashMap<ItemKey, String>,
}

/// Decides what the first reading had to leave open.
fn second_reading(
    path: &Path,
    mut suspects: HashMap<ItemKey, u64>,
    unexplained: HashMap<ItemKey, String>,
    source: &Endpoint,
) -> Result<Again, ReportError> {
    let mut again = Again { unexplained, ..Again::default() };
    if suspects.is_empty() && again.unexplained.is_empty() {
        return Ok(again);
    }
    report::read(path, &mut |_| Ok(()), &mut |item| {
        if let Some(count) = suspects.get_mut(&key_of(&item)) {
            *count += 1;
            if *count == 2 {
                again.doubled.push(item.clone());
            }
        }
        let place = item.place.as_deref().unwrap_or_default();
        for hash in item.new_blobs.iter().chain(&item.blob) {
            again.unexplained.remove(&item_key("", place, hash));
        }
        // What was refused has no new place; where both stores are one, it lies at its old one.
        if let Some(hash) = &item.blob {
            let digest = item.list.as_ref().or(item.digest.as_ref());
            for old in digest.map(|digest| stores::sources(source, &item, digest)).unwrap_or_default() {
                again.unexplained.remove(&item_key("", &old.to_string(), hash));
            }
        }
        Ok(())
    })?;
    Ok(again)
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
    /// Tells whether the job asked the new registry for the instances of signed lists.
    fn asks_for_instances(&self) -> bool {
        self.head.job.get("check").is_some_and(|kind| kind == "instances")
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
