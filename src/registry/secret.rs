//! Secrets: never printed, wiped from memory when dropped.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A password or token. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// Hands the secret out; keep it out of errors and logs.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Tells whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Who we are to a registry.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Credential {
    /// The user; may be empty beside an identity token.
    pub username: String,
    /// The password; may be empty beside an identity token.
    pub password: Secret,
    /// An OAuth2 refresh token, from `identitytoken` or a helper's `<token>` user.
    pub identity_token: Option<Secret>,
}

impl Credential {
    /// A user and a password.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: Secret::new(password), identity_token: None }
    }

    /// Tells whether there is something here that must not go over a plain connection.
    pub(super) fn is_secret(&self) -> bool {
        !self.password.is_empty() || self.identity_token.as_ref().is_some_and(|token| !token.is_empty())
    }
}

/// `Authorization: Basic …`.
pub(super) fn basic(username: &[u8], password: &[u8]) -> HeaderValue {
    let pair = Zeroizing::new([username, b":", password].concat());
    let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair)));
    sensitive(&text).unwrap_or(HeaderValue::from_static("Basic Og=="))
}

/// A header value that is not shown by `Debug`; `None` when the text is no header value.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown() {
        let credential = Credential {
            identity_token: Some(Secret::new("very-secret-token")),
            ..Credential::new("user", "very-secret-word")
        };
        let shown = format!("{credential:?} {:?}", basic(b"user", b"very-secret-word"));
        assert!(shown.contains("user") && !shown.contains("very-secret") && !shown.contains("Basic"), "{shown}");
        assert_eq!(basic(b"", b""), "Basic Og==");
    }
}
