//! The reader of http lookasides: `signature-1`, `signature-2`, … until the first 404 (spec
//! containers-image 2.2, 2.3). Where a signature lies is told by the caller.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::signature::{BLOB_LIMIT, BlobError, classify};

use super::error::tame;
use super::fetch::{self, Answer, Exchange, FetchError, redact};
use super::http::HttpClient;
use super::patience::{Patience, retry_after};

/// How many signatures are too many to be honest: containers/image stops here with an error.
pub const SIGNATURE_LIMIT: u32 = 128;

/// Why a lookaside's signatures could not be read. Passwords in URLs are not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookasideError {
    /// No URL, no connection, a body that is too large.
    #[error("reading signature from {url}: {source}")]
    Fetch {
        /// The redacted URL.
        url: String,
        /// The cause.
        source: FetchError,
    },
    /// Neither 200 nor 404.
    #[error("reading signature from {url}: received unexpected HTTP status: {status_line}")]
    Status {
        /// The redacted URL.
        url: String,
        /// The status.
        status: StatusCode,
        /// `403 Forbidden`.
        status_line: String,
    },
    /// A body that is no signature: a web page, nothing, armour.
    #[error("parsing signature {url}: {source}")]
    Blob {
        /// The redacted URL.
        url: String,
        /// What is wrong with it.
        source: BlobError,
    },
    /// There is no end.
    #[error("server provided {SIGNATURE_LIMIT} signatures, assuming that's unreasonable and a server error")]
    TooMany,
}

/// Reads http lookasides.
#[derive(Clone, Debug)]
pub struct LookasideReader {
    pub(super) http: HttpClient,
    pub(super) timeout: Duration,
    /// Sent with every request.
    pub(super) headers: HeaderMap,
    /// Clients have none; a long job has.
    pub(super) patience: Option<Patience>,
}

impl LookasideReader {
    /// Makes a reader; `timeout` is for each signature, redirects included.
    pub fn new(http: HttpClient, timeout: Duration) -> Self {
        Self { http, timeout, headers: HeaderMap::new(), patience: None }
    }

    pub(super) fn patient(self, patience: Patience) -> Self {
        Self { patience: Some(patience), ..self }
    }

    /// Reads all signatures, the URL of number `n` being `url(n)`.
    ///
    /// Each is what `signature::classify` takes. Userinfo in a URL is sent as Basic; no other
    /// credentials ever are.
    ///
    /// # Errors
    /// [`LookasideError`] where containers/image would fail the pull: nothing is returned then.
    pub async fn signatures(&self, url: impl Fn(NonZeroU32) -> String) -> Result<Vec<Bytes>, LookasideError> {
        let mut found = Vec::new();
        let mut number = NonZeroU32::MIN;
        while let Some(signature) = self.signature(&url(number)).await? {
            found.push(signature);
            if number.get() >= SIGNATURE_LIMIT {
                return Err(LookasideError::TooMany);
            }
            number = number.saturating_add(1);
        }
        Ok(found)
    }

    /// Reads the signature at one URL; `None` is 404.
    ///
    /// # Errors
    /// As [`LookasideReader::signatures`].
    pub async fn signature(&self, url: &str) -> Result<Option<Bytes>, LookasideError> {
        let Some(bytes) = self.blob(url).await? else { return Ok(None) };
        match classify(&bytes) {
            Ok(_) => Ok(Some(bytes)),
            Err(source) => {
                let url = Url::parse(url).map_or_else(|_| "lookaside".to_owned(), |url| redact(&url));
                Err(LookasideError::Blob { url, source })
            }
        }
    }

