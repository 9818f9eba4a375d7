//! Bearer tokens: how they are asked for and how long they are kept (spec containers-image 3.5).

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::challenge::Challenge;
use super::error::Refusal;
use super::fetch::{self, Answer, Exchange, FetchError, redact};
use super::http::HttpClient;
use super::patience::{is_passing, retry_after};
use super::secret::{Credential, Secret, basic, sensitive};

/// The largest token answer that is read, as containers/image.
const BODY_LIMIT: usize = 1024 * 1024;
/// How long a token lives whose issuer does not say.
const DEFAULT_LIFE: u64 = 60;
/// The longest that a token is kept, whatever its issuer says.
const LONGEST_LIFE: u64 = 24 * 3600;
/// Tokens are given up this long before they end, or after three quarters of a short life.
const MARGIN: Duration = Duration::from_secs(15);
/// How many tokens are kept.
const CAPACITY: u64 = 10_000;

/// Why there is no token. Secrets are not part of any text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The challenge does not say where tokens are.
    #[error("missing realm in bearer auth challenge")]
    NoRealm,
    /// The realm is no URL, or cannot be reached.
    #[error("requesting bearer token: {0}")]
    Fetch(#[from] FetchError),
    /// Credentials would go over a plain connection although the registry has TLS.
    #[error(
        "requesting bearer token: the registry is reached by https but wants credentials sent to {realm} in plain; \
         correct its realm, or turn TLS verification off for it"
    )]
    PlainRealm {
        /// The redacted realm.
        realm: String,
    },
    /// 401: the credentials are wrong.
    #[error("unable to retrieve auth token: invalid username/password: {0}")]
    Unauthorized(Refusal),
    /// Any other status than 200.
    #[error("requesting bearer token from {realm}: {refusal}")]
    Refused {
        /// The redacted realm.
        realm: String,
        /// What it said.
        refusal: Refusal,
        /// When it wants to be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// The answer is not a token.
    #[error("requesting bearer token from {realm}: the answer holds no usable token")]
    Answer {
        /// The redacted realm.
        realm: String,
    },
}

/// A failure of a token server that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PassingFailure {
    /// The status of its response; `None` if it sent none.
    pub(super) status: Option<StatusCode>,
    pub(super) retry_after: Option<Duration>,
}

impl TokenError {
    /// Returns the failure if the same request may succeed later.
    pub(super) fn passing(&self) -> Option<PassingFailure> {
        match self {
            Self::Refused { refusal, retry_after, .. } if is_passing(refusal.status()) => {
                Some(PassingFailure { status: Some(refusal.status()), retry_after: *retry_after })
            }
            Self::Fetch(error) if error.is_passing() => Some(PassingFailure { status: None, retry_after: None }),
            _ => None,
        }
    }

    /// Returns the HTTP status with which the token server refused, if it did.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Unauthorized(refusal) | Self::Refused { refusal, .. } => Some(refusal.status()),
            _ => None,
        }
    }
}

/// Where a token is to be asked for, by whom, and for what.
#[derive(Debug)]
pub(super) struct TokenRequest<'a> {
    pub(super) http: &'a HttpClient,
    pub(super) registry: &'a str,
    pub(super) challenge: &'a Challenge,
    pub(super) scopes: &'a [String],
    pub(super) credential: Option<&'a Credential>,
    pub(super) user_agent: &'a HeaderValue,
    pub(super) timeout: Duration,
    /// Whether credentials may go to a realm without TLS.
    pub(super) plain_allowed: bool,
}

/// A token with the end of its life.
#[derive(Clone, Debug)]
pub(super) struct Token {
    authorization: HeaderValue,
    life: Duration,
}

/// The tokens of a client, by registry, token server and scopes. One request at a time for each: the others wait.
#[derive(Clone, Debug)]
pub(super) struct Tokens {
    cache: moka::future::Cache<String, Token>,
}

struct Life;

impl moka::Expiry<String, Token> for Life {
    fn expire_after_create(&self, _key: &String, token: &Token, _created_at: Instant) -> Option<Duration> {
        Some(token.life)
    }
}

impl Tokens {
    pub(super) fn new() -> Self {
        Self { cache: moka::future::Cache::builder().max_capacity(CAPACITY).expire_after(Life).build() }
    }

    /// Returns the `Authorization` value, and whether it was known before.
    pub(super) async fn get(&self, request: &TokenRequest<'_>) -> Result<(HeaderValue, bool), Arc<TokenError>> {
        let entry = self.cache.entry(key(request)).or_try_insert_with(fetch(request)).await?;
        Ok((entry.value().authorization.clone(), !entry.is_fresh()))
    }

    /// Forgets a token that the registry no longer takes.
    pub(super) async fn forget(&self, request: &TokenRequest<'_>) {
        self.cache.invalidate(&key(request)).await;
    }
}

fn key(request: &TokenRequest<'_>) -> String {
    let realm = request.challenge.parameter("realm").unwrap_or_default();
    format!("{}\n{realm}\n{}", request.registry, request.scopes.join("\n"))
}

/// Gets one token for one scope, `repository:birds/bluebird:pull`, and keeps nothing: for a server
/// that asks on behalf of its callers. Returns the `Authorization` value.
///
/// # Errors
/// [`TokenError`]; `plain_allowed` lets credentials go to a realm without TLS.
pub async fn bearer_token(
    http: &HttpClient,
    challenge: &Challenge,
    scope: String,
    credential: Option<&Credential>,
    plain_allowed: bool,
    timeout: Duration,
) -> Result<HeaderValue, TokenError> {
    let user_agent = HeaderValue::from_static(concat!("countersign/", env!("CARGO_PKG_VERSION")));
    let (user_agent, scopes) = (&user_agent, &[scope]);
    let request =
        TokenRequest { http, registry: "", challenge, scopes, credential, user_agent, timeout, plain_allowed };
    fetch(&request).await.map(|token| token.authorization)
}

