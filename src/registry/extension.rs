//! The client side of the signature extension, `X-Registry-Supports-Signatures` (spec
//! containers-image 3.3, 3.4).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::go;
use crate::image::{Digest, Repository};
use crate::json::{self, JsonError};

use super::client::{Call, RegistryClient, Scope};
use super::connection::Connection;
use super::error::{CallError, Refusal, RegistryError, SignatureListError};

/// The most bytes that are read of a list of signatures, as containers/image.
pub const LIST_LIMIT: usize = 4 * 1024 * 1024;
const VERSION: i64 = 2;
const TYPE: &str = "atomic";

/// One member of the extension's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionSignature {
    /// `<digest>@<anything>`; nothing depends on it.
    pub name: String,
    /// The signature, not looked into.
    pub content: Bytes,
}

/// What became of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// The registry took it.
    Created,
    /// The very same bytes were there already; nothing was sent.
    AlreadyThere,
}

impl RegistryClient {
    /// Returns the signatures that the extension has for a manifest; none is an empty list.
    ///
    /// Only members of version 2 and type `atomic` count. The bytes are not looked into: they
    /// may be armoured or no signature at all.
    ///
    /// # Errors
    /// [`RegistryError`] for every answer but 200 with a list, 404 included: so do clients.
    pub async fn signatures(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Bytes>, RegistryError> {
        let connection = self.connection(repository.domain()).await?;
        let list = self.signature_list(&connection, Scope::Pull(repository), repository, digest).await?;
        Ok(list.into_iter().map(|signature| signature.content).collect())
    }

    /// Returns the address that [`RegistryClient::signatures`] asks.
    ///
    /// # Errors
    /// [`RegistryError::Connect`] when the ping fails, which tells http from https.
    pub async fn signatures_url(&self, repository: &Repository, digest: &Digest) -> Result<String, RegistryError> {
        let connection = self.connection(repository.domain()).await?;
        let failed = |source: CallError| RegistryError::Signatures {
            digest: digest.clone(),
            repository: repository.to_string(),
            source: Box::new(source),
        };
        connection.url(&path(repository, digest)).map(String::from).map_err(|e| failed(e.into()))
    }

    /// Adds a signature to a manifest, unless the same bytes are there already.
    ///
    /// A patient client tries again what may be a bad moment of the server's, and looks each time
    /// whether the bytes have arrived in spite of the answer: nothing is stored twice.
    ///
    /// # Errors
    /// [`RegistryError`] when the list cannot be read first, or the answer is not exactly 201.
    pub async fn put_signature(
        &self,
        repository: &Repository,
        digest: &Digest,
        signature: &[u8],
    ) -> Result<Uploaded, RegistryError> {
        let connection = self.connection(repository.domain()).await?;
        let path = path(repository, digest);
        let failed = |source: CallError| RegistryError::Upload {
            path: path.clone(),
            registry: repository.domain().to_owned(),
            source: Box::new(source),
        };
        let mut patience = self.patience();
        let mut sent = false;
        loop {
            let existing = self.signature_list(&connection, Scope::Push(repository), repository, digest).await?;
            if existing.iter().any(|one| one.content == signature) {
                return Ok(if sent { Uploaded::Created } else { Uploaded::AlreadyThere });
            }
            let mut name = fresh_name(digest)?;
            while existing.iter().any(|one| one.name == name) {
                name = fresh_name(digest)?;
            }
            let call = Call {
                method: Method::PUT,
                path: &path,
                scope: Scope::Push(repository),
                accept: &[],
                body: Some(upload(&name, signature).into()),
                limit: LIST_LIMIT,
            };
            sent = true;
            match self.call(&connection, &call).await {
                Ok(answer) if answer.status == StatusCode::CREATED => return Ok(Uploaded::Created),
                Ok(answer) => match patience.after(&answer).filter(|_| self.is_patient()) {
                    Some(wait) => self.slow_down(&connection, &answer, wait).await,
                    None => return Err(failed(Refusal::of(&answer).into())),
                },
                Err(CallError::Fetch(error)) if error.is_passing() => match patience.after_silence() {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(failed(error.into())),
                },
                Err(error) => return Err(failed(error)),
            }
        }
    }

    async fn signature_list(
        &self,
        connection: &Connection,
        scope: Scope<'_>,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Vec<ExtensionSignature>, RegistryError> {
        let failed = |source: CallError| RegistryError::Signatures {
            digest: digest.clone(),
            repository: repository.to_string(),
            source: Box::new(source),
        };
        let path = path(repository, digest);
        let call = Call { method: Method::GET, path: &path, scope, accept: &[], body: None, limit: LIST_LIMIT };
        let answer = self.call(connection, &call).await.map_err(failed)?;
        if answer.status != StatusCode::OK {
            return Err(failed(Refusal::of(&answer).into()));
        }
        parse_signature_list(&answer.body).map_err(|source| RegistryError::SignatureList {
            digest: digest.clone(),
            repository: repository.to_string(),
            source,
        })
    }
}

fn path(repository: &Repository, digest: &Digest) -> String {
    format!("/extensions/v2/{}/signatures/{digest}", repository.path())
}

fn fresh_name(digest: &Digest) -> Result<String, RegistryError> {
    let mut random = [0u8; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| RegistryError::Random)?;
    Ok(format!("{digest}@{}", hex::encode(random)))
}

/// The body of a PUT: compact JSON, members in this order.
fn upload(name: &str, content: &[u8]) -> String {
    #[derive(Serialize)]
    struct Upload<'a> {
        #[serde(rename = "schemaVersion")]
        schema_version: i64,
        name: &'a str,
        r#type: &'a str,
        content: String,
    }
    let body = Upload { schema_version: VERSION, name, r#type: TYPE, content: STANDARD.encode(content) };
    // Three strings and a number always serialize.
    serde_json::to_string(&body).unwrap_or_default()
}

/// Decodes the extension's list as Go does: unknown members are ignored, names are compared
/// without case, of repeated members the last counts, `null` is nothing.
///
/// # Errors
/// [`SignatureListError`], also for a fault in a member that would not count.
pub fn parse_signature_list(body: &[u8]) -> Result<Vec<ExtensionSignature>, SignatureListError> {
    let text = json::text(body);
    if text.trim_matches([' ', '\t', '\r', '\n']).is_empty() {
        return Err(JsonError::Syntax("unexpected end of JSON input".to_owned()).into());
    }
    let whole: &RawValue = serde_json::from_str(&text).map_err(syntax)?;
    let mut signatures: Vec<&RawValue> = Vec::new();
    for (key, value) in members(whole, "docker.extensionSignatureList")? {
        if go::folded(&key) == "signatures" {
            signatures = elements(value)?;
        }
    }
    let mut list = Vec::new();
    for signature in signatures {
        let mut version = 0;
        let (mut name, mut kind, mut content) = (String::new(), String::new(), Vec::new());
        for (key, value) in members(signature, "docker.extensionSignature")? {
            match go::folded(&key).as_str() {
                "schemaversion" => version = integer(value)?.unwrap_or(version),
                "name" => name = json::string(value)?.unwrap_or(name),
                "type" => kind = json::string(value)?.unwrap_or(kind),
                "content" => content = base64(value)?,
                _ => {}
            }
        }
        if version == VERSION && kind == TYPE {
            list.push(ExtensionSignature { name, content: content.into() });
        }
    }
    Ok(list)
}

fn syntax(error: serde_json::Error) -> JsonError {
    JsonError::Syntax(error.to_string())
}

/// The members of an object with their repetitions; `null` has none.
fn members<'a>(value: &'a RawValue, wanted: &'static str) -> Result<Vec<(String, &'a RawValue)>, JsonError> {
    match json::kind(value.get()) {
        "null" => Ok(Vec::new()),
        "object" => json::members(value.get()),
        found => Err(JsonError::Type { found, wanted }),
    }
}

