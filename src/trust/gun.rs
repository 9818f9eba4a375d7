//! GUNs: the names of repositories on a trust server.

use std::fmt;
use std::path::PathBuf;

/// The longest name; containers/image allows 255 bytes for a repository.
const LIMIT: usize = 512;

/// A repository's full name, fit for a URL's path and for a folder's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gun(String);

/// Why a text is no GUN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GunError {
    /// It has a part that cannot stand in a path.
    #[error("{0:?} is not the name of a repository; expected one such as docker.io/library/alpine")]
    Form(String),
    /// It names an image, not a repository.
    #[error("{0:?} has a tag or a digest; trust data belongs to the whole repository, so leave that out")]
    Tag(String),
}

impl Gun {
    /// Reads a name as the trust server has it.
    ///
    /// # Errors
    /// [`GunError`].
    pub fn parse(text: &str) -> Result<Self, GunError> {
        let wrong = || GunError::Form(text.to_owned());
        if text.is_empty() || text.len() > LIMIT {
            return Err(wrong());
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-:+~".contains(&b);
        for (number, part) in text.split('/').enumerate() {
            // Only a host may have a port.
            if text.contains('@') || (number > 0 && part.contains(':')) {
                return Err(GunError::Tag(text.to_owned()));
            }
            // `_trust` would end the name where the server looks for its own part of the path.
            if matches!(part, "" | "." | ".." | "_trust") || !part.bytes().all(plain) {
                return Err(wrong());
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads a name as docker's users write it: `alpine` is `docker.io/library/alpine`.
    ///
    /// # Errors
    /// [`GunError`].
    pub fn parse_for_docker_hub(text: &str) -> Result<Self, GunError> {
        let text =
            text.strip_prefix("index.docker.io/").map(|rest| format!("docker.io/{rest}")).unwrap_or(text.to_owned());
        let first = text.split('/').next().unwrap_or_default();
        let has_host = text.contains('/') && (first.contains(['.', ':']) || first == "localhost");
        match text.strip_prefix("docker.io/").unwrap_or(&text) {
            _ if has_host && !text.starts_with("docker.io/") => Self::parse(&text),
            name if name.contains('/') => Self::parse(&format!("docker.io/{name}")),
            name => Self::parse(&format!("docker.io/library/{name}")),
        }
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the registry's host, whose credentials docker sends to the trust server.
    pub fn registry(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// Returns the folder of its files, below the folder of all.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(&self.0).join("_trust")
    }
}

impl fmt::Display for Gun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_that_stay_below_their_folder() {
        for good in
            ["docker.io/library/alpine", "localhost:5000/a/b", "us.icr.io/birds/bluebird", "collection", "a/B_c"]
        {
            assert_eq!(Gun::parse(good).unwrap().as_str(), good);
        }
        for wrong in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "../a",
            "a/..",
            "a/./b",
            "a\\b",
            "a b",
            "a*",
            "a/_trust/b",
            "é",
            "a%2fb",
            "a\nb",
        ] {
            assert!(matches!(Gun::parse(wrong), Err(GunError::Form(_))), "{wrong}");
        }
        for tagged in ["a.example/b:1", "a.example/b@sha256:00"] {
            assert!(matches!(Gun::parse(tagged), Err(GunError::Tag(_))), "{tagged}");
        }
        assert!(Gun::parse(&"a".repeat(600)).is_err());
    }

    #[test]
    fn docker_hubs_short_names_are_written_out() {
        for (short, full) in [
            ("alpine", "docker.io/library/alpine"),
            ("docker/compose", "docker.io/docker/compose"),
            ("docker.io/alpine", "docker.io/library/alpine"),
            ("index.docker.io/a/b", "docker.io/a/b"),
            ("quay.io/a/b", "quay.io/a/b"),
            ("localhost/a", "localhost/a"),
        ] {
            assert_eq!(Gun::parse_for_docker_hub(short).unwrap().as_str(), full);
        }
        assert!(Gun::parse_for_docker_hub("alpine:3").is_err());
    }
}
