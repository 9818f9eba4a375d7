//! The registry behind us: how requests reach it, and what its answers look like afterwards.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, EXPECT, HOST, HeaderMap, HeaderName, LINK, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, request, response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use super::caller::{Caller, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use super::error::Problem;
use super::inbound::{ClientBody, ClientBodyError};
use super::own::{Own, Ways};
use super::rewrite::{self, Ends};
use super::{scope, token, trace};
use crate::config::{HttpOrigin, Scheme, SiteConfig};
use crate::metrics::{self, Direction, UpstreamMetrics, UpstreamOutcome};
use crate::registry::http::{HttpClient, RequestBody, empty, full};
use crate::registry::{RegistryClient, challenges};

/// Token endpoints of registries in use, beside those that challenges name and those below `/v2/`.
const TOKEN_PATHS: [&str; 7] =
    ["/token", "/oauth/token", "/oauth2/token", "/auth/token", "/auth", "/service/token", "/jwt/auth"];
/// How many token endpoints one upstream may teach us.
const LEARNED_LIMIT: usize = 16;
/// How often the upstream is asked for its token endpoint on behalf of unknown paths.
const LEARN_PAUSE: Duration = Duration::from_secs(30);
/// How soon it is asked again when it did not answer.
const LEARN_AGAIN: Duration = Duration::from_secs(1);

/// The registry behind us.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) http: HttpClient,
    pub(super) origin: HttpOrigin,
    keep_host: bool,
    public: Option<HttpOrigin>,
    pub(super) silence: Duration,
    learned: RwLock<Vec<String>>,
    /// Until when the upstream is not asked again for its token endpoint; held while it is asked.
    asked: tokio::sync::Mutex<Option<Instant>>,
    pub(super) question_time: Duration,
    pub(super) ways: Ways,
    pub(super) own: Option<Own>,
    counts: Arc<UpstreamMetrics>,
}

impl Upstream {
    /// Returns the upstream of a configuration, if it has one.
    pub(super) fn new(config: &SiteConfig, http: HttpClient, own: Option<RegistryClient>) -> Option<Self> {
        let SiteConfig { name, settings: config, .. } = config;
        let origin = config.upstream.clone()?;
        let own = own.map(|client| Own::new(client, name, &origin, config.upstream_tls_verify));
        Some(Self {
            http,
            counts: UpstreamMetrics::of(origin.authority()),
            origin,
            ways: Ways::default(),
            own,
            keep_host: config.upstream_keep_host,
            public: config.public_url.clone(),
            silence: Duration::from_secs(config.upstream_timeout_seconds),
            learned: RwLock::new(Vec::new()),
            asked: tokio::sync::Mutex::new(None),
            question_time: Duration::from_secs(config.access_timeout_seconds),
        })
    }

    /// Tells whether the server has credentials of its own here.
    pub(super) fn has_own(&self) -> bool {
        self.own.is_some()
    }

    /// Tells whether it is reached without TLS.
    pub(super) fn is_plain(&self) -> bool {
        self.origin.scheme() == Scheme::Http
    }

    /// Returns the address of `path_and_query` at the upstream; the bytes stay as they are.
    fn uri(&self, path_and_query: &str) -> Result<Uri, Problem> {
        let uri = Uri::builder()
            .scheme(self.origin.scheme().as_str())
            .authority(self.origin.authority())
            .path_and_query(path_and_query)
            .build();
        uri.map_err(|_| Problem::NoSuchAddress(super::error::Shape::Registry))
    }

    /// Adds what tells the upstream where the request came from, and by which name.
    fn forward_headers(&self, headers: &mut HeaderMap, caller: &Caller) {
        let client = &caller.client;
        let chain = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .chain([caller.peer.ip().to_canonical().to_string().as_str()])
            .collect::<Vec<_>>()
            .join(", ");
        let mut set = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        set(FORWARDED_FOR, &chain);
        set(FORWARDED_PROTO, client.scheme().as_str());
        set(FORWARDED_HOST, client.authority());
        trace::pass_on(headers, caller.id);
        if !self.keep_host {
            headers.remove(HOST);
        }
    }

