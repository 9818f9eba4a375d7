//! The client side of a countersign server's lookaside: `PUT {key}/signature-new` adds a
//! signature behind those that are there, unless the same bytes are among them.

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use url::Position;

use super::client::RegistryClient;
use super::credentials::CredentialsError;
use super::error::{ConnectError, tame};
use super::extension::Uploaded;
use super::fetch::{self, Exchange, FetchError, redact};
use super::lookaside::LookasideReader;
use super::secret::basic;

/// The most bytes of an answer that are read.
const ANSWER_LIMIT: usize = 64 * 1024;

/// Why a lookaside did not take a signature. Passwords in URLs are not shown.
#[derive(Debug, thiserror::Error)]
pub enum DepositError {
    /// Certificates that cannot be used, or no host.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The stored credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// There are credentials, and no TLS to keep them.
    #[error(
        "the credentials for {host} would go over plain http; use https, or turn TLS verification off for it to \
         send them anyway"
    )]
    Plain {
        /// The host.
        host: String,
    },
    /// No answer.
    #[error("writing signature to {url}: {source}")]
    Fetch {
        /// The redacted URL.
        url: String,
        /// The cause.
        source: FetchError,
    },
    /// Neither stored nor there already.
    #[error("writing signature to {url}: {status_line}{words}")]
    Refused {
        /// The redacted URL.
        url: String,
        /// `403 Forbidden`.
        status_line: String,
        /// What the server said of it, after a colon.
        words: String,
    },
}

/// Reads and writes one lookaside that takes uploads.
#[derive(Clone, Debug)]
pub struct Deposit {
    reader: LookasideReader,
}

impl RegistryClient {
    /// Prepares for uploads to the lookaside at `base`, with the credentials in that URL, or else
    /// those that the login files hold for its host.
    ///
    /// # Errors
    /// [`DepositError`]; nothing is asked yet.
    pub async fn deposit(&self, base: &str) -> Result<Deposit, DepositError> {
        let failed = |source| DepositError::Fetch { url: "lookaside".to_owned(), source };
        let url = fetch::parse_url(base).map_err(failed)?;
        let host = &url[Position::BeforeHost..Position::AfterPort];
        let mut reader = self.lookaside_alone(host).await?;
        if !url.username().is_empty() || url.password().is_some() {
            return Ok(Deposit { reader });
        }
        let credential = self.credential_of_host(host).await?;
        if let Some(credential) = credential.filter(|credential| credential.is_secret()) {
            if url.scheme() != "https" && self.checks_certificates() {
                return Err(DepositError::Plain { host: host.to_owned() });
            }
            let authorization = basic(credential.username.as_bytes(), credential.password.expose().as_bytes());
            reader.headers.insert(AUTHORIZATION, authorization);
        }
        Ok(Deposit { reader })
    }
}

impl Deposit {
    /// Returns the reader of what is there, with the same credentials.
    pub fn reader(&self) -> &LookasideReader {
        &self.reader
    }

