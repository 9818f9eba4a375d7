//! Names of HTTP header fields as they are written in configurations: `X-Remote-User`, or
//! `X-Remote-*` for all that begin so.

use std::str::FromStr;

use serde::Deserialize;

/// One name, or the beginning of names.
///
/// Names compare without case and with `_` as `-`, because gateways that make environment variables
/// of them (CGI, WSGI, PHP) cannot tell these apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPattern {
    /// Lower case, with `-` for `_`, without the `*`.
    text: String,
    prefix: bool,
}

/// Why a text names no header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no name of an HTTP header; expected a name such as X-Remote-User, or X-Remote-* for all that begin so"
)]
pub struct HeaderPatternError(String);

/// Returns a header's name as it is compared.
fn normalized(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

impl HeaderPattern {
    /// Tells whether `name`, in lower case, is meant.
    pub fn matches(&self, name: &str) -> bool {
        if name.contains('_') { self.matches_normalized(&normalized(name)) } else { self.matches_normalized(name) }
    }

    fn matches_normalized(&self, name: &str) -> bool {
        if self.prefix { name.starts_with(&self.text) } else { name == self.text }
    }
}

impl FromStr for HeaderPattern {
    type Err = HeaderPatternError;

    fn from_str(text: &str) -> Result<Self, HeaderPatternError> {
        let (name, prefix) = text.strip_suffix('*').map_or((text, false), |name| (name, true));
        // A pattern of everything would leave no request whole.
        let is_name = http::HeaderName::from_bytes(name.as_bytes()).is_ok() && !name.contains('*');
        if is_name { Ok(Self { text: normalized(name), prefix }) } else { Err(HeaderPatternError(text.to_owned())) }
    }
}

impl<'de> Deserialize<'de> for HeaderPattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_without_case_and_with_underscores() {
        for (pattern, name, matches) in [
            ("X-Remote-User", "x-remote-user", true),
            ("X-Remote-User", "x_remote_user", true),
            ("x_remote_user", "x-remote-user", true),
            ("X-Remote-User", "x-remote-users", false),
            ("X-Remote-*", "x-remote-users", true),
            ("X-Remote-*", "x_remote-", true),
            ("X-Remote-*", "x-remote", false),
        ] {
            assert_eq!(pattern.parse::<HeaderPattern>().unwrap().matches(name), matches, "{pattern} {name}");
        }
    }

    #[test]
    fn refuses_what_names_no_header() {
        for text in ["", "*", "a b", "X-*-User", "X-User:", "é"] {
            assert!(text.parse::<HeaderPattern>().is_err(), "{text}");
        }
    }
}
