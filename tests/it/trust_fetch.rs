//! `trust fetch` against the real trust server, with repositories that the real client made.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use sha2::Digest as _;

use crate::support::authority::Authority;
use crate::support::client::text;
use crate::support::notary::{Notary, NotaryServer, Settings, StaticServer, digest};
use crate::support::token_server::TokenServer;

fn fetch(home: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
    command.args(["trust", "fetch"]).args(args).env("HOME", home).env_remove("DOCKER_CONFIG").stdin(Stdio::null());
    command.env("XDG_RUNTIME_DIR", home).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn exits(output: &Output, code: i32) -> String {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

fn get(url: &str) -> Vec<u8> {
    let got = Command::new("curl").args(["-sf", url]).output().unwrap();
    assert!(got.status.success(), "{url}");
    got.stdout
}

/// Makes a repository with two delegations, a rotated root, and rotated targets keys.
fn rich_repository(notary: &Notary, gun: &str) {
    notary.repository(gun, &["v1", "v2"]);
    let key = notary.folder().join("alice.pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30"])
        .args(["-subj", "/CN=alice", "-keyout", text(&notary.folder().join("alice-key.pem")), "-out", text(&key)])
        .output()
        .unwrap();
    assert!(made.status.success());
    notary.run(&["key", "import", text(&notary.folder().join("alice-key.pem")), "--role", "targets/releases"]);
    notary.run(&["delegation", "add", "-p", gun, "targets/releases", text(&key), "--all-paths"]);
    notary.run(&["delegation", "add", "-p", gun, "targets/releases/nightly", text(&key), "--all-paths"]);
    notary.add(gun, "v3", &["--roles", "targets/releases"]);
    notary.add(gun, "v4", &["--roles", "targets/releases/nightly"]);
    notary.run(&["key", "rotate", gun, "targets"]);
    notary.run(&["key", "rotate", gun, "root"]);
    notary.run(&["key", "rotate", gun, "root"]);
    notary.run(&["publish", gun]);
}

#[test]
fn a_fetched_folder_is_byte_for_byte_what_the_server_has_and_real_clients_read_it() {
    let server = NotaryServer::start();
    let notary = Notary::new(server.url());
    let (rich, plain) = ("localhost:5000/birds/bluebird", "registry.example/birds/robin");
    rich_repository(&notary, rich);
    notary.repository(plain, &["build1"]);
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("trust");
    let list = home.path().join("list");
    std::fs::write(&list, format!("# all of ours\n{plain}\n\n{rich}\n")).unwrap();
    let from = ["--from", server.url(), "--to", text(&to)];
    let told = exits(&fetch(home.path(), &[&from[..], &["--guns", text(&list), rich]].concat()), 0);
    assert!(told.starts_with("2 complete\n"), "{told}");

    let root: serde_json::Value =
        serde_json::from_slice(&std::fs::read(to.join(rich).join("_trust/tuf/root.json")).unwrap()).unwrap();
    let version = root["signed"]["version"].as_u64().unwrap();
    assert!(version >= 4, "targets' and snapshot's keys and, twice, the root's were rotated: {version}");
    let key_ids = |version: u64| {
        let root = std::fs::read(to.join(rich).join(format!("_trust/tuf/{version}.root.json"))).unwrap();
        serde_json::from_slice::<serde_json::Value>(&root).unwrap()["signed"]["roles"]["root"]["keyids"].clone()
    };
    assert_ne!(key_ids(version), key_ids(version - 1), "the last root has another key");
    let below = |name: &str| to.join(rich).join("_trust/tuf").join(name);
    for name in (1..=version).map(|version| format!("{version}.root.json")).chain(["root.json".into()]) {
        let there = get(&format!("{}/v2/{rich}/_trust/tuf/{name}", server.url()));
        assert_eq!(std::fs::read(below(&name)).unwrap(), there, "{name}");
    }
    let snapshot: serde_json::Value = serde_json::from_slice(&std::fs::read(below("snapshot.json")).unwrap()).unwrap();
    for role in ["targets", "targets/releases", "targets/releases/nightly"] {
        assert!(snapshot["signed"]["meta"][role].is_object(), "{role}");
        let bytes = std::fs::read(below(&format!("{role}.json"))).unwrap();
        let by_hash = format!("{role}.{}.json", hex::encode(sha2::Sha256::digest(&bytes)));
        assert_eq!(std::fs::read(below(&by_hash)).unwrap(), bytes);
        assert_eq!(get(&format!("{}/v2/{rich}/_trust/tuf/{by_hash}", server.url())), bytes);
    }

    // The manifest tells of every file.
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(to.join("manifest.json")).unwrap()).unwrap();
    let mut files = 0;
    for gun in manifest["guns"].as_array().unwrap() {
        assert_eq!(gun["state"], "complete");
        for (path, file) in gun["files"].as_object().unwrap() {
            let bytes = std::fs::read(to.join(gun["gun"].as_str().unwrap()).join("_trust/tuf").join(path)).unwrap();
            assert_eq!(file["sha256"], hex::encode(sha2::Sha256::digest(&bytes)));
            assert_eq!(file["length"], bytes.len());
            assert!(file["url"].as_str().unwrap().starts_with(server.url()));
            assert!(file["headers"].as_array().unwrap().iter().any(|header| header[0] == "last-modified"));
            files += 1;
        }
    }
    let found = Command::new("find").arg(&to).args(["-path", "*/tuf/*", "-type", "f"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout).lines().count(), files);

    // A new client, who has never seen the trust server, reads the copy from a static web server.
    let mirror = StaticServer::start(&to);
    drop(server);
    let reader = Notary::new(&mirror.url);
    let listed = reader.run(&["list", rich]);
    for tag in ["v1", "v2", "v3", "v4"] {
        assert!(listed.contains(&digest(tag)), "{tag}: {listed}");
    }
    assert!(listed.contains("targets/releases"), "{listed}");
    assert!(reader.run(&["list", plain]).contains(&digest("build1")));
    // One who knew the first root follows the chain of roots.
    let known = Notary::new(&mirror.url);
    let cache = known.folder().join("tuf").join(rich).join("metadata");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::copy(below("1.root.json"), cache.join("root.json")).unwrap();
    assert!(known.run(&["list", rich]).contains(&digest("v3")));
    // The copy is a source itself.
    let again = home.path().join("again");
    exits(&fetch(home.path(), &["--from", &mirror.url, "--to", text(&again), rich]), 0);
    let compared =
        Command::new("diff").args(["-r", text(&below("")), text(&again.join(rich).join("_trust/tuf"))]).output();
    assert!(compared.unwrap().status.success());
}

