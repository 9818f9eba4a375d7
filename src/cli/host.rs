//! The flags that say whose configuration counts: policy.json, registries.d, certificates and
//! credentials; shared by all commands that act as a client would.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::host::{Environment, Generation};
use crate::lookup::Signatures;
use crate::policy::{self, Policy};
use crate::registries_d::{Configuration, ConfigurationError, Search};
use crate::registry::{AuthFiles, CredentialSource, RegistryClient, RegistryOptions};

/// Whose search for configuration files is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ConfigSearch {
    /// Podman 6 and what is built with it
    #[default]
    Podman6,
    /// Podman 5 and older, RHEL 8 and 9, OpenShift 4
    Podman5,
}

impl From<ConfigSearch> for Generation {
    fn from(search: ConfigSearch) -> Self {
        match search {
            ConfigSearch::Podman6 => Self::Podman6,
            ConfigSearch::Podman5 => Self::Podman5,
        }
    }
}

/// Whose configuration, and how to speak to registries.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// policy.json to decide by, instead of the host's
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Folder of registries.d files, instead of the host's
    #[arg(long = "registries-d", value_name = "DIR")]
    registries_d: Option<PathBuf>,
    /// Whose search for the host's configuration files to follow
    #[arg(long, value_enum, default_value_t, value_name = "WHOSE")]
    config_search: ConfigSearch,
    /// Check certificates of registries; if not, plain http is tried too
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    tls_verify: bool,
}

impl HostArgs {
    /// Reads the policy that counts, and says which file it is.
    pub fn policy(&self) -> Result<(PathBuf, Policy), policy::LoadError> {
        match &self.policy {
            Some(path) => Ok((path.clone(), Policy::load(path)?)),
            None => policy::load_default(&Environment::from_process(), self.config_search.into()),
        }
    }

    /// Returns the policy file that was named.
    pub fn policy_path(&self) -> Option<PathBuf> {
        self.policy.clone()
    }

    /// Returns the folder of registries.d files that was named.
    pub fn registries_d_path(&self) -> Option<PathBuf> {
        self.registries_d.clone()
    }

    /// Whose search for files is followed.
    pub fn generation(&self) -> Generation {
        self.config_search.into()
    }

    /// Reads the registries.d that counts.
    pub fn configuration(&self) -> Result<Configuration, ConfigurationError> {
        let search = Search {
            explicit: self.registries_d.clone(),
            generation: self.config_search.into(),
            environment: Environment::from_process(),
            ..Search::default()
        };
        Configuration::load(&search)
    }

    /// Makes the client of registries and lookasides.
    pub fn client(&self) -> RegistryClient {
        self.client_that(self.tls_verify)
    }

    /// Makes a client that checks certificates or does not.
    pub fn client_that(&self, tls_verify: bool) -> RegistryClient {
        RegistryClient::new(registry_options(tls_verify, self.config_search))
    }

    /// Joins client and configuration to find signatures with.
    pub fn lookup(&self, client: &RegistryClient, configuration: Configuration) -> Signatures {
        Signatures { client: client.clone(), configuration, environment: Environment::from_process() }
    }
}

/// How this host's user speaks to registries: credentials from the login files, `certs.d`.
pub fn registry_options(tls_verify: bool, search: ConfigSearch) -> RegistryOptions {
    let environment = Environment::from_process();
    let credentials = AuthFiles::from_environment(|name| std::env::var_os(name), environment.uid);
    RegistryOptions {
        tls_verify,
        credentials: CredentialSource::Files(credentials),
        certs_d: crate::host::certificate_directories(&environment, search.into()),
        ..RegistryOptions::default()
    }
}
