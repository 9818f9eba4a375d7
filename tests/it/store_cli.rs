//! `countersign store ls|check|repair|rm`, over a tree that skopeo, gpg and we have written.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::client::{Host, Ran, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::image::{DirImage, image};
use crate::support::keys::{self, GpgHome};
use crate::support::moto::Moto;

struct Tree {
    host: Host,
    _gpg: GpgHome,
    root: PathBuf,
    one: DirImage,
    registry: DockerRegistry,
}

impl Tree {
    /// birds/bluebird: 1 by skopeo (alice), 2 by us (bob). birds/robin: 1 by gpg (alice).
    fn new() -> Self {
        let gpg = GpgHome::with(&["alice", "bob"]);
        let host = Host::new(gpg.path());
        let root = host.path().join("tree");
        let one = image(host.path(), "one", "one", "amd64");
        let registry = DockerRegistry::start();
        let tree = Self { host, _gpg: gpg, root, one, registry };
        tree.by_skopeo();
        tree.by_us("us.icr.io/birds/bluebird:build1", "bob");
        tree.by_gpg();
        tree
    }

    fn by_skopeo(&self) {
        let address = self.registry.address();
        let staging = format!("file://{}", text(&self.root));
        self.host.registries_d(address, &staging, Some(&staging));
        self.host
            .skopeo(&[
                "--insecure-policy",
                "--registries.d",
                text(&self.host.path().join(".config/containers/registries.d")),
                "copy",
                "--dest-tls-verify=false",
                "--sign-by",
                &GpgHome::user("alice"),
                &format!("dir:{}", text(&self.one.dir)),
                &format!("docker://{address}/birds/bluebird:build1"),
            ])
            .accepted();
    }

    fn by_us(&self, name: &str, key: &str) {
        let (key, digest) = (keys::secret(key), self.one.digest.to_string());
        self.host
            .countersign(&["sign", name, "--key", text(&key), "--digest", &digest, "--to", text(&self.root)])
            .accepted();
    }

