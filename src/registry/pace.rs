//! How fast a client asks: at most so many requests a second of each host, evenly spaced, and none
//! before the time that a host itself has named.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use url::{Position, Url};

/// Hosts that are remembered; more only appear where redirects lead about.
const HOSTS: usize = 1024;

/// A limit shared by all that hold a copy of it.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The time between two requests to one host.
    interval: Duration,
    hosts: Arc<Mutex<HashMap<String, Host>>>,
}

#[derive(Clone, Copy, Debug)]
struct Host {
    /// When the next request may go.
    next: Instant,
    /// When the host wants to hear of us again.
    held: Instant,
}

impl Pace {
    /// One request in some three hours. Lower rates are typing errors, and their times overflow.
    pub const LOWEST_RATE: f64 = 0.0001;

    /// No limit but what hosts ask for by `Retry-After`.
    pub fn unlimited() -> Self {
        Self::spaced(Duration::ZERO)
    }

    /// At most `rate` requests a second of each host; `None` unless that is a number from [`Self::LOWEST_RATE`] up.
    pub fn per_second(rate: f64) -> Option<Self> {
        if !(rate.is_finite() && rate >= Self::LOWEST_RATE) {
            return None;
        }
        Duration::try_from_secs_f64(rate.recip()).ok().map(Self::spaced)
    }

    fn spaced(interval: Duration) -> Self {
        Self { interval, hosts: Arc::default() }
    }

    /// Waits for this request's turn.
    pub(super) async fn wait(&self, url: &Url) {
        loop {
            let turn = self.take(url);
            tokio::time::sleep_until(turn).await;
            let now = Instant::now();
            // Told to wait while we waited: queue again, so that not all go at once.
            if !self.with(url, |host, _| host.held > now) {
                return;
            }
        }
    }

    /// Counts a request that goes without waiting (a redirect's); the next ones wait the longer.
    pub(super) fn spend(&self, url: &Url) {
        self.take(url);
    }

    /// Lets nobody ask this host before `wait` is over.
    pub(super) fn hold(&self, url: &Url, wait: Duration) {
        self.with(url, |host, now| {
            let until = now + wait;
            host.held = host.held.max(until);
            host.next = host.next.max(until);
        });
    }

    fn take(&self, url: &Url) -> Instant {
        self.with(url, |host, now| {
            let turn = host.next.max(now);
            host.next = turn + self.interval;
            turn
        })
    }

    fn with<T>(&self, url: &Url, act: impl FnOnce(&mut Host, Instant) -> T) -> T {
        let now = Instant::now();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if hosts.len() >= HOSTS {
            hosts.retain(|_, host| host.next > now);
        }
        // url's ranges are always within it.
        let name = url[Position::BeforeHost..Position::AfterPort].to_owned();
        act(hosts.entry(name).or_insert(Host { next: now, held: now }), now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str) -> Url {
        Url::parse(&format!("https://{host}/v2/")).unwrap()
    }

    fn since(start: Instant, least: u64) {
        let passed = start.elapsed();
        let least = Duration::from_millis(least);
        assert!(passed >= least && passed < least + Duration::from_millis(500), "{passed:?}, not {least:?}");
    }

    #[tokio::test]
    async fn requests_are_spaced_by_host() {
        let pace = Pace::per_second(20.0).unwrap();
        let start = Instant::now();
        let host = url("a.example");
        let waits = (0..21).map(|_| pace.wait(&host));
        futures_util::future::join_all(waits).await;
        since(start, 1000);
        let start = Instant::now();
        pace.wait(&url("b.example")).await;
        since(start, 0);
        for _ in 0..15 {
            pace.spend(&url("b.example"));
        }
        pace.wait(&url("b.example")).await;
        since(start, 800);
    }

    #[tokio::test]
    async fn a_host_may_ask_for_time() {
        let pace = Pace::unlimited();
        let start = Instant::now();
        let (host, other) = (url("a.example"), url("b.example"));
        pace.hold(&host, Duration::from_millis(700));
        pace.wait(&other).await;
        since(start, 0);
        pace.wait(&host).await;
        since(start, 700);
        // Who waits already is held, too.
        let start = Instant::now();
        let slow = Pace::per_second(10.0).unwrap();
        slow.wait(&host).await;
        let second = tokio::spawn({
            let (slow, host) = (slow.clone(), host.clone());
            async move { slow.wait(&host).await }
        });
        tokio::task::yield_now().await;
        slow.hold(&host, Duration::from_millis(800));
        second.await.unwrap();
        since(start, 800);
    }

    #[test]
    fn refuses_rates_that_are_no_number_or_too_low() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-300, 1e-19] {
            assert!(Pace::per_second(rate).is_none(), "{rate}");
        }
        assert!(Pace::per_second(0.01).is_some());
    }
}
