//! Health, readiness, metrics and log lines of a real server.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::text;
use crate::support::docker_registry::DockerRegistry;
use crate::support::http::{self, Answer};
use crate::support::server::Server;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Asks until the answer is as wanted: readiness is remembered for a few seconds.
fn wait_for(admin: &str, path: &str, status: u16) -> Answer {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = http::get(admin, path);
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < deadline, "{path} stays {}: {}", answer.status, answer.text());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Reads the samples: name with labels, and value.
fn metrics(admin: &str) -> BTreeMap<String, f64> {
    let answer = http::get(admin, "/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = answer.text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// A tree with one signature.
fn tree() -> tempfile::TempDir {
    let store = tempfile::tempdir().unwrap();
    let set = store.path().join(format!("birds/bluebird@sha256={HEX}"));
    std::fs::create_dir_all(&set).unwrap();
    std::fs::write(set.join("signature-1"), b"\xa3signature").unwrap();
    store
}

#[test]
fn ready_follows_the_store() {
    let store = tree();
    let server = Server::start(&["--store", text(store.path()), "--admin", "127.0.0.1:0"]);
    let admin = server.admin();
    assert_eq!(http::get(&admin, "/healthz").text(), "ok\n");
    assert_eq!(wait_for(&admin, "/readyz", 200).json()["status"], "ready");

    let away = store.path().with_extension("away");
    std::fs::rename(store.path(), &away).unwrap();
    let answer = wait_for(&admin, "/readyz", 503);
    assert_eq!(
        (answer.json()["status"].as_str(), answer.json()["checks"][0]["name"].as_str()),
        (Some("not ready"), Some("store"))
    );
    assert!(answer.json()["checks"][0]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{answer:?}");
    assert_eq!(http::get(&admin, "/healthz").status, 200, "a process that waits for its disk lives");
    std::fs::rename(&away, store.path()).unwrap();
    wait_for(&admin, "/readyz", 200);
}

#[test]
fn ready_follows_the_upstream() {
    let mut registry = DockerRegistry::with_htpasswd("alice", "secret");
    let store = tree();
    let server =
        Server::start(&["--store", text(store.path()), "--upstream", &registry.url(), "--admin", "127.0.0.1:0"]);
    let admin = server.admin();
    wait_for(&admin, "/readyz", 200);
    registry.stop();
    let answer = wait_for(&admin, "/readyz", 503).json();
    assert_eq!((&answer["checks"][0]["ok"], &answer["checks"][1]["ok"]), (&true.into(), &false.into()), "{answer}");
    assert_eq!(answer["checks"][1]["name"], format!("upstream {}", registry.url()));
    let unreachable =
        format!("countersign_upstream_requests_total{{upstream=\"{}\",outcome=\"unreachable\"}}", registry.address());
    assert!(metrics(&admin)[&unreachable] >= 1.0);
}

#[test]
fn load_balancers_are_told_before_the_end() {
    let store = tree();
    let config = store.path().join("config.yaml");
    std::fs::write(&config, "admin: {listen: '127.0.0.1:0', leave_seconds: 3}\n").unwrap();
    let mut server = Server::start(&["--store", text(store.path()), "--config", text(&config)]);
    let admin = server.admin();
    wait_for(&admin, "/readyz", 200);
    server.signal("TERM");
    assert_eq!(wait_for(&admin, "/readyz", 503).json()["status"], "leaving");
    let path = format!("/lookaside/birds/bluebird@sha256={HEX}/signature-1");
    assert_eq!(http::get(&server.address, &path).status, 200, "it still serves");
    assert_eq!(http::get(&admin, "/healthz").status, 200);
    assert!(server.stop("0").success());
}

#[test]
fn nothing_of_it_on_the_public_listener_unless_told() {
    let store = tree();
    let server = Server::start(&["--store", text(store.path()), "--admin", "127.0.0.1:0"]);
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(http::get(&server.address, path).status, 404, "{path}");
    }
    let admin = server.admin();
    assert_eq!(http::get(&admin, &format!("/lookaside/birds/bluebird@sha256={HEX}/signature-1")).status, 404);
    assert_eq!(http::request(&admin, "POST", "/metrics", &[], b"").status, 405);

    let config = store.path().join("config.yaml");
    std::fs::write(&config, "admin: {public: true}\n").unwrap();
    let server = Server::start(&["--store", text(store.path()), "--config", text(&config)]);
    assert_eq!(http::get(&server.address, "/healthz").text(), "ok\n");
    assert_eq!(http::get(&server.address, "/readyz").text(), "ready\n");
    assert_eq!(http::get(&server.address, "/metrics").status, 404);
    std::fs::rename(store.path(), store.path().with_extension("away")).unwrap();
    assert_eq!(wait_for(&server.address, "/readyz", 503).text(), "not ready\n", "no reasons for strangers");
    std::fs::rename(store.path().with_extension("away"), store.path()).unwrap();
}

#[test]
fn what_happened_is_counted() {
    let registry = DockerRegistry::start();
    let store = tree();
    let server =
        Server::start(&["--store", text(store.path()), "--upstream", &registry.url(), "--admin", "127.0.0.1:0"]);
    let (address, admin) = (&server.address, server.admin());
    // A set that changed just now is read anew, since file systems note times coarsely.
    std::thread::sleep(Duration::from_millis(200));
    for number in [1, 1, 2] {
        http::get(address, &format!("/lookaside/birds/bluebird@sha256={HEX}/signature-{number}"));
    }
    http::get(address, &format!("/lookaside/birds/sha256={HEX}/signature-1"));
    http::get(address, "/");
    assert_eq!(http::get(address, "/v2/").status, 200);
    assert_eq!(http::get(address, &format!("/extensions/v2/birds/bluebird/signatures/sha256:{HEX}")).status, 200);
    http::request(address, "PUT", &format!("/extensions/v2/birds/bluebird/signatures/sha256:{HEX}"), &[], b"{}");
    let upload = http::request(address, "POST", "/v2/x/blobs/uploads/", &[], b"");
    let place = upload.header("location").unwrap().split_once("/v2/").unwrap().1;
    http::request(address, "PATCH", &format!("/v2/{place}"), &[], &[7; 5000]);

    let counted = metrics(&admin);
    let request = |face: &str, method: &str, outcome: &str, status: &str| {
        let name = format!(
            "countersign_requests_total{{face=\"{face}\",method=\"{method}\",outcome=\"{outcome}\",status=\"{status}\"}}"
        );
        counted.get(&name).copied().unwrap_or_default()
    };
    assert_eq!(request("lookaside", "read", "ok", "2xx"), 2.0);
    assert_eq!(request("lookaside", "read", "not_found", "4xx"), 1.0);
    assert_eq!(request("release", "read", "ok", "2xx"), 1.0);
    assert_eq!(request("page", "read", "ok", "2xx"), 1.0);
    assert_eq!(request("proxy", "read", "ok", "2xx"), 1.0);
    assert_eq!(request("proxy", "write", "ok", "2xx"), 2.0);
    assert_eq!(request("extension", "read", "ok", "2xx"), 1.0);
    assert_eq!(request("extension", "write", "invalid", "4xx"), 1.0);
    for (name, value) in [
        ("countersign_request_duration_seconds_count{face=\"lookaside\"}", 3.0),
        ("countersign_requests_in_flight", 0.0),
        ("countersign_connections_total", 10.0),
        ("countersign_cache_lookups_total{result=\"hit\"}", 3.0),
        ("countersign_access_checks_total{right=\"pull\",verdict=\"absent\"}", 1.0),
        ("countersign_access_checks_total{right=\"push\",verdict=\"granted\"}", 1.0),
        ("countersign_proxied_bytes_total{direction=\"upload\"}", 5000.0),
        ("countersign_appends_total{result=\"new\"}", 0.0),
        ("countersign_store_operations_total{operation=\"walk\",outcome=\"ok\"}", 1.0),
    ] {
        assert_eq!(counted.get(name), Some(&value), "{name}: {counted:#?}");
    }
    let build = counted.keys().find(|name| name.starts_with("countersign_build_info")).unwrap();
    assert!(build.contains(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))), "{build}");
    assert!(counted["process_resident_memory_bytes"] > 1e6);
}

