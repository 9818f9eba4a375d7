//! How the body of an upload gets into memory, and when it is judged.
//!
//! The client decides how fast its body comes, so as long as it may be slow it has nothing that
//! another writer needs. Of every body the first [`SHORT`] bytes are read at once, which is more than
//! a signature has in practice; their number is bounded by the requests in flight. A longer one has
//! to wait for one of a few places in memory, of which one client never has more than half. Judged
//! and stored are so many at once as there are places, clients in turn: that takes our own time only.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;

use crate::config::LimitConfig;
use crate::server::client_address::client_network;
use crate::server::error::Problem;
use crate::server::fair_queue::{FairQueue, QueueFull, QueueLimits, QueuePermit};

/// How much of a body is read without a place. Signatures have a kilobyte or two.
const SHORT: usize = 16 * 1024;

/// How long a piece of a body in memory is at most, unless it came so.
const PIECE: usize = 64 * 1024;

/// The turn of a body to be judged, and its place in memory.
#[derive(Debug)]
pub(crate) struct UploadPermit {
    _judged: QueuePermit,
    _body: LongBodyPermit,
}

/// The place in memory of a body, if it is a long one.
#[derive(Debug)]
pub(crate) struct LongBodyPermit(#[expect(dead_code, reason = "held until the body is stored")] Option<QueuePermit>);

/// Takes the bodies of uploads.
pub(crate) struct BodyReceiver {
    /// Places for bodies that are longer than [`SHORT`].
    long: Arc<FairQueue>,
    judged: Arc<FairQueue>,
    time: Duration,
}

impl From<QueueFull> for Problem {
    fn from(why: QueueFull) -> Self {
        match why {
            QueueFull::Client => Self::TooManyRequests,
            QueueFull::All => Self::Busy,
        }
    }
}

impl BodyReceiver {
    pub(crate) fn new(limits: &LimitConfig) -> Self {
        let places = limits.uploads.max(1);
        // Who waits is a request in flight, and those are bounded already.
        let bounds = QueueLimits {
            permits: places,
            // Others find one free at once.
            permits_per_client: places - places / 4,
            waiting: limits.requests.max(1),
            waiting_per_client: limits.requests_per_client.max(1),
        };
        Self {
            long: FairQueue::new(QueueLimits { permits_per_client: places / 2, ..bounds }),
            judged: FairQueue::new(bounds),
            time: Duration::from_secs(limits.upload_seconds),
        }
    }

    /// Reads a body of at most `limit` bytes; what is returned with it is its place in memory.
    ///
    /// # Errors
    /// [`Problem::TooLarge`], [`Problem::Incomplete`], and those of [`QueueFull`].
    pub(crate) async fn read<B>(&self, body: B, limit: usize, from: IpAddr) -> Result<(Bytes, LongBodyPermit), Problem>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let client = client_network(from);
        let mut body = Incoming { body, read: Vec::new(), length: 0, limit, left: self.time };
        let mut long = None;
        if !body.read_to(SHORT).await? {
            long = Some(self.turn(&self.long, client).await?);
            body.read_to(usize::MAX).await?;
        }
        Ok((body.into_bytes(), LongBodyPermit(long)))
    }

    /// Waits for the turn of a body that was read to be judged.
    ///
    /// # Errors
    /// Those of [`QueueFull`].
    pub(crate) async fn turn_of(&self, body: LongBodyPermit, from: IpAddr) -> Result<UploadPermit, Problem> {
        let judged = self.turn(&self.judged, client_network(from)).await?;
        Ok(UploadPermit { _judged: judged, _body: body })
    }

    /// Reads a body, and waits for its turn.
    ///
    /// # Errors
    /// Those of [`BodyReceiver::read`] and [`BodyReceiver::turn_of`].
    pub(crate) async fn receive<B>(&self, body: B, limit: usize, from: IpAddr) -> Result<(Bytes, UploadPermit), Problem>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let (bytes, body) = self.read(body, limit, from).await?;
        Ok((bytes, self.turn_of(body, from).await?))
    }

    async fn turn(&self, places: &Arc<FairQueue>, client: IpAddr) -> Result<QueuePermit, Problem> {
        let turn = tokio::time::timeout(self.time, places.take(client)).await;
        Ok(turn.map_err(|_| Problem::Busy)??)
    }
}

/// A body that comes in.
struct Incoming<B> {
    body: B,
    /// What has come, in pieces, so that a long body is not copied each time that it grows.
    read: Vec<Vec<u8>>,
    length: usize,
    limit: usize,
    /// How long it may still be waited for. Only the client's time counts.
    left: Duration,
}

impl<B: HttpBody<Data = Bytes> + Unpin> Incoming<B> {
    /// Reads until there are more than `enough` bytes; tells whether it came to its end before.
    async fn read_to(&mut self, enough: usize) -> Result<bool, Problem> {
        let begun = Instant::now();
        let end = tokio::time::timeout(self.left, self.read_on(enough)).await.map_err(|_| Problem::Incomplete)??;
        self.left = self.left.saturating_sub(begun.elapsed());
        Ok(end)
    }

