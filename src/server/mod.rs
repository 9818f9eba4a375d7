//! The HTTP server: a lookaside, the signature extension and a registry proxy over one store.
//!
//! A request is parsed once by `route` and goes to one face: `lookaside` (with the `release` view)
//! and `write`, `extension` and `upload`, `proxy`, `token`, or the `page`. `registries` finds the
//! registry that it is for, and `store_scopes` whose rules count at a path of the store: `permit` says who
//! may read and write there, and what is uploaded to any face passes `admission` and leaves an
//! `audit` record. Faces read the store through `cache` only, speak to a registry through its
//! `upstream`, ask it for rights through `access`, and fail with a `Problem`, which `error` alone
//! turns into a status. `fair`, `tries`, `release_questions` and `refusals` see to it that one client cannot
//! have what all others need.

mod auth;
mod authorization;
mod caller;
mod client_address;
mod error;
mod fair_queue;
#[doc(hidden)]
pub mod fuzzing;
mod listener;
mod operations;
mod proxy;
mod reads;
mod registries;
mod route;
mod salted_hash;
mod shown_name;
mod shown_path;
#[cfg(feature = "otlp")]
mod span;
mod store_scopes;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod trace_context;
mod uploads;
mod upstream;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CACHE_CONTROL, HeaderName, LOCATION};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri};

pub use auth::access_rules::{AccessRulesError, check_access};
pub use auth::reloading_file::CredentialsFileError;
pub use listener::peer::{ClientCertificate, Connection, PeerIdentity};
pub use listener::request_body::{ClientBody, ClientBodyError};
pub use listener::response_body::{Answer, Body};
pub use listener::tls::{Tls, TlsError};
pub use listener::{Listener, ServeError, serve};
pub use operations::admin::serve_admin;
pub use uploads::audit_file::check_audit_log;
pub use uploads::extension::{ClaimReader, NotAdmitted, Upload, UploadGate};
pub use uploads::gate::ConfiguredGate;

use crate::config::{LimitConfig, ServerConfig, SiteConfig};
use crate::image::Digest;
use crate::metrics::Face;
use crate::registry::RegistryClient;
use crate::registry::http::HttpClient;
use crate::store::{SetAddress, SignatureAddress, Store, StorePath};
use auth::credentials::Credentials;
use auth::release_queries::QueryBudget;
use auth::upstream_login::UpstreamLogin;
use auth::upstream_permissions::UpstreamPermissions;
use caller::Caller;
use error::{ErrorFormat, Problem};
use operations::health::Health;
use operations::request_log::RequestLog;
use operations::{admin, health, request_log};
use proxy::token_endpoint;
use reads::release::ReleaseView;
use reads::set_cache::{Backend, SetCache};
use reads::{extension, index_page, lookaside};
use registries::{HostRegistries, Registries, Registry};
use route::{Route, WriteTarget};
use store_scopes::{StoreScopePlan, StoreScopes};
use uploads::UploadPipeline;
use uploads::audit_log::AuditLog;
use uploads::extension::ExtensionUploads;
use upstream::Upstream;
use upstream::{repository_names, scoped_token};

/// Tells clients that signatures are found and stored here (spec containers-image 3.1).
const SUPPORTS_SIGNATURES: HeaderName = HeaderName::from_static("x-registry-supports-signatures");

/// The server without its socket: state and dispatch. Cloning shares the state.
#[derive(Clone)]
pub struct App(Arc<State>);

struct State {
    sets: Arc<SetCache>,
    releases: Arc<ReleaseView>,
    audit: AuditLog,
    registries: Registries,
    store_scopes: StoreScopes,
    /// The store's part that stands at the top of the configuration.
    prefix: StorePath,
    limits: LimitConfig,
    drain: Duration,
    health: Health,
    /// Everybody may ask for the health.
    public_health: bool,
}

/// What each registry needs beside its settings.
pub struct RegistryTools {
    /// Set up for the upstream's certificates.
    pub http: HttpClient,
    /// Has the last word on uploads, if there is one.
    pub gate: Option<Arc<dyn UploadGate>>,
    /// Finds the server's own credentials at the upstream, if it has some.
    pub credentials: Option<RegistryClient>,
}

impl App {
    /// Puts the server together. `claims` reads what an uploaded signature says; `tools` is asked
    /// once for each registry.
    ///
    /// # Errors
    /// Those of `tools`.
    pub fn new<E>(
        config: &ServerConfig,
        store: Store,
        claims: ClaimReader,
        tools: impl FnMut(&SiteConfig) -> Result<RegistryTools, E>,
    ) -> Result<Self, E> {
        Self::over(config, Arc::new(store), claims, tools)
    }

