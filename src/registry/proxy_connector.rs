//! Connections through the proxies of the environment, or directly, as [`HttpProxyRules`] decide.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;
use url::Url;

use super::http::BoxError;
use super::secret::basic;
use crate::host::{HttpProxy, HttpProxyRules, ProxyProtocol};

/// Returns the value of `Proxy-Authorization` for a request that goes to its proxy in absolute form.
pub(super) fn proxy_authorization(uri: &Uri) -> Option<HeaderValue> {
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let proxy = proxy_for(uri).ok().flatten()?;
    if proxy.protocol() == ProxyProtocol::Socks5 { None } else { authorization(&proxy) }
}

fn proxy_for(uri: &Uri) -> Result<Option<std::sync::Arc<HttpProxy>>, BoxError> {
    // Every URI that a connector gets is absolute.
    let url = Url::parse(&uri.to_string())?;
    Ok(HttpProxyRules::of_process().proxy_for(&url)?)
}

fn authorization(proxy: &HttpProxy) -> Option<HeaderValue> {
    proxy.credentials().map(|(user, password)| basic(user.as_bytes(), password.as_bytes()))
}

/// Connects to a server, or to the proxy before it.
#[derive(Clone, Debug)]
pub(super) struct ProxyConnector {
    tcp: HttpConnector,
    /// With the settings for TLS of the client, as Go does it.
    to_proxy: HttpsConnector<HttpConnector>,
}

impl ProxyConnector {
    pub(super) fn new(tcp: HttpConnector, tls: rustls::ClientConfig) -> Self {
        let to_proxy = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp.clone());
        Self { tcp, to_proxy }
    }

    async fn connect(mut self, uri: Uri) -> Result<ProxyStream, BoxError> {
        let Some(proxy) = proxy_for(&uri)? else {
            let stream = MaybeHttpsStream::Http(self.tcp.call(uri).await?);
            return Ok(ProxyStream { stream, is_proxied: false });
        };
        let scheme = if proxy.protocol() == ProxyProtocol::Https { "https" } else { "http" };
        let address: Uri = format!("{scheme}://{}", proxy.authority()).parse()?;
        let connected = if proxy.protocol() == ProxyProtocol::Socks5 {
            let mut socks = SocksV5::new(address, self.to_proxy).local_dns(false);
            if let Some((user, password)) = proxy.credentials() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            socks.call(with_port(&uri)?).await.map_err(BoxError::from).map(|stream| (stream, false))
        } else if uri.scheme_str() == Some("https") {
            let mut tunnel = Tunnel::new(address, self.to_proxy);
            if let Some(value) = authorization(&proxy) {
                tunnel = tunnel.with_auth(value);
            }
            tunnel.call(uri).await.map_err(BoxError::from).map(|stream| (stream, false))
        } else {
            self.to_proxy.call(address).await.map(|stream| (stream, true))
        };
        let (stream, is_proxied) = connected.map_err(|source| ThroughProxy { proxy: proxy.to_string(), source })?;
        Ok(ProxyStream { stream, is_proxied })
    }
}

/// The URI with its port, which SOCKS needs.
fn with_port(uri: &Uri) -> Result<Uri, BoxError> {
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    Ok(format!("{}://{host}:{port}", uri.scheme_str().unwrap_or("http")).parse()?)
}

/// A connection through a proxy failed.
#[derive(Debug, thiserror::Error)]
#[error("through the proxy {proxy} of the environment: {source}")]
struct ThroughProxy {
    proxy: String,
    source: BoxError,
}

impl Service<Uri> for ProxyConnector {
    type Response = ProxyStream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<ProxyStream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// A connection to a server, or to the proxy before it.
pub(super) struct ProxyStream {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Requests are sent to a proxy, in absolute form.
    is_proxied: bool,
}

impl Connection for ProxyStream {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.is_proxied)
    }
}

impl Read for ProxyStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl Write for ProxyStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, pieces)
    }
}