    /// Reads whatever is at one URL, for those who judge each signature by itself; `None` is 404.
    ///
    /// # Errors
    /// As [`LookasideReader::signatures`], but for [`LookasideError::Blob`].
    pub async fn blob(&self, url: &str) -> Result<Option<Bytes>, LookasideError> {
        let parsed =
            fetch::parse_url(url).map_err(|source| LookasideError::Fetch { url: "lookaside".to_owned(), source })?;
        let shown = redact(&parsed);
        let exchange = Exchange {
            method: Method::GET,
            url: parsed,
            headers: self.headers.clone(),
            body: None,
            limit: BLOB_LIMIT,
            timeout: self.timeout,
            keep_credentials: fetch::KeepCredentials::SameHost,
        };
        let answer = match self.exchange(exchange).await {
            Ok(answer) => answer,
            Err(source) => return Err(LookasideError::Fetch { url: shown, source }),
        };
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status => {
                return Err(LookasideError::Status { url: shown, status, status_line: tame(&answer.status_line()) });
            }
        }
        if answer.header(CONTENT_TYPE).is_some_and(|media_type| media_type.starts_with("text/html")) {
            tracing::warn!(url = shown, "the lookaside sends text/html, which is rarely a signature");
        }
        Ok(Some(answer.body))
    }

    /// Asks, and again if there is patience for it. What is sent must bear being sent twice.
    pub(super) async fn exchange(&self, exchange: Exchange) -> Result<Answer, FetchError> {
        let Some(mut patience) = self.patience else { return fetch::exchange(&self.http, exchange).await };
        loop {
            let result = fetch::exchange(&self.http, exchange.clone()).await;
            let wait = match &result {
                Ok(answer) => patience.after(answer),
                Err(error) if error.is_passing() => patience.after_silence(),
                Err(_) => None,
            };
            let Some(wait) = wait else { return result };
            if let (Some(pace), Ok(answer)) = (self.http.pace(), &result)
                && retry_after(answer, std::time::SystemTime::now()).is_some()
            {
                pace.hold(&exchange.url, wait);
            }
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;

    use super::super::fake::{Fake, Heard, not_found, say};
    use super::*;

    const BLOB: &[u8] = b"\xa3 not really OpenPGP";

    async fn lookaside(
        answer: impl Fn(&Heard) -> Vec<u8> + Send + Sync + 'static,
    ) -> (Fake, Result<Vec<Bytes>, LookasideError>) {
        let fake = Fake::start(answer).await;
        let http = HttpClient::new(RootCertStore::empty(), false).unwrap();
        let reader = LookasideReader::new(http, Duration::from_secs(5));
        let base = format!("http://us%40er:pass-word@{}/base", fake.address);
        let url = |number: NonZeroU32| format!("{base}//birds/x@sha256=00/signature-{number}?token=s%2Fecret");
        let read = reader.signatures(url).await;
        (fake, read)
    }

    fn number(heard: &Heard) -> u32 {
        heard.path().rsplit_once("signature-").unwrap().1.parse().unwrap()
    }

    #[tokio::test]
    async fn a_lookaside_is_read_until_404() {
        let (fake, read) = lookaside(|heard| {
            if number(heard) <= 2 { say("200 OK", &[("Content-Type", "text/html")], BLOB) } else { not_found() }
        })
        .await;
        assert_eq!(read.unwrap(), [BLOB, BLOB]);
        let heard = fake.heard();
        assert_eq!(heard.len(), 3);
        assert_eq!(heard[0].target, "/base//birds/x@sha256=00/signature-1?token=s%2Fecret");
        assert_eq!(heard[0].header("authorization"), Some("Basic dXNAZXI6cGFzcy13b3Jk"));
    }

    #[tokio::test]
    async fn a_lookaside_without_end_is_refused() {
        let (fake, read) =
            lookaside(|heard| if number(heard) <= 127 { say("200 OK", &[], BLOB) } else { not_found() }).await;
        assert_eq!((read.unwrap().len(), fake.heard().len()), (127, 128));
        let (fake, read) = lookaside(|_| say("200 OK", &[], BLOB)).await;
        assert_eq!(
            read.unwrap_err().to_string(),
            "server provided 128 signatures, assuming that's unreasonable and a server error"
        );
        assert_eq!(fake.heard().len(), 128);
    }

    #[tokio::test]
    async fn everything_but_404_is_fatal() {
        for (answer, words) in [
            (say("204 No Content", &[], ""), "received unexpected HTTP status: 204 No Content"),
            (say("401 Unauthorized", &[], ""), "received unexpected HTTP status: 401 Unauthorized"),
            (say("403 Forbidden", &[], ""), "received unexpected HTTP status: 403 Forbidden"),
            (say("410 Gone", &[], ""), "received unexpected HTTP status: 410 Gone"),
            (say("503 Slow Down", &[], ""), "received unexpected HTTP status: 503 Slow Down"),
            (say("200 OK", &[], ""), "empty signature blob"),
            (say("200 OK", &[], "<html>"), "unrecognized signature format, starting with binary 0x3c"),
            (say("200 OK", &[], vec![0xa3; 4 * 1024 * 1024 + 1]), "exceeded maximum allowed size of 4194304 bytes"),
            (say("302 Found", &[("Location", "ftp://h/x")], ""), "unsupported protocol scheme \"ftp\""),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n\xa3".to_vec(), "GET http://"),
            (b"SSH-2.0-x\r\n".to_vec(), "GET http://"),
            (Vec::new(), "GET http://"),
        ] {
            let good_first = |answer: Vec<u8>| {
                move |heard: &Heard| if number(heard) == 1 { say("200 OK", &[], BLOB) } else { answer.clone() }
            };
            let always = answer.clone();
            for read in [lookaside(move |_| always.clone()).await.1, lookaside(good_first(answer)).await.1] {
                let error = read.unwrap_err().to_string();
                assert!(error.contains(words), "{error}");
                assert!(
                    error.contains(":xxxxx@") && !error.contains("pass-word") && !error.contains("ecret"),
                    "{error}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_lookaside_may_redirect_and_keeps_no_secret() {
        let stranger = Fake::start(|_| say("200 OK", &[], BLOB)).await;
        let elsewhere = format!("http://localhost:{}/x", stranger.address.rsplit(':').next().unwrap());
        let (_fake, read) = lookaside(move |heard| match number(heard) {
            1 => say("301 Moved Permanently", &[("Location", &elsewhere)], ""),
            _ => not_found(),
        })
        .await;
        assert_eq!(read.unwrap(), [BLOB]);
        assert_eq!(stranger.heard()[0].header("authorization"), None);
    }
}
