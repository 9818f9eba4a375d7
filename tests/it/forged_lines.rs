//! Strings from outside with line ends, controls and marks of direction in them, given to every command
//! in every place that takes one: none of them writes a line, and none reaches a terminal as it is.

mod jobs;
mod network;
mod trust;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use countersign::escape::is_hidden;
use countersign::image::Digest;
use countersign::signature::Claim;
use serde_json::{Value, json};

use crate::support::client::{Host, Ran, text};
use crate::support::keys;

/// What a stranger would write to have a line of his own, or to rewrite ours.
const HOSTILE: &str = "x\nFORGED accepted\r\nFORGED\r\t\u{0}\u{1b}[2J\u{7f}\u{85}FORGED\u{9b}31m\u{200b}\u{202e}\u{2028}FORGED\u{2029}\u{2066}\u{feff}\u{e0041}y";
/// The same as a file may be called, and as an argument may be.
const HOSTILE_NAME: &str = "x\nFORGED accepted\r\nFORGED\u{1b}[2J\u{7f}\u{85}FORGED\u{9b}31m\u{202e}\u{2028}FORGED y";
const MANIFEST: &[u8] = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
/// Nobody listens there.
const NAME: &str = "127.0.0.1:1/a/b:1";

/// No line of it was written by a stranger, and nothing in it is obeyed.
#[track_caller]
fn clean(what: &str, text: &str) {
    let hidden: String = text.chars().filter(|c| is_hidden(*c) && *c != '\n').collect();
    assert!(hidden.is_empty(), "{what}: {hidden:?} in {text:?}");
    let forged = text.lines().find(|line| line.trim_start().starts_with("FORGED"));
    assert!(forged.is_none(), "{what}: {forged:?} in {text:?}");
}

/// A host with a policy of alice's, and a tree in which strangers have left what they like.
struct Desk {
    host: Host,
    policy: PathBuf,
    manifest: PathBuf,
    tree: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let host = Host::new(Path::new("/nonexistent"));
        let policy = host.signed_by_policy("policy.json", &keys::public("alice"));
        let manifest = host.write("manifest.json", MANIFEST);
        let tree = host.path().join("tree");
        let desk = Self { host, policy, manifest, tree };
        let digest = Digest::sha256(MANIFEST);
        let set = format!("tree/a/b@{}", digest.path_form());
        // By a trusted key, by another, broken, and one too many.
        desk.host.write(&format!("{set}/signature-1"), hostile("alice", &digest));
        desk.host.write(&format!("{set}/signature-2"), hostile("bob", &digest));
        desk.host.write(&format!("{set}/signature-3"), HOSTILE);
        desk.host.write(&format!("{set}/signature-5"), hostile("bob", &Digest::sha256(b"other")));
        desk.host.write(&format!("{set}/{HOSTILE_NAME}#1"), "");
        desk.host.write(&format!("tree/{HOSTILE_NAME}/{HOSTILE_NAME}@sha256={HOSTILE_NAME}/signature-1"), "");
        let unnamed = desk.tree.join(OsString::from_vec(b"\xff\nFORGED\x9b".to_vec()));
        std::fs::write(unnamed, "").unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    fn command(&self, args: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        for name in ["XDG_CONFIG_HOME", "CONTAINERS_POLICY_JSON", "REGISTRY_AUTH_FILE", "COUNTERSIGN_LOG"] {
            command.env_remove(name);
        }
        command.env("HOME", self.host.path()).env("_CONTAINERS_ROOTLESS_UID", "1000").current_dir(self.host.path());
        command.args(args);
        command
    }

    /// Runs it for people and for machines, with all that there is to log; returns what it said to both.
    #[track_caller]
    fn clean(&self, args: &[impl AsRef<OsStr>]) -> (Ran, Ran) {
        let run = |format: &str| {
            let global = ["--format", format, "--log", "countersign=trace"].map(OsString::from);
            let args: Vec<OsString> =
                global.into_iter().chain(args.iter().map(|arg| arg.as_ref().to_owned())).collect();
            let ran = Ran::of(self.command(&args).output().unwrap());
            let what = format!("{args:?}, exit {:?}", ran.code);
            assert!(ran.code.is_some() && !ran.stderr.contains("panicked"), "{what}: {ran:?}");
            clean(&what, &ran.stdout);
            clean(&what, &ran.stderr);
            ran
        };
        let (people, machines) = (run("text"), run("json"));
        // What breaks off has no end.
        if !machines.stdout.is_empty() && machines.code != Some(2) {
            let read: Result<Value, _> = serde_json::from_str(&machines.stdout);
            read.unwrap_or_else(|e| panic!("{e}: {machines:?}"));
        }
        (people, machines)
    }
}

