//! What `policy check` and `registries-d check` have in common: the report about a file, and the
//! exit code of the worst.

use serde::Serialize;

use super::output::{self, Answer, Format};

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

    fn text(&self) -> String {
        let standing = match (self.valid, self.unreadable) {
            (true, _) => "valid",
            (false, false) => "invalid",
            (false, true) => "unreadable",
        };
        let mut lines = vec![format!("{}: {standing}", self.file)];
        lines.extend(self.error.iter().map(|error| format!("  {error}")));
        lines.extend(self.table.iter().map(|line| format!("  {line}")));
        lines.extend(self.warnings.iter().map(|warning| format!("  warning: {warning}")));
        lines.join("\n")
    }
}

/// Prints the reports (one document for one file, a list for several) and finds the answer.
pub fn report(format: Format, all: &[Checked]) -> anyhow::Result<Answer> {
    let texts: Vec<String> = all.iter().map(Checked::text).collect();
    let text = output::plain(&texts.join("\n"));
    match all {
        [one] => output::result(format, &text, one)?,
        all => output::result(format, &text, &all)?,
    }
    let unreadable: Vec<&str> =
        all.iter().filter(|one| one.unreadable).filter_map(|one| one.error.as_deref()).collect();
    anyhow::ensure!(unreadable.is_empty(), "{}", unreadable.join("; "));
    Ok(all.iter().all(|one| one.valid).into())
}
