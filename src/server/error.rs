//! The only place that decides which HTTP status a failure gets, and what the client reads.
//!
//! The registry endpoints answer with the distribution specification's `{"errors":[{code,message,detail}]}`.
//! Codes are those of that specification but for `SIGNATURE_INVALID`, which is OpenShift's: clients
//! repeat a whole push on codes that they do not know (spec containers-image 3.3, 3.4). They print
//! `code: message` and leave `detail` out, so the message names the reason too.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
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
/// `Cache-Control` of an absent signature.
const ABSENCE_KEPT: &str = "max-age=5";
/// `Cache-Control` of answers that no cache may keep.
const NOT_KEPT: &str = "no-store";

/// How long wrong credentials are held against where they came from, and so what `Retry-After` says of them.
pub(super) const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// The format of an error's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorFormat {
    /// A line of plain text: lookaside clients read nothing of it.
    Plain,
    /// The registry error shape.
    Registry,
}

/// Everything that may go wrong with a request.
#[derive(Clone, Debug)]
pub(super) enum Problem {
    /// The path is no well-formed address of anything.
    NoSuchAddress(ErrorFormat),
    /// The set has no such signature.
    NoSuchSignature,
    /// A registry path, but there is no registry behind this server.
    NoUpstream,
    /// Not with this method.
    Method(ErrorFormat, &'static str),
    /// The store fails, which is never the same as having nothing.
    Store(ErrorFormat),
    /// Somebody is writing a file of the set in place.
    Unfinished(ErrorFormat),
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
    /// The upstream redirects its ping to this origin, which is to be configured instead.
    UpstreamRedirects(String),
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
    pub(super) fn unread(error: &StoreError, shape: ErrorFormat) -> Self {
        match error {
            StoreError::Unfinished(_) => Self::Unfinished(shape),
            _ => Self::Store(shape),
        }
    }

    /// Returns the word that stands for it in logs and in the audit log (docs/access.md). Never changes.
    pub(super) fn kind(&self) -> &'static str {
        self.row().kind
    }