#[test]
fn strangers_make_no_series() {
    let store = tree();
    let server = Server::start(&["--store", text(store.path()), "--admin", "127.0.0.1:0"]);
    let admin = server.admin();
    // Once each kind of request that follows, so that its series is there.
    let kinds = |n: usize| {
        [
            ("GET", format!("/x{n}")),
            ("GET", format!("/lookaside/x{n}@sha256={HEX}/signature-1")),
            ("GET", format!("/lookaside/{n}")),
            ("GET", format!("/v2/{n}/manifests/latest")),
            ("PUT", format!("/extensions/v2/x{n}/signatures/sha256:{HEX}")),
            ("BREW", format!("/%00{n}?a={n}\u{7f}")),
            (["PURGE", "A", "B", "C", "D", "E", "F", "G"][n % 8], format!("/{n}")),
        ]
    };
    let send = |n| {
        for (method, path) in kinds(n) {
            http::request(&server.address, method, &path, &[("X-Request-Id", &format!("r{n}"))], b"");
        }
    };
    send(0);
    let before = metrics(&admin).len();
    (1..150).for_each(send);
    assert_eq!(metrics(&admin).len(), before);
    assert!(before < 1000, "{before}");
}

#[test]
fn prometheus_finds_nothing_to_complain_of() {
    let registry = DockerRegistry::start();
    let store = tree();
    let server =
        Server::start(&["--store", text(store.path()), "--upstream", &registry.url(), "--admin", "127.0.0.1:0"]);
    http::get(&server.address, "/v2/");
    let text = http::get(&server.admin(), "/metrics").body;
    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        eprintln!("promtool is not installed (Debian package prometheus); its check is left out");
        return;
    };
    promtool.stdin.take().unwrap().write_all(&text).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn log_lines_tie_requests_together() {
    // An upstream that shows what it got from a client.
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", upstream.local_addr().unwrap());
    let seen = std::thread::spawn(move || {
        use std::io::Read as _;
        loop {
            let (mut stream, _) = upstream.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            // Not the server's own question at its start.
            if head.contains("traceparent") {
                return head;
            }
        }
    });
    let store = tree();
    let server = Server::start(&["--store", text(store.path()), "--upstream", &url, "--log-format", "json"]);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    http::request(
        &server.address,
        "GET",
        "/v2/",
        &[("traceparent", &parent), ("X-Request-Id", "from-the-front-1")],
        b"",
    );
    let head = seen.join().unwrap();
    let line = || {
        let log = server.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.into_iter().find(|line| line["path"] == "/v2/")
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while line().is_none() {
        assert!(Instant::now() < deadline, "{}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let line = line().unwrap();
    assert_eq!(
        (line["trace_id"].as_str(), line["client_request_id"].as_str()),
        (Some(trace), Some("from-the-front-1"))
    );
    let span = line["request_id"].as_str().unwrap();
    assert!(head.contains(&format!("traceparent: 00-{trace}-{span}-01\r\n")), "{head}");
    assert!(head.contains("x-request-id: from-the-front-1\r\n"), "{head}");
}

/// With the feature: a collector gets the span of a request, in the client's trace, and the upstream
/// gets that span as its parent.
#[cfg(feature = "otlp")]
#[test]
fn spans_go_to_the_collector() {
    use std::io::Read as _;
    let once = |status: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            let _ = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
            bytes
        });
        (url, seen)
    };
    let (upstream, asked) = once("200 OK");
    let (collector, sent) = once("200 OK");
    let store = tree();
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.as_str())];
    let mut server = Server::start_with(&["--store", text(store.path()), "--upstream", &upstream], variables);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    http::request(&server.address, "GET", "/v2/", &[("traceparent", &parent)], b"");
    assert!(server.stop("TERM").success());
    let asked = String::from_utf8_lossy(&asked.join().unwrap()).to_ascii_lowercase();
    let span = asked.split_once(&format!("traceparent: 00-{trace}-")).unwrap().1[..16].to_owned();
    let sent = sent.join().unwrap();
    assert!(sent.starts_with(b"POST /v1/traces HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&sent));
    let holds = |hex: &str| {
        let bytes: Vec<u8> =
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect();
        sent.windows(bytes.len()).any(|window| window == bytes)
    };
    assert!(holds(trace) && holds("00f067aa0ba902b7") && holds(&span), "{}", String::from_utf8_lossy(&sent));
    assert!(!server.log().contains("countersign::span"), "{}", server.log());
}
