//! The answer of a time stamping authority, and whether it proves anything (RFC 3161, 2.4.2; RFC 5652,
//! 5.4; RFC 5816).

use std::time::Duration;

use aws_lc_rs::digest::{self, digest};
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{self, Decode as _, Encode as _, Tag};
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::element::{Element, next};
use super::request::Request;

const fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new_unwrap(text)
}
const SIGNED_DATA: ObjectIdentifier = oid("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = oid("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = oid("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = oid("1.2.840.113549.1.9.4");
const SIGNING_CERTIFICATE: ObjectIdentifier = oid("1.2.840.113549.1.9.16.2.12");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = oid("1.2.840.113549.1.9.16.2.47");
const TIME_STAMPING: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.8");
const SHA256: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = oid("2.16.840.1.101.3.4.2.3");
const RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
const RSA_SHA256: ObjectIdentifier = oid("1.2.840.113549.1.1.11");
const RSA_SHA384: ObjectIdentifier = oid("1.2.840.113549.1.1.12");
const RSA_SHA512: ObjectIdentifier = oid("1.2.840.113549.1.1.13");
const RSA_PSS: ObjectIdentifier = oid("1.2.840.113549.1.1.10");
const ECDSA_SHA256: ObjectIdentifier = oid("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = oid("1.2.840.10045.4.3.3");
const ECDSA_SHA512: ObjectIdentifier = oid("1.2.840.10045.4.3.4");
const ED25519: ObjectIdentifier = oid("1.3.101.112");

/// A verified time stamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The moment before which the bytes existed.
    pub time: Timestamp,
    /// The authority's certificate's subject.
    pub authority: String,
}

/// Why an answer proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimestampError {
    /// The answer, or a part of it, cannot be read.
    #[error("the answer of the time stamping authority cannot be read: {0}")]
    Form(&'static str),
    /// The answer is no DER.
    #[error("the answer of the time stamping authority cannot be read: {0}")]
    Der(der::Error),
    /// The authority refuses.
    #[error("the time stamping authority refuses: status {status}{}", words.as_ref().map(|words| format!(", {words}")).unwrap_or_default())]
    Refused {
        /// `PKIStatus`.
        status: u64,
        /// Its words.
        words: Option<String>,
    },
    /// The time stamp is for other bytes, or answers another question.
    #[error("the time stamp is for {0}")]
    Other(&'static str),
    /// The signature, or what it covers, does not fit.
    #[error("the time stamp is not signed as it must be: {0}")]
    Signature(&'static str),
    /// The authority's certificate does not lead to the trusted ones.
    #[error("the time stamping authority's certificate is not trusted: {0}")]
    Certificate(String),
    /// Something is used that this program does not know.
    #[error("the time stamp cannot be verified by this program: {0} is not supported")]
    Unsupported(String),
    /// There is no trusted certificate.
    #[error("the file of trusted certificates of time stamping authorities holds none")]
    NoAuthority,
}

impl From<der::Error> for TimestampError {
    fn from(error: der::Error) -> Self {
        Self::Der(error)
    }
}

impl Stamp {
    /// Verifies an answer to `request`: its status, its signature, the authority's certificate up to
    /// one of `authorities` (DER) at the time of the stamp, and that it is for these bytes and this
    /// question.
    ///
    /// # Errors
    /// [`TimestampError`].
    pub fn verify(answer: &[u8], request: &Request, authorities: &[Vec<u8>]) -> Result<Self, TimestampError> {
        Self::verified(answer, request.sha256(), Some(request.nonce()), authorities)
    }

    /// Verifies a kept answer for bytes with this hash, whatever the question was.
    ///
    /// # Errors
    /// [`TimestampError`].
    pub fn verify_kept(answer: &[u8], sha256: &[u8; 32], authorities: &[Vec<u8>]) -> Result<Self, TimestampError> {
        Self::verified(answer, sha256, None, authorities)
    }

    fn verified(
        answer: &[u8],
        sha256: &[u8; 32],
        nonce: Option<&[u8]>,
        authorities: &[Vec<u8>],
    ) -> Result<Self, TimestampError> {
        let token = token(answer)?;
        let signed = SignedData::read(token)?;
        let info = Info::read(signed.content)?;
        if info.algorithm != SHA256 || info.imprint != sha256 {
            return Err(TimestampError::Other("other bytes"));
        }
        if nonce.is_some() && info.nonce != nonce {
            return Err(TimestampError::Other("another question"));
        }
        let (der, certificate) = signed.signer()?;
        signed.verify_attributes(der)?;
        is_for_time_stamps_only(&certificate)?;
        let certificate_der = CertificateDer::from(der);
        let leaf = webpki::EndEntityCert::try_from(&certificate_der).map_err(untrusted)?;
        signed.verify_signature(&leaf)?;
        verify_path(&leaf, &signed.certificates, authorities, info.time)?;
        Ok(Self { time: info.time, authority: certificate.tbs_certificate().subject().to_string() })
    }
}

fn untrusted(error: impl std::fmt::Debug) -> TimestampError {
    TimestampError::Certificate(format!("{error:?}"))
}

/// Returns the token of an answer that grants one.
fn token(answer: &[u8]) -> Result<Element<'_>, TimestampError> {
    let mut response = Element::of(answer)?.open(Tag::Sequence)?;
    let mut status = next(&mut response)?.open(Tag::Sequence)?;
    let code = next(&mut status)?.bytes(Tag::Integer)?;
    // 0 is granted, 1 is granted with changes.
    if !matches!(code, [0 | 1]) {
        let words = status.next().and_then(|words| words.inside().ok()?.next());
        let words = words.map(|words| String::from_utf8_lossy(words.value).chars().take(200).collect());
        let status = code.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte));
        return Err(TimestampError::Refused { status, words });
    }
    response.next().ok_or(TimestampError::Form("it grants a time stamp and holds none"))
}

/// `SignedData` with its one signer.
struct SignedData<'a> {
    /// The bytes of `TSTInfo`.
    content: &'a [u8],
    certificates: Vec<&'a [u8]>,
    signer: Element<'a>,
    digest: ObjectIdentifier,
    /// `signedAttrs` as they stand, with their context-specific tag.
    attributes: Element<'a>,
    algorithm: ObjectIdentifier,
    signature: &'a [u8],
}

