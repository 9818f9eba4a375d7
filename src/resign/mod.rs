//! Bulk re-signing: what was signed for an old name is verified and signed for the new one.

mod keys;
mod pipeline;
mod rename;
mod vouch;

pub use keys::{Keys, KeysError};
pub use pipeline::{Item, Job, ResignError, State, Summary, run};
pub use rename::{RenameError, RenameMap, Renamed, Rule};
pub use vouch::{Finding, Vouched, judge};
