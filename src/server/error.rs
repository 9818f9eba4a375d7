//! The only place that decides which HTTP status a failure gets, and how it is told.
//!
//! The registry faces speak the distribution specification's `{"errors":[{code,message,detail}]}`.
//! Codes are those of that specification but for `SIGNATURE_INVALID`, which is OpenShift's: clients
//! repeat a whole push on codes that they do not know (spec containers-image 3.3, 3.4). They print
//! `code: message` and leave `detail` out, so the message names the reason too.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::escape;
use crate::image::Digest;
use crate::metrics::Outcome;
use crate::server::listener::response_body::Answer;
use crate::store::StoreError;

/// How long a client is asked to wait for the end of a file that somebody is writing, in seconds.
const UNFINISHED_SECONDS: u64 = 1;
/// How long a client is asked to wait when nobody knows better, in seconds.
const RETRY_SECONDS: u64 = 5;
/// The longest reason that is told or logged, in characters: some repeat what a stranger sent.
const REASON_SHOWN: usize = 2000;
/// What caches are told of answers that none may keep.
const NOT_KEPT: &str = "no-store";

/// How long wrong credentials are held against where they came from, and so what `Retry-After` says of them.
pub(super) const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// How a failure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A line of plain text: lookaside clients read nothing of it.
    Plain,
    /// The registry error shape.
    Registry,
}

/// Everything that may go wrong with a request.
#[derive(Clone, Debug)]
pub(super) enum Problem {
    /// The path is no well-formed address of anything.
    NoSuchAddress(Shape),
    /// The set has no such signature.
    NoSuchSignature,
    /// A registry path, but there is no registry behind this server.
    NoUpstream,
    /// Not with this method.
    Method(Shape, &'static str),
    /// The store fails, which is never the same as having nothing.
    Store(Shape),
    /// Somebody is writing a file of the set in place.
    Unfinished(Shape),
    /// The upload is no acceptable signature; the reason is for the uploader.
    Invalid(String),
    /// The upload is longer than allowed.
    TooLarge(usize),
    /// The upload's body broke off or took too long.
    Incomplete,
    /// The upstream has no such manifest.
    ManifestUnknown(Digest),
    /// What decides about uploads cannot be asked: a fault of ours, told in the log.
    Gate,
    /// Not allowed, for this reason.
    Denied(String),
    /// The upstream's refusal, handed on with its challenges.
    PassedOn {
        /// 401, 403 or 429.
        status: StatusCode,
        /// `WWW-Authenticate` (already rewritten) and `Retry-After`.
        headers: Box<HeaderMap>,
        /// The upstream's own words, if it had some in JSON.
        body: Option<Bytes>,
    },
    /// The upstream cannot be reached, or broke the connection.
    UpstreamUnreachable,
    /// The upstream does not answer in time.
    UpstreamTimeout,
    /// The upstream answered with something that decides nothing.
    UpstreamFailing(StatusCode, Option<HeaderValue>),
    /// All places for connections or requests are taken.
    Overloaded,
    /// The client has more connections or requests open than one may have.
    TooManyRequests,
    /// The request is no proper HTTP: this is wrong.
    Malformed(&'static str),
    /// Credentials are needed, or others than these: HTTP Basic would do.
    Unauthorized,
    /// Too many wrong credentials came from there.
    TooManyFailures,
    /// Too many others wait for their turn.
    Busy,
    /// What is shown at this release address depends on more repositories than the registry is asked
    /// about for one request.
    TooManyQuestions,
    /// The file that would tell who may come in cannot be used; told in the log.
    Credentials,
    /// What is asked for is true of another state than the present one.
    Condition,
    /// At this release address, signatures are shown that lie at other paths.
    Elsewhere,
    /// The audit record cannot be written, so nothing may be changed; told in the log.
    Unrecorded,
    /// A fault of our own.
    Internal,
    /// Another one, told as a line of plain text.
    Plainly(Box<Problem>),
}

impl Problem {
    /// Tells that a set cannot be read.
    pub(super) fn unread(error: &StoreError, shape: Shape) -> Self {
        match error {
            StoreError::Unfinished(_) => Self::Unfinished(shape),
            _ => Self::Store(shape),
        }
    }

    /// Says in a few words why, for the log.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Invalid(reason) | Self::Denied(reason) => shorten(reason, REASON_SHOWN),
            Self::PassedOn { status, .. } => format!("the upstream registry answered {status}"),
            Self::Plainly(problem) => problem.reason(),
            other => format!("{other:?}"),
        }
    }

