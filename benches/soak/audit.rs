//! The audit log, moved away all the time as logrotate does, and compared with what clients were told.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use crate::tally::Tally;

pub struct AuditTrail {
    log: PathBuf,
    /// Moved away, but perhaps still being written.
    moved: Option<PathBuf>,
    kept: u64,
    removed: u64,
    fault: Option<String>,
}

impl AuditTrail {
    pub fn new(log: &Path) -> Self {
        Self { log: log.to_owned(), moved: None, kept: 0, removed: 0, fault: None }
    }

    /// Moves the log away, and counts what was moved away before.
    pub fn rotate(&mut self) {
        self.count_moved();
        let moved = self.log.with_extension("moved");
        if std::fs::rename(&self.log, &moved).is_ok() {
            self.moved = Some(moved);
        }
    }

    fn count_moved(&mut self) {
        if let Some(moved) = self.moved.take() {
            self.count(&moved);
            std::fs::remove_file(moved).unwrap();
        }
    }

    fn count(&mut self, log: &Path) {
        let Ok(file) = std::fs::File::open(log) else { return };
        for line in BufReader::new(file).lines().map(Result::unwrap) {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else {
                self.fault = Some(format!("an audit line is no JSON: {line}"));
                continue;
            };
            match line["verdict"].as_str() {
                Some("stored" | "already there") => self.kept += 1,
                Some("removed") => self.removed += 1,
                _ => {}
            }
        }
    }

    /// Compares the whole of it; nobody writes any more.
    pub fn finish(&mut self, tally: &Tally) -> Result<(), String> {
        self.count_moved();
        self.count(&self.log.clone());
        let told = tally.stored.get() + tally.extended.get() + tally.repeated.get();
        // Clients that hung up were stored for, too.
        if self.kept < told || self.removed != tally.removed.get() {
            let (kept, removed) = (self.kept, self.removed);
            return Err(format!(
                "the audit log has {kept} uploads and {removed} removals, clients were told of {told} and {}",
                tally.removed.get()
            ));
        }
        self.fault.take().map_or(Ok(()), Err)
    }
}
