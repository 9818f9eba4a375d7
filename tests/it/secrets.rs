//! What clients say about who they are stands nowhere, wherever they say it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::image::Digest;

use crate::support::client::{Host, text};
use crate::support::http;
use crate::support::server::Server;
use crate::support::web::{Said, Web};

/// Stands in everything that is secret here, in one form or another.
const CANARY: &str = "CaNaRy0123456789";
const BLOB: &[u8] = b"\xa3signature";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Sends a head as it is, and returns all that comes.
fn say(address: &str, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let _ = write!(stream, "{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Looks for a secret as it is, and in the forms in which it is sent.
fn assert_clean(what: &str, said: &str) {
    let lower = said.to_ascii_lowercase();
    let canary = CANARY.to_ascii_lowercase();
    let at = lower.find(&canary);
    assert!(at.is_none(), "{what}: …{}…", at.and_then(|at| said.get(at.saturating_sub(200)..at + 40)).unwrap_or(said));
    for start in 0..3 {
        // Three places in groups of base64; the ends depend on what is beside.
        let encoded = STANDARD.encode(format!("{}{CANARY}", "x".repeat(start)));
        let inner = &encoded[4..20];
        assert!(!said.contains(inner), "{what} has it in base64: {inner}");
    }
}

#[test]
fn no_secret_stands_in_any_log_or_answer() {
    // A registry that lets in whoever shows the canary as a password or as the name, and refuses others.
    let registry = Web::start(|heard| {
        let said = heard.header("authorization").and_then(|value| value.strip_prefix("Basic ")).unwrap_or_default();
        let pair = STANDARD.decode(said).unwrap_or_default();
        if !String::from_utf8_lossy(&pair).contains(CANARY) {
            return Said::new("401 Unauthorized").header("www-authenticate", "Basic realm=\"r\"");
        }
        match heard.method.as_str() {
            "POST" => Said::new("202 Accepted").header("location", &format!("{}1", heard.path)),
            _ => Said::new("200 OK").header("content-type", "application/vnd.oci.image.manifest.v1+json"),
        }
    });
    let host = Host::new(Path::new("/nonexistent"));
    let tokens = host.write("tokens", format!("ci:other-{CANARY}\n"));
    let audit = host.path().join("audit.jsonl");
    let config = format!(
        "access: {{read: [upstream, {{token: {tokens}}}], write: [upstream, {{token: {tokens}}}]}}\n\
         gate: {{mode: off}}\naudit_log: {}\nregistries: {{r.example: {{upstream: 'http://{}', path: true}}}}\n",
        audit.display(),
        registry.address,
        tokens = tokens.display(),
    );
    let config = host.write("c.yaml", config.replace(", path: true", ""));
    let store = host.path().join("store");
    let upstream = format!("http://{}", registry.address);
    let args = ["--log", "trace", "--config", text(&config), "--store", text(&store), "--admin", "127.0.0.1:0"];
    let mut server = Server::start(&[&args[..], &["--upstream", &upstream]].concat());
    let address = server.address.clone();

    let hex = Digest::sha256(b"x").hex().to_owned();
    let signature = |n: usize| format!("/lookaside/a/b{n}@sha256={hex}/signature-new");
    let targets = |n: usize| {
        [
            ("GET", format!("/lookaside/a/b{n}@sha256={hex}/signature-1")),
            ("HEAD", format!("/lookaside/sha256={hex}/signature-1")),
            ("PUT", signature(n)),
            ("DELETE", format!("/lookaside/a/b{n}@sha256={hex}/signature-1")),
            ("MKCOL", format!("/lookaside/a/b{n}@sha256={hex}")),
            ("PROPFIND", "/lookaside/".to_owned()),
            ("GET", format!("/extensions/v2/a/b/signatures/sha256:{hex}")),
            ("PUT", format!("/extensions/v2/a/b{n}/signatures/sha256:{hex}")),
            ("POST", format!("/extensions/v2/a/b/signatures/sha256:{hex}")),
            ("GET", "/v2/".to_owned()),
            ("GET", format!("/v2/a/b/manifests/sha256:{hex}")),
            ("POST", "/v2/a/b/blobs/uploads/".to_owned()),
            ("GET", "/v2/r.example/a/manifests/latest".to_owned()),
            ("GET", "/token".to_owned()),
            ("POST", "/v2/token".to_owned()),
            ("GET", "/".to_owned()),
            ("GET", "/nothing".to_owned()),
        ]
    };
    let long = format!("ghp_{CANARY}{}", "Zz9".repeat(30));
    let fields: Vec<String> = [
        basic(&format!("ghp_{CANARY}"), ""),
        basic(&format!("ghp_{CANARY}"), "x-oauth-basic"),
        basic(&format!("ghp_{CANARY}"), &format!("ghp_{CANARY}")),
        basic(&format!("glpat-{CANARY}"), "something else"),
        basic(CANARY, "unused"),
        basic(&long, "something else"),
        basic("bob", CANARY),
        basic("oauth2accesstoken", CANARY),
        basic(&format!("bob={CANARY}"), CANARY),
        basic(&format!("bob%3A{CANARY}"), "x y"),
        basic(&format!("bob:{CANARY}"), ""),
        format!("Bearer {CANARY}"),
        format!("bearer eyJhbGciOiJub25lIn0.{CANARY}.x"),
        format!("{CANARY} x"),
        CANARY.to_owned(),
        format!("Digest username=\"{CANARY}\""),
    ]
    .iter()
    .map(|value| format!("Authorization: {value}"))
    .chain([
        format!("Cookie: session={CANARY}"),
        format!("Proxy-Authorization: {}", basic("bob", CANARY)),
        format!("X-Forwarded-For: 192.0.2.7, {CANARY}"),
        format!("X-Forwarded-Host: bob:{CANARY}@host"),
        format!("Forwarded: for={CANARY}"),
        format!("X-Registry-Auth: {CANARY}"),
        format!("Content-Range: {CANARY}"),
        format!("If-Match: {CANARY}"),
        format!("Expect: {CANARY}"),
    ])
    .collect();
    let json = format!(
        "{{\"schemaVersion\":2,\"type\":\"{CANARY}\",\"name\":\"sha256:{hex}@{CANARY}\",\"content\":\"{CANARY}\"}}"
    );
    let mut asked = 0;
    for (n, field) in fields.iter().enumerate() {
        for (method, target) in targets(n) {
            let body = match method {
                "PUT" if target.starts_with("/extensions") => json.as_bytes(),
                "PUT" => BLOB,
                _ => b"",
            };
            let answer = say(&address, &format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n{field}"), body);
            assert_clean(&format!("the answer to {method} {target} with {}", &field[..10]), &answer);
            asked += 1;
        }
    }
    for (method, target) in targets(99) {
        for target in [
            format!("{target}?token=other-{CANARY}"),
            format!("{target}?token={CANARY}&x={CANARY}"),
            format!("{target}%3Ftoken={CANARY}"),
            format!("{target};token={CANARY}"),
            format!("http://bob:{CANARY}@{address}{target}"),
            format!("{target}?token={CANARY}%zz \u{7f}"),
        ] {
            for host in [address.clone(), format!("bob:{CANARY}@{address}")] {
                let body = if method == "PUT" { BLOB } else { b"" };
                let answer = say(&address, &format!("{method} {target} HTTP/1.1\r\nHost: {host}"), body);
                // The address of an upload to a registry is the client's own.
                let answer = answer.replace(&target, "");
                assert_clean(&format!("the answer to {method} {target}"), &answer);
                asked += 1;
            }
        }
    }
    // What is looked at is not only refusals.
    let last = |last: &str| format!("/lookaside/a/last@sha256={hex}/signature-{last}?token=other-{CANARY}");
    assert_eq!(http::request(&address, "PUT", &last("new"), &[], BLOB).status, 201);
    assert_eq!(http::get(&address, &last("1")).body, BLOB);
    let metrics = http::get(&server.admin(), "/metrics");
    assert_clean("metrics", &metrics.text());
    assert!(server.stop("TERM").success());
    let log = server.log();
    assert!(log.matches("request_id").count() > asked / 2 && log.contains("TRACE"), "{asked} {}", log.len());
    assert_clean("the log", &log);
    let audit = std::fs::read_to_string(&audit).unwrap();
    assert_clean("the audit log", &audit);
    let who: std::collections::BTreeSet<String> = audit
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["who"].as_str().map(str::to_owned))
        .map(|who| who.split(':').next().unwrap().to_owned())
        .collect();
    let expected = ["bob", "ci", "hidden", "oauth2accesstoken", "token"];
    assert!(expected.iter().all(|name| who.contains(*name)), "{who:?}");
}
