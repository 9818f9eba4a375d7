//! The claim of a simple signature: this digest may be called by this name
//! (spec containers-image 4.1, 4.2).
//!
//! ```json
//! {"critical":{"identity":{"docker-reference":"us.icr.io/birds/bluebird:build1"},
//!              "image":{"docker-manifest-digest":"sha256:…"},
//!              "type":"atomic container signature"},
//!  "optional":{"creator":"countersign 0.1.0","timestamp":1767225600}}
//! ```

use crate::image::{Digest, DigestError};
use crate::json::{self, JsonError};

const SIGNATURE_TYPE: &str = "atomic container signature";
const SIGSTORE_TYPE: &str = "cosign container image signature";

/// Why a payload is no claim. The sentences are containers/image's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// The JSON has not the exact shape.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// `critical.type` is something else.
    #[error("Unrecognized signature type {0}")]
    Type(String),
    /// The digest is not valid.
    #[error("invalid docker-manifest-digest value {quoted}: {1}", quoted = crate::go::quote(.0))]
    Digest(String, DigestError),
    /// `optional.timestamp` has a fraction or is out of range.
    #[error("Field optional.timestamp is not an integer")]
    Timestamp,
    /// Asked to write a claim that names nothing.
    #[error("Unexpected empty signature content")]
    Empty,
}

/// A parsed claim. Untrusted until the signature around it has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `docker-reference` verbatim; any text, checked only when it is matched against an image.
    pub reference: String,
    /// `docker-manifest-digest`.
    pub digest: Digest,
    /// `optional.creator`, informational.
    pub creator: Option<String>,
    /// `optional.timestamp`, Unix seconds, informational: no freshness is ever read from it.
    pub timestamp: Option<i64>,
}

impl Claim {
    /// Parses a payload with the strictness of containers/image.
    ///
    /// # Errors
    /// [`ClaimError`], naming the first fault in the order in which containers/image looks.
    pub fn parse(payload: &[u8]) -> Result<Self, ClaimError> {
        Self::parse_as(payload, SIGNATURE_TYPE, false)
    }

    /// Parses the payload of a sigstore signature: another type, and `optional` may be null.
    ///
    /// # Errors
    /// As [`Claim::parse`].
    pub fn parse_sigstore(payload: &[u8]) -> Result<Self, ClaimError> {
        Self::parse_as(payload, SIGSTORE_TYPE, true)
    }

    fn parse_as(payload: &[u8], wanted: &str, null_optional: bool) -> Result<Self, ClaimError> {
        json::validate(payload)?;
        let text = json::text(payload);
        let [critical, optional] = json::exact(&text, ["critical", "optional"])?;
        let (creator, timestamp) = match optional.get() {
            "null" if null_optional => (None, None),
            optional => parse_optional(optional)?,
        };

        let [kind, image, identity] = json::exact(critical.get(), ["type", "image", "identity"])?;
        let kind = json::string(kind)?.unwrap_or_default();
        if kind != wanted {
            return Err(ClaimError::Type(kind));
        }
        let [digest] = json::exact(image.get(), ["docker-manifest-digest"])?;
        let digest = json::string(digest)?.unwrap_or_default();
        let digest = Digest::parse(&digest).map_err(|e| ClaimError::Digest(digest, e))?;
        let [reference] = json::exact(identity.get(), ["docker-reference"])?;
        let reference = json::string(reference)?.unwrap_or_default();
        Ok(Self { reference, digest, creator, timestamp })
    }

    /// Writes the claim: compact, keys sorted, escaped as Go's encoder does, and nothing in
    /// `optional` but an own creator and an integer timestamp (OpenShift refuses more).
    ///
    /// # Errors
    /// [`ClaimError::Empty`] when there is no name.
    pub fn render(&self) -> Result<Vec<u8>, ClaimError> {
        if self.reference.is_empty() {
            return Err(ClaimError::Empty);
        }
        let mut optional = serde_json::Map::new();
        if let Some(creator) = &self.creator {
            optional.insert("creator".to_owned(), creator.as_str().into());
        }
        if let Some(timestamp) = self.timestamp {
            optional.insert("timestamp".to_owned(), timestamp.into());
        }
        let value = serde_json::json!({
            "critical": {
                "identity": { "docker-reference": self.reference },
                "image": { "docker-manifest-digest": self.digest.to_string() },
                "type": SIGNATURE_TYPE,
            },
            "optional": optional,
        });
        Ok(go_escape(&value.to_string()).into_bytes())
    }
}

fn parse_optional(text: &str) -> Result<(Option<String>, Option<i64>), ClaimError> {
    let mut creator = None;
    let mut timestamp = None;
    json::object(text, |key, value| {
        match key {
            "creator" => creator = Some(json::string(value)?.unwrap_or_default()),
            "timestamp" => timestamp = Some(integer(json::float(value)?.unwrap_or_default())?),
            _ => json::any(value)?,
        }
        Ok::<_, ClaimError>(true)
    })?;
    Ok((creator, timestamp))
}

/// Go reads the timestamp as a float and wants it to survive the way to `int64` and back.
fn integer(number: f64) -> Result<i64, ClaimError> {
    // 2^63 itself is no i64 any more, while -2^63 is one.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() != 0.0 || !(-LIMIT..LIMIT).contains(&number) {
        return Err(ClaimError::Timestamp);
    }
    #[expect(clippy::cast_possible_truncation, reason = "range and fraction were checked above")]
    Ok(number as i64)
}

