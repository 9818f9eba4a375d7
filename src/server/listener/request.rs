//! What every request passes before the server proper sees it, and every answer on its way out:
//! a permit among the requests in flight, one name of the host, the watch over both bodies.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, COOKIE, HOST};
use http::{HeaderValue, Request, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

use crate::metrics::{self, Face, MethodClass, Outcome};
use crate::server::error::Problem;
use crate::server::listener::ServerContext;
use crate::server::listener::peer::Connection;
use crate::server::listener::quota::{ConnectionPermit, QuotaExceeded, RequestPermit};
use crate::server::listener::request_body::{BodyLimits, ClientBody, ClientBodyError};
use crate::server::listener::response_body::{Answer, Body};
use crate::server::listener::timeouts::ConnectionActivity;

/// Whether a connection has a permit.
pub(super) enum ConnectionAdmission {
    /// It has.
    Admitted(Arc<ConnectionPermit>),
    /// It has none, and is told so; the permit is one of a few.
    Rejected(QuotaExceeded, #[expect(dead_code, reason = "held until the connection ends")] OwnedSemaphorePermit),
}

/// The handler of one connection.
pub(super) struct RequestHandler {
    pub(super) server: Arc<ServerContext>,
    pub(super) connection: Connection,
    pub(super) admission: ConnectionAdmission,
    pub(super) activity: Arc<ConnectionActivity>,
    pub(super) body_limits: BodyLimits,
}

impl RequestHandler {
    /// Answers a request; the body is `None` where the request cannot have one.
    ///
    /// Not an `async fn`, which would keep the request twice: every connection has room for this.
    pub(super) fn answer(
        self: Arc<Self>,
        request: Request<Option<Incoming>>,
    ) -> impl Future<Output = Response<TrackedBody>> + Send + use<> {
        let version = request.version();
        let in_flight = InFlight::begin(self.activity.clone());
        let method = MethodClass::of(request.method().as_str());
        let has_body = request.body().as_ref().is_some_and(|body| !body.is_end_stream());
        let (admitted, permit) = match self.admit(request) {
            Ok((request, permit)) => (Ok(request), Some(permit)),
            Err(problem) => {
                if has_body {
                    self.activity.leave_unread();
                }
                (Err(refused(problem, method)), None)
            }
        };
        async move {
            let mut answer = match admitted {
                Ok(request) => self.server.app.handle(request, &self.connection).await,
                Err(answer) => *answer,
            };
            if version == Version::HTTP_2 {
                // There it has no meaning, and hyper complains.
                answer.headers_mut().remove(CONNECTION);
            }
            answer.map(|body| TrackedBody::new(body, in_flight, permit))
        }
    }

    fn admit(&self, request: Request<Option<Incoming>>) -> Result<(Request<ClientBody>, RequestPermit), Problem> {
        let connection = match &self.admission {
            ConnectionAdmission::Admitted(permit) => permit,
            ConnectionAdmission::Rejected(reason, _) => return Err((*reason).into()),
        };
        let permit = connection.request()?;
        let (mut parts, body) = request.into_parts();
        one_host(&mut parts)?;
        one_authorization(&parts)?;
        if parts.version == Version::HTTP_2 {
            one_cookie(&mut parts);
        }
        if self.connection.identity.certificate.is_some() {
            parts.extensions.insert(self.connection.identity.clone());
        }
        let body = ClientBody::new(body, self.body_limits, connection.clone(), self.activity.clone())
            .map_err(Problem::from)?;
        Ok((Request::from_parts(parts, body), permit))
    }
}

/// The answer to what does not get in.
fn refused(problem: Problem, method: MethodClass) -> Box<Answer> {
    let outcome = problem.outcome();
    let mut answer = problem.into_answer();
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let outcome = outcome.unwrap_or_else(|| Outcome::of_status(answer.status().as_u16()));
    metrics::REQUESTS.inc((Face::Other, method, outcome));
    Box::new(answer)
}

impl From<ClientBodyError> for Problem {
    fn from(error: ClientBodyError) -> Self {
        (&error).into()
    }
}

impl From<&ClientBodyError> for Problem {
    fn from(error: &ClientBodyError) -> Self {
        match error {
            ClientBodyError::TooLong(limit) => Self::TooLarge(usize::try_from(*limit).unwrap_or(usize::MAX)),
            ClientBodyError::Slow | ClientBodyError::Broken(_) => Self::Incomplete,
        }
    }
}

/// Leaves exactly one name of the host, in `Host`, where everybody looks for it.
///
/// What stands in the target (`:authority` of HTTP/2, `GET http://host/` to a proxy) counts more
/// than the field (RFC 9112 3.2.2, RFC 9113 8.3.1). None at all, or two, is what request smuggling
/// is made of.
fn one_host(parts: &mut http::request::Parts) -> Result<(), Problem> {
    if let Some(authority) = parts.uri.authority() {
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| Problem::Malformed("the host"))?;
        if authority.as_str().contains('@') {
            return Err(Problem::Malformed("the host"));
        }
        parts.headers.insert(HOST, value);
        return Ok(());
    }
    match parts.headers.get_all(HOST).iter().count() {
        1 => Ok(()),
        0 if parts.version < Version::HTTP_11 => Ok(()),
        0 => Err(Problem::Malformed("there is no Host")),
        _ => Err(Problem::Malformed("there are several Host fields")),
    }
}

/// Refuses several credentials: the field is no list (RFC 9110, 11.6.2), and the registry might read
/// another one than we do.
fn one_authorization(parts: &http::request::Parts) -> Result<(), Problem> {
    match parts.headers.get_all(AUTHORIZATION).iter().count() {
        0 | 1 => Ok(()),
        _ => Err(Problem::Malformed("there are several Authorization fields")),
    }
}

/// HTTP/2 may tear a cookie into several fields, HTTP/1 knows one (RFC 9113 8.2.3).
fn one_cookie(parts: &mut http::request::Parts) {
    let crumbs: Vec<&[u8]> = parts.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        parts.headers.insert(COOKIE, cookie);
    }
}

