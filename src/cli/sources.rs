//! The flags that say which configuration counts and where signatures are, shared by `verify` and
//! `inspect`; and the registry client behind them.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use crate::doctor::{Clients, Given};
use crate::host::{Environment, Generation};
use crate::image::{Digest, ImageReference, MANIFEST_LIMIT, manifest_digest};
use crate::lookup::{Found, LookupError, OpenPgp, Signatures};
use crate::policy::{self, Origin, Policy, SignatureBlob};
use crate::registries_d::{Configuration, ConfigurationError, LookasideBase, Search};
use crate::registry::{AuthFiles, CredentialSource, RegistryClient, RegistryOptions, Selector};
use crate::store::{Store, StoreOptions};

/// Whose search for configuration files is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ConfigSearch {
    /// Podman 6 and what is built with it
    #[default]
    Podman6,
    /// Podman 5 and older, RHEL 8 and 9, OpenShift 4
    Podman5,
}

impl From<ConfigSearch> for Generation {
    fn from(search: ConfigSearch) -> Self {
        match search {
            ConfigSearch::Podman6 => Self::Podman6,
            ConfigSearch::Podman5 => Self::Podman5,
        }
    }
}

/// Where to look, and by whose rules.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// The image's manifest, instead of asking the registry (`-` for stdin)
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// A signature file, instead of asking the registry or a lookaside; repeatable
    #[arg(long, value_name = "FILE")]
    signature: Vec<PathBuf>,
    /// Where signatures are, instead of what registries.d and the registry say: a folder, file://,
    /// http(s)://, s3://
    #[arg(long, value_name = "STORE", conflicts_with = "signature")]
    lookaside: Option<String>,
    /// policy.json to decide by, instead of the host's
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Folder of registries.d files, instead of the host's
    #[arg(long = "registries-d", value_name = "DIR")]
    registries_d: Option<PathBuf>,
    /// Whose search for the host's configuration files to follow
    #[arg(long, value_enum, default_value_t, value_name = "WHOSE")]
    config_search: ConfigSearch,
    /// Check certificates of registries; if not, plain http is tried too
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    tls_verify: bool,
    /// Accept signatures that use SHA-1 or RSA keys under 2048 bits
    #[arg(long)]
    allow_weak: bool,
}

/// A manifest and its digest.
pub struct Manifest {
    /// Its bytes, where they are known; a digest reference needs none.
    pub bytes: Option<Vec<u8>>,
    /// Its digest.
    pub digest: Digest,
}

impl SourceArgs {
    /// Reads the policy that counts, and says which file it is.
    pub fn policy(&self) -> anyhow::Result<(PathBuf, Policy)> {
        Ok(self.load_policy()?)
    }

    /// The same, with an error that can be told apart.
    pub fn load_policy(&self) -> Result<(PathBuf, Policy), policy::LoadError> {
        match &self.policy {
            Some(path) => Ok((path.clone(), Policy::load(path)?)),
            None => policy::load_default(&Environment::from_process(), self.config_search.into()),
        }
    }

    /// Returns the policy file that was named.
    pub fn policy_path(&self) -> Option<PathBuf> {
        self.policy.clone()
    }

    /// Returns the folder that was named.
    pub fn registries_d_path(&self) -> Option<PathBuf> {
        self.registries_d.clone()
    }

    /// Whose search for files is followed.
    pub fn generation(&self) -> Generation {
        self.config_search.into()
    }

    /// The clients for sources that are insecure and that are not.
    pub fn clients(&self) -> Clients {
        Clients { secure: self.client(), insecure: self.client_that(false) }
    }

    /// Reads what the user gave instead of letting it be asked for.
    pub fn given(&self) -> anyhow::Result<Given> {
        let signatures = self.signature_files()?;
        let lookaside = match self.lookaside.as_deref().map(|place| (place, place.split_once("://"))) {
            None => None,
            Some((place, None)) => Some(LookasideBase::from_directory(&std::path::absolute(place)?)),
            Some((place, Some(("file" | "http" | "https", _)))) => Some(LookasideBase::parse(place)?),
            Some((place, _)) => anyhow::bail!("--lookaside {place}: clients read folders, file:// and http(s):// only"),
        };
        Ok(Given {
            manifest: self.manifest.as_deref().map(super::read_input).transpose()?,
            signatures: (!signatures.is_empty()).then_some(signatures),
            lookaside,
        })
    }

