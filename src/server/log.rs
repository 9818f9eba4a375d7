//! The request log: one line a request, also for those whose client hung up.
//!
//! Neither query strings nor credentials are ever in it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderValue, Method, Request, StatusCode, Uri};

use super::caller::FORWARDED_FOR;

/// What nginx calls it when the client was gone before there was an answer.
const CLIENT_GONE: u16 = 499;
/// How much of a path is written.
const PATH_SHOWN: usize = 512;

/// Returns a number for a request, hard to guess and never the same twice in one process.
pub(super) fn request_id() -> u64 {
    static SEED: OnceLock<RandomState> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    SEED.get_or_init(RandomState::new).hash_one(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A line to be written when the request is over, whichever way.
pub(super) struct RequestLog {
    method: Method,
    uri: Uri,
    peer: SocketAddr,
    forwarded_for: Option<HeaderValue>,
    id: u64,
    begun: Instant,
    status: u16,
}

impl RequestLog {
    pub(super) fn new<B>(request: &Request<B>, peer: SocketAddr, id: u64) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            peer,
            forwarded_for: request.headers().get(FORWARDED_FOR).cloned(),
            id,
            begun: Instant::now(),
            status: CLIENT_GONE,
        }
    }

    /// Writes the line with the status of the answer.
    pub(super) fn finish(mut self, status: StatusCode) {
        self.status = status.as_u16();
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        let path = self.uri.path();
        let shown = path.char_indices().nth(PATH_SHOWN).map_or(path, |(end, _)| path.get(..end).unwrap_or_default());
        let forwarded_for = self.forwarded_for.as_ref().and_then(|v| v.to_str().ok());
        tracing::info!(
            target: "countersign::request",
            method = %self.method,
            path = shown,
            status = self.status,
            duration_ms = self.begun.elapsed().as_micros() as f64 / 1000.0,
            client = %self.peer,
            forwarded_for,
            request_id = format_args!("{:016x}", self.id),
            "request"
        );
    }
}
