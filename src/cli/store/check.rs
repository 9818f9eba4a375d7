//! `countersign store check`: every signature of a tree against a policy, each under the name in
//! its own claim and for the digest that it is filed under.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::bail;
use clap::Args;
use futures_util::StreamExt as _;
use serde::Serialize;

use super::{Gap, PartArgs, Place, Shown, gaps, show};
use crate::cli::output::{Answer, Format};
use crate::cli::stream::{Listing, field};
use crate::cli::verdict;
use crate::config::ClaimPath;
use crate::lookup::{OpenPgp, name_of, vouched};
use crate::policy::Policy;
use crate::store::{Foreign, Layout, SetAddress, Store, StoreError, StoredSet, StoredSignature, Surveyed};

/// Verify every signature against a policy; find gaps and foreign files
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Check {
    #[command(flatten)]
    part: PartArgs,
    /// policy.json that must vouch for each signature, under the name in its own claim
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Accept claims for other repositories than the folder's: in mirrors that rename what they keep
    #[arg(long)]
    any_path: bool,
    /// Accept signatures that use SHA-1 or RSA keys under 2048 bits
    #[arg(long)]
    allow_weak: bool,
}

const EXAMPLES: &str = "\
Examples:
  countersign store check --to ./signatures --policy policy.json
  countersign store check --to s3://signatures birds --policy policy.json --format json

Gaps and foreign files are told; they do not change the exit code. `store repair` closes gaps. An empty
file, a folder or a pipe with a signature's name is foreign; a file that changed in the last five seconds
and is not whole could not be read.

Exit codes: 0 every signature is accepted; 1 some are not, or there is nothing below PREFIX; 2 some could not be read or judged.";

/// How many foreign files the JSON document names; all are counted.
const MOST_FOREIGN: usize = 1000;

/// What everything is judged by.
struct Judge {
    policy: Policy,
    mechanism: OpenPgp,
    claim_path: ClaimPath,
}

#[derive(Serialize)]
struct Set {
    #[serde(flatten)]
    place: Place,
    signatures: Vec<Judged>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gaps: Vec<Gap>,
    /// Numbers of further copies of the same bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    duplicates: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// The error may be gone the next time.
    #[serde(skip)]
    unavailable: bool,
}

#[derive(Serialize)]
struct Judged {
    #[serde(flatten)]
    shown: Shown,
    /// `accepted`, `rejected`, or `unknown` when it could not be judged.
    decision: &'static str,
    /// Why it is not accepted.
    reason: Option<String>,
    /// The policy scope that accepted it.
    scope: Option<String>,
    /// The signer's primary key, if it was accepted.
    fingerprint: Option<String>,
    /// When it was made, if it was accepted, RFC 3339.
    created: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Serialize)]
struct Stray {
    path: String,
    kind: &'static str,
    reason: String,
}

#[derive(Default, Serialize)]
struct Summary {
    sets: u64,
    signatures: u64,
    accepted: u64,
    rejected: u64,
    /// Signatures, sets and folders that could not be read or judged.
    failed: u64,
    /// Sets with a gap in their numbers.
    gaps: u64,
    duplicates: u64,
    foreign: u64,
}

#[derive(Default, Serialize)]
struct Rest {
    foreign: Vec<Stray>,
    summary: Summary,
}

/// What came of one thing in the tree.
enum Found {
    Set(Set),
    Foreign(Foreign),
}

impl Check {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let judge = Arc::new(Judge {
            policy: Policy::load(&self.policy)?,
            mechanism: OpenPgp::at(SystemTime::now()).allow_weak(self.allow_weak),
            claim_path: if self.any_path { ClaimPath::Any } else { ClaimPath::End },
        });
        let part = self.part.part()?;
        let store = self.part.store.open().await?;
        let mut listing = Listing::begin(format, "sets")?;
        let mut rest = Rest::default();
        let mut found = part
            .survey(&store)
            .map(|found| {
                let (store, judge) = (&store, judge.clone());
                async move {
                    Ok::<_, StoreError>(match found? {
                        Surveyed::Set(set) => Found::Set(check(store, set, judge).await),
                        Surveyed::Foreign(foreign) => Found::Foreign(foreign),
                    })
                }
            })
            .buffered(self.part.jobs.max(1));
        while let Some(found) = found.next().await {
            listing.tick();
            match found {
                Ok(Found::Set(set)) if set.signatures.is_empty() && set.error.is_none() => {}
                Ok(Found::Set(set)) => {
                    rest.summary.count(&set);
                    listing.item(&set.lines(), &set)?;
                }
                Ok(Found::Foreign(foreign)) => {
                    let stray =
                        Stray { path: foreign.key, kind: foreign.what.name(), reason: foreign.what.to_string() };
                    listing.lines(&[format!("foreign   {}: {}", field(&stray.path), stray.reason)])?;
                    rest.summary.foreign += 1;
                    if rest.foreign.len() < MOST_FOREIGN {
                        rest.foreign.push(stray);
                    }
                }
                Err(error) => {
                    rest.summary.failed += 1;
                    listing.talk(&error);
                }
            }
        }
        let (rejected, failed, found) = (rest.summary.rejected, rest.summary.failed, rest.summary.sets > 0);
        listing.end(&[rest.summary.text()], &rest)?;
        if failed > 0 {
            bail!("{failed} part(s) of the store could not be read or judged");
        }
        // That nothing is wrong with nothing is no good news where something was asked for.
        Ok((rejected == 0 && (found || self.part.prefix.is_none())).into())
    }
}

