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

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QuotaExceeded {
    /// This client has its share.
    Client,
    /// All are taken.
    Server,
}

impl From<QuotaExceeded> for Problem {
    fn from(exceeded: QuotaExceeded) -> Self {
        match exceeded {
            QuotaExceeded::Client => Self::TooManyRequests,
            QuotaExceeded::Server => Self::Overloaded,
        }
    }
}

/// All places.
pub(super) struct ClientQuotas {
    connections: usize,
    connections_per_client: usize,
    requests: usize,
    requests_per_client: usize,
    upload_rate: u64,
    /// Requests in flight.
    open: AtomicUsize,
    connected: Mutex<Connected>,
}

#[derive(Default)]
struct Connected {
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

impl ClientQuotas {
    pub(super) fn new(limits: &LimitConfig) -> Self {
        Self {
            connections: limits.connections.max(1),
            connections_per_client: limits.connections_per_client.max(1),
            requests: limits.requests.max(1),
            requests_per_client: limits.requests_per_client.max(1),
            upload_rate: limits.upload_rate,
            open: AtomicUsize::new(0),
            connected: Mutex::default(),
        }
    }

    /// Takes a permit for a connection.
    pub(super) fn connect(self: &Arc<Self>, address: IpAddr) -> Result<ConnectionPermit, QuotaExceeded> {
        let key = client_network(address);
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if connected.connections >= self.connections {
            return Err(QuotaExceeded::Server);
        }
        let client = connected.clients.entry(key).or_insert_with(|| {
            Arc::new(Client {
                connections: AtomicUsize::new(0),
                requests: AtomicUsize::new(0),
                paid_until: Mutex::new(None),
            })
        });
        // Only ever changed under the lock.
        if client.connections.load(Ordering::Relaxed) >= self.connections_per_client {
            return Err(QuotaExceeded::Client);
        }
        client.connections.fetch_add(1, Ordering::Relaxed);
        let client = client.clone();
        connected.connections += 1;
        Ok(ConnectionPermit { all: self.clone(), client, key })
    }

    /// Returns how many clients are connected.
    #[cfg(test)]
    fn known(&self) -> usize {
        self.connected.lock().unwrap().clients.len()
    }
}

/// The permit of a connection, free again when dropped.
pub(in crate::server) struct ConnectionPermit {
    all: Arc<ClientQuotas>,
    client: Arc<Client>,
    key: IpAddr,
}

impl ConnectionPermit {
    /// Takes a permit for a request.
    pub(super) fn request(self: &Arc<Self>) -> Result<RequestPermit, QuotaExceeded> {
        // Made first, so that a refusal gives back what was counted.
        let (mine, all) =
            (self.client.requests.fetch_add(1, Ordering::Relaxed), self.all.open.fetch_add(1, Ordering::Relaxed));
        let permit = RequestPermit(self.clone());
        if mine >= self.all.requests_per_client {
            return Err(QuotaExceeded::Client);
        }
        if all >= self.all.requests {
            return Err(QuotaExceeded::Server);
        }
        Ok(permit)
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

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut connected = self.all.connected.lock().unwrap_or_else(PoisonError::into_inner);
        connected.connections = connected.connections.saturating_sub(1);
        if self.client.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            connected.clients.remove(&self.key);
        }
    }
}

/// The permit of a request, free again when dropped.
pub(super) struct RequestPermit(Arc<ConnectionPermit>);

impl Drop for RequestPermit {
    fn drop(&mut self) {
        self.0.client.requests.fetch_sub(1, Ordering::Relaxed);
        self.0.all.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(change: impl FnOnce(&mut LimitConfig)) -> Arc<ClientQuotas> {
        let mut limits = LimitConfig::default();
        change(&mut limits);
        Arc::new(ClientQuotas::new(&limits))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_counted_by_client_and_in_all() {
        let clients = clients(|l| (l.connections, l.connections_per_client) = (3, 2));
        let seats = [clients.connect(ip("10.0.0.1")).unwrap(), clients.connect(ip("::ffff:10.0.0.1")).unwrap()];
        assert_eq!(clients.connect(ip("10.0.0.1")).err(), Some(QuotaExceeded::Client));
        let other = clients.connect(ip("10.0.0.2")).unwrap();
        assert_eq!(clients.connect(ip("10.0.0.3")).err(), Some(QuotaExceeded::Server));
        assert_eq!(clients.known(), 2, "the refused are not remembered");
        drop((seats, other));
        assert_eq!(clients.known(), 0);
        clients.connect(ip("10.0.0.1")).unwrap();
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let clients = clients(|l| l.connections_per_client = 1);
        let _seat = clients.connect(ip("2001:db8::1")).unwrap();
        assert!(clients.connect(ip("2001:db8::ffff:0:0:1")).is_err());
        assert!(clients.connect(ip("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn requests_are_counted_by_client_and_in_all() {
        let clients = clients(|l| (l.requests, l.requests_per_client) = (3, 2));
        let (one, two) =
            (Arc::new(clients.connect(ip("10.0.0.1")).unwrap()), Arc::new(clients.connect(ip("10.0.0.2")).unwrap()));
        let places = [one.request().unwrap(), one.request().unwrap()];
        for _ in 0..5 {
            assert_eq!(one.request().err(), Some(QuotaExceeded::Client));
        }
        let last = two.request().unwrap();
        assert_eq!(two.request().err(), Some(QuotaExceeded::Server));
        drop((places, last));
        assert!(one.request().is_ok() && two.request().is_ok());
    }

    #[test]
    fn fast_senders_wait() {
        let clients = clients(|l| l.upload_rate = 1000);
        let connection = clients.connect(ip("10.0.0.1")).unwrap();
        assert_eq!(connection.pay(1000), None, "a second's worth is free");
        let wait = connection.pay(1000).unwrap();
        assert!(wait > Duration::from_millis(900) && wait <= Duration::from_secs(1), "{wait:?}");
        let again = clients.connect(ip("10.0.0.1")).unwrap();
        assert!(again.pay(1).is_some(), "another connection is the same client");
        assert_eq!(clients.connect(ip("10.0.0.2")).unwrap().pay(1000), None);
    }
}
