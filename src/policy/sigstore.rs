//! The `sigstoreSigned` requirement, read whole (spec containers-image 5.2), whether or not the
//! mechanism at hand can verify it.

use std::path::PathBuf;

use serde_json::value::RawValue;

use super::document::PolicyError;
use super::identity::IdentityMatch;
use crate::json;

/// `sigstoreSigned`: at least one sigstore signature must be by this trust root, for this image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigstoreSigned {
    /// Who may have signed.
    pub trust: SigstoreTrust,
    /// The keys of the transparency logs that must have seen the signature, if any must.
    pub rekor: Option<SigstoreKeys>,
    /// Which names the signature may say.
    pub identity: IdentityMatch,
}

/// Who may have signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigstoreTrust {
    /// The holder of one of some keys.
    Keys(SigstoreKeys),
    /// A person whom Fulcio certified; `rekor` is there then.
    Fulcio(Fulcio),
    /// The subject of a certificate of an own authority; `rekor` is not there then.
    Pki(Pki),
}

/// Public keys in PEM, one a blob. Never an empty list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigstoreKeys {
    /// One file. The path is not empty.
    Path(PathBuf),
    /// Several files.
    Paths(Vec<PathBuf>),
    /// One key itself.
    Data(Vec<u8>),
    /// Several keys themselves.
    Datas(Vec<Vec<u8>>),
}

/// Certificates in PEM: a file or the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Material {
    /// A file. The path is not empty.
    Path(PathBuf),
    /// The certificates themselves.
    Data(Vec<u8>),
}

/// Trust in certificates of a Fulcio instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fulcio {
    /// The authority's certificates.
    pub ca: Material,
    /// Who confirmed the person.
    pub oidc_issuer: String,
    /// The person.
    pub subject_email: String,
}

/// Trust in certificates of an own authority. At least one subject is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pki {
    /// The roots.
    pub ca_roots: Material,
    /// Certificates between.
    pub ca_intermediates: Option<Material>,
    /// The subject's e-mail address, or empty.
    pub subject_email: String,
    /// The subject's host name, or empty.
    pub subject_hostname: String,
}

/// The four ways to write keys, as read: `None` when absent or as good as absent.
#[derive(Default)]
struct Keys {
    path: Option<String>,
    paths: Option<Vec<String>>,
    data: Option<Vec<u8>>,
    datas: Option<Vec<Vec<u8>>>,
}

impl Keys {
    fn count(&self) -> usize {
        [self.path.is_some(), self.paths.is_some(), self.data.is_some(), self.datas.is_some()]
            .into_iter()
            .filter(|there| *there)
            .count()
    }

    fn one(self) -> Option<SigstoreKeys> {
        let path = self.path.map(|path| SigstoreKeys::Path(path.into()));
        let paths = self.paths.map(|all| SigstoreKeys::Paths(all.into_iter().map(Into::into).collect()));
        path.or(paths).or(self.data.map(SigstoreKeys::Data)).or(self.datas.map(SigstoreKeys::Datas))
    }
}

const NO_KEY_PATHS: &str = "\"keyPaths\" contains no entries";
const NO_KEY_DATAS: &str = "\"keyDatas\" contains no entries";
// Upstream's own spelling.
const NO_REKOR_PATHS: &str = "\"rekorPublickeyPaths\" contains no entries";
const NO_REKOR_DATAS: &str = "\"rekorPublickeyDatas\" contains no entries";

impl SigstoreSigned {
    pub(super) fn parse(value: &RawValue) -> Result<Self, PolicyError> {
        let (mut keys, mut rekor) = (Keys::default(), Keys::default());
        let (mut fulcio, mut pki, mut identity) = (None, None, None);
        // Go reports an empty list only after the whole object and the identity have been read.
        let mut empty = [None; 4];
        let [no_paths, no_datas, no_rekor_paths, no_rekor_datas] = &mut empty;
        json::object(value.get(), |key, value| {
            match key {
                "type" => drop(json::string(value)?),
                "keyPath" => keys.path = text(value)?,
                "keyPaths" => keys.paths = list(json::strings(value)?, no_paths, NO_KEY_PATHS),
                "keyData" => keys.data = json::bytes(value)?,
                "keyDatas" => keys.datas = list(json::byte_strings(value)?, no_datas, NO_KEY_DATAS),
                "rekorPublicKeyPath" => rekor.path = text(value)?,
                "rekorPublicKeyPaths" => rekor.paths = list(json::strings(value)?, no_rekor_paths, NO_REKOR_PATHS),
                "rekorPublicKeyData" => rekor.data = json::bytes(value)?,
                "rekorPublicKeyDatas" => {
                    rekor.datas = list(json::byte_strings(value)?, no_rekor_datas, NO_REKOR_DATAS);
                }
                "fulcio" => fulcio = Some(Fulcio::parse(value)?),
                "pki" => pki = Some(Pki::parse(value)?),
                "signedIdentity" => identity = Some(value),
                _ => return Ok(false),
            }
            Ok::<_, PolicyError>(true)
        })?;
        let identity = identity.map(IdentityMatch::parse).transpose()?.unwrap_or_default();
        if let Some(sentence) = empty.into_iter().flatten().next() {
            return Err(PolicyError::Sigstore(sentence));
        }
        if keys.count() + usize::from(fulcio.is_some()) + usize::from(pki.is_some()) != 1 {
            return Err(PolicyError::Sigstore(
                "exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio, and pki must be specified",
            ));
        }
        match (rekor.count(), &fulcio, &pki) {
            (2.., ..) => Err(PolicyError::Sigstore(
                "at most one of rekorPublickeyPath, rekorPublicKeyPaths, rekorPublickeyData and rekorPublicKeyDatas can be used simultaneously",
            )),
            (0, Some(_), _) => Err(PolicyError::Sigstore(
                "At least one of rekorPublickeyPath, rekorPublicKeyPaths, rekorPublickeyData and rekorPublicKeyDatas must be specified if fulcio is used",
            )),
            (1, _, Some(_)) => Err(PolicyError::Sigstore(
                "rekorPublickeyPath, rekorPublicKeyPaths, rekorPublickeyData and rekorPublicKeyDatas are not supported for pki",
            )),
            _ => Ok(()),
        }?;
        let trust = match (fulcio, pki, keys.one()) {
            (Some(fulcio), ..) => SigstoreTrust::Fulcio(fulcio),
            (_, Some(pki), _) => SigstoreTrust::Pki(pki),
            (_, _, Some(keys)) => SigstoreTrust::Keys(keys),
            // Counted above.
            (None, None, None) => return Err(PolicyError::EmptyKeySource),
        };
        Ok(Self { trust, rekor: rekor.one(), identity })
    }
}

