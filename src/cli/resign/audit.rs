//! `countersign resign audit`: a report, checked against the stores.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::ends::{destination_of, is_redacted, reading_client, shown, source_of};
use super::{default_jobs, parse_jobs, parse_time};
use crate::cli::output::{Answer, Format};
use crate::cli::stream::Listing;
use crate::escape;
use crate::image::Digest;
use crate::policy::Policy;
use crate::resign::report::{Head, Totals, read_head};
use crate::resign::{self, AuditSummary, Check, CheckKind, Problem, RenameMap};

/// Check a report against the stores: every signature that it tells of, old and new
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Audit {
    /// The report, in JSON
    #[arg(value_name = "REPORT")]
    report: PathBuf,
    /// Store with the old signatures, instead of the one that the report names
    #[arg(long, value_name = "STORE")]
    from: Option<String>,
    /// Store with the new signatures, instead of the one that the report names
    #[arg(long, value_name = "STORE")]
    to: Option<String>,
    /// policy.json that each old signature must satisfy, for the name in its own claim
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// policy.json that each new signature must satisfy, for its new name
    #[arg(long, value_name = "FILE", required_unless_present = "new_key")]
    new_policy: Option<PathBuf>,
    /// Public key that new signatures may be by, instead of a policy; repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "new_policy")]
    new_key: Vec<PathBuf>,
    /// Judge old keys and signatures as of this time (RFC 3339 or a date), instead of the job's
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    as_of: Option<Timestamp>,
    /// Accept old signatures that use SHA-1 or RSA keys under 2048 bits
    #[arg(long)]
    allow_weak: bool,
    /// Ask this registry for the instances of signed lists, whatever the new names say
    #[arg(long, value_name = "HOST")]
    check_registry: Option<String>,
    /// Check certificates of registries; if not, plain http is tried too
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    tls_verify: bool,
    /// How many images to work on at once
    #[arg(long, value_name = "N", default_value_t = default_jobs(), value_parser = parse_jobs)]
    jobs: usize,
}

const EXAMPLES: &str = "\
Examples:
  countersign resign audit job.json --policy old-policy.json --new-key new.pub.asc
  countersign resign audit job.json --policy old-policy.json --new-policy policy.json --format json

Every item is found out anew: names, rule, signer, scope, place, and of what kind the reason is. Trees
are gone through for signatures that the report passes over. What cannot be found out (that something
failed, what a list named, what --newest or --check left out) is counted and named.

Who could write the report could write the time in it, too: give --as-of where that matters.
Signatures by the job's keys that the report does not tell of, and old ones that came after the job
began, are counted; they do not change the exit code.

Exit codes: 0 all is as the report says; 1 something is not; 2 could not check.";

#[derive(Serialize)]
struct Rest {
    report: String,
    source: String,
    destination: String,
    as_of: String,
    notes: Vec<String>,
    #[serde(flatten)]
    summary: AuditSummary,
}

impl Audit {
    pub async fn run(self, format: Format) -> anyhow::Result<Answer> {
        let head = read_head(&self.report)?;
        let named = |given: &Option<String>, what: &str, flag: &str| {
            let said = given.clone().or_else(|| head.job.get(what).cloned());
            let said = said.with_context(|| format!("the report does not name its {what}; give {flag}"))?;
            if given.is_none() && is_redacted(&said) {
                bail!("a report keeps no secrets: give the {what} {said} with them, {flag}");
            }
            Ok(said)
        };
        let (from, to) = (named(&self.from, "source", "--from")?, named(&self.to, "destination", "--to")?);
        let as_of = match (self.as_of, head.job.get("as-of time").map(String::as_str)) {
            (Some(time), _) => Some(time),
            (None, None | Some("now")) => None,
            (None, Some(text)) => Some(text.parse().context("the report's as-of time")?),
        };
        let (old_policy, policy) = Policy::load_with_bytes(&self.policy)?;
        let said = |what: &str| head.job.get(what).map(String::as_str);
        let renames = RenameMap::parse_recorded(said("rename rules").unwrap_or_default());
        let renames = renames.context("the rename rules in the report")?;
        let recorded = said("registry of the check").filter(|host| *host != "none").map(str::to_owned);
        let check_registry = self.check_registry.clone().or(recorded);
        let client = reading_client(self.tls_verify);
        let audit = resign::Audit {
            source: source_of(&from, &client).await.context("--from")?,
            destination: destination_of(&to, &client, &renames).await.context("--to")?,
            check: Check::new(CheckKind::Instances, client, check_registry),
            old_policy,
            new_policy: self.new_policy()?,
            as_of: as_of.map(SystemTime::from),
            now: SystemTime::now(),
            allow_weak: self.allow_weak,
            jobs: self.jobs,
        };
        let mut listing = Listing::begin(format, "problems")?;
        let mut broken = Ok(());
        let told = |problem: &Problem| {
            if broken.is_ok() {
                broken = listing.item(&[line(problem)], problem);
            }
        };
        let (head, summary) = resign::audit(Arc::new(audit), &self.report, told).await?;
        broken?;
        let as_of = as_of.map_or_else(|| "when each was signed anew".to_owned(), |time| time.to_string());
        let notes = self.notes(&head, &policy);
        let (wrong, unknown) = (summary.wrong, summary.unknown);
        let (source, destination) = (shown(&from), shown(&to));
        let report = self.report.to_string_lossy().into_owned();
        let rest = Rest { report, source, destination, as_of, notes, summary };
        listing.end(&rest.lines(), &rest)?;
        if unknown > 0 {
            bail!("{unknown} part(s) of the stores could not be read");
        }
        Ok((wrong == 0).into())
    }

