//! The accept loops: a task for each connection that waits, places for so many, an orderly end.
//!
//! `workers` are the threads that accept what a `stream` is, `clients` counts places, `drive` serves
//! a connection: by `express` as long as it asks for signatures only (`message`), then by hyper, with
//! a `rewind`. `handler` is what each request passes, `pace` keeps slow clients from holding a place for
//! ever, `shutdown_signal` ends it all.

mod client_stream;
mod connection;
pub(super) mod fast_path;
pub(super) mod peer;
mod quota;
mod request;
pub(super) mod request_body;
pub(super) mod response_body;
mod shutdown;
mod timeouts;
pub(super) mod tls;
mod workers;

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics;
use crate::server::App;
use crate::server::listener::tls::Tls;
use client_stream::{Acceptor, ClientStream};
use connection::ConnectionConfig;
pub(super) use quota::ConnectionPermit;
use quota::{ClientQuotas, QuotaExceeded};
use request::ConnectionAdmission;
use shutdown::{ShutdownPhase, ShutdownSignal};
pub(super) use timeouts::{ConnectionActivity, Timer};
use workers::Workers;

/// How long to wait when no connection can be accepted, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many connections are accepted before the first of them is looked at: what is asked comes a
/// moment after the connection, and need not be waited for then.
const ACCEPT_BATCH: usize = 32;
/// How many clients at once are told that there is no place for them; more are hung up on.
const REJECTIONS: usize = 64;
/// How often, in seconds, the log says that there are not enough places.
const WARNING_INTERVAL: u64 = 10;

/// Why serving came to an end that nobody ordered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A listener has no address; it cannot be used.
    #[error("the listening socket is not usable: {0}")]
    Listener(#[source] std::io::Error),
    /// The system gives no thread to serve with.
    #[error("cannot start a thread to serve with: {0}")]
    Thread(#[source] std::io::Error),
}

/// A socket to listen on.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What TLS needs; plain HTTP/1.1 is spoken without.
    pub tls: Option<Arc<Tls>>,
}

impl Listener {
    /// Makes a listener for plain HTTP.
    pub fn plain(socket: TcpListener) -> Self {
        Self { socket, tls: None }
    }
}

/// What all accept loops share.
struct ServerContext {
    app: App,
    connections_config: ConnectionConfig,
    clients: Arc<ClientQuotas>,
    rejections: Arc<Semaphore>,
    connections: TaskTracker,
    shutdown_signal: ShutdownSignal,
    started: Instant,
    warned: AtomicU64,
}

/// Serves `app` on `listeners` until `shutdown` is cancelled; then open requests may go on until the
/// configured drain deadline. Certificates are read anew when their files change.
///
/// # Errors
/// [`ServeError`] when a listener was never usable; a failing connection ends alone.
pub async fn serve(listeners: Vec<Listener>, app: App, shutdown: CancellationToken) -> Result<(), ServeError> {
    let limits = app.limits();
    let server = Arc::new(ServerContext {
        connections_config: ConnectionConfig::new(&limits),
        clients: Arc::new(ClientQuotas::new(&limits)),
        rejections: Arc::new(Semaphore::new(REJECTIONS)),
        connections: TaskTracker::new(),
        shutdown_signal: ShutdownSignal::default(),
        started: Instant::now(),
        warned: AtomicU64::new(0),
        app,
    });
    let mut watched: Vec<Arc<Tls>> = Vec::new();
    for listener in &listeners {
        let local = listener.socket.local_addr().map_err(ServeError::Listener)?;
        tracing::info!(listen = %local, tls = listener.tls.is_some(), "serving");
        if let Some(tls) = &listener.tls
            && !watched.iter().any(|known| Arc::ptr_eq(known, tls))
        {
            watched.push(tls.clone());
            tokio::spawn(tls.clone().watch(shutdown.clone()));
        }
    }
    let workers = Workers::start(&server, listeners, limits.threads)?;
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = workers.closed() => {}
    }
    server.shutdown_signal.send(ShutdownPhase::Drain);
    workers.closed().await;
    let connections = &server.connections;
    connections.close();
    tracing::info!(connections = connections.len(), "no more connections; open requests may finish");
    if tokio::time::timeout(server.app.drain(), connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "the drain deadline is over; closing what is open");
        server.shutdown_signal.send(ShutdownPhase::Stop);
        connections.wait().await;
    }
    workers.end().await;
    server.app.finish().await;
    Ok(())
}

