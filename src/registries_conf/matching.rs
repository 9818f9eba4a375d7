//! Which prefix speaks of a name, and what the name becomes (spec containers-image 8.2).
//!
//! The reference matches texts, not names, and so do we, its slips included: a prefix without a
//! port also matches the host with any port, which then stays behind the location.

use crate::image::{Reference, ReferenceError};

/// Why a name cannot be rewritten. The sentences are containers/image's own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RewriteError {
    /// The prefix does not match the name.
    #[error("invalid prefix '{prefix}' for reference '{reference}'")]
    Prefix {
        /// The prefix.
        prefix: String,
        /// The name.
        reference: String,
    },
    /// Nothing takes the place of a prefix that is no wildcard.
    #[error("invalid prefix '{0}' for empty location, should be in the format: *.example.com")]
    NoLocation(String),
    /// What comes out is no name, or not one written out in full.
    #[error("rewriting reference: {0}")]
    Reference(#[from] ReferenceError),
}

/// Tells how much of `name` the prefix covers, if it matches. `name` is a host, a repository or a
/// whole reference; a match ends at its end, or before `:`, `/` or `@`.
pub fn matching_length(name: &str, prefix: &str) -> Option<usize> {
    let length = match prefix.strip_prefix('*').filter(|domain| domain.starts_with('.')) {
        // The first place only: `*.b` does not match `a.bc.b`.
        Some(domain) => {
            let at = name.find(domain)?;
            if name.get(..at)?.contains('/') {
                return None;
            }
            at + domain.len()
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    let rest = name.get(length..)?;
    (rest.is_empty() || rest.starts_with([':', '/', '@'])).then_some(length)
}

/// Puts `location` in the place of the prefix. An empty location, which only a wildcard may have,
/// leaves the name as it is.
///
/// # Errors
/// [`RewriteError`].
pub fn rewrite(reference: &Reference, prefix: &str, location: &str) -> Result<Reference, RewriteError> {
    let text = reference.to_string();
    let Some(rest) = matching_length(&text, prefix).and_then(|length| text.get(length..)) else {
        return Err(RewriteError::Prefix { prefix: prefix.to_owned(), reference: text });
    };
    if location.is_empty() {
        let wild = prefix.starts_with("*.");
        return if wild { Ok(reference.clone()) } else { Err(RewriteError::NoLocation(prefix.to_owned())) };
    }
    Ok(Reference::parse_canonical(&format!("{location}{rest}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    #[test]
    fn prefixes() {
        for (name, prefix, covered) in [
            ("docker.io", "docker.io", Some("docker.io")),
            ("docker.io", "example.com", None),
            ("example.com:5000", "example.com:5000", Some("example.com:5000")),
            ("example.com:50000", "example.com:5000", None),
            // A slip of the reference's that configurations count on.
            ("example.com:5000/r", "example.com", Some("example.com")),
            ("example.com/foo/bar:baz", "example.com", Some("example.com")),
            ("example.community/foo", "example.com", None),
            ("docker.io/library", "docker.io/library", Some("docker.io/library")),
            ("docker.io/libraryy", "docker.io/library", None),
            ("docker.io/library/busybox", "docker.io/library", Some("docker.io/library")),
            ("docker.io", "docker.io/library", None),
            ("example.com/foo:bar", "example.com/foo:bar", Some("example.com/foo:bar")),
            ("example.com/foo:bar2", "example.com/foo:bar", None),
            ("example.com/foo", "*", None),
            ("example.com/foo", "", None),
        ] {
            assert_eq!(matching_length(name, prefix), covered.map(str::len), "{name} {prefix}");
        }
    }

    #[test]
    fn wildcards() {
        for (name, prefix, covered) in [
            ("docker.io", "*.io", Some("docker.io")),
            ("docker.io/foo", "*.com", None),
            ("example.com/foo", "*.co", None),
            ("example.com/foo", "*.example.com", None),
            ("example.com/foo", "*.com", Some("example.com")),
            ("yet.another.example.com/foo", "**.example.com", None),
            ("a.b.example.com/namespace.com/foo", "*.example.com", Some("a.b.example.com")),
            ("example.net/namespace.com/foo", "*.com", None),
            ("another.example.com/namespace.com/foo", "*.namespace.com", None),
            ("sub.example.com:5000/foo", "*.example.com", Some("sub.example.com")),
            // Only the first occurrence counts, as in the reference.
            ("a.com.b.com/foo", "*.com", None),
            ("a.community.com/foo", "*.com", None),
        ] {
            assert_eq!(matching_length(name, prefix), covered.map(str::len), "{name} {prefix}");
        }
    }

    fn rewritten(name: &str, prefix: &str, location: &str) -> Result<String, String> {
        rewrite(&Reference::parse_canonical(name).unwrap(), prefix, location)
            .map(|r| r.to_string())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn rewriting() {
        for (name, prefix, location, new) in [
            ("example.com/image:latest", "example.com", "example.com", "example.com/image:latest"),
            ("example.com/foo/image:latest", "example.com/foo", "example.com", "example.com/image:latest"),
            ("example.com/foo/image:1", "example.com/foo", "example.com/path", "example.com/path/image:1"),
            ("docker.io/library/image", "docker.io/library", "example.com", "example.com/image"),
            ("docker.io/library/image", "docker.io", "example.com", "example.com/library/image"),
            ("docker.io/ns/image", "*.io", "example.com", "example.com/ns/image"),
            ("a.sub.example.io:5000/i:1", "*.sub.example.io", "example.com", "example.com:5000/i:1"),
            ("foo.bar.io/ns1/ns2", "*.bar.io", "omg.bbq.com/x", "omg.bbq.com/x/ns1/ns2"),
            ("abc.registry.com/foo:bar", "*.registry.com", "", "abc.registry.com/foo:bar"),
            ("example.com/a/b:1", "example.com/a/b:1", "q.io/c:2", "q.io/c:2"),
        ] {
            assert_eq!(rewritten(name, prefix, location).as_deref(), Ok(new), "{name} {prefix} {location}");
        }
        let digest = format!("example.com/foo{DIGEST}");
        assert_eq!(rewritten(&digest, "example.com", "q.io/x"), Ok(format!("q.io/x/foo{DIGEST}")));
    }

    #[test]
    fn names_that_cannot_be_rewritten() {
        for (name, prefix, location, sentence) in [
            ("example.com/f/i:1", "example.com/f", "q.io/path/", "rewriting reference: invalid reference format"),
            ("e.com:5000/i:1", "e.com", "e.com:5000", "rewriting reference: invalid reference format"),
            ("e.com/i:1", "e.com", "short", "rewriting reference: repository name must be canonical"),
            (
                "e.com:5000/i:1",
                "e.com",
                "",
                "invalid prefix 'e.com' for empty location, should be in the format: *.example.com",
            ),
            ("e.com/foo/i:1", "e.com//foo", "q.io", "invalid prefix 'e.com//foo' for reference 'e.com/foo/i:1'"),
            ("e.com/foo/i:1", "e.com/foo/", "q.io", "invalid prefix 'e.com/foo/' for reference 'e.com/foo/i:1'"),
            ("e.com/foo:1", "e.com/f", "q.io", "invalid prefix 'e.com/f' for reference 'e.com/foo:1'"),
        ] {
            assert_eq!(rewritten(name, prefix, location), Err(sentence.to_owned()), "{name} {prefix} {location}");
        }
        assert!(rewritten(&format!("e.com/foo{DIGEST}"), "e.com/foo", "q.io").is_err(), "a host alone is no name");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(name in "[a-c.*:/@é]{0,12}", prefix in "[a-c.*:/@é]{0,8}") {
            if let Some(length) = matching_length(&name, &prefix) {
                proptest::prop_assert!(name.is_char_boundary(length));
            }
        }

        /// What is not a wildcard matches exactly when it is the name, or its start up to a separator.
        #[test]
        fn agrees_with_splitting(host in "[ab]\\.[ab](:1)?", path in "[ab](/[ab]){0,2}", cut in 0usize..12) {
            let name = format!("{host}/{path}:t");
            let prefix = name.get(..cut.min(name.len())).unwrap();
            let starts: Vec<usize> =
                name.match_indices([':', '/', '@']).map(|(at, _)| at).chain([name.len()]).collect();
            proptest::prop_assert_eq!(matching_length(&name, prefix).is_some(), starts.contains(&prefix.len()));
        }

        #[test]
        fn moving_away_and_back_is_nothing(path in "[ab](/[ab]){0,2}", tag in "[ab]", ns in "[ab](/[ab])?") {
            let name = Reference::parse_canonical(&format!("a.b/{path}:{tag}")).unwrap();
            let moved = rewrite(&name, "a.b", &format!("m.x:5000/{ns}")).unwrap();
            proptest::prop_assert_eq!(rewrite(&moved, &format!("m.x:5000/{ns}"), "a.b").unwrap(), name);
        }
    }
}