    fn new_policy(&self) -> anyhow::Result<Policy> {
        if let Some(path) = &self.new_policy {
            return Ok(Policy::load(path)?);
        }
        let files: Result<Vec<PathBuf>, _> = self.new_key.iter().map(std::path::absolute).collect();
        let files = files.context("--new-key")?;
        for file in &files {
            std::fs::metadata(file).with_context(|| format!("--new-key {}", file.display()))?;
        }
        let policy = json!({"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": files}]});
        Ok(Policy::parse(policy.to_string().as_bytes())?)
    }

    /// What an auditor should know that is no fault of the report.
    fn notes(&self, head: &Head, policy: &[u8]) -> Vec<String> {
        let mut notes = Vec::new();
        if head.job.get("policy").is_some_and(|digest| *digest != Digest::sha256(policy).to_string()) {
            notes.push("the old policy is not the one that the job used, byte for byte".to_owned());
        }
        if !self.allow_weak && head.job.get("weak algorithms").is_some_and(|said| said == "accepted") {
            notes.push("the job accepted weak algorithms in old signatures (--allow-weak)".to_owned());
        }
        notes
    }
}

fn line(problem: &Problem) -> String {
    let word = if problem.unknown { "unknown" } else { "wrong  " };
    let place = if problem.image.is_empty() { "the report".to_owned() } else { escape::word(&problem.image) };
    let name = if problem.name.is_empty() { String::new() } else { format!("{}: ", escape::word(&problem.name)) };
    format!("{word} {place}: {name}{}", problem.what)
}

impl Rest {
    fn lines(&self) -> Vec<String> {
        let AuditSummary { items, signatures, wrong, unknown, unexplained, beside, later, totals, .. } = &self.summary;
        let Totals { signed, already, refused, failed, unmatched } = totals;
        let (source, destination) = (escape::word(&self.source), escape::word(&self.destination));
        let unknown = if *unknown > 0 { format!(", {unknown} unknown") } else { String::new() };
        let mut lines = vec![
            format!(
                "{items} item(s): {signed} signed, {already} already there, {refused} refused, {failed} failed, \
                 {unmatched} not concerned"
            ),
            format!(
                "{signatures} checked from {source} to {destination}, old signatures as of {}: {wrong} wrong{unknown}",
                self.as_of
            ),
        ];
        let places = |places: &[String]| places.iter().map(escape::word).collect::<Vec<_>>().join(", ");
        if *unexplained > 0 {
            let at = places(&self.summary.unexplained_at);
            lines.push(format!("{unexplained} signature(s) by the job's keys are not in the report: at {at}"));
        }
        if *beside > 0 {
            let at = places(&self.summary.beside_at);
            lines.push(format!(
                "{beside} signature(s) by the job's keys for new names were, says the report, there and none of the \
                 job's: at {at}"
            ));
        }
        if *later > 0 {
            lines.push(format!(
                "{later} signature(s) of the source are not in the report; they say that they were made after the \
                 job began"
            ));
        }
        for what in &self.summary.on_trust {
            lines.push(format!("at the report's word: {what}"));
        }
        for note in &self.notes {
            lines.push(format!("note: {note}"));
        }
        lines
    }
}
