//! Reading from a trust server (Notary v1, Docker Content Trust), which is asked as a registry is:
//! ping, Basic or token, redirects, rate (spec notary-dct 1).

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, StatusCode};
use url::Url;

use super::client::{Call, RegistryClient, Scope};
use super::connection::Connection;
use super::error::{CallError, ConnectError};
use super::fetch::redact;

/// One answer of a trust server, whatever its status.
#[derive(Clone, Debug)]
pub struct TrustAnswer {
    /// Its status.
    pub status: StatusCode,
    /// The status with the server's words.
    pub status_line: String,
    /// Where it came from, after redirects; without secrets.
    pub url: String,
    /// Its headers, as they came; values that are no text are left out.
    pub headers: Vec<(String, String)>,
    /// Its body, byte for byte; of an answer other than 2xx only the beginning.
    pub body: Bytes,
}

/// A trust server that answered its ping.
#[derive(Clone, Debug)]
pub struct TrustServer {
    client: RegistryClient,
    connection: Arc<Connection>,
    /// `scheme://host[:port]`.
    name: String,
}

impl RegistryClient {
    /// Connects to the trust server at `url`, `http(s)://host[:port]`. A server whose ping is neither
    /// 200 nor 401 is one that asks for no credentials, such as a web server with copied files.
    ///
    /// # Errors
    /// [`ConnectError`] when there is no answer.
    pub async fn trust_server(&self, url: &Url) -> Result<TrustServer, ConnectError> {
        let connection = Connection::open_at(url, &self.shared.options, &self.shared.user_agent).await?;
        let name = url.origin().ascii_serialization();
        Ok(TrustServer { client: self.clone(), connection: Arc::new(connection), name })
    }
}

impl TrustServer {
    /// Returns `scheme://host[:port]`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks for one metadata file of a repository, `root.json`; `registry` is the host whose
    /// credentials count, as docker has it: that of the repository's name.
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
        let scope = Scope::Trust { server: &self.name, registry, gun };
        let call = Call { method: Method::GET, path: &path, scope, accept: &[], body: None, limit };
        let answer = self.client.call(&self.connection, &call).await?;
        let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_owned);
        let headers = answer.headers.iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)));
        Ok(TrustAnswer {
            status: answer.status,
            status_line: answer.status_line(),
            url: redact(&answer.url),
            headers: headers.collect(),
            body: answer.body,
        })
    }
}
