//! Fetching one repository: every root downwards from the present one, the timestamp, the snapshot that
//! it names, and every role that the snapshot names (spec notary-dct 1, 2.2).

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::folder::{FileRecord, FolderError, GunFolder, GunRecord, Kept, State, sha256};
use super::gun::Gun;
use super::metadata::{Kind, Metadata, Named};
use crate::registry::{CallError, TrustAnswer, TrustServer};

/// The largest timestamp, and the largest file of any other role, as notary's client takes them.
const TIMESTAMP_LIMIT: usize = 1024 * 1024;
const FILE_LIMIT: usize = 100 * 1024 * 1024;
/// How many versions of root are asked for at most.
const ROOTS_LIMIT: u64 = 10_000;
/// How many versions of root in a row may be missing before the older ones are given up.
const ROOTS_MISSING: u32 = 5;
/// How often a file is asked for that must be there and is 404: servers and caches flap.
const ATTEMPTS: u32 = 3;
/// How often the whole is begun anew because the server's metadata changed meanwhile.
const ROUNDS: u32 = 3;

/// What is wrong with a repository's copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of fault it is.
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
    /// The server says that it is not there.
    Missing,
    /// 401 or 403.
    Forbidden,
    /// It is there and is not what it should be: no metadata, another hash or length.
    Broken,
    /// No usable answer: network, 5xx, too slow, too long.
    Unavailable,
    /// The server has something older than, or another thing than, what was fetched before.
    Changed,
    /// It could not be stored.
    Store,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.file, self.reason)
    }
}

/// Fetches one repository into its folder and returns the record, which is stored as well unless the
/// server had nothing.
pub(super) async fn fetch(server: &TrustServer, top: &std::path::Path, gun: &Gun, pause: Duration) -> GunRecord {
    let mut run =
        Run { server, gun, folder: GunFolder::new(top, gun), pause, files: BTreeMap::new(), problems: Vec::new() };
    run.folder.sweep();
    let before = run.folder.record();
    let state = run.repository().await;
    let mut record = GunRecord {
        gun: gun.to_string(),
        server: server.name().to_owned(),
        state,
        asked: now(),
        problems: run.problems,
        files: run.files,
    };
    let Some(before) = before else {
        if !record.files.is_empty() {
            store(&run.folder, &mut record);
        }
        return record;
    };
    // What was fetched earlier is still there, and is still told of.
    for (path, file) in before.files {
        record.files.entry(path).or_insert(file);
    }
    store(&run.folder, &mut record);
    record
}