/// A request in flight.
struct InFlight(Arc<ConnectionActivity>);

impl InFlight {
    fn begin(activity: Arc<ConnectionActivity>) -> Self {
        activity.begin();
        Self(activity)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The body of an answer on its way to the client; as long as it is there, the request is in flight.
pub(super) struct TrackedBody {
    inner: Body,
    /// Whether the connection has a piece, or could have one, and did not come for the next yet.
    handed: bool,
    in_flight: InFlight,
    _permit: Option<RequestPermit>,
}

impl TrackedBody {
    fn new(inner: Body, in_flight: InFlight, permit: Option<RequestPermit>) -> Self {
        let handed = !inner.is_end_stream();
        if handed {
            in_flight.0.hand();
        }
        Self { inner, handed, in_flight, _permit: permit }
    }

    /// Takes the bytes out of a body that is all there; `None` where it is not. The request stays in
    /// flight until this is dropped.
    pub(super) fn whole(&mut self) -> Option<Bytes> {
        self.taken();
        match &mut self.inner {
            Body::Full(bytes) => Some(bytes.take().unwrap_or_default()),
            Body::Upstream(_) => None,
        }
    }

    fn taken(&mut self) {
        if std::mem::take(&mut self.handed) {
            self.in_flight.0.taken();
        }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        this.taken();
        let polled = Pin::new(&mut this.inner).poll_frame(context);
        // The last piece too: HTTP/2 holds on to us until there is room for it.
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            this.handed = true;
            this.in_flight.0.hand();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.taken();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(request: http::request::Builder) -> Result<String, String> {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        one_host(&mut parts).map_err(|p| p.detail().unwrap_or_default())?;
        Ok(parts.headers.get(HOST).map_or("", |v| v.to_str().unwrap()).to_owned())
    }

    #[test]
    fn the_target_counts_more_than_the_field() {
        let get = |uri: &str| Request::builder().uri(uri);
        assert_eq!(host(get("/").header("host", "a:1")).unwrap(), "a:1");
        assert_eq!(host(get("https://b/").header("host", "a:1")).unwrap(), "b");
        assert_eq!(host(get("https://b:2/").version(Version::HTTP_2)).unwrap(), "b:2");
        assert_eq!(host(get("/").version(Version::HTTP_10)).unwrap(), "");
        assert!(host(get("/")).is_err());
        assert!(host(get("/").version(Version::HTTP_2)).is_err());
        assert!(host(get("/").header("host", "a").header("host", "a")).is_err());
        assert!(host(get("http://u:p@b/")).is_err());
    }

    #[test]
    fn torn_cookies_are_joined() {
        let request = Request::builder().uri("/").header("cookie", "a=1").header("cookie", "b=2; c=3");
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        one_cookie(&mut parts);
        assert_eq!(parts.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }
}
