//! `countersign serve`: the server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::output::{self, Answer, Format};
use super::process;
use super::systemd::{self, Notifier};
use crate::config::{
    CredentialConfig, FileMask, GateMode, GateRule, GateRules, HttpOrigin, ListenAddress, ListenAddresses, Scheme,
    ServerConfig, SiteConfig, TlsConfig,
};
use crate::escape;
use crate::host::{Environment, Generation, HttpProxyRules, certificate_directories};
use crate::lookup::{OpenPgp, Unverified};
use crate::metrics;
use crate::policy::Policy;
use crate::registry::http::HttpClient;
use crate::registry::{RegistryClient, RegistryOptions, system_roots};
use crate::server::{self, App, ClaimReader, ConfiguredGate, Listener, RegistryTools, Tls};
use crate::store::{Store, StoreOptions, StorePath};

/// Serve signatures, and proxy a registry
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    /// Where to listen, once or several times; port 0 takes a free one; http:// in front for plain
    /// HTTP beside TLS. Sockets from systemd take its place [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT", env = "COUNTERSIGN_LISTEN", value_delimiter = ',')]
    listen: Vec<ListenAddress>,
    /// Certificate for TLS with its chain (PEM); read anew on SIGHUP and when it changes
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Where signatures are: a folder, file://, s3:// [default: ./countersign-data]
    #[arg(long, value_name = "STORE", env = "COUNTERSIGN_STORE")]
    store: Option<String>,
    /// Where /healthz, /readyz and /metrics are, apart from what clients reach [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT", env = "COUNTERSIGN_ADMIN")]
    admin: Option<SocketAddr>,
    /// Registry to stand before; without one only the lookaside is served
    #[arg(long, value_name = "URL", env = "COUNTERSIGN_UPSTREAM")]
    upstream: Option<String>,
    /// What stands before repository names in the store's keys
    #[arg(long, value_name = "PREFIX")]
    store_prefix: Option<String>,
    /// What uploads must fulfil: off (their form only), claim (a readable claim for the right
    /// digest), policy (the policy vouches for signer and name) [default: claim, or policy with
    /// --policy]
    #[arg(long, value_name = "off|claim|policy", env = "COUNTERSIGN_GATE")]
    gate: Option<GateMode>,
    /// policy.json that vouches for uploads; read anew for each
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_POLICY")]
    policy: Option<PathBuf>,
    /// Rights that files and folders do not get when they are made, in octal [default: those of the
    /// process; where `access` restricts reading, 027 on top of them]
    #[arg(long, value_name = "MODE", env = "COUNTERSIGN_UMASK")]
    umask: Option<FileMask>,
}

const EXAMPLES: &str = "\
Examples:
  countersign serve                                         a lookaside over ./countersign-data
  countersign serve --store /var/lib/containers/sigstore    an existing tree, as it lies
  countersign serve --upstream https://registry.example --store s3://signatures
  countersign serve --upstream https://registry.example --policy policy.json
  countersign serve --listen 0.0.0.0:443 --tls-cert server.pem --tls-key server.key

S3 endpoint, region and keys come from the usual AWS variables. SIGTERM stops after open
requests; SIGHUP reads the certificate anew.";

/// What a machine that starts a server wants to know.
#[derive(Serialize)]
struct Started<'a> {
    url: String,
    /// Every address, the first one too.
    urls: Vec<String>,
    store: &'a str,
    upstream: Option<String>,
    lookaside: String,
    /// What uploads must fulfil where no namespace has its own rule.
    gate: &'static str,
    /// Where health and metrics are.
    admin: Option<String>,
    registries: Vec<StartedRegistry<'a>>,
}

/// One of the named registries.
#[derive(Serialize)]
struct StartedRegistry<'a> {
    name: &'a str,
    hosts: &'a [String],
    /// What stands in the place of its name in `location` of registries.conf; none if its name has
    /// a port.
    location: Option<String>,
    upstream: Option<String>,
    lookaside: String,
}

