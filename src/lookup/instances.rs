//! Manifest lists: their members, and which one a pull takes, as containers/image chooses
//! (spec containers-image 7). Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::platform::Platform;
use crate::go::quote;
use crate::image::{Digest, DigestError, ManifestKind, kind};

const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGES: [&str; 4] = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
const ZSTD: &str = "io.github.containers.compression.zstd";

/// Why a list is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Not JSON, or not of a list's shape.
    #[error("the manifest list cannot be read: {0}")]
    Json(#[source] serde_json::Error),
    /// A member has no valid digest.
    #[error("the manifest list names {}: {reason}", quote(.digest))]
    Member {
        /// The text that stands for a digest.
        digest: String,
        /// What is wrong with it.
        reason: DigestError,
    },
    /// The registry's `Content-Type` and the manifest itself disagree.
    #[error("the registry says that the manifest is {}, but it is {found}", quote(.said))]
    Type {
        /// What the registry says.
        said: String,
        /// What the bytes are.
        found: &'static str,
    },
    /// No member is for the platform. The sentences are containers/image's own.
    #[error(
        "no image found in {what} for architecture {}, variant {}, OS {}",
        quote(&.platform.architecture),
        quote(&.platform.variant),
        quote(&.platform.os)
    )]
    NoInstance {
        /// `manifest list` or `image index`.
        what: &'static str,
        /// The best platform that was looked for.
        platform: Platform,
    },
}

/// One member of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The digest of its manifest, by which pulls look its signatures up.
    pub digest: Digest,
    /// What it runs on, if the list says so.
    pub platform: Option<Platform>,
    zstd: bool,
}

impl Member {
    /// Names the platform, for people.
    pub fn platform_name(&self) -> String {
        self.platform.as_ref().map_or_else(|| "no platform".to_owned(), ToString::to_string)
    }
}

/// A Docker manifest list or an OCI index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestList {
    /// The members, in the list's order.
    pub members: Vec<Member>,
    oci: bool,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    digest: String,
    platform: Option<Said>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
struct Said {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl ManifestList {
    /// Reads a manifest if it is a list; `None` when it is an image. `media_type` is what the
    /// registry said, empty when nobody did.
    ///
    /// # Errors
    /// [`ListError`]: a list that cannot be read, or a registry that says one thing and serves the
    /// other, which clients refuse.
    pub fn read(bytes: &[u8], media_type: &str) -> Result<Option<Self>, ListError> {
        let is_list = kind(bytes) == ManifestKind::List;
        let said = match media_type {
            DOCKER_LIST | OCI_INDEX => Some(true),
            _ if IMAGES.contains(&media_type) => Some(false),
            _ => None,
        };
        if said.is_some_and(|said| said != is_list) {
            let found = if is_list { "a list" } else { "not a list" };
            return Err(ListError::Type { said: media_type.to_owned(), found });
        }
        if is_list { Self::parse(bytes, media_type).map(Some) } else { Ok(None) }
    }

    fn parse(bytes: &[u8], media_type: &str) -> Result<Self, ListError> {
        let document: Document = serde_json::from_slice(bytes).map_err(ListError::Json)?;
        let own = document.media_type.unwrap_or_default();
        let oci = if media_type.is_empty() || !matches!(media_type, DOCKER_LIST | OCI_INDEX) {
            own != DOCKER_LIST
        } else {
            media_type == OCI_INDEX
        };
        let member = |entry: Entry| {
            let zstd = entry.annotations.is_some_and(|notes| notes.get(ZSTD).is_some_and(|value| value == "true"));
            let platform =
                entry.platform.map(|Said { os, architecture, variant }| Platform { os, architecture, variant });
            match Digest::parse(&entry.digest) {
                Ok(digest) => Ok(Member { digest, platform, zstd }),
                Err(reason) => Err(ListError::Member { digest: entry.digest, reason }),
            }
        };
        let members = document.manifests.unwrap_or_default().into_iter().map(member).collect::<Result<_, _>>()?;
        Ok(Self { members, oci })
    }

    /// Chooses the member that a pull for `platform` takes.
    ///
    /// Of an OCI index the best platform wins, then zstd before gzip, then the earlier one; a
    /// member without a platform is taken when no other will do. Docker lists know neither.
    ///
    /// # Errors
    /// [`ListError::NoInstance`].
    pub fn choose(&self, platform: &Platform) -> Result<&Member, ListError> {
        let wanted = platform.wanted();
        let rank = |member: &Member| match &member.platform {
            Some(platform) => wanted.iter().position(|wanted| wanted == platform),
            None => self.oci.then_some(usize::MAX),
        };
        let ranked = self.members.iter().filter_map(|member| Some((rank(member)?, member)));
        // Of equals the first is kept.
        let best = ranked.min_by_key(|(rank, member)| (*rank, self.oci && !member.zstd));
        best.map(|(_, member)| member).ok_or_else(|| ListError::NoInstance {
            what: if self.oci { "image index" } else { "manifest list" },
            platform: wanted.into_iter().next().unwrap_or_default(),
        })
    }

