//! The messages of HTTP/1.1 as far as the short way needs them (`express`): requests without a body
//! for what lies below `/lookaside/`, and answers that are whole. Pure.
//!
//! What is read here is a part of what hyper reads, and means the same to both: everything else,
//! whatever is wrong or strange with it, is not read and is hyper's, byte for byte.

use std::io::Write as _;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};

/// What lies below this path is answered with a whole body always.
const BELOW: &str = "/lookaside/";
/// More fields than deployed clients and the proxies before us send.
const FIELDS: usize = 32;
/// Fields that tell of a body or another protocol.
const FOREIGN: [HeaderName; 6] = [CONTENT_LENGTH, TRANSFER_ENCODING, EXPECT, UPGRADE, TRAILER, TE];

/// A GET or HEAD below `/lookaside/`, and nothing else.
#[derive(Debug)]
pub(in crate::server) struct RequestHead {
    /// The request.
    pub(in crate::server) request: Request<()>,
    /// How many bytes it takes.
    pub(in crate::server) length: usize,
    /// The client wants no other on this connection.
    pub(in crate::server) last: bool,
}

/// What bytes begin with.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub(in crate::server) enum ParsedHead {
    /// A question.
    Request(RequestHead),
    /// A part of something, of which nothing is wrong so far.
    Partial,
    /// Something else.
    Other,
}

/// Reads what `bytes` begin with.
pub(in crate::server) fn read(bytes: &[u8]) -> ParsedHead {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => request(&head, length).map_or(ParsedHead::Other, ParsedHead::Request),
        Ok(httparse::Status::Partial) => ParsedHead::Partial,
        Err(_) => ParsedHead::Other,
    }
}

/// Reads a head of so many bytes; `None` when it is no question.
fn request(head: &httparse::Request<'_, '_>, length: usize) -> Option<RequestHead> {
    let method = match head.method? {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        _ => return None,
    };
    // HTTP/1.0 has other body_limits for the end of a connection.
    let target = head.path.filter(|target| head.version == Some(1) && target.starts_with(BELOW))?;
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    let mut last = false;
    for field in &*head.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        if FOREIGN.contains(&name) {
            return None;
        }
        if name == CONNECTION {
            match field.value {
                value if value.eq_ignore_ascii_case(b"close") => last = true,
                value if value.eq_ignore_ascii_case(b"keep-alive") => {}
                _ => return None,
            }
        }
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_maybe_shared(Bytes::copy_from_slice(target.as_bytes())).ok()?;
    *request.headers_mut() = headers;
    Some(RequestHead { request, length, last })
}

/// Writes the head of an answer whose body has so many bytes, and tells whether the body follows it;
/// `last` when the connection ends with it.
pub(crate) fn write(head: &Parts, body: usize, asked: &Method, last: bool, date: &[u8], into: &mut Vec<u8>) -> bool {
    into.extend_from_slice(b"HTTP/1.1 ");
    into.extend_from_slice(head.status.as_str().as_bytes());
    into.push(b' ');
    into.extend_from_slice(head.status.canonical_reason().unwrap_or("Unknown").as_bytes());
    into.extend_from_slice(b"\r\n");
    for (name, value) in &head.headers {
        field(name, value.as_bytes(), into);
    }
    let bare = matches!(head.status, StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT);
    let heading = asked == Method::HEAD;
    // Of nothing, after a HEAD, nobody knows whether a GET would have brought something.
    let no_length = bare || (heading && body == 0) || head.headers.contains_key(CONTENT_LENGTH);
    if !no_length {
        // To a vector, which always has room.
        let _ = write!(into, "{CONTENT_LENGTH}: {body}\r\n");
    }
    if last && !head.headers.contains_key(CONNECTION) {
        field(&CONNECTION, b"close", into);
    }
    field(&DATE, date, into);
    into.extend_from_slice(b"\r\n");
    !bare && !heading
}

