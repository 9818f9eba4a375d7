//! Signatures under an own PKI: a certificate that leads to the policy's roots, for an e-mail
//! address or a host name (spec containers-image 5.2, `pki`).

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::certificate::{CertificateError, Leaf, Root, quote_all, read_all, read_chain};
use super::key::PublicKey;
use crate::go;

/// What a policy trusts of a PKI.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PkiRoot {
    /// The root certificates, in PEM.
    pub roots: Vec<u8>,
    /// Intermediate certificates, in PEM; those of the signature are used besides.
    pub intermediates: Option<Vec<u8>>,
    /// The e-mail address that the certificate must be for.
    pub subject_email: Option<String>,
    /// The host that the certificate must be for. With both given, both must match.
    pub subject_hostname: Option<String>,
}

/// Why a signature is not one of the trusted PKI, or the trust root cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// The roots text holds no certificate.
    #[error("error loading PKI CA Roots certificates")]
    NoRoots,
    /// The trust root's intermediates cannot be read.
    #[error("loading trusted intermediate certificates: {0}")]
    Intermediates(CertificateError),
    /// The trust root names no identity.
    #[error("PKI use set up without subject email or subject hostname")]
    NoSubjectConfigured,
    /// The chain annotation cannot be read.
    #[error("loading certificate chain: {0}")]
    Chain(CertificateError),
    /// The certificate annotation cannot be read.
    #[error("parsing leaf certificate: {0}")]
    Leaf(CertificateError),
    /// The certificate is not trusted. (The slip is containers/image's own.)
    #[error("veryfing leaf certificate failed: {0}")]
    Path(CertificateError),
    /// The certificate is for someone else.
    #[error("Required email {} not found (got {})", go::quote(wanted), quote_all(got))]
    Email {
        /// The policy's address.
        wanted: String,
        /// The certificate's addresses.
        got: Vec<String>,
    },
    /// The certificate is for another host.
    #[error("Unexpected subject hostname: {0}")]
    Hostname(CertificateError),
}

/// A [`PkiRoot`] whose certificates have been read.
#[derive(Clone, Debug)]
pub(super) struct Pki {
    roots: Vec<Root>,
    intermediates: Vec<CertificateDer<'static>>,
    subject_email: Option<String>,
    subject_hostname: Option<String>,
}

impl Pki {
    pub fn new(trusted: &PkiRoot) -> Result<Self, PkiError> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let roots = Root::read_pool(&trusted.roots);
        if roots.is_empty() {
            return Err(PkiError::NoRoots);
        }
        let intermediates = trusted.intermediates.as_deref().map_or(Ok(Vec::new()), read_all);
        let intermediates = intermediates.map_err(PkiError::Intermediates)?;
        let (subject_email, subject_hostname) = (given(&trusted.subject_email), given(&trusted.subject_hostname));
        if subject_email.is_none() && subject_hostname.is_none() {
            return Err(PkiError::NoSubjectConfigured);
        }
        Ok(Self { roots, intermediates, subject_email, subject_hostname })
    }

    /// Verifies the certificate as of `now`, and returns its key.
    pub fn verify(&self, certificate: &str, chain: Option<&str>, now: SystemTime) -> Result<PublicKey, PkiError> {
        let mut intermediates = self.intermediates.clone();
        intermediates.extend(chain.map_or(Ok(Vec::new()), read_chain).map_err(PkiError::Chain)?);
        let leaf = Leaf::from_pem(certificate).map_err(PkiError::Leaf)?;
        leaf.verify_path(&self.roots, &intermediates, now).map_err(PkiError::Path)?;

        if let Some(wanted) = &self.subject_email {
            let got = leaf.emails().map_err(PkiError::Leaf)?;
            if !got.contains(wanted) {
                return Err(PkiError::Email { wanted: wanted.clone(), got });
            }
        }
        if let Some(wanted) = &self.subject_hostname {
            leaf.verify_hostname(wanted).map_err(PkiError::Hostname)?;
        }
        leaf.public_key().map_err(PkiError::Leaf)
    }
}
