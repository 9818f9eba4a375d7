//! The log's word: verification of a Rekor signed entry timestamp (SET) and of what it says.
//!
//! The SET is a signature by the log over the canonical JSON (RFC 8785) of the entry. It proves
//! that the log holds *this* signature by *this* key over *this* payload, and since when; so
//! every one of them is compared. Order and sentences are those of containers/image.

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::key::PublicKey;
use super::pem;
use crate::go;
use crate::json::{self, JsonError};

/// The kind and the version of log entry that container signatures are.
const KIND: &str = "hashedrekord";
const API_VERSION: &str = "0.0.1";

/// Why a SET does not vouch for a signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RekorError {
    /// The SET is not the JSON object that it must be.
    #[error(transparent)]
    Set(JsonError),
    /// The entry has no canonical form, so nothing can have been signed.
    #[error("canonicalizing Rekor SET JSON: {0}")]
    Canonical(String),
    /// No log key made this SET.
    #[error("cryptographic signature verification of Rekor SET failed")]
    Unverified,
    /// The entry's members are not what they must be.
    #[error("parsing Rekor SET payload: {0}")]
    Payload(String),
    /// The entry's body is not the JSON that it must be.
    #[error("decoding the body of a Rekor SET payload: {0}")]
    Body(String),
    /// The entry has no version.
    #[error("missing Rekor SET Payload API version")]
    NoVersion,
    /// The entry has another version.
    #[error("unsupported Rekor SET Payload hashedrekord version {}", go::quote(.0))]
    Version(String),
    /// The entry's details are not the JSON that they must be.
    #[error("decoding hashedrekod spec: {0}")]
    Spec(String),
    /// A member is not there.
    #[error("Missing \"{0}\" field in hashedrekord")]
    Missing(&'static str),
    /// The logged key or certificate is no PEM.
    #[error("publicKey in Rekor SET is not in PEM format")]
    LoggedNotPem,
    /// Something follows the logged key or certificate.
    #[error("publicKey in Rekor SET has trailing data")]
    LoggedTrailing,
    /// The signature's certificate is no PEM.
    #[error("public key or cert to be matched against publicKey in Rekor SET is not in PEM format")]
    ExpectedNotPem,
    /// Something follows the signature's certificate.
    #[error("public key or cert to be matched against publicKey in Rekor SET has trailing data")]
    ExpectedTrailing,
    /// Another key or certificate was logged.
    #[error("publicKey in Rekor SET does not match")]
    KeyMismatch,
    /// The signature is no base64, from this byte on.
    #[error("decoding signature base64: illegal base64 data at input byte {0}")]
    Signature(usize),
    /// Another signature was logged.
    #[error("signature in Rekor SET does not match")]
    SignatureMismatch,
    /// The payload was logged by another hash than SHA-256.
    #[error("Unexpected \"data.hash.algorithm\" value {}", go::quote(.0))]
    HashAlgorithm(String),
    /// The logged hash is no hex.
    #[error("Invalid \"data.hash.value\" field in hashedrekord: {0}")]
    Hash(String),
    /// Another payload was logged.
    #[error("payload in Rekor SET does not match")]
    PayloadMismatch,
}

