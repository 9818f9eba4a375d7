//! The orders that all connections hear. There may be thousands of connections and hardly ever an
//! order: to listen costs one look at a number each time that a connection does something.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What is ordered; a later one contains the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Order {
    /// The requests in flight are the last ones.
    Drain = 1,
    /// The end, at once.
    Stop = 2,
}

/// The last order, and whom to tell about the next.
#[derive(Debug, Default)]
pub(super) struct Orders {
    given: AtomicU8,
    next: Notify,
}

impl Orders {
    /// Gives an order to all.
    pub(super) fn give(&self, order: Order) {
        self.given.fetch_max(order as u8, Ordering::AcqRel);
        self.next.notify_waiters();
    }

    /// Returns the last order.
    pub(super) fn given(&self) -> Option<Order> {
        match self.given.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Order::Drain),
            _ => Some(Order::Stop),
        }
    }

    /// Listens.
    pub(super) fn ear(&self) -> Ear<'_> {
        Ear { orders: self, next: None, woken: None }
    }

    /// Waits for an order, or one that contains it.
    pub(super) async fn heard(&self, order: Order) {
        let mut ear = self.ear();
        poll_fn(|context| if ear.hear(context) >= Some(order) { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// The orders as one task hears them.
pub(super) struct Ear<'a> {
    orders: &'a Orders,
    next: Option<Pin<Box<Notified<'a>>>>,
    /// Who is woken by it.
    woken: Option<Waker>,
}

impl Ear<'_> {
    /// Returns the last order; the task is woken by the next.
    pub(super) fn hear(&mut self, context: &mut Context<'_>) -> Option<Order> {
        let told = self.woken.as_ref().is_some_and(|woken| woken.will_wake(context.waker()));
        match self.orders.given() {
            // Orders are given before they are told, so that as yet nobody was told.
            None if told => return None,
            // None comes after it.
            Some(Order::Stop) => return Some(Order::Stop),
            // Maybe the drain is being told just now, and who listens hears that instead of the
            // next order: it is listened to once more each time.
            _ => {}
        }
        self.next = Some(loop {
            let mut next = Box::pin(self.orders.next.notified());
            if next.as_mut().poll(context).is_pending() {
                break next;
            }
        });
        self.woken = Some(context.waker().clone());
        // Once more, for an order that came before there was somebody to tell.
        self.orders.given()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn who_listened_elsewhere_first_hears_too() {
        let orders: &'static Orders = Box::leak(Box::default());
        let mut ear = orders.ear();
        poll_fn(|context| Poll::Ready(ear.hear(context))).await;
        let moved = tokio::spawn(poll_fn(move |context| match ear.hear(context) {
            Some(order) => Poll::Ready(order),
            None => Poll::Pending,
        }));
        tokio::task::yield_now().await;
        orders.give(Order::Drain);
        assert_eq!(moved.await.unwrap(), Order::Drain);
    }

    #[tokio::test]
    async fn what_is_told_late_takes_nobody_s_place() {
        let orders = Orders::default();
        // The drain is given; who listens now is told of it a moment later.
        orders.given.store(Order::Drain as u8, Ordering::Release);
        let mut stop = std::pin::pin!(orders.heard(Order::Stop));
        assert!(futures_util::poll!(stop.as_mut()).is_pending());
        orders.next.notify_waiters();
        assert!(futures_util::poll!(stop.as_mut()).is_pending());
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), async {
            tokio::join!(stop, async { orders.give(Order::Stop) })
        });
        ended.await.expect("the stop is heard");
    }

    #[tokio::test]
    async fn orders_are_heard_by_all_early_and_late() {
        let orders = Arc::new(Orders::default());
        let hear = |order| {
            let orders = orders.clone();
            tokio::spawn(async move { orders.heard(order).await })
        };
        let (drain, stop) = (hear(Order::Drain), hear(Order::Stop));
        tokio::task::yield_now().await;
        orders.give(Order::Drain);
        drain.await.unwrap();
        hear(Order::Drain).await.unwrap();
        assert!(!stop.is_finished());
        orders.give(Order::Stop);
        stop.await.unwrap();
        orders.give(Order::Drain);
        hear(Order::Stop).await.unwrap();
    }
}
