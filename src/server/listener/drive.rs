//! One connection from its first byte to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::door::{Admission, Door};
use super::pace::{Paced, Pulse};
use crate::config::{LimitConfig, Scheme};
use crate::server::App;
use crate::server::inbound::Rules;
use crate::server::peer::{ClientCertificate, Connection, PeerIdentity};
use crate::server::tls::Tls;

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
    header: Duration,
    idle: Duration,
    write: Duration,
    handshake: Duration,
}

/// The orders that all connections hear.
#[derive(Clone)]
pub(super) struct Orders {
    /// The requests in flight are the last ones.
    pub(super) shutdown: CancellationToken,
    /// The end, at once.
    pub(super) stop: CancellationToken,
}

impl Manner {
    pub(super) fn new(limits: &LimitConfig) -> Self {
        let header_bytes = limits.header_bytes.max(LEAST_HEADER_BYTES);
        let (header, idle) = (Duration::from_secs(limits.header_seconds), Duration::from_secs(limits.idle_seconds));
        let mut http1 = http1::Builder::new();
        // Its clock runs from the end of the last request; that of `Paced` from a header's first byte.
        http1.timer(TokioTimer::new()).header_read_timeout(idle + header).max_buf_size(header_bytes);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams.max(1))
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(OWN_RESETS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        Self {
            http1,
            http2,
            rules: Rules::new(limits),
            header,
            idle,
            write: Duration::from_secs(limits.write_seconds),
            handshake: Duration::from_secs(limits.handshake_seconds),
        }
    }

    /// Serves one connection until its end.
    pub(super) async fn drive(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<&Tls>,
        app: App,
        admission: Admission,
        orders: Orders,
    ) {
        let header = match admission {
            Admission::Seated(_) => self.header,
            Admission::TurnedAway(..) => self.header.min(TURN_AWAY),
        };
        let pulse = Pulse::new();
        let io = Paced::new(stream, pulse.clone(), header, self.write);
        let door = |connection| {
            let (pulse, rules) = (pulse.clone(), self.rules);
            Arc::new(Door { app, connection, admission, pulse, rules })
        };
        let Some(tls) = tls else {
            return self.http1(io, door(Connection::plain(peer)), orders).await;
        };
        let handshake = tokio::time::timeout(self.handshake, TlsAcceptor::from(tls.config()).accept(io));
        let handshake = tokio::select! {
            ended = handshake => ended,
            () = orders.stop.cancelled() => return,
        };
        let io = match handshake {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => return tracing::debug!(client = %peer, %error, "no TLS connection"),
            Err(_) => return tracing::debug!(client = %peer, "the TLS handshake takes too long"),
        };
        let Some(identity) = identity(&io) else {
            return tracing::warn!(client = %peer, "the client's certificate cannot be read");
        };
        let connection = Connection { peer, scheme: Scheme::Https, identity };
        if io.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.http2(io, door(connection), orders).await;
        } else {
            self.http1(io, door(connection), orders).await;
        }
    }

    async fn http1<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, io: I, door: Arc<Door>, orders: Orders) {
        let (peer, pulse) = (door.connection.peer, door.pulse.clone());
        let service = service_fn(move |request| {
            let door = door.clone();
            async move { Ok::<_, Infallible>(door.answer(request).await) }
        });
        let mut connection = std::pin::pin!(self.http1.serve_connection(TokioIo::new(io), service));
        let mut last = false;
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = orders.stop.cancelled() => return,
                () = last_call(&orders.shutdown, &pulse), if !last => {
                    last = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        };
        note(peer, ended);
    }

    async fn http2<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, io: I, door: Arc<Door>, orders: Orders) {
        let (peer, pulse) = (door.connection.peer, door.pulse.clone());
        let idle = match door.admission {
            Admission::Seated(_) => self.idle,
            Admission::TurnedAway(..) => self.idle.min(TURN_AWAY),
        };
        pulse.multiplexed();
        let service = service_fn(move |request| {
            let door = door.clone();
            // Boxed: every stream is a task of its own here, mostly a small one.
            Box::pin(async move { Ok::<_, Infallible>(door.answer(request).await) })
                as Pin<Box<dyn Future<Output = _> + Send>>
        });
        let mut connection = std::pin::pin!(self.http2.serve_connection(TokioIo::new(io), service));
        let mut look = tokio::time::interval(idle.min(self.write).div_f32(4.0).max(Duration::from_millis(100)));
        let mut last = false;
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = orders.stop.cancelled() => return,
                () = orders.shutdown.cancelled(), if !last => {
                    last = true;
                    GracefulConnection::graceful_shutdown(connection.as_mut());
                }
                _ = look.tick() => {
                    if pulse.stalled().is_some_and(|still| still > self.write) {
                        return tracing::debug!(client = %peer, "the client does not read its answers");
                    }
                    let Some(still) = pulse.idle().filter(|still| *still > idle) else { continue };
                    if still > idle + self.write {
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
}

/// Waits for the order to stop; and then, on a connection that was just accepted, a moment for the
/// request that may be on its way, which nobody else will answer any more.
async fn last_call(shutdown: &CancellationToken, pulse: &Pulse) {
    shutdown.cancelled().await;
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
