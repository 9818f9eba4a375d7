//! Files that other programs write in place, and names of signatures that are taken by what is none:
//! skopeo and podman truncate `signature-N` and then fill it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use countersign::image::Digest;
use countersign::store::{Appended, Removed, Repaired, SetAddress, Store, StoreError, StoreOptions, StorePath};

use crate::support::client::text;
use crate::support::http;
use crate::support::server::Server;

const TOKEN: &str = "writer-token-of-many-letters";
/// By its form, a signature that is all there: a sigstore signature, which nobody verifies here.
const WHOLE: &[u8] = b"\0sigstore-json\n{\"mimeType\":\"x\",\"payload\":\"eA==\"}";
/// By its form, the beginning of an OpenPGP message.
const CUT_OFF: &[u8] = b"\xc4\x0d\x03\x00\x08\x16";

fn image(repository: &str) -> SetAddress {
    SetAddress::image(StorePath::parse(repository).unwrap(), Digest::sha256(b"image")).unwrap()
}

struct World {
    root: tempfile::TempDir,
    server: Server,
    _config: tempfile::TempDir,
}

impl World {
    /// A server without a gate over an empty folder.
    fn new() -> Self {
        let (root, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let tokens = folder.path().join("tokens");
        fs::write(&tokens, format!("ci:{TOKEN}\n")).unwrap();
        let config = folder.path().join("c.yaml");
        let access = format!("access: {{write: [{{token: {}}}]}}\ngate: {{mode: off}}\n", text(&tokens));
        fs::write(&config, access).unwrap();
        let server = Server::start(&["--store", text(root.path()), "--config", text(&config)]);
        Self { root, server, _config: folder }
    }

    /// Makes a set's folder.
    fn set(&self, repository: &str) -> PathBuf {
        let folder = self.root.path().join(image(repository).to_string());
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn ask(&self, method: &str, repository: &str, number: &str) -> http::Answer {
        let path = format!("/lookaside/{}/signature-{number}", image(repository));
        http::request(&self.server.address, method, &path, &[], b"")
    }

    fn put(&self, repository: &str, blob: &[u8]) -> http::Answer {
        let path = format!("/lookaside/{}/signature-new?token={TOKEN}", image(repository));
        http::request(&self.server.address, "PUT", &path, &[], blob)
    }

    async fn store(&self) -> Store {
        Store::open(text(self.root.path()), &StoreOptions::default()).await.unwrap()
    }
}

/// What something is, and how it is made under a name.
type Obstacle = (&'static str, fn(&Path));

/// Each kind of thing that is no file.
fn obstacles() -> [Obstacle; 6] {
    [
        ("folder", |path| fs::create_dir(path).unwrap()),
        ("dangling", |path| std::os::unix::fs::symlink("/nowhere/at/all", path).unwrap()),
        ("outside", |path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap()),
        ("circle", |path| std::os::unix::fs::symlink(path.file_name().unwrap(), path).unwrap()),
        ("fifo", |path| mknod(path, rustix::fs::FileType::Fifo)),
        ("socket", |path| mknod(path, rustix::fs::FileType::Socket)),
    ]
}

fn mknod(path: &Path, kind: rustix::fs::FileType) {
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, rustix::fs::Mode::RWXU, 0).unwrap();
}

fn made_old(path: &Path) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

#[test]
fn a_number_that_is_taken_by_no_file_is_passed_over_at_once() {
    let world = World::new();
    for (kind, make) in obstacles() {
        let folder = world.set(kind);
        fs::write(folder.join("signature-1"), WHOLE).unwrap();
        make(&folder.join("signature-2"));
        let begun = Instant::now();
        // What the server stores without a gate may be cut off by its form: it is served all the same.
        let blob = [CUT_OFF, kind.as_bytes()].concat();
        let answer = world.put(kind, &blob);
        assert!(begun.elapsed() < Duration::from_secs(5), "{kind}: {:?}", begun.elapsed());
        assert_eq!(answer.status, 201, "{kind}: {}", answer.text());
        assert!(answer.header("location").unwrap().ends_with("/signature-2"), "{kind}: as it is served");
        assert_eq!(fs::read(folder.join("signature-3")).unwrap(), blob, "{kind}");
        assert_eq!(world.ask("GET", kind, "1").body, WHOLE, "{kind}");
        assert_eq!((world.ask("GET", kind, "2").body, world.ask("GET", kind, "3").status), (blob, 404), "{kind}");
        assert!(fs::symlink_metadata(folder.join("signature-2")).is_ok(), "{kind}: it stays");
    }
    assert!(world.server.log().contains("passed over"), "{}", world.server.log());
}

#[tokio::test]
async fn repair_and_removal_give_numbers_around_what_is_no_file() {
    for (kind, make) in obstacles() {
        let world = World::new();
        let folder = world.set(kind);
        for (number, blob) in [(1, "a"), (3, "b"), (6, "c"), (7, "b"), (9, "d")] {
            let path = folder.join(format!("signature-{number}"));
            fs::write(&path, blob).unwrap();
            made_old(&path);
        }
        for number in [2, 5, 8] {
            make(&folder.join(format!("signature-{number}")));
        }
        let (store, at) = (world.store().await, image(kind));
        let numbers = async || {
            let set = store.read_set(&at).await.unwrap();
            (set.signatures.iter().map(|one| one.number).collect::<Vec<_>>(), set.taken)
        };
        assert_eq!(store.repair(&at).await.unwrap(), Repaired { moved: 2, duplicates: 1, swept: 0 }, "{kind}");
        assert_eq!(numbers().await, (vec![1, 3, 4, 6], vec![2, 5, 8]), "{kind}");
        assert_eq!(store.repair(&at).await.unwrap(), Repaired::default(), "{kind}");
        assert_eq!(store.remove(&at, &Digest::sha256(b"b")).await.unwrap(), Removed::Done(1), "{kind}");
        assert_eq!(numbers().await, (vec![1, 3, 4], vec![2, 5, 8]), "{kind}");
        // Appended one by one and in bulk, in and beyond the numbers that are taken.
        assert_eq!(store.append(&at, WHOLE).await.unwrap(), Appended::Created(6), "{kind}");
        let batch = [b"e", b"f"].map(|blob| (at.clone(), bytes::Bytes::from_static(blob))).to_vec();
        let added: Vec<_> = store.append_many(batch).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(added, [Appended::Created(7), Appended::Created(9)], "{kind}");
    }
}

#[test]
fn store_check_and_repair_tell_of_it() {
    let world = World::new();
    for (kind, make) in obstacles() {
        let folder = world.set(kind);
        make(&folder.join("signature-1"));
        fs::write(folder.join("signature-2"), WHOLE).unwrap();
    }
    let folder = world.set("empty");
    fs::write(folder.join("signature-1"), "").unwrap();
    made_old(&folder.join("signature-1"));
    fs::write(folder.join("signature-2"), WHOLE).unwrap();
    let policy = world.root.path().join("policy.json");
    fs::write(&policy, r#"{"default":[{"type":"reject"}]}"#).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        let output = command.arg("store").args(args).args(["--to", text(world.root.path())]).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, told) = run(&["check", "--policy", text(&policy)]);
    assert_eq!(code, Some(1), "the signatures are not accepted: {told}");
    for (kind, word) in [("folder", "no file"), ("fifo", "no file"), ("socket", "no file"), ("empty", "empty file")] {
        let line = told.lines().find(|line| line.starts_with("foreign") && line.contains(&image(kind).to_string()));
        let line = line.unwrap_or_else(|| panic!("{kind}: {told}"));
        assert!(line.contains("/signature-1: ") && line.contains(word), "{line}");
    }
    for kind in ["dangling", "outside", "circle"] {
        assert!(told.contains(&format!("foreign   {}/signature-1: a link", image(kind))), "{kind}: {told}");
    }
    assert!(!told.contains("is missing"), "what is taken is no gap: {told}");
    let (code, told) = run(&["repair", "--dry-run"]);
    assert!(code == Some(0) && told.contains("Would repair 0 of 7 set(s)"), "{code:?} {told}");
}

#[test]
fn what_is_being_written_is_neither_served_nor_remembered() {
    let world = World::new();
    for (name, beginning) in [("empty", &b""[..]), ("cut-off", CUT_OFF)] {
        let folder = world.set(name);
        fs::write(folder.join("signature-1"), WHOLE).unwrap();
        fs::write(folder.join("signature-2"), beginning).unwrap();
        for (method, number) in [("GET", "1"), ("HEAD", "2"), ("GET", "2")] {
            let answer = world.ask(method, name, number);
            assert_eq!(answer.status, 503, "{name} {method} {number}: {}", answer.text());
            assert_eq!(answer.header("retry-after"), Some("1"), "{name} {method} {number}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{name} {method} {number}");
            fs::write(folder.join("signature-2"), beginning).unwrap();
        }
        assert_eq!(world.put(name, b"\xa3another").status, 503, "no number is given beside it");
        fs::write(folder.join("signature-2"), WHOLE).unwrap();
        let answer = world.ask("GET", name, "2");
        assert_eq!((answer.status, &answer.body[..]), (200, WHOLE), "{name}");
    }
    // A release address shows the set, too; and so does one that looks for it in all repositories.
    let folder = world.set("release/app");
    fs::write(folder.join("signature-1"), "").unwrap();
    for above in ["release/app", "release"] {
        fs::write(folder.join("signature-1"), "").unwrap();
        let path = format!("/lookaside/{above}/{}/signature-1", Digest::sha256(b"image").path_form());
        assert_eq!(http::get(&world.server.address, &path).status, 503, "{above}");
    }
}

#[test]
fn a_reader_waits_for_a_writer() {
    let world = World::new();
    // In one piece after a while, as skopeo does it on a slow disk; and in many, as a copy does.
    for (name, pieces, pause) in [("late", 1, 300), ("slow", 6, 60)] {
        // A busy machine may hold up the writer for longer than a reader waits.
        let waited = (0..5).any(|attempt| {
            let name = format!("{name}{attempt}");
            let mut file = fs::File::create(world.set(&name).join("signature-1")).unwrap();
            let writer = std::thread::spawn(move || {
                for piece in WHOLE.chunks(WHOLE.len().div_ceil(pieces)) {
                    std::thread::sleep(Duration::from_millis(pause));
                    file.write_all(piece).unwrap();
                }
            });
            let answer = world.ask("GET", &name, "1");
            assert!(answer.status == 503 || (answer.status, &answer.body[..]) == (200, WHOLE), "{}", answer.text());
            writer.join().unwrap();
            assert_eq!(world.ask("GET", &name, "1").body, WHOLE, "nothing else is remembered");
            answer.status == 200
        });
        assert!(waited, "{name}");
    }
}

#[test]
fn a_form_that_does_not_tell_must_rest() {
    let world = World::new();
    let path = world.set("a").join("signature-1");
    let mut file = fs::File::create(&path).unwrap();
    let writer = std::thread::spawn(move || {
        for _ in 0..100 {
            file.write_all(b"no signature. ").unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let answer = world.ask("GET", "a", "1");
    assert_eq!(answer.status, 503, "it grows: {}", answer.text());
    writer.join().unwrap();
    let answer = world.ask("GET", "a", "1");
    assert_eq!((answer.status, answer.body.len()), (200, 100 * 14), "it grows no more");
}

#[tokio::test]
async fn what_stays_empty_is_passed_over() {
    let world = World::new();
    let folder = world.set("a");
    for number in [1, 3] {
        let path = folder.join(format!("signature-{number}"));
        fs::write(&path, "").unwrap();
        made_old(&path);
    }
    // A clock that was wrong: nobody writes for an hour.
    let ahead = folder.join("signature-4");
    fs::write(&ahead, "").unwrap();
    let file = fs::File::options().write(true).open(&ahead).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    fs::write(folder.join("signature-2"), WHOLE).unwrap();
    let begun = Instant::now();
    let answer = world.ask("GET", "a", "1");
    assert_eq!((answer.status, &answer.body[..]), (200, WHOLE));
    assert_eq!(world.ask("HEAD", "a", "1").status, 200);
    assert_eq!(world.ask("GET", "a", "2").status, 404);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(world.server.log().contains("passed over"), "{}", world.server.log());
    let store = world.store().await;
    let set = store.read_set(&image("a")).await.unwrap();
    assert_eq!(set.taken, [1, 3, 4]);
    assert_eq!(store.repair(&image("a")).await.unwrap(), Repaired::default());
    assert_eq!(store.append(&image("a"), b"x").await.unwrap(), Appended::Created(5));
    assert_eq!(fs::metadata(&ahead).unwrap().len(), 0, "nothing of it is touched");
}

#[tokio::test]
async fn nothing_is_removed_or_moved_beside_a_file_that_is_being_written() {
    let world = World::new();
    let folder = world.set("a");
    fs::write(folder.join("signature-2"), WHOLE).unwrap();
    fs::write(folder.join("signature-3"), CUT_OFF).unwrap();
    let (store, at) = (world.store().await, image("a"));
    for store in [store.clone(), store.for_bulk(4)] {
        let error = store.signatures(&at).await.unwrap_err();
        assert!(matches!(error, StoreError::Unfinished(_)) && error.is_unavailable(), "{error}");
        assert!(error.to_string().contains("signature-3"), "{error}");
        fs::write(folder.join("signature-3"), CUT_OFF).unwrap();
    }
    assert!(matches!(store.repair(&at).await, Err(StoreError::Unfinished(_))));
    assert!(matches!(store.remove(&at, &Digest::sha256(WHOLE)).await, Err(StoreError::Unfinished(_))));
    assert!(folder.join("signature-2").exists() && folder.join("signature-3").exists());
    // A file that holds the same bytes by now may become another: no promise is given for it.
    fs::write(folder.join("signature-3"), CUT_OFF).unwrap();
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        fs::write(folder.join("signature-3"), WHOLE).unwrap();
    });
    assert_eq!(store.append(&at, CUT_OFF).await.unwrap(), Appended::Created(4));
    writer.join().unwrap();
}

#[test]
fn signature_written_by_another_program_is_served_at_once() {
    let store = tempfile::tempdir().unwrap();
    let server = crate::support::server::Server::start(&["--store", text(store.path())]);
    let digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let set = store.path().join(format!("birds/bluebird@sha256={digest}"));
    let get = |number: u32| {
        let path = format!("/lookaside/birds/bluebird@sha256={digest}/signature-{number}");
        let answer = crate::support::http::get(&server.address, &path);
        (answer.status, answer.body)
    };
    // Asked for first, as by a pull of the unsigned image.
    for round in 0..3u8 {
        assert_eq!(get(1).0, 404);
        std::fs::create_dir_all(&set).unwrap();
        std::fs::write(set.join("signature-1"), [0xa3, b'A' + round]).unwrap();
        assert_eq!(get(1), (200, vec![0xa3, b'A' + round]), "at once");
        assert_eq!(get(2).0, 404);
        std::fs::write(set.join("signature-2"), b"\xa3second").unwrap();
        assert_eq!(get(2), (200, b"\xa3second".to_vec()), "at once");
        // Rewritten in place, and replaced by a rename, with the same size: within a second.
        std::fs::write(set.join("signature-1"), [0xa3, b'K' + round]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1000));
        assert_eq!(get(1), (200, vec![0xa3, b'K' + round]));
        std::fs::write(set.join(".other"), [0xa3, b'U' + round]).unwrap();
        std::fs::rename(set.join(".other"), set.join("signature-1")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1000));
        assert_eq!(get(1), (200, vec![0xa3, b'U' + round]));
        std::fs::remove_dir_all(store.path().join("birds")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1000));
    }
}
