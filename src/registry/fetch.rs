//! One bounded HTTP exchange: redirects as Go follows them, a limit on the body, a limit on time,
//! and error texts without passwords.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use url::Url;

use super::http::{HttpClient, empty, full};
use super::secret::basic;

/// The most redirects that are followed, as Go's default.
const REDIRECT_LIMIT: usize = 10;
/// How much of an error's body is read.
const ERROR_BODY_LIMIT: usize = 64 * 1024;

/// Why an HTTP exchange gave no answer that can be used. URLs are redacted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The text is no absolute URL.
    #[error("{url:?} is not a usable URL: {reason}")]
    Url {
        /// The text, redacted as far as it can be understood.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Not http and not https.
    #[error("unsupported protocol scheme {scheme:?} in {url}")]
    Scheme {
        /// The redacted URL.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// No connection, a broken one, or a TLS failure.
    #[error("{method} {url}: {reason}")]
    Transport {
        /// The method.
        method: Method,
        /// The redacted URL.
        url: String,
        /// Every cause, outermost first.
        reason: String,
    },
    /// The exchange took too long.
    #[error("{method} {url}: no complete answer within {} s", after.as_secs())]
    Timeout {
        /// The method.
        method: Method,
        /// The redacted URL.
        url: String,
        /// The limit.
        after: Duration,
    },
    /// An endless chain of redirects.
    #[error("{url}: stopped after {REDIRECT_LIMIT} redirects")]
    Redirects {
        /// The redacted URL that was asked first.
        url: String,
    },
    /// The body is larger than any honest one.
    #[error("exceeded maximum allowed size of {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A body that says it is gzip and is not.
    #[error("{url}: the answer's gzip encoding is broken: {reason}")]
    Gzip {
        /// The redacted URL.
        url: String,
        /// What the decoder said.
        reason: String,
    },
}

impl FetchError {
    /// Tells whether the same question may well be answered at another moment.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Transport { .. } | Self::Timeout { .. })
    }
}

/// What to ask.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
    /// The most bytes of a good answer's body; more is an error.
    pub(super) limit: usize,
    pub(super) timeout: Duration,
    /// Where a redirect may take the credentials.
    pub(super) keep_credentials: KeepCredentials,
}

/// How far the credentials of an exchange go with a redirect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeepCredentials {
    /// `Authorization` stays while the host name does, as Go's client does it.
    SameHost,
    /// `Authorization` stays while scheme, host and port do, and the body, which may be a refresh
    /// token, is never sent elsewhere: token servers.
    SameOrigin,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    reason: String,
    /// What was asked last, after redirects.
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// The body; of an answer other than 2xx only the beginning.
    pub(super) body: Bytes,
}

impl Answer {
    /// `404 Not Found`, with the words that the server used.
    pub(super) fn status_line(&self) -> String {
        format!("{} {}", self.status.as_u16(), self.reason).trim_end().to_owned()
    }

