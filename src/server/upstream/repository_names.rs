//! Repositories as clients call them and as the registry calls them, wherever they are named
//! beside the path: in token scopes, challenges, `Location`, `Link` and mounts; pure.
//!
//! To a client, a registry below a path is a part of our repositories: `icr.io/birds/bluebird`
//! (spec containers-image 3.5, 8.2). The registry knows only `birds/bluebird`.

use crate::config::HttpOrigin;
use crate::registry::Challenge;
use crate::server::upstream::rewrite::{self, Endpoints};

/// A token's scope, `type:name:actions`; the name may hold colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope<'a> {
    kind: &'a str,
    pub(crate) name: &'a str,
    actions: &'a str,
}

impl<'a> Scope<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        Some(Self { kind, name, actions })
    }

    /// Returns the first component of a repository's name, and the rest.
    pub(crate) fn split(&self) -> Option<(&'a str, &'a str)> {
        if self.kind == "registry" { None } else { self.name.split_once('/') }
    }

    /// Writes the scope for another name.
    pub(crate) fn with_name(&self, name: &str) -> String {
        format!("{}:{name}:{}", self.kind, self.actions)
    }
}

/// Writes the scopes of a challenge as the client calls them.
fn scopes_below(scopes: &str, component: &str) -> String {
    let one = |text: &str| match Scope::parse(text) {
        Some(scope) if scope.kind != "registry" => scope.with_name(&format!("{component}/{}", scope.name)),
        _ => text.to_owned(),
    };
    scopes.split(' ').map(one).collect::<Vec<_>>().join(" ")
}

/// Where it is. No repository has a component that begins with `_`.
pub(crate) const TOKEN_PATH: &str = "/v2/_token";

/// Returns the address of our token endpoint, as the client calls us.
pub(crate) fn realm(client: &HttpOrigin) -> String {
    format!("{client}{TOKEN_PATH}")
}

