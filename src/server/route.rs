//! From the path of a request to the thing it names; pure, and the only reader of paths.
//!
//! What is not a well-formed address is not found: no normalisation, no guess. Three kindnesses
//! only, for bases that end in `/` and clients that escape: `//`, `%40` and `%3D` below
//! `/lookaside/`, and `%3A` in the extension's digest (spec containers-image 2.1, peers checklist 6).

use std::borrow::Cow;

use crate::image::{Digest, Repository, Tag, is_within};
use crate::metrics::Face;
use crate::store::{Layout, SetAddress, SignatureAddress, StorePath};

/// What a path names.
#[derive(Debug, PartialEq)]
pub(super) enum Route<'a> {
    /// `/`.
    Page,
    /// `/lookaside/…/signature-N`.
    Lookaside(SignatureAddress),
    /// `/extensions/v2/{name}/signatures/{digest}`.
    Signatures(&'a str, Digest),
    /// `/v2` and everything below.
    Registry,
    /// A clean path that may be a token endpoint of the upstream.
    Other(&'a str),
    /// Below `/lookaside/`, but no address.
    NoLookaside,
    /// Below `/extensions/`, but no address.
    NoExtension,
    /// Dot segments, control characters, backslashes: nothing that an upstream should ever see.
    Hostile,
}

impl Route<'_> {
    /// Returns what answers, for counting. A token endpoint is known only by asking for it.
    pub(super) fn face(&self) -> Face {
        match self {
            Self::Lookaside(address) if address.set.layout() == Layout::Release => Face::Release,
            Self::Lookaside(_) | Self::NoLookaside => Face::Lookaside,
            Self::Signatures(..) | Self::NoExtension => Face::Extension,
            Self::Registry => Face::Proxy,
            Self::Page => Face::Page,
            Self::Other(_) | Self::Hostile => Face::Other,
        }
    }
}

/// Reads a path. Never fails: what is malformed has its own routes.
pub(super) fn parse(path: &str) -> Route<'_> {
    if let Some(key) = path.strip_prefix("/lookaside/") {
        let address = lookaside_key(key).and_then(|key| SignatureAddress::parse(&key).ok());
        return address.map_or(Route::NoLookaside, Route::Lookaside);
    }
    if let Some(rest) = path.strip_prefix("/extensions/") {
        return signatures(rest).map_or(Route::NoExtension, |(name, digest)| Route::Signatures(name, digest));
    }
    if path == "/" {
        return Route::Page;
    }
    if is_hostile(path) {
        return Route::Hostile;
    }
    if is_within(path, "/v2") { Route::Registry } else { Route::Other(path) }
}

/// Tells whether a path is passed on to the registry as one of its API's.
pub(super) fn is_below_v2(path: &str) -> bool {
    is_within(path, "/v2")
}

/// Splits `/v2/{component}/{rest}` into the component and what follows it.
///
/// Only what is written plainly is split off, so that nobody reads another component into it.
pub(super) fn below(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/v2/")?;
    let end = rest.find('/').unwrap_or(rest.len());
    let (component, rest) = rest.split_at_checked(end)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    (!component.is_empty() && component.bytes().all(plain)).then_some((component, rest))
}

/// Returns the repository of which a path names a manifest, a blob or the tags: what pulls ask for,
/// and nothing that could be anything else.
pub(super) fn pulled(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/v2/")?;
    let name = if let Some(name) = rest.strip_suffix("/tags/list") {
        name
    } else {
        let (collection, item) = rest.rsplit_once('/')?;
        let digest = Digest::parse(item).is_ok();
        match collection.strip_suffix("/manifests") {
            Some(name) if digest || Tag::parse(item).is_ok() => name,
            Some(_) => return None,
            None => collection.strip_suffix("/blobs").filter(|_| digest)?,
        }
    };
    is_repository(name).then_some(name)
}

