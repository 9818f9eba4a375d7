//! What is judged: one manifest, the one that a pull would take from a list, or all of a list
//! (spec containers-image 7).

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::image::{Digest, ImageReference, ManifestKind, kind, manifest_digest};
use crate::lookup::{ListError, ManifestList, Platform};
use crate::registry::{RegistryClient, RegistryError, Selector};

/// A pull ends with this sentence when a list names a list.
const NESTED: &str = "Unexpectedly received a manifest list instead of a manifest for a single image";

/// Which manifest.
#[derive(Debug, Args)]
pub struct SubjectArgs {
    /// The image's manifest, instead of asking the registry (`-` for stdin)
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// The manifest of one instance, if --manifest is a list
    #[arg(long, value_name = "FILE", requires = "manifest", conflicts_with = "platform")]
    instance: Option<PathBuf>,
    /// Which instance of a list: os/architecture[/variant] [default: linux on this machine]
    #[arg(long, value_name = "PLATFORM", value_parser = Platform::parse)]
    platform: Option<Platform>,
}

/// One manifest to judge.
#[derive(Debug, Default)]
pub struct Subject {
    /// Its bytes, where they are known.
    pub bytes: Option<Vec<u8>>,
    /// Its digest; none for a schema 1 manifest that cannot be decoded, which no signature fits.
    pub digest: Option<Digest>,
    /// What the list says that it runs on, if it was taken from a list.
    pub platform: Option<String>,
    /// Why a pull fails whatever the policy says.
    pub fault: Option<String>,
}

/// What is to be judged.
#[derive(Debug, Default)]
pub struct Subjects {
    /// The list that they were taken from.
    pub list: Option<Digest>,
    /// The manifests; just one unless all of a list were asked for.
    pub subjects: Vec<Subject>,
    /// What could not be looked at.
    pub warnings: Vec<String>,
}

/// How many of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The one that a pull takes.
    Chosen,
    /// All instances.
    Instances,
    /// The list itself, and all instances.
    ListAndInstances,
}

/// The manifest that a name stands for, list or not.
struct Top {
    bytes: Vec<u8>,
    media_type: String,
    /// Whether its instances can be fetched where it came from.
    registry: bool,
}

impl Subject {
    fn of_bytes(bytes: Vec<u8>) -> Self {
        Self { digest: manifest_digest(&bytes).ok(), bytes: Some(bytes), ..Self::default() }
    }

    fn of_digest(digest: &Digest) -> Self {
        Self { digest: Some(digest.clone()), ..Self::default() }
    }
}

impl Subjects {
    fn one(subject: Subject) -> Self {
        Self { subjects: vec![subject], ..Self::default() }
    }

    fn fault(digest: Option<Digest>, fault: String) -> Self {
        Self::one(Subject { digest, fault: Some(fault), ..Subject::default() })
    }
}

impl SubjectArgs {
    /// Tells whether the manifest was given as a file.
    pub fn has_file(&self) -> bool {
        self.manifest.is_some()
    }

    /// Reads the manifest that was given as a file.
    pub fn manifest_file(&self) -> anyhow::Result<Option<Vec<u8>>> {
        self.manifest.as_deref().map(super::read_input).transpose()
    }

    /// Finds the manifests to judge. `offline` says that a name with a digest is judged by that
    /// digest, without looking at the manifest, unless a flag asks for more.
    pub async fn find(
        &self,
        reference: &ImageReference,
        client: &RegistryClient,
        scope: Scope,
        offline: bool,
    ) -> anyhow::Result<Subjects> {
        let named = reference.as_reference().digest();
        let wants_instance = self.platform.is_some() || scope == Scope::Instances;
        let selector = Selector::of(reference.as_reference()).context("the name has neither tag nor digest")?;
        let top = match (&self.manifest, named) {
            (Some(path), _) => Top { bytes: super::read_input(path)?, media_type: String::new(), registry: false },
            (None, Some(digest)) if offline && !wants_instance => {
                return Ok(Subjects::one(Subject::of_digest(digest)));
            }
            (None, named) => match fetch(reference, client, selector).await {
                Ok(top) => top,
                Err(RegistryError::Connect(e)) if named.is_some() && !wants_instance => {
                    let warning = format!("whether it is a list could not be asked: {e}");
                    let subject = named.map(Subject::of_digest).unwrap_or_default();
                    return Ok(Subjects { warnings: vec![warning], ..Subjects::one(subject) });
                }
                Err(e) => return fault(e).map(|reason| Subjects::fault(named.cloned(), reason)),
            },
        };
        self.of_top(top, reference, client, scope).await
    }

