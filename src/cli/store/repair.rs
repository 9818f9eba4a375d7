//! `countersign store repair`: gaps closed, second copies dropped, leftovers swept.

use std::collections::HashSet;

use anyhow::bail;
use clap::Args;
use futures_util::StreamExt as _;
use serde::Serialize;

use super::{Part, PartArgs, Place};
use crate::cli::output::{Answer, Format};
use crate::cli::stream::{Listing, field};
use crate::image::Digest;
use crate::store::{Foreign, Repaired, SetAddress, Store, StoreError, StoredSet, Stray, Surveyed, free_numbers};

/// Close gaps in the numbers, drop second copies, sweep what crashes left
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Repair {
    #[command(flatten)]
    part: PartArgs,
    /// Tell what there is to do, but do nothing
    #[arg(long)]
    dry_run: bool,
}

const EXAMPLES: &str = "\
Safe at any time, also while servers and other writers are at work; no signature is ever lost by it.

Examples:
  countersign store repair --to ./signatures --dry-run
  countersign store repair --to s3://signatures

What crashed writers left is swept when it is an hour old. What has a signature's name and is no file,
or an empty one, stays where it is, and signatures get numbers around it; `store check` lists it.

Exit codes: 0 nothing is left to do; 1 some sets could not be repaired (with --dry-run: there are
gaps or copies); 2 the store could not be read.";

#[derive(Serialize)]
struct Set {
    #[serde(flatten)]
    place: Place,
    #[serde(flatten)]
    done: Done,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Done {
    /// Signatures that got a lower number.
    moved: u64,
    /// Second copies that were taken away.
    duplicates: u64,
    /// Files of crashed writers that were taken away.
    swept: u64,
}

#[derive(Default, Serialize)]
struct Summary {
    /// Sets that were looked at.
    sets: u64,
    /// Sets in which something was (in a dry run: would be) done.
    repaired: u64,
    #[serde(flatten)]
    done: Done,
    failed: u64,
}

#[derive(Serialize)]
struct Rest {
    dry_run: bool,
    summary: Summary,
}

/// A set that may need a repair, and why it was thought of.
enum Candidate {
    /// It is one of the tree's.
    Listed(SetAddress),
    /// It is the only one that was asked for.
    Only(SetAddress),
    /// There is something in its folder that a crash left.
    WithLeftover(SetAddress),
}

impl Repair {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let part = self.part.part()?;
        let store = self.part.store.open().await?;
        let mut listing = Listing::begin(format, "sets")?;
        let mut summary = Summary::default();
        let mut unlisted = 0u64;
        let dry_run = self.dry_run;
        let only = matches!(part, Part::One(_));
        let candidates = part.survey(&store).filter_map(|found| {
            std::future::ready(match found {
                Ok(Surveyed::Set(set)) if only => Some(Ok(Candidate::Only(set))),
                Ok(Surveyed::Set(set)) => Some(Ok(Candidate::Listed(set))),
                Ok(Surveyed::Foreign(Foreign { what: Stray::Leftover(set), .. })) => {
                    Some(Ok(Candidate::WithLeftover(set)))
                }
                Ok(Surveyed::Foreign(_)) => None,
                Err(error) => Some(Err(error)),
            })
        });
        let mut settled = candidates
            .map(|candidate: Result<Candidate, StoreError>| {
                let store = &store;
                async move { Ok::<_, StoreError>(settle(store, candidate?, dry_run).await) }
            })
            .buffer_unordered(self.part.jobs.max(1));
        while let Some(set) = settled.next().await {
            listing.tick();
            match set {
                Ok((set, looked_at)) => {
                    summary.sets += looked_at;
                    let done = set.done.moved + set.done.duplicates + set.done.swept > 0;
                    summary.repaired += u64::from(done);
                    summary.done.moved += set.done.moved;
                    summary.done.duplicates += set.done.duplicates;
                    summary.done.swept += set.done.swept;
                    summary.failed += u64::from(set.error.is_some());
                    if done || set.error.is_some() {
                        listing.item(&[text(&set, dry_run)], &set)?;
                    }
                }
                Err(error) => {
                    unlisted += 1;
                    listing.talk(&error);
                }
            }
        }
        // A leftover may be of a writer at work: only its age tells, and the repair looks at that.
        let to_do = dry_run && summary.done.moved + summary.done.duplicates > 0;
        let clean = summary.failed == 0 && !to_do;
        let end = format!(
            "{} {} of {} set(s): {} signature(s) moved, {} second copies and {} leftovers taken away; {} failed",
            if dry_run { "Would repair" } else { "Repaired" },
            summary.repaired,
            summary.sets,
            summary.done.moved,
            summary.done.duplicates,
            summary.done.swept,
            summary.failed
        );
        listing.end(&[end], &Rest { dry_run, summary })?;
        if unlisted > 0 {
            bail!("{unlisted} part(s) of the store could not be listed");
        }
        Ok(clean.into())
    }
}

/// Repairs a set if there is something to repair (the right to do so costs a bucket two writes),
/// and says whether it counts as one that was looked at.
async fn settle(store: &Store, candidate: Candidate, dry_run: bool) -> (Set, u64) {
    let (set, leftover, certain) = match candidate {
        Candidate::Listed(set) => (set, false, false),
        Candidate::Only(set) => (set, false, true),
        Candidate::WithLeftover(set) => (set, true, true),
    };
    let result = |done, error: Option<StoreError>| {
        let set = Set { place: Place::from(&set), done, error: error.map(|error| error.to_string()) };
        (set, u64::from(!leftover))
    };
    if dry_run && leftover {
        return result(Done { swept: 1, ..Done::default() }, None);
    }
    if dry_run || !certain {
        match needed(store, &set).await {
            Ok(needed) if dry_run || needed.moved + needed.duplicates == 0 => return result(needed, None),
            Ok(_) => {}
            Err(error) => return result(Done::default(), Some(error)),
        }
    }
    match store.repair(&set).await {
        Ok(Repaired { moved, duplicates, swept }) => {
            result(Done { moved: moved.into(), duplicates: duplicates.into(), swept: swept.into() }, None)
        }
        Err(error) => result(Done::default(), Some(error)),
    }
}

async fn needed(store: &Store, set: &SetAddress) -> Result<Done, StoreError> {
    let StoredSet { signatures, taken } = store.read_set(set).await?;
    let mut seen = HashSet::new();
    let kept: Vec<u32> =
        signatures.iter().filter(|one| seen.insert(Digest::sha256(&one.bytes))).map(|one| one.number).collect();
    let duplicates = (signatures.len() - kept.len()) as u64;
    let places = free_numbers(&taken);
    let moved = kept.iter().zip(places).filter(|(number, place)| *number != place).count() as u64;
    Ok(Done { moved, duplicates, swept: 0 })
}

fn text(set: &Set, dry_run: bool) -> String {
    let name = field(&set.place.set);
    if let Some(error) = &set.error {
        return format!("failed   {name}: {error}");
    }
    let Done { moved, duplicates, swept } = set.done;
    let word = if dry_run { "to do   " } else { "repaired" };
    format!("{word} {name}: {moved} moved, {duplicates} second copies, {swept} leftovers")
}
