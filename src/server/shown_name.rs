//! Names of callers that are fit for logs. There is no other way for a name into a record.
//!
//! What a client gives as the user's name may be a secret: some registries take a token there, with
//! nothing, itself or a fixed word as the password, and people mix the fields up. So a name that
//! somebody gave is shown only if it looks like one, and otherwise stands as a label by which lines
//! can still be matched.

use std::sync::OnceLock;

use crate::server::salted_hash::SaltedHasher;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// Names of people and robots are shorter.
const LONGEST: usize = 64;
/// A text of random characters that is so long cannot be guessed from its hash.
const UNGUESSABLE: usize = 32;
/// A word without meaning that is so long is more likely a token than a name.
const WORD: usize = 16;
/// What stands beside a token that is given as the name.
const FIXED_PASSWORDS: [&str; 9] =
    ["x-oauth-basic", "x-token", "x-token-auth", "x-access-token", "oauth2", "token", "unused", "api_token", "nopass"];
/// Names that stand beside a token that is given as the password; whatever is beside them, they are
/// no secrets.
const FIXED_NAMES: [&str; 16] = [
    "x-oauth-basic",
    "x-access-token",
    "x-token-auth",
    "oauth2accesstoken",
    "oauth2",
    "_json_key",
    "_json_key_base64",
    "_dcgcloud_token",
    "_token",
    "<token>",
    "$oauthtoken",
    "iamapikey",
    "gitlab-ci-token",
    "AWS",
    "00000000-0000-0000-0000-000000000000",
    "token",
];
/// What tokens of services in use begin with.
const TOKEN_PREFIXES: [&str; 34] = [
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "gldt-",
    "glcbt-",
    "glrt-",
    "gloas-",
    "glptt-",
    "eyj",
    "dckr_pat_",
    "dckr_oat_",
    "dop_v1_",
    "doo_v1_",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "akia",
    "asia",
    "sha256~",
    "npm_",
    "pypi-",
    "sk-",
    "sk_live_",
    "hvs.",
    "hvb.",
    "cf_",
    "aiza",
    "ya29.",
    "atlasv1.",
    "shpat_",
];

/// A name that may stand in a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct ShownName(String);