    async fn read_on(&mut self, enough: usize) -> Result<bool, Problem> {
        while self.length <= enough {
            let Some(frame) = self.body.frame().await else { return Ok(true) };
            let frame = frame.map_err(|_| Problem::Incomplete)?;
            let Ok(data) = frame.into_data() else { continue };
            self.length = self.length.saturating_add(data.len());
            if self.length > self.limit {
                return Err(Problem::TooLarge(self.limit));
            }
            match self.read.last_mut().filter(|piece| piece.len() + data.len() <= PIECE) {
                Some(piece) => piece.extend_from_slice(&data),
                None => self.read.push(data.to_vec()),
            }
        }
        Ok(false)
    }

    fn into_bytes(mut self) -> Bytes {
        match self.read.len() {
            0 | 1 => self.read.pop().unwrap_or_default().into(),
            _ => self.read.concat().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use futures_util::StreamExt as _;
    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    /// A body of these pieces, which then ends or never does.
    fn body(pieces: &[usize], ends: bool) -> impl HttpBody<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let pieces: VecDeque<Bytes> = pieces.iter().map(|length| vec![b'a'; *length].into()).collect();
        let stream = futures_util::stream::iter(pieces.into_iter().map(|piece| Ok(Frame::data(piece))));
        let rest = futures_util::stream::poll_fn(move |_| match ends {
            true => std::task::Poll::Ready(None),
            false => std::task::Poll::Pending,
        });
        StreamBody::new(stream.chain(rest))
    }

    fn receiver(change: impl FnOnce(&mut LimitConfig)) -> Arc<BodyReceiver> {
        let mut limits = LimitConfig::default();
        change(&mut limits);
        Arc::new(BodyReceiver::new(&limits))
    }

    async fn begin(receiver: &Arc<BodyReceiver>, pieces: &'static [usize], from: IpAddr, count: usize) {
        for _ in 0..count {
            let receiver = receiver.clone();
            tokio::spawn(async move { receiver.receive(body(pieces, false), usize::MAX, from).await });
        }
        tokio::task::yield_now().await;
    }

    async fn in_time<T>(work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(5), work).await.expect("it waits for others")
    }

    #[tokio::test]
    async fn slow_bodies_keep_nobody_waiting() {
        let receiver = receiver(|limits| limits.uploads = 4);
        // Short ones of one client, and long ones of which the beginning has come.
        begin(&receiver, &[1, 1], ONE, 64).await;
        begin(&receiver, &[SHORT, SHORT], ONE, 64).await;
        for pieces in [&[1][..], &[2000, 48], &[SHORT, SHORT], &[1 << 20]] {
            let (bytes, _turn) = in_time(receiver.receive(body(pieces, true), 6 << 20, OTHER)).await.unwrap();
            assert_eq!(bytes.len(), pieces.iter().sum::<usize>());
        }
        // Signatures as they are, even of the same client, and whoever else is slow.
        begin(&receiver, &[1 << 20], OTHER, 64).await;
        for from in [ONE, OTHER] {
            in_time(receiver.receive(body(&[2000], true), 6 << 20, from)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn long_bodies_in_memory_are_few() {
        let receiver = receiver(|limits| (limits.uploads, limits.upload_seconds) = (4, 1));
        let mut held = Vec::new();
        for from in [ONE, ONE, OTHER, OTHER] {
            held.push(in_time(receiver.receive(body(&[1 << 20], true), 6 << 20, from)).await.unwrap());
        }
        let late = in_time(receiver.receive(body(&[1 << 20], true), 6 << 20, OTHER)).await;
        assert!(matches!(late, Err(Problem::Busy)), "{late:?}");
        held.clear();
        in_time(receiver.receive(body(&[1 << 20], true), 6 << 20, OTHER)).await.unwrap();
    }

    #[tokio::test]
    async fn limits_of_length_and_time() {
        let receiver = receiver(|limits| limits.upload_seconds = 1);
        for pieces in [&[101][..], &[100, 1], &[SHORT, SHORT]] {
            let told = in_time(receiver.receive(body(pieces, false), 100, ONE)).await;
            assert!(matches!(told, Err(Problem::TooLarge(100))), "{told:?}");
        }
        assert_eq!(in_time(receiver.receive(body(&[99, 1], true), 100, ONE)).await.unwrap().0.len(), 100);
        assert_eq!(in_time(receiver.receive(body(&[], true), 100, ONE)).await.unwrap().0.len(), 0);
        let told = in_time(receiver.receive(body(&[1], false), 100, ONE)).await;
        assert!(matches!(told, Err(Problem::Incomplete)), "{told:?}");
    }
}
