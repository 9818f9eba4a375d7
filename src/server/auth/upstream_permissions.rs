//! Who may read and write signatures: asked of the upstream with the caller's own credentials.
//!
//! There is no second user database. Who may read a manifest may read its signatures; who may
//! begin an upload to a repository may add signatures to it. No `signature:` scope is ever asked
//! for, since clients request `pull` and `push` only (spec containers-image 3.5).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderValue, Method, Response, StatusCode, request};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use crate::config::ServerConfig;
use crate::image::{Digest, MANIFEST_LIMIT, manifest_digest};
use crate::metrics::{self, AccessVerdict, Right};
use crate::registry::refuses_head;
use crate::server::auth::token_lifetime;
use crate::server::caller::Caller;
use crate::server::error::Problem;
use crate::server::salted_hash::{SaltedHash, SaltedHasher};
use crate::server::upstream::{Body, Upstream};

/// Every kind of manifest that may be signed.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.v1+prettyjws, \
     application/vnd.docker.distribution.manifest.v1+json, */*;q=0.1";
/// How many granted rights are remembered.
const REMEMBERED: u64 = 100_000;
/// How much of the upstream's own words is handed on with a refusal.
const WORDS_LIMIT: usize = 16 * 1024;

/// A response to the question for a manifest; its body, if it was asked by GET and is none.
type ManifestAnswer = Response<Option<Incoming>>;

/// How many redirects to a manifest are followed.
const REDIRECTS: usize = 5;

/// Tells a manifest from a page to log in by.
fn is_manifest(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    [&b"application/vnd.oci.image."[..], b"application/vnd.docker.distribution.manifest."]
        .iter()
        .any(|start| kind.starts_with(start))
}

fn accepting_manifests(mut question: request::Parts) -> request::Parts {
    question.headers.insert(ACCEPT, HeaderValue::from_static(MANIFEST_TYPES));
    question
}

fn verdict(problem: &Problem) -> AccessVerdict {
    match problem {
        Problem::PassedOn { .. } | Problem::Denied(_) => AccessVerdict::Refused,
        _ => AccessVerdict::Failed,
    }
}

/// What the upstream says of a manifest, if it says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ManifestState {
    /// It is there and the caller may read it.
    Readable,
    /// It is not there, for this caller.
    Absent,
}

/// Asks the upstream, and remembers what it granted for a moment.
///
/// A right is remembered no longer than its token lives, where that says so ([`token_life`]).
/// Only grants are remembered: a refusal carries a challenge of its own, and an absent manifest
/// may be pushed before the next request. The key is a salted hash of the credentials and the
/// object, which is all that the upstream is told, so nothing is shared between callers of
/// different credentials and no credential stays in memory.
pub(crate) struct UpstreamPermissions {
    upstream: Arc<Upstream>,
    /// Until when, since a token may end before that.
    granted: moka::future::Cache<SaltedHash, Instant>,
    remembered: Duration,
    hasher: SaltedHasher,
    timeout: Duration,
}

impl UpstreamPermissions {
    pub(crate) fn new(upstream: Arc<Upstream>, config: &ServerConfig) -> Self {
        Self {
            upstream,
            granted: moka::future::Cache::builder()
                .max_capacity(REMEMBERED)
                .time_to_live(Duration::from_secs(config.cache.access_seconds))
                .build(),
            remembered: Duration::from_secs(config.cache.access_seconds),
            hasher: SaltedHasher::default(),
            timeout: Duration::from_secs(config.access_timeout_seconds),
        }
    }

    fn key(
        &self,
        right: &str,
        name: &str,
        digest: Option<&Digest>,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> SaltedHash {
        let digest = digest.map(ToString::to_string).unwrap_or_default();
        // All of the caller's that the upstream is shown.
        let authorization = headers.get(AUTHORIZATION);
        self.hasher.hash(&[
            right.as_bytes(),
            name.as_bytes(),
            digest.as_bytes(),
            // The server's own credentials may have rights that callers without credentials do not have.
            &[u8::from(caller.own)],
            &[u8::from(authorization.is_some())],
            authorization.map(HeaderValue::as_bytes).unwrap_or_default(),
        ])
    }

    async fn is_granted(&self, key: &SaltedHash) -> bool {
        self.granted.get(key).await.is_some_and(|until| Instant::now() < until)
    }

    async fn grant(&self, key: SaltedHash, headers: &HeaderMap) {
        let left = token_lifetime::left(headers, SystemTime::now()).unwrap_or(self.remembered);
        self.granted.insert(key, Instant::now() + left.min(self.remembered)).await;
    }

    /// Asks whether the caller may read the manifest.
    ///
    /// # Errors
    /// The upstream's refusal, or its failure.
    pub(crate) async fn pull(
        &self,
        name: &str,
        digest: &Digest,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<ManifestState, Problem> {
        let key = self.key("pull", name, Some(digest), headers, caller);
        if self.is_granted(&key).await {
            metrics::ACCESS_CHECKS.inc((Right::Pull, AccessVerdict::Cached));
            return Ok(ManifestState::Readable);
        }
        let asked = self.ask_to_pull(key, name, digest, headers, caller).await;
        let verdict = match &asked {
            Ok(ManifestState::Readable) => AccessVerdict::Granted,
            Ok(ManifestState::Absent) => AccessVerdict::Absent,
            Err(problem) => verdict(problem),
        };
        metrics::ACCESS_CHECKS.inc((Right::Pull, verdict));
        asked
    }

    async fn ask_to_pull(
        &self,
        key: SaltedHash,
        name: &str,
        digest: &Digest,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<ManifestState, Problem> {
        let path = format!("/v2/{name}/manifests/{digest}");
        let mut answer = self.ask_about(&path, (name, digest), headers, caller).await?;
        let redirected = answer.status().is_redirection();
        if redirected {
            answer = self.follow(&path, answer, (name, digest), headers, caller).await?;
        }
        match answer.status() {
            StatusCode::OK if redirected && !is_manifest(answer.headers()) => {
                tracing::warn!("the upstream redirects to something that is no manifest");
                Err(Problem::UpstreamFailing(StatusCode::FOUND, None))
            }
            StatusCode::OK => {
                self.grant(key, headers).await;
                Ok(ManifestState::Readable)
            }
            StatusCode::NOT_FOUND => Ok(ManifestState::Absent),
            status if redirected => Err(Problem::UpstreamFailing(status, None)),
            _ => Err(self.refusal(answer, (&Method::HEAD, &path), caller).await),
        }
    }

    /// Asks about a manifest at a path of the upstream's: by HEAD, and by GET where the registry refuses that.
    async fn ask_about(
        &self,
        path_and_query: &str,
        (name, digest): (&str, &Digest),
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<ManifestAnswer, Problem> {
        let answer = self.ask_by(Method::HEAD, path_and_query, name, headers, caller).await?;
        if !refuses_head(answer.status()) {
            return Ok(answer.map(|_| None));
        }
        let answer = self.ask_by(Method::GET, path_and_query, name, headers, caller).await?;
        self.received(answer, digest).await
    }

    /// Reads the manifest in a response to GET. A registry that refuses HEAD and answers everything by 200, such as a
    /// web server with one page, grants nothing: the bytes must be the manifest's.
    async fn received(&self, answer: Response<Incoming>, digest: &Digest) -> Result<ManifestAnswer, Problem> {
        let (head, body) = answer.into_parts();
        if head.status != StatusCode::OK {
            return Ok(Response::from_parts(head, Some(body)));
        }
        let read = tokio::time::timeout(self.timeout, Limited::new(body, MANIFEST_LIMIT).collect()).await;
        let bytes = match read {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(_)) => return Err(Problem::UpstreamUnreachable),
            Err(_) => return Err(Problem::UpstreamTimeout),
        };
        if digest.matches(&bytes) || manifest_digest(&bytes).is_ok_and(|found| found == *digest) {
            return Ok(Response::from_parts(head, None));
        }
        tracing::warn!(upstream = %self.upstream.origin, %digest, "the upstream answers with something else than the manifest");
        Err(Problem::UpstreamFailing(StatusCode::OK, None))
    }

    async fn ask_by(
        &self,
        method: Method,
        path_and_query: &str,
        name: &str,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<Response<Incoming>, Problem> {
        if !caller.own {
            let question = self.upstream.question(method, path_and_query, headers, caller.id)?;
            return self.ask(accepting_manifests(question)).await;
        }
        let question = accepting_manifests(self.upstream.own_request(method, path_and_query, caller.id)?);
        let sent = self.upstream.send_own(question, name, caller.id);
        tokio::time::timeout(self.timeout, sent).await.unwrap_or(Err(Problem::UpstreamTimeout))
    }

    /// Follows an upstream that keeps its manifests at another path. An answer counts only from the
    /// upstream's own origin, or from one that the operator has named: what a registry, or whoever
    /// stands before it, sends elsewhere says nothing about rights at this one. Credentials never
    /// leave the upstream's own origin.
    async fn follow(
        &self,
        path: &str,
        mut answer: ManifestAnswer,
        (name, digest): (&str, &Digest),
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<ManifestAnswer, Problem> {
        let mut at = self.upstream.url(path)?;
        for _ in 0..REDIRECTS {
            let failing = Problem::UpstreamFailing(answer.status(), None);
            let Some(next) = answer.headers().get(LOCATION).and_then(|v| v.to_str().ok()) else { return Err(failing) };
            let Ok(next) = at.join(next) else { return Err(failing) };
            let own = self.upstream.own_path(next.as_str());
            if own.is_none() && !self.upstream.may_redirect_to(&next) {
                tracing::warn!(
                    upstream = %self.upstream.origin,
                    to = %next.origin().ascii_serialization(),
                    "the upstream redirects the question who may read a manifest to another origin, which has no say; \
                     if it keeps its manifests there, name that origin under upstream_redirect_origins"
                );
                return Err(failing);
            }
            answer = match own {
                Some(path) => self.ask_about(&path, (name, digest), headers, caller).await?,
                None => {
                    let elsewhere = |method| Upstream::elsewhere(method, &next, caller.id).map(accepting_manifests);
                    let answer = self.ask(elsewhere(Method::HEAD)?).await?;
                    if refuses_head(answer.status()) {
                        self.received(self.ask(elsewhere(Method::GET)?).await?, digest).await?
                    } else {
                        answer.map(|_| None)
                    }
                }
            };
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            at = next;
        }
        Err(Problem::UpstreamFailing(answer.status(), None))
    }

    /// Asks whether the caller may write to the repository, by opening and cancelling an upload.
    ///
    /// # Errors
    /// The upstream's refusal, or its failure.
    pub(crate) async fn push(
        self: &Arc<Self>,
        name: &str,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<(), Problem> {
        let key = self.key("push", name, None, headers, caller);
        if self.is_granted(&key).await {
            metrics::ACCESS_CHECKS.inc((Right::Push, AccessVerdict::Cached));
            return Ok(());
        }
        let path = format!("/v2/{name}/blobs/uploads/");
        let mut question = self.upstream.question(Method::POST, &path, headers, caller.id)?;
        question.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        // A task of its own: a client that hangs up must not leave an open upload behind.
        let (access, headers, caller) = (self.clone(), headers.clone(), caller.clone());
        let asked = tokio::spawn(async move {
            let answer = access.ask(question).await?;
            match answer.status() {
                StatusCode::ACCEPTED => {
                    access.grant(key, &headers).await;
                    tokio::spawn(async move { access.cancel(&answer, &headers, caller.id).await });
                    Ok(())
                }
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Err(Problem::Denied(
                    "the upstream registry takes no uploads to this repository, so no signatures either".to_owned(),
                )),
                _ => Err(access.refusal(answer.map(Some), (&Method::POST, &path), &caller).await),
            }
        });
        let asked = asked.await.unwrap_or(Err(Problem::Internal));
        let verdict = asked.as_ref().map_or_else(verdict, |()| AccessVerdict::Granted);
        metrics::ACCESS_CHECKS.inc((Right::Push, verdict));
        asked
    }

    async fn ask(&self, question: request::Parts) -> Result<Response<Incoming>, Problem> {
        let sent = self.upstream.send(question, Body::Empty);
        tokio::time::timeout(self.timeout, sent).await.unwrap_or(Err(Problem::UpstreamTimeout))
    }

    /// Cancels an upload; registries forget it some day if that fails.
    async fn cancel<B>(&self, opened: &Response<B>, headers: &HeaderMap, id: u64) {
        let Some(location) = opened.headers().get(LOCATION) else { return };
        let Some(path) = self.upstream.upload_path(location) else {
            tracing::debug!("the upstream's upload is elsewhere and is left to it");
            return;
        };
        let Ok(request) = self.upstream.question(Method::DELETE, &path, headers, id) else { return };
        match self.ask(request).await {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => tracing::debug!(status = %answer.status(), "the upstream did not cancel an upload"),
            Err(problem) => tracing::debug!(reason = problem.kind(), "the upstream did not cancel an upload"),
        }
    }

    /// Turns an upstream's answer that grants nothing into what the caller is told.
    async fn refusal(&self, answer: ManifestAnswer, (method, path): (&Method, &str), caller: &Caller) -> Problem {
        let (mut head, body) = answer.into_parts();
        let status = head.status;
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => {
                let is_json = head
                    .headers
                    .get(CONTENT_TYPE)
                    .and_then(|v| v.to_str().ok())
                    .is_some_and(|v| v.starts_with("application/json"));
                let token_paths = self.upstream.polish(&mut head, caller);
                self.upstream.confirm_token_paths(&token_paths, method, path, caller.id).await;
                let mut headers = HeaderMap::new();
                for name in [WWW_AUTHENTICATE, RETRY_AFTER] {
                    for value in head.headers.get_all(&name) {
                        headers.append(name.clone(), value.clone());
                    }
                }
                let body = match body.filter(|_| is_json) {
                    Some(body) => self.words(body).await,
                    None => None,
                };
                Problem::PassedOn { status, headers: Box::new(headers), body }
            }
            _ => {
                tracing::warn!(%status, "the upstream does not say whether the caller has the right");
                Problem::UpstreamFailing(status, head.headers.get(RETRY_AFTER).cloned())
            }
        }
    }

    async fn words(&self, body: Incoming) -> Option<Bytes> {
        let collected = tokio::time::timeout(self.timeout, Limited::new(body, WORDS_LIMIT).collect()).await;
        let bytes = collected.ok()?.ok()?.to_bytes();
        (!bytes.is_empty()).then_some(bytes)
    }
}