#[test]
fn repositories_are_found_in_a_clients_folder_and_what_is_missing_is_told() {
    let server = NotaryServer::start();
    let notary = Notary::new(server.url());
    notary.repository("registry.example/a", &["v1"]);
    notary.repository("registry.example/b", &["v1"]);
    notary.run(&["delete", "registry.example/b", "--remote"]);
    std::fs::create_dir_all(notary.folder().join("tuf/registry.example/b/metadata")).unwrap();
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("trust");
    let before = Command::new("find").arg(notary.folder()).args(["-printf", "%p %s %T@\n"]).output().unwrap().stdout;
    let args = ["--from", server.url(), "--to", text(&to), "--guns-from", text(notary.folder())];
    let told = exits(&fetch(home.path(), &args), 1);
    assert!(told.contains("1 complete, 1 without trust data"), "{told}");
    assert!(told.contains("registry.example/b: the server has no trust data"), "{told}");
    let after = Command::new("find").arg(notary.folder()).args(["-printf", "%p %s %T@\n"]).output().unwrap().stdout;
    assert_eq!(before, after, "the client's folder is only read");
    let json = fetch(home.path(), &[&args[..], &["--format", "json"]].concat());
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        (&report["totals"]["missing"], &report["repositories"][0]["gun"]),
        (&1.into(), &"registry.example/b".into())
    );
    for (wrong, why) in [
        (vec!["--from", server.url(), "--to", text(&to)], "no repository is named"),
        (vec!["--from", server.url(), "--to", text(&to), "a:1/b:tag"], "has a tag or a digest"),
        (vec!["--from", "http://127.0.0.1:9/x", "--to", text(&to), "a"], "without a path"),
        (vec!["--from", "http://127.0.0.1:9", "--to", text(&to), "a"], "127.0.0.1:9"),
    ] {
        assert!(exits(&fetch(home.path(), &wrong), 2).contains(why), "{why}");
    }
}