    /// Returns the client's request as the upstream gets it, all but the body.
    pub(super) fn forwarded(&self, parts: &request::Parts, caller: &Caller) -> Result<request::Parts, Problem> {
        let path_and_query = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let (mut forwarded, ()) = Request::new(()).into_parts();
        forwarded.method = parts.method.clone();
        forwarded.uri = self.uri(path_and_query)?;
        forwarded.headers = parts.headers.clone();
        rewrite::strip_hop_by_hop(&mut forwarded.headers);
        // Our own HTTP library has answered the expectation; the body goes on as it comes.
        forwarded.headers.remove(EXPECT);
        self.forward_headers(&mut forwarded.headers, caller);
        Ok(forwarded)
    }

    /// Returns a request of our own with the caller's credentials, for asking what they may do.
    pub(super) fn question(
        &self,
        method: Method,
        path_and_query: &str,
        from: &HeaderMap,
        caller: &Caller,
    ) -> Result<request::Parts, Problem> {
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = method;
        parts.uri = self.uri(path_and_query)?;
        for name in [AUTHORIZATION, USER_AGENT, HOST, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO] {
            for value in from.get_all(&name) {
                parts.headers.append(name.clone(), value.clone());
            }
        }
        trace::copy(from, &mut parts.headers);
        self.forward_headers(&mut parts.headers, caller);
        // What a front before several registries finds by a name of the caller's choice may be the
        // caller's own registry, and that has no say about signatures here.
        if let Some(public) = self.public.as_ref().filter(|_| self.keep_host)
            && let Ok(host) = HeaderValue::from_str(public.authority())
        {
            parts.headers.insert(HOST, host);
        }
        Ok(parts)
    }

    /// Returns the address of `path` at the upstream, to resolve a redirect against.
    pub(super) fn url(&self, path: &str) -> Result<url::Url, Problem> {
        let broken = |_| Problem::NoSuchAddress(super::error::Shape::Registry);
        url::Url::parse(&format!("{}{path}", self.origin)).map_err(broken)
    }

    /// Returns a request of our own to a place that the upstream named, with nobody's credentials.
    pub(super) fn stranger(method: Method, url: &url::Url, id: u64) -> Result<request::Parts, Problem> {
        let mut url = url.clone();
        url.set_fragment(None);
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = method;
        parts.uri = url.as_str().parse().map_err(|_| Problem::NoSuchAddress(super::error::Shape::Registry))?;
        let agent = HeaderValue::from_static(concat!("countersign/", env!("CARGO_PKG_VERSION")));
        parts.headers.insert(USER_AGENT, agent);
        trace::pass_on(&mut parts.headers, id);
        Ok(parts)
    }

    /// Asks whether it answers at all; any HTTP answer will do. The error is for the operator.
    pub(super) async fn reach(&self, id: u64) -> Result<(), String> {
        let ping = self.url("/v2/").and_then(|url| Self::stranger(Method::GET, &url, id));
        let ping = ping.map_err(|problem| problem.reason())?;
        match self.send(ping, Body::Empty).await {
            Ok(_) => Ok(()),
            Err(Problem::UpstreamTimeout) => Err("it does not answer in time".to_owned()),
            Err(_) => Err("it cannot be reached; the log says why".to_owned()),
        }
    }

    /// Sends a request; `silence` bounds the time in which nothing happens before the answer's head.
    pub(super) async fn send(&self, parts: request::Parts, body: Body) -> Result<Response<Incoming>, Problem> {
        // A pooled connection may be closed by the upstream in the moment in which it is used. Our own
        // questions and a client's that change nothing are asked once more; anything else is the
        // client's to repeat.
        let harmless = match &body {
            Body::Empty => true,
            Body::Full(_) => false,
            Body::Stream(body) => body.is_end_stream() && matches!(parts.method, Method::GET | Method::HEAD),
        };
        let again = harmless.then(|| parts.clone());
        match (self.send_once(parts, body).await, again) {
            (Err(Failure::Broken), Some(parts)) => self.send_once(parts, Body::Empty).await.map_err(Problem::from),
            (result, _) => result.map_err(Problem::from),
        }
    }

