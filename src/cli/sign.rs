//! `countersign sign`: one signature.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;

use super::keys::KeyArgs;
use super::output::{self, Answer, Format};
use crate::escape;
use crate::image::{Digest, Reference, manifest_digest};
use crate::signature::Claim;
use crate::store::{Appended, SetAddress, SignatureAddress, Store, StoreOptions, StorePath};

/// Make one signature
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Sign {
    /// Name that the image may be called by, with tag or digest
    reference: String,
    #[command(flatten)]
    key: KeyArgs,
    /// Digest of the image's manifest
    #[arg(long, value_name = "ALGO:HEX", conflicts_with = "manifest")]
    digest: Option<String>,
    /// The manifest itself (`-` for stdin); its digest is computed
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// File to write the signature to (`-` for stdout)
    #[arg(short, long, value_name = "FILE", required_unless_present = "to")]
    output: Option<PathBuf>,
    /// Store to add the signature to, under the repository's path
    #[arg(long, value_name = "STORE", conflicts_with = "output")]
    to: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  countersign sign us.icr.io/birds/bluebird:build1 --key signer.asc --manifest manifest.json -o signature-1
  countersign sign us.icr.io/birds/bluebird:build1 --key signer.asc --digest sha256:… --to s3://signatures";

#[derive(Serialize)]
struct Report<'a> {
    reference: String,
    digest: &'a Digest,
    fingerprint: String,
    /// File or store address.
    written: String,
    /// False when the store had the very same bytes before.
    new: bool,
}

impl Sign {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let name = self.reference.strip_prefix("docker://").unwrap_or(&self.reference);
        let reference = Reference::parse(name).with_context(|| format!("image name {name:?}"))?;
        ensure!(
            !reference.is_name_only(),
            "{name:?} has neither tag nor digest, so clients would not accept a signature for it; add one (:latest?)"
        );
        let digest = self.digest(&reference)?;
        let key = self.key.load()?;
        let now = SystemTime::now();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let claim = Claim {
            reference: reference.to_string(),
            digest: digest.clone(),
            creator: Some(super::CREATOR.to_owned()),
            timestamp: Some(i64::try_from(seconds)?),
        };
        let blob = key.signer.sign(&claim.render()?, now)?;
        let (written, new) = match (&self.output, &self.to) {
            (Some(file), _) => (write_file(file, &blob)?, true),
            (None, Some(store)) => append(store, &reference, &digest, &blob).await?,
            (None, None) => bail!("nowhere to write the signature; give -o FILE or --to STORE"),
        };
        if self.output.as_deref() == Some(Path::new("-")) {
            return Ok(Answer::Yes);
        }
        let report = Report {
            reference: claim.reference,
            digest: &digest,
            fingerprint: key.signer.fingerprint().to_string(),
            written,
            new,
        };
        let written = if new { "written to " } else { "was there before: " };
        let lines = [
            format!("Signed {digest} as {}", escape::text(&report.reference)),
            format!("by {}, {written}{}", report.fingerprint, escape::text(&report.written)),
        ];
        output::result(format, &lines, &report)?;
        Ok(Answer::Yes)
    }

    /// The digest to sign, and nothing that contradicts it.
    fn digest(&self, reference: &Reference) -> anyhow::Result<Digest> {
        let given = match (&self.digest, &self.manifest) {
            (Some(text), _) => Some(Digest::parse(text).with_context(|| format!("--digest {text:?}"))?),
            (None, Some(path)) => {
                let bytes = super::read_input(path)?;
                ensure!(!bytes.is_empty(), "the manifest {} is empty", path.display());
                Some(manifest_digest(&bytes).with_context(|| format!("--manifest {}", path.display()))?)
            }
            (None, None) => None,
        };
        match (given, reference.digest()) {
            (Some(given), Some(named)) if given != *named => {
                bail!("the name says {named}, but the manifest's digest is {given}; nothing was signed")
            }
            (Some(given), _) => Ok(given),
            (None, Some(named)) => Ok(named.clone()),
            (None, None) => bail!("which image? give --manifest FILE or --digest ALGO:HEX"),
        }
    }
}

async fn append(location: &str, reference: &Reference, digest: &Digest, blob: &[u8]) -> anyhow::Result<(String, bool)> {
    let store = Store::open(location, &StoreOptions { create: true, ..StoreOptions::default() }).await?;
    let set = SetAddress::image(StorePath::parse(reference.repository().path())?, digest.clone())?;
    let (number, new) = match store.append(&set, blob).await? {
        Appended::Created(number) => (number, true),
        Appended::AlreadyThere(number) => (number, false),
    };
    let index = number.try_into().context("signature number")?;
    Ok((format!("{}/{}", store.location().trim_end_matches('/'), SignatureAddress { set, index }), new))
}

/// Writes a whole file or none: into a neighbour first, then renamed.
fn write_file(path: &Path, blob: &[u8]) -> anyhow::Result<String> {
    if path == Path::new("-") {
        output::signature(blob)?;
        return Ok("stdout".to_owned());
    }
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let context = || format!("writing {}", path.display());
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(context)?;
    file.write_all(blob).and_then(|()| file.as_file().sync_all()).with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(path.display().to_string())
}
