//! `trust fetch` from servers that misbehave: what they serve is real trust data, how they serve it no
//! real server can be made to do on command.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::client::text;
use crate::support::notary::{Notary, NotaryServer};

const GUN: &str = "registry.example/birds/bluebird";

/// How one request is answered.
enum Fault {
    /// As it should be.
    None,
    /// With these bytes, after which the connection ends.
    Raw(String),
    /// With the right bytes, but so many more (or fewer) are announced.
    Length(i64),
    /// Never.
    Silence,
    /// With these bytes in the place of the file's.
    Body(Vec<u8>),
}

/// Serves a folder of trust data; `fault` is asked for each request, with its number among those for
/// the same path.
struct Misbehaving {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Misbehaving {
    fn start(folder: &Path, fault: impl Fn(&str, usize) -> Fault + Send + Sync + 'static) -> Self {
        Self::with_ping(folder, |_| None, fault)
    }

    /// The same; `ping` answers the pings that it has something to say to, counted from 1.
    fn with_ping(
        folder: &Path,
        ping: impl Fn(usize) -> Option<String> + Send + Sync + 'static,
        fault: impl Fn(&str, usize) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let ping = Arc::new(ping);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (noted, folder, fault) = (asked.clone(), folder.to_owned(), Arc::new(fault));
        let counts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (noted, folder, fault, counts) = (noted.clone(), folder.clone(), fault.clone(), counts.clone());
                let ping = ping.clone();
                std::thread::spawn(move || answer(stream, &folder, &*ping, &*fault, &counts, &noted));
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(
    mut stream: TcpStream,
    folder: &Path,
    ping: &(dyn Fn(usize) -> Option<String> + Send + Sync),
    fault: &(dyn Fn(&str, usize) -> Fault + Send + Sync),
    counts: &Mutex<HashMap<String, usize>>,
    noted: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    }
    let target = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
    noted.lock().unwrap().push(target.clone());
    let number = {
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(target.clone()).or_default();
        *count += 1;
        *count
    };
    if target == "/v2/" {
        let good = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
        let _ = stream.write_all(ping(number).unwrap_or_else(|| good.to_owned()).as_bytes());
        return;
    }
    let file = target.strip_prefix("/v2/").unwrap_or_default();
    let name = file.rsplit_once("/tuf/").map_or(file, |(_, name)| name);
    let bytes = std::fs::read(folder.join(file)).ok();
    let (body, more) = match fault(name, number) {
        Fault::None => (bytes, 0),
        Fault::Length(more) => (bytes, more),
        Fault::Body(bytes) => (Some(bytes), 0),
        Fault::Raw(raw) => {
            let _ = stream.write_all(raw.as_bytes());
            return;
        }
        Fault::Silence => {
            std::thread::sleep(Duration::from_secs(20));
            return;
        }
    };
    let (status, body) = body.map_or(("404 Not Found", b"gone".to_vec()), |body| ("200 OK", body));
    let length = i64::try_from(body.len()).unwrap() + more;
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(&body);
}

fn fetch(from: &str, to: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(["trust", "fetch", "--from", from, "--to", text(to)]).args(more).env("HOME", to).stdin(Stdio::null());
    command.output().unwrap()
}

fn exits(output: &Output, code: i32) -> String {
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// A good copy of one repository with two roots.
fn copy() -> tempfile::TempDir {
    let server = NotaryServer::start();
    let notary = Notary::new(server.url());
    notary.repository(GUN, &["v1"]);
    notary.run(&["key", "rotate", GUN, "root"]);
    notary.add(GUN, "v2", &[]);
    let to = tempfile::tempdir().unwrap();
    exits(&fetch(server.url(), to.path(), &[GUN]), 0);
    to
}

/// A file's bytes, shown by their hash.
#[derive(Clone, PartialEq, Eq)]
struct Bytes(Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use sha2::Digest as _;
        write!(f, "{} bytes, {}", self.0.len(), hex::encode(sha2::Sha256::digest(&self.0)))
    }
}

fn files(folder: &Path) -> Vec<(PathBuf, Bytes)> {
    let found = Command::new("find").arg(".").args(["-path", "*/tuf/*", "-type", "f"]).current_dir(folder).output();
    let mut found: Vec<PathBuf> = String::from_utf8_lossy(&found.unwrap().stdout).lines().map(PathBuf::from).collect();
    found.sort();
    found.into_iter().map(|file| (file.clone(), Bytes(std::fs::read(folder.join(file)).unwrap()))).collect()
}

#[test]
fn a_server_that_is_in_trouble_for_a_moment_is_asked_again() {
    let good = copy();
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let later = "HTTP/1.1 429 Slow down\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let gone = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let server = Misbehaving::start(good.path(), move |name, number| match name {
        _ if number > 1 => Fault::None,
        "timestamp.json" => Fault::Raw(later.to_owned()),
        "1.root.json" => Fault::Raw(busy.to_owned()),
        // A mirror that lags: the file is there a moment later.
        name if name.starts_with("snapshot.") => Fault::Raw(gone.to_owned()),
        "root.json" => Fault::Raw(gone.to_owned()),
        name if name.starts_with("targets.") => Fault::Raw(String::new()),
        _ => Fault::None,
    });
    let to = tempfile::tempdir().unwrap();
    exits(&fetch(&server.url, to.path(), &[GUN]), 0);
    assert_eq!(files(to.path()), files(good.path()));
}