/// What must stand in the log as the maker of the signature.
#[derive(Clone, Copy, Debug)]
pub(super) enum Maker<'a> {
    /// A key of the policy.
    Key(&'a PublicKey),
    /// The certificate of the signature's annotation, as it stands there.
    CertificatePem(&'a str),
}

/// Verifies `set` with any of `keys`, and that it is about this maker, signature and payload.
/// Returns when the log took the entry, in Unix seconds.
pub(super) fn verify_set(
    keys: &[PublicKey],
    set: &str,
    maker: Maker<'_>,
    signature: &str,
    payload: &[u8],
) -> Result<i64, RekorError> {
    json::validate(set.as_bytes()).map_err(RekorError::Set)?;
    let [timestamp, entry] = json::exact(set, ["SignedEntryTimestamp", "Payload"]).map_err(RekorError::Set)?;
    let timestamp = json::bytes(timestamp).map_err(RekorError::Set)?.unwrap_or_default();

    let entry = Entry::parse(entry)?;
    let canonical = entry.canonical();
    if !keys.iter().any(|key| key.verify(canonical.as_bytes(), &timestamp).is_ok()) {
        return Err(RekorError::Unverified);
    }

    let body =
        go::base64(entry.body.as_bytes()).map_err(|at| RekorError::Payload(JsonError::Base64(at).to_string()))?;
    HashedRekord::parse(&body)?.matches(maker, signature, payload)?;
    Ok(entry.integrated_time)
}

/// The part of a SET that the log signed.
#[derive(Debug)]
struct Entry {
    body: String,
    integrated_time: i64,
    log_id: String,
    log_index: i64,
}

impl Entry {
    /// Takes exactly the four members that an entry has, so that the canonical form of what was
    /// signed is known before anything is trusted; containers/image canonicalises any JSON first
    /// and refuses every other shape after that.
    fn parse(entry: &RawValue) -> Result<Self, RekorError> {
        let canonical = |e: JsonError| RekorError::Canonical(e.to_string());
        let [body, integrated_time, log_id, log_index] =
            json::exact(entry.get(), ["body", "integratedTime", "logID", "logIndex"]).map_err(canonical)?;
        let text = |value: &RawValue| {
            json::string(value)
                .map_err(canonical)?
                .ok_or_else(|| RekorError::Canonical("null where a string is due".to_owned()))
        };
        Ok(Self {
            body: text(body)?,
            integrated_time: whole(integrated_time)?,
            log_id: text(log_id)?,
            log_index: whole(log_index)?,
        })
    }

    /// Writes the entry as RFC 8785 does: no space, members by name, numbers as ECMAScript.
    fn canonical(&self) -> String {
        let Self { body, integrated_time, log_id, log_index } = self;
        // serde_json escapes exactly what RFC 8785 wants escaped, and in the same way.
        let (body, log_id) = (serde_json::Value::from(body.as_str()), serde_json::Value::from(log_id.as_str()));
        format!(r#"{{"body":{body},"integratedTime":{integrated_time},"logID":{log_id},"logIndex":{log_index}}}"#)
    }
}

/// Reads a number that is whole and small enough to be exact in every reader's float.
fn whole(value: &RawValue) -> Result<i64, RekorError> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match json::float(value) {
        Ok(Some(number)) if number.fract() == 0.0 && number.abs() <= EXACT =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "range and fraction were checked above")]
            Ok(number as i64)
        }
        Ok(_) => Err(RekorError::Canonical(format!("{} is no exact integer", value.get()))),
        Err(e) => Err(RekorError::Canonical(e.to_string())),
    }
}

/// What the log says of a signature; a member that is absent or `null` is `None`.
#[derive(Debug)]
struct HashedRekord {
    /// `signature.content`; without it no signature matches.
    signature: Vec<u8>,
    /// `signature.publicKey.content`.
    maker: Vec<u8>,
    algorithm: String,
    hash: Vec<u8>,
}

impl HashedRekord {
    fn parse(body: &[u8]) -> Result<Self, RekorError> {
        let in_body = |e: JsonError| RekorError::Body(e.to_string());
        let in_spec = |e: JsonError| RekorError::Spec(e.to_string());
        let text = std::str::from_utf8(body).map_err(|e| RekorError::Body(e.to_string()))?;
        let [kind, version, spec] = pick(text, ["kind", "apiVersion", "spec"]).map_err(in_body)?;
        let kind = string(kind).map_err(in_body)?.unwrap_or_default();
        if kind != KIND {
            return Err(RekorError::Body(format!("invalid kind value: {}", go::quote(&kind))));
        }
        match string(version).map_err(in_body)? {
            None => return Err(RekorError::NoVersion),
            Some(version) if version != API_VERSION => return Err(RekorError::Version(version)),
            Some(_) => {}
        }
        let spec = spec.ok_or_else(|| RekorError::Spec("unexpected end of JSON input".to_owned()))?;
        let [data, signature] = pick(spec.get(), ["data", "signature"]).map_err(in_spec)?;

        let signature = signature.ok_or(RekorError::Missing("signature"))?;
        let [content, public_key] = pick(signature.get(), ["content", "publicKey"]).map_err(in_spec)?;
        let public_key = public_key.ok_or(RekorError::Missing("signature.publicKey"))?;
        let [maker] = pick(public_key.get(), ["content"]).map_err(in_spec)?;

        let data = data.ok_or(RekorError::Missing("data"))?;
        let [hash] = pick(data.get(), ["hash"]).map_err(in_spec)?;
        let hash = hash.ok_or(RekorError::Missing("data.hash"))?;
        let [algorithm, value] = pick(hash.get(), ["algorithm", "value"]).map_err(in_spec)?;
        let algorithm = string(algorithm).map_err(in_spec)?.ok_or(RekorError::Missing("data.hash.algorithm"))?;
        let value = string(value).map_err(in_spec)?.ok_or(RekorError::Missing("data.hash.value"))?;
        Ok(Self {
            signature: bytes(content)?,
            maker: bytes(maker)?,
            algorithm,
            hash: hex::decode(value).map_err(|e| RekorError::Hash(e.to_string()))?,
        })
    }

