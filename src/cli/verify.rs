//! `countersign verify`: decide about an image as containers/image does.

use anyhow::Context as _;
use clap::Args;

use super::output::{self, Answer, Format};
use super::sources::{Desk, SourceArgs};
use super::subject::{Scope, Subject};
use super::verdict::{FailedRequirement, InstanceVerdict, Verdict, word};
use crate::image::{ImageReference, manifest_digest};
use crate::lookup::{LookupError, OpenPgp};
use crate::policy::{self, Decision, Image, ManifestEvidence, Options, Policy, SignatureBlob, Signatures};

/// Decide about an image as podman and skopeo would
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Verify {
    /// The image's name, with or without docker://
    reference: String,
    #[command(flatten)]
    sources: SourceArgs,
    /// Decide about every instance of a list; one that is rejected rejects all
    #[arg(long, conflicts_with_all = ["instance", "platform", "signature"])]
    all: bool,
    /// Reject what the policy accepts without a signature
    #[arg(long)]
    require_signed: bool,
}

const EXAMPLES: &str = "\
Examples:
  countersign verify us.icr.io/birds/bluebird:build1
  countersign verify us.icr.io/birds/bluebird:build1 --platform linux/s390x
  countersign verify us.icr.io/birds/bluebird:build1 --policy policy.json \\
      --manifest manifest.json --signature signature-1
  countersign verify us.icr.io/birds/bluebird@sha256:… --lookaside s3://signatures

Of a manifest list the instance is judged that a pull would choose, by signatures of that instance.
With a digest and --signature or --lookaside no registry is asked, so a list is not noticed unless
--platform or --all says that there is one.

Exit codes: 0 accepted; 1 rejected; 2 could not ask.";

impl Verify {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let scope = if self.all { Scope::Instances } else { Scope::Chosen };
        let reference = parse_name(&self.reference)?;
        let (path, policy) = self.sources.host.policy()?;
        let desk = self.sources.open().await?;
        let court =
            Court { reference, policy, mechanism: self.sources.mechanism(), require_signed: self.require_signed };
        let verdict = court.verdict(&desk, scope, path.display().to_string()).await?;
        output::result(format, &verdict.lines(), &verdict)?;
        Ok((verdict.decision == word(true)).into())
    }
}

/// Reads an image's name as the user wrote it.
pub fn parse_name(name: &str) -> anyhow::Result<ImageReference> {
    ImageReference::parse(name).with_context(|| format!("image name {name:?}"))
}

/// All that decides about the manifests of one image.
pub struct Court {
    pub reference: ImageReference,
    pub policy: Policy,
    pub mechanism: OpenPgp,
    pub require_signed: bool,
}

/// What came of one manifest.
pub struct Judged {
    pub verdict: InstanceVerdict,
    /// The signatures that were found, in the order of the verdicts about them.
    pub blobs: Vec<SignatureBlob>,
    /// Why they could not be read.
    pub unread: Option<LookupError>,
}

impl Court {
    async fn verdict(&self, desk: &Desk<'_>, scope: Scope, policy: String) -> anyhow::Result<Verdict> {
        let (matched, requirements) = self.policy.docker_requirements(self.reference.as_reference());
        tracing::debug!(scope = %matched, requirements = requirements.len(), "policy scope");
        let sources = desk.args();
        let found = sources.subject.find(&self.reference, &desk.client, scope, sources.names_signatures()).await?;
        let mut verdict = Verdict::new(self.reference.to_string(), policy, &matched, requirements);
        verdict.warnings = found.warnings;
        verdict.list.clone_from(&found.list);
        let taken = found.list.is_some();
        let (mut judged, mut unavailable) = (Vec::new(), None);
        for subject in found.subjects {
            let one = self.judge(desk, subject, taken).await?;
            if let Some(e) = one.unread {
                // Where that is the reason, and nobody answered, there is no decision.
                let decisive = one.verdict.reason.as_deref() == Some(&e.to_string());
                if decisive && e.is_unavailable() {
                    unavailable = unavailable.or(Some(e));
                    continue;
                }
                let warning = format!("signatures could not be read, which fails pulls that copy them: {e}");
                verdict.warnings.extend((!decisive).then_some(warning));
            }
            judged.push(one.verdict);
        }
        let rejected = judged.iter().any(|one| one.decision != word(true));
        if let Some(e) = unavailable.filter(|_| !rejected) {
            return Err(e).context("signatures could not be read");
        }
        if scope == Scope::Chosen || !taken {
            let one = judged.pop().context("there is no manifest to judge")?;
            return Ok(verdict.about(one));
        }
        Ok(verdict.about_all(found.list, judged))
    }

    /// Judges one manifest; `taken` from a list or not.
    pub async fn judge(&self, desk: &Desk<'_>, subject: Subject, taken: bool) -> anyhow::Result<Judged> {
        let Subject { bytes, digest, platform, fault } = subject;
        if let Some(reason) = fault {
            let verdict = InstanceVerdict {
                digest,
                platform,
                decision: word(false),
                reason: Some(reason),
                failed_requirement: None,
                signatures: Vec::new(),
            };
            return Ok(Judged { verdict, blobs: Vec::new(), unread: None });
        }
        let mut sentence = String::new();
        let found = match (&digest, &bytes) {
            (Some(digest), _) => desk.signatures(&self.reference, digest).await?.map_err(|e| {
                sentence = e.to_string();
                Some(e)
            }),
            (None, bytes) => desk.files().map(<[_]>::to_vec).ok_or_else(|| {
                let error = bytes.as_deref().and_then(|bytes| manifest_digest(bytes).err());
                sentence = error.map(|e| e.to_string()).unwrap_or_default();
                None
            }),
        };
        let signatures = match &found {
            Ok(found) => Signatures::Found(found),
            Err(_) => Signatures::Failed(&sentence),
        };
        let evidence = match (&bytes, &digest) {
            (Some(bytes), _) => ManifestEvidence::Bytes(bytes),
            (None, Some(digest)) => ManifestEvidence::Digest(digest),
            (None, None) => anyhow::bail!("there is no manifest to judge"),
        };
        let mut image = Image::docker(&self.reference, evidence);
        if let Some(digest) = digest.as_ref().filter(|_| taken) {
            image = image.with_instance(digest);
        }
        let options = Options { require_signed: self.require_signed, decision_only: false };
        let decision = policy::decide(&self.policy, &image, signatures, &self.mechanism, options);
        let Decision { mut accepted, reason, failed, signatures, .. } = decision;
        let (_, requirements) = self.policy.docker_requirements(self.reference.as_reference());
        let failed_requirement = failed.and_then(|number| {
            let kind = requirements.get(number)?.type_name();
            Some(FailedRequirement { number: number + 1, of: requirements.len(), kind })
        });
        let mut reason = reason.map(|reason| reason.to_string());
        // A policy that looks at no signature does not look at the manifest either; a pull does.
        let named = self.reference.as_reference().digest().filter(|named| !taken && digest.as_ref() != Some(*named));
        if let Some(named) = named.filter(|_| accepted) {
            accepted = false;
            reason = Some(format!("Manifest does not match provided manifest digest {named}"));
        }
        let signatures = signatures.into_iter().map(Into::into).collect();
        let verdict =
            InstanceVerdict { digest, platform, decision: word(accepted), reason, failed_requirement, signatures };
        let (blobs, unread) = match found {
            Ok(blobs) => (blobs, None),
            Err(e) => (Vec::new(), e),
        };
        Ok(Judged { verdict, blobs, unread })
    }
}
