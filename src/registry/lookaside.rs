//! The reader of http lookasides: `signature-1`, `signature-2`, … until the first 404 (spec
//! containers-image 2.2, 2.3). Where a signature lies is told by the caller.

use std::num::NonZeroU32;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};

use crate::signature::{BLOB_LIMIT, BlobError, classify};

use super::error::tame;
use super::fetch::{self, Exchange, FetchError, redact};
use super::http::HttpClient;

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
    http: HttpClient,
    timeout: Duration,
}

impl LookasideReader {
    /// Makes a reader; `timeout` is for each signature, redirects included.
    pub fn new(http: HttpClient, timeout: Duration) -> Self {
        Self { http, timeout }
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
        let parsed =
            fetch::parse_url(url).map_err(|source| LookasideError::Fetch { url: "lookaside".to_owned(), source })?;
        let shown = redact(&parsed);
        let exchange = Exchange {
            method: Method::GET,
            url: parsed,
            headers: HeaderMap::new(),
            body: None,
            limit: BLOB_LIMIT,
            timeout: self.timeout,
        };
        let answer = match fetch::exchange(&self.http, exchange).await {
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
        match classify(&answer.body) {
            Ok(_) => Ok(Some(answer.body)),
            Err(source) => Err(LookasideError::Blob { url: shown, source }),
        }
    }
}