/// A signature whose claim is a stranger's work.
fn hostile(key: &str, digest: &Digest) -> Vec<u8> {
    let claim = Claim {
        reference: format!("{NAME}{HOSTILE}"),
        digest: digest.clone(),
        creator: Some(HOSTILE.to_owned()),
        timestamp: Some(1_700_000_000),
    };
    keys::signed(&keys::signer(key), &claim)
}

/// All strings in a JSON document.
fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(all) => all.iter().flat_map(strings).collect(),
        Value::Object(all) => all.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

#[track_caller]
fn tells_whole(machines: &Ran, wanted: &str) {
    let value: Value = serde_json::from_str(&machines.stdout).unwrap();
    assert!(strings(&value).contains(&wanted), "the value is not itself: {value:#}");
}

#[test]
fn claims() {
    let desk = Desk::new();
    let set = format!("tree/a/b@{}", Digest::sha256(MANIFEST).path_form());
    let name = format!("{NAME}{HOSTILE}");
    for number in [1, 2, 3, 5] {
        let file = format!("{set}/signature-{number}");
        let (people, machines) = desk.clean(&["inspect", &file]);
        if number != 3 {
            tells_whole(&machines, &name);
            tells_whole(&machines, HOSTILE);
            assert!(
                people.stdout.contains("  reference    127.0.0.1:1/a/b:1x\\nFORGED accepted\\r\\nFORGED\\r\\t\\u{0}")
            );
        }
        let (policy, manifest) = (text(&desk.policy), text(&desk.manifest));
        let judge = ["--policy", policy, "--manifest", manifest, "--signature", &file];
        let (people, _) = desk.clean(&[&["verify", NAME][..], &judge].concat());
        assert_eq!(people.code, Some(1), "{people:?}");
        assert!(!people.stdout.lines().any(|line| line.trim_start().starts_with("accepted")), "{people:?}");
        desk.clean(&[&["inspect", NAME][..], &judge].concat());
    }
    let judge = ["--policy", text(&desk.policy), "--manifest", text(&desk.manifest), "--lookaside", text(&desk.tree)];
    let (_, machines) = desk.clean(&[&["inspect", NAME][..], &judge].concat());
    tells_whole(&machines, &name);
    desk.clean(&[&["verify", NAME][..], &judge].concat());
    desk.clean(&[&["resolve", NAME][..], &judge[..4]].concat());
}

#[test]
fn what_people_see_of_a_hostile_claim() {
    let desk = Desk::new();
    desk.host.write("s", hostile("alice", &Digest::sha256(MANIFEST)));
    let hide = |ran: &Ran| {
        let mut lines: Vec<&str> = ran.stdout.lines().collect();
        lines.retain(|line| !line.contains("made at"));
        let shown = lines.join("\n").replace(text(desk.host.path()), "HOME");
        let (before, after) = shown.split_once(" at 20").unwrap_or((&shown, ""));
        format!("{before}{}", after.split_once('Z').map_or("", |(_, after)| after))
    };
    let (people, _) = desk.clean(&["inspect", "s"]);
    insta::assert_snapshot!("inspect_file", hide(&people));
    let (policy, manifest) = (text(&desk.policy), text(&desk.manifest));
    let judge = ["--policy", policy, "--manifest", manifest, "--signature", "s"];
    let (people, _) = desk.clean(&[&["verify", NAME][..], &judge].concat());
    insta::assert_snapshot!("verify", hide(&people));
    let other = desk.host.signed_by_policy("other.json", &keys::public("bob"));
    let judge = ["--policy", text(&other), "--manifest", manifest, "--signature", "s"];
    let (people, _) = desk.clean(&[&["inspect", NAME][..], &judge].concat());
    insta::assert_snapshot!("inspect_image", hide(&people));
}

#[test]
fn trees() {
    let desk = Desk::new();
    let (tree, policy) = (text(&desk.tree), text(&desk.policy));
    let (_, machines) = desk.clean(&["store", "ls", "--to", tree]);
    tells_whole(&machines, &format!("{NAME}{HOSTILE}"));
    for any_path in [&[][..], &["--any-path"]] {
        let (people, _) = desk.clean(&[&["store", "check", "--to", tree, "--policy", policy][..], any_path].concat());
        assert!(people.stdout.contains("foreign"), "{people:?}");
    }
    let image = format!("127.0.0.1:1/a/b@{}", Digest::sha256(MANIFEST));
    desk.clean(&["store", "rm", "--to", tree, &image, "--all", "--dry-run"]);
    desk.clean(&["store", "rm", "--to", tree, &image, "--signature", HOSTILE_NAME]);
    desk.clean(&["store", "rm", "--to", tree, HOSTILE_NAME, "--all"]);
    desk.clean(&["store", "ls", "--to", tree, HOSTILE_NAME]);
    desk.clean(&["store", "ls", "--to", HOSTILE_NAME]);
    desk.clean(&["store", "repair", "--to", tree, "--dry-run"]);
    desk.clean(&["store", "repair", "--to", tree]);
    desk.clean(&["store", "rm", "--to", tree, &image, "--all"]);
}

