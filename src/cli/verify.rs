//! `countersign verify`: decide about an image as containers/image does.

use anyhow::Context as _;
use clap::Args;

use super::output::{self, Answer, Format};
use super::sources::{Manifest, SourceArgs};
use super::verdict::Verdict;
use crate::image::ImageReference;
use crate::policy::{self, Image, ManifestEvidence, Options, Policy, Signatures};

/// Decide about an image as podman and skopeo would
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Verify {
    /// The image's name, with or without docker://
    reference: String,
    #[command(flatten)]
    sources: SourceArgs,
    /// Reject what the policy accepts without a signature
    #[arg(long)]
    require_signed: bool,
}

const EXAMPLES: &str = "\
Examples:
  countersign verify us.icr.io/birds/bluebird:build1
  countersign verify us.icr.io/birds/bluebird:build1 --manifest manifest.json --signature signature-1 \\
      --policy policy.json
  countersign verify us.icr.io/birds/bluebird@sha256:… --lookaside s3://signatures --policy policy.json

Exit codes: 0 accepted; 1 rejected; 2 could not ask.";

impl Verify {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let verdict = decide(&self.reference, &self.sources, self.require_signed).await?;
        output::result(format, &verdict.text(), &verdict)?;
        Ok((verdict.decision == "accepted").into())
    }
}

/// Decides about the image of that name.
pub async fn decide(name: &str, sources: &SourceArgs, require_signed: bool) -> anyhow::Result<Verdict> {
    let reference = ImageReference::parse(name).with_context(|| format!("image name {name:?}"))?;
    let (path, policy) = sources.policy()?;
    let manifest = sources.manifest(&reference).await?;
    let found = sources.signatures(&reference, &manifest.digest).await?;
    let sentence = found.as_ref().err().map(ToString::to_string).unwrap_or_default();
    let signatures = match &found {
        Ok(found) => Signatures::Found(found),
        Err(_) => Signatures::Failed(&sentence),
    };
    let (scope, requirements) = policy.docker_requirements(reference.as_reference());
    tracing::debug!(%scope, requirements = requirements.len(), "policy scope");
    let decision = judge(&reference, &manifest, &policy, signatures, sources, require_signed);
    match found {
        // Nobody answered, and it mattered: that is no decision.
        Err(e) if !decision.accepted && e.is_unavailable() => Err(e).context("signatures could not be read"),
        _ => Ok(Verdict::new(&reference, &manifest.digest, decision, &path, requirements)),
    }
}

fn judge(
    reference: &ImageReference,
    manifest: &Manifest,
    policy: &Policy,
    signatures: Signatures<'_>,
    sources: &SourceArgs,
    require_signed: bool,
) -> policy::Decision {
    let evidence = match &manifest.bytes {
        Some(bytes) => ManifestEvidence::Bytes(bytes),
        None => ManifestEvidence::Digest(&manifest.digest),
    };
    let options = Options { require_signed, decision_only: false };
    policy::decide(policy, &Image::docker(reference, evidence), signatures, &sources.mechanism(), options)
}
