//! The registry proxy and the signature extension, with the real registry, skopeo and podman.

use std::path::Path;

use base64::Engine as _;

use crate::support::client::{Host, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;
use crate::support::image::{DirImage, image, list};
use crate::support::keys::{self, GpgHome};
use crate::support::server::Server;

struct World {
    registry: DockerRegistry,
    server: Server,
    gpg: GpgHome,
    store: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::before(DockerRegistry::start())
    }

    fn before(registry: DockerRegistry) -> Self {
        let store = tempfile::tempdir().unwrap();
        let server = Self::serve(&registry, store.path());
        Self { registry, server, gpg: GpgHome::with(&["alice", "bob"]), store }
    }

    fn serve(registry: &DockerRegistry, store: &Path) -> Server {
        Server::start(&["--store", text(store), "--upstream", &registry.url()])
    }

    /// A fresh server over the same store, so that nothing is remembered.
    fn restart(&mut self) {
        self.server = Self::serve(&self.registry, self.store.path());
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.server.address)
    }

    fn push_signed(&self, host: &Host, image: &DirImage, name: &str) {
        host.skopeo(&[
            "--insecure-policy",
            "copy",
            "--all",
            "--dest-tls-verify=false",
            "--sign-by",
            &GpgHome::user("alice"),
            &format!("dir:{}", text(&image.dir)),
            &format!("docker://{}", self.name(name)),
        ])
        .accepted();
    }

    fn pull(&self, host: &Host, policy: &Path, name: &str) -> crate::support::client::Ran {
        let out = tempfile::tempdir().unwrap();
        host.skopeo(&[
            "--policy",
            text(policy),
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{}", self.name(name)),
            &format!("dir:{}", text(out.path())),
        ])
    }
}

#[test]
fn skopeo_signs_and_verifies_through_the_proxy() {
    let world = World::new();
    let host = Host::new(world.gpg.path());
    let one = image(host.path(), "one", "one", "amd64");
    let two = image(host.path(), "two", "two", "amd64");
    world.push_signed(&host, &one, "birds/bluebird:build1");
    host.skopeo(&[
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        &format!("dir:{}", text(&two.dir)),
        &format!("docker://{}", world.name("birds/unsigned:1")),
    ])
    .accepted();

    let alice = host.signed_by_policy("alice.json", &keys::public("alice"));
    let bob = host.signed_by_policy("bob.json", &keys::public("bob"));
    world.pull(&host, &alice, "birds/bluebird:build1").accepted();
    world.pull(&host, &bob, "birds/bluebird:build1").refused("Source image rejected");
    world.pull(&host, &alice, "birds/unsigned:1").refused("A signature was required, but no signature exists");

    // It lies in the store as a plain lookaside tree.
    let stored = world.store.path().join(format!("birds/bluebird@{}/signature-1", one.digest.path_form()));
    assert!(stored.is_file());
}

#[test]
fn damaged_and_moved_signatures_are_refused_by_clients() {
    let mut world = World::new();
    let host = Host::new(world.gpg.path());
    let one = image(host.path(), "one", "one", "amd64");
    let two = image(host.path(), "two", "two", "amd64");
    world.push_signed(&host, &one, "birds/bluebird:build1");
    host.skopeo(&[
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        &format!("dir:{}", text(&two.dir)),
        &format!("docker://{}", world.name("birds/bluebird:build2")),
    ])
    .accepted();
    let alice = host.signed_by_policy("alice.json", &keys::public("alice"));

    // Moved under another image's digest.
    let folder = |image: &DirImage| world.store.path().join(format!("birds/bluebird@{}", image.digest.path_form()));
    let (from, to) = (folder(&one).join("signature-1"), folder(&two));
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(&from, to.join("signature-1")).unwrap();
    world.restart();
    // The host's name has the old server's port: verify by the store's own view of the bytes.
    let moved = world.pull(&host, &alice, "birds/bluebird:build2");
    assert!(!moved.ok, "{moved:?}");

    // A flipped byte.
    let mut bytes = std::fs::read(&from).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&from, bytes).unwrap();
    world.restart();
    world.pull(&host, &alice, "birds/bluebird:build1").refused("Source image rejected");
}

