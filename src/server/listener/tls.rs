//! The server's side of TLS: the certificate that it shows, clients' certificates, and both of them
//! exchanged while connections are open.
//!
//! What a connection began with stays with it; the next one sees the new files. Files that do not
//! fit together are never used: the old ones stay until both halves of the new pair are there.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, RootCertStore};
use tokio_util::sync::CancellationToken;

use crate::config::{ClientCertificates, TlsConfig};

/// How often the files are looked at. A change counts when two looks saw the same, so that files
/// in the middle of being written are left alone.
const LOOK: Duration = Duration::from_secs(1);

/// Why there can be no TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file holds nothing of its kind.
    #[error("{} holds no usable PEM: {reason}", path.display())]
    Pem {
        /// Which one.
        path: PathBuf,
        /// What the parser said; never the content.
        reason: String,
    },
    /// Certificate and key do not fit together, or TLS cannot use them.
    #[error("the certificate {} and the key {} are not usable: {error}", certificate.display(), key.display())]
    Pair {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What TLS said.
        error: rustls::Error,
    },
    /// The authorities cannot verify clients.
    #[error("clients cannot be verified by {}: {reason}", path.display())]
    Authorities {
        /// Their file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Certificates are wanted from clients, but nobody knows by whom.
    #[error("client certificates are wanted, but `client_ca` names no authority that issues them")]
    NoAuthorities,
    /// TLS cannot be set up at all.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

/// The certificate in use.
#[derive(Debug)]
pub struct Tls {
    files: TlsConfig,
    current: RwLock<Arc<rustls::ServerConfig>>,
    /// What the files looked like when they were read last, successfully or not.
    read: Mutex<Look>,
}

/// What files look like from outside.
type Look = Vec<Option<(u64, u64, u64, i64, i64)>>;

impl Tls {
    /// Reads the files of a configuration.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(files: &TlsConfig) -> Result<Self, TlsError> {
        let read = look(files);
        let current = RwLock::new(Arc::new(configure(files)?));
        Ok(Self { files: files.clone(), current, read: Mutex::new(read) })
    }

    /// Returns what a new connection is to use.
    pub(crate) fn config(&self) -> Arc<rustls::ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again, and uses them if they can be used. Blocks on the disk.
    ///
    /// # Errors
    /// [`TlsError`]; what was in use stays so.
    pub fn reload(&self) -> Result<(), TlsError> {
        let seen = look(&self.files);
        let configured = configure(&self.files);
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(configured?);
        Ok(())
    }

    /// As [`Tls::reload`], away from the runtime's threads, and told in the log.
    pub async fn reload_logged(self: &Arc<Self>, reason: &'static str) {
        let tls = self.clone();
        let certificate = self.files.certificate.display();
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(Ok(())) => tracing::info!(reason, %certificate, "the certificate was read anew"),
            Ok(Err(error)) => tracing::error!(reason, %error, "the new certificate is not usable; the old one stays"),
            Err(error) => tracing::error!(reason, %error, "the certificate could not be read anew"),
        }
    }

    /// Reads the files again whenever they have changed, until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut last: Option<Look> = None;
        while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
            let tls = self.clone();
            let Ok(seen) = tokio::task::spawn_blocking(move || look(&tls.files)).await else { continue };
            let changed = seen != *self.read.lock().unwrap_or_else(PoisonError::into_inner);
            if changed && last.as_ref() == Some(&seen) {
                self.reload_logged("the files changed").await;
            }
            last = Some(seen);
        }
    }
}

fn look(files: &TlsConfig) -> Look {
    let state = |m: Metadata| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec());
    let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    paths.into_iter().flatten().map(|path| std::fs::metadata(path).ok().map(state)).collect()
}

fn configure(files: &TlsConfig) -> Result<rustls::ServerConfig, TlsError> {
    let provider = Arc::new(provider());
    let chain = certificates(&files.certificate)?;
    let pem = |e: rustls::pki_types::pem::Error| TlsError::Pem { path: files.key.clone(), reason: e.to_string() };
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(pem)?;
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?;
    let builder = match (files.client_certificates(), &files.client_ca) {
        (ClientCertificates::None, _) => builder.with_no_client_auth(),
        (_, None) => return Err(TlsError::NoAuthorities),
        (mode, Some(path)) => {
            let wrong = |reason: String| TlsError::Authorities { path: path.clone(), reason };
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match mode {
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
                ClientCertificates::None | ClientCertificates::Required => verifier,
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|e| wrong(e.to_string()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| TlsError::Pair {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        error,
    })?;
    // Else clients' wishes would count, and OpenSSL's and its users' first wish is SHA-384.
    config.ignore_client_order = true;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sealed by a key of this configuration alone: whoever comes back after the authorities changed
    // has to show a certificate again.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Setup)?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// All that rustls finds safe, in its phase but for one: AES-128 with SHA-256 comes first, as in Go.
/// A handshake is much hashing, and processors help with SHA-256, few with SHA-384: on an AMD EPYC
/// a fifth of what a resumed handshake takes.
fn provider() -> CryptoProvider {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, TlsError> {
    let read = std::fs::read(path).map(zeroize::Zeroizing::new);
    read.map_err(|error| TlsError::Read { path: path.to_owned(), error })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::Pem { path: path.to_owned(), reason };
    let found = CertificateDer::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|e| wrong(e.to_string()))?;
    if found.is_empty() { Err(wrong("no certificate in it".to_owned())) } else { Ok(found) }
}
