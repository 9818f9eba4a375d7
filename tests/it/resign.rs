//! Moving a domain: bulk re-signing, seen by the real clients.

use crate::support::client::{Host, Ran, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::image::image;
use crate::support::keys::{self, GpgHome};
use crate::support::server::Server;

const OLD: &str = "registry.ng.bluemix.net/birds/bluebird:build1";
const NEW: &str = "us.icr.io/birds/bluebird:build1";

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

#[test]
fn a_domain_moves() {
    let registry = DockerRegistry::start();
    let store = tempfile::tempdir().unwrap();
    let gpg = GpgHome::with(&["alice"]);
    let host = Host::new(gpg.path());
    let one = image(host.path(), "one", "one", "amd64");
    let server = Server::start(&["--store", text(store.path())]);

    // Both names are this registry, as they were at IBM.
    let conf = host.write(
        "registries.conf",
        format!(
            "[[registry]]\nprefix = \"registry.ng.bluemix.net\"\nlocation = \"{0}\"\ninsecure = true\n\
             [[registry]]\nprefix = \"us.icr.io\"\nlocation = \"{0}\"\ninsecure = true\n",
            registry.address()
        ),
    );
    host.registries_d(registry.address(), &server.url("/lookaside"), Some(&format!("file://{}", text(store.path()))));
    let registries_d = host.path().join(".config/containers/registries.d");
    host.skopeo(&[
        "--insecure-policy",
        "--registries-conf",
        text(&conf),
        "--registries.d",
        text(&registries_d),
        "copy",
        "--dest-tls-verify=false",
        "--sign-by",
        &GpgHome::user("alice"),
        "--sign-identity",
        OLD,
        &format!("dir:{}", text(&one.dir)),
        &format!("docker://{}/birds/bluebird:build1", registry.address()),
    ]);
    // skopeo 1.9 has no --sign-identity: sign the same claim with our own tool if it refused.
    if !store.path().join(format!("birds/bluebird@{}", one.digest.path_form())).exists() {
        host.skopeo(&[
            "--insecure-policy",
            "copy",
            "--dest-tls-verify=false",
            &format!("dir:{}", text(&one.dir)),
            &format!("docker://{}/birds/bluebird:build1", registry.address()),
        ])
        .accepted();
        let folder = store.path().join(format!("birds/bluebird@{}", one.digest.path_form()));
        std::fs::create_dir_all(&folder).unwrap();
        host.skopeo(&[
            "standalone-sign",
            text(&one.dir.join("manifest.json")),
            OLD,
            &GpgHome::user("alice"),
            "-o",
            text(&folder.join("signature-1")),
        ])
        .accepted();
    }

    // The new key's holder trusts only the new key; the old policy trusts alice.
    let both = host.write(
        "both.asc",
        [std::fs::read(keys::public("alice")).unwrap(), std::fs::read(keys::public("bob")).unwrap()].concat(),
    );
    let policy = host.signed_by_policy("policy.json", &both);
    let old_policy = host.signed_by_policy("old.json", &keys::public("alice"));
    let pull = |name: &str| {
        let out = tempfile::tempdir().unwrap();
        host.skopeo(&[
            "--policy",
            text(&policy),
            "--registries-conf",
            text(&conf),
            "--registries.d",
            text(&registries_d),
            "copy",
            &format!("docker://{name}"),
            &format!("dir:{}", text(out.path())),
        ])
    };
    pull(OLD).accepted();
    pull(NEW).refused("is not accepted");

    let resign = |extra: &[&str]| {
        let mut args = vec![
            "--format",
            "json",
            "resign",
            "--from",
            text(store.path()),
            "--to",
            text(store.path()),
            "--rename",
            "ibm",
            "--policy",
            text(&old_policy),
            "--key",
        ];
        let key = keys::secret("bob");
        args.push(text(&key));
        args.extend_from_slice(extra);
        host.countersign(&args)
    };
    let dry = json(&resign(&["--dry-run"]).accepted());
    assert_eq!((&dry["signed"], &dry["already"]), (&1.into(), &0.into()));
    pull(NEW).refused("is not accepted");
    let first = json(&resign(&[]).accepted());
    assert_eq!((&first["signed"], &first["refused"], &first["failed"]), (&1.into(), &0.into(), &0.into()));
    // A new server, for the old one may remember the set for a moment.
    let server = Server::start(&["--store", text(store.path())]);
    host.registries_d(registry.address(), &server.url("/lookaside"), None);
    pull(NEW).accepted();
    pull(OLD).accepted();
    let second = json(&resign(&[]).accepted());
    assert_eq!((&second["signed"], &second["already"]), (&0.into(), &1.into()));
    let folder = store.path().join(format!("birds/bluebird@{}", one.digest.path_form()));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 2);
}

