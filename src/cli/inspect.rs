//! `countersign inspect`: what a signature file says, unverified; or all signatures of an image and
//! each one's standing.

use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::output::{self, Answer, Format};
use super::sources::SourceArgs;
use super::{verdict, verify};
use crate::openpgp;
use crate::signature::{Claim, simple_signing};

/// Show what a signature says, unverified, or all signatures of an image
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    /// A signature file (`-` for stdin), or the name of an image
    what: String,
    #[command(flatten)]
    sources: SourceArgs,
}

const EXAMPLES: &str = "\
Examples:
  countersign inspect signature-1
  countersign inspect us.icr.io/birds/bluebird:build1 --policy policy.json";

/// What a signature file says. Nothing of it has been verified.
#[derive(Debug, Serialize)]
struct Unverified {
    verified: bool,
    reference: String,
    digest: crate::image::Digest,
    creator: Option<String>,
    timestamp: Option<i64>,
    key_id: String,
    fingerprint: Option<String>,
    created: Option<String>,
}

impl Inspect {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        if self.what == "-" || Path::new(&self.what).is_file() {
            return inspect_file(Path::new(&self.what), format);
        }
        let image = verify::decide(&self.what, &self.sources, false)
            .await
            .with_context(|| format!("{:?} is no file here, so it was taken for the name of an image", self.what))?;
        let texts: Vec<String> = image.signatures.iter().map(verdict::SignatureStanding::text).collect();
        let text = match texts.len() {
            0 => format!("No signatures of {}", image.digest),
            count => format!("{count} signature(s) of {}\n{}", image.digest, texts.join("\n")),
        };
        output::result(format, &output::plain(&text), &image.signatures)?;
        Ok((!image.signatures.is_empty()).into())
    }
}

fn inspect_file(path: &Path, format: Format) -> anyhow::Result<Answer> {
    let blob = super::read_input(path)?;
    let about = || format!("{} is no readable signature", path.display());
    let message = match simple_signing(&blob) {
        Ok(message) => message,
        Err(e) => return not_a_signature(path, &e),
    };
    let untrusted = match openpgp::inspect(message) {
        Ok(untrusted) => untrusted,
        Err(e) => return not_a_signature(path, &e),
    };
    let claim = Claim::parse(&untrusted.content).with_context(about);
    let claim = match claim {
        Ok(claim) => claim,
        Err(e) => {
            output::talk(&output::plain(&format!("{e:#}")));
            return Ok(Answer::No);
        }
    };
    let shown = Unverified {
        verified: false,
        reference: claim.reference,
        digest: claim.digest,
        creator: claim.creator,
        timestamp: claim.timestamp,
        key_id: untrusted.key_id.to_string(),
        fingerprint: untrusted.fingerprint.map(|fingerprint| fingerprint.to_string()),
        created: untrusted.created.map(|created| created.to_string()),
    };
    let mut lines = vec![
        "Unverified: this is only what the signature says of itself".to_owned(),
        format!("  reference    {}", shown.reference),
        format!("  digest       {}", shown.digest),
        format!("  key ID       {}", shown.key_id),
    ];
    lines.extend(shown.fingerprint.iter().map(|fingerprint| format!("  fingerprint  {fingerprint}")));
    lines.extend(shown.created.iter().map(|created| format!("  made at      {created}")));
    lines.extend(shown.creator.iter().map(|creator| format!("  creator      {creator}")));
    lines.extend(shown.timestamp.and_then(verdict::time).iter().map(|time| format!("  timestamp    {time}")));
    output::result(format, &output::plain(&lines.join("\n")), &shown)?;
    Ok(Answer::Yes)
}

fn not_a_signature(path: &Path, error: &dyn std::error::Error) -> anyhow::Result<Answer> {
    output::talk(&output::plain(&format!("{} is no readable signature: {error}", path.display())));
    Ok(Answer::No)
}
