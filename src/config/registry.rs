//! Several registries in one server: `registries` in the configuration, a section each, and what
//! it comes to together with the settings at the top.
//!
//! ```yaml
//! registries:
//!   icr.io:                                 # by Host icr.io, and by path: SERVER/icr.io/…
//!     hosts: [icr.mirror.example]           # further Hosts
//!     credentials: {username: puller, password_file: /run/secrets/icr}
//!   registry.bluemix.net: {upstream: https://icr.io, store_prefix: icr.io}   # its old name
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::access::AccessConfig;
use super::gate::GateConfig;
use super::map;
use super::origin::{HttpOrigin, Scheme};
use super::server::{ServerConfig, optional_time_limit};
use crate::image::Repository;
use crate::registry::{AuthFiles, Credential, CredentialSource};
use crate::store::StorePath;

/// One of the `registries`. What is left out is as at the top of the configuration, unless it says
/// otherwise here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Where it is, `http(s)://host[:port]`. Default `https://NAME`.
    pub upstream: Option<HttpOrigin>,
    /// As at the top.
    pub upstream_tls_verify: Option<bool>,
    /// As at the top.
    pub upstream_keep_host: Option<bool>,
    /// As at the top.
    pub upstream_redirect_origins: Option<Vec<HttpOrigin>>,
    /// As at the top.
    #[serde(deserialize_with = "optional_time_limit")]
    pub upstream_timeout_seconds: Option<u64>,
    /// As at the top.
    #[serde(deserialize_with = "optional_time_limit")]
    pub access_timeout_seconds: Option<u64>,
    /// Further hosts (`host` for any port, or `host:port`) under which clients reach it; its name
    /// always counts. Default: none.
    pub hosts: Vec<String>,
    /// How clients that come by host call it. Default: the headers.
    pub public_url: Option<HttpOrigin>,
    /// What stands before its repositories in the store's keys; two names of one registry may have
    /// the same. Default: its name.
    #[serde(deserialize_with = "optional_store_path")]
    pub store_prefix: Option<StorePath>,
    /// The server's own credentials there, for pulls of clients that have none. Default: none.
    pub credentials: Option<CredentialConfig>,
    /// What uploads of signatures must fulfil. Default: the `gate` at the top, as a whole.
    pub gate: Option<GateConfig>,
    /// Who may read and write its signatures below `/lookaside/`. Default: the `access` at the top, as a whole.
    pub access: Option<AccessConfig>,
}

/// The server's own credentials at a registry: a user with a password in a file, or the file that
/// `podman login` writes.
///
/// They serve pulls of clients that send none, and nothing else: whoever may reach the server may
/// then pull, and read signatures of, whatever they may pull.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CredentialConfig {
    /// The user.
    pub username: Option<String>,
    /// The file that holds the password; white space at its end does not count.
    pub password_file: Option<PathBuf>,
    /// An `auth.json`, read anew every minute; the registry's name, or `NAME/namespace`, is the key.
    pub auth_file: Option<PathBuf>,
}

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialConfigError {
    /// Neither, or both.
    #[error("credentials must have either `username` with `password_file`, or `auth_file`")]
    Form,
    /// The file cannot be read.
    #[error("cannot read the password file {}: {error}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is empty.
    #[error("the password file {} is empty", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

impl CredentialConfig {
    /// Tells whether exactly one way to find credentials is given.
    fn is_complete(&self) -> bool {
        matches!(
            (&self.username, &self.password_file, &self.auth_file),
            (Some(_), Some(_), None) | (None, None, Some(_))
        )
    }

    /// Reads the password, or names the file that is searched for each registry.
    ///
    /// # Errors
    /// [`CredentialConfigError`], never with a secret in it.
    pub fn source(&self) -> Result<CredentialSource, CredentialConfigError> {
        match (&self.username, &self.password_file, &self.auth_file) {
            (Some(username), Some(path), None) => {
                let text = zeroize::Zeroizing::new(
                    std::fs::read_to_string(path)
                        .map_err(|error| CredentialConfigError::Read { path: path.clone(), error })?,
                );
                match text.trim_end() {
                    "" => Err(CredentialConfigError::Empty { path: path.clone() }),
                    password => Ok(CredentialSource::Fixed(Credential::new(username, password))),
                }
            }
            (None, None, Some(path)) => Ok(CredentialSource::Files(AuthFiles::only(path))),
            _ => Err(CredentialConfigError::Form),
        }
    }
}

/// Registries that cannot stand beside each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistriesError {
    /// One host, two registries.
    #[error("the host {host} is claimed by both registries {one} and {other}")]
    Host {
        /// The host.
        host: String,
        /// Who has it.
        one: String,
        /// Who wants it too.
        other: String,
    },
    /// A name that is no `host[:port]`.
    #[error("the registry {registry} has the host {host:?}, which is no host[:port]")]
    NoHost {
        /// The registry.
        registry: String,
        /// What is no host.
        host: String,
    },
    /// One part of the store, two sets of rules.
    #[error(
        "the registries {one} and {other} share the store prefix {prefix:?}, so they must have the same `access` and `gate`"
    )]
    Prefix {
        /// One of them.
        one: String,
        /// The other.
        other: String,
        /// What they share.
        prefix: String,
    },
    /// The credentials have the wrong form.
    #[error("the registry {registry}: {reason}")]
    Credentials {
        /// The registry.
        registry: String,
        /// What is wrong.
        reason: String,
    },
}

