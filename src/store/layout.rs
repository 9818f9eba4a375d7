//! Store keys and their typed addresses: the only place that knows how the tree is laid out.
//!
//! Two layouts live in one tree (spec containers-image 2.1, peers (b)): containers/image asks for
//! `{path}@{algorithm}={hex}/signature-N`, OpenShift's release clients for
//! `{path}/{algorithm}={hex}/signature-N` or, with an empty path, `{algorithm}={hex}/signature-N`.
//! A parsed address cannot name anything outside the tree, so no later code looks for `..`.

use std::fmt;
use std::num::NonZeroU32;

use crate::image::{Digest, DigestError, is_within};

/// The most bytes of a [`StorePath`]: with the longest digest and number behind it, a key stays
/// within the 1024 bytes that S3 allows.
pub const PATH_LIMIT: usize = 864;

const SIGNATURE: &str = "signature-";

/// Why a text is no address in the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A doubled, leading or trailing slash.
    #[error("{0:?} is no store path: it has an empty component")]
    EmptyComponent(String),
    /// `.` or `..`.
    #[error("{0:?} is no store path: it has a dot component")]
    DotComponent(String),
    /// Something else than ASCII letters, digits, `.`, `_`, `:` and `-`.
    #[error("{path:?} is no store path: it has the character {character:?}")]
    Character {
        /// The text, shortened.
        path: String,
        /// The first character that has no place in it.
        character: char,
    },
    /// More than [`PATH_LIMIT`] bytes.
    #[error("a store path has at most {PATH_LIMIT} bytes, this one has {0}")]
    TooLong(usize),
    /// An image's signatures need a repository name before the `@`.
    #[error("an image's signatures need a repository path, and it is empty")]
    NoRepository,
    /// The last folder is neither `name@algorithm=hex` nor `algorithm=hex`.
    #[error("{0:?} is no signature folder: it does not end in algorithm=hex")]
    NoDigest(String),
    /// The folder's digest is none.
    #[error("{text:?} is no signature folder: {source}")]
    Digest {
        /// The folder's name, shortened.
        text: String,
        /// What is wrong with it.
        source: DigestError,
    },
    /// The file is not called `signature-N` with N = 1, 2, … in decimal without leading zeros.
    #[error("{0:?} is no signature file: its name is not signature-N")]
    NoSignature(String),
}