async fn check(store: &Store, set: SetAddress, judge: Arc<Judge>) -> Set {
    let place = Place::from(&set);
    let (error, unavailable) = match store.read_set(&set).await {
        Ok(stored) => {
            let task = tokio::task::spawn_blocking(move || judge.set(&set, &stored));
            match task.await {
                Ok(set) => return set,
                Err(stopped) => (stopped.to_string(), true),
            }
        }
        Err(error) => (error.to_string(), error.is_unavailable()),
    };
    Set { place, signatures: Vec::new(), gaps: Vec::new(), duplicates: Vec::new(), error: Some(error), unavailable }
}

impl Judge {
    fn set(&self, set: &SetAddress, stored: &StoredSet) -> Set {
        let signatures: Vec<Judged> = stored.signatures.iter().map(|one| self.signature(set, one)).collect();
        let mut seen = HashSet::new();
        let duplicates = signatures.iter().filter(|one| !seen.insert(&one.shown.signature)).map(|one| one.shown.number);
        Set {
            place: Place::from(set),
            duplicates: duplicates.collect(),
            gaps: gaps(stored),
            signatures,
            error: None,
            unavailable: false,
        }
    }

    fn signature(&self, set: &SetAddress, stored: &StoredSignature) -> Judged {
        let (shown, said) = show(stored);
        let mut judged = Judged {
            decision: verdict::word(false),
            reason: shown.unreadable.clone(),
            shown,
            scope: None,
            fingerprint: None,
            created: None,
            warnings: Vec::new(),
        };
        let Some(said) = said else { return judged };
        let named = match name_of(&said.claim) {
            Ok(named) => named,
            Err(not) => {
                judged.reason = Some(not.to_string());
                return judged;
            }
        };
        // The digest first: whoever sees both wrong has a file from elsewhere.
        let place = set.path().as_str();
        if said.claim.digest == *set.digest()
            && set.layout() == Layout::Image
            && !self.claim_path.fits(named.repository(), place)
        {
            judged.reason = Some(format!("the claim is for {named}, but is stored under {place}"));
            return judged;
        }
        match vouched(&self.policy, &self.mechanism, &said.claim, set.digest(), &stored.bytes) {
            Ok(vouched) => {
                judged.decision = verdict::word(true);
                judged.scope = Some(vouched.scope.to_string());
                judged.fingerprint = vouched.fingerprint;
                judged.created = vouched.created.and_then(verdict::time);
                judged.warnings = vouched.warnings;
            }
            Err(not) => {
                if not.is_without_keys() {
                    judged.decision = "unknown";
                }
                judged.reason = Some(not.to_string());
            }
        }
        judged
    }
}

impl Summary {
    fn count(&mut self, set: &Set) {
        self.sets += 1;
        self.signatures += set.signatures.len() as u64;
        for one in &set.signatures {
            match one.decision {
                "accepted" => self.accepted += 1,
                "rejected" => self.rejected += 1,
                _ => self.failed += 1,
            }
        }
        match set.error {
            Some(_) if set.unavailable => self.failed += 1,
            // What is there can never be accepted as it is: too large, or too many.
            Some(_) => self.rejected += 1,
            None => {}
        }
        self.gaps += u64::from(!set.gaps.is_empty());
        self.duplicates += set.duplicates.len() as u64;
    }

    fn text(&self) -> String {
        let Self { sets, signatures, accepted, rejected, failed, gaps, duplicates, foreign } = self;
        let mut text = format!("{signatures} signature(s) of {sets} image(s): {accepted} accepted, {rejected} not");
        for (count, what) in [
            (failed, "could not be read or judged"),
            (gaps, "image(s) with gaps, which `store repair` closes"),
            (duplicates, "second copies, which `store repair` takes away"),
            (foreign, "foreign"),
        ] {
            if *count > 0 {
                text.push_str(&format!("; {count} {what}"));
            }
        }
        text
    }
}

impl Set {
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let set = field(&self.place.set);
        for one in &self.signatures {
            let file = format!("{set}/signature-{}", one.shown.number);
            let claimed = one.shown.claimed_reference.as_deref().map(field).unwrap_or_default();
            let by = one.fingerprint.as_deref().map(|key| format!(" by {key}")).unwrap_or_default();
            lines.push(match (&one.scope, &one.reason) {
                (Some(scope), _) => format!("accepted  {file}: {claimed}{by} (scope {})", field(scope)),
                (None, reason) => {
                    let reason = reason.as_deref().unwrap_or_default();
                    let claimed = if claimed.is_empty() { claimed } else { format!("{claimed}: ") };
                    format!("{:<9} {file}: {claimed}{reason}", one.decision)
                }
            });
            lines.extend(one.warnings.iter().map(|note| format!("warning   {file}: {note}")));
        }
        lines.extend(self.gaps.iter().map(|gap| format!("gap       {set}: {gap}")));
        lines.extend(self.duplicates.iter().map(|number| format!("copy      {set}/signature-{number}")));
        let word = if self.unavailable { "failed  " } else { "rejected" };
        lines.extend(self.error.iter().map(|error| format!("{word}  {set}: {error}")));
        lines
    }
}
