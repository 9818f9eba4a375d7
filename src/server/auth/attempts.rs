//! Credentials that did not turn out right, counted against where they came from.
//!
//! What is counted are credentials, not requests: the same mistake again and again, as of a badly
//! configured client, is one, and so is one password that many requests show at once. They count
//! before they are compared with anything, what is remembered included, and no longer once they are
//! found right. So however many come together, no more are ever tried than the limits say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::server::error::FAILURE_WINDOW;
use crate::server::salted_hash::SaltedHash;

/// Wrong credentials in that time of one user at one address, and of one address.
pub(crate) const USER_FAILURES: usize = 10;
pub(crate) const ADDRESS_FAILURES: usize = 100;
/// How many users and addresses are remembered.
const TALLIES: u64 = 50_000;

/// Who tries what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttemptKeys {
    /// The address.
    pub(crate) address: SaltedHash,
    /// The user at this address.
    pub(crate) user: SaltedHash,
    /// User and password.
    pub(crate) credentials: SaltedHash,
}

/// What is held against one user or address.
#[derive(Debug, Default)]
struct Tally(HashMap<SaltedHash, CredentialState>);

/// How it stands with credentials that were tried.
#[derive(Clone, Copy, Debug, Default)]
struct CredentialState {
    under_way: u32,
    wrong: bool,
}

impl Tally {
    /// Tells whether there is no room for these credentials.
    fn is_full(&self, credentials: &SaltedHash, most: usize) -> bool {
        self.0.len() >= most && !self.0.contains_key(credentials)
    }
}

type SharedTally = Arc<Mutex<Tally>>;

fn lock(tally: &SharedTally) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that is held against anybody.
pub(crate) struct LoginAttempts {
    tallies: moka::future::Cache<SaltedHash, SharedTally>,
}

impl Default for LoginAttempts {
    fn default() -> Self {
        Self { tallies: moka::future::Cache::builder().max_capacity(TALLIES).time_to_live(FAILURE_WINDOW).build() }
    }
}

/// Whether credentials may be tried.
#[derive(Debug)]
pub(crate) enum AttemptStart {
    /// They may.
    Allowed(Attempt),
    /// The address has failed too often, but not this user there: what is remembered of them may be
    /// used, and whatever is guessed at it counts against them.
    CachedOnly(Attempt),
    /// They may not.
    Locked,
}

impl LoginAttempts {
    async fn tally(&self, key: SaltedHash) -> SharedTally {
        self.tallies.get_with(key, async { SharedTally::default() }).await
    }

    /// Begins to try credentials; `known` tells that there is such a user.
    pub(crate) async fn begin(&self, keys: &AttemptKeys, known: bool) -> AttemptStart {
        let credentials = keys.credentials;
        let address = self.tally(keys.address).await;
        // Nothing is kept of all the users whom somebody makes up.
        if !known && lock(&address).is_full(&credentials, ADDRESS_FAILURES) {
            return AttemptStart::Locked;
        }
        let user = self.tally(keys.user).await;
        let all = {
            // Both or none; always in this order.
            let (mut of_address, mut of_user) = (lock(&address), lock(&user));
            let all = !of_address.is_full(&credentials, ADDRESS_FAILURES);
            if of_user.is_full(&credentials, USER_FAILURES) || !(all || known) {
                return AttemptStart::Locked;
            }
            if all {
                of_address.0.entry(credentials).or_default().under_way += 1;
            }
            of_user.0.entry(credentials).or_default().under_way += 1;
            all
        };
        let attempt = |tallies| Attempt { tallies, credentials, verdict: Outcome::Wrong };
        if all {
            AttemptStart::Allowed(attempt(vec![address, user]))
        } else {
            AttemptStart::CachedOnly(attempt(vec![user]))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Right,
    Wrong,
    Unknown,
}

/// Credentials that are being tried. Whatever is dropped without another word was wrong: who hangs up
/// before the answer has guessed as well.
#[derive(Debug)]
pub(crate) struct Attempt {
    tallies: Vec<SharedTally>,
    credentials: SaltedHash,
    verdict: Outcome,
}

impl Attempt {
    /// They are right.
    pub(crate) fn right(mut self) {
        self.verdict = Outcome::Right;
    }

    /// They are not.
    pub(crate) fn wrong(self) {}

    /// Nobody can tell.
    pub(crate) fn undecided(mut self) {
        self.verdict = Outcome::Unknown;
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        for tally in &self.tallies {
            let mut tally = lock(tally);
            if self.verdict == Outcome::Right {
                tally.0.remove(&self.credentials);
                continue;
            }
            let state = tally.0.entry(self.credentials).or_default();
            state.under_way = state.under_way.saturating_sub(1);
            state.wrong |= self.verdict == Outcome::Wrong;
            if state.under_way == 0 && !state.wrong {
                tally.0.remove(&self.credentials);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(address: u8, user: u8, password: u8) -> AttemptKeys {
        let mut of_user = [user; 32];
        of_user[..2].copy_from_slice(&[0xff, address]);
        AttemptKeys { address: [address; 32].into(), user: of_user.into(), credentials: [password; 32].into() }
    }

    async fn begin(attempts: &LoginAttempts, keys: AttemptKeys) -> Option<Attempt> {
        match attempts.begin(&keys, false).await {
            AttemptStart::Allowed(attempt) => Some(attempt),
            AttemptStart::CachedOnly(_) => panic!("nobody is known"),
            AttemptStart::Locked => None,
        }
    }

    #[tokio::test]
    async fn what_is_under_way_counts() {
        let attempts = LoginAttempts::default();
        let mut open = Vec::new();
        for n in 0..10 {
            open.push(begin(&attempts, keys(1, 2, n)).await.unwrap());
        }
        assert!(begin(&attempts, keys(1, 2, 10)).await.is_none(), "ten are tried and none is known to be wrong");
        begin(&attempts, keys(1, 2, 3)).await.unwrap().right();
        assert!(begin(&attempts, keys(1, 2, 10)).await.is_some(), "one was right");
    }

    #[tokio::test]
    async fn credentials_count_not_requests() {
        let attempts = LoginAttempts::default();
        for _ in 0..1000 {
            begin(&attempts, keys(1, 2, 3)).await.unwrap().wrong();
        }
        for _ in 0..1000 {
            begin(&attempts, keys(1, 2, 4)).await.unwrap().undecided();
        }
        for n in 10..19 {
            drop(begin(&attempts, keys(1, 2, n)).await.unwrap());
        }
        assert!(begin(&attempts, keys(1, 2, 30)).await.is_none());
        assert!(begin(&attempts, keys(1, 3, 30)).await.is_some(), "another user");
        assert!(begin(&attempts, keys(1, 2, 3)).await.is_some(), "nothing new is tried");
    }

    #[tokio::test]
    async fn an_address_has_a_limit_and_guesses_beyond_count_for_known_users() {
        let attempts = LoginAttempts::default();
        for n in 0..100 {
            begin(&attempts, keys(1, n, n)).await.unwrap().wrong();
        }
        for n in 100..110 {
            let begun = attempts.begin(&keys(1, 200, n), true).await;
            assert!(matches!(begun, AttemptStart::CachedOnly(_)), "{begun:?}");
        }
        assert!(matches!(attempts.begin(&keys(1, 200, 111), true).await, AttemptStart::Locked));
        assert!(begin(&attempts, keys(1, 201, 112)).await.is_none());
        assert!(begin(&attempts, keys(2, 3, 112)).await.is_some(), "another address");
    }
}
