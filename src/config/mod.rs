//! Configuration: one small struct a concern, read from YAML, checked when it is read.

mod admin;
mod gate;
mod origin;
mod server;

pub use admin::AdminConfig;
pub use gate::{ClaimPath, GateConfig, GateError, GateMode, GateRule, GateRuleConfig, GateRules};
pub use origin::{HttpOrigin, OriginError, Scheme};
pub use server::{CacheConfig, ConfigError, LimitConfig, ServerConfig};
