//! Tokens that we hand out for a registry, each for one registry only; pure and without state, so
//! that every replica understands every other's.
//!
//! A client has one token server for each host that it talks to, but behind one host of ours there
//! may be several registries, and such that want passwords or nothing at all. So what the registry
//! wants travels inside of our token: `cs1~{site}~{kind}~{content}`. It holds nothing that its
//! bearer has not given or been given, and what is meant for one registry never goes to another.

use base64::Engine as _;
use base64::alphabet::STANDARD as STANDARD_ALPHABET;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest as _, Sha256};

use crate::server::authorization::Authorization;
use crate::server::route;

/// What our tokens begin with.
const MARK: &str = "cs1~";

/// Which registry a token is for: the beginning of its name's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RegistryTag(String);

impl RegistryTag {
    pub(crate) fn of(name: &str) -> Self {
        let hash = hex::encode(Sha256::digest(name.as_bytes()));
        Self(hash.get(..16).unwrap_or_default().to_owned())
    }
}

/// What a token of ours holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScopedToken<'a> {
    /// Nothing: its bearer is nobody in particular.
    Nobody,
    /// The registry's own token.
    Token(&'a str),
    /// The value of `Authorization: Basic`, without the scheme.
    Basic(&'a str),
}

impl ScopedToken<'_> {
    /// Writes the token.
    pub(crate) fn issue(&self, tag: &RegistryTag) -> String {
        let RegistryTag(tag) = tag;
        match self {
            Self::Nobody => format!("cs1~{tag}~n~"),
            Self::Token(token) => format!("cs1~{tag}~t~{token}"),
            Self::Basic(pair) => {
                let pair = STANDARD.decode(pair.trim()).unwrap_or_default();
                format!("cs1~{tag}~b~{}", URL_SAFE_NO_PAD.encode(pair))
            }
        }
    }
}

/// Returns the refresh token inside of one that we have handed on, or a stranger's as it is; none if
/// it is for another registry.
pub(crate) fn refresh<'a>(text: &'a str, RegistryTag(tag): &RegistryTag) -> Option<&'a str> {
    match text.strip_prefix(MARK) {
        Some(ours) => {
            ours.strip_prefix(tag.as_str())?.strip_prefix("~t~").filter(|inside| !holds_token(inside.as_bytes()))
        }
        None => Some(text).filter(|text| !holds_token(text.as_bytes())),
    }
}

/// Tells whether a text holds a token of ours, however it is spelled. Other issuers' tokens hardly
/// ever hold the mark, and base64 has no tilde.
pub(crate) fn holds_token(text: &[u8]) -> bool {
    let marked = |text: &[u8]| text.windows(MARK.len()).any(|part| part.eq_ignore_ascii_case(MARK.as_bytes()));
    if marked(text) {
        return true;
    }
    let (plain, _) = route::percent_decoded(text);
    // With a scheme in front, or without.
    let behind_scheme = plain.iter().position(|b| b.is_ascii_whitespace()).and_then(|at| plain.get(at..));
    marked(&plain) || [Some(&*plain), behind_scheme].into_iter().flatten().any(|part| marked(&base64_of_any_kind(part)))
}

/// Undoes base64 as the most lenient reader would: either alphabet, with or without padding, with
/// blanks; nothing if it is something else.
fn base64_of_any_kind(text: &[u8]) -> Vec<u8> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &STANDARD_ALPHABET,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let digits = text.iter().filter(|b| !b.is_ascii_whitespace() && **b != b'=').map(|b| match b {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    });
    LENIENT.decode(digits.collect::<Vec<u8>>()).unwrap_or_default()
}

/// Returns the token in `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    Authorization::of(headers)?.bearer()
}

/// Tells whether the client has brought a token of ours, for whichever registry.
pub(crate) fn is_presented(headers: &HeaderMap) -> bool {
    bearer(headers).is_some_and(|token| token.starts_with(MARK))
}

/// Tells whether there is a token of ours in `Authorization`, in whatever place and spelling: such a
/// one must not be sent to a registry.
pub(crate) fn is_ours(headers: &HeaderMap) -> bool {
    headers.get_all(AUTHORIZATION).iter().any(|value| holds_token(value.as_bytes()))
}

/// Puts what the registry wants in the place of our token; a token for another registry is as none.
pub(crate) fn unwrap(headers: &mut HeaderMap, tag: &RegistryTag) {
    if !is_ours(headers) {
        return;
    }
    let inside = bearer(headers).and_then(|token| authorization(token, tag));
    headers.remove(AUTHORIZATION);
    if let Some(mut inside) = inside {
        inside.set_sensitive(true);
        headers.insert(AUTHORIZATION, inside);
    }
}

