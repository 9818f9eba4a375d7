//! One policy requirement: its types and their strict grammar (spec containers-image 5.2).

use std::fmt;
use std::path::PathBuf;

use serde_json::value::RawValue;

use super::document::PolicyError;
use super::identity::IdentityMatch;
use super::sigstore::SigstoreSigned;
use crate::json::{self, JsonError};

/// What an image must fulfil. All requirements of a list must be fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Anything goes, signed or not.
    InsecureAcceptAnything,
    /// Nothing goes.
    Reject,
    /// A simple signature by one of some keys.
    SignedBy(Box<SignedBy>),
    /// Planned once in containers/image, never written: rejects.
    SignedBaseLayer(Box<SignedBaseLayer>),
    /// A sigstore signature.
    SigstoreSigned(Box<SigstoreSigned>),
}

/// `signedBy`: at least one simple signature must be by one of these keys, for this image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBy {
    /// What kind of keys; all but [`KeyType::GpgKeys`] reject at evaluation.
    pub key_type: KeyType,
    /// Where the keys are.
    pub keys: KeySource,
    /// Which names the signature may say.
    pub identity: IdentityMatch,
}

/// `signedBaseLayer`: parses and always rejects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBaseLayer {
    /// Which names the base layer's image may have.
    pub identity: IdentityMatch,
}

/// The `keyType` of a `signedBy` requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// OpenPGP public keys; the only one that can accept.
    GpgKeys,
    /// Keys signed by these keys; rejects.
    SignedByGpgKeys,
    /// Certificates; rejects.
    X509Certificates,
    /// Certificate authorities; rejects.
    SignedByX509Cas,
}

impl KeyType {
    fn parse(text: &str) -> Option<Self> {
        [Self::GpgKeys, Self::SignedByGpgKeys, Self::X509Certificates, Self::SignedByX509Cas]
            .into_iter()
            .find(|kind| kind.name() == text)
    }

    /// Returns the word of the policy file.
    pub fn name(self) -> &'static str {
        match self {
            Self::GpgKeys => "GPGKeys",
            Self::SignedByGpgKeys => "signedByGPGKeys",
            Self::X509Certificates => "X509Certificates",
            Self::SignedByX509Cas => "signedByX509CAs",
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the OpenPGP keys of a `signedBy` requirement are. Files are read when a signature is
/// evaluated, not when the policy is (spec containers-image 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeySource {
    /// One keyring file. The path is not empty.
    Path(PathBuf),
    /// Several keyring files, perhaps none; one that cannot be read fails all.
    Paths(Vec<PathBuf>),
    /// The keyring itself, perhaps empty.
    Data(Vec<u8>),
}

impl Requirement {
    pub(super) fn parse(value: &RawValue) -> Result<Self, PolicyError> {
        let kind = type_of(value, "signature.prCommon", "prCommon.type", "signature.prTypeIdentifier")?;
        Ok(match kind.as_str() {
            "insecureAcceptAnything" => type_only(value).map(|()| Self::InsecureAcceptAnything)?,
            "reject" => type_only(value).map(|()| Self::Reject)?,
            "signedBy" => Self::SignedBy(Box::new(SignedBy::parse(value)?)),
            "signedBaseLayer" => Self::SignedBaseLayer(Box::new(SignedBaseLayer::parse(value)?)),
            "sigstoreSigned" => Self::SigstoreSigned(Box::new(SigstoreSigned::parse(value)?)),
            _ => return Err(PolicyError::UnknownType(kind)),
        })
    }

    /// Returns the `type` of the policy file.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::InsecureAcceptAnything => "insecureAcceptAnything",
            Self::Reject => "reject",
            Self::SignedBy(_) => "signedBy",
            Self::SignedBaseLayer(_) => "signedBaseLayer",
            Self::SigstoreSigned(_) => "sigstoreSigned",
        }
    }

    /// Tells whether an image that fulfils this requirement has a verified signature.
    pub fn verifies_signatures(&self) -> bool {
        matches!(self, Self::SignedBy(_) | Self::SigstoreSigned(_))
    }
}

/// Reads `type` alone, as loosely as Go reads a struct: other members are ignored, a repeated one
/// overrides, its case does not matter. The strict reading of the same object comes after.
pub(super) fn type_of(
    value: &RawValue,
    container: &'static str,
    field: &'static str,
    wanted: &'static str,
) -> Result<String, JsonError> {
    match json::kind(value.get()) {
        "null" => return Ok(String::new()),
        "object" => {}
        found => return Err(JsonError::Type { found, wanted: container }),
    }
    let mut kind = String::new();
    let mut wrong = None;
    for (key, value) in json::members(value.get())? {
        if key.eq_ignore_ascii_case("type") {
            match json::string(value) {
                Ok(Some(text)) => kind = text,
                Ok(None) => {}
                Err(JsonError::Type { found, .. }) => wrong = wrong.or(Some(JsonError::Field { found, field, wanted })),
                Err(error) => return Err(error),
            }
        }
    }
    wrong.map_or(Ok(kind), Err)
}

