//! Certificates: reading them, and asking rustls-webpki for a path to a trusted root.
//!
//! Paths are built and checked by webpki. What Go also checks and webpki leaves to its caller is
//! checked here on what webpki found: a root's own validity, constraints and usages (to webpki a
//! root is only a name and a key), and the right of every issuer to sign certificates. These checks
//! can only refuse. Where webpki refuses for name constraints alone, it is asked whether Go, which
//! knows more kinds of names, finds a `path`.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, RequiredEkuNotFoundContext, VerifiedPath,
    aws_lc_rs as alg,
};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName};

use super::key::{KeyError, PublicKey};
use super::{hostname, path, pem};
use crate::go;

/// The most certificates, root included, that a signature may bring along. Real ones bring two or
/// three; a stranger's hundreds that all name each other would keep the path builder busy for hours.
const CHAIN_LIMIT: usize = 8;

/// The purpose that a signer's certificate must have, if it names any.
const CODE_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.3");
/// The same as webpki wants it.
const CODE_SIGNING_BYTES: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 3];
const ANY_PURPOSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37.0");

/// The signatures that may hold a path together: no SHA-1, no RSA under 2048 bits.
pub(super) const PATH_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    alg::ECDSA_P256_SHA256,
    alg::ECDSA_P256_SHA384,
    alg::ECDSA_P256_SHA512,
    alg::ECDSA_P384_SHA256,
    alg::ECDSA_P384_SHA384,
    alg::ECDSA_P384_SHA512,
    alg::ECDSA_P521_SHA256,
    alg::ECDSA_P521_SHA384,
    alg::ECDSA_P521_SHA512,
    alg::ED25519,
    alg::RSA_PKCS1_2048_8192_SHA256,
    alg::RSA_PKCS1_2048_8192_SHA384,
    alg::RSA_PKCS1_2048_8192_SHA512,
    alg::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    alg::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    alg::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];

/// Why a certificate is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// The text holds something else than whole PEM blocks.
    #[error("error during PEM decoding")]
    Pem,
    /// A certificate's ASN.1 is broken.
    #[error("x509: malformed certificate: {0}")]
    Malformed(String),
    /// An extension stands there twice.
    #[error("x509: certificate contains duplicate extensions: {0}")]
    DuplicateExtension(String),
    /// The signature brings more certificates along than are looked at.
    #[error("more than {CHAIN_LIMIT} certificates in the certificate chain")]
    LongChain,
    /// There is no signer's certificate.
    #[error("no certificate found in signature certificate data")]
    NoLeaf,
    /// There are several.
    #[error("unexpected multiple certificates present in signature certificate data")]
    SeveralLeaves,
    /// The signer's key cannot be used.
    #[error("certificate's public key: {0}")]
    Key(#[from] KeyError),
    /// webpki found no path to a root.
    #[error("x509: no valid path to a trusted root: {0}")]
    Path(String),
    /// The root at the end of the path is not valid at the time in question.
    #[error("x509: trusted root {0} has expired or is not yet valid")]
    RootTime(String),
    /// The root may not issue what was found under it.
    #[error("x509: trusted root {name} may not issue this certificate: {reason}")]
    Root {
        /// The root's subject.
        name: String,
        /// What forbids it.
        reason: &'static str,
    },
    /// An issuer on the path has a key usage without certificate signing.
    #[error("x509: intermediate certificate {0} may not sign certificates")]
    Intermediate(String),
    /// The certificate is for other hosts.
    #[error("x509: certificate is valid for {valid}, not {wanted}")]
    Hostname {
        /// The names that stand in the certificate.
        valid: String,
        /// The name that the policy asks for.
        wanted: String,
    },
}

/// Reads all certificates of a text that holds nothing but PEM blocks, of whatever label.
pub(super) fn read_all(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    read_up_to(text, usize::MAX)
}

fn read_up_to(text: &[u8], most: usize) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let mut certificates = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if certificates.len() == most {
            return Err(CertificateError::LongChain);
        }
        let (block, after) = pem::decode(rest).ok_or(CertificateError::Pem)?;
        rest = after;
        parse(&block.der)?;
        certificates.push(CertificateDer::from(block.der));
    }
    Ok(certificates)
}

/// Reads the intermediate certificates of a chain annotation: all but the last, which is the root
/// as its sender sees it and is not looked at.
pub(super) fn read_chain(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let mut chain = read_up_to(text.as_bytes(), CHAIN_LIMIT)?;
    chain.pop();
    Ok(chain)
}

pub(super) fn parse(der: &[u8]) -> Result<Certificate, CertificateError> {
    let certificate = Certificate::from_der(der).map_err(malformed)?;
    let extensions = certificate.tbs_certificate().extensions().map_or(&[][..], Vec::as_slice);
    let mut seen = std::collections::BTreeSet::new();
    for extension in extensions {
        if !seen.insert(extension.extn_id) {
            return Err(CertificateError::DuplicateExtension(extension.extn_id.to_string()));
        }
    }
    Ok(certificate)
}