impl ServerContext {
    /// Accepts connections until shutdown begins; never waits for a place, so that those for whom
    /// there is none hear it at once.
    async fn accept(self: Arc<Self>, socket: Acceptor, tls: Option<Arc<Tls>>) {
        let mut shutdown_signal = self.shutdown_signal.subscribe();
        let mut accepted = Vec::with_capacity(ACCEPT_BATCH);
        loop {
            let next = poll_fn(|context| {
                if shutdown_signal.poll(context).is_some() {
                    return Poll::Ready(None);
                }
                let next = self.accept_some(&socket, tls.as_ref(), &mut accepted, context);
                accepted.drain(..).for_each(|served| self.start(served, context));
                next.map(Some)
            });
            match next.await {
                None => return,
                // There may be more, but other tasks need their turn.
                Some(Ok(())) => tokio::task::yield_now().await,
                Some(Err(error)) => {
                    tracing::warn!(error = %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Accepts who waits, some at a time; ready when there may be more, or it fails.
    fn accept_some(
        self: &Arc<Self>,
        socket: &Acceptor,
        tls: Option<&Arc<Tls>>,
        accepted: &mut Vec<BoxFuture<'static, ()>>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        while accepted.len() < ACCEPT_BATCH {
            match ready!(socket.poll_accept(context)) {
                Ok((stream, peer)) => accepted.extend(self.admit(stream, peer, tls)),
                // The client is gone already.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Finds a place for a connection, and returns all that it takes to serve it.
    fn admit(
        self: &Arc<Self>,
        stream: ClientStream,
        peer: SocketAddr,
        tls: Option<&Arc<Tls>>,
    ) -> Option<BoxFuture<'static, ()>> {
        let admission = match self.clients.connect(peer.ip()) {
            Ok(permit) => ConnectionAdmission::Admitted(Arc::new(permit)),
            Err(reason) => {
                metrics::CONNECTIONS_REFUSED.inc(metrics::Nothing);
                self.warn(peer, reason);
                match self.rejections.clone().try_acquire_owned() {
                    Ok(permit) => ConnectionAdmission::Rejected(reason, permit),
                    Err(_) => return None,
                }
            }
        };
        metrics::CONNECTIONS.inc(metrics::Nothing);
        Some(match tls {
            None => Box::pin(connection::plain(self.clone(), stream, peer, admission)),
            Some(tls) => Box::pin(connection::secured(self.clone(), stream, peer, tls.clone(), admission)),
        })
    }

    /// Begins to serve a connection. Mostly that is all: what is asked is there, and answered. Only
    /// what has to wait becomes a task of its own.
    fn start(&self, mut served: BoxFuture<'static, ()>, context: &mut Context<'_>) {
        // As in a task: a panic ends the connection only.
        let polled = catch_unwind(AssertUnwindSafe(|| served.as_mut().poll(context)));
        if matches!(polled, Ok(Poll::Pending)) {
            self.connections.spawn(served);
        }
    }

    fn warn(&self, peer: SocketAddr, reason: QuotaExceeded) {
        let now = self.started.elapsed().as_secs() + WARNING_INTERVAL;
        let last = self.warned.load(Ordering::Relaxed);
        if now >= last + WARNING_INTERVAL
            && self.warned.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            let limit = match reason {
                QuotaExceeded::Client => "limits.connections_per_client",
                QuotaExceeded::Server => "limits.connections",
            };
            tracing::warn!(client = %peer, limit, "too many connections; some are turned away");
        }
    }
}
