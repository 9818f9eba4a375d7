//! The wall clock jumps by years under a running server: what it remembers it remembers as long as
//! it said, by the clock that does not jump.
//!
//! The server runs with a small library before the C library's clock (`tests/data/clock.c`), which
//! adds a number of seconds that the test may change at any time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use countersign::image::Digest;

use crate::support::client::{Host, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::http::{self, Answer};
use crate::support::registry_api::{entry, listed, push_image, signatures};
use crate::support::server::Server;

const REPOSITORY: &str = "birds/bluebird";
const YEAR: i64 = 365 * 24 * 3600;
/// How long rights and sets are remembered, and a time by which they are forgotten.
const REMEMBERED: u64 = 3;
const FORGOTTEN: Duration = Duration::from_millis(REMEMBERED * 1000 + 700);

/// Builds the library by the C compiler that every build of ours needs.
fn library(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/clock.c");
    let library = folder.join("clock.so");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
    assert!(built.expect("a C compiler (gcc; make build installs it)").success());
    library
}

#[test]
fn rights_and_sets_are_remembered_by_the_clock_that_does_not_jump() {
    let host = Host::new(Path::new("/nonexistent"));
    let mut registry = DockerRegistry::with_htpasswd("alice", "secret");
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("alice:secret"));
    let alice = [("Authorization", basic.as_str())];
    let digest = Digest::sha256(&push_image(registry.address(), REPOSITORY, &alice, "one"));
    let config = host.write(
        "c.yaml",
        format!(
            "cache: {{set_seconds: {REMEMBERED}, access_seconds: {REMEMBERED}}}\ngate: {{mode: off}}\naudit_log: {}\n",
            text(&host.path().join("audit.jsonl"))
        ),
    );
    let offset = host.write("offset", "0");
    let jump = |years: i64| {
        // By a rename, so that no reader sees half a number.
        std::fs::rename(host.write("offset.new", (years * YEAR).to_string()), &offset).unwrap();
    };
    let library = library(host.path());
    let store = host.path().join("store");
    let server = Server::start_with(
        &["--store", text(&store), "--config", text(&config), "--upstream", &registry.url()],
        [("LD_PRELOAD", text(&library)), ("TEST_CLOCK_OFFSET", text(&offset))],
    );
    let list = || http::request(&server.address, "GET", &signatures(REPOSITORY, &digest), &alice, b"");
    let put = |blob: &[u8]| {
        http::request(&server.address, "PUT", &signatures(REPOSITORY, &digest), &alice, &entry(&digest, blob))
    };
    let count = |answer: Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        listed(&answer).len()
    };
    // As another process writes.
    let write = |n: usize| {
        let file = store.join(format!("{REPOSITORY}@{}/signature-{n}", digest.path_form()));
        std::fs::write(file, [&[0xa3], format!("other {n}").as_bytes()].concat()).unwrap();
    };

    assert_eq!(put(b"\xa31").status, 201);
    assert_eq!(count(list()), 1);
    let mut stored = 1;
    for years in [10, -20, 0] {
        jump(years);
        assert_eq!(put(&[&[0xa3], years.to_string().as_bytes()].concat()).status, 201);
        stored += 1;
        assert_eq!(count(list()), stored);
        // A right that was granted before a jump ends when it would have ended, not years later.
        registry.stop();
        jump(years - 15);
        assert_eq!(count(list()), stored, "remembered for {REMEMBERED} seconds, whatever the year");
        std::thread::sleep(FORGOTTEN);
        assert_eq!(list().status, 502, "nobody can say any more whether alice may");
        registry.restart();
        // And what others wrote is seen in time.
        stored += 1;
        write(stored);
        jump(years + 15);
        std::thread::sleep(FORGOTTEN);
        assert_eq!(count(list()), stored);
    }
    // It was another time for the server, indeed.
    let audit = std::fs::read_to_string(host.path().join("audit.jsonl")).unwrap();
    let years: Vec<i64> = audit
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|line| line["verdict"] == "stored")
        .map(|line| line["time"].as_str().unwrap()[..4].parse().unwrap())
        .collect();
    assert_eq!(years.len(), 4, "{audit}");
    assert!(years[1] - years[0] >= 9 && years[0] - years[2] >= 19, "{years:?}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
