//! Which certificates a registry is checked against and which are shown to it: the system's
//! roots and the `certs.d/<host:port>` folders (spec containers-image 2.2).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};

/// A client certificate with its chain, and its private key.
pub struct ClientIdentity {
    /// The certificate first, then what links it to an authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the first certificate.
    pub key: PrivateKeyDer<'static>,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").field("chain", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Why a `certs.d` folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file or folder is there but cannot be read.
    #[error("reading certificates at {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `X.cert` without `X.key`.
    #[error(
        "missing key {} for client certificate {}. CA certificates should use the extension .crt",
        key.display(),
        certificate.display()
    )]
    MissingKey {
        /// The certificate that is there.
        certificate: PathBuf,
        /// The key that is not.
        key: PathBuf,
    },
    /// `X.key` without `X.cert`.
    #[error("missing client certificate {} for key {}", certificate.display(), key.display())]
    MissingCertificate {
        /// The certificate that is not there.
        certificate: PathBuf,
        /// The key that is.
        key: PathBuf,
    },
    /// A client certificate or key that is no PEM of its kind.
    #[error("{} holds no usable PEM: {reason}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What the parser said; never the content.
        reason: String,
    },
}

/// What the `certs.d` folder of one registry adds.
#[derive(Debug, Default)]
pub struct HostCertificates {
    /// Authorities, added to the system's.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Client certificates.
    pub identities: Vec<ClientIdentity>,
}

impl HostCertificates {
    /// Reads the first folder `<dir>/<host:port>` that exists in `directories`; none is fine.
    ///
    /// The caller gives the search list of the generation it follows (spec containers-image 2.2).
    /// As in containers/image a folder that may not be entered is passed over, and whatever is
    /// no certificate inside a `.crt` file is ignored.
    ///
    /// # Errors
    /// [`CertificatesError`] for a client pair with a missing or unusable half, and for files
    /// that cannot be read.
    pub fn load(directories: &[PathBuf], host: &str) -> Result<Self, CertificatesError> {
        for directory in directories {
            let folder = directory.join(host);
            match std::fs::read_dir(&folder) {
                Ok(entries) => {
                    let mut names = Vec::new();
                    for entry in entries {
                        names.push(entry.map_err(|source| read_error(&folder, source))?.path());
                    }
                    names.sort();
                    return Self::from_files(&names);
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::debug!(folder = %folder.display(), "certs.d folder may not be read, passed over");
                }
                Err(source) => return Err(read_error(&folder, source)),
            }
        }
        Ok(Self::default())
    }

    fn from_files(paths: &[PathBuf]) -> Result<Self, CertificatesError> {
        let mut found = Self::default();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {
                    let pem = read(path)?;
                    found.authorities.extend(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
                }
                Some("cert") => {
                    let key = path.with_extension("key");
                    if !paths.contains(&key) {
                        return Err(CertificatesError::MissingKey { certificate: path.clone(), key });
                    }
                    found.identities.push(identity(path, &key)?);
                }
                Some("key") => {
                    let certificate = path.with_extension("cert");
                    if !paths.contains(&certificate) {
                        return Err(CertificatesError::MissingCertificate { certificate, key: path.clone() });
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn read_error(path: &Path, source: io::Error) -> CertificatesError {
    CertificatesError::Read { path: path.to_owned(), source }
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, CertificatesError> {
    std::fs::read(path).map(zeroize::Zeroizing::new).map_err(|source| read_error(path, source))
}

fn identity(certificate: &Path, key: &Path) -> Result<ClientIdentity, CertificatesError> {
    let unusable = |path: &Path, reason: String| CertificatesError::Pem { path: path.to_owned(), reason };
    let chain = CertificateDer::pem_slice_iter(&read(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| unusable(certificate, e.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(certificate, "no certificate in it".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| unusable(key, e.to_string()))?;
    Ok(ClientIdentity { chain, key })
}

/// Reads the certificates that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are heard).
///
/// What cannot be read or parsed is left out with a warning: a store of nothing refuses every
/// registry, which is the safe side.
pub fn system_roots() -> RootCertStore {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "a part of the system's certificates cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(loaded.certs);
    tracing::debug!(added, ignored, "system certificates");
    roots
}

/// Answers a server's wish for a client certificate as Go does: the first identity whose chain
/// was issued by an authority that the server names (any, if it names none).
#[derive(Debug)]
pub(super) struct IdentityResolver(Vec<Arc<CertifiedKey>>);

impl IdentityResolver {
    pub(super) fn new(provider: &CryptoProvider, identities: Vec<ClientIdentity>) -> Result<Self, rustls::Error> {
        let keys = identities
            .into_iter()
            .map(|identity| {
                let certified = CertifiedKey::from_der(identity.chain, identity.key, provider)?;
                Ok(Arc::new(certified))
            })
            .collect::<Result<_, rustls::Error>>()?;
        Ok(Self(keys))
    }
}

impl ResolvesClientCert for IdentityResolver {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0
            .iter()
            .find(|key| {
                // A certificate holds its issuer's name in the very bytes of the server's list.
                let named = authorities.is_empty()
                    || key.cert.iter().any(|der| authorities.iter().any(|name| contains(der, name)));
                named && key.key.choose_scheme(schemes).is_some()
            })
            .cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKEN: &str = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n-----BEGIN CERTIFICATE-----\nAA";

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let root = tempfile::tempdir().unwrap();
        let host = root.path().join("second").join("reg.example:5000");
        std::fs::create_dir_all(&host).unwrap();
        for (name, text) in files {
            std::fs::write(host.join(name), text).unwrap();
        }
        let directories = vec![root.path().join("first"), root.path().join("second")];
        (root, directories)
    }

    #[test]
    fn nothing_there_is_nothing_added() {
        let (_root, directories) = folder(&[("README", "x"), ("ca.crt", "no pem at all"), ("b.crt", BROKEN)]);
        let found = HostCertificates::load(&directories, "other.example").unwrap();
        assert!(found.authorities.is_empty() && found.identities.is_empty());
        let found = HostCertificates::load(&directories, "reg.example:5000").unwrap();
        assert!(found.authorities.is_empty() && found.identities.is_empty());
    }

    #[test]
    fn half_pairs_are_named() {
        let (_root, directories) = folder(&[("a.cert", "x")]);
        let error = HostCertificates::load(&directories, "reg.example:5000").unwrap_err().to_string();
        assert!(error.contains("a.key for client certificate") && error.contains("extension .crt"), "{error}");
        let (_root, directories) = folder(&[("a.key", "x")]);
        let error = HostCertificates::load(&directories, "reg.example:5000").unwrap_err().to_string();
        assert!(error.starts_with("missing client certificate"), "{error}");
        let (_root, directories) = folder(&[("a.key", "private words"), ("a.cert", "x")]);
        let error = HostCertificates::load(&directories, "reg.example:5000").unwrap_err().to_string();
        assert!(error.contains("a.cert holds no usable PEM") && !error.contains("private"), "{error}");
    }

    #[test]
    fn names_are_found_in_certificates() {
        assert!(contains(b"abcd", b"bc") && contains(b"abcd", b"abcd"));
        assert!(!contains(b"abcd", b"") && !contains(b"abc", b"abcd") && !contains(b"", b"a"));
    }

    #[test]
    fn system_roots_are_there() {
        // An empty system store is possible in a bare container; it must not be an error.
        let _ = system_roots();
    }
}
