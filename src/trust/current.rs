//! The current files of a repository: the timestamp, what hangs on it, and how they take the place of what was
//! fetched before.
//!
//! A fetch must never break a folder that clients read. So the current names are replaced together, only by a whole
//! set that is not older, `timestamp.json` last.

use std::collections::BTreeMap;

use super::fetch::{ATTEMPTS, FILE_LIMIT, Run};
use super::folder::{FileRecord, sha256};
use super::metadata::{Kind, Metadata, Named};
use super::problem::{Problem, ProblemKind};
use crate::registry::TrustAnswer;

/// The largest timestamp that notary's client takes.
const TIMESTAMP_LIMIT: usize = 1024 * 1024;
/// How often the chain is followed anew because the server's metadata changed meanwhile.
const ROUNDS: u32 = 3;

/// A file that is to become the current one of its role. Its bytes are stored by their hash.
#[derive(Clone, Debug)]
struct Candidate {
    kind: Kind,
    version: u64,
    sha256: String,
}

/// The files that a timestamp leads to.
#[derive(Debug, Default)]
pub(super) struct CurrentSet {
    roles: BTreeMap<String, Candidate>,
    problems: Vec<Problem>,
}

impl CurrentSet {
    /// Returns the version of the root in the set.
    pub(super) fn root_version(&self) -> Option<u64> {
        self.roles.get("root").map(|root| root.version)
    }

    /// Returns role, kind and version of all files but root.
    pub(super) fn versions(&self) -> Vec<(String, Kind, u64)> {
        let others = self.roles.iter().filter(|(role, _)| *role != "root");
        others.map(|(role, one)| (role.clone(), one.kind, one.version)).collect()
    }

    fn add(&mut self, role: &str, kind: Kind, version: u64, sha256: String) {
        self.roles.insert(role.to_owned(), Candidate { kind, version, sha256 });
    }

    /// The roles in the order in which their current names are written.
    fn in_order(&self) -> impl Iterator<Item = (&String, &Candidate)> {
        let rank = |role: &str| match role {
            "root" => 0,
            "snapshot" => 2,
            "timestamp" => 3,
            _ => 1,
        };
        let mut ordered: Vec<_> = self.roles.iter().collect();
        ordered.sort_by_key(|(role, _)| rank(role));
        ordered.into_iter()
    }
}

