//! Image names: the grammar of containers/image's `docker/reference` and Docker's expansion of short
//! names. It is the older one: hosts are no IPv6 literals, and a word in capitals is no host
//! (spec containers-image 4.5).
//!
//! `busybox` means `docker.io/library/busybox`; what a registry, a policy or a lookaside sees is
//! always the expanded form (spec containers-image 5.5). A [`Reference`] is expanded by
//! construction, so two references are the same image name exactly when they are equal.

use std::fmt;

use super::digest::{Digest, DigestError};

const DEFAULT_DOMAIN: &str = "docker.io";
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
const OFFICIAL_NAMESPACE: &str = "library/";
/// The longest repository name, host included, that `distribution/reference` takes.
const NAME_LIMIT: usize = 255;
const TAG_LIMIT: usize = 128;

/// Why a text is no image name. The sentences are `distribution/reference`'s own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("repository name must have at least one component")]
    Empty,
    /// The grammar does not match.
    #[error("invalid reference format")]
    Format,
    /// The grammar would match if the name were in lower case.
    #[error("invalid reference format: repository name must be lowercase")]
    Uppercase,
    /// The name is 64 hex digits, which Docker reserves for image IDs.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    HexName(String),
    /// The repository name is over 255 bytes.
    #[error("repository name must not be more than {NAME_LIMIT} characters")]
    TooLong,
    /// The digest after `@` is not valid.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A form that must be written out in full was short.
    #[error("repository name must be canonical")]
    NotCanonical,
    /// A docker image reference has both a tag and a digest.
    #[error("Docker references with both a tag and digest are currently not supported")]
    TagAndDigest,
}

/// A repository name, expanded: registry host (with port, if any) and path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    /// `host[:port]/path`.
    full: Box<str>,
    /// Where the path starts in `full`.
    path_start: usize,
}

impl Repository {
    fn new(domain: &str, path: &str) -> Self {
        Self { full: format!("{domain}/{path}").into(), path_start: domain.len() + 1 }
    }

    /// Parses a repository name without tag or digest, expanding short names.
    ///
    /// # Errors
    /// [`ReferenceError`] when the text is no name, or has a tag or a digest.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let reference = Reference::parse(text)?;
        if reference.is_name_only() { Ok(reference.repository) } else { Err(ReferenceError::Format) }
    }

    /// Names a repository of a registry whose address need be no part of an image name, such as an
    /// IPv6 literal: the server has credentials for it, although no client can name its images.
    ///
    /// # Errors
    /// [`ReferenceError`] when `path` is no path of a repository.
    pub fn of_registry(authority: &str, path: &str) -> Result<Self, ReferenceError> {
        let parsed = Self::parse(&format!("a.b/{path}"))?;
        Ok(Self::new(authority, parsed.path()))
    }

    /// Returns the registry: `host` or `host:port`.
    pub fn domain(&self) -> &str {
        self.full.get(..self.path_start.saturating_sub(1)).unwrap_or_default()
    }

    /// Returns the path below the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        self.full.get(self.path_start..).unwrap_or_default()
    }

    /// Returns the full expanded name.
    pub fn as_str(&self) -> &str {
        &self.full
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.full)
    }
}

/// A tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

