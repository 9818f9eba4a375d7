//! The store keeps its promises on every back end: memory, a folder, and a real S3 server.
//!
//! `conformance` is one list of cases, run against each; what only a folder can do wrong follows.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use countersign::image::{Algorithm, Digest};
use countersign::signature::BLOB_LIMIT;
use countersign::store::{Appended, Layout, Removed, Repaired, SetAddress, Store, StoreError, StoreOptions, StorePath};
use futures_util::TryStreamExt as _;
use tempfile::TempDir;

use crate::support::moto::Moto;

fn path(text: &str) -> StorePath {
    StorePath::parse(text).unwrap()
}

fn image(repository: &str, content: &str) -> SetAddress {
    SetAddress::image(path(repository), Digest::sha256(content.as_bytes())).unwrap()
}

/// Distinct in content and, so that nobody has to compare contents, mostly in length.
fn blob(number: usize) -> Vec<u8> {
    let mut bytes = format!("\u{a3}{number}").into_bytes();
    bytes.resize(bytes.len() + number, b'.');
    bytes
}

async fn numbers(store: &Store, at: &SetAddress) -> Vec<u32> {
    store.signatures(at).await.unwrap().iter().map(|stored| stored.number).collect()
}

async fn contents(store: &Store, at: &SetAddress) -> Vec<Vec<u8>> {
    store.signatures(at).await.unwrap().iter().map(|stored| stored.bytes.to_vec()).collect()
}

fn dense(count: usize) -> Vec<u32> {
    (1..=u32::try_from(count).unwrap()).collect()
}

async fn walked(store: &Store, under: &str) -> Vec<String> {
    let mut found: Vec<String> = store.walk(&path(under)).map_ok(|set| set.to_string()).try_collect().await.unwrap();
    found.sort();
    found
}

type Put = Box<dyn Fn(&str, &[u8]) + Send + Sync>;

/// A back end under test: the store, a second opening of the same tree (another process, as far
/// as the store can tell), and a way to put foreign files into it.
struct Bench {
    store: Store,
    other: Store,
    put: Put,
    rounds: usize,
}

mod conformance {
    use super::*;

    pub async fn appends_and_reads(bench: &Bench) {
        let store = &bench.store;
        let at = image("org/app", "append");
        assert_eq!(store.signatures(&at).await.unwrap(), []);
        assert_eq!(store.append(&at, b"one").await.unwrap(), Appended::Created(1));
        assert_eq!(store.append(&at, b"two").await.unwrap(), Appended::Created(2));
        assert_eq!(store.append(&at, b"one").await.unwrap(), Appended::AlreadyThere(1));
        assert_eq!(store.append(&at, b"TWO").await.unwrap(), Appended::Created(3));
        assert_eq!(contents(&bench.other, &at).await, [b"one", b"two", b"TWO"]);
        let release = SetAddress::release(path("openshift/release"), at.digest().clone());
        assert_eq!(store.signatures(&release).await.unwrap(), []);
        assert_eq!(store.append(&release, b"r").await.unwrap(), Appended::Created(1));
        let bare = SetAddress::release(StorePath::root(), at.digest().clone());
        assert_eq!(store.append(&bare, b"b").await.unwrap(), Appended::Created(1));
        assert_eq!(contents(store, &bare).await, [b"b"]);
        let long = Digest::from_parts(Algorithm::Sha512, &"0a".repeat(64)).unwrap();
        let long = SetAddress::image(path("host:5000/a.b_c-d"), long).unwrap();
        store.append(&long, b"x").await.unwrap();
        assert_eq!(contents(store, &long).await, [b"x"]);
    }

    pub async fn refuses_what_no_client_reads(bench: &Bench) {
        let at = image("org/app", "refuse");
        assert!(matches!(bench.store.append(&at, b"").await, Err(StoreError::Empty)));
        let largest = vec![0xA3; BLOB_LIMIT];
        assert_eq!(bench.store.append(&at, &largest).await.unwrap(), Appended::Created(1));
        assert_eq!(contents(&bench.store, &at).await, std::slice::from_ref(&largest));
        let larger = vec![0xA3; BLOB_LIMIT + 1];
        assert!(matches!(bench.store.append(&at, &larger).await, Err(StoreError::TooLarge(_))));
        (bench.put)(&format!("{at}/signature-2"), &larger);
        let error = bench.store.signatures(&at).await.unwrap_err();
        assert!(error.to_string().contains("/signature-2 is longer than") && !error.is_unavailable(), "{error}");
    }

