//! The token endpoint of our own, `/v2/_token`, where several registries share a host or where the
//! server has credentials of its own.
//!
//! Clients of containers/image take challenges from the answer to `GET /v2/` only, and what they
//! then ask a token for names the repository (spec containers-image 3.1, 3.5). So there is one
//! challenge for all registries behind a host, and here, by the scope, it becomes clear which one
//! is meant: its own token server is asked (the one that its own ping named, nobody else), or its
//! password, or nothing. The answer is a `passport`.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use url::Url;
use url::form_urlencoded;

use crate::config::Scheme;
use crate::registry::Challenge;
use crate::server::caller::Caller;
use crate::server::error::{ErrorFormat, Problem};
use crate::server::listener::request_body::ClientBody;
use crate::server::listener::response_body::Answer;
use crate::server::registries::{HostRegistries, Registry};
use crate::server::upstream::repository_names;
use crate::server::upstream::repository_names::Scope;
use crate::server::upstream::scoped_token::{self, RegistryTag, ScopedToken};
use crate::server::upstream::{Body, Upstream};

const METHODS: &str = "GET, POST";
/// The largest form of a client, and the largest answer of a token server.
const FORM_LIMIT: usize = 64 * 1024;
const ANSWER_LIMIT: usize = 1024 * 1024;
/// How long clients keep a token in which nothing can expire, in seconds.
const LIFE: u64 = 300;
/// What a token is for that nobody can use but for the ping, as `podman login` does.
const NO_SITE: &str = "-";

/// Answers `GET /v2/`: a challenge, or a friendly word to who has met it.
pub(crate) fn ping(method: &Method, headers: &HeaderMap, caller: &Caller) -> Result<Answer, Problem> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Problem::Method(ErrorFormat::Registry, "GET, HEAD"));
    }
    let mut answer = if scoped_token::is_presented(headers) {
        json(serde_json::json!({}))
    } else {
        let challenge = format!("Bearer realm=\"{}\",service=\"countersign\"", repository_names::realm(&caller.client));
        let challenge = HeaderValue::from_str(&challenge).map_err(|_| Problem::Internal)?;
        let headers = Box::new(HeaderMap::from_iter([(WWW_AUTHENTICATE, challenge)]));
        Problem::PassedOn { status: StatusCode::UNAUTHORIZED, headers, body: None }.into_answer()
    };
    answer.headers_mut().insert("docker-distribution-api-version", HeaderValue::from_static("registry/2.0"));
    Ok(answer)
}

/// What a client asks a token for.
#[derive(Debug, Default)]
struct Asked {
    scopes: Vec<String>,
    /// Everything else but the service, which is the registry's to name.
    rest: Vec<(String, String)>,
}

impl Asked {
    fn parse(encoded: &[u8]) -> Self {
        let mut asked = Self::default();
        for (key, value) in form_urlencoded::parse(encoded) {
            match &*key {
                // One a parameter, or several in one (RFC 6749, 3.3).
                "scope" => asked.scopes.extend(value.split(' ').filter(|s| !s.is_empty()).map(str::to_owned)),
                "service" => {}
                _ => asked.rest.push((key.into_owned(), value.into_owned())),
            }
        }
        asked
    }

    fn has(&self, key: &str) -> bool {
        self.rest.iter().any(|(k, _)| k == key)
    }

    /// Finds the registry that the first scope names, and its scopes as it calls them. What is
    /// another registry's is left out: no token is for two of them.
    fn resolve<'a>(&self, host: HostRegistries<'a>) -> (Option<&'a Registry>, Vec<String>) {
        let mut chosen: Option<Option<&'a Registry>> = None;
        let mut scopes = Vec::new();
        for text in &self.scopes {
            let Some(scope) = Scope::parse(text) else { continue };
            let below = scope.split().and_then(|(first, rest)| Some((host.below(first)?, rest)));
            let (site, name) = match below {
                Some((site, rest)) => (Some(&**site), rest),
                None => (host.site.map(|site| &**site), scope.name),
            };
            let first = *chosen.get_or_insert(site);
            if first.map(|site| &site.tag) == site.map(|site| &site.tag) {
                scopes.push(scope.with_name(name));
            }
        }
        (chosen.flatten(), scopes)
    }
}

/// Answers with a token.
pub(crate) async fn issue(
    host: HostRegistries<'_>,
    request: Request<ClientBody>,
    caller: &Caller,
) -> Result<Answer, Problem> {
    let (parts, body) = request.into_parts();
    let form = match parts.method {
        Method::GET => None,
        Method::POST => {
            let limited = Limited::new(body, FORM_LIMIT).collect();
            let read = tokio::time::timeout(std::time::Duration::from_secs(30), limited).await;
            Some(read.ok().and_then(Result::ok).ok_or(Problem::Incomplete)?.to_bytes())
        }
        _ => return Err(Problem::Method(ErrorFormat::Registry, METHODS)),
    };
    let asked = Asked::parse(form.as_deref().unwrap_or_else(|| parts.uri.query().unwrap_or_default().as_bytes()));
    let (mut site, scopes) = asked.resolve(host);
    if asked.scopes.is_empty() && !host.has_paths() {
        site = host.site.map(|site| &**site);
    }
    let basic = scoped_token::basic(&parts.headers);
    let Some(site) = site else {
        // A login that names no repository: which registry it is for shows when one is asked for.
        return Ok(granted(&ScopedToken::Nobody, &RegistryTag::of(NO_SITE)));
    };
    let ways = site.upstream.challenges(caller.id).await?;
    let known = ways.iter().find(|way| matches!(way.scheme(), "basic" | "bearer"));
    let secret = basic.is_some() || asked.has("refresh_token") || asked.has("password");
    match known {
        None if form.is_some() => Err(Problem::Method(ErrorFormat::Registry, "GET")),
        None => Ok(granted(&ScopedToken::Nobody, &site.tag)),
        Some(_) if !secret && site.upstream.has_own() => Ok(granted(&ScopedToken::Nobody, &site.tag)),
        // Clients that have met this repeat it as a GET with the password.
        Some(way) if way.scheme() == "basic" && form.is_some() => Err(Problem::Method(ErrorFormat::Registry, "GET")),
        Some(way) if way.scheme() == "basic" => match basic {
            Some(pair) => {
                site.upstream.check(&parts.headers, caller.id).await?;
                Ok(granted(&ScopedToken::Basic(pair), &site.tag))
            }
            None => Ok(granted(&ScopedToken::Nobody, &site.tag)),
        },
        Some(way) => {
            let authorization = basic.and(parts.headers.get(AUTHORIZATION));
            ask(site, way, &asked, &scopes, authorization, form.is_some(), secret, caller).await
        }
    }
}