#[test]
fn names_of_files_and_arguments() {
    let desk = Desk::new();
    let policy = desk.host.write(HOSTILE_NAME, std::fs::read(&desk.policy).unwrap());
    let folder = desk.path("folder");
    let signature = desk.host.write(&format!("folder/{HOSTILE_NAME}"), hostile("bob", &Digest::sha256(MANIFEST)));
    let manifest = text(&desk.manifest);
    for path in [text(&policy), text(&signature), "nowhere\nFORGED\u{1b}"] {
        desk.clean(&["inspect", path]);
        desk.clean(&["policy", "check", path]);
        desk.clean(&["registries-d", "check", path]);
        desk.clean(&["verify", NAME, "--policy", path, "--manifest", manifest, "--signature", text(&signature)]);
        desk.clean(&["verify", NAME, "--policy", text(&policy), "--manifest", path, "--signature", path]);
        desk.clean(&["verify", NAME, "--policy", text(&policy), "--manifest", manifest, "--lookaside", path]);
        desk.clean(&["resolve", NAME, "--policy", path, "--registries-d", path]);
        desk.clean(&["doctor", NAME, "--policy", path, "--registries-d", path, "--registries-conf", path]);
        let digest = Digest::sha256(MANIFEST).to_string();
        desk.clean(&["sign", NAME, "--key", path, "--digest", &digest, "-o", path]);
        desk.clean(&["sign", NAME, "--key", "k", "--passphrase-file", path, "--digest", &digest, "-o", path]);
        desk.clean(&["--config", path, "serve"]);
    }
    desk.clean(&["registries-d", "check", text(&folder)]);
    let (key, digest) = (keys::secret("alice"), Digest::sha256(MANIFEST).to_string());
    let sign = ["sign", NAME, "--key", text(&key), "--digest", &digest];
    for end in ["-o", "--to"] {
        let to = format!("new{end}{HOSTILE_NAME}");
        let (_, machines) = desk.clean(&[&sign[..], &[end, &to]].concat());
        let value: Value = serde_json::from_str(&machines.stdout).unwrap();
        // A store is told as a URL.
        let wanted = if end == "-o" { HOSTILE_NAME } else { "FORGED%20accepted" };
        assert!(value["written"].as_str().unwrap().contains(wanted), "{value:#}");
    }
    // Bytes that are no UTF-8, where the shell puts them.
    let odd = OsString::from_vec(b"odd\xff\nFORGED\x9b".to_vec());
    std::fs::copy(&desk.policy, desk.host.path().join(&odd)).unwrap();
    for args in [["policy", "check"], ["registries-d", "check"], ["--config", "c"], ["resolve", "--policy"]] {
        desk.clean(&[args.map(OsString::from).to_vec(), vec![odd.clone(), "serve".into()]].concat());
    }
    for args in [
        &["verify", HOSTILE_NAME][..],
        &["inspect", "none\nFORGED\u{1b}"],
        &["sign", HOSTILE_NAME, "--key", "k", "--digest", "d", "-o", "-"],
        &["resolve", NAME, "--digest", HOSTILE_NAME],
        &["verify", NAME, "--platform", HOSTILE_NAME],
        &["verify", NAME, HOSTILE_NAME],
        &["verify", NAME, "--x\nFORGED"],
        &[HOSTILE_NAME],
        &["serve", "--listen", HOSTILE_NAME],
        &["serve", "--upstream", HOSTILE_NAME],
        &["serve", "--store-prefix", HOSTILE_NAME],
        &["resign", "--jobs", HOSTILE_NAME],
        &["store", "rm", "--fingerprint", HOSTILE_NAME],
    ] {
        let (people, _) = desk.clean(args);
        assert_eq!(people.code, Some(2), "{args:?}: {people:?}");
    }
    for name in ["COUNTERSIGN_LOG", "COUNTERSIGN_LOG_FORMAT", "COUNTERSIGN_CONFIG", "COUNTERSIGN_UPSTREAM"] {
        for args in [&["serve"][..], &["serve", "--help"], &["--help"]] {
            let output = desk.command(args).env(name, HOSTILE_NAME).output().unwrap();
            let ran = Ran::of(output);
            clean(&format!("{name} {args:?}"), &ran.stdout);
            clean(&format!("{name} {args:?}"), &ran.stderr);
            assert_eq!(ran.code, Some(if args.contains(&"--help") { 0 } else { 2 }), "{name} {args:?}: {ran:?}");
        }
    }
}