impl<'a> SignedData<'a> {
    fn read(token: Element<'a>) -> Result<Self, TimestampError> {
        let mut info = token.open(Tag::Sequence)?;
        if next(&mut info)?.oid()? != SIGNED_DATA {
            return Err(TimestampError::Form("its token is no signed data"));
        }
        let mut explicit = next(&mut info)?.inside()?;
        let mut parts = next(&mut explicit)?.open(Tag::Sequence)?;
        let (_version, _digests) = (next(&mut parts)?, next(&mut parts)?);
        let mut encapsulated = next(&mut parts)?.open(Tag::Sequence)?;
        if next(&mut encapsulated)?.oid()? != TST_INFO {
            return Err(TimestampError::Form("what is signed is no time stamp"));
        }
        let content = next(&mut next(&mut encapsulated)?.inside()?)?.bytes(Tag::OctetString)?;
        let mut certificates = Vec::new();
        let mut signers = None;
        for part in parts {
            if part.is_context(0) {
                certificates.extend(part.inside()?.filter(|one| one.tag == Tag::Sequence).map(|one| one.whole));
            } else if part.tag == Tag::Set {
                signers = Some(part.inside()?);
            }
        }
        let mut signers = signers.ok_or(TimestampError::Form("nobody has signed it"))?;
        let signer = next(&mut signers)?;
        if signers.next().is_some() {
            return Err(TimestampError::Form("it has several signers"));
        }
        let mut parts = signer.open(Tag::Sequence)?;
        let (_version, identifier) = (next(&mut parts)?, next(&mut parts)?);
        let digest = algorithm(next(&mut parts)?)?;
        let attributes = next(&mut parts)?;
        if !attributes.is_context(0) {
            return Err(TimestampError::Signature("there are no signed attributes"));
        }
        let algorithm = algorithm(next(&mut parts)?)?;
        let signature = next(&mut parts)?.bytes(Tag::OctetString)?;
        Ok(Self { content, certificates, signer: identifier, digest, attributes, algorithm, signature })
    }

    /// Finds the signer's certificate among those in the token.
    fn signer(&self) -> Result<(&'a [u8], Certificate), TimestampError> {
        for der in &self.certificates {
            let certificate = Certificate::from_der(der)?;
            let tbs = certificate.tbs_certificate();
            let is_signer = if self.signer.is_context(0) {
                let identifier = tbs.get_extension::<x509_cert::ext::pkix::SubjectKeyIdentifier>();
                identifier.ok().flatten().is_some_and(|(_, found)| found.0.as_bytes() == self.signer.value)
            } else {
                let mut named = self.signer.open(Tag::Sequence)?;
                let (issuer, serial) = (next(&mut named)?, next(&mut named)?);
                tbs.issuer().to_der()? == issuer.whole && tbs.serial_number().to_der()? == serial.whole
            };
            if is_signer {
                return Ok((der, certificate));
            }
        }
        Err(TimestampError::Signature("the signer's certificate is not in it"))
    }

