//! `countersign store …`: looking after a tree of signatures.

mod check;
mod ls;
mod repair;
mod rm;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use serde::Serialize;

use super::output::{Answer, Format};
use crate::image::Digest;
use crate::lookup::Unverified;
use crate::openpgp::KeyId;
use crate::store::{
    Layout, SetAddress, Store, StoreError, StoreOptions, StorePath, StoredSet, StoredSignature, Surveyed,
};

/// Look after a tree of signatures
#[derive(Debug, Args)]
pub struct StoreCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List every signature and what it claims, unverified
    Ls(ls::Ls),
    /// Verify every signature against a policy; find gaps and foreign files
    Check(check::Check),
    /// Close gaps in the numbers, drop second copies, sweep what crashes left
    Repair(repair::Repair),
    /// Revoke signatures of one image
    Rm(rm::Rm),
}

impl StoreCommand {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        match self.command {
            Command::Ls(command) => command.run(format).await,
            Command::Check(command) => command.run(format).await,
            Command::Repair(command) => command.run(format).await,
            Command::Rm(command) => command.run(format).await,
        }
    }
}

/// Which store.
#[derive(Debug, Args)]
struct StoreArg {
    /// The store: a folder, file://, s3://
    #[arg(long = "to", value_name = "STORE")]
    location: String,
}

impl StoreArg {
    async fn open(&self) -> anyhow::Result<Store> {
        Store::open(&self.location, &StoreOptions { create: false, ..StoreOptions::default() }).await.context("--to")
    }
}

/// Which part of a store, and how many sets at once.
#[derive(Debug, Args)]
struct PartArgs {
    #[command(flatten)]
    store: StoreArg,
    /// Only what is at or below this path in the store, or one signature folder in it
    #[arg(value_name = "PREFIX")]
    prefix: Option<String>,
    /// How many images to work on at once
    #[arg(long, value_name = "N", default_value_t = default_jobs())]
    jobs: usize,
}

/// A set may be large, so not too many are in memory; a bucket's answers take their time, so not
/// too few.
fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(4, usize::from) * 4
}

/// A part of a store.
enum Part {
    Below(StorePath),
    One(SetAddress),
}

impl PartArgs {
    fn part(&self) -> anyhow::Result<Part> {
        let text = self.prefix.as_deref().unwrap_or_default().trim_matches('/');
        if let Ok(set) = SetAddress::parse_key(text) {
            return Ok(Part::One(set));
        }
        Ok(Part::Below(StorePath::parse(text).context("PREFIX")?))
    }
}

impl Part {
    fn survey<'a>(&self, store: &'a Store) -> BoxStream<'a, Result<Surveyed, StoreError>> {
        match self {
            Self::Below(path) => store.survey(path),
            Self::One(set) => stream::iter([Ok(Surveyed::Set(set.clone()))]).boxed(),
        }
    }
}

/// Where a set is, in the JSON documents.
#[derive(Clone, Debug, Serialize)]
struct Place {
    /// The folder in the store.
    set: String,
    /// The path before the digest.
    repository: String,
    /// `image` or `release`.
    layout: &'static str,
    digest: Digest,
}

impl From<&SetAddress> for Place {
    fn from(set: &SetAddress) -> Self {
        let layout = match set.layout() {
            Layout::Image => "image",
            Layout::Release => "release",
        };
        Self { set: set.to_string(), repository: set.path().to_string(), layout, digest: set.digest().clone() }
    }
}

