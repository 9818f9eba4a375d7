//! Bulk re-signing: what was signed for an old name is verified and signed for the new one.
//!
//! ```text
//! endpoint (source) -> vouch (policy, rename) -> keys -> endpoint (destination) -> journal
//!                      \___________________ pipeline ___________________/
//! journal -> report -> audit (against source and destination)
//! ```

mod audit;
mod choice;
mod endpoint;
mod item;
mod journal;
mod keys;
mod pipeline;
mod rename;
mod rename_file;
#[cfg(test)]
mod rename_tests;
pub mod report;
mod vouch;

pub use audit::{Audit, AuditError, AuditSummary, Problem, audit};
pub use choice::{Check, CheckKind, Choice};
pub use endpoint::{
    Destination, Discover, Endpoint, EndpointError, Image, ImageFile, ImageLine, Left, LineError, Listed, Lister,
    LookasideEnd, RegistryEnd, Source, Why,
};
pub use item::{Item, State, Summary};
pub use journal::{ItemKey, JobIdentity, Journal, JournalError, Line, item_key, read as read_journal};
pub use keys::{Keys, KeysError};
pub use pipeline::{Job, Position, Progress, ResignError, Shard, run};
pub use rename::{Origin, RenameError, RenameMap, Renamed, Renaming, Rule};
pub use rename_file::{RenameFile, RenameFileError};
pub use vouch::{Finding, Vouched, judge};
