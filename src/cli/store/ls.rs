//! `countersign store ls`: every signature and what it claims.

use anyhow::bail;
use clap::Args;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use serde::Serialize;

use super::{Part, PartArgs, Place, Shown, show};
use crate::cli::output::{Answer, Format};
use crate::cli::stream::{Listing, field};
use crate::store::{SetAddress, Store, StoreError};

/// List every signature and what it claims, unverified
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Ls {
    #[command(flatten)]
    part: PartArgs,
}

const EXAMPLES: &str = "\
Columns: file, claimed name, key ID, SHA-256 of the file (for `store rm --signature`).

Examples:
  countersign store ls --to ./signatures
  countersign store ls --to s3://signatures birds/bluebird --format json

Exit codes: 0 listed; 1 nothing there below PREFIX; 2 some of it could not be read.";

#[derive(Serialize)]
struct Set {
    #[serde(flatten)]
    place: Place,
    signatures: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Default, Serialize)]
struct Summary {
    sets: u64,
    signatures: u64,
    failed: u64,
}

#[derive(Serialize)]
struct Rest {
    summary: Summary,
}

impl Ls {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let part = self.part.part()?;
        let store = self.part.store.open().await?;
        let mut listing = Listing::begin(format, "sets")?;
        let mut summary = Summary::default();
        let mut sets = walk(&part, &store)
            .map(|set| {
                let store = &store;
                async move { Ok::<_, StoreError>(read(store, set?).await) }
            })
            .buffered(self.part.jobs.max(1));
        while let Some(set) = sets.next().await {
            listing.tick();
            match set {
                Ok(Set { error: None, ref signatures, .. }) if signatures.is_empty() => {}
                Ok(set) => {
                    summary.sets += 1;
                    summary.signatures += set.signatures.len() as u64;
                    if let Some(error) = &set.error {
                        summary.failed += 1;
                        listing.talk(&format!("{}: {error}", set.place.set));
                    }
                    listing.item(&lines(&set), &set)?;
                }
                Err(error) => {
                    summary.failed += 1;
                    listing.talk(&error);
                }
            }
            if listing.is_gone() {
                return Ok(Answer::Yes);
            }
        }
        let (found, failed) = (summary.sets > 0, summary.failed);
        listing.end(&[""; 0], &Rest { summary })?;
        if failed > 0 {
            bail!("{failed} part(s) of the store could not be read");
        }
        Ok((found || self.part.prefix.is_none()).into())
    }
}

fn walk<'a>(part: &Part, store: &'a Store) -> BoxStream<'a, Result<SetAddress, StoreError>> {
    match part {
        Part::Below(path) => store.walk(path),
        Part::One(set) => stream::iter([Ok(set.clone())]).boxed(),
    }
}

async fn read(store: &Store, set: SetAddress) -> Set {
    let place = Place::from(&set);
    let read = match store.signatures(&set).await {
        // Reading claims means unpacking: not on the threads that wait for the store.
        Ok(stored) => {
            let task = tokio::task::spawn_blocking(move || stored.iter().map(|one| show(one).0).collect());
            task.await.map_err(|e| e.to_string())
        }
        Err(e) => Err(e.to_string()),
    };
    match read {
        Ok(signatures) => Set { place, signatures, error: None },
        Err(error) => Set { place, signatures: Vec::new(), error: Some(error) },
    }
}

fn lines(set: &Set) -> Vec<String> {
    let line = |one: &Shown| {
        let claim = match (&one.claimed_reference, &one.unreadable) {
            (Some(reference), _) => field(reference),
            (None, reason) => format!("({})", field(reason.as_deref().unwrap_or_default())),
        };
        let key = one.key_id.map_or_else(|| "-".to_owned(), |key| key.to_string());
        format!("{}/signature-{}  {claim}  {key}  {}", field(&set.place.set), one.number, one.signature)
    };
    set.signatures.iter().map(line).collect()
}