impl Tag {
    /// Parses a tag.
    ///
    /// # Errors
    /// [`ReferenceError::Format`] when the grammar does not match.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let mut bytes = text.bytes();
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let ok = text.len() <= TAG_LIMIT
            && bytes.next().is_some_and(word)
            && bytes.all(|b| word(b) || b == b'.' || b == b'-');
        if ok { Ok(Self(text.into())) } else { Err(ReferenceError::Format) }
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An expanded image name: repository, and perhaps a tag, a digest or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and expands a name as `reference.ParseNormalizedNamed` does.
    ///
    /// # Errors
    /// [`ReferenceError`] with the sentence that Go gives for the same text.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if is_hex_id(text) {
            return Err(ReferenceError::HexName(text.to_owned()));
        }
        let (domain, remainder) = split_docker_domain(text);
        // A colon inside the remainder starts the tag; only what stands before it is the name.
        let name = remainder.split_once(':').map_or(remainder.as_str(), |(name, _)| name);
        if name.chars().any(char::is_uppercase) {
            return Err(ReferenceError::Uppercase);
        }
        let parsed = Self::parse_grammar(&format!("{domain}/{remainder}"))?;
        Ok(parsed)
    }

    /// Parses a name that must already be in its expanded form, as `reference.ParseNamed` does.
    ///
    /// # Errors
    /// As [`Reference::parse`]; [`ReferenceError::NotCanonical`] for `busybox` and its like.
    pub fn parse_canonical(text: &str) -> Result<Self, ReferenceError> {
        let reference = Self::parse(text)?;
        if reference.to_string() == text { Ok(reference) } else { Err(ReferenceError::NotCanonical) }
    }

    /// Builds a reference from its parts.
    pub fn new(repository: Repository, tag: Option<Tag>, digest: Option<Digest>) -> Self {
        Self { repository, tag, digest }
    }

    /// Matches `domain/path[:tag][@digest]`, the domain always being there.
    fn parse_grammar(text: &str) -> Result<Self, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        let (domain, path_and_tag) = rest.split_once('/').ok_or(ReferenceError::Format)?;
        let (path, tag) = match path_and_tag.split_once(':') {
            Some((path, tag)) => (path, Some(Tag::parse(tag)?)),
            None => (path_and_tag, None),
        };
        if !is_domain(domain) || !path.split('/').all(is_path_component) {
            return Err(ReferenceError::Format);
        }
        // reference.Parse counts the repository name, the host and its slash included.
        if domain.len() + 1 + path.len() > NAME_LIMIT {
            return Err(ReferenceError::TooLong);
        }
        Ok(Self { repository: Repository::new(domain, path), tag, digest })
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Returns the tag, if there is one.
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// Returns the digest, if there is one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Tells whether there is neither a tag nor a digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Returns the short spelling that Docker's users see: `busybox:latest`,
    /// `testing/manifest`, `quay.io/x/y` (`reference.FamiliarString`).
    pub fn familiar(&self) -> String {
        let full = self.to_string();
        match full.strip_prefix(DEFAULT_DOMAIN).and_then(|rest| rest.strip_prefix('/')) {
            Some(rest) => match rest.strip_prefix(OFFICIAL_NAMESPACE) {
                // Neither tags nor digests have a slash.
                Some(official) if !official.contains('/') => official.to_owned(),
                _ => rest.to_owned(),
            },
            None => full,
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.repository.as_str())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The name of one image as the `docker` transport takes it: a tag or a digest, exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageReference(Reference);

impl ImageReference {
    /// Parses a user's image name, with or without `docker://`; a missing tag is `latest`.
    ///
    /// # Errors
    /// [`ReferenceError`]; [`ReferenceError::TagAndDigest`] when both are given.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        Self::from_reference(Reference::parse(text.strip_prefix("docker://").unwrap_or(text))?)
    }

    /// Takes a parsed name; a missing tag is `latest`.
    ///
    /// # Errors
    /// [`ReferenceError::TagAndDigest`] when both are given.
    pub fn from_reference(mut reference: Reference) -> Result<Self, ReferenceError> {
        if reference.tag.is_some() && reference.digest.is_some() {
            return Err(ReferenceError::TagAndDigest);
        }
        if reference.is_name_only() {
            reference.tag = Some(Tag("latest".into()));
        }
        Ok(Self(reference))
    }

    /// Returns the name as a [`Reference`].
    pub fn as_reference(&self) -> &Reference {
        &self.0
    }

    /// Returns the repository.
    pub fn repository(&self) -> &Repository {
        &self.0.repository
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells whether `text` can stand before the rest of a repository name: `host[:port]` or
/// `host[:port]/path`, with no tag, digest or trailing slash. Words without a dot pass as hosts
/// too; containers/image takes such prefixes in a policy's `remapIdentity` (spec 5.2).
pub fn is_name_prefix(text: &str) -> bool {
    let (domain, path) = text.split_once('/').map_or((text, None), |(domain, path)| (domain, Some(path)));
    is_domain(domain) && path.is_none_or(|path| path.split('/').all(is_path_component))
}

fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// `reference.splitDockerDomain`: decides whether the first component is a registry.
fn split_docker_domain(text: &str) -> (String, String) {
    let (domain, remainder) = match text.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest.to_owned()),
        _ => (DEFAULT_DOMAIN, text.to_owned()),
    };
    let domain = if domain == LEGACY_DEFAULT_DOMAIN { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL_NAMESPACE}{remainder}"));
    }
    (domain.to_owned(), remainder)
}

/// The reference grammar takes any digest of 32 hex digits or more; go-digest then judges it.
fn parse_digest(text: &str) -> Result<Digest, ReferenceError> {
    let well_formed = text.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.split(['.', '+', '_', '-']).all(|part| {
            part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
                && part.bytes().all(|b| b.is_ascii_alphanumeric())
        }) && hex.len() >= 32
            && hex.bytes().all(|b| b.is_ascii_hexdigit())
    });
    if !well_formed {
        return Err(ReferenceError::Format);
    }
    Ok(Digest::parse(text)?)
}

fn is_domain(text: &str) -> bool {
    let (name, port) = match text.split_once(':') {
        Some((name, _)) => (name, text.get(name.len()..).unwrap_or_default()),
        None => (text, ""),
    };
    name.split('.').all(|label| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    }) && is_port_suffix(port)
}

fn is_port_suffix(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()),
        None => text.is_empty(),
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let mut separator = String::new();
    let mut last_was_word = false;
    for c in text.bytes() {
        if alphanumeric(c) {
            let joined = separator.is_empty() || (last_was_word && is_separator(&separator));
            if !joined {
                return false;
            }
            separator.clear();
            last_was_word = true;
        } else if matches!(c, b'.' | b'_' | b'-') {
            separator.push(char::from(c));
        } else {
            return false;
        }
    }
    last_was_word && separator.is_empty()
}