    /// Tells whether it is the server's fault, not the caller's.
    pub(super) fn is_ours(&self) -> bool {
        self.outcome().is_some()
    }

    /// Has it told as a line of plain text.
    pub(super) fn plainly(self) -> Self {
        Self::Plainly(Box::new(self))
    }

    /// Returns what is counted, where the status does not say it all.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Store(_) | Self::Unfinished(_) => Some(Outcome::StoreFailing),
            Self::UpstreamUnreachable => Some(Outcome::UpstreamUnreachable),
            Self::UpstreamTimeout => Some(Outcome::UpstreamTimeout),
            Self::UpstreamFailing(..) => Some(Outcome::UpstreamFailing),
            Self::Gate
            | Self::Overloaded
            | Self::Busy
            | Self::TooManyQuestions
            | Self::Credentials
            | Self::Unrecorded => Some(Outcome::Unavailable),
            Self::Internal => Some(Outcome::Internal),
            Self::Plainly(problem) => problem.outcome(),
            _ => None,
        }
    }

    /// Makes the answer.
    pub(super) fn into_answer(self) -> Answer {
        self.told(Shape::Registry)
    }

    /// Makes the answer, in this shape unless the problem has one of its own.
    fn told(self, shape: Shape) -> Answer {
        let registry = |status, code, message: &str, detail: Option<&str>| match shape {
            Shape::Registry => registry(status, code, message, detail),
            Shape::Plain => plain(status, format!("{}\n", escape::line(message)), NOT_KEPT),
        };
        match self {
            Self::Plainly(problem) => problem.told(Shape::Plain),
            Self::Unauthorized => {
                let mut answer = registry(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required", None);
                let challenge = HeaderValue::from_static("Basic realm=\"countersign\", charset=\"UTF-8\"");
                answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
                answer
            }
            Self::TooManyFailures => {
                let message = "too many wrong credentials from there; try again later";
                let answer = registry(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message, None);
                retry_later(answer, Some(HeaderValue::from(FAILURE_WINDOW.as_secs())))
            }
            Self::Busy => {
                let message = "too many others are waiting; try again";
                retry_later(registry(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message, None), None)
            }
            Self::TooManyQuestions => {
                let message = "the registry has to be asked about too many repositories below this address; try again \
                               soon, or ask at the repository's own address";
                retry_later(registry(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message, None), None)
            }
            Self::Credentials => {
                let message = "the server cannot check credentials at the moment; its log says why";
                retry_later(registry(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message, None), None)
            }
            Self::Condition => registry(
                StatusCode::PRECONDITION_FAILED,
                "DENIED",
                "the number has other bytes than the condition wants; no signature is ever replaced",
                None,
            ),
            Self::Elsewhere => registry(
                StatusCode::CONFLICT,
                "DENIED",
                "what is shown at this release address lies in repositories below it and can be changed only there",
                None,
            ),
            Self::Unrecorded => {
                let message = "the server cannot write its audit log, so it changes nothing; its log says why";
                retry_later(registry(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message, None), None)
            }
            Self::NoSuchAddress(Shape::Plain) => cached_absence("not found\n"),
            Self::NoSuchSignature => cached_absence("no such signature\n"),
            Self::NoSuchAddress(Shape::Registry) => {
                registry(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such address", None)
            }
            Self::NoUpstream => registry(
                StatusCode::NOT_FOUND,
                "UNSUPPORTED",
                "no upstream registry is configured; this server only answers below /lookaside/",
                None,
            ),
            Self::Method(shape, allow) => {
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let mut answer = match shape {
                    Shape::Plain => plain(status, "method not allowed\n", NOT_KEPT),
                    Shape::Registry => registry(status, "UNSUPPORTED", "The operation is unsupported.", None),
                };
                answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
                answer
            }
            Self::Store(shape) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let message = "the signature store fails at the moment";
                let answer = match shape {
                    Shape::Plain => plain(status, "the signature store fails at the moment\n", NOT_KEPT),
                    Shape::Registry => registry(status, "UNAVAILABLE", message, None),
                };
                retry_later(answer, None)
            }
            Self::Unfinished(shape) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let message = "a signature of this image is being written at the moment";
                let answer = match shape {
                    Shape::Plain => {
                        plain(status, "a signature of this image is being written at the moment\n", NOT_KEPT)
                    }
                    Shape::Registry => registry(status, "UNAVAILABLE", message, None),
                };
                retry_later(answer, Some(HeaderValue::from(UNFINISHED_SECONDS)))
            }
            Self::Invalid(reason) => {
                let reason = shorten(&reason, REASON_SHOWN);
                let message = format!("invalid image signature: {reason}");
                registry(StatusCode::BAD_REQUEST, "SIGNATURE_INVALID", &message, Some(&reason))
            }
            Self::TooLarge(limit) => {
                let message = format!("the request body is longer than {limit} bytes");
                closing(registry(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", &message, None))
            }
            Self::Incomplete => {
                let message = "the request body broke off or came too slowly";
                closing(registry(StatusCode::REQUEST_TIMEOUT, "SIZE_INVALID", message, None))
            }
            Self::ManifestUnknown(digest) => {
                let message = format!("the registry has no manifest {digest} in this repository");
                registry(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", &message, Some(&digest.to_string()))
            }
            Self::Gate => {
                let message = "the server cannot check signatures at the moment; its log says why";
                retry_later(registry(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message, None), None)
            }
            Self::Denied(reason) => {
                let reason = shorten(&reason, REASON_SHOWN);
                registry(StatusCode::FORBIDDEN, "DENIED", &reason, Some(&reason))
            }
            Self::PassedOn { status, headers, body } => passed_on(status, *headers, body),
            Self::UpstreamUnreachable => retry_later(
                registry(StatusCode::BAD_GATEWAY, "UNAVAILABLE", "the upstream registry cannot be reached", None),
                None,
            ),
            Self::UpstreamTimeout => retry_later(
                registry(
                    StatusCode::GATEWAY_TIMEOUT,
                    "UNAVAILABLE",
                    "the upstream registry does not answer in time",
                    None,
                ),
                None,
            ),
            Self::UpstreamFailing(said, retry_after) => {
                let status = match said {
                    StatusCode::SERVICE_UNAVAILABLE => StatusCode::SERVICE_UNAVAILABLE,
                    _ => StatusCode::BAD_GATEWAY,
                };
                let message = format!("the upstream registry answered {said}");
                retry_later(registry(status, "UNAVAILABLE", &message, None), retry_after)
            }
            Self::Overloaded => {
                retry_later(registry(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the server is busy", None), None)
            }
            Self::TooManyRequests => {
                let message = "too many connections or requests at once from your address";
                retry_later(registry(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message, None), None)
            }
            Self::Malformed(what) => {
                let message = format!("the request is malformed: {what}");
                registry(StatusCode::BAD_REQUEST, "UNSUPPORTED", &message, None)
            }
            Self::Internal => {
                registry(StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN", "an internal error; see the server's log", None)
            }
        }
    }
}

/// Cuts a text after so many characters.
pub(super) fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The upstream's refusal. A HEAD has no body to hand on, so one is made.
fn passed_on(status: StatusCode, headers: HeaderMap, body: Option<Bytes>) -> Answer {
    let (code, message) = match status {
        StatusCode::UNAUTHORIZED => ("UNAUTHORIZED", "authentication required"),
        StatusCode::TOO_MANY_REQUESTS => ("TOOMANYREQUESTS", "too many requests"),
        _ => ("DENIED", "requested access to the resource is denied"),
    };
    let mut answer = registry(status, code, message, None);
    if let Some(body) = body {
        *answer.body_mut() = body.into();
    }
    answer.headers_mut().extend(headers);
    answer
}

/// Answers in the registry error shape.
fn registry(status: StatusCode, code: &'static str, message: &str, detail: Option<&str>) -> Answer {
    let mut error = serde_json::Map::new();
    error.insert("code".to_owned(), code.into());
    error.insert("message".to_owned(), message.into());
    if let Some(detail) = detail {
        error.insert("detail".to_owned(), detail.into());
    }
    let body = escape::json::visible(&serde_json::json!({ "errors": [error] }).to_string()).into_owned();
    let mut answer = Answer::new(body.into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(NOT_KEPT));
    answer
}

fn plain(status: StatusCode, text: impl Into<Bytes>, caching: &'static str) -> Answer {
    let mut answer = Answer::new(text.into().into());
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    answer
}

/// A 404 that caches may keep for a moment: every client asks for one number too many.
fn cached_absence(text: &'static str) -> Answer {
    plain(StatusCode::NOT_FOUND, text, "max-age=5")
}

fn retry_later(mut answer: Answer, after: Option<HeaderValue>) -> Answer {
    answer.headers_mut().insert(RETRY_AFTER, after.unwrap_or_else(|| HeaderValue::from(RETRY_SECONDS)));
    answer
}

/// Ends the connection: the rest of the body will not be read.
fn closing(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::listener::response_body::Body;

    #[test]
    fn the_table_of_statuses() {
        let digest = Digest::sha256(b"x");
        for (problem, status, code, retry) in [
            (Problem::NoSuchAddress(Shape::Plain), 404, "", false),
            (Problem::NoSuchSignature, 404, "", false),
            (Problem::NoSuchAddress(Shape::Registry), 404, "NAME_UNKNOWN", false),
            (Problem::NoUpstream, 404, "UNSUPPORTED", false),
            (Problem::Method(Shape::Plain, "GET, HEAD"), 405, "", false),
            (Problem::Store(Shape::Plain), 503, "", true),
            (Problem::Store(Shape::Registry), 503, "UNAVAILABLE", true),
            (Problem::Unfinished(Shape::Plain), 503, "", true),
            (Problem::Unfinished(Shape::Registry), 503, "UNAVAILABLE", true),
            (Problem::Invalid("x".to_owned()), 400, "SIGNATURE_INVALID", false),
            (Problem::TooLarge(7), 413, "SIZE_INVALID", false),
            (Problem::Incomplete, 408, "SIZE_INVALID", false),
            (Problem::ManifestUnknown(digest), 404, "MANIFEST_UNKNOWN", false),
            (Problem::Denied("no".to_owned()), 403, "DENIED", false),
            (Problem::UpstreamUnreachable, 502, "UNAVAILABLE", true),
            (Problem::UpstreamTimeout, 504, "UNAVAILABLE", true),
            (Problem::UpstreamFailing(StatusCode::INTERNAL_SERVER_ERROR, None), 502, "UNAVAILABLE", true),
            (Problem::UpstreamFailing(StatusCode::SERVICE_UNAVAILABLE, None), 503, "UNAVAILABLE", true),
            (Problem::Overloaded, 503, "UNAVAILABLE", true),
            (Problem::TooManyRequests, 429, "TOOMANYREQUESTS", true),
            (Problem::Busy, 503, "UNAVAILABLE", true),
            (Problem::TooManyQuestions, 503, "UNAVAILABLE", true),
            (Problem::Malformed("x"), 400, "UNSUPPORTED", false),
            (Problem::Internal, 500, "UNKNOWN", false),
        ] {
            let said = format!("{problem:?}");
            let answer = problem.into_answer();
            assert_eq!(answer.status(), status, "{said}");
            assert_eq!(answer.headers().contains_key(RETRY_AFTER), retry, "{said}");
            let Body::Full(Some(body)) = answer.body() else { panic!("{said}") };
            match serde_json::from_slice::<serde_json::Value>(body) {
                Ok(json) => assert_eq!(json["errors"][0]["code"], code, "{said}"),
                Err(_) => assert_eq!(code, "", "{said}"),
            }
        }
    }
}
