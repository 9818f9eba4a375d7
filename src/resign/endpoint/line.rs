//! One line of a list of images.

use crate::image::{Digest, Reference, ReferenceError, Tag};
use crate::store::{LayoutError, StorePath};

/// The longest line that can be a name: a repository, a tag and the longest digest, with room for
/// a comment.
pub(super) const LINE_LIMIT: usize = 4096;
/// Stands for the host of a line without one; no name can have it.
const NOWHERE: &str = "path.invalid";

/// What one line names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageLine {
    /// The registry, if the line gives one.
    pub host: Option<String>,
    /// The repository's path below it.
    pub path: StorePath,
    /// The tag; `None` beside a digest, which says more.
    pub tag: Option<Tag>,
    /// The digest.
    pub digest: Option<Digest>,
}

/// Why a line names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is no name.
    #[error("no image name: {0}")]
    Name(#[from] ReferenceError),
    /// The name is too long for a store.
    #[error(transparent)]
    Path(#[from] LayoutError),
    /// It is not text.
    #[error("not UTF-8")]
    Encoding,
    /// It has no end.
    #[error("longer than {LINE_LIMIT} bytes")]
    TooLong,
}

impl ImageLine {
    /// Reads a line: `host/path[:tag][@digest]`, or the same without the host. What follows `#` is
    /// a comment; `None` for a line that has nothing else.
    ///
    /// The first component is a host as in every image name: if it has a dot or a colon, or is
    /// `localhost`.
    ///
    /// # Errors
    /// [`LineError`].
    pub fn parse(line: &[u8]) -> Result<Option<Self>, LineError> {
        if line.len() > LINE_LIMIT {
            return Err(LineError::TooLong);
        }
        let line = std::str::from_utf8(line).map_err(|_| LineError::Encoding)?;
        let name = line.split('#').next().unwrap_or_default().trim();
        if name.is_empty() {
            return Ok(None);
        }
        let name = name.strip_prefix("docker://").unwrap_or(name);
        let has_host =
            name.split_once('/').is_some_and(|(first, _)| first == "localhost" || first.contains(['.', ':']));
        let reference =
            if has_host { Reference::parse(name)? } else { Reference::parse(&format!("{NOWHERE}/{name}"))? };
        let repository = reference.repository();
        let digest = reference.digest().cloned();
        Ok(Some(Self {
            host: has_host.then(|| repository.domain().to_owned()),
            path: StorePath::parse(repository.path())?,
            tag: reference.tag().filter(|_| digest.is_none()).cloned(),
            digest,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Option<(String, String, String)> {
        let line = ImageLine::parse(line.as_bytes()).unwrap()?;
        let selector = match (&line.tag, &line.digest) {
            (Some(tag), None) => tag.to_string(),
            (None, Some(digest)) => digest.to_string(),
            (None, None) => String::new(),
            both => panic!("{both:?}"),
        };
        Some((line.host.unwrap_or_default(), line.path.to_string(), selector))
    }

    #[test]
    fn lines_are_names_or_nothing() {
        let digest = Digest::sha256(b"x").to_string();
        for (line, host, path, selector) in [
            ("us.icr.io/birds/bluebird:build1", "us.icr.io", "birds/bluebird", "build1"),
            ("  birds/bluebird:build1\t# old", "", "birds/bluebird", "build1"),
            ("docker://localhost/x:1\r", "localhost", "x", "1"),
            ("bluebird:build1", "", "bluebird", "build1"),
            ("birds/bluebird", "", "birds/bluebird", ""),
            ("127.0.0.1:5000/a", "127.0.0.1:5000", "a", ""),
            ("docker.io/busybox:1", "docker.io", "library/busybox", "1"),
            (&format!("a/b@{digest}"), "", "a/b", &digest),
            (&format!("h.x/a/b:tag@{digest}"), "h.x", "a/b", &digest),
        ] {
            assert_eq!(read(line), Some((host.to_owned(), path.to_owned(), selector.to_owned())), "{line}");
        }
        for nothing in ["", " ", "#", "  # birds/bluebird", "\r"] {
            assert_eq!(read(nothing), None, "{nothing:?}");
        }
        for bad in ["Birds/x:1", "a b", "../x:1", "h.x/", "a:b:c", "a@sha256:1", "é", "https://h.x/a:1"] {
            assert!(ImageLine::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(ImageLine::parse(&[0xff]), Err(LineError::Encoding));
        assert_eq!(ImageLine::parse(&[b'a'; LINE_LIMIT + 1]), Err(LineError::TooLong));
    }

    proptest! {
        #[test]
        fn never_panics(line: Vec<u8>) {
            let _ = ImageLine::parse(&line);
        }

        #[test]
        fn what_is_read_is_what_stands_there(
            host in proptest::option::of("[a-z]{1,5}\\.[a-z]{2}(:[0-9]{1,4})?"), path in "[a-z]{1,5}(/[a-z0-9]{1,5}){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}"), before in "[ \t]{0,2}", after in "[ \t]{0,2}(#.*)?",
        ) {
            let mut name = host.clone().map(|host| format!("{host}/")).unwrap_or_default() + &path;
            if let Some(tag) = &tag {
                name += &format!(":{tag}");
            }
            let line = ImageLine::parse(format!("{before}{name}{after}").as_bytes()).unwrap().unwrap();
            // A first component with a port is a host also where a path was meant.
            prop_assert_eq!(line.host, host);
            prop_assert_eq!(line.path.as_str(), path);
            prop_assert_eq!(line.tag.map(|tag| tag.to_string()), tag);
        }
    }
}
