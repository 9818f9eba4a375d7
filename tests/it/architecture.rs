//! The house's doors: which room may use which, read off the `use crate::` lines and paths.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The layers from the ground up. A room may use rooms of lower layers only.
const LAYERS: [&[&str]; 9] = [
    &["escape"],
    &["telemetry", "metrics", "go"],
    &["host", "json"],
    &["image"],
    &["signature"],
    &["openpgp", "sigstore", "policy", "registries_d", "registries_conf", "store", "registry", "timestamp"],
    &["lookup", "config"],
    &["server", "resign", "trust", "doctor"],
    &["cli"],
];

/// Names of other crates (or of parts of them) and the only rooms that may say them.
const RESERVED: [(&str, &[&str]); 9] = [
    ("sequoia_openpgp", &["openpgp"]),
    ("webpki::", &["sigstore", "timestamp"]),
    ("x509_cert", &["sigstore", "server", "timestamp"]),
    ("object_store", &["store"]),
    ("hyper::server", &["server"]),
    ("hyper_util::server", &["server"]),
    ("anyhow", &["cli"]),
    ("println!", &["cli"]),
    ("eprintln!", &["cli"]),
];

/// What the pure rooms may not name: no runtime, no network, no clock.
const IMPURE: [&str; 5] = ["tokio", "hyper", "SystemTime::now", "Timestamp::now", "Instant::now"];
const PURE: [&str; 8] =
    ["image", "json", "signature", "sigstore", "timestamp", "policy", "registries_d", "registries_conf"];

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside = path.strip_prefix(&root).unwrap();
                let room = inside.components().next().unwrap().as_os_str().to_str().unwrap();
                let room = room.trim_end_matches(".rs").to_owned();
                if room != "lib" && room != "main" {
                    let code = code_of(&std::fs::read_to_string(&path).unwrap());
                    found.push((room, path, code));
                }
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// Drops comments, and the unit tests at a file's end, which may use what they like.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn rooms_used(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let names = if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            group
                .split([','])
                .map_while(|part| {
                    let name = (depth == 0).then(|| part.trim().to_owned());
                    depth += part.matches('{').count() as i32 - part.matches('}').count() as i32;
                    (depth >= -1).then_some(name)
                })
                .flatten()
                .collect()
        } else {
            vec![rest.to_owned()]
        };
        for name in names {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            used.push(name[..end].to_owned());
        }
    }
    used
}

#[test]
fn doors_lead_down_only() {
    let layer: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(i, rooms)| rooms.iter().map(move |room| (*room, i))).collect();
    let mut wrong = Vec::new();
    for (room, path, code) in sources() {
        let from = *layer.get(room.as_str()).unwrap_or_else(|| panic!("room {room} stands in no layer"));
        for used in rooms_used(&code) {
            if used == room {
                continue;
            }
            match layer.get(used.as_str()) {
                Some(to) if *to < from => {}
                Some(_) => wrong.push(format!("{}: {room} may not use {used}", path.display())),
                None => wrong.push(format!("{}: {used} stands in no layer", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden doors:\n{}", wrong.join("\n"));
}

#[test]
fn names_stay_in_their_rooms() {
    let mut wrong = Vec::new();
    for (room, path, code) in sources() {
        for (name, rooms) in RESERVED {
            if code.contains(name) && !rooms.contains(&room.as_str()) {
                wrong.push(format!("{}: {name} belongs to {rooms:?}", path.display()));
            }
        }
        if PURE.contains(&room.as_str()) {
            for name in IMPURE {
                if code.contains(name) {
                    wrong.push(format!("{}: the pure room {room} names {name}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "names out of their rooms:\n{}", wrong.join("\n"));
}

#[test]
fn the_check_sees_what_it_must() {
    assert_eq!(
        rooms_used("use crate::image::{Digest, Tag};\nuse crate::{json, store::Store};"),
        ["image", "json", "store"]
    );
    assert_eq!(rooms_used("let x = crate::policy::decide();"), ["policy"]);
    assert!(!code_of("use crate::a;\n// crate::b\n#[cfg(test)]\nmod tests { use crate::c; }").contains("crate::b"));
}
