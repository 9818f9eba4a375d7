//! Tokens for the `upstream` way in: most registries give rights to tokens only, and clients of a
//! lookaside have a password at best. So the caller's password is taken to the token server that
//! the registry names, as any client would do (spec containers-image 3.5).

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap};
use http::{HeaderValue, StatusCode};

use crate::config::ServerConfig;
use crate::registry::{Credential, TokenError, bearer_token};
use crate::server::error::Problem;
use crate::server::salted_hash::{SaltedHash, SaltedHasher};
use crate::server::upstream::Upstream;

/// How many tokens are remembered.
const REMEMBERED: u64 = 10_000;

/// Gets tokens, and remembers each as long as a right.
pub(crate) struct UpstreamLogin {
    upstream: Arc<Upstream>,
    tokens: moka::future::Cache<SaltedHash, HeaderValue>,
    hasher: SaltedHasher,
    timeout: Duration,
}

impl UpstreamLogin {
    pub(crate) fn new(upstream: Arc<Upstream>, config: &ServerConfig) -> Self {
        let life = Duration::from_secs(config.cache.access_seconds);
        Self {
            upstream,
            tokens: moka::future::Cache::builder().max_capacity(REMEMBERED).time_to_live(life).build(),
            hasher: SaltedHasher::default(),
            timeout: Duration::from_secs(config.access_timeout_seconds),
        }
    }

    /// Returns the headers with which the registry can be asked about `actions` (`pull`, or
    /// `pull,push`) for these credentials; `None` when the token server refuses them.
    ///
    /// # Errors
    /// The registry's or the token server's failure.
    pub(crate) async fn headers(
        &self,
        (name, actions): (&str, &str),
        headers: &HeaderMap,
        credential: Option<&Credential>,
        id: u64,
    ) -> Result<Option<HeaderMap>, Problem> {
        let mut headers = headers.clone();
        if credential.is_none() {
            headers.remove(AUTHORIZATION);
        }
        let challenges = self.upstream.challenges(id).await.map_err(|_| Problem::UpstreamUnreachable)?;
        let Some(challenge) = challenges.iter().find(|challenge| challenge.scheme() == "bearer") else {
            return Ok(Some(headers));
        };
        let key = self.key(name, actions, &headers);
        let token = async {
            let scope = format!("repository:{name}:{actions}");
            bearer_token(&self.upstream.http, challenge, scope, credential, self.upstream.is_plain(), self.timeout)
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
                TokenError::Refused { realm, refusal, .. } => {
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

    fn key(&self, name: &str, actions: &str, headers: &HeaderMap) -> SaltedHash {
        let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let is_shown = [u8::from(shown.is_some())];
        self.hasher.hash(&[name.as_bytes(), actions.as_bytes(), &is_shown, shown.unwrap_or_default()])
    }
}