    /// Finds the one value of an attribute.
    fn attribute(&self, wanted: ObjectIdentifier) -> Result<Option<Element<'a>>, TimestampError> {
        let mut found = None;
        for attribute in self.attributes.inside()? {
            let mut parts = attribute.open(Tag::Sequence)?;
            if next(&mut parts)?.oid()? != wanted {
                continue;
            }
            let mut values = next(&mut parts)?.open(Tag::Set)?;
            let value = next(&mut values)?;
            if found.replace(value).is_some() || values.next().is_some() {
                return Err(TimestampError::Signature("a signed attribute is there twice"));
            }
        }
        Ok(found)
    }

    fn verify_attributes(&self, certificate: &[u8]) -> Result<(), TimestampError> {
        let missing = TimestampError::Signature("a signed attribute that must be there is missing");
        let kind = self.attribute(CONTENT_TYPE)?.ok_or_else(|| missing.clone())?;
        if kind.oid()? != TST_INFO {
            return Err(TimestampError::Signature("it signs something else than a time stamp"));
        }
        let stated = self.attribute(MESSAGE_DIGEST)?.ok_or_else(|| missing.clone())?.bytes(Tag::OctetString)?;
        if digest(hash(self.digest)?, self.content).as_ref() != stated {
            return Err(TimestampError::Signature("what is signed was changed"));
        }
        // Which certificate is meant, so that nobody puts another one of the same key in its place.
        let (value, default) = match self.attribute(SIGNING_CERTIFICATE_V2)? {
            Some(value) => (value, hash(SHA256)?),
            None => (self.attribute(SIGNING_CERTIFICATE)?.ok_or(missing)?, &digest::SHA1_FOR_LEGACY_USE_ONLY),
        };
        let mut certificates = next(&mut value.open(Tag::Sequence)?)?.open(Tag::Sequence)?;
        let mut first = next(&mut certificates)?.open(Tag::Sequence)?;
        let mut stated = next(&mut first)?;
        let mut by = default;
        if stated.tag == Tag::Sequence {
            by = hash(algorithm(stated)?)?;
            stated = next(&mut first)?;
        }
        if digest(by, certificate).as_ref() != stated.bytes(Tag::OctetString)? {
            return Err(TimestampError::Signature("it names another certificate than its signer's"));
        }
        Ok(())
    }

    fn verify_signature(&self, leaf: &webpki::EndEntityCert<'_>) -> Result<(), TimestampError> {
        // As a SET OF, not with the tag under which they stand (RFC 5652, 5.4).
        let mut message = self.attributes.whole.to_vec();
        if let Some(first) = message.first_mut() {
            *first = 0x31;
        }
        let candidates = algorithms(self.algorithm, self.digest);
        if candidates.is_empty() {
            return Err(TimestampError::Unsupported(format!("signature algorithm {}", self.algorithm)));
        }
        let good = candidates.iter().any(|one| leaf.verify_signature(*one, &message, self.signature).is_ok());
        if good { Ok(()) } else { Err(TimestampError::Signature("the signature does not verify")) }
    }
}

fn algorithm(element: Element<'_>) -> Result<ObjectIdentifier, TimestampError> {
    Ok(next(&mut element.open(Tag::Sequence)?)?.oid()?)
}

fn hash(algorithm: ObjectIdentifier) -> Result<&'static digest::Algorithm, TimestampError> {
    match algorithm {
        SHA256 => Ok(&digest::SHA256),
        SHA384 => Ok(&digest::SHA384),
        SHA512 => Ok(&digest::SHA512),
        other => Err(TimestampError::Unsupported(format!("digest algorithm {other}"))),
    }
}

/// Returns the algorithms that an identifier may mean; the key decides among them.
fn algorithms(
    signature: ObjectIdentifier,
    digest: ObjectIdentifier,
) -> Vec<&'static dyn SignatureVerificationAlgorithm> {
    use webpki::aws_lc_rs as known;
    match (signature, digest) {
        (RSA, SHA256) | (RSA_SHA256, _) => vec![known::RSA_PKCS1_2048_8192_SHA256],
        (RSA, SHA384) | (RSA_SHA384, _) => vec![known::RSA_PKCS1_2048_8192_SHA384],
        (RSA, SHA512) | (RSA_SHA512, _) => vec![known::RSA_PKCS1_2048_8192_SHA512],
        (RSA_PSS, SHA256) => vec![known::RSA_PSS_2048_8192_SHA256_LEGACY_KEY],
        (RSA_PSS, SHA384) => vec![known::RSA_PSS_2048_8192_SHA384_LEGACY_KEY],
        (RSA_PSS, SHA512) => vec![known::RSA_PSS_2048_8192_SHA512_LEGACY_KEY],
        (ECDSA_SHA256, _) => vec![known::ECDSA_P256_SHA256, known::ECDSA_P384_SHA256, known::ECDSA_P521_SHA256],
        (ECDSA_SHA384, _) => vec![known::ECDSA_P256_SHA384, known::ECDSA_P384_SHA384, known::ECDSA_P521_SHA384],
        (ECDSA_SHA512, _) => vec![known::ECDSA_P256_SHA512, known::ECDSA_P384_SHA512, known::ECDSA_P521_SHA512],
        (ED25519, _) => vec![known::ED25519],
        _ => Vec::new(),
    }
}

