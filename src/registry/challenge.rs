//! `WWW-Authenticate`: what a registry says about how to authenticate (RFC 9110, 11.6.1).
//!
//! Several challenges may stand in one header, in several headers, or both, and a comma
//! separates challenges as well as parameters; quoted strings may hold commas themselves. What
//! cannot be read is passed over, so that a strange challenge does not hide a known one.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// One challenge: a scheme and its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    token68: Option<String>,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// Returns the scheme in lower case: `basic`, `bearer`, …
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns a parameter by its lower-case name; of repeated ones the last, as containers/image.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns all parameters, names in lower case, in their order.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }

    /// Returns what stands after the scheme in the place of parameters (`Negotiate YII=`).
    pub fn token68(&self) -> Option<&str> {
        self.token68.as_deref()
    }
}

/// Reads the challenges of all `WWW-Authenticate` headers, in their order.
pub fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    headers.get_all(WWW_AUTHENTICATE).iter().flat_map(|value| parse_challenges(value.as_bytes())).collect()
}

/// Reads the challenges of one header value. Never fails: what makes no sense is left out.
pub fn parse_challenges(value: &[u8]) -> Vec<Challenge> {
    let mut reader = Reader { rest: value };
    let mut found = Vec::new();
    loop {
        reader.skip(|b| is_space(b) || b == b',');
        if reader.rest.is_empty() {
            return found;
        }
        match reader.challenge() {
            Some(challenge) => found.push(challenge),
            None => reader.skip_item(),
        }
    }
}

/// The value of a `realm` parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Realm {
    /// Where it is in the header's value, quotes included.
    pub range: std::ops::Range<usize>,
    /// What it says, without quotes and escapes.
    pub text: String,
}

