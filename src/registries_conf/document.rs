//! One registries.conf file: its two formats, and what a file may not say
//! (spec containers-image 8.1, 8.2).

use std::collections::BTreeMap;

use super::short_name::{AliasError, check_alias};
use super::toml::{self, Table, TomlError};
use crate::go::quote;
use crate::image::is_name_prefix;

/// Which formats a file may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Podman 6: `[[registry]]` only.
    V2,
    /// The main file of Podman 5: also the lists of `[registries.search]` and its like.
    V1OrV2,
    /// A drop-in file of Podman 5: `[[registry]]` only, said in other words.
    V2DropIn,
}

/// For which pulls a mirror is tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullFromMirror {
    /// For all.
    #[default]
    All,
    /// For images named by digest.
    DigestOnly,
    /// For images named by tag.
    TagOnly,
}

/// A `[[registry.mirror]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirror {
    /// What takes the place of the prefix; not empty.
    pub location: String,
    /// Whether certificates are not checked and plain http is tried.
    pub insecure: bool,
    /// For which pulls it is tried.
    pub pull_from: PullFromMirror,
}

/// A `[[registry]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// The start of the names that it speaks of: `host[:port][/path]`, or `*.host`. Any other text
    /// will do too and matches nothing.
    pub prefix: String,
    /// What takes the place of the prefix; empty leaves names as they are, for `*.host` only.
    pub location: String,
    /// Whether certificates are not checked and plain http is tried.
    pub insecure: bool,
    /// Whether names that begin so are refused.
    pub blocked: bool,
    /// Whether mirrors are tried only for images named by digest.
    pub mirror_by_digest_only: bool,
    /// The mirrors in the order in which they are tried.
    pub mirrors: Vec<Mirror>,
}

/// What one file says of registries: each prefix once, the first that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The registries by prefix.
    pub registries: BTreeMap<String, Registry>,
    /// Short names and what they stand for; an empty text removes the alias of an earlier file.
    pub aliases: Vec<(String, String)>,
    /// `unqualified-search-registries`, if the file has it.
    pub search: Option<Vec<String>>,
}

/// Why a file refuses all pulls. The sentences are containers/image's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not TOML, or a value of the wrong type.
    #[error(transparent)]
    Toml(#[from] TomlError),
    /// The old format, where the new is wanted.
    #[error("{} must be in v2 format but is in v1", if *(.form) == Form::V2DropIn { "registry" } else { "registries.conf" })]
    V1 {
        /// What was wanted.
        form: Form,
    },
    /// Both formats in one file.
    #[error("mixing sysregistry v1/v2 is not supported")]
    Mixed,
    /// A location, prefix or search registry that is a URL.
    #[error("invalid location '{0}': URI schemes are not supported")]
    Scheme(String),
    /// A registry that says nothing.
    #[error("invalid condition: both location and prefix are unset")]
    Unset,
    /// A registry without a location.
    #[error("invalid condition: location is unset and prefix is not in the format: *.example.com")]
    NoLocation,
    /// A mirror without a location.
    #[error("invalid condition: mirror location is unset")]
    NoMirrorLocation,
    /// `pull-from-mirror` outside of a mirror.
    #[error("pull-from-mirror must not be set for a non-mirror registry {}", quote(.0))]
    NotAMirror(String),
    /// Two ways to say when a mirror is tried.
    #[error(
        "cannot set mirror usage mirror-by-digest-only for the registry ({}) and pull-from-mirror for per-mirror ({}) at the same time",
        quote(.prefix), quote(.mirror)
    )]
    BothUsages {
        /// The registry's prefix.
        prefix: String,
        /// The mirror's location.
        mirror: String,
    },
    /// A `pull-from-mirror` that is not known.
    #[error("unsupported pull-from-mirror value {} for mirror {}", quote(.value), quote(.mirror))]
    Usage {
        /// The value.
        value: String,
        /// The mirror's location.
        mirror: String,
    },
    /// One location with two opinions.
    #[error("registry '{location}' is defined multiple times with conflicting '{setting}' setting")]
    Conflict {
        /// The location; empty if both have none.
        location: String,
        /// `insecure` or `blocked`.
        setting: &'static str,
    },
    /// A search registry that is no host.
    #[error("Invalid unqualified-search-registries entry {}", quote(.0))]
    SearchRegistry(String),
    /// A `short-name-mode` that is not known.
    #[error("invalid short-name mode: {}", quote(.0))]
    ShortNameMode(String),
    /// An alias that is none.
    #[error(transparent)]
    Alias(#[from] AliasError),
    /// A wildcard with more than a domain behind it.
    #[error("Wildcarded prefix should be in the format: *.example.com. Current prefix {} is incorrectly formatted", quote(.0))]
    Wildcard(String),
}

