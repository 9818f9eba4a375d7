//! What is wrong with the copy of a repository.

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::folder::FolderError;
use crate::registry::CallError;

/// What is wrong with one file of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind of fault.
    pub kind: ProblemKind,
    /// The file at the server, `targets/releases`, `2.root.json`.
    pub file: String,
    /// The fault in words.
    pub reason: String,
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// The server says that the file does not exist.
    Missing,
    /// 401 or 403.
    Forbidden,
    /// The file is not what it should be: no metadata, another hash or length.
    Broken,
    /// No usable response: network, 5xx, too slow, too long.
    Unavailable,
    /// The server has something older than, or different from, what was fetched before.
    Changed,
    /// The file could not be stored.
    Store,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.reason)
    }
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, file: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { kind, file: file.into(), reason: reason.into() }
    }

    pub(super) fn broken(file: &str, reason: impl ToString) -> Self {
        Self::new(ProblemKind::Broken, file, reason.to_string())
    }

    pub(super) fn store(file: &str, error: &FolderError) -> Self {
        Self::new(ProblemKind::Store, file, error.to_string())
    }

    /// The problem of a request without a response, or without a token.
    pub(super) fn call(file: &str, error: &CallError) -> Self {
        let refused = match error {
            CallError::Refused(refusal) => Some(refusal.status()),
            CallError::Token(error) => error.status(),
            CallError::PlainPassword { .. } => Some(StatusCode::FORBIDDEN),
            _ => None,
        };
        let kind = match refused {
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => ProblemKind::Forbidden,
            _ => ProblemKind::Unavailable,
        };
        Self::new(kind, file, error.to_string())
    }
}
