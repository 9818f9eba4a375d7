//! Which module may use which, read from the `use crate::` lines and paths of the sources.
//! docs/architecture.md draws the same layers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The layers of the crate, from the lowest. A module may use modules of lower layers only.
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

/// The layers inside `server`, from the lowest. Modules of one layer do not use each other, except in the
/// lowest: those types are what all of the server speaks about.
const SERVER_LAYERS: [&[&str]; 9] = [
    &[
        "authorization",
        "caller",
        "client_address",
        "error",
        "fair_queue",
        "listener",
        "route",
        "salted_hash",
        "shown_name",
        "shown_path",
        "span",
        "trace_context",
    ],
    &["upstream"],
    &["auth"],
    &["reads"],
    &["uploads"],
    &["registries", "store_scopes"],
    &["proxy"],
    &["operations"],
    &["fuzzing"],
];

/// The modules of `server` that may use the application itself (`server::App`): they run it.
const RUNS_APPLICATION: [&str; 2] = ["listener", "operations"];

/// Names of other crates (or of parts of them) and the only modules that may use them.
const RESERVED: [(&str, &[&str]); 9] = [
    ("sequoia_openpgp", &["openpgp"]),
    ("webpki::", &["sigstore", "timestamp"]),
    ("x509_cert", &["sigstore", "server", "timestamp", "registry"]),
    ("object_store", &["store"]),
    ("hyper::server", &["server"]),
    ("hyper_util::server", &["server"]),
    ("anyhow", &["cli"]),
    ("println!", &["cli"]),
    ("eprintln!", &["cli"]),
];

/// What the pure modules may not name: no runtime, no network, no clock.
const IMPURE: [&str; 5] = ["tokio", "hyper", "SystemTime::now", "Timestamp::now", "Instant::now"];
const PURE: [&str; 8] =
    ["image", "json", "signature", "sigstore", "timestamp", "policy", "registries_d", "registries_conf"];

/// A source file below `src`.
struct Source {
    /// The modules of its path: `["server", "auth", "htpasswd"]`.
    modules: Vec<String>,
    path: PathBuf,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside = path.strip_prefix(&root).unwrap().with_extension("");
                let mut modules: Vec<String> =
                    inside.components().map(|part| part.as_os_str().to_str().unwrap().to_owned()).collect();
                if modules.last().is_some_and(|name| name == "mod") {
                    modules.pop();
                }
                if !matches!(modules[0].as_str(), "lib" | "main") {
                    let code = code_of(&std::fs::read_to_string(&path).unwrap());
                    found.push(Source { modules, path, code });
                }
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// Removes comments, and the unit tests at a file's end, which may use what they like.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Returns the module named after each `prefix` in the code: `prefix` is `crate::` or `crate::server::`.
fn modules_used(code: &str, prefix: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
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

fn layer_of<'a>(layers: &[&[&'a str]]) -> BTreeMap<&'a str, usize> {
    layers.iter().enumerate().flat_map(|(i, names)| names.iter().map(move |name| (*name, i))).collect()
}

#[test]
fn modules_use_lower_layers_only() {
    let layer = layer_of(&LAYERS);
    let mut wrong = Vec::new();
    for Source { modules, path, code } in sources() {
        let module = modules[0].as_str();
        let from = *layer.get(module).unwrap_or_else(|| panic!("module {module} is in no layer"));
        for used in modules_used(&code, "crate::") {
            if used == module {
                continue;
            }
            match layer.get(used.as_str()) {
                Some(to) if *to < from => {}
                Some(_) => wrong.push(format!("{}: {module} may not use {used}", path.display())),
                None => wrong.push(format!("{}: {used} is in no layer", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden uses:\n{}", wrong.join("\n"));
}

#[test]
fn modules_of_the_server_use_lower_layers_only() {
    let layer = layer_of(&SERVER_LAYERS);
    let mut wrong = Vec::new();
    for Source { modules, path, code } in sources() {
        let [server, module, inner @ ..] = modules.as_slice() else { continue };
        if server != "server" || matches!(module.as_str(), "testing" | "tests") {
            continue;
        }
        let from = *layer.get(module.as_str()).unwrap_or_else(|| panic!("server::{module} is in no layer"));
        // `super::` leads out of the folder only from its `mod.rs`.
        let above = if inner.is_empty() { modules_used(&code, "use super::") } else { Vec::new() };
        for used in modules_used(&code, "crate::server::").into_iter().chain(above) {
            let is_item = used.starts_with(char::is_uppercase) || used == "answer";
            if used == *module || is_item && RUNS_APPLICATION.contains(&module.as_str()) {
                continue;
            }
            match layer.get(used.as_str()) {
                Some(to) if *to < from || (*to, from) == (0, 0) => {}
                Some(_) => wrong.push(format!("{}: server::{module} may not use {used}", path.display())),
                None => wrong.push(format!("{}: server::{used} is in no layer", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden uses:\n{}", wrong.join("\n"));
}

#[test]
fn every_layer_names_modules_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let exists = |folder: &Path, name: &str| folder.join(name).is_dir() || folder.join(format!("{name}.rs")).is_file();
    let crate_wide =
        LAYERS.concat().into_iter().chain(PURE).chain(RESERVED.iter().flat_map(|(_, only)| only.iter().copied()));
    for name in crate_wide {
        assert!(exists(&root, name), "there is no module {name}");
    }
    for name in SERVER_LAYERS.concat() {
        assert!(exists(&root.join("server"), name), "there is no module server::{name}");
    }
}

#[test]
fn reserved_names_stay_in_their_modules() {
    let mut wrong = Vec::new();
    for Source { modules, path, code } in sources() {
        let module = modules[0].as_str();
        for (name, only) in RESERVED {
            if code.contains(name) && !only.contains(&module) {
                wrong.push(format!("{}: {name} is reserved for {only:?}", path.display()));
            }
        }
        if PURE.contains(&module) {
            for name in IMPURE {
                if code.contains(name) {
                    wrong.push(format!("{}: the pure module {module} names {name}", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "names outside of their modules:\n{}", wrong.join("\n"));
}

#[test]
fn uses_are_found_in_all_their_forms() {
    assert_eq!(
        modules_used("use crate::image::{Digest, Tag};\nuse crate::{json, store::Store};", "crate::"),
        ["image", "json", "store"]
    );
    assert_eq!(modules_used("let x = crate::policy::decide();", "crate::"), ["policy"]);
    assert_eq!(modules_used("use crate::server::{App, auth::htpasswd};", "crate::server::"), ["App", "auth"]);
    assert!(!code_of("use crate::a;\n// crate::b\n#[cfg(test)]\nmod tests { use crate::c; }").contains("crate::b"));
}
