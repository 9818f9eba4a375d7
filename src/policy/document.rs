//! The policy file as a whole: strict grammar, loading, and the sentences for what is wrong
//! (spec containers-image 5.1, 5.2).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;

use super::requirement::Requirement;
use super::scope::is_valid_scope;
use crate::go::quote;
use crate::image::ReferenceError;
use crate::json::{self, JsonError};

/// The largest policy file that is read: containers/image has no limit, and keys can stand in the
/// file, but memory has one.
pub const POLICY_LIMIT: u64 = 64 * 1024 * 1024;

/// A parsed policy.json. Every list has at least one requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What goes for images that nothing else speaks of.
    pub default: Vec<Requirement>,
    /// By transport (`docker`, `dir`, …), then by scope; scope `""` is the transport's default.
    pub transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// Why a text is no policy. The sentences are containers/image's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Not JSON, or not of the exact shape.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// There is no `default`.
    #[error("Default policy is missing")]
    NoDefault,
    /// A list of requirements is empty or null.
    #[error("List of verification policy requirements must not be empty")]
    NoRequirements,
    /// A requirement's `type` is not known.
    #[error("Unknown policy requirement type {}", quote(.0))]
    UnknownType(String),
    /// A `signedIdentity`'s `type` is not known.
    #[error("Unknown policy reference match type {}", quote(.0))]
    UnknownMatchType(String),
    /// A `keyType` that is not known.
    #[error("Unrecognized keyType value {}", quote(.0))]
    KeyType(String),
    /// `keyType` is missing.
    #[error("invalid keyType \"\"")]
    NoKeyType,
    /// No source of keys is written.
    #[error("Exactly one of keyPath, keyPaths and keyData must be specified, none of them present")]
    NoKeySource,
    /// Several sources of keys are written.
    #[error("Exactly one of keyPath, keyPaths and keyData must be specified, more than one present")]
    SeveralKeySources,
    /// The one source of keys is null or empty.
    #[error("exactly one of keyPath, keyPaths and keyData must be specified")]
    EmptyKeySource,
    /// The parts of a `sigstoreSigned` do not go together.
    #[error("{0}")]
    Sigstore(&'static str),
    /// A name in a `signedIdentity` is none.
    #[error("Invalid format of {field} {quoted}: {source}", quoted = quote(.text))]
    Reference {
        /// The member.
        field: &'static str,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// An `exactReference` without tag and digest.
    #[error("dockerReference {} contains neither a tag nor digest", quote(.0))]
    NameOnly(String),
    /// A prefix of `remapIdentity` that is none.
    #[error("prefix {} is not valid", quote(.0))]
    Prefix(String),
}

/// Why a policy file could not be had. The sentences are those of containers/image and of Go.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be opened or read.
    #[error("{operation} {path}: {reason}", path = .path.display(), reason = crate::go::error_text(.source))]
    Io {
        /// `open` or `read`.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is no policy.
    #[error("invalid policy in {path}: {source}", path = quote(.path.as_os_str().as_encoded_bytes()))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PolicyError,
    },
    /// The file is larger than any policy.
    #[error("invalid policy in {path}: larger than {POLICY_LIMIT} bytes", path = quote(.path.as_os_str().as_encoded_bytes()))]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// There is no policy file at all.
    #[error(transparent)]
    Search(#[from] super::search::SearchError),
}

impl LoadError {
    /// Tells whether the file is simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Policy {
    /// Reads a policy from its JSON.
    ///
    /// # Errors
    /// [`PolicyError`], the first fault in the order in which containers/image looks: the whole
    /// JSON syntax first, then member by member.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        json::validate(bytes)?;
        let text = json::text(bytes);
        let (mut default, mut transports) = (None, BTreeMap::new());
        json::object(&text, |key, value| {
            match key {
                "default" => default = Some(parse_requirements(value)?),
                "transports" => transports = parse_transports(value)?,
                _ => return Ok(false),
            }
            Ok::<_, PolicyError>(true)
        })?;
        Ok(Self { default: default.ok_or(PolicyError::NoDefault)?, transports })
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// [`LoadError`]: `open …`, `read …`, or `invalid policy in "…": …`.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::load_with_bytes(path).map(|(policy, _)| policy)
    }

    /// As [`Policy::load`]; returns the bytes, too, for those who record which policy it was. A file
    /// may be replaced at any time, and a pipe is read only once.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load_with_bytes(path: &Path) -> Result<(Self, Vec<u8>), LoadError> {
        let io = |operation| move |source| LoadError::Io { operation, path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(io("open"))?;
        file.take(POLICY_LIMIT + 1).read_to_end(&mut bytes).map_err(io("read"))?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > POLICY_LIMIT) {
            return Err(LoadError::TooLarge { path: path.to_owned() });
        }
        let policy = Self::parse(&bytes).map_err(|source| LoadError::Invalid { path: path.to_owned(), source })?;
        Ok((policy, bytes))
    }
}

