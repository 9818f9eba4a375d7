//! Every version of root, and, if wanted, the older versions of the other roles.

use super::current::CurrentSet;
use super::fetch::{FILE_LIMIT, Run};
use super::folder::sha256;
use super::metadata::{Kind, Metadata};
use super::problem::{Problem, ProblemKind};

/// The most versions of a role that are requested.
const VERSIONS_LIMIT: u64 = 10_000;
/// After so many missing versions in a row, the versions below are not requested.
const MISSING_LIMIT: u32 = 5;

impl Run<'_> {
    /// Fetches every root; together they prove how keys came to be trusted. `newest` is the highest version seen.
    pub(super) async fn roots(&mut self, newest: Option<u64>) {
        let newest = newest.max(self.folder.highest_root());
        let Some(newest) = newest else {
            self.roots_upwards(1).await;
            return;
        };
        // A cache may still have served an older root.
        if newest < u64::MAX {
            self.roots_upwards(newest + 1).await;
        }
        let mut missing = 0;
        let lowest = newest.saturating_sub(VERSIONS_LIMIT).max(1);
        for version in (lowest..=newest).rev() {
            match self.root(version, true).await {
                Ok(()) => missing = 0,
                Err(problem) => {
                    missing += u32::from(problem.kind == ProblemKind::Missing);
                    self.problems.push(problem);
                }
            }
            if missing >= MISSING_LIMIT && version > lowest {
                let found = self.roots_upwards(1).await;
                if found + 1 < version {
                    self.problems.push(Problem::new(
                        ProblemKind::Missing,
                        format!("{}.root.json", version - 1),
                        format!(
                            "versions {} to {} were not requested, because the {MISSING_LIMIT} above them are missing",
                            found + 1,
                            version - 1
                        ),
                    ));
                }
                return;
            }
        }
        if lowest > 1 {
            let reason = format!("the current root has version {newest}; older than {lowest} was not requested");
            self.problems.push(Problem::new(ProblemKind::Missing, "1.root.json", reason));
        }
    }

    /// Fetches roots from `first` up until one is missing. Returns the last version that exists, `first - 1` if none.
    async fn roots_upwards(&mut self, first: u64) -> u64 {
        for version in first..first.saturating_add(VERSIONS_LIMIT) {
            match self.root(version, false).await {
                Ok(()) => {}
                Err(problem) => {
                    if problem.kind != ProblemKind::Missing {
                        self.problems.push(problem);
                    }
                    return version - 1;
                }
            }
        }
        first.saturating_add(VERSIONS_LIMIT) - 1
    }

    async fn root(&mut self, version: u64, expected: bool) -> Result<(), Problem> {
        self.version("root", Kind::Root, version, expected).await
    }

    /// Fetches one version of a role, unless this or an earlier fetch has it.
    async fn version(&mut self, role: &str, kind: Kind, version: u64, expected: bool) -> Result<(), Problem> {
        let file = format!("{version}.{role}.json");
        if self.files.contains_key(&file) {
            return Ok(());
        }
        let there = self.folder.read(&file).map_err(|e| Problem::store(&file, &e))?;
        if let (Some(there), Some(recorded)) = (there, self.recorded(&file))
            && sha256(&there) == recorded.sha256
            && let Ok(Some(by_hash)) = self.folder.read(&format!("{role}.{}.json", recorded.sha256))
            && by_hash == there
        {
            return Ok(());
        }
        let answer = self.request(&file, FILE_LIMIT, expected).await?;
        let metadata = Metadata::parse(&answer.body, kind).map_err(|e| Problem::broken(&file, e))?;
        if metadata.version != version {
            return Err(Problem::broken(&file, format!("it says that it is version {}", metadata.version)));
        }
        self.keep(role, kind, &answer).map(drop)
    }

    /// Fetches the older versions of all roles but root. Servers need not keep them, so missing ones are no fault.
    pub(super) async fn history(&mut self, set: &CurrentSet) {
        for (role, kind, version) in set.versions() {
            let mut missing = 0;
            for version in (version.saturating_sub(VERSIONS_LIMIT).max(1)..version).rev() {
                match self.version(&role, kind, version, false).await {
                    Ok(()) => missing = 0,
                    Err(problem) if problem.kind == ProblemKind::Missing => missing += 1,
                    Err(problem) => self.problems.push(problem),
                }
                if missing >= MISSING_LIMIT {
                    break;
                }
            }
        }
    }
}
