//! The server's own credentials at the upstream: for pulls of those who have none, and for nothing
//! else. They go only where a request that carries nothing of any caller was sent to.

use http::header::AUTHORIZATION;
use http::{HeaderValue, Response, StatusCode, request};
use hyper::body::Incoming;

use crate::config::{HttpOrigin, Scheme};
use crate::image::Repository;
use crate::registry::{CallError, Challenge, RegistryClient};
use crate::server::error::Problem;
use crate::server::upstream::{Body, Upstream};

/// The server's own credentials at one registry.
#[derive(Debug)]
pub(crate) struct ServerCredentials {
    client: RegistryClient,
    /// What stands before repositories for the search of credentials.
    domain: String,
    plain_allowed: bool,
}

impl ServerCredentials {
    /// Takes them; `name` is the registry's, or empty where only its address is known.
    pub(crate) fn new(client: RegistryClient, name: &str, origin: &HttpOrigin) -> Self {
        let plain = |text: &str| Repository::parse(&format!("{text}/x")).is_ok_and(|r| r.domain() == text);
        let domain = match (name, origin.authority()) {
            // No image name has an IPv6 literal, but credentials are kept under it all the same.
            ("", authority) if plain(authority) || authority.starts_with('[') => authority.to_owned(),
            ("", _) => format!("{}:{}", origin.host(), origin.port()),
            (name, _) => name.to_owned(),
        };
        Self { client, domain, plain_allowed: origin.scheme() == Scheme::Http }
    }
}

impl Upstream {
    /// Sends a pull of `repository`, made by [`Upstream::own_pull`] or [`Upstream::own_request`], with
    /// the server's own credentials.
    ///
    /// # Errors
    /// The upstream's failure. Credentials that are not to be had are none, and the upstream's
    /// refusal then goes to the client.
    pub(crate) async fn send_own(
        &self,
        parts: request::Parts,
        repository: &str,
        id: u64,
    ) -> Result<Response<Incoming>, Problem> {
        let ways = self.challenges(id).await?;
        let first = self.own_authorization(&ways, repository, false).await;
        let answer = self.send(authorized(parts.clone(), first.clone()), Body::Empty).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // An expired token, or a ping that does not say what a repository wants.
        let second = self.own_authorization(&self.believe(answer.headers()), repository, true).await;
        if second.is_none() || second == first {
            tracing::warn!(upstream = %self.origin, repository, "the upstream refuses the server's own credentials");
            return Ok(answer);
        }
        self.send(authorized(parts, second), Body::Empty).await
    }

    async fn own_authorization(&self, ways: &[Challenge], repository: &str, renew: bool) -> Option<HeaderValue> {
        let own = self.own.as_ref()?;
        let repository = Repository::of_registry(&own.domain, repository).ok()?;
        let asked = own.client.pull_authorization(&self.http, ways, &repository, own.plain_allowed, renew).await;
        asked.unwrap_or_else(|error| {
            // A token server's own words may repeat what was sent to it.
            let reason = match &error {
                CallError::Token(error) => match error.status() {
                    Some(status) => format!("the token server answered {status}"),
                    None => error.to_string(),
                },
                other => other.to_string(),
            };
            tracing::warn!(upstream = %self.origin, reason, "the server's own credentials are of no use");
            None
        })
    }
}

fn authorized(mut parts: request::Parts, authorization: Option<HeaderValue>) -> request::Parts {
    if let Some(authorization) = authorization {
        parts.headers.insert(AUTHORIZATION, authorization);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::challenges;
    use crate::registry::{AuthFiles, CredentialSource, RegistryOptions};
    use crate::server::HttpClient;
    use http::HeaderMap;

    /// The credentials of `key` are found for an upstream at `address`.
    async fn found(address: &str, key: &str) -> bool {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#)).unwrap();
        let credentials = CredentialSource::Files(AuthFiles::only(file.path()));
        let client = RegistryClient::new(RegistryOptions { credentials, ..RegistryOptions::default() });
        let origin = HttpOrigin::parse(address).unwrap();
        let own = ServerCredentials::new(client, "", &origin);
        let mut headers = HeaderMap::new();
        headers.insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=x"));
        let repository = Repository::of_registry(&own.domain, "a/b").unwrap();
        let http = HttpClient::new(rustls::RootCertStore::empty(), false).unwrap();
        let asked = own.client.pull_authorization(&http, &challenges(&headers), &repository, true, false).await;
        asked.unwrap().is_some()
    }

    #[tokio::test]
    async fn credentials_of_an_upstream_by_address() {
        assert!(found("http://[::1]:5000", "[::1]:5000").await);
        assert!(found("http://[::1]:5000", "[::1]:5000/a").await);
        assert!(!found("http://[::1]:5000", "[::2]:5000").await);
        assert!(found("http://127.0.0.1:5000", "127.0.0.1:5000").await);
    }
}