    pub async fn sixty_four_at_once_lose_nothing(bench: &Bench) {
        let at = image("org/app", "many");
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..64 {
            let store = if number % 2 == 0 { bench.store.clone() } else { bench.other.clone() };
            let at = at.clone();
            tasks.spawn(async move { store.append(&at, &blob(number)).await.unwrap() });
        }
        let answered: BTreeSet<u32> = tasks
            .join_all()
            .await
            .into_iter()
            .map(|appended| match appended {
                Appended::Created(number) => number,
                // A conflict and a retried request look the same; what counts is that it is there.
                Appended::AlreadyThere(number) => number,
            })
            .collect();
        assert_eq!(answered, dense(64).into_iter().collect());
        assert_eq!(numbers(&bench.store, &at).await, dense(64));
        let found: BTreeSet<Vec<u8>> = contents(&bench.store, &at).await.into_iter().collect();
        assert_eq!(found, (0..64).map(blob).collect());
    }

    pub async fn sixty_four_times_the_same_is_one(bench: &Bench) {
        let at = image("org/app", "same");
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..64 {
            let store = if number % 2 == 0 { bench.store.clone() } else { bench.other.clone() };
            let at = at.clone();
            tasks.spawn(async move { store.append(&at, b"same").await.unwrap() });
        }
        let answers = tasks.join_all().await;
        assert!(answers.iter().all(|answer| matches!(answer, Appended::Created(1) | Appended::AlreadyThere(1))));
        assert_eq!(contents(&bench.store, &at).await, [b"same"]);
    }

    pub async fn removes_and_closes_the_gap(bench: &Bench) {
        let store = &bench.store;
        let at = image("org/app", "remove");
        for bytes in [b"a", b"b", b"c", b"d"] {
            store.append(&at, bytes).await.unwrap();
        }
        assert_eq!(store.remove(&at, &Digest::sha256(b"b")).await.unwrap(), Removed::Done(1));
        assert_eq!(store.remove(&at, &Digest::sha256(b"b")).await.unwrap(), Removed::NotThere);
        assert_eq!(numbers(store, &at).await, dense(3));
        assert_eq!(contents(store, &at).await, [b"a", b"c", b"d"]);
        assert_eq!(store.remove(&at, &Digest::sha256(b"d")).await.unwrap(), Removed::Done(1));
        assert_eq!(store.remove(&at, &Digest::sha256(b"a")).await.unwrap(), Removed::Done(1));
        assert_eq!(store.signatures(&at).await.unwrap()[0].number, 1);
        assert_eq!(store.append(&at, b"e").await.unwrap(), Appended::Created(2));
        for bytes in [b"c", b"e"] {
            store.remove(&at, &Digest::sha256(bytes)).await.unwrap();
        }
        assert_eq!(store.signatures(&at).await.unwrap(), []);
        assert_eq!(walked(store, "org/app").await.iter().filter(|set| **set == at.to_string()).count(), 0);
        assert_eq!(store.append(&at, b"f").await.unwrap(), Appended::Created(1));
        let missing = image("org/none", "x");
        assert_eq!(store.remove(&missing, &Digest::sha256(b"x")).await.unwrap(), Removed::NotThere);
        assert_eq!(store.repair(&missing).await.unwrap(), Repaired::default());
    }

    pub async fn removes_every_copy(bench: &Bench) {
        let at = image("org/app", "copies");
        for (number, bytes) in [(1, b"a"), (2, b"b"), (4, b"a"), (7, b"c")] {
            (bench.put)(&format!("{at}/signature-{number}"), bytes);
        }
        assert_eq!(bench.store.remove(&at, &Digest::sha256(b"a")).await.unwrap(), Removed::Done(2));
        assert_eq!(contents(&bench.store, &at).await, [b"b", b"c"]);
        assert_eq!(numbers(&bench.store, &at).await, dense(2));
    }

