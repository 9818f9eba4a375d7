//! Manifests: what kind they are, what a list contains, and what digest a signature is made for
//! (spec containers-image 4.6, 7).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::digest::{Digest, DigestError};

/// The largest manifest that is read, as containers/image limits it (4 MiB).
pub const MANIFEST_LIMIT: usize = 4 * 1024 * 1024;

const TYPED: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
];

/// The types of manifests that certainly are no lists.
const IMAGES: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// What a manifest is, guessed from its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestKind {
    /// One image.
    Image,
    /// A Docker manifest list or an OCI index.
    List,
    /// A signed schema 1 manifest, whose digest leaves the signatures out.
    SignedSchema1,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The list is not JSON, or not of a list's shape.
    #[error("manifest is not a valid list: {0}")]
    List(#[source] serde_json::Error),
    /// A member of the list has no valid digest.
    #[error("manifest list names {digest:?}: {source}")]
    Member {
        /// The text that stands for a digest.
        digest: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// The signatures inside a schema 1 manifest cannot be taken off.
    #[error("signed schema 1 manifest cannot be decoded: {0}")]
    Schema1(&'static str),
}

/// One member of a manifest list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The digest of the member's manifest, which pulls of it look signatures up by.
    pub digest: Digest,
    /// `os/architecture[/variant]`, empty parts left out.
    pub platform: String,
    /// What the list says that the member is; empty if it does not.
    pub media_type: String,
}

impl Instance {
    /// Tells whether the member is, or may be, a list itself.
    pub fn may_be_list(&self) -> bool {
        !IMAGES.contains(&self.media_type.as_str())
    }
}

#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    #[serde(rename = "schemaVersion")]
    schema_version: Option<serde_json::Value>,
    signatures: Option<serde_json::Value>,
    manifests: Option<serde_json::Value>,
}

/// Tells what kind of manifest `bytes` are; whatever cannot be read counts as an image.
pub fn kind(bytes: &[u8]) -> ManifestKind {
    let Ok(probe) = serde_json::from_slice::<Probe>(bytes) else { return ManifestKind::Image };
    let media_type = probe.media_type.unwrap_or_default();
    if !TYPED.contains(&media_type.as_str())
        && probe.schema_version.and_then(|v| v.as_u64()) == Some(1)
        && probe.signatures.is_some()
    {
        return ManifestKind::SignedSchema1;
    }
    let list = media_type.ends_with("manifest.list.v2+json") || media_type.ends_with("image.index.v1+json");
    if list || (media_type.is_empty() && probe.manifests.is_some()) { ManifestKind::List } else { ManifestKind::Image }
}

/// Computes the digest that signatures of this manifest are made for.
///
/// # Errors
/// [`ManifestError::Schema1`] when a signed schema 1 manifest is malformed; no other digest may
/// be taken for it then.
pub fn manifest_digest(bytes: &[u8]) -> Result<Digest, ManifestError> {
    match kind(bytes) {
        ManifestKind::SignedSchema1 => Ok(Digest::sha256(&schema1_payload(bytes)?)),
        ManifestKind::Image | ManifestKind::List => Ok(Digest::sha256(bytes)),
    }
}

#[derive(Deserialize)]
struct Jws {
    signatures: Vec<JwsSignature>,
}

#[derive(Deserialize)]
struct JwsSignature {
    protected: String,
}

#[derive(Deserialize, PartialEq)]
struct JwsProtected {
    #[serde(rename = "formatLength")]
    format_length: usize,
    #[serde(rename = "formatTail")]
    format_tail: String,
}

/// What libtrust puts into the signed bytes, and nothing else.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnlySignatures {
    #[serde(rename = "signatures")]
    _signatures: serde::de::IgnoredAny,
}

