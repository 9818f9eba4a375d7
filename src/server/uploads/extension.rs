//! The writing half of the signature extension: `PUT /extensions/v2/{name}/signatures/{digest}`.
//!
//! What is refused here would make an image unpullable or be a lie about it: a blob that is no
//! simple signature, one for another digest, one that no client could read any more. The answer to
//! success is exactly 201, also when the same bytes are there already (spec containers-image 3.4).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, LOCATION};
use http::{HeaderValue, Request, StatusCode};

use crate::config::ServerConfig;
use crate::go;
use crate::image::Digest;
use crate::json::{self, JsonError};
use crate::registry::http::BoxError;
use crate::server::auth::methods::Identity;
use crate::server::auth::upstream_permissions::{ManifestState, UpstreamPermissions};
use crate::server::authorization::Authorization;
use crate::server::caller::Caller;
use crate::server::error::Problem;
use crate::server::listener::request_body::ClientBody;
use crate::server::listener::response_body::{Answer, Body};
use crate::server::reads::extension;
use crate::server::shown_name::ShownName;
use crate::server::uploads::audit_log::{Action, Outcome, Record};
use crate::server::uploads::message::{MessageError, SignatureMessage};
use crate::server::uploads::{LongBodyPermit, UploadPipeline};
use crate::signature::Claim;
use crate::store::{Appended, SetAddress, StorePath};

/// Reads the claim out of an OpenPGP message without judging who signed it; the error is told to the uploader.
pub type ClaimReader = Arc<dyn Fn(&[u8]) -> Result<Claim, BoxError> + Send + Sync>;

/// An upload of good form, and of a claim for the right digest if claims are read.
#[derive(Clone, Copy, Debug)]
pub struct Upload<'a> {
    /// The repository's path in the address.
    pub repository: &'a str,
    /// The whole name by which the client calls the repository here, where that is more than the
    /// path: `sig.example/icr.io/birds/bluebird`.
    pub called: Option<&'a str>,
    /// The digest in the address.
    pub digest: &'a Digest,
    /// The OpenPGP message.
    pub message: &'a Bytes,
    /// What it claims, unverified; `None` if claims are not read for this repository.
    pub claim: Option<&'a Claim>,
}

/// Why a signature is not admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// It is not to be stored, for this reason, which the uploader is told.
    #[error("{0}")]
    Denied(String),
    /// It cannot be judged at the moment; the reason is for the server's own log.
    #[error("{0}")]
    Unavailable(String),
}

/// The judge of uploads, such as a policy.
pub trait UploadGate: Send + Sync {
    /// Tells whether a signature for this repository must have a readable claim for its digest.
    fn reads_claims(&self, _repository: &str) -> bool {
        true
    }

    /// Agrees to an upload, or says why not. May take its time: it is called on a thread that is
    /// made for waiting.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    fn admit(&self, upload: &Upload<'_>) -> Result<(), NotAdmitted>;
}

const SUFFIX_LIMIT: usize = 512;

/// Takes uploads.
pub(crate) struct ExtensionUploads {
    admission: Arc<UploadPipeline>,
    prefix: StorePath,
}

impl ExtensionUploads {
    pub(crate) fn new(config: &ServerConfig, admission: Arc<UploadPipeline>) -> Self {
        Self { admission, prefix: config.store_prefix.clone() }
    }

    /// Takes one signature.
    pub(crate) async fn put(
        self: &Arc<Self>,
        access: &Arc<UpstreamPermissions>,
        (name, digest): (&str, Digest),
        request: Request<ClientBody>,
        caller: Caller,
    ) -> Result<Answer, Problem> {
        let (parts, body) = request.into_parts();
        let (action, headers) = (Action::Add, &parts.headers);
        let mut record = self.admission.record(action, "extension", (name, &digest), headers, &caller);
        match self.receive(access, &mut record, headers, &caller, body).await {
            Ok((address, body, long)) => {
                // A task of its own: once the bytes are here, the end does not depend on the client.
                let place = location(name, &digest)?;
                let (uploads, access) = (self.clone(), access.clone());
                let stored = tokio::spawn(async move {
                    let result =
                        uploads.store(&access, &mut record, address, (body, long), &parts.headers, &caller).await;
                    let outcome = result.as_ref().map_or_else(Outcome::Failed, |appended| (*appended).into());
                    let recorded = uploads.admission.audit.end(&record, outcome).await;
                    result.and(recorded)
                });
                stored.await.unwrap_or(Err(Problem::Internal))?;
                Ok(created(place))
            }
            Err(problem) => {
                self.admission.audit.end(&record, Outcome::Failed(&problem)).await?;
                Err(problem)
            }
        }
    }

