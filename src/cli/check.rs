//! What `policy check` and `registries-d check` have in common: the report about a file, and the
//! exit code of the worst.

use serde::Serialize;

use super::output::{self, Answer, Format};
use crate::escape;

/// The JSON about one file or folder.
#[derive(Debug, Serialize)]
pub struct Checked {
    pub file: String,
    pub valid: bool,
    /// The reference's own sentence.
    pub error: Option<String>,
    /// What is valid, but hardly wanted.
    pub warnings: Vec<String>,
    /// What it says, for people.
    #[serde(skip)]
    pub table: Vec<String>,
    /// It could not be read, so that nothing can be said of it.
    #[serde(skip)]
    pub unreadable: bool,
}

impl Checked {
    /// It is of no use.
    pub fn wrong(file: String, error: String, unreadable: bool) -> Self {
        Self { file, valid: false, error: Some(error), warnings: Vec::new(), table: Vec::new(), unreadable }
    }

    /// It is valid.
    pub fn right(file: String, warnings: Vec<String>, table: Vec<String>) -> Self {
        Self { file, valid: true, error: None, warnings, table, unreadable: false }
    }

    fn lines(&self) -> Vec<String> {
        let standing = match (self.valid, self.unreadable) {
            (true, _) => "valid",
            (false, false) => "invalid",
            (false, true) => "unreadable",
        };
        let mut lines = vec![format!("{}: {standing}", escape::word(&self.file))];
        lines.extend(self.error.iter().map(|error| format!("  {error}")));
        lines.extend(self.table.iter().map(|line| format!("  {line}")));
        lines.extend(self.warnings.iter().map(|warning| format!("  warning: {warning}")));
        lines
    }
}

/// Prints the reports (one document for one file, a list for several) and finds the answer.
pub fn report(format: Format, all: &[Checked]) -> anyhow::Result<Answer> {
    let lines: Vec<String> = all.iter().flat_map(Checked::lines).collect();
    match all {
        [one] => output::result(format, &lines, one)?,
        all => output::result(format, &lines, &all)?,
    }
    let unreadable: Vec<&str> =
        all.iter().filter(|one| one.unreadable).filter_map(|one| one.error.as_deref()).collect();
    anyhow::ensure!(unreadable.is_empty(), "{}", unreadable.join("; "));
    Ok(all.iter().all(|one| one.valid).into())
}
