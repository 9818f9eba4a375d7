//! The base URL of a lookaside, and the address of each signature below it
//! (spec containers-image 1.5, 2.1).
//!
//! A base is taken as it stands: nothing is joined, cleaned or resolved, so that we ask for, and
//! serve, byte for byte the address that skopeo and podman ask for.

use std::ffi::OsStr;
use std::fmt;
use std::num::NonZeroU32;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::go;
use super::go_url::GoUrl;
use crate::image::Digest;

/// What shall be done with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Fetch it.
    Read,
    /// Store it.
    Write,
    /// Remove it.
    Delete,
}

/// Why a lookaside cannot be used. The sentences are containers/image's own, passwords left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookasideError {
    /// The configured text is no URL: an error as soon as an image is opened, whatever is used.
    #[error("Invalid signature storage URL {url}: parse {}: {reason}", go::quote(.parsed.as_bytes()))]
    Invalid {
        /// The text, its password replaced.
        url: String,
        /// What of it was being parsed: without the fragment, unless that is the fault.
        parsed: String,
        /// What is wrong, in the words of Go's net/url.
        reason: String,
    },
    /// A lookaside on HTTP is read-only.
    #[error("Writing directly to a {scheme} lookaside {url} is not supported. Configure a lookaside-staging: location")]
    ReadOnly {
        /// `http` or `https`.
        scheme: String,
        /// The address of the signature.
        url: String,
    },
    /// The URL says `http` but names no host.
    #[error("Get {}: http: no Host in request URL", go::quote(.url.as_bytes()))]
    NoHost {
        /// The address of the signature.
        url: String,
    },
    /// Neither a file nor HTTP; a bare path is such a one.
    #[error("Unsupported scheme when {verb} {url}")]
    Scheme {
        /// What was tried: `reading signature from`, `writing signature to`, `deleting signature from`.
        verb: &'static str,
        /// The address of the signature.
        url: String,
    },
}

/// Where one signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignatureLocation {
    /// A file, and so a place to write.
    File(PathBuf),
    /// An URL to GET: absolute, without userinfo and fragment.
    Http(String),
}

/// The base URL of a lookaside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookasideBase(GoUrl);

impl LookasideBase {
    /// Parses a configured URL as Go's `url.Parse` does. Any scheme, or none, will do; it matters
    /// only when the base is used.
    ///
    /// # Errors
    /// [`LookasideError::Invalid`].
    pub fn parse(text: &str) -> Result<Self, LookasideError> {
        GoUrl::parse(text).map(Self).map_err(|reason| {
            let shown = without_password(text);
            // Go names the text without its fragment, unless the fragment is at fault.
            let (before, _) = text.split_once('#').unwrap_or((text, ""));
            let whole = GoUrl::parse(before).is_ok();
            let parsed = if whole { shown.clone() } else { without_password(before) };
            LookasideError::Invalid { url: shown, parsed, reason }
        })
    }

    /// Makes a base of a directory, escaping nothing: the built-in defaults are made so.
    pub fn from_directory(path: &Path) -> Self {
        Self(GoUrl::file(path.as_os_str().as_bytes().to_vec()))
    }

    /// Returns the scheme in lower case; empty for a bare path.
    pub fn scheme(&self) -> &str {
        &self.0.scheme
    }

    /// Tells whether the base is on HTTP, with or without TLS.
    pub fn is_http(&self) -> bool {
        matches!(self.0.scheme.as_str(), "http" | "https")
    }

    /// Tells whether the base is a directory.
    pub fn is_file(&self) -> bool {
        self.0.scheme == "file"
    }

    /// Returns the value of the `Authorization` header that every request carries, if the URL has
    /// userinfo. It is a secret.
    pub fn authorization(&self) -> Option<String> {
        let user = self.0.user.as_ref()?;
        let plain = [user.name.as_slice(), b":", user.password.as_deref().unwrap_or_default()].concat();
        Some(format!("Basic {}", STANDARD.encode(plain)))
    }