impl Serve {
    pub async fn run(self, format: Format, file: Option<&Path>) -> anyhow::Result<Answer> {
        metrics::note_start();
        let given = systemd::sockets()?;
        let config = self.config(file)?;
        // Before the first file is made.
        match config.umask {
            Some(mask) => process::set_umask(mask),
            None if config.restricts_reading()? => process::add_umask(FileMask::PRIVATE),
            None => {}
        }
        let sites = config.sites();
        let rules = config.gate.rules()?;
        for site in &sites {
            check_policies(&site.settings.gate.rules()?)?;
        }
        server::check_access(&config)?;
        if let Some(path) = &config.audit_log {
            server::check_audit_log(path).with_context(|| format!("cannot write the audit log {}", path.display()))?;
        }
        let options = StoreOptions { create: true, ..StoreOptions::default() };
        let store = Store::open(&config.store, &options).await.context("the store")?;
        more_descriptors(config.limits.connections);
        let tls = config.tls.as_ref().map(Tls::load).transpose().context("TLS")?.map(Arc::new);
        let listeners = listeners(given, &config, tls.as_ref()).await?;
        let urls = urls(&listeners)?;
        let admin = match config.admin.listen {
            Some(listen) => Some(bind(listen).await?),
            None => None,
        };
        let location = store.location().to_owned();
        let app = App::new(&config, store, claim_reader(), |site| {
            tools(site).with_context(|| format!("the registry {}", site.shown()))
        })?;

        let (told, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let notifier = Arc::new(Notifier::from_process());
        stop_on_signals(told.clone(), notifier.clone())?;
        reload_on_signal(tls, notifier.clone())?;
        leave_then_stop(app.clone(), Duration::from_secs(config.admin.leave_seconds), told, shutdown.clone());
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        announce(format, (urls, admin_address), &location, &config, &rules, &sites)?;
        // Probes get their answers to the very end.
        let admin_stop = CancellationToken::new().drop_guard();
        if let Some(admin) = admin {
            tokio::spawn(server::serve_admin(admin, app.clone(), admin_stop.token().clone()));
        }
        notifier.ready();
        let probed = app.clone();
        tokio::spawn(async move { probed.probe().await });
        server::serve(listeners, app, shutdown).await?;
        drop(admin_stop);
        Ok(Answer::Yes)
    }

    /// The file's settings, the flags laid over them.
    fn config(self, file: Option<&Path>) -> anyhow::Result<ServerConfig> {
        let mut config = match file {
            Some(path) => ServerConfig::load(path)?,
            None => ServerConfig::default(),
        };
        if let Some(listen) = ListenAddresses::new(self.listen) {
            config.listen = listen;
        }
        if let (Some(certificate), Some(key)) = (self.tls_cert, self.tls_key) {
            match &mut config.tls {
                Some(tls) => (tls.certificate, tls.key) = (certificate, key),
                None => config.tls = Some(TlsConfig::new(certificate, key)),
            }
        }
        config.admin.listen = self.admin.or(config.admin.listen);
        if let Some(store) = self.store {
            config.store = store;
        }
        if let Some(upstream) = self.upstream {
            config.upstream = Some(HttpOrigin::parse(&upstream).context("--upstream")?);
        }
        if let Some(prefix) = self.store_prefix {
            config.store_prefix = StorePath::parse(&prefix).context("--store-prefix")?;
        }
        config.umask = self.umask.or(config.umask);
        config.gate.mode = self.gate.or(config.gate.mode);
        config.gate.policy = self.policy.or(config.gate.policy);
        config.check_registries()?;
        Ok(config)
    }
}

/// What one registry needs.
fn tools(site: &SiteConfig) -> anyhow::Result<RegistryTools> {
    let settings = &site.settings;
    let gate = ConfiguredGate::new(settings.gate.rules()?, Arc::new(OpenPgp::now()));
    let source = settings.credentials.as_ref().map(CredentialConfig::source).transpose()?;
    let credentials = source.map(|credentials| {
        let timeout = Duration::from_secs(settings.access_timeout_seconds);
        let certs_d = certs_d(settings);
        RegistryClient::new(RegistryOptions { credentials, timeout, certs_d, ..RegistryOptions::default() })
    });
    let http = upstream_client(settings)?;
    if let Some(upstream) = &settings.upstream {
        tell_proxy(upstream)?;
    }
    Ok(RegistryTools { http, gate: Some(Arc::new(gate)), credentials })
}

/// What an uploaded signature says, for the checks at the door; nobody trusts it for that.
fn claim_reader() -> ClaimReader {
    Arc::new(|blob| Unverified::read(blob).map(|read| read.claim).map_err(Into::into))
}

/// A policy that cannot be read, or that can never vouch, is better found before the first upload.
fn check_policies(rules: &GateRules) -> anyhow::Result<()> {
    for file in rules.policies() {
        let policy = Policy::load(file).context("the upload gate")?;
        let lists = policy.transports.get("docker").into_iter().flat_map(|scopes| scopes.values());
        if !lists.chain([&policy.default]).flatten().any(|requirement| requirement.verifies_signatures()) {
            tracing::warn!(
                policy = %file.display(),
                "the policy has no signedBy requirement, so every upload under it will be refused"
            );
        }
    }
    Ok(())
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}; is another server there?"))
}