/// An empty string is as good as none.
fn text(value: &RawValue) -> Result<Option<String>, PolicyError> {
    Ok(json::string(value)?.filter(|text| !text.is_empty()))
}

/// Neither `null` nor `[]` is a list; `sentence` is remembered then.
fn list<T>(values: Option<Vec<T>>, empty: &mut Option<&'static str>, sentence: &'static str) -> Option<Vec<T>> {
    let values = values.filter(|values| !values.is_empty());
    if values.is_none() {
        *empty = Some(sentence);
    }
    values
}

fn material(path: Option<String>, data: Option<Vec<u8>>, both: &'static str) -> Result<Option<Material>, PolicyError> {
    match (path, data) {
        (Some(_), Some(_)) => Err(PolicyError::Sigstore(both)),
        (Some(path), None) => Ok(Some(Material::Path(path.into()))),
        (None, data) => Ok(data.map(Material::Data)),
    }
}

impl Fulcio {
    fn parse(value: &RawValue) -> Result<Self, PolicyError> {
        let (mut path, mut data, mut issuer, mut email) = (None, None, None, None);
        json::object(value.get(), |key, value| {
            match key {
                "caPath" => path = text(value)?,
                "caData" => data = json::bytes(value)?,
                "oidcIssuer" => issuer = text(value)?,
                "subjectEmail" => email = text(value)?,
                _ => return Ok(false),
            }
            Ok::<_, PolicyError>(true)
        })?;
        let sentence = PolicyError::Sigstore;
        let ca = material(path, data, "caPath and caData cannot be used simultaneously")?
            .ok_or(sentence("At least one of caPath and caData must be specified"))?;
        let oidc_issuer = issuer.ok_or(sentence("oidcIssuer not specified"))?;
        let subject_email = email.ok_or(sentence("subjectEmail not specified"))?;
        Ok(Self { ca, oidc_issuer, subject_email })
    }
}