/// A repository on a server, the home of who fetches it, and where to.
struct World {
    server: NotaryServer,
    home: tempfile::TempDir,
}

const TEAM: &str = "registry.example:5000/team/app";

impl World {
    fn new(server: NotaryServer, notary: &Notary) -> Self {
        notary.repository(TEAM, &["v1"]);
        Self { server, home: tempfile::tempdir().unwrap() }
    }

    fn to(&self) -> std::path::PathBuf {
        self.home.path().join("trust")
    }

    fn fetch(&self, more: &[&str]) -> Output {
        let (url, to) = (self.server.url(), self.to());
        fetch(self.home.path(), &[&["--from", url, "--to", text(&to), TEAM][..], more].concat())
    }
}

#[test]
fn a_server_with_tls_is_trusted_as_docker_trusts_it() {
    let authority = Authority::new();
    authority.issue("notary", "subjectAltName=IP:127.0.0.1");
    let tls = Some((authority.file("notary.cert"), authority.file("notary.key")));
    let (server, ca) = (NotaryServer::with(&Settings { tls, tokens: None }), authority.file("ca.crt"));
    let notary = Notary::new(server.url()).tls_ca(&ca);
    let world = World::new(server, &notary);
    assert!(exits(&world.fetch(&[]), 2).contains("certificate"));
    exits(&world.fetch(&["--tls-ca", text(&ca)]), 0);
    exits(&world.fetch(&["--tls-verify=false"]), 0);
    let host = world.server.url().strip_prefix("https://").unwrap();
    let folder = world.home.path().join(".docker/tls").join(host);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&ca, folder.join("ca.crt")).unwrap();
    exits(&world.fetch(&[]), 0);
    assert!(exits(&world.fetch(&["--tls-ca", "/dev/null"]), 2).contains("holds no certificate"));
}

#[test]
fn tokens_are_asked_for_with_the_credentials_of_docker_login_for_the_registry() {
    let tokens = TokenServer::start("bob", "a pass word");
    let server = NotaryServer::with(&Settings { tls: None, tokens: Some(&tokens) });
    let notary = Notary::new(server.url()).login("bob", "a pass word");
    let world = World::new(server, &notary);
    let told = exits(&world.fetch(&[]), 1);
    assert!(told.contains("1 forbidden"), "{told}");
    assert!(!world.to().join(TEAM).exists());
    let docker = world.home.path().join(".docker");
    std::fs::create_dir_all(&docker).unwrap();
    let auth = r#"{"auths":{"registry.example:5000":{"auth":"Ym9iOmEgcGFzcyB3b3Jk"}}}"#;
    std::fs::write(docker.join("config.json"), auth).unwrap();
    let before = tokens.asked().len();
    // A list of names must not be enough to make another host's server get the password.
    let told = exits(&world.fetch(&[]), 1);
    assert!(told.contains("add --registry registry.example:5000"), "{told}");
    let sent = tokens.asked().split_off(before);
    assert!(!sent.iter().any(|target| target.contains("account=")), "{sent:?}");
    exits(&world.fetch(&["--registry", "registry.example:5000"]), 0);
    let sent = tokens.asked().split_off(before).join(" ");
    assert!(sent.contains("account=bob") && !sent.contains("push") && !sent.contains("%2A"), "{sent}");
    std::fs::remove_dir_all(&docker).unwrap();
    let password = world.home.path().join("password");
    let explicit = ["--username", "bob", "--password-file", text(&password)];
    std::fs::write(&password, "a pass word\n").unwrap();
    assert!(!exits(&world.fetch(&explicit), 0).contains("pass word"));
    std::fs::write(&password, "not-the-password\n").unwrap();
    let told = exits(&world.fetch(&[&explicit[..], &["--log", "trace"]].concat()), 1);
    assert!(told.contains("1 forbidden") && !told.contains("not-the-password"), "{told}");
    let kept = std::fs::read_to_string(world.to().join(TEAM).join("_trust/record.json")).unwrap();
    assert!(kept.contains("\"forbidden\"") && kept.contains("1.root.json"), "what was fetched before stays: {kept}");
}