    /// Finds a member by its digest.
    pub fn member(&self, digest: &Digest) -> Option<&Member> {
        self.members.iter().find(|member| member.digest == *digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u8, platform: &str, zstd: bool) -> serde_json::Value {
        let mut entry = serde_json::json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
            "digest": Digest::sha256(&[number]),
        });
        if !platform.is_empty() {
            let platform = Platform::parse(platform).unwrap();
            entry["platform"] = serde_json::json!({
                "os": platform.os, "architecture": platform.architecture, "variant": platform.variant,
            });
        }
        if zstd {
            entry["annotations"] = serde_json::json!({ZSTD: "true"});
        }
        entry
    }

    fn choose(media_type: &str, entries: &[(&str, bool)], platform: &str) -> Result<usize, String> {
        let entries: Vec<_> =
            entries.iter().zip(1..).map(|((platform, zstd), number)| entry(number, platform, *zstd)).collect();
        let list = serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": entries});
        let list = ManifestList::read(list.to_string().as_bytes(), "").unwrap().unwrap();
        let chosen = list.choose(&Platform::parse(platform).unwrap()).map_err(|e| e.to_string())?;
        Ok(list.members.iter().position(|member| member == chosen).unwrap() + 1)
    }

    #[test]
    fn the_best_variant_wins_wherever_it_stands() {
        let list = [("linux/arm/v5", false), ("linux/arm/v7", false), ("linux/arm/v6", false), ("linux/arm", false)];
        for (platform, chosen) in
            [("linux/arm/v6", 3), ("linux/arm/v8", 2), ("linux/arm", 4), ("linux/arm/v5", 1), ("linux/arm/v4", 4)]
        {
            for media_type in [DOCKER_LIST, OCI_INDEX] {
                assert_eq!(choose(media_type, &list, platform), Ok(chosen), "{platform} {media_type}");
            }
        }
    }

    #[test]
    fn zstd_goes_first_in_an_index_only() {
        let list = [("linux/amd64", false), ("linux/amd64", true), ("linux/amd64", true)];
        assert_eq!(choose(OCI_INDEX, &list, "linux/amd64"), Ok(2));
        assert_eq!(choose(DOCKER_LIST, &list, "linux/amd64"), Ok(1));
    }

    #[test]
    fn no_platform_is_the_last_resort_of_an_index() {
        let list = [("", false), ("linux/arm64/v8", false)];
        assert_eq!(choose(OCI_INDEX, &list, "linux/arm64"), Ok(2));
        assert_eq!(choose(OCI_INDEX, &list, "linux/s390x"), Ok(1));
        assert_eq!(
            choose(DOCKER_LIST, &list, "linux/s390x").unwrap_err(),
            r#"no image found in manifest list for architecture "s390x", variant "", OS "linux""#
        );
        assert_eq!(
            choose(OCI_INDEX, &list[1..], "linux/arm/v6").unwrap_err(),
            r#"no image found in image index for architecture "arm", variant "v6", OS "linux""#
        );
        assert!(choose(OCI_INDEX, &[], "linux/amd64").is_err());
    }

    #[test]
    fn what_is_a_list_and_what_is_broken() {
        let image = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        assert_eq!(ManifestList::read(image, "").unwrap(), None);
        assert_eq!(ManifestList::read(image, "text/plain").unwrap(), None);
        assert!(matches!(ManifestList::read(image, OCI_INDEX), Err(ListError::Type { .. })));
        let list = br#"{"schemaVersion":2,"manifests":[{"digest":"sha256:x"}]}"#;
        assert!(matches!(ManifestList::read(list, IMAGES[0]), Err(ListError::Type { .. })));
        assert_eq!(
            ManifestList::read(list, "").unwrap_err().to_string(),
            "the manifest list names \"sha256:x\": invalid checksum digest length"
        );
        let twice = br#"{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[],"manifests":[]}"#;
        assert!(matches!(ManifestList::read(twice, ""), Err(ListError::Json(_)) | Ok(None)));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in r#"[{}\[\]",:a-z]{0,80}"#) {
            let _ = ManifestList::read(text.as_bytes(), OCI_INDEX);
            let _ = ManifestList::read(text.as_bytes(), "");
        }
    }
}
