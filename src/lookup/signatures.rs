//! The signatures of one image, wherever a client would take them from: the registry's extension
//! if it has one, else the lookaside that registries.d names (spec containers-image 3.2), or a
//! place that the user names.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::go;
use crate::host::Environment;
use crate::image::{Digest, Reference};
use crate::policy::{Origin, SignatureBlob};
use crate::registries_d::{self, Configuration, LookasideBase, Mode, Operation, SignatureLocation};
use crate::registry::{ConnectError, RegistryClient, RegistryError, SIGNATURE_LIMIT};
use crate::signature::{BLOB_LIMIT, SigstoreAttachment, classify};
use crate::store::{LayoutError, SetAddress, SignatureAddress, Store, StoreError, StorePath};

/// Where signatures were looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The extension of the registry `host[:port]`.
    Extension(String),
    /// A lookaside, by its base without password.
    Lookaside(String),
    /// A store of ours.
    Store(String),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Extension(registry) => write!(f, "signature extension of {registry}"),
            Self::Lookaside(base) => write!(f, "lookaside {base}"),
            Self::Store(location) => write!(f, "store {location}"),
        }
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Where.
    pub place: Place,
    /// The signatures in their order; none is a valid answer.
    pub signatures: Vec<SignatureBlob>,
}

/// Why signatures could not be read. A client would fail the pull of a policy that needs them.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The registry did not answer the ping.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The extension did not answer with a list.
    #[error(transparent)]
    Extension(#[from] RegistryError),
    /// The http lookaside failed.
    #[error(transparent)]
    Lookaside(#[from] crate::registry::LookasideError),
    /// The lookaside's URL is of no use.
    #[error(transparent)]
    Location(#[from] registries_d::LookasideError),
    /// A file of a lookaside is there but cannot be read.
    #[error("open {}: {}", .path.display(), go::error_text(.source))]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is larger than any signature.
    #[error("parsing signature {}: exceeded maximum allowed size of {BLOB_LIMIT} bytes", .0.display())]
    TooLarge(PathBuf),
    /// More files than clients read.
    #[error("server provided {SIGNATURE_LIMIT} signatures, assuming that's unreasonable and a server error")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The image's name has no place in a store.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl LookupError {
    /// Tells whether nobody could be asked, so that there is no answer rather than a no.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Extension(e) => match e.refusal() {
                Some(refusal) => is_temporary(refusal.status()),
                None => e.is_unanswered(),
            },
            Self::Lookaside(crate::registry::LookasideError::Status { status, .. }) => is_temporary(*status),
            Self::Lookaside(e) => matches!(e, crate::registry::LookasideError::Fetch { .. }),
            Self::Store(e) => e.is_unavailable(),
            _ => false,
        }
    }
}

/// A server that says so has not looked.
fn is_temporary(status: http::StatusCode) -> bool {
    status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS
}

/// All that finding signatures takes.
#[derive(Clone, Debug)]
pub struct Signatures {
    /// Speaks to registries and lookasides.
    pub client: RegistryClient,
    /// What registries.d says on this host.
    pub configuration: Configuration,
    /// Whose host it is.
    pub environment: Environment,
}

impl Signatures {
    /// Finds the signatures of the manifest `digest` as a client that pulls `reference` would.
    ///
    /// `reference` is the physical one, after registries.conf: mechanism and lookaside are chosen
    /// by where the image is, not by what it is called (spec containers-image 8.3).
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn of_image(&self, reference: &Reference, digest: &Digest) -> Result<Found, LookupError> {
        let repository = reference.repository();
        // The URL must parse even where the extension is going to be used (spec 1.5).
        let lookup = self.configuration.lookaside(reference, Mode::Read, &self.environment)?;
        let mut found = if self.client.supports_signatures(repository.domain()).await? {
            let blobs = self.client.signatures(repository, digest).await?;
            let signatures = blobs
                .into_iter()
                .enumerate()
                .map(|(n, bytes)| SignatureBlob {
                    origin: Origin::Extension(format!("extension entry {}", n + 1)),
                    bytes,
                })
                .collect();
            Found { place: Place::Extension(repository.domain().to_owned()), signatures }
        } else {
            self.of_lookaside(&lookup.base, reference, digest).await?
        };
        if self.configuration.attachments(reference).enabled {
            found.signatures.extend(self.attachments(reference, digest).await?);
        }
        Ok(found)
    }

