//! The admin listener: `/healthz`, `/readyz` and `/metrics`, apart from what clients reach.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Format};
use crate::server::App;
use crate::server::listener::response_body::Answer;
use crate::server::operations::health;

/// Connections at once; more wait.
const CONNECTIONS: usize = 32;
/// How long a request's head may take to arrive, and a connection lie idle.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// How long to wait when no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const PLAIN: &str = "text/plain; charset=utf-8";

/// Serves health and metrics of `app` until `stop` is cancelled, also while `app` drains.
pub async fn serve_admin(listener: TcpListener, app: App, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (app, stop) = (app.clone(), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let app = app.clone();
                async move { Ok::<_, Infallible>(answer(&app, &request).await) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME);
            tokio::select! {
                ended = http.serve_connection(TokioIo::new(stream), service) => {
                    if let Err(error) = ended {
                        tracing::debug!(error = %error, "an admin connection ended early");
                    }
                }
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }
}

async fn answer<B>(app: &App, request: &Request<B>) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut answer = health::answer(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "method not allowed\n".to_owned());
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return answer;
    }
    match request.uri().path() {
        "/healthz" => health::alive(),
        "/readyz" => app.health().report().await.answer(),
        "/metrics" => {
            app.tell_sizes();
            let accept = request.headers().get(header::ACCEPT).and_then(|v| v.to_str().ok());
            let format = Format::for_accept(accept.unwrap_or_default());
            health::answer(StatusCode::OK, format.content_type(), metrics::expose(format))
        }
        "/" => health::answer(StatusCode::OK, PLAIN, "countersign: /healthz /readyz /metrics\n".to_owned()),
        _ => health::answer(StatusCode::NOT_FOUND, PLAIN, "not found\n".to_owned()),
    }
}

/// Answers `/healthz` and `/readyz` for everybody, without reasons; `None` for any other path.
pub(crate) async fn answer_public(app: &App, method: &Method, path: &str) -> Option<Answer> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    match path {
        "/healthz" => Some(health::alive()),
        "/readyz" => Some(app.health().report().await.short_answer()),
        _ => None,
    }
}
