//! Reading from a trust server (Notary v1, Docker Content Trust), which is asked as a registry is:
//! ping, Basic or token, redirects, rate (spec notary-dct 1).

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http::{Method, StatusCode};
use url::Url;

use super::client::{Call, CredentialSource, RegistryClient, Scope, known_challenge};
use super::connection::Connection;
use super::error::{CallError, ConnectError, Refusal};
use super::fetch::redact;

/// One answer of a trust server, whatever its status.
#[derive(Clone, Debug)]
pub struct TrustAnswer {
    /// Its status.
    pub status: StatusCode,
    /// The status with the server's words.
    pub status_line: String,
    /// The code of an error in the form of the registry API (`METADATA_NOT_FOUND`).
    pub code: Option<String>,
    /// Where it came from, after redirects; without secrets.
    pub url: String,
    /// Its headers, as they came, but for cookies and the like, very long values, and values that are no text.
    pub headers: Vec<(String, String)>,
    /// Its body, byte for byte; of an answer other than 2xx only the beginning.
    pub body: Bytes,
}

/// Which stored credentials a trust server may be sent: those of the registry that it belongs to.
///
/// Docker sends the credentials of the registry in a repository's name to the trust server (spec notary-dct 1.2).
/// Here the server's address is the user's choice, so a name alone must not decide: anybody could lay out a list of
/// names such as `docker.io/x` and collect Docker Hub passwords.
#[derive(Clone, Debug)]
pub struct TrustLogin {
    host: String,
    registry: Option<String>,
}

impl TrustLogin {
    /// For the server at `url`; `registry` is the `host[:port]` of the login to use for all repositories.
    pub fn new(url: &Url, registry: Option<String>) -> Self {
        Self { host: url.host_str().unwrap_or_default().to_owned(), registry }
    }

    /// Returns the registry whose stored credentials may be sent for repositories of `registry`: the same host, or
    /// Docker Hub for its own trust server.
    pub fn registry<'a>(&'a self, registry: &'a str) -> Option<&'a str> {
        if let Some(chosen) = &self.registry {
            return Some(chosen);
        }
        let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
        let belongs = host.eq_ignore_ascii_case(&self.host) || (host == "docker.io" && self.host == DOCKER_HUB);
        belongs.then_some(registry)
    }
}

/// Docker Hub's trust server.
const DOCKER_HUB: &str = "notary.docker.io";

/// A trust server that answered its ping.
#[derive(Clone, Debug)]
pub struct TrustServer {
    client: RegistryClient,
    /// Replaced when a file's own 401 names a challenge that the ping did not.
    connection: Arc<RwLock<Arc<Connection>>>,
    login: TrustLogin,
    /// `scheme://host[:port]`.
    name: String,
}

impl RegistryClient {
    /// Connects to the trust server at `url`, `http(s)://host[:port]`. A server whose ping is neither
    /// 200 nor 401 is one that asks for no credentials, such as a web server with copied files.
    ///
    /// # Errors
    /// [`ConnectError`] when there is no answer, or one that leads to another server.
    pub async fn trust_server(&self, url: &Url, login: TrustLogin) -> Result<TrustServer, ConnectError> {
        let shared = &self.shared;
        let connection = Connection::open_at(url, &shared.options, &shared.user_agent, self.patience()).await?;
        let name = url.origin().ascii_serialization();
        Ok(TrustServer { client: self.clone(), connection: Arc::new(RwLock::new(Arc::new(connection))), login, name })
    }
}

impl TrustServer {
    /// Returns `scheme://host[:port]`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells whether stored credentials for `registry`, if there are some, are not sent to this server.
    pub fn withholds_login(&self, registry: &str) -> bool {
        matches!(self.client.shared.options.credentials, CredentialSource::Files(_))
            && self.login.registry(registry).is_none()
    }

    fn connection(&self) -> Arc<Connection> {
        self.connection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for one metadata file of a repository, `root.json`; `registry` is the host in the repository's name.
    ///
    /// # Errors
    /// [`CallError`] when there is no answer, no token, or a body over `limit` bytes.
    pub async fn metadata(
        &self,
        (registry, gun): (&str, &str),
        file: &str,
        limit: usize,
    ) -> Result<TrustAnswer, CallError> {
        let path = format!("/v2/{gun}/_trust/tuf/{file}");
        let scope = Scope::Trust { server: &self.name, registry: self.login.registry(registry), gun };
        let call = Call { method: Method::GET, path: &path, scope, accept: &[], body: None, limit };
        let connection = self.connection();
        let mut answer = self.client.call(&connection, &call).await?;
        if answer.status == StatusCode::UNAUTHORIZED
            && known_challenge(&connection.challenges).is_none()
            && let Some(challenged) = connection.with_challenges_of(&answer)
        {
            let challenged = Arc::new(challenged);
            *self.connection.write().unwrap_or_else(PoisonError::into_inner) = challenged.clone();
            answer = self.client.call(&challenged, &call).await?;
        }
        Ok(TrustAnswer {
            status: answer.status,
            status_line: answer.status_line(),
            code: Refusal::of(&answer).code().map(str::to_owned),
            url: redact(&answer.url),
            headers: kept_headers(&answer.headers),
            body: answer.body,
        })
    }
}

/// The most headers of one response that are kept, and the longest value.
const HEADERS_LIMIT: usize = 64;
const HEADER_LIMIT: usize = 2048;

/// Returns the headers that say something of the file. Cookies and challenges belong to the session, and may be
/// secret.
fn kept_headers(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let secret = |name: &str| {
        matches!(name, "set-cookie" | "set-cookie2" | "cookie" | "www-authenticate" | "location")
            || ["auth", "token", "secret", "session", "csrf"].iter().any(|word| name.contains(word))
    };
    headers
        .iter()
        .filter(|(name, value)| !secret(name.as_str()) && value.len() <= HEADER_LIMIT)
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .take(HEADERS_LIMIT)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sends_stored_credentials_only_to_the_server_of_the_same_registry() {
        for (server, registry, sent) in [
            ("https://notary.docker.io", "docker.io", true),
            ("https://us.icr.io:4443", "us.icr.io", true),
            ("https://localhost:4443", "localhost:5000", true),
            ("https://notary.docker.io.evil.example", "docker.io", false),
            ("https://evil.example", "docker.io", false),
            ("https://notary.docker.io", "quay.io", false),
            ("https://us.icr.io", "de.icr.io", false),
        ] {
            let login = TrustLogin::new(&Url::parse(server).unwrap(), None);
            assert_eq!(login.registry(registry), sent.then_some(registry), "{server} {registry}");
        }
        let login = TrustLogin::new(&Url::parse("https://notary.example").unwrap(), Some("a.example:5000".into()));
        assert_eq!(login.registry("b.example"), Some("a.example:5000"));
    }

    #[test]
    fn keeps_no_cookie_and_no_endless_header() {
        let mut headers = http::HeaderMap::new();
        headers.insert("set-cookie", "id=1".parse().unwrap());
        headers.insert("x-amz-security-token", "s".parse().unwrap());
        headers.insert("last-modified", "now".parse().unwrap());
        headers.insert("x-long", "x".repeat(HEADER_LIMIT + 1).parse().unwrap());
        assert_eq!(kept_headers(&headers), [("last-modified".to_owned(), "now".to_owned())]);
        for number in 0..200 {
            headers.append("x-many", number.to_string().parse().unwrap());
        }
        assert_eq!(kept_headers(&headers).len(), HEADERS_LIMIT);
    }
}
