//! The names under which configuration may speak of an image, most specific first.
//!
//! policy.json (spec containers-image 5.4) and registries.d (1.4) search by this one list;
//! containers/image has it as `DockerReferenceIdentity` and `DockerReferenceNamespaces`.

use super::reference::Reference;

/// Lists the scopes of a docker reference in the order in which they are looked up.
///
/// First the identity (`host/path:tag` or `host/path@digest`; left out when the name has neither),
/// then the [`namespaces`]. Neither `""` nor a default is among them; they are the caller's.
///
/// ```
/// # use countersign::image::{Reference, scopes};
/// let reference = Reference::parse("us.icr.io:8443/birds/bluebird:build1")?;
/// let expected = [
///     "us.icr.io:8443/birds/bluebird:build1",
///     "us.icr.io:8443/birds/bluebird",
///     "us.icr.io:8443/birds",
///     "us.icr.io:8443",
///     "*.icr.io",
///     "*.io",
/// ];
/// assert_eq!(scopes(&reference), expected);
/// # Ok::<(), countersign::image::ReferenceError>(())
/// ```
pub fn scopes(reference: &Reference) -> Vec<String> {
    let mut list = Vec::new();
    if !reference.is_name_only() {
        list.push(reference.to_string());
    }
    list.extend(namespaces(reference));
    list
}

/// Lists the scopes of a docker reference without its identity: the repository, each parent, the
/// host with its port, then the wildcards of the host **without** its port.
pub fn namespaces(reference: &Reference) -> Vec<String> {
    let mut list = Vec::new();
    let mut name = reference.repository().as_str();
    loop {
        list.push(name.to_owned());
        let Some((parent, _)) = name.rsplit_once('/') else { break };
        name = parent;
    }
    let mut host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    while let Some((_, parent)) = host.split_once('.') {
        list.push(format!("*.{parent}"));
        host = parent;
    }
    list
}

/// Tells whether a name or path is `above`, or goes on with `/` after it.
pub fn is_within(name: &str, above: &str) -> bool {
    name.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Vec<String> {
        scopes(&Reference::parse(text).unwrap())
    }

    #[test]
    fn every_row_of_the_rule() {
        assert_eq!(
            of("busybox"),
            ["docker.io/library/busybox", "docker.io/library", "docker.io", "*.io"],
            "a bare name has no identity"
        );
        assert_eq!(
            of("busybox:1"),
            ["docker.io/library/busybox:1", "docker.io/library/busybox", "docker.io/library", "docker.io", "*.io"]
        );
        assert_eq!(
            of("a.b.c/ns1/ns2/repo:tag"),
            ["a.b.c/ns1/ns2/repo:tag", "a.b.c/ns1/ns2/repo", "a.b.c/ns1/ns2", "a.b.c/ns1", "a.b.c", "*.b.c", "*.c"]
        );
        assert_eq!(
            of("example.com:8443/ns/r:t"),
            ["example.com:8443/ns/r:t", "example.com:8443/ns/r", "example.com:8443/ns", "example.com:8443", "*.com"]
        );
        assert_eq!(of("localhost/r:t"), ["localhost/r:t", "localhost/r", "localhost"]);
        assert_eq!(of("localhost:5000/r:t"), ["localhost:5000/r:t", "localhost:5000/r", "localhost:5000"]);
        assert_eq!(
            of("127.0.0.1:5000/r:t"),
            ["127.0.0.1:5000/r:t", "127.0.0.1:5000/r", "127.0.0.1:5000", "*.0.0.1", "*.0.1", "*.1"]
        );
        let digest = format!("sha256:{}", "0".repeat(64));
        assert_eq!(of(&format!("q.io/r@{digest}")), [&format!("q.io/r@{digest}"), "q.io/r", "q.io", "*.io"]);
    }

    /// The rule said backwards: which scopes cover an image, whatever the order.
    fn covers(scope: &str, full: &str, repository: &str, host: &str) -> bool {
        if let Some(domain) = scope.strip_prefix("*.") {
            let bare = host.rfind(':').map_or(host, |at| &host[..at]);
            return bare.ends_with(&format!(".{domain}"));
        }
        scope == full || scope == repository || repository.starts_with(&format!("{scope}/"))
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_the_rule_said_backwards(
            host in "[a-c]{1,2}(\\.[a-c]{1,2}){1,3}(:[0-9]{1,3})?",
            path in "[a-c]{1,2}(/[a-c]{1,2}){0,3}",
            tag in "[a-c]{1,2}",
            strange in "(\\*\\.)?[a-c]{0,2}([.:/][a-c0-9]{0,2}){0,4}",
        ) {
            let (full, repository) = (format!("{host}/{path}:{tag}"), format!("{host}/{path}"));
            let list = of(&full);
            let covering: Vec<&String> = list.iter().filter(|s| covers(s, &full, &repository, &host)).collect();
            proptest::prop_assert_eq!(covering.len(), list.len());
            // Names shrink from one to the next, and all of them come before the first wildcard.
            let names: Vec<&String> = list.iter().take_while(|s| !s.starts_with("*.")).collect();
            proptest::prop_assert!(names.windows(2).all(|pair| pair[1].len() < pair[0].len()));
            let wild = &list[names.len()..];
            proptest::prop_assert!(wild.iter().all(|s| s.starts_with("*.")));
            proptest::prop_assert!(wild.windows(2).all(|pair| pair[1].len() < pair[0].len()));
            proptest::prop_assert_eq!(names.len(), path.matches('/').count() + 3);
            proptest::prop_assert_eq!(wild.len(), host.matches('.').count());
            // And nothing else that would cover it is missing.
            if !strange.is_empty() && strange != "*." && covers(&strange, &full, &repository, &host) {
                proptest::prop_assert!(list.contains(&strange), "{} of {:?}", strange, list);
            }
        }
    }
}