impl ShownName {
    /// The name stands in a file of the operator, or in a certificate that was verified.
    pub(super) fn configured(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Nobody in particular.
    pub(super) fn anonymous() -> Self {
        Self("anonymous".to_owned())
    }

    /// Somebody who has shown a token of whatever kind.
    pub(super) fn bearer() -> Self {
        Self("bearer".to_owned())
    }

    /// Somebody who has shown something that nobody here can read.
    pub(super) fn unknown() -> Self {
        Self("unknown".to_owned())
    }

    /// What a client gave as the user's name beside this password.
    pub(super) fn given(name: &[u8], password: &[u8]) -> Self {
        let text = std::str::from_utf8(name).unwrap_or_default();
        if FIXED_NAMES.contains(&text) && name != password && !password.is_empty() {
            return Self(text.to_owned());
        }
        if is_name(text) && !stands_for_a_token(name, password) {
            return Self(text.to_owned());
        }
        Self::label(name)
    }

    /// A name that somebody gave, hidden: by its hash if that tells nothing, else by one that nobody
    /// else can compute and that changes with each start.
    fn label(name: &[u8]) -> Self {
        if name.is_empty() {
            return Self("(empty)".to_owned());
        }
        let hash: [u8; 32] = if name.len() >= UNGUESSABLE && variety(name) >= UNGUESSABLE / 2 {
            Sha256::digest(name).into()
        } else {
            static HASHER: OnceLock<SaltedHasher> = OnceLock::new();
            let shown = hex::encode(HASHER.get_or_init(SaltedHasher::default).hash(&[name]).as_bytes());
            return Self(format!("hidden:{}", shown.get(..12).unwrap_or_default()));
        };
        let shown = hex::encode(hash);
        Self(format!("token:sha256:{}", shown.get(..12).unwrap_or_default()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Tells whether the password is one that stands beside a token.
fn stands_for_a_token(name: &[u8], password: &[u8]) -> bool {
    password.is_empty()
        || password.eq_ignore_ascii_case(name)
        || FIXED_PASSWORDS.iter().any(|fixed| password.eq_ignore_ascii_case(fixed.as_bytes()))
        // Both in one field, whatever is in the other.
        || (password.len() >= 4 && name.windows(password.len()).any(|part| part == password))
}

/// Tells whether a text looks like the name of a person or a robot: `bob`, `robot$birds+ci`,
/// `ci@birds.example`, `BIRDS\bob`.
fn is_name(text: &str) -> bool {
    let shape = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '$' | '@' | '/' | '\\' | ' ');
    let lower = text.to_ascii_lowercase();
    !text.is_empty()
        && text.len() <= LONGEST
        && text.chars().all(shape)
        && !TOKEN_PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
        && !text.split(|c: char| !c.is_alphanumeric()).any(is_random)
        && !is_random(&text.replace(|c: char| !c.is_ascii_alphanumeric(), ""))
}

/// Tells whether a word is no word: as long as a token, and of digits among letters.
fn is_random(word: &str) -> bool {
    if word.len() < WORD {
        return false;
    }
    let digits = word.bytes().filter(u8::is_ascii_digit).count();
    let is_hex = word.bytes().all(|b| b.is_ascii_hexdigit());
    let (upper, lower) = (word.bytes().any(|b| b.is_ascii_uppercase()), word.bytes().any(|b| b.is_ascii_lowercase()));
    // Cases change often only where nobody has written them.
    let turns = word.as_bytes().windows(2).filter(|pair| matches!(pair, [a, b] if kind(*a) != kind(*b))).count();
    is_hex
        || digits == word.len()
        || (digits * 8 >= word.len() && turns * 4 >= word.len())
        || (upper && lower && turns * 3 >= word.len())
}

fn kind(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => 0,
        b'A'..=b'Z' => 1,
        _ => 2,
    }
}

/// Counts different bytes.
fn variety(bytes: &[u8]) -> usize {
    let mut seen = [false; 256];
    for byte in bytes {
        if let Some(seen) = seen.get_mut(usize::from(*byte)) {
            *seen = true;
        }
    }
    seen.iter().filter(|seen| **seen).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_shown() {
        for name in [
            "bob",
            "Bob Smith",
            "bj\u{f8}rn",
            "robot$birds+ci",
            "robot$library+jenkins-2024",
            "org+robot_account",
            "ci@birds.example",
            "BIRDS\\bob",
            "deploy-key-production-eu-west-1",
            "kubernetes-image-puller",
            "user1234567",
            "svc-registry-mirror-internal-readonly",
            "continuousintegrationsystem",
            "JenkinsContinuousIntegration",
        ] {
            assert_eq!(ShownName::given(name.as_bytes(), b"correct horse").as_str(), name);
        }
        for fixed in FIXED_NAMES {
            assert_eq!(ShownName::given(fixed.as_bytes(), b"ya29.token").as_str(), fixed);
        }
    }

    #[test]
    fn tokens_are_not() {
        let long = "s".repeat(65);
        for (name, password) in [
            ("dop_v1_secret", "dop_v1_secret"),
            ("ghp_0123456789SECRETSECRET", ""),
            ("ghp_0123456789SECRETSECRET", "something"),
            ("GHP_secret", "something"),
            ("secret", "x-oauth-basic"),
            ("secret", "X-OAuth-Basic"),
            ("secret", "x-token"),
            ("secret", ""),
            ("hunter2", "hunter2"),
            ("oauth2accesstoken", "oauth2accesstoken"),
            ("token", ""),
            ("bob=hunter2pw", "hunter2pw"),
            ("bobhunter2pw", "hunter2pw"),
            ("name%3Apassword", "x y"),
            ("b\nob", "something"),
            ("token=secret", "something"),
            (&long, "something"),
            ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJib2IifQ.c2ln", "something"),
            ("glpat-abcDEF", "something"),
            ("dckr_pat_x", "something"),
            ("AKIAIOSFODNN7EXAMPLE", "something"),
            ("sha256~abc", "something"),
            ("da39a3ee5e6b4b0d3255bfef95601890afd80709", "something"),
            ("0b7c2f1e-93c4-4f7e-9d2a-5f0e8c1b2a3d", "something"),
            ("u8Jk2LmQ9zXw4RtY7vBn", "something"),
            ("QWxhZGRpbjpvcGVuIHNlc2FtZQ", "something"),
            ("4111111111111111111111", "something"),
        ] {
            let shown = ShownName::given(name.as_bytes(), password.as_bytes());
            assert!(shown.as_str().starts_with("hidden:") || shown.as_str().starts_with("token:"), "{name}: {shown:?}");
            assert!(!shown.as_str().contains(name) && !shown.as_str().contains("hunter2"), "{shown:?}");
            assert_eq!(shown, ShownName::given(name.as_bytes(), password.as_bytes()), "lines can be matched");
        }
        assert_eq!(ShownName::given(b"", b"x y").as_str(), "(empty)");
        assert!(ShownName::given(b"\xff\xfe", b"x y").as_str().starts_with("hidden:"));
        // Of what cannot be guessed the hash is the same everywhere: `printf %s TOKEN | sha256sum`.
        let token = "ghp_0123456789abcdefGHIJKLMNOPQRSTUVWXYZ";
        assert_eq!(ShownName::given(token.as_bytes(), b"").as_str(), "token:sha256:0ce2e15f050a");
    }

    proptest! {
        #[test]
        fn random_tokens_are_never_shown(token in "[A-Za-z0-9]{36}", password in "[a-z]{0,8}") {
            let shown = ShownName::given(token.as_bytes(), password.as_bytes());
            prop_assert!(!shown.as_str().contains(&token), "{:?}", shown);
        }

        #[test]
        fn a_password_is_never_in_the_name(name in "[ -~]{0,20}", password in "[ -~]{4,20}", both in "[ -~]{0,9}") {
            let mixed = format!("{name}{password}{both}");
            let shown = ShownName::given(mixed.as_bytes(), password.as_bytes());
            prop_assert!(!shown.as_str().contains(&password) || "token:sha256:hidden:(empty)".contains(&password));
        }
    }
}