    pub(super) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Parses an absolute URL.
pub(super) fn parse_url(text: &str) -> Result<Url, FetchError> {
    Url::parse(text).map_err(|e| FetchError::Url { url: redact_text(text), reason: e.to_string() })
}

/// Tells whether nobody on the way can read what is sent to `url`: TLS, or this machine itself.
pub(super) fn hides_passwords(url: &Url) -> bool {
    url.scheme() == "https"
        || match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
}

/// Prints a URL without what may be secret in it: the password (as Go does), and the values of
/// its query, where lookasides and presigned URLs carry tokens.
pub fn redact(url: &Url) -> String {
    if url.cannot_be_a_base() {
        // `user:password@host` without a scheme parses so: all of it may be secret.
        return format!("{}:xxxxx", url.scheme());
    }
    let mut shown = url.clone();
    shown.set_fragment(None);
    if shown.password().is_some() {
        // Fails only for URLs that cannot have a password.
        let _ = shown.set_password(Some("xxxxx"));
    }
    if let Some(query) = url.query().filter(|query| !query.is_empty()) {
        let names = query.split('&').map(|pair| match pair.split_once('=') {
            Some((name, _)) => format!("{name}=xxxxx"),
            None => "xxxxx".to_owned(),
        });
        shown.set_query(Some(&names.collect::<Vec<_>>().join("&")));
    }
    shown.into()
}

/// The same for a text that is perhaps no URL: whatever stands before an `@` or after a `?` goes.
pub fn redact_text(text: &str) -> String {
    let text = text.split_once(['?', '#']).map_or(text, |(before, _)| before);
    let scheme = text.find("://").map_or(0, |at| at + 3);
    let (scheme, rest) = text.split_at_checked(scheme).unwrap_or(("", text));
    match rest.rsplit_once('@') {
        Some((_, after)) => format!("{scheme}xxxxx@{after}"),
        None => text.to_owned(),
    }
}

/// Waits until this host may be asked; then [`exchange_in_turn`] is to follow.
pub(super) async fn turn(http: &HttpClient, url: &Url) {
    if let Some(pace) = http.pace() {
        pace.wait(url).await;
    }
}

/// Waits for its turn, asks, follows redirects, and reads the answer.
pub(super) async fn exchange(http: &HttpClient, exchange: Exchange) -> Result<Answer, FetchError> {
    turn(http, &exchange.url).await;
    exchange_in_turn(http, exchange).await
}

/// Asks, follows redirects, and reads the answer.
///
/// `Authorization` goes along only while the host name stays the same and the connection does
/// not fall from https to http. Userinfo in a URL is sent as Basic (spec containers-image 2.2).
pub(super) async fn exchange_in_turn(http: &HttpClient, exchange: Exchange) -> Result<Answer, FetchError> {
    let (method, url, after) = (exchange.method.clone(), redact(&exchange.url), exchange.timeout);
    match tokio::time::timeout(after, follow(http, exchange)).await {
        Ok(answer) => answer,
        Err(_) => Err(FetchError::Timeout { method, url, after }),
    }
}

async fn follow(http: &HttpClient, mut exchange: Exchange) -> Result<Answer, FetchError> {
    let first = exchange.url.clone();
    for _ in 0..=REDIRECT_LIMIT {
        let response = send(http, &exchange).await?;
        let Some(next) = redirect(&exchange.url, &response) else {
            return read(&exchange, response).await;
        };
        let next = next?;
        let falls = exchange.url.scheme() == "https" && next.scheme() != "https";
        let stays = match exchange.keep_credentials {
            KeepCredentials::SameHost => next.host_str() == first.host_str() && !falls,
            KeepCredentials::SameOrigin => next.origin() == first.origin(),
        };
        if !stays {
            exchange.headers.remove(AUTHORIZATION);
        }
        let keeps_body = exchange.body.is_some() && matches!(response.status().as_u16(), 307 | 308);
        if !stays && keeps_body && exchange.keep_credentials == KeepCredentials::SameOrigin {
            return read(&exchange, response).await;
        }
        if matches!(response.status().as_u16(), 301..=303) && exchange.method != Method::HEAD {
            exchange.method = Method::GET;
            exchange.body = None;
        }
        if let Some(pace) = http.pace() {
            pace.spend(&next);
        }
        exchange.url = next;
    }
    Err(FetchError::Redirects { url: redact(&first) })
}

fn redirect(url: &Url, response: &Response<Incoming>) -> Option<Result<Url, FetchError>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = String::from_utf8_lossy(response.headers().get(LOCATION)?.as_bytes()).into_owned();
    Some(url.join(&location).map_err(|e| FetchError::Url { url: redact_text(&location), reason: e.to_string() }))
}

/// Sends once; a GET or HEAD that died on a connection is sent once more, since the server may
/// have closed an idle connection just as it was taken from the pool (Go's transport does so).
async fn send(http: &HttpClient, exchange: &Exchange) -> Result<Response<Incoming>, FetchError> {
    let repeatable = exchange.body.is_none() && matches!(exchange.method, Method::GET | Method::HEAD);
    match http.send(request(exchange)?).await {
        Ok(response) => Ok(response),
        Err(error) if repeatable && !error.is_connect() => {
            http.send(request(exchange)?).await.map_err(|e| transport(exchange, &e))
        }
        Err(error) => Err(transport(exchange, &error)),
    }
}

fn request(exchange: &Exchange) -> Result<Request<super::http::RequestBody>, FetchError> {
    let url = &exchange.url;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(FetchError::Scheme { url: redact(url), scheme: url.scheme().to_owned() });
    }
    let mut target = url.clone();
    target.set_fragment(None);
    // Both fail only for URLs without a host, which http URLs always have.
    let _ = target.set_username("");
    let _ = target.set_password(None);
    let body = exchange.body.clone().map_or_else(empty, full);
    let mut request = Request::new(body);
    *request.method_mut() = exchange.method.clone();
    *request.uri_mut() = target
        .as_str()
        .parse()
        .map_err(|e: http::uri::InvalidUri| FetchError::Url { url: redact(url), reason: e.to_string() })?;
    *request.headers_mut() = exchange.headers.clone();
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if !exchange.headers.contains_key(AUTHORIZATION) && (!url.username().is_empty() || url.password().is_some()) {
        let authorization = basic(&decode(url.username()), &decode(url.password().unwrap_or_default()));
        request.headers_mut().insert(AUTHORIZATION, authorization);
    }
    Ok(request)
}

