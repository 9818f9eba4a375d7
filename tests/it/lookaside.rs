//! The lookaside and release faces, with the real skopeo and podman.

use std::path::Path;

use crate::support::client::{Host, Ran, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;
use crate::support::image::image;
use crate::support::keys::{self, GpgHome};
use crate::support::server::Server;

fn pull(host: &Host, policy: &Path, reference: &str) -> Ran {
    let out = tempfile::tempdir().unwrap();
    host.skopeo(&[
        "--policy",
        text(policy),
        "--registries.d",
        text(&host.path().join(".config/containers/registries.d")),
        "copy",
        "--src-tls-verify=false",
        &format!("docker://{reference}"),
        &format!("dir:{}", text(out.path())),
    ])
}

#[test]
fn a_tree_that_skopeo_wrote_is_served_as_it_lies() {
    let registry = DockerRegistry::start();
    let store = tempfile::tempdir().unwrap();
    let server = Server::start(&["--store", text(store.path())]);
    let gpg = GpgHome::with(&["alice"]);
    let host = Host::new(gpg.path());
    let one = image(host.path(), "one", "one", "amd64");
    let name = format!("{}/birds/bluebird:build1", registry.address());
    host.registries_d(registry.address(), &server.url("/lookaside"), Some(&format!("file://{}", text(store.path()))));
    host.skopeo(&[
        "--insecure-policy",
        "--registries.d",
        text(&host.path().join(".config/containers/registries.d")),
        "copy",
        "--dest-tls-verify=false",
        "--sign-by",
        &GpgHome::user("alice"),
        &format!("dir:{}", text(&one.dir)),
        &format!("docker://{name}"),
    ])
    .accepted();

    let alice = host.signed_by_policy("alice.json", &keys::public("alice"));
    let bob = host.signed_by_policy("bob.json", &keys::public("bob"));
    pull(&host, &alice, &name).accepted();
    let log = server.log();
    for (number, status) in [(1, "200"), (2, "404")] {
        let path = format!("/lookaside/birds/bluebird@{}/signature-{number}", one.digest.path_form());
        assert!(
            log.lines().any(|line| line.contains(&path) && line.contains(status)),
            "the walk is not in the log: {path} {status}\n{log}"
        );
    }
    pull(&host, &bob, &name).refused("Source image rejected");
    host.podman(&["pull", "--signature-policy", text(&bob), "--tls-verify=false", &name])
        .refused("Source image rejected");
    host.podman(&["pull", "--signature-policy", text(&alice), "--tls-verify=false", &name]).accepted();

    // What was signed under one name does not serve another.
    let two = format!("{}/birds/bluebird:build2", registry.address());
    host.skopeo(&[
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        &format!("dir:{}", text(&one.dir)),
        &format!("docker://{two}"),
    ])
    .accepted();
    pull(&host, &alice, &two).refused("is not accepted");
}

#[test]
fn our_signatures_are_accepted_by_all_clients() {
    for signer in ["alice", "carol"] {
        let registry = DockerRegistry::start();
        let store = tempfile::tempdir().unwrap();
        let server = Server::start(&["--store", text(store.path())]);
        let gpg = GpgHome::with(&["alice", "carol"]);
        let host = Host::new(gpg.path());
        let one = image(host.path(), "one", "one", "amd64");
        let name = format!("{}/birds/bluebird:build1", registry.address());
        host.registries_d(registry.address(), &server.url("/lookaside"), None);
        host.skopeo(&[
            "--insecure-policy",
            "copy",
            "--dest-tls-verify=false",
            &format!("dir:{}", text(&one.dir)),
            &format!("docker://{name}"),
        ])
        .accepted();
        let policy = host.signed_by_policy("policy.json", &keys::public(signer));
        pull(&host, &policy, &name).refused("A signature was required, but no signature exists");

        host.countersign(&[
            "sign",
            &name,
            "--key",
            text(&keys::secret(signer)),
            "--manifest",
            text(&one.dir.join("manifest.json")),
            "--to",
            text(store.path()),
        ])
        .accepted();
        let stored = store.path().join(format!("birds/bluebird@{}/signature-1", one.digest.path_form()));
        let gpg_says = gpg.gpg(&["--decrypt", text(&stored)]);
        assert!(gpg_says.status.success(), "{}", String::from_utf8_lossy(&gpg_says.stderr));
        assert!(String::from_utf8_lossy(&gpg_says.stdout).contains(&name));

        // The server may remember the empty set for a moment; a new one does not.
        let server = Server::start(&["--store", text(store.path())]);
        host.registries_d(registry.address(), &server.url("/lookaside"), None);
        pull(&host, &policy, &name).accepted();
        host.podman(&["pull", "--signature-policy", text(&policy), "--tls-verify=false", &name]).accepted();
        host.countersign(&[
            "verify",
            &name,
            "--manifest",
            text(&one.dir.join("manifest.json")),
            "--signature",
            text(&stored),
            "--policy",
            text(&policy),
        ])
        .accepted();
    }
}

#[test]
fn numbers_are_positions_and_addresses_are_strict() {
    let store = tempfile::tempdir().unwrap();
    let digest = "a".repeat(64);
    let folder = store.path().join(format!("birds/bluebird@sha256={digest}"));
    std::fs::create_dir_all(&folder).unwrap();
    for (number, content) in [(2, "\u{3}two"), (5, "\u{3}five"), (10, "\u{3}ten")] {
        std::fs::write(folder.join(format!("signature-{number}")), content).unwrap();
    }
    std::fs::write(store.path().join("secret"), "x").unwrap();
    let server = Server::start(&["--store", text(store.path())]);
    let get = |path: &str| http::get(&server.address, path);
    let base = format!("/lookaside/birds/bluebird@sha256={digest}");
    for (number, content) in [(1, "two"), (2, "five"), (3, "ten")] {
        let answer = get(&format!("{base}/signature-{number}"));
        assert_eq!((answer.status, answer.text()), (200, format!("\u{3}{content}")));
        assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    }
    assert_eq!(get(&format!("{base}/signature-4")).status, 404);
    let head = http::request(&server.address, "HEAD", &format!("{base}/signature-1"), &[], b"");
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("4"), 0));
    let etag = get(&format!("{base}/signature-1")).header("etag").unwrap().to_owned();
    let again = http::request(&server.address, "GET", &format!("{base}/signature-1"), &[("If-None-Match", &etag)], b"");
    assert_eq!((again.status, again.body.len()), (304, 0));
    for same in [
        format!("/lookaside//birds/bluebird@sha256={digest}/signature-1"),
        format!("/lookaside/birds/bluebird%40sha256%3D{digest}/signature-1"),
        format!("/lookaside/birds/bluebird%40sha256%3d{digest}/signature-1?token=x"),
    ] {
        assert_eq!(get(&same).status, 200, "{same}");
    }
    for bad in [
        "/lookaside/secret".to_owned(),
        "/lookaside/../secret".to_owned(),
        "/lookaside/%2e%2e/secret".to_owned(),
        "/lookaside/".to_owned(),
        "/lookaside/birds".to_owned(),
        base.clone(),
        format!("{base}/"),
        format!("{base}/signature-0"),
        format!("{base}/signature-01"),
        format!("{base}/signature--1"),
        format!("{base}/signature-1/"),
        format!("{base}/signature-99999999999999999999"),
        format!("{base}/signature-1%00"),
        format!("/lookaside/birds/./bluebird@sha256={digest}/signature-1"),
        format!("/lookaside/x/../birds/bluebird@sha256={digest}/signature-1"),
        format!("/lookaside/birds%2fbluebird@sha256={digest}/signature-1"),
        format!("/lookaside/birds/bluebird@sha256={}/signature-1", "A".repeat(64)),
        format!("/lookaside/birds/bluebird@sha256={}/signature-1", "a".repeat(63)),
        format!("/lookaside/birds/bluebird@md5={}/signature-1", "a".repeat(32)),
        format!("/lookaside/{}/x@sha256={digest}/signature-1", "y".repeat(9000)),
    ] {
        let answer = get(&bad);
        assert!([404, 414, 431].contains(&answer.status), "{bad}: {}", answer.status);
        assert_ne!(answer.text(), "x", "{bad}");
    }
}