#[test]
fn only_what_the_old_policy_accepts_is_signed() {
    let gpg = GpgHome::with(&["alice"]);
    let host = Host::new(gpg.path());
    let (from, to) = (host.path().join("from"), host.path().join("to"));
    let digest = |c: char| format!("sha256:{}", c.to_string().repeat(64));
    let sign = |name: &str, c: char, key: &str| {
        host.countersign(&[
            "sign",
            name,
            "--key",
            text(&keys::secret(key)),
            "--digest",
            &digest(c),
            "--to",
            text(&from),
        ])
        .accepted();
    };
    sign("registry.bluemix.net/a/good:1", 'a', "alice");
    sign("registry.bluemix.net/a/other-key:1", 'b', "bob");
    sign("registry.bluemix.net/a/forged:1", 'c', "alice");
    sign("registry.bluemix.net/a/moved:1", 'd', "alice");
    sign("elsewhere.example/a/unrelated:1", 'e', "alice");
    let folder = |name: &str, c: char| from.join(format!("a/{name}@sha256={}", c.to_string().repeat(64)));
    let forged = folder("forged", 'c').join("signature-1");
    let mut bytes = std::fs::read(&forged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&forged, bytes).unwrap();
    std::fs::rename(folder("moved", 'd'), folder("moved", 'f')).unwrap();
    std::fs::create_dir_all(folder("rubbish", 'a')).unwrap();
    std::fs::write(folder("rubbish", 'a').join("signature-1"), "<html>").unwrap();

    let policy = host.signed_by_policy("old.json", &keys::public("alice"));
    let run_with = |extra: &[&str]| {
        let (from, to, policy, key) = (text(&from), text(&to), text(&policy), keys::secret("carol"));
        let fixed = ["--format", "json", "resign", "--from", from, "--to", to, "--rename", "ibm", "--policy", policy];
        host.countersign(&[&fixed[..], &["--key", text(&key)], extra].concat())
    };
    let run = || run_with(&[]);
    let ran = run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let summary = json(&ran);
    assert_eq!(
        (&summary["signed"], &summary["already"], &summary["refused"], &summary["failed"]),
        (&1.into(), &0.into(), &4.into(), &0.into()),
        "{ran:?}"
    );
    // What an earlier run refused is still refused when its journal is gone on from.
    let journal = host.path().join("journal");
    let continued = ["--journal", text(&journal)];
    assert_eq!(run_with(&continued).code, Some(1));
    let lines = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, lines.strip_suffix("{\"finished\":true}\n").unwrap()).unwrap();
    let ran = run_with(&continued);
    assert_eq!((ran.code, &json(&ran)["refused"], &json(&ran)["resumed"]), (Some(1), &4.into(), &6.into()), "{ran:?}");
    // A part of the tree that cannot be listed stops nothing else, and is told.
    std::os::unix::fs::symlink("loop", from.join("loop")).unwrap();
    std::fs::remove_dir_all(&to).unwrap();
    let ran = run();
    let said = json(&ran);
    assert_eq!((ran.code, &said["signed"], &said["failed"]), (Some(1), &1.into(), &1.into()), "{ran:?}");
    assert!(said["unlisted"][0].as_str().unwrap().contains("/loop"), "{said}");
    assert!(ran.stderr.contains("failed  not all of the source could be listed"), "{ran:?}");
    // With a journal and a report: that is not its end, and the next run does the rest.
    std::fs::remove_dir_all(&to).unwrap();
    let (journal, report) = (host.path().join("listing.journal"), host.path().join("listing.json"));
    let account = ["--journal", text(&journal), "--report", text(&report)];
    let incomplete = || {
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        assert_eq!((&report["totals"]["signed"], &report["totals"]["refused"]), (&1.into(), &4.into()), "{report:#}");
        report["incomplete"].clone()
    };
    assert_eq!(run_with(&account).code, Some(1));
    assert!(incomplete().as_str().unwrap().contains("/loop"), "{}", incomplete());
    assert!(!std::fs::read_to_string(&journal).unwrap().contains("finished"));
    std::fs::remove_file(from.join("loop")).unwrap();
    let ran = run_with(&account);
    assert_eq!(
        (ran.code, &json(&ran)["failed"], &incomplete()),
        (Some(1), &0.into(), &serde_json::Value::Null),
        "{ran:?}"
    );
    assert!(std::fs::read_to_string(&journal).unwrap().contains("finished"));
    let written: Vec<_> = walk(&to);
    assert_eq!(written, [format!("a/good@sha256={}/signature-1", "a".repeat(64))]);
    let new = host.signed_by_policy("new.json", &keys::public("carol"));
    host.countersign(&[
        "verify",
        &format!("icr.io/a/good@{}", digest('a')),
        "--lookaside",
        text(&to),
        "--policy",
        text(&new),
    ])
    .accepted();
    let verdict = host.countersign(&["--format", "json", "inspect", text(&to.join(&written[0]))]).accepted();
    assert_eq!(json(&verdict)["reference"], "icr.io/a/good:1");
    assert_eq!(json(&verdict)["verified"], false);
    // A policy that accepts anything vouches for nothing.
    let anything = host.write("any.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    let ran = host.countersign(&[
        "--format",
        "json",
        "resign",
        "--from",
        text(&from),
        "--to",
        text(&host.path().join("none")),
        "--rename",
        "ibm",
        "--policy",
        text(&anything),
        "--key",
        text(&keys::secret("carol")),
    ]);
    assert_eq!((ran.code, &json(&ran)["signed"]), (Some(1), &0.into()), "{ran:?}");
}

pub(crate) fn walk(root: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}
