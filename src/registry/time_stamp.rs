//! One question to a time stamping authority over HTTP (RFC 3161, 3.4).

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use url::Url;

use super::client::RegistryClient;
use super::connection;
use super::error::{CallError, Refusal};
use super::fetch::{self, Exchange};

/// The largest answer; with a chain of certificates some 10 KiB.
const ANSWER_LIMIT: usize = 1024 * 1024;

impl RegistryClient {
    /// Sends a question in DER to the authority at `url`, and returns its answer in DER, unverified.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn time_stamp(&self, url: &Url, query: Vec<u8>) -> Result<Bytes, CallError> {
        let http = connection::client(url.authority(), &self.shared.options).await;
        let http = http.map_err(|e| CallError::Connect(e.into()))?;
        let mut headers = fetch::headers(&self.shared.user_agent);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/timestamp-query"));
        let exchange = Exchange {
            method: Method::POST,
            url: url.clone(),
            headers,
            body: Some(query.into()),
            limit: ANSWER_LIMIT,
            timeout: self.shared.options.timeout,
            keep_credentials: fetch::KeepCredentials::SameOrigin,
        };
        let answer = fetch::exchange(&http, exchange).await?;
        if answer.status == StatusCode::OK { Ok(answer.body) } else { Err(Refusal::of(&answer).into()) }
    }
}