/// One registry as the server stands before it.
#[derive(Clone, Debug)]
pub struct SiteConfig {
    /// The registry's name, in lower case; empty for the one that the top of the configuration
    /// describes.
    pub name: String,
    /// The hosts by which it is found, its name first, in lower case.
    pub hosts: Vec<String>,
    /// The whole configuration as it is for this registry; without `registries`.
    pub settings: ServerConfig,
}

impl SiteConfig {
    /// Returns what errors and logs call it.
    pub fn shown(&self) -> &str {
        if self.name.is_empty() { "(default)" } else { &self.name }
    }

    /// Tells whether the rules of both can go for what is stored: one prefix, one set of rules.
    fn agrees_with(&self, other: &Self) -> bool {
        let (one, other) = (&self.settings, &other.settings);
        one.store_prefix != other.store_prefix
            || (one.gate.rules() == other.gate.rules() && one.access.rules() == other.access.rules())
    }

    /// Tells whether clients reach it as `SERVER/name/…`; a port has no place in a path.
    pub fn has_path(&self) -> bool {
        !self.name.is_empty() && !self.name.contains([':', '['])
    }
}

impl ServerConfig {
    /// Returns every registry: the default one first, which may have no upstream and then is a part
    /// of the store only, then the named ones.
    pub fn sites(&self) -> Vec<SiteConfig> {
        let mut top = self.clone();
        let registries = std::mem::take(&mut top.registries);
        let default = SiteConfig { name: String::new(), hosts: Vec::new(), settings: top.clone() };
        let named = registries.into_iter().map(|(name, registry)| registry.site(name, top.clone()));
        std::iter::once(default).chain(named).collect()
    }

    /// Checks that the registries can stand beside each other.
    ///
    /// # Errors
    /// [`RegistriesError`].
    pub fn check_registries(&self) -> Result<(), RegistriesError> {
        let mut claimed: BTreeMap<String, String> = BTreeMap::new();
        let sites = self.sites();
        for (at, site) in sites.iter().enumerate() {
            let mut before = sites.iter().take(at);
            if let Some(one) = before.find(|one| !one.agrees_with(site)) {
                return Err(RegistriesError::Prefix {
                    one: one.shown().to_owned(),
                    other: site.shown().to_owned(),
                    prefix: site.settings.store_prefix.to_string(),
                });
            }
        }
        for site in sites {
            if site.settings.credentials.as_ref().is_some_and(|credentials| !credentials.is_complete()) {
                return Err(RegistriesError::Credentials {
                    registry: site.shown().to_owned(),
                    reason: CredentialConfigError::Form.to_string(),
                });
            }
            for host in &site.hosts {
                if HttpOrigin::from_parts(Scheme::Https, host).is_err() {
                    return Err(RegistriesError::NoHost { registry: site.name, host: host.clone() });
                }
                if let Some(one) = claimed.insert(host.clone(), site.name.clone()) {
                    return Err(RegistriesError::Host { host: host.clone(), one, other: site.name });
                }
            }
        }
        Ok(())
    }
}