#[test]
fn configuration() {
    let desk = Desk::new();
    let scope = json!({"default": [{"type": "reject"}], "transports": {HOSTILE: {HOSTILE: [{"type": "reject"}]},
        "docker": {HOSTILE: [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": HOSTILE,
            "signedIdentity": {"type": "remapIdentity", "prefix": "q.io", "signedPrefix": "r.io"}}],
        "127.0.0.1:1": [{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": [HOSTILE, HOSTILE]},
            {"type": "sigstoreSigned", "fulcio": {"caPath": HOSTILE, "oidcIssuer": HOSTILE, "subjectEmail": HOSTILE},
             "rekorPublicKeyPath": HOSTILE}]}}});
    let mut policies = vec![scope.to_string()];
    for requirement in [
        json!({"type": HOSTILE}),
        json!({"type": "signedBy", HOSTILE: 1}),
        json!({"type": "signedBy", "keyType": HOSTILE}),
        json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "k", "signedIdentity": {"type": HOSTILE}}),
        json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "k",
            "signedIdentity": {"type": "exactReference", "dockerReference": HOSTILE}}),
        json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "k",
            "signedIdentity": {"type": "remapIdentity", "prefix": HOSTILE, "signedPrefix": HOSTILE}}),
        json!({"type": "signedBy", "keyType": "GPGKeys", "keyData": HOSTILE}),
    ] {
        policies.push(json!({"default": [requirement]}).to_string());
    }
    policies.push(format!("{{\"default\": [], {}: 1}}", json!(HOSTILE)));
    policies.push(HOSTILE.to_owned());
    for policy in &policies {
        let policy = desk.host.write("p.json", policy);
        desk.clean(&["policy", "check", text(&policy)]);
        desk.clean(&["resolve", NAME, "--policy", text(&policy)]);
        let judge = ["--policy", text(&policy), "--manifest", text(&desk.manifest), "--lookaside", text(&desk.tree)];
        desk.clean(&[&["verify", NAME][..], &judge].concat());
        desk.clean(&[&["inspect", NAME][..], &judge].concat());
    }
    let quoted = json!(HOSTILE).to_string();
    let path = json!(format!("file:///{HOSTILE_NAME}")).to_string();
    for (number, document) in [
        format!("docker:\n  {quoted}:\n    lookaside: {path}\n"),
        format!("docker:\n  127.0.0.1:1:\n    lookaside: {quoted}\n"),
        format!("docker:\n  127.0.0.1:1:\n    lookaside: {path}\n    lookaside-staging: {path}\n"),
        format!("docker:\n  127.0.0.1:1:\n    {quoted}: 1\n"),
        format!("docker:\n  {quoted}: 1\n"),
        format!("{quoted}: 1\n"),
        format!("default-docker: {quoted}\n"),
        format!("docker: *{HOSTILE_NAME}"),
        HOSTILE.to_owned(),
    ]
    .iter()
    .enumerate()
    {
        let folder = desk.path(&format!("registries-{number}"));
        desk.host.write(&format!("registries-{number}/{HOSTILE_NAME}.yaml"), document);
        desk.host.write(&format!("registries-{number}/{HOSTILE_NAME}.yml"), document);
        desk.clean(&["registries-d", "check", text(&folder)]);
        let host = ["--policy", text(&desk.policy), "--registries-d", text(&folder)];
        let digest = Digest::sha256(MANIFEST).to_string();
        desk.clean(&[&["resolve", NAME, "--digest", &digest][..], &host].concat());
        desk.clean(&[&["verify", NAME, "--manifest", text(&desk.manifest)][..], &host].concat());
    }
    for document in [
        format!("[[registry]]\nprefix = {quoted}\nlocation = \"127.0.0.1:1\"\n"),
        format!("[[registry]]\nprefix = \"127.0.0.1:1\"\nlocation = {quoted}\n"),
        format!("[[registry]]\nlocation = \"127.0.0.1:1\"\nblocked = true\n{quoted} = 1\n"),
        format!("[[registry]]\nlocation = \"127.0.0.1:1\"\nblocked = {quoted}\n"),
        format!("unqualified-search-registries = [{quoted}]\n"),
        format!("[aliases]\n{quoted} = {quoted}\n"),
        HOSTILE.to_owned(),
    ] {
        // TOML spells what JSON calls \u007f and above without help; the others are the same.
        let file = desk.host.write(&format!("{HOSTILE_NAME}.conf"), document);
        desk.clean(&["doctor", NAME, "--policy", text(&desk.policy), "--registries-conf", text(&file)]);
    }
}