#[test]
fn releases_are_found_by_digest_alone() {
    let store = tempfile::tempdir().unwrap();
    let write = |key: String, content: &str| {
        let path = store.path().join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    let (a, b, c) = ("a".repeat(64), "b".repeat(64), "c".repeat(64));
    write(format!("openshift/release/sha256={a}/signature-1"), "as it lies");
    write(format!("sha256={a}/signature-1"), "at the root");
    write(format!("openshift/release@sha256={b}/signature-1"), "an image");
    write(format!("openshift/release@sha256={b}/signature-2"), "another");
    write(format!("deep/er/release@sha256={c}/signature-1"), "deep");
    let server = Server::start(&["--store", text(store.path())]);
    let get = |path: &str| {
        let answer = http::get(&server.address, &format!("/lookaside/{path}"));
        (answer.status, answer.text())
    };
    assert_eq!(get(&format!("openshift/release/sha256={a}/signature-1")), (200, "as it lies".to_owned()));
    assert_eq!(get(&format!("sha256={a}/signature-1")), (200, "at the root".to_owned()));
    assert_eq!(get(&format!("openshift/release/sha256={b}/signature-2")), (200, "another".to_owned()));
    assert_eq!(get(&format!("openshift/release/sha256={b}/signature-3")).0, 404);
    assert_eq!(get(&format!("sha256={c}/signature-1")), (200, "deep".to_owned()));
    assert_eq!(get(&format!("deep/sha256={c}/signature-1")), (200, "deep".to_owned()));
    assert_eq!(get(&format!("openshift/sha256={c}/signature-1")).0, 404);
}

#[test]
fn sigterm_ends_the_server_in_peace() {
    let store = tempfile::tempdir().unwrap();
    let mut server = Server::start(&["--store", text(store.path())]);
    assert_eq!(http::get(&server.address, "/").status, 200);
    assert!(server.stop("TERM").success(), "{}", server.log());
}
