//! Tokens for the `upstream` way in: most registries give rights to tokens only, and clients of a
//! lookaside have a password at best. So the caller's password is taken to the token server that
//! the registry names, as any client would do (spec containers-image 3.5).

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap};
use http::{HeaderValue, Method, StatusCode};
use sha2::{Digest as _, Sha256};

use super::caller::Caller;
use super::error::Problem;
use super::upstream::{Body, Upstream};
use crate::config::ServerConfig;
use crate::registry::{Challenge, Credential, TokenError, bearer_token, challenges};

/// How long it is remembered how the registry wants to be asked.
const CHALLENGE_LIFE: Duration = Duration::from_secs(60);
/// How many tokens are remembered.
const REMEMBERED: u64 = 10_000;

/// Gets tokens, and remembers each as long as a right.
pub(super) struct Login {
    upstream: Arc<Upstream>,
    challenge: moka::future::Cache<(), Option<Challenge>>,
    tokens: moka::future::Cache<[u8; 32], HeaderValue>,
    salt: [u64; 2],
    timeout: Duration,
}

impl Login {
    pub(super) fn new(upstream: Arc<Upstream>, config: &ServerConfig) -> Self {
        let seeds = RandomState::new();
        let life = Duration::from_secs(config.cache.access_seconds);
        Self {
            upstream,
            challenge: moka::future::Cache::builder().max_capacity(1).time_to_live(CHALLENGE_LIFE).build(),
            tokens: moka::future::Cache::builder().max_capacity(REMEMBERED).time_to_live(life).build(),
            salt: [seeds.hash_one(0), seeds.hash_one(1)],
            timeout: Duration::from_secs(config.access_timeout_seconds),
        }
    }

    /// Returns the headers with which the registry can be asked about `actions` (`pull`, or
    /// `pull,push`) for these credentials; `None` when the token server refuses them.
    ///
    /// # Errors
    /// The registry's or the token server's failure.
    pub(super) async fn headers(
        &self,
        (name, actions): (&str, &str),
        headers: &HeaderMap,
        credential: Option<&Credential>,
        caller: &Caller,
    ) -> Result<Option<HeaderMap>, Problem> {
        let mut headers = headers.clone();
        if credential.is_none() {
            headers.remove(AUTHORIZATION);
        }
        let challenge = self.challenge.try_get_with((), self.ask(&headers, caller)).await;
        let challenge = challenge.map_err(|_| Problem::UpstreamUnreachable)?;
        let Some(challenge) = challenge else { return Ok(Some(headers)) };
        let key = self.key(name, actions, &headers);
        let token = async {
            let scope = format!("repository:{name}:{actions}");
            bearer_token(&self.upstream.http, &challenge, scope, credential, self.upstream.is_plain(), self.timeout)
                .await
        };
        match self.tokens.try_get_with(key, token).await {
            Ok(token) => {
                headers.insert(AUTHORIZATION, token);
                Ok(Some(headers))
            }
            Err(error) => match &*error {
                TokenError::Unauthorized(_) => Ok(None),
                TokenError::Refused { refusal, .. } if refusal.status() == StatusCode::FORBIDDEN => Ok(None),
                // Its own words may repeat what the caller sent.
                TokenError::Refused { realm, refusal } => {
                    tracing::warn!(realm, status = %refusal.status(), "no token for a caller");
                    Err(Problem::UpstreamUnreachable)
                }
                other => {
                    tracing::warn!(error = %other, "no token for a caller");
                    Err(Problem::UpstreamUnreachable)
                }
            },
        }
    }

    /// Asks how the registry wants to be asked: the Bearer challenge, if it has one.
    async fn ask(&self, headers: &HeaderMap, caller: &Caller) -> Result<Option<Challenge>, Problem> {
        let mut ping = self.upstream.question(Method::GET, "/v2/", headers, caller)?;
        ping.headers.remove(AUTHORIZATION);
        let sent = tokio::time::timeout(self.timeout, self.upstream.send(ping, Body::Empty)).await;
        let answer = sent.unwrap_or(Err(Problem::UpstreamTimeout))?;
        match answer.status() {
            StatusCode::OK => Ok(None),
            StatusCode::UNAUTHORIZED => {
                let mut challenges = challenges(answer.headers()).into_iter();
                Ok(challenges.find(|challenge| challenge.scheme() == "bearer"))
            }
            status => Err(Problem::UpstreamFailing(status, None)),
        }
    }

    fn key(&self, name: &str, actions: &str, headers: &HeaderMap) -> [u8; 32] {
        let mut hash = Sha256::new();
        self.salt.iter().for_each(|part| hash.update(part.to_be_bytes()));
        let said = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        for part in [name.as_bytes(), actions.as_bytes(), &[u8::from(said.is_some())], said.unwrap_or_default()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}