impl RegistryConfig {
    fn site(self, name: String, top: ServerConfig) -> SiteConfig {
        let own = if name == "docker.io" { "registry-1.docker.io" } else { &name };
        let upstream = self.upstream.or_else(|| HttpOrigin::from_parts(Scheme::Https, own).ok());
        let store_prefix = self.store_prefix.or_else(|| own_prefix(&name)).unwrap_or_default();
        let mut hosts = vec![name.clone()];
        for host in self.hosts {
            let host = host.to_ascii_lowercase();
            if host != name {
                hosts.push(host);
            }
        }
        let settings = ServerConfig {
            upstream,
            store_prefix,
            upstream_tls_verify: self.upstream_tls_verify.unwrap_or(top.upstream_tls_verify),
            upstream_keep_host: self.upstream_keep_host.unwrap_or(top.upstream_keep_host),
            upstream_redirect_origins: self
                .upstream_redirect_origins
                .unwrap_or_else(|| top.upstream_redirect_origins.clone()),
            upstream_timeout_seconds: self.upstream_timeout_seconds.unwrap_or(top.upstream_timeout_seconds),
            access_timeout_seconds: self.access_timeout_seconds.unwrap_or(top.access_timeout_seconds),
            // The default registry's own, by which this one's clients would find that one.
            public_url: self.public_url,
            // What is meant for one registry must not be sent to another.
            credentials: self.credentials,
            gate: self.gate.unwrap_or_else(|| top.gate.clone()),
            access: self.access.unwrap_or_else(|| top.access.clone()),
            ..top
        };
        SiteConfig { name, hosts, settings }
    }
}

/// Returns a registry's name as a part of the store's keys, which have no brackets.
fn own_prefix(name: &str) -> Option<StorePath> {
    StorePath::parse(&name.replace(['[', ']'], "")).ok()
}

/// Reads the map of registries.
pub(super) fn registries<'de, D>(deserializer: D) -> Result<BTreeMap<String, RegistryConfig>, D::Error>
where
    D: serde::Deserializer<'de>,
{
    map::read(deserializer, "a map from the names of registries to their settings", |name| {
        let name = name.to_ascii_lowercase();
        let probe = Repository::parse(&format!("{name}/x"));
        // Docker Hub's short names are another's name and no registry's.
        if probe.is_ok_and(|probe| probe.domain() == name) && own_prefix(&name).is_some() {
            Ok(name)
        } else {
            Err(format!("{name:?} is no registry's name; expected host[:port] such as icr.io or localhost:5000"))
        }
    })
}