fn authorization(token: &str, RegistryTag(tag): &RegistryTag) -> Option<HeaderValue> {
    let mut parts = token.strip_prefix(MARK)?.splitn(3, '~');
    if parts.next()? != tag {
        return None;
    }
    let (kind, content) = (parts.next()?, parts.next()?);
    let text = match kind {
        "t" => format!("Bearer {content}"),
        "b" => format!("Basic {}", STANDARD.encode(URL_SAFE_NO_PAD.decode(content).ok()?)),
        _ => return None,
    };
    HeaderValue::from_str(&text).ok()
}

/// Returns the pair in `Authorization: Basic`, if that is there and holds no token of ours.
pub(crate) fn basic(headers: &HeaderMap) -> Option<&str> {
    let pair = Authorization::of(headers)?.basic_encoded()?;
    // Clients without credentials send an empty user with an empty password.
    (pair != "Og==" && !is_ours(headers)).then_some(pair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unwrapped(authorization: &str, site: &str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        unwrap(&mut headers, &RegistryTag::of(site));
        headers.get(AUTHORIZATION).map(|v| v.to_str().unwrap().to_owned())
    }

    #[test]
    fn what_goes_in_comes_out_at_one_registry_only() {
        let pair = STANDARD.encode("user:p~ss>?");
        for (passport, inside) in [
            (ScopedToken::Nobody, None),
            (ScopedToken::Token("eyJ.a~b-_.c="), Some("Bearer eyJ.a~b-_.c=".to_owned())),
            (ScopedToken::Basic(&pair), Some(format!("Basic {pair}"))),
        ] {
            let token = format!("Bearer {}", passport.issue(&RegistryTag::of("icr.io")));
            assert_eq!(unwrapped(&token, "icr.io"), inside);
            assert_eq!(unwrapped(&token, "quay.io"), None, "another registry's");
            assert_eq!(unwrapped(&token, ""), None);
        }
    }

    #[test]
    fn what_is_not_ours_stays() {
        for foreign in ["Bearer eyJ", "bearer e~J", "Basic dTpw", "Negotiate cs1", ""] {
            assert_eq!(unwrapped(foreign, "icr.io").as_deref(), Some(foreign));
        }
    }

    #[test]
    fn our_tokens_are_found_in_every_spelling() {
        let token = ScopedToken::Token("inner").issue(&RegistryTag::of("icr.io"));
        for scheme in ["Bearer ", "bearer ", "BEARER  ", "bEaReR\t"] {
            let value = format!("{scheme}{token}");
            assert_eq!(unwrapped(&value, "icr.io").as_deref(), Some("Bearer inner"), "{value}");
            assert_eq!(unwrapped(&value, "quay.io"), None, "{value}");
        }
        let as_password = format!("basic {}", STANDARD.encode(format!("user:{token}")));
        let nested = format!("Bearer {}", ScopedToken::Token(&token).issue(&RegistryTag::of("quay.io")));
        for hidden in [&token, &format!("Token {token}"), &format!("Bearer \"{token}\""), &as_password] {
            assert_eq!(unwrapped(hidden, "icr.io"), None, "{hidden}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, as_password.parse().unwrap());
        assert_eq!(basic(&headers), None);
        // What comes out of a token is looked at once more before it is sent.
        headers.insert(AUTHORIZATION, nested.parse().unwrap());
        unwrap(&mut headers, &RegistryTag::of("quay.io"));
        assert!(is_ours(&headers));
        assert_eq!(refresh(&format!(" {token}"), &RegistryTag::of("icr.io")), None);
    }

    #[test]
    fn refresh_tokens_stay_with_their_registry() {
        let ours = ScopedToken::Token("r~1").issue(&RegistryTag::of("icr.io"));
        assert_eq!(refresh(&ours, &RegistryTag::of("icr.io")), Some("r~1"));
        assert_eq!(refresh(&ours, &RegistryTag::of("quay.io")), None);
        assert_eq!(refresh("theirs", &RegistryTag::of("quay.io")), Some("theirs"));
        assert_eq!(refresh("cs1~", &RegistryTag::of("quay.io")), None);
    }

    #[test]
    fn nobody_sends_an_empty_pair() {
        let named = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
            basic(&headers).map(str::to_owned)
        };
        assert_eq!(named("basic dTpw").as_deref(), Some("dTpw"));
        assert_eq!((named("Basic Og=="), named("Bearer x")), (None, None));
    }

    proptest! {
        #[test]
        fn broken_ones_are_as_none(rest in "[ -~]{0,40}") {
            let value = format!("Bearer {MARK}{rest}");
            if let Some(inside) = unwrapped(&value, "icr.io") {
                prop_assert!(!inside.contains("cs1~") || rest.contains("cs1~"));
                prop_assert!(rest.starts_with(&RegistryTag::of("icr.io").0));
            }
        }
    }
}