    /// Returns what the word does not say, for logs: a sentence about this request.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Invalid(reason) | Self::Denied(reason) => Some(shorten(reason, REASON_SHOWN)),
            Self::Malformed(what) => Some((*what).to_owned()),
            Self::PassedOn { status, .. } | Self::UpstreamFailing(status, _) => {
                Some(format!("the upstream registry answered {status}"))
            }
            Self::UpstreamRedirects(to) => Some(redirects(to)),
            Self::Plainly(problem) => problem.detail(),
            _ => None,
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
            Self::UpstreamFailing(..) | Self::UpstreamRedirects(_) => Some(Outcome::UpstreamFailing),
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
        self.answer(ErrorFormat::Registry)
    }

    /// Makes the answer, in this format unless the problem has one of its own.
    fn answer(self, format: ErrorFormat) -> Answer {
        let format = match &self {
            Self::NoSuchSignature => ErrorFormat::Plain,
            Self::NoSuchAddress(own) | Self::Method(own, _) | Self::Store(own) | Self::Unfinished(own) => *own,
            _ => format,
        };
        let Row { status, code, message, .. } = self.row();
        let detail = match &self {
            Self::Invalid(reason) | Self::Denied(reason) => Some(shorten(reason, REASON_SHOWN)),
            Self::ManifestUnknown(digest) => Some(digest.to_string()),
            _ => None,
        };
        let mut answer = match (&self, format) {
            // Every client asks for one signature too many, so caches may keep that for a moment.
            (Self::NoSuchAddress(_) | Self::NoSuchSignature, ErrorFormat::Plain) => {
                plain(status, format!("{message}\n"), ABSENCE_KEPT)
            }
            (_, ErrorFormat::Plain) => plain(status, format!("{}\n", escape::line(&message)), NOT_KEPT),
            (_, ErrorFormat::Registry) => registry(status, code, &message, detail.as_deref()),
        };
        if let Some(after) = self.retry_after() {
            answer.headers_mut().insert(RETRY_AFTER, after);
        }
        let headers = answer.headers_mut();
        match self {
            Self::Plainly(problem) => return problem.answer(ErrorFormat::Plain),
            Self::PassedOn { headers, body, .. } => {
                if let Some(body) = body {
                    *answer.body_mut() = body.into();
                }
                answer.headers_mut().extend(*headers);
            }
            Self::Unauthorized => {
                let challenge = HeaderValue::from_static("Basic realm=\"countersign\", charset=\"UTF-8\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            Self::Method(_, allow) => {
                headers.insert(ALLOW, HeaderValue::from_static(allow));
            }
            // The rest of the body will not be read.
            Self::TooLarge(_) | Self::Incomplete => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        answer
    }

    /// Returns when the client should come again; `None` where that does not help.
    fn retry_after(&self) -> Option<HeaderValue> {
        match self {
            Self::TooManyFailures => Some(HeaderValue::from(FAILURE_WINDOW.as_secs())),
            Self::Unfinished(_) => Some(HeaderValue::from(UNFINISHED_SECONDS)),
            Self::UpstreamFailing(_, Some(after)) => Some(after.clone()),
            // The upstream's own headers say it.
            Self::PassedOn { .. } => None,
            _ => match self.row().status {
                StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => Some(HeaderValue::from(RETRY_SECONDS)),
                _ => None,
            },
        }
    }

    /// The table: word, status, code of the distribution specification, and the sentence for the client.
    fn row(&self) -> Row {
        use StatusCode as S;
        let row = |kind, status, code, message| Row { kind, status, code, message: Cow::Borrowed(message) };
        let say = |kind, status, code, message| Row { kind, status, code, message: Cow::Owned(message) };
        match self {
            Self::NoSuchAddress(ErrorFormat::Plain) => {
                row("no-such-address", S::NOT_FOUND, "NAME_UNKNOWN", "not found")
            }
            Self::NoSuchAddress(_) => row("no-such-address", S::NOT_FOUND, "NAME_UNKNOWN", "no such address"),
            Self::NoSuchSignature => row("no-such-signature", S::NOT_FOUND, "NAME_UNKNOWN", "no such signature"),
            Self::NoUpstream => row("no-upstream", S::NOT_FOUND, "UNSUPPORTED", NO_UPSTREAM),
            Self::Method(ErrorFormat::Plain, _) => {
                row("method", S::METHOD_NOT_ALLOWED, "UNSUPPORTED", "method not allowed")
            }
            Self::Method(..) => row("method", S::METHOD_NOT_ALLOWED, "UNSUPPORTED", "The operation is unsupported."),
            Self::Store(_) => row("store", S::SERVICE_UNAVAILABLE, "UNAVAILABLE", STORE),
            Self::Unfinished(_) => row("unfinished", S::SERVICE_UNAVAILABLE, "UNAVAILABLE", UNFINISHED),
            Self::Invalid(reason) => {
                let message = format!("invalid image signature: {}", shorten(reason, REASON_SHOWN));
                say("invalid-signature", S::BAD_REQUEST, "SIGNATURE_INVALID", message)
            }
            Self::TooLarge(limit) => {
                let message = format!("the request body is longer than {limit} bytes");
                say("too-large", S::PAYLOAD_TOO_LARGE, "SIZE_INVALID", message)
            }
            Self::Incomplete => row("incomplete", S::REQUEST_TIMEOUT, "SIZE_INVALID", INCOMPLETE),
            Self::ManifestUnknown(digest) => {
                let message = format!("the registry has no manifest {digest} in this repository");
                say("manifest-unknown", S::NOT_FOUND, "MANIFEST_UNKNOWN", message)
            }
            Self::Gate => row("gate", S::SERVICE_UNAVAILABLE, "UNAVAILABLE", GATE),
            Self::Denied(reason) => say("denied", S::FORBIDDEN, "DENIED", shorten(reason, REASON_SHOWN)),
            Self::PassedOn { status, .. } => match *status {
                S::UNAUTHORIZED => row("upstream-refused", *status, "UNAUTHORIZED", "authentication required"),
                S::TOO_MANY_REQUESTS => row("upstream-refused", *status, "TOOMANYREQUESTS", "too many requests"),
                _ => row("upstream-refused", *status, "DENIED", "requested access to the resource is denied"),
            },
            Self::UpstreamUnreachable => row("upstream-unreachable", S::BAD_GATEWAY, "UNAVAILABLE", UNREACHABLE),
            Self::UpstreamTimeout => row("upstream-timeout", S::GATEWAY_TIMEOUT, "UNAVAILABLE", TIMEOUT),
            Self::UpstreamFailing(answered, _) => {
                let is_unavailable = *answered == S::SERVICE_UNAVAILABLE;
                let status = if is_unavailable { S::SERVICE_UNAVAILABLE } else { S::BAD_GATEWAY };
                say("upstream-failing", status, "UNAVAILABLE", format!("the upstream registry answered {answered}"))
            }
            Self::UpstreamRedirects(to) => say("upstream-redirects", S::BAD_GATEWAY, "UNAVAILABLE", redirects(to)),
            Self::Overloaded => row("overloaded", S::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the server is busy"),
            Self::TooManyRequests => row("too-many-requests", S::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", TOO_MANY),
            Self::Malformed(what) => {
                say("malformed", S::BAD_REQUEST, "UNSUPPORTED", format!("the request is malformed: {what}"))
            }
            Self::Unauthorized => row("unauthorized", S::UNAUTHORIZED, "UNAUTHORIZED", "authentication required"),
            Self::TooManyFailures => row("too-many-failures", S::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", FAILURES),
            Self::Busy => row("busy", S::SERVICE_UNAVAILABLE, "UNAVAILABLE", "too many others are waiting; try again"),
            Self::TooManyQuestions => row("too-many-repositories", S::SERVICE_UNAVAILABLE, "UNAVAILABLE", QUESTIONS),
            Self::Credentials => row("credentials-file", S::SERVICE_UNAVAILABLE, "UNAVAILABLE", CREDENTIALS),
            Self::Condition => row("condition", S::PRECONDITION_FAILED, "DENIED", CONDITION),
            Self::Elsewhere => row("release-address", S::CONFLICT, "DENIED", ELSEWHERE),
            Self::Unrecorded => row("audit-log", S::SERVICE_UNAVAILABLE, "UNAVAILABLE", UNRECORDED),
            Self::Internal => {
                row("internal", S::INTERNAL_SERVER_ERROR, "UNKNOWN", "an internal error; see the server's log")
            }
            Self::Plainly(problem) => problem.row(),
        }
    }
}

/// What a client is answered.
struct Row {
    kind: &'static str,
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
}

const NO_UPSTREAM: &str = "no upstream registry is configured; this server only answers below /lookaside/";
const STORE: &str = "the signature store fails at the moment";
const UNFINISHED: &str = "a signature of this image is being written at the moment";
const INCOMPLETE: &str = "the request body broke off or came too slowly";
const GATE: &str = "the server cannot check signatures at the moment; its log says why";
const UNREACHABLE: &str = "the upstream registry cannot be reached";
const TIMEOUT: &str = "the upstream registry does not answer in time";
const TOO_MANY: &str = "too many connections or requests at once from your address";
const FAILURES: &str = "too many wrong credentials from there; try again later";
const QUESTIONS: &str = "the registry has to be asked about too many repositories below this address; try again soon, or \
                         ask at the repository's own address";
const CREDENTIALS: &str = "the server cannot check credentials at the moment; its log says why";
const CONDITION: &str = "the number has other bytes than the condition wants; no signature is ever replaced";
const ELSEWHERE: &str =
    "what is shown at this release address lies in repositories below it and can be changed only there";
const UNRECORDED: &str = "the server cannot write its audit log, so it changes nothing; its log says why";

fn redirects(to: &str) -> String {
    format!("the upstream registry redirects /v2/ to {to}; set `upstream` to that address")
}

/// Cuts a text after so many characters.
pub(super) fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::listener::response_body::Body;

    #[test]
    fn the_table_of_statuses() {
        let digest = Digest::sha256(b"x");
        for (problem, status, code, retry) in [
            (Problem::NoSuchAddress(ErrorFormat::Plain), 404, "", false),
            (Problem::NoSuchSignature, 404, "", false),
            (Problem::NoSuchAddress(ErrorFormat::Registry), 404, "NAME_UNKNOWN", false),
            (Problem::NoUpstream, 404, "UNSUPPORTED", false),
            (Problem::Method(ErrorFormat::Plain, "GET, HEAD"), 405, "", false),
            (Problem::Store(ErrorFormat::Plain), 503, "", true),
            (Problem::Store(ErrorFormat::Registry), 503, "UNAVAILABLE", true),
            (Problem::Unfinished(ErrorFormat::Plain), 503, "", true),
            (Problem::Unfinished(ErrorFormat::Registry), 503, "UNAVAILABLE", true),
            (Problem::Invalid("x".to_owned()), 400, "SIGNATURE_INVALID", false),
            (Problem::TooLarge(7), 413, "SIZE_INVALID", false),
            (Problem::Incomplete, 408, "SIZE_INVALID", false),
            (Problem::ManifestUnknown(digest), 404, "MANIFEST_UNKNOWN", false),
            (Problem::Denied("no".to_owned()), 403, "DENIED", false),
            (Problem::UpstreamUnreachable, 502, "UNAVAILABLE", true),
            (Problem::UpstreamTimeout, 504, "UNAVAILABLE", true),
            (Problem::UpstreamFailing(StatusCode::INTERNAL_SERVER_ERROR, None), 502, "UNAVAILABLE", true),
            (Problem::UpstreamFailing(StatusCode::SERVICE_UNAVAILABLE, None), 503, "UNAVAILABLE", true),
            (Problem::UpstreamRedirects("https://x".to_owned()), 502, "UNAVAILABLE", true),
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

    #[test]
    fn every_kind_is_documented() {
        let documented = include_str!("../../docs/access.md");
        // The words stand in `row`, each in front of its status.
        let (_, table) = include_str!("error.rs").split_once("fn row(&self)").unwrap();
        let (table, _) = table.split_once("struct Row").unwrap();
        let kinds: std::collections::BTreeSet<&str> = table
            .match_indices('"')
            .filter_map(|(at, _)| {
                let (word, after) = table[at + 1..].split_once('"')?;
                (after.starts_with(", S::") || after.starts_with(", *status") || after.starts_with(", status"))
                    .then_some(word)
            })
            .collect();
        assert!(kinds.len() > 25, "{kinds:?}");
        for kind in kinds {
            assert!(documented.contains(&format!("`{kind}`")), "docs/access.md does not name {kind}");
        }
    }
}