    /// The cryptography, as of now.
    pub fn mechanism(&self) -> OpenPgp {
        OpenPgp::at(SystemTime::now()).allow_weak(self.allow_weak)
    }

    fn client(&self) -> RegistryClient {
        self.client_that(self.tls_verify)
    }

    fn client_that(&self, tls_verify: bool) -> RegistryClient {
        let environment = Environment::from_process();
        let credentials = AuthFiles::from_environment(|name| std::env::var_os(name), environment.uid);
        RegistryClient::new(RegistryOptions {
            tls_verify,
            credentials: CredentialSource::Files(credentials),
            certs_d: crate::host::certificate_directories(&environment, self.config_search.into()),
            ..RegistryOptions::default()
        })
    }

    /// Finds the manifest: the file that was given, what the name's digest says, or the registry's.
    pub async fn manifest(&self, reference: &ImageReference) -> anyhow::Result<Manifest> {
        if let Some(path) = &self.manifest {
            let bytes = super::read_input(path)?;
            let digest = manifest_digest(&bytes).with_context(|| format!("--manifest {}", path.display()))?;
            return Ok(Manifest { bytes: Some(bytes), digest });
        }
        let name = reference.as_reference();
        if let Some(digest) = name.digest() {
            return Ok(Manifest { bytes: None, digest: digest.clone() });
        }
        let selector = Selector::of(name).context("the name has neither tag nor digest")?;
        let fetched = self.client().manifest(name.repository(), selector).await?;
        anyhow::ensure!(fetched.bytes.len() <= MANIFEST_LIMIT, "the manifest is larger than {MANIFEST_LIMIT} bytes");
        let digest = manifest_digest(&fetched.bytes)?;
        Ok(Manifest { bytes: Some(fetched.bytes.to_vec()), digest })
    }

    /// Finds the signatures of a manifest.
    pub async fn signatures(
        &self,
        reference: &ImageReference,
        digest: &Digest,
    ) -> anyhow::Result<Result<Vec<SignatureBlob>, LookupError>> {
        if !self.signature.is_empty() {
            return Ok(Ok(self.signature_files()?));
        }
        let found = match &self.lookaside {
            Some(place) => self.named(place, reference, digest).await?,
            None => {
                let signatures = self.lookup(self.configuration()?);
                signatures.of_image(reference.as_reference(), digest).await
            }
        };
        if let Ok(found) = &found {
            tracing::info!(place = %found.place, count = found.signatures.len(), "signatures found");
        }
        Ok(found.map(|found| found.signatures))
    }

    fn signature_files(&self) -> anyhow::Result<Vec<SignatureBlob>> {
        let read = |path: &PathBuf| {
            let bytes = super::read_input(path)?.into();
            Ok(SignatureBlob { origin: Origin::File(path.clone()), bytes })
        };
        self.signature.iter().map(read).collect()
    }

    async fn named(
        &self,
        place: &str,
        reference: &ImageReference,
        digest: &Digest,
    ) -> anyhow::Result<Result<Found, LookupError>> {
        let base = match place.split_once("://").map(|(scheme, _)| scheme) {
            None => LookasideBase::from_directory(&std::path::absolute(place)?),
            Some("file" | "http" | "https") => LookasideBase::parse(place)?,
            Some(_) => {
                let store = Store::open(place, &StoreOptions { create: false, ..StoreOptions::default() }).await?;
                return Ok(Signatures::of_store(&store, reference.as_reference(), digest).await);
            }
        };
        Ok(self.lookup(Configuration::default()).of_lookaside(&base, reference.as_reference(), digest).await)
    }

    fn configuration(&self) -> anyhow::Result<Configuration> {
        Ok(self.load_configuration()?)
    }

    /// Reads the registries.d that counts.
    pub fn load_configuration(&self) -> Result<Configuration, ConfigurationError> {
        let search = Search {
            explicit: self.registries_d.clone(),
            generation: self.config_search.into(),
            environment: Environment::from_process(),
            ..Search::default()
        };
        Configuration::load(&search)
    }

    fn lookup(&self, configuration: Configuration) -> Signatures {
        Signatures { client: self.client(), configuration, environment: Environment::from_process() }
    }
}
