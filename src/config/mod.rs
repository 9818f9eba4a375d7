//! Configuration: one small struct a concern, read from YAML, checked when it is read.

mod access;
mod gate;
mod namespaces;
mod origin;
mod server;

pub use access::{AccessConfig, AccessError, AccessRule, CertificateName, Way};
pub use gate::{ClaimPath, GateConfig, GateError, GateMode, GateRule, GateRuleConfig, GateRules};
pub use namespaces::Namespaces;
pub use origin::{HttpOrigin, OriginError, Scheme};
pub use server::{CacheConfig, ConfigError, LimitConfig, ServerConfig};