fn type_only(value: &RawValue) -> Result<(), PolicyError> {
    json::object(value.get(), |key, value| {
        if key == "type" {
            json::string(value)?;
        }
        Ok(key == "type")
    })
}

impl SignedBy {
    fn parse(value: &RawValue) -> Result<Self, PolicyError> {
        let (mut key_type, mut identity) = (None, None);
        let (mut path, mut paths, mut data) = (None, None, None);
        json::object(value.get(), |key, value| {
            match key {
                "type" => drop(json::string(value)?),
                "keyType" => {
                    let text = json::string(value)?.unwrap_or_default();
                    key_type = Some(KeyType::parse(&text).ok_or(PolicyError::KeyType(text))?);
                }
                "keyPath" => path = Some(json::string(value)?.unwrap_or_default()),
                "keyPaths" => paths = Some(json::strings(value)?),
                "keyData" => data = Some(json::bytes(value)?),
                "signedIdentity" => identity = Some(value),
                _ => return Ok(false),
            }
            Ok::<_, PolicyError>(true)
        })?;
        let identity = identity.map(IdentityMatch::parse).transpose()?.unwrap_or_default();
        let keys = match (path, paths, data) {
            (Some(path), None, None) => (!path.is_empty()).then(|| KeySource::Path(path.into())),
            (None, Some(paths), None) => paths.map(|all| KeySource::Paths(all.into_iter().map(Into::into).collect())),
            (None, None, Some(data)) => data.map(KeySource::Data),
            (None, None, None) => return Err(PolicyError::NoKeySource),
            _ => return Err(PolicyError::SeveralKeySources),
        };
        let key_type = key_type.ok_or(PolicyError::NoKeyType)?;
        Ok(Self { key_type, keys: keys.ok_or(PolicyError::EmptyKeySource)?, identity })
    }
}

