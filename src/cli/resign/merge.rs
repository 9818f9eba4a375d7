//! `countersign resign merge-reports`: the reports of a job's parts as one.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::cli::output::{self, Answer, Format};
use crate::escape;
use crate::resign::report::{self, ReportForm, Totals};

/// Join the reports of the parts (--shard) of one job
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MergeReports {
    /// Reports in JSON, each of other parts of the same job
    #[arg(value_name = "REPORT", required = true)]
    reports: Vec<PathBuf>,
    /// The joined report: .json, .md or .html
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Accept that parts are missing; the joined report still says so
    #[arg(long)]
    allow_missing: bool,
}

const EXAMPLES: &str = "\
Examples:
  countersign resign merge-reports part-1.json part-2.json part-3.json -o all.json
  countersign resign merge-reports all.json -o all.html

Exit codes: 0 joined; 1 joined, but parts are missing or items are told of twice; 2 could not join.";

impl MergeReports {
    pub fn run(self, format: Format) -> anyhow::Result<Answer> {
        ReportForm::of(&self.output)?;
        let merged = report::merge(&self.reports)?;
        report::write(&self.output, &merged.head, &merged)?;
        let Totals { signed, already, unmatched, refused, failed } = merged.head.totals;
        let mut lines = vec![format!(
            "{}: {signed} signed, {already} already there, {refused} refused, {failed} failed, {unmatched} not concerned",
            escape::path_word(&self.output)
        )];
        if !merged.missing.is_empty() {
            lines.push(format!("missing: part {}", merged.missing.join(", ")));
        }
        if merged.doubled > 0 {
            lines.push(format!("{} item(s) are in several reports; the first of each is kept", merged.doubled));
        }
        let value = json!({"output": self.output.to_string_lossy(), "shards": merged.head.shards,
            "missing": merged.missing, "doubled": merged.doubled, "totals": merged.head.totals});
        output::result(format, &lines, &value)?;
        Ok((merged.doubled == 0 && (merged.missing.is_empty() || self.allow_missing)).into())
    }
}
