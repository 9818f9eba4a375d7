//! Bulk re-signing: what was signed for an old name is verified and signed for the new one.
//!
//! ```text
//! endpoint (source) -> vouch (policy, rename) -> keys -> endpoint (destination) -> journal
//!                      \___________________ pipeline ___________________/
//! ```

mod endpoint;
mod item;
mod journal;
mod keys;
mod pipeline;
mod rename;
mod vouch;

pub use endpoint::{Destination, EndpointError, Source};
pub use item::{Item, State, Summary};
pub use journal::{ItemKey, JobIdentity, Journal, JournalError, Line, item_key, read as read_journal};
pub use keys::{Keys, KeysError};
pub use pipeline::{Job, Position, Progress, ResignError, Shard, run};
pub use rename::{RenameError, RenameMap, Renamed, Rule};
pub use vouch::{Finding, Vouched, judge};
