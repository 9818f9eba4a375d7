//! How connections learn that the server is shutting down.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

/// How far the shutdown is. A later phase includes the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShutdownPhase {
    /// No further connections or requests; what is open may finish.
    Drain,
    /// Everything ends now.
    Stop,
}

/// Sends the phases of the shutdown to all connections.
pub(super) struct ShutdownSignal(watch::Sender<Option<ShutdownPhase>>);

impl Default for ShutdownSignal {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl ShutdownSignal {
    /// Begins a phase; an earlier phase never follows a later one.
    pub(super) fn send(&self, phase: ShutdownPhase) {
        self.0.send_if_modified(|current| {
            let is_later = *current < Some(phase);
            if is_later {
                *current = Some(phase);
            }
            is_later
        });
    }

    /// Returns a receiver for one task.
    pub(super) fn subscribe(&self) -> ShutdownReceiver {
        let mut receiver = self.0.subscribe();
        let phase = *receiver.borrow_and_update();
        ShutdownReceiver { receiver, phase, change: None, woken: None }
    }

    /// Waits for a phase, or a later one.
    pub(super) async fn wait_for(&self, phase: ShutdownPhase) {
        let mut receiver = self.subscribe();
        poll_fn(|context| if receiver.poll(context) >= Some(phase) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// Receives the phases of the shutdown, for one task. It can be polled beside a connection, which
/// [`watch::Receiver::changed`] alone cannot: that future would have to be kept somewhere between two polls.
pub(super) struct ShutdownReceiver {
    receiver: watch::Receiver<Option<ShutdownPhase>>,
    /// The phase as of the last change.
    phase: Option<ShutdownPhase>,
    /// Resolves at the next change; made only for tasks that have to wait.
    change: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whom `change` wakes.
    woken: Option<Waker>,
}

impl ShutdownReceiver {
    /// Returns the current phase.
    pub(super) fn phase(&mut self) -> Option<ShutdownPhase> {
        // Reading the version is cheaper than the lock around the value, and this is called for each request.
        // An error means that the sender is gone, and the last phase stays.
        if self.receiver.has_changed().unwrap_or(false) {
            self.phase = *self.receiver.borrow_and_update();
            self.change = None;
        }
        self.phase
    }

    /// Returns the current phase; the next phase wakes the task.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Option<ShutdownPhase> {
        while self.phase() != Some(ShutdownPhase::Stop) {
            if self.change.is_some() && self.woken.as_ref().is_some_and(|woken| woken.will_wake(context.waker())) {
                break;
            }
            let change = self.change.get_or_insert_with(|| {
                // The clone has seen what this receiver has seen.
                let mut receiver = self.receiver.clone();
                Box::pin(async move {
                    if receiver.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                })
            });
            if change.as_mut().poll(context).is_pending() {
                self.woken = Some(context.waker().clone());
                break;
            }
            self.change = None;
        }
        self.phase
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn receiver_wakes_the_task_that_polled_it_last() {
        let signal = ShutdownSignal::default();
        let mut receiver = signal.subscribe();
        poll_fn(|context| Poll::Ready(receiver.poll(context))).await;
        let moved = tokio::spawn(poll_fn(move |context| match receiver.poll(context) {
            Some(phase) => Poll::Ready(phase),
            None => Poll::Pending,
        }));
        tokio::task::yield_now().await;
        signal.send(ShutdownPhase::Drain);
        assert_eq!(moved.await.unwrap(), ShutdownPhase::Drain);
    }

    #[tokio::test]
    async fn drain_does_not_consume_the_wakeup_of_stop() {
        let signal = ShutdownSignal::default();
        let mut stop = std::pin::pin!(signal.wait_for(ShutdownPhase::Stop));
        assert!(futures_util::poll!(stop.as_mut()).is_pending());
        signal.send(ShutdownPhase::Drain);
        assert!(futures_util::poll!(stop.as_mut()).is_pending());
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            tokio::join!(stop, async { signal.send(ShutdownPhase::Stop) })
        });
        ended.await.expect("the stop wakes the task");
    }

    #[tokio::test]
    async fn early_and_late_receivers_see_each_phase() {
        let signal = Arc::new(ShutdownSignal::default());
        let wait = |phase| {
            let signal = signal.clone();
            tokio::spawn(async move { signal.wait_for(phase).await })
        };
        let (drain, stop) = (wait(ShutdownPhase::Drain), wait(ShutdownPhase::Stop));
        tokio::task::yield_now().await;
        signal.send(ShutdownPhase::Drain);
        drain.await.unwrap();
        wait(ShutdownPhase::Drain).await.unwrap();
        assert!(!stop.is_finished());
        signal.send(ShutdownPhase::Stop);
        stop.await.unwrap();
        signal.send(ShutdownPhase::Drain);
        wait(ShutdownPhase::Stop).await.unwrap();
    }
}