/// The authority's certificate is for time stamps and nothing else, and says so in a way that cannot
/// be overlooked (RFC 3161, 2.3).
fn is_for_time_stamps_only(certificate: &Certificate) -> Result<(), TimestampError> {
    let found = certificate.tbs_certificate().get_extension::<ExtendedKeyUsage>()?;
    match found {
        Some((true, usage)) if usage.0 == [TIME_STAMPING] => Ok(()),
        _ => Err(TimestampError::Certificate("it is not marked as one for time stamps only".to_owned())),
    }
}

fn verify_path(
    leaf: &webpki::EndEntityCert<'_>,
    certificates: &[&[u8]],
    authorities: &[Vec<u8>],
    time: Timestamp,
) -> Result<(), TimestampError> {
    let authorities: Vec<CertificateDer<'_>> =
        authorities.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
    let anchors: Vec<_> = authorities.iter().filter_map(|der| webpki::anchor_from_trusted_cert(der).ok()).collect();
    if anchors.is_empty() {
        return Err(TimestampError::NoAuthority);
    }
    let between: Vec<CertificateDer<'_>> = certificates.iter().map(|der| CertificateDer::from(*der)).collect();
    let seconds = u64::try_from(time.as_second()).map_err(|_| TimestampError::Form("its time is before 1970"))?;
    let usage = webpki::KeyUsage::required(TIME_STAMPING.as_bytes());
    let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    leaf.verify_for_usage(webpki::ALL_VERIFICATION_ALGS, &anchors, &between, at, usage, None, None)
        .map(drop)
        .map_err(|error| TimestampError::Certificate(error.to_string()))
}

/// `TSTInfo`, as far as it matters.
struct Info<'a> {
    algorithm: ObjectIdentifier,
    imprint: &'a [u8],
    time: Timestamp,
    nonce: Option<&'a [u8]>,
}

impl<'a> Info<'a> {
    fn read(content: &'a [u8]) -> Result<Self, TimestampError> {
        let mut parts = Element::of(content)?.open(Tag::Sequence)?;
        let (version, _policy) = (next(&mut parts)?.bytes(Tag::Integer)?, next(&mut parts)?);
        if version != [1] {
            return Err(TimestampError::Unsupported("another version than 1".to_owned()));
        }
        let mut imprint = next(&mut parts)?.open(Tag::Sequence)?;
        let algorithm = algorithm(next(&mut imprint)?)?;
        let imprint = next(&mut imprint)?.bytes(Tag::OctetString)?;
        let _serial = next(&mut parts)?;
        let time = time(next(&mut parts)?.bytes(Tag::GeneralizedTime)?)?;
        let nonce = parts.find(|part| part.tag == Tag::Integer).map(|part| part.value);
        Ok(Self { algorithm, imprint, time, nonce })
    }
}

/// Reads `20261201003000Z` or `20261201003000.123Z`.
fn time(text: &[u8]) -> Result<Timestamp, TimestampError> {
    let wrong = || TimestampError::Form("its time has another form than YYYYMMDDhhmmss[.f]Z");
    let text = std::str::from_utf8(text).ok().and_then(|text| text.strip_suffix('Z')).ok_or_else(wrong)?;
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if whole.len() != 14 || !digits(whole) || fraction.is_some_and(|fraction| !digits(fraction)) {
        return Err(wrong());
    }
    let part = |from: usize, to: usize| whole.get(from..to).unwrap_or_default();
    let fraction = fraction.map(|fraction| format!(".{}", fraction.get(..9).unwrap_or(fraction))).unwrap_or_default();
    let text = format!(
        "{}-{}-{}T{}:{}:{}{fraction}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    );
    text.parse().map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_have_one_form() {
        assert_eq!(time(b"20261201003000Z").unwrap().to_string(), "2026-12-01T00:30:00Z");
        assert_eq!(time(b"20261201003000.25Z").unwrap().to_string(), "2026-12-01T00:30:00.25Z");
        for wrong in ["20261201003000", "202612010030Z", "20261301003000Z", "20261201003000.Z", "+0261201003000Z", ""] {
            assert!(time(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let request = Request::new([1; 32], [2; 8]);
            prop_assert!(Stamp::verify(&bytes, &request, &[]).is_err());
        }
    }
}