/// libtrust's pretty signature: the signed bytes are the head of the file up to `formatLength`,
/// then the decoded `formatTail`. All signatures must agree on both.
///
/// Stricter than containers/image, which takes both at their word, and so takes any file for any
/// other: with `formatLength` 0, all that was signed may stand in `formatTail`, and all that is
/// run outside it. Here the file must *be* the signed bytes with one member `signatures` before
/// the last brace, as every signer writes it.
fn schema1_payload(bytes: &[u8]) -> Result<Vec<u8>, ManifestError> {
    let jws: Jws =
        serde_json::from_slice(bytes).map_err(|_| ManifestError::Schema1("its signatures have not the JWS shape"))?;
    let mut agreed: Option<JwsProtected> = None;
    for signature in jws.signatures {
        let protected = URL_SAFE_NO_PAD
            .decode(signature.protected.trim_end_matches('='))
            .map_err(|_| ManifestError::Schema1("a protected header is not base64"))?;
        let protected: JwsProtected = serde_json::from_slice(&protected)
            .map_err(|_| ManifestError::Schema1("a protected header lacks formatLength or formatTail"))?;
        match &agreed {
            Some(first) if *first != protected => {
                return Err(ManifestError::Schema1("its signatures disagree on the signed bytes"));
            }
            Some(_) => {}
            None => agreed = Some(protected),
        }
    }
    let agreed = agreed.ok_or(ManifestError::Schema1("it has no signatures"))?;
    let mut payload = bytes
        .get(..agreed.format_length)
        .ok_or(ManifestError::Schema1("formatLength is beyond the end of the file"))?
        .to_vec();
    let tail = URL_SAFE_NO_PAD
        .decode(agreed.format_tail.trim_end_matches('='))
        .map_err(|_| ManifestError::Schema1("formatTail is not base64"))?;
    let other = ManifestError::Schema1("its signatures are about something else than the rest of the file");
    let between = bytes.get(agreed.format_length..).and_then(|rest| rest.strip_suffix(tail.as_slice()));
    let between = between.map(|between| between.trim_ascii_start().strip_prefix(b",").unwrap_or(between));
    let added = between
        .is_some_and(|between| serde_json::from_slice::<OnlySignatures>(&[b"{", between, b"}"].concat()).is_ok());
    if tail.trim_ascii() != b"}" || !added {
        return Err(other);
    }
    payload.extend_from_slice(&tail);
    Ok(payload)
}

#[derive(Deserialize)]
struct List {
    manifests: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize, Default)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

