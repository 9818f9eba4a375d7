//! Trust servers by strangers, and names of repositories from wherever they come.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::image::Digest;
use serde_json::{Value, json};

use super::{Desk, HOSTILE, HOSTILE_NAME, strings};
use crate::support::client::text;
use crate::support::web::{Heard, Said, Web};

/// What a header may hold.
const HEADER: &[u8] = b"x\tFORGED\xc2\x9b31m\xc2\x85FORGED\xe2\x80\xaeFORGED\xff";

fn metadata(kind: &str, meta: &Value) -> Vec<u8> {
    json!({"signed": {"_type": kind, "version": 1, "expires": HOSTILE, "meta": meta}, "signatures": [HOSTILE]})
        .to_string()
        .into_bytes()
}

fn named(bytes: &[u8]) -> Value {
    json!({"hashes": {"sha256": STANDARD.encode(hex::decode(Digest::sha256(bytes).hex()).unwrap())}, "length": bytes.len()})
}

/// Answers in each way that a trust server has to put words into.
fn answer(way: &str, heard: &Heard) -> Said {
    let path = heard.path.as_str();
    if path == "/v2/" {
        return Said::new("200 OK");
    }
    if path.ends_with("/_catalog") {
        let names = json!({"repositories": ["a/b", HOSTILE]});
        return Said::new("200 OK").body(names.to_string().as_bytes());
    }
    let targets = metadata(if way == "type" { HOSTILE } else { "Targets" }, &Value::Null);
    let root = metadata("Root", &Value::Null);
    let mut roles = json!({"root": named(&root), "targets": named(&targets), "targets/releases": named(&targets)});
    if way == "role" {
        roles[HOSTILE] = named(&targets);
    }
    if way == "hash" {
        roles["targets"]["hashes"]["sha256"] = HOSTILE.into();
    }
    let snapshot = metadata("Snapshot", &roles);
    let timestamp = metadata("Timestamp", &json!({"snapshot": named(&snapshot)}));
    let file = path.rsplit('/').next().unwrap();
    let role = path.split("/tuf/").nth(1).unwrap_or_default();
    let body = match file.split('.').next().unwrap() {
        _ if way == "words" => return Said::new("418 I'm").body(HOSTILE.as_bytes()),
        _ if way == "error" => {
            let body = json!({"errors": [{"code": HOSTILE, "message": HOSTILE, "detail": HOSTILE}]});
            return Said::new("500 Internal Server Error").body(body.to_string().as_bytes());
        }
        _ if way == "denied" => return Said::new("401 Unauthorized").raw_header("www-authenticate", HEADER),
        _ if way == "redirect" => return Said::new("302 Found").raw_header("location", HEADER),
        _ if way == "form" => HOSTILE.as_bytes().to_vec(),
        "root" => root,
        "timestamp" => timestamp,
        "snapshot" => snapshot,
        _ if role.starts_with("targets") => targets,
        _ => return Said::new("404 Not Found").body(HOSTILE.as_bytes()),
    };
    Said::new("200 OK").raw_header("x-words", HEADER).raw_header("etag", HEADER).body(&body)
}

#[test]
fn trust_servers() {
    let desk = Desk::new();
    for way in ["good", "words", "error", "denied", "redirect", "form", "type", "role", "hash"] {
        let web = Web::start(move |heard| answer(way, heard));
        let (url, to) = (format!("http://{}", web.address), format!("trust-{way}"));
        let fetch = ["trust", "fetch", "--from", &url, "--to", &to, "--timeout", "5"];
        let (people, machines) = desk.clean(&[&fetch[..], &["registry.example/a/b"]].concat());
        assert_eq!(people.code, Some(i32::from(way != "good")), "{way}: {people:?}");
        if way != "good" {
            let said: Value = serde_json::from_str(&machines.stdout).unwrap();
            assert!(strings(&said).contains(&"registry.example/a/b"), "{said:#}");
        }
        let (people, _) = desk.clean(&[&fetch[..], &["--catalog", &web.address.to_string()]].concat());
        assert_ne!(people.code, Some(0), "{way}: {people:?}");
        let manifest = std::fs::read_to_string(desk.path(&format!("{to}/manifest.json"))).unwrap_or_default();
        super::clean(way, &manifest);
    }
}

#[test]
fn names_of_repositories() {
    let desk = Desk::new();
    let fetch = ["trust", "fetch", "--from", "http://127.0.0.1:1", "--to"];
    for args in [
        &["to", HOSTILE_NAME][..],
        &["to", "a.example/b", HOSTILE_NAME],
        &["to", "--guns", HOSTILE_NAME],
        &["to", "--guns-from", HOSTILE_NAME],
        &["to", "--catalog", HOSTILE_NAME],
        &["to", "a.example/b", "--journal", "nowhere\n/FORGED\u{1b}"],
        &["to", "a.example/b", "--tls-ca", HOSTILE_NAME],
        &["to", "a.example/b", "--username", HOSTILE_NAME, "--password-file", HOSTILE_NAME],
        &["to", "a.example/b", "--rate", HOSTILE_NAME],
        &["to", "a.example/b", "--timestamp-authority", "http://127.0.0.1:1", "--timestamp-ca", HOSTILE_NAME],
        &["to", "a.example/b", "--timestamp-authority", HOSTILE_NAME, "--timestamp-ca", HOSTILE_NAME],
    ] {
        let (people, _) = desk.clean(&[&fetch[..], args].concat());
        assert_eq!(people.code, Some(2), "{args:?}: {people:?}");
    }
    // Nothing but the file's and the folder's names is wrong with these.
    let list = desk.host.write(&format!("{HOSTILE_NAME}.txt"), format!("a.example/b\n{HOSTILE}\n"));
    let (people, _) = desk.clean(&[&fetch[..], &["to", "--guns", text(&list)]].concat());
    assert_eq!(people.code, Some(2), "{people:?}");
    for folder in [format!("tuf/{HOSTILE_NAME}/metadata"), "tuf/a.example/b/metadata".to_owned(), "private".to_owned()]
    {
        std::fs::create_dir_all(desk.path("client").join(folder)).unwrap();
    }
    let key =
        format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\ngun: {}\nrole: targets\n\nAAAA\n", "c\u{1b}[2J\u{9b}FORGED");
    desk.host.write(&format!("client/private/{HOSTILE_NAME}.key"), key);
    let to = format!("to-{HOSTILE_NAME}");
    let (people, _) = desk.clean(&[&fetch[..], &[&to, "--guns-from", "client"]].concat());
    assert_eq!(people.code, Some(2), "{people:?}");
}
