//! The signature store: a plain lookaside tree on a disk or in a bucket, with nothing beside it.
//!
//! `layout` knows the names; `signatures` the rules of reading, appending and removing, written
//! once upon the few operations that `local` (a folder) and `objects` (a bucket, or memory) offer.
//! Everything is create-if-absent of immutable bytes; only one remover at a time is ever at work
//! on a set (`lease`), and that is why no race can lose a signature.

mod backend;
mod bulk;
mod error;
mod group;
mod layout;
mod lease;
mod letter_case;
mod local;
mod local_set;
mod local_walk;
mod objects;
mod open;
mod repair;
mod set_state;
mod settled;
mod signatures;
mod staging;
mod survey;
mod walk;

pub use backend::free_numbers;
pub use error::StoreError;
pub use group::Append;
pub use layout::{Layout, LayoutError, PATH_LIMIT, SetAddress, SignatureAddress, StorePath};
pub use open::StoreOptions;
pub use repair::{Removed, Repaired};
pub use set_state::SetState;
pub use signatures::{Appended, MOST_SIGNATURES, SET_LIMIT, Store, StoredSet, StoredSignature};
pub use staging::{staging_number, staging_number_of};
pub use survey::{Foreign, Stray, Surveyed};
