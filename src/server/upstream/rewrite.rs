//! What a proxy must change in headers on the way, and nothing more; pure (spec containers-image 3.6).
//!
//! Clients that follow an upstream's absolute `Location` or token `realm` leave the proxy behind
//! and may take their credentials along. Everything that points at the upstream, or at ourselves,
//! is turned round; what points at a third place (object storage, a separate token server) stays.

use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use crate::config::{HttpOrigin, Scheme};
use crate::registry::realms;

const HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    UPGRADE,
];

/// Removes the headers that are meant for one connection only, also those that `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if headers.remove(TRANSFER_ENCODING).is_some() {
        // Chunks are the true length (RFC 9112 6.3); the other one would be ours to keep.
        headers.remove(CONTENT_LENGTH);
    }
}

/// Both ends between which we stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoints<'a> {
    /// The registry behind us.
    pub(crate) upstream: &'a HttpOrigin,
    /// Ourselves, as the client calls us.
    pub(crate) client: &'a HttpOrigin,
}

impl Endpoints<'_> {
    /// Tells whether a URL's scheme and authority mean the upstream or ourselves.
    fn own(&self, scheme: Option<Scheme>, authority: &str) -> bool {
        // Credentials in an authority are not compared.
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let is = |end: &HttpOrigin| {
            HttpOrigin::from_parts(scheme.unwrap_or(end.scheme()), authority).is_ok_and(|o| o.same_place(end))
        };
        is(self.upstream) || is(self.client)
    }
}

/// Splits `http://host/rest` or `//host/rest`; `None` for what is relative or of another scheme.
fn split_absolute(url: &str) -> Option<(Option<Scheme>, &str, &str)> {
    let (scheme, after) = match url.strip_prefix("//") {
        Some(after) => (None, after),
        None => {
            let (scheme, after) = url.split_once("://")?;
            (Some(Scheme::parse(scheme)?), after)
        }
    };
    let end = after.find(['/', '?', '#', '\\']).unwrap_or(after.len());
    let (authority, rest) = after.split_at_checked(end)?;
    Some((scheme, authority, rest))
}

/// Rewrites a `Location` of ours or the upstream's to path and query, byte for byte; `None` when
/// it stays as it is.
pub(crate) fn location(url: &str, endpoints: Endpoints<'_>) -> Option<String> {
    let (scheme, authority, rest) = split_absolute(url)?;
    if !endpoints.own(scheme, authority) {
        return None;
    }
    Some(match rest {
        // Alone, such a path would be read as another host's name.
        _ if rest.starts_with("//") || rest.starts_with("/\\") => format!("{}{rest}", endpoints.client),
        _ if rest.starts_with('/') => rest.to_owned(),
        _ => format!("/{rest}"),
    })
}

/// A challenge header after the change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The whole header value; only realms differ.
    pub(crate) value: Vec<u8>,
    /// The paths of the realms that now point at us.
    pub(crate) token_paths: Vec<String>,
}