    pub async fn reads_a_gap_densely_and_repairs_it(bench: &Bench) {
        let store = &bench.store;
        let at = image("org/app", "gap");
        for (number, bytes) in [(2, b"a"), (10, b"c"), (9, b"b"), (300, b"a")] {
            (bench.put)(&format!("{at}/signature-{number}"), bytes);
        }
        assert_eq!(numbers(store, &at).await, [2, 9, 10, 300]);
        assert_eq!(contents(store, &at).await, [b"a", b"b", b"c", b"a"]);
        assert_eq!(store.append(&at, b"d").await.unwrap(), Appended::Created(301));
        let repaired = store.repair(&at).await.unwrap();
        assert_eq!((repaired.moved, repaired.duplicates), (4, 1));
        assert_eq!(numbers(store, &at).await, dense(4));
        assert_eq!(contents(store, &at).await, [b"a", b"b", b"c", b"d"]);
        assert_eq!(store.repair(&at).await.unwrap(), Repaired::default());
    }

    pub async fn passes_over_foreign_files(bench: &Bench) {
        let at = image("org/app", "foreign");
        for name in [
            "signature-01",
            "signature-0",
            "signature-",
            "signature-1.bak",
            "signature-x",
            "Signature-1",
            "index.html",
            "signature-5/signature-1",
            ".countersign-lock.old",
            "signature-99999999999",
        ] {
            (bench.put)(&format!("{at}/{name}"), b"foreign");
        }
        (bench.put)("org/app@sha256=abc/signature-1", b"foreign");
        (bench.put)(&format!("org/we ird@sha256={}/signature-1", at.digest().hex()), b"foreign");
        assert_eq!(bench.store.signatures(&at).await.unwrap(), []);
        assert!(!walked(&bench.store, "").await.contains(&at.to_string()));
        assert_eq!(bench.store.append(&at, b"own").await.unwrap(), Appended::Created(1));
        assert_eq!(contents(&bench.store, &at).await, [b"own"]);
    }

    pub async fn walks_everything_once(bench: &Bench) {
        let store = &bench.store;
        let deep = "w/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p";
        let mut expected = Vec::new();
        for repository in ["w/app", "w/app/sub", "w/app2", "w/ap", "w/app-x", deep] {
            for content in ["1", "2"] {
                let at = image(repository, content);
                for bytes in [b"a", b"b"] {
                    store.append(&at, bytes).await.unwrap();
                }
                expected.push(at.to_string());
            }
        }
        for prefix in ["w", "w/app"] {
            let at = SetAddress::release(path(prefix), Digest::sha256(b"r"));
            store.append(&at, b"a").await.unwrap();
            expected.push(at.to_string());
        }
        expected.sort();
        assert_eq!(walked(store, "w").await, expected);
        let all = walked(store, "").await;
        assert!(expected.iter().all(|set| all.contains(set)));
        assert_eq!(all.len(), all.iter().collect::<BTreeSet<_>>().len());
        let below_app: Vec<_> = expected
            .iter()
            .filter(|key| SetAddress::parse_key(key).unwrap().path().is_within(&path("w/app")))
            .cloned()
            .collect();
        assert_eq!(below_app.len(), 5);
        assert_eq!(walked(store, "w/app").await, below_app);
        assert_eq!(walked(store, "w/nothing").await, [""; 0]);
    }

