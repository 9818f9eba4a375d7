//! Which keys sign which new names.

use crate::image::{Reference, Repository, is_within};
use crate::openpgp::{Fingerprint, LoadedKey};

use super::rename::RenameMap;

/// Why a set of keys cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Nobody would sign the names that no route covers.
    #[error("no key given for the names without a key of their own (--key-for); add --key K")]
    None,
    /// A route's prefix is no registry and no repository prefix.
    #[error("key route {0:?} is not for a registry (host[:port]) or host[:port]/path in lower case")]
    Prefix(String),
    /// One key twice in one set would sign every claim twice.
    #[error("key {key} is given twice {place}; keep one")]
    Twice {
        /// The identity of the key.
        key: Fingerprint,
        /// For which names.
        place: String,
    },
}

/// The keys of a job. A new claim is signed by all keys routed for the longest prefix that its name
/// has, or by all unrouted keys if none applies. A prefix is a registry or ends at a `/` of the name.
#[derive(Clone, Debug)]
pub struct Keys {
    unrouted: Vec<LoadedKey>,
    /// Longest prefix first, so that the first that applies wins.
    routes: Vec<(String, Vec<LoadedKey>)>,
}

impl Keys {
    /// Checks keys and routes; several routes for one prefix mean that all of them sign.
    ///
    /// # Errors
    /// [`KeysError`]: no unrouted key, a prefix that can be none, a key that would sign twice.
    pub fn new(unrouted: Vec<LoadedKey>, routes: Vec<(String, LoadedKey)>) -> Result<Self, KeysError> {
        let mut by_prefix: Vec<(String, Vec<LoadedKey>)> = Vec::new();
        for (prefix, key) in routes {
            // As for rename rules: the grammar judges a repository made of the prefix.
            let name = format!("{prefix}/x/y");
            if prefix.is_empty() || !Repository::parse(&name).is_ok_and(|parsed| parsed.as_str() == name) {
                return Err(KeysError::Prefix(prefix));
            }
            match by_prefix.iter_mut().find(|(known, _)| *known == prefix) {
                Some((_, keys)) => keys.push(key),
                None => by_prefix.push((prefix, vec![key])),
            }
        }
        // A name that nobody signs would count as done: there was nothing to do.
        if unrouted.is_empty() {
            return Err(KeysError::None);
        }
        each_once(&unrouted, || "by --key".to_owned())?;
        for (prefix, keys) in &by_prefix {
            each_once(keys, || format!("for {prefix}"))?;
        }
        by_prefix.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(Self { unrouted, routes: by_prefix })
    }

    /// Returns the keys that sign a claim for this new name: never none.
    pub fn for_name(&self, name: &Reference) -> Vec<&LoadedKey> {
        let repository = name.repository().as_str();
        let route = self.routes.iter().find(|(prefix, _)| is_within(repository, prefix));
        route.map_or(&self.unrouted, |(_, keys)| keys).iter().collect()
    }

    /// Returns a route's prefix at or below which no rule makes a name: a slip, by which the names
    /// that were meant would be signed by another key.
    pub fn unreachable(&self, renames: &RenameMap) -> Option<&str> {
        let reached = |prefix: &str| {
            let mut made = renames.rules().iter().filter_map(|rule| rule.new_name());
            made.any(|new| is_within(new, prefix) || is_within(prefix, new))
        };
        self.routes.iter().map(|(prefix, _)| prefix.as_str()).find(|prefix| !reached(prefix))
    }

    /// Returns every key with the prefix it is routed for, in a fixed order: for journals and
    /// previews. A key may come several times.
    pub fn all(&self) -> impl Iterator<Item = (Option<&str>, &LoadedKey)> {
        let routed = self.routes.iter().flat_map(|(prefix, keys)| keys.iter().map(|key| (Some(prefix.as_str()), key)));
        self.unrouted.iter().map(|key| (None, key)).chain(routed)
    }
}

