//! The part of a request's path that is fit for logs and traces: no query, no password.

use std::borrow::Cow;

use crate::server::error::shorten;

/// How much of a path is written.
const PATH_SHOWN: usize = 512;
/// What a query, or an address with a password, begins with where a client has put it into a path.
const SECRETS: [&str; 13] = [
    "?",
    "%3f",
    "token=",
    "token%3d",
    "password=",
    "password%3d",
    "passwd=",
    "secret=",
    "secret%3d",
    "bearer%20",
    "basic%20",
    "://",
    "%3a%2f%2f",
];

/// Returns the part of a path that is fit for a log: a query that was escaped into it, and what
/// stands like `user:password@` in it, is left out.
pub(crate) fn shown_path(path: &str) -> Cow<'_, str> {
    let strange = |pair: &[u8]| match pair {
        [_, b'%' | b':' | b'?'] => true,
        // The last letters of the words above.
        [before, b'='] => matches!(before.to_ascii_lowercase(), b'n' | b'd' | b't'),
        _ => false,
    };
    if path.len() <= PATH_SHOWN && !path.as_bytes().windows(2).any(strange) {
        return Cow::Borrowed(path);
    }
    let lower = path.to_ascii_lowercase();
    let end = SECRETS.iter().filter_map(|start| lower.find(start)).min().unwrap_or(path.len());
    let known = path.get(..end).unwrap_or_default();
    let shown = known.split('/').map(|part| if is_userinfo(part) { "…" } else { part }).collect::<Vec<_>>().join("/");
    let shown = shorten(&shown, PATH_SHOWN);
    Cow::Owned(if end < path.len() { shown + "…" } else { shown })
}

/// Tells whether a part of a path looks like `user:password@host`, escaped or not. A digest behind
/// a name and a tag does not.
fn is_userinfo(part: &str) -> bool {
    let plain = part.to_ascii_lowercase().replace("%3a", ":").replace("%40", "@");
    plain.rsplit_once('@').is_some_and(|(before, after)| before.contains(':') && !after.starts_with("sha"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_without_secrets() {
        for path in [
            "/lookaside/birds/bluebird@sha256=ab/signature-1",
            "/lookaside/birds/bluebird%40sha256%3Dab/signature-1",
            "/v2/birds/manifests/sha256:ab",
            "/v2/r.example:5000/x/manifests/sha256:ab",
            "/x:1@sha256:ab",
            "/",
        ] {
            assert_eq!(shown_path(path), path);
        }
        for (path, shown) in [
            ("/lookaside/x%3Ftoken=secret", "/lookaside/x…"),
            ("/lookaside/x%3ftoken%3Dsecret", "/lookaside/x…"),
            ("/lookaside/x;token=secret", "/lookaside/x;…"),
            ("/http://bob:secret@host/x", "/http…"),
            ("//bob:secret@host/x", "//…/x"),
            ("/bob%3Asecret%40host/x", "/…/x"),
        ] {
            assert_eq!(shown_path(path), shown);
        }
        assert_eq!(shown_path(&"/x".repeat(400)).chars().count(), PATH_SHOWN + 1);
    }
}