/// Once `told` to stop, the server says that it is not ready, and stops after `delay`.
fn leave_then_stop(app: App, delay: Duration, told: CancellationToken, shutdown: CancellationToken) {
    tokio::spawn(async move {
        told.cancelled().await;
        app.leave();
        tokio::time::sleep(delay).await;
        shutdown.cancel();
    });
}

/// SIGTERM and SIGINT stop the server after the open requests; a second one stops it at once.
fn stop_on_signals(shutdown: CancellationToken, notifier: Arc<Notifier>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for second in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if second {
                std::process::exit(2);
            }
            tracing::info!("stopping after the open requests; a second signal stops at once");
            notifier.stopping();
            shutdown.cancel();
        }
    });
    Ok(())
}

/// SIGHUP reads the certificate anew; what else there is to read is read when it is needed.
fn reload_on_signal(tls: Option<Arc<Tls>>, notifier: Arc<Notifier>) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            notifier.reloading();
            if let Some(tls) = &tls {
                tls.reload_logged("SIGHUP").await;
            }
            notifier.ready();
        }
    });
    Ok(())
}

/// Raises the soft limit of open files to the hard one: a proxied request takes two, and the soft
/// one is low for the sake of programs that use `select`.
fn more_descriptors(connections: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    let enough = u64::try_from(connections).unwrap_or(u64::MAX).saturating_mul(2);
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < enough) {
        tracing::warn!(files, connections, "the limit of open files is too low for so many connections (ulimit -n)");
    }
}

/// Says at the start by which proxy of the environment the upstream is reached.
fn tell_proxy(upstream: &HttpOrigin) -> anyhow::Result<()> {
    let url = url::Url::parse(&upstream.to_string()).with_context(|| format!("the address {upstream}"))?;
    let proxy = HttpProxyRules::of_process().proxy_for(&url);
    if let Some(proxy) = proxy.with_context(|| format!("reaching {upstream}"))? {
        tracing::info!(%upstream, %proxy, "the upstream is reached through the proxy of the environment");
    }
    Ok(())
}

/// The upstream's certificates are those of the system and of `certs.d`, as podman would find them.
fn upstream_client(config: &ServerConfig) -> anyhow::Result<HttpClient> {
    let insecure = !config.upstream_tls_verify;
    let Some(upstream) = config.upstream.as_ref().filter(|upstream| upstream.scheme() == Scheme::Https) else {
        return Ok(HttpClient::new(system_roots(), insecure)?);
    };
    HttpClient::for_registry(upstream.authority(), &certs_d(config), system_roots(), insecure)
        .with_context(|| format!("the certificates for {upstream}"))
}

/// The folders of certificates that count.
fn certs_d(config: &ServerConfig) -> Vec<PathBuf> {
    match &config.certs_d {
        Some(directories) => directories.clone(),
        None => certificate_directories(&Environment::from_process(), Generation::default()),
    }
}

/// Takes systemd's sockets, or makes those of the configuration.
async fn listeners(
    given: Vec<(std::net::TcpListener, Option<Scheme>)>,
    config: &ServerConfig,
    tls: Option<&Arc<Tls>>,
) -> anyhow::Result<Vec<Listener>> {
    let speaks = |scheme: Option<Scheme>| match (scheme, tls) {
        (Some(Scheme::Http), _) | (None, None) => Ok(None),
        (_, Some(tls)) => Ok(Some(tls.clone())),
        (Some(Scheme::Https), None) => anyhow::bail!("https is to be served, but there is no certificate: set `tls`"),
    };
    if !given.is_empty() {
        let listener = |(socket, scheme)| Ok(Listener { socket: TcpListener::from_std(socket)?, tls: speaks(scheme)? });
        return given.into_iter().map(listener).collect();
    }
    let mut listeners = Vec::new();
    for ListenAddress { address, scheme } in config.listen.iter() {
        let tls = speaks(scheme)?;
        listeners.push(Listener { socket: bind(address).await?, tls });
    }
    Ok(listeners)
}