    fn matches(&self, maker: Maker<'_>, signature: &str, payload: &[u8]) -> Result<(), RekorError> {
        let (logged, rest) = pem::decode(&self.maker).ok_or(RekorError::LoggedNotPem)?;
        if !rest.is_empty() {
            return Err(RekorError::LoggedTrailing);
        }
        let same = match maker {
            Maker::Key(key) => logged.der == key.spki(),
            Maker::CertificatePem(text) => {
                let (expected, rest) = pem::decode(text.as_bytes()).ok_or(RekorError::ExpectedNotPem)?;
                if !rest.is_empty() {
                    return Err(RekorError::ExpectedTrailing);
                }
                logged.der == expected.der
            }
        };
        if !same {
            return Err(RekorError::KeyMismatch);
        }
        if self.signature != go::base64(signature.as_bytes()).map_err(RekorError::Signature)? {
            return Err(RekorError::SignatureMismatch);
        }
        if self.algorithm != "sha256" {
            return Err(RekorError::HashAlgorithm(self.algorithm.clone()));
        }
        if self.hash != Sha256::digest(payload).as_slice() {
            return Err(RekorError::PayloadMismatch);
        }
        Ok(())
    }
}

/// Takes members out of an object and ignores the others; `null` counts as absent. Stricter than
/// Go in that a repeated member is an error and that names must match in case: the log writes
/// its entries in one form only.
fn pick<'a, const N: usize>(text: &'a str, keys: [&str; N]) -> Result<[Option<&'a RawValue>; N], JsonError> {
    let mut found = [None; N];
    json::object(text, |key, value| {
        if let Some(slot) = keys.iter().position(|k| *k == key).and_then(|at| found.get_mut(at))
            && json::kind(value.get()) != "null"
        {
            *slot = Some(value);
        }
        Ok::<_, JsonError>(true)
    })?;
    Ok(found)
}

fn string(value: Option<&RawValue>) -> Result<Option<String>, JsonError> {
    value.map_or(Ok(None), json::string)
}