fn each_once(keys: &[LoadedKey], place: impl Fn() -> String) -> Result<(), KeysError> {
    for (number, key) in keys.iter().enumerate() {
        let identity = key.signer.fingerprint();
        if keys.iter().take(number).any(|other| other.signer.fingerprint() == identity) {
            return Err(KeysError::Twice { key: identity.clone(), place: place() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openpgp::{Keyring, SignError, Signer};
    use std::sync::Arc;
    use std::time::SystemTime;

    struct Named(Fingerprint);

    impl Signer for Named {
        fn fingerprint(&self) -> &Fingerprint {
            &self.0
        }
        fn sign(&self, _: &[u8], _: SystemTime) -> Result<Vec<u8>, SignError> {
            Ok(Vec::new())
        }
    }

    fn key(letter: &str) -> LoadedKey {
        let fingerprint = Fingerprint::parse(&letter.repeat(40)).unwrap();
        LoadedKey { signer: Arc::new(Named(fingerprint)), own: Keyring::default() }
    }

    fn route(prefix: &str, letter: &str) -> (String, LoadedKey) {
        (prefix.to_owned(), key(letter))
    }

    /// The first letters of the keys for a name.
    fn signers(keys: &Keys, name: &str) -> String {
        let keys = keys.for_name(&Reference::parse(name).unwrap());
        keys.iter().map(|key| &key.signer.fingerprint().as_str()[..1]).collect()
    }

    #[test]
    fn the_longest_prefix_at_a_path_boundary_routes() {
        let routes = vec![
            route("icr.io", "C"),
            route("icr.io/team/app", "D"),
            route("icr.io/team", "E"),
            route("icr.io/team", "F"),
            route("icr.io:8443", "0"),
            route("docker.io", "1"),
        ];
        let keys = Keys::new(vec![key("A"), key("B")], routes).unwrap();
        for (name, expected) in [
            ("us.icr.io/team/app:1", "AB"),
            ("quay.io/x:1", "AB"),
            ("busybox:1", "1"),
            ("icr.io/other:1", "C"),
            ("icr.io/teamwork/app:1", "C"),
            ("icr.io/team/app:1", "D"),
            ("icr.io/team/app/part:1", "D"),
            ("icr.io/team/apples:1", "EF"),
            ("icr.io/team:1", "EF"),
            ("icr.io:8443/team/app:1", "0"),
        ] {
            assert_eq!(signers(&keys, name), expected, "{name}");
        }
        let all: Vec<_> = keys.all().map(|(prefix, key)| (prefix, &key.signer.fingerprint().as_str()[..1])).collect();
        let expected = [
            (None, "A"),
            (None, "B"),
            (Some("icr.io/team/app"), "D"),
            (Some("icr.io/team"), "E"),
            (Some("icr.io/team"), "F"),
            (Some("icr.io:8443"), "0"),
            (Some("docker.io"), "1"),
            (Some("icr.io"), "C"),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_route_that_no_rule_reaches_is_found() {
        let renames = RenameMap::parse(&["old.example=icr.io/team", "other.example=uk.icr.io"]).unwrap();
        let unreachable = |prefix: &str| {
            let keys = Keys::new(vec![key("A")], vec![route("icr.io/team", "B"), route(prefix, "C")]).unwrap();
            keys.unreachable(&renames).map(str::to_owned)
        };
        for reached in ["icr.io", "icr.io/team/app", "uk.icr.io", "uk.icr.io/any"] {
            assert_eq!(unreachable(reached), None, "{reached}");
        }
        for slip in ["icr.io/teams", "icr.io/te", "us.icr.io", "old.example"] {
            assert_eq!(unreachable(slip).as_deref(), Some(slip));
        }
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(Keys::new(Vec::new(), Vec::new()).unwrap_err(), KeysError::None);
        assert_eq!(Keys::new(Vec::new(), vec![route("icr.io", "A")]).unwrap_err(), KeysError::None);
        for bad in ["", "icr.io/", "/x", "ICR.io/Team", "icr", "icr.io/team:tag", "https://icr.io", "*.icr.io"] {
            let error = Keys::new(vec![key("A")], vec![route(bad, "B")]).unwrap_err();
            assert_eq!(error, KeysError::Prefix(bad.to_owned()));
        }
        let twice = Keys::new(vec![key("A"), key("B"), key("A")], Vec::new()).unwrap_err();
        assert!(matches!(&twice, KeysError::Twice { place, .. } if place == "by --key"), "{twice}");
        let twice = Keys::new(vec![key("B")], vec![route("icr.io", "A"), route("icr.io", "A")]).unwrap_err();
        assert!(matches!(&twice, KeysError::Twice { place, .. } if place == "for icr.io"), "{twice}");
        // The same key in two places is no mistake.
        Keys::new(vec![key("A")], vec![route("icr.io", "A"), route("quay.io", "A")]).unwrap();
    }
}
