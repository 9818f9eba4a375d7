//! Keyless signatures: a certificate that a Fulcio CA gave to a person or a build for some
//! minutes, and the log's word that the signature was made in these (spec containers-image 5.2).

use std::time::{Duration, SystemTime};

use x509_cert::der::asn1::{AnyRef, Ia5StringRef, ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Decode as _, Tag, Tagged as _};

use super::certificate::{CertificateError, Leaf, Root, quote_all, read_chain};
use super::key::PublicKey;
use crate::go;

/// The issuer as raw text; deprecated by Fulcio, still in old certificates.
const ISSUER_V1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.1");
/// The issuer as an ASN.1 string.
const ISSUER_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.8");
const BUILD_SIGNER_URI: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.57264.1.9");

/// What a policy trusts of a Fulcio CA.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FulcioRoot {
    /// The CA certificates, in PEM.
    pub ca: Vec<u8>,
    /// Who must have vouched for the signer's identity, such as `https://github.com/login/oauth`.
    pub oidc_issuer: String,
    /// The e-mail address that the certificate must be for.
    pub subject_email: Option<String>,
    /// The build definition that the certificate must be for (`buildSignerURI`, Podman 6). With
    /// both given, both must match.
    pub build_signer_uri: Option<String>,
}

/// Why a signature is not one of the trusted identity, or the trust root cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FulcioError {
    /// The CA text holds no certificate.
    #[error("error loading Fulcio CA certificates")]
    NoCa,
    /// The trust root names no issuer.
    #[error("Fulcio use set up without OIDC issuer")]
    NoIssuerConfigured,
    /// The trust root names no identity.
    #[error("Fulcio use set up without subject identity (subjectEmail or buildSignerURI)")]
    NoSubjectConfigured,
    /// The chain annotation cannot be read.
    #[error("loading certificate chain: {0}")]
    Chain(CertificateError),
    /// The certificate annotation cannot be read.
    #[error("parsing leaf certificate: {0}")]
    Leaf(CertificateError),
    /// The log's time is before 1970.
    #[error("Rekor integrated time {0} is not a time of certificates")]
    Time(i64),
    /// The certificate is not trusted. (The slip is containers/image's own.)
    #[error("veryfing leaf certificate failed: {0}")]
    Path(CertificateError),
    /// A Fulcio extension is broken.
    #[error("invalid ASN.1 in {0} extension")]
    Asn1(&'static str),
    /// The two issuer extensions disagree.
    #[error("inconsistent OIDC issuer extension values: v1 {}, v2 {}", go::quote(v1), go::quote(v2))]
    InconsistentIssuer {
        /// The old extension.
        v1: String,
        /// The new one.
        v2: String,
    },
    /// The certificate names no issuer.
    #[error("Fulcio certificate is missing the issuer extension")]
    NoIssuer,
    /// The certificate names another issuer.
    #[error("Unexpected Fulcio OIDC issuer {}", go::quote(.0))]
    Issuer(String),
    /// The certificate is for someone else.
    #[error("Required email {} not found (got {})", go::quote(wanted), quote_all(got))]
    Email {
        /// The policy's address.
        wanted: String,
        /// The certificate's addresses.
        got: Vec<String>,
    },
    /// The certificate is for another build.
    #[error("Required BuildSignerURI {} not found (got {})", go::quote(wanted), go::quote(got))]
    BuildSigner {
        /// The policy's build definition.
        wanted: String,
        /// The certificate's, empty if it has none.
        got: String,
    },
}

/// A [`FulcioRoot`] whose certificates have been read.
#[derive(Clone, Debug)]
pub(super) struct Fulcio {
    roots: Vec<Root>,
    oidc_issuer: String,
    subject_email: Option<String>,
    build_signer_uri: Option<String>,
}

impl Fulcio {
    pub fn new(trusted: &FulcioRoot) -> Result<Self, FulcioError> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let roots = Root::read_pool(&trusted.ca);
        if roots.is_empty() {
            return Err(FulcioError::NoCa);
        }
        if trusted.oidc_issuer.is_empty() {
            return Err(FulcioError::NoIssuerConfigured);
        }
        let (subject_email, build_signer_uri) = (given(&trusted.subject_email), given(&trusted.build_signer_uri));
        if subject_email.is_none() && build_signer_uri.is_none() {
            return Err(FulcioError::NoSubjectConfigured);
        }
        Ok(Self { roots, oidc_issuer: trusted.oidc_issuer.clone(), subject_email, build_signer_uri })
    }

    /// Verifies the certificate at the time at which the log took the signature, and returns its
    /// key. The caller has verified that time.
    pub fn verify(&self, logged_at: i64, certificate: &str, chain: Option<&str>) -> Result<PublicKey, FulcioError> {
        let intermediates = chain.map_or(Ok(Vec::new()), read_chain).map_err(FulcioError::Chain)?;
        let leaf = Leaf::from_pem(certificate).map_err(FulcioError::Leaf)?;
        let since_epoch = u64::try_from(logged_at).map_err(|_| FulcioError::Time(logged_at))?;
        let time =
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since_epoch)).ok_or(FulcioError::Time(logged_at))?;
        leaf.verify_path(&self.roots, &intermediates, time).map_err(FulcioError::Path)?;

        let issuer = issuer(&leaf)?;
        if issuer != self.oidc_issuer.as_bytes() {
            return Err(FulcioError::Issuer(String::from_utf8_lossy(&issuer).into_owned()));
        }
        if let Some(wanted) = &self.subject_email {
            let got = leaf.emails().map_err(FulcioError::Leaf)?;
            if !got.contains(wanted) {
                return Err(FulcioError::Email { wanted: wanted.clone(), got });
            }
        }
        if let Some(wanted) = &self.build_signer_uri {
            let got = leaf.extension(BUILD_SIGNER_URI).map(|der| text(der, "BuildSignerURI"));
            let got = got.transpose()?.unwrap_or_default();
            if got != *wanted {
                return Err(FulcioError::BuildSigner { wanted: wanted.clone(), got });
            }
        }
        leaf.public_key().map_err(FulcioError::Leaf)
    }
}

/// Returns the identity provider that Fulcio recorded; where both extensions stand, they must say
/// the same. That none stands twice was checked when the certificate was read.
fn issuer(leaf: &Leaf) -> Result<Vec<u8>, FulcioError> {
    let v1 = leaf.extension(ISSUER_V1);
    let v2 = leaf.extension(ISSUER_V2).map(|der| text(der, "OIDC issuer v2")).transpose()?;
    match (v1, v2) {
        (Some(v1), Some(v2)) if v1 != v2.as_bytes() => {
            Err(FulcioError::InconsistentIssuer { v1: String::from_utf8_lossy(v1).into_owned(), v2 })
        }
        (Some(v1), _) => Ok(v1.to_vec()),
        (None, Some(v2)) => Ok(v2.into_bytes()),
        (None, None) => Err(FulcioError::NoIssuer),
    }
}

/// Reads an ASN.1 string, and nothing after it.
fn text(der: &[u8], extension: &'static str) -> Result<String, FulcioError> {
    let broken = || FulcioError::Asn1(extension);
    let any = AnyRef::from_der(der).map_err(|_| broken())?;
    let text = match any.tag() {
        Tag::Utf8String => any.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned()),
        Tag::PrintableString => any.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()),
        Tag::Ia5String => any.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned()),
        _ => return Err(broken()),
    };
    text.map_err(|_| broken())
}
