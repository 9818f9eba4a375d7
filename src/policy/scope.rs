//! Scopes: which ones a policy may name, and which one speaks of an image
//! (spec containers-image 5.2, 5.3).

use std::fmt;

use super::document::Policy;
use super::requirement::Requirement;
use crate::image::{Digest, Reference, namespaces};

/// Which part of a policy speaks of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScopeMatch {
    /// A scope of the image's transport.
    Scope(String),
    /// The scope `""` of the image's transport.
    TransportDefault,
    /// The policy's `default`.
    Default,
}

impl ScopeMatch {
    /// Returns the scope as the file spells it; `None` for the policy's `default`.
    pub fn scope(&self) -> Option<&str> {
        match self {
            Self::Scope(scope) => Some(scope),
            Self::TransportDefault => Some(""),
            Self::Default => None,
        }
    }
}

impl fmt::Display for ScopeMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scope(scope) => f.write_str(scope),
            Self::TransportDefault => f.write_str("\"\""),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Policy {
    /// Finds what goes for an image: the first hit of its identity, its namespaces in order, the
    /// transport's `""`, and else `default`. Nothing is merged.
    ///
    /// `identity` and `namespaces` are containers/image's `PolicyConfigurationIdentity` and
    /// `PolicyConfigurationNamespaces` of the transport.
    pub fn requirements<'a>(
        &self,
        transport: &str,
        identity: &'a str,
        namespaces: impl IntoIterator<Item = &'a str>,
    ) -> (ScopeMatch, &[Requirement]) {
        if let Some(scopes) = self.transports.get(transport) {
            for scope in std::iter::once(identity).chain(namespaces).chain([""]) {
                if let Some(requirements) = scopes.get(scope) {
                    let at = if scope.is_empty() {
                        ScopeMatch::TransportDefault
                    } else {
                        ScopeMatch::Scope(scope.to_owned())
                    };
                    return (at, requirements);
                }
            }
        }
        (ScopeMatch::Default, &self.default)
    }

    /// Finds what goes for an image of a registry. The reference has a tag or a digest.
    pub fn docker_requirements(&self, reference: &Reference) -> (ScopeMatch, &[Requirement]) {
        self.requirements("docker", &reference.to_string(), namespaces(reference).iter().map(String::as_str))
    }
}

/// Tells whether a policy may name this scope for this transport. Unknown transports may have any.
pub(super) fn is_valid_scope(transport: &str, scope: &str) -> bool {
    if scope.is_empty() {
        return true;
    }
    match transport {
        "atomic" => is_atomic_scope(scope),
        "dir" | "oci" | "oci-archive" | "sif" => is_path_scope(scope),
        "docker-archive" | "tarball" => false,
        "docker-daemon" => Digest::parse(scope).is_err(),
        "containers-storage" => is_storage_scope(scope),
        _ => true,
    }
}

/// An absolute path, cleaned, and not `/`, which would mean the same as `""`.
fn is_path_scope(scope: &str) -> bool {
    scope.strip_prefix('/').is_some_and(|rest| !rest.split('/').any(|part| matches!(part, "" | "." | "..")))
}

/// `host[/namespace[/stream[:tag]]]` of an OpenShift registry; any part but the slashes may be empty.
fn is_atomic_scope(scope: &str) -> bool {
    let parts: Vec<&str> = scope.split('/').collect();
    match parts.as_slice() {
        [_host] => true,
        [_host, namespace] => !namespace.contains(':'),
        [_host, namespace, stream] => !namespace.contains(':') && stream.matches(':').count() <= 1,
        _ => false,
    }
}