/// The file as it is written, nothing checked.
#[derive(Default)]
struct Raw {
    registries: Vec<RawRegistry>,
    search: Option<Vec<String>>,
    short_name_mode: String,
    aliases: Vec<(String, String)>,
}

struct RawRegistry {
    registry: Registry,
    pull_from_mirror: String,
    /// The `pull-from-mirror` of each mirror.
    usages: Vec<String>,
}

impl Document {
    /// Reads one file.
    ///
    /// # Errors
    /// [`DocumentError`], the first in the order in which containers/image looks.
    pub fn parse(bytes: &[u8], form: Form) -> Result<Self, DocumentError> {
        let raw = toml::parse(bytes, |top| {
            let mut raw = read_v2(&top)?;
            if let Some(old) = read_v1(&top)? {
                if form != Form::V1OrV2 {
                    return Err(DocumentError::V1 { form });
                }
                let new =
                    ["registry", "unqualified-search-registries", "credential-helpers", "short-name-mode", "aliases"];
                if new.into_iter().any(|name| top.has(name)) {
                    return Err(DocumentError::Mixed);
                }
                raw = old;
            }
            Ok(raw)
        })?;
        check(raw)
    }
}

fn read_v2(top: &Table<'_>) -> Result<Raw, TomlError> {
    let registries = top.tables("registry", |table| {
        let mut usages = Vec::new();
        let mirrors = table.tables("mirror", |mirror| {
            usages.push(mirror.text("pull-from-mirror")?);
            let (location, insecure) = (mirror.text("location")?, mirror.boolean("insecure")?);
            Ok::<_, TomlError>(Mirror { location, insecure, pull_from: PullFromMirror::All })
        })?;
        let registry = Registry {
            prefix: table.text("prefix")?,
            location: table.text("location")?,
            insecure: table.boolean("insecure")?,
            blocked: table.boolean("blocked")?,
            mirror_by_digest_only: table.boolean("mirror-by-digest-only")?,
            mirrors: mirrors.unwrap_or_default(),
        };
        Ok::<_, TomlError>(RawRegistry { registry, pull_from_mirror: table.text("pull-from-mirror")?, usages })
    })?;
    top.texts("credential-helpers")?;
    Ok(Raw {
        registries: registries.unwrap_or_default(),
        search: top.texts("unqualified-search-registries")?,
        short_name_mode: top.text("short-name-mode")?,
        aliases: top.texts_by_name("aliases")?,
    })
}

/// Reads the old format, if one of its lists is there, and converts it.
fn read_v1(top: &Table<'_>) -> Result<Option<Raw>, DocumentError> {
    let lists = top.table("registries", |lists| {
        let list = |name| Ok::<_, TomlError>(lists.table(name, |inner| inner.texts("registries"))?.flatten());
        Ok::<_, TomlError>([list("search")?, list("insecure")?, list("block")?])
    })?;
    let Some([search, insecure, block]) = lists else { return Ok(None) };
    if search.is_none() && insecure.is_none() && block.is_none() {
        return Ok(None);
    }
    let mut registries: Vec<Registry> = Vec::new();
    let marks = [(block, true), (insecure, false)];
    for (location, blocks) in marks.iter().flat_map(|(list, blocks)| list.iter().flatten().map(move |l| (l, *blocks))) {
        let location = location_of(location)?;
        let known = registries.iter().position(|registry| registry.location == location);
        if known.is_none() {
            registries.push(Registry { prefix: location.clone(), location, ..Registry::default() });
        }
        let at = known.unwrap_or(registries.len().saturating_sub(1));
        if let Some(registry) = registries.get_mut(at) {
            *(if blocks { &mut registry.blocked } else { &mut registry.insecure }) = true;
        }
    }
    let plain = |registry| RawRegistry { registry, pull_from_mirror: String::new(), usages: Vec::new() };
    Ok(Some(Raw {
        registries: registries.into_iter().map(plain).collect(),
        search,
        short_name_mode: String::new(),
        aliases: Vec::new(),
    }))
}

