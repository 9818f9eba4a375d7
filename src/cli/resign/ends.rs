//! The flags of `countersign resign` that say where signatures come from and go to, which images
//! count, and how fast registries are asked.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use url::Url;

use crate::cli::host::{ConfigSearch, registry_options};
use crate::registry::{Pace, RegistryClient, RegistryOptions, redact};
use crate::resign::{
    Check, CheckKind, Choice, Destination, Discover, Endpoint, ImageFile, Listed, Lister, LookasideEnd, RegistryEnd,
    RenameMap, Source,
};
use crate::store::{Store, StoreError, StoreOptions};

/// Which images, which claims, and how to speak to registries.
#[derive(Debug, Args)]
pub struct EndsArgs {
    /// Work on these images only (one a line, HOST/PATH or a path below the source, with :tag or
    /// @digest); registries and lookasides on the web need it, or --discover catalog. A journal knows
    /// the list by its name: what stands in it may change from run to run
    #[arg(long, value_name = "FILE|-")]
    images: Option<String>,
    /// Take all tags of those repositories in --images that stand there without tag, or all that
    /// the source's registry has in its catalog
    #[arg(long, value_name = "WHAT")]
    discover: Option<DiscoverArg>,
    /// Sign only the newest accepted claim for each name and tag
    #[arg(long)]
    newest: bool,
    /// Sign only what the registry of the new name still has
    #[arg(long, value_name = "WHAT")]
    check: Option<CheckArg>,
    /// Ask this registry, whatever the new names say
    #[arg(long, value_name = "HOST", requires = "check")]
    check_registry: Option<String>,
    /// Ask each registry or web server at most N times a second
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    rate: Option<Rate>,
    /// Check certificates of the source; if not, plain http is tried too
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    from_tls_verify: bool,
    /// The same for the destination and for the registry of --check
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    to_tls_verify: bool,
    /// Whose search for certificates and credentials to follow
    #[arg(long, value_enum, default_value_t, value_name = "WHOSE")]
    config_search: ConfigSearch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DiscoverArg {
    /// All tags of the repositories in --images
    Tags,
    /// All repositories of the source's registry, and their tags
    Catalog,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CheckArg {
    /// The tag still points at the digest
    Current,
    /// The digest is still there
    Exists,
    /// The same; and of a signed list, sign its instances under the same name
    Instances,
}

/// Requests a second.
#[derive(Clone, Debug)]
struct Rate(Pace);

/// What the flags open.
pub struct Ends {
    pub source: Source,
    pub destination: Destination,
    pub choice: Choice,
}

impl EndsArgs {
    /// Opens both ends.
    pub async fn open(
        &self,
        from: &str,
        to: &str,
        renames: &RenameMap,
        jobs: usize,
        dry_run: bool,
    ) -> anyhow::Result<Ends> {
        let new = new_registries(renames);
        let both = renames.rules().iter().map(|rule| registry_of(rule.old())).chain(new.iter().cloned()).collect();
        let pace = self.rate.clone().map_or_else(Pace::unlimited, |Rate(pace)| pace);
        let client = |tls_verify| {
            let options = registry_options(tls_verify, self.config_search);
            RegistryClient::new(RegistryOptions { pace: Some(pace.clone()), patient: true, ..options })
        };
        let (from_client, to_client) = (client(self.from_tls_verify), client(self.to_tls_verify));
        let source = self.source(from, &from_client, both, jobs).await.context("--from")?;
        let destination = destination(to, &to_client, new, jobs, dry_run).await.context("--to")?;
        let check = self.check.map(|kind| Check::new(kind.into(), to_client, self.check_registry.clone()));
        Ok(Ends { source, destination, choice: Choice { newest: self.newest, check } })
    }

    async fn source(
        &self,
        from: &str,
        client: &RegistryClient,
        hosts: BTreeSet<String>,
        jobs: usize,
    ) -> anyhow::Result<Source> {
        let lister = self.lister()?;
        let at = if from.starts_with("docker://") {
            Endpoint::Registry(RegistryEnd::open(from, client.clone(), BTreeSet::new(), jobs).await?)
        } else if is_web(from) {
            Endpoint::Lookaside(LookasideEnd::reader(from, client).await?)
        } else {
            Endpoint::Tree(old_tree(from).await?)
        };
        match (at, lister) {
            (Endpoint::Tree(store), None) => Ok(Source::Tree(store)),
            (Endpoint::Registry(_), None) => {
                bail!("a registry does not say what it has signatures of; add --images FILE or --discover catalog")
            }
            (Endpoint::Lookaside(_), None) => {
                bail!("a lookaside on the web does not say what it has; add --images FILE")
            }
            (Endpoint::Tree(_) | Endpoint::Lookaside(_), Some(Lister::Catalog)) => {
                bail!("--discover catalog asks the source's registry, and the source is none (docker://HOST)")
            }
            (at, Some(lister)) => Ok(Source::Listed(Listed::new(at, lister, hosts, client.clone(), jobs))),
        }
    }

    fn lister(&self) -> anyhow::Result<Option<Lister>> {
        let discover = self.discover.map(Discover::from);
        let file = self.images.as_ref().map(ImageFile::new).transpose()?;
        match (file, discover) {
            (None, None) => Ok(None),
            (None, Some(Discover::Catalog)) => Ok(Some(Lister::Catalog)),
            (None, Some(Discover::Tags)) => bail!("--discover tags needs --images FILE with the repositories"),
            (Some(_), Some(Discover::Catalog)) => bail!("--discover catalog takes all images; leave --images out"),
            (Some(file), tags) => Ok(Some(Lister::File { file, discover_tags: tags.is_some() })),
        }
    }

    /// What of these flags decides what is signed.
    pub fn identity(&self) -> impl Iterator<Item = (&'static str, String)> {
        let name = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
        let named = |value: Option<&str>| name(value.map(str::to_owned));
        let said = |value: Option<clap::builder::PossibleValue>| name(value.map(|value| value.get_name().to_owned()));
        [
            ("list of images", named(self.images.as_deref())),
            ("discovery", said(self.discover.and_then(|value| value.to_possible_value()))),
            ("claims", if self.newest { "newest" } else { "all" }.to_owned()),
            ("check", said(self.check.and_then(|value| value.to_possible_value()))),
            ("registry of the check", named(self.check_registry.as_deref())),
        ]
        .into_iter()
    }
}

impl From<DiscoverArg> for Discover {
    fn from(argument: DiscoverArg) -> Self {
        match argument {
            DiscoverArg::Tags => Self::Tags,
            DiscoverArg::Catalog => Self::Catalog,
        }
    }
}

impl From<CheckArg> for CheckKind {
    fn from(argument: CheckArg) -> Self {
        match argument {
            CheckArg::Current => Self::Current,
            CheckArg::Exists => Self::Exists,
            CheckArg::Instances => Self::Instances,
        }
    }
}

async fn destination(
    to: &str,
    client: &RegistryClient,
    known: BTreeSet<String>,
    jobs: usize,
    dry_run: bool,
) -> anyhow::Result<Destination> {
    if to.starts_with("docker://") {
        return Ok(Endpoint::Registry(RegistryEnd::open(to, client.clone(), known, jobs).await?));
    }
    if is_web(to) {
        return Ok(Endpoint::Lookaside(LookasideEnd::deposit(to, client, jobs).await?));
    }
    match Store::open(to, &StoreOptions { create: !dry_run, patient: true, ..StoreOptions::default() }).await {
        // A dry run creates nothing; what is not there yet is empty.
        Err(_) if dry_run && may_become_a_folder(to) => Ok(Endpoint::Tree(Store::memory())),
        opened => Ok(Endpoint::Tree(opened?)),
    }
}

/// Tells whether a place is a folder that is not there yet.
fn may_become_a_folder(place: &str) -> bool {
    let scheme = place.split_once(':').is_some_and(|(scheme, _)| matches!(scheme, "s3" | "gs" | "az" | "file"));
    !scheme && !place.contains("://") && !place.is_empty() && !std::path::Path::new(place).exists()
}

/// Returns the client that reads what a report tells of.
pub fn reading_client(tls_verify: bool) -> RegistryClient {
    let options = registry_options(tls_verify, ConfigSearch::default());
    RegistryClient::new(RegistryOptions { patient: true, ..options })
}

/// Opens a job's source to look at what a report tells of.
pub async fn source_of(place: &str, client: &RegistryClient) -> anyhow::Result<Endpoint> {
    if is_web(place) {
        return Ok(Endpoint::Lookaside(LookasideEnd::reader(place, client).await?));
    }
    readable(place, client, BTreeSet::new()).await
}

/// Opens a job's destination for the same: as the job did, so that it has the same places.
pub async fn destination_of(place: &str, client: &RegistryClient, renames: &RenameMap) -> anyhow::Result<Endpoint> {
    if is_web(place) {
        // With the credentials that the uploads had.
        return Ok(Endpoint::Lookaside(LookasideEnd::deposit(place, client, 1).await?));
    }
    readable(place, client, new_registries(renames)).await
}

async fn readable(place: &str, client: &RegistryClient, known: BTreeSet<String>) -> anyhow::Result<Endpoint> {
    Ok(if place.starts_with("docker://") {
        Endpoint::Registry(RegistryEnd::open(place, client.clone(), known, 1).await?)
    } else {
        Endpoint::Tree(old_tree(place).await?)
    })
}

fn is_web(place: &str) -> bool {
    place.starts_with("http://") || place.starts_with("https://")
}

/// A place without the secrets that a URL may hold, for the journal. Only the web may have any;
/// elsewhere they are refused, and not shown for all that.
pub fn shown(place: &str) -> String {
    match Url::parse(place) {
        Ok(url) if is_web(place) || url.password().is_some() || !url.username().is_empty() => redact(&url),
        _ => place.to_owned(),
    }
}

/// Opens a tree that is there.
async fn old_tree(place: &str) -> Result<Store, StoreError> {
    Store::open(place, &StoreOptions { create: false, patient: true, ..StoreOptions::default() }).await
}

/// Tells whether [`shown`] took a secret out of a place.
pub fn is_redacted(place: &str) -> bool {
    is_web(place) && place.contains("xxxxx")
}

/// The registries that new names are of.
fn new_registries(renames: &RenameMap) -> BTreeSet<String> {
    renames.rules().iter().filter_map(|rule| rule.new_name().map(registry_of)).collect()
}

fn registry_of(prefix: &str) -> String {
    prefix.split('/').next().unwrap_or_default().to_owned()
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    let pace = text.parse().ok().and_then(Pace::per_second);
    pace.map(Rate).ok_or_else(|| format!("{text:?} is not a number above zero"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_learns_no_secret() {
        let shown_url = shown("https://user:geheim@h.example/base?token=geheim");
        assert_eq!(shown_url, "https://user:xxxxx@h.example/base?token=xxxxx");
        assert!(is_redacted(&shown_url) && !is_redacted("https://h.example/base"));
        assert_eq!(shown("s3://key:geheim@bucket/prefix"), "s3://key:xxxxx@bucket/prefix");
        assert_eq!(shown("docker://user:geheim@h.example/x"), "docker://user:xxxxx@h.example/x");
        assert_eq!(shown("s3://bucket/prefix"), "s3://bucket/prefix");
        assert_eq!(shown("./tree"), "./tree");
    }

    #[test]
    fn a_rate_is_a_number_above_zero() {
        assert!(parse_rate("0.5").is_ok() && parse_rate("100").is_ok());
        for wrong in ["0", "-1", "x", "inf", "nan", ""] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