impl SignedBaseLayer {
    fn parse(value: &RawValue) -> Result<Self, PolicyError> {
        let mut identity = None;
        json::object(value.get(), |key, value| {
            match key {
                "type" => drop(json::string(value)?),
                "baseLayerIdentity" => identity = Some(value),
                _ => return Ok(false),
            }
            Ok::<_, PolicyError>(true)
        })?;
        let identity = identity.ok_or(JsonError::Missing("baseLayerIdentity"))?;
        Ok(Self { identity: IdentityMatch::parse(identity)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Requirement, String> {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        Requirement::parse(&raw).map_err(|e| e.to_string())
    }

    fn signed_by(rest: &str) -> Result<KeySource, String> {
        match parse(&format!(r#"{{"type":"signedBy","keyType":"GPGKeys"{rest}}}"#))? {
            Requirement::SignedBy(signed_by) => Ok(signed_by.keys),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_type_decides() {
        assert_eq!(parse(r#"{"type":"insecureAcceptAnything"}"#), Ok(Requirement::InsecureAcceptAnything));
        assert_eq!(parse(r#"{"type":"reject"}"#), Ok(Requirement::Reject));
        for (json, sentence) in [
            ("{}", r#"Unknown policy requirement type """#),
            ("null", r#"Unknown policy requirement type """#),
            (r#"{"type":null}"#, r#"Unknown policy requirement type """#),
            (r#"{"type":"Reject"}"#, r#"Unknown policy requirement type "Reject""#),
            ("[]", "json: cannot unmarshal array into Go value of type signature.prCommon"),
            ("7", "json: cannot unmarshal number into Go value of type signature.prCommon"),
            (
                r#"{"type":{}}"#,
                "json: cannot unmarshal object into Go struct field prCommon.type of type signature.prTypeIdentifier",
            ),
            (r#"{"type":"reject","keyType":"GPGKeys"}"#, r#"Unknown key "keyType""#),
            (r#"{"TYPE":"reject"}"#, r#"Unknown key "TYPE""#),
            (r#"{"type":"reject","type":"signedBy"}"#, r#"Duplicate key "type""#),
            (r#"{"type":"reject","\u0074ype":"reject"}"#, r#"Duplicate key "type""#),
            (r#"{"type":"reject","Type":"nonsense"}"#, r#"Unknown policy requirement type "nonsense""#),
        ] {
            assert_eq!(parse(json), Err(sentence.to_owned()), "{json}");
        }
    }

    #[test]
    fn signed_by_has_one_source_of_keys() {
        assert_eq!(signed_by(r#","keyPath":"/k""#), Ok(KeySource::Path("/k".into())));
        assert_eq!(signed_by(r#","keyPaths":["/k","/l"]"#), Ok(KeySource::Paths(vec!["/k".into(), "/l".into()])));
        assert_eq!(signed_by(r#","keyPaths":[]"#), Ok(KeySource::Paths(vec![])));
        assert_eq!(signed_by(r#","keyPaths":[""]"#), Ok(KeySource::Paths(vec!["".into()])));
        assert_eq!(signed_by(r#","keyData":"bm9uc2Vuc2U=""#), Ok(KeySource::Data(b"nonsense".to_vec())));
        assert_eq!(signed_by(r#","keyData":"bm9u\nc2Vuc2U=""#), Ok(KeySource::Data(b"nonsense".to_vec())));
        assert_eq!(signed_by(r#","keyData":"""#), Ok(KeySource::Data(vec![])));
        assert_eq!(signed_by(r#","keyData":[]"#), Ok(KeySource::Data(vec![])), "Go takes numbers for bytes");
        let empty = "exactly one of keyPath, keyPaths and keyData must be specified";
        let several = "Exactly one of keyPath, keyPaths and keyData must be specified, more than one present";
        for (rest, sentence) in [
            ("", "Exactly one of keyPath, keyPaths and keyData must be specified, none of them present"),
            (r#","keyPath":"/k","keyData":"YQ==""#, several),
            (r#","keyPath":"","keyPaths":null"#, several),
            (r#","keyPath":"""#, empty),
            (r#","keyPath":null"#, empty),
            (r#","keyPaths":null"#, empty),
            (r#","keyData":null"#, empty),
            (r#","keyData":"bm9uc2Vuc2U""#, "illegal base64 data at input byte 8"),
            (r#","keyData":"bm9u-w==""#, "illegal base64 data at input byte 4"),
            (r#","keyPath":["/k"]"#, "json: cannot unmarshal array into Go value of type string"),
            (r#","keyPaths":"/k""#, "json: cannot unmarshal string into Go value of type []string"),
            (r#","keyPaths":[1]"#, "json: cannot unmarshal number into Go value of type string"),
            (r#","keyPath":"/k","keyPath":"/k""#, r#"Duplicate key "keyPath""#),
            (r#","keyDatas":[]"#, r#"Unknown key "keyDatas""#),
            (r#","keyPath":"/k","signedIdentity":null"#, r#"Unknown policy reference match type """#),
            (r#","signedIdentity":{}"#, r#"Unknown policy reference match type """#),
        ] {
            assert_eq!(signed_by(rest), Err(sentence.to_owned()), "{rest}");
        }
    }

    #[test]
    fn key_types() {
        let kind = |rest: &str| match parse(&format!(r#"{{"type":"signedBy","keyPath":"/k"{rest}}}"#))? {
            Requirement::SignedBy(signed_by) => Ok((signed_by.key_type.to_string(), signed_by.identity)),
            other => panic!("{other:?}"),
        };
        for name in ["GPGKeys", "signedByGPGKeys", "X509Certificates", "signedByX509CAs"] {
            let got = kind(&format!(r#","keyType":"{name}""#));
            assert_eq!(got, Ok((name.to_owned(), IdentityMatch::MatchRepoDigestOrExact)));
        }
        for (rest, sentence) in [
            ("", r#"invalid keyType """#),
            (r#","keyType":null"#, r#"Unrecognized keyType value """#),
            (r#","keyType":"gpgkeys""#, r#"Unrecognized keyType value "gpgkeys""#),
            (r#","keyType":1"#, "json: cannot unmarshal number into Go value of type string"),
        ] {
            assert_eq!(kind(rest), Err(sentence.to_owned()), "{rest}");
        }
    }

    #[test]
    fn signed_base_layer() {
        assert!(parse(r#"{"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}"#).is_ok());
        for (json, sentence) in [
            (r#"{"type":"signedBaseLayer"}"#, r#"Key "baseLayerIdentity" missing in a JSON object"#),
            (r#"{"type":"signedBaseLayer","baseLayerIdentity":null}"#, r#"Unknown policy reference match type """#),
            (r#"{"type":"signedBaseLayer","x":1}"#, r#"Unknown key "x""#),
        ] {
            assert_eq!(parse(json), Err(sentence.to_owned()), "{json}");
        }
    }
}