pub(super) fn malformed(error: x509_cert::der::Error) -> CertificateError {
    CertificateError::Malformed(error.to_string())
}

pub(super) fn extension<'a, T: Decode<'a, Error = x509_cert::der::Error> + AssociatedOid>(
    certificate: &'a Certificate,
) -> Result<Option<T>, CertificateError> {
    certificate.tbs_certificate().get_extension::<T>().map(|found| found.map(|(_, value)| value)).map_err(malformed)
}

/// Writes names as Go's `%q` writes a list of strings.
pub(super) fn quote_all(names: &[String]) -> String {
    format!("[{}]", names.iter().map(go::quote).collect::<Vec<_>>().join(" "))
}

/// The certificate of a signer.
#[derive(Debug)]
pub(super) struct Leaf {
    der: CertificateDer<'static>,
    certificate: Certificate,
}

impl Leaf {
    /// Reads the one certificate of a certificate annotation.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        let mut all = read_all(text.as_bytes())?;
        let der = all.pop().ok_or(CertificateError::NoLeaf)?;
        if !all.is_empty() {
            return Err(CertificateError::SeveralLeaves);
        }
        let certificate = parse(&der)?;
        Ok(Self { der, certificate })
    }

    /// Returns the signer's key.
    pub fn public_key(&self) -> Result<PublicKey, CertificateError> {
        let spki = self.certificate.tbs_certificate().subject_public_key_info().to_der().map_err(malformed)?;
        Ok(PublicKey::from_spki(&spki)?)
    }

    /// Returns the e-mail addresses among the alternative names.
    pub fn emails(&self) -> Result<Vec<String>, CertificateError> {
        let names = extension::<SubjectAltName>(&self.certificate)?;
        Ok(names
            .iter()
            .flat_map(|names| &names.0)
            .filter_map(|name| match name {
                GeneralName::Rfc822Name(email) => Some(email.as_str().to_owned()),
                _ => None,
            })
            .collect())
    }

    /// Returns the raw value of an extension.
    pub fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        let extensions = self.certificate.tbs_certificate().extensions()?;
        extensions.iter().find(|extension| extension.extn_id == oid).map(|extension| extension.extn_value.as_bytes())
    }

    /// Checks that the certificate is for `hostname` (a DNS name or an IP address).
    pub fn verify_hostname(&self, hostname: &str) -> Result<(), CertificateError> {
        let found = extension::<SubjectAltName>(&self.certificate)?;
        let (mut valid, mut addresses) = (Vec::new(), Vec::new());
        for name in found.iter().flat_map(|names| &names.0) {
            match name {
                GeneralName::DnsName(name) => valid.push(name.as_str()),
                GeneralName::IpAddress(octets) => addresses.push(octets.as_bytes()),
                _ => {}
            }
        }
        if hostname::is_for(hostname, &valid, &addresses) {
            return Ok(());
        }
        let valid = if valid.is_empty() { "no host".to_owned() } else { valid.join(", ") };
        Err(CertificateError::Hostname { valid, wanted: hostname.to_owned() })
    }

    /// Asks for a path by way of `intermediates` to one of `roots`, for code signing, at `time`.
    pub fn verify_path(
        &self,
        roots: &[Root],
        intermediates: &[CertificateDer<'static>],
        time: SystemTime,
    ) -> Result<(), CertificateError> {
        let end_entity = EndEntityCert::try_from(&self.der).map_err(|e| CertificateError::Path(e.to_string()))?;
        let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let unix_time = UnixTime::since_unix_epoch(since_epoch);
        // The most telling refusal: one made on a whole path beats "unknown issuer".
        let mut refusal = None;
        for root in roots {
            let reason = RefCell::new(None);
            let check = |path: &VerifiedPath<'_>| {
                let between = path.intermediate_certificates().map(|issuer| parse(&issuer.der())).collect();
                let between: Result<Vec<_>, _> = between;
                between.and_then(|between| root.may_issue(&between, since_epoch)).map_err(|error| {
                    *reason.borrow_mut() = Some(error);
                    webpki::Error::UnknownIssuer
                })
            };
            let anchors = std::slice::from_ref(&root.anchor);
            let Err(error) = end_entity.verify_for_usage(
                PATH_ALGORITHMS,
                anchors,
                intermediates,
                unix_time,
                ForCodeSigning,
                None,
                Some(&check),
            ) else {
                return Ok(());
            };
            match (reason.into_inner(), error) {
                (Some(reason), _) => refusal = Some(reason),
                (None, webpki::Error::UnknownIssuer) => {}
                (None, error) => refusal = refusal.or_else(|| Some(CertificateError::Path(error.to_string()))),
            }
        }
        // Of several paths webpki tells the fault of one, which need not be the one for its names.
        if path::constrained(roots, intermediates)?
            && path::exists(&self.certificate, roots, intermediates, since_epoch)?
        {
            return Ok(());
        }
        Err(refusal.unwrap_or_else(|| CertificateError::Path(webpki::Error::UnknownIssuer.to_string())))
    }
}