    fn over<E>(
        config: &ServerConfig,
        backend: Arc<dyn Backend>,
        claims: ClaimReader,
        mut tools: impl FnMut(&SiteConfig) -> Result<RegistryTools, E>,
    ) -> Result<Self, E> {
        let sets = Arc::new(SetCache::new(backend, config));
        let releases = Arc::new(ReleaseView::new(config));
        let admission = UploadPipeline::new(config, sets.clone(), releases.clone(), claims);
        let (mut registries, mut plans) = (Vec::new(), Vec::new());
        for site in config.sites() {
            let RegistryTools { http, gate, credentials } = tools(&site)?;
            let settings = &site.settings;
            let admission = Arc::new(admission.of(&site.name, gate));
            let upstream = Upstream::new(&site, http, credentials).map(Arc::new);
            let asked = upstream.map(|upstream| {
                let access = Arc::new(UpstreamPermissions::new(upstream.clone(), settings));
                let uploads = Arc::new(ExtensionUploads::new(settings, admission.clone()));
                registries.push((site.clone(), Registry::new(&site, upstream.clone(), access.clone(), uploads)));
                (access, UpstreamLogin::new(upstream, settings))
            });
            plans.push(StoreScopePlan { site, admission, upstream: asked });
        }
        let default = plans.remove(0);
        let upstreams = registries.iter().map(|(_, site)| &site.upstream);
        Ok(Self(Arc::new(State {
            health: Health::new(health::targets(&sets, upstreams)),
            public_health: config.admin.public,
            sets,
            releases,
            audit: admission.audit.clone(),
            registries: Registries::new(registries, config),
            store_scopes: StoreScopes::new(default, plans),
            prefix: config.store_prefix.clone(),
            limits: config.limits.clone(),
            drain: config.drain(),
        })))
    }

