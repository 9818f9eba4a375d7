//! One client cannot have what others need: turns of passwords, places of uploads, the audit log's disk.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::image::Digest;

use crate::support::client::{Host, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;
use crate::support::server::Server;

const TOKEN: &str = "writer-token-of-many-letters";
/// Of the right form for the gate `off`.
const BLOB: &[u8] = b"\xa3signature";
/// Where a client waits for others it waits for half a minute at least.
const AT_ONCE: Duration = Duration::from_secs(5);

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn path(repository: &str, last: &str) -> String {
    format!("/lookaside/{repository}@{}/signature-{last}", Digest::sha256(b"x").path_form())
}

/// Sends the beginning of a request, and leaves it at that.
fn begin(server: &Server, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "{head}\r\nHost: {}\r\n\r\n", server.address).unwrap();
    stream.write_all(body).unwrap();
    stream
}

#[test]
fn a_thousand_guesses_of_one_network_keep_nobody_out() {
    let host = Host::new(Path::new("/nonexistent"));
    let users = host.path().join("users");
    // Apache's own, at a cost that takes a moment.
    let made = Command::new("htpasswd").args(["-cbB", "-C", "10", text(&users), "bob", "secret"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let config = host.write("c.yaml", format!("access: {{read: [{{htpasswd: {}}}]}}\n", users.display()));
    let store = host.path().join("store");
    let server = Server::start(&["--config", text(&config), "--store", text(&store)]);
    let ask = |from: &str, user: &str, password: &str| {
        let headers = [("X-Forwarded-For", from), ("Authorization", &basic(user, password))];
        http::request(&server.address, "GET", &path("a", "1"), &headers, b"").status
    };
    assert_eq!(ask("203.0.113.1", "bob", "secret"), 404, "remembered from here on");
    let guesses: Vec<_> = (0..1000)
        .map(|n| {
            let head = format!(
                "GET {} HTTP/1.1\r\nX-Forwarded-For: 2001:db8::{n:x}:1\r\nConnection: close\r\nAuthorization: {}",
                path("a", "1"),
                basic(&format!("user {n}"), "guess")
            );
            begin(&server, &head, b"")
        })
        .collect();
    let begun = Instant::now();
    assert_eq!(ask("203.0.113.1", "bob", "secret"), 404);
    assert!(begun.elapsed() < AT_ONCE, "what is remembered does not wait: {:?}", begun.elapsed());
    let (fresh, begun) = (basic("bob", "secret"), Instant::now());
    // The same password with a line of its own, so that it is checked.
    let made = Command::new("htpasswd").args(["-bB", "-C", "10", text(&users), "bob", "secret"]).output().unwrap();
    assert!(made.status.success(), "{made:?} {fresh}");
    let set = begun.elapsed();
    assert_eq!(ask("198.51.100.1", "bob", "secret"), 404);
    println!("with 1000 guesses waiting, a right password took {:?}", begun.elapsed() - set);
    assert!(begun.elapsed() - set < AT_ONCE, "{:?}", begun.elapsed() - set);
    let mut told = std::collections::BTreeMap::<String, usize>::new();
    for mut guess in guesses {
        let mut answer = String::new();
        let _ = guess.read_to_string(&mut answer);
        *told.entry(answer.get(9..12).unwrap_or_default().to_owned()).or_default() += 1;
    }
    let wrong = told.get("401").copied().unwrap_or_default();
    assert!(wrong <= 100 && told.get("429").is_some_and(|many| *many >= 900), "{told:?}");
}

#[test]
fn slow_uploads_of_one_client_keep_no_writer_waiting() {
    let registry = DockerRegistry::start();
    let host = Host::new(Path::new("/nonexistent"));
    let tokens = host.write("tokens", format!("ci:{TOKEN}\n"));
    let config =
        host.write("c.yaml", format!("access: {{write: [{{token: {}}}]}}\ngate: {{mode: off}}\n", tokens.display()));
    let store = host.path().join("store");
    let server = Server::start(&["--config", text(&config), "--store", text(&store), "--upstream", &registry.url()]);
    let mut slow = Vec::new();
    for n in 0..64 {
        let digest = Digest::sha256(b"x");
        let target = match n % 2 {
            0 => format!("{}?token={TOKEN}", path("slow", "new")),
            _ => format!("/extensions/v2/slow/signatures/{digest}"),
        };
        // Short ones and long ones, of which one byte or a part has come.
        let (length, part) = if n % 4 < 2 { (1000, 1) } else { (1 << 20, 100_000) };
        let head = format!("PUT {target} HTTP/1.1\r\nX-Forwarded-For: 192.0.2.1\r\nContent-Length: {length}");
        slow.push(begin(&server, &head, &vec![0xa3; part]));
    }
    std::thread::sleep(Duration::from_millis(500));
    let put = |from: &str, repository: &str, blob: &[u8]| {
        let begun = Instant::now();
        let place = format!("{}?token={TOKEN}", path(repository, "new"));
        let told = http::request(&server.address, "PUT", &place, &[("X-Forwarded-For", from)], blob);
        assert_eq!(told.status, 201, "{told:?}");
        begun.elapsed()
    };
    let long = [BLOB, &[b'.'; 200_000]].concat();
    for (what, from, blob) in [
        ("another's upload", "192.0.2.2", BLOB),
        ("another's long one", "192.0.2.2", &long),
        ("its own", "192.0.2.1", BLOB),
    ] {
        let took = put(from, &what.replace([' ', '\''], "-").to_lowercase(), blob);
        println!("with 64 slow bodies, {what} took {took:?}");
        assert!(took < AT_ONCE, "{what}: {took:?}");
    }
    drop(slow);
}

#[test]
fn strangers_do_not_fill_the_audit_log() {
    let registry = DockerRegistry::with_htpasswd("bob", "secret");
    let host = Host::new(Path::new("/nonexistent"));
    let tokens = host.write("tokens", format!("ci:{TOKEN}\n"));
    let audit = host.path().join("audit.jsonl");
    let config = format!(
        "access: {{write: [{{token: {}}}, upstream]}}\ngate: {{mode: off}}\naudit_log: {}\n",
        tokens.display(),
        audit.display()
    );
    let config = host.write("c.yaml", config);
    let store = host.path().join("store");
    let args = ["--config", text(&config), "--store", text(&store), "--upstream", &registry.url()];
    let mut server = Server::start(&args);
    let extension = format!("/extensions/v2/a/signatures/{}", Digest::sha256(b"x"));
    for n in 0..50 {
        let made_up = basic(&format!("stranger{n}"), "made up");
        for (method, target, headers) in [
            ("PUT", path("a", "new"), &[][..]),
            ("DELETE", path("a", "1"), &[("Authorization", "Bearer made-up")]),
            ("PUT", path("a", "1"), &[("Authorization", &*made_up)]),
            ("PUT", extension.clone(), &[("Authorization", &*made_up)]),
            ("PUT", extension.clone(), &[]),
        ] {
            let told = http::request(&server.address, method, &target, headers, BLOB);
            assert!([401, 403, 429].contains(&told.status), "{method} {target}: {told:?}");
        }
    }
    let put = format!("{}?token={TOKEN}", path("a", "new"));
    assert_eq!(http::request(&server.address, "PUT", &put, &[], BLOB).status, 201);
    assert!(server.stop("TERM").success());
    let written = std::fs::read_to_string(&audit).unwrap();
    let lines: Vec<serde_json::Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    // The minute may have turned meanwhile.
    assert!(lines.len() <= 2 + 3, "{written}");
    let counted: u64 = lines.iter().filter_map(|line| line["count"].as_u64()).sum();
    assert_eq!(counted, 250, "{written}");
    assert_eq!(lines.iter().filter(|line| line["verdict"] == "stored" && line["who"] == "ci").count(), 1);
    let log = server.log();
    let told = log.lines().filter(|line| line.contains("changes refused to somebody unknown")).count();
    assert!(told <= 3 && told > 0, "{log}");
    assert!(!log.contains("made up") && !log.contains("made-up") && !written.contains("stranger"), "{written}");
}