/// Writes challenges anew, so that tokens are asked for at `realm`, for what the client calls them.
/// `None` when there is nothing to ask a token for.
pub(crate) fn challenge(challenges: &[Challenge], realm: &str, below: Option<&str>) -> Option<String> {
    if !challenges.iter().any(|challenge| challenge.scheme() == "bearer") {
        return None;
    }
    let one = |challenge: &Challenge| {
        let bearer = challenge.scheme() == "bearer";
        let parameters = challenge.parameters().iter().map(|(name, value)| {
            let value = match (name.as_str(), below) {
                ("realm", _) if bearer => realm.to_owned(),
                ("scope", Some(component)) if bearer => scopes_below(value, component),
                _ => value.clone(),
            };
            format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
        });
        let scheme = match challenge.scheme() {
            "bearer" => "Bearer".to_owned(),
            "basic" => "Basic".to_owned(),
            other => other.to_owned(),
        };
        let parameters = challenge.token68().map(str::to_owned).into_iter().chain(parameters);
        format!("{scheme} {}", parameters.collect::<Vec<_>>().join(",")).trim_end().to_owned()
    };
    Some(challenges.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Rewrites a `Location` so that the client stays with us, below the component by which it came;
/// `None` when it stays as it is.
pub(crate) fn location(url: &str, endpoints: Endpoints<'_>, below: Option<&str>) -> Option<String> {
    let moved = rewrite::location(url, endpoints);
    let Some(component) = below else { return moved };
    let path = match &moved {
        Some(path) => path.as_str(),
        None if url.starts_with('/') && !url.starts_with("//") => url,
        None => return None,
    };
    match path.strip_prefix("/v2") {
        Some(rest) if rest.is_empty() || rest.starts_with(['/', '?', '#']) => Some(format!("/v2/{component}{rest}")),
        // A path outside of `/v2/` is relayed as it is: the upstream remembers that it named it.
        _ => moved,
    }
}

/// Rewrites the URLs of a `Link` header; `None` when all stay as they are.
pub(crate) fn link(value: &str, endpoints: Endpoints<'_>, below: Option<&str>) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut changed = false;
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('<') {
        let Some((url, after)) = after.split_once('>') else { break };
        let moved = location(url, endpoints, below);
        changed |= moved.is_some();
        out.push_str(before);
        out.push('<');
        out.push_str(moved.as_deref().unwrap_or(url));
        out.push('>');
        rest = after;
    }
    out.push_str(rest);
    changed.then_some(out)
}

/// Rewrites the query of a request that goes below `component`: a blob that is to be mounted from
/// another repository is only there if that one is of the same registry.
pub(crate) fn query(query: &str, component: &str) -> String {
    let value = |pair: &str| {
        let (key, value) = url::form_urlencoded::parse(pair.as_bytes()).next()?;
        Some((key.into_owned(), value.into_owned()))
    };
    let pairs: Vec<&str> = query.split('&').collect();
    let from = pairs.iter().find_map(|pair| value(pair).filter(|(key, _)| key == "from")).map(|(_, from)| from);
    let Some(from) = from else { return query.to_owned() };
    let own = from.split_once('/').filter(|(first, _)| *first == component).map(|(_, rest)| rest);
    let kept = pairs.into_iter().filter_map(|pair| match (value(pair), own) {
        (Some((key, _)), Some(own)) if key == "from" => {
            Some(url::form_urlencoded::Serializer::new(String::new()).append_pair("from", own).finish())
        }
        (Some((key, _)), None) if key == "from" || key == "mount" => None,
        _ => Some(pair.to_owned()),
    });
    kept.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HttpOrigin;
    use crate::registry::parse_challenges;
    use proptest::prelude::*;

    fn origin(text: &str) -> HttpOrigin {
        HttpOrigin::parse(text).unwrap()
    }

    #[test]
    fn scopes_of_all_kinds() {
        let scope = Scope::parse("repository:icr.io/birds/bluebird:pull,push").unwrap();
        assert_eq!(scope.split(), Some(("icr.io", "birds/bluebird")));
        assert_eq!(scope.with_name("birds/bluebird"), "repository:birds/bluebird:pull,push");
        assert_eq!(Scope::parse("registry:catalog:*").unwrap().split(), None);
        assert_eq!(Scope::parse("repository(plugin):h:5000/x:pull").unwrap().name, "h:5000/x");
        assert_eq!(Scope::parse("repository:x"), None);
    }

    #[test]
    fn challenges_name_our_realm_and_the_clients_repository() {
        let told = |value: &str, below| challenge(&parse_challenges(value.as_bytes()), "https://sig/v2/_token", below);
        assert_eq!(
            told(
                r#"Bearer realm="https://auth.icr.io/t",service="a\"b",scope="repository:x:pull registry:catalog:*",error="e""#,
                Some("icr.io")
            )
            .unwrap(),
            r#"Bearer realm="https://sig/v2/_token",service="a\"b",scope="repository:icr.io/x:pull registry:catalog:*",error="e""#
        );
        assert_eq!(
            told("Basic realm=x, bearer realm=y, Negotiate abc==", None).unwrap(),
            r#"Basic realm="x", Bearer realm="https://sig/v2/_token", negotiate abc=="#
        );
        assert_eq!(told("Basic realm=x", Some("icr.io")), None);
    }

    #[test]
    fn locations_stay_below_their_component() {
        let (upstream, client) = (origin("http://up:5000"), origin("https://sig"));
        let endpoints = Endpoints { upstream: &upstream, client: &client };
        for (url, below, alone) in [
            ("/v2/x/blobs/uploads/1?_state=a%2F", Some("/v2/icr.io/x/blobs/uploads/1?_state=a%2F"), None),
            ("http://up:5000/v2/x?a", Some("/v2/icr.io/x?a"), Some("/v2/x?a")),
            ("https://sig/v2/x", Some("/v2/icr.io/x"), Some("/v2/x")),
            ("/v2", Some("/v2/icr.io"), None),
            ("/v2x/y", None, None),
            ("http://up:5000/artifacts-uploads/x", Some("/artifacts-uploads/x"), Some("/artifacts-uploads/x")),
            ("https://cdn.example/v2/x", None, None),
            ("//cdn.example/v2/x", None, None),
            ("uploads/1", None, None),
        ] {
            assert_eq!(location(url, endpoints, Some("icr.io")).as_deref(), below, "{url}");
            assert_eq!(location(url, endpoints, None).as_deref(), alone, "{url}");
        }
        assert_eq!(
            link("</v2/x/tags/list?last=a&n=1>; rel=\"next\", <https://other/>; rel=x", endpoints, Some("icr.io"))
                .unwrap(),
            "</v2/icr.io/x/tags/list?last=a&n=1>; rel=\"next\", <https://other/>; rel=x"
        );
        assert_eq!(
            link("<http://up:5000/v2/_catalog?n=1>; rel=\"next\"", endpoints, None).unwrap(),
            "</v2/_catalog?n=1>; rel=\"next\""
        );
        assert_eq!(link("</v2/_catalog", endpoints, Some("icr.io")), None);
    }

    #[test]
    fn mounts_stay_within_one_registry() {
        for (given, expected) in [
            ("from=icr.io%2Fa%2Fb&mount=sha256%3Ax", "from=a%2Fb&mount=sha256%3Ax"),
            ("mount=sha256:x&from=icr.io/a/b&x=%20", "mount=sha256:x&from=a%2Fb&x=%20"),
            ("from=quay.io/a&mount=sha256:x&digest=y", "digest=y"),
            ("from=a&mount=sha256:x", ""),
            ("_state=a%2Fb%3D%3D&x=%20&&y", "_state=a%2Fb%3D%3D&x=%20&&y"),
        ] {
            assert_eq!(query(given, "icr.io"), expected);
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,60}", url in "[a-z:/?#<>.%0-9]{0,40}") {
            let (upstream, client) = (origin("http://u"), origin("https://c"));
            let endpoints = Endpoints { upstream: &upstream, client: &client };
            let _ = (Scope::parse(&text), query(&text, "icr.io"), query(&url, "icr.io"));
            let _ = (link(&text, endpoints, Some("icr.io")), link(&url, endpoints, Some("icr.io")), location(&url, endpoints, Some("icr.io")));
            let _ = challenge(&parse_challenges(text.as_bytes()), "r", Some("icr.io"));
        }
    }
}