/// What may be written or made below `/lookaside/`.
#[derive(Debug, PartialEq)]
pub(super) enum WriteTarget {
    /// `{key}/signature-N`.
    Signature(SignatureAddress),
    /// `{key}/signature-new`: the next number of a set, whichever that is.
    Next(SetAddress),
    /// What may be a folder: a set's, or one above sets. It has the path; of a folder above, the
    /// digest means nothing.
    Folder(SetAddress),
}

impl WriteTarget {
    /// Reads a path that is no signature's.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let key = lookaside_key(path.strip_prefix("/lookaside/")?)?;
        if let Some(set) = key.strip_suffix("/signature-new") {
            return SetAddress::parse_key(set).ok().map(Self::Next);
        }
        let key = key.trim_end_matches('/');
        let above = || StorePath::parse(key).ok().map(|path| SetAddress::release(path, Digest::sha256(b"")));
        SetAddress::parse_key(key).ok().or_else(above).map(Self::Folder)
    }

    /// Returns where it is in the store.
    pub(super) fn path(&self) -> &StorePath {
        match self {
            Self::Signature(address) => address.set.path(),
            Self::Next(set) | Self::Folder(set) => set.path(),
        }
    }
}

/// Undoes what clients do to a key on its way, and nothing else.
fn lookaside_key(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('%') && !raw.contains("//") && !raw.starts_with('/') {
        return Some(Cow::Borrowed(raw));
    }
    let mut key = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(c) = rest.chars().next() {
        rest = rest.get(c.len_utf8()..)?;
        match c {
            '/' if key.is_empty() || key.ends_with('/') => {}
            '%' => {
                let (escape, after) = rest.split_at_checked(2)?;
                key.push(match escape {
                    "40" => '@',
                    "3D" | "3d" => '=',
                    _ => return None,
                });
                rest = after;
            }
            c => key.push(c),
        }
    }
    Some(Cow::Owned(key))
}

/// Reads `v2/{name}/signatures/{digest}`.
fn signatures(rest: &str) -> Option<(&str, Digest)> {
    let (collection, digest) = rest.strip_prefix("v2/")?.rsplit_once('/')?;
    let name = collection.strip_suffix("/signatures")?;
    let digest = match digest.split_once('%') {
        Some((algorithm, rest)) => {
            let hex = rest.strip_prefix("3A").or_else(|| rest.strip_prefix("3a"))?;
            Digest::parse(&format!("{algorithm}:{hex}")).ok()?
        }
        None => Digest::parse(digest).ok()?,
    };
    is_repository(name).then_some((name, digest))
}

/// Tells whether `name` is a repository's name by the grammar that clients use.
///
/// The grammar limits host and path together, and clients reach us by hosts that we do not know:
/// the shortest that there can be refuses no path of theirs.
fn is_repository(name: &str) -> bool {
    Repository::parse(&format!("a.b/{name}")).is_ok_and(|parsed| parsed.path() == name)
}

/// How often a path is decoded to see what it might mean to an upstream behind another proxy.
const DECODINGS: usize = 4;

/// Tells whether an upstream might read another place into `path` than we do.
///
/// Servlet containers take what follows a `;` off each segment before they look for dot segments,
/// some servers decode twice, and some take `\` or overlong UTF-8 for what it looks like. Nothing
/// that a registry's path is made of has a `;`, a control or a byte beyond ASCII in it.
fn is_hostile(path: &str) -> bool {
    if !path.contains(['%', '\\', '.', ';']) && path.bytes().all(|b| b.is_ascii_graphic()) {
        return false;
    }
    let (mut decoded, broken) = percent_decoded(path.as_bytes());
    if broken {
        return true;
    }
    for _ in 0..DECODINGS {
        if looks_elsewhere(&decoded) {
            return true;
        }
        let (again, _) = percent_decoded(&decoded);
        if again == decoded {
            return false;
        }
        decoded = again;
    }
    // Nobody nests escapes so deep in good faith.
    true
}

