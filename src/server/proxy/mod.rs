//! The registry face: everything below `/v2/` streams to the upstream and back, both ways.
//!
//! Nothing is buffered, decoded or followed; only heads are touched, by `rewrite`. When the client
//! hangs up, the future of this request is dropped and with it the connection to the upstream.

pub(super) mod token_endpoint;

use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};

use crate::server::caller::Caller;
use crate::server::error::{ErrorFormat, Problem};
use crate::server::listener::request_body::ClientBody;
use crate::server::listener::response_body::{Answer, Body, Streamed};
use crate::server::route;
use crate::server::upstream::{self, Upstream};

/// The methods that a registry may have a use for.
pub(super) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Passes a request on, and its answer back.
pub(super) async fn forward(
    upstream: &Upstream,
    request: Request<ClientBody>,
    caller: &Caller,
) -> Result<Answer, Problem> {
    // TRACE would show an inner proxy's headers, CONNECT would make us a tunnel.
    if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
        return Err(Problem::Method(ErrorFormat::Registry, METHODS));
    }
    let (parts, body) = request.into_parts();
    let is_ping = matches!(parts.uri.path(), "/v2" | "/v2/") && matches!(parts.method, Method::GET | Method::HEAD);
    let pulled = if caller.own { route::pulled(parts.uri.path()) } else { None };
    let answer = match pulled {
        Some(repository) => upstream.send_own(upstream.own_pull(&parts, caller.id)?, repository, caller.id).await?,
        // A client that follows a redirect of the ping leaves us, and loses the signatures without a word.
        None if is_ping => {
            let mut ping = upstream.forwarded(&parts, caller)?;
            // A ping has no body; what a client sends with it is dropped.
            ping.headers.remove(CONTENT_LENGTH);
            upstream.send_ping(ping).await?
        }
        None => upstream.send(upstream.forwarded(&parts, caller)?, upstream::Body::Stream(body)).await?,
    };
    let (mut head, body) = answer.into_parts();
    if head.status.is_informational() {
        return Err(Problem::UpstreamFailing(head.status, None));
    }
    let token_paths = upstream.polish(&mut head, caller);
    if head.status == StatusCode::UNAUTHORIZED {
        upstream.confirm_token_paths(&token_paths, &parts.method, parts.uri.path(), caller.id).await;
    }
    head.extensions.clear();
    Ok(Response::from_parts(head, Body::Upstream(Streamed::new(body, upstream.silence))))
}
