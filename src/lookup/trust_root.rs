//! From a `sigstoreSigned` requirement to the keys and certificates that it trusts: files are read
//! when a signature is judged, as containers/image does.

use std::path::Path;

use super::mechanism::read;
use crate::policy::{Material, MechanismError, SigstoreKeys, SigstoreSigned, SigstoreTrust};
use crate::sigstore::{FulcioRoot, PkiRoot, TrustRoot, TrustedSigner};

/// Reads what a requirement trusts.
///
/// # Errors
/// [`MechanismError::Keys`] when a file cannot be read; a single one fails all.
pub(super) fn trust_root(requirement: &SigstoreSigned) -> Result<TrustRoot, MechanismError> {
    let signer = match &requirement.trust {
        SigstoreTrust::Keys(source) => TrustedSigner::Keys(keys(source)?),
        SigstoreTrust::Fulcio(fulcio) => TrustedSigner::Fulcio(FulcioRoot {
            ca: material(&fulcio.ca)?,
            oidc_issuer: fulcio.oidc_issuer.clone(),
            subject_email: Some(fulcio.subject_email.clone()),
            build_signer_uri: None,
        }),
        SigstoreTrust::Pki(pki) => TrustedSigner::Pki(PkiRoot {
            roots: material(&pki.ca_roots)?,
            intermediates: pki.ca_intermediates.as_ref().map(material).transpose()?,
            subject_email: Some(pki.subject_email.clone()),
            subject_hostname: Some(pki.subject_hostname.clone()),
        }),
    };
    Ok(TrustRoot { signer, rekor_keys: requirement.rekor.as_ref().map(keys).transpose()? })
}

fn keys(source: &SigstoreKeys) -> Result<Vec<Vec<u8>>, MechanismError> {
    match source {
        SigstoreKeys::Path(path) => Ok(vec![read(path)?]),
        SigstoreKeys::Paths(paths) => paths.iter().map(|path| read(path)).collect(),
        SigstoreKeys::Data(data) => Ok(vec![data.clone()]),
        SigstoreKeys::Datas(datas) => Ok(datas.clone()),
    }
}

fn material(source: &Material) -> Result<Vec<u8>, MechanismError> {
    match source {
        Material::Path(path) => read(Path::new(path)),
        Material::Data(data) => Ok(data.clone()),
    }
}
