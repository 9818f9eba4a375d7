//! The registry behind us: how requests reach it, and what its answers look like afterwards.

pub(super) mod client_headers;
pub(super) mod ping;
pub(super) mod repository_names;
pub(super) mod request;
pub(super) mod rewrite;
pub(super) mod scoped_token;
pub(super) mod server_credentials;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, LINK, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, request::Parts, response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use crate::config::{HttpOrigin, Scheme, SiteConfig};
use crate::metrics::{self, Direction, UpstreamMetrics, UpstreamOutcome};
use crate::registry::http::{HttpClient, RequestBody, empty, full};
use crate::registry::{RegistryClient, announces_signatures, challenges};
use crate::server::caller::Caller;
use crate::server::error::Problem;
use crate::server::listener::request_body::{ClientBody, ClientBodyError};
use crate::server::upstream::ping::PingCache;
use crate::server::upstream::rewrite::Endpoints;
use crate::server::upstream::server_credentials::ServerCredentials;

/// How many redirects of a ping are followed.
const PING_REDIRECTS: usize = 5;
/// How long a path is remembered that the upstream named: as long as the longest upload session in use.
const HANDED_OUT_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How many bytes of such paths are remembered.
const HANDED_OUT_BYTES: u64 = 16 * 1024 * 1024;
/// Headers that speak of the upstream's own connection and name, not of ours.
const UPSTREAM_ONLY: [&str; 2] = ["alt-svc", "strict-transport-security"];

/// The registry behind us.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) http: HttpClient,
    pub(super) origin: HttpOrigin,
    pub(super) keep_host: bool,
    pub(super) public: Option<HttpOrigin>,
    /// Where a redirected question may be answered, beside the upstream itself.
    redirect_origins: Vec<HttpOrigin>,
    pub(super) silence: Duration,
    pub(super) question_time: Duration,
    pub(super) ping: PingCache,
    /// Paths outside `/v2/` to which the upstream has sent clients.
    handed_out: HandedOutPaths,
    pub(super) own: Option<ServerCredentials>,
    counts: Arc<UpstreamMetrics>,
    /// The operator was warned that the upstream has the signature extension.
    has_extension: AtomicBool,
}

