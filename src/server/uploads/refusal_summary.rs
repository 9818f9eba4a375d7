//! Changes that were refused before anybody had shown who they are. Anybody can have as many as they
//! like, so they are counted, and every minute there is one line for each client: that of the first
//! refusal, with these names beside those of every line:
//!
//! - `count`: how many there were, `first` and `last` (times),
//! - `actions`, `faces`, `reasons`: how many there were of each.
//!
//! `verdict` is `failed` if all of them were faults of ours, else `refused`. A client is an IPv4
//! address or an IPv6 /64, and `client` the address that came first. Of more clients than are told
//! apart in a minute, `client` is `others`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::server::client_address::client_network;
use crate::server::error::Problem;
use crate::server::uploads::audit_log::{Action, Line, Record};

/// How long refusals are gathered.
pub(crate) const TOGETHER: Duration = Duration::from_secs(60);
/// How many clients have a line of their own.
const CLIENTS: usize = 256;

/// What was refused since it was last told.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Gathered>);

#[derive(Debug, Default)]
struct Gathered {
    clients: HashMap<IpAddr, Summary>,
    others: Option<Summary>,
    /// Somebody has seen to it that it will be told.
    is_due: bool,
}

/// What was refused to one client.
#[derive(Debug)]
pub(crate) struct Summary {
    record: Record,
    problem: Problem,
    is_others: bool,
    first: Timestamp,
    last: Timestamp,
    count: u64,
    failed: u64,
    actions: BTreeMap<&'static str, u64>,
    faces: BTreeMap<&'static str, u64>,
    reasons: BTreeMap<&'static str, u64>,
}

/// One line of the file. The names are a contract.
#[derive(Serialize)]
pub(crate) struct SummaryLine<'a> {
    #[serde(flatten)]
    line: Line<'a>,
    count: u64,
    first: String,
    last: String,
    actions: &'a BTreeMap<&'static str, u64>,
    faces: &'a BTreeMap<&'static str, u64>,
    reasons: &'a BTreeMap<&'static str, u64>,
}

impl Refusals {
    /// Notes a refusal; tells whether it is the first since they were told, so that the caller has
    /// to see to it that they are told again.
    pub(crate) fn note(&self, record: &Record, problem: &Problem) -> bool {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let client = client_network(record.from);
        let has_room = gathered.clients.len() < CLIENTS || gathered.clients.contains_key(&client);
        let new = |is_others| Summary::new(record.clone(), problem, is_others);
        let summary = if has_room {
            gathered.clients.entry(client).or_insert_with(|| new(false))
        } else {
            gathered.others.get_or_insert_with(|| new(true))
        };
        summary.add(record, problem);
        !std::mem::replace(&mut gathered.is_due, true)
    }

    /// Takes all that is to be told.
    pub(crate) fn take(&self) -> Vec<Summary> {
        let gathered = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut summaries: Vec<_> = gathered.clients.into_values().chain(gathered.others).collect();
        summaries.sort_by_key(|summary| summary.first);
        summaries
    }
}

impl Summary {
    fn new(record: Record, problem: &Problem, is_others: bool) -> Self {
        let now = Timestamp::now();
        Self {
            record,
            problem: problem.clone(),
            is_others,
            first: now,
            last: now,
            count: 0,
            failed: 0,
            actions: BTreeMap::new(),
            faces: BTreeMap::new(),
            reasons: BTreeMap::new(),
        }
    }

    fn add(&mut self, record: &Record, problem: &Problem) {
        self.last = Timestamp::now();
        self.count += 1;
        self.failed += u64::from(problem.is_ours());
        let action = match record.action {
            Action::Add => "add",
            Action::Remove => "remove",
        };
        *self.actions.entry(action).or_default() += 1;
        *self.faces.entry(record.face).or_default() += 1;
        *self.reasons.entry(problem.kind()).or_default() += 1;
    }

    /// How many refusals it tells of.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn verdict(&self) -> &'static str {
        if self.failed == self.count { "failed" } else { "refused" }
    }

    /// Returns the line for the file.
    pub(crate) fn line(&self) -> SummaryLine<'_> {
        let mut line = self.record.line(self.verdict(), None, Some(&self.problem));
        if self.is_others {
            line.client = "others".to_owned();
        }
        SummaryLine {
            line,
            count: self.count,
            first: self.first.to_string(),
            last: self.last.to_string(),
            actions: &self.actions,
            faces: &self.faces,
            reasons: &self.reasons,
        }
    }

    /// Tells the log.
    pub(crate) fn log(&self) {
        let each = |counts: &mut dyn Iterator<Item = (&str, &u64)>| {
            counts.map(|(what, count)| format!("{what}: {count}")).collect::<Vec<_>>().join(", ")
        };
        let Line { client, .. } = self.line().line;
        tracing::info!(
            target: "countersign::audit",
            client,
            verdict = self.verdict(),
            count = self.count,
            first = %self.first,
            last = %self.last,
            actions = each(&mut self.actions.iter().map(|(what, count)| (*what, count))),
            faces = each(&mut self.faces.iter().map(|(what, count)| (*what, count))),
            reasons = each(&mut self.reasons.iter().map(|(what, count)| (*what, count))),
            repository = self.record.repository,
            digest = %self.record.digest,
            "changes refused to somebody unknown"
        );
    }
}