    /// Keepers must never be missed by a reader, nobody may be lost, no gap stays at rest.
    pub async fn racing_appends_and_removals(bench: &Bench) {
        let at = image("org/app", "race");
        let keepers: Vec<Vec<u8>> = (0..4).map(|number| format!("keeper {number}").into_bytes()).collect();
        for (number, keeper) in keepers.iter().enumerate() {
            bench.store.append(&at, &blob(number)).await.unwrap();
            bench.store.append(&at, keeper).await.unwrap();
        }
        let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let reader = {
            let (store, at, keepers, done) = (bench.other.clone(), at.clone(), keepers.clone(), done.clone());
            tokio::spawn(async move {
                let mut looks = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let seen = contents(&store, &at).await;
                    assert!(keepers.iter().all(|keeper| seen.contains(keeper)), "a reader missed a keeper");
                    looks += 1;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                looks
            })
        };
        let mut tasks = tokio::task::JoinSet::new();
        for remover in 0..2 {
            let (store, at, rounds) =
                (if remover == 0 { &bench.store } else { &bench.other }.clone(), at.clone(), bench.rounds);
            tasks.spawn(async move {
                for number in (remover..rounds).step_by(2) {
                    store.append(&at, &blob(number)).await.unwrap();
                    store.remove(&at, &Digest::sha256(&blob(number))).await.unwrap_or_else(|error| panic!("{error}"));
                }
            });
        }
        for appender in 0..4 {
            let (store, at, rounds) =
                (if appender % 2 == 0 { &bench.store } else { &bench.other }.clone(), at.clone(), bench.rounds);
            tasks.spawn(async move {
                for number in 0..rounds / 4 {
                    store.append(&at, format!("added {appender} {number}").as_bytes()).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(reader.await.unwrap() > 0);
        let found = contents(&bench.store, &at).await;
        let unique: BTreeSet<_> = found.iter().cloned().collect();
        for appender in 0..4 {
            for number in 0..bench.rounds / 4 {
                assert!(
                    unique.contains(format!("added {appender} {number}").as_bytes()),
                    "{appender} {number} is lost"
                );
            }
        }
        assert!(keepers.iter().all(|keeper| unique.contains(keeper)));
        assert_eq!(unique.len(), found.len(), "a duplicate stayed");
        assert_eq!(numbers(&bench.store, &at).await, dense(found.len()), "a gap stayed");
        assert_eq!(bench.store.repair(&at).await.unwrap(), Repaired::default());
    }

    pub async fn all(bench: &Bench) {
        appends_and_reads(bench).await;
        refuses_what_no_client_reads(bench).await;
        sixty_four_at_once_lose_nothing(bench).await;
        sixty_four_times_the_same_is_one(bench).await;
        removes_and_closes_the_gap(bench).await;
        removes_every_copy(bench).await;
        reads_a_gap_densely_and_repairs_it(bench).await;
        passes_over_foreign_files(bench).await;
        walks_everything_once(bench).await;
        racing_appends_and_removals(bench).await;
    }
}

async fn folder_store() -> (TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), &StoreOptions::default()).await.unwrap();
    (folder, store)
}

fn put_file(root: &Path, key: &str, bytes: &[u8]) {
    let file = root.join(key);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_folder_conforms() {
    let (folder, store) = folder_store().await;
    let other = Store::open(&format!("file://{}", folder.path().display()), &StoreOptions::default()).await.unwrap();
    let root = folder.path().to_owned();
    let bench = Bench { store, other, put: Box::new(move |key, bytes| put_file(&root, key, bytes)), rounds: 200 };
    conformance::all(&bench).await;
    let mut folders = vec![folder.path().to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            assert!(!entry.file_name().to_string_lossy().contains('#'), "a staging file stayed: {entry:?}");
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_conforms() {
    // Foreign files cannot be put into memory; what needs them is left to the other two.
    let store = Store::memory();
    let bench = Bench { other: store.clone(), store, put: Box::new(|_, _| {}), rounds: 400 };
    conformance::appends_and_reads(&bench).await;
    conformance::sixty_four_at_once_lose_nothing(&bench).await;
    conformance::sixty_four_times_the_same_is_one(&bench).await;
    conformance::removes_and_closes_the_gap(&bench).await;
    conformance::walks_everything_once(&bench).await;
    conformance::racing_appends_and_removals(&bench).await;
}

async fn s3_store(location: &str) -> Store {
    let options = StoreOptions { variables: Moto::shared().variables(), ..StoreOptions::default() };
    Store::open(location, &options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn s3_conforms() {
    let bucket = Moto::shared().bucket();
    for prefix in ["", "/some/prefix"] {
        let location = format!("s3://{bucket}{prefix}");
        let inside = format!("{bucket}{prefix}");
        let put = move |key: &str, bytes: &[u8]| {
            let escaped = key.replace(' ', "%20");
            assert_eq!(Moto::shared().put(&format!("{inside}/{escaped}"), bytes), 200);
        };
        let bench = Bench {
            store: s3_store(&location).await,
            other: s3_store(&location).await,
            put: Box::new(put),
            rounds: 12,
        };
        if prefix.is_empty() {
            conformance::appends_and_reads(&bench).await;
            conformance::passes_over_foreign_files(&bench).await;
            conformance::walks_everything_once(&bench).await;
        } else {
            conformance::all(&bench).await;
        }
    }
}

#[tokio::test]
async fn a_missing_bucket_and_a_dead_server_are_failures() {
    let at = image("org/app", "x");
    let store = s3_store("s3://no-such-bucket/p").await;
    for error in [store.signatures(&at).await.unwrap_err(), store.append(&at, b"x").await.unwrap_err()] {
        assert!(error.is_unavailable() && error.to_string().contains("NoSuchBucket"), "{error}");
    }
    assert!(store.walk(&StorePath::root()).try_collect::<Vec<_>>().await.unwrap_err().is_unavailable());

    let mut variables = Moto::shared().variables();
    variables.insert("AWS_ENDPOINT_URL_S3".to_owned(), "http://127.0.0.1:1".to_owned());
    let options = StoreOptions { variables, ..StoreOptions::default() };
    let store = Store::open("s3://bucket", &options).await.unwrap();
    assert!(store.signatures(&at).await.unwrap_err().is_unavailable());
}

#[tokio::test]
async fn a_crashed_remover_blocks_one_set_of_a_bucket_and_no_other() {
    let bucket = Moto::shared().bucket();
    let store = s3_store(&format!("s3://{bucket}")).await;
    let (at, other) = (image("org/app", "x"), image("org/app", "y"));
    store.append(&at, b"a").await.unwrap();
    assert_eq!(Moto::shared().put(&format!("{bucket}/{at}/.countersign-lock"), b"crashed"), 200);
    assert_eq!(store.append(&other, b"a").await.unwrap(), Appended::Created(1));
    assert_eq!(contents(&store, &at).await, [b"a"]);
    let gone = Digest::sha256(b"a");
    let (removal, append) = tokio::join!(store.remove(&at, &gone), store.append(&at, b"b"));
    for error in [removal.unwrap_err(), append.unwrap_err()] {
        assert!(matches!(error, StoreError::Busy { .. }) && error.is_unavailable(), "{error}");
    }
    assert_eq!(contents(&store, &at).await, [b"a"]);
}

#[tokio::test]
async fn a_folder_written_by_skopeo_is_read_as_it_lies() {
    let (folder, store) = folder_store().await;
    let at = image("library/busybox", "skopeo");
    // skopeo truncates and rewrites from 1, and deletes what is behind the last.
    put_file(folder.path(), &format!("{at}/signature-1"), b"old");
    put_file(folder.path(), &format!("{at}/signature-1"), b"\xa3new");
    assert_eq!(contents(&store, &at).await, [b"\xa3new"]);
    assert_eq!(store.append(&at, b"two").await.unwrap(), Appended::Created(2));
    let file = folder.path().join(at.to_string()).join("signature-2");
    assert_eq!(fs::read(&file).unwrap(), b"two");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o444, 0o444, "a web server may read it");
    assert_eq!(walked(&store, "").await, [at.to_string()]);
    assert_eq!(at.layout(), Layout::Image);
}

#[tokio::test]
async fn links_are_followed_inside_the_tree_only() {
    let (folder, store) = folder_store().await;
    let outside = tempfile::tempdir().unwrap();
    put_file(outside.path(), "secret", b"secret");
    let at = image("org/app", "links");
    put_file(folder.path(), &format!("{at}/signature-1"), b"a");
    let set = folder.path().join(at.to_string());
    symlink("signature-1", set.join("signature-2")).unwrap();
    symlink(outside.path().join("secret"), set.join("signature-3")).unwrap();
    symlink("nowhere", set.join("signature-4")).unwrap();
    symlink("signature-5", set.join("signature-5")).unwrap_or(());
    fs::remove_file(set.join("signature-5")).unwrap();
    assert!(Command::new("mkfifo").arg(set.join("signature-6")).status().unwrap().success());
    assert_eq!(contents(&store, &at).await, [b"a", b"a"]);

    // A whole set, a namespace, and a way back up, by links.
    put_file(outside.path(), &format!("{at}/signature-1"), b"out");
    symlink(outside.path(), folder.path().join("out")).unwrap();
    symlink("org", folder.path().join("alias")).unwrap();
    symlink("..", folder.path().join("org/up")).unwrap();
    let out = SetAddress::parse_key(&format!("out/{at}")).unwrap();
    assert_eq!(store.signatures(&out).await.unwrap(), []);
    let error = store.append(&out, b"x").await.unwrap_err();
    assert!(error.to_string().contains("leads out of the store") && !error.is_unavailable(), "{error}");
    let fresh = image("out/new/repository", "x");
    assert!(store.append(&fresh, b"x").await.is_err());
    assert!(!outside.path().join("new").exists());
    let alias = SetAddress::parse_key(&format!("alias/app@{}", at.digest().path_form())).unwrap();
    assert_eq!(contents(&store, &alias).await, [b"a", b"a"]);
    assert_eq!(walked(&store, "").await, [alias.to_string(), at.to_string()]);
    assert_eq!(walked(&store, "alias").await, [alias.to_string()]);
}

#[tokio::test]
async fn odd_names_beside_the_sets_do_not_hide_them() {
    use std::os::unix::ffi::OsStrExt as _;
    let (folder, store) = folder_store().await;
    let at = image("org/app", "odd");
    put_file(folder.path(), &format!("{at}/signature-1"), b"a");
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe\n\x01");
    fs::write(folder.path().join(at.to_string()).join(odd), "").unwrap();
    fs::create_dir(folder.path().join("org").join(odd)).unwrap();
    assert_eq!(contents(&store, &at).await, [b"a"]);
    assert_eq!(walked(&store, "").await, [at.to_string()]);
    put_file(folder.path(), "file", b"");
    let below_file = image("file/app", "x");
    assert_eq!(store.signatures(&below_file).await.unwrap(), []);
    assert!(matches!(store.append(&below_file, b"x").await, Err(StoreError::Unwritable { .. })));
    let long_name = image(&"n".repeat(300), "x");
    assert_eq!(store.signatures(&long_name).await.unwrap(), []);
    assert!(matches!(store.append(&long_name, b"x").await, Err(StoreError::Unwritable { .. })));
}

#[tokio::test]
async fn a_lost_root_is_a_failure_not_an_empty_store() {
    let (folder, store) = folder_store().await;
    let at = image("org/app", "x");
    store.append(&at, b"a").await.unwrap();
    fs::rename(folder.path(), folder.path().with_extension("away")).unwrap();
    let read = store.signatures(&at).await;
    let walked = store.walk(&StorePath::root()).try_collect::<Vec<_>>().await;
    let appended = store.append(&at, b"b").await;
    fs::rename(folder.path().with_extension("away"), folder.path()).unwrap();
    assert!(read.unwrap_err().is_unavailable());
    assert!(walked.unwrap_err().is_unavailable());
    assert!(appended.unwrap_err().is_unavailable());
    assert_eq!(contents(&store, &at).await, [b"a"]);
}

#[tokio::test]
async fn a_set_has_a_limit() {
    let (folder, store) = folder_store().await;
    let at = image("org/app", "limit");
    for number in 1..=10_001 {
        put_file(folder.path(), &format!("{at}/signature-{number}"), b"");
    }
    assert!(matches!(store.signatures(&at).await, Err(StoreError::TooMany { .. })));
    let options = StoreOptions { read_limit: 10, ..StoreOptions::default() };
    let small = Store::open(folder.path().to_str().unwrap(), &options).await.unwrap();
    let at = image("org/app", "bytes");
    for bytes in [b"12345", b"23456"] {
        small.append(&at, bytes).await.unwrap();
    }
    assert_eq!(small.signatures(&at).await.unwrap().len(), 2);
    small.append(&at, b"x").await.unwrap();
    assert!(matches!(small.signatures(&at).await, Err(StoreError::TooMany { .. })));
    put_file(folder.path(), &format!("{}/signature-4294967295", image("org/app", "max")), b"m");
    assert!(matches!(store.append(&image("org/app", "max"), b"x").await, Err(StoreError::TooMany { .. })));
}

#[tokio::test]
async fn repair_sweeps_what_a_crash_left() {
    let (folder, store) = folder_store().await;
    let at = image("org/app", "sweep");
    store.append(&at, b"a").await.unwrap();
    let set = folder.path().join(at.to_string());
    for (name, hours) in [("signature-2#1", 2), ("signature-2#4711", 0), ("notes#1", 2)] {
        fs::write(set.join(name), "half").unwrap();
        let file = fs::File::options().write(true).open(set.join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_hours(hours)).unwrap();
    }
    assert_eq!(contents(&store, &at).await, [b"a"]);
    assert_eq!(store.repair(&at).await.unwrap(), Repaired { swept: 1, ..Repaired::default() });
    assert!(
        !set.join("signature-2#1").exists() && set.join("signature-2#4711").exists() && set.join("notes#1").exists()
    );
}

/// What a test needs of another process; does nothing in an ordinary run.
#[tokio::test]
async fn child_process() {
    let Ok(job) = std::env::var("COUNTERSIGN_TEST_CHILD") else { return };
    let (job, root) = job.split_once(' ').unwrap();
    let at = image("org/app", "processes");
    if job == "refused" {
        let store = Store::open(root, &StoreOptions::default()).await.unwrap();
        let read = store.signatures(&at).await.unwrap_err();
        let append = store.append(&at, b"x").await.unwrap_err();
        let walk = store.walk(&StorePath::root()).try_collect::<Vec<_>>().await.unwrap_err();
        assert!(read.is_unavailable() && append.is_unavailable() && walk.is_unavailable(), "{read} {append} {walk}");
        return;
    }
    let store = Store::open(root, &StoreOptions::default()).await.unwrap();
    for count in 0.. {
        let bytes = format!("{job} {count}");
        store.append(&at, bytes.as_bytes()).await.unwrap();
        println!("\nstored {bytes}");
        if count % 3 == 2 {
            // Every third goes again, so that numbers are moved while others write.
            let gone = format!("{job} {}", count - 1);
            println!("\nremoving {gone}");
            store.remove(&at, &Digest::sha256(gone.as_bytes())).await.unwrap();
        }
        if job.starts_with("twelve") && count == 11 {
            break;
        }
    }
}

fn child(job: &str, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "store::child_process", "--nocapture"])
        .env("COUNTERSIGN_TEST_CHILD", format!("{job} {}", root.display()))
        .stdout(Stdio::piped());
    command
}

/// What the children said they had stored, less what they were to remove.
fn told(output: impl std::io::Read, stored: &mut HashMap<String, bool>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if let Some(name) = line.strip_prefix("stored ") {
            stored.insert(name.to_owned(), true);
        } else if let Some(name) = line.strip_prefix("removing ") {
            stored.remove(name);
        }
    }
}

#[tokio::test]
async fn eight_processes_lose_nothing() {
    let (folder, store) = folder_store().await;
    let children: Vec<_> =
        (0..8).map(|number| child(&format!("twelve-{number}"), folder.path()).spawn().unwrap()).collect();
    let mut stored = HashMap::new();
    for mut child in children {
        told(child.stdout.take().unwrap(), &mut stored);
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(stored.len(), 64);
    let at = image("org/app", "processes");
    let found: BTreeSet<_> = contents(&store, &at).await.into_iter().map(|b| String::from_utf8(b).unwrap()).collect();
    assert_eq!(found, stored.into_keys().collect());
    assert_eq!(numbers(&store, &at).await, dense(64));
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let (folder, store) = folder_store().await;
    let at = image("org/app", "processes");
    let mut stored = HashMap::new();
    for round in 0..5 {
        let mut child = child(&format!("endless-{round}"), folder.path()).spawn().unwrap();
        tokio::time::sleep(Duration::from_millis(150 + 37 * round)).await;
        child.kill().unwrap();
        told(child.stdout.take().unwrap(), &mut stored);
        child.wait().unwrap();
    }
    assert!(!stored.is_empty());
    let found: BTreeSet<_> = contents(&store, &at).await.into_iter().map(|b| String::from_utf8(b).unwrap()).collect();
    for name in stored.keys() {
        assert!(found.contains(name), "{name} was acknowledged and is lost");
    }
    // A kill may leave a gap or a double; anybody's repair, or next removal, settles it.
    store.repair(&at).await.unwrap();
    let after = contents(&store, &at).await;
    assert_eq!(after.iter().map(|b| String::from_utf8(b.clone()).unwrap()).collect::<BTreeSet<_>>(), found);
    assert_eq!(numbers(&store, &at).await, dense(found.len()));
}

#[tokio::test]
async fn a_folder_that_may_not_be_read_is_a_failure() {
    let (folder, store) = folder_store().await;
    let at = image("org/app", "processes");
    store.append(&at, b"a").await.unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(folder.path().join("org"), fs::Permissions::from_mode(0o0)).unwrap();
    // Root may read everything: ask as somebody else, by a copy of this program that he may run.
    let is_root = fs::read_dir(folder.path().join("org")).is_ok();
    let mut command = child("refused", folder.path());
    if is_root {
        use std::os::unix::process::CommandExt as _;
        let elsewhere = tempfile::tempdir().unwrap();
        let copy = elsewhere.path().join("it");
        fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
        fs::set_permissions(elsewhere.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut nobody = Command::new(&copy);
        nobody.args(command.get_args()).current_dir("/").uid(65534).gid(65534);
        for (name, value) in command.get_envs() {
            nobody.env(name, value.unwrap());
        }
        let output = nobody.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    } else {
        assert!(command.stderr(Stdio::piped()).output().unwrap().status.success());
    }
    fs::set_permissions(folder.path().join("org"), fs::Permissions::from_mode(0o755)).unwrap();
}
