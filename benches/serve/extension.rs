//! The signature extension, whose access verdict comes from a real registry, against the server's
//! own lookaside.

use std::path::Path;

use countersign::image::Digest;

use crate::load::{Bars, Drive, compare, print};
use crate::peers::Peer;
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;
use crate::tree;

/// As many as the registry answers for in a moment, so that the verdicts are cached.
const IMAGES: usize = 100;

pub fn run(work: &Path) {
    let registry = DockerRegistry::start();
    let root = work.join("extension-tree");
    let (mut lookaside, mut extension) = (Vec::new(), Vec::new());
    for (n, digest) in push(registry.address()).into_iter().enumerate() {
        let folder = root.join(format!("bench/app@{}", digest.path_form()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("signature-1"), tree::blob(n)).unwrap();
        lookaside.push(format!("/lookaside/bench/app@{}/signature-1", digest.path_form()));
        extension.push(format!("/extensions/v2/bench/app/signatures/{digest}"));
    }
    let (one, other) = (work.join("extension-paths"), work.join("extension-lookaside"));
    tree::draw(&one, "", &extension);
    tree::draw(&other, "", &lookaside);
    let upstream = registry.url();
    let server = Peer::countersign(&["--store", root.to_str().unwrap(), "--upstream", &upstream], None);
    let how = Drive::hits(&one, 3);
    let rounds = compare((&server, how), (&server, Drive { paths: &other, ..how }));
    let bars = Bars { rate: Some(0.5), ..Bars::default() };
    print("extension, verdict cached (the other: the same server's lookaside)", rounds, bars);
}

/// Pushes small images and returns their digests.
fn push(registry: &str) -> Vec<Digest> {
    let config = b"{}";
    let blob = Digest::sha256(config);
    let opened = http::request(registry, "POST", "/v2/bench/app/blobs/uploads/", &[], b"");
    let place = opened.header("location").expect("a place to upload to");
    let path = place.strip_prefix(&format!("http://{registry}")).unwrap_or(place);
    let sent = http::request(registry, "PUT", &format!("{path}&digest={blob}"), &[], config);
    assert_eq!(sent.status, 201, "{}", sent.text());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    (0..IMAGES)
        .map(|n| {
            let manifest = serde_json::json!({
                "schemaVersion": 2, "mediaType": kind, "layers": [], "annotations": {"n": n.to_string()},
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(), "digest": blob},
            });
            let manifest = manifest.to_string().into_bytes();
            let digest = Digest::sha256(&manifest);
            let path = format!("/v2/bench/app/manifests/{digest}");
            let sent = http::request(registry, "PUT", &path, &[("Content-Type", kind)], &manifest);
            assert_eq!(sent.status, 201, "{}", sent.text());
            digest
        })
        .collect()
}
