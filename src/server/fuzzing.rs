//! Doors to the private parsers of this room for `fuzz/`, which tell whether what must hold does; no
//! part of the library's promises.

use http::Method;

use crate::image::Digest;
use crate::server::listener::fast_path::message::{self, ParsedHead};
use crate::server::route::{self, Route};
use crate::server::uploads::extension;
use crate::server::upstream::repository_names::{self, Scope};

/// A path names something or nothing, but never anything outside.
pub fn path(path: &str) -> bool {
    let clean = |name: &str| name.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let broken = match route::parse(path) {
        Route::Lookaside(address) => !clean(&address.to_string()),
        Route::Signatures(name, _) => !clean(name) || name.contains(['%', '\\', ':']),
        Route::Registry => path.split('/').any(|part| matches!(part, "." | "..")),
        _ => false,
    };
    let below = route::below(path).is_some_and(|(component, rest)| {
        format!("/v2/{component}{rest}") != path || component.contains(['/', '%', ':'])
    });
    let pulled = route::pulled(path).is_some_and(|name| !path.starts_with(&format!("/v2/{name}/")) || !clean(name));
    !(broken || below || pulled)
}

/// What is read the short way is a whole question, says nothing of a body, and is a part with less.
pub fn question(bytes: &[u8]) -> bool {
    let ParsedHead::Request(question) = message::read(bytes) else { return true };
    let head = bytes.get(..question.length).unwrap_or_default();
    let lower = head.to_ascii_lowercase();
    let says = |field: &[u8]| lower.windows(field.len()).any(|part| part == field);
    let foreign: [&[u8]; 6] =
        [b"\ncontent-length:", b"\ntransfer-encoding:", b"\nupgrade:", b"\nexpect:", b"\ntrailer:", b"\nte:"];
    let body = foreign.iter().any(|field| says(field));
    let part = head.split_last().is_some_and(|(_, less)| matches!(message::read(less), ParsedHead::Partial));
    let asks = [Method::GET, Method::HEAD].contains(question.request.method());
    head.ends_with(b"\n") && asks && !body && part
}

/// The body of an upload of a signature.
pub fn upload(body: &[u8], digest: &Digest) {
    let _ = extension::parse(body, digest);
}

/// Scopes are written as they are read; a query without a mount stays as it is.
pub fn scope(text: &str) -> bool {
    let same = Scope::parse(text).is_none_or(|scope| scope.with_name(scope.name) == text);
    let mounts = url::form_urlencoded::parse(text.as_bytes()).any(|(key, _)| key == "from");
    same && (repository_names::query(text, "icr.io") == text || mounts)
}
