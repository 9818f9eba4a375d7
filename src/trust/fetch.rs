//! Fetching one repository: the roots, the timestamp, the snapshot that it names, and every role that the
//! snapshot names (spec notary-dct 1, 2.2).
//!
//! Files whose names never change (by hash, by version) are stored as they come. The current names (`root.json`,
//! `timestamp.json`, …) are written at the end, in [`super::current`].

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;

use super::folder::{FileRecord, GunFolder, GunRecord, Kept, State, sha256};
use super::gun::Gun;
use super::metadata::{Kind, Metadata};
use super::problem::{Problem, ProblemKind};
use crate::registry::{TrustAnswer, TrustServer};

/// The largest file of any role but timestamp, as notary's client takes it.
pub(super) const FILE_LIMIT: usize = 100 * 1024 * 1024;
/// How often a file is requested that must exist and is answered 404: servers and caches flap.
pub(super) const ATTEMPTS: u32 = 3;
/// After so many files in a row without a usable response, the rest of the repository is not requested.
const UNAVAILABLE_LIMIT: u32 = 4;
/// Notary's error code for a file that it does not have.
const NOT_FOUND: &str = "METADATA_NOT_FOUND";

/// How a repository is fetched.
#[derive(Clone, Copy, Debug)]
pub struct FetchOptions {
    /// The wait before something that should exist is requested once more.
    pub pause: Duration,
    /// Whether older versions of targets, snapshot and timestamp are requested, too.
    pub history: bool,
}

/// Fetches one repository into its folder. Returns the record of this attempt; the record in the folder also keeps
/// what earlier attempts fetched.
pub(super) async fn fetch(server: &TrustServer, top: &std::path::Path, gun: &Gun, options: FetchOptions) -> GunRecord {
    let folder = GunFolder::new(top, gun);
    let mut run = Run::new(server, gun, folder, options);
    if let Err(error) = run.folder.check_links() {
        let problems = vec![Problem::store("", &error)];
        return GunRecord { problems, ..run.record(State::Failed) };
    }
    run.folder.sweep();
    let state = run.repository().await;
    let before = run.before.take();
    let mut record = run.record(state);
    let mut kept = record.clone();
    if let Some(before) = before {
        kept = before.followed_by(kept);
        record.files.clone_from(&kept.files);
    } else if record.files.is_empty() {
        return record;
    }
    if let Err(error) = run.folder.write_record(&kept) {
        record.problems.push(Problem::store("record.json", &error));
        record.state = State::Incomplete;
    }
    record
}

/// The fetch of one repository.
pub(super) struct Run<'a> {
    server: &'a TrustServer,
    gun: &'a Gun,
    pub(super) folder: GunFolder,
    pub(super) options: FetchOptions,
    /// What earlier fetches recorded.
    before: Option<GunRecord>,
    pub(super) files: BTreeMap<String, FileRecord>,
    pub(super) problems: Vec<Problem>,
    /// Files in a row without a usable response.
    unavailable: u32,
}

impl<'a> Run<'a> {
    fn new(server: &'a TrustServer, gun: &'a Gun, folder: GunFolder, options: FetchOptions) -> Self {
        let before = folder.record();
        Self { server, gun, folder, options, before, files: BTreeMap::new(), problems: Vec::new(), unavailable: 0 }
    }

    fn record(&mut self, state: State) -> GunRecord {
        GunRecord {
            gun: self.gun.to_string(),
            server: self.server.name().to_owned(),
            state,
            asked: now(),
            problems: std::mem::take(&mut self.problems),
            files: std::mem::take(&mut self.files),
        }
    }

    async fn repository(&mut self) -> State {
        let root = match self.request("root.json", FILE_LIMIT, true).await {
            Ok(answer) => self.keep("root", Kind::Root, &answer).map(|metadata| (metadata, sha256(&answer.body))),
            Err(problem) => {
                let state = match problem.kind {
                    ProblemKind::Missing => Some(State::Missing),
                    ProblemKind::Forbidden => Some(State::Forbidden),
                    ProblemKind::Unavailable => Some(State::Failed),
                    _ => None,
                };
                if let Some(state) = state {
                    self.problems.push(problem);
                    return state;
                }
                Err(problem)
            }
        };
        let root = match root {
            Ok((metadata, hash)) => Some((metadata.version, hash)),
            // The other files may be good, and cannot be had later.
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        };
        let set = self.current(root.clone()).await;
        let newest = root.map(|(version, _)| version).max(set.root_version());
        self.roots(newest).await;
        if self.options.history {
            self.history(&set).await;
        }
        self.publish(set);
        if self.files.is_empty() {
            State::Failed
        } else if self.problems.is_empty() {
            State::Complete
        } else {
            State::Incomplete
        }
    }