fn is_separator(text: &str) -> bool {
    matches!(text, "." | "_" | "__") || text.bytes().all(|b| b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn expands_short_names() {
        for (text, full, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1", "docker.io/library/busybox:1", "busybox:1"),
            ("index.docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            ("library/library/x:1", "docker.io/library/library/x:1", "library/library/x:1"),
            ("testing/manifest:latest", "docker.io/testing/manifest:latest", "testing/manifest:latest"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/x:y", "localhost:5000/x:y", "localhost:5000/x:y"),
            ("us.icr.io/birds/bluebird:build1", "us.icr.io/birds/bluebird:build1", "us.icr.io/birds/bluebird:build1"),
            ("Quay.IO/x", "Quay.IO/x", "Quay.IO/x"),
            ("LOCAL:5000/x", "LOCAL:5000/x", "LOCAL:5000/x"),
            ("a--b/c__d.e", "docker.io/a--b/c__d.e", "a--b/c__d.e"),
        ] {
            let parsed = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed.to_string(), full, "{text}");
            assert_eq!(parsed.familiar(), familiar, "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        for (text, error) in [
            ("", ReferenceError::Format),
            ("a/B", ReferenceError::Uppercase),
            ("Busybox", ReferenceError::Uppercase),
            ("UPPER/x:1", ReferenceError::Uppercase),
            ("[::1]/x", ReferenceError::Format),
            ("[::1]:5000/x:1", ReferenceError::Format),
            ("::1/x", ReferenceError::Format),
            ("2001:db8::1/x", ReferenceError::Format),
            (HEX, ReferenceError::HexName(HEX.to_owned())),
            ("a b", ReferenceError::Format),
            ("x/", ReferenceError::Format),
            ("/x", ReferenceError::Format),
            ("a//b", ReferenceError::Format),
            ("a___b", ReferenceError::Format),
            ("a..b", ReferenceError::Format),
            ("-a", ReferenceError::Format),
            ("x:", ReferenceError::Format),
            ("x:a:b", ReferenceError::Format),
            ("x:.tag", ReferenceError::Format),
            ("x@sha256:abc", ReferenceError::Format),
            ("a.b:port/x", ReferenceError::Format),
            ("../x", ReferenceError::Format),
            ("a.b/../x", ReferenceError::Format),
        ] {
            assert_eq!(Reference::parse(text), Err(error), "{text}");
        }
        let unsupported = format!("x@md5:{}", "a".repeat(32));
        assert_eq!(Reference::parse(&unsupported), Err(DigestError::Unsupported.into()));
        assert_eq!(Reference::parse(&format!("a/{}", "b".repeat(300))), Err(ReferenceError::TooLong));
    }

    #[test]
    fn prefixes_are_names_that_may_end_early() {
        for good in ["a.b", "a.b:1/c", "shortname", "localhost:5000", "HOST"] {
            assert!(is_name_prefix(good), "{good}");
        }
        for bad in ["", "[::1]", "[::1]:5000", "[::1]:5000/x", "::1", "a.b/", "a.b/C", "a_b", "a.b:x"] {
            assert!(!is_name_prefix(bad), "{bad}");
        }
    }

    #[test]
    fn a_registry_by_address_has_repositories_without_a_name() {
        let there = Repository::of_registry("[::1]:5000", "a/b").unwrap();
        assert_eq!((there.domain(), there.path(), there.as_str()), ("[::1]:5000", "a/b", "[::1]:5000/a/b"));
        for bad in ["", "A", "a:1", "a//b", "../x"] {
            assert!(Repository::of_registry("[::1]:5000", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn canonical_means_written_out() {
        assert_eq!(Reference::parse_canonical("busybox"), Err(ReferenceError::NotCanonical));
        assert!(Reference::parse_canonical("docker.io/library/busybox").is_ok());
    }

    #[test]
    fn an_image_has_a_tag_or_a_digest() {
        assert_eq!(ImageReference::parse("docker://busybox").unwrap().to_string(), "docker.io/library/busybox:latest");
        let digest = format!("quay.io/x/y@sha256:{HEX}");
        assert_eq!(ImageReference::parse(&digest).unwrap().to_string(), digest);
        assert_eq!(ImageReference::parse(&format!("quay.io/x/y:t@sha256:{HEX}")), Err(ReferenceError::TagAndDigest));
    }

    proptest::proptest! {
        #[test]
        fn never_panics_and_round_trips(text in "[a-zA-Z0-9./:@_\\-\\[\\]]{0,60}") {
            if let Ok(parsed) = Reference::parse(&text) {
                let again = Reference::parse_canonical(&parsed.to_string());
                proptest::prop_assert_eq!(again, Ok(parsed));
            }
        }
    }
}
