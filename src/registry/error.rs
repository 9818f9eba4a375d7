//! What registries answer when they refuse, and how the calls of this room fail.

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;

use crate::image::{Digest, ManifestError};
use crate::json::JsonError;

use super::credentials::CredentialsError;
use super::fetch::{Answer, FetchError};
use super::http::HttpSetupError;
use super::tls::CertificatesError;
use super::token::TokenError;

/// The most characters of a stranger's words that are repeated.
const WORDS_LIMIT: usize = 300;

/// An HTTP answer that is not the one due, with the registry's own words where it gave some.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    status: StatusCode,
    code: Option<String>,
    is_manifest_unknown: bool,
    text: String,
}

/// The codes of the distribution specification. Go's library takes every other code for `UNKNOWN`.
const KNOWN_CODES: [&str; 19] = [
    "UNSUPPORTED",
    "UNAUTHORIZED",
    "DENIED",
    "UNAVAILABLE",
    "TOOMANYREQUESTS",
    "DIGEST_INVALID",
    "SIZE_INVALID",
    "RANGE_INVALID",
    "NAME_INVALID",
    "TAG_INVALID",
    "NAME_UNKNOWN",
    "MANIFEST_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNVERIFIED",
    "MANIFEST_BLOB_UNKNOWN",
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "PAGINATION_NUMBER_INVALID",
];

impl Refusal {
    /// Returns the HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the first error code of the body (`MANIFEST_UNKNOWN`), if it has the form of the
    /// distribution specification.
    pub fn code(&self) -> Option<&str> {
        self.code.as_deref()
    }

    /// Tells whether clients take the answer for an absent manifest, which for an attachment means that there is
    /// none: the code `MANIFEST_UNKNOWN`, an unknown code with "not found" in the message, or 404 without the error
    /// form. Any other 404 fails the pull (`isManifestUnknownError` of containers/image).
    pub fn is_manifest_unknown(&self) -> bool {
        self.is_manifest_unknown
    }

    pub(super) fn of(answer: &Answer) -> Self {
        #[derive(Deserialize)]
        struct Body {
            errors: Vec<Entry>,
        }
        /// The form of Docker Hub for some errors.
        #[derive(Deserialize)]
        struct Details {
            details: String,
        }
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
        }
        let first = serde_json::from_slice::<Body>(&answer.body).ok().and_then(|body| body.errors.into_iter().next());
        let says_not_found = |message: &str| message.to_lowercase().contains("not found");
        let details = serde_json::from_slice::<Details>(&answer.body).ok().filter(|body| !body.details.is_empty());
        let is_manifest_unknown = match (&details, &first) {
            (Some(body), _) => says_not_found(&body.details),
            (None, Some(entry)) if KNOWN_CODES.contains(&entry.code.as_str()) => entry.code == "MANIFEST_UNKNOWN",
            (None, Some(entry)) => says_not_found(&entry.message),
            (None, None) => answer.status == StatusCode::NOT_FOUND,
        };
        let (code, text) = match first {
            Some(Entry { code, message }) if !code.is_empty() => {
                let words = code.to_lowercase().replace('_', " ");
                let text = if message.is_empty() { words } else { format!("{words}: {message}") };
                (Some(tame(&code)), format!("{} (HTTP status {})", tame(&text), answer.status.as_u16()))
            }
            _ => (None, format!("received unexpected HTTP status: {}", tame(&answer.status_line()))),
        };
        Self { status: answer.status, code, is_manifest_unknown, text }
    }
}

/// Keeps no more of a stranger's words than a log should have. Whoever shows them escapes them.
pub(super) fn tame(text: &str) -> String {
    text.chars().take(WORDS_LIMIT).collect()
}

/// Why one call to a registry failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// No answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Another answer than the one due.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No token could be had.
    #[error(transparent)]
    Token(Arc<TokenError>),
    /// The stored credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The server wants a password over a connection that anybody on the way can read.
    #[error("{url} asks for a password, but is reached without TLS, so none was sent; use its https address")]
    PlainPassword {
        /// The redacted URL.
        url: String,
    },
    /// The registry did not answer its ping.
    #[error(transparent)]
    Connect(Box<ConnectError>),
}