#[test]
fn a_token_server_without_tls_gets_no_password_for_a_server_with_tls() {
    let authority = Authority::new();
    authority.issue("notary", "subjectAltName=IP:127.0.0.1");
    let tokens = TokenServer::start("bob", "a pass word");
    let tls = Some((authority.file("notary.cert"), authority.file("notary.key")));
    let server = NotaryServer::with(&Settings { tls, tokens: Some(&tokens) });
    let home = tempfile::tempdir().unwrap();
    let (to, password) = (home.path().join("trust"), home.path().join("password"));
    std::fs::write(&password, "a pass word").unwrap();
    let ca = authority.file("ca.crt");
    let from = ["--from", server.url(), "--to", text(&to), "--tls-ca", text(&ca), TEAM];
    let user = ["--username", "bob", "--password-file", text(&password)];
    let told = exits(&fetch(home.path(), &[&from[..], &user].concat()), 1);
    assert!(told.contains("in plain"), "{told}");
    assert_eq!(tokens.asked().len(), 0);
}

#[test]
fn a_registrys_catalogue_names_the_repositories() {
    use crate::support::docker_registry::DockerRegistry;
    use crate::support::image::image;
    let registry = DockerRegistry::start();
    let server = NotaryServer::start();
    let notary = Notary::new(server.url());
    let home = tempfile::tempdir().unwrap();
    let picture = image(home.path(), "a", "a", "amd64");
    for name in ["signed", "unsigned"] {
        let target = format!("docker://{}/birds/{name}:1", registry.address());
        let args = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
        let source = format!("dir:{}", text(&picture.dir));
        let pushed = Command::new("skopeo").args(args).args([&source, &target]).output().unwrap();
        assert!(pushed.status.success(), "{}", said(&pushed));
    }
    notary.repository(&format!("{}/birds/signed", registry.address()), &["1"]);
    let to = home.path().join("trust");
    let args = ["--from", server.url(), "--to", text(&to), "--catalog", registry.address(), "--tls-verify=false"];
    let told = exits(&fetch(home.path(), &args), 1);
    assert!(told.contains("1 complete, 1 without trust data"), "{told}");
}

#[test]
fn a_killed_job_goes_on_where_it_was_and_leaves_nothing_by_halves() {
    let server = NotaryServer::start();
    let notary = Notary::new(server.url());
    let names: Vec<String> = (0..12).map(|number| format!("registry.example/many/{number}")).collect();
    for name in &names {
        notary.run(&["init", "-p", name]);
    }
    let home = tempfile::tempdir().unwrap();
    let (to, journal, list) = (home.path().join("trust"), home.path().join("journal"), home.path().join("list"));
    std::fs::write(&list, names.join("\n")).unwrap();
    let args = ["--from", server.url(), "--to", text(&to), "--guns", text(&list), "--journal", text(&journal)];
    let slow = [&args[..], &["--rate", "20", "--jobs", "1"]].concat();
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["trust", "fetch"])
        .args(&slow)
        .env("HOME", home.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let complete = || std::fs::read_to_string(&journal).unwrap_or_default().matches("\"complete\"").count();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while complete() < 3 && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let had = complete();
    assert!((3..12).contains(&had), "{had}");
    std::fs::write(to.join(&names[11]).join("x"), "").unwrap_or_default();
    let told = exits(&fetch(home.path(), &args), 0);
    assert!(told.contains(&format!("{} complete, {had} complete before", 12 - had)), "{told}");
    let left = Command::new("find").arg(&to).args(["-name", ".countersign-*"]).output().unwrap().stdout;
    assert_eq!(String::from_utf8_lossy(&left), "");
    for name in &names {
        let folder = to.join(name).join("_trust");
        for file in walk(&folder) {
            serde_json::from_slice::<serde::de::IgnoredAny>(&std::fs::read(&file).unwrap()).unwrap();
        }
    }
    assert!(exits(&fetch(home.path(), &args), 0).contains("0 complete, 12 complete before"));
    let other = ["--from", "http://127.0.0.1:9", "--to", text(&to), "a", "--journal", text(&journal)];
    exits(&fetch(home.path(), &other), 2);
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}