    /// Reads the sigstore signatures that lie beside the image in the registry.
    ///
    /// # Errors
    /// [`LookupError::Extension`] with the registry's answer.
    pub async fn attachments(&self, reference: &Reference, digest: &Digest) -> Result<Vec<SignatureBlob>, LookupError> {
        let repository = reference.repository();
        let attachments = self.client.attachments(repository, digest).await?;
        let blob = |(n, attachment): (usize, SigstoreAttachment)| SignatureBlob {
            origin: Origin::Url(format!("docker://{repository}: sigstore attachment {}", n + 1)),
            bytes: attachment.to_blob().into(),
        };
        Ok(attachments.into_iter().enumerate().map(blob).collect())
    }

    /// Reads a lookaside by its base.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn of_lookaside(
        &self,
        base: &LookasideBase,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<Found, LookupError> {
        let repository = reference.repository();
        let place = Place::Lookaside(without_query(base.to_string()));
        let first = base.locate(Operation::Read, repository.path(), digest, NonZeroU32::MIN)?;
        let signatures = match first {
            SignatureLocation::File(_) => {
                read_directory(|index| base.file_path(repository.path(), digest, index)).await?
            }
            SignatureLocation::Http(_) => {
                let reader = self.client.lookaside(repository.domain()).await?;
                let blobs = reader.signatures(|index| base.authorized_url(repository.path(), digest, index)).await?;
                numbered(blobs, |index| Origin::Url(without_query(base.redacted_url(repository.path(), digest, index))))
            }
        };
        Ok(Found { place, signatures })
    }

    /// Reads signature `index` alone; `None` is none. `registry` is the one whose TLS settings count,
    /// `repository` the path below the base.
    ///
    /// # Errors
    /// [`LookupError`]. Unlike the whole, a file's bytes are checked here as those of a URL are.
    pub async fn one_of_lookaside(
        &self,
        base: &LookasideBase,
        (registry, repository): (&str, &str),
        digest: &Digest,
        index: NonZeroU32,
    ) -> Result<Option<SignatureBlob>, LookupError> {
        match base.locate(Operation::Read, repository, digest, index)? {
            SignatureLocation::File(path) => {
                let Some(bytes) = read_file(&path).await? else { return Ok(None) };
                if let Err(source) = classify(&bytes) {
                    let url = go::quote(path.as_os_str().as_encoded_bytes());
                    return Err(crate::registry::LookasideError::Blob { url, source }.into());
                }
                Ok(Some(SignatureBlob { origin: Origin::File(path), bytes: bytes.into() }))
            }
            SignatureLocation::Http(_) => {
                let reader = self.client.lookaside(registry).await?;
                let bytes = reader.signature(&base.authorized_url(repository, digest, index)).await?;
                let origin = Origin::Url(base.redacted_url(repository, digest, index));
                Ok(bytes.map(|bytes| SignatureBlob { origin, bytes }))
            }
        }
    }

    /// Reads a store that is neither a folder nor on http: positions in it are numbers, gaps or not.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn of_store(store: &Store, reference: &Reference, digest: &Digest) -> Result<Found, LookupError> {
        let set = SetAddress::image(StorePath::parse(reference.repository().path())?, digest.clone())?;
        let stored = store.signatures(&set).await?;
        let blobs = stored.into_iter().map(|signature| signature.bytes).collect();
        let signatures = numbered(blobs, |index| {
            Origin::Url(format!("{}/{}", store.location(), SignatureAddress { set: set.clone(), index }))
        });
        Ok(Found { place: Place::Store(store.location().to_owned()), signatures })
    }
}

/// A lookaside's token stands in its query as often as in its userinfo, and this goes into verdicts
/// and logs; `resolve` shows the whole address.
fn without_query(url: String) -> String {
    match url.split_once('?') {
        Some((before, _)) => format!("{before}?xxxxx"),
        None => url,
    }
}

/// The reader takes userinfo from the URL, as Go does.
fn numbered(blobs: Vec<Bytes>, origin: impl Fn(NonZeroU32) -> Origin) -> Vec<SignatureBlob> {
    (1u32..)
        .filter_map(NonZeroU32::new)
        .zip(blobs)
        .map(|(index, bytes)| SignatureBlob { origin: origin(index), bytes })
        .collect()
}

