//! The stored form of a sigstore signature, `{"mimeType","payload","annotations"}`, as it stands
//! after the `\0sigstore-json\n` line of a `signature-N` file (spec containers-image 6).

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::json::{self, JsonError};
use crate::signature::{BlobError, BlobKind, classify};

/// The type of an image signature; attachments of any other type are not looked at.
pub const MIME_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation that holds the signature of the payload, in base64.
pub const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// The annotation that holds the log's signed entry timestamp (SET).
pub const SET_ANNOTATION: &str = "dev.sigstore.cosign/bundle";
/// The annotation that holds the signer's certificate, in PEM.
pub const CERTIFICATE_ANNOTATION: &str = "dev.sigstore.cosign/certificate";
/// The annotation that holds the intermediate certificates and, last, their root, in PEM.
pub const CHAIN_ANNOTATION: &str = "dev.sigstore.cosign/chain";

/// Why bytes are no sigstore signature.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigstoreBlobError {
    /// The blob itself is broken.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// The blob holds an OpenPGP message.
    #[error("signature is in simple signing form, sigstore-json expected")]
    NotSigstore,
    /// The JSON is broken, or a member has the wrong kind.
    #[error(transparent)]
    Json(#[from] JsonError),
}

/// A sigstore signature as stored. Everything in it is untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob {
    /// What kind of attachment this is; [`MIME_TYPE`] for image signatures.
    pub mime_type: String,
    /// The signed bytes.
    pub payload: Vec<u8>,
    /// The signature and what vouches for it.
    pub annotations: BTreeMap<String, String>,
}

impl Blob {
    /// Parses a whole stored signature, format line included.
    ///
    /// # Errors
    /// [`SigstoreBlobError`]; [`SigstoreBlobError::NotSigstore`] for a simple signing blob.
    pub fn parse(blob: &[u8]) -> Result<Self, SigstoreBlobError> {
        match classify(blob)? {
            BlobKind::SigstoreJson(data) => Self::parse_json(data),
            BlobKind::SimpleSigning(_) => Err(SigstoreBlobError::NotSigstore),
        }
    }

    /// Parses the JSON of [`BlobKind::SigstoreJson`] as leniently as Go does: unknown members are
    /// ignored, names match in any case, the last of several wins, `null` counts as absent.
    ///
    /// # Errors
    /// [`SigstoreBlobError::Json`].
    pub fn parse_json(data: &[u8]) -> Result<Self, SigstoreBlobError> {
        json::validate(data)?;
        let text = json::text(data);
        let mut blob = Self::default();
        match json::kind(&text) {
            "null" => return Ok(blob),
            "object" => {}
            found => {
                return Err(JsonError::Type { found, wanted: "signature.sigstoreJSONRepresentation" }.into());
            }
        }
        for (key, value) in json::members(&text)? {
            match folded(&key).as_str() {
                "mimetype" => {
                    if let Some(mime_type) = json::string(value)? {
                        blob.mime_type = mime_type;
                    }
                }
                "payload" => blob.payload = json::bytes(value)?.unwrap_or_default(),
                "annotations" => read_annotations(value, &mut blob.annotations)?,
                _ => {}
            }
        }
        Ok(blob)
    }

    /// Tells whether this is an image signature. containers/image does not look at other
    /// attachments, and counts them apart when it finds no signature (spec 5.6).
    pub fn is_image_signature(&self) -> bool {
        self.mime_type == MIME_TYPE
    }

    /// Returns an annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }
}

fn read_annotations(value: &RawValue, annotations: &mut BTreeMap<String, String>) -> Result<(), JsonError> {
    match json::kind(value.get()) {
        "null" => {
            annotations.clear();
            return Ok(());
        }
        "object" => {}
        found => return Err(JsonError::Type { found, wanted: "map[string]string" }),
    }
    for (key, value) in json::members(value.get())? {
        annotations.insert(key, json::string(value)?.unwrap_or_default());
    }
    Ok(())
}

/// Go compares member names without regard to case, and takes two odd letters for their likes.
fn folded(key: &str) -> String {
    key.chars()
        .map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_stored_form() {
        let blob = Blob::parse(
            b"\0sigstore-json\n{\"mimeType\":\"application/vnd.dev.cosign.simplesigning.v1+json\",\"payload\":\"e30=\",\"annotations\":{\"dev.cosignproject.cosign/signature\":\"AA==\"}}",
        )
        .unwrap();
        assert!(blob.is_image_signature());
        assert_eq!(blob.payload, b"{}");
        assert_eq!(blob.annotation(SIGNATURE_ANNOTATION), Some("AA=="));
        assert_eq!(blob.annotation(SET_ANNOTATION), None);
    }

    #[test]
    fn is_as_lenient_as_go() {
        let read = |json: &str| Blob::parse_json(json.as_bytes());
        assert_eq!(read(" null "), Ok(Blob::default()));
        assert_eq!(read("{}"), Ok(Blob::default()));
        assert_eq!(read(r#"{"mimeType":null,"payload":null,"annotations":null,"x":[]}"#), Ok(Blob::default()));
        let last =
            read(r#"{"MIMETYPE":"a","mimeType":"b","annotation\u017f":{"x":"1","y":null},"annotations":{"x":"2"}}"#);
        let annotations = BTreeMap::from([("x".to_owned(), "2".to_owned()), ("y".to_owned(), String::new())]);
        assert_eq!(last, Ok(Blob { mime_type: "b".to_owned(), payload: Vec::new(), annotations }));
        for bad in ["", "[]", "1", "{}{}", r#"{"payload":"A"}"#, r#"{"payload":1}"#, r#"{"annotations":{"a":1}}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(Blob::parse(b"\xa0x"), Err(SigstoreBlobError::NotSigstore));
        assert_eq!(Blob::parse(b""), Err(SigstoreBlobError::Blob(BlobError::Empty)));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "[{}\\[\\]\":,a-zA-Z=0-9]{0,60}", bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let _ = Blob::parse_json(text.as_bytes());
            let _ = Blob::parse(&bytes);
        }
    }
}
