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
use crate::server::listener::ServerContext;
use crate::server::listener::client_stream::ClientStream;
use crate::server::listener::fast_path;
use crate::server::listener::fast_path::rewind::Rewind;
use crate::server::listener::peer::{ClientCertificate, Connection, PeerIdentity};
use crate::server::listener::request::{ConnectionAdmission, RequestHandler};
use crate::server::listener::request_body::BodyLimits;
use crate::server::listener::shutdown::ShutdownPhase;
use crate::server::listener::timeouts::{ConnectionActivity, TimedStream, Timeouts};
use crate::server::listener::tls::Tls;

/// The smallest header limit that hyper takes.
const LEAST_HEADER_BYTES: usize = 8192;
/// How long those have who are only told that there is no place for them.
const REJECTED_TIMEOUT: Duration = Duration::from_secs(5);
/// What a client may send before it is read, for one request and for a whole HTTP/2 connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What is kept for a client that does not read, for each request of HTTP/2.
const SEND_BUFFER: usize = 256 * 1024;
/// How often a silent HTTP/2 client is asked whether it is there, and how long it has to answer.
const PING: Duration = Duration::from_secs(20);
/// How long a new connection may take to its first request when the phase to stop has come.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// Streams that a client may reset before they are even looked at ("rapid reset").
const PENDING_RESETS: usize = 20;
/// Streams that we reset ourselves for a client's faults, before the connection ends.
const OWN_RESETS: usize = 256;

/// How connections are served, alike for all.
pub(super) struct ConnectionConfig {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    body_limits: BodyLimits,
    timeouts: Timeouts,
    handshake: Duration,
    fast_path: bool,
}

impl ConnectionConfig {
    pub(super) fn new(limits: &LimitConfig) -> Self {
        let header_bytes = limits.header_bytes.max(LEAST_HEADER_BYTES);
        let mut http1 = http1::Builder::new();
        // The clocks are those of `TimedStream`: hyper's would be set anew for each request.
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
        let timeouts = Timeouts {
            header: Duration::from_secs(limits.header_seconds),
            idle: Duration::from_secs(limits.idle_seconds),
            write: Duration::from_secs(limits.write_seconds),
        };
        let handshake = Duration::from_secs(limits.handshake_seconds);
        Self { http1, http2, body_limits: BodyLimits::new(limits), timeouts, handshake, fast_path: limits.fast_path }
    }

    fn timeouts(&self, admission: &ConnectionAdmission) -> Timeouts {
        match admission {
            ConnectionAdmission::Admitted(_) => self.timeouts,
            ConnectionAdmission::Rejected(..) => Timeouts {
                header: self.timeouts.header.min(REJECTED_TIMEOUT),
                idle: self.timeouts.idle.min(REJECTED_TIMEOUT),
                ..self.timeouts
            },
        }
    }
}

/// Serves one connection until its end.
///
/// Not an `async fn`, which would keep its arguments twice; what is rarely there is boxed: all this
/// is held for each connection, and thousands may be idle.
pub(super) fn plain(
    server: Arc<ServerContext>,
    stream: ClientStream,
    peer: SocketAddr,
    admission: ConnectionAdmission,
) -> impl Future<Output = ()> + Send {
    let activity = ConnectionActivity::new();
    let io = TimedStream::new(stream, activity.clone(), server.connections_config.timeouts(&admission));
    let body_limits = server.connections_config.body_limits;
    serve_http1(
        io,
        Arc::new(RequestHandler { server, connection: Connection::plain(peer), admission, activity, body_limits }),
    )
}

/// As [`plain`], over TLS.
pub(super) async fn secured(
    server: Arc<ServerContext>,
    stream: ClientStream,
    peer: SocketAddr,
    tls: Arc<Tls>,
    admission: ConnectionAdmission,
) {
    let activity = ConnectionActivity::new();
    let timeouts = server.connections_config.timeouts(&admission);
    let io = TimedStream::new(stream, activity.clone(), timeouts);
    let accept = TlsAcceptor::from(tls.config()).accept(io);
    drop(tls);
    let handshake = Box::pin(tokio::time::timeout(server.connections_config.handshake, accept));
    let handshake = tokio::select! {
        ended = handshake => ended,
        () = server.shutdown_signal.wait_for(ShutdownPhase::Stop) => return,
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
    let body_limits = server.connections_config.body_limits;
    let handler = Arc::new(RequestHandler { server, connection, admission, activity, body_limits });
    if io.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(http2(io, handler, timeouts)).await;
    } else {
        serve_http1(io, handler).await;
    }
}

