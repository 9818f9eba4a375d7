//! A disk that is full: of signatures, and of the journal.

use std::path::PathBuf;

use super::{Job, claims};
use crate::support::client::text;
use crate::support::small_disk::SmallDisk;

const COUNT: usize = 300;

#[test]
fn a_full_disk_is_told_and_the_next_run_completes() {
    let Some(disk) = SmallDisk::mount(400) else { return };
    let job = Job::new(COUNT);
    let (to, journal) = (disk.path().join("to"), job.host.path().join("journal"));
    let flags = ["--journal", text(&journal)];
    let output = job.command(text(&to), &flags).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let (signed, failed) = (summary["signed"].as_u64().unwrap(), summary["failed"].as_u64().unwrap());
    assert!(signed > 0 && failed > 0 && signed + failed == COUNT as u64, "{summary}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("cannot write") && said.contains("No space left on device"), "{said}");
    // What is there is whole, and is what was said to be there.
    let written = claims(&to);
    assert_eq!((written.len() as u64, written.values().all(|count| *count == 1)), (signed, true));

    disk.grow(64 * 1024);
    let last = job.finish(text(&to), &flags);
    // The first run did not come to its end, so this one does what is left.
    assert_eq!((&last["signed"], &last["resumed"]), (&failed.into(), &signed.into()));
    let written = claims(&to);
    assert_eq!((written.len(), written.values().all(|count| *count == 1)), (COUNT, true));
}

#[test]
fn a_journal_that_finds_no_room_stops_the_job_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount(64) else { return };
    let job = Job::new(COUNT);
    let to = job.host.path().join("to");
    let journal: PathBuf = disk.path().join("journal");
    let flags = ["--journal", text(&journal)];
    let output = job.command(text(&to), &flags).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("journal {}", journal.display())) && said.contains("No space left"), "{said}");

    disk.grow(8 * 1024);
    let last = job.finish(text(&to), &flags);
    assert_eq!(last["failed"], 0, "{last}");
    let written = claims(&to);
    assert_eq!((written.len(), written.values().all(|count| *count == 1)), (COUNT, true));
}
