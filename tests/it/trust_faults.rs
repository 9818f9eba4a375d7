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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (noted, folder, fault) = (asked.clone(), folder.to_owned(), Arc::new(fault));
        let counts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (noted, folder, fault, counts) = (noted.clone(), folder.clone(), fault.clone(), counts.clone());
                std::thread::spawn(move || answer(stream, &folder, &*fault, &counts, &noted));
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
    if target == "/v2/" {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        return;
    }
    let number = {
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(target.clone()).or_default();
        *count += 1;
        *count
    };
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
    let to = tempfile::tempdir().unwrap();
    exits(&fetch(server.url(), to.path(), &[GUN]), 0);
    to
}

fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let found = Command::new("find").arg(".").args(["-path", "*/tuf/*", "-type", "f"]).current_dir(folder).output();
    let mut found: Vec<PathBuf> = String::from_utf8_lossy(&found.unwrap().stdout).lines().map(PathBuf::from).collect();
    found.sort();
    found.into_iter().map(|file| (file.clone(), std::fs::read(folder.join(file)).unwrap())).collect()
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
                    assert_eq!(bytes, std::fs::read(folder.join(&file)).unwrap(), "{why}: {}", file.display());
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
    let version = format!("\"version\":{}", 2);
    assert!(root.contains(&version), "{root}");
    let absurd = root.replace(&version, "\"version\":9000000000000000000").into_bytes();
    let server = Misbehaving::start(good.path(), move |name, _| match name {
        "root.json" => Fault::Body(absurd.clone()),
        _ => Fault::None,
    });
    let to = tempfile::tempdir().unwrap();
    let told = exits(&fetch(&server.url, to.path(), &[GUN]), 1);
    assert!(told.contains("older versions were not asked for"), "{told}");
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
    assert!(told.contains("which stays the present one"), "{told}");
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
            assert_eq!(std::fs::read(to.path().join(&file.0)).unwrap(), file.1, "{name}");
        }
    }
}