    /// Requests a file. One that should exist is requested again when the server says that it does not.
    pub(super) async fn request(&mut self, file: &str, limit: usize, expected: bool) -> Result<TrustAnswer, Problem> {
        if self.unavailable >= UNAVAILABLE_LIMIT {
            let reason = "not requested, because the server did not answer the requests before";
            return Err(Problem::new(ProblemKind::Unavailable, file, reason));
        }
        let answered = self.request_until_found(file, limit, if expected { ATTEMPTS } else { 1 }).await;
        match &answered {
            Err(problem) if problem.kind == ProblemKind::Unavailable => self.unavailable += 1,
            _ => self.unavailable = 0,
        }
        answered
    }

    async fn request_until_found(&self, file: &str, limit: usize, attempts: u32) -> Result<TrustAnswer, Problem> {
        let gun = (self.gun.registry(), self.gun.as_str());
        let mut attempt = 1;
        loop {
            let answer = self
                .server
                .metadata(gun, file, limit)
                .await
                .map_err(|error| self.explain(Problem::call(file, &error)))?;
            let kind = match answer.status {
                StatusCode::OK => return Ok(answer),
                StatusCode::NOT_FOUND if attempt < attempts => {
                    attempt += 1;
                    tokio::time::sleep(self.options.pause).await;
                    continue;
                }
                StatusCode::NOT_FOUND => ProblemKind::Missing,
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ProblemKind::Forbidden,
                _ => ProblemKind::Unavailable,
            };
            let mut reason = format!("the server answered {}", answer.status_line);
            if kind == ProblemKind::Missing && file == "root.json" && answer.code.as_deref() != Some(NOT_FOUND) {
                reason.push_str(
                    " without the error code of a trust server; if you expected trust data, check the address in --from",
                );
            }
            return Err(self.explain(Problem::new(kind, file, reason)));
        }
    }

    /// Adds what the user can do about a refusal.
    fn explain(&self, mut problem: Problem) -> Problem {
        if problem.kind == ProblemKind::Forbidden {
            let registry = self.gun.registry();
            problem.reason.push_str(&if self.server.withholds_login(registry) {
                format!(
                    "; the stored login for {registry} was not used, because {} is another host: if that login is \
                     meant for it, add --registry {registry}",
                    self.server.name()
                )
            } else {
                format!(
                    "; log in with `docker login {registry}` as a user who may pull it, or use --username and \
                     --password-file"
                )
            });
        }
        problem
    }

    /// Stores a file by its hash, and, if it is metadata of the role, by its version.
    pub(super) fn keep(&mut self, role: &str, kind: Kind, answer: &TrustAnswer) -> Result<Metadata, Problem> {
        let metadata = Metadata::parse(&answer.body, kind).map_err(|e| Problem::broken(&format!("{role}.json"), e))?;
        self.keep_by_hash(role, answer)?;
        self.keep_by_version(role, kind, metadata.version, answer);
        Ok(metadata)
    }

    /// Stores a file that other metadata names by its hash, also when it cannot be read: it is what was signed, and
    /// later it cannot be had.
    pub(super) fn keep_named(&mut self, role: &str, kind: Kind, answer: &TrustAnswer) -> Result<Metadata, Problem> {
        self.keep_by_hash(role, answer)?;
        self.keep(role, kind, answer)
    }

    fn keep_by_hash(&mut self, role: &str, answer: &TrustAnswer) -> Result<(), Problem> {
        let hash = sha256(&answer.body);
        let name = format!("{role}.{hash}.json");
        // A file under this name with another hash is the remains of a crash.
        self.folder.keep(&name, &answer.body, |there| sha256(there) == hash).map_err(|e| Problem::store(&name, &e))?;
        self.note(name, answer);
        Ok(())
    }

    /// Stores a file by its version. If another good file has the same version, both stay, that one under this name.
    pub(super) fn keep_by_version(&mut self, role: &str, kind: Kind, version: u64, answer: &TrustAnswer) {
        let name = format!("{version}.{role}.json");
        let is_good = |there: &[u8]| Metadata::parse(there, kind).is_ok_and(|there| there.version == version);
        match self.folder.keep(&name, &answer.body, is_good) {
            Ok(Kept::Same) => self.note(name, answer),
            Ok(Kept::Differs) => self.problems.push(Problem::new(
                ProblemKind::Changed,
                name,
                "the server has other bytes under this name than were fetched before; those stay, and the new ones \
                 are stored by their hash. If this is another repository or server, fetch it with another --to",
            )),
            Err(error) => self.problems.push(Problem::store(&name, &error)),
        }
    }

    /// Records where a file came from. Bytes that were recorded before keep their first source.
    pub(super) fn note(&mut self, name: String, answer: &TrustAnswer) {
        let hash = sha256(&answer.body);
        if let Some(known) = self.recorded(&name).filter(|known| known.sha256 == hash) {
            let known = known.clone();
            self.files.insert(name, known);
            return;
        }
        let record = FileRecord {
            sha256: hash,
            length: answer.body.len() as u64,
            fetched: Some(now()),
            url: Some(answer.url.clone()),
            headers: answer.headers.clone(),
        };
        self.files.insert(name, record);
    }

    /// Returns what earlier fetches recorded of a file.
    pub(super) fn recorded(&self, name: &str) -> Option<&FileRecord> {
        self.before.as_ref()?.files.get(name)
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}