/// Rewrites the realms of a `WWW-Authenticate` value that point at the upstream or at ourselves,
/// so that they name us as the client calls us; `None` when nothing points there.
///
/// Everything outside those realms is kept byte for byte, whatever it is.
pub(crate) fn challenge(value: &[u8], endpoints: Endpoints<'_>) -> Option<Challenge> {
    let mut out = Vec::with_capacity(value.len());
    let mut token_paths = Vec::new();
    let mut done = 0;
    for realm in realms(value) {
        let Some((scheme, authority, rest)) = split_absolute(&realm.text) else { continue };
        if !endpoints.own(scheme, authority) {
            continue;
        }
        out.extend_from_slice(value.get(done..realm.range.start)?);
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        out.push(b'"');
        for byte in format!("{}{rest}", endpoints.client).into_bytes() {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
        done = realm.range.end;
        let path = rest.split(['?', '#']).next().unwrap_or_default();
        token_paths.push(path.to_owned());
    }
    if token_paths.is_empty() {
        return None;
    }
    out.extend_from_slice(value.get(done..)?);
    Some(Challenge { value: out, token_paths })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn origin(text: &str) -> HttpOrigin {
        HttpOrigin::parse(text).unwrap()
    }

    fn moved(url: &str) -> Option<String> {
        let (upstream, client) = (origin("http://up.example:5000"), origin("https://sig.example"));
        location(url, Endpoints { upstream: &upstream, client: &client })
    }

    #[test]
    fn locations_of_ours_become_relative() {
        for (url, relative) in [
            (
                "http://up.example:5000/v2/x/blobs/uploads/1?_state=a%2Fb%3D==",
                "/v2/x/blobs/uploads/1?_state=a%2Fb%3D==",
            ),
            ("HTTP://UP.example:5000/v2/x", "/v2/x"),
            ("https://up.example:5000/v2/x", "/v2/x"),
            ("//up.example:5000/v2/x", "/v2/x"),
            ("http://sig.example/v2/x", "/v2/x"),
            ("https://sig.example:443/v2/%2e?x=%00#f", "/v2/%2e?x=%00#f"),
            ("http://u:p@up.example:5000/v2/x", "/v2/x"),
            ("http://up.example:5000", "/"),
            ("http://up.example:5000?x", "/?x"),
            ("http://up.example:5000//evil.example/x", "https://sig.example//evil.example/x"),
        ] {
            assert_eq!(moved(url).as_deref(), Some(relative), "{url}");
        }
    }

    #[test]
    fn foreign_and_relative_locations_stay() {
        for url in [
            "/v2/x",
            "x",
            "",
            "?x",
            "https://s3.example/bucket?sig=1",
            "http://up.example/v2/x",
            "http://up.example:5001/x",
            "http://up.example:5000.evil.example/x",
            "http://up.example:5000@evil.example/x",
            "ftp://up.example:5000/x",
            "http://evil.example\\@up.example:5000/x",
        ] {
            assert_eq!(moved(url), None, "{url}");
        }
    }

    fn challenged(value: &str) -> Option<(String, Vec<String>)> {
        let (upstream, client) = (origin("http://up.example:5000"), origin("https://sig.example"));
        challenge(value.as_bytes(), Endpoints { upstream: &upstream, client: &client })
            .map(|c| (String::from_utf8(c.value).unwrap(), c.token_paths))
    }

    #[test]
    fn realms_of_the_upstream_become_ours() {
        for (value, rewritten, path) in [
            (
                r#"Bearer realm="http://up.example:5000/token",service="a, realm=\"x\"",scope="repository:x:pull""#,
                r#"Bearer realm="https://sig.example/token",service="a, realm=\"x\"",scope="repository:x:pull""#,
                "/token",
            ),
            (
                r#"bearer service=up , REALM = "https://up.example:5000/a/t?q=1" ,error="insufficient_scope""#,
                r#"bearer service=up , REALM = "https://sig.example/a/t?q=1" ,error="insufficient_scope""#,
                "/a/t",
            ),
            (
                r#"Basic realm="x", Bearer realm="http://up.example:5000/token""#,
                r#"Basic realm="x", Bearer realm="https://sig.example/token""#,
                "/token",
            ),
            (
                "Bearer realm=http://up.example:5000/t,service=x",
                "Bearer realm=\"https://sig.example/t\",service=x",
                "/t",
            ),
            (r#"Bearer realm="http://sig.example/auth""#, r#"Bearer realm="https://sig.example/auth""#, "/auth"),
            (r#"Bearer realm="http://up.example:5000""#, r#"Bearer realm="https://sig.example/""#, "/"),
        ] {
            assert_eq!(challenged(value), Some((rewritten.to_owned(), vec![path.to_owned()])), "{value}");
        }
    }

    #[test]
    fn other_challenges_stay() {
        for value in [
            "",
            "Basic realm=\"Registry Realm\"",
            "Bearer realm=\"https://auth.example/token\",service=\"http://up.example:5000/\"",
            "Bearer realm=\"http://up.example:5000/token",
            "Bearer realm=\"http://up.example:5000/token\\",
            "Negotiate YII=",
            "Bearer x=\"realm=http://up.example:5000/\"",
            "realm",
            "realm=",
        ] {
            assert_eq!(challenged(value), None, "{value}");
        }
    }

    #[test]
    fn hop_by_hop_headers_go() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("connection", "keep-alive"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("docker-content-digest", "sha256:x"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["docker-content-digest"]);
    }

    proptest! {
        #[test]
        fn never_panics(value in proptest::collection::vec(any::<u8>(), 0..80), url in "\\PC{0,60}") {
            let (upstream, client) = (origin("http://u"), origin("https://c"));
            let endpoints = Endpoints { upstream: &upstream, client: &client };
            let _ = challenge(&value, endpoints);
            let _ = location(&url, endpoints);
        }

        #[test]
        fn only_the_realm_changes(
            before in "[A-Za-z]{1,6}", service in "[ -~&&[^\"\\\\]]{0,20}", path in "(/[a-z0-9%._-]{0,8}){1,3}",
        ) {
            let value = format!("{before} service=\"{service}\",realm=\"http://u{path}\",scope=\"{service}\"");
            let (upstream, client) = (origin("http://u"), origin("https://c:8443"));
            let changed = challenge(value.as_bytes(), Endpoints { upstream: &upstream, client: &client }).unwrap();
            let expected = format!("{before} service=\"{service}\",realm=\"https://c:8443{path}\",scope=\"{service}\"");
            prop_assert_eq!(String::from_utf8(changed.value).unwrap(), expected);
            prop_assert_eq!(changed.token_paths, vec![path]);
        }
    }
}
