//! One connection from its first byte to its end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{LimitConfig, Scheme};
use crate::server::listener::House;
use crate::server::listener::client_stream::ClientStream;
use crate::server::listener::fast_path;
use crate::server::listener::fast_path::rewind::Rewind;
use crate::server::listener::peer::{ClientCertificate, Connection, PeerIdentity};
use crate::server::listener::request::{Admission, Door};
use crate::server::listener::request_body::Rules;
use crate::server::listener::shutdown::Order;
use crate::server::listener::timeouts::{Paced, Patience, Pulse};
use crate::server::listener::tls::Tls;

/// The smallest header limit that hyper takes.
const LEAST_HEADER_BYTES: usize = 8192;
/// How long those have who are only told that there is no place for them.
const TURN_AWAY: Duration = Duration::from_secs(5);
/// What a client may send before it is read, for one request and for a whole HTTP/2 connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is kept for a client that does not read, for each request of HTTP/2.
const SEND_BUFFER: usize = 256 * 1024;
/// How often a silent HTTP/2 client is asked whether it is there, and how long it has to answer.
const PING: Duration = Duration::from_secs(20);
/// How long a new connection may take to its first request when the order to stop has come.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Streams that a client may reset before they are even looked at ("rapid reset").
const PENDING_RESETS: usize = 20;
/// Streams that we reset ourselves for a client's faults, before the connection ends.
const OWN_RESETS: usize = 256;

/// How connections are served, alike for all.
pub(super) struct Manner {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    rules: Rules,
    patience: Patience,
    handshake: Duration,
    fast_path: bool,
}

impl Manner {
    pub(super) fn new(limits: &LimitConfig) -> Self {
        let header_bytes = limits.header_bytes.max(LEAST_HEADER_BYTES);
        let mut http1 = http1::Builder::new();
        // The clocks are those of `Paced`: hyper's would be set anew for each request.
        http1.header_read_timeout(None).max_header_size(header_bytes).max_buf_size(header_bytes);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams.max(1))
            // What reaches this number is refused, and so is what is beyond it.
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX).saturating_add(1))
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(OWN_RESETS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let patience = Patience {
            header: Duration::from_secs(limits.header_seconds),
            idle: Duration::from_secs(limits.idle_seconds),
            write: Duration::from_secs(limits.write_seconds),
        };
        let handshake = Duration::from_secs(limits.handshake_seconds);
        Self { http1, http2, rules: Rules::new(limits), patience, handshake, fast_path: limits.fast_path }
    }

    fn patience(&self, admission: &Admission) -> Patience {
        match admission {
            Admission::Seated(_) => self.patience,
            Admission::TurnedAway(..) => Patience {
                header: self.patience.header.min(TURN_AWAY),
                idle: self.patience.idle.min(TURN_AWAY),
                ..self.patience
            },
        }
    }
}

/// Serves one connection until its end.
///
/// Not an `async fn`, which would keep its arguments twice; what is rarely there is boxed: all this
/// is held for each connection, and thousands may be idle.
pub(super) fn plain(
    house: Arc<House>,
    stream: ClientStream,
    peer: SocketAddr,
    admission: Admission,
) -> impl Future<Output = ()> + Send {
    let pulse = Pulse::new();
    let io = Paced::new(stream, pulse.clone(), house.manner.patience(&admission));
    let rules = house.manner.rules;
    one_by_one(io, Arc::new(Door { house, connection: Connection::plain(peer), admission, pulse, rules }))
}

/// As [`plain`], over TLS.
pub(super) async fn secured(
    house: Arc<House>,
    stream: ClientStream,
    peer: SocketAddr,
    tls: Arc<Tls>,
    admission: Admission,
) {
    let pulse = Pulse::new();
    let patience = house.manner.patience(&admission);
    let io = Paced::new(stream, pulse.clone(), patience);
    let accept = TlsAcceptor::from(tls.config()).accept(io);
    drop(tls);
    let handshake = Box::pin(tokio::time::timeout(house.manner.handshake, accept));
    let handshake = tokio::select! {
        ended = handshake => ended,
        () = house.orders.heard(Order::Stop) => return,
    };
    let io = match handshake {
        Ok(Ok(io)) => Box::new(io),
        Ok(Err(error)) => return tracing::debug!(client = %peer, %error, "no TLS connection"),
        Err(_) => return tracing::debug!(client = %peer, "the TLS handshake takes too long"),
    };
    let Some(identity) = identity(&io) else {
        return tracing::warn!(client = %peer, "the client's certificate cannot be read");
    };
    let connection = Connection { peer, scheme: Scheme::Https, identity };
    let rules = house.manner.rules;
    let door = Arc::new(Door { house, connection, admission, pulse, rules });
    if io.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(http2(io, door, patience)).await;
    } else {
        one_by_one(io, door).await;
    }
}