async fn fetch(request: &TokenRequest<'_>) -> Result<Token, TokenError> {
    let realm = request.challenge.parameter("realm").filter(|realm| !realm.is_empty()).ok_or(TokenError::NoRealm)?;
    let realm = fetch::parse_url(realm)?;
    let secret = request.credential.is_some_and(Credential::is_secret);
    if secret && realm.scheme() != "https" && !request.plain_allowed {
        return Err(TokenError::PlainRealm { realm: redact(&realm) });
    }
    if let Some(token) = request.credential.and_then(|credential| credential.identity_token.as_ref()) {
        let answer = post(request, realm.clone(), token).await?;
        // Token servers without OAuth2 answer so; the token then goes as a password (containerd).
        if !matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            return read(&realm, &answer);
        }
    }
    let answer = get(request, realm.clone()).await?;
    read(&realm, &answer)
}

async fn get(request: &TokenRequest<'_>, mut url: Url) -> Result<Answer, FetchError> {
    let mut headers = fetch::headers(request.user_agent);
    {
        let mut query = url.query_pairs_mut();
        if let Some(credential) = request.credential.filter(|credential| !credential.username.is_empty()) {
            query.append_pair("account", &credential.username);
        }
        if let Some(service) = service(request) {
            query.append_pair("service", service);
        }
        for scope in request.scopes {
            query.append_pair("scope", scope);
        }
    }
    // An empty query would otherwise leave a bare question mark.
    if url.query() == Some("") {
        url.set_query(None);
    }
    if let Some(credential) = request.credential {
        let token = credential.identity_token.as_ref();
        let password =
            if credential.password.is_empty() { token.unwrap_or(&credential.password) } else { &credential.password };
        if !password.is_empty() {
            headers.insert(AUTHORIZATION, basic(credential.username.as_bytes(), password.expose().as_bytes()));
        }
    }
    send(request, Method::GET, url, headers, None).await
}

async fn post(request: &TokenRequest<'_>, url: Url, token: &Secret) -> Result<Answer, FetchError> {
    let mut headers = fetch::headers(request.user_agent);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    send(request, Method::POST, url, headers, Some(refresh_form(request, token))).await
}

fn refresh_form(request: &TokenRequest<'_>, token: &Secret) -> Bytes {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("client_id", "containers/image");
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("refresh_token", token.expose());
    for scope in request.scopes {
        form.append_pair("scope", scope);
    }
    if let Some(service) = service(request) {
        form.append_pair("service", service);
    }
    Bytes::from(form.finish())
}

fn service<'a>(request: &'a TokenRequest<'_>) -> Option<&'a str> {
    request.challenge.parameter("service").filter(|service| !service.is_empty())
}

async fn send(
    request: &TokenRequest<'_>,
    method: Method,
    url: Url,
    headers: http::HeaderMap,
    body: Option<Bytes>,
) -> Result<Answer, FetchError> {
    let exchange = Exchange {
        method,
        url,
        headers,
        body,
        limit: BODY_LIMIT,
        timeout: request.timeout,
        keep_credentials: fetch::KeepCredentials::SameOrigin,
    };
    fetch::exchange(request.http, exchange).await
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<f64>,
}

fn read(realm: &Url, answer: &Answer) -> Result<Token, TokenError> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => return Err(TokenError::Unauthorized(Refusal::of(answer))),
        _ => {
            return Err(TokenError::Refused {
                realm: redact(realm),
                refusal: Refusal::of(answer),
                retry_after: retry_after(answer, std::time::SystemTime::now()),
            });
        }
    }
    let unusable = || TokenError::Answer { realm: redact(realm) };
    let body: TokenAnswer = serde_json::from_slice(&answer.body).map_err(|_| unusable())?;
    let some = |token: Option<Secret>| token.filter(|token| !token.is_empty());
    let token = some(body.token).or_else(|| some(body.access_token)).ok_or_else(unusable)?;
    let text = zeroize::Zeroizing::new(format!("Bearer {}", token.expose()));
    let authorization = sensitive(&text).ok_or_else(unusable)?;
    Ok(Token { authorization, life: life(body.expires_in) })
}

/// How long a token is kept that says it lives `expires_in` seconds.
fn life(expires_in: Option<f64>) -> Duration {
    let seconds = match expires_in {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is clamped")]
        Some(seconds) if seconds >= 1.0 => (seconds as u64).min(LONGEST_LIFE),
        _ => DEFAULT_LIFE,
    };
    let life = Duration::from_secs(seconds);
    life.saturating_sub(MARGIN).max(life * 3 / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_cut_short() {
        assert_eq!(life(None), Duration::from_secs(45));
        assert_eq!(life(Some(0.0)), Duration::from_secs(45));
        assert_eq!(life(Some(-5.0)), Duration::from_secs(45));
        assert_eq!(life(Some(f64::NAN)), Duration::from_secs(45));
        assert_eq!(life(Some(300.0)), Duration::from_secs(285));
        assert_eq!(life(Some(4.0)), Duration::from_secs(3));
        assert_eq!(life(Some(1e300)), Duration::from_secs(24 * 3600 - 15));
    }
}