/// Finds the realms of all challenges in one header value, also in challenges that [`parse_challenges`] leaves
/// out: a client may read what we do not, and whoever rewrites realms must rewrite all of them.
pub fn realms(value: &[u8]) -> Vec<Realm> {
    let mut reader = Reader { rest: value };
    let mut found = Vec::new();
    while let Some((first, rest)) = reader.rest.split_first() {
        if *first == b'"' {
            // A quoted string that belongs to no parameter.
            if reader.quoted().is_none() {
                return found;
            }
            continue;
        }
        let name = reader.take(is_token);
        if name.is_empty() {
            reader.rest = rest;
            continue;
        }
        let after_name = reader.rest;
        reader.skip(is_space);
        if !reader.eat(b'=') {
            reader.rest = after_name;
            continue;
        }
        reader.skip(is_space);
        let start = value.len() - reader.rest.len();
        let text = if reader.rest.first() == Some(&b'"') {
            match reader.quoted() {
                Some(text) => lossy(&text),
                None => return found,
            }
        } else {
            // The grammar wants a token, but registries send URLs without quotes.
            lossy(reader.take(|b| !is_space(b) && b != b','))
        };
        if name.eq_ignore_ascii_case(b"realm") {
            found.push(Realm { range: start..value.len() - reader.rest.len(), text });
        }
    }
    found
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn skip(&mut self, unwanted: impl Fn(u8) -> bool) {
        let _ = self.take(unwanted);
    }

    /// Takes the longest run of bytes that are `wanted`; perhaps none.
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|b| !wanted(*b)).unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at(end);
        self.rest = rest;
        run
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    /// Tells whether an item ends here.
    fn at_end(&self) -> bool {
        self.rest.first().is_none_or(|b| *b == b',')
    }

    /// Passes over everything up to the next comma that is not inside quotes.
    fn skip_item(&mut self) {
        while let Some((first, rest)) = self.rest.split_first() {
            match first {
                b',' => return,
                b'"' => {
                    if self.quoted().is_none() {
                        self.rest = &[];
                    }
                }
                _ => self.rest = rest,
            }
        }
    }

    fn challenge(&mut self) -> Option<Challenge> {
        let scheme = self.take(is_token);
        if scheme.is_empty() || !(self.at_end() || self.rest.first().copied().is_some_and(is_space)) {
            return None;
        }
        let mut challenge =
            Challenge { scheme: lossy(scheme).to_ascii_lowercase(), token68: None, parameters: Vec::new() };
        self.skip(is_space);
        if self.at_end() {
            return Some(challenge);
        }
        if let Some(parameter) = self.parameter() {
            challenge.parameters.push(parameter);
        } else if let Some(token) = self.token68() {
            challenge.token68 = Some(token);
            return Some(challenge);
        } else {
            self.skip_item();
            return Some(challenge);
        }
        loop {
            let before = self.rest;
            self.skip(|b| is_space(b) || b == b',');
            match self.parameter() {
                Some(parameter) => challenge.parameters.push(parameter),
                None => {
                    // Not a parameter, so the next challenge, or nonsense: both are the caller's.
                    self.rest = before;
                    return Some(challenge);
                }
            }
        }
    }

    /// `name = token` or `name = "quoted"`; consumes nothing when it is neither.
    fn parameter(&mut self) -> Option<(String, String)> {
        let before = self.rest;
        let found = self.try_parameter();
        if found.is_none() {
            self.rest = before;
        }
        found
    }

    fn try_parameter(&mut self) -> Option<(String, String)> {
        let name = self.take(is_token);
        if name.is_empty() {
            return None;
        }
        self.skip(is_space);
        if !self.eat(b'=') {
            return None;
        }
        self.skip(is_space);
        let value = if self.rest.first() == Some(&b'"') {
            self.quoted()?
        } else {
            // Bare URLs are seen where the grammar wants a token; `=` first would be a token68.
            let value = self.take(|b| !is_space(b) && b != b',' && b != b'"');
            if value.is_empty() || value.starts_with(b"=") {
                return None;
            }
            value.to_vec()
        };
        self.skip(is_space);
        if !self.at_end() {
            return None;
        }
        Some((lossy(name).to_ascii_lowercase(), lossy(&value)))
    }

    fn token68(&mut self) -> Option<String> {
        let before = self.rest;
        let body = self.take(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        let padding = self.take(|b| b == b'=');
        self.skip(is_space);
        if body.is_empty() || !self.at_end() {
            self.rest = before;
            return None;
        }
        Some(lossy(body) + &lossy(padding))
    }

    /// A quoted string, without its quotes and escapes; `None` when it does not end.
    fn quoted(&mut self) -> Option<Vec<u8>> {
        if !self.eat(b'"') {
            return None;
        }
        let mut value = Vec::new();
        let mut escaped = false;
        for (at, byte) in self.rest.iter().enumerate() {
            match byte {
                _ if escaped => {
                    value.push(*byte);
                    escaped = false;
                }
                b'\\' => escaped = true,
                b'"' => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Some(value);
                }
                _ => value.push(*byte),
            }
        }
        None
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemes(text: &str) -> Vec<String> {
        parse_challenges(text.as_bytes()).into_iter().map(|c| c.scheme).collect()
    }

    #[test]
    fn reads_what_registries_send() {
        let found = parse_challenges(
            br#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].scheme(), "bearer");
        assert_eq!(found[0].parameter("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(found[0].parameter("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(found[0].parameter("Scope"), None);
        let bare = parse_challenges(b"bearer Realm=https://h:1/token , error = insufficient_scope");
        assert_eq!(bare[0].parameter("realm"), Some("https://h:1/token"));
        assert_eq!(bare[0].parameter("error"), Some("insufficient_scope"));
    }

    #[test]
    fn several_in_one_header() {
        let found = parse_challenges(br#"Negotiate, Basic realm="a, Bearer realm=\"x\"", NTLM abc==, Bearer realm=z"#);
        let names: Vec<_> = found.iter().map(Challenge::scheme).collect();
        assert_eq!(names, ["negotiate", "basic", "ntlm", "bearer"]);
        assert_eq!(found[1].parameter("realm"), Some(r#"a, Bearer realm="x""#));
        assert_eq!(found[2].token68(), Some("abc=="));
        assert_eq!(found[3].parameter("realm"), Some("z"));
    }

    #[test]
    fn several_headers() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=x".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Bearer realm=y".parse().unwrap());
        assert_eq!(challenges(&headers).iter().map(Challenge::scheme).collect::<Vec<_>>(), ["basic", "bearer"]);
    }

    #[test]
    fn nonsense_does_not_hide_sense() {
        assert_eq!(schemes(""), [""; 0]);
        assert_eq!(schemes(" ,, , "), [""; 0]);
        assert_eq!(schemes("\"x, Bearer y\", Basic realm=a"), ["basic"]);
        assert_eq!(schemes("@@@, Basic"), ["basic"]);
        assert_eq!(schemes("a=b, Basic realm=a"), ["basic"]);
        // An unfinished string swallows the rest; the scheme is still known, its realm is not.
        let found = parse_challenges(br#"Bearer realm="https://x, Basic realm=y"#);
        assert_eq!(found[0].scheme(), "bearer");
        assert_eq!(found[0].parameter("realm"), None);
        let twice = parse_challenges(b"Bearer realm=a,realm=b");
        assert_eq!(twice[0].parameter("realm"), Some("b"));
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = parse_challenges(&bytes);
        }

        #[test]
        fn never_panics_on_near_misses(text in r#"[Bb,= "\\a/;\t]{0,60}"#) {
            let _ = parse_challenges(text.as_bytes());
        }

        #[test]
        fn round_trips(
            wanted in proptest::collection::vec(
                ("[A-Za-z][A-Za-z0-9-]{0,8}", proptest::collection::vec(("[a-z_]{1,8}", "[ -~]{0,12}"), 0..4)),
                0..4,
            ),
        ) {
            let text = wanted
                .iter()
                .map(|(scheme, parameters)| {
                    let parameters = parameters
                        .iter()
                        .map(|(k, v)| format!("{k}=\"{}\"", v.replace('\\', "\\\\").replace('"', "\\\"")))
                        .collect::<Vec<_>>();
                    format!("{scheme} {}", parameters.join(", "))
                })
                .collect::<Vec<_>>()
                .join(", ");
            let found = parse_challenges(text.as_bytes());
            proptest::prop_assert_eq!(found.len(), wanted.len());
            for (challenge, (scheme, parameters)) in found.iter().zip(&wanted) {
                proptest::prop_assert_eq!(challenge.scheme(), scheme.to_ascii_lowercase());
                proptest::prop_assert_eq!(&challenge.parameters, parameters);
            }
        }
    }

    #[test]
    fn realms_are_found_in_challenges_that_make_no_sense_too() {
        let found = |text: &str| {
            realms(text.as_bytes())
                .into_iter()
                .map(|realm| (realm.text, text[realm.range].to_owned()))
                .collect::<Vec<_>>()
        };
        for (text, wanted) in [
            (r#"Bearer realm="http://a/token" service="x""#, vec![("http://a/token", r#""http://a/token""#)]),
            (
                r#"Bearer realm=http://a/token, Basic Realm = "b\"c""#,
                vec![("http://a/token", "http://a/token"), ("b\"c", r#""b\"c""#)],
            ),
            (r#""realm=x", ;; realm=y"#, vec![("y", "y")]),
            (r#"Bearer realm="not closed"#, vec![]),
            ("Bearer realm", vec![]),
        ] {
            let wanted: Vec<_> = wanted.into_iter().map(|(a, b)| (a.to_owned(), b.to_owned())).collect();
            assert_eq!(found(text), wanted, "{text}");
        }
    }
}
