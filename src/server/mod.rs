//! The HTTP server: a lookaside, the signature extension and a registry proxy over one store.
//!
//! A request is parsed once by `route` and goes to one face: `lookaside` (with the `release` view),
//! `extension` and `upload`, `proxy`, or the `page`. Faces read the store through `cache` only,
//! speak to the registry through `upstream`, ask it for rights through `access`, and fail with a
//! `Problem`, which `error` alone turns into a status.

mod access;
mod admin;
mod body;
mod cache;
mod error;
mod extension;
mod gate;
mod health;
mod listener;
mod log;
mod lookaside;
mod page;
mod proxy;
mod release;
mod rewrite;
mod route;
#[cfg(feature = "otlp")]
mod span;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trace;
mod upload;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, Method, Request};
use hyper::body::Incoming;

pub use admin::serve_admin;
pub use body::{Answer, Body};
pub use gate::ConfiguredGate;
pub use listener::{ServeError, serve};
pub use upload::{ClaimReader, NotAdmitted, Upload, UploadGate};

use crate::config::{HttpOrigin, LimitConfig, ServerConfig};
use crate::image::Digest;
use crate::metrics::Face;
use crate::registry::http::HttpClient;
use crate::store::{Store, StorePath};
use access::Access;
use cache::{Backend, SetCache};
use error::{Problem, Shape};
use health::{Health, Need, Probe};
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
    health: Health,
    /// Everybody may ask for the health.
    public_health: bool,
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
        let health = Health::new(targets(&sets, registry.iter().map(|registry| &registry.upstream)));
        Self(Arc::new(State {
            health,
            public_health: config.admin.public,
            sets,
            releases,
            registry,
            upstream_origin: config.upstream.clone(),
            public: config.public_url.clone(),
            listen: config.listen,
            prefix: config.store_prefix.clone(),
            limits: config.limits.clone(),
            drain: config.drain(),
        }))
    }

    /// Answers one request. Never fails: every problem has an answer.
    pub async fn handle(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let caller = Caller { peer, id: log::request_id() };
        let mut log = RequestLog::new(&request, peer, caller.id);
        #[cfg(feature = "otlp")]
        let span = span::begin(&request, caller.id);
        let dispatched = self.dispatch(request, caller, &mut log.face);
        #[cfg(feature = "otlp")]
        let dispatched = tracing::Instrument::instrument(dispatched, span.clone());
        let result = dispatched.await;
        let mut answer = log.answer(result);
        #[cfg(feature = "otlp")]
        span::end(&span, log.face, answer.status());
        if self.0.registry.is_some() {
            // On every answer, 401s and errors too, and once: an upstream's own is replaced.
            answer.headers_mut().insert(SUPPORTS_SIGNATURES, HeaderValue::from_static("1"));
        }
        answer
    }

    async fn dispatch(&self, request: Request<Incoming>, caller: Caller, face: &mut Face) -> Result<Answer, Problem> {
        let state = &*self.0;
        let route = route::parse(request.uri().path());
        *face = route.face();
        match route {
            Route::Lookaside(address) => {
                let (method, headers) = (request.method(), request.headers());
                lookaside::serve(&state.sets, &state.releases, method, headers, address).await
            }
            Route::NoLookaside => Err(Problem::NoSuchAddress(Shape::Plain)),
            Route::Page => self.page(&request),
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
            Route::Other(path)
                if state.public_health
                    && let Some(answer) = Box::pin(admin::answer_public(self, request.method(), path)).await =>
            {
                Ok(answer)
            }
            Route::Other(path) => match &state.registry {
                Some(registry) if Box::pin(registry.upstream.is_token_path(path, request.headers(), &caller)).await => {
                    *face = Face::Token;
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
        request: Request<Incoming>,
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

    fn page(&self, request: &Request<Incoming>) -> Result<Answer, Problem> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Problem::Method(Shape::Plain, "GET, HEAD"));
        }
        let state = &*self.0;
        let client = upstream::client_origin(request.headers(), state.public.as_ref(), state.listen);
        Ok(page::serve(&client, state.upstream_origin.as_ref(), &state.prefix))
    }

    /// From now on `/readyz` says that the server is about to go, so that load balancers look
    /// elsewhere; all else goes on.
    pub fn leave(&self) {
        self.0.health.leave();
    }

    fn health(&self) -> &Health {
        &self.0.health
    }

    /// Tells the metrics what is looked at only when they are read.
    fn tell_sizes(&self) {
        self.0.sets.tell_size();
    }

    fn limits(&self) -> LimitConfig {
        self.0.limits.clone()
    }

    fn drain(&self) -> Duration {
        self.0.drain
    }
}

/// What `/readyz` asks: the store, and each registry.
fn targets<'a>(sets: &Arc<SetCache>, upstreams: impl Iterator<Item = &'a Arc<Upstream>>) -> Vec<(String, Need, Probe)> {
    let sets = sets.clone();
    let store: Probe = Box::new(move || {
        let sets = sets.clone();
        Box::pin(async move { sets.reach().await.map_err(|error| error.to_string()) })
    });
    let upstreams = upstreams.map(|upstream| {
        let (name, upstream) = (format!("upstream {}", upstream.origin()), upstream.clone());
        let probe: Probe = Box::new(move || {
            let upstream = upstream.clone();
            Box::pin(async move { upstream.reach(log::request_id()).await })
        });
        (name, Need::OneOf, probe)
    });
    [("store".to_owned(), Need::Always, store)].into_iter().chain(upstreams).collect()
}