    /// Everything up to the body: rights first, so that a stranger cannot fill our memory.
    async fn receive(
        &self,
        access: &Arc<UpstreamPermissions>,
        record: &mut Record,
        headers: &HeaderMap,
        caller: &Caller,
        body: ClientBody,
    ) -> Result<(SetAddress, Bytes, LongBodyPermit), Problem> {
        let address = extension::address(&self.prefix, &record.repository, &record.digest)?;
        self.admission.announced(headers, usize::MAX)?;
        access.push(&record.repository, headers, caller).await?;
        // Before that it would be a stranger's word.
        record.who = Some(Identity { way: "upstream", name: user(headers) });
        let (body, long) = self.admission.read(body, caller.from).await?;
        Ok((address, body, long))
    }

    async fn store(
        &self,
        access: &UpstreamPermissions,
        record: &mut Record,
        address: SetAddress,
        (body, long): (Bytes, LongBodyPermit),
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<Appended, Problem> {
        let message = parse(&body, &record.digest).map_err(|error| Problem::Invalid(error.to_string()))?;
        drop(body);
        // A slow registry must not hold a turn that other writers need.
        if access.pull(&record.repository, &record.digest, headers, caller).await? == ManifestState::Absent {
            return Err(Problem::ManifestUnknown(record.digest.clone()));
        }
        let _turn = self.admission.turn_of(long, caller.from).await?;
        self.admission.store(record, &address, message, |_| true).await
    }
}

/// Returns the address of the collection.
fn location(name: &str, digest: &Digest) -> Result<HeaderValue, Problem> {
    let place = format!("/extensions/v2/{name}/signatures/{digest}");
    HeaderValue::from_str(&place).map_err(|_| Problem::Internal)
}

fn created(place: HeaderValue) -> Answer {
    let mut answer = Answer::new(Body::empty());
    *answer.status_mut() = StatusCode::CREATED;
    answer.headers_mut().insert(LOCATION, place);
    answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(0));
    answer
}

/// Names a caller whom the registry let in, without any secret.
fn user(headers: &HeaderMap) -> ShownName {
    if !headers.contains_key(AUTHORIZATION) {
        return ShownName::anonymous();
    }
    let Some(authorization) = Authorization::of(headers) else { return ShownName::unknown() };
    if authorization.bearer().is_some() {
        return ShownName::bearer();
    }
    authorization.basic().map_or_else(ShownName::unknown, |pair| ShownName::given(pair.user(), pair.password()))
}

/// Why an uploaded JSON document holds no signature. The sentences are for the uploader.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("only schemaVersion 2 is supported, not {0}")]
    Version(f64),
    #[error("schemaVersion is missing; it must be 2")]
    NoVersion,
    // What is there instead is not repeated: it may be anything.
    #[error("only the type atomic is supported, not another one")]
    Type,
    #[error("name is missing; it must be DIGEST@ANYTHING")]
    NoName,
    #[error("name must be {0}@ANYTHING with exactly one @")]
    Name(Digest),
    #[error("the name is of another digest than the address, which has {0}")]
    OtherDigest(Digest),
    #[error("content is missing")]
    NoContent,
    #[error("content is no padded standard base64: illegal data at byte {0}")]
    Base64(usize),
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// Reads the uploaded JSON and returns the OpenPGP message.
pub(crate) fn parse(body: &[u8], digest: &Digest) -> Result<SignatureMessage, UploadError> {
    let text = json::text(body);
    let (mut schema, mut version, mut kind, mut name, mut content) = (None, None, None, None, None);
    json::object(&text, |key, value| {
        match key {
            "schemaVersion" => schema = json::float(value)?,
            // What OpenShift's documentation tells its users to write (spec peers (a)).
            "version" => version = json::float(value)?,
            "type" => kind = json::string(value)?,
            "name" => name = json::string(value)?,
            "content" => content = json::string(value)?,
            _ => {}
        }
        Ok::<_, JsonError>(true)
    })?;

    match schema.or(version) {
        Some(2.0) => {}
        Some(other) => return Err(UploadError::Version(other)),
        None => return Err(UploadError::NoVersion),
    }
    if !matches!(kind.as_deref(), None | Some("atomic")) {
        return Err(UploadError::Type);
    }
    check_name(&name.ok_or(UploadError::NoName)?, digest)?;
    let content = content.filter(|c| !c.is_empty()).ok_or(UploadError::NoContent)?;
    let blob = Bytes::from(go::base64(content.as_bytes()).map_err(UploadError::Base64)?);
    Ok(SignatureMessage::parse(&blob)?)
}

