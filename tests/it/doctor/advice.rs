//! Advice is followed as a user would follow it, and the real skopeo is asked before and after.

use std::process::Command;

use super::*;

/// A ward with one signature by alice, served by a lookaside, and a policy with these key files.
fn signed_ward(files: &[(&str, Option<Vec<u8>>)]) -> (Ward, Server, PathBuf) {
    let ward = Ward::new(Settings::default());
    let server = Server::start(&["--store", text(ward.store.path())]);
    ward.host.registries_d(ward.registry.address(), &server.url("/lookaside"), None);
    ward.sign(&ward.name, "alice", &ward.image.digest.to_string());
    let mut paths = Vec::new();
    for (name, bytes) in files {
        let path = ward.host.path().join(name);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        paths.push(path);
    }
    let requirement = serde_json::json!({"type": "signedBy", "keyType": "GPGKeys", "keyPaths": paths});
    let policy = ward.host.write("policy.json", serde_json::json!({"default": [requirement]}).to_string());
    (ward, server, policy)
}

/// Pastes the shell lines of a fix, as somebody who has alice's key; `SIGNER` is filled in.
fn paste(fix: &str) {
    let gpg = GpgHome::with(&["alice"]);
    let lines = fix.replace("SIGNER", &GpgHome::user("alice"));
    let ran = Command::new("bash").args(["-e", "-c", &lines]).env("GNUPGHOME", gpg.path()).output().unwrap();
    assert!(ran.status.success(), "{lines}\n{}", String::from_utf8_lossy(&ran.stderr));
}

fn key(name: &str, armoured: bool) -> Vec<u8> {
    let gpg = GpgHome::with(&[name]);
    let user = GpgHome::user(name);
    let armour: &[&str] = if armoured { &["--armor"] } else { &[] };
    gpg.gpg(&[armour, &["--export", &user]].concat()).stdout
}

#[test]
fn keys_are_added_without_losing_those_that_are_there() {
    let bob = || Some(key("bob", true));
    type KeyFile = (&'static str, Option<Vec<u8>>);
    let cases: [(&str, Vec<KeyFile>); 5] = [
        ("key-missing", vec![("bob.asc", bob())]),
        ("key-missing", vec![("bob.gpg", Some(key("bob", false)))]),
        ("keyring-unreadable", vec![("bob.asc", bob()), ("alice key.asc", None)]),
        ("keyring-empty", vec![("empty.asc", Some(b"nothing".to_vec()))]),
        ("keyring-empty", vec![("a.asc", Some(Vec::new())), ("b.asc", Some(Vec::new()))]),
    ];
    for (ailment, files) in cases {
        let (ward, _server, policy) = signed_ward(&files);
        let report = ward.doctor(&ward.name, &policy, &[]);
        assert_eq!(ailments(&report), [ailment], "{report:#}");
        ward.agrees(&report, &ward.name, &policy);
        paste(fix(&report));
        let report = ward.doctor(&ward.name, &policy, &[]);
        assert_eq!(report["decision"], "accepted", "{ailment}: {report:#}");
        ward.agrees(&report, &ward.name, &policy);
        // What bob signs is accepted as before.
        if files.iter().any(|(name, bytes)| name.starts_with("bob") && bytes.is_some()) {
            std::fs::remove_dir_all(ward.store.path().join("birds")).unwrap();
            ward.sign(&ward.name, "bob", &ward.image.digest.to_string());
            std::thread::sleep(std::time::Duration::from_secs(6));
            ward.skopeo(&ward.name, &policy, &[]).accepted();
        }
    }
}

/// Changes a file as the lines `-` and `+` of a fix say.
fn edit(fix: &str, namespace: &str) {
    let file = fix.lines().next().unwrap().strip_prefix("# ").unwrap().split(": ").next().unwrap();
    let mut text = std::fs::read_to_string(file).unwrap();
    for line in fix.lines() {
        if let Some(old) = line.strip_prefix('-') {
            assert!(text.contains(old.trim()), "{old} is not in {text}");
            text = text.lines().filter(|there| there.trim() != old.trim()).map(|there| format!("{there}\n")).collect();
        } else if let Some(new) = line.strip_prefix('+') {
            text = text.replace(&format!("{namespace}:\n"), &format!("{namespace}:\n{new}\n"));
        }
    }
    std::fs::write(file, text).unwrap();
}

#[test]
fn namespace_that_is_there_is_changed_and_not_defined_twice() {
    let (ward, server, _) = signed_ward(&[]);
    let (alice, address) = (ward.policy("alice"), ward.registry.address().to_owned());
    let good = server.url("/lookaside");
    let file = ward.registries_d().join("there.yaml");
    for entry in std::fs::read_dir(ward.registries_d()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (settings, ailment) in [
        ("    use-sigstore-attachments: false\n".to_owned(), "lookaside-not-configured"),
        ("    lookaside-staging: file:///nowhere\n".to_owned(), "lookaside-not-configured"),
        ("    lookaside: /a/path\n".to_owned(), "lookaside-url-unusable"),
    ] {
        std::fs::write(&file, format!("docker:\n  {address}:\n{settings}")).unwrap();
        let report = ward.doctor(&ward.name, &alice, &[]);
        assert!(ailments(&report).contains(&ailment.to_owned()), "{settings}: {report:#}");
        let finding = report["findings"].as_array().unwrap().iter().find(|one| one["ailment"] == ailment).unwrap();
        edit(&finding["fix"].as_str().unwrap().replace("https://HOST/BASE", &good), &address);
        let report = ward.doctor(&ward.name, &alice, &[]);
        assert_eq!(report["decision"], "accepted", "{settings}: {report:#}");
        ward.agrees(&report, &ward.name, &alice);
    }
}
