//! The upload gate, with the real registry and skopeo: who may put signatures where.

use std::path::{Path, PathBuf};

use crate::support::client::{Host, Ran, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;
use crate::support::image::{DirImage, image};
use crate::support::keys::{self, GpgHome};
use crate::support::registry_api;
use crate::support::server::Server;

struct World {
    registry: DockerRegistry,
    gpg: GpgHome,
    host: Host,
    store: tempfile::TempDir,
    one: DirImage,
}

impl World {
    fn new() -> Self {
        let gpg = GpgHome::with(&["alice", "bob"]);
        let host = Host::new(gpg.path());
        let one = image(host.path(), "one", "one", "amd64");
        Self { registry: DockerRegistry::start(), gpg, host, store: tempfile::tempdir().unwrap(), one }
    }

    fn serve(&self, args: &[&str]) -> Server {
        let url = self.registry.url();
        Server::start(&[&["--store", text(self.store.path()), "--upstream", &url], args].concat())
    }

    /// Pushes with a signature by `key`, as skopeo's user would.
    fn push(&self, server: &Server, key: &str, name: &str) -> Ran {
        assert!(self.gpg.path().exists());
        self.host.skopeo(&[
            "--insecure-policy",
            "copy",
            "--dest-tls-verify=false",
            "--sign-by",
            &GpgHome::user(key),
            &format!("dir:{}", text(&self.one.dir)),
            &format!("docker://{}/{name}", server.address),
        ])
    }

    fn stored(&self, repository: &str) -> usize {
        let folder = self.store.path().join(format!("{repository}@{}", self.one.digest.path_form()));
        std::fs::read_dir(folder).map_or(0, |entries| entries.count())
    }

    /// Uploads a signature of ours for `reference` to `repository`.
    fn put(&self, server: &Server, key: &str, reference: &str, repository: &str) -> http::Answer {
        let file = self.host.path().join("signature");
        let digest = self.one.digest.to_string();
        let key = keys::secret(key);
        self.host
            .countersign(&["sign", reference, "--key", text(&key), "--digest", &digest, "-o", text(&file)])
            .accepted();
        self.put_bytes(server, &std::fs::read(file).unwrap(), repository)
    }

    fn put_bytes(&self, server: &Server, blob: &[u8], repository: &str) -> http::Answer {
        let digest = &self.one.digest;
        let path = registry_api::signatures(repository, digest);
        http::request(&server.address, "PUT", &path, &[], &registry_api::entry(digest, blob))
    }

    /// A policy that trusts alice, and bob for what is below `bobs` (without its host).
    fn policy(&self, server: Option<&Server>) -> PathBuf {
        let signed_by =
            |key: &str| serde_json::json!([{"type": "signedBy", "keyType": "GPGKeys", "keyPath": keys::public(key)}]);
        let mut docker = serde_json::Map::new();
        if let Some(server) = server {
            docker.insert(format!("{}/bobs", server.address), signed_by("bob"));
        }
        let policy = serde_json::json!({"default": signed_by("alice"), "transports": {"docker": docker}});
        self.host.write("gate-policy.json", policy.to_string())
    }

    fn base_image(&self, name: &str) {
        self.host
            .skopeo(&[
                "--insecure-policy",
                "copy",
                "--dest-tls-verify=false",
                &format!("dir:{}", text(&self.one.dir)),
                &format!("docker://{}/{name}", self.registry.address()),
            ])
            .accepted();
    }
}

fn reason(answer: &http::Answer) -> (u16, String, String) {
    let error = answer.json()["errors"][0].clone();
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    (answer.status, text("code"), text("message"))
}

#[test]
fn only_what_the_policy_vouches_for_is_stored() {
    let world = World::new();
    let policy = world.policy(None);
    let server = world.serve(&["--policy", text(&policy)]);
    world.push(&server, "alice", "birds/bluebird:build1").accepted();
    assert_eq!(world.stored("birds/bluebird"), 1);

    // skopeo shows its user why.
    let refused = world.push(&server, "bob", "birds/bluebird:build2");
    let refused = refused.refused("denied").refused("signature not admitted");
    assert!(refused.stderr.contains("scope default of the policy"), "{refused:?}");
    assert_eq!(world.stored("birds/bluebird"), 1);
    world.push(&server, "bob", "fish/carp:1").refused("signature not admitted");
    assert_eq!(world.stored("fish/carp"), 0);
    assert!(!world.store.path().join("fish").exists(), "not even a folder");

    // What was let in is what clients accept, and the audit log names the refused.
    let out = tempfile::tempdir().unwrap();
    world
        .host
        .skopeo(&[
            "--policy",
            text(&policy),
            "copy",
            "--src-tls-verify=false",
            &format!("docker://{}/birds/bluebird:build1", server.address),
            &format!("dir:{}", text(out.path())),
        ])
        .accepted();
    let log = server.log();
    assert!(
        log.lines()
            .any(|line| line.contains("signature upload") && line.contains("refused") && line.contains("fish/carp")),
        "{log}"
    );

    // The policy is read anew: now bob's signatures are let in.
    world.host.write("gate-policy.json", std::fs::read_to_string(&policy).unwrap().replace("alice", "bob"));
    world.push(&server, "bob", "birds/bluebird:build2").accepted();
    world.push(&server, "alice", "birds/bluebird:build3").refused("signature not admitted");
    // While it is broken nobody is let in, and nobody is told what the server's files are called.
    world.host.write("gate-policy.json", "{");
    let answer = world.put(&server, "bob", &format!("{}/birds/bluebird:1", server.address), "birds/bluebird");
    let (status, code, message) = reason(&answer);
    assert_eq!((status, code.as_str()), (503, "UNAVAILABLE"));
    assert!(!message.contains("policy.json"), "{message}");
    assert!(server.log().contains("gate-policy.json"));
}

#[test]
fn key_files_are_read_anew() {
    let world = World::new();
    let keyring = world.host.path().join("keys.asc");
    std::fs::copy(keys::public("alice"), &keyring).unwrap();
    let policy = world.host.signed_by_policy("keys-policy.json", &keyring);
    let server = world.serve(&["--policy", text(&policy)]);
    world.push(&server, "alice", "birds/bluebird:1").accepted();
    world.push(&server, "bob", "birds/bluebird:2").refused("signature not admitted");
    let next = world.host.path().join("next.asc");
    std::fs::copy(keys::public("bob"), &next).unwrap();
    std::fs::rename(&next, &keyring).unwrap();
    world.push(&server, "bob", "birds/bluebird:2").accepted();
    world.push(&server, "alice", "birds/bluebird:3").refused("signature not admitted");
    std::fs::remove_file(&keyring).unwrap();
    let answer = world.put(&server, "bob", &format!("{}/birds/bluebird:1", server.address), "birds/bluebird");
    assert_eq!(answer.status, 503, "{}", answer.text());
}

#[test]
fn scopes_and_paths_keep_signers_apart() {
    let world = World::new();
    // The server's address is part of its policy's scopes: a first one takes a port to know.
    let server = world.serve(&["--policy", text(&world.policy(None))]);
    world.policy(Some(&server));
    world.push(&server, "bob", "bobs/app:1").accepted();
    world.push(&server, "bob", "birds/app:1").refused("signature not admitted");
    world.push(&server, "alice", "bobs/app:2").refused("signature not admitted");

    // Bob's good signature for his own repository is no reason to fill another's set.
    world.base_image("birds/app:1");
    let own = format!("{}/bobs/app:1", server.address);
    let (status, code, message) = reason(&world.put(&server, "bob", &own, "birds/app"));
    assert_eq!((status, code.as_str()), (403, "DENIED"));
    assert!(message.contains("uploaded to the repository birds/app"), "{message}");
    // Another host's name for the same path is fine: registries.conf gives one place many names.
    assert_eq!(world.put(&server, "alice", "us.icr.io/birds/app:1", "birds/app").status, 201);
    assert_eq!(world.stored("birds/app"), 1);
}

#[test]
fn namespaces_have_their_own_gate() {
    let world = World::new();
    let policy = world.policy(None);
    let bobs = world.host.signed_by_policy("bobs.json", &keys::public("bob"));
    let config = world.host.write(
        "countersign.yaml",
        format!(
            "gate:\n  policy: {}\n  namespaces:\n    dev/: {{mode: claim}}\n    dev/bob/: {{policy: {}}}\n    \
             raw/: {{mode: off}}\n    mirror/: {{claim_path: end}}\n",
            text(&policy),
            text(&bobs)
        ),
    );
    let server = world.serve(&["--config", text(&config)]);
    for (key, name, admitted) in [
        ("alice", "birds/app:1", true),
        ("bob", "birds/app:2", false),
        ("bob", "dev/app:1", true),
        ("bob", "devel/app:1", false),
        ("bob", "dev/bob/app:1", true),
        ("alice", "dev/bob/app:2", false),
        ("bob", "raw/app:1", true),
    ] {
        let ran = world.push(&server, key, name);
        if admitted {
            ran.accepted()
        } else {
            ran.refused("signature not admitted")
        };
    }
    // Anything of the right form: clients would refuse it, and the operator wants it so.
    assert_eq!(world.put_bytes(&server, &[0xA3, 1, 2, 3], "raw/app").status, 201);
    let (status, code, _) = reason(&world.put_bytes(&server, &[0xA3, 1, 2, 3], "dev/app"));
    assert_eq!((status, code.as_str()), (400, "SIGNATURE_INVALID"));
    assert_eq!(world.put_bytes(&server, b"<html>", "raw/app").status, 400);
    // A mirror keeps what was signed for the original.
    world.base_image("mirror/us.icr.io/birds/app:1");
    assert_eq!(world.put(&server, "alice", "us.icr.io/birds/app:1", "mirror/us.icr.io/birds/app").status, 201);
    assert_eq!(world.put(&server, "bob", "us.icr.io/birds/app:1", "mirror/us.icr.io/birds/app").status, 403);
    assert_eq!(world.put(&server, "alice", "us.icr.io/fish/app:1", "mirror/us.icr.io/birds/app").status, 403);
}

#[test]
fn a_gate_that_cannot_be_is_found_at_the_start() {
    let host = Host::new(Path::new("/nowhere"));
    let run = |args: &[&str]| {
        host.countersign(&[&["serve", "--listen", "127.0.0.1:0", "--store", text(host.path())], args].concat())
    };
    let ran = run(&["--policy", "/no/such/policy.json"]).refused("open /no/such/policy.json");
    assert_eq!(ran.code, Some(2));
    run(&["--gate", "policy"]).refused("--policy FILE");
    run(&["--gate", "perhaps"]).refused("off, claim or policy");
    let bad = host.write("bad.json", "{}");
    run(&["--policy", text(&bad)]).refused("Default policy is missing");
}
