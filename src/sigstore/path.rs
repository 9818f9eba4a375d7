//! Paths that webpki refuses for name constraints alone, although Go's crypto/x509 allows the names.
//! All that webpki and [`Root::may_issue`] check is checked here again, with
//! [`name_constraints`](super::name_constraints) for the names.

use std::time::Duration;

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_cert::Certificate;
use x509_cert::der::Encode as _;
use x509_cert::der::oid::AssociatedOid as _;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints, SubjectAltName};

use super::certificate::{
    CertificateError, PATH_ALGORITHMS, Root, extension, for_code_signing, is_valid_at, malformed, parse,
    signs_certificates,
};
use super::name_constraints;

/// As many signatures as Go checks for one certificate.
const CHECK_LIMIT: usize = 100;
/// The longest path, leaf and root included.
const LENGTH_LIMIT: usize = 10;

/// A search for a path.
struct Search<'a> {
    roots: &'a [Root],
    intermediates: Vec<(&'a CertificateDer<'static>, Certificate)>,
    since_epoch: Duration,
    checks: usize,
}

/// Whether any issuer has name constraints.
pub(super) fn constrained(roots: &[Root], intermediates: &[CertificateDer<'static>]) -> Result<bool, CertificateError> {
    for root in roots {
        if extension::<NameConstraints>(root.certificate())?.is_some() {
            return Ok(true);
        }
    }
    for intermediate in intermediates {
        if extension::<NameConstraints>(&parse(intermediate)?)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Tells whether a path by way of `intermediates` leads from `leaf` to one of `roots`.
pub(super) fn exists(
    leaf: &Certificate,
    roots: &[Root],
    intermediates: &[CertificateDer<'static>],
    since_epoch: Duration,
) -> Result<bool, CertificateError> {
    let parsed = intermediates.iter().map(|der| Ok((der, parse(der)?))).collect::<Result<_, CertificateError>>()?;
    let mut search = Search { roots, intermediates: parsed, since_epoch, checks: 0 };
    let is_authority = extension::<BasicConstraints>(leaf)?.is_some_and(|constraints| constraints.ca);
    if is_authority || !usable(leaf, since_epoch)? {
        return Ok(false);
    }
    search.extend(&mut vec![leaf.clone()])
}

impl Search<'_> {
    fn extend(&mut self, path: &mut Vec<Certificate>) -> Result<bool, CertificateError> {
        let Some(child) = path.last().cloned() else { return Ok(false) };
        let below: Vec<&Certificate> = path.iter().collect();
        for root in self.roots {
            if self.signed(&child, root.certificate(), root.der())?
                && root.may_issue(path.get(1..).unwrap_or_default(), self.since_epoch).is_ok()
                && name_constraints::allows(root.certificate(), &below)?
            {
                return Ok(true);
            }
        }
        if path.len() + 1 >= LENGTH_LIMIT {
            return Ok(false);
        }
        for index in 0..self.intermediates.len() {
            let Some((der, issuer)) = self.intermediates.get(index) else { continue };
            let (der, issuer) = (*der, issuer.clone());
            if path.contains(&issuer) || !self.signed(&child, &issuer, der)? {
                continue;
            }
            let below: Vec<&Certificate> = path.iter().collect();
            if !may_issue(&issuer, path.len() - 1, self.since_epoch)? || !name_constraints::allows(&issuer, &below)? {
                continue;
            }
            path.push(issuer);
            let found = self.extend(path)?;
            path.pop();
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `issuer` is the one that `child` names, and its key signed it.
    fn signed(
        &mut self,
        child: &Certificate,
        issuer: &Certificate,
        issuer_der: &CertificateDer<'_>,
    ) -> Result<bool, CertificateError> {
        let tbs = child.tbs_certificate();
        if tbs.issuer() != issuer.tbs_certificate().subject() || tbs.signature() != child.signature_algorithm() {
            return Ok(false);
        }
        if self.checks == CHECK_LIMIT {
            return Ok(false);
        }
        self.checks += 1;
        let issuer = EndEntityCert::try_from(issuer_der).map_err(|e| CertificateError::Path(e.to_string()))?;
        let algorithm = child.signature_algorithm().to_der().map_err(malformed)?;
        let (message, signature) = (tbs.to_der().map_err(malformed)?, child.signature().as_bytes());
        let Some(signature) = signature else { return Ok(false) };
        Ok(PATH_ALGORITHMS
            .iter()
            // All of them have fewer than 128 octets: tag and length are one octet each.
            .filter(|known| algorithm.get(2..) == Some(known.signature_alg_id().as_ref()))
            .any(|known| issuer.verify_signature(*known, &message, signature).is_ok()))
    }
}

/// What every certificate of a path must fulfil.
fn usable(certificate: &Certificate, since_epoch: Duration) -> Result<bool, CertificateError> {
    let known =
        [BasicConstraints::OID, KeyUsage::OID, ExtendedKeyUsage::OID, NameConstraints::OID, SubjectAltName::OID];
    let tbs = certificate.tbs_certificate();
    let strange = tbs.extensions().is_some_and(|all| all.iter().any(|e| e.critical && !known.contains(&e.extn_id)));
    Ok(!strange && is_valid_at(certificate, since_epoch) && for_code_signing(certificate)?)
}

/// Whether this intermediate may issue a certificate with so many intermediates between it and the leaf.
fn may_issue(issuer: &Certificate, between: usize, since_epoch: Duration) -> Result<bool, CertificateError> {
    let Some(constraints) = extension::<BasicConstraints>(issuer)?.filter(|found| found.ca) else { return Ok(false) };
    let short = constraints.path_len_constraint.is_none_or(|most| between <= usize::from(most));
    Ok(short && signs_certificates(issuer)? && usable(issuer, since_epoch)?)
}
