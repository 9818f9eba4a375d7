//! The registries before which the server stands, and which of them a request is for: by the host
//! that the client calls, else by the first component of the repository's path.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;

use crate::config::{HttpOrigin, ServerConfig, SiteConfig};
use crate::server::auth::upstream_permissions::UpstreamPermissions;
use crate::server::caller::{self, Caller};
use crate::server::listener::peer::Connection;
use crate::server::uploads::extension::ExtensionUploads;
use crate::server::upstream::Upstream;
use crate::server::upstream::client_headers::ClientHeaders;
use crate::server::upstream::scoped_token::RegistryTag;
use crate::store::StorePath;

/// One registry.
pub(super) struct Registry {
    /// Its name; empty for the default one.
    pub(super) name: Arc<str>,
    pub(super) tag: RegistryTag,
    pub(super) prefix: StorePath,
    pub(super) upstream: Arc<Upstream>,
    pub(super) access: Arc<UpstreamPermissions>,
    pub(super) uploads: Arc<ExtensionUploads>,
    public: Option<HttpOrigin>,
}

impl Registry {
    pub(super) fn new(
        config: &SiteConfig,
        upstream: Arc<Upstream>,
        access: Arc<UpstreamPermissions>,
        uploads: Arc<ExtensionUploads>,
    ) -> Self {
        Self {
            name: config.name.as_str().into(),
            tag: RegistryTag::of(&config.name),
            prefix: config.settings.store_prefix.clone(),
            public: config.settings.public_url.clone(),
            upstream,
            access,
            uploads,
        }
    }
}

/// All registries.
pub(super) struct Registries {
    default: Option<Arc<Registry>>,
    /// By `host` and `host:port`.
    hosts: HashMap<String, Arc<Registry>>,
    /// By the first component of a repository's path, on hosts that are nobody's.
    paths: HashMap<String, Arc<Registry>>,
    /// How clients call the default host, if that is configured.
    public: Option<HttpOrigin>,
    listen: SocketAddr,
    client_headers: ClientHeaders,
}

/// What stands behind the host that a client has called.
#[derive(Clone, Copy)]
pub(super) struct HostRegistries<'a> {
    registries: &'a Registries,
    /// The registry that has this host, else the default one.
    pub(super) site: Option<&'a Arc<Registry>>,
    /// Whether no registry has this host, so that paths may begin with a registry's name.
    default: bool,
}

impl Registries {
    /// Puts them together; `top` is the whole configuration.
    pub(super) fn new(registries: Vec<(SiteConfig, Registry)>, top: &ServerConfig) -> Self {
        let mut all = Self {
            default: None,
            hosts: HashMap::new(),
            paths: HashMap::new(),
            public: top.public_url.clone(),
            listen: top.listen.first(),
            client_headers: ClientHeaders::new(top.trusted_proxies.clone(), top.drop_headers.clone()),
        };
        for (config, site) in registries {
            let site = Arc::new(site);
            if config.name.is_empty() {
                all.default = Some(site.clone());
            }
            if config.has_path() {
                all.paths.entry(config.name.clone()).or_insert_with(|| site.clone());
            }
            for host in config.hosts {
                all.hosts.entry(host).or_insert_with(|| site.clone());
            }
        }
        all
    }

    /// Tells whether there is no registry at all.
    pub(super) fn is_empty(&self) -> bool {
        self.default.is_none() && self.hosts.is_empty()
    }

    /// Returns the registries that are found by path, by name.
    pub(super) fn path_registries(&self) -> Vec<&Registry> {
        let mut registries: Vec<&Registry> = self.paths.values().map(|site| &**site).collect();
        registries.sort_by(|a, b| a.name.cmp(&b.name));
        registries
    }

    /// Returns whose word about clients counts.
    pub(super) fn client_headers(&self) -> &ClientHeaders {
        &self.client_headers
    }

    /// Finds what stands behind the host of a request.
    pub(super) fn host(&self, headers: &HeaderMap) -> HostRegistries<'_> {
        let known = if self.hosts.is_empty() { None } else { self.by_host(headers) };
        HostRegistries { registries: self, site: known.or(self.default.as_ref()), default: known.is_none() }
    }

    fn by_host(&self, headers: &HeaderMap) -> Option<&Arc<Registry>> {
        let called = caller::called(headers).next()?.to_ascii_lowercase();
        if let Some(site) = self.hosts.get(&called) {
            return Some(site);
        }
        // A port, but not the inside of an IPv6 address.
        let (host, port) = called.rsplit_once(':')?;
        if port.bytes().all(|b| b.is_ascii_digit()) { self.hosts.get(host) } else { None }
    }
}

impl<'a> HostRegistries<'a> {
    /// Finds the registry that the first component of a repository's path names.
    pub(super) fn below(&self, component: &str) -> Option<&'a Arc<Registry>> {
        if self.default { self.registries.paths.get(component) } else { None }
    }

    /// Finds the registry that has sent a client to this path outside of `/v2/`. None if two have: the credentials of
    /// one are not for the other.
    pub(super) fn handed_out(&self, path: &str) -> Option<&'a Arc<Registry>> {
        let paths = self.default.then(|| self.registries.paths.values()).into_iter().flatten();
        let mut found = self.site.into_iter().chain(paths).filter(|site| site.upstream.has_handed_out(path));
        let first = found.next()?;
        found.all(|other| Arc::ptr_eq(other, first)).then_some(first)
    }

    /// Tells whether paths behind this door may begin with a registry's name.
    pub(super) fn has_paths(&self) -> bool {
        self.default && !self.registries.paths.is_empty()
    }

    /// Tells whether we hand out the tokens here: where several registries share a host, and where
    /// callers without credentials are to be let in on the server's own.
    pub(super) fn is_fronted(&self) -> bool {
        self.has_paths() || self.site.is_some_and(|site| site.upstream.has_own())
    }

    /// Returns ourselves, as the client calls us.
    pub(super) fn client(&self, headers: &HeaderMap, from: &Connection) -> HttpOrigin {
        let public = match (self.default, self.site) {
            (false, Some(site)) => site.public.as_ref(),
            _ => self.registries.public.as_ref(),
        };
        caller::client_origin(headers, from.scheme, public, self.registries.listen)
    }

    /// Describes who asks, for the registry that has the door.
    pub(super) fn caller(&self, headers: &HeaderMap, from: &Connection, id: u64) -> Caller {
        let client = self.client(headers, from);
        let address = caller::address(headers, from.peer.ip(), self.registries.client_headers.trusted());
        Caller { peer: from.peer, from: address, id, client, below: None, fronted: self.is_fronted(), own: false }
    }
}