    /// Adds a signature; `url` is that of `signature-new`. Sent again, it is stored once.
    ///
    /// # Errors
    /// [`DepositError`], with the server's own words where it gave some.
    pub async fn put(&self, url: &str, signature: &Bytes) -> Result<Uploaded, DepositError> {
        let failed = |url: String, source| DepositError::Fetch { url, source };
        let url = fetch::parse_url(url).map_err(|source| failed("lookaside".to_owned(), source))?;
        let shown = redact(&url);
        let mut headers = self.reader.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let (method, body) = (Method::PUT, Some(signature.clone()));
        let exchange = Exchange {
            method,
            url,
            headers,
            body,
            limit: ANSWER_LIMIT,
            timeout: self.reader.timeout,
            keep_credentials: fetch::KeepCredentials::SameHost,
        };
        let answer = match self.reader.exchange(exchange).await {
            Ok(answer) => answer,
            Err(source) => return Err(failed(shown, source)),
        };
        match answer.status {
            StatusCode::CREATED => Ok(Uploaded::Created),
            // Only with the place: a login page is 200, too.
            StatusCode::OK | StatusCode::NO_CONTENT
                if answer.header(LOCATION).is_some_and(|place| place.contains("/signature-")) =>
            {
                Ok(Uploaded::AlreadyThere)
            }
            _ => {
                let words = tame(String::from_utf8_lossy(&answer.body).trim());
                let words = if words.is_empty() { words } else { format!(": {words}") };
                Err(DepositError::Refused { url: shown, status_line: tame(&answer.status_line()), words })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use rustls::RootCertStore;

    use super::super::client::{CredentialSource, RegistryOptions};
    use super::super::fake::{Fake, Heard, say};
    use super::super::secret::Credential;
    use super::*;

    async fn put(
        tls_verify: bool,
        userinfo: &str,
        answer: impl Fn(&Heard) -> Vec<u8> + Send + Sync + 'static,
    ) -> (Fake, Result<Uploaded, DepositError>) {
        let fake = Fake::start(answer).await;
        let options = RegistryOptions {
            tls_verify,
            credentials: CredentialSource::Fixed(Credential::new("user", "pass-word")),
            roots: RootCertStore::empty(),
            timeout: Duration::from_secs(5),
            patient: true,
            ..RegistryOptions::default()
        };
        let client = RegistryClient::with_first_delay(options, Duration::from_millis(1));
        let url = format!("http://{userinfo}{}/base/a@sha256=00/signature-new?token=secret", fake.address);
        let deposit = match client.deposit(&url).await {
            Ok(deposit) => deposit,
            Err(error) => return (fake, Err(error)),
        };
        let put = deposit.put(&url, &Bytes::from_static(b"blob")).await;
        (fake, put)
    }

    #[tokio::test]
    async fn stores_once_whatever_happens() {
        let calls = AtomicUsize::new(0);
        let (fake, put) = put(false, "", move |_| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => Vec::new(),
            1 => say("429 Too Many Requests", &[("Retry-After", "0")], ""),
            2 => say("503 Service Unavailable", &[("Retry-After", "0")], ""),
            _ => say("204 No Content", &[("Location", "/base/a@sha256=00/signature-1")], ""),
        })
        .await;
        assert_eq!(put.unwrap(), Uploaded::AlreadyThere);
        let heard = fake.heard();
        assert_eq!(heard.len(), 4);
        for one in heard {
            assert_eq!((one.method.as_str(), one.body.as_str()), ("PUT", "blob"));
            assert_eq!(one.header("content-type"), Some("application/octet-stream"));
            assert_eq!(one.header("authorization"), Some("Basic dXNlcjpwYXNzLXdvcmQ="));
        }
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_told() {
        for status in
            ["200 OK", "401 Unauthorized", "403 Forbidden", "404 Not Found", "405 x", "409 Conflict", "413 x", "422 x"]
        {
            let (fake, put) = put(false, "a:geheim@", move |_| say(status, &[], "no: not this one\n")).await;
            let error = put.unwrap_err().to_string();
            assert!(error.ends_with(&format!("{status}: no: not this one")), "{error}");
            assert!(!error.contains("secret") && !error.contains("geheim"), "{error}");
            assert_eq!(fake.heard().len(), 1);
            assert_eq!(fake.heard()[0].header("authorization"), Some("Basic YTpnZWhlaW0="));
        }
    }

    #[tokio::test]
    async fn nothing_is_there_without_its_place() {
        let (_, put) = put(false, "", |_| say("204 No Content", &[], "")).await;
        assert!(matches!(put, Err(DepositError::Refused { .. })), "{put:?}");
    }

    #[tokio::test]
    async fn no_password_goes_in_the_clear_unasked() {
        let (fake, put) = put(true, "", |_| say("201 Created", &[], "")).await;
        assert!(matches!(put, Err(DepositError::Plain { .. })), "{put:?}");
        assert!(fake.heard().is_empty());
    }
}
