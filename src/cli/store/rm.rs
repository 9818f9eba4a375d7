//! `countersign store rm`: signatures revoked.

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;

use super::{Place, Shown, StoreArg, show};
use crate::cli::output::{self, Answer, Format};
use crate::cli::stream::field;
use crate::image::{Digest, Reference};
use crate::openpgp::Fingerprint;
use crate::store::{Removed, SetAddress, StorePath};

/// Revoke signatures of one image
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Rm {
    #[command(flatten)]
    store: StoreArg,
    /// The image: NAME@sha256:HEX without a tag, or its folder in the store, PATH@sha256=HEX
    #[arg(value_name = "IMAGE")]
    image: String,
    #[command(flatten)]
    which: Which,
    /// Tell what would be removed, but remove nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Only the signature whose file has this SHA-256, as `store ls` shows it
    #[arg(long, value_name = "sha256:HEX")]
    signature: Option<String>,
    /// Those that name this key (or subkey) as their maker
    #[arg(long, value_name = "FPR")]
    fingerprint: Option<Fingerprint>,
    /// All of the image's signatures
    #[arg(long)]
    all: bool,
}

const EXAMPLES: &str = "\
The others move down, so that there is no gap. Servers may show a removed one for some seconds more.
Clients that hold a copy go on accepting it: revoke the key, or take it out of their policies.

Examples:
  countersign store rm --to ./signatures us.icr.io/birds/bluebird@sha256:… --signature sha256:…
  countersign store rm --to s3://signatures birds/bluebird@sha256=… --fingerprint 0123456789ABCDEF… --dry-run

Exit codes: 0 removed; 1 there is no such signature; 2 could not be done.";

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    place: Place,
    dry_run: bool,
    removed: Vec<Shown>,
}

enum Selector {
    Signature(Digest),
    Key(Fingerprint),
    All,
}

impl Rm {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let set = address(&self.image)?;
        let selector = self.which.selector()?;
        let store = self.store.open().await?;
        let mut wanted: Vec<Shown> = Vec::new();
        for stored in store.signatures(&set).await? {
            let (shown, said) = show(&stored);
            let hit = match &selector {
                Selector::Signature(digest) => shown.signature == *digest,
                Selector::Key(key) => said.is_some_and(|said| said.names(key)),
                Selector::All => true,
            };
            // Copies of the same bytes go together.
            if hit && wanted.iter().all(|other| other.signature != shown.signature) {
                wanted.push(shown);
            }
        }
        let mut report = Report { place: Place::from(&set), dry_run: self.dry_run, removed: Vec::new() };
        let mut failure = None;
        // From the last: then nothing has to move for nothing.
        for shown in wanted.into_iter().rev() {
            if !self.dry_run {
                match store.remove(&set, &shown.signature).await {
                    Ok(Removed::Done(_)) => {}
                    Ok(Removed::NotThere) => continue,
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
            report.removed.insert(0, shown);
        }
        output::result(format, &report.lines(), &report)?;
        if let Some(error) = failure {
            return Err(error).context("not all was removed");
        }
        Ok((!report.removed.is_empty()).into())
    }
}

impl Which {
    fn selector(self) -> anyhow::Result<Selector> {
        Ok(match (self.signature, self.fingerprint) {
            (Some(text), _) => {
                let digest = Digest::parse(&text).with_context(|| format!("--signature {text:?}"))?;
                ensure!(
                    digest.algorithm() == crate::image::Algorithm::Sha256,
                    "--signature takes the SHA-256 of the file"
                );
                Selector::Signature(digest)
            }
            (None, Some(key)) => Selector::Key(key),
            (None, None) if self.all => Selector::All,
            (None, None) => bail!("which? give --signature, --fingerprint or --all"),
        })
    }
}

/// Reads `NAME@algo:hex` or a folder of the store.
fn address(text: &str) -> anyhow::Result<SetAddress> {
    if text.contains('=') {
        return Ok(SetAddress::parse_key(text.trim_matches('/'))?);
    }
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let reference = Reference::parse(name).with_context(|| format!("image name {name:?}"))?;
    let Some(digest) = reference.digest() else {
        bail!("{name:?} has no digest: signatures are kept by digest, so write NAME@sha256:HEX");
    };
    ensure!(
        reference.tag().is_none(),
        "{name:?} has a tag, but the signatures for all tags of a digest are kept together: leave the tag out, and \
         use --signature to choose"
    );
    Ok(SetAddress::image(StorePath::parse(reference.repository().path())?, digest.clone())?)
}

impl Report {
    fn lines(&self) -> Vec<String> {
        if self.removed.is_empty() {
            return vec![format!("No such signature in {}", field(&self.place.set))];
        }
        let word = if self.dry_run { "would remove" } else { "removed" };
        let line = |one: &Shown| {
            let claim = one.claimed_reference.as_deref().map_or_else(|| "(no readable claim)".to_owned(), field);
            format!("{word} {}/signature-{}: {claim}, {}", field(&self.place.set), one.number, one.signature)
        };
        self.removed.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_by_name_or_by_folder() {
        let hex = Digest::sha256(b"x").hex().to_owned();
        let found = |text: &str| address(&text.replace("HEX", &hex)).map(|set| set.to_string().replace(&hex, "HEX"));
        assert_eq!(found("us.icr.io/birds/bluebird@sha256:HEX").unwrap(), "birds/bluebird@sha256=HEX");
        assert_eq!(found("docker://busybox@sha256:HEX").unwrap(), "library/busybox@sha256=HEX");
        assert_eq!(found("icr/birds@sha256=HEX").unwrap(), "icr/birds@sha256=HEX");
        assert_eq!(found("openshift/release/sha256=HEX/").unwrap(), "openshift/release/sha256=HEX");
        assert_eq!(found("sha256=HEX").unwrap(), "sha256=HEX");
        for (text, said) in [
            ("us.icr.io/birds/bluebird:1@sha256:HEX", "leave the tag out"),
            ("us.icr.io/birds/bluebird:1", "has no digest"),
            ("../x@sha256=HEX", "dot component"),
            ("x@sha256=12", "no signature folder"),
            ("", "image name"),
        ] {
            let error = format!("{:#}", found(text).unwrap_err());
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
