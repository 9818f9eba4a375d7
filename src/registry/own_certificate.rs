//! Certificates that are trusted themselves, not by an authority: those in the `certs.d` folder of a host.
//!
//! Every guide makes the certificate of a private registry by `openssl req -x509`, which marks it as an authority's.
//! webpki takes no authority's certificate for a server's. Go accepts any certificate that stands in its pool of roots
//! (spec containers-image 2.2), and so do clients. Here that holds for exactly the certificates of this host's folder;
//! name, time and purpose count as always.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::ExtendedKeyUsage;

const SERVER_AUTHENTICATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// Verifies servers as webpki does, and accepts the certificates of `own` as what they are.
#[derive(Debug)]
pub(super) struct OwnCertificateVerifier {
    pub(super) webpki: Arc<WebPkiServerVerifier>,
    pub(super) own: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for OwnCertificateVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.webpki.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        let is_own = || self.own.iter().any(|own| own.as_ref() == end_entity.as_ref());
        match verified {
            // Whatever is wrong with the path to an authority: none is needed.
            Err(Error::InvalidCertificate(_)) if is_own() => verify_alone(end_entity, server_name, now),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.webpki.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.webpki.supported_verify_schemes()
    }
}

/// Checks all of a certificate but who issued it: name, time, purpose.
fn verify_alone(
    der: &CertificateDer<'_>,
    server_name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let unreadable = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
    // Also refuses extensions that are marked as critical and that nobody here knows.
    let parsed = ParsedCertificate::try_from(der)?;
    let certificate = Certificate::from_der(der).map_err(unreadable)?;
    let certificate = certificate.tbs_certificate();
    let validity = certificate.validity();
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    let usage = certificate.get_extension::<ExtendedKeyUsage>().map_err(unreadable)?;
    if usage.is_some_and(|(_, usage)| !usage.0.iter().any(|one| [SERVER_AUTHENTICATION, ANY_PURPOSE].contains(one))) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    rustls::client::verify_server_name(&parsed, server_name)?;
    Ok(ServerCertVerified::assertion())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
    use rustls::RootCertStore;

    fn params(name: &str) -> CertificateParams {
        CertificateParams::new([name.to_owned()]).unwrap()
    }

    fn authority(name: &str) -> CertificateParams {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn self_signed(params: &CertificateParams) -> CertificateDer<'static> {
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    /// Tells how a client with `own` in its folder for the host takes a server's certificate.
    fn verify(own: &[&CertificateDer<'static>], shown: &CertificateDer<'static>) -> Result<(), Error> {
        let own: Vec<_> = own.iter().map(|one| (*one).clone()).collect();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(own.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let webpki = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let verifier = OwnCertificateVerifier { webpki, own };
        let name = ServerName::try_from("registry.example").unwrap();
        verifier.verify_server_cert(shown, &[], &name, &[], UnixTime::now()).map(drop)
    }

    #[test]
    fn accepts_exactly_the_certificate_in_the_folder() {
        let own = self_signed(&authority("registry.example"));
        let same_name = self_signed(&authority("registry.example"));
        verify(&[&own], &own).unwrap();
        verify(&[&same_name, &own], &own).unwrap();
        assert!(verify(&[&own], &same_name).is_err());
        let plain = self_signed(&params("registry.example"));
        verify(&[&plain], &plain).unwrap();
        assert!(verify(&[&own], &plain).is_err());
    }

    #[test]
    fn accepts_a_servers_certificate_in_the_folder_without_its_authority() {
        let key = KeyPair::generate().unwrap();
        let issuer = Issuer::new(authority("authority"), key);
        let leaf = params("registry.example").signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone();
        verify(&[&leaf], &leaf).unwrap();
        let other = params("registry.example").signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().der().clone();
        assert!(verify(&[&leaf], &other).is_err());
    }

    #[test]
    fn name_time_and_purpose_count_as_always() {
        let elsewhere = self_signed(&authority("other.example"));
        let named = verify(&[&elsewhere], &elsewhere).unwrap_err();
        assert!(
            matches!(named, Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })),
            "{named:?}"
        );
        let (mut expired, mut early) = (authority("registry.example"), authority("registry.example"));
        expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
        early.not_before = rcgen::date_time_ymd(2100, 1, 1);
        let mut client = authority("registry.example");
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        for params in [expired, early, client] {
            let shown = self_signed(&params);
            assert!(verify(&[&shown], &shown).is_err(), "{params:?}");
        }
        let mut any = authority("registry.example");
        any.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let shown = self_signed(&any);
        verify(&[&shown], &shown).unwrap();
    }
}