#[test]
fn podman_pushes_and_pulls_through_the_proxy() {
    let world = World::new();
    let host = Host::new(world.gpg.path());
    let one = image(host.path(), "one", "one", "amd64");
    let plain = format!("docker://{}/birds/base:1", world.registry.address());
    host.skopeo(&["--insecure-policy", "copy", "--dest-tls-verify=false", &format!("dir:{}", text(&one.dir)), &plain])
        .accepted();
    let accept_all = host.write("any.json", r#"{"default":[{"type":"insecureAcceptAnything"}]}"#);
    let alice = host.signed_by_policy("alice.json", &keys::public("alice"));
    let bob = host.signed_by_policy("bob.json", &keys::public("bob"));

    let base = format!("{}/birds/base:1", world.registry.address());
    host.podman(&["pull", "--signature-policy", text(&accept_all), "--tls-verify=false", &base]).accepted();
    let signed = world.name("birds/podman:1");
    host.podman(&["tag", &base, &signed]).accepted();
    host.podman(&[
        "push",
        "--signature-policy",
        text(&accept_all),
        "--tls-verify=false",
        "--sign-by",
        &GpgHome::user("alice"),
        &signed,
    ])
    .accepted();
    host.podman(&["rmi", "--all", "--force"]).accepted();
    host.podman(&["pull", "--signature-policy", text(&bob), "--tls-verify=false", &signed])
        .refused("Source image rejected");
    host.podman(&["pull", "--signature-policy", text(&alice), "--tls-verify=false", &signed]).accepted();
}

#[test]
fn a_multi_arch_image_is_signed_and_pulled_by_instance() {
    let world = World::new();
    let host = Host::new(world.gpg.path());
    let amd64 = image(host.path(), "amd64", "amd64", "amd64");
    let arm64 = image(host.path(), "arm64", "arm64", "arm64");
    let both = list(host.path(), "list", &[("amd64", &amd64), ("arm64", &arm64)]);
    world.push_signed(&host, &both, "birds/multi:1");
    for member in [&amd64, &arm64, &both] {
        let folder = world.store.path().join(format!("birds/multi@{}", member.digest.path_form()));
        assert!(folder.join("signature-1").is_file(), "{}", folder.display());
    }
    let alice = host.signed_by_policy("alice.json", &keys::public("alice"));
    world.pull(&host, &alice, "birds/multi:1").accepted();
    world.pull(&host, &alice, &format!("birds/multi@{}", arm64.digest)).accepted();
    // Without the instance's own signature the list's does not help.
    let mut world = world;
    for member in [&amd64, &arm64] {
        let folder = world.store.path().join(format!("birds/multi@{}", member.digest.path_form()));
        std::fs::remove_dir_all(folder).unwrap();
    }
    world.restart();
    world.pull(&host, &alice, "birds/multi:1").refused("A signature was required, but no signature exists");
}

#[test]
fn credentials_decide_who_reads_and_writes_signatures() {
    let world = World::before(DockerRegistry::with_htpasswd("user", "secret"));
    let host = Host::new(world.gpg.path());
    let one = image(host.path(), "one", "one", "amd64");
    let target = format!("docker://{}", world.name("birds/private:1"));
    let source = format!("dir:{}", text(&one.dir));
    let push = |creds: &str| {
        host.skopeo(&[
            "--insecure-policy",
            "copy",
            "--dest-tls-verify=false",
            "--dest-creds",
            creds,
            "--sign-by",
            &GpgHome::user("alice"),
            &source,
            &target,
        ])
    };
    push("user:wrong").refused("unauthorized");
    push("user:secret").accepted();

    let alice = host.signed_by_policy("alice.json", &keys::public("alice"));
    let pull = |creds: &str| {
        let out = tempfile::tempdir().unwrap();
        host.skopeo(&[
            "--policy",
            text(&alice),
            "copy",
            "--src-tls-verify=false",
            "--src-creds",
            creds,
            &target,
            &format!("dir:{}", text(out.path())),
        ])
    };
    pull("user:secret").accepted();
    pull("user:wrong").refused("unauthorized");

    // The same without any client in between: no credentials, wrong ones, right ones.
    let address = &world.server.address;
    let path = format!("/extensions/v2/birds/private/signatures/{}", one.digest);
    let basic = |pair: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair));
    let anonymous = http::get(address, &path);
    assert_eq!(anonymous.status, 401);
    assert!(anonymous.header("www-authenticate").is_some_and(|challenge| challenge.starts_with("Basic")));
    assert_eq!(anonymous.header("x-registry-supports-signatures"), Some("1"));
    let right = http::request(address, "GET", &path, &[("Authorization", &basic("user:secret"))], b"");
    assert_eq!(right.status, 200);
    let entry = right.json()["signatures"][0].clone();
    // The verdict of one caller is not another's, now that it is cached.
    assert_eq!(http::request(address, "GET", &path, &[("Authorization", &basic("user:wrong"))], b"").status, 401);
    assert_eq!(http::get(address, &path).status, 401);
    let body = entry.to_string();
    assert_eq!(http::request(address, "PUT", &path, &[], body.as_bytes()).status, 401);
    let wrong = http::request(address, "PUT", &path, &[("Authorization", &basic("user:wrong"))], body.as_bytes());
    assert_eq!(wrong.status, 401);
    let again = http::request(address, "PUT", &path, &[("Authorization", &basic("user:secret"))], body.as_bytes());
    assert_eq!(again.status, 201, "identical content is stored already");
    assert!(again.body.is_empty());
    let folder = world.store.path().join(format!("birds/private@{}", one.digest.path_form()));
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
}