#[test]
fn what_cannot_be_had_is_told_and_the_rest_is_kept() {
    let good = copy();
    let elsewhere =
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let circle = |name: &str| {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: /v2/{GUN}/_trust/tuf/{name}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    let forbidden = "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    type Rule = Box<dyn Fn(&str) -> Fault + Send + Sync>;
    let on = |file: &'static str, fault: fn() -> Fault| -> Rule {
        Box::new(move |name| if name.starts_with(file) { fault() } else { Fault::None })
    };
    let cases: Vec<(Rule, &str)> = vec![
        (on("1.root.json", || Fault::Body(b"<html>log in</html>".to_vec())), "1.root.json: it is no signed metadata"),
        (on("1.root.json", || Fault::Length(1)), "1.root.json: "),
        (on("1.root.json", || Fault::Length(-1)), "1.root.json: it is no signed metadata"),
        (on("1.root.json", || Fault::Silence), "no complete answer within 2 s"),
        (on("targets.", || Fault::Body(b"{}".to_vec())), "its bytes have the SHA-256"),
        (on("targets.", || Fault::Length(-1)), "its bytes have the SHA-256"),
        (on("snapshot.", || Fault::Body(Vec::new())), "its bytes have the SHA-256"),
        (
            on("timestamp.json", || {
                Fault::Body(br#"{"signed":{"_type":"Root","version":1},"signatures":[]}"#.to_vec())
            }),
            "it says that it is \"Root\"",
        ),
        (on("timestamp.json", || Fault::Body(vec![b' '; 2 * 1024 * 1024])), "exceeded maximum allowed size"),
        (
            Box::new(
                move |name| if name.starts_with("targets.") { Fault::Raw(elsewhere.to_owned()) } else { Fault::None },
            ),
            "127.0.0.1:9",
        ),
        (
            Box::new(move |name| if name.starts_with("targets.") { Fault::Raw(circle(name)) } else { Fault::None }),
            "stopped after 10 redirects",
        ),
        (
            Box::new(
                move |name| if name.starts_with("targets.") { Fault::Raw(forbidden.to_owned()) } else { Fault::None },
            ),
            "403 Forbidden",
        ),
    ];
    std::thread::scope(|scope| {
        for (rule, why) in cases {
            let folder = good.path();
            scope.spawn(move || {
                let server = Misbehaving::start(folder, move |name, _| rule(name));
                let to = tempfile::tempdir().unwrap();
                let told = exits(&fetch(&server.url, to.path(), &[GUN, "--timeout", "2"]), 1);
                assert!(told.contains("1 incomplete") && told.contains(why), "{why}: {told}");
                for (file, bytes) in files(to.path()) {
                    assert_eq!(bytes, Bytes(std::fs::read(folder.join(&file)).unwrap()), "{why}: {}", file.display());
                }
                let root = to.path().join(GUN).join("_trust/tuf/root.json");
                assert!(root.is_file(), "{why}");
            });
        }
    });
}

#[test]
fn a_root_of_an_absurd_version_does_not_keep_the_job() {
    let good = copy();
    let root = std::fs::read_to_string(good.path().join(GUN).join("_trust/tuf/root.json")).unwrap();
    let version = "\"version\":3".to_owned();
    assert!(root.contains(&version), "{root}");
    let absurd = root.replace(&version, "\"version\":9000000000000000000").into_bytes();
    let server = Misbehaving::start(good.path(), move |name, _| match name {
        "root.json" => Fault::Body(absurd.clone()),
        _ => Fault::None,
    });
    let to = tempfile::tempdir().unwrap();
    let told = exits(&fetch(&server.url, to.path(), &[GUN]), 1);
    assert!(told.contains("were not requested"), "{told}");
    // What exists is found from the other end.
    for name in ["1.root.json", "2.root.json"] {
        assert!(to.path().join(GUN).join("_trust/tuf").join(name).is_file(), "{name}");
    }
    assert!(server.asked().len() < 30, "{:?}", server.asked().len());
}

#[test]
fn older_or_other_data_never_takes_the_place_of_what_was_fetched() {
    let server = NotaryServer::start();
    let notary = Notary::new(server.url());
    notary.repository(GUN, &["v1"]);
    let old = tempfile::tempdir().unwrap();
    exits(&fetch(server.url(), old.path(), &[GUN]), 0);
    notary.add(GUN, "v2", &[]);
    let to = tempfile::tempdir().unwrap();
    exits(&fetch(server.url(), to.path(), &[GUN]), 0);
    let before = files(to.path());
    // The server has been set back to an older state.
    let back = Misbehaving::start(old.path(), |_, _| Fault::None);
    let told = exits(&fetch(&back.url, to.path(), &[GUN]), 1);
    assert!(told.contains("which stays the current one"), "{told}");
    let after = files(to.path());
    for file in before {
        assert!(after.contains(&file), "{}", file.0.display());
    }
    // Another repository under the same name: the same version numbers, other bytes.
    let stranger = NotaryServer::start();
    Notary::new(stranger.url()).repository(GUN, &["v1"]);
    let told = exits(&fetch(stranger.url(), to.path(), &[GUN]), 1);
    assert!(told.contains("the server has other bytes under this name"), "{told}");
    for file in files(old.path()) {
        let name = file.0.file_name().unwrap().to_string_lossy().into_owned();
        if name == "1.root.json" || name == "root.json" {
            assert_eq!(Bytes(std::fs::read(to.path().join(&file.0)).unwrap()), file.1, "{name}");
        }
    }
}

const GONE: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

#[test]
fn missing_root_version_makes_the_copy_incomplete() {
    let good = copy();
    let server = Misbehaving::start(good.path(), |name, _| match name {
        "2.root.json" => Fault::Raw(GONE.to_owned()),
        _ => Fault::None,
    });
    let to = tempfile::tempdir().unwrap();
    let told = exits(&fetch(&server.url, to.path(), &[GUN]), 1);
    assert!(told.contains("2.root.json: the server answered 404"), "{told}");
    assert!(to.path().join(GUN).join("_trust/tuf/1.root.json").is_file());
}

#[test]
fn stale_root_from_a_cache_does_not_hide_the_newest_root() {
    let good = copy();
    let old = std::fs::read(good.path().join(GUN).join("_trust/tuf/1.root.json")).unwrap();
    let server = Misbehaving::start(good.path(), move |name, _| match name {
        "root.json" => Fault::Body(old.clone()),
        _ => Fault::None,
    });
    let to = tempfile::tempdir().unwrap();
    exits(&fetch(&server.url, to.path(), &[GUN]), 0);
    assert_eq!(files(to.path()), files(good.path()));
}

#[test]
fn broken_root_does_not_keep_the_other_files_from_being_fetched() {
    let good = copy();
    let server = Misbehaving::start(good.path(), |name, _| match name {
        "root.json" => Fault::Body(b"<html>".to_vec()),
        _ => Fault::None,
    });
    let to = tempfile::tempdir().unwrap();
    let told = exits(&fetch(&server.url, to.path(), &[GUN]), 1);
    assert!(told.contains("root.json: it is no signed metadata"), "{told}");
    assert_eq!(files(to.path()), files(good.path()), "the snapshot names the root by its hash");
}

#[test]
fn file_missing_by_hash_is_taken_from_its_bare_name_when_the_hash_fits() {
    let good = copy();
    let server = Misbehaving::start(good.path(), |name, _| match name {
        name if name.starts_with("targets.") && name != "targets.json" => Fault::Raw(GONE.to_owned()),
        _ => Fault::None,
    });
    let to = tempfile::tempdir().unwrap();
    exits(&fetch(&server.url, to.path(), &[GUN]), 0);
    assert_eq!(files(to.path()), files(good.path()));
}

#[test]
fn failed_fetch_leaves_the_folder_as_clients_read_it() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = NotaryServer::start();
    let notary = Notary::new(server.url());
    notary.repository(GUN, &["v1"]);
    exits(&fetch(server.url(), old.path(), &[GUN]), 0);
    notary.add(GUN, "v2", &[]);
    exits(&fetch(server.url(), new.path(), &[GUN]), 0);
    let before = files(old.path());
    let lost = "targets.";
    let server = Misbehaving::start(new.path(), move |name, _| match name {
        name if name.starts_with(lost) => Fault::Raw(GONE.to_owned()),
        _ => Fault::None,
    });
    let told = exits(&fetch(&server.url, old.path(), &[GUN]), 1);
    assert!(told.contains("1 incomplete"), "{told}");
    let current = |files: &[(PathBuf, Bytes)]| {
        let names = ["root.json", "snapshot.json", "targets.json", "timestamp.json"];
        let is_current = |path: &Path| names.iter().any(|name| path.ends_with(name));
        files.iter().filter(|(path, _)| is_current(path)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(current(&files(old.path())), current(&before));
    // Later everything is there, and takes its place.
    let server = Misbehaving::start(new.path(), |_, _| Fault::None);
    exits(&fetch(&server.url, old.path(), &[GUN]), 0);
    assert_eq!(current(&files(old.path())), current(&files(new.path())));
}

#[test]
fn torn_and_removed_files_are_fetched_again_even_with_a_journal() {
    let good = copy();
    let server = Misbehaving::start(good.path(), |_, _| Fault::None);
    let to = tempfile::tempdir().unwrap();
    let journal = to.path().join("journal");
    let args = [GUN, "--journal", text(&journal)];
    exits(&fetch(&server.url, to.path(), &args), 0);
    assert!(exits(&fetch(&server.url, to.path(), &args), 0).contains("1 complete before"));
    for (number, (file, bytes)) in files(to.path()).into_iter().enumerate() {
        let path = to.path().join(&file);
        match number % 2 {
            0 => std::fs::write(&path, &bytes.0[..bytes.0.len() / 2]).unwrap(),
            _ => std::fs::remove_file(&path).unwrap(),
        }
        exits(&fetch(&server.url, to.path(), &args), 0);
        assert_eq!(files(to.path()), files(good.path()), "{}", file.display());
    }
    std::fs::remove_dir_all(to.path().join(GUN)).unwrap();
    assert!(!exits(&fetch(&server.url, to.path(), &args), 0).contains("before"));
    assert_eq!(files(to.path()), files(good.path()));
}

#[test]
fn repository_deleted_at_the_server_stays_in_the_copy_as_complete() {
    let good = copy();
    let server = Misbehaving::start(good.path(), |_, _| Fault::None);
    let to = tempfile::tempdir().unwrap();
    exits(&fetch(&server.url, to.path(), &[GUN]), 0);
    let gone = Misbehaving::start(good.path(), |_, _| Fault::Raw(GONE.to_owned()));
    let told = exits(&fetch(&gone.url, to.path(), &[GUN]), 1);
    assert!(told.contains("1 without trust data") && told.contains("check the address in --from"), "{told}");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(to.path().join("manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["guns"][0]["state"], "complete");
    assert_eq!(files(to.path()), files(good.path()));
    for (_, file) in manifest["guns"][0]["files"].as_object().unwrap() {
        assert!(file["url"].as_str().unwrap().starts_with(&server.url), "the first source stays: {file}");
    }
}

#[test]
fn ping_that_fails_for_a_moment_or_has_no_challenge_is_no_obstacle() {
    let good = copy();
    let busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let server =
        Misbehaving::with_ping(good.path(), move |number| (number == 1).then(|| busy.to_owned()), |_, _| Fault::None);
    let to = tempfile::tempdir().unwrap();
    exits(&fetch(&server.url, to.path(), &[GUN]), 0);
    // A password is sent where a file asks for it, although the ping did not.
    let challenge = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let asked = std::sync::atomic::AtomicBool::new(false);
    let open = Misbehaving::start(good.path(), move |_, _| {
        let first = !asked.swap(true, std::sync::atomic::Ordering::Relaxed);
        if first { Fault::Raw(challenge.to_owned()) } else { Fault::None }
    });
    let to = tempfile::tempdir().unwrap();
    let password = to.path().join("password");
    std::fs::write(&password, "a secret").unwrap();
    exits(&fetch(&open.url, to.path(), &[GUN, "--username", "bob", "--password-file", text(&password)]), 0);
    // The challenges of a server to which the ping leads are not this server's.
    let other = open.url.clone();
    let elsewhere = Misbehaving::with_ping(
        good.path(),
        move |_| {
            Some(format!(
                "HTTP/1.1 302 Found\r\nLocation: {other}/v2/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ))
        },
        |_, _| Fault::None,
    );
    let told = exits(&fetch(&elsewhere.url, to.path(), &[GUN]), 2);
    assert!(told.contains(&format!("redirects its ping to {}", open.url)), "{told}");
}

#[test]
fn server_that_is_down_is_not_asked_for_thousands_of_repositories() {
    let good = copy();
    let server = Misbehaving::start(good.path(), |_, _| Fault::Raw(String::new()));
    let to = tempfile::tempdir().unwrap();
    let list = to.path().join("list");
    std::fs::write(&list, (0..500).map(|number| format!("a.example/{number}\n")).collect::<String>()).unwrap();
    let told = exits(&fetch(&server.url, to.path(), &["--guns", text(&list), "--jobs", "32"]), 1);
    assert!(told.contains("not requested") && told.contains("run the same command again"), "{told}");
    assert!(server.asked().len() < 1000, "{}", server.asked().len());
}

#[test]
fn passwords_are_refused_where_others_could_read_them() {
    let to = tempfile::tempdir().unwrap();
    let told = exits(&fetch("https://bob:hunter2@127.0.0.1:9", to.path(), &[GUN]), 2);
    assert!(!told.contains("hunter2") && told.contains("--password-file"), "{told}");
    for rate in ["1e-19", "0", "-1", "nan", "inf"] {
        let told = exits(&fetch("http://127.0.0.1:9", to.path(), &[GUN, &format!("--rate={rate}")]), 2);
        assert!(told.contains("--rate"), "{told}");
    }
}

#[test]
fn older_versions_are_fetched_where_the_server_has_them() {
    let server = NotaryServer::start();
    let notary = Notary::new(server.url());
    notary.repository(GUN, &["v1", "v2", "v3"]);
    let to = tempfile::tempdir().unwrap();
    exits(&fetch(server.url(), to.path(), &[GUN, "--history"]), 0);
    let names: Vec<String> =
        files(to.path()).iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    for name in ["2.targets.json", "3.targets.json", "4.targets.json", "5.targets.json", "2.snapshot.json"] {
        assert!(names.iter().any(|found| found == name), "{name}: {names:?}");
    }
}

#[test]
fn symbolic_link_in_the_folder_is_not_written_through() {
    let good = copy();
    let server = Misbehaving::start(good.path(), |_, _| Fault::None);
    let (to, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::os::unix::fs::symlink(elsewhere.path(), to.path().join("registry.example")).unwrap();
    let told = exits(&fetch(&server.url, to.path(), &[GUN]), 1);
    assert!(told.contains("symbolic link"), "{told}");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}
