//! A fetch of many repositories: so many at once, each on its own, all of them told of.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::StreamExt as _;
use serde::Serialize;

use super::fetch::{FetchOptions, fetch};
use super::folder::{GunFolder, GunRecord, State};
use super::gun::Gun;
use super::journal::{Journal, JournalError};
use crate::registry::TrustServer;

/// After so many repositories in a row of which nothing could be had, the others are not requested.
pub const FAILURES_LIMIT: u64 = 20;

/// How many repositories came to which end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// All had.
    pub complete: u64,
    /// Had by an earlier run of the journal.
    pub already: u64,
    /// Something had, something not.
    pub incomplete: u64,
    /// No trust data at the server.
    pub missing: u64,
    /// Not for these credentials.
    pub forbidden: u64,
    /// Nothing could be had.
    pub failed: u64,
    /// Not requested, because the server had failed for many repositories in a row.
    pub not_requested: u64,
}

impl Totals {
    fn count(&mut self, state: State) {
        *match state {
            State::Complete => &mut self.complete,
            State::Incomplete => &mut self.incomplete,
            State::Missing => &mut self.missing,
            State::Forbidden => &mut self.forbidden,
            State::Failed => &mut self.failed,
        } += 1;
    }

    /// Tells whether everything that was asked for is there.
    pub fn all_had(&self) -> bool {
        self.incomplete + self.missing + self.forbidden + self.failed + self.not_requested == 0
    }
}

/// A fetch.
pub struct Fetch {
    /// Where from.
    pub server: TrustServer,
    /// The folder of all repositories' folders.
    pub to: PathBuf,
    /// What earlier runs had, if that is kept.
    pub journal: Option<Journal>,
    /// How many repositories at once.
    pub jobs: usize,
    /// How each repository is fetched.
    pub options: FetchOptions,
    /// How many are settled; for whoever shows progress.
    pub done: Arc<AtomicU64>,
}

impl Fetch {
    /// Fetches repositories, and hands each one's record over as it is settled.
    ///
    /// # Errors
    /// [`JournalError`]: without a journal that can be written, the job could not go on later.
    pub async fn run(&self, guns: Vec<Gun>, mut tell: impl FnMut(GunRecord)) -> Result<Totals, JournalError> {
        let mut totals = Totals::default();
        let open = guns.into_iter().filter(|gun| match &self.journal {
            // The journal alone proves nothing: the folder may have been restored, moved or emptied.
            Some(journal) if journal.has(gun) && GunFolder::new(&self.to, gun).is_complete() => {
                totals.already += 1;
                self.done.fetch_add(1, Ordering::Relaxed);
                false
            }
            _ => true,
        });
        let open: Vec<Gun> = open.collect();
        let failures = &AtomicU64::new(0);
        let fetches = open.into_iter().map(|gun| async move {
            if failures.load(Ordering::Relaxed) >= FAILURES_LIMIT {
                return (gun, None);
            }
            let record = fetch(&self.server, &self.to, &gun, self.options).await;
            if record.state == State::Failed {
                failures.fetch_add(1, Ordering::Relaxed);
            } else {
                failures.store(0, Ordering::Relaxed);
            }
            (gun, Some(record))
        });
        let mut fetches = std::pin::pin!(futures_util::stream::iter(fetches).buffer_unordered(self.jobs.max(1)));
        while let Some((gun, record)) = fetches.next().await {
            let Some(record) = record else {
                totals.not_requested += 1;
                continue;
            };
            if let Some(journal) = &self.journal {
                journal.note(&gun, record.state)?;
            }
            totals.count(record.state);
            self.done.fetch_add(1, Ordering::Relaxed);
            tell(record);
        }
        Ok(totals)
    }
}