fn looks_elsewhere(path: &[u8]) -> bool {
    let dots = |segment: &[u8]| {
        let segment = segment.trim_ascii();
        !segment.is_empty() && segment.iter().all(|b| *b == b'.')
    };
    path.iter().any(|b| b.is_ascii_control() || !b.is_ascii() || matches!(b, b'\\' | b';' | b'?' | b'#'))
        || path.split(|b| *b == b'/').any(dots)
}

/// Undoes percent escapes once. Broken ones stay as they are, and the second value says that there
/// were some.
pub(super) fn percent_decoded(path: &[u8]) -> (Vec<u8>, bool) {
    let mut decoded = Vec::with_capacity(path.len());
    let (mut rest, mut broken) = (path, false);
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let escape = after.split_at_checked(2);
            let byte = escape.and_then(|(digits, _)| std::str::from_utf8(digits).ok().and_then(hex_byte));
            if let (Some(byte), Some((_, after))) = (byte, escape) {
                decoded.push(byte);
                rest = after;
                continue;
            }
            broken = true;
        }
        decoded.push(first);
    }
    (decoded, broken)
}

fn hex_byte(digits: &str) -> Option<u8> {
    if digits.bytes().all(|b| b.is_ascii_hexdigit()) { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{SetAddress, StorePath};
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn lookaside(path: &str) -> Option<(String, u32)> {
        match parse(path) {
            Route::Lookaside(address) => Some((address.set.to_string(), address.index.get())),
            _ => None,
        }
    }

    #[test]
    fn lookaside_addresses() {
        let image = format!("birds/bluebird@sha256={HEX}");
        for path in [
            format!("/lookaside/{image}/signature-1"),
            format!("/lookaside//{image}/signature-1"),
            format!("/lookaside///birds//bluebird@sha256={HEX}//signature-1"),
            format!("/lookaside/birds/bluebird%40sha256%3D{HEX}/signature-1"),
            format!("/lookaside/birds/bluebird%40sha256%3d{HEX}/signature-1"),
        ] {
            assert_eq!(lookaside(&path), Some((image.clone(), 1)), "{path}");
        }
        assert_eq!(lookaside(&format!("/lookaside/sha256={HEX}/signature-12")), Some((format!("sha256={HEX}"), 12)));
        let release = format!("openshift/release/sha256={HEX}");
        assert_eq!(lookaside(&format!("/lookaside/{release}/signature-9")), Some((release, 9)));
    }

    #[test]
    fn what_is_no_lookaside_address() {
        for key in [
            String::new(),
            "x".to_owned(),
            format!("@sha256={HEX}/signature-1"),
            format!("x@sha256={HEX}/"),
            format!("x@sha256={HEX}"),
            format!("x@sha256={HEX}/signature-"),
            format!("x@sha256={HEX}/signature-0"),
            format!("x@sha256={HEX}/signature-01"),
            format!("x@sha256={HEX}/signature-+1"),
            format!("x@sha256={HEX}/signature--1"),
            format!("x@sha256={HEX}/signature-99999999999"),
            format!("x@sha256={HEX}/signature-1/"),
            format!("x@sha256={HEX}/signature-1/.."),
            format!("../x@sha256={HEX}/signature-1"),
            format!("x/../y@sha256={HEX}/signature-1"),
            format!("./x@sha256={HEX}/signature-1"),
            format!("%2e%2e/x@sha256={HEX}/signature-1"),
            format!("%2E./x@sha256={HEX}/signature-1"),
            format!("x%2fy@sha256={HEX}/signature-1"),
            format!("x%00@sha256={HEX}/signature-1"),
            format!("x%@sha256={HEX}/signature-1"),
            format!("x%4@sha256={HEX}/signature-1"),
            format!("x%2540sha256={HEX}/signature-1"),
            format!("x\\y@sha256={HEX}/signature-1"),
            format!("x y@sha256={HEX}/signature-1"),
            format!("x@sha256={}/signature-1", HEX.to_uppercase()),
            format!("x@sha256={}/signature-1", &HEX[1..]),
            format!("x@md5={}/signature-1", &HEX[..32]),
            format!("é@sha256={HEX}/signature-1"),
            format!("x%é@sha256={HEX}/signature-1"),
        ] {
            assert_eq!(parse(&format!("/lookaside/{key}")), Route::NoLookaside, "{key}");
        }
        assert_eq!(parse("/lookaside"), Route::Other("/lookaside"));
    }

    #[test]
    fn extension_addresses() {
        let digest = Digest::parse(&format!("sha256:{HEX}")).unwrap();
        for name in ["x", "birds/bluebird", "a/signatures/b", "signatures", "a.b/c__d/e--f"] {
            let path = format!("/extensions/v2/{name}/signatures/sha256:{HEX}");
            assert_eq!(parse(&path), Route::Signatures(name, digest.clone()), "{path}");
        }
        // `r.io` leaves so many bytes of the 255 that host and path may have together.
        let longest = "a".repeat(250);
        let path = format!("/extensions/v2/{longest}/signatures/sha256:{HEX}");
        assert_eq!(parse(&path), Route::Signatures(&longest, digest.clone()));
        let escaped = format!("/extensions/v2/x/signatures/sha256%3A{HEX}");
        assert_eq!(parse(&escaped), Route::Signatures("x", digest));
        for path in [
            "/extensions/".to_owned(),
            "/extensions/v2/".to_owned(),
            format!("/extensions/v2/signatures/sha256:{HEX}"),
            format!("/extensions/v2//signatures/sha256:{HEX}"),
            format!("/extensions/v2/x/signatures/sha256:{HEX}/"),
            "/extensions/v2/x/signatures/latest".to_owned(),
            format!("/extensions/v2/X/signatures/sha256:{HEX}"),
            format!("/extensions/v2/x//y/signatures/sha256:{HEX}"),
            format!("/extensions/v2/../x/signatures/sha256:{HEX}"),
            format!("/extensions/v2/%2e%2e/x/signatures/sha256:{HEX}"),
            format!("/extensions/v2/x%2fy/signatures/sha256:{HEX}"),
            format!("/extensions/v2/x:tag/signatures/sha256:{HEX}"),
            format!("/extensions/v2/{}/signatures/sha256:{HEX}", "a".repeat(300)),
            format!("/extensions/v3/x/signatures/sha256:{HEX}"),
        ] {
            assert_eq!(parse(&path), Route::NoExtension, "{path}");
        }
    }

    #[test]
    fn the_rest() {
        assert_eq!(parse("/"), Route::Page);
        for path in [
            "/v2",
            "/v2/",
            "/v2/a/b/manifests/v1.0",
            "/v2/x/blobs/uploads/",
            "/v2/a%2Fb/tags/list",
            "/v2/x/manifests/sha256%3Aab",
            "/v2/x/blobs/uploads/a%20b.c%25",
        ] {
            assert_eq!(parse(path), Route::Registry, "{path}");
        }
        for path in ["/v2x", "/token", "//v2/", "/V2/", "*", "", "/..x"] {
            assert_eq!(parse(path), Route::Other(path), "{path}");
        }
        for path in [
            "/v2/..",
            "/v2/../admin",
            "/v2/./x",
            "/v2/%2e%2e/admin",
            "/v2/.%2E/admin",
            "/v2/..%2fadmin",
            "/v2/a\\..\\b",
            "/v2/%5c",
            "/v2/%00",
            "/v2/a%0d%0ab",
            "/v2/%",
            "/v2/%zz",
            "/v2/%4",
            "/token/../admin",
            "/..",
            "/v2/..;/service/rest",
            "/v2/x/..;a=b/..;/admin",
            "/v2/.;/x",
            "/v2/%2e%2e;/x",
            "/v2/..%3b/x",
            "/v2/..%3B/x",
            "/v2/x/..;",
            "/v2/x;jsessionid=1/manifests/1",
            "/v2/%252e%252e/x",
            "/v2/%25252e%25252e/x",
            "/v2/..%253b/x",
            "/v2/..%252f..%252fadmin",
            "/v2/%255c",
            "/v2/%2500",
            "/v2/..%20/x",
            "/v2/.../x",
            "/v2/%c0%ae%c0%ae/x",
            "/v2/%ef%bc%8e%ef%bc%8e/x",
            "/v2/%2525252525252525252e/x",
            "/v2/%252e%252e/x%25",
            "/v2/x/..%3f/y",
            "/v2/x/..%23/y",
            "/v2/x%3fy",
            "/v2/%252e%252e/x%25zz",
        ] {
            assert_eq!(parse(path), Route::Hostile, "{path}");
        }
    }

    #[test]
    fn registries_below_a_path() {
        for (path, split) in [
            ("/v2/icr.io/birds/bluebird/manifests/1", Some(("icr.io", "/birds/bluebird/manifests/1"))),
            ("/v2/icr.io/", Some(("icr.io", "/"))),
            ("/v2/icr.io", Some(("icr.io", ""))),
            ("/v2/_catalog", Some(("_catalog", ""))),
            ("/v2/", None),
            ("/v2//icr.io/x", None),
            ("/v2/icr%2eio/x", None),
            ("/v2/ICR.io/x", None),
            ("/v2x/icr.io/x", None),
        ] {
            assert_eq!(below(path), split, "{path}");
        }
    }

    #[test]
    fn what_pulls_ask_for() {
        for path in ["manifests/1.0", &format!("manifests/sha256:{HEX}"), &format!("blobs/sha256:{HEX}"), "tags/list"] {
            assert_eq!(pulled(&format!("/v2/a/b/{path}")), Some("a/b"), "{path}");
        }
        for path in [
            "/v2/".to_owned(),
            "/v2/_catalog".to_owned(),
            "/v2/a/blobs/uploads/1".to_owned(),
            "/v2/a/blobs/latest".to_owned(),
            "/v2/a/manifests/".to_owned(),
            "/v2/a/manifests/a%2fb".to_owned(),
            "/v2/a%2fb/manifests/1".to_owned(),
            "/v2/a//b/manifests/1".to_owned(),
            "/v2/A/tags/list".to_owned(),
            format!("/v2/a/referrers/sha256:{HEX}"),
            format!("/extensions/v2/a/blobs/sha256:{HEX}"),
        ] {
            assert_eq!(pulled(&path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(path in "\\PC{0,80}") {
            let _ = (parse(&path), below(&path), pulled(&path));
        }

        #[test]
        fn never_panics_near_addresses(path in "/(lookaside|v2|extensions/v2)[a-f0-9/@=%.:\\\\signature-]{0,60}") {
            let _ = parse(&path);
        }

        #[test]
        fn every_written_address_is_read_back(
            parts in proptest::collection::vec("[a-z0-9]{1,8}", 1..5), index in 1u32..1000, double in any::<bool>(),
        ) {
            let path = parts.join("/");
            let digest = Digest::sha256(path.as_bytes());
            for set in [
                SetAddress::image(StorePath::parse(&path).unwrap(), digest.clone()).unwrap(),
                SetAddress::release(StorePath::parse(&path).unwrap(), digest.clone()),
            ] {
                let slash = if double { "//" } else { "/" };
                let text = format!("/lookaside{slash}{set}{slash}signature-{index}");
                prop_assert_eq!(lookaside(&text), Some((set.to_string(), index)));
            }
        }

        #[test]
        fn no_key_leaves_the_store(path in "/lookaside/[a-z./%2eE5cC\\\\0-9@=]{0,40}/signature-1") {
            if let Route::Lookaside(address) = parse(&path) {
                prop_assert!(address.set.to_string().split('/').all(|c| !c.is_empty() && c != "." && c != ".."));
            }
        }
    }
}
