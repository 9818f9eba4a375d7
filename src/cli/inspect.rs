//! `countersign inspect`: what a signature file says, unverified; or all signatures of an image and
//! each one's standing.

use std::path::Path;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::output::{self, Answer, Format};
use super::sources::SourceArgs;
use super::subject::Scope;
use super::verdict::{self, SignatureStanding};
use super::verify::{Court, parse_name};
use crate::escape;
use crate::image::Digest;
use crate::openpgp;
use crate::policy::{Origin, SignatureBlob};
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
  countersign inspect us.icr.io/birds/bluebird:build1 --policy policy.json

Of a manifest list the signatures of the list and of every instance are shown.
Exit codes: 0 shown; 1 no signature, or no readable one; 2 could not ask.";

/// What a signature says. Nothing of it has been verified.
#[derive(Debug, Serialize)]
struct Unverified {
    verified: bool,
    reference: String,
    digest: Digest,
    creator: Option<String>,
    timestamp: Option<i64>,
    key_id: String,
    fingerprint: Option<String>,
    created: Option<String>,
}

/// A signature of an image: how it stands, and what it says where that is not the same.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    standing: SignatureStanding,
    /// The manifest that it was filed under.
    digest: Option<Digest>,
    /// What that manifest runs on, if it is an instance of a list.
    platform: Option<String>,
    /// What it says, if no key of the policy vouches for it.
    unverified: Option<Unverified>,
}

impl Inspect {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        if self.what == "-" || Path::new(&self.what).is_file() {
            return inspect_file(Path::new(&self.what), format);
        }
        self.inspect_image(format)
            .await
            .with_context(|| format!("{:?} is no file here, so it was taken for the name of an image", self.what))
    }

    async fn inspect_image(&self, format: Format) -> anyhow::Result<Answer> {
        let reference = parse_name(&self.what)?;
        let (_, policy) = self.sources.host.policy()?;
        let desk = self.sources.open().await?;
        let offline = self.sources.names_signatures();
        let found = self.sources.subject.find(&reference, &desk.client, Scope::ListAndInstances, offline).await?;
        let court = Court { reference, policy, mechanism: self.sources.mechanism(), require_signed: false };
        let taken = found.list.is_some();
        let (mut listed, mut lines) = (Vec::new(), Vec::new());
        for subject in found.subjects {
            if let Some(fault) = &subject.fault {
                output::talk(&format!("a pull of it fails: {fault}"));
            }
            let judged = court.judge(&desk, subject, taken).await?;
            if let Some(e) = judged.unread {
                return Err(e).context("signatures could not be read");
            }
            let (digest, platform) = (judged.verdict.digest, judged.verdict.platform);
            let shown = digest.as_ref().map_or_else(|| "a manifest without digest".to_owned(), Digest::to_string);
            let kind = match (&platform, taken) {
                (Some(platform), _) => format!(", instance for {}", escape::word(platform)),
                (None, true) => ", the list itself".to_owned(),
                (None, false) => String::new(),
            };
            lines.push(format!("{} signature(s) of {shown}{kind}", judged.blobs.len()));
            for (standing, blob) in judged.verdict.signatures.into_iter().zip(&judged.blobs) {
                let unverified = if standing.fingerprint.is_none() { says(blob).ok() } else { None };
                lines.extend(standing.lines());
                lines.extend(unverified.as_ref().map(|says| {
                    let reference = escape::word(&says.reference);
                    format!("    says, unverified, that it is {reference} by key {}", says.key_id)
                }));
                listed.push(Listed { standing, digest: digest.clone(), platform: platform.clone(), unverified });
            }
        }
        output::result(format, &lines, &listed)?;
        Ok((!listed.is_empty()).into())
    }
}

/// Reads what a signature says, wherever it came from.
fn says(blob: &SignatureBlob) -> anyhow::Result<Unverified> {
    let message = match blob.origin {
        Origin::Extension(_) => &blob.bytes[..],
        Origin::File(_) | Origin::Url(_) => simple_signing(&blob.bytes)?,
    };
    unverified(message)
}

fn unverified(message: &[u8]) -> anyhow::Result<Unverified> {
    let untrusted = openpgp::inspect(message)?;
    let claim = Claim::parse(&untrusted.content)?;
    Ok(Unverified {
        verified: false,
        reference: claim.reference,
        digest: claim.digest,
        creator: claim.creator,
        timestamp: claim.timestamp,
        key_id: untrusted.key_id.to_string(),
        fingerprint: untrusted.fingerprint.map(|fingerprint| fingerprint.to_string()),
        created: untrusted.created.map(|created| created.to_string()),
    })
}

fn inspect_file(path: &Path, format: Format) -> anyhow::Result<Answer> {
    let blob = super::read_input(path)?;
    let shown = match simple_signing(&blob).map_err(anyhow::Error::from).and_then(unverified) {
        Ok(shown) => shown,
        Err(e) => {
            let sentence = output::sentence(&e);
            output::talk(&format!("{} is no readable signature: {sentence}", escape::path_word(path)));
            return Ok(Answer::No);
        }
    };
    let mut lines = vec![
        "Unverified: this is only what the signature says of itself".to_owned(),
        format!("  reference    {}", escape::text(&shown.reference)),
        format!("  digest       {}", shown.digest),
        format!("  key ID       {}", shown.key_id),
    ];
    lines.extend(shown.fingerprint.iter().map(|fingerprint| format!("  fingerprint  {fingerprint}")));
    lines.extend(shown.created.iter().map(|created| format!("  made at      {created}")));
    lines.extend(shown.creator.iter().map(|creator| format!("  creator      {}", escape::text(creator))));
    lines.extend(shown.timestamp.and_then(verdict::time).iter().map(|time| format!("  timestamp    {time}")));
    output::result(format, &lines, &shown)?;
    Ok(Answer::Yes)
}
