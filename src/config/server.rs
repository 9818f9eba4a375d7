//! What `serve` reads from its `--config` file; flags of the command line are laid over it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::access::{AccessConfig, AccessError, Way};
use super::admin::AdminConfig;
use super::gate::GateConfig;
use super::header_name::HeaderPattern;
use super::limits::LimitConfig;
use super::listen::ListenAddresses;
use super::network::Network;
use super::origin::HttpOrigin;
use super::registry::{CredentialConfig, RegistriesError, RegistryConfig, registries};
use super::tls::TlsConfig;
use super::umask::FileMask;
use crate::host::{NESTING_LIMIT, too_deep};
use crate::store::StorePath;

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {error}")]
    Read {
        /// Which file.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is no YAML of the right shape; line and column are in the text.
    #[error("the configuration {path} is not usable: {error}")]
    Parse {
        /// Which file, or `-` for text given directly.
        path: String,
        /// What the parser said.
        error: serde_yaml::Error,
    },
    /// Brackets lie in brackets, deeper than in any configuration.
    #[error(
        "the configuration {path} is not usable: line {line}: brackets lie deeper in each other than the {NESTING_LIMIT} that are read, or deep too often"
    )]
    Depth {
        /// Which file, or `-` for text given directly.
        path: String,
        /// The line at which there are too many.
        line: usize,
    },
    /// The registries in it cannot stand beside each other.
    #[error("the configuration {path} is not usable: {error}")]
    Registries {
        /// Which file, or `-` for text given directly.
        path: String,
        /// Why not.
        error: RegistriesError,
    },
}

/// The server's configuration. Every field may be left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where to listen, `address:port`, or a list. Default `127.0.0.1:8080`.
    pub listen: ListenAddresses,
    /// The server's certificate; without one only plain HTTP is spoken.
    pub tls: Option<TlsConfig>,
    /// Where certificates for upstreams are, `DIR/HOST:PORT/*.crt|cert|key`. Default: the `certs.d`
    /// folders of podman and docker.
    pub certs_d: Option<Vec<PathBuf>>,
    /// The signature store: `file:///dir`, a directory, `s3://bucket/prefix`. Default
    /// `./countersign-data`.
    pub store: String,
    /// The registry behind `/v2/`, `http(s)://host[:port]`. Without one only `/lookaside/` is served.
    pub upstream: Option<HttpOrigin>,
    /// Whether the upstream's certificate is checked. Default true. Read by whoever makes the
    /// HTTP client.
    pub upstream_tls_verify: bool,
    /// Whether the upstream sees the `Host` that the client sent. Default false: it sees its own
    /// name, by which virtual hosts and certificates are found, and the client's in
    /// `X-Forwarded-Host`; addresses in its answers are rewritten either way. This is for requests
    /// that are passed on only: what the server asks by itself goes to the host of `public_url`, or
    /// to the upstream's own where there is none, and never to one that the caller chose.
    pub upstream_keep_host: bool,
    /// Further origins, `http(s)://host[:port]`, to which the upstream may redirect the question
    /// whether a caller may read a manifest. Default: none; only an answer from the upstream's own
    /// origin says so.
    pub upstream_redirect_origins: Vec<HttpOrigin>,
    /// How long the upstream may be silent before its answer begins, in seconds. An upload that
    /// makes progress is not silence. Default 300.
    #[serde(deserialize_with = "time_limit")]
    pub upstream_timeout_seconds: u64,
    /// How long a question about a caller's rights may take at the upstream, in seconds. Default 15.
    #[serde(deserialize_with = "time_limit")]
    pub access_timeout_seconds: u64,
    /// What stands before the repository's name in the store's keys. Default: nothing.
    #[serde(deserialize_with = "store_path")]
    pub store_prefix: StorePath,
    /// How clients call this server, `http(s)://host[:port]`, when neither `Host` nor
    /// `X-Forwarded-*` say it. Default: those headers.
    pub public_url: Option<HttpOrigin>,
    /// The server's own credentials at the upstream, for pulls of clients that send none. Default: none.
    pub credentials: Option<CredentialConfig>,
    /// Further registries, by name; what stands above describes the one that answers for every
    /// other host.
    #[serde(deserialize_with = "registries")]
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Whose headers about a caller's identity and origin are believed (`X-Forwarded-*`, `Forwarded`
    /// and the others that SECURITY.md lists); everybody else's are taken off. Default: this
    /// machine's (`127.0.0.0/8`, `::1`).
    pub trusted_proxies: Vec<Network>,
    /// Further headers that are taken off unless a trusted proxy sends them: `X-User`, or `X-Sso-*`
    /// for all that begin so. Names compare without case and with `_` as `-`. Default: none.
    pub drop_headers: Vec<HeaderPattern>,
    /// How long open requests may go on after the order to stop, in seconds. Default 30.
    #[serde(deserialize_with = "seconds")]
    pub drain_seconds: u64,
    /// What uploads of signatures must fulfil. Default: a readable claim for the right digest.
    pub gate: GateConfig,
    /// Who may read and write below `/lookaside/`. Default: anybody reads, nobody writes.
    pub access: AccessConfig,
    /// The file to which every write and removal is recorded, one JSON object a line. Without one
    /// they are in the log only. While it cannot be written, nothing is stored or removed.
    pub audit_log: Option<PathBuf>,
    /// Rights that files and folders do not get when the server makes them, in octal: `"027"`. Default:
    /// those of the process; and where any `read` leaves out `anonymous`, 027 on top of them for all
    /// files, so that nobody reads on the disk what the server would not show.
    pub umask: Option<FileMask>,
    /// What the disk of the audit log keeps for changes, in MiB: while less is left, refused requests
    /// are counted, but not written to it. Default 64.
    pub audit_reserve_mib: u64,
    /// Health and metrics.
    pub admin: AdminConfig,
    /// Limits against exhaustion.
    pub limits: LimitConfig,
    /// How long answers are remembered.
    pub cache: CacheConfig,
}