/// A text of a stranger, short enough for an error message.
fn shown(text: &str) -> String {
    const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// A relative path in the store, maybe empty: a prefix, or a prefix with a repository.
///
/// Its components are not empty, not `.` or `..`, and hold only `[A-Za-z0-9._:-]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StorePath(Box<str>);

impl StorePath {
    /// Returns the empty path, the root of the store.
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses a path such as `registry.example/org/app`; the empty text is the root.
    ///
    /// # Errors
    /// [`LayoutError`], for all that is not exactly such a path; nothing is cleaned or unescaped.
    pub fn parse(text: &str) -> Result<Self, LayoutError> {
        if text.len() > PATH_LIMIT {
            return Err(LayoutError::TooLong(text.len()));
        }
        if text.is_empty() {
            return Ok(Self::root());
        }
        for component in text.split('/') {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
            match component {
                "" => return Err(LayoutError::EmptyComponent(shown(text))),
                "." | ".." => return Err(LayoutError::DotComponent(shown(text))),
                _ => {}
            }
            if let Some(character) = component.chars().find(|c| !allowed(*c)) {
                return Err(LayoutError::Character { path: shown(text), character });
            }
        }
        Ok(Self(text.into()))
    }

    /// Returns this path with `below` under it.
    ///
    /// # Errors
    /// [`LayoutError::TooLong`] only.
    pub fn join(&self, below: &Self) -> Result<Self, LayoutError> {
        match (self.is_empty(), below.is_empty()) {
            (true, _) => Ok(below.clone()),
            (_, true) => Ok(self.clone()),
            _ => {
                let text = format!("{}/{}", self.0, below.0);
                if text.len() > PATH_LIMIT {
                    return Err(LayoutError::TooLong(text.len()));
                }
                Ok(Self(text.into()))
            }
        }
    }

    /// Returns the path as text, without a slash at either end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether this is the root of the store.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether `self` is `above` or lies below it.
    pub fn is_within(&self, above: &Self) -> bool {
        above.is_empty() || is_within(&self.0, &above.0)
    }

    /// Splits off the last component; `None` for the root.
    pub(super) fn split_last(&self) -> Option<(Self, &str)> {
        match self.0.rsplit_once('/') {
            Some((parent, name)) => Some((Self(parent.into()), name)),
            None if self.is_empty() => None,
            None => Some((Self::root(), &self.0)),
        }
    }
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which clients a set of signatures is laid out for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layout {
    /// `{path}@{algorithm}={hex}`: containers/image, and all that follow it.
    Image,
    /// `{path}/{algorithm}={hex}`: OpenShift's release clients.
    Release,
}

/// Where the signatures of one digest lie: the folder of `signature-1`, `signature-2`, …
///
/// `Display` prints the store key; [`SetAddress::parse_key`] reads it back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetAddress {
    path: StorePath,
    layout: Layout,
    digest: Digest,
}

impl SetAddress {
    /// Returns the address that containers/image asks for.
    ///
    /// # Errors
    /// [`LayoutError::NoRepository`] when `path` is empty.
    pub fn image(path: StorePath, digest: Digest) -> Result<Self, LayoutError> {
        if path.is_empty() {
            return Err(LayoutError::NoRepository);
        }
        Ok(Self { path, layout: Layout::Image, digest })
    }

    /// Returns the address that release clients ask for; `path` may be empty.
    pub fn release(path: StorePath, digest: Digest) -> Self {
        Self { path, layout: Layout::Release, digest }
    }

    /// Parses a key without its `/signature-N`.
    ///
    /// # Errors
    /// [`LayoutError`], for all that [`SetAddress`]'s `Display` would not print.
    pub fn parse_key(key: &str) -> Result<Self, LayoutError> {
        let (parent, name) = key.rsplit_once('/').unwrap_or(("", key));
        if key.starts_with('/') {
            return Err(LayoutError::EmptyComponent(shown(key)));
        }
        match Self::parse_name(parent, name)? {
            Some(address) => Ok(address),
            None => Err(LayoutError::NoDigest(shown(key))),
        }
    }

    /// As [`SetAddress::parse_key`], with the last folder apart; `None` when it is no signature
    /// folder by its looks (it has no `=`).
    pub(super) fn parse_name(parent: &str, name: &str) -> Result<Option<Self>, LayoutError> {
        if !name.contains('=') {
            return Ok(None);
        }
        let (repository, digest) = match name.split_once('@') {
            Some((repository, digest)) => (Some(repository), digest),
            None => (None, name),
        };
        let digest =
            Digest::parse_path_form(digest).map_err(|source| LayoutError::Digest { text: shown(name), source })?;
        match repository {
            Some("") => Err(LayoutError::NoRepository),
            Some(repository) if parent.is_empty() => Self::image(StorePath::parse(repository)?, digest).map(Some),
            Some(repository) => Self::image(StorePath::parse(&[parent, "/", repository].concat())?, digest).map(Some),
            None => Ok(Some(Self::release(StorePath::parse(parent)?, digest))),
        }
    }

    /// Returns the path before the digest.
    pub fn path(&self) -> &StorePath {
        &self.path
    }

    /// Returns the digest that is signed.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns the layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }
}

impl fmt::Display for SetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let between = match self.layout {
            Layout::Image => "@",
            Layout::Release if self.path.is_empty() => "",
            Layout::Release => "/",
        };
        write!(f, "{}{between}{}={}", self.path, self.digest.algorithm().name(), self.digest.hex())
    }
}

