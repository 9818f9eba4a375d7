//! Configuration: one small struct a concern, read from YAML, checked when it is read.

mod origin;
mod server;

pub use origin::{HttpOrigin, OriginError, Scheme};
pub use server::{CacheConfig, ConfigError, LimitConfig, ServerConfig};