/// Go's encoder escapes what could end a script element; all of these occur in strings only.
fn go_escape(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn with(critical: &str, optional: &str) -> String {
        format!(r#"{{"critical":{critical},"optional":{optional}}}"#)
    }

    fn critical() -> String {
        format!(
            r#"{{"type":"atomic container signature","image":{{"docker-manifest-digest":"sha256:{HEX}"}},"identity":{{"docker-reference":"a/b:c"}}}}"#
        )
    }

    fn parse(text: &str) -> Result<Claim, String> {
        Claim::parse(text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn renders_what_go_renders() {
        let claim = Claim {
            reference: "a<b>&c".to_owned(),
            digest: Digest::sha256(b""),
            creator: Some("countersign 1".to_owned()),
            timestamp: Some(1_767_225_600),
        };
        let text = String::from_utf8(claim.render().unwrap()).unwrap();
        insta::assert_snapshot!(text, @r#"{"critical":{"identity":{"docker-reference":"a\u003cb\u003e\u0026c"},"image":{"docker-manifest-digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},"type":"atomic container signature"},"optional":{"creator":"countersign 1","timestamp":1767225600}}"#);
        assert_eq!(Claim::parse(text.as_bytes()), Ok(claim));
    }

    #[test]
    fn optional_is_tolerant_where_go_is() {
        let timestamp = |optional: &str| parse(&with(&critical(), optional)).map(|claim| claim.timestamp);
        assert_eq!(timestamp("{}"), Ok(None));
        assert_eq!(timestamp(r#"{"x":{"a":1,"a":2},"creator":null}"#), Ok(None));
        assert_eq!(timestamp(r#"{"timestamp":1e9}"#), Ok(Some(1_000_000_000)));
        assert_eq!(timestamp(r#"{"timestamp":1.0}"#), Ok(Some(1)));
        assert_eq!(timestamp(r#"{"timestamp":null}"#), Ok(Some(0)));
        assert_eq!(timestamp(r#"{"timestamp":9007199254740993}"#), Ok(Some(9_007_199_254_740_992)));
        let refused = "Field optional.timestamp is not an integer";
        assert_eq!(timestamp(r#"{"timestamp":0.5}"#), Err(refused.to_owned()));
        assert_eq!(timestamp(r#"{"timestamp":9223372036854775807}"#), Err(refused.to_owned()));
        assert_eq!(timestamp(r#"{"timestamp":-9223372036854775808}"#), Ok(Some(i64::MIN)));
        assert!(timestamp(r#"{"timestamp":"1"}"#).is_err());
        assert!(timestamp(r#"{"creator":1}"#).is_err());
        assert!(timestamp(r#"{"x":[1e999]}"#).is_err());
        assert_eq!(timestamp(r#"{"x":1,"x":1}"#), Err("Duplicate key \"x\"".to_owned()));
        assert_eq!(timestamp("null"), Err("JSON object expected, got <nil>".to_owned()));
    }

    #[test]
    fn critical_is_strict() {
        let good = critical();
        for (bad, error) in [
            (good.replacen("a/b:c\"", "a/b:c\",\"x\":1", 1), "Unknown key \"x\""),
            (good.replace("atomic container signature", "cosign"), "Unrecognized signature type cosign"),
            (good.replace("docker-reference", "Docker-Reference"), "Unknown key \"Docker-Reference\""),
            (
                good.replace(HEX, "abc"),
                "invalid docker-manifest-digest value \"sha256:abc\": invalid checksum digest length",
            ),
            ("{}".to_owned(), "Key \"type\" missing in a JSON object"),
            ("[]".to_owned(), "JSON object expected, got 91"),
        ] {
            assert_eq!(parse(&with(&bad, "{}")), Err(error.to_owned()));
        }
        assert_eq!(
            parse(&format!(r#"{{"critical":{good}}}"#)),
            Err("Key \"optional\" missing in a JSON object".to_owned())
        );
        assert_eq!(parse(&with(&good.replace("\"a/b:c\"", "null"), "{}")).map(|c| c.reference), Ok(String::new()));
        assert!(parse(&format!("{} {{}}", with(&good, "{}"))).is_err());
    }

    #[test]
    fn sigstore_claims_have_another_type() {
        let sigstore = critical().replace("atomic container signature", SIGSTORE_TYPE);
        for optional in ["null", "{}"] {
            assert!(Claim::parse_sigstore(with(&sigstore, optional).as_bytes()).is_ok());
            assert!(Claim::parse(with(&sigstore, optional).as_bytes()).is_err());
        }
        assert!(Claim::parse_sigstore(with(&critical(), "{}").as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn parse_of_render_is_the_claim(reference in ".{1,40}", creator in proptest::option::of(".{0,20}"), timestamp in proptest::option::of(-9_007_199_254_740_992_i64..9_007_199_254_740_992)) {
            let claim = Claim { reference, digest: Digest::sha256(b"x"), creator, timestamp };
            proptest::prop_assert_eq!(Claim::parse(&claim.render().unwrap()), Ok(claim));
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = Claim::parse(&bytes);
        }
    }
}