fn field(name: &HeaderName, value: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(name.as_str().as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(value);
    into.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;
    use proptest::prelude::*;

    fn whole(text: &str) -> Option<(Request<()>, usize, bool)> {
        match read(text.as_bytes()) {
            ParsedHead::Request(question) => Some((question.request, question.length, question.last)),
            ParsedHead::Partial | ParsedHead::Other => None,
        }
    }

    #[test]
    fn plain_questions_are_read() {
        let (request, length, last) =
            whole("GET /lookaside/a?token=b HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"1\"\r\n\r\nGET").unwrap();
        assert_eq!(request.method(), Method::GET);
        assert_eq!((request.uri().path(), request.uri().query()), ("/lookaside/a", Some("token=b")));
        assert_eq!(request.headers()["if-none-match"], "\"1\"");
        assert_eq!((length, last), (66, false));
        assert!(!whole("HEAD /lookaside/a HTTP/1.1\r\nHost: x\r\nconnection: Keep-Alive\r\n\r\n").unwrap().2);
        assert!(whole("HEAD /lookaside/a HTTP/1.1\r\nHost: x\r\nConnection: CLOSE\r\n\r\n").unwrap().2);
        // What is wrong with the host is told by the handler.
        assert_eq!(whole("GET /lookaside/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n").unwrap().0.headers().len(), 2);
    }

    #[test]
    fn all_else_is_left_alone() {
        for text in [
            "GET /lookaside/a HTTP/1.0\r\nHost: x\r\n\r\n",
            "GET /lookaside/a HTTP/2.0\r\nHost: x\r\n\r\n",
            "get /lookaside/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "PUT /lookaside/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /lookaside HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET //lookaside/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET http://x/lookaside/a HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /lookaside/a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "GET /lookaside/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET /lookaside/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
            "GET /lookaside/a HTTP/1.1\r\nHost: x\r\n Transfer-Encoding: chunked\r\n\r\n",
            "GET /lookaside/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
            "GET /lookaside/a HTTP/1.1\r\nHost: x\r\nConnection: close, te\r\n\r\n",
            "GET /lookaside/a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            "GET /lookaside/a b HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /lookaside/a\0 HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert!(matches!(read(text.as_bytes()), ParsedHead::Other), "{text:?}");
        }
        assert!(whole(&format!("GET /lookaside/a HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(FIELDS + 1))).is_none());
        assert!(whole("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").is_none());
    }

    #[test]
    fn parts_are_waited_for() {
        let text = "GET /lookaside/a HTTP/1.1\r\nHost: x\r\nTE: y\r\n\r\n";
        for length in 0..text.len() {
            assert!(matches!(read(&text.as_bytes()[..length]), ParsedHead::Partial), "{length}");
        }
        assert!(matches!(read(text.as_bytes()), ParsedHead::Other));
        assert!(matches!(read(b"\0GET"), ParsedHead::Other));
    }

    #[test]
    fn answers_are_written_by_the_rules() {
        let told = |status: u16, named: &[(&'static str, &'static str)], asked: Method, last| {
            let mut answer = Response::new(());
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            for (name, value) in named {
                answer.headers_mut().append(*name, HeaderValue::from_static(value));
            }
            let mut bytes = Vec::new();
            let follows = write(&answer.into_parts().0, 4, &asked, last, b"today", &mut bytes);
            String::from_utf8(bytes).unwrap().replace("\r\n", "|") + if follows { "body" } else { "" }
        };
        insta::assert_snapshot!(told(200, &[("etag", "e")], Method::GET, false), @"HTTP/1.1 200 OK|etag: e|content-length: 4|date: today||body");
        insta::assert_snapshot!(told(404, &[], Method::HEAD, true), @"HTTP/1.1 404 Not Found|content-length: 4|connection: close|date: today||");
        insta::assert_snapshot!(told(304, &[("etag", "e")], Method::GET, false), @"HTTP/1.1 304 Not Modified|etag: e|date: today||");
        insta::assert_snapshot!(told(200, &[("content-length", "9")], Method::HEAD, false), @"HTTP/1.1 200 OK|content-length: 9|date: today||");
        insta::assert_snapshot!(told(503, &[("connection", "close")], Method::GET, true), @"HTTP/1.1 503 Service Unavailable|connection: close|content-length: 4|date: today||body");
    }

    proptest! {
        #[test]
        fn reading_never_panics_and_takes_no_more_than_is_there(
            method in "GET|HEAD|PUT|[ -~]{0,5}",
            path in "/lookaside/[ -~]{0,40}|[ -~]{0,40}",
            fields in proptest::collection::vec("[A-Za-z-]{1,20}:[ -~]{0,20}|[\\PC]{0,20}", 0..6),
            end in "(\r\n){0,2}[ -~]{0,10}",
        ) {
            let text = format!("{method} {path} HTTP/1.1\r\n{}\r\n{end}", fields.join("\r\n"));
            if let ParsedHead::Request(RequestHead { request, length, .. }) = read(text.as_bytes()) {
                prop_assert!(length <= text.len());
                prop_assert!(text.as_bytes()[..length].ends_with(b"\n\r\n") || text.as_bytes()[..length].ends_with(b"\n\n"));
                prop_assert!(request.uri().path().starts_with(BELOW));
            }
        }
    }
}
