//! Who is connected, how often and with how many requests: places, counted for each client and in
//! all. A client that leaves is forgotten, so there are never more entries than connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::LimitConfig;
use crate::server::client_address::client_network;
use crate::server::error::Problem;

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// This client has its share.
    Client,
    /// All are taken.
    Server,
}

impl From<NoPlace> for Problem {
    fn from(no_place: NoPlace) -> Self {
        match no_place {
            NoPlace::Client => Self::TooManyRequests,
            NoPlace::Server => Self::Overloaded,
        }
    }
}

/// All places.
pub(super) struct Clients {
    connections: usize,
    connections_per_client: usize,
    requests: usize,
    requests_per_client: usize,
    upload_rate: u64,
    /// Requests in flight.
    open: AtomicUsize,
    seated: Mutex<Seated>,
}

#[derive(Default)]
struct Seated {
    connections: usize,
    clients: HashMap<IpAddr, Arc<Client>>,
}

/// One client with all its connections.
struct Client {
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// Until when what it sent has used up its rate.
    paid_until: Mutex<Option<Instant>>,
}

impl Clients {
    pub(super) fn new(limits: &LimitConfig) -> Self {
        Self {
            connections: limits.connections.max(1),
            connections_per_client: limits.connections_per_client.max(1),
            requests: limits.requests.max(1),
            requests_per_client: limits.requests_per_client.max(1),
            upload_rate: limits.upload_rate,
            open: AtomicUsize::new(0),
            seated: Mutex::default(),
        }
    }

    /// Takes a place for a connection.
    pub(super) fn seat(self: &Arc<Self>, address: IpAddr) -> Result<Seat, NoPlace> {
        let key = client_network(address);
        let mut seated = self.seated.lock().unwrap_or_else(PoisonError::into_inner);
        if seated.connections >= self.connections {
            return Err(NoPlace::Server);
        }
        let client = seated.clients.entry(key).or_insert_with(|| {
            Arc::new(Client {
                connections: AtomicUsize::new(0),
                requests: AtomicUsize::new(0),
                paid_until: Mutex::new(None),
            })
        });
        // Only ever changed under the lock.
        if client.connections.load(Ordering::Relaxed) >= self.connections_per_client {
            return Err(NoPlace::Client);
        }
        client.connections.fetch_add(1, Ordering::Relaxed);
        let client = client.clone();
        seated.connections += 1;
        Ok(Seat { all: self.clone(), client, key })
    }

    /// Returns how many clients are connected.
    #[cfg(test)]
    fn known(&self) -> usize {
        self.seated.lock().unwrap().clients.len()
    }
}

/// The place of a connection, free again when dropped.
pub(in crate::server) struct Seat {
    all: Arc<Clients>,
    client: Arc<Client>,
    key: IpAddr,
}

impl Seat {
    /// Takes a place for a request.
    pub(super) fn request(self: &Arc<Self>) -> Result<Place, NoPlace> {
        // Made first, so that a refusal gives back what was counted.
        let (mine, all) =
            (self.client.requests.fetch_add(1, Ordering::Relaxed), self.all.open.fetch_add(1, Ordering::Relaxed));
        let place = Place(self.clone());
        if mine >= self.all.requests_per_client {
            return Err(NoPlace::Client);
        }
        if all >= self.all.requests {
            return Err(NoPlace::Server);
        }
        Ok(place)
    }

    /// Counts so many bytes against the client's rate, and returns how long it is to wait for the
    /// next ones. A second's worth is let through at once.
    pub(in crate::server) fn pay(&self, bytes: usize) -> Option<Duration> {
        let rate = self.all.upload_rate;
        if rate == 0 {
            return None;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let now = Instant::now();
        let mut paid = self.client.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let until = paid.filter(|until| *until > now).unwrap_or(now) + cost;
        *paid = Some(until);
        until.duration_since(now).checked_sub(Duration::from_secs(1)).filter(|wait| !wait.is_zero())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seated = self.all.seated.lock().unwrap_or_else(PoisonError::into_inner);
        seated.connections = seated.connections.saturating_sub(1);
        if self.client.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            seated.clients.remove(&self.key);
        }
    }
}

/// The place of a request, free again when dropped.
pub(super) struct Place(Arc<Seat>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.client.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.all.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(change: impl FnOnce(&mut LimitConfig)) -> Arc<Clients> {
        let mut limits = LimitConfig::default();
        change(&mut limits);
        Arc::new(Clients::new(&limits))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_counted_by_client_and_in_all() {
        let clients = clients(|l| (l.connections, l.connections_per_client) = (3, 2));
        let seats = [clients.seat(ip("10.0.0.1")).unwrap(), clients.seat(ip("::ffff:10.0.0.1")).unwrap()];
        assert_eq!(clients.seat(ip("10.0.0.1")).err(), Some(NoPlace::Client));
        let other = clients.seat(ip("10.0.0.2")).unwrap();
        assert_eq!(clients.seat(ip("10.0.0.3")).err(), Some(NoPlace::Server));
        assert_eq!(clients.known(), 2, "the refused are not remembered");
        drop((seats, other));
        assert_eq!(clients.known(), 0);
        clients.seat(ip("10.0.0.1")).unwrap();
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let clients = clients(|l| l.connections_per_client = 1);
        let _seat = clients.seat(ip("2001:db8::1")).unwrap();
        assert!(clients.seat(ip("2001:db8::ffff:0:0:1")).is_err());
        assert!(clients.seat(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn requests_are_counted_by_client_and_in_all() {
        let clients = clients(|l| (l.requests, l.requests_per_client) = (3, 2));
        let (one, two) =
            (Arc::new(clients.seat(ip("10.0.0.1")).unwrap()), Arc::new(clients.seat(ip("10.0.0.2")).unwrap()));
        let places = [one.request().unwrap(), one.request().unwrap()];
        for _ in 0..5 {
            assert_eq!(one.request().err(), Some(NoPlace::Client));
        }
        let last = two.request().unwrap();
        assert_eq!(two.request().err(), Some(NoPlace::Server));
        drop((places, last));
        assert!(one.request().is_ok() && two.request().is_ok());
    }

    #[test]
    fn fast_senders_wait() {
        let clients = clients(|l| l.upload_rate = 1000);
        let seat = clients.seat(ip("10.0.0.1")).unwrap();
        assert_eq!(seat.pay(1000), None, "a second's worth is free");
        let wait = seat.pay(1000).unwrap();
        assert!(wait > Duration::from_millis(900) && wait <= Duration::from_secs(1), "{wait:?}");
        let again = clients.seat(ip("10.0.0.1")).unwrap();
        assert!(again.pay(1).is_some(), "another connection is the same client");
        assert_eq!(clients.seat(ip("10.0.0.2")).unwrap().pay(1000), None);
    }
}
