//! The request log: one line a request, also for those whose client hung up; and their counts.
//!
//! Neither query strings nor credentials are ever in it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{Method, Request, Uri};

use crate::metrics::{self, Face, MethodClass, Open, Outcome};
use crate::server::caller;
use crate::server::error::Problem;
use crate::server::listener::response_body::Answer;
use crate::server::shown_path::shown_path;
use crate::server::trace_context;

/// What nginx calls it when the client was gone before there was an answer.
const CLIENT_GONE: u16 = 499;
/// Returns a number for a request, hard to guess and hardly ever the same twice.
pub(crate) fn request_id() -> u64 {
    static SEED: OnceLock<RandomState> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    SEED.get_or_init(RandomState::new).hash_one(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A line to be written when the request is over, whichever way.
pub(crate) struct RequestLog {
    method: Method,
    uri: Uri,
    from: IpAddr,
    peer: SocketAddr,
    forwarded_for: Option<String>,
    id: u64,
    client_id: Option<Box<str>>,
    trace_id: Option<Box<str>>,
    begun: Instant,
    status: u16,
    /// What answers; known once the path is read.
    pub(crate) face: Face,
    outcome: Outcome,
    _in_flight: Open,
}

impl RequestLog {
    /// Begins it; `from` is the client's address, by the word of trusted proxies.
    pub(crate) fn new<B>(request: &Request<B>, from: IpAddr, peer: SocketAddr, id: u64) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            from,
            peer,
            forwarded_for: caller::forwarded_for(request.headers()),
            id,
            client_id: trace_context::client_id(request.headers()).map(Into::into),
            trace_id: trace_context::trace_id(request.headers()).map(Into::into),
            begun: Instant::now(),
            status: CLIENT_GONE,
            face: Face::Other,
            outcome: Outcome::ClientGone,
            _in_flight: metrics::REQUESTS_IN_FLIGHT.open(),
        }
    }

    /// Makes the answer out of what came, and notes how it went.
    pub(crate) fn answer(&mut self, result: Result<Answer, Problem>) -> Answer {
        let reason = result.as_ref().err().and_then(Problem::outcome);
        let answer = result.unwrap_or_else(Problem::into_answer);
        self.status = answer.status().as_u16();
        // What the proxy hands on is the upstream's own fault, told by its status alone.
        let handed_on = matches!(self.face, Face::Proxy | Face::Token) && self.status >= 500;
        let reason = reason.or(handed_on.then_some(Outcome::UpstreamFailing));
        self.outcome = reason.unwrap_or_else(|| Outcome::of_status(self.status));
        answer
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        metrics::REQUESTS.inc((self.face, MethodClass::of(self.method.as_str()), self.outcome));
        metrics::REQUEST_SECONDS.observe(self.face, took);
        tracing::info!(
            target: "countersign::request",
            method = %self.method,
            path = &*shown_path(self.uri.path()),
            status = self.status,
            duration_ms = took.as_micros() as f64 / 1000.0,
            client = %self.from,
            peer = %self.peer,
            forwarded_for = self.forwarded_for.as_deref(),
            request_id = format_args!("{:016x}", self.id),
            client_request_id = self.client_id.as_deref(),
            trace_id = self.trace_id.as_deref(),
            "request"
        );
    }
}