/// One signature as a client asks for it. The index is a position in the ordered set, not the
/// number in a file's name: a gap on disk is never seen by a client.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignatureAddress {
    /// The digest's signatures.
    pub set: SetAddress,
    /// Which of them, from 1.
    pub index: NonZeroU32,
}

impl SignatureAddress {
    /// Parses a whole key, `…/signature-N`.
    ///
    /// # Errors
    /// [`LayoutError`], for all that `Display` would not print.
    pub fn parse(key: &str) -> Result<Self, LayoutError> {
        let Some((set, name)) = key.rsplit_once('/') else { return Err(LayoutError::NoSignature(shown(key))) };
        let index = signature_number(name).ok_or_else(|| LayoutError::NoSignature(shown(name)))?;
        Ok(Self { set: SetAddress::parse_key(set)?, index })
    }
}

impl fmt::Display for SignatureAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{SIGNATURE}{}", self.set, self.index)
    }
}

/// Returns the name of a signature's file.
pub(super) fn signature_name(number: u32) -> String {
    format!("{SIGNATURE}{number}")
}

/// Returns the number of a signature's file: `signature-7`, not `signature-07` or `signature-0`.
pub(super) fn signature_number(name: &str) -> Option<NonZeroU32> {
    let digits = name.strip_prefix(SIGNATURE)?;
    if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

/// Tells whether `name` is what a crash leaves of a write, by us or by any user of the
/// object_store crate: `signature-7#1`.
pub(super) fn is_leftover(name: &str) -> bool {
    name.split_once('#').is_some_and(|(target, suffix)| {
        signature_number(target).is_some() && !suffix.is_empty() && suffix.bytes().all(|b| b.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::image::Algorithm;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn reads_both_layouts() {
        let image = SignatureAddress::parse(&format!("host:5000/org/app@sha256={HEX}/signature-12")).unwrap();
        assert_eq!((image.set.layout(), image.set.path().as_str()), (Layout::Image, "host:5000/org/app"));
        assert_eq!((image.index.get(), image.set.digest().hex()), (12, HEX));
        let release = SignatureAddress::parse(&format!("openshift/release/sha256={HEX}/signature-1")).unwrap();
        assert_eq!((release.set.layout(), release.set.path().as_str()), (Layout::Release, "openshift/release"));
        let bare = SetAddress::parse_key(&format!("sha256={HEX}")).unwrap();
        assert_eq!((bare.layout(), bare.path().is_empty()), (Layout::Release, true));
        assert_eq!(bare.to_string(), format!("sha256={HEX}"));
    }

    #[test]
    fn refuses_everything_else() {
        let long = format!("{}@sha256={HEX}/signature-1", "a/".repeat(500) + "a");
        for key in [
            "",
            "/",
            "signature-1",
            "a/signature-1",
            &format!("a@sha256={HEX}"),
            &format!("a@sha256={HEX}/"),
            &format!("/a@sha256={HEX}/signature-1"),
            &format!("/sha256={HEX}/signature-1"),
            &format!("a//b@sha256={HEX}/signature-1"),
            &format!("../b@sha256={HEX}/signature-1"),
            &format!("a/../b@sha256={HEX}/signature-1"),
            &format!("a/./b@sha256={HEX}/signature-1"),
            &format!("..@sha256={HEX}/signature-1"),
            &format!("@sha256={HEX}/signature-1"),
            &format!("a/@sha256={HEX}/signature-1"),
            &format!("%2e%2e/b@sha256={HEX}/signature-1"),
            &format!("a\\b@sha256={HEX}/signature-1"),
            &format!("a\0@sha256={HEX}/signature-1"),
            &format!("[a]@sha256={HEX}/signature-1"),
            &format!("é@sha256={HEX}/signature-1"),
            &format!("a b@sha256={HEX}/signature-1"),
            &format!("a@b@sha256={HEX}/signature-1"),
            &format!("a@sha256:{HEX}/signature-1"),
            &format!("a@sha256={}/signature-1", HEX.to_uppercase()),
            &format!("a@sha256={}/signature-1", &HEX[1..]),
            &format!("a@md5={HEX}/signature-1"),
            &format!("a@sha256={HEX}/signature-0"),
            &format!("a@sha256={HEX}/signature-01"),
            &format!("a@sha256={HEX}/signature-+1"),
            &format!("a@sha256={HEX}/signature-"),
            &format!("a@sha256={HEX}/signature-4294967296"),
            &format!("a@sha256={HEX}/signature-1#1"),
            &format!("a@sha256={HEX}/signature-١"),
            &format!("a@sha256={HEX}/x/signature-1"),
            &long,
        ] {
            assert!(SignatureAddress::parse(key).is_err(), "{key:?}");
        }
    }

    #[test]
    fn the_longest_key_fits_into_s3() {
        let digest = Digest::from_parts(Algorithm::Sha512, &"0".repeat(128)).unwrap();
        let set = SetAddress::image(StorePath::parse(&"a".repeat(PATH_LIMIT)).unwrap(), digest).unwrap();
        let key = SignatureAddress { set, index: NonZeroU32::MAX }.to_string();
        assert!(key.len() <= 1024, "{}", key.len());
        assert_eq!(SignatureAddress::parse(&key).unwrap().to_string(), key);
        assert_eq!(StorePath::parse(&"a".repeat(PATH_LIMIT + 1)), Err(LayoutError::TooLong(PATH_LIMIT + 1)));
    }

    #[test]
    fn paths_join_and_nest() {
        let path = |text| StorePath::parse(text).unwrap();
        assert_eq!(path("a").join(&path("b/c")), Ok(path("a/b/c")));
        assert_eq!(path("").join(&path("b")), Ok(path("b")));
        assert_eq!(path("a").join(&path("")), Ok(path("a")));
        assert!(path("a/b").is_within(&path("a")) && path("a").is_within(&path("a")) && path("a").is_within(&path("")));
        assert!(!path("ab").is_within(&path("a")) && !path("a").is_within(&path("a/b")));
        assert_eq!(path("a/b/c").split_last(), Some((path("a/b"), "c")));
        assert_eq!(path("").split_last(), None);
    }

    #[test]
    fn knows_a_crash_leftover() {
        assert!(is_leftover("signature-1#1") && is_leftover("signature-12#4711"));
        for name in ["signature-1", "signature-1#", "signature-1#x", "signature-01#1", "x#1", "signature-1#1#1"] {
            assert!(!is_leftover(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_parsing_agree(
            path in "([A-Za-z0-9_:-][A-Za-z0-9._:-]{0,9}){1,4}(/[a-z0-9_-]{1,9}){0,5}",
            content: Vec<u8>, number in 1..=u32::MAX, image: bool,
        ) {
            let path = StorePath::parse(&path).unwrap();
            let digest = Digest::sha256(&content);
            let set = if image { SetAddress::image(path, digest).unwrap() } else { SetAddress::release(path, digest) };
            prop_assert_eq!(&SetAddress::parse_key(&set.to_string()).unwrap(), &set);
            let address = SignatureAddress { set, index: NonZeroU32::new(number).unwrap() };
            prop_assert_eq!(SignatureAddress::parse(&address.to_string()).unwrap(), address);
        }

        #[test]
        fn whatever_parses_is_printed_alike_and_stays_inside(
            key in "[a./@=:\\\\%\0-]{0,12}(@|/)?(sha256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855)?(/signature-[0-9]{1,11})?",
        ) {
            if let Ok(address) = SignatureAddress::parse(&key) {
                prop_assert_eq!(address.to_string(), key.clone());
                prop_assert!(!key.split('/').any(|part| matches!(part, "" | "." | "..")));
            }
        }

        #[test]
        fn never_panics(key: String) {
            let _ = SignatureAddress::parse(&key);
            let _ = SetAddress::parse_key(&key);
            let _ = StorePath::parse(&key);
        }
    }
}
