//! What a release address has the registry asked: one request may lead to many repositories, so only
//! so many of them are asked about, and what was refused is remembered for a moment.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::server::auth::methods::Identity;
use crate::server::error::Problem;
use crate::server::salted_hash::SaltedHash;

/// About how many repositories the registry is asked for one request.
pub(crate) const MOST: usize = 16;
/// How long a refusal is remembered. A right that is granted meanwhile is not seen so long.
const REMEMBERED: Duration = Duration::from_secs(60);
/// How many refusals are remembered.
const REFUSALS: u64 = 10_000;

/// How many questions one request may still lead to.
#[derive(Debug)]
pub(crate) struct QueryBudget(AtomicUsize);

impl Default for QueryBudget {
    fn default() -> Self {
        Self(AtomicUsize::new(MOST))
    }
}

impl QueryBudget {
    fn take(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// What the registry said to questions of release addresses.
pub(crate) struct QueryCache {
    refused: moka::future::Cache<SaltedHash, ()>,
    /// What was granted is remembered by `access`, and only is no new question here.
    granted: moka::future::Cache<SaltedHash, ()>,
}

impl Default for QueryCache {
    fn default() -> Self {
        let cache = || moka::future::Cache::builder().max_capacity(REFUSALS).time_to_live(REMEMBERED).build();
        Self { refused: cache(), granted: cache() }
    }
}

/// What is not to be remembered as a refusal.
enum Other {
    Granted(Identity),
    Failed(Problem),
}

impl QueryCache {
    /// Returns what `ask` does, unless it was a refusal lately; those who ask the same at the same
    /// time ask once. `key` tells who asks for what.
    ///
    /// # Errors
    /// [`Problem::TooManyQuestions`], and the failures of `ask`.
    pub(crate) async fn ask(
        &self,
        key: SaltedHash,
        questions: &QueryBudget,
        ask: impl Future<Output = Result<Option<Identity>, Problem>>,
    ) -> Result<Option<Identity>, Problem> {
        let refused = self.refused.try_get_with(key, async {
            if self.granted.get(&key).await.is_none() && !questions.take() {
                return Err(Other::Failed(Problem::TooManyQuestions));
            }
            match ask.await {
                Ok(Some(credential)) => {
                    self.granted.insert(key, ()).await;
                    Err(Other::Granted(credential))
                }
                Ok(None) | Err(Problem::Denied(_)) => Ok(()),
                Err(problem) => Err(Other::Failed(problem)),
            }
        });
        match refused.await {
            Ok(()) => Ok(None),
            Err(other) => match &*other {
                Other::Granted(credential) => Ok(Some(credential.clone())),
                Other::Failed(problem) => Err(problem.clone()),
            },
        }
    }
}
