//! Uploads to servers on the web that lose their temper: made once, at the rate that was asked for.

use std::path::PathBuf;

use countersign::image::Digest;

use super::{Desk, totals};
use crate::support::client::text;
use crate::support::web::{Said, Web};

/// What a countersign server's lookaside does with `PUT …/signature-new`, and no more.
pub(super) struct Uploads {
    pub(super) web: Web,
    pub(super) folder: PathBuf,
}

impl Uploads {
    pub(super) fn start(folder: PathBuf, troubles: usize) -> Self {
        let (root, left) = (folder.clone(), std::sync::Mutex::new(troubles));
        let web = Web::start(move |heard| {
            if heard.header("authorization") != Some("Basic dXNlcjpwYXNzLXdvcmQ=") {
                return Said::new("401 Unauthorized");
            }
            let path = root.join(heard.path.trim_start_matches("/lookaside/"));
            if heard.method == "GET" {
                return std::fs::read(path)
                    .map_or(Said::new("404 Not Found"), |bytes| Said::new("200 OK").body(&bytes));
            }
            let folder = path.parent().unwrap();
            let mut number = 1;
            while let Ok(bytes) = std::fs::read(folder.join(format!("signature-{number}"))) {
                if bytes == heard.body {
                    return Said::new("204 No Content").header("Location", &format!("/x/signature-{number}"));
                }
                number += 1;
            }
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(format!("signature-{number}")), &heard.body).unwrap();
            let mut left = left.lock().unwrap();
            if *left > 0 {
                // Stored, but who knows: the client must ask again, and nothing may be there twice.
                *left -= 1;
                let status = ["503 Service Unavailable", "429 Too Many Requests"][*left % 2];
                return Said::new(status).header("Retry-After", "0");
            }
            Said::new("201 Created").header("Location", &format!("/x/signature-{number}"))
        });
        Self { web, folder }
    }
}

#[test]
fn uploads_to_a_web_lookaside_are_made_once() {
    let desk = Desk::new();
    let tree = desk.host.path().join("old");
    let digests: Vec<Digest> = (0u8..20).map(|seed| Digest::sha256(&[seed])).collect();
    for digest in &digests {
        desk.sign_into(&tree, "birds/robin:1", digest);
    }
    let uploads = Uploads::start(desk.host.path().join("uploaded"), 7);
    let base = format!("http://user:pass-word@{}/lookaside", uploads.web.address);
    let journal = desk.path("journal");
    let ran = desk.resign(text(&tree), &base, &["--journal", &journal]);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [20, 0, 0, 0, 0]), "{ran:?}");
    for digest in &digests {
        let claims = desk.claims(text(&uploads.folder), "birds/robin", digest);
        assert_eq!(claims, ["us.icr.io/birds/robin:1"]);
    }
    let journal = std::fs::read_to_string(journal).unwrap();
    assert!(!journal.contains("pass-word"), "{journal}");
    let ran = desk.resign(text(&tree), &base, &[]);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [0, 20, 0, 0, 0]), "{ran:?}");
    // By the login file, and refused with the wrong password.
    let login = |password: &str| {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("user:{password}"));
        let auth = serde_json::json!({"auths": {&uploads.web.address: {"auth": pair}}});
        desk.host.write("containers/auth.json", auth.to_string());
        let base = format!("http://{}/lookaside", uploads.web.address);
        desk.resign(text(&tree), &base, &["--images", &desk.list(&format!("birds/robin@{}\n", digests[0]))])
    };
    assert_eq!(totals(&login("pass-word")), [0, 1, 0, 0, 0]);
    let ran = login("wrong");
    assert_eq!((ran.code, totals(&ran)), (Some(1), [0, 0, 0, 0, 1]), "{ran:?}");
    assert!(ran.stderr.contains("401 Unauthorized"), "{ran:?}");
}

#[test]
fn registries_are_asked_at_the_rate_and_waited_for() {
    let desk = Desk::new();
    let tree = desk.host.path().join("old");
    let digest = Digest::sha256(b"x");
    for repository in ["a/a", "a/b", "a/c", "a/d"] {
        desk.sign_into(&tree, &format!("{repository}:1"), &digest);
    }
    // A registry whose extension loses its temper: each PUT is stored and answered 429 or 503 at first.
    let stored = std::sync::Arc::new(std::sync::Mutex::new(std::collections::BTreeMap::<String, Vec<String>>::new()));
    let shelf = stored.clone();
    let tries = std::sync::Mutex::new(0);
    let web = Web::start(move |heard| {
        if heard.path == "/v2/" {
            return Said::new("200 OK").header("X-Registry-Supports-Signatures", "1");
        }
        let mut shelf = shelf.lock().unwrap();
        let set = shelf.entry(heard.path.clone()).or_default();
        if heard.method == "GET" {
            return Said::new("200 OK").body(format!("{{\"signatures\":[{}]}}", set.join(",")).as_bytes());
        }
        set.push(String::from_utf8(heard.body.clone()).unwrap());
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        match *tries {
            1 => Said::new("429 Too Many Requests").header("Retry-After", "1"),
            2 => Said::new("503 Service Unavailable").header("Retry-After", "0"),
            _ => Said::new("201 Created"),
        }
    });
    let start = std::time::Instant::now();
    let to = format!("docker://{}", web.address);
    let ran = desk.resign(text(&tree), &to, &["--rate", "10"]);
    assert_eq!((ran.code, totals(&ran)), (Some(0), [4, 0, 0, 0, 0]), "{ran:?}");
    let asked = web.heard().len();
    let least = std::time::Duration::from_millis(100) * u32::try_from(asked - 1).unwrap();
    assert!(start.elapsed() >= least.max(std::time::Duration::from_secs(1)), "{asked} in {:?}", start.elapsed());
    let stored = stored.lock().unwrap();
    assert_eq!(stored.values().map(Vec::len).collect::<Vec<_>>(), [1; 4], "nothing is there twice");
}
