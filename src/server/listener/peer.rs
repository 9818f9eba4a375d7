//! Who is at the other end of a connection, as far as the connection itself says.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::Scheme;

/// A connection, as its requests see it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The other end.
    pub peer: SocketAddr,
    /// What is spoken: `https` over TLS.
    pub scheme: Scheme,
    /// What the client proved.
    pub identity: PeerIdentity,
}

impl Connection {
    /// Makes a plain connection.
    pub fn plain(peer: SocketAddr) -> Self {
        Self { peer, scheme: Scheme::Http, identity: PeerIdentity::default() }
    }
}

/// What a client proved when it connected. In the extensions of its requests, if it proved anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The certificate that it has the key of, by an authority of the configuration.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A client's certificate, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject as RFC 4514 writes it: `CN=ci,O=Birds`.
    pub subject: String,
    /// The alternative names: host names, addresses, URIs, mail addresses.
    pub sans: Vec<String>,
    /// The SHA-256 of the whole certificate.
    pub sha256: [u8; 32],
}

impl ClientCertificate {
    /// Reads a certificate that was verified; `None` when it cannot be read.
    pub(crate) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let subject = certificate.tbs_certificate();
        let names = subject.get_extension::<SubjectAltName>().ok()?;
        let sans = names.iter().flat_map(|(_, names)| &names.0).filter_map(name).collect();
        Some(Self { subject: subject.subject().to_string(), sans, sha256: Sha256::digest(der).into() })
    }
}

fn name(name: &GeneralName) -> Option<String> {
    Some(match name {
        GeneralName::DnsName(name) => name.as_str().to_owned(),
        GeneralName::Rfc822Name(name) => name.as_str().to_owned(),
        GeneralName::UniformResourceIdentifier(name) => name.as_str().to_owned(),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
            let address = v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from)).ok()?;
            address.to_string()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn reads_all_kinds_of_names() {
        let mut params = CertificateParams::new(["ci.example".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://birds/ci".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("ci@birds.example".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Birds, Inc");
        params.distinguished_name.push(DnType::CommonName, "ci");
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = ClientCertificate::read(certificate.der()).unwrap();
        assert_eq!(read.subject, "CN=ci,O=Birds\\, Inc");
        assert_eq!(read.sans, ["ci.example", "10.0.0.1", "spiffe://birds/ci", "ci@birds.example"]);
        assert_eq!(read.sha256, *Sha256::digest(certificate.der()));
        assert_eq!(ClientCertificate::read(&CertificateDer::from(vec![0x30, 0])), None);
    }
}