impl Pki {
    fn parse(value: &RawValue) -> Result<Self, PolicyError> {
        let (mut roots_path, mut roots_data, mut between_path, mut between_data) = (None, None, None, None);
        let (mut email, mut hostname) = (None, None);
        json::object(value.get(), |key, value| {
            match key {
                "caRootsPath" => roots_path = text(value)?,
                "caRootsData" => roots_data = json::bytes(value)?,
                "caIntermediatesPath" => between_path = text(value)?,
                "caIntermediatesData" => between_data = json::bytes(value)?,
                "subjectEmail" => email = text(value)?,
                "subjectHostname" => hostname = text(value)?,
                _ => return Ok(false),
            }
            Ok::<_, PolicyError>(true)
        })?;
        let sentence = PolicyError::Sigstore;
        let ca_roots = material(roots_path, roots_data, "caRootsPath and caRootsData cannot be used simultaneously")?
            .ok_or(sentence("At least one of caRootsPath and caRootsData must be specified"))?;
        let both = "caIntermediatesPath and caIntermediatesData cannot be used simultaneously";
        let ca_intermediates = material(between_path, between_data, both)?;
        if email.is_none() && hostname.is_none() {
            return Err(sentence("At least one of subjectEmail, subjectHostname must be specified"));
        }
        let (subject_email, subject_hostname) = (email.unwrap_or_default(), hostname.unwrap_or_default());
        Ok(Self { ca_roots, ca_intermediates, subject_email, subject_hostname })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<SigstoreSigned, String> {
        let raw = RawValue::from_string(format!(r#"{{"type":"sigstoreSigned"{rest}}}"#)).unwrap();
        SigstoreSigned::parse(&raw).map_err(|e| e.to_string())
    }

    const FULCIO: &str = r#","fulcio":{"caPath":"/ca","oidcIssuer":"https://i","subjectEmail":"a@b"}"#;
    const PKI: &str = r#","pki":{"caRootsPath":"/ca","subjectHostname":"h"}"#;

    #[test]
    fn what_is_taken() {
        let keys = |rest| parse(rest).map(|parsed| parsed.trust);
        assert_eq!(keys(r#","keyPath":"/k""#), Ok(SigstoreTrust::Keys(SigstoreKeys::Path("/k".into()))));
        assert_eq!(keys(r#","keyPaths":["/k"]"#), Ok(SigstoreTrust::Keys(SigstoreKeys::Paths(vec!["/k".into()]))));
        assert_eq!(keys(r#","keyData":"YQ==""#), Ok(SigstoreTrust::Keys(SigstoreKeys::Data(b"a".to_vec()))));
        assert_eq!(keys(r#","keyDatas":["YQ=="]"#), Ok(SigstoreTrust::Keys(SigstoreKeys::Datas(vec![b"a".to_vec()]))));
        // Unlike signedBy, a source that is as good as absent may stand beside another.
        assert_eq!(
            keys(r#","keyPath":"","keyData":"YQ==""#),
            Ok(SigstoreTrust::Keys(SigstoreKeys::Data(b"a".to_vec())))
        );
        assert!(parse(&format!(r#"{FULCIO},"rekorPublicKeyPath":"/r""#)).is_ok_and(|parsed| parsed.rekor.is_some()));
        assert!(parse(PKI).is_ok_and(|parsed| parsed.rekor.is_none()));
        assert!(
            parse(r#","keyPath":"/k","rekorPublicKeyDatas":["YQ=="],"signedIdentity":{"type":"matchExact"}"#).is_ok()
        );
    }

    #[test]
    fn what_is_refused() {
        let one = "exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio, and pki must be specified";
        let two_rekor = "at most one of rekorPublickeyPath, rekorPublicKeyPaths, rekorPublickeyData and rekorPublicKeyDatas can be used simultaneously";
        let pki_rekor = "rekorPublickeyPath, rekorPublicKeyPaths, rekorPublickeyData and rekorPublicKeyDatas are not supported for pki";
        for (rest, sentence) in [
            ("", one),
            (r#","keyPath":"""#, one),
            (r#","keyData":null"#, one),
            (r#","keyPath":"/k","keyData":"YQ==""#, one),
            (r#","keyPaths":[]"#, NO_KEY_PATHS),
            (r#","keyPaths":null,"x":1"#, "Unknown key \"x\""),
            (r#","keyPaths":null"#, NO_KEY_PATHS),
            (r#","keyDatas":[]"#, NO_KEY_DATAS),
            (r#","keyPath":"/k","rekorPublicKeyPaths":[]"#, NO_REKOR_PATHS),
            (r#","keyPath":"/k","rekorPublicKeyDatas":[]"#, NO_REKOR_DATAS),
            (r#","keyPath":"/k","rekorPublicKeyPath":"/r","rekorPublicKeyData":"YQ==""#, two_rekor),
            (r#","keyPath":"/k","signedIdentity":null"#, "Unknown policy reference match type \"\""),
            (r#","keyType":"GPGKeys""#, "Unknown key \"keyType\""),
            (r#","fulcio":null"#, "JSON object expected, got <nil>"),
            (r#","fulcio":{}"#, "At least one of caPath and caData must be specified"),
            (r#","fulcio":{"caPath":"/a","caData":"YQ=="}"#, "caPath and caData cannot be used simultaneously"),
            (r#","fulcio":{"caPath":"/a"}"#, "oidcIssuer not specified"),
            (r#","fulcio":{"caPath":"/a","oidcIssuer":"i"}"#, "subjectEmail not specified"),
            (r#","fulcio":{"x":1}"#, "Unknown key \"x\""),
            (r#","pki":{}"#, "At least one of caRootsPath and caRootsData must be specified"),
            (r#","pki":{"caRootsPath":"/a"}"#, "At least one of subjectEmail, subjectHostname must be specified"),
            (
                r#","pki":{"caRootsPath":"/a","caRootsData":"YQ=="}"#,
                "caRootsPath and caRootsData cannot be used simultaneously",
            ),
            (
                r#","pki":{"caRootsPath":"/a","caIntermediatesPath":"/b","caIntermediatesData":"YQ=="}"#,
                "caIntermediatesPath and caIntermediatesData cannot be used simultaneously",
            ),
        ] {
            assert_eq!(parse(rest), Err(sentence.to_owned()), "{rest}");
        }
        assert!(parse(FULCIO).unwrap_err().starts_with("At least one of rekorPublickeyPath"));
        assert_eq!(parse(&format!(r#"{PKI},"rekorPublicKeyPath":"/r""#)), Err(pki_rekor.to_owned()));
        assert_eq!(parse(&format!(r#"{PKI},"keyPath":"/k""#)), Err(one.to_owned()));
    }
}
