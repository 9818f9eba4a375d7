//! Sigstore signatures that lie beside the image in a real registry.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::image::Digest;
use countersign::signature::{MIME_TYPE, SIGNATURE_ANNOTATION};
use rcgen::SigningKey as _;

use crate::support::client::{Host, text};
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;
use crate::support::image::image;
use crate::support::registry_api::push_blob;

#[test]
fn attachments_in_a_registry_are_judged_as_clients_judge_them() {
    let registry = DockerRegistry::start();
    let host = Host::new(std::path::Path::new("/nonexistent"));
    let one = image(host.path(), "one", "one", "amd64");
    let name = format!("{}/birds/bluebird:1", registry.address());
    host.skopeo(&[
        "--insecure-policy",
        "copy",
        "--dest-tls-verify=false",
        &format!("dir:{}", text(&one.dir)),
        &format!("docker://{name}"),
    ])
    .accepted();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let payload = serde_json::json!({
        "critical": {
            "identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": one.digest},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string();
    let signature = STANDARD.encode(key.sign(payload.as_bytes()).unwrap());
    push_blob(registry.address(), "birds/bluebird", &[], payload.as_bytes());
    push_blob(registry.address(), "birds/bluebird", &[], b"{}");
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 2, "digest": Digest::sha256(b"{}")},
        "layers": [{
            "mediaType": MIME_TYPE, "size": payload.len(), "digest": Digest::sha256(payload.as_bytes()),
            "annotations": {SIGNATURE_ANNOTATION: signature},
        }],
    })
    .to_string();
    let put = http::request(
        registry.address(),
        "PUT",
        &format!("/v2/birds/bluebird/manifests/sha256-{}.sig", one.digest.hex()),
        &[("Content-Type", "application/vnd.oci.image.manifest.v1+json")],
        manifest.as_bytes(),
    );
    assert_eq!(put.status, 201, "{put:?}");

    let policy = |file: &str, key: &rcgen::KeyPair| {
        let pem = host.write(&format!("{file}.pem"), key.public_key_pem());
        let requirement = serde_json::json!({"type": "sigstoreSigned", "keyPath": pem,
            "signedIdentity": {"type": "matchRepository"}});
        host.write(file, serde_json::json!({"default": [requirement]}).to_string())
    };
    let (good, bad) = (policy("good.json", &key), policy("bad.json", &other));
    let registries_d = host.path().join(".config/containers/registries.d");
    let verify = |policy: &std::path::Path| {
        host.countersign(&[
            "verify",
            &name,
            "--tls-verify=false",
            "--policy",
            text(policy),
            "--registries-d",
            text(&registries_d),
        ])
    };
    let unsigned = verify(&good);
    assert_eq!(unsigned.code, Some(1), "attachments are off by default: {unsigned:?}");
    host.write(
        ".config/containers/registries.d/sigstore.yaml",
        format!("docker:\n  {}:\n    use-sigstore-attachments: true\n", registry.address()),
    );
    verify(&good).accepted();
    let refused = verify(&bad);
    assert!(
        refused.code == Some(1) && refused.stdout.contains("cryptographic signature verification failed"),
        "{refused:?}"
    );
}