#[test]
fn who_may_only_read_cannot_write() {
    let mut registry = DockerRegistry::start();
    let gpg = GpgHome::with(&["alice"]);
    let host = Host::new(gpg.path());
    let one = image(host.path(), "one", "one", "amd64");
    host.skopeo(&[
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        &format!("dir:{}", text(&one.dir)),
        &format!("docker://{}/birds/bluebird:1", registry.address()),
    ])
    .accepted();
    registry.restart_read_only();
    let store = tempfile::tempdir().unwrap();
    let server = World::serve(&registry, store.path());
    let signed = host.countersign(&[
        "sign",
        "registry.example/birds/bluebird:1",
        "--key",
        text(&keys::secret("alice")),
        "--digest",
        &one.digest.to_string(),
        "-o",
        "signature",
    ]);
    signed.accepted();
    let content =
        base64::engine::general_purpose::STANDARD.encode(std::fs::read(host.path().join("signature")).unwrap());
    let body = serde_json::json!({
        "schemaVersion": 2, "name": format!("{}@{}", one.digest, "0".repeat(32)), "type": "atomic", "content": content,
    });
    let path = format!("/extensions/v2/birds/bluebird/signatures/{}", one.digest);
    assert_eq!(http::get(&server.address, &path).json(), serde_json::json!({"signatures": []}));
    let answer = http::request(&server.address, "PUT", &path, &[], body.to_string().as_bytes());
    assert!([403, 405].contains(&answer.status), "{answer:?}");
    assert_eq!(std::fs::read_dir(store.path()).unwrap().count(), 0);
}

