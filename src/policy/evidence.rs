//! What a decision is made about: an image, its manifest and the signatures that were found for it.

use std::fmt;
use std::path::PathBuf;

use bytes::Bytes;

use super::reason::Reason;
use crate::go::quote;
use crate::image::{Digest, ImageReference, Reference, namespaces};
use crate::signature::SigstoreAttachment;
use crate::signature::{BlobKind, classify};

/// The image that a policy is asked about.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// The transport: `docker`, `dir`, …
    pub transport: &'a str,
    /// The identity within the transport, by which scopes are looked up first.
    pub identity: String,
    /// The further scopes that cover the image, most specific first.
    pub namespaces: Vec<String>,
    /// The docker name that the user gave (the logical one, not a mirror's), with a tag or a
    /// digest; `None` for transports without one.
    pub reference: Option<&'a Reference>,
    /// The name for messages: `docker://testing/manifest:latest`.
    pub name: String,
    /// The manifest.
    pub manifest: ManifestEvidence<'a>,
    /// The digest under which the manifest was taken from a list; it takes the place of the
    /// reference's digest, which is then the list's (spec containers-image 7).
    pub instance: Option<&'a Digest>,
}

impl<'a> Image<'a> {
    /// Describes an image of a registry.
    pub fn docker(reference: &'a ImageReference, manifest: ManifestEvidence<'a>) -> Self {
        let reference = reference.as_reference();
        Self {
            transport: "docker",
            identity: reference.to_string(),
            namespaces: namespaces(reference),
            reference: Some(reference),
            name: format!("docker://{}", reference.familiar()),
            manifest,
            instance: None,
        }
    }

    /// Says that the manifest was taken from a list under this digest.
    #[must_use]
    pub fn with_instance(mut self, digest: &'a Digest) -> Self {
        self.instance = Some(digest);
        self
    }
}

/// What is known of the manifest.
#[derive(Clone, Copy, Debug)]
pub enum ManifestEvidence<'a> {
    /// Its bytes; the digest is computed from them.
    Bytes(&'a [u8]),
    /// Its digest, which the caller vouches for: computed from the bytes by
    /// [`crate::image::manifest_digest`], or the digest under which a signature was filed when the
    /// question is only whether the signature is good for that digest.
    Digest(&'a Digest),
}

/// Where a signature came from. Decides how its bytes are read and how messages name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file of a lookaside or a `dir:` image; the form is told by the first bytes.
    File(PathBuf),
    /// A lookaside URL, without its password; the form is told by the first bytes.
    Url(String),
    /// An entry of the extension API, by its name; always simple signing, whatever it begins with
    /// (spec containers-image 3.3).
    Extension(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(text) | Self::Extension(text) => f.write_str(text),
        }
    }
}

/// A signature in the form in which it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureBlob {
    /// Where it came from.
    pub origin: Origin,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A signature whose form is known.
pub(super) enum Form<'a> {
    Simple(&'a [u8]),
    Sigstore(SigstoreAttachment),
}

impl SignatureBlob {
    /// Reads the form. A blob of no known form makes all signatures of the image unreadable.
    pub(super) fn form(&self) -> Result<Form<'_>, Reason> {
        let origin = match &self.origin {
            Origin::Extension(_) => return Ok(Form::Simple(&self.bytes)),
            Origin::File(path) => quote(path.as_os_str().as_encoded_bytes()),
            Origin::Url(url) => url.clone(),
        };
        let unreadable = |reason: String| Reason::Unreadable { origin: origin.clone(), reason };
        match classify(&self.bytes).map_err(|e| unreadable(e.to_string()))? {
            BlobKind::SimpleSigning(message) => Ok(Form::Simple(message)),
            BlobKind::SigstoreJson(json) => {
                SigstoreAttachment::parse(json).map(Form::Sigstore).map_err(|e| unreadable(e.to_string()))
            }
        }
    }
}

/// The signatures of an image, or why they could not be had. A failure denies only where a
/// requirement asks for signatures.
#[derive(Clone, Copy, Debug)]
pub enum Signatures<'a> {
    /// In their order; none at all is a valid answer.
    Found(&'a [SignatureBlob]),
    /// The sentence of whoever failed to fetch them.
    Failed(&'a str),
}
