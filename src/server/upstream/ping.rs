//! What the registry's own answers say about authentication, and where its token endpoints are.
//!
//! Everything that is remembered here comes from requests that carry nothing of any caller (see
//! `upstream_request`), so no caller can choose where credentials are sent.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};

use crate::registry::{Challenge, challenges};
use crate::server::error::Problem;
use crate::server::route;
use crate::server::upstream::rewrite::{self, Endpoints};
use crate::server::upstream::{Body, Upstream};

/// How long what the upstream's ping said is taken for true.
const PING_LIFE: Duration = Duration::from_secs(60);
/// How soon it is pinged again when it failed.
const PING_AGAIN: Duration = Duration::from_secs(1);
/// Token endpoints of registries in use, beside those that challenges name and those below `/v2/`.
const TOKEN_PATHS: [&str; 7] =
    ["/token", "/oauth/token", "/oauth2/token", "/auth/token", "/auth", "/service/token", "/jwt/auth"];
/// How many token endpoints one upstream may have.
const TOKEN_PATHS_LIMIT: usize = 16;
/// How long a path that the upstream did not confirm is not asked about again.
const UNCONFIRMED_LIFE: Duration = Duration::from_secs(30);
/// How many such paths are remembered.
const UNCONFIRMED_LIMIT: u64 = 64;

/// What the upstream's ping said about authentication, and until when; nothing if it failed.
#[derive(Debug)]
pub(crate) struct PingCache {
    answer: tokio::sync::Mutex<Option<PingResult>>,
    token_paths: RwLock<Vec<String>>,
    unconfirmed: moka::future::Cache<String, ()>,
}

#[derive(Debug)]
struct PingResult {
    until: Instant,
    challenges: Option<Arc<Vec<Challenge>>>,
}

impl Default for PingCache {
    fn default() -> Self {
        Self {
            answer: tokio::sync::Mutex::default(),
            token_paths: RwLock::default(),
            unconfirmed: moka::future::Cache::builder()
                .max_capacity(UNCONFIRMED_LIMIT)
                .time_to_live(UNCONFIRMED_LIFE)
                .build(),
        }
    }
}

impl PingCache {
    fn has_token_path(&self, path: &str) -> bool {
        TOKEN_PATHS.contains(&path)
            || self.token_paths.read().unwrap_or_else(PoisonError::into_inner).iter().any(|known| known == path)
    }

    fn learn(&self, path: &str) {
        if self.has_token_path(path) || route::is_below_v2(path) {
            return;
        }
        let mut known = self.token_paths.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < TOKEN_PATHS_LIMIT && !known.iter().any(|known| known == path) {
            tracing::info!(path, "token endpoint of the upstream");
            known.push(path.to_owned());
        }
    }
}

impl Upstream {
    /// Returns the challenges of the upstream's ping; none if it is open to all. A realm that names
    /// this server (`public_url`) is the upstream's own: we would pass the request on to it.
    ///
    /// # Errors
    /// The upstream's failure.
    pub(crate) async fn challenges(&self, id: u64) -> Result<Arc<Vec<Challenge>>, Problem> {
        // Others wait for the answer rather than ask too, and take a failure for theirs.
        let mut known = self.ping.answer.lock().await;
        if let Some(pinged) = known.as_ref().filter(|pinged| Instant::now() < pinged.until) {
            return pinged.challenges.clone().ok_or(Problem::UpstreamUnreachable);
        }
        let asked = self.own_challenges(Method::GET, "/v2/", id).await.map(Arc::new);
        let life = if asked.is_ok() { PING_LIFE } else { PING_AGAIN };
        *known = Some(PingResult { until: Instant::now() + life, challenges: asked.as_ref().ok().cloned() });
        asked
    }

    /// Asks for ourselves how a path wants to be asked, and learns the token endpoints that it names.
    async fn own_challenges(&self, method: Method, path: &str, id: u64) -> Result<Vec<Challenge>, Problem> {
        let mut request = self.own_request(method, path, id)?;
        if request.method == Method::POST {
            request.headers.insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(0));
        }
        let is_ping = path == "/v2/";
        let sent =
            async { if is_ping { self.send_ping(request).await } else { self.send(request, Body::Empty).await } };
        let sent = tokio::time::timeout(self.question_time, sent);
        let answer = sent.await.unwrap_or(Err(Problem::UpstreamTimeout))?;
        if is_ping {
            self.note_extension(answer.headers());
        }
        match answer.status() {
            StatusCode::OK => Ok(Vec::new()),
            StatusCode::UNAUTHORIZED => Ok(self.believe(answer.headers())),
            status => Err(Problem::UpstreamFailing(status, None)),
        }
    }

    /// Reads the challenges in an answer to a request of ours.
    pub(crate) fn believe(&self, headers: &HeaderMap) -> Vec<Challenge> {
        // What names the public origin leads to the upstream through ourselves.
        let endpoints = Endpoints { upstream: self.own_ends().client, client: &self.origin };
        let mut own = HeaderMap::new();
        for value in headers.get_all(http::header::WWW_AUTHENTICATE) {
            let turned = rewrite::challenge(value.as_bytes(), endpoints);
            turned.iter().flat_map(|turned| &turned.token_paths).for_each(|path| self.ping.learn(path));
            let turned = turned.and_then(|turned| http::HeaderValue::from_bytes(&turned.value).ok());
            own.append(http::header::WWW_AUTHENTICATE, turned.unwrap_or_else(|| value.clone()));
        }
        challenges(&own)
    }

    /// Tells whether `path` is the upstream's token endpoint.
    ///
    /// A client may have learned it from another replica, or before a restart, so the upstream is
    /// asked when it is not known here.
    pub(crate) async fn is_token_path(&self, path: &str, id: u64) -> bool {
        if !self.ping.has_token_path(path) {
            let _ = self.challenges(id).await;
        }
        self.ping.has_token_path(path)
    }

    /// Finds out whether `named`, the token endpoints in an answer that was made for a caller, are
    /// the upstream's: `target` is asked again for ourselves. This is for registries whose ping is
    /// open to all.
    pub(crate) async fn confirm_token_paths(&self, named: &[String], method: &Method, target: &str, id: u64) {
        // By another method a registry may answer otherwise. A POST opens an upload at most, and to who
        // was refused one it opens none.
        let method = match *method {
            Method::GET => Method::GET,
            Method::POST if target.ends_with("/blobs/uploads/") => Method::POST,
            _ => Method::HEAD,
        };
        for path in named.iter().take(TOKEN_PATHS_LIMIT) {
            let asked = format!("{method} {path}");
            if self.ping.has_token_path(path)
                || route::is_below_v2(path)
                || self.ping.unconfirmed.get(&asked).await.is_some()
            {
                continue;
            }
            let _ = self.own_challenges(method.clone(), target, id).await;
            if !self.ping.has_token_path(path) {
                self.ping.unconfirmed.insert(asked, ()).await;
            }
        }
    }
}
