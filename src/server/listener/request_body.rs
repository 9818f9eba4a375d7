//! The body of a client's request: it must keep moving, must not be longer than allowed, and comes
//! no faster than the client's rate.
//!
//! Only time in which we wait for the client counts, so that a slow registry behind us is not the
//! client's fault; and no limit bounds the whole, so that blobs may be of any size.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::config::LimitConfig;
use crate::server::listener::{ConnectionActivity, ConnectionPermit, Timer};

/// Why a request's body came to no good end.
#[derive(Debug, thiserror::Error)]
pub enum ClientBodyError {
    /// The connection broke, or what came is no HTTP.
    #[error("the client's body broke off: {0}")]
    Broken(#[source] hyper::Error),
    /// It stopped, or trickled.
    #[error("the client's body came too slowly")]
    Slow,
    /// It is longer than the limit.
    #[error("the client's body is longer than {0} bytes")]
    TooLong(u64),
}

impl ClientBodyError {
    /// Finds the fault of the client among the causes of an error.
    pub(crate) fn behind<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }
}

/// A client's body, as it comes.
pub struct ClientBody {
    /// None where there cannot be one.
    inner: Option<Incoming>,
    /// None for a body without bytes.
    watch: Option<Box<Watch>>,
}

struct Watch {
    permit: Arc<ConnectionPermit>,
    activity: Arc<ConnectionActivity>,
    /// Nothing more is read of it, whichever way it ended.
    ended: bool,
    body_limits: BodyLimits,
    received: u64,
    /// How long the client was waited for before the present wait.
    waited: Duration,
    waiting: Option<Instant>,
    timer: Timer,
    /// Until the client's rate allows more.
    pause: Option<Pin<Box<Sleep>>>,
}

/// What of the limits concerns bodies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    pause: Duration,
    rate: u64,
    bytes: Option<u64>,
}

impl BodyLimits {
    pub(crate) fn new(limits: &LimitConfig) -> Self {
        let pause = Duration::from_secs(limits.body_seconds);
        Self { pause, rate: limits.body_rate, bytes: Some(limits.body_bytes).filter(|bytes| *bytes > 0) }
    }

    /// How long the next bytes may be waited for.
    fn timeouts(&self, received: u64, waited: Duration) -> Duration {
        if self.rate == 0 {
            return self.pause;
        }
        let earned = Duration::from_secs(received / self.rate);
        self.pause.min((self.pause + earned).saturating_sub(waited))
    }
}

impl ClientBody {
    /// Watches over a body; `Err` when it says itself that it is longer than allowed.
    pub(super) fn new(
        inner: Option<Incoming>,
        body_limits: BodyLimits,
        permit: Arc<ConnectionPermit>,
        activity: Arc<ConnectionActivity>,
    ) -> Result<Self, ClientBodyError> {
        let (least, ended) =
            inner.as_ref().map_or((0, true), |inner| (inner.size_hint().lower(), inner.is_end_stream()));
        if let Some(limit) = body_limits.bytes.filter(|limit| least > *limit) {
            return Err(ClientBodyError::TooLong(limit));
        }
        let watch = (!ended).then(|| {
            Box::new(Watch {
                permit,
                activity,
                ended: false,
                body_limits,
                received: 0,
                waited: Duration::ZERO,
                waiting: None,
                timer: Timer::default(),
                pause: None,
            })
        });
        Ok(Self { inner, watch })
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch
            && !watch.ended
            && !self.is_end_stream()
        {
            watch.activity.leave_unread();
        }
    }
}

impl Watch {
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<ClientBodyError> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        let timeouts = self.body_limits.timeouts(self.received, self.waited);
        if self.timer.passed(context, since + timeouts) { Poll::Ready(ClientBodyError::Slow) } else { Poll::Pending }
    }

    fn note(&mut self, length: usize) -> Result<(), ClientBodyError> {
        if let Some(since) = self.waiting.take() {
            self.waited += since.elapsed();
        }
        self.received += length as u64;
        if let Some(limit) = self.body_limits.bytes.filter(|limit| self.received > *limit) {
            return Err(ClientBodyError::TooLong(limit));
        }
        let wait = self.permit.pay(length);
        self.pause = wait.map(|wait| Box::pin(tokio::time::sleep(wait)));
        Ok(())
    }
}

impl HttpBody for ClientBody {
    type Data = Bytes;
    type Error = ClientBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        let Some(watch) = &mut this.watch else {
            return Pin::new(inner).poll_frame(context).map_err(ClientBodyError::Broken);
        };
        if let Some(pause) = &mut watch.pause {
            std::task::ready!(pause.as_mut().poll(context));
            watch.pause = None;
        }
        match Pin::new(inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let noted = watch.note(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(noted.map(|()| frame)))
            }
            Poll::Ready(other) => {
                watch.ended = true;
                Poll::Ready(other.map(|frame| frame.map_err(ClientBodyError::Broken)))
            }
            Poll::Pending => watch.wait(context).map(|error| Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_earned_by_bytes_but_never_longer_than_a_pause() {
        let body_limits = BodyLimits { pause: Duration::from_secs(30), rate: 500, bytes: None };
        let (second, none) = (Duration::from_secs(1), Duration::ZERO);
        assert_eq!(body_limits.timeouts(0, none), second * 30);
        assert_eq!(body_limits.timeouts(0, second * 20), second * 10);
        assert_eq!(body_limits.timeouts(29, second * 29), second, "a byte a second does not last");
        assert_eq!(body_limits.timeouts(5000, second * 35), second * 5);
        assert_eq!(body_limits.timeouts(1 << 40, second * 35), second * 30);
        assert_eq!(body_limits.timeouts(0, second * 40), none);
        assert_eq!(BodyLimits { rate: 0, ..body_limits }.timeouts(0, second * 4000), second * 30);
    }
}
