//! The store keeps its promises on every back end: memory, a folder, and a real S3 server.
//!
//! `conformance` is one list of cases, run against each; what only a folder can do wrong follows.

mod conformance;

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
    symlink("signature-5", set.join("signature-5")).unwrap();
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
    assert!(matches!(store.append(&image("org/app", "max"), b"x").await, Err(StoreError::Full { .. })));
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
        match store.append(&at, bytes.as_bytes()).await {
            Ok(_) => println!("\nstored {bytes}"),
            // Faster than the test that ends this process.
            Err(StoreError::Full { .. }) => return,
            Err(error) => panic!("{error}"),
        }
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