/// How long answers are remembered.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// How long a change that another process made in the store may go unseen, in seconds. Default 5.
    #[serde(deserialize_with = "seconds")]
    pub set_seconds: u64,
    /// Memory for cached signatures, in bytes. Default 64 MiB.
    pub set_bytes: u64,
    /// How long a right that the upstream granted is taken for granted, in seconds; no longer than a
    /// JSON Web Token by which it was asked for lives. Default 10.
    #[serde(deserialize_with = "seconds")]
    pub access_seconds: u64,
    /// How long the index of digests for the release view is good, in seconds. Default 60.
    #[serde(deserialize_with = "seconds")]
    pub index_seconds: u64,
    /// How many signature sets the index of digests holds at most. Default 50000.
    pub index_sets: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: ListenAddresses::default(),
            tls: None,
            certs_d: None,
            store: "./countersign-data".to_owned(),
            upstream: None,
            upstream_tls_verify: true,
            upstream_keep_host: false,
            upstream_redirect_origins: Vec::new(),
            upstream_timeout_seconds: 300,
            access_timeout_seconds: 15,
            store_prefix: StorePath::default(),
            public_url: None,
            credentials: None,
            registries: BTreeMap::new(),
            trusted_proxies: ["127.0.0.0/8", "::1"].into_iter().filter_map(|text| text.parse().ok()).collect(),
            drop_headers: Vec::new(),
            drain_seconds: 30,
            gate: GateConfig::default(),
            access: AccessConfig::default(),
            audit_log: None,
            umask: None,
            audit_reserve_mib: 64,
            admin: AdminConfig::default(),
            limits: LimitConfig::default(),
            cache: CacheConfig::default(),
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { set_seconds: 5, set_bytes: 64 * 1024 * 1024, access_seconds: 10, index_seconds: 60, index_sets: 50_000 }
    }
}

impl ServerConfig {
    /// Tells whether some signatures are not for everybody.
    ///
    /// # Errors
    /// [`AccessError`].
    pub fn restricts_reading(&self) -> Result<bool, AccessError> {
        let mut restricts = false;
        for site in self.sites() {
            restricts |= site.settings.access.rules()?.iter().any(|rule| !rule.read.contains(&Way::Anonymous));
        }
        Ok(restricts)
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read { path: shown.clone(), error })?;
        Self::from_yaml(&text, &shown)
    }

    /// Reads a configuration from YAML text; `path` is what errors call it. An empty text is the
    /// default configuration.
    ///
    /// # Errors
    /// [`ConfigError::Parse`] and [`ConfigError::Registries`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::from_yaml(text, "-")
    }

    fn from_yaml(text: &str, path: &str) -> Result<Self, ConfigError> {
        if let Some(line) = too_deep(text.as_bytes()) {
            return Err(ConfigError::Depth { path: path.to_owned(), line });
        }
        let parsed: Result<Option<Self>, _> = serde_yaml::from_str(text);
        let config = parsed
            .map(Option::unwrap_or_default)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), error })?;
        config.check_registries().map_err(|error| ConfigError::Registries { path: path.to_owned(), error })?;
        Ok(config)
    }

    /// Returns the drain deadline.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }
}

