//! The flags that say where signatures are, shared by `verify` and `inspect`, and the reading of
//! them.

use std::path::PathBuf;
use std::time::SystemTime;

use clap::Args;

use super::host::HostArgs;
use super::subject::SubjectArgs;
use crate::doctor::Given;
use crate::image::{Digest, ImageReference};
use crate::lookup::{Found, LookupError, OpenPgp, Signatures};
use crate::policy::{Origin, SignatureBlob};
use crate::registries_d::{self, Configuration, LookasideBase};
use crate::registry::RegistryClient;
use crate::store::{Store, StoreOptions};

/// Where to look, and by whose rules.
#[derive(Debug, Args)]
pub struct SourceArgs {
    #[command(flatten)]
    pub subject: SubjectArgs,
    /// A signature file, instead of asking the registry or a lookaside; repeatable
    #[arg(long, value_name = "FILE")]
    signature: Vec<PathBuf>,
    /// Where signatures are, instead of what registries.d and the registry say: a folder, file://,
    /// http(s)://, s3://
    #[arg(long, value_name = "STORE", conflicts_with = "signature")]
    lookaside: Option<String>,
    #[command(flatten)]
    pub host: HostArgs,
    /// Accept signatures that use SHA-1 or RSA keys under 2048 bits
    #[arg(long)]
    allow_weak: bool,
}

/// All that is asked while one image is looked at, read once.
pub struct Desk<'a> {
    args: &'a SourceArgs,
    /// The one client, which remembers pings and tokens.
    pub client: RegistryClient,
    place: Place,
}

enum Place {
    Files(Vec<SignatureBlob>),
    Base(Box<(Signatures, LookasideBase)>),
    Store(Store),
    Configured(Box<Signatures>),
}

impl SourceArgs {
    /// The cryptography, as of now.
    pub fn mechanism(&self) -> OpenPgp {
        OpenPgp::at(SystemTime::now()).allow_weak(self.allow_weak)
    }

    /// Tells whether the registry need not be asked for signatures, so that it should not be asked
    /// for anything that can be told without it.
    pub fn names_signatures(&self) -> bool {
        self.lookaside.is_some() || !self.signature.is_empty()
    }

    /// Reads what the user gave instead of letting it be asked for, as far as clients know such
    /// places.
    pub fn given(&self) -> anyhow::Result<Given> {
        let lookaside = match self.lookaside.as_deref().map(|place| (place, place.split_once("://"))) {
            None => None,
            Some((place, None)) => Some(LookasideBase::from_directory(&std::path::absolute(place)?)),
            Some((place, Some(("file" | "http" | "https", _)))) => Some(LookasideBase::parse(place)?),
            Some((place, _)) => anyhow::bail!("--lookaside {place}: clients read folders, file:// and http(s):// only"),
        };
        Ok(Given {
            manifest: self.subject.manifest_file()?,
            signatures: if self.signature.is_empty() { None } else { Some(self.signature_files()?) },
            lookaside,
        })
    }

    fn signature_files(&self) -> anyhow::Result<Vec<SignatureBlob>> {
        let read = |path: &PathBuf| {
            let bytes = super::read_input(path)?.into();
            Ok(SignatureBlob { origin: Origin::File(path.clone()), bytes })
        };
        self.signature.iter().map(read).collect()
    }

    /// Opens what signatures are read from.
    pub async fn open(&self) -> anyhow::Result<Desk<'_>> {
        let client = self.host.client();
        let place = if !self.signature.is_empty() {
            Place::Files(self.signature_files()?)
        } else if let Some(named) = &self.lookaside {
            let base = |base| {
                let own = self.host.lookup(&client, Configuration::default());
                Place::Base(Box::new((own, base)))
            };
            match named.split_once("://").map(|(scheme, _)| scheme) {
                None => base(LookasideBase::from_directory(&std::path::absolute(named)?)),
                Some("file" | "http" | "https") => base(LookasideBase::parse(named)?),
                Some(_) => {
                    let options = StoreOptions { create: false, ..StoreOptions::default() };
                    Place::Store(Store::open(named, &options).await?)
                }
            }
        } else {
            Place::Configured(Box::new(self.host.lookup(&client, self.host.configuration()?)))
        };
        Ok(Desk { args: self, client, place })
    }
}

impl Desk<'_> {
    /// The flags.
    pub fn args(&self) -> &SourceArgs {
        self.args
    }

    /// The signatures that the user gave as files.
    pub fn files(&self) -> Option<&[SignatureBlob]> {
        match &self.place {
            Place::Files(blobs) => Some(blobs),
            _ => None,
        }
    }

    /// Finds the signatures of a manifest. A failure that fails every pull, whatever the policy, is
    /// an error of its own: the lookaside's URL is none.
    pub async fn signatures(
        &self,
        reference: &ImageReference,
        digest: &Digest,
    ) -> anyhow::Result<Result<Vec<SignatureBlob>, LookupError>> {
        let name = reference.as_reference();
        let found: Result<Found, LookupError> = match &self.place {
            Place::Files(blobs) => return Ok(Ok(blobs.clone())),
            Place::Base(named) => named.0.of_lookaside(&named.1, name, digest).await,
            Place::Store(store) => Signatures::of_store(store, name, digest).await,
            Place::Configured(signatures) => signatures.of_image(name, digest).await,
        };
        match found {
            Ok(found) => {
                tracing::info!(place = %found.place, count = found.signatures.len(), "signatures found");
                Ok(Ok(found.signatures))
            }
            Err(LookupError::Location(e @ registries_d::LookasideError::Invalid { .. })) => Err(e.into()),
            Err(e) => Ok(Err(e)),
        }
    }
}