impl Upstream {
    /// Returns the upstream of a configuration, if it has one.
    pub(super) fn new(config: &SiteConfig, http: HttpClient, own: Option<RegistryClient>) -> Option<Self> {
        let SiteConfig { name, settings: config, .. } = config;
        let origin = config.upstream.clone()?;
        let own = own.map(|client| ServerCredentials::new(client, name, &origin));
        if config.upstream_keep_host && config.public_url.is_none() {
            tracing::warn!(
                upstream = %origin,
                "upstream_keep_host is set without public_url: what the server asks by itself, such as who may read, \
                 goes to the upstream's own host; set public_url to the host by which the upstream knows itself"
            );
        }
        Some(Self {
            http,
            counts: UpstreamMetrics::of(origin.authority()),
            has_extension: AtomicBool::new(false),
            origin,
            ping: PingCache::default(),
            handed_out: HandedOutPaths::default(),
            own,
            keep_host: config.upstream_keep_host,
            public: config.public_url.clone(),
            redirect_origins: config.upstream_redirect_origins.clone(),
            silence: Duration::from_secs(config.upstream_timeout_seconds),
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
    pub(super) fn uri(&self, path_and_query: &str) -> Result<Uri, Problem> {
        let uri = Uri::builder()
            .scheme(self.origin.scheme().as_str())
            .authority(self.origin.authority())
            .path_and_query(path_and_query)
            .build();
        uri.map_err(|_| Problem::NoSuchAddress(crate::server::error::ErrorFormat::Registry))
    }

    /// Returns the address of `path` at the upstream, to resolve a redirect against.
    pub(super) fn url(&self, path: &str) -> Result<url::Url, Problem> {
        let broken = |_| Problem::NoSuchAddress(crate::server::error::ErrorFormat::Registry);
        url::Url::parse(&format!("{}{path}", self.origin)).map_err(broken)
    }

    /// Asks whether it answers as a registry: only 200 and 401 are answers to a ping. The error is for the operator.
    pub(super) async fn reach(&self, id: u64) -> Result<(), String> {
        let ping = self.own_request(Method::GET, "/v2/", id).map_err(|problem| problem.kind().to_owned())?;
        match self.send_ping(ping).await {
            Ok(answer) if matches!(answer.status(), StatusCode::OK | StatusCode::UNAUTHORIZED) => {
                self.note_extension(answer.headers());
                Ok(())
            }
            Ok(answer) => Err(format!("it answers {} to the ping /v2/, so it is no registry", answer.status())),
            Err(Problem::UpstreamTimeout) => Err("it does not answer in time".to_owned()),
            Err(problem @ Problem::UpstreamRedirects(_)) => Err(problem.detail().unwrap_or_default()),
            Err(_) => Err("it cannot be reached; the log says why".to_owned()),
        }
    }

    /// Sends a ping. Redirects are followed on the upstream's own origin only.
    ///
    /// # Errors
    /// [`Problem::UpstreamRedirects`] for a redirect to another origin, and what [`Upstream::send`] returns.
    pub(super) async fn send_ping(&self, ping: Parts) -> Result<Response<Incoming>, Problem> {
        let mut at = self.url(ping.uri.path())?;
        let mut next = ping.clone();
        for _ in 0..PING_REDIRECTS {
            let answer = self.send(next, Body::Empty).await?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let location = answer.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let Some(url) = location.and_then(|location| at.join(location).ok()) else { return Ok(answer) };
            let same_origin = url.origin() == at.origin();
            let Some(path) = self.own_path(url.as_str()).filter(|_| same_origin) else {
                return Err(self.redirected(&url));
            };
            next = ping.clone();
            next.uri = self.uri(&path)?;
            at = url;
        }
        Err(self.redirected(&at))
    }

    /// Says which address to configure instead of one that redirects.
    fn redirected(&self, to: &url::Url) -> Problem {
        let to = match self.origin.host() {
            "docker.io" | "index.docker.io" => "https://registry-1.docker.io".to_owned(),
            _ => to.origin().ascii_serialization(),
        };
        tracing::warn!(
            upstream = %self.origin, to,
            "the upstream redirects its ping /v2/ to another address; set `upstream` to that address"
        );
        Problem::UpstreamRedirects(to)
    }

    /// Warns once of an upstream that has the signature extension itself.
    pub(super) fn note_extension(&self, headers: &HeaderMap) {
        if announces_signatures(headers) && !self.has_extension.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                upstream = %self.origin,
                "the upstream registry has the signature extension itself; clients of this server see the signatures of \
                 this server's store only"
            );
        }
    }

    /// Tells whether the upstream has sent a client to this path, which lies outside `/v2/`.
    pub(super) fn has_handed_out(&self, path: &str) -> bool {
        self.handed_out.0.contains_key(path)
    }

    /// Remembers the paths outside `/v2/` to which a response sends the client: Google's registries keep blobs and
    /// uploads there. Nothing else of the upstream is reachable through this server.
    fn hand_out(&self, headers: &HeaderMap) {
        for location in headers.get_all(LOCATION).iter().filter_map(|location| location.to_str().ok()) {
            let path = location.split(['?', '#']).next().unwrap_or_default();
            if path.starts_with('/') && !path.starts_with("//") && !crate::server::route::is_below_v2(path) {
                self.handed_out.0.insert(path.to_owned(), ());
            }
        }
    }

    /// Sends a request; `silence` bounds the time in which nothing happens before the answer's head.
    pub(super) async fn send(&self, parts: Parts, body: Body) -> Result<Response<Incoming>, Problem> {
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

    async fn send_once(&self, parts: Parts, body: Body) -> Result<Response<Incoming>, Failure> {
        let progress = Progress::new();
        let body = match body {
            Body::Empty => empty(),
            Body::Full(bytes) => full(bytes),
            Body::Stream(incoming) => ProgressBody::boxed(incoming, progress.clone()),
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

    /// Makes the head of an upstream's answer fit for the client that asked. Returns the paths of
    /// token endpoints of the upstream that its challenges name.
    pub(super) fn polish(&self, answer: &mut response::Parts, caller: &Caller) -> Vec<String> {
        rewrite::strip_hop_by_hop(&mut answer.headers);
        for name in UPSTREAM_ONLY {
            answer.headers.remove(name);
        }
        answer.version = http::Version::HTTP_11;
        let endpoints = Endpoints { upstream: &self.origin, client: &caller.client };
        let below = caller.below.as_deref();
        replace(&mut answer.headers, &LOCATION, |value| repository_names::location(value, endpoints, below));
        self.hand_out(&answer.headers);
        replace(&mut answer.headers, &LINK, |value| repository_names::link(value, endpoints, below));
        if answer.headers.contains_key(WWW_AUTHENTICATE) {
            if caller.fronted {
                self.front(&mut answer.headers, caller);
            } else {
                return turn(&mut answer.headers, endpoints);
            }
        }
        Vec::new()
    }

    /// Makes challenges ask for tokens of ours.
    fn front(&self, headers: &mut HeaderMap, caller: &Caller) {
        let realm = repository_names::realm(&caller.client);
        let ours = repository_names::challenge(&challenges(headers), &realm, caller.below.as_deref());
        if let Some(ours) = ours.and_then(|ours| HeaderValue::from_str(&ours).ok()) {
            headers.insert(WWW_AUTHENTICATE, ours);
        }
    }

    /// Returns both names of the upstream in answers to what the server asks by itself: its own,
    /// and the one that the operator has given.
    pub(super) fn own_ends(&self) -> Endpoints<'_> {
        Endpoints { upstream: &self.origin, client: self.public.as_ref().unwrap_or(&self.origin) }
    }

    /// Returns path and query of a URL at the upstream; `None` for a URL that leads elsewhere.
    pub(super) fn own_path(&self, url: &str) -> Option<String> {
        rewrite::location(url, self.own_ends()).filter(|path| path.starts_with('/'))
    }

    /// Tells whether the operator has named the origin of `url` as one that answers for the upstream.
    pub(super) fn may_redirect_to(&self, url: &url::Url) -> bool {
        self.redirect_origins.iter().any(|origin| {
            Scheme::parse(url.scheme()) == Some(origin.scheme())
                && url.port_or_known_default() == Some(origin.port())
                && url.host_str().is_some_and(|host| host.eq_ignore_ascii_case(origin.host()))
        })
    }

    /// Returns where an upload's `Location` leads at the upstream; `None` when it leads elsewhere.
    pub(super) fn upload_path(&self, location: &HeaderValue) -> Option<String> {
        let url = location.to_str().ok()?;
        self.own_path(url).or_else(|| (url.starts_with('/') && !url.starts_with("//")).then(|| url.to_owned()))
    }

    /// Asks whether the upstream takes the password in `headers`.
    ///
    /// # Errors
    /// Its refusal, or its failure.
    pub(super) async fn check(&self, headers: &HeaderMap, id: u64) -> Result<(), Problem> {
        let ping = self.question(Method::GET, "/v2/", headers, id)?;
        let sent = tokio::time::timeout(self.question_time, self.send_ping(ping)).await;
        match sent.unwrap_or(Err(Problem::UpstreamTimeout))?.status() {
            StatusCode::OK => Ok(()),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) => {
                Err(Problem::PassedOn { status, headers: Box::default(), body: None })
            }
            status => Err(Problem::UpstreamFailing(status, None)),
        }
    }
}

/// Paths that a response of the upstream named, for some time.
#[derive(Debug)]
struct HandedOutPaths(moka::sync::Cache<String, ()>);

impl Default for HandedOutPaths {
    fn default() -> Self {
        let weight = |path: &String, (): &()| u32::try_from(path.len()).unwrap_or(u32::MAX);
        let cache = moka::sync::Cache::builder().max_capacity(HANDED_OUT_BYTES).weigher(weight);
        Self(cache.time_to_idle(HANDED_OUT_LIFE).build())
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
struct ProgressBody {
    inner: ClientBody,
    progress: Progress,
}

impl ProgressBody {
    fn boxed(inner: ClientBody, progress: Progress) -> RequestBody {
        RequestBody::new(Self { inner, progress })
    }
}

impl HttpBody for ProgressBody {
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

/// Turns realms of the upstream's own round to us, and returns their paths.
fn turn(headers: &mut HeaderMap, endpoints: Endpoints<'_>) -> Vec<String> {
    let challenges: Vec<_> = headers.get_all(WWW_AUTHENTICATE).iter().cloned().collect();
    headers.remove(WWW_AUTHENTICATE);
    let mut paths = Vec::new();
    for value in challenges {
        let value = match rewrite::challenge(value.as_bytes(), endpoints) {
            Some(changed) => {
                paths.extend(changed.token_paths);
                HeaderValue::from_bytes(&changed.value).unwrap_or(value)
            }
            None => value,
        };
        headers.append(WWW_AUTHENTICATE, value);
    }
    paths
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
