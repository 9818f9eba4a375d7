//! Configuration: one small struct a concern, read from YAML, checked when it is read.

mod access;
mod admin;
mod gate;
mod header_name;
mod limits;
mod listen;
mod map;
mod namespaces;
mod network;
mod origin;
mod registry;
mod server;
mod tls;
mod umask;

pub use access::{AccessConfig, AccessError, AccessRule, CertificateName, Way};
pub use admin::AdminConfig;
pub use gate::{ClaimPath, GateConfig, GateError, GateMode, GateRule, GateRuleConfig, GateRules};
pub use header_name::{HeaderPattern, HeaderPatternError};
pub use limits::LimitConfig;
pub use listen::{ListenAddress, ListenAddresses};
pub use namespaces::Namespaces;
pub use network::{Network, NetworkError};
pub use origin::{HttpOrigin, OriginError, Scheme};
pub use registry::{CredentialConfig, CredentialConfigError, RegistriesError, RegistryConfig, SiteConfig};
pub use server::{CacheConfig, ConfigError, ServerConfig};
pub use tls::{ClientCertificates, TlsConfig};
pub use umask::{FileMask, FileMaskError};
