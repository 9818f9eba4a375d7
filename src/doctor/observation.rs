//! What the walk saw, as plain data: all that the diagnosis may know.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::image::{Digest, ImageReference, Instance, Reference};
use crate::lookup::{Fault, LookupError};
use crate::policy::{KeySource, Reason, Requirement, ScopeMatch, SignatureVerdict};
use crate::registries_conf::PullSource;
use crate::registries_d::Origin;
use crate::registry::{LookasideError, Ping};
use crate::signature::BlobError;

/// Everything that was seen of one image on one host. What was not reached is absent.
#[derive(Clone, Debug)]
pub struct Observations {
    /// The name that the user gave.
    pub image: ImageReference,
    /// Where this host's files are, for the fixes.
    pub paths: Paths,
    /// A file that fails everything.
    pub stop: Option<Stop>,
    /// The policy's part for this image.
    pub scope: Option<ScopeMatch>,
    /// What that part asks for.
    pub requirements: Vec<Requirement>,
    /// All scopes that the policy has for `docker`.
    pub docker_scopes: Vec<String>,
    /// The namespaces that registries.d defines: one may be defined once only.
    pub namespaces: BTreeMap<String, NamespaceSeen>,
    /// The sources that were tried, in order; the last one is used, if any is.
    pub sources: Vec<SourceSeen>,
    /// The manifest.
    pub manifest: Option<ManifestSeen>,
    /// Where signatures were looked for, and what came of it.
    pub place: Option<PlaceSeen>,
    /// Where signing would write.
    pub write: Option<WriteSeen>,
    /// What the policy made of it all.
    pub judged: Option<Judged>,
}

/// A namespace of registries.d.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceSeen {
    /// The file that defines it.
    pub path: PathBuf,
    /// The text of its `lookaside`; empty if it has none.
    pub lookaside: String,
    /// Its `use-sigstore-attachments`.
    pub attachments: Option<bool>,
}

/// The files that a fix changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// policy.json: the one that was read, or where one should be.
    pub policy: PathBuf,
    /// The folder for a new registries.d file.
    pub registries_d: PathBuf,
    /// The registries.conf file to add to.
    pub registries_conf: PathBuf,
    /// The user's home.
    pub home: PathBuf,
}

/// Why no client gets as far as a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// There is no policy.json.
    PolicyMissing(String),
    /// policy.json cannot be read.
    Policy(String),
    /// registries.d cannot be read.
    RegistriesD(String),
    /// registries.conf cannot be read, or makes no name of this one.
    RegistriesConf(String),
}

/// One source, and how far it was followed.
#[derive(Clone, Debug)]
pub struct SourceSeen {
    /// The source.
    pub source: PullSource,
    /// The answer to the ping, or the sentence of its failure. A blocked source is not pinged.
    pub ping: Option<Result<Ping, String>>,
    /// Whether plain http answered where https did not, and was not allowed.
    pub plain_http: bool,
    /// Whether https answers when the certificate is not checked.
    pub untrusted_certificate: bool,
    /// What a ping with credentials showed, where the plain one was answered 401.
    pub with_credentials: Option<Ping>,
    /// Why there was no manifest.
    pub manifest_failure: Option<String>,
}

impl SourceSeen {
    /// Starts to look at a source.
    pub fn new(source: PullSource) -> Self {
        Self {
            source,
            ping: None,
            plain_http: false,
            untrusted_certificate: false,
            with_credentials: None,
            manifest_failure: None,
        }
    }
}

/// The manifest that the policy judges.
#[derive(Clone, Debug)]
pub struct ManifestSeen {
    /// The physical name that it came from.
    pub physical: Reference,
    /// Its digest: an image's own, or that of the member of a list.
    pub digest: Digest,
    /// The list that it was chosen from: its digest and members.
    pub list: Option<(Digest, Vec<Instance>)>,
    /// The platform for which no member was found.
    pub no_instance_for: Option<String>,
}

/// The sigstore attachments of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachmentsSeen {
    /// Whether `use-sigstore-attachments` holds for the image.
    pub enabled: bool,
    /// How many a client found, or the sentence of its failure. `None` if it looks at none.
    pub result: Option<Result<usize, String>>,
    /// How many there are although clients look at none.
    pub unread: Option<usize>,
    /// The registry has a bundle of cosign 3 beside the image, which no released client reads.
    pub has_bundle: bool,
}

/// Where signatures were looked for.
#[derive(Clone, Debug, Default)]
pub struct PlaceSeen {
    /// The extension's URL and the sentence of its failure, if it was used.
    pub extension: Option<(String, Result<usize, String>)>,
    /// The lookaside that was read or, beside an extension, that is configured in vain.
    pub lookaside: Option<LookasideSeen>,
    /// How many signatures the list itself has, where its member has none.
    pub of_list: Option<usize>,
    /// The same signatures under the logical name's path, where they differ and the mirror's has
    /// none: the lookaside, and that path.
    pub logical: Option<(LookasideSeen, String)>,
    /// The lookaside without the slash at the end of its base, where it then has signatures.
    pub without_slash: Option<LookasideSeen>,
    /// What lies beside the image in the registry.
    pub attachments: AttachmentsSeen,
}