    async fn send_once(&self, parts: request::Parts, body: Body) -> Result<Response<Incoming>, Failure> {
        let progress = Progress::new();
        let body = match body {
            Body::Empty => empty(),
            Body::Full(bytes) => full(bytes),
            Body::Stream(incoming) => Watched::boxed(incoming, progress.clone()),
        };
        let begun = Instant::now();
        let answer = self.http.send(Request::from_parts(parts, body));
        tokio::pin!(answer);
        loop {
            let quiet = progress.quiet();
            let Some(left) = self.silence.checked_sub(quiet).filter(|left| !left.is_zero()) else {
                tracing::warn!(upstream = %self.origin, "the upstream does not answer in time");
                self.counts.failed(UpstreamOutcome::Timeout);
                return Err(Failure::Timeout);
            };
            match tokio::time::timeout(left, &mut answer).await {
                Ok(Ok(answer)) => {
                    self.counts.answered(answer.status().as_u16(), begun.elapsed());
                    return Ok(answer);
                }
                Ok(Err(error)) => {
                    if let Some(fault) = ClientBodyError::behind(&error) {
                        return Err(Failure::Client(fault.into()));
                    }
                    tracing::warn!(upstream = %self.origin, error = %chain(&error), "the upstream failed");
                    let (outcome, failure) = match error.is_connect() {
                        true => (UpstreamOutcome::Unreachable, Failure::Unreachable),
                        false => (UpstreamOutcome::Broken, Failure::Broken),
                    };
                    self.counts.failed(outcome);
                    return Err(failure);
                }
                Err(_) => {}
            }
        }
    }

    /// Makes the head of an upstream's answer fit for the client that asked.
    pub(super) fn polish(&self, answer: &mut response::Parts, caller: &Caller) {
        rewrite::strip_hop_by_hop(&mut answer.headers);
        answer.version = http::Version::HTTP_11;
        let ends = Ends { upstream: &self.origin, client: &caller.client };
        let below = caller.below.as_deref();
        replace(&mut answer.headers, &LOCATION, |value| scope::location(value, ends, below));
        replace(&mut answer.headers, &LINK, |value| scope::link(value, ends, below));
        if answer.headers.contains_key(WWW_AUTHENTICATE) {
            if caller.fronted { self.front(&mut answer.headers, caller) } else { self.turn(&mut answer.headers, ends) }
        }
    }

    /// Makes challenges ask for tokens of ours.
    fn front(&self, headers: &mut HeaderMap, caller: &Caller) {
        let realm = token::realm(&caller.client);
        let ours = scope::challenge(&challenges(headers), &realm, caller.below.as_deref());
        if let Some(ours) = ours.and_then(|ours| HeaderValue::from_str(&ours).ok()) {
            headers.insert(WWW_AUTHENTICATE, ours);
        }
    }

    /// Turns realms of the upstream's own round to us, and learns their paths.
    fn turn(&self, headers: &mut HeaderMap, ends: Ends<'_>) {
        let challenges: Vec<_> = headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect();
        headers.remove(WWW_AUTHENTICATE);
        for value in challenges {
            let value = match rewrite::challenge(value.as_bytes(), ends) {
                Some(changed) => {
                    changed.token_paths.iter().for_each(|path| self.learn(path));
                    HeaderValue::from_bytes(&changed.value).unwrap_or(value)
                }
                None => value,
            };
            headers.append(WWW_AUTHENTICATE, value);
        }
    }

    /// Returns where an upload's `Location` leads at the upstream; `None` when it leads elsewhere.
    pub(super) fn upload_path(&self, location: &HeaderValue, caller: &Caller) -> Option<String> {
        let url = location.to_str().ok()?;
        match rewrite::location(url, Ends { upstream: &self.origin, client: &caller.client }) {
            Some(path) => path.starts_with('/').then_some(path),
            None => (url.starts_with('/') && !url.starts_with("//")).then(|| url.to_owned()),
        }
    }