fn bytes(value: Option<&RawValue>) -> Result<Vec<u8>, RekorError> {
    let bytes = value.map_or(Ok(None), json::bytes).map_err(|e| RekorError::Spec(e.to_string()))?;
    Ok(bytes.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Result<Entry, RekorError> {
        Entry::parse(&RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn the_canonical_form_is_rfc_8785s() {
        let parsed = entry(
            r#" { "logIndex" : 8.949589e6, "logID":"c0\u00e9\/", "body":"e\u0079\n\u000b\"\u007f=", "integratedTime": 1670870899.0 } "#,
        );
        assert_eq!(
            parsed.unwrap().canonical(),
            "{\"body\":\"ey\\n\\u000b\\\"\u{7f}=\",\"integratedTime\":1670870899,\"logID\":\"c0\u{e9}/\",\"logIndex\":8949589}"
        );
        let zero = entry(r#"{"body":"","integratedTime":-0,"logID":"","logIndex":-1}"#).unwrap();
        assert_eq!(zero.canonical(), r#"{"body":"","integratedTime":0,"logID":"","logIndex":-1}"#);
    }

    #[test]
    fn an_entry_has_exactly_its_members() {
        for bad in [
            r#"{"body":"","integratedTime":1,"logID":""}"#,
            r#"{"body":"","integratedTime":1,"logID":"","logIndex":1,"x":1}"#,
            r#"{"body":"","integratedTime":1,"logID":"","logIndex":1,"body":""}"#,
            r#"{"body":"","integratedTime":1.5,"logID":"","logIndex":1}"#,
            r#"{"body":"","integratedTime":1e300,"logID":"","logIndex":1}"#,
            r#"{"body":"","integratedTime":9007199254740994,"logID":"","logIndex":1}"#,
            r#"{"body":"","integratedTime":null,"logID":"","logIndex":1}"#,
            r#"{"body":null,"integratedTime":1,"logID":"","logIndex":1}"#,
            r#"{"body":"\ud800","integratedTime":1,"logID":"","logIndex":1}"#,
            r#"["body"]"#,
        ] {
            assert!(matches!(entry(bad), Err(RekorError::Canonical(_))), "{bad}");
        }
    }

    #[test]
    fn a_body_must_say_everything() {
        let good = r#"{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":"AAbb"}},"signature":{"content":"YQ==","publicKey":{"content":"Yg=="}}},"more":1}"#;
        let parsed = HashedRekord::parse(good.as_bytes()).unwrap();
        assert_eq!((parsed.signature.as_slice(), parsed.maker.as_slice()), (&b"a"[..], &b"b"[..]));
        assert_eq!(parsed.hash, [0xaa, 0xbb]);
        for (from, to, error) in [
            (
                r#""kind":"hashedrekord""#,
                r#""kind":"rekord""#,
                "decoding the body of a Rekor SET payload: invalid kind value: \"rekord\"",
            ),
            (r#""kind":"hashedrekord","#, "", "decoding the body of a Rekor SET payload: invalid kind value: \"\""),
            (r#""apiVersion":"0.0.1","#, "", "missing Rekor SET Payload API version"),
            ("0.0.1", "0.0.2", "unsupported Rekor SET Payload hashedrekord version \"0.0.2\""),
            (
                r#""0.0.1""#,
                "1",
                "decoding the body of a Rekor SET payload: json: cannot unmarshal number into Go value of type string",
            ),
            (r#""spec""#, r#""sp""#, "decoding hashedrekod spec: unexpected end of JSON input"),
            (r#""signature""#, r#""s""#, "Missing \"signature\" field in hashedrekord"),
            (r#""publicKey":{"#, r#""publicKey":null,"p":{"#, "Missing \"signature.publicKey\" field in hashedrekord"),
            (r#""data""#, r#""Data""#, "Missing \"data\" field in hashedrekord"),
            (r#""hash""#, r#""h""#, "Missing \"data.hash\" field in hashedrekord"),
            (r#""algorithm""#, r#""a""#, "Missing \"data.hash.algorithm\" field in hashedrekord"),
            (r#""value""#, r#""v""#, "Missing \"data.hash.value\" field in hashedrekord"),
            ("AAbb", "AAb", "Invalid \"data.hash.value\" field in hashedrekord: Odd number of digits"),
            ("YQ==", "+", "decoding hashedrekod spec: illegal base64 data at input byte 0"),
            (
                r#"{"hash":{"algorithm":"sha256","value":"AAbb"}}"#,
                "1",
                "decoding hashedrekod spec: JSON object expected, got 1",
            ),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert_eq!(HashedRekord::parse(bad.as_bytes()).unwrap_err().to_string(), error, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[{}\":a-zI,0-9.e-]{0,60}", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let _ = HashedRekord::parse(text.as_bytes());
            let _ = HashedRekord::parse(&bytes);
            let _ = verify_set(&[], &text, Maker::CertificatePem(&text), &text, &bytes);
        }

        #[test]
        fn canonical_form_is_a_fixed_point(body in ".{0,20}", integrated_time in -9_007_199_254_740_992_i64..9_007_199_254_740_992, log_id in ".{0,20}", log_index in 0_i64..9_007_199_254_740_992) {
            let canonical = Entry { body, integrated_time, log_id, log_index }.canonical();
            proptest::prop_assert_eq!(entry(&canonical).unwrap().canonical(), canonical);
        }
    }
}