/// A stored signature and what it says of itself, unverified.
#[derive(Clone, Debug, Serialize)]
struct Shown {
    /// The number in the file's name.
    number: u32,
    /// The SHA-256 of the file, by which `rm` names it.
    signature: Digest,
    /// The name in the claim.
    claimed_reference: Option<String>,
    /// The digest in the claim.
    claimed_digest: Option<Digest>,
    /// The key that it names.
    key_id: Option<KeyId>,
    /// That key's fingerprint, if it is named.
    claimed_fingerprint: Option<String>,
    /// When it says that it was made, RFC 3339.
    claimed_created: Option<String>,
    /// Why it says nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

/// Reads a stored signature, verifying nothing.
fn show(stored: &StoredSignature) -> (Shown, Option<Unverified>) {
    let (said, unreadable) = match Unverified::read(&stored.bytes) {
        Ok(said) => (Some(said), None),
        Err(e) => (None, Some(e.to_string())),
    };
    let shown = Shown {
        number: stored.number,
        signature: Digest::sha256(&stored.bytes),
        claimed_reference: said.as_ref().map(|said| said.claim.reference.clone()),
        claimed_digest: said.as_ref().map(|said| said.claim.digest.clone()),
        key_id: said.as_ref().and_then(|said| said.key_id),
        claimed_fingerprint: said.as_ref().and_then(|said| Some(said.fingerprint.as_ref()?.to_string())),
        claimed_created: said.as_ref().and_then(|said| Some(said.created?.to_string())),
        unreadable,
    };
    (shown, said)
}

/// Numbers that are missing: from, to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Gap {
    from: u32,
    to: u32,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.from == self.to {
            write!(f, "signature-{} is missing", self.from)
        } else {
            write!(f, "signature-{} to signature-{} are missing", self.from, self.to)
        }
    }
}

/// Finds what is missing before the highest number of a set. Clients of a plain tree stop at the
/// first gap. What is taken by no signature is none.
fn gaps(set: &StoredSet) -> Vec<Gap> {
    let mut numbers: Vec<u32> = set.signatures.iter().map(|one| one.number).collect();
    let highest = numbers.last().copied().unwrap_or_default();
    numbers.extend(set.taken.iter().filter(|number| **number < highest));
    numbers.sort_unstable();
    let mut next = 1u32;
    let mut gaps = Vec::new();
    for number in numbers {
        if number > next {
            gaps.push(Gap { from: next, to: number - 1 });
        }
        next = number.saturating_add(1);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_found() {
        let set = |numbers: &[u32], taken: &[u32]| {
            let stored = |number: &u32| StoredSignature { number: *number, bytes: Default::default() };
            StoredSet { signatures: numbers.iter().map(stored).collect(), taken: taken.to_vec() }
        };
        let found =
            |numbers: &[u32], taken: &[u32]| gaps(&set(numbers, taken)).iter().map(Gap::to_string).collect::<Vec<_>>();
        assert!(found(&[], &[]).is_empty() && found(&[1, 2, 3], &[]).is_empty());
        assert_eq!(found(&[2], &[]), ["signature-1 is missing"]);
        assert_eq!(found(&[1, 3, 9], &[]), ["signature-2 is missing", "signature-4 to signature-8 are missing"]);
        assert_eq!(gaps(&set(&[u32::MAX], &[])), [Gap { from: 1, to: u32::MAX - 1 }]);
        assert!(found(&[1, 3], &[2]).is_empty() && found(&[1], &[2, 5]).is_empty());
        assert_eq!(found(&[1, 4], &[3, 9]), ["signature-2 is missing"]);
    }

    #[test]
    fn a_part_is_a_path_or_a_set() {
        let part = |prefix: Option<&str>| {
            let store = StoreArg { location: "memory:".to_owned() };
            let args = PartArgs { store, prefix: prefix.map(str::to_owned), jobs: 1 };
            args.part().map(|part| match part {
                Part::Below(path) => format!("below {path}"),
                Part::One(set) => format!("one {set}"),
            })
        };
        assert_eq!(part(None).unwrap(), "below ");
        assert_eq!(part(Some("/birds/bluebird/")).unwrap(), "below birds/bluebird");
        let set = format!("birds/bluebird@{}", Digest::sha256(b"x").path_form());
        assert_eq!(part(Some(&set)).unwrap(), format!("one {set}"));
        assert!(part(Some("../x")).is_err());
    }
}