fn urls(listeners: &[Listener]) -> anyhow::Result<Vec<String>> {
    let url = |listener: &Listener| {
        let scheme = if listener.tls.is_some() { Scheme::Https } else { Scheme::Http };
        Ok(format!("{}://{}", scheme.as_str(), listener.socket.local_addr()?))
    };
    listeners.iter().map(url).collect()
}

/// Says where the server is, and what a client needs to use it.
fn announce(
    format: Format,
    (urls, admin): (Vec<String>, Option<SocketAddr>),
    store: &str,
    config: &ServerConfig,
    rules: &GateRules,
    sites: &[SiteConfig],
) -> anyhow::Result<()> {
    let url = urls.first().cloned().unwrap_or_default();
    let address = url.split_once("://").map_or(url.as_str(), |(_, address)| address).to_owned();
    let also = urls.get(1..).filter(|more| !more.is_empty()).map(|more| format!("Also on     {}", more.join(" ")));
    let prefix = if config.store_prefix.is_empty() { String::new() } else { format!("/{}", config.store_prefix) };
    let lookaside = format!("{url}/lookaside{prefix}");
    let started = Started {
        url: url.clone(),
        urls,
        store,
        upstream: config.upstream.as_ref().map(ToString::to_string),
        lookaside: lookaside.clone(),
        gate: rules.default_rule().mode().name(),
        admin: admin.map(|admin| format!("http://{admin}")),
        registries: sites
            .iter()
            .filter(|site| !site.name.is_empty())
            .map(|site| StartedRegistry {
                name: &site.name,
                hosts: &site.hosts,
                location: site.has_path().then(|| format!("{address}/{}", site.name)),
                upstream: site.settings.upstream.as_ref().map(ToString::to_string),
                lookaside: format!("{url}/lookaside/{}", site.settings.store_prefix),
            })
            .collect(),
    };
    let health = started.admin.as_ref().map(|admin| format!("Admin       {admin}/healthz, /readyz and /metrics"));
    let uploads = started.upstream.as_ref().map(|_| match rules.default_rule() {
        GateRule::Off => "Uploads     of any signature of the right form (gate off)".to_owned(),
        GateRule::Claim => "Uploads     of any signature for the right digest (gate claim)".to_owned(),
        GateRule::Policy { file, .. } => {
            format!("Uploads     of what {} vouches for (gate policy)", escape::path_word(file))
        }
    });
    let registry = match &started.upstream {
        Some(upstream) => {
            format!("Registry    {address}, before {upstream}: podman and skopeo need no configuration")
        }
        None => "Registry    none; --upstream URL puts this server before one".to_owned(),
    };
    let mut lines = vec![format!("countersign serves on {url}")];
    lines.extend(also);
    lines.extend([format!("Store       {}", escape::text(store)), registry]);
    lines.extend(uploads);
    lines.extend([format!("Lookaside   {lookaside}"), format!("Releases    {lookaside}/")]);
    lines.extend(health);
    lines.extend([
        "Clients of a lookaside need three lines in /etc/containers/registries.d/countersign.yaml:".to_owned(),
        String::new(),
        "docker:".to_owned(),
        "  registry.example:".to_owned(),
        format!("    lookaside: {lookaside}"),
    ]);
    lines.extend(started.registries.iter().flat_map(registry_lines));
    output::result(format, &lines, &started)
}

/// Says how clients find a named registry.
fn registry_lines(registry: &StartedRegistry<'_>) -> Vec<String> {
    let name = registry.name;
    let upstream = registry.upstream.as_deref().unwrap_or_default();
    let mut lines = vec![
        String::new(),
        format!("{name}, before {upstream}"),
        format!("  by host    {}", registry.hosts.iter().map(escape::word).collect::<Vec<_>>().join(", ")),
    ];
    if let Some(location) = &registry.location {
        lines.extend([
            format!("  by path    {location}/REPOSITORY; in /etc/containers/registries.conf.d/{name}.conf:"),
            String::new(),
            "    [[registry]]".to_owned(),
            format!("    prefix = \"{name}\""),
            format!("    location = \"{location}\""),
            String::new(),
        ]);
    }
    lines.push(format!("  lookaside  {}", registry.lookaside));
    lines
}
