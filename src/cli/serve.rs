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
use crate::config::{GateMode, GateRule, GateRules, HttpOrigin, ServerConfig};
use crate::lookup::{OpenPgp, Unverified};
use crate::metrics;
use crate::policy::Policy;
use crate::registry::http::HttpClient;
use crate::registry::system_roots;
use crate::server::{self, App, ClaimReader, ConfiguredGate};
use crate::store::{Store, StoreOptions, StorePath};

/// Serve signatures, and proxy a registry
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Serve {
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT", env = "COUNTERSIGN_LISTEN")]
    listen: Option<SocketAddr>,
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
}

const EXAMPLES: &str = "\
Examples:
  countersign serve                                         a lookaside over ./countersign-data
  countersign serve --store /var/lib/containers/sigstore    an existing tree, as it lies
  countersign serve --upstream https://registry.example --store s3://signatures
  countersign serve --upstream https://registry.example --policy policy.json

S3 endpoint, region and keys come from the usual AWS variables. SIGTERM stops after open requests.";

/// What a machine that starts a server wants to know.
#[derive(Serialize)]
struct Started<'a> {
    url: String,
    store: &'a str,
    upstream: Option<String>,
    lookaside: String,
    /// What uploads must fulfil where no namespace has its own rule.
    gate: &'static str,
    /// Where health and metrics are.
    admin: Option<String>,
}

impl Serve {
    pub async fn run(self, format: Format, file: Option<&Path>) -> anyhow::Result<Answer> {
        metrics::note_start();
        let config = self.config(file)?;
        let rules = config.gate.rules()?;
        check_policies(&rules)?;
        let options = StoreOptions { create: true, ..StoreOptions::default() };
        let store = Store::open(&config.store, &options).await.context("the store")?;
        let http = HttpClient::new(system_roots(), !config.upstream_tls_verify)?;
        let listener = bind(config.listen).await?;
        let admin = match config.admin.listen {
            Some(listen) => Some(bind(listen).await?),
            None => None,
        };
        let address = listener.local_addr()?;
        let location = store.location().to_owned();
        let gate = ConfiguredGate::new(rules.clone(), Arc::new(OpenPgp::now()));
        let app = App::new(&config, store, http, claim_reader(), Some(Arc::new(gate)));

        let (told, shutdown) = (CancellationToken::new(), CancellationToken::new());
        stop_on_signals(told.clone())?;
        leave_then_stop(app.clone(), Duration::from_secs(config.admin.leave_seconds), told, shutdown.clone());
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        announce(format, (address, admin_address), &location, &config, &rules)?;
        // Probes get their answers to the very end.
        let admin_stop = CancellationToken::new().drop_guard();
        if let Some(admin) = admin {
            tokio::spawn(server::serve_admin(admin, app.clone(), admin_stop.token().clone()));
        }
        server::serve(listener, app, shutdown).await?;
        drop(admin_stop);
        Ok(Answer::Yes)
    }

    /// The file's settings, the flags laid over them.
    fn config(self, file: Option<&Path>) -> anyhow::Result<ServerConfig> {
        let mut config = match file {
            Some(path) => ServerConfig::load(path)?,
            None => ServerConfig::default(),
        };
        if let Some(listen) = self.listen {
            config.listen = listen;
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
        config.gate.mode = self.gate.or(config.gate.mode);
        config.gate.policy = self.policy.or(config.gate.policy);
        Ok(config)
    }
}

/// What an uploaded signature says, for the checks at the door; nobody trusts it for that.
fn claim_reader() -> ClaimReader {
    Arc::new(|blob| Unverified::read(blob).map(|read| read.claim).map_err(|e| e.to_string()))
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
fn stop_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
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
            shutdown.cancel();
        }
    });
    Ok(())
}

/// Says where the server is, and what a client needs to use it.
fn announce(
    format: Format,
    (address, admin): (SocketAddr, Option<SocketAddr>),
    store: &str,
    config: &ServerConfig,
    rules: &GateRules,
) -> anyhow::Result<()> {
    let url = format!("http://{address}");
    let prefix = if config.store_prefix.is_empty() { String::new() } else { format!("/{}", config.store_prefix) };
    let lookaside = format!("{url}/lookaside{prefix}");
    let started = Started {
        url: url.clone(),
        store,
        upstream: config.upstream.as_ref().map(ToString::to_string),
        lookaside: lookaside.clone(),
        gate: rules.default_rule().mode().name(),
        admin: admin.map(|admin| format!("http://{admin}")),
    };
    let health = started
        .admin
        .as_ref()
        .map_or_else(String::new, |admin| format!("Admin       {admin}/healthz, /readyz and /metrics\n"));
    let uploads = match (&started.upstream, rules.default_rule()) {
        (None, _) => String::new(),
        (_, GateRule::Off) => "Uploads     of any signature of the right form (gate off)\n".to_owned(),
        (_, GateRule::Claim) => "Uploads     of any signature for the right digest (gate claim)\n".to_owned(),
        (_, GateRule::Policy { file, .. }) => {
            format!("Uploads     of what {} vouches for (gate policy)\n", file.display())
        }
    };
    let registry = match &started.upstream {
        Some(upstream) => {
            format!("Registry    {address}, before {upstream}: podman and skopeo need no configuration\n")
        }
        None => "Registry    none; --upstream URL puts this server before one\n".to_owned(),
    };
    let text = format!(
        "countersign serves on {url}\n\
         Store       {store}\n\
         {registry}\
         {uploads}\
         Lookaside   {lookaside}\n\
         Releases    {lookaside}/\n\
         {health}\
         Clients of a lookaside need three lines in /etc/containers/registries.d/countersign.yaml:\n\n\
         docker:\n  registry.example:\n    lookaside: {lookaside}\n"
    );
    output::result(format, &text, &started)
}
