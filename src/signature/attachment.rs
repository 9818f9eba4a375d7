//! A sigstore signature as containers/image stores it in a lookaside (spec containers-image 6):
//! untrusted until a mechanism has verified it.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::value::RawValue;

use crate::go;
use crate::json::{self, JsonError};

/// The MIME type of what is a signature; other attachments are not looked at.
pub const MIME_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation that holds the signature of the payload, in base64.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The annotation that holds the log's signed entry timestamp (SET).
pub const SET_ANNOTATION: &str = "dev.sigstore.cosign/bundle";
/// The annotation that holds the signer's certificate, in PEM.
pub const CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";
/// The annotation that holds the intermediate certificates and, last, their root, in PEM.
pub const CHAIN_ANNOTATION: &str = "dev.sigstore.cosign/chain";

/// The content of a `sigstore-json` blob, untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SigstoreAttachment {
    /// What the payload is.
    pub mime_type: String,
    /// What was signed.
    pub payload: Vec<u8>,
    /// The signature, certificates and log entries, by name.
    pub annotations: BTreeMap<String, String>,
}

/// Why a blob is no sigstore attachment. Makes all signatures of the image unreadable.
pub type AttachmentError = JsonError;

impl SigstoreAttachment {
    /// Parses the JSON after the format line, as loosely as Go: unknown members are ignored, the
    /// last of repeated ones counts, and their case does not matter.
    ///
    /// # Errors
    /// [`AttachmentError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, AttachmentError> {
        json::validate(bytes)?;
        let text = json::text(bytes);
        let mut attachment = Self::default();
        match json::kind(&text) {
            "null" => return Ok(attachment),
            "object" => {}
            found => return Err(JsonError::Type { found, wanted: "signature.sigstoreJSONRepresentation" }),
        }
        for (key, value) in json::members(&text)? {
            match go::folded(&key).as_str() {
                "mimetype" => {
                    let mime_type = json::string(value).map_err(|e| named(e, "sigstoreJSONRepresentation.mimeType"))?;
                    attachment.mime_type = mime_type.unwrap_or(attachment.mime_type);
                }
                "payload" => {
                    let payload = json::bytes(value).map_err(|e| named(e, "sigstoreJSONRepresentation.payload"))?;
                    attachment.payload = payload.unwrap_or_default();
                }
                "annotations" => attachment.add_annotations(value)?,
                _ => {}
            }
        }
        Ok(attachment)
    }

    fn add_annotations(&mut self, value: &RawValue) -> Result<(), JsonError> {
        let field = "sigstoreJSONRepresentation.annotations";
        match json::kind(value.get()) {
            "null" => self.annotations.clear(),
            "object" => {
                for (key, value) in json::members(value.get())? {
                    let text = json::string(value).map_err(|e| named(e, field))?;
                    self.annotations.insert(key, text.unwrap_or_default());
                }
            }
            found => return Err(JsonError::Field { found, field, wanted: "map[string]string" }),
        }
        Ok(())
    }

    /// Writes the stored form, format line included, as containers/image writes it.
    pub fn to_blob(&self) -> Vec<u8> {
        let json = serde_json::json!({
            "mimeType": self.mime_type,
            "payload": base64::engine::general_purpose::STANDARD.encode(&self.payload),
            "annotations": self.annotations,
        });
        [b"\0sigstore-json\n", json.to_string().as_bytes()].concat()
    }

    /// Tells whether this is a signature at all.
    pub fn is_signature(&self) -> bool {
        self.mime_type == MIME_TYPE
    }
}

fn named(error: JsonError, field: &'static str) -> JsonError {
    match error {
        JsonError::Type { found, wanted } => JsonError::Field { found, field, wanted },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_as_loosely_as_go() {
        let parse = |text: &str| SigstoreAttachment::parse(text.as_bytes()).map_err(|e| e.to_string());
        assert_eq!(parse("null"), Ok(SigstoreAttachment::default()));
        assert_eq!(parse(r#"{"other":[1]}"#), Ok(SigstoreAttachment::default()));
        let odd = parse(r#"{"annotation\u017f":{"x":"1"},"annotations":{"x":"2","y":null}}"#).unwrap();
        assert_eq!(odd.annotations.get("x").map(String::as_str), Some("2"));
        let full = parse(
            r#"{"MIMETYPE":"x","mimeType":"application/vnd.dev.cosign.simplesigning.v1+json","payload":"YQ==","annotations":{"a":"b","c":null}}"#,
        )
        .unwrap();
        assert!(full.is_signature());
        assert_eq!((full.payload.as_slice(), full.annotations.len()), (&b"a"[..], 2));
        let blob = full.to_blob();
        let Ok(crate::signature::BlobKind::SigstoreJson(json)) = crate::signature::classify(&blob) else { panic!() };
        assert_eq!(SigstoreAttachment::parse(json), Ok(full));
        for (text, sentence) in [
            ("", "unexpected end of JSON input"),
            ("[]", "json: cannot unmarshal array into Go value of type signature.sigstoreJSONRepresentation"),
            (
                r#"{"mimeType":1}"#,
                "json: cannot unmarshal number into Go struct field sigstoreJSONRepresentation.mimeType of type string",
            ),
            (r#"{"payload":"YQ"}"#, "illegal base64 data at input byte 0"),
            (
                r#"{"annotations":[]}"#,
                "json: cannot unmarshal array into Go struct field sigstoreJSONRepresentation.annotations of type map[string]string",
            ),
        ] {
            assert_eq!(parse(text), Err(sentence.to_owned()), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[{}\\[\\]\":,a-zA-Z=0-9]{0,60}", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let _ = SigstoreAttachment::parse(text.as_bytes());
            let _ = SigstoreAttachment::parse(&bytes);
        }
    }
}
