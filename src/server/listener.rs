//! The accept loop: one task a connection, limits against slow and greedy peers, an orderly end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::App;
use crate::metrics;

/// The smallest header limit that hyper takes.
const LEAST_HEADER_BYTES: usize = 8192;
/// How long to wait when no connection can be accepted, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why serving came to an end that nobody ordered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener has no address; it cannot be used.
    #[error("the listening socket is not usable: {0}")]
    Listener(#[source] std::io::Error),
}

/// Serves `app` on `listener` until `shutdown` is cancelled; then open requests may go on until the
/// configured drain deadline.
///
/// # Errors
/// [`ServeError`] when the listener was never usable; a failing connection ends alone.
pub async fn serve(listener: TcpListener, app: App, shutdown: CancellationToken) -> Result<(), ServeError> {
    let local = listener.local_addr().map_err(ServeError::Listener)?;
    tracing::info!(listen = %local, "serving");
    let limits = app.limits();
    let (header_time, header_bytes) =
        (Duration::from_secs(limits.header_seconds), limits.header_bytes.max(LEAST_HEADER_BYTES));
    let places = Arc::new(Semaphore::new(limits.connections.clamp(1, Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    let stop = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = shutdown.cancelled() => break,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(header_time).max_buf_size(header_bytes);
        let connection = drive(http, stream, peer, app.clone(), shutdown.clone(), stop.clone());
        let open = metrics::CONNECTIONS_OPEN.open();
        metrics::CONNECTIONS.inc(metrics::Nothing);
        connections.spawn(async move {
            connection.await;
            drop(open);
            drop(place);
        });
    }
    drop(listener);
    connections.close();
    tracing::info!(connections = connections.len(), "no more connections; open requests may finish");
    if tokio::time::timeout(app.drain(), connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "the drain deadline is over; closing what is open");
        stop.cancel();
        connections.wait().await;
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are small and whole; waiting for more to send only delays them.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, place))
        }
        Err(error) => {
            tracing::warn!(error = %error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Serves one connection to its end, or until `stop`; after `shutdown` its request is the last.
async fn drive(
    http: http1::Builder,
    stream: TcpStream,
    peer: SocketAddr,
    app: App,
    shutdown: CancellationToken,
    stop: CancellationToken,
) {
    let service = service_fn(move |request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.handle(request, peer).await) }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = stop.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        // Clients hang up as they please; oc does it after each last signature.
        tracing::debug!(client = %peer, error = %error, "connection ended early");
    }
}