fn store(folder: &GunFolder, record: &mut GunRecord) {
    if let Err(error) = folder.write_record(record) {
        record.problems.push(Problem {
            kind: ProblemKind::Store,
            file: "record.json".into(),
            reason: error.to_string(),
        });
        record.state = State::Incomplete;
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// One repository's fetch.
struct Run<'a> {
    server: &'a TrustServer,
    gun: &'a Gun,
    folder: GunFolder,
    /// The wait before something is asked for once more.
    pause: Duration,
    files: BTreeMap<String, FileRecord>,
    problems: Vec<Problem>,
}

/// Why a file was not had.
type Lost = Problem;

impl Run<'_> {
    async fn repository(&mut self) -> State {
        let root = match self.ask("root.json", FILE_LIMIT, true).await {
            Ok(answer) => answer,
            Err(problem) => {
                let state = match problem.kind {
                    ProblemKind::Missing => State::Missing,
                    ProblemKind::Forbidden => State::Forbidden,
                    _ => State::Failed,
                };
                self.problems.push(problem);
                return state;
            }
        };
        let version = match self.store("root", Kind::Root, &root) {
            Ok(metadata) => Some(metadata.version),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        };
        if let Some(version) = version {
            self.older_roots(version).await;
        }
        self.current(&sha256(&root.body)).await;
        if self.files.is_empty() {
            State::Failed
        } else if self.problems.is_empty() {
            State::Complete
        } else {
            State::Incomplete
        }
    }

    /// Every root before the present one; they prove how keys came to be trusted.
    async fn older_roots(&mut self, current: u64) {
        let mut missing = 0;
        let lowest = current.saturating_sub(ROOTS_LIMIT).max(1);
        for version in (lowest..current).rev() {
            let file = format!("{version}.root.json");
            let got = match self.ask(&file, FILE_LIMIT, false).await {
                Ok(answer) => self.store_root(version, &file, &answer),
                Err(problem) => Err(problem),
            };
            match got {
                Ok(()) => missing = 0,
                Err(problem) => {
                    if problem.kind == ProblemKind::Missing {
                        missing += 1;
                    }
                    self.problems.push(problem);
                }
            }
            if missing >= ROOTS_MISSING && version > lowest {
                self.problem(
                    ProblemKind::Missing,
                    &file,
                    "older versions were not asked for, after so many missing ones",
                );
                return;
            }
        }
        if lowest > 1 {
            self.problem(ProblemKind::Missing, "1.root.json", "the present root has a version beyond all reason");
        }
    }

    fn store_root(&mut self, version: u64, file: &str, answer: &TrustAnswer) -> Result<(), Lost> {
        let metadata = Metadata::parse(&answer.body, Kind::Root).map_err(|e| broken(file, e))?;
        if metadata.version != version {
            return Err(broken(file, format!("it says that it is version {}", metadata.version)));
        }
        self.keep(file, answer)?;
        self.keep(&format!("root.{}.json", sha256(&answer.body)), answer)
    }

    /// The timestamp and all that hangs on it. It may change while it is followed: then what it named
    /// is gone, and the new one is followed.
    async fn current(&mut self, root: &str) {
        let mut lost = Vec::new();
        for round in 1..=ROUNDS {
            let before = self.files.get("timestamp.json").map(|file| file.sha256.clone());
            lost = self.follow(root).await;
            let after = self.files.get("timestamp.json").map(|file| file.sha256.clone());
            if lost.is_empty() || round == ROUNDS || (round > 1 && before == after) {
                break;
            }
            if !lost.iter().any(|problem| matches!(problem.kind, ProblemKind::Missing | ProblemKind::Broken)) {
                break;
            }
            tokio::time::sleep(self.pause).await;
        }
        self.problems.append(&mut lost);
    }

    async fn follow(&mut self, root: &str) -> Vec<Lost> {
        let timestamp = match self.ask("timestamp.json", TIMESTAMP_LIMIT, false).await {
            Ok(answer) => self.store("timestamp", Kind::Timestamp, &answer),
            Err(problem) => Err(problem),
        };
        let named = match timestamp {
            Ok(timestamp) => match timestamp.meta.get("snapshot") {
                Some(named) => named.clone(),
                None => {
                    let why = timestamp.unusable.first().map(ToString::to_string);
                    return vec![broken("timestamp.json", why.unwrap_or_else(|| "it names no snapshot".to_owned()))];
                }
            },
            Err(problem) => return vec![problem],
        };
        let snapshot = match self.by_hash("snapshot", &named).await {
            Ok(answer) => self.store_named("snapshot", Kind::Snapshot, &answer),
            Err(problem) => Err(problem),
        };
        let snapshot = match snapshot {
            Ok(snapshot) => snapshot,
            Err(problem) => return vec![problem],
        };
        let mut lost: Vec<Lost> = snapshot.unusable.iter().map(|error| broken("snapshot", error)).collect();
        if !snapshot.meta.contains_key("targets") {
            lost.push(broken("snapshot", "it names no targets"));
        }
        for (role, named) in &snapshot.meta {
            let got = match role.as_str() {
                // The present one, had already; or one that came in between.
                "root" if named.sha256 == root => continue,
                "root" => match self.by_hash(role, named).await {
                    Ok(answer) => self.store_named(role, Kind::Root, &answer),
                    Err(problem) => Err(problem),
                },
                "snapshot" | "timestamp" => continue,
                _ => match self.by_hash(role, named).await {
                    Ok(answer) => self.store_named(role, Kind::Targets, &answer),
                    Err(problem) => Err(problem),
                },
            };
            lost.extend(got.err());
        }
        lost
    }

    /// Asks for a file by its hash, and compares hash and length.
    async fn by_hash(&mut self, role: &str, named: &Named) -> Result<TrustAnswer, Lost> {
        let file = format!("{role}.{}.json", named.sha256);
        let answer = self.ask(&file, FILE_LIMIT, true).await?;
        let found = sha256(&answer.body);
        if found != named.sha256 {
            return Err(broken(&file, format!("its bytes have the SHA-256 {found}")));
        }
        match named.length {
            Some(length) if length != answer.body.len() as u64 => {
                Err(broken(&file, format!("it has {} bytes, and should have {length}", answer.body.len())))
            }
            _ => Ok(answer),
        }
    }

    /// Asks for a file; one that should be there is asked for again when it is said to be missing.
    async fn ask(&mut self, file: &str, limit: usize, expected: bool) -> Result<TrustAnswer, Lost> {
        let gun = (self.gun.registry(), self.gun.as_str());
        let mut attempt = 1;
        loop {
            let answer = self.server.metadata(gun, file, limit).await.map_err(|error| lost(file, &error))?;
            let kind = match answer.status {
                StatusCode::OK => return Ok(answer),
                StatusCode::NOT_FOUND if expected && attempt < ATTEMPTS => {
                    attempt += 1;
                    tokio::time::sleep(self.pause).await;
                    continue;
                }
                StatusCode::NOT_FOUND => ProblemKind::Missing,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ProblemKind::Forbidden,
                _ => ProblemKind::Unavailable,
            };
            return Err(Problem {
                kind,
                file: file.to_owned(),
                reason: format!("the server answered {}", answer.status_line),
            });
        }
    }

    /// Stores a file that other metadata names by its hash. It is what was signed, and is kept by its hash
    /// also when it cannot be read: later it cannot be had.
    fn store_named(&mut self, role: &str, kind: Kind, answer: &TrustAnswer) -> Result<Metadata, Lost> {
        self.keep(&format!("{role}.{}.json", sha256(&answer.body)), answer)?;
        self.store(role, kind, answer)
    }

    /// Stores a role's file under all its names: by hash, by version, and as the present one.
    fn store(&mut self, role: &str, kind: Kind, answer: &TrustAnswer) -> Result<Metadata, Lost> {
        let current = format!("{role}.json");
        let metadata = Metadata::parse(&answer.body, kind).map_err(|e| broken(&current, e))?;
        self.keep(&format!("{role}.{}.json", sha256(&answer.body)), answer)?;
        self.keep(&format!("{}.{role}.json", metadata.version), answer)?;
        let there = self.folder.read(&current).map_err(|e| unstored(&current, &e))?;
        let newer = there.filter(|there| *there != *answer.body).and_then(|there| Metadata::parse(&there, kind).ok());
        if let Some(newer) = newer.filter(|there| there.version > metadata.version) {
            return Err(Problem {
                kind: ProblemKind::Changed,
                file: current,
                reason: format!(
                    "the server now has version {}, and version {} was fetched before, which stays the present one",
                    metadata.version, newer.version
                ),
            });
        }
        self.folder.replace(&current, &answer.body).map_err(|e| unstored(&current, &e))?;
        self.note(current, answer);
        Ok(metadata)
    }

    /// Stores a file under a name that never changes.
    fn keep(&mut self, name: &str, answer: &TrustAnswer) -> Result<(), Lost> {
        match self.folder.keep(name, &answer.body).map_err(|e| unstored(name, &e))? {
            Kept::Same => {
                self.note(name.to_owned(), answer);
                Ok(())
            }
            Kept::Differs => Err(Problem {
                kind: ProblemKind::Changed,
                file: name.to_owned(),
                reason: "the server has other bytes under this name than were fetched before; those stay, \
                         and the new ones are stored by their hash"
                    .to_owned(),
            }),
        }
    }

    fn note(&mut self, name: String, answer: &TrustAnswer) {
        let record = FileRecord {
            sha256: sha256(&answer.body),
            length: answer.body.len() as u64,
            fetched: now(),
            url: answer.url.clone(),
            headers: answer.headers.clone(),
        };
        self.files.insert(name, record);
    }

    fn problem(&mut self, kind: ProblemKind, file: &str, reason: &str) {
        self.problems.push(Problem { kind, file: file.to_owned(), reason: reason.to_owned() });
    }
}

fn broken(file: &str, reason: impl ToString) -> Problem {
    Problem { kind: ProblemKind::Broken, file: file.to_owned(), reason: reason.to_string() }
}

fn unstored(file: &str, error: &FolderError) -> Problem {
    Problem { kind: ProblemKind::Store, file: file.to_owned(), reason: error.to_string() }
}

fn lost(file: &str, error: &CallError) -> Problem {
    let refused = match error {
        CallError::Refused(refusal) => Some(refusal.status()),
        CallError::Token(error) => error.status(),
        _ => None,
    };
    let kind = match refused {
        Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => ProblemKind::Forbidden,
        _ => ProblemKind::Unavailable,
    };
    Problem { kind, file: file.to_owned(), reason: error.to_string() }
}
