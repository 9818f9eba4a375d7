//! The journal: what survives a torn end, another job, a full disk, a copy.

use super::*;
use crate::image::Digest;

pub(in crate::resign) fn item(blob: &str, state: State) -> Item {
    Item {
        repository: "a/b".to_owned(),
        digest: Some(Digest::sha256(b"x")),
        blob: Some(blob.to_owned()),
        old_reference: Some("old.example/a/b:1".to_owned()),
        state,
        time: "2026-01-01T00:00:00Z".to_owned(),
        ..Item::default()
    }
}

fn job(policy: &str) -> JobIdentity {
    BTreeMap::from([("from".to_owned(), "s".to_owned()), ("policy".to_owned(), policy.to_owned())])
}

fn key(blob: &str) -> ItemKey {
    item_key("a/b", &Digest::sha256(b"x").to_string(), blob)
}

#[test]
fn a_journal_goes_on_where_it_was_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Journal::open(&path, &job("p")).unwrap();
    assert!(matches!(Journal::open(&path, &job("p")), Err(JournalError::InUse(_))));
    journal.record([&item("1", State::Signed), &item("2", State::Failed)]).unwrap();
    journal.record([&item("3", State::Refused)]).unwrap();
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let journal = Journal::open(&path, &job("p")).unwrap();
        assert!(!journal.is_done(key("2")), "what failed is tried again");
        journal.record([&item("4", State::Signed)]).unwrap();
        drop(journal);
        let journal = Journal::open(&path, &job("p")).unwrap();
        assert!(journal.is_done(key("4")), "{cut}");
    }
    std::fs::write(&path, &whole).unwrap();
    let journal = Journal::open(&path, &job("p")).unwrap();
    assert!(journal.is_done(key("1")) && journal.is_done(key("3")) && !journal.is_finished());
    assert!(journal.is_refused(key("3")) && !journal.is_refused(key("1")));
    journal.finish().unwrap();
    let id = journal.id().to_owned();
    drop(journal);
    let journal = Journal::open(&path, &job("p")).unwrap();
    assert!(journal.is_finished() && journal.id() == id);
    // A copy can be held by a process beside ours, which must not take our files for its own.
    let copy = folder.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    assert_ne!(Journal::open(&copy, &job("p")).unwrap().id(), id);
    drop(journal);
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, rest) = text.split_once(",\"id\":\"").unwrap();
    std::fs::write(&path, format!("{start}}}{}", rest.split_once("\"}").unwrap().1)).unwrap();
    assert_eq!(Journal::open(&path, &job("p")).unwrap().id(), "", "of an older version");
}

#[test]
fn what_failed_after_the_end_is_open_until_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let open = || Journal::open(&path, &job("p")).unwrap();
    let ends = || std::fs::read_to_string(&path).unwrap().matches("{\"finished\":true}\n").count();
    let journal = open();
    journal.record([&item("1", State::Signed)]).unwrap();
    journal.finish().unwrap();
    journal.finish().unwrap();
    drop(journal);
    assert_eq!(ends(), 1);
    let unread = Item { blob: None, ..item("", State::Failed) };
    let journal = open();
    journal.record([&item("1", State::Failed), &unread]).unwrap();
    drop(journal);
    let journal = open();
    assert!(journal.is_finished() && !journal.is_done(key("1")) && journal.was_unread(&unread));
    journal.record([&item("1", State::Already)]).unwrap();
    journal.finish().unwrap();
    drop(journal);
    let journal = open();
    assert!(journal.is_done(key("1")) && !journal.was_unread(&unread));
    journal.finish().unwrap();
    assert_eq!(ends(), 2, "only after further lines");
}

#[test]
fn a_first_line_without_an_end_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let line = format!("{{\"journal\":\"{}\"", "x".repeat(2 * LINE_LIMIT));
    std::fs::write(&path, line).unwrap();
    let said = read(&path, |_| ()).unwrap_err().to_string();
    assert!(said.ends_with("line 1 is too long"), "{said}");
}

#[test]
fn another_jobs_journal_is_refused_with_the_difference() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    drop(Journal::open(&path, &job("p")).unwrap());
    let refused = Journal::open(&path, &job("q")).unwrap_err().to_string();
    assert!(refused.contains(r#"its policy was "p", now it is "q""#), "{refused}");
    std::fs::write(&path, "precious\n").unwrap();
    assert!(matches!(Journal::open(&path, &job("p")), Err(JournalError::Form { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious\n", "a foreign file is left alone");
}

#[test]
fn a_line_that_cannot_be_written_is_an_error_with_the_journals_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut journal = Journal::open(&path, &job("p")).unwrap();
    // As a full disk: the file takes nothing more.
    journal.file = Mutex::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
    let error = journal.record([&item("1", State::Signed)]).unwrap_err().to_string();
    assert_eq!(error, format!("journal {}: No space left on device (os error 28)", path.display()));
    drop(journal);
    assert!(!Journal::open(&path, &job("p")).unwrap().is_done(key("1")), "the next run does it");
}

#[test]
fn a_foreign_file_without_a_line_is_left_alone_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key.pem");
    std::fs::write(&path, "precious, and no newline").unwrap();
    assert!(matches!(Journal::open(&path, &job("p")), Err(JournalError::Form { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious, and no newline");
}