/// Serves HTTP/1: the short way as far as it leads. What hyper needs is there only then.
async fn serve_http1<I>(io: I, handler: Arc<RequestHandler>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let left = if handler.server.connections_config.fast_path {
        fast_path::serve(io, &handler).await
    } else {
        Ok(Some(Rewind::new(Bytes::new(), io)))
    };
    match left {
        Ok(Some(io)) => Box::pin(http1(io, handler)).await,
        Ok(None) => {}
        Err(error) => tracing::debug!(client = %handler.connection.peer, %error, "connection ended early"),
    }
}

fn http1<I>(io: I, handler: Arc<RequestHandler>) -> impl Future<Output = ()> + Send
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = handler.clone();
    let service = service_fn(move |request| {
        let answer = asked.clone().answer(request.map(Some));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut connection = handler.server.connections_config.http1.serve_connection(TokioIo::new(io), service);
    async move {
        let mut shutdown_signal = handler.server.shutdown_signal.subscribe();
        let served = poll_fn(|context| match Pin::new(&mut connection).poll(context) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending if shutdown_signal.poll(context).is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        });
        if let Some(ended) = served.await {
            return log_end(handler.connection.peer, ended);
        }
        let orderly = async {
            tokio::select! {
                ended = Pin::new(&mut connection) => return ended,
                () = await_first_request(&handler.activity) => {}
            }
            Pin::new(&mut connection).graceful_shutdown();
            Pin::new(&mut connection).await
        };
        Box::pin(async {
            tokio::select! {
                ended = orderly => log_end(handler.connection.peer, ended),
                () = handler.server.shutdown_signal.wait_for(ShutdownPhase::Stop) => {}
            }
        })
        .await;
    }
}

async fn http2<I>(io: I, handler: Arc<RequestHandler>, timeouts: Timeouts)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (peer, activity, server) = (handler.connection.peer, handler.activity.clone(), handler.server.clone());
    activity.multiplexed();
    let service = service_fn(move |request| {
        let answer = handler.clone().answer(request.map(Some));
        // Boxed: every stream is a task of its own here, mostly a small one.
        Box::pin(async move { Ok::<_, Infallible>(answer.await) }) as Pin<Box<dyn Future<Output = _> + Send>>
    });
    let mut connection = pin!(server.connections_config.http2.serve_connection(TokioIo::new(io), service));
    let (idle, write) = (timeouts.idle, timeouts.write);
    let mut check = tokio::time::interval(idle.min(write).div_f32(4.0).max(Duration::from_millis(100)));
    let (mut drain, mut stop) = (
        pin!(server.shutdown_signal.wait_for(ShutdownPhase::Drain)),
        pin!(server.shutdown_signal.wait_for(ShutdownPhase::Stop)),
    );
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stop.as_mut() => return,
            () = drain.as_mut(), if !draining => {
                draining = true;
                GracefulConnection::graceful_shutdown(connection.as_mut());
            }
            _ = check.tick() => {
                if activity.stalled().is_some_and(|still| still > write) {
                    return tracing::debug!(client = %peer, "the client does not read its answers");
                }
                let Some(still) = activity.idle().filter(|still| *still > idle) else { continue };
                if still > idle + write {
                    return tracing::debug!(client = %peer, "the client does not end its connection");
                }
                if !draining {
                    draining = true;
                    GracefulConnection::graceful_shutdown(connection.as_mut());
                }
            }
        }
    };
    log_end(peer, ended);
}

/// When the phase to stop has come: a moment, on a connection that was just accepted, for the
/// request that may be on its way, which nobody else will answer any more.
async fn await_first_request(activity: &ConnectionActivity) {
    let begun = Instant::now();
    while !activity.has_begun() && begun.elapsed() < FIRST_REQUEST {
        tokio::time::sleep(FIRST_REQUEST / 20).await;
    }
}

/// ClientQuotas hang up as they please; oc does it after each draining signature.
fn log_end(peer: SocketAddr, ended: hyper::Result<()>) {
    if let Err(error) = ended {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::debug!(client = %peer, %error, cause, "connection ended early");
    }
}

/// Reads what the client proved in the handshake; `None` when that cannot be read.
fn identity(io: &TlsStream<TimedStream>) -> Option<PeerIdentity> {
    let Some(leaf) = io.get_ref().1.peer_certificates().and_then(<[_]>::first) else {
        return Some(PeerIdentity::default());
    };
    Some(PeerIdentity { certificate: Some(Arc::new(ClientCertificate::read(leaf)?)) })
}
