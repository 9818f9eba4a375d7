//! `Authorization`: a scheme and what follows it (RFC 9110, 11.6.2). The listener has refused requests with
//! more than one such field.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderMap};
use zeroize::Zeroizing;

/// User and password of HTTP Basic (RFC 7617), each byte for byte.
pub(super) struct BasicPair {
    decoded: Zeroizing<Vec<u8>>,
    /// Where the colon is.
    colon: usize,
}

impl BasicPair {
    /// Splits `user:password` at the first colon.
    pub(super) fn parse(decoded: Zeroizing<Vec<u8>>) -> Option<Self> {
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        Some(Self { decoded, colon })
    }

    pub(super) fn user(&self) -> &[u8] {
        self.decoded.get(..self.colon).unwrap_or_default()
    }

    pub(super) fn password(&self) -> &[u8] {
        self.decoded.get(self.colon + 1..).unwrap_or_default()
    }

    /// Returns `user:password`.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.decoded
    }
}

/// The field's value. It borrows from the headers; nothing is decoded before it is asked for.
#[derive(Clone, Copy)]
pub(super) struct Authorization<'a> {
    scheme: &'a str,
    credentials: &'a str,
}

impl<'a> Authorization<'a> {
    /// Reads the field of a request; `None` if there is none, or it is not a scheme and something after it.
    pub(super) fn of(headers: &'a HeaderMap) -> Option<Self> {
        headers.get(AUTHORIZATION).and_then(Self::parse)
    }

    /// Reads one value.
    pub(super) fn parse(value: &'a HeaderValue) -> Option<Self> {
        let (scheme, credentials) = value.to_str().ok()?.trim().split_once([' ', '\t'])?;
        Some(Self { scheme, credentials: credentials.trim() })
    }

    /// Returns what follows this scheme. Schemes are compared without case.
    fn of_scheme(self, scheme: &str) -> Option<&'a str> {
        self.scheme.eq_ignore_ascii_case(scheme).then_some(self.credentials)
    }

    /// Returns the token of `Bearer`.
    pub(super) fn bearer(self) -> Option<&'a str> {
        self.of_scheme("bearer")
    }

    /// Returns what follows `Basic`, in base64.
    pub(super) fn basic_encoded(self) -> Option<&'a str> {
        self.of_scheme("basic")
    }

    /// Returns user and password of `Basic`; `None` if they cannot be decoded, too.
    pub(super) fn basic(self) -> Option<BasicPair> {
        BasicPair::parse(Zeroizing::new(STANDARD.decode(self.basic_encoded()?).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_bytes(text.as_bytes()).unwrap()
    }

    #[test]
    fn reads_schemes_without_case_and_spaces_around_credentials() {
        for text in ["Basic dTpwOng=", "bASIC   dTpwOng= ", "basic\tdTpwOng="] {
            let value = value(text);
            let pair = Authorization::parse(&value).unwrap().basic().unwrap();
            assert_eq!((pair.user(), pair.password()), (&b"u"[..], &b"p:x"[..]), "{text}");
        }
        let bearer = value("BEARER a b");
        assert_eq!(Authorization::parse(&bearer).unwrap().bearer(), Some("a b"));
        for text in ["Basic", "", "Basic !", "Basic dXNlcg==", "Bearer dTpw"] {
            let value = value(text);
            assert!(Authorization::parse(&value).and_then(Authorization::basic).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[ -~\t]{0,60}") {
            let value = value(&text);
            if let Some(read) = Authorization::parse(&value) {
                let _ = (read.bearer(), read.basic().map(|pair| pair.password().len()));
            }
        }
    }
}