    /// Answers one request. Never fails: every problem has an answer.
    ///
    /// Not an `async fn`, which would keep the request twice: every connection has room for this
    /// future, so all but what is asked for most is boxed.
    pub fn handle<'a>(
        &'a self,
        mut request: Request<ClientBody>,
        connection: &'a Connection,
    ) -> impl Future<Output = Answer> + Send + use<'a> {
        let registries = &self.0.registries;
        let peer = connection.peer;
        registries.client_headers().remove_untrusted(request.headers_mut(), peer.ip());
        let id = request_log::request_id();
        let from = caller::address(request.headers(), peer.ip(), registries.client_headers().trusted());
        let mut log = RequestLog::new(&request, from, peer, id);
        async move {
            #[cfg(feature = "otlp")]
            let span = span::begin(&request, id);
            let result = match self.open_lookaside(&request) {
                Some((address, face)) => {
                    log.face = face;
                    let (state, method, headers) = (&*self.0, request.method(), request.headers());
                    let served = lookaside::serve(&state.sets, &state.releases, method, headers, address, None);
                    #[cfg(feature = "otlp")]
                    let served = tracing::Instrument::instrument(served, span.clone());
                    served.await
                }
                None => {
                    let dispatched = Box::pin(self.dispatch(request, connection, id, &mut log.face));
                    #[cfg(feature = "otlp")]
                    let dispatched = tracing::Instrument::instrument(dispatched, span.clone());
                    dispatched.await
                }
            };
            let mut answer = log.answer(result);
            #[cfg(feature = "otlp")]
            span::end(&span, log.face, answer.status());
            if !registries.is_empty() {
                // On every answer, 401s and errors too, and once: an upstream's own is replaced.
                answer.headers_mut().insert(SUPPORTS_SIGNATURES, HeaderValue::from_static("1"));
            }
            answer
        }
    }

    /// Returns the address of a signature if that is asked for, and everybody may read it.
    fn open_lookaside(&self, request: &Request<ClientBody>) -> Option<(SignatureAddress, Face)> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let route = route::parse(request.uri().path());
        let face = route.face();
        match route {
            Route::Lookaside(address) if self.0.store_scopes.is_open_at(&address.set) => Some((address, face)),
            _ => None,
        }
    }

    async fn dispatch(
        &self,
        request: Request<ClientBody>,
        from: &Connection,
        id: u64,
        face: &mut Face,
    ) -> Result<Answer, Problem> {
        let state = &*self.0;
        let route = route::parse(request.uri().path());
        *face = route.face();
        match route {
            Route::Lookaside(address) if matches!(*request.method(), Method::GET | Method::HEAD) => {
                // What everybody may read was answered already, see `open_lookaside`.
                Box::pin(self.restricted(address, request, from, id)).await
            }
            Route::Lookaside(address) => {
                Box::pin(self.write(Some(WriteTarget::Signature(address)), request, from, id)).await
            }
            Route::NoLookaside => {
                Box::pin(self.write(WriteTarget::parse(request.uri().path()), request, from, id)).await
            }
            Route::Hostile => Err(Problem::NoSuchAddress(ErrorFormat::Plain)),
            Route::Page => self.page(&request, from),
            Route::Signatures(name, digest) => {
                let name = name.to_owned();
                Box::pin(self.signatures(name, digest, request, from, id)).await
            }
            Route::NoExtension if state.registries.is_empty() => Err(Problem::NoUpstream),
            Route::NoExtension => Err(Problem::NoSuchAddress(ErrorFormat::Registry)),
            Route::Registry => {
                if request.uri().path() == repository_names::TOKEN_PATH {
                    *face = Face::Token;
                }
                Box::pin(self.registry(request, from, id)).await
            }
            Route::Other(path)
                if state.public_health
                    && let Some(answer) = Box::pin(admin::answer_public(self, request.method(), path)).await =>
            {
                Ok(answer)
            }
            Route::Other(_) => Box::pin(self.other(request, from, id, face)).await,
        }
    }

    async fn registry(&self, mut request: Request<ClientBody>, from: &Connection, id: u64) -> Result<Answer, Problem> {
        let host = self.0.registries.host(request.headers());
        let mut caller = host.caller(request.headers(), from, id);
        if let Some((component, rest)) = route::below(request.uri().path())
            && let Some(site) = host.below(component)
        {
            let rest = if rest.is_empty() { "/" } else { rest };
            let query = request.uri().query().map(|query| repository_names::query(query, component));
            let query = query.filter(|query| !query.is_empty()).map(|query| format!("?{query}"));
            let target = format!("/v2{rest}{}", query.unwrap_or_default());
            caller.below = Some(site.name.clone());
            *request.uri_mut() = target
                .parse::<PathAndQuery>()
                .map(Uri::from)
                .map_err(|_| Problem::NoSuchAddress(ErrorFormat::Registry))?;
            admit(site, &mut request, &mut caller);
            return proxy::forward(&site.upstream, request, &caller).await;
        }
        if caller.fronted {
            match request.uri().path() {
                "/v2" | "/v2/" => return token_endpoint::ping(request.method(), request.headers(), &caller),
                repository_names::TOKEN_PATH => return token_endpoint::issue(host, request, &caller).await,
                _ => {}
            }
        }
        let Some(site) = host.site else { return Err(Problem::NoUpstream) };
        admit(site, &mut request, &mut caller);
        proxy::forward(&site.upstream, request, &caller).await
    }

    /// Passes a path on that may be a token endpoint.
    async fn other(
        &self,
        mut request: Request<ClientBody>,
        from: &Connection,
        id: u64,
        face: &mut Face,
    ) -> Result<Answer, Problem> {
        let host = self.0.registries.host(request.headers());
        let caller = host.caller(request.headers(), from, id);
        match host.site {
            Some(site) if site.upstream.is_token_path(request.uri().path(), id).await => {
                *face = Face::Token;
                scoped_token::unwrap(request.headers_mut(), &site.tag);
                proxy::forward(&site.upstream, request, &caller).await
            }
            _ if let Some(site) = host.handed_out(request.uri().path()) => {
                *face = Face::Proxy;
                scoped_token::unwrap(request.headers_mut(), &site.tag);
                proxy::forward(&site.upstream, request, &caller).await
            }
            _ => Err(Problem::NoSuchAddress(ErrorFormat::Plain)),
        }
    }

    /// The lookaside where not everybody may read what may be shown.
    async fn restricted(
        &self,
        address: SignatureAddress,
        request: Request<ClientBody>,
        from: &Connection,
        id: u64,
    ) -> Result<Answer, Problem> {
        let state = &*self.0;
        let (head, _) = request.into_parts();
        let caller = state.registries.host(&head.headers).caller(&head.headers, from, id);
        let credentials = Credentials::new(&head, &caller);
        state
            .store_scopes
            .of(address.set.path())
            .permit
            .read(&address.set, credentials)
            .await
            .map_err(Problem::plainly)?;
        let questions = QueryBudget::default();
        let asked = &questions;
        let may_see = |set: SetAddress| -> BoxFuture<'_, Result<bool, Problem>> {
            Box::pin(async move { state.store_scopes.of(set.path()).permit.shows(&set, credentials, asked).await })
        };
        let served =
            lookaside::serve(&state.sets, &state.releases, &head.method, &head.headers, address, Some(&may_see)).await;
        let mut answer = match served {
            Ok(answer) => answer,
            Err(problem @ (Problem::NoSuchSignature | Problem::Store(_) | Problem::Unfinished(_))) => {
                problem.into_answer()
            }
            Err(problem) => return Err(problem.plainly()),
        };
        // `must-revalidate` would let shared caches keep what one caller may read.
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        Ok(answer)
    }

    /// Everything at the lookaside but GET and HEAD of an address.
    async fn write(
        &self,
        place: Option<WriteTarget>,
        request: Request<ClientBody>,
        from: &Connection,
        id: u64,
    ) -> Result<Answer, Problem> {
        let state = &*self.0;
        let caller = state.registries.host(request.headers()).caller(request.headers(), from, id);
        let store_scope =
            place.as_ref().map_or_else(|| state.store_scopes.default(), |place| state.store_scopes.of(place.path()));
        store_scope.writes.serve(place, request, &caller).await
    }

    async fn signatures(
        &self,
        name: String,
        digest: Digest,
        mut request: Request<ClientBody>,
        from: &Connection,
        id: u64,
    ) -> Result<Answer, Problem> {
        let host = self.0.registries.host(request.headers());
        let mut caller = host.caller(request.headers(), from, id);
        let below = name.split_once('/').and_then(|(first, rest)| Some((host.below(first)?, rest)));
        let (site, name) = match (below, host.site) {
            (Some((site, rest)), _) => {
                caller.below = Some(site.name.clone());
                (site, rest)
            }
            (None, Some(site)) => (site, name.as_str()),
            (None, None) => return Err(Problem::NoUpstream),
        };
        self.check_store_scope(site, name, &digest)?;
        admit(site, &mut request, &mut caller);
        match *request.method() {
            Method::GET | Method::HEAD => {
                let image = (name, &digest);
                let (access, sets) = (&site.access, &self.0.sets);
                extension::list(access, sets, &site.prefix, image, request.headers(), &caller).await
            }
            Method::PUT => {
                let below = caller.below.clone();
                let mut answer = site.uploads.put(&site.access, (name, digest.clone()), request, caller).await?;
                if let Some(below) = below {
                    let place = format!("/extensions/v2/{below}/{name}/signatures/{digest}");
                    let place = HeaderValue::from_str(&place).map_err(|_| Problem::Internal)?;
                    answer.headers_mut().insert(LOCATION, place);
                }
                Ok(answer)
            }
            _ => Err(Problem::Method(ErrorFormat::Registry, extension::METHODS)),
        }
    }

    /// A repository whose name leads into another registry's part of the store has no signatures:
    /// they would be under that one's rules, and are of its images.
    fn check_store_scope(&self, site: &Registry, name: &str, digest: &Digest) -> Result<(), Problem> {
        if self.0.store_scopes.is_one() {
            return Ok(());
        }
        let address = extension::address(&site.prefix, name, digest)?;
        if *self.0.store_scopes.of(address.path()).prefix() == site.prefix {
            return Ok(());
        }
        let reason = "signatures of another registry are kept where this repository's would be; see store_prefix";
        Err(Problem::Denied(reason.to_owned()))
    }

    fn page(&self, request: &Request<ClientBody>, from: &Connection) -> Result<Answer, Problem> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Problem::Method(ErrorFormat::Plain, "GET, HEAD"));
        }
        let state = &*self.0;
        let host: HostRegistries<'_> = state.registries.host(request.headers());
        let prefix = host.site.map_or(&state.prefix, |site| &site.prefix);
        let registries = if host.has_paths() { state.registries.path_registries() } else { Vec::new() };
        let below = registries.iter().map(|site| (&*site.name, &site.prefix)).collect::<Vec<_>>();
        Ok(index_page::serve(&host.client(request.headers(), from), host.site.is_some(), prefix, &below))
    }

    /// Asks the store and the registries once, so that the log of the start says what is wrong with them.
    pub async fn probe(&self) {
        self.0.health.report().await;
    }

    /// From now on `/readyz` says that the server is about to go, so that load balancers look
    /// elsewhere; all else goes on.
    pub fn leave(&self) {
        self.0.health.leave();
    }

    /// Writes down what is still to be written: when nothing is served any more.
    async fn finish(&self) {
        self.0.audit.finish().await;
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

/// Takes a request in for a registry: a token of ours becomes what is in it, and who has nothing
/// at all may pull by the server's own credentials.
fn admit(site: &Registry, request: &mut Request<ClientBody>, caller: &mut Caller) {
    scoped_token::unwrap(request.headers_mut(), &site.tag);
    caller.own = (caller.fronted || caller.below.is_some())
        && site.upstream.has_own()
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.headers().contains_key(AUTHORIZATION);
}