/// The name is the digest, one `@`, and something of the client's choice.
fn check_name(name: &str, digest: &Digest) -> Result<(), UploadError> {
    let malformed = || UploadError::Name(digest.clone());
    let (named, suffix) = name.split_once('@').ok_or_else(malformed)?;
    if suffix.is_empty() || suffix.contains('@') || suffix.len() > SUFFIX_LIMIT {
        return Err(malformed());
    }
    if named != digest.to_string() {
        return Err(UploadError::OtherDigest(digest.clone()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn digest() -> Digest {
        Digest::sha256(b"manifest")
    }

    fn read(body: &[u8]) -> Result<Vec<u8>, String> {
        parse(body, &digest()).map(|message| message.bytes().to_vec()).map_err(|error| error.to_string())
    }

    fn upload(change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Result<Vec<u8>, String> {
        let mut object = serde_json::Map::new();
        object.insert("schemaVersion".to_owned(), 2.into());
        object.insert("name".to_owned(), format!("{}@{}", digest(), "0".repeat(32)).into());
        object.insert("type".to_owned(), "atomic".into());
        object.insert("content".to_owned(), STANDARD.encode(b"\xa3abc").into());
        change(&mut object);
        read(serde_json::Value::Object(object).to_string().as_bytes())
    }

    #[test]
    fn what_clients_send() {
        let message = Ok(b"\xa3abc".to_vec());
        assert_eq!(upload(|_| ()), message);
        assert_eq!(upload(|o| drop(o.remove("type"))), message, "OpenShift's default");
        assert_eq!(upload(|o| drop(o.insert("type".to_owned(), serde_json::Value::Null))), message);
        assert_eq!(upload(|o| drop(o.insert("unknown".to_owned(), 1.into()))), message);
        assert_eq!(upload(|o| drop(o.insert("name".to_owned(), format!("{}@x", digest()).into()))), message);
        assert_eq!(
            upload(|o| {
                o.remove("schemaVersion");
                o.insert("version".to_owned(), 2.into());
            }),
            message,
            "OpenShift's documentation"
        );
        let prefixed = STANDARD.encode(b"\0simple-signing\n\xa3abc");
        assert_eq!(upload(|o| drop(o.insert("content".to_owned(), prefixed.into()))), message);
    }

    #[test]
    fn what_is_refused() {
        let set = |key: &str, value: serde_json::Value| upload(|o| drop(o.insert(key.to_owned(), value))).unwrap_err();
        let content = |bytes: &[u8]| set("content", STANDARD.encode(bytes).into());
        let other = Digest::sha256(b"other");
        for (reason, said) in [
            (set("schemaVersion", 1.into()), "only schemaVersion 2"),
            (set("schemaVersion", "2".into()), "cannot unmarshal string"),
            (upload(|o| drop(o.remove("schemaVersion"))).unwrap_err(), "schemaVersion is missing"),
            (set("type", "cosign".into()), "only the type atomic"),
            (upload(|o| drop(o.remove("name"))).unwrap_err(), "name is missing"),
            (set("name", digest().to_string().into()), "exactly one @"),
            (set("name", format!("{}@", digest()).into()), "exactly one @"),
            (set("name", format!("{}@a@b", digest()).into()), "exactly one @"),
            (set("name", format!("{}@{}", digest(), "a".repeat(600)).into()), "exactly one @"),
            (set("name", format!("{other}@a").into()), "another digest"),
            (upload(|o| drop(o.remove("content"))).unwrap_err(), "content is missing"),
            (set("content", "".into()), "content is missing"),
            (set("content", "o2Fi".replace('i', "").into()), "base64"),
            (set("content", "_-_-".into()), "base64"),
            (content(b"-----BEGIN PGP MESSAGE-----\n"), "ASCII armour"),
            (content(b"-----BEGIN PGP SIGNED MESSAGE-----\n"), "cleartext"),
            (content(b"\0sigstore-json\n{}"), "sigstore-json"),
            (content(b"<html>"), "0x3c"),
            (content(b"\0simple-signing\n"), "empty"),
            (content(b"\0simple-signing\n\0simple-signing\n\xa3"), "two format prefixes"),
            (content(&vec![0xa3; crate::signature::BLOB_LIMIT + 1]), "maximum allowed size"),
            (read(b"[]").unwrap_err(), "object expected"),
            (read(b"").unwrap_err(), "end of JSON"),
            (read(b"{\"name\":1,\"name\":2}").unwrap_err(), "cannot unmarshal number"),
        ] {
            assert!(reason.contains(said), "{reason} / {said}");
        }
    }

    #[test]
    fn callers_are_named_without_secrets() {
        let named = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            user(&headers).as_str().to_owned()
        };
        assert_eq!(named(&format!("Basic {}", STANDARD.encode("bob:secret:x"))), "bob");
        for token in ["b\nob:x y", "dop_v1_secret:dop_v1_secret", "ghp_secret:x-oauth-basic", "secret:"] {
            let named = named(&format!("basic {}", STANDARD.encode(token)));
            assert!(named.starts_with("hidden:"), "a token for a name: {named}");
        }
        assert_eq!(named("Bearer secret"), "bearer");
        for value in ["secret", "secret x", "Basic !", "Basic c2VjcmV0"] {
            assert_eq!(named(value), "unknown");
        }
        assert_eq!(user(&HeaderMap::new()), ShownName::anonymous());
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&body, &digest());
        }
    }
}