/// Undoes percent escapes; userinfo is sent decoded.
fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'%')
            .then(|| after.get(..2).and_then(|digits| hex::decode(digits).ok()?.first().copied()))
            .flatten();
        match escaped {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

async fn read(exchange: &Exchange, response: Response<Incoming>) -> Result<Answer, FetchError> {
    let status = response.status();
    let reason = match response.extensions().get::<hyper::ext::ReasonPhrase>() {
        Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        None => status.canonical_reason().unwrap_or_default().to_owned(),
    };
    let (parts, mut body) = response.into_parts();
    let mut bytes = BytesMut::new();
    if exchange.method != Method::HEAD {
        let limit = if status.is_success() { exchange.limit } else { ERROR_BODY_LIMIT };
        while let Some(frame) = body.frame().await {
            let frame = match frame {
                Ok(frame) => frame,
                // An error's body only adds words to it.
                Err(_) if !status.is_success() => break,
                Err(error) => return Err(transport(exchange, &error)),
            };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit {
                if status.is_success() {
                    return Err(FetchError::TooLarge { limit });
                }
                break;
            }
            bytes.extend_from_slice(&data);
        }
        let gzip =
            parts.headers.get(CONTENT_ENCODING).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"gzip"));
        if gzip && status.is_success() {
            bytes = gunzip(exchange, &bytes)?;
        }
    }
    Ok(Answer { status, reason, url: exchange.url.clone(), headers: parts.headers, body: bytes.freeze() })
}

/// Undoes gzip as Go's client does, though we never ask for it: object storage serves what was
/// stored so. Other encodings are left as they are, as there (S3's `aws-chunked` means nothing).
fn gunzip(exchange: &Exchange, bytes: &[u8]) -> Result<BytesMut, FetchError> {
    use std::io::Read as _;
    let mut plain = Vec::new();
    let bound = u64::try_from(exchange.limit).unwrap_or(u64::MAX).saturating_add(1);
    flate2::read::MultiGzDecoder::new(bytes)
        .take(bound)
        .read_to_end(&mut plain)
        .map_err(|e| FetchError::Gzip { url: redact(&exchange.url), reason: e.to_string() })?;
    if plain.len() > exchange.limit {
        return Err(FetchError::TooLarge { limit: exchange.limit });
    }
    Ok(BytesMut::from(plain.as_slice()))
}

fn transport(exchange: &Exchange, error: &(dyn std::error::Error + 'static)) -> FetchError {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = write!(reason, ": {inner}");
        cause = inner.source();
    }
    FetchError::Transport { method: exchange.method.clone(), url: redact(&exchange.url), reason }
}

/// The headers that every request of ours has.
pub(super) fn headers(user_agent: &HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, user_agent.clone());
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_secrets() {
        for (text, shown) in [
            ("https://h/p?x", "https://h/p?xxxxx"),
            ("https://u:secret@h/p?token=secret&n&q=", "https://u:xxxxx@h/p?token=xxxxx&xxxxx&q=xxxxx"),
            ("https://u@h/p", "https://u@h/p"),
        ] {
            assert_eq!(redact(&Url::parse(text).unwrap()), shown);
        }
        for text in ["https://u:secret@h:port/?secret", "u:secret@h", "https://u:s/secret@[", ":x?secret"] {
            let shown = parse_url(text).map_or_else(|e| e.to_string(), |url| redact(&url));
            assert!(!shown.contains("secret"), "{shown}");
        }
    }

    #[test]
    fn userinfo_is_decoded() {
        assert_eq!(decode("a%40b%2"), b"a@b%2");
        assert_eq!(decode("%zz%e4"), b"%zz\xe4");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(https?://)?[a-z@:/?#&=%\\[\\]. é]{0,40}") {
            if let Ok(url) = parse_url(&text) {
                let _ = redact(&url);
                let exchange = Exchange {
                    method: Method::GET,
                    url,
                    headers: HeaderMap::new(),
                    body: None,
                    limit: 0,
                    timeout: Duration::ZERO,
                    keep_credentials: KeepCredentials::SameHost,
                };
                let _ = request(&exchange);
            }
        }

        #[test]
        fn passwords_are_never_shown(before in "[a-z/:@?#%]{0,12}", after in "[a-z/:@?#%\\[]{0,12}") {
            let text = format!("https://{before}:SECRET@{after}");
            let shown = parse_url(&text).map_or_else(|e| e.to_string(), |url| {
                // What stands in the path is a path; only userinfo and query are kept back.
                redact(&Url::parse(&redact(&url)).unwrap()).replace(url.path(), "")
            });
            proptest::prop_assert!(!shown.contains("SECRET"), "{}", shown);
        }
    }
}
