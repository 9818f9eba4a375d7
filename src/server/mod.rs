//! The HTTP server: a lookaside, the signature extension and a registry proxy over one store.
//!
//! A request is parsed once by `route` and goes to one face: `lookaside` (with the `release` view),
//! `extension` and `upload`, `proxy`, or the `page`. Faces read the store through `cache` only,
//! speak to the registry through `upstream`, ask it for rights through `access`, and fail with a
//! `Problem`, which `error` alone turns into a status.

mod access;
mod body;
mod cache;
mod error;
mod extension;
mod gate;
mod inbound;
mod listener;
mod log;
mod lookaside;
mod page;
mod peer;
mod proxy;
mod release;
mod rewrite;
mod route;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod upload;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, Method, Request};

pub use body::{Answer, Body};
pub use gate::ConfiguredGate;
pub use inbound::{ClientBody, ClientBodyError};
pub use listener::{Listener, ServeError, serve};
pub use peer::{ClientCertificate, Connection, PeerIdentity};
pub use tls::{Tls, TlsError};
pub use upload::{ClaimReader, NotAdmitted, Upload, UploadGate};

use crate::config::{HttpOrigin, LimitConfig, ServerConfig};
use crate::image::Digest;
use crate::registry::http::HttpClient;
use crate::store::{Store, StorePath};
use access::Access;
use cache::{Backend, SetCache};
use error::{Problem, Shape};
use log::RequestLog;
use release::ReleaseView;
use route::Route;
use upload::Uploads;
use upstream::{Caller, Upstream};

/// Tells clients that signatures are found and stored here (spec containers-image 3.1).
const SUPPORTS_SIGNATURES: HeaderName = HeaderName::from_static("x-registry-supports-signatures");

/// The server without its socket: state and dispatch. Cloning shares the state.
#[derive(Clone)]
pub struct App(Arc<State>);

struct State {
    sets: Arc<SetCache>,
    releases: Arc<ReleaseView>,
    registry: Option<Registry>,
    upstream_origin: Option<HttpOrigin>,
    public: Option<HttpOrigin>,
    listen: SocketAddr,
    prefix: StorePath,
    limits: LimitConfig,
    drain: Duration,
}

/// What there is only with an upstream.
struct Registry {
    upstream: Arc<Upstream>,
    access: Arc<Access>,
    uploads: Arc<Uploads>,
}

impl App {
    /// Puts the server together. `http` must be set up for the upstream's certificates; `claims`
    /// reads what an uploaded signature says; `gate`, if any, has the last word on uploads.
    pub fn new(
        config: &ServerConfig,
        store: Store,
        http: HttpClient,
        claims: ClaimReader,
        gate: Option<Arc<dyn UploadGate>>,
    ) -> Self {
        Self::over(config, Arc::new(store), http, claims, gate)
    }

    fn over(
        config: &ServerConfig,
        backend: Arc<dyn Backend>,
        http: HttpClient,
        claims: ClaimReader,
        gate: Option<Arc<dyn UploadGate>>,
    ) -> Self {
        let sets = Arc::new(SetCache::new(backend, config));
        let releases = Arc::new(ReleaseView::new(config));
        let registry = Upstream::new(config, http).map(|upstream| {
            let upstream = Arc::new(upstream);
            let uploads = Uploads::new(config, sets.clone(), releases.clone(), claims, gate);
            Registry { access: Arc::new(Access::new(upstream.clone(), config)), upstream, uploads: Arc::new(uploads) }
        });
        Self(Arc::new(State {
            sets,
            releases,
            registry,
            upstream_origin: config.upstream.clone(),
            public: config.public_url.clone(),
            listen: config.listen.first(),
            prefix: config.store_prefix.clone(),
            limits: config.limits.clone(),
            drain: config.drain(),
        }))
    }

    /// Answers one request. Never fails: every problem has an answer.
    pub async fn handle(&self, request: Request<ClientBody>, connection: &Connection) -> Answer {
        let caller = Caller { peer: connection.peer, scheme: connection.scheme, id: log::request_id() };
        let log = RequestLog::new(&request, caller.peer, caller.id);
        let mut answer = self.dispatch(request, caller).await.unwrap_or_else(Problem::into_answer);
        if self.0.registry.is_some() {
            // On every answer, 401s and errors too, and once: an upstream's own is replaced.
            answer.headers_mut().insert(SUPPORTS_SIGNATURES, HeaderValue::from_static("1"));
        }
        log.finish(answer.status());
        answer
    }

    async fn dispatch(&self, request: Request<ClientBody>, caller: Caller) -> Result<Answer, Problem> {
        let state = &*self.0;
        match route::parse(request.uri().path()) {
            Route::Lookaside(address) => {
                let (method, headers) = (request.method(), request.headers());
                lookaside::serve(&state.sets, &state.releases, method, headers, address).await
            }
            Route::NoLookaside => Err(Problem::NoSuchAddress(Shape::Plain)),
            Route::Page => self.page(&request, &caller),
            // The other faces are boxed, so that the lookaside's future stays small.
            Route::Signatures(name, digest) => {
                let name = name.to_owned();
                Box::pin(self.signatures(name, digest, request, caller)).await
            }
            Route::Registry => match &state.registry {
                Some(registry) => Box::pin(proxy::forward(&registry.upstream, request, &caller)).await,
                None => Err(Problem::NoUpstream),
            },
            Route::NoExtension if state.registry.is_none() => Err(Problem::NoUpstream),
            Route::NoExtension => Err(Problem::NoSuchAddress(Shape::Registry)),
            Route::Other(path) => match &state.registry {
                Some(registry) if Box::pin(registry.upstream.is_token_path(path, request.headers(), &caller)).await => {
                    Box::pin(proxy::forward(&registry.upstream, request, &caller)).await
                }
                _ => Err(Problem::NoSuchAddress(Shape::Plain)),
            },
            Route::Hostile => Err(Problem::NoSuchAddress(Shape::Plain)),
        }
    }

    async fn signatures(
        &self,
        name: String,
        digest: Digest,
        request: Request<ClientBody>,
        caller: Caller,
    ) -> Result<Answer, Problem> {
        let state = &*self.0;
        let Some(Registry { access, uploads, .. }) = &state.registry else { return Err(Problem::NoUpstream) };
        match *request.method() {
            Method::GET | Method::HEAD => {
                let image = (name.as_str(), &digest);
                extension::list(access, &state.sets, &state.prefix, image, request.headers(), &caller).await
            }
            Method::PUT => uploads.put(access, (&name, digest), request, caller).await,
            _ => Err(Problem::Method(Shape::Registry, extension::METHODS)),
        }
    }

    fn page(&self, request: &Request<ClientBody>, caller: &Caller) -> Result<Answer, Problem> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Problem::Method(Shape::Plain, "GET, HEAD"));
        }
        let state = &*self.0;
        let client = upstream::client_origin(request.headers(), caller.scheme, state.public.as_ref(), state.listen);
        Ok(page::serve(&client, state.upstream_origin.as_ref(), &state.prefix))
    }

    fn limits(&self) -> LimitConfig {
        self.0.limits.clone()
    }

    fn drain(&self) -> Duration {
        self.0.drain
    }
}