impl CallError {
    /// Returns the refusal, if there was an answer.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// Why a registry cannot be talked to at all. Cheap to copy, since many callers may wait for one
/// ping.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither 200 nor 401 on `/v2/`.
    #[error("pinging container registry {registry}: {reason}")]
    Ping {
        /// The registry's host and port.
        registry: String,
        /// The failure of each scheme that was tried.
        reason: String,
    },
    /// The certificates of `certs.d` are not usable.
    #[error(transparent)]
    Certificates(Arc<CertificatesError>),
    /// rustls refused them.
    #[error("{registry}: {source}")]
    Setup {
        /// The registry's host and port.
        registry: String,
        /// What rustls said.
        source: Arc<HttpSetupError>,
    },
    /// The name is no host.
    #[error("{0:?} is not the name of a registry (host or host:port)")]
    Name(String),
}

/// Why a registry did not give what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A manifest could not be fetched.
    #[error("reading manifest {reference} in {repository}: {source}")]
    Manifest {
        /// The tag or digest.
        reference: String,
        /// The repository's full name.
        repository: String,
        /// The cause.
        source: Box<CallError>,
    },
    /// The bytes have another digest than the one they were asked by.
    #[error("reading manifest {expected} in {repository}: Manifest does not match provided manifest digest {expected}")]
    ManifestDigest {
        /// The repository's full name.
        repository: String,
        /// The digest asked for.
        expected: Digest,
    },
    /// A signed schema 1 manifest whose digest cannot be told.
    #[error("reading manifest {reference} in {repository}: {source}")]
    ManifestForm {
        /// The tag or digest.
        reference: String,
        /// The repository's full name.
        repository: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// Tags or repositories could not be listed.
    #[error("listing {what}: {source}")]
    List {
        /// `tags of host/path` or `repositories of host`.
        what: String,
        /// The cause.
        source: Box<CallError>,
    },
    /// A page of a list is no such page.
    #[error("listing {what}: {reason}")]
    ListForm {
        /// As above.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// The extension did not answer 200.
    #[error("downloading signatures for {digest} in {repository}: {source}")]
    Signatures {
        /// The manifest's digest.
        digest: Digest,
        /// The repository's full name.
        repository: String,
        /// The cause.
        source: Box<CallError>,
    },
    /// The extension's list cannot be decoded.
    #[error("downloading signatures for {digest} in {repository}: decoding signature list: {source}")]
    SignatureList {
        /// The manifest's digest.
        digest: Digest,
        /// The repository's full name.
        repository: String,
        /// What is wrong.
        source: SignatureListError,
    },
    /// The sigstore attachments cannot be read.
    #[error("reading sigstore attachments of {digest} in {repository}: {reason}")]
    Attachment {
        /// The manifest's digest.
        digest: Digest,
        /// The repository's full name.
        repository: String,
        /// What is wrong.
        reason: String,
    },
    /// The extension did not answer 201.
    #[error("uploading signature to {path} in {registry}: {source}")]
    Upload {
        /// The path below the registry.
        path: String,
        /// The registry.
        registry: String,
        /// The cause.
        source: Box<CallError>,
    },
    /// The system has no random bytes for a signature's name.
    #[error("no random bytes from the system")]
    Random,
}

impl RegistryError {
    /// Returns the registry's refusal, if the failure is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Manifest { source, .. }
            | Self::List { source, .. }
            | Self::Signatures { source, .. }
            | Self::Upload { source, .. } => source.refusal(),
            _ => None,
        }
    }

    /// Tells whether there was no answer at all: no connection, no token, no credentials to read.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Manifest { source, .. }
            | Self::List { source, .. }
            | Self::Signatures { source, .. }
            | Self::Upload { source, .. } => source.refusal().is_none(),
            _ => false,
        }
    }

    /// Tells whether the registry says that the thing is not there.
    pub fn is_not_found(&self) -> bool {
        self.refusal().is_some_and(|refusal| refusal.status() == StatusCode::NOT_FOUND)
    }
}

/// Why the extension's list of signatures is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureListError {
    /// Not JSON, or of the wrong types.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Content that is not standard base64.
    #[error("illegal base64 data in \"content\": {0}")]
    Base64(String),
}