impl PlaceSeen {
    /// Returns how many signatures a client found, if it found out.
    pub fn count(&self) -> Option<usize> {
        let simple = self.simple();
        match &self.attachments.result {
            None => simple,
            Some(Ok(attachments)) => simple.map(|simple| simple + attachments),
            Some(Err(_)) => None,
        }
    }

    /// Returns how many simple signatures a client found, if it found out.
    pub fn simple(&self) -> Option<usize> {
        match (&self.extension, &self.lookaside) {
            (Some((_, result)), _) => result.as_ref().ok().copied(),
            (None, Some(lookaside)) => lookaside.found(),
            (None, None) => None,
        }
    }
}

/// A lookaside as it answered.
#[derive(Clone, Debug)]
pub struct LookasideSeen {
    /// Its base without password, or the text that makes none.
    pub base: String,
    /// Who configured it; `None` when it was named on the command line.
    pub origin: Option<Origin>,
    /// The address of signature 1, without password.
    pub first: String,
    /// What came of it.
    pub outcome: ReadOutcome,
}

impl LookasideSeen {
    /// Returns how many signatures there are, if all could be read.
    pub fn found(&self) -> Option<usize> {
        match self.outcome {
            ReadOutcome::Found(count) => Some(count),
            ReadOutcome::Failed { .. } => None,
        }
    }
}

/// What came of reading a lookaside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// So many signatures, up to the first that is missing.
    Found(usize),
    /// It failed.
    Failed {
        /// The address at which it failed.
        at: String,
        /// How.
        failure: ReadFailure,
    },
}

/// How reading a lookaside fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFailure {
    /// Another status than 200 and 404.
    Status(u16),
    /// 200 with a web page.
    Html,
    /// 200 with nothing.
    Empty,
    /// 200 with something else.
    NotASignature(String),
    /// No answer.
    Unreachable(String),
    /// A file that is there and cannot be read.
    Unreadable(String),
    /// A URL of no use.
    Url(String),
    /// 128 signatures.
    Endless,
}

impl ReadFailure {
    /// Sorts the failure of one read.
    pub fn of(error: &LookupError) -> Self {
        match error {
            LookupError::Lookaside(LookasideError::Status { status, .. }) => Self::Status(status.as_u16()),
            LookupError::Lookaside(LookasideError::Blob { source, .. }) => Self::of_blob(source),
            LookupError::Lookaside(LookasideError::TooMany) | LookupError::TooMany => Self::Endless,
            LookupError::Location(e) => Self::Url(e.to_string()),
            LookupError::File { .. } | LookupError::TooLarge(_) | LookupError::Layout(_) => {
                Self::Unreadable(error.to_string())
            }
            LookupError::Lookaside(LookasideError::Fetch { .. })
            | LookupError::Connect(_)
            | LookupError::Extension(_)
            | LookupError::Store(_) => Self::Unreachable(error.to_string()),
        }
    }

    /// Sorts bytes that are no signature.
    pub fn of_blob(error: &BlobError) -> Self {
        match error {
            BlobError::Empty => Self::Empty,
            BlobError::UnknownBinary(b'<') => Self::Html,
            other => Self::NotASignature(other.to_string()),
        }
    }
}

/// Where `--sign-by` would put a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteSeen {
    /// The built-in default folder, if that is it.
    pub default_store: Option<PathBuf>,
    /// Why it cannot be written.
    pub unwritable: Option<String>,
}

/// The policy's decision.
#[derive(Clone, Debug)]
pub struct Judged {
    /// Whether the policy accepts.
    pub accepted: bool,
    /// Why not.
    pub reason: Option<Reason>,
    /// Each signature's standing.
    pub signatures: Vec<SignatureSeen>,
}

/// One signature.
#[derive(Clone, Debug)]
pub struct SignatureSeen {
    /// What the policy made of it.
    pub verdict: SignatureVerdict,
    /// Why the cryptography refuses it, under the first requirement that does.
    pub fault: Option<KeyFault>,
    /// What it says of itself, verified by nothing.
    pub untrusted: Option<Untrusted>,
}

/// A refusal, and the keys that were tried.
#[derive(Clone, Debug)]
pub struct KeyFault {
    /// The refusal.
    pub fault: Fault,
    /// The keys of the requirement.
    pub keys: KeySource,
    /// Its key files as they are now.
    pub files: Vec<KeyFileSeen>,
}

/// A key file of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFileSeen {
    /// The file.
    pub path: PathBuf,
    /// What it is good for.
    pub state: KeyFileState,
}

/// What a key file is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFileState {
    /// It does not exist.
    Missing,
    /// It exists, and cannot be read.
    Unreadable(String),
    /// Clients import these keys of it, by fingerprint; none if it holds no key.
    Keys(Vec<String>),
}

/// An unverified claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untrusted {
    /// The name.
    pub reference: String,
    /// The signer's fingerprint, or else the key ID.
    pub key: String,
}
