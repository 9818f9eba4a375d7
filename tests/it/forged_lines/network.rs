//! Registries and lookasides by strangers, and callers of our server.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::image::Digest;
use serde_json::{Value, json};

use super::{Desk, HOSTILE, HOSTILE_NAME, MANIFEST, clean, hostile, is_hidden, keys, text};
use crate::support::http;
use crate::support::server::Server;
use crate::support::web::{Heard, Said, Web};

const TOKEN: &str = "ci-token-of-many-letters";
/// What a header may hold: bytes that are no ASCII, and the tab.
const HEADER: &[u8] = b"x\tFORGED\xc2\x9b31m\xc2\x85FORGED\xe2\x80\xaeFORGED\xff";

fn error(status: &str, code: &str) -> Said {
    let body = json!({"errors": [{"code": code, "message": HOSTILE, "detail": HOSTILE}]});
    Said::new(status).header("content-type", "application/json").body(body.to_string().as_bytes())
}

fn list() -> Vec<u8> {
    let member = |os: &str| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1,
            "digest": Digest::sha256(b"member").to_string(), "platform": {"os": os, "architecture": HOSTILE}})
    };
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [member("linux"), member(HOSTILE)]})
    .to_string()
    .into_bytes()
}

/// Answers in each way that a registry has to put words into.
fn answer(way: &str, heard: &Heard) -> Said {
    let path = heard.path.as_str();
    let ping = path == "/v2/";
    let manifest = path.contains("/manifests/");
    let good =
        || Said::new("200 OK").header("content-type", "application/vnd.oci.image.manifest.v1+json").body(MANIFEST);
    match way {
        "challenge" => Said::new("401 Unauthorized").raw_header("www-authenticate", HEADER),
        "bearer" => Said::new("401 Unauthorized").raw_header(
            "www-authenticate",
            &[b"Bearer realm=\"http://127.0.0.1:1/", HEADER, b"\",service=\"", HEADER, b"\""].concat(),
        ),
        "ping" if ping => error("500 Internal Server Error", HOSTILE),
        "announced" if ping => Said::new("200 OK").raw_header("x-registry-supports-signatures", HEADER),
        "extension" if ping => Said::new("200 OK").header("x-registry-supports-signatures", "1"),
        "extension-error" if ping => Said::new("200 OK").header("x-registry-supports-signatures", "1"),
        "extension-broken" if ping => Said::new("200 OK").header("x-registry-supports-signatures", "1"),
        _ if ping => Said::new("200 OK"),
        "manifest" if manifest => error("404 Not Found", HOSTILE),
        "denied" if manifest => error("403 Forbidden", "DENIED"),
        "words" if manifest => Said::new("418 I'm").body(HOSTILE.as_bytes()),
        "type" if manifest => good().raw_header("content-type", HEADER),
        "digest" if manifest => good().raw_header("docker-content-digest", HEADER),
        "list" if manifest => {
            Said::new("200 OK").header("content-type", "application/vnd.oci.image.index.v1+json").body(&list())
        }
        _ if manifest => good(),
        "extension" if path.contains("/signatures/") => {
            let signature = |name: &str, content: &[u8]| json!({"schemaVersion": 2, "type": "atomic", "name": name, "content": STANDARD.encode(content)});
            let digest = Digest::sha256(MANIFEST);
            let all = json!({"signatures": [signature(&format!("{digest}@{HOSTILE}"), &hostile("alice", &digest)),
                signature(HOSTILE, &hostile("bob", &digest)), {"schemaVersion": 2, "type": HOSTILE, "name": HOSTILE}]});
            Said::new("200 OK").header("content-type", "application/json").body(all.to_string().as_bytes())
        }
        "extension-broken" if path.contains("/signatures/") => Said::new("200 OK").body(HOSTILE.as_bytes()),
        "lookaside" if path.contains("/signature-") => Said::new("500 Internal Server Error").body(HOSTILE.as_bytes()),
        "tags" if path.ends_with("/tags/list") => {
            Said::new("200 OK").body(json!({"name": HOSTILE, "tags": ["1", HOSTILE]}).to_string().as_bytes())
        }
        "tags" if path.ends_with("/_catalog") => {
            Said::new("200 OK").body(json!({"repositories": ["a/b", HOSTILE]}).to_string().as_bytes())
        }
        "link" if path.ends_with("list") || path.ends_with("_catalog") => {
            let body = json!({"tags": ["1"], "repositories": ["a/b"]}).to_string();
            Said::new("200 OK").raw_header("link", &[b"<", HEADER, b">; rel=\"next\""].concat()).body(body.as_bytes())
        }
        _ => error("404 Not Found", HOSTILE),
    }
}

