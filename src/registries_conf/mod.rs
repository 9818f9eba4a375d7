//! registries.conf: from where an image is pulled, as containers/image decides it
//! (spec containers-image 8.1 to 8.3).
//!
//! The user's name of an image is the *logical* one, by which the policy judges; what this room
//! answers are the *physical* ones, by which registry, lookaside and extension are asked.
//!
//! ```text
//! search -> document (one file) -> configuration (all files) -> pull sources of an image
//!                                      matching (prefixes, rewriting)
//! ```
//!
//! All but [`Configuration::load`] is pure. [`Configuration::resolve_short_name`] is for names that a
//! user wrote; everywhere else names have a registry.

mod configuration;
mod document;
mod matching;
mod search;
mod short_name;
mod toml;

pub use crate::host::SearchError;
pub use configuration::{Blocked, Configuration, ConfigurationError, Placed, PullSource, PullSources, SourceError};
pub use document::{Document, DocumentError, Form, Mirror, PullFromMirror, Registry};
pub use matching::{RewriteError, matching_length, rewrite};
pub use search::{ConfigurationFile, Search};
pub use short_name::{AliasError, ShortName};
pub use toml::TomlError;