/// Reads the members of a list, in its order.
///
/// # Errors
/// [`ManifestError`] when the bytes are no list or a member has no valid digest.
pub fn inspect_list(bytes: &[u8]) -> Result<Vec<Instance>, ManifestError> {
    let list: List = serde_json::from_slice(bytes).map_err(ManifestError::List)?;
    list.manifests
        .into_iter()
        .map(|member| {
            let platform = member.platform.unwrap_or_default();
            let parts = [platform.os, platform.architecture, platform.variant];
            let platform =
                parts.iter().filter(|part| !part.is_empty()).map(String::as_str).collect::<Vec<_>>().join("/");
            match Digest::parse(&member.digest) {
                Ok(digest) => Ok(Instance { digest, platform, media_type: member.media_type }),
                Err(source) => Err(ManifestError::Member { digest: member.digest, source }),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_manifests_hash_as_they_stand() {
        for text in
            ["{}", "not json", r#"{"schemaVersion":2,"signatures":[1]}"#, r#"{"schemaVersion":1,"signatures":null}"#]
        {
            assert_eq!(manifest_digest(text.as_bytes()).unwrap(), Digest::sha256(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn schema1_hashes_without_its_signatures() {
        let body = "{\n   \"schemaVersion\": 1,\n   \"name\": \"x\"\n}";
        let head = &body[..body.len() - 2];
        let tail = &body[body.len() - 2..];
        let header = format!(r#"{{"formatLength":{},"formatTail":"{}"}}"#, head.len(), URL_SAFE_NO_PAD.encode(tail));
        let signed = |header: &str| {
            format!("{head},\n   \"signatures\": [{{\"protected\":\"{}\"}}]\n}}", URL_SAFE_NO_PAD.encode(header))
        };
        let text = signed(&header);
        assert_eq!(kind(text.as_bytes()), ManifestKind::SignedSchema1);
        assert_eq!(manifest_digest(text.as_bytes()).unwrap(), Digest::sha256(body.as_bytes()));
        assert!(manifest_digest(signed(r#"{"formatLength":99999,"formatTail":""}"#).as_bytes()).is_err());
        assert!(manifest_digest(signed("nonsense").as_bytes()).is_err());
        // A media type of today makes it an ordinary manifest, whatever else it says.
        let typed =
            text.replacen("\"name\"", "\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"name\"", 1);
        assert_eq!(manifest_digest(typed.as_bytes()).unwrap(), Digest::sha256(typed.as_bytes()));
    }

    /// `skopeo copy --format v2s1` (1.9.3) to docker-registry 2.8.2, and `skopeo manifest-digest`.
    #[test]
    fn a_schema1_manifest_that_skopeo_wrote() {
        let text = include_bytes!("../../tests/data/schema1.json");
        let digest = manifest_digest(text).unwrap().to_string();
        assert_eq!(digest, "sha256:4ca2e8dddfe1b28f532d299ae2d73f7598efcb8992dc60ea202461774f3d1c8d");
    }

    #[test]
    fn schema1_signatures_are_about_the_file_they_stand_in() {
        let signed = br#"{"schemaVersion":2,"config":{"digest":"good"}}"#;
        for (length, tail) in [(0, &signed[..]), (1, &signed[1..])] {
            let header = format!(r#"{{"formatLength":{length},"formatTail":"{}"}}"#, URL_SAFE_NO_PAD.encode(tail));
            let protected = URL_SAFE_NO_PAD.encode(header);
            for extra in [r#""#, r#","mediaType":"x""#, r#","MediaType":"application/vnd.oci.image.manifest.v1+json""#]
            {
                let text = format!(
                    r#"{{"schemaVersion":1{extra},"config":{{"digest":"evil"}},"signatures":[{{"protected":"{protected}"}}]}}"#
                );
                assert_eq!(kind(text.as_bytes()), ManifestKind::SignedSchema1);
                assert!(manifest_digest(text.as_bytes()).is_err(), "{text}");
            }
        }
        // Nor is anything else hidden beside the signatures, or deeper down.
        let head = "{\n   \"schemaVersion\": 1";
        let header = format!(r#"{{"formatLength":{},"formatTail":"fQ"}}"#, head.len());
        let protected = format!(r#""signatures":[{{"protected":"{}"}}]"#, URL_SAFE_NO_PAD.encode(header));
        assert!(manifest_digest(format!("{head},{protected}}}").as_bytes()).is_ok());
        for text in [
            format!("{head},\"layers\":[],{protected}}}"),
            format!("{head},{protected},\"layers\":[]}}"),
            format!("{head},{protected},\"signatures\":[]}}"),
            format!("{head},{protected}}}}}"),
        ] {
            assert!(
                manifest_digest(text.as_bytes()).is_err() || kind(text.as_bytes()) == ManifestKind::Image,
                "{text}"
            );
        }
    }

    #[test]
    fn lists_name_their_instances() {
        let digest = Digest::sha256(b"member");
        let list = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"digest":"{digest}","platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}},{{"digest":"{digest}"}}]}}"#
        );
        assert_eq!(kind(list.as_bytes()), ManifestKind::List);
        let members = inspect_list(list.as_bytes()).unwrap();
        assert_eq!(members.iter().map(|m| m.platform.as_str()).collect::<Vec<_>>(), ["linux/arm/v7", ""]);
        assert!(inspect_list(br#"{"manifests":[{"digest":"sha256:../x"}]}"#).is_err());
        assert!(inspect_list(b"[]").is_err());
    }
}