impl Run<'_> {
    /// Fetches the timestamp and all that it leads to. The server may change meanwhile: then the files that the old
    /// timestamp names are gone, and the new one is followed.
    pub(super) async fn current(&mut self, root: Option<(u64, String)>) -> CurrentSet {
        let mut set = CurrentSet::default();
        let mut timestamp = None;
        for round in 1..=ROUNDS {
            let before = self.problems.len();
            set = self.follow(root.as_ref()).await;
            let known = set.roles.get("timestamp").map(|timestamp| timestamp.sha256.clone());
            let moved = |problem: &Problem| matches!(problem.kind, ProblemKind::Missing | ProblemKind::Broken);
            let same = round > 1 && known == timestamp;
            if set.problems.is_empty() || round == ROUNDS || same || !set.problems.iter().any(moved) {
                break;
            }
            timestamp = known;
            self.problems.truncate(before);
            tokio::time::sleep(self.options.pause).await;
        }
        set
    }

    async fn follow(&mut self, root: Option<&(u64, String)>) -> CurrentSet {
        let mut set = CurrentSet::default();
        if let Some((version, hash)) = root {
            set.add("root", Kind::Root, *version, hash.clone());
        }
        if let Err(problem) = self.follow_into(&mut set).await {
            set.problems.push(problem);
        }
        set
    }

    async fn follow_into(&mut self, set: &mut CurrentSet) -> Result<(), Problem> {
        let (answer, timestamp) = self.newest_timestamp(set).await?;
        set.add("timestamp", Kind::Timestamp, timestamp.version, sha256(&answer.body));
        let Some(named) = timestamp.meta.get("snapshot") else {
            let reason = timestamp.unusable.first().map(ToString::to_string);
            return Err(Problem::broken("timestamp.json", reason.unwrap_or_else(|| "it names no snapshot".to_owned())));
        };
        let snapshot = self.by_hash("snapshot", Kind::Snapshot, named).await?;
        set.add("snapshot", Kind::Snapshot, snapshot.version, named.sha256.clone());
        set.problems.extend(snapshot.unusable.iter().map(|error| Problem::broken("snapshot", error)));
        if !snapshot.meta.contains_key("targets") {
            set.problems.push(Problem::broken("snapshot", "it names no targets"));
        }
        if !snapshot.meta.contains_key("root") {
            set.problems.push(Problem::broken("snapshot", "it names no root"));
        }
        for (role, named) in &snapshot.meta {
            let kind = match role.as_str() {
                "snapshot" | "timestamp" => continue,
                "root" => Kind::Root,
                _ => Kind::Targets,
            };
            match self.by_hash(role, kind, named).await {
                Ok(metadata) => set.add(role, kind, metadata.version, named.sha256.clone()),
                Err(problem) => set.problems.push(problem),
            }
        }
        Ok(())
    }

    /// Requests the timestamp. A cache may serve an older one than was fetched before; then it is requested again.
    async fn newest_timestamp(&mut self, set: &mut CurrentSet) -> Result<(TrustAnswer, Metadata), Problem> {
        const FILE: &str = "timestamp.json";
        let there = self.folder.current("timestamp", Kind::Timestamp).map_err(|e| Problem::store(FILE, &e))?;
        let mut attempt = 1;
        loop {
            let answer = self.request(FILE, TIMESTAMP_LIMIT, true).await?;
            let timestamp = self.keep("timestamp", Kind::Timestamp, &answer)?;
            let Some((newer, _)) = there.as_ref().filter(|(there, _)| there.version > timestamp.version) else {
                return Ok((answer, timestamp));
            };
            if attempt == ATTEMPTS {
                set.problems.push(older(FILE, timestamp.version, newer.version));
                return Ok((answer, timestamp));
            }
            attempt += 1;
            tokio::time::sleep(self.options.pause).await;
        }
    }

    /// Returns the file with this hash: stored before, requested by hash, or under the role's bare name, where some
    /// servers have it earlier.
    async fn by_hash(&mut self, role: &str, kind: Kind, named: &Named) -> Result<Metadata, Problem> {
        let file = format!("{role}.{}.json", named.sha256);
        let there = self.folder.read(&file).map_err(|e| Problem::store(&file, &e))?;
        if let Some(there) = there.filter(|there| sha256(there) == named.sha256)
            && let Some(recorded) = self.files.get(&file).or(self.recorded(&file)).cloned()
            && let Ok(metadata) = Metadata::parse(&there, kind)
            && let Ok(Some(by_version)) = self.folder.read(&format!("{}.{role}.json", metadata.version))
            && by_version == there
        {
            check_length(&file, there.len(), named)?;
            self.files.insert(file, recorded);
            return Ok(metadata);
        }
        let mut attempt = 1;
        let answer = loop {
            let problem = match self.request(&file, FILE_LIMIT, false).await {
                Ok(answer) => break answer,
                Err(problem) => problem,
            };
            if problem.kind != ProblemKind::Missing {
                return Err(problem);
            }
            if let Ok(answer) = self.request(&format!("{role}.json"), FILE_LIMIT, false).await
                && sha256(&answer.body) == named.sha256
            {
                break answer;
            }
            if attempt == ATTEMPTS {
                return Err(problem);
            }
            attempt += 1;
            tokio::time::sleep(self.options.pause).await;
        };
        let found = sha256(&answer.body);
        if found != named.sha256 {
            return Err(Problem::broken(&file, format!("its bytes have the SHA-256 {found}")));
        }
        check_length(&file, answer.body.len(), named)?;
        self.keep_named(role, kind, &answer)
    }

    /// Writes the current names, if that makes the folder no worse.
    pub(super) fn publish(&mut self, mut set: CurrentSet) {
        let whole = set.problems.is_empty();
        self.problems.append(&mut set.problems);
        let keeps_working = !whole && self.folder.is_whole();
        let mut conflicts = Vec::new();
        for (role, new) in set.in_order() {
            match self.conflict(role, new) {
                Ok(conflict) => conflicts.extend(conflict),
                Err(problem) => {
                    self.problems.push(problem);
                    return;
                }
            }
        }
        let replaces = conflicts.is_empty();
        for conflict in conflicts {
            // The timestamp's age was reported when it was fetched.
            if !self.problems.contains(&conflict) {
                self.problems.push(conflict);
            }
        }
        if keeps_working || !replaces {
            return;
        }
        for (role, new) in set.in_order() {
            if let Err(problem) = self.replace(role, new) {
                self.problems.push(problem);
                return;
            }
        }
    }

    /// Returns why a file must not take the place of the current one of its role.
    fn conflict(&self, role: &str, new: &Candidate) -> Result<Option<Problem>, Problem> {
        let file = format!("{role}.json");
        let there = self.folder.current(role, new.kind).map_err(|e| Problem::store(&file, &e))?;
        Ok(match there {
            Some((there, _)) if there.version > new.version => Some(older(&file, new.version, there.version)),
            Some((there, hash)) if there.version == new.version && hash != new.sha256 => Some(Problem::new(
                ProblemKind::Changed,
                file,
                format!(
                    "the server has another version {} than was fetched before, which stays the current one; the new \
                     one is stored by its hash. If this is another repository or server, fetch it with another --to",
                    there.version
                ),
            )),
            _ => None,
        })
    }

    fn replace(&mut self, role: &str, new: &Candidate) -> Result<(), Problem> {
        let (file, stored) = (format!("{role}.json"), format!("{role}.{}.json", new.sha256));
        let failed = |error| Problem::store(&file, &error);
        let bytes = self.folder.read(&stored).map_err(failed)?.filter(|bytes| sha256(bytes) == new.sha256);
        let Some(bytes) = bytes else {
            return Err(Problem::new(ProblemKind::Store, file, format!("{stored} changed while it was in use")));
        };
        self.folder.replace(&file, &bytes).map_err(failed)?;
        let record: Option<FileRecord> = self.files.get(&stored).cloned();
        if let Some(record) = record {
            self.files.insert(file, record);
        }
        Ok(())
    }
}

fn older(file: &str, version: u64, there: u64) -> Problem {
    Problem::new(
        ProblemKind::Changed,
        file,
        format!(
            "the server now has version {version}, and version {there} was fetched before, which stays the current one"
        ),
    )
}

fn check_length(file: &str, found: usize, named: &Named) -> Result<(), Problem> {
    match named.length {
        Some(length) if length != found as u64 => {
            Err(Problem::broken(file, format!("it has {found} bytes, and should have {length}")))
        }
        _ => Ok(()),
    }
}