/// Asks the registry's own token server.
#[allow(clippy::too_many_arguments, reason = "one call, all of it different")]
async fn ask(
    site: &Registry,
    way: &Challenge,
    asked: &Asked,
    scopes: &[String],
    authorization: Option<&HeaderValue>,
    post: bool,
    secret: bool,
    caller: &Caller,
) -> Result<Answer, Problem> {
    let failing = |why: &str| {
        tracing::warn!(upstream = %site.upstream.origin, why, "the upstream's token server is of no use");
        Problem::UpstreamFailing(StatusCode::BAD_GATEWAY, None)
    };
    let mut url = way.parameter("realm").and_then(|realm| Url::parse(realm).ok()).ok_or_else(|| failing("no realm"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(failing("neither http nor https"));
    }
    // A form always holds something, and so may a parameter that nobody knows.
    let known = |name: &str| matches!(name, "account" | "client_id" | "offline_token" | "access_type" | "grant_type");
    let secret = secret || post || asked.rest.iter().any(|(name, _)| !known(name));
    if secret && url.scheme() == "http" && site.upstream.origin.scheme() == Scheme::Https {
        return Err(failing("it wants credentials in plain, although the registry has TLS"));
    }
    let mut pairs: Vec<(&str, Cow<'_, str>)> = Vec::new();
    for (key, value) in &asked.rest {
        let value = match key.as_str() {
            "refresh_token" => scoped_token::refresh(value, &site.tag).ok_or_else(unauthorized)?,
            _ if scoped_token::holds_token(value.as_bytes()) => return Err(unauthorized()),
            _ => value,
        };
        pairs.push((key, value.into()));
    }
    pairs.extend(way.parameter("service").map(|service| ("service", Cow::Borrowed(service))));
    let body = if post {
        pairs.push(("scope", scopes.join(" ").into()));
        let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        Body::Full(form.into())
    } else {
        pairs.extend(scopes.iter().map(|scope| ("scope", Cow::Borrowed(scope.as_str()))));
        url.query_pairs_mut().extend_pairs(pairs);
        Body::Empty
    };
    let mut parts = Upstream::elsewhere(if post { Method::POST } else { Method::GET }, &url, caller.id)?;
    if post {
        parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    }
    if let Some(authorization) = authorization {
        parts.headers.insert(AUTHORIZATION, authorization.clone());
    }
    let whole = async {
        let (head, body) = site.upstream.send(parts, body).await?.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT).collect().await.map_err(|_| failing("its answer broke off"))?;
        Ok((head, body.to_bytes()))
    };
    let answered = tokio::time::timeout(site.upstream.question_time, whole).await;
    let (head, body) = answered.unwrap_or(Err(Problem::UpstreamTimeout))?;
    match head.status {
        StatusCode::OK => wrapped(&body, &site.tag).ok_or_else(|| failing("its answer is no token")),
        status if status.is_client_error() => {
            let mut headers = Box::new(HeaderMap::new());
            if let Some(value) = head.headers.get(http::header::RETRY_AFTER) {
                headers.insert(http::header::RETRY_AFTER, value.clone());
            }
            let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(&body).is_ok();
            Err(Problem::PassedOn { status, headers, body: is_json.then_some(body) })
        }
        status => Err(Problem::UpstreamFailing(status, head.headers.get(http::header::RETRY_AFTER).cloned())),
    }
}

/// Puts the registry's tokens into ours; the rest of the answer stays.
fn wrapped(body: &Bytes, tag: &RegistryTag) -> Option<Answer> {
    let mut answer: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    let mut found = false;
    for key in ["token", "access_token", "refresh_token"] {
        if let Some(serde_json::Value::String(token)) = answer.get_mut(key)
            && !token.is_empty()
        {
            *token = ScopedToken::Token(token).issue(tag);
            found |= key != "refresh_token";
        }
    }
    found.then(|| json(answer.into()))
}

fn unauthorized() -> Problem {
    Problem::PassedOn { status: StatusCode::UNAUTHORIZED, headers: Box::default(), body: None }
}

fn granted(passport: &ScopedToken<'_>, tag: &RegistryTag) -> Answer {
    let token = passport.issue(tag);
    json(serde_json::json!({ "token": token, "access_token": token, "expires_in": LIFE }))
}

fn json(value: serde_json::Value) -> Answer {
    let mut answer = Answer::new(crate::escape::json::visible(&value.to_string()).into_owned().into());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
