//! `tls` in the server's configuration: whose certificate is shown, and whose are asked for.

use std::path::PathBuf;

use serde::Deserialize;

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They are not.
    #[default]
    None,
    /// They are; one that is shown must be by the authorities, but none is fine too.
    Optional,
    /// Without one by the authorities there is no connection.
    Required,
}

/// The `tls` section. All files are PEM and are read anew on SIGHUP and when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate, followed by what links it to an authority.
    pub certificate: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities of client certificates.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Default: `none` without `client_ca`, else `required`.
    #[serde(default)]
    client_certificates: Option<ClientCertificates>,
}

impl TlsConfig {
    /// Makes the section for a certificate and its key; clients are asked for nothing.
    pub fn new(certificate: PathBuf, key: PathBuf) -> Self {
        Self { certificate, key, client_ca: None, client_certificates: None }
    }

    /// As [`TlsConfig::new`], with clients' certificates by the authorities in `client_ca`.
    pub fn with_clients(mut self, client_ca: PathBuf, mode: ClientCertificates) -> Self {
        self.client_ca = Some(client_ca);
        self.client_certificates = Some(mode);
        self
    }

    /// Returns whether clients are asked for a certificate: what is said, else what follows.
    pub fn client_certificates(&self) -> ClientCertificates {
        let implied = if self.client_ca.is_some() { ClientCertificates::Required } else { ClientCertificates::None };
        self.client_certificates.unwrap_or(implied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_implies_that_certificates_are_required() {
        let read = |yaml: &str| serde_yaml::from_str::<TlsConfig>(yaml).unwrap().client_certificates();
        assert_eq!(read("{certificate: c, key: k}"), ClientCertificates::None);
        assert_eq!(read("{certificate: c, key: k, client_ca: a}"), ClientCertificates::Required);
        assert_eq!(
            read("{certificate: c, key: k, client_ca: a, client_certificates: optional}"),
            ClientCertificates::Optional
        );
        assert!(serde_yaml::from_str::<TlsConfig>("{certificate: c}").is_err());
        assert!(serde_yaml::from_str::<TlsConfig>("{certificate: c, key: k, ca: x}").is_err());
    }
}
