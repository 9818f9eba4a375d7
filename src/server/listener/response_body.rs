//! The body of an answer: bytes at hand, or what streams in from the upstream.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use crate::metrics::{self, Direction};
use crate::registry::http::BoxError;

/// An answer of the server.
pub type Answer = http::Response<Body>;

/// The body of an [`Answer`].
#[derive(Debug)]
pub enum Body {
    /// Bytes at hand; `None` once they are sent, or when there are none.
    Full(Option<Bytes>),
    /// The upstream's answer, passed on as it comes.
    Upstream(Streamed),
}

/// An answer of the upstream on its way to the client, who must not take an upstream that fell
/// silent in the middle for one that is slow.
#[derive(Debug)]
pub struct Streamed {
    inner: Incoming,
    silence: Duration,
    /// When there was last something to pass on; the alarm is only moved when it goes off.
    last: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Streamed {
    /// Passes on what comes, and breaks off after so long without anything.
    pub(crate) fn new(inner: Incoming, silence: Duration) -> Self {
        Self { inner, silence, last: Instant::now(), alarm: None }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) {
            self.last = Instant::now();
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                metrics::PROXIED_BYTES.add(Direction::Download, data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        loop {
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.last + self.silence)));
            std::task::ready!(alarm.as_mut().poll(context));
            let due = self.last + self.silence;
            if due <= Instant::now() {
                tracing::warn!("the upstream fell silent in the middle of an answer");
                return Poll::Ready(Some(Err("the upstream fell silent in the middle of its answer".into())));
            }
            alarm.as_mut().reset(due);
        }
    }
}

impl Body {
    /// Returns a body without bytes.
    pub fn empty() -> Self {
        Self::Full(None)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(if bytes.is_empty() { None } else { Some(bytes) })
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(streamed) => streamed.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Upstream(streamed) => streamed.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Upstream(streamed) => streamed.inner.size_hint(),
        }
    }
}
