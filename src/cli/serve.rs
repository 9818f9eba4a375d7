//! `countersign serve`: the server.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::output::{self, Answer, Format};
use crate::config::{HttpOrigin, ServerConfig};
use crate::openpgp;
use crate::registry::http::HttpClient;
use crate::registry::system_roots;
use crate::server::{self, App, ClaimReader};
use crate::signature::{Claim, simple_signing};
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
    /// Registry to stand before; without one only the lookaside is served
    #[arg(long, value_name = "URL", env = "COUNTERSIGN_UPSTREAM")]
    upstream: Option<String>,
    /// What stands before repository names in the store's keys
    #[arg(long, value_name = "PREFIX")]
    store_prefix: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  countersign serve                                         a lookaside over ./countersign-data
  countersign serve --store /var/lib/containers/sigstore    an existing tree, as it lies
  countersign serve --upstream https://registry.example --store s3://signatures

S3 endpoint, region and keys come from the usual AWS variables. SIGTERM stops after open requests.";

/// What a machine that starts a server wants to know.
#[derive(Serialize)]
struct Started<'a> {
    url: String,
    store: &'a str,
    upstream: Option<String>,
    lookaside: String,
}

impl Serve {
    pub async fn run(self, format: Format, file: Option<&Path>) -> anyhow::Result<Answer> {
        let config = self.config(file)?;
        let options = StoreOptions { create: true, ..StoreOptions::default() };
        let store = Store::open(&config.store, &options).await.context("the store")?;
        let http = HttpClient::new(system_roots(), !config.upstream_tls_verify)?;
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}; is another server there?", config.listen))?;
        let address = listener.local_addr()?;
        let location = store.location().to_owned();
        let app = App::new(&config, store, http, claim_reader(), None);

        let shutdown = CancellationToken::new();
        stop_on_signals(shutdown.clone())?;
        announce(format, address, &location, &config)?;
        server::serve(listener, app, shutdown).await?;
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
        if let Some(store) = self.store {
            config.store = store;
        }
        if let Some(upstream) = self.upstream {
            config.upstream = Some(HttpOrigin::parse(&upstream).context("--upstream")?);
        }
        if let Some(prefix) = self.store_prefix {
            config.store_prefix = StorePath::parse(&prefix).context("--store-prefix")?;
        }
        Ok(config)
    }
}

/// What an uploaded signature says, for the checks at the door; nobody trusts it for that.
fn claim_reader() -> ClaimReader {
    Arc::new(|blob| {
        let message = simple_signing(blob).map_err(|e| e.to_string())?;
        let untrusted = openpgp::inspect(message).map_err(|e| e.to_string())?;
        Claim::parse(&untrusted.content).map_err(|e| e.to_string())
    })
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
fn announce(format: Format, address: SocketAddr, store: &str, config: &ServerConfig) -> anyhow::Result<()> {
    let url = format!("http://{address}");
    let prefix = if config.store_prefix.is_empty() { String::new() } else { format!("/{}", config.store_prefix) };
    let lookaside = format!("{url}/lookaside{prefix}");
    let started = Started {
        url: url.clone(),
        store,
        upstream: config.upstream.as_ref().map(ToString::to_string),
        lookaside: lookaside.clone(),
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
         Lookaside   {lookaside}\n\
         Releases    {lookaside}/\n\
         Clients of a lookaside need three lines in /etc/containers/registries.d/countersign.yaml:\n\n\
         docker:\n  registry.example:\n    lookaside: {lookaside}\n"
    );
    output::result(format, &text, &started)
}
