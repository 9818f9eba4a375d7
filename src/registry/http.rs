//! The one HTTP client type: streaming both ways, used for registries, lookasides and the proxy.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::header::PROXY_AUTHORIZATION;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;

use super::own_certificate::OwnCertificateVerifier;
use super::pace::Pace;
use super::proxy_connector::{ProxyConnector, proxy_authorization};
use super::tls::{CertificatesError, HostCertificates};

/// What may go wrong while a body streams.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A streamed request body.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// Returns a body of known bytes.
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    http_body_util::Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Returns an empty body.
pub fn empty() -> RequestBody {
    full(Bytes::new())
}

/// A pooled HTTP/1.1 and HTTP/2 client; cloning shares the pool.
#[derive(Clone, Debug)]
pub struct HttpClient {
    inner: Client<HttpsConnector<ProxyConnector>, RequestBody>,
    /// Kept by whole exchanges; `send` alone does not wait.
    pace: Option<Pace>,
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum HttpSetupError {
    /// rustls refused the configuration.
    #[error("TLS set-up failed: {0}")]
    Tls(#[from] rustls::Error),
    /// rustls refused the trusted certificates.
    #[error("TLS set-up failed: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// What `certs.d` has for the registry is not usable.
    #[error(transparent)]
    Certificates(#[from] CertificatesError),
}

impl HttpClient {
    /// Makes a client that trusts `roots`; certificates are not checked at all when `insecure`.
    ///
    /// # Errors
    /// [`HttpSetupError`] when rustls refuses the configuration.
    pub fn new(roots: RootCertStore, insecure: bool) -> Result<Self, HttpSetupError> {
        Self::with_certificates(roots, insecure, HostCertificates::default())
    }

    /// As [`HttpClient::new`], and trusts the host's own certificates. It shows one of its identities to a server that
    /// asks for a client certificate: the first that the server's list of authorities and algorithms fits.
    fn with_certificates(
        mut roots: RootCertStore,
        insecure: bool,
        certificates: HostCertificates,
    ) -> Result<Self, HttpSetupError> {
        let HostCertificates { authorities: own, identities } = certificates;
        roots.add_parsable_certificates(own.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            rustls::ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let resolver = Arc::new(super::tls::IdentityResolver::new(&provider, identities)?);
        let tls = if insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(super::insecure::AcceptAnyCertificate::new(provider)))
                .with_client_cert_resolver(resolver)
        } else if own.is_empty() || roots.is_empty() {
            builder.with_root_certificates(roots).with_client_cert_resolver(resolver)
        } else {
            let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(OwnCertificateVerifier { webpki, own }))
                .with_client_cert_resolver(resolver)
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(std::time::Duration::from_secs(30)));
        // A peer that vanished without a word would hold a streaming answer for ever.
        tcp.set_keepalive(Some(std::time::Duration::from_secs(60)));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(ProxyConnector::new(tcp, tls));
        let inner = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { inner, pace: None })
    }

    /// Limits how fast exchanges are begun.
    pub(super) fn paced(self, pace: Option<Pace>) -> Self {
        Self { pace, ..self }
    }

    pub(super) fn pace(&self) -> Option<&Pace> {
        self.pace.as_ref()
    }

    /// Makes a client for one registry, `host[:port]`: trusted are `roots` and what the first of
    /// `directories` has in its folder for the registry, whose client certificates are shown
    /// (spec containers-image 2.2). Blocks on the disk.
    ///
    /// # Errors
    /// [`HttpSetupError`], naming a file that is not usable.
    pub fn for_registry(
        registry: &str,
        directories: &[PathBuf],
        roots: RootCertStore,
        insecure: bool,
    ) -> Result<Self, HttpSetupError> {
        Self::with_certificates(roots, insecure, HostCertificates::load(directories, registry)?)
    }

    /// Sends one request; redirects are not followed.
    ///
    /// # Errors
    /// The connection's failure; an HTTP status is never an error here.
    pub async fn send(
        &self,
        mut request: http::Request<RequestBody>,
    ) -> Result<http::Response<Incoming>, hyper_util::client::legacy::Error> {
        // A client's own would be for another proxy.
        request.headers_mut().remove(PROXY_AUTHORIZATION);
        if let Some(value) = proxy_authorization(request.uri()) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, value);
        }
        self.inner.request(request).await
    }
}
