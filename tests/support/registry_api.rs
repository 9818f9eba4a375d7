//! Blobs, manifests and signatures put into a registry by plain requests, as no client would wait for.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::image::Digest;

use super::http;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Puts a blob into a registry that lets these headers write.
pub fn push_blob(registry: &str, repository: &str, headers: &[(&str, &str)], bytes: &[u8]) -> Digest {
    let started = http::request(registry, "POST", &format!("/v2/{repository}/blobs/uploads/"), headers, b"");
    let location = started.header("location").unwrap_or_else(|| panic!("{started:?}"));
    let place = location.find("/v2/").map_or(location, |at| &location[at..]);
    let digest = Digest::sha256(bytes);
    let escaped = digest.to_string().replace(':', "%3A");
    let done = http::request(registry, "PUT", &format!("{place}&digest={escaped}"), headers, bytes);
    assert_eq!(done.status, 201, "{done:?}");
    digest
}

/// Puts the smallest image there is, different for each label; returns its manifest.
pub fn push_image(registry: &str, repository: &str, headers: &[(&str, &str)], label: &str) -> Vec<u8> {
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {}, "author": label,
        "rootfs": {"type": "layers", "diff_ids": []},
    })
    .to_string();
    let digest = push_blob(registry, repository, headers, config.as_bytes());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json", "size": config.len(), "digest": digest},
    })
    .to_string()
    .into_bytes();
    let headers: Vec<_> = headers.iter().copied().chain([("Content-Type", MANIFEST)]).collect();
    let path = format!("/v2/{repository}/manifests/{}", Digest::sha256(&manifest));
    let done = http::request(registry, "PUT", &path, &headers, &manifest);
    assert_eq!(done.status, 201, "{done:?}");
    manifest
}

/// Where the extension has an image's signatures.
pub fn signatures(repository: &str, digest: &Digest) -> String {
    format!("/extensions/v2/{repository}/signatures/{digest}")
}

/// A signature as it is put there.
pub fn entry(digest: &Digest, blob: &[u8]) -> Vec<u8> {
    let name = format!("{digest}@{}", "0".repeat(32));
    serde_json::json!({"schemaVersion": 2, "name": name, "type": "atomic", "content": STANDARD.encode(blob)})
        .to_string()
        .into_bytes()
}

/// The signatures in a list of the extension, in its order.
pub fn listed(answer: &http::Answer) -> Vec<Vec<u8>> {
    let json = answer.json();
    let entries = json["signatures"].as_array().unwrap_or_else(|| panic!("no list: {answer:?}"));
    entries.iter().map(|entry| STANDARD.decode(entry["content"].as_str().unwrap()).unwrap()).collect()
}