    async fn of_top(
        &self,
        top: Top,
        reference: &ImageReference,
        client: &RegistryClient,
        scope: Scope,
    ) -> anyhow::Result<Subjects> {
        let digest = manifest_digest(&top.bytes).ok();
        let list = match ManifestList::read(&top.bytes, &top.media_type) {
            Ok(Some(list)) => list,
            Ok(None) if self.instance.is_some() => bail!("--instance is for a list, and --manifest is none"),
            Ok(None) => return Ok(Subjects::one(Subject::of_bytes(top.bytes))),
            Err(e) => return Ok(Subjects::fault(digest, e.to_string())),
        };
        if let Some(named) = reference.as_reference().digest().filter(|named| digest.as_ref() != Some(*named)) {
            let reason = format!("Manifest does not match provided manifest digest {named}");
            return Ok(Subjects { list: digest.clone(), ..Subjects::fault(digest, reason) });
        }
        let instance = self.instance.as_deref().map(super::read_input).transpose()?;
        let members = match (scope, &instance) {
            (Scope::Instances | Scope::ListAndInstances, _) => list.members.iter().collect(),
            (Scope::Chosen, Some(bytes)) => {
                let own = manifest_digest(bytes).context("--instance")?;
                vec![list.member(&own).with_context(|| format!("--instance is {own}, which the list does not name"))?]
            }
            (Scope::Chosen, None) => match list.choose(&self.platform()) {
                Ok(member) => vec![member],
                Err(e @ ListError::NoInstance { .. }) => {
                    let name = reference.as_reference().familiar();
                    let reason = format!("choosing an image from manifest list docker://{name}: {e}");
                    return Ok(Subjects { list: digest.clone(), ..Subjects::fault(digest, reason) });
                }
                Err(e) => return Err(e.into()),
            },
        };
        let mut subjects = Vec::new();
        for member in members {
            let bytes = match &instance {
                Some(bytes) if manifest_digest(bytes).is_ok_and(|own| own == member.digest) => Some(bytes.clone()),
                _ => None,
            };
            let mut subject = Subject { bytes, ..Subject::of_digest(&member.digest) };
            if subject.bytes.is_none() && top.registry {
                match fetch(reference, client, Selector::Digest(&member.digest)).await {
                    Ok(top) => subject.bytes = Some(top.bytes),
                    Err(e) => subject.fault = Some(fault(e)?),
                }
            }
            if subject.bytes.as_deref().is_some_and(|bytes| kind(bytes) == ManifestKind::List) {
                subject.fault = Some(NESTED.to_owned());
            }
            subjects.push(Subject { platform: Some(member.platform_name()), ..subject });
        }
        if scope == Scope::ListAndInstances {
            subjects.insert(0, Subject::of_bytes(top.bytes));
        }
        if subjects.is_empty() {
            return Ok(Subjects { list: digest.clone(), ..Subjects::fault(digest, "the list is empty".to_owned()) });
        }
        Ok(Subjects { list: digest, subjects, warnings: Vec::new() })
    }

    /// The platform whose instance is taken from a list: the one named, or this machine's.
    pub fn platform(&self) -> Platform {
        self.platform.clone().unwrap_or_else(|| {
            let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            Platform::of_machine(&cpuinfo)
        })
    }
}

async fn fetch(
    reference: &ImageReference,
    client: &RegistryClient,
    selector: Selector<'_>,
) -> Result<Top, RegistryError> {
    let fetched = client.manifest(reference.repository(), selector).await?;
    Ok(Top { bytes: fetched.bytes.to_vec(), media_type: fetched.media_type, registry: true })
}

/// Either what the registry serves is wrong, so that every pull fails, or it could not be asked.
fn fault(error: RegistryError) -> anyhow::Result<String> {
    match error {
        RegistryError::ManifestDigest { expected, .. } => {
            Ok(format!("Manifest does not match provided manifest digest {expected}"))
        }
        RegistryError::ManifestForm { source, .. } => Ok(format!("computing manifest digest: {source}")),
        error => Err(error.into()),
    }
}