#[test]
fn uploads_are_checked_at_the_door() {
    let world = World::new();
    let host = Host::new(world.gpg.path());
    let one = image(host.path(), "one", "one", "amd64");
    host.skopeo(&[
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        &format!("dir:{}", text(&one.dir)),
        &format!("docker://{}", world.name("birds/bluebird:1")),
    ])
    .accepted();
    let sign = |digest: &str, file: &str| {
        host.countersign(&[
            "sign",
            "registry.example/birds/bluebird:1",
            "--key",
            text(&keys::secret("alice")),
            "--digest",
            digest,
            "-o",
            file,
        ])
        .accepted();
        std::fs::read(host.path().join(file)).unwrap()
    };
    let digest = one.digest.to_string();
    let other = format!("sha256:{}", "b".repeat(64));
    let good = sign(&digest, "good");
    let foreign = sign(&other, "foreign");
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let entry = |name: &str, content: &str| {
        serde_json::json!({"schemaVersion": 2, "name": name, "type": "atomic", "content": content}).to_string()
    };
    let name = format!("{digest}@{}", "0".repeat(32));
    let armoured = b"-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n";
    let put = |repository: &str, digest: &str, body: &str| {
        http::request(
            &world.server.address,
            "PUT",
            &format!("/extensions/v2/{repository}/signatures/{digest}"),
            &[],
            body.as_bytes(),
        )
    };
    for (why, body) in [
        ("not JSON", "{".to_owned()),
        ("an array", "[]".to_owned()),
        ("empty", String::new()),
        ("bad base64", entry(&name, "***")),
        ("an empty blob", entry(&name, "")),
        ("armour", entry(&name, &encode(armoured))),
        ("HTML", entry(&name, &encode(b"<html></html>"))),
        ("no OpenPGP", entry(&name, &encode(&[0xA3, 1, 2, 3]))),
        ("sigstore", entry(&name, &encode(b"\0sigstore-json\n{}"))),
        ("a claim for another digest", entry(&name, &encode(&foreign))),
        ("a name for another digest", entry(&format!("{other}@{}", "0".repeat(32)), &encode(&good))),
        ("no name", entry("", &encode(&good))),
        ("wrong version", entry(&name, &encode(&good)).replace("\"schemaVersion\":2", "\"schemaVersion\":1")),
        ("wrong type", entry(&name, &encode(&good)).replace("atomic", "cosign")),
    ] {
        let answer = put("birds/bluebird", &digest, &body);
        assert_eq!(answer.status, 400, "{why}: {}", answer.text());
        assert_eq!(answer.json()["errors"][0]["code"], "SIGNATURE_INVALID", "{why}");
        assert!(answer.json()["errors"][0]["detail"].is_string() || answer.json()["errors"][0]["message"].is_string());
    }
    // An image that the upstream does not have.
    let unknown = put("birds/bluebird", &other, &entry(&format!("{other}@{}", "0".repeat(32)), &encode(&foreign)));
    assert_eq!((unknown.status, &unknown.json()["errors"][0]["code"]), (404, &"MANIFEST_UNKNOWN".into()));
    // Far too much.
    let big = put("birds/bluebird", &digest, &entry(&name, &"A".repeat(8 << 20)));
    assert!([400, 413].contains(&big.status), "{}", big.status);
    assert_eq!(std::fs::read_dir(world.store.path()).unwrap().count(), 0, "nothing was stored");
    // The good one, with the documentation's `version`, without a type.
    let documented = serde_json::json!({"version": 2, "name": name, "content": encode(&good)}).to_string();
    assert_eq!(put("birds/bluebird", &digest, &documented).status, 201);
    let list = http::get(&world.server.address, &format!("/extensions/v2/birds/bluebird/signatures/{digest}"));
    assert_eq!(list.json()["signatures"][0]["content"], encode(&good));
}

#[test]
fn a_failing_upstream_is_not_an_empty_list() {
    let mut registry = DockerRegistry::start();
    let store = tempfile::tempdir().unwrap();
    let server = World::serve(&registry, store.path());
    registry.stop();
    let digest = format!("sha256:{}", "a".repeat(64));
    let answer = http::get(&server.address, &format!("/extensions/v2/a/b/signatures/{digest}"));
    assert!([502, 503].contains(&answer.status), "{answer:?}");
    assert!([502, 503].contains(&http::get(&server.address, "/v2/").status));
}
