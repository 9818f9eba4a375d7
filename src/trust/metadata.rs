//! What a fetch has to know of metadata: versions, and the hashes by which files name the next ones.
//! Nothing else is read, and nothing is verified (spec notary-dct 2).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::go;

/// The most roles of one snapshot; notary has one for each signer.
const ROLES_LIMIT: usize = 4096;
/// The longest name of a role.
const ROLE_LIMIT: usize = 255;

/// Why a body is no metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// It is no JSON of this form, such as a web page.
    #[error("it is no signed metadata: {0}")]
    Form(String),
    /// It is another role's.
    #[error("it says that it is {found:?}, not {expected:?}")]
    Type {
        /// What was expected.
        expected: &'static str,
        /// What it says.
        found: String,
    },
    /// It names a file by something that is no SHA-256.
    #[error("it has no usable SHA-256 of {0:?}")]
    Hash(String),
    /// It names too many roles, or one that cannot be.
    #[error("it lists {0}")]
    Roles(String),
}

/// The kinds of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Keys and thresholds.
    Root,
    /// Which snapshot is the present one.
    Timestamp,
    /// Which files belong together.
    Snapshot,
    /// Tags and digests, delegations included.
    Targets,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Root => "Root",
            Self::Timestamp => "Timestamp",
            Self::Snapshot => "Snapshot",
            Self::Targets => "Targets",
        }
    }
}

/// A file that other metadata names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// SHA-256 of the file's bytes, in lower-case hex.
    pub sha256: String,
    /// Its length in bytes, if that is said.
    pub length: Option<u64>,
}

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its version.
    pub version: u64,
    /// The files that it names, by role; empty for root and targets.
    pub meta: BTreeMap<String, Named>,
    /// What it names and cannot be asked for: roles that are none, files without a SHA-256.
    pub unusable: Vec<MetadataError>,
}

#[derive(Deserialize)]
struct Envelope {
    signed: Signed,
    #[serde(rename = "signatures")]
    _signatures: serde::de::IgnoredAny,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "_type")]
    kind: String,
    version: u64,
    #[serde(default)]
    meta: Option<BTreeMap<String, Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    hashes: Option<BTreeMap<String, Option<String>>>,
    #[serde(default)]
    length: Option<u64>,
}

impl Metadata {
    /// Reads a file.
    ///
    /// # Errors
    /// [`MetadataError`].
    pub fn parse(bytes: &[u8], kind: Kind) -> Result<Self, MetadataError> {
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| MetadataError::Form(e.to_string()))?;
        let Signed { kind: found, version, meta } = envelope.signed;
        if !found.eq_ignore_ascii_case(kind.name()) {
            return Err(MetadataError::Type { expected: kind.name(), found: found.chars().take(64).collect() });
        }
        let meta =
            if matches!(kind, Kind::Timestamp | Kind::Snapshot) { meta.unwrap_or_default() } else { BTreeMap::new() };
        if meta.len() > ROLES_LIMIT {
            return Err(MetadataError::Roles(format!("{} roles, more than {ROLES_LIMIT}", meta.len())));
        }
        let mut read = Self { version, meta: BTreeMap::new(), unusable: Vec::new() };
        for (role, entry) in meta {
            if !is_role(&role) {
                let role = role.chars().take(64).collect::<String>();
                read.unusable.push(MetadataError::Roles(format!("a role {role:?}")));
            } else if let Some(sha256) = sha256(&entry) {
                read.meta.insert(role, Named { sha256, length: entry.length });
            } else {
                read.unusable.push(MetadataError::Hash(role));
            }
        }
        Ok(read)
    }
}

fn sha256(entry: &Entry) -> Option<String> {
    let text = entry.hashes.as_ref()?.get("sha256")?.as_ref()?;
    let hash = go::base64(text.as_bytes()).ok()?;
    (hash.len() == 32).then(|| hex::encode(hash))
}

/// Tells whether a text is a role's name, and so fit for a path: `root`, `targets/releases`.
pub(super) fn is_role(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    let top = matches!(text, "root" | "targets" | "snapshot" | "timestamp");
    text.len() <= ROLE_LIMIT && (top || text.strip_prefix("targets/").is_some_and(|rest| rest.split('/').all(plain)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    #[test]
    fn reads_what_a_fetch_has_to_know() {
        let hash = STANDARD.encode([7; 32]);
        let text = format!(
            r#"{{"signed":{{"_type":"Snapshot","version":3,"expires":"x","meta":{{"root":{{"hashes":{{"sha256":"{hash}","sha512":null}},"length":9}},"targets/a":{{"hashes":{{"sha256":"{hash}"}}}}}}}},"signatures":[]}}"#
        );
        let read = Metadata::parse(text.as_bytes(), Kind::Snapshot).unwrap();
        assert_eq!((read.version, read.meta.len()), (3, 2));
        assert_eq!(read.meta["root"], Named { sha256: "07".repeat(32), length: Some(9) });
        assert!(matches!(Metadata::parse(text.as_bytes(), Kind::Root), Err(MetadataError::Type { .. })));
        for (from, to, left) in [
            ("targets/a", "targets/../a", 1),
            ("targets/a", "targets/A", 1),
            ("targets/a", "x", 1),
            ("sha256", "md5", 0),
        ] {
            let read = Metadata::parse(text.replace(from, to).as_bytes(), Kind::Snapshot).unwrap();
            assert_eq!((read.meta.len(), read.unusable.len()), (left, 2 - left), "{to}");
        }
        assert!(Metadata::parse(text.replace("\"signatures\"", "\"s\"").as_bytes(), Kind::Snapshot).is_err());
        assert!(Metadata::parse(b"<html>", Kind::Root).is_err());
        let null = r#"{"signed":{"_type":"Targets","version":1,"meta":null},"signatures":null}"#;
        assert_eq!(Metadata::parse(null.as_bytes(), Kind::Targets).unwrap().version, 1);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Metadata::parse(&bytes, Kind::Snapshot);
        }

        #[test]
        fn roles_never_leave_their_folder(text in "[a-z/.\\-_A-Z]{0,30}") {
            if is_role(&text) {
                prop_assert!(text.split('/').all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
