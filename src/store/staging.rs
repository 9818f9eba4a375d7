//! Names of files that are being written, and whose they are: `signature-1#…`, digits behind the `#`.
//!
//! A process that was killed leaves some. Nobody can tell them from those of a living process by
//! their names, unless their owner is known to be dead: a job that goes on by its journal, which
//! one process holds at a time, knows that of all earlier runs with that journal. Its files bear the
//! journal's number and one of the run, and the next run takes away what it meets of the others.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;
use std::sync::OnceLock;

use sha2::{Digest as _, Sha256};

use super::backend::Backend;
use super::layout::is_leftover;
use super::signatures::Store;

/// The digits of a 64-bit number.
const DIGITS: usize = 20;

/// Whose files a tree writes.
#[derive(Debug, Default)]
pub(super) struct Staging(OnceLock<Owner>);

#[derive(Debug)]
struct Owner {
    /// Of the journal.
    job: String,
    /// Of this run.
    run: String,
}

impl Staging {
    /// Returns what stands behind a staged file's `#`, `count` being of this process.
    pub(super) fn suffix(&self, count: u32) -> String {
        match self.0.get() {
            Some(Owner { job, run }) => format!("{job}{run}{count:010}"),
            None => format!("{}{count:010}", std::process::id()),
        }
    }

    /// Removes a file of a set's folder if an earlier run of the same job left it.
    pub(super) fn take_away(&self, folder: &Path, name: &str) {
        if !self.0.get().is_some_and(|owner| owner.left(name)) {
            return;
        }
        let file = folder.join(name);
        match fs::remove_file(&file) {
            Ok(()) => tracing::debug!(file = %file.display(), "took away what an earlier run left"),
            // `store repair` does it.
            Err(error) => tracing::debug!(file = %file.display(), %error, "cannot take away a leftover"),
        }
    }
}

impl Owner {
    fn left(&self, name: &str) -> bool {
        let suffix = name.split_once('#').filter(|_| is_leftover(name)).map(|(_, suffix)| suffix);
        let run = suffix.and_then(|suffix| suffix.strip_prefix(&self.job)).filter(|rest| rest.len() == DIGITS + 10);
        run.is_some_and(|run| !run.starts_with(&self.run))
    }
}

/// Returns a number that nobody else has, as long as its like.
pub fn staging_number() -> String {
    format!("{:0DIGITS$}", RandomState::new().build_hasher().finish())
}

/// Returns the number of something that has a name.
pub fn staging_number_of(name: &str) -> String {
    let hash = Sha256::digest(name.as_bytes());
    let number = hash.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    format!("{number:0DIGITS$}")
}

impl Store {
    /// Says that this process is the only one that writes for `job`, a [`staging_number`] that was
    /// kept since an earlier run: what that left of unfinished files is taken away wherever this
    /// one meets it. Only folders have such files.
    pub fn stage_for(&self, job: &str) {
        let is_number = job.len() == DIGITS && job.bytes().all(|byte| byte.is_ascii_digit());
        if let (Backend::Local { tree, .. }, true) = (&self.backend, is_number) {
            let _ = tree.staging.0.set(Owner { job: job.to_owned(), run: staging_number() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_earlier_runs_of_the_same_job_left_something() {
        let (job, staging) = (staging_number(), Staging::default());
        assert!(is_leftover(&format!("signature-1#{}", staging.suffix(7))));
        let run = |run: &str| Owner { job: job.clone(), run: run.to_owned() };
        let (first, second) = (run(&staging_number()), run(&staging_number()));
        let other = Owner { job: staging_number(), run: second.run.clone() };
        let name = |owner: Owner| format!("signature-3#{}", Staging(OnceLock::from(owner)).suffix(7));
        let (of_first, of_second, of_other) = (name(run(&first.run)), name(run(&second.run)), name(other));
        assert!(second.left(&of_first) && is_leftover(&of_first));
        assert!(!second.left(&of_second) && !second.left(&of_other));
        assert!(!second.left(&format!("signature-3#{}", staging.suffix(7))), "of a job without a journal");
        assert!(!second.left(&of_first[..of_first.len() - 1]) && !second.left(&format!("x{of_first}")));
        assert!(!second.left("signature-3") && !second.left(&format!("signature-3#{job}")));
    }

    #[tokio::test]
    async fn what_an_earlier_run_left_goes_away_where_it_is_met() {
        use crate::image::Digest;
        use crate::store::{SetAddress, StoreOptions, StorePath};
        let folder = tempfile::tempdir().unwrap();
        let open = || async { Store::open(folder.path().to_str().unwrap(), &StoreOptions::default()).await.unwrap() };
        let at = SetAddress::image(StorePath::parse("org/app").unwrap(), Digest::sha256(b"")).unwrap();
        let set = folder.path().join(at.to_string());
        fs::create_dir_all(&set).unwrap();
        let (job, run) = (staging_number(), staging_number());
        let (left, alive) = (format!("signature-1#{job}{run}0000000001"), "signature-1#47110000000001".to_owned());
        for name in [&left, &alive] {
            fs::write(set.join(name), "x").unwrap();
        }
        open().await.signatures(&at).await.unwrap();
        assert!(set.join(&left).exists(), "whose it is, is not known");
        let store = open().await;
        store.stage_for("no number");
        store.stage_for(&job);
        store.append(&at, b"y").await.unwrap();
        assert!(!set.join(&left).exists() && set.join(&alive).exists());
    }
}
