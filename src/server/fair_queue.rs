//! A bounded number of places, which clients take in turn: who waits for one waits behind others of
//! the same client, and clients are served round robin. So whoever asks much waits for themselves.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many may have a place, and how many may wait for one.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// Places in all.
    pub(super) permits: usize,
    /// Places that one client may have at once.
    pub(super) permits_per_client: usize,
    /// How many wait in all.
    pub(super) waiting: usize,
    /// How many of one client wait.
    pub(super) waiting_per_client: usize,
}

/// Why nobody waits for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueFull {
    /// Too many of this client wait.
    Client,
    /// Too many clients wait.
    All,
}

/// Places for clients.
#[derive(Debug)]
pub(super) struct FairQueue {
    limits: QueueLimits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: usize,
    /// Whoever has a place or waits for one; nobody else is remembered.
    clients: HashMap<IpAddr, Client>,
    /// Clients of whom somebody waits and may have a place, in the order of their turns.
    order: VecDeque<IpAddr>,
    next: u64,
}

#[derive(Debug, Default)]
struct Client {
    held: usize,
    waiting: VecDeque<(u64, oneshot::Sender<QueuePermit>)>,
    /// Whether it stands in the order.
    is_queued: bool,
}

/// A place, free for the next one when dropped.
#[derive(Debug)]
pub(super) struct QueuePermit {
    all: Arc<FairQueue>,
    key: IpAddr,
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        state.free += 1;
        if let Some(client) = state.clients.get_mut(&self.key) {
            client.held = client.held.saturating_sub(1);
        }
        state.settle(&self.key, self.all.limits.permits_per_client);
        let turns = state.hand_out(self.all.limits.permits_per_client);
        drop(state);
        self.all.wake(turns);
    }
}

/// One who waits; not any more when dropped.
struct Waiter<'a> {
    all: &'a FairQueue,
    key: IpAddr,
    number: u64,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        let Some(client) = state.clients.get_mut(&self.key) else { return };
        let before = client.waiting.len();
        client.waiting.retain(|(number, _)| *number != self.number);
        let gone = before - client.waiting.len();
        state.waiting = state.waiting.saturating_sub(gone);
        state.settle(&self.key, self.all.limits.permits_per_client);
    }
}

