//! Who may read and write below `/lookaside/`: `access` in the server's configuration, with rules
//! of their own for parts of the registry.
//!
//! ```yaml
//! access:
//!   read: [anonymous]                          # the default
//!   write: [{htpasswd: /etc/countersign/htpasswd}, {token: /etc/countersign/tokens}]
//!   namespaces:
//!     secret/: {read: [upstream, {htpasswd: /etc/countersign/htpasswd}]}
//!     ci/: {write: [{certificate: [ci.example, "sha256:…"]}]}
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

use super::namespaces::{self, Namespaces};
use crate::store::StorePath;

/// One way to be let in; of a list, any one is enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Anybody.
    Anonymous,
    /// A user and password of this file, as `htpasswd -B` writes it; given as HTTP Basic.
    Htpasswd(PathBuf),
    /// A token of this file, one `name:token` or `name:sha256hex` a line; given as `?token=` or as
    /// HTTP Bearer.
    Token(PathBuf),
    /// A client certificate that the listener has verified, with one of these names; with none
    /// given, any.
    Certificate(Vec<CertificateName>),
    /// The caller's own credentials, tried at the registry behind this server: who may pull the
    /// image reads its signatures, who may push to the repository writes them.
    Upstream,
}

/// How a client certificate is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// `sha256:HEX`: the SHA-256 of the whole certificate, in lower case.
    Fingerprint(String),
    /// One of its alternative names, or its whole subject.
    Name(String),
}

/// An access rule that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// Writes leave a name in the audit log, and `anonymous` has none.
    #[error(
        "`anonymous` stands in `write`, but whoever writes needs a name: use htpasswd, token, certificate or upstream"
    )]
    AnonymousWrite,
}

/// The `access` section. Every field may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Who may read. Default `[anonymous]`; an empty list is nobody.
    pub read: Option<Vec<Way>>,
    /// Who may write and remove. Default: nobody.
    #[serde(deserialize_with = "writers")]
    pub write: Option<Vec<Way>>,
    /// Other rules for repositories by the start of their path, at a slash; the longest wins, and
    /// what it leaves out is as above.
    #[serde(deserialize_with = "namespaces::deserialize")]
    pub namespaces: BTreeMap<StorePath, AccessRuleConfig>,
}

/// One of the `namespaces`. Every field may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessRuleConfig {
    /// As [`AccessConfig::read`].
    pub read: Option<Vec<Way>>,
    /// As [`AccessConfig::write`].
    #[serde(deserialize_with = "writers")]
    pub write: Option<Vec<Way>>,
}

/// What goes for a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessRule {
    /// Ways to read.
    pub read: Vec<Way>,
    /// Ways to write and remove; never [`Way::Anonymous`].
    pub write: Vec<Way>,
}

impl AccessConfig {
    /// Completes the rules.
    ///
    /// # Errors
    /// [`AccessError`], which a configuration that was read from text never has.
    pub fn rules(&self) -> Result<Namespaces<AccessRule>, AccessError> {
        let read = self.read.clone().unwrap_or_else(|| vec![Way::Anonymous]);
        let default = AccessRule { read, write: self.write.clone().unwrap_or_default() };
        let rules: Vec<_> = self
            .namespaces
            .iter()
            .map(|(path, own)| {
                let read = own.read.clone().unwrap_or_else(|| default.read.clone());
                let write = own.write.clone().unwrap_or_else(|| default.write.clone());
                (path.clone(), AccessRule { read, write })
            })
            .collect();
        let rules = Namespaces::new(default, rules);
        if rules.iter().any(|rule| rule.write.contains(&Way::Anonymous)) {
            return Err(AccessError::AnonymousWrite);
        }
        Ok(rules)
    }
}

fn writers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Way>>, D::Error> {
    let ways = Option::<Vec<Way>>::deserialize(deserializer)?;
    if ways.iter().flatten().any(|way| *way == Way::Anonymous) {
        return Err(D::Error::custom(AccessError::AnonymousWrite));
    }
    Ok(ways)
}

/// The ways that say something.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
struct Said {
    htpasswd: Option<PathBuf>,
    token: Option<PathBuf>,
    certificate: Option<Vec<CertificateName>>,
}

impl<'de> Deserialize<'de> for Way {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ways;

