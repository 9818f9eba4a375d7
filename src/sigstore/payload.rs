//! The payload of a sigstore image signature: the claim in cosign's spelling.
//!
//! The shape is that of simple signing (spec containers-image 4.2), but for the type string and
//! that `optional` may be `null`, which cosign writes when it has nothing to say.

use crate::image::Digest;
use crate::json;
use crate::signature::ClaimError;

const SIGNATURE_TYPE: &str = "cosign container image signature";

/// A parsed payload. Untrusted until the signature over its bytes has been verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload {
    pub reference: String,
    pub digest: Digest,
    pub creator: Option<String>,
    pub timestamp: Option<i64>,
}

impl Payload {
    /// Parses with the strictness, the order and the sentences of containers/image.
    pub fn parse(payload: &[u8]) -> Result<Self, ClaimError> {
        let text = json::text(payload);
        let [critical, optional] = json::exact(&text, ["critical", "optional"])?;
        let (creator, timestamp) = parse_optional(optional.get())?;

        let [kind, image, identity] = json::exact(critical.get(), ["type", "image", "identity"])?;
        let kind = json::string(kind)?.unwrap_or_default();
        if kind != SIGNATURE_TYPE {
            return Err(ClaimError::Type(kind));
        }
        let [digest] = json::exact(image.get(), ["docker-manifest-digest"])?;
        let digest = json::string(digest)?.unwrap_or_default();
        let digest = Digest::parse(&digest).map_err(|e| ClaimError::Digest(digest, e))?;
        let [reference] = json::exact(identity.get(), ["docker-reference"])?;
        let reference = json::string(reference)?.unwrap_or_default();
        Ok(Self { reference, digest, creator, timestamp })
    }
}

fn parse_optional(text: &str) -> Result<(Option<String>, Option<i64>), ClaimError> {
    let mut creator = None;
    let mut timestamp = None;
    if text != "null" {
        json::object(text, |key, value| {
            match key {
                "creator" => creator = Some(json::string(value)?.unwrap_or_default()),
                "timestamp" => timestamp = Some(json::float(value)?.unwrap_or_default()),
                _ => {}
            }
            Ok::<_, ClaimError>(true)
        })?;
    }
    Ok((creator, timestamp.map(|number| integer(number).ok_or(ClaimError::Timestamp)).transpose()?))
}

/// Go reads whole numbers through a float and wants them to survive the way to `int64` and back.
fn integer(number: f64) -> Option<i64> {
    // 2^63 itself is no i64 any more, while -2^63 is one.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if number.fract() != 0.0 || !(-LIMIT..LIMIT).contains(&number) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "range and fraction were checked above")]
    Some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:43955d6857268cc948ae9b370b221091057de83c4962da0826f9a2bdc9bd6b44";

    fn critical() -> String {
        format!(
            r#"{{"identity":{{"docker-reference":"h:5000/a"}},"image":{{"docker-manifest-digest":"{DIGEST}"}},"type":"cosign container image signature"}}"#
        )
    }

    fn parse(critical: &str, optional: &str) -> Result<Payload, String> {
        let text = format!(r#"{{"critical":{critical},"optional":{optional}}}"#);
        Payload::parse(text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn optional_may_be_null() {
        let payload = parse(&critical(), "null").unwrap();
        assert_eq!(payload.reference, "h:5000/a");
        assert_eq!(payload.digest.to_string(), DIGEST);
        assert_eq!((payload.creator, payload.timestamp), (None, None));
    }

    #[test]
    fn optional_is_checked_when_there() {
        let payload = parse(&critical(), r#"{"creator":"c","timestamp":1e9,"x":{"y":1}}"#).unwrap();
        assert_eq!((payload.creator.as_deref(), payload.timestamp), (Some("c"), Some(1_000_000_000)));
        for (optional, error) in [
            (r#"{"timestamp":0.5}"#, "Field optional.timestamp is not an integer"),
            (r#"{"timestamp":9223372036854775808}"#, "Field optional.timestamp is not an integer"),
            (r#"{"x":1,"x":1}"#, "Duplicate key \"x\""),
            (r#"{"creator":1}"#, "json: cannot unmarshal number into Go value of type string"),
            ("[]", "JSON object expected, got 91"),
            ("1", "JSON object expected, got 1"),
        ] {
            assert_eq!(parse(&critical(), optional), Err(error.to_owned()), "{optional}");
        }
    }

    #[test]
    fn critical_is_strict() {
        let good = critical();
        for (bad, error) in [
            (
                good.replace("cosign container", "atomic container"),
                "Unrecognized signature type atomic container image signature",
            ),
            (good.replacen('{', r#"{"x":1,"#, 1), "Unknown key \"x\""),
            (good.replace("docker-reference", "Docker-Reference"), "Unknown key \"Docker-Reference\""),
            (
                good.replace(DIGEST, "sha256:../.."),
                "invalid docker-manifest-digest value \"sha256:../..\": invalid checksum digest length",
            ),
            ("null".to_owned(), "JSON object expected, got <nil>"),
            ("{}".to_owned(), "Key \"type\" missing in a JSON object"),
        ] {
            assert_eq!(parse(&bad, "null"), Err(error.to_owned()), "{bad}");
        }
        let alone = format!(r#"{{"critical":{good}}}"#);
        assert_eq!(
            Payload::parse(alone.as_bytes()).unwrap_err().to_string(),
            "Key \"optional\" missing in a JSON object"
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80), optional in "[{}\":a-z0-9.,e-]{0,30}") {
            let _ = Payload::parse(&bytes);
            let _ = parse(&critical(), &optional);
        }
    }
}