impl FairQueue {
    /// Makes places that are all free; at least one, and one for each client.
    pub(super) fn new(limits: QueueLimits) -> Arc<Self> {
        let permits = limits.permits.max(1);
        let limits = QueueLimits { permits, permits_per_client: limits.permits_per_client.clamp(1, permits), ..limits };
        let state = State { free: permits, waiting: 0, clients: HashMap::new(), order: VecDeque::new(), next: 0 };
        Arc::new(Self { limits, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a client, or waits for its turn.
    ///
    /// # Errors
    /// [`QueueFull`], at once when too many wait; and later, of the client of whom most wait, when one
    /// comes of whom fewer do.
    pub(super) async fn take(self: &Arc<Self>, key: IpAddr) -> Result<QueuePermit, QueueFull> {
        let (number, turn) = {
            let mut state = self.lock();
            let client = state.clients.entry(key).or_default();
            let (held, mine) = (client.held, client.waiting.len());
            // While a place is free, everybody who waits has as many as one client may have.
            if state.free > 0 && held < self.limits.permits_per_client {
                state.free -= 1;
                if let Some(client) = state.clients.get_mut(&key) {
                    client.held += 1;
                }
                return Ok(QueuePermit { all: self.clone(), key });
            }
            let full = if mine >= self.limits.waiting_per_client {
                Some(QueueFull::Client)
            } else if state.waiting >= self.limits.waiting && !state.drop_longest(mine, self.limits.permits_per_client)
            {
                Some(QueueFull::All)
            } else {
                None
            };
            if let Some(full) = full {
                state.settle(&key, self.limits.permits_per_client);
                return Err(full);
            }
            let (sender, turn) = oneshot::channel();
            let number = state.next;
            state.next += 1;
            state.waiting += 1;
            state.clients.entry(key).or_default().waiting.push_back((number, sender));
            state.settle(&key, self.limits.permits_per_client);
            (number, turn)
        };
        let waiting = Waiter { all: self, key, number };
        let place = turn.await;
        drop(waiting);
        // The sender is dropped only where others needed the room.
        place.map_err(|_| QueueFull::Client)
    }

    /// Tells those whose turn it is. A place for somebody who has gone goes to the next one.
    fn wake(self: &Arc<Self>, turns: Vec<(IpAddr, oneshot::Sender<QueuePermit>)>) {
        for (key, turn) in turns {
            // What cannot be sent is dropped, outside the lock, and so handed out again.
            let _ = turn.send(QueuePermit { all: self.clone(), key });
        }
    }

    /// Returns how many clients are known, and how many wait.
    #[cfg(test)]
    fn known(&self) -> (usize, usize) {
        let state = self.lock();
        (state.clients.len(), state.waiting)
    }
}

impl State {
    /// Puts a client into the order if it belongs there, and forgets it if nothing is left of it.
    fn settle(&mut self, key: &IpAddr, most: usize) {
        let Some(client) = self.clients.get_mut(key) else { return };
        if !client.waiting.is_empty() {
            if !client.is_queued && client.held < most {
                client.is_queued = true;
                self.order.push_back(*key);
            }
            return;
        }
        if std::mem::take(&mut client.is_queued) {
            self.order.retain(|other| other != key);
        }
        if client.held == 0 {
            self.clients.remove(key);
        }
    }

    /// Gives free places to those whose turn it is.
    fn hand_out(&mut self, most: usize) -> Vec<(IpAddr, oneshot::Sender<QueuePermit>)> {
        let mut turns = Vec::new();
        while self.free > 0 {
            let Some(key) = self.order.pop_front() else { break };
            if let Some(client) = self.clients.get_mut(&key) {
                client.is_queued = false;
                if client.held < most
                    && let Some((_, turn)) = client.waiting.pop_front()
                {
                    client.held += 1;
                    self.free -= 1;
                    self.waiting = self.waiting.saturating_sub(1);
                    turns.push((key, turn));
                }
            }
            self.settle(&key, most);
        }
        turns
    }

    /// Sends away the last one of the client of whom most wait, for somebody of whom `mine` wait
    /// already, if that leaves it no worse off than them.
    fn drop_longest(&mut self, mine: usize, most: usize) -> bool {
        let longest = self.clients.iter_mut().max_by_key(|(_, client)| client.waiting.len());
        let Some((key, client)) = longest.filter(|(_, client)| client.waiting.len() > mine + 1) else { return false };
        let key = *key;
        // Dropping the sender tells them.
        drop(client.waiting.pop_back());
        self.waiting = self.waiting.saturating_sub(1);
        self.settle(&key, most);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(client: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, client])
    }

    fn permits(permits: usize, per_client: usize, waiting: usize, waiting_per_client: usize) -> Arc<FairQueue> {
        FairQueue::new(QueueLimits { permits, permits_per_client: per_client, waiting, waiting_per_client })
    }

    /// Starts to wait, and returns when the one stands in the queue or has a place.
    async fn wait(all: &Arc<FairQueue>, key: u8) -> tokio::task::JoinHandle<Result<QueuePermit, QueueFull>> {
        let taken = all.clone();
        let task = tokio::spawn(async move { taken.take(of(key)).await });
        tokio::task::yield_now().await;
        task
    }

    async fn is_done<T>(task: &tokio::task::JoinHandle<T>) -> bool {
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        task.is_finished()
    }

    #[tokio::test]
    async fn clients_take_turns() {
        let all = permits(1, 1, 100, 100);
        let mut place = Some(all.take(of(0)).await.unwrap());
        let mut tasks = Vec::new();
        for key in [1, 1, 1, 1, 2, 2, 3] {
            tasks.push((key, wait(&all, key).await));
        }
        let mut order = Vec::new();
        while !tasks.is_empty() {
            drop(place.take());
            let mut next = None;
            for (at, (_, task)) in tasks.iter().enumerate() {
                if is_done(task).await {
                    next = Some(at);
                    break;
                }
            }
            let (key, task) = tasks.remove(next.unwrap());
            place = Some(task.await.unwrap().unwrap());
            order.push(key);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1, 1]);
        drop(place);
        assert_eq!(all.known(), (0, 0));
    }

    #[tokio::test]
    async fn one_client_leaves_places_to_others() {
        let all = permits(4, 2, 100, 100);
        let held = [all.take(of(1)).await.unwrap(), all.take(of(1)).await.unwrap()];
        let third = wait(&all, 1).await;
        assert!(!is_done(&third).await, "two are its share");
        let other = [all.take(of(2)).await.unwrap(), all.take(of(3)).await.unwrap()];
        drop(other);
        assert!(!is_done(&third).await, "the share does not grow with free places");
        drop(held);
        third.await.unwrap().unwrap();
        assert_eq!(all.known(), (0, 0));
    }

    #[tokio::test]
    async fn who_is_full_is_told_and_others_are_not() {
        let all = permits(1, 1, 4, 3);
        let place = all.take(of(1)).await.unwrap();
        let mut mine = Vec::new();
        for _ in 0..3 {
            mine.push(wait(&all, 1).await);
        }
        assert_eq!(all.take(of(1)).await.unwrap_err(), QueueFull::Client);
        let second = wait(&all, 2).await;
        // All are taken, but there is one of whom more than one waits: its last gives way.
        let third = wait(&all, 3).await;
        assert_eq!(mine.pop().unwrap().await.unwrap().unwrap_err(), QueueFull::Client);
        let fourth = wait(&all, 4).await;
        assert_eq!(mine.pop().unwrap().await.unwrap().unwrap_err(), QueueFull::Client);
        // One of each waits: nobody has a better right.
        assert_eq!(all.take(of(5)).await.unwrap_err(), QueueFull::All);
        drop(place);
        // Who had a place comes last.
        for task in [second, third, fourth, mine.pop().unwrap()] {
            task.await.unwrap().unwrap();
        }
        assert_eq!(all.known(), (0, 0));
    }

    #[tokio::test]
    async fn who_goes_leaves_no_trace() {
        let all = permits(1, 1, 2, 2);
        let place = all.take(of(1)).await.unwrap();
        for _ in 0..10 {
            let gone = [wait(&all, 1).await, wait(&all, 2).await];
            for task in gone {
                task.abort();
                assert!(task.await.unwrap_err().is_cancelled());
            }
            assert_eq!(all.known(), (1, 0), "only who has the place is known");
        }
        drop(place);
        assert_eq!(all.known(), (0, 0));
        tokio::time::timeout(Duration::from_secs(5), all.take(of(3))).await.unwrap().unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_crowd_gets_through_and_no_place_is_lost() {
        let all = permits(3, 2, 10_000, 10_000);
        let mut tasks = Vec::new();
        for n in 0..2000u32 {
            let all = all.clone();
            tasks.push(tokio::spawn(async move {
                let taken = all.take(of((n % 7) as u8));
                // Some lose their patience.
                let patience = Duration::from_micros(if n % 3 == 0 { 50 } else { 60_000_000 });
                if let Ok(place) = tokio::time::timeout(patience, taken).await {
                    let place = place.unwrap();
                    tokio::task::yield_now().await;
                    drop(place);
                }
            }));
        }
        for task in tasks {
            tokio::time::timeout(Duration::from_secs(60), task).await.unwrap().unwrap();
        }
        assert_eq!(all.known(), (0, 0));
        let _all = [all.take(of(0)).await.unwrap(), all.take(of(1)).await.unwrap(), all.take(of(2)).await.unwrap()];
    }
}
