//! Configuration: one small struct a concern, read from YAML, checked when it is read.

mod gate;
mod limits;
mod listen;
mod origin;
mod server;
mod tls;

pub use gate::{ClaimPath, GateConfig, GateError, GateMode, GateRule, GateRuleConfig, GateRules};
pub use limits::LimitConfig;
pub use listen::{ListenAddress, ListenAddresses};
pub use origin::{HttpOrigin, OriginError, Scheme};
pub use server::{CacheConfig, ConfigError, ServerConfig};
pub use tls::{ClientCertificates, TlsConfig};