    /// Builds the URL to GET for signature `index` of a manifest. `repository` is the path without
    /// the host. Userinfo goes into [`LookasideBase::authorization`], the fragment nowhere, the
    /// query stays, and the base path is escaped anew from its decoded form.
    ///
    /// Means nothing for other schemes than http and https, nor without a host; see
    /// [`LookasideBase::locate`], which knows.
    pub fn signature_url(&self, repository: &str, digest: &Digest, index: NonZeroU32) -> String {
        let url = self.below(repository, digest, index);
        if url.host.is_empty() {
            return url.redacted();
        }
        format!("{}://{}{}", url.scheme, url.escaped_host(), url.request_uri())
    }

    /// Builds the path of the file of signature `index`: the decoded base path is used as it is,
    /// the host is not looked at.
    pub fn file_path(&self, repository: &str, digest: &Digest, index: NonZeroU32) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.below(repository, digest, index).path))
    }

    /// Returns the directory of all signatures of a manifest.
    pub fn directory(&self, repository: &str, digest: &Digest) -> PathBuf {
        let mut path = self.0.path.clone();
        path.extend_from_slice(format!("/{repository}@{}", digest.path_form()).as_bytes());
        PathBuf::from(std::ffi::OsString::from_vec(path))
    }

    /// Returns how messages name signature `index`: the whole URL, a password replaced.
    pub fn redacted_url(&self, repository: &str, digest: &Digest, index: NonZeroU32) -> String {
        self.below(repository, digest, index).redacted()
    }

    /// Finds where signature `index` is, if the base's scheme allows for the operation.
    ///
    /// # Errors
    /// [`LookasideError::ReadOnly`] and [`LookasideError::Scheme`], in the reference's sentences.
    pub fn locate(
        &self,
        operation: Operation,
        repository: &str,
        digest: &Digest,
        index: NonZeroU32,
    ) -> Result<SignatureLocation, LookasideError> {
        let verb = match operation {
            _ if self.is_file() => return Ok(SignatureLocation::File(self.file_path(repository, digest, index))),
            Operation::Read if self.is_http() && self.0.host.is_empty() => {
                return Err(LookasideError::NoHost { url: self.redacted_url(repository, digest, index) });
            }
            Operation::Read if self.is_http() => {
                return Ok(SignatureLocation::Http(self.signature_url(repository, digest, index)));
            }
            Operation::Write | Operation::Delete if self.is_http() => {
                let url = self.redacted_url(repository, digest, index);
                return Err(LookasideError::ReadOnly { scheme: self.0.scheme.clone(), url });
            }
            Operation::Read => "reading signature from",
            Operation::Write => "writing signature to",
            Operation::Delete => "deleting signature from",
        };
        Err(LookasideError::Scheme { verb, url: self.redacted_url(repository, digest, index) })
    }

    fn below(&self, repository: &str, digest: &Digest, index: NonZeroU32) -> GoUrl {
        let mut url = self.0.clone();
        url.path.extend_from_slice(format!("/{repository}@{}/signature-{index}", digest.path_form()).as_bytes());
        url
    }
}

/// Prints the URL as Go's `URL.Redacted` does: a password is `xxxxx`.
impl fmt::Display for LookasideBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.redacted())
    }
}

/// Replaces what may be a password in a text that is no URL. Here we say less than the reference,
/// which repeats the text with its secret.
fn without_password(text: &str) -> String {
    let start = text.find("//").map_or(0, |at| at + 2);
    let authority = text.get(start..).unwrap_or_default();
    let masked = authority.rsplit_once('@').and_then(|(user, host)| {
        let (name, _) = user.split_once(':')?;
        Some(format!("{}{name}:xxxxx@{host}", text.get(..start)?))
    });
    masked.unwrap_or_else(|| text.to_owned())
}
