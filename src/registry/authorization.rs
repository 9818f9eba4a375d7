//! Authorization for whoever sends requests of their own, such as the proxy with the server's own
//! credentials: challenges go in, a header comes out. Credentials and tokens are kept as for the
//! client's own calls.

use http::HeaderValue;

use crate::image::Repository;

use super::challenge::Challenge;
use super::client::{RegistryClient, Scope, known_challenge};
use super::error::CallError;
use super::http::HttpClient;
use super::secret::basic;
use super::token::TokenRequest;

impl RegistryClient {
    /// Returns the `Authorization` with which `repository` can be pulled from a registry that
    /// answers with `challenges`, or `None` when there is nothing to answer them with. Tokens are
    /// asked for by `http`; credentials go to a realm without TLS only if `plain_allowed`. With
    /// `renew`, a token that is known already is not good any more.
    ///
    /// # Errors
    /// [`CallError`] when credentials cannot be read or no token is to be had.
    pub async fn pull_authorization(
        &self,
        http: &HttpClient,
        challenges: &[Challenge],
        repository: &Repository,
        plain_allowed: bool,
        renew: bool,
    ) -> Result<Option<HeaderValue>, CallError> {
        let Some(challenge) = known_challenge(challenges) else { return Ok(None) };
        let scope = Scope::Pull(repository);
        let Some(credential) = self.credential(scope).await? else { return Ok(None) };
        if challenge.scheme() == "basic" {
            return Ok(Some(basic(credential.username.as_bytes(), credential.password.expose().as_bytes())));
        }
        let scopes = [scope.text()];
        let request = TokenRequest {
            http,
            registry: scope.registry(),
            challenge,
            scopes: &scopes,
            credential: Some(&credential),
            user_agent: &self.shared.user_agent,
            timeout: self.shared.options.timeout,
            plain_allowed,
        };
        if renew {
            self.shared.tokens.forget(&request).await;
        }
        let (token, _) = self.shared.tokens.get(&request).await.map_err(CallError::Token)?;
        Ok(Some(token))
    }
}