fn parse_transports(value: &RawValue) -> Result<BTreeMap<String, BTreeMap<String, Vec<Requirement>>>, PolicyError> {
    let mut transports = BTreeMap::new();
    json::object(value.get(), |transport, value| {
        let mut scopes = BTreeMap::new();
        json::object(value.get(), |scope, value| {
            if !is_valid_scope(transport, scope) {
                return Ok(false);
            }
            scopes.insert(scope.to_owned(), parse_requirements(value)?);
            Ok::<_, PolicyError>(true)
        })?;
        transports.insert(transport.to_owned(), scopes);
        Ok::<_, PolicyError>(true)
    })?;
    Ok(transports)
}

fn parse_requirements(value: &RawValue) -> Result<Vec<Requirement>, PolicyError> {
    let elements = json::array(value)?;
    if elements.is_empty() {
        return Err(PolicyError::NoRequirements);
    }
    elements.into_iter().map(Requirement::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        Policy::parse(json.as_bytes()).map_or_else(|e| e.to_string(), |_| "accepted".to_owned())
    }

    #[test]
    fn what_is_taken() {
        for json in [
            r#"{"default":[{"type":"reject"}]}"#,
            "\n {\"default\" : [ {\"type\":\"reject\"} , {\"type\":\"reject\"}\t] }\r\n",
            r#"{"transports":{},"default":[{"type":"reject"}]}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"unknown":{"any thing":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"*.com":[{"type":"reject"}],"UP!":[{"type":"reject"}],"":[{"type":"reject"}]}}}"#,
            r#"{"d\u0065fault":[{"type":"reject"}]}"#,
        ] {
            assert_eq!(error(json), "accepted", "{json}");
        }
    }

    #[test]
    fn what_is_refused() {
        for (json, sentence) in [
            ("", "unexpected end of JSON input"),
            ("&", "invalid character '&' looking for beginning of value"),
            ("{} {}", "invalid character '{' after top-level value"),
            (r#"{"default":[{"type":"reject"}],}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"default":[{"type":"reject"}]} // x"#, "invalid character '/' after top-level value"),
            ("null", "JSON object expected, got <nil>"),
            ("[]", "JSON object expected, got 91"),
            ("7", "JSON object expected, got 7"),
            (r#""x""#, r#"JSON object expected, got "x""#),
            ("{}", "Default policy is missing"),
            (r#"{"transports":{}}"#, "Default policy is missing"),
            (r#"{"default":[]}"#, "List of verification policy requirements must not be empty"),
            (r#"{"default":null}"#, "List of verification policy requirements must not be empty"),
            (r#"{"default":{}}"#, "json: cannot unmarshal object into Go value of type []json.RawMessage"),
            (r#"{"default":1}"#, "json: cannot unmarshal number into Go value of type []json.RawMessage"),
            (r#"{"Default":[{"type":"reject"}]}"#, r#"Unknown key "Default""#),
            (r#"{"default":[{"type":"reject"}],"x":1}"#, r#"Unknown key "x""#),
            (r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#, r#"Duplicate key "default""#),
            (r#"{"default":[{"type":"reject"}],"\u0064efault":[]}"#, r#"Duplicate key "default""#),
            (r#"{"default":[{"type":"reject"}],"transports":null}"#, "JSON object expected, got <nil>"),
            (r#"{"default":[{"type":"reject"}],"transports":{"docker":null}}"#, "JSON object expected, got <nil>"),
            (r#"{"default":[{"type":"reject"}],"transports":{"docker":[]}}"#, "JSON object expected, got 91"),
            (
                r#"{"default":[{"type":"reject"}],"transports":{"docker":{"x":null}}}"#,
                "List of verification policy requirements must not be empty",
            ),
            (r#"{"default":[{"type":"reject"}],"transports":{"docker":{},"docker":{}}}"#, r#"Duplicate key "docker""#),
            (
                r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{"type":"reject"}],"a":[]}}}"#,
                r#"Duplicate key "a""#,
            ),
            (
                r#"{"default":[{"type":"reject"}],"transports":{"dir":{"rel\n":[{"type":"reject"}]}}}"#,
                r#"Unknown key "rel\n""#,
            ),
            (r#"{"default":[{"type":"reject"},{}]}"#, r#"Unknown policy requirement type """#),
        ] {
            assert_eq!(error(json), sentence, "{json}");
        }
        assert_eq!(error("\u{feff}{}"), "invalid character 'ï' looking for beginning of value");
    }

    #[test]
    fn loading_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        let missing = Policy::load(&path).unwrap_err();
        assert!(missing.is_not_found());
        assert_eq!(missing.to_string(), format!("open {}: no such file or directory", path.display()));
        assert_eq!(
            Policy::load(folder.path()).unwrap_err().to_string(),
            format!("read {}: is a directory", folder.path().display())
        );
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(
            Policy::load(&path).unwrap_err().to_string(),
            format!("invalid policy in \"{}\": Default policy is missing", path.display())
        );
        std::fs::write(&path, r#"{"default":[{"type":"reject"}]}"#).unwrap();
        assert_eq!(Policy::load(&path).unwrap().default, [Requirement::Reject]);
        let key = "QUJD".repeat(5 << 18);
        let large = format!(r#"{{"default":[{{"type":"signedBy","keyType":"GPGKeys","keyData":"{key}"}}]}}"#);
        std::fs::write(&path, large).unwrap();
        assert!(matches!(Policy::load(&path).unwrap().default[..], [Requirement::SignedBy(_)]), "5 MiB of keys");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(POLICY_LIMIT + 1).unwrap();
        let error = Policy::load(&path).unwrap_err();
        assert!(matches!(error, LoadError::TooLarge { .. }) && error.to_string().contains("larger than 67108864"));
    }

    #[test]
    fn shipped_samples_are_policies() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policy");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                Policy::load(&path).unwrap_or_else(|e| panic!("{e}"));
                seen += 1;
            }
        }
        assert!(seen >= 3, "{seen} samples");
    }

    #[test]
    fn hostile_files_are_refused_without_harm() {
        let deep = format!(r#"{{"default":{}"#, "[".repeat(2_000_000));
        assert_eq!(error(&deep), "exceeded max depth");
        let nested = format!(r#"{{"default":{}{}}}"#, "[".repeat(9000), "]".repeat(9000));
        assert_eq!(error(&nested), "json: cannot unmarshal array into Go value of type signature.prCommon");
        let objects = format!(r#"{{"default":[{{"type":{}1{}}}]}}"#, r#"{"a":"#.repeat(9000), "}".repeat(9000));
        assert!(error(&objects).contains("prCommon.type"));
        let many = format!(r#"{{"default":[{}1]}}"#, "1,".repeat(1_000_000));
        assert_eq!(error(&many), "json: cannot unmarshal number into Go value of type signature.prCommon");
        let keys = (0..100_000).map(|n| format!(r#""k{n}":[{{"type":"reject"}}]"#)).collect::<Vec<_>>().join(",");
        assert_eq!(
            error(&format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{{keys}}}}}}}"#)),
            "accepted"
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(\\{|\\}|\\[|\\]|:|,|\"default\"|\"type\"|\"reject\"|\"signedBy\"|\"keyData\"|\"a\"|null|1){0,24}") {
            let _ = Policy::parse(text.as_bytes());
        }

        #[test]
        fn a_cut_policy_is_none(at in 0usize..100) {
            let whole = r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}],"transports":{"docker":{}}}"#;
            if let Some(cut) = whole.get(..at.min(whole.len() - 1)) {
                proptest::prop_assert!(Policy::parse(cut.as_bytes()).is_err());
            }
        }
    }
}