/// Serves HTTP/1: the short way as far as it leads. What hyper needs is there only then.
async fn one_by_one<I>(io: I, door: Arc<Door>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let left = if door.house.manner.fast_path {
        fast_path::serve(io, &door).await
    } else {
        Ok(Some(Rewind::new(Bytes::new(), io)))
    };
    match left {
        Ok(Some(io)) => Box::pin(http1(io, door)).await,
        Ok(None) => {}
        Err(error) => tracing::debug!(client = %door.connection.peer, %error, "connection ended early"),
    }
}

fn http1<I>(io: I, door: Arc<Door>) -> impl Future<Output = ()> + Send
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = door.clone();
    let service = service_fn(move |request| {
        let answer = asked.clone().answer(request.map(Some));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut connection = door.house.manner.http1.serve_connection(TokioIo::new(io), service);
    async move {
        let mut orders = door.house.orders.ear();
        let served = poll_fn(|context| match Pin::new(&mut connection).poll(context) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if orders.hear(context).is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(ended) = served.await {
            return note(door.connection.peer, ended);
        }
        let orderly = async {
            tokio::select! {
                ended = Pin::new(&mut connection) => return ended,
                () = last_call(&door.pulse) => {}
            }
            Pin::new(&mut connection).graceful_shutdown();
            Pin::new(&mut connection).await
        };
        Box::pin(async {
            tokio::select! {
                ended = orderly => note(door.connection.peer, ended),
                () = door.house.orders.heard(Order::Stop) => {}
            }
        })
        .await;
    }
}

async fn http2<I>(io: I, door: Arc<Door>, patience: Patience)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (peer, pulse, house) = (door.connection.peer, door.pulse.clone(), door.house.clone());
    pulse.multiplexed();
    let service = service_fn(move |request| {
        let answer = door.clone().answer(request.map(Some));
        // Boxed: every stream is a task of its own here, mostly a small one.
        Box::pin(async move { Ok::<_, Infallible>(answer.await) }) as Pin<Box<dyn Future<Output = _> + Send>>
    });
    let mut connection = pin!(house.manner.http2.serve_connection(TokioIo::new(io), service));
    let (idle, write) = (patience.idle, patience.write);
    let mut look = tokio::time::interval(idle.min(write).div_f32(4.0).max(Duration::from_millis(100)));
    let (mut drain, mut stop) = (pin!(house.orders.heard(Order::Drain)), pin!(house.orders.heard(Order::Stop)));
    let mut last = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stop.as_mut() => return,
            () = drain.as_mut(), if !last => {
                last = true;
                GracefulConnection::graceful_shutdown(connection.as_mut());
            }
            _ = look.tick() => {
                if pulse.stalled().is_some_and(|still| still > write) {
                    return tracing::debug!(client = %peer, "the client does not read its answers");
                }
                let Some(still) = pulse.idle().filter(|still| *still > idle) else { continue };
                if still > idle + write {
                    return tracing::debug!(client = %peer, "the client does not end its connection");
                }
                if !last {
                    last = true;
                    GracefulConnection::graceful_shutdown(connection.as_mut());
                }
            }
        }
    };
    note(peer, ended);
}

/// When the order to stop has come: a moment, on a connection that was just accepted, for the
/// request that may be on its way, which nobody else will answer any more.
async fn last_call(pulse: &Pulse) {
    let begun = Instant::now();
    while !pulse.has_begun() && begun.elapsed() < FIRST_REQUEST {
        tokio::time::sleep(FIRST_REQUEST / 20).await;
    }
}

/// Clients hang up as they please; oc does it after each last signature.
fn note(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::debug!(client = %peer, %error, cause, "connection ended early");
    }
}

/// Reads what the client proved in the handshake; `None` when that cannot be read.
fn identity(io: &TlsStream<Paced>) -> Option<PeerIdentity> {
    let Some(leaf) = io.get_ref().1.peer_certificates().and_then(<[_]>::first) else {
        return Some(PeerIdentity::default());
    };
    Some(PeerIdentity { certificate: Some(Arc::new(ClientCertificate::read(leaf)?)) })
}
