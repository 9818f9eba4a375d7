//! The request log: one line a request, also for those whose client hung up; and their counts.
//!
//! Neither query strings nor credentials are ever in it.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::{HeaderMap, Method, Request, Uri};

use super::body::Answer;
use super::caller::{self, FORWARDED_FOR};
use super::error::{Problem, shorten};
use super::trace;
use crate::metrics::{self, Face, MethodClass, Open, Outcome};

/// What nginx calls it when the client was gone before there was an answer.
const CLIENT_GONE: u16 = 499;
/// How much of a path is written.
const PATH_SHOWN: usize = 512;
/// How much of what proxies say of a request's way is written.
const WAY_SHOWN: usize = 512;
/// What a query, or an address with a password, begins with where a client has put it into a path.
const SECRETS: [&str; 13] = [
    "?",
    "%3f",
    "token=",
    "token%3d",
    "password=",
    "password%3d",
    "passwd=",
    "secret=",
    "secret%3d",
    "bearer%20",
    "basic%20",
    "://",
    "%3a%2f%2f",
];

/// Returns the part of a path that is fit for a log: a query that was escaped into it, and what
/// stands like `user:password@` in it, is left out.
pub(super) fn shown_path(path: &str) -> Cow<'_, str> {
    let strange = |pair: &[u8]| match pair {
        [_, b'%' | b':' | b'?'] => true,
        // The last letters of the words above.
        [before, b'='] => matches!(before.to_ascii_lowercase(), b'n' | b'd' | b't'),
        _ => false,
    };
    if path.len() <= PATH_SHOWN && !path.as_bytes().windows(2).any(strange) {
        return Cow::Borrowed(path);
    }
    let lower = path.to_ascii_lowercase();
    let end = SECRETS.iter().filter_map(|start| lower.find(start)).min().unwrap_or(path.len());
    let known = path.get(..end).unwrap_or_default();
    let shown = known.split('/').map(|part| if is_userinfo(part) { "…" } else { part }).collect::<Vec<_>>().join("/");
    let shown = shorten(&shown, PATH_SHOWN);
    Cow::Owned(if end < path.len() { shown + "…" } else { shown })
}

/// Tells whether a part of a path looks like `user:password@host`, escaped or not. A digest behind
/// a name and a tag does not.
fn is_userinfo(part: &str) -> bool {
    let plain = part.to_ascii_lowercase().replace("%3a", ":").replace("%40", "@");
    plain.rsplit_once('@').is_some_and(|(before, after)| before.contains(':') && !after.starts_with("sha"))
}

/// Returns what proxies say of a request's way: addresses, and nothing else that may stand there.
pub(super) fn forwarded_for(headers: &HeaderMap) -> Option<String> {
    let fields = headers.get_all(&FORWARDED_FOR);
    let hops = fields.iter().flat_map(|field| field.to_str().unwrap_or_default().split(',')).map(str::trim);
    let shown = hops.map(|said| if caller::hop(said).is_some() { said } else { "unknown" }).collect::<Vec<_>>();
    (!shown.is_empty()).then(|| shorten(&shown.join(", "), WAY_SHOWN))
}

/// Returns a number for a request, hard to guess and hardly ever the same twice.
pub(super) fn request_id() -> u64 {
    static SEED: OnceLock<RandomState> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    SEED.get_or_init(RandomState::new).hash_one(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A line to be written when the request is over, whichever way.
pub(super) struct RequestLog {
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
    pub(super) face: Face,
    outcome: Outcome,
    _in_flight: Open,
}

impl RequestLog {
    /// Begins it; `from` is the client's address, by the word of trusted proxies.
    pub(super) fn new<B>(request: &Request<B>, from: IpAddr, peer: SocketAddr, id: u64) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            from,
            peer,
            forwarded_for: forwarded_for(request.headers()),
            id,
            client_id: trace::client_id(request.headers()).map(Into::into),
            trace_id: trace::trace_id(request.headers()).map(Into::into),
            begun: Instant::now(),
            status: CLIENT_GONE,
            face: Face::Other,
            outcome: Outcome::ClientGone,
            _in_flight: metrics::REQUESTS_IN_FLIGHT.open(),
        }
    }

    /// Makes the answer out of what came, and notes how it went.
    pub(super) fn answer(&mut self, result: Result<Answer, Problem>) -> Answer {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_without_secrets() {
        for path in [
            "/lookaside/birds/bluebird@sha256=ab/signature-1",
            "/lookaside/birds/bluebird%40sha256%3Dab/signature-1",
            "/v2/birds/manifests/sha256:ab",
            "/v2/r.example:5000/x/manifests/sha256:ab",
            "/x:1@sha256:ab",
            "/",
        ] {
            assert_eq!(shown_path(path), path);
        }
        for (path, shown) in [
            ("/lookaside/x%3Ftoken=secret", "/lookaside/x…"),
            ("/lookaside/x%3ftoken%3Dsecret", "/lookaside/x…"),
            ("/lookaside/x;token=secret", "/lookaside/x;…"),
            ("/http://bob:secret@host/x", "/http…"),
            ("//bob:secret@host/x", "//…/x"),
            ("/bob%3Asecret%40host/x", "/…/x"),
        ] {
            assert_eq!(shown_path(path), shown);
        }
        assert_eq!(shown_path(&"/x".repeat(400)).chars().count(), PATH_SHOWN + 1);
    }

    #[test]
    fn the_way_of_a_request_is_addresses() {
        let headers = |values: &[&str]| {
            let pairs = values.iter().map(|value| (FORWARDED_FOR, value.parse().unwrap()));
            let mut headers = HeaderMap::new();
            pairs.for_each(|(name, value)| {
                headers.append(name, value);
            });
            headers
        };
        assert_eq!(forwarded_for(&headers(&[])), None);
        let said = headers(&["192.0.2.1, secret", "[2001:db8::1]:80,bob:secret@x"]);
        assert_eq!(forwarded_for(&said).unwrap(), "192.0.2.1, unknown, [2001:db8::1]:80, unknown");
        assert!(forwarded_for(&headers(&[&"192.0.2.1,".repeat(500)])).unwrap().len() < 520);
    }
}
