//! The HTTP server: a lookaside, the signature extension and a registry proxy over one store.
//!
//! A request is parsed once by `route` and goes to one face: `lookaside` (with the `release` view)
//! and `write`, `extension` and `upload`, `proxy`, or the `page`. `permit` says who may use the
//! first two; what is uploaded to either passes `admission` and leaves an `audit` record. Faces read the store through `cache` only,
//! speak to the registry through `upstream`, ask it for rights through `access`, and fail with a
//! `Problem`, which `error` alone turns into a status.

mod access;
mod admission;
mod asker;
mod audit;
mod body;
mod cache;
mod error;
mod extension;
mod gate;
mod listener;
mod log;
mod login;
mod lookaside;
mod page;
mod passwords;
mod permit;
mod proxy;
mod release;
mod rewrite;
mod route;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod upload;
mod upstream;
mod watched;
mod write;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{CACHE_CONTROL, HeaderName};
use http::{HeaderValue, Method, Request};
use hyper::body::Incoming;

pub use asker::{ClientCertificate, PeerIdentity};
pub use audit::check_audit_log;
pub use body::{Answer, Body};
pub use gate::ConfiguredGate;
pub use listener::{ServeError, serve};
pub use permit::{PermitError, check_access};
pub use upload::{ClaimReader, NotAdmitted, Upload, UploadGate};
pub use watched::CredentialsFileError;

use crate::config::{HttpOrigin, LimitConfig, ServerConfig};
use crate::image::Digest;
use crate::registry::http::HttpClient;
use crate::store::{Layout, SetAddress, SignatureAddress, Store, StorePath};
use access::Access;
use admission::Admission;
use asker::Asker;
use cache::{Backend, SetCache};
use error::{Problem, Shape};
use log::RequestLog;
use login::Login;
use permit::Permit;
use release::ReleaseView;
use route::Route;
use upload::Uploads;
use upstream::{Caller, Upstream};
use write::Writes;

/// Tells clients that signatures are found and stored here (spec containers-image 3.1).
const SUPPORTS_SIGNATURES: HeaderName = HeaderName::from_static("x-registry-supports-signatures");

/// The server without its socket: state and dispatch. Cloning shares the state.
#[derive(Clone)]
pub struct App(Arc<State>);

struct State {
    sets: Arc<SetCache>,
    releases: Arc<ReleaseView>,
    permit: Arc<Permit>,
    writes: Arc<Writes>,
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
        let admission = Arc::new(Admission::new(config, sets.clone(), releases.clone(), claims, gate));
        let registry = Upstream::new(config, http).map(|upstream| {
            let upstream = Arc::new(upstream);
            let uploads = Uploads::new(config, admission.clone());
            Registry { access: Arc::new(Access::new(upstream.clone(), config)), upstream, uploads: Arc::new(uploads) }
        });
        let permit = Arc::new(Permit::new(
            config,
            registry.as_ref().map(|r| (r.access.clone(), Login::new(r.upstream.clone(), config))),
        ));
        Self(Arc::new(State {
            sets,
            releases,
            writes: Arc::new(Writes::new(admission, permit.clone())),
            permit,
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
        let log = RequestLog::new(&request, peer, caller.id);
        let mut answer = self.dispatch(request, caller).await.unwrap_or_else(Problem::into_answer);
        if self.0.registry.is_some() {
            // On every answer, 401s and errors too, and once: an upstream's own is replaced.
            answer.headers_mut().insert(SUPPORTS_SIGNATURES, HeaderValue::from_static("1"));
        }
        log.finish(answer.status());
        answer
    }

    async fn dispatch(&self, request: Request<Incoming>, caller: Caller) -> Result<Answer, Problem> {
        let state = &*self.0;
        match route::parse(request.uri().path()) {
            Route::Lookaside(address) if matches!(*request.method(), Method::GET | Method::HEAD) => {
                if state.permit.is_open() {
                    let (method, headers) = (request.method(), request.headers());
                    return lookaside::serve(&state.sets, &state.releases, method, headers, address, None).await;
                }
                Box::pin(self.restricted(address, request, caller)).await
            }
            Route::Lookaside(address) => Box::pin(state.writes.serve(Some(address), request, &caller)).await,
            Route::NoLookaside => Box::pin(state.writes.serve(None, request, &caller)).await,
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
            Route::Other(path) => match &state.registry {
                Some(registry) if Box::pin(registry.upstream.is_token_path(path, request.headers(), &caller)).await => {
                    Box::pin(proxy::forward(&registry.upstream, request, &caller)).await
                }
                _ => Err(Problem::NoSuchAddress(Shape::Plain)),
            },
            Route::Hostile => Err(Problem::NoSuchAddress(Shape::Plain)),
        }
    }

    /// The lookaside where not everybody may read everything.
    async fn restricted(
        &self,
        address: SignatureAddress,
        request: Request<Incoming>,
        caller: Caller,
    ) -> Result<Answer, Problem> {
        let state = &*self.0;
        let (head, _) = request.into_parts();
        let asker = Asker::new(&head, &caller);
        let open = state.permit.is_open_at(&address.set);
        state.permit.read(&address.set, asker).await.map_err(Problem::plainly)?;
        let may_see =
            |set: SetAddress| -> BoxFuture<'_, bool> { Box::pin(async move { state.permit.shows(&set, asker).await }) };
        let shown_to_all = open && address.set.layout() == Layout::Image;
        let served =
            lookaside::serve(&state.sets, &state.releases, &head.method, &head.headers, address, Some(&may_see)).await;
        let mut answer = served.unwrap_or_else(Problem::into_answer);
        if !shown_to_all {
            // `must-revalidate` would let shared caches keep what one caller may read.
            answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        }
        Ok(answer)
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

    fn limits(&self) -> LimitConfig {
        self.0.limits.clone()
    }

    fn drain(&self) -> Duration {
        self.0.drain
    }
}