/// Go's rule for nested purposes: a certificate that names purposes must name this one, or any.
struct ForCodeSigning;

impl ExtendedKeyUsageValidator for ForCodeSigning {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        let wanted = [KeyPurposeId::new(CODE_SIGNING_BYTES), KeyPurposeId::new(ANY_PURPOSE.as_bytes())];
        let mut present = Vec::new();
        for purpose in purposes {
            let purpose = purpose?;
            if wanted.contains(&purpose) {
                return Ok(());
            }
            present.push(purpose.to_decoded_oid());
        }
        if present.is_empty() {
            return Ok(());
        }
        let required = webpki::KeyUsage::required_if_present(CODE_SIGNING_BYTES);
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext { required, present }))
    }
}

/// A trusted root certificate.
#[derive(Clone, Debug)]
pub(super) struct Root {
    anchor: TrustAnchor<'static>,
    certificate: Certificate,
    der: CertificateDer<'static>,
}

impl Root {
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Reads roots as Go fills a pool: what is no certificate is skipped. Empty if none is left.
    pub fn read_pool(text: &[u8]) -> Vec<Self> {
        let mut roots = Vec::new();
        let mut rest = text;
        while let Some((block, after)) = pem::decode(rest) {
            rest = after;
            if block.label == "CERTIFICATE" && !block.headers {
                roots.extend(Self::read(block.der));
            }
        }
        roots
    }

    fn read(der: Vec<u8>) -> Option<Self> {
        let certificate = parse(&der).ok()?;
        let der = CertificateDer::from(der);
        let anchor = webpki::anchor_from_trusted_cert(&der).ok()?.to_owned();
        Some(Self { anchor, certificate, der })
    }

    fn name(&self) -> String {
        self.certificate.tbs_certificate().subject().to_string()
    }

    /// Checks what webpki does not: that this root could issue the path with these intermediates at
    /// this time, and that every one of them may sign certificates.
    pub fn may_issue(&self, path: &[Certificate], since_epoch: Duration) -> Result<(), CertificateError> {
        let refuse = |reason| Err(CertificateError::Root { name: self.name(), reason });
        let tbs = self.certificate.tbs_certificate();
        if !is_valid_at(&self.certificate, since_epoch) {
            return Err(CertificateError::RootTime(self.name()));
        }
        let known =
            [BasicConstraints::OID, KeyUsage::OID, ExtendedKeyUsage::OID, NameConstraints::OID, SubjectAltName::OID];
        if tbs.extensions().is_some_and(|all| all.iter().any(|e| e.critical && !known.contains(&e.extn_id))) {
            return refuse("unhandled critical extension");
        }
        let Some(constraints) = extension::<BasicConstraints>(&self.certificate)?.filter(|found| found.ca) else {
            return refuse("it is no certificate authority");
        };
        if constraints.path_len_constraint.is_some_and(|most| path.len() > usize::from(most)) {
            return refuse("too many intermediates for its path length constraint");
        }
        if !signs_certificates(&self.certificate)? {
            return refuse("its key usage does not have certificate signing");
        }
        if !for_code_signing(&self.certificate)? {
            return refuse("its extended key usage does not have code signing");
        }
        for issuer in path {
            if !signs_certificates(issuer)? {
                return Err(CertificateError::Intermediate(issuer.tbs_certificate().subject().to_string()));
            }
        }
        Ok(())
    }
}

/// Whole seconds, and both ends belong to the time of validity.
pub(super) fn is_valid_at(certificate: &Certificate, since_epoch: Duration) -> bool {
    let validity = certificate.tbs_certificate().validity();
    let valid = validity.not_before.to_unix_duration().as_secs()..=validity.not_after.to_unix_duration().as_secs();
    valid.contains(&since_epoch.as_secs())
}

/// A certificate that names no purposes may be used for all.
pub(super) fn for_code_signing(certificate: &Certificate) -> Result<bool, CertificateError> {
    let purposes = extension::<ExtendedKeyUsage>(certificate)?;
    Ok(purposes.is_none_or(|purposes| purposes.0.iter().any(|one| [CODE_SIGNING, ANY_PURPOSE].contains(one))))
}

/// A certificate without a key usage may be used for all.
pub(super) fn signs_certificates(certificate: &Certificate) -> Result<bool, CertificateError> {
    Ok(extension::<KeyUsage>(certificate)?.is_none_or(|usage| usage.key_cert_sign()))
}