fn optional_store_path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<StorePath>, D::Error> {
    super::server::store_path(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sites(yaml: &str) -> Vec<SiteConfig> {
        ServerConfig::parse(yaml).unwrap_or_else(|e| panic!("{e}")).sites()
    }

    #[test]
    fn a_registry_has_defaults_of_its_own_and_of_the_top() {
        let sites = sites(
            "upstream: https://r.example\nstore_prefix: r\npublic_url: https://sig.example\naccess_timeout_seconds: 7\n\
             credentials: {username: u, password_file: /p}\ngate: {mode: off}\n\
             registries:\n  ICR.io:\n  docker.io: {gate: {mode: claim}, store_prefix: /hub/, access_timeout_seconds: 3}\n  \
             localhost:5000: {upstream: http://127.0.0.1:5000, hosts: [Reg.example, 'localhost:5000']}\n",
        );
        let told: Vec<String> = sites
            .iter()
            .map(|site| {
                let s = &site.settings;
                format!(
                    "{} {:?} {} {} public={} own={} {:?} {} path={}",
                    site.shown(),
                    site.hosts,
                    s.upstream.as_ref().unwrap(),
                    s.store_prefix,
                    s.public_url.is_some(),
                    s.credentials.is_some(),
                    s.gate.mode,
                    s.access_timeout_seconds,
                    site.has_path(),
                )
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        (default) [] https://r.example r public=true own=true Some(Off) 7 path=false
        docker.io ["docker.io"] https://registry-1.docker.io hub public=false own=false Some(Claim) 3 path=true
        icr.io ["icr.io"] https://icr.io icr.io public=false own=false Some(Off) 7 path=true
        localhost:5000 ["localhost:5000", "reg.example"] http://127.0.0.1:5000 localhost:5000 public=false own=false Some(Off) 7 path=false
        "#);
    }

    #[test]
    fn a_server_without_registries_is_what_it_was() {
        for (yaml, upstream) in [("", false), ("upstream: https://r.example\nregistries:\n", true)] {
            let one = sites(yaml);
            assert_eq!((one.len(), one[0].name.as_str(), one[0].settings.upstream.is_some()), (1, "", upstream));
        }
    }

    #[test]
    fn two_names_may_share_one_prefix() {
        let all = sites(
            "access: {read: []}\ngate: {mode: off}\nregistries: {icr.io: , registry.bluemix.net: {upstream: https://icr.io, \
             store_prefix: icr.io, access: {read: [], namespaces: {}}, gate: {mode: off}}}",
        );
        assert_eq!(all[1].settings.store_prefix, all[2].settings.store_prefix);
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, said) in [
            (
                "registries: {a.io: {hosts: [m.io]}, b.io: {hosts: [M.io]}}",
                "m.io is claimed by both registries a.io and b.io",
            ),
            ("registries: {a.io: {hosts: [b.io]}, b.io: }", "b.io is claimed by both registries a.io and b.io"),
            ("registries: {a.io: , A.io: }", "A.io is there twice"),
            ("registries: {birds: }", "\"birds\" is no registry's name"),
            ("registries: {a.io/x: }", "\"a.io/x\" is no registry's name"),
            ("registries: {'': }", "\"\" is no registry's name"),
            ("registries: {a.io: {hosts: ['a/b']}}", "the registry a.io has the host \"a/b\", which is no host[:port]"),
            ("registries: {a.io: {upstrem: x}}", "unknown field `upstrem`"),
            ("registries: {a.io: {upstream_timeout_seconds: 0}}", "it must be 1 or more"),
            ("registries: {a.io: {store_prefix: ../x}}", "../x"),
            ("registries: {a.io: {credentials: {username: u}}}", "the registry a.io: credentials must have either"),
            (
                "registries: {a.io: , b.io: {store_prefix: a.io, gate: {mode: off}}}",
                "the registries a.io and b.io share the store prefix \"a.io\", so they must have the same",
            ),
            (
                "store_prefix: a.io\nregistries: {a.io: {access: {read: []}}}",
                "the registries (default) and a.io share the store prefix \"a.io\"",
            ),
            ("registries: [a.io]", "a map from the names of registries"),
            ("trusted_proxies: [10.0.0.1/8]", "did you mean 10.0.0.0/8?"),
        ] {
            let error = ServerConfig::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn passwords_come_from_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let config = CredentialConfig {
            username: Some("u".to_owned()),
            password_file: Some(path.clone()),
            ..CredentialConfig::default()
        };
        assert!(matches!(config.source(), Err(CredentialConfigError::Read { .. })));
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(config.source(), Err(CredentialConfigError::Empty { .. })));
        std::fs::write(&path, "pass word\n").unwrap();
        let Ok(CredentialSource::Fixed(credential)) = config.source() else { panic!() };
        assert_eq!(credential, Credential::new("u", "pass word"));
    }
}