/// `[/graph/root]` or `[driver@/graph/root]`, then perhaps a name with perhaps a digest and an ID.
fn is_storage_scope(scope: &str) -> bool {
    let Some((store, name)) = scope.strip_prefix('[').and_then(|rest| rest.split_once(']')) else { return false };
    let root = match store.split_once('@') {
        Some((driver, root)) if !driver.is_empty() => root,
        Some(_) => return false,
        None => store,
    };
    if !root.starts_with('/') {
        return false;
    }
    let is_digest = |text: &str| Digest::parse(text).is_ok();
    let is_id = |text: &str| Digest::parse(&format!("sha256:{text}")).is_ok();
    match name.splitn(3, '@').collect::<Vec<_>>().as_slice() {
        [_name, second] => is_id(second) || is_digest(second),
        [_name, digest, id] => is_digest(digest) && is_id(id),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn scopes_that_a_policy_may_name() {
        let valid = |transport: &str, scope: &str| is_valid_scope(transport, &scope.replace("HEX", HEX));
        for transport in ["docker", "unknown"] {
            for scope in ["", "*.com", "UPPER!", "/", "a:b:c", "sha256:HEX"] {
                assert!(valid(transport, scope), "{transport} {scope}");
            }
        }
        for transport in ["dir", "oci", "oci-archive", "sif"] {
            for scope in ["", "/a", "/a/b", "/a:b", "/...", "/a b"] {
                assert!(valid(transport, scope), "{transport} {scope}");
            }
            for scope in ["/", "a", "a/b", "/a/", "//a", "/a//b", "/a/../b", "/..", "/.", "/a/."] {
                assert!(!valid(transport, scope), "{transport} {scope}");
            }
        }
        for transport in ["docker-archive", "tarball"] {
            assert!(valid(transport, "") && !valid(transport, "/a") && !valid(transport, "x"));
        }
        for scope in ["", "busybox", "docker.io/library/busybox:latest", "sha256:abc", "md5:HEX", "HEX"] {
            assert!(valid("docker-daemon", scope), "{scope}");
        }
        assert!(!valid("docker-daemon", "sha256:HEX"));
        for scope in ["h", "h:1", "h/n", "h/n/s", "h/n/s:t", "h:1/n/s:", "/", "//", "h//s"] {
            assert!(valid("atomic", scope), "{scope}");
        }
        for scope in ["h/n/s/x", "h/n:t", "h/n:x/s", "h/n/s:t:u", "h/n/s:t/x"] {
            assert!(!valid("atomic", scope), "{scope}");
        }
        for scope in [
            "[/a]",
            "[overlay@/a]",
            "[/a]busybox",
            "[overlay@/a]busybox:tag",
            "[/a]docker.io/library",
            "[/a]x@HEX",
            "[/a]x@sha256:HEX",
            "[/a]x:t@sha256:HEX@HEX",
            "[/a]@HEX",
            "[overlay@/a@b]x",
        ] {
            assert!(valid("containers-storage", scope), "{scope}");
        }
        for scope in [
            "busybox",
            "[",
            "[]",
            "[a]",
            "[@/a]",
            "[overlay@]",
            "[overlay@a]x",
            "[/a",
            "[/a]x@abc",
            "[/a]x@sha256:HEX@abc",
            "[/a]x@HEX@HEX",
        ] {
            assert!(!valid("containers-storage", scope), "{scope}");
        }
    }

    fn policy(scopes: &[&str]) -> Policy {
        let docker: Vec<String> = scopes.iter().map(|s| format!(r#""{s}":[{{"type":"reject"}}]"#)).collect();
        let json = format!(
            r#"{{"default":[{{"type":"insecureAcceptAnything"}}],"transports":{{"docker":{{{}}}}}}}"#,
            docker.join(",")
        );
        Policy::parse(json.as_bytes()).unwrap()
    }

    fn find(scopes: &[&str], image: &str) -> String {
        policy(scopes).docker_requirements(&Reference::parse(image).unwrap()).0.to_string()
    }

    #[test]
    fn the_first_hit_wins() {
        let image = "a.b.c:5000/ns/repo:tag";
        let mut scopes =
            vec!["a.b.c:5000/ns/repo:tag", "a.b.c:5000/ns/repo", "a.b.c:5000/ns", "a.b.c:5000", "*.b.c", "*.c", ""];
        while let Some(first) = scopes.first() {
            let expected = if first.is_empty() { "\"\"" } else { first };
            assert_eq!(find(&scopes, image), expected);
            scopes.remove(0);
        }
        assert_eq!(find(&[], image), "default");
        for scope in ["a.b.c", "a.b.c/ns", "*.a.b.c", "*", "a.b.c:5000/", "a.b.c:5000/n", "*.c:5000", "*.b.c/ns"] {
            assert_eq!(find(&[scope], image), "default", "{scope}");
        }
        assert_eq!(find(&["busybox"], "busybox:latest"), "default");
        assert_eq!(find(&["*.io"], "busybox:latest"), "*.io");
        assert_eq!(find(&["docker.io/library/busybox:latest"], "busybox:latest"), "docker.io/library/busybox:latest");
    }

    #[test]
    fn other_transports_have_their_own_scopes() {
        let json = r#"{"default":[{"type":"reject"}],"transports":{
            "dir":{"/a":[{"type":"insecureAcceptAnything"}]},"oci":{"":[{"type":"reject"}]},"docker":{}}}"#;
        let policy = Policy::parse(json.as_bytes()).unwrap();
        assert_eq!(policy.requirements("dir", "/a/b", ["/a"]).0, ScopeMatch::Scope("/a".to_owned()));
        assert_eq!(policy.requirements("dir", "/b", []).0, ScopeMatch::Default);
        assert_eq!(policy.requirements("oci", "/x:t", ["/x"]).0, ScopeMatch::TransportDefault);
        assert_eq!(policy.requirements("oci", "", []).0, ScopeMatch::TransportDefault);
        assert_eq!(policy.requirements("docker", "x", []).0, ScopeMatch::Default);
        assert_eq!(policy.requirements("atomic", "x", []).0, ScopeMatch::Default);
        assert_eq!(policy.requirements("oci", "", []).1, [Requirement::Reject]);
    }

    proptest::proptest! {
        /// The grammar of `atomic:` said as what it is upstream: a regular expression.
        #[test]
        fn atomic_scopes_agree_with_the_expression(scope in "[a:/]{1,8}") {
            let mut state = 0;
            for c in scope.chars() {
                state = match (state, c) {
                    (0..=2, '/') => state + 1,
                    (0, _) => 0,
                    (1, 'a') => 1,
                    (2, 'a') => 2,
                    (2, ':') => 4,
                    (4, 'a') => 4,
                    _ => 9,
                };
            }
            proptest::prop_assert_eq!(is_valid_scope("atomic", &scope), [0, 1, 2, 4].contains(&state));
        }
    }
}