    fn by_gpg(&self) {
        let claim = serde_json::json!({
            "critical": {
                "identity": {"docker-reference": "us.icr.io/birds/robin:1"},
                "image": {"docker-manifest-digest": self.one.digest.to_string()},
                "type": "atomic container signature",
            },
            "optional": {},
        });
        let payload = self.host.write("claim.json", claim.to_string());
        let folder = self.folder("birds/robin");
        std::fs::create_dir_all(&folder).unwrap();
        let out = folder.join("signature-1");
        let made = self._gpg.gpg(&["-u", &GpgHome::user("alice"), "--output", text(&out), "--sign", text(&payload)]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    fn set(&self, repository: &str) -> String {
        format!("{repository}@{}", self.one.digest.path_form())
    }

    fn folder(&self, repository: &str) -> PathBuf {
        self.root.join(self.set(repository))
    }

    fn store(&self, command: &str, args: &[&str]) -> Ran {
        self.host.countersign(&[&["store", command, "--to", text(&self.root)], args].concat())
    }

    fn json(&self, command: &str, args: &[&str]) -> (Option<i32>, Value) {
        let all = [&["--format", "json", "store", command, "--to", text(&self.root)], args].concat();
        let ran = self.host.countersign(&all);
        (ran.code, parse(&ran))
    }

    /// A policy that trusts both.
    fn both(&self) -> PathBuf {
        let key = |name: &str| std::fs::read(keys::public(name)).unwrap();
        let both = self.host.write("both.asc", [key("alice"), key("bob")].concat());
        self.host.signed_by_policy("both.json", &both)
    }
}

fn parse(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:#?}"))
}

/// All signatures of a document, by set and number.
fn signatures(document: &Value) -> Vec<(String, Value)> {
    let mut all: Vec<_> = document["sets"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|set| {
            let name = set["repository"].as_str().unwrap().to_owned();
            set["signatures"]
                .as_array()
                .unwrap()
                .iter()
                .map(move |one| (format!("{name} {}", one["number"]), one.clone()))
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn fingerprint(tree: &Tree, key: &str) -> String {
    let listed = tree._gpg.gpg(&["--with-colons", "--list-keys", &GpgHome::user(key)]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.lines().find_map(|line| line.strip_prefix("fpr:")).unwrap().trim_matches(':').to_owned()
}

#[test]
fn ls_tells_what_every_signature_claims() {
    let tree = Tree::new();
    let (code, document) = tree.json("ls", &[]);
    assert_eq!((code, &document["summary"]["signatures"]), (Some(0), &3.into()), "{document}");
    let all = signatures(&document);
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["birds/bluebird 1", "birds/bluebird 2", "birds/robin 1"]);
    let address = tree.registry.address();
    assert_eq!(all[0].1["claimed_reference"], format!("{address}/birds/bluebird:build1"));
    assert_eq!(all[1].1["claimed_reference"], "us.icr.io/birds/bluebird:build1");
    assert_eq!(all[2].1["claimed_digest"], tree.one.digest.to_string());
    for ((_, one), key) in all.iter().zip(["alice", "bob", "alice"]) {
        let fingerprint = fingerprint(&tree, key);
        assert!(fingerprint.ends_with(one["key_id"].as_str().unwrap()), "{one}");
        assert!(one["signature"].as_str().unwrap().starts_with("sha256:"));
    }

    tree.by_us("us.icr.io/birds/bluebird:build2", "bob");
    let folder = tree.folder("birds/bad");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("signature-1"), "<html>").unwrap();
    let listed = tree.store("ls", &["birds"]).accepted().stdout;
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert!(listed.lines().all(|line| line.starts_with("birds/") && line.split("  ").count() == 4), "{listed}");
    assert_eq!(tree.store("ls", &["birds/robin"]).accepted().stdout.lines().count(), 1);
    assert_eq!(tree.store("ls", &[&tree.set("birds/bluebird")]).accepted().stdout.lines().count(), 3);
    let nothing = tree.store("ls", &["fish"]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(1), ""));
    let (code, nothing) = tree.json("ls", &["fish"]);
    assert_eq!((code, &nothing["sets"]), (Some(1), &serde_json::json!([])));
    let missing = tree.host.countersign(&["store", "ls", "--to", "/no/such/folder"]);
    assert_eq!(missing.code, Some(2));
}

#[test]
fn check_verifies_a_tree() {
    let tree = Tree::new();
    let both = tree.both();
    let (code, document) = tree.json("check", &["--policy", text(&both)]);
    assert_eq!((code, &document["summary"]["accepted"]), (Some(0), &3.into()), "{document}");
    for ((_, one), key) in signatures(&document).iter().zip(["alice", "bob", "alice"]) {
        assert_eq!((&one["decision"], &one["scope"]), (&"accepted".into(), &"default".into()));
        assert_eq!(one["fingerprint"], fingerprint(&tree, key));
        assert!(one["created"].is_string());
    }
    let said = tree.store("check", &["--policy", text(&both)]).accepted().stdout;
    assert!(said.ends_with("3 signature(s) of 2 image(s): 3 accepted, 0 not\n"), "{said}");

    // What may be wrong with a tree.
    let bluebird = tree.folder("birds/bluebird");
    let copy = |from: &Path, to: PathBuf| {
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    let first = bluebird.join("signature-1");
    copy(&first, tree.root.join(format!("birds/bluebird@sha256={}/signature-1", "a".repeat(64)))); // wrong digest
    copy(&first, tree.folder("fish/carp").join("signature-1")); // wrong path
    copy(&first, tree.folder("mirror/birds/bluebird").join("signature-1")); // fine below a prefix
    copy(&first, tree.root.join(format!("release/{}/signature-1", tree.one.digest.path_form()))); // fine
    copy(&first, bluebird.join("signature-9")); // a copy behind a gap
    let mut forged = std::fs::read(&first).unwrap();
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    std::fs::create_dir_all(tree.folder("birds/forged")).unwrap();
    std::fs::write(tree.folder("birds/forged").join("signature-1"), forged).unwrap();
    std::fs::create_dir_all(tree.folder("birds/html")).unwrap();
    std::fs::write(tree.folder("birds/html").join("signature-1"), "<html>").unwrap();
    std::fs::write(tree.root.join("index.html"), "<html>").unwrap();
    std::fs::write(bluebird.join("signature-10#77"), "half").unwrap();
    let alice = tree.host.signed_by_policy("alice.json", &keys::public("alice"));
    let (code, document) = tree.json("check", &["--policy", text(&alice)]);
    assert_eq!(code, Some(1), "{document}");
    let rejected: Vec<(String, String)> = signatures(&document)
        .into_iter()
        .filter(|(_, one)| one["decision"] == "rejected")
        .map(|(name, one)| (name, one["reason"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ("birds/bluebird 1", "the claim is for sha256:"),
        ("birds/bluebird 2", "(scope default of the policy)"),
        ("birds/forged 1", ""),
        ("birds/html 1", "unrecognized signature format"),
        ("fish/carp 1", "but is stored under fish/carp"),
    ];
    assert_eq!(rejected.len(), expected.len(), "{rejected:#?}");
    for ((name, reason), (expected, part)) in rejected.iter().zip(expected) {
        assert!(name == expected && reason.contains(part), "{name}: {reason}");
    }
    let summary = &document["summary"];
    let count = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(
        [count("accepted"), count("gaps"), count("duplicates"), count("foreign"), count("failed")],
        [5, 1, 1, 2, 0]
    );
    let mut foreign: Vec<&str> =
        document["foreign"].as_array().unwrap().iter().map(|one| one["kind"].as_str().unwrap()).collect();
    foreign.sort_unstable();
    assert_eq!(foreign, ["file", "leftover"]);
    let gap = tree.store("check", &[&tree.set("birds/bluebird"), "--policy", text(&both)]).accepted().stdout;
    assert!(gap.contains("signature-3 to signature-8 are missing"), "{gap}");
    // A mirror that renames what it keeps.
    assert_eq!(tree.store("check", &["fish", "--policy", text(&alice)]).code, Some(1));
    tree.store("check", &["fish", "--any-path", "--policy", text(&alice)]).accepted();

    // What cannot be asked is no answer, and anything is not enough.
    let gone = tree.host.signed_by_policy("gone.json", Path::new("/no/such/key"));
    assert_eq!(tree.store("check", &["birds/robin", "--policy", text(&gone)]).code, Some(2));
    assert_eq!(tree.store("check", &["--policy", "/no/such/policy"]).code, Some(2));
    let any = tree.host.write("any.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    assert_eq!(tree.store("check", &["birds/robin", "--policy", text(&any)]).code, Some(1));
    assert_eq!(tree.store("check", &["nothing/there", "--policy", text(&both)]).code, Some(1));
}

#[test]
fn repair_closes_gaps_and_loses_nothing() {
    let tree = Tree::new();
    let bluebird = tree.folder("birds/bluebird");
    let mut before: Vec<Vec<u8>> =
        ["signature-1", "signature-2"].map(|n| std::fs::read(bluebird.join(n)).unwrap()).into();
    before.sort();
    std::fs::rename(bluebird.join("signature-1"), bluebird.join("signature-5")).unwrap();
    std::fs::copy(bluebird.join("signature-5"), bluebird.join("signature-7")).unwrap();
    let leftover = bluebird.join("signature-6#1");
    std::fs::write(&leftover, "half").unwrap();
    let touched = std::process::Command::new("touch").args(["-d", "2 hours ago"]).arg(&leftover).status().unwrap();
    assert!(touched.success());
    let alone = tree.folder("birds/alone").join("signature-1#1");
    std::fs::create_dir_all(alone.parent().unwrap()).unwrap();
    std::fs::write(&alone, "young").unwrap();

    let (code, dry) = tree.json("repair", &["--dry-run"]);
    assert_eq!(code, Some(1), "{dry}");
    assert_eq!((&dry["summary"]["moved"], &dry["summary"]["duplicates"]), (&2.into(), &1.into()), "{dry}");
    assert!(bluebird.join("signature-7").exists(), "a dry run does nothing");
    let (code, done) = tree.json("repair", &[]);
    assert_eq!(code, Some(0), "{done}");
    assert_eq!((&done["summary"]["duplicates"], &done["summary"]["failed"]), (&1.into(), &0.into()), "{done}");
    assert_eq!((&done["summary"]["sets"], &done["summary"]["swept"]), (&2.into(), &1.into()), "{done}");
    let mut after: Vec<Vec<u8>> =
        ["signature-1", "signature-2"].map(|n| std::fs::read(bluebird.join(n)).unwrap()).into();
    after.sort();
    assert_eq!(before, after);
    assert_eq!(std::fs::read_dir(&bluebird).unwrap().count(), 2);
    assert!(alone.exists(), "its writer may be at work");
    let (code, again) = tree.json("repair", &[]);
    assert_eq!((code, &again["sets"]), (Some(0), &serde_json::json!([])), "{again}");
    tree.store("repair", &[&tree.set("birds/robin")]).accepted();
}

#[test]
fn rm_revokes() {
    let tree = Tree::new();
    let bluebird = tree.folder("birds/bluebird");
    tree.by_us("us.icr.io/birds/bluebird:build2", "bob");
    let kept = std::fs::read(bluebird.join("signature-3")).unwrap();
    let named = format!("us.icr.io/birds/bluebird@{}", tree.one.digest);
    let (_, listed) = tree.json("ls", &[&tree.set("birds/bluebird")]);
    let hash = |number: usize| listed["sets"][0]["signatures"][number - 1]["signature"].as_str().unwrap().to_owned();

    let (code, dry) = tree.json("rm", &[&named, "--signature", &hash(2), "--dry-run"]);
    assert_eq!((code, &dry["removed"][0]["number"], &dry["dry_run"]), (Some(0), &2.into(), &true.into()), "{dry}");
    assert_eq!(std::fs::read_dir(&bluebird).unwrap().count(), 3);
    tree.store("rm", &[&named, "--signature", &hash(2)]).accepted();
    assert_eq!(std::fs::read(bluebird.join("signature-2")).unwrap(), kept, "the next one moved down");
    assert_eq!(tree.store("rm", &[&named, "--signature", &hash(2)]).code, Some(1), "it is gone");

    let alice = fingerprint(&tree, "alice");
    let (code, removed) = tree.json("rm", &[&tree.set("birds/bluebird"), "--fingerprint", &alice.to_lowercase()]);
    assert_eq!((code, removed["removed"].as_array().unwrap().len()), (Some(0), 1), "{removed}");
    assert_eq!(std::fs::read(bluebird.join("signature-1")).unwrap(), kept);
    assert_eq!(tree.store("rm", &[&named, "--fingerprint", &alice]).code, Some(1));
    tree.store("rm", &[&named, "--all"]).accepted();
    assert_eq!(std::fs::read_dir(&bluebird).unwrap().count(), 0);
    assert!(tree.folder("birds/robin").join("signature-1").exists(), "nothing else is touched");

    for (args, said) in [
        (vec![named.as_str()], "--all"),
        (vec![named.as_str(), "--all", "--signature", "sha256:12"], "cannot be used with"),
        (vec![named.as_str(), "--signature", "sha256:12"], "invalid checksum digest length"),
        (vec![named.as_str(), "--fingerprint", "12"], "no OpenPGP fingerprint"),
        (vec!["us.icr.io/birds/bluebird:build1", "--all"], "has no digest"),
        (vec!["../x@sha256=12", "--all"], "no signature folder"),
    ] {
        let ran = tree.store("rm", &args).refused(said);
        assert_eq!(ran.code, Some(2), "{ran:?}");
    }
}

#[test]
fn a_bucket_is_looked_after_alike() {
    let tree = Tree::new();
    let moto = Moto::shared();
    let bucket = moto.bucket();
    for (number, from) in [(1, 1), (4, 2)] {
        let bytes = std::fs::read(tree.folder("birds/bluebird").join(format!("signature-{from}"))).unwrap();
        let key = format!("{bucket}/sigs/{}/signature-{number}", tree.set("birds/bluebird")).replace('=', "%3D");
        assert_eq!(moto.put(&key, &bytes), 200);
    }
    assert_eq!(moto.put(&format!("{bucket}/sigs/index.html"), b"x"), 200);
    let location = format!("s3://{bucket}/sigs");
    let run = |command: &str, args: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["--format", "json", "store", command, "--to", &location])
            .args(args)
            .envs(moto.variables())
            .output()
            .unwrap();
        let ran = Ran::of(output);
        (ran.code, parse(&ran))
    };
    let both = tree.both();
    let (code, checked) = run("check", &["--policy", text(&both)]);
    assert_eq!((code, &checked["sets"][0]["gaps"][0]["to"]), (Some(0), &3.into()), "{checked}");
    assert_eq!(checked["foreign"][0]["path"], "index.html");
    let (code, repaired) = run("repair", &[]);
    assert_eq!((code, &repaired["summary"]["moved"]), (Some(0), &1.into()), "{repaired}");
    let (_, listed) = run("ls", &["birds"]);
    assert_eq!(
        signatures(&listed).iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(),
        ["birds/bluebird 1", "birds/bluebird 2"]
    );
    let (code, removed) = run("rm", &[&tree.set("birds/bluebird"), "--all"]);
    assert_eq!((code, removed["removed"].as_array().unwrap().len()), (Some(0), 2));
    let (code, empty) = run("ls", &[]);
    assert_eq!((code, &empty["sets"]), (Some(0), &serde_json::json!([])));
}
