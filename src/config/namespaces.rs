//! Rules for parts of a registry: by the start of repository paths, at a slash, the longest wins.

use std::collections::BTreeMap;

use super::map;
use crate::image::is_within;
use crate::store::StorePath;

/// Rules by namespace, in the order in which they are tried, and one for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces<T> {
    /// Longest first.
    rules: Vec<(StorePath, T)>,
    default: T,
}

impl<T> Namespaces<T> {
    /// Puts rules together; `default` is for what lies in no namespace.
    pub fn new(default: T, rules: impl IntoIterator<Item = (StorePath, T)>) -> Self {
        let mut rules: Vec<_> = rules.into_iter().collect();
        rules.sort_by_key(|(path, _)| std::cmp::Reverse(path.as_str().len()));
        Self { rules, default }
    }

    /// Finds what goes for the repository with this path, `birds/bluebird`.
    pub fn of(&self, repository: &str) -> &T {
        self.rules
            .iter()
            .find(|(above, _)| is_within(repository, above.as_str()))
            .map_or(&self.default, |(_, rule)| rule)
    }

    /// Returns what goes where no namespace has a rule of its own.
    pub fn default_rule(&self) -> &T {
        &self.default
    }

    /// Lists all rules, the default last.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.rules.iter().map(|(_, rule)| rule).chain([&self.default])
    }

    /// Makes other rules of these, namespace by namespace.
    pub fn map<U>(&self, mut make: impl FnMut(&T) -> U) -> Namespaces<U> {
        let rules = self.rules.iter().map(|(path, rule)| (path.clone(), make(rule))).collect();
        Namespaces { rules, default: make(&self.default) }
    }
}

/// Reads a map of namespaces.
pub(super) fn deserialize<'de, D, T>(deserializer: D) -> Result<BTreeMap<StorePath, T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de>,
{
    map::read(deserializer, "a map from the start of repository paths to rules", |name| {
        let path = StorePath::parse(name.strip_suffix('/').unwrap_or(name)).map_err(|e| e.to_string())?;
        if path.is_empty() {
            return Err("a namespace is empty; what goes for all stands directly beside `namespaces`".to_owned());
        }
        Ok(path)
    })
}