/// Reads 1, 2, 3, … until one is missing; only a missing file is an end (spec 2.3).
async fn read_directory(path: impl Fn(NonZeroU32) -> PathBuf) -> Result<Vec<SignatureBlob>, LookupError> {
    let mut signatures = Vec::new();
    for index in (1..=SIGNATURE_LIMIT).filter_map(NonZeroU32::new) {
        let path = path(index);
        let Some(bytes) = read_file(&path).await? else { return Ok(signatures) };
        signatures.push(SignatureBlob { origin: Origin::File(path), bytes: bytes.into() });
    }
    Err(LookupError::TooMany)
}

async fn read_file(path: &Path) -> Result<Option<Vec<u8>>, LookupError> {
    use tokio::io::AsyncReadExt as _;
    let failed = |source| LookupError::File { path: path.to_owned(), source };
    // Looked at before it is opened, for opening a pipe would wait for ever; clients do.
    if tokio::fs::metadata(path).await.is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(failed(std::io::Error::other("not a regular file")));
    }
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take(BLOB_LIMIT as u64 + 1).read_to_end(&mut bytes).await.map_err(failed)?;
    if bytes.len() > BLOB_LIMIT { Err(LookupError::TooLarge(path.to_owned())) } else { Ok(Some(bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_read_as_clients_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |index: NonZeroU32| folder.path().join(format!("signature-{index}"));
        let count = async || read_directory(path).await.map(|found| found.len());
        assert_eq!(count().await.unwrap(), 0);
        for number in [1, 2, 4] {
            std::fs::write(folder.path().join(format!("signature-{number}")), "x").unwrap();
        }
        assert_eq!(count().await.unwrap(), 2, "a gap ends it");
        std::fs::create_dir(folder.path().join("signature-3")).unwrap();
        assert!(count().await.is_err(), "what is there must be readable");
        std::fs::remove_dir(folder.path().join("signature-3")).unwrap();
        let pipe = folder.path().join("signature-3");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        let error = count().await.unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        std::fs::remove_file(&pipe).unwrap();
        for number in 3..=128 {
            std::fs::write(folder.path().join(format!("signature-{number}")), "x").unwrap();
        }
        assert!(matches!(count().await, Err(LookupError::TooMany)));
    }

    /// A web server that answers each path with a status, and the bodies with what a signature begins with.
    async fn server(status: fn(&str) -> &'static str) -> std::net::SocketAddr {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                let status = status(request.split(' ').nth(1).unwrap_or_default());
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\nConnection: close\r\n");
                stream.write_all(&[head.as_bytes(), b"\r\n\xa3ab"].concat()).await.unwrap();
            }
        });
        address
    }

    fn lookup() -> Signatures {
        let options = crate::registry::RegistryOptions { tls_verify: false, ..Default::default() };
        let client = RegistryClient::new(options);
        Signatures { client, configuration: Configuration::default(), environment: Environment::default() }
    }

    #[tokio::test]
    async fn a_token_in_the_query_is_not_shown() {
        let address = server(|path| if path.contains("signature-2") { "404 No" } else { "200 OK" }).await;
        let reference = Reference::parse(&format!("{address}/birds/bluebird:1")).unwrap();
        let base = LookasideBase::parse(&format!("http://user:secret@{address}/x?token=secret")).unwrap();
        let found = lookup().of_lookaside(&base, &reference, &Digest::sha256(b"x")).await.unwrap();
        assert_eq!(found.signatures.len(), 1);
        assert!(!format!("{found:?}").contains("secret"), "{found:?}");
    }

    #[tokio::test]
    async fn a_server_that_has_not_looked_is_no_answer() {
        async fn error(status: fn(&str) -> &'static str, lookaside: bool) -> LookupError {
            let address = server(status).await;
            let reference = Reference::parse(&format!("{address}/birds/bluebird:1")).unwrap();
            let base = LookasideBase::parse(&format!("http://{address}/x")).unwrap();
            if lookaside {
                return lookup().of_lookaside(&base, &reference, &Digest::sha256(b"x")).await.unwrap_err();
            }
            let blobs = lookup().client.signatures(reference.repository(), &Digest::sha256(b"x")).await;
            blobs.unwrap_err().into()
        }
        for lookaside in [true, false] {
            let down = error(|path| if path == "/v2/" { "200 OK" } else { "503 Later" }, lookaside).await;
            assert!(down.is_unavailable(), "{down}");
            let gone = error(|path| if path == "/v2/" { "200 OK" } else { "403 Never" }, lookaside).await;
            assert!(!gone.is_unavailable(), "{gone}");
        }
        assert!(error(|_| "500 No", true).await.is_unavailable());
    }
}
