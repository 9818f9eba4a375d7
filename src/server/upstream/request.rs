//! The three kinds of requests to the registry behind us, and whose authority each has:
//!
//! | kind | made by | carries |
//! | --- | --- | --- |
//! | passed on for a client | [`Upstream::forwarded`] | all of the client's headers; `Host` by `upstream_keep_host` |
//! | asked for a caller | [`Upstream::question`] | the caller's `Authorization`, and nothing else of theirs |
//! | asked for ourselves | [`Upstream::own_request`], [`Upstream::own_pull`] | nothing of any caller |
//!
//! Only what a request of the third kind brings back is believed about the registry: a registry may
//! make the address of its token server out of the request's `Host` or `X-Forwarded-Host`, and a
//! caller could so name the place to which passwords are sent.

use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, EXPECT, HOST, HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE, USER_AGENT, VIA,
};
use http::{HeaderValue, Method, Request, Version, request};

use crate::server::caller::{Caller, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::server::error::{ErrorFormat, Problem};
use crate::server::trace_context;
use crate::server::upstream::Upstream;
use crate::server::upstream::rewrite;
use crate::server::upstream::scoped_token;

/// What a pull says about the bytes that are wanted; nothing about who wants them.
const REPRESENTATION: [HeaderName; 8] =
    [ACCEPT, ACCEPT_ENCODING, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

const AGENT: HeaderValue = HeaderValue::from_static(concat!("countersign/", env!("CARGO_PKG_VERSION")));

impl Upstream {
    /// Returns the client's request as the upstream gets it, all but the body.
    pub(crate) fn forwarded(&self, parts: &request::Parts, caller: &Caller) -> Result<request::Parts, Problem> {
        let (mut forwarded, ()) = Request::new(()).into_parts();
        forwarded.method = parts.method.clone();
        forwarded.uri = self.uri(path_and_query(parts))?;
        forwarded.headers = parts.headers.clone();
        let headers = &mut forwarded.headers;
        rewrite::strip_hop_by_hop(headers);
        // Our own HTTP library has answered the expectation; the body goes on as it comes.
        headers.remove(EXPECT);
        // What is left of a token of ours is no registry's business (see `scoped_token::unwrap`).
        if scoped_token::is_ours(headers) {
            headers.remove(AUTHORIZATION);
        }
        set_forwarded(headers, caller);
        headers.append(VIA, HeaderValue::from_static(via(parts.version)));
        trace_context::pass_on(headers, caller.id);
        if !self.keep_host {
            headers.remove(HOST);
        }
        Ok(forwarded)
    }

    /// Returns a question about what a caller may do, with the caller's `Authorization` in `from`.
    pub(crate) fn question(
        &self,
        method: Method,
        path_and_query: &str,
        from: &HeaderMap,
        id: u64,
    ) -> Result<request::Parts, Problem> {
        let mut parts = self.own_request(method, path_and_query, id)?;
        if let Some(authorization) = from.get(AUTHORIZATION).filter(|_| !scoped_token::is_ours(from)) {
            parts.headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(parts)
    }

    /// Returns a request for ourselves, with nothing of any caller.
    pub(crate) fn own_request(&self, method: Method, path_and_query: &str, id: u64) -> Result<request::Parts, Problem> {
        let mut parts = anonymous(method, self.uri(path_and_query)?, id);
        // With `upstream_keep_host` the operator says that the upstream goes by our own name.
        if let Some(public) = self.public.as_ref().filter(|_| self.keep_host)
            && let Ok(host) = HeaderValue::from_str(public.authority())
        {
            parts.headers.insert(HOST, host);
        }
        Ok(parts)
    }

    /// Returns a client's pull as a request for ourselves, to be sent with the server's own credentials.
    pub(crate) fn own_pull(&self, client: &request::Parts, id: u64) -> Result<request::Parts, Problem> {
        let target = match page_query(client) {
            Some(query) => format!("{}?{query}", client.uri.path()),
            None => client.uri.path().to_owned(),
        };
        let mut parts = self.own_request(client.method.clone(), &target, id)?;
        for name in REPRESENTATION {
            for value in client.headers.get_all(&name) {
                parts.headers.append(name.clone(), value.clone());
            }
        }
        Ok(parts)
    }

    /// Returns a request for ourselves to a place that the upstream named, such as its token server.
    pub(crate) fn elsewhere(method: Method, url: &url::Url, id: u64) -> Result<request::Parts, Problem> {
        let mut url = url.clone();
        url.set_fragment(None);
        let _ = url.set_username("").and_then(|()| url.set_password(None));
        let uri = url.as_str().parse().map_err(|_| Problem::NoSuchAddress(ErrorFormat::Registry))?;
        Ok(anonymous(method, uri, id))
    }
}

fn path_and_query(parts: &request::Parts) -> &str {
    parts.uri.path_and_query().map_or("/", |both| both.as_str())
}

/// Returns which page of a list of tags a pull asks for, written anew. Nothing else of a client's query
/// goes along: some registries let it choose another registry (`?ns=`), and so a token server.
fn page_query(client: &request::Parts) -> Option<String> {
    let query = client.uri.query().filter(|_| client.uri.path().ends_with("/tags/list"))?;
    let pages = url::form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| matches!(&**name, "n" | "last"));
    Some(url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pages).finish())
        .filter(|query| !query.is_empty())
}

fn anonymous(method: Method, uri: http::Uri, id: u64) -> request::Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.headers.insert(USER_AGENT, AGENT);
    trace_context::pass_on(&mut parts.headers, id);
    parts
}

/// Adds where a request came from, and by which name.
fn set_forwarded(headers: &mut HeaderMap, caller: &Caller) {
    let client = &caller.client;
    let chain = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .chain([caller.peer.ip().to_canonical().to_string().as_str()])
        .collect::<Vec<_>>()
        .join(", ");
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(FORWARDED_FOR, &chain);
    set(FORWARDED_PROTO, client.scheme().as_str());
    set(FORWARDED_HOST, client.authority());
}

/// Names us in `Via`, after those before us (RFC 9110, 7.6.3).
fn via(version: Version) -> &'static str {
    if version == Version::HTTP_2 { "2.0 countersign" } else { "1.1 countersign" }
}
