//! registries.d: where the signatures of an image are kept, as containers/image decides it
//! (spec containers-image 1, 2.1).
//!
//! [`Search`] finds the files, [`Configuration`] merges them, its
//! [`lookaside`](Configuration::lookaside) answers for an image, and [`LookasideBase`] makes the
//! address of each signature. All but [`Configuration::load`] is pure.

mod configuration;
mod document;
mod go_url;
mod location;
mod search;
mod url;
mod yaml;

pub use crate::host::SearchError;
pub use configuration::{Configuration, ConfigurationError, Placed};
pub use document::{Document, Key, Section};
pub use location::{Attachments, Candidate, DEFAULT_DOCKER, Lookup, Mode, Origin};
pub use search::Search;
pub use url::{LookasideBase, LookasideError, Operation, SignatureLocation};
pub use yaml::YamlError;
