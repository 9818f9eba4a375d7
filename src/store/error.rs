//! What may go wrong in the store, told apart by what it means for the one who asked.

use std::fmt::Display;

use super::layout::LayoutError;
use super::signatures::MOST_SIGNATURES;
use crate::signature::BLOB_LIMIT;

/// Why the store did not do it.
///
/// A missing signature, set or folder is no error: it is an empty set. No message holds a
/// password or key.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A path or key is not well formed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The store's location cannot be used as it was given.
    #[error("cannot use the store {location}: {reason}")]
    Location {
        /// The location, without secrets.
        location: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A stored file is longer than any client would read, or a blob is too long to be stored.
    #[error("{0} is longer than the {BLOB_LIMIT} bytes that clients read of one signature")]
    TooLarge(String),
    /// One set holds more than is ever read of it.
    #[error("{at} holds more than {limit}; no client would read it")]
    TooMany {
        /// The set.
        at: String,
        /// The limit that it passes, with its unit.
        limit: String,
    },
    /// One more signature would make the image unpullable: newer clients take a 128th for a fault
    /// of the server (spec containers-image 2.3).
    #[error(
        "{at} has signature-{MOST_SIGNATURES} already, and clients fail the pull at one more; remove one, \
         or close a gap by `store repair`"
    )]
    Full {
        /// The set.
        at: String,
    },
    /// The address cannot be written to: a file is in the way of a folder, a name is too long for
    /// the file system, or a symbolic link leads out of the tree.
    #[error("cannot write to {at}: {reason}")]
    Unwritable {
        /// The set.
        at: String,
        /// Why not.
        reason: String,
    },
    /// An empty blob is no signature; clients fail on it.
    #[error("an empty blob is no signature and is not stored")]
    Empty,
    /// A file of the set is empty or cut off, and so young that somebody may be writing it; trying
    /// again later helps.
    #[error(
        "{0} is empty or cut off, and changed less than five seconds ago: somebody may be writing it; try again later"
    )]
    Unfinished(String),
    /// Somebody else is at work on the same set; trying again later helps.
    #[error("{at} is busy: {reason}")]
    Busy {
        /// The set.
        at: String,
        /// Who keeps it busy, and for how long at most.
        reason: String,
    },
    /// The back end failed or refused; says nothing about what is stored.
    #[error("the store failed at {doing}: {reason}")]
    Unavailable {
        /// What was tried, and where.
        doing: String,
        /// The back end's answer, without secrets.
        reason: String,
    },
}

impl StoreError {
    /// Tells whether the back end is at fault and trying again later may help: 503 for a server,
    /// never 404 and never an empty list (design section 5, rule 4).
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Busy { .. } | Self::Unfinished(_))
    }

    pub(super) fn unavailable(doing: impl Into<String>, reason: impl Display) -> Self {
        Self::Unavailable { doing: doing.into(), reason: reason.to_string() }
    }

    pub(super) fn location(location: impl Into<String>, reason: impl Display) -> Self {
        Self::Location { location: location.into(), reason: reason.to_string() }
    }

    pub(super) fn unwritable(at: impl Display, reason: impl Display) -> Self {
        Self::Unwritable { at: at.to_string(), reason: reason.to_string() }
    }
}