fn elements(value: &RawValue) -> Result<Vec<&RawValue>, JsonError> {
    match json::kind(value.get()) {
        "null" => Ok(Vec::new()),
        "array" => serde_json::from_str(value.get()).map_err(syntax),
        found => Err(JsonError::Type { found, wanted: "[]docker.extensionSignature" }),
    }
}

/// Go's `int`: `2.0` and `2e0` are none.
fn integer(value: &RawValue) -> Result<Option<i64>, JsonError> {
    match json::kind(value.get()) {
        "null" => Ok(None),
        "number" => match value.get().trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(JsonError::Type { found: "number", wanted: "int" }),
        },
        found => Err(JsonError::Type { found, wanted: "int" }),
    }
}

/// Go's `[]byte`: standard base64 with padding; line ends inside are passed over.
fn base64(value: &RawValue) -> Result<Vec<u8>, SignatureListError> {
    let Some(text) = json::string(value)? else { return Ok(Vec::new()) };
    go::base64(text.as_bytes()).map_err(|at| SignatureListError::Base64(format!("at byte {at}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(json: &str) -> Result<Vec<String>, String> {
        match parse_signature_list(json.as_bytes()) {
            Ok(list) => Ok(list.iter().map(|s| String::from_utf8_lossy(&s.content).into_owned()).collect()),
            Err(e) => Err(e.to_string()),
        }
    }

    fn one(members: &str) -> Result<Vec<String>, String> {
        contents(&format!(r#"{{"signatures":[{{{members}}}]}}"#))
    }

    #[test]
    fn reads_as_go_reads() {
        let good = r#""schemaVersion":2,"name":"x","type":"atomic","content":"YWJj""#;
        assert_eq!(one(good), Ok(vec!["abc".to_owned()]));
        for none in ["{}", "null", r#"{"signatures":null}"#, r#"{"signatures":[]}"#, r#"{"signatures":[null,{}]}"#] {
            assert_eq!(contents(none), Ok(vec![]), "{none}");
        }
        // Case, unknown and repeated members, null in place of a value.
        assert_eq!(
            contents(
                r#"{"x":[1,{"y":2}],"SIGNATURES":[{"SchemaVersion":1,"schemaversion":2,"TYPE":"atomic","type":null,"Content":"eA==","q":{}}]} "#
            ),
            Ok(vec!["x".to_owned()])
        );
        assert_eq!(contents(&format!(r#"{{"signatures":[{{{good}}}],"Signatures":[]}}"#)), Ok(vec![]));
        assert_eq!(one(r#""schemaVersion":2,"type":"atomic","content":"YW\r\nJj""#), Ok(vec!["abc".to_owned()]));
        assert_eq!(one(r#""schemaVersion":2,"type":"atomic","content":"YWJ=""#), Ok(vec!["ab".to_owned()]));
        assert_eq!(one(r#""schemaVersion":2,"type":"atomic""#), Ok(vec![String::new()]));
        for skipped in [
            r#""schemaVersion":1,"type":"atomic","content":"YWJj""#,
            r#""version":2,"type":"atomic","content":"YWJj""#,
            r#""schemaVersion":2,"type":"Atomic","content":"YWJj""#,
            r#""schemaVersion":2,"content":"YWJj""#,
        ] {
            assert_eq!(one(skipped), Ok(vec![]), "{skipped}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for bad in [
            "",
            " ",
            "[]",
            "7",
            "{",
            "{} {}",
            "{} x",
            "<html>",
            "\"x\"",
            r#"{"signatures":{}}"#,
            r#"{"signatures":[1]}"#,
        ] {
            assert!(contents(bad).is_err(), "{bad}");
        }
        assert_eq!(contents(""), Err("unexpected end of JSON input".to_owned()));
        for bad in [
            r#""schemaVersion":"2""#,
            r#""schemaVersion":2.0"#,
            r#""schemaVersion":2e0"#,
            r#""schemaVersion":1,"content":"YWJ""#,
            r#""content":"YQ""#,
            r#""content":"Y W J j""#,
            r#""content":"_-_-""#,
            r#""content":[1]"#,
            r#""name":1"#,
            r#""type":true"#,
        ] {
            assert!(one(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn uploads_have_the_form_of_containers_image() {
        let digest = Digest::sha256(b"");
        insta::assert_snapshot!(
            upload(&format!("{digest}@00"), b"\xff<sig>"),
            @r#"{"schemaVersion":2,"name":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855@00","type":"atomic","content":"/zxzaWc+"}"#
        );
        let (a, b) = (fresh_name(&digest).unwrap(), fresh_name(&digest).unwrap());
        assert_ne!(a, b);
        let random = a.strip_prefix(&format!("{digest}@")).unwrap();
        assert!(random.len() == 32 && random.bytes().all(|c| c.is_ascii_hexdigit() && !c.is_ascii_uppercase()), "{a}");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = parse_signature_list(&bytes);
        }

        #[test]
        fn round_trips(blobs in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40), 0..5)) {
            let entries: Vec<_> = blobs.iter().map(|blob| upload("n@1", blob)).collect();
            let list = parse_signature_list(format!(r#"{{"signatures":[{}]}}"#, entries.join(",")).as_bytes()).unwrap();
            proptest::prop_assert_eq!(list.iter().map(|s| s.content.to_vec()).collect::<Vec<_>>(), blobs);
        }
    }
}