        impl<'de> Visitor<'de> for Ways {
            type Value = Way;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "anonymous, upstream, certificate, {htpasswd: FILE}, {token: FILE} or {certificate: [NAME]}",
                )
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Way, E> {
                match text {
                    "anonymous" => Ok(Way::Anonymous),
                    "upstream" => Ok(Way::Upstream),
                    "certificate" => Ok(Way::Certificate(Vec::new())),
                    "htpasswd" | "token" => Err(E::custom(format!("{text} needs a file: {{{text}: FILE}}"))),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Way, M::Error> {
                match Said::deserialize(MapAccessDeserializer::new(map))? {
                    Said { htpasswd: Some(file), token: None, certificate: None } => Ok(Way::Htpasswd(file)),
                    Said { htpasswd: None, token: Some(file), certificate: None } => Ok(Way::Token(file)),
                    Said { htpasswd: None, token: None, certificate: Some(names) } if names.is_empty() => {
                        Err(M::Error::custom("a certificate of no name; write `certificate` alone to take any"))
                    }
                    Said { htpasswd: None, token: None, certificate: Some(names) } => Ok(Way::Certificate(names)),
                    _ => Err(M::Error::custom("one way an entry: htpasswd, token or certificate")),
                }
            }
        }
        deserializer.deserialize_any(Ways)
    }
}

impl<'de> Deserialize<'de> for CertificateName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let Some(hex) = text.strip_prefix("sha256:") else {
            return if text.is_empty() {
                Err(D::Error::custom("a certificate has no empty name"))
            } else {
                Ok(Self::Name(text))
            };
        };
        let hex = hex.replace(':', "").to_ascii_lowercase();
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(D::Error::custom(format!("{text:?} is no fingerprint: sha256: wants 64 hex digits")));
        }
        Ok(Self::Fingerprint(hex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerConfig;

    fn rules(yaml: &str) -> Namespaces<AccessRule> {
        ServerConfig::parse(yaml).unwrap().access.rules().unwrap()
    }

    #[test]
    fn anybody_reads_and_nobody_writes() {
        for yaml in ["", "access: {}", "access: {namespaces: }"] {
            assert_eq!(rules(yaml).of("x"), &AccessRule { read: vec![Way::Anonymous], write: vec![] }, "{yaml}");
        }
    }

    #[test]
    fn what_a_namespace_leaves_out_is_as_above() {
        let hex = "AB".repeat(32);
        let rules = rules(&format!(
            "access:\n  read: [{{htpasswd: /u}}]\n  write: [upstream, {{token: /t}}]\n  namespaces:\n    \
             open/: {{read: [anonymous]}}\n    open/ci/: {{write: [{{certificate: [ci.example, 'sha256:{hex}']}}]}}\n    \
             shut: {{read: [], write: []}}\n    any: {{read: [certificate]}}\n"
        ));
        let (users, tokens) = (vec![Way::Htpasswd("/u".into())], vec![Way::Upstream, Way::Token("/t".into())]);
        assert_eq!(rules.of("x"), &AccessRule { read: users.clone(), write: tokens.clone() });
        assert_eq!(rules.of("open/x"), &AccessRule { read: vec![Way::Anonymous], write: tokens.clone() });
        let names = vec![CertificateName::Name("ci.example".to_owned()), CertificateName::Fingerprint("ab".repeat(32))];
        assert_eq!(rules.of("open/ci"), &AccessRule { read: users, write: vec![Way::Certificate(names)] });
        assert_eq!(rules.of("shut/x"), &AccessRule { read: vec![], write: vec![] });
        assert_eq!(rules.of("any").read, [Way::Certificate(vec![])]);
    }

    #[test]
    fn says_what_is_wrong() {
        for (yaml, said) in [
            ("access: {write: [anonymous]}", "whoever writes needs a name"),
            ("access: {namespaces: {x: {write: [anonymous]}}}", "whoever writes needs a name"),
            ("access: {read: [everybody]}", "expected anonymous, upstream"),
            ("access: {read: [htpasswd]}", "htpasswd needs a file"),
            ("access: {read: [{password: x}]}", "unknown field `password`"),
            ("access: {read: [{htpasswd: x, token: y}]}", "one way an entry"),
            ("access: {read: [{}]}", "one way an entry"),
            ("access: {read: [{certificate: []}]}", "a certificate of no name"),
            ("access: {read: [{certificate: ['sha256:ab']}]}", "64 hex digits"),
            ("access: {read: anonymous}", "expected a sequence"),
            ("access: {reed: []}", "unknown field `reed`"),
            ("access: {namespaces: {x/: {}, x: {}}}", "there twice"),
        ] {
            let error = ServerConfig::parse(yaml).unwrap_err().to_string();
            assert!(error.contains(said), "{yaml}: {error}");
        }
        let by_hand = AccessConfig { write: Some(vec![Way::Anonymous]), ..AccessConfig::default() };
        assert_eq!(by_hand.rules(), Err(AccessError::AnonymousWrite));
    }
}
