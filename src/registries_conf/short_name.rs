//! Short names, `webapp:1`: aliases and search registries, as podman, buildah and CRI-O resolve them. skopeo and docker
//! take every short name for one of docker.io.

use std::path::{Path, PathBuf};

use super::configuration::Configuration;
use crate::go::quote;
use crate::image::Reference;

/// Why an alias refuses all pulls of the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AliasError {
    /// The name on the left is none.
    #[error("invalid short name {}: {reason}", quote(.name.as_bytes()))]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name on the right is none.
    #[error("invalid alias {}: {reason}", quote(.value.as_bytes()))]
    Value {
        /// The name.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// How a short name was resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortName {
    /// The full name, with the tag and digest of the short one.
    pub full: String,
    /// The file that says so.
    pub from: PathBuf,
    /// Whether an alias says so; otherwise the first search registry does.
    pub is_alias: bool,
    /// The search registries after the first, which podman tries in turn.
    pub others: Vec<String>,
}

/// Tells whether the first component of a name is a registry.
fn has_registry(name: &str) -> bool {
    name.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
}

/// Checks an alias. An empty value removes the alias of an earlier file.
pub(super) fn check_alias(name: &str, value: &str) -> Result<(), AliasError> {
    let left = |reason| AliasError::Name { name: name.to_owned(), reason };
    let right = |reason| AliasError::Value { value: value.to_owned(), reason };
    if name.contains('@') {
        return Err(left("must not contain digest"));
    }
    if has_registry(name) {
        return Err(left("must not contain registry"));
    }
    if name.contains(':') {
        return Err(left("must not contain tag"));
    }
    Reference::parse(name).map_err(|_| left("invalid reference format"))?;
    if value.is_empty() {
        return Ok(());
    }
    if !has_registry(value) {
        return Err(right("must contain registry and repository"));
    }
    let parsed = Reference::parse(value).map_err(|_| right("invalid reference format"))?;
    if parsed.digest().is_some() {
        return Err(right("must not contain digest"));
    }
    if parsed.tag().is_some() {
        return Err(right("must not contain tag"));
    }
    Ok(())
}

impl Configuration {
    /// Resolves a name as podman does. `None` for a name with a registry, for one with a transport (`docker://`), and
    /// where no file speaks of short names.
    pub fn resolve_short_name(&self, text: &str) -> Option<ShortName> {
        if text.contains("://") || has_registry(text) {
            return None;
        }
        let (before_digest, _) = text.split_once('@').unwrap_or((text, ""));
        let name = before_digest.split(':').next().unwrap_or(before_digest);
        let rest = text.get(name.len()..).unwrap_or_default();
        if let Some((value, path)) = self.aliases.get(name) {
            let from = path.clone();
            return Some(ShortName { full: format!("{value}{rest}"), from, is_alias: true, others: Vec::new() });
        }
        let (search, from): (&[String], &Path) = self.search.as_ref().map(|(list, path)| (&**list, &**path))?;
        let (first, others) = search.split_first()?;
        let full = format!("{first}/{text}");
        Some(ShortName { full, from: from.to_owned(), is_alias: false, others: others.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::document::Form;
    use super::*;

    fn configuration(files: &[&str]) -> Configuration {
        let mut all = Configuration::default();
        for (number, text) in files.iter().enumerate() {
            let form = if number == 0 { Form::V1OrV2 } else { Form::V2DropIn };
            all.add(Path::new(&format!("/{number}.conf")), text.as_bytes(), form).unwrap();
        }
        all
    }

    #[test]
    fn resolves_aliases_then_search_registries() {
        let all = configuration(&[
            "unqualified-search-registries = ['a.io', 'docker.io']\n[aliases]\n'webapp' = 'r.io:5000/k/web'\n'gone' = 'b.io/x'",
            "[aliases]\n'gone' = ''\n'ns/web' = 'c.io/web'",
        ]);
        let full = |name: &str| all.resolve_short_name(name).map(|found| found.full);
        assert_eq!(full("webapp:1").as_deref(), Some("r.io:5000/k/web:1"));
        assert_eq!(full("webapp").as_deref(), Some("r.io:5000/k/web"));
        let digest = format!("webapp:1@sha256:{}", "a".repeat(64));
        assert_eq!(full(&digest).unwrap(), digest.replace("webapp", "r.io:5000/k/web"));
        assert_eq!(full("ns/web:1").as_deref(), Some("c.io/web:1"));
        assert_eq!(full("gone:1").as_deref(), Some("a.io/gone:1"));
        assert_eq!(all.resolve_short_name("gone").unwrap().others, ["docker.io"]);
        for name in ["q.io/x:1", "localhost/x", "docker://webapp:1"] {
            assert_eq!(full(name), None, "{name}");
        }
        assert_eq!(configuration(&[""]).resolve_short_name("x"), None);
    }

    #[test]
    fn refuses_aliases_that_clients_refuse() {
        let hex = "a".repeat(64);
        for (name, value, reason) in [
            ("x", "docker.io/library/y:z", "must not contain tag"),
            ("x", &format!("docker.io/library/y@sha256:{hex}"), "must not contain digest"),
            ("x", "y", "must contain registry and repository"),
            ("x", "ns/y", "must contain registry and repository"),
            ("x:1", "docker.io/library/y", "must not contain tag"),
            ("a.io/x", "docker.io/library/y", "must not contain registry"),
            ("X", "docker.io/library/y", "invalid reference format"),
        ] {
            let error = check_alias(name, value).unwrap_err().to_string();
            assert!(error.ends_with(reason), "{name} {value}: {error}");
        }
        check_alias("x", "docker.io/y").unwrap();
        check_alias("ns/x", "localhost/y").unwrap();
    }
}