/// A longer time is a slip, and more than some clocks can count.
const LONGEST: u64 = 365 * 24 * 3600;

pub(super) fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match u64::deserialize(deserializer)? {
        seconds @ 0..=LONGEST => Ok(seconds),
        seconds => Err(serde::de::Error::custom(format!("{seconds} seconds are more than a year ({LONGEST})"))),
    }
}

/// In no time nothing ever comes.
pub(super) fn time_limit<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    match seconds(deserializer)? {
        0 => Err(serde::de::Error::custom("0 seconds, in which nothing can be done; it must be 1 or more")),
        seconds => Ok(seconds),
    }
}

pub(super) fn optional_time_limit<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    time_limit(deserializer).map(Some)
}

pub(super) fn store_path<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<StorePath, D::Error> {
    let text = String::deserialize(deserializer)?;
    StorePath::parse(text.trim_matches('/')).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_the_default() {
        for text in ["", "# comment\n", "{}"] {
            let config = ServerConfig::parse(text).unwrap();
            assert_eq!(config.listen.first().to_string(), "127.0.0.1:8080");
            assert!(config.upstream.is_none() && !config.upstream_keep_host);
            assert_eq!(config.limits.signatures_per_digest, 127);
        }
    }

    #[test]
    fn reads_all_of_it() {
        let config = ServerConfig::parse(
            "listen: '[::]:80'\nstore: s3://sigs/x\nupstream: https://r.example\nstore_prefix: /icr/prod/\n\
             public_url: https://sig.example:8443\nlimits: {uploads: 2}\ncache: {set_seconds: 1}\n",
        )
        .unwrap();
        assert_eq!(config.listen.first().port(), 80);
        assert_eq!(config.store_prefix.to_string(), "icr/prod");
        assert_eq!(config.upstream.unwrap().to_string(), "https://r.example");
        assert_eq!((config.limits.uploads, config.limits.upload_bytes), (2, 6 * 1024 * 1024));
    }

    #[test]
    fn deep_nesting_is_refused_at_once() {
        let begun = std::time::Instant::now();
        for text in ["[".repeat(1 << 20), format!("x: {}{}", "[".repeat(1 << 19), "]".repeat(1 << 19))] {
            let error = ServerConfig::parse(&text).unwrap_err();
            assert!(matches!(error, ConfigError::Depth { line: 1, .. }), "{error}");
        }
        // By indentation, where the parser's own limit counts.
        let indented = format!("gate:\n {}x\n", "- ".repeat(100_000));
        assert!(ServerConfig::parse(&indented).is_err());
        assert!(begun.elapsed().as_secs() < 30);
    }

    #[test]
    fn reading_is_restricted_by_any_rule() {
        for (yaml, restricts) in [
            ("", false),
            ("access: {write: [{token: /t}]}", false),
            ("access: {read: [upstream, anonymous]}", false),
            ("access: {read: [upstream]}", true),
            ("access: {read: []}", true),
            ("access: {namespaces: {secret/: {read: [{token: /t}]}}}", true),
            ("registries: {icr.io: {access: {read: [upstream]}}}", true),
            ("access: {read: [upstream]}\nregistries: {icr.io: {access: {read: [anonymous]}}}", true),
        ] {
            assert_eq!(ServerConfig::parse(yaml).unwrap().restricts_reading(), Ok(restricts), "{yaml}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, said) in [
            ("lisen: x", "unknown field `lisen`"),
            ("limits: {upload: 1}", "unknown field `upload`"),
            ("upstream: r.example", "expected http://host[:port]"),
            ("upstream: http://r.example/v2", "has a path"),
            ("store_prefix: ../x", "../x"),
            ("listen: 8080", "listen: invalid"),
            ("cache: {set_seconds: 18446744073709551615}", "more than a year"),
            ("limits: {header_seconds: 0}", "it must be 1 or more"),
            ("limits: {signatures_per_digest: 128}", "it must be 127 or less"),
            ("access_timeout_seconds: 31536001", "more than a year"),
            ("umask: 27", "a umask in quotes"),
        ] {
            let error = ServerConfig::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