#[test]
fn registries() {
    let desk = Desk::new();
    let key = keys::secret("carol");
    for way in [
        "challenge",
        "bearer",
        "ping",
        "announced",
        "extension",
        "extension-error",
        "extension-broken",
        "manifest",
        "denied",
        "words",
        "type",
        "digest",
        "list",
        "lookaside",
        "tags",
        "link",
    ] {
        let web = Web::start(move |heard| answer(way, heard));
        let name = format!("{}/a/b:1", web.address);
        let lookaside = format!("http://{}/{way}", web.address);
        let folder = desk.path(&format!("rd-{way}"));
        let document = format!("docker:\n  '{}':\n    lookaside: {lookaside}\n", web.address);
        desk.host.write(&format!("rd-{way}/a.yaml"), document);
        let host = ["--tls-verify=false", "--policy", text(&desk.policy), "--registries-d", text(&folder)];
        desk.clean(&[&["verify", &name][..], &host].concat());
        desk.clean(&[&["verify", &name, "--all"][..], &host].concat());
        desk.clean(&[&["inspect", &name][..], &host].concat());
        desk.clean(&[&["resolve", &name, "--online"][..], &host].concat());
        let (people, _) = desk.clean(&[&["doctor", &name][..], &host].concat());
        assert!(people.stdout.contains("What a client does for"), "{way}: {people:?}");
        let images = desk.host.write("images", format!("{name}\n{}/a/b\n", web.address));
        let (from, policy) = (format!("docker://{}", web.address), text(&desk.policy));
        let rename = format!("{}=new.example", web.address);
        let base = ["resign", "--from", &from, "--from-tls-verify=false", "--to", "new", "--policy", policy];
        let base = [&base[..], &["--key", text(&key), "--rename", &rename, "--dry-run"]].concat();
        desk.clean(&[&base[..], &["--images", text(&images), "--discover", "tags"]].concat());
        desk.clean(&[&base[..], &["--discover", "catalog"]].concat());
        assert!(!web.heard().is_empty());
    }
}

/// The strings of a JSON answer or a line of a record, checked for what a terminal obeys.
fn document(what: &str, text: &str) -> Value {
    assert!(!text.trim_end().contains(is_hidden), "{what}: {text:?}");
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{what}: {e}: {text:?}"))
}

#[test]
fn callers() {
    for form in ["text", "json"] {
        let desk = Desk::new();
        let upstream = Web::start(|heard| answer("manifest", heard));
        let (audit, policy) = (desk.path("audit.jsonl"), text(&desk.policy));
        let tokens = desk.host.write("tokens", format!("ci:{TOKEN}\n"));
        let config = json!({"audit_log": audit, "access": {"write": [{"token": tokens}, "upstream"]},
            "gate": {"policy": policy}});
        let config = desk.host.write("c.yaml", config.to_string());
        let store = desk.path(&format!("store {HOSTILE_NAME}"));
        let (store, url) = (text(&store), format!("http://{}", upstream.address));
        let mut args = vec!["--store", store, "--config", text(&config), "--upstream", &url];
        args.extend(["--log", "countersign=trace", "--log-format", form]);
        let server = Server::start(&args);
        let digest = Digest::sha256(MANIFEST);
        let put = format!("/lookaside/a/b@{}/signature-1", digest.path_form());
        let list = format!("/extensions/v2/a/b/signatures/{digest}");
        let basic = format!("Basic {}", STANDARD.encode(format!("{HOSTILE_NAME}:secret")));
        let bearer = format!("Bearer {TOKEN}");
        let headers = |who| [("Authorization", who), ("X-Request-Id", "a\u{9b}b"), ("User-Agent", "\u{202e}")];
        for (key, who) in [("alice", &bearer), ("bob", &bearer), ("alice", &basic), ("bob", &basic)] {
            let headers = headers(who.as_str());
            let blob = hostile(key, &digest);
            let told = http::request(&server.address, "PUT", &put, &headers, &blob);
            assert!(told.status >= 400, "{told:?}");
            clean("an answer in text", &String::from_utf8(told.body).unwrap());
            let upload = json!({"schemaVersion": 2, "type": "atomic", "name": format!("{digest}@{HOSTILE}"),
                "content": STANDARD.encode(&blob)});
            for upload in [upload.clone(), json!({"schemaVersion": 2, "type": HOSTILE, HOSTILE: 1}), HOSTILE.into()] {
                let told = http::request(&server.address, "PUT", &list, &headers, upload.to_string().as_bytes());
                assert!(told.status >= 400, "{told:?}");
                document("an answer in JSON", &String::from_utf8(told.body).unwrap());
            }
        }
        for path in ["/", "/v2/a/b/manifests/x%0aFORGED%1b%c2%9b", "/lookaside/x%0aFORGED%1b", "/%0aFORGED"] {
            let told = http::request(&server.address, "GET", path, &headers(&basic), b"");
            let body = String::from_utf8(told.body).unwrap();
            // What the upstream says is its own.
            if !path.starts_with("/v2/") {
                clean(path, &body);
            }
        }
        let log = server.log();
        clean("the log", &log);
        assert!(log.contains("FORGED"), "{log}");
        if form == "json" {
            assert!(log.lines().all(|line| document("a line of the log", line).is_object()));
        }
        let record = std::fs::read_to_string(Path::new(&audit)).unwrap();
        let lines: Vec<Value> = record.lines().map(|line| document("the record", line)).collect();
        assert!(
            lines.iter().any(|line| line["detail"].as_str().is_some_and(|detail| detail.contains("FORGED"))),
            "{record}"
        );
    }
}