fn check(raw: Raw) -> Result<Document, DocumentError> {
    let registries = raw.registries.into_iter().map(check_registry).collect::<Result<Vec<_>, _>>()?;
    // Prefixes may share a location, but not disagree about it.
    let key = |registry: &Registry| match registry.location.as_str() {
        "" => registry.prefix.clone(),
        location => location.to_owned(),
    };
    let mut known: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    for registry in &registries {
        let (insecure, blocked) = *known.entry(key(registry)).or_insert((registry.insecure, registry.blocked));
        for (same, setting) in [(insecure == registry.insecure, "insecure"), (blocked == registry.blocked, "blocked")] {
            if !same {
                return Err(DocumentError::Conflict { location: registry.location.clone(), setting });
            }
        }
    }
    let check_search = |entry: &String| {
        let host = location_of(entry)?;
        if host.contains('/') || !is_name_prefix(&host) {
            return Err(DocumentError::SearchRegistry(host));
        }
        Ok(host)
    };
    let search = raw.search.map(|list| list.iter().map(check_search).collect::<Result<Vec<_>, _>>()).transpose()?;
    if !matches!(raw.short_name_mode.as_str(), "" | "disabled" | "enforcing" | "permissive") {
        return Err(DocumentError::ShortNameMode(raw.short_name_mode));
    }
    for (name, value) in &raw.aliases {
        check_alias(name, value)?;
    }
    let mut document = Document { registries: BTreeMap::new(), aliases: raw.aliases, search };
    for registry in registries {
        document.registries.entry(registry.prefix.clone()).or_insert(registry);
    }
    let wild = document.registries.keys().find(|prefix| prefix.starts_with("*.") && prefix.contains(['/', '@', ':']));
    match wild {
        Some(prefix) => Err(DocumentError::Wildcard(prefix.clone())),
        None => Ok(document),
    }
}

fn check_registry(raw: RawRegistry) -> Result<Registry, DocumentError> {
    let RawRegistry { mut registry, pull_from_mirror, usages } = raw;
    registry.location = location_of(&registry.location)?;
    if registry.prefix.is_empty() {
        if registry.location.is_empty() {
            return Err(DocumentError::Unset);
        }
        registry.prefix.clone_from(&registry.location);
    } else {
        registry.prefix = location_of(&registry.prefix)?;
        if registry.location.is_empty() && !registry.prefix.starts_with("*.") {
            return Err(DocumentError::NoLocation);
        }
    }
    if !pull_from_mirror.is_empty() {
        return Err(DocumentError::NotAMirror(registry.prefix));
    }
    for (mirror, usage) in registry.mirrors.iter_mut().zip(usages) {
        mirror.location = location_of(&mirror.location)?;
        if mirror.location.is_empty() {
            return Err(DocumentError::NoMirrorLocation);
        }
        if registry.mirror_by_digest_only && !usage.is_empty() {
            return Err(DocumentError::BothUsages { prefix: registry.prefix, mirror: mirror.location.clone() });
        }
        mirror.pull_from = match usage.as_str() {
            "" | "all" => PullFromMirror::All,
            "digest-only" => PullFromMirror::DigestOnly,
            "tag-only" => PullFromMirror::TagOnly,
            _ => return Err(DocumentError::Usage { value: usage, mirror: mirror.location.clone() }),
        };
    }
    Ok(registry)
}

/// Takes the slashes off the end; a URL is refused.
fn location_of(text: &str) -> Result<String, DocumentError> {
    let trimmed = text.trim_end_matches('/');
    if trimmed.starts_with("http://") || trimmed.starts_with("https://") {
        return Err(DocumentError::Scheme(text.to_owned()));
    }
    Ok(trimmed.to_owned())
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
