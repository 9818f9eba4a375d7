//! What an audit tells: each thing that is wrong, and the totals.

use serde::Serialize;

use super::Suspect;
use crate::resign::item::Item;
use crate::resign::report::Totals;

/// Something that is not as the report says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The image, as `repository@digest`; empty for the report as a whole.
    pub image: String,
    /// The new name that the report gives, or else the old one.
    pub name: String,
    /// The old signature.
    pub blob: Option<String>,
    /// What is wrong.
    pub what: String,
    /// It could not be found out.
    pub unknown: bool,
}

impl Problem {
    pub(super) fn of_report(what: String) -> Self {
        Self { image: String::new(), name: String::new(), blob: None, what, unknown: false }
    }

    pub(super) fn unknown_of_report(what: String) -> Self {
        Self { unknown: true, ..Self::of_report(what) }
    }

    pub(super) fn of_suspect(suspect: Suspect, what: &str) -> Self {
        let Suspect { set, hash, name, .. } = suspect;
        Self { image: set, name, blob: Some(hash), what: what.to_owned(), unknown: false }
    }

    pub(super) fn unknown(item: &Item, what: String) -> Self {
        Self { unknown: true, ..Self::of(item, what) }
    }

    pub(super) fn of(item: &Item, what: String) -> Self {
        let name = item.new_reference.as_ref().or(item.old_reference.as_ref());
        Self {
            image: item.image(),
            name: name.cloned().unwrap_or_default(),
            blob: item.blob.clone(),
            what,
            unknown: false,
        }
    }
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditSummary {
    /// Items in the report.
    pub items: u64,
    /// Items about signatures for new names, all of them looked at.
    pub signatures: u64,
    /// Things that are not as the report says.
    pub wrong: u64,
    /// Things that could not be found out, since a store did not answer.
    pub unknown: u64,
    /// Signatures by the job's keys for names that its rules make, or at the places of the report,
    /// that it does not tell of.
    pub unexplained: u64,
    /// Signatures by the job's keys for names that its rules make, which the report only says were
    /// in the source and not the job's concern.
    pub beside: u64,
    /// Old signatures that the report does not tell of, and that say they were made after the job
    /// began, as far as what the job signed bears out when that was.
    pub later: u64,
    /// Items that are taken at the report's word.
    pub trusted: u64,
    /// What the report itself says.
    pub totals: Totals,
    /// Some of the places with unexplained signatures.
    pub unexplained_at: Vec<String>,
    /// Some of the places with signatures beside the job.
    pub beside_at: Vec<String>,
    /// What could not be found out anew, a sentence each.
    pub on_trust: Vec<String>,
}
