//! Credentials that did not turn out right, counted against where they came from.
//!
//! What is counted are credentials, not requests: the same mistake again and again, as of a badly
//! configured client, is one, and so is one password that many requests show at once. They count
//! before they are compared with anything, what is remembered included, and no longer once they are
//! found right. So however many come together, no more are ever tried than the limits say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::server::error::FAILURE_WINDOW;

/// Wrong credentials in that time of one user at one address, and of one address.
pub(crate) const USER_FAILURES: usize = 10;
pub(crate) const ADDRESS_FAILURES: usize = 100;
/// How many users and addresses are remembered.
const TALLIES: u64 = 50_000;

/// A salted hash: of an address, a user there, or credentials.
pub(crate) type Key = [u8; 32];

/// Who tries what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    /// The address.
    pub(crate) address: Key,
    /// The user at this address.
    pub(crate) user: Key,
    /// User and password.
    pub(crate) credentials: Key,
}

/// What is held against one user or address.
#[derive(Debug, Default)]
struct Tally(HashMap<Key, State>);

/// How it stands with credentials that were tried.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    under_way: u32,
    wrong: bool,
}

impl Tally {
    /// Tells whether there is no room for these credentials.
    fn is_full(&self, credentials: &Key, most: usize) -> bool {
        self.0.len() >= most && !self.0.contains_key(credentials)
    }
}

type Shared = Arc<Mutex<Tally>>;

fn lock(tally: &Shared) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All that is held against anybody.
pub(crate) struct Tries {
    tallies: moka::future::Cache<Key, Shared>,
}

impl Default for Tries {
    fn default() -> Self {
        Self { tallies: moka::future::Cache::builder().max_capacity(TALLIES).time_to_live(FAILURE_WINDOW).build() }
    }
}

/// Whether credentials may be tried.
#[derive(Debug)]
pub(crate) enum Begun {
    /// They may.
    Tried(Try),
    /// The address has failed too often, but not this user there: what is remembered of them may be
    /// used, and whatever is guessed at it counts against them.
    OnlyRemembered(Try),
    /// They may not.
    Locked,
}

impl Tries {
    async fn tally(&self, key: Key) -> Shared {
        self.tallies.get_with(key, async { Shared::default() }).await
    }

    /// Begins to try credentials; `known` tells that there is such a user.
    pub(crate) async fn begin(&self, tried: &Tried, known: bool) -> Begun {
        let credentials = tried.credentials;
        let address = self.tally(tried.address).await;
        // Nothing is kept of all the users whom somebody makes up.
        if !known && lock(&address).is_full(&credentials, ADDRESS_FAILURES) {
            return Begun::Locked;
        }
        let user = self.tally(tried.user).await;
        let all = {
            // Both or none; always in this order.
            let (mut of_address, mut of_user) = (lock(&address), lock(&user));
            let all = !of_address.is_full(&credentials, ADDRESS_FAILURES);
            if of_user.is_full(&credentials, USER_FAILURES) || !(all || known) {
                return Begun::Locked;
            }
            if all {
                of_address.0.entry(credentials).or_default().under_way += 1;
            }
            of_user.0.entry(credentials).or_default().under_way += 1;
            all
        };
        let attempt = |tallies| Try { tallies, credentials, verdict: Verdict::Wrong };
        if all { Begun::Tried(attempt(vec![address, user])) } else { Begun::OnlyRemembered(attempt(vec![user])) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    Wrong,
    Unknown,
}

/// Credentials that are being tried. Whatever is dropped without another word was wrong: who hangs up
/// before the answer has guessed as well.
#[derive(Debug)]
pub(crate) struct Try {
    tallies: Vec<Shared>,
    credentials: Key,
    verdict: Verdict,
}

impl Try {
    /// They are right.
    pub(crate) fn right(mut self) {
        self.verdict = Verdict::Right;
    }

    /// They are not.
    pub(crate) fn wrong(self) {}

    /// Nobody can tell.
    pub(crate) fn undecided(mut self) {
        self.verdict = Verdict::Unknown;
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        for tally in &self.tallies {
            let mut tally = lock(tally);
            if self.verdict == Verdict::Right {
                tally.0.remove(&self.credentials);
                continue;
            }
            let state = tally.0.entry(self.credentials).or_default();
            state.under_way = state.under_way.saturating_sub(1);
            state.wrong |= self.verdict == Verdict::Wrong;
            if state.under_way == 0 && !state.wrong {
                tally.0.remove(&self.credentials);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(address: u8, user: u8, password: u8) -> Tried {
        let mut of_user = [user; 32];
        of_user[..2].copy_from_slice(&[0xff, address]);
        Tried { address: [address; 32], user: of_user, credentials: [password; 32] }
    }

    async fn begin(tries: &Tries, tried: Tried) -> Option<Try> {
        match tries.begin(&tried, false).await {
            Begun::Tried(attempt) => Some(attempt),
            Begun::OnlyRemembered(_) => panic!("nobody is known"),
            Begun::Locked => None,
        }
    }

    #[tokio::test]
    async fn what_is_under_way_counts() {
        let tries = Tries::default();
        let mut open = Vec::new();
        for n in 0..10 {
            open.push(begin(&tries, tried(1, 2, n)).await.unwrap());
        }
        assert!(begin(&tries, tried(1, 2, 10)).await.is_none(), "ten are tried and none is known to be wrong");
        begin(&tries, tried(1, 2, 3)).await.unwrap().right();
        assert!(begin(&tries, tried(1, 2, 10)).await.is_some(), "one was right");
    }

    #[tokio::test]
    async fn credentials_count_not_requests() {
        let tries = Tries::default();
        for _ in 0..1000 {
            begin(&tries, tried(1, 2, 3)).await.unwrap().wrong();
        }
        for _ in 0..1000 {
            begin(&tries, tried(1, 2, 4)).await.unwrap().undecided();
        }
        for n in 10..19 {
            drop(begin(&tries, tried(1, 2, n)).await.unwrap());
        }
        assert!(begin(&tries, tried(1, 2, 30)).await.is_none());
        assert!(begin(&tries, tried(1, 3, 30)).await.is_some(), "another user");
        assert!(begin(&tries, tried(1, 2, 3)).await.is_some(), "nothing new is tried");
    }

    #[tokio::test]
    async fn an_address_has_a_limit_and_guesses_beyond_count_for_known_users() {
        let tries = Tries::default();
        for n in 0..100 {
            begin(&tries, tried(1, n, n)).await.unwrap().wrong();
        }
        for n in 100..110 {
            let begun = tries.begin(&tried(1, 200, n), true).await;
            assert!(matches!(begun, Begun::OnlyRemembered(_)), "{begun:?}");
        }
        assert!(matches!(tries.begin(&tried(1, 200, 111), true).await, Begun::Locked));
        assert!(begin(&tries, tried(1, 201, 112)).await.is_none());
        assert!(begin(&tries, tried(2, 3, 112)).await.is_some(), "another address");
    }
}