    /// Asks whether the upstream takes the password in `headers`.
    ///
    /// # Errors
    /// Its refusal, or its failure.
    pub(super) async fn check(&self, headers: &HeaderMap, caller: &Caller) -> Result<(), Problem> {
        let ping = self.question(Method::GET, "/v2/", headers, caller)?;
        let sent = tokio::time::timeout(self.question_time, self.send(ping, Body::Empty)).await;
        match sent.unwrap_or(Err(Problem::UpstreamTimeout))?.status() {
            StatusCode::OK => Ok(()),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) => {
                Err(Problem::PassedOn { status, headers: Box::default(), body: None })
            }
            status => Err(Problem::UpstreamFailing(status, None)),
        }
    }

    fn learn(&self, path: &str) {
        if self.knows(path) {
            return;
        }
        let mut learned = self.learned.write().unwrap_or_else(PoisonError::into_inner);
        if learned.len() < LEARNED_LIMIT && !learned.iter().any(|known| known == path) {
            tracing::info!(path, "token endpoint of the upstream");
            learned.push(path.to_owned());
        }
    }

    fn knows(&self, path: &str) -> bool {
        TOKEN_PATHS.contains(&path)
            || self.learned.read().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known == path)
    }

    /// Tells whether `path` is the upstream's token endpoint.
    ///
    /// A client may have learned it from another replica, or before a restart, so the upstream is
    /// asked when it is not known here.
    pub(super) async fn is_token_path(&self, path: &str, headers: &HeaderMap, caller: &Caller) -> bool {
        if self.knows(path) {
            return true;
        }
        // Others wait for the answer rather than be told that there is nothing.
        let mut asked = self.asked.lock().await;
        if self.knows(path) || asked.is_some_and(|until| Instant::now() < until) {
            return self.knows(path);
        }
        let Ok(mut ping) = self.question(Method::GET, "/v2/", headers, caller) else { return false };
        ping.headers.remove(AUTHORIZATION);
        let pause = match tokio::time::timeout(self.question_time, self.send(ping, Body::Empty)).await {
            Ok(Ok(answer)) => {
                self.polish(&mut answer.into_parts().0, caller);
                LEARN_PAUSE
            }
            Ok(Err(_)) | Err(_) => LEARN_AGAIN,
        };
        *asked = Some(Instant::now() + pause);
        self.knows(path)
    }
}

/// The body of a request to the upstream.
pub(super) enum Body {
    /// None.
    Empty,
    /// Ours.
    Full(Bytes),
    /// The client's, as it comes.
    Stream(ClientBody),
}

/// How one attempt failed.
enum Failure {
    /// The client's body was at fault.
    Client(Problem),
    Unreachable,
    Broken,
    Timeout,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Client(problem) => problem,
            Failure::Unreachable | Failure::Broken => Self::UpstreamUnreachable,
            Failure::Timeout => Self::UpstreamTimeout,
        }
    }
}

/// When something last happened: a request's body may take hours and be alive all the time.
#[derive(Clone)]
struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn quiet(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// A client's body on its way to the upstream.
struct Watched {
    inner: ClientBody,
    progress: Progress,
}

impl Watched {
    fn boxed(inner: ClientBody, progress: Progress) -> RequestBody {
        RequestBody::new(Self { inner, progress })
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = crate::registry::http::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(context);
        if polled.is_ready() {
            this.progress.note();
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            metrics::PROXIED_BYTES.add(Direction::Upload, data.len() as u64);
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Replaces the values of a header that `change` has something else for.
fn replace(headers: &mut HeaderMap, name: &HeaderName, change: impl Fn(&str) -> Option<String>) {
    if !headers.contains_key(name) {
        return;
    }
    let values: Vec<_> = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    for value in values {
        let changed = value.to_str().ok().and_then(&change).and_then(|text| HeaderValue::from_str(&text).ok());
        headers.append(name, changed.unwrap_or(value));
    }
}

/// Writes an error with its causes; hyper keeps the telling part in the last one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
