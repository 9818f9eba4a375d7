//! Manifest lists: the instance that a pull would choose is judged, by its own signatures, under
//! the user's name; checked against skopeo.

use countersign::image::Digest;
use serde_json::{Value, json};

use super::{Desk, signed_by};
use crate::support::client::text;
use crate::support::docker_registry::DockerRegistry;
use crate::support::image_folder::ImageFolder;
use crate::support::keys;

/// A list at a registry, a store of signatures and a host that trusts alice.
struct Shop {
    desk: Desk,
    registry: DockerRegistry,
    list: ImageFolder,
    policy: String,
    store: String,
}

impl Shop {
    fn new() -> Self {
        let (desk, registry, list) = (Desk::new(), DockerRegistry::start(), ImageFolder::list("shop"));
        let policy = text(&desk.policy("policy.json", signed_by("alice", None))).to_owned();
        let store = text(&desk.path("store")).to_owned();
        std::fs::create_dir(&store).unwrap();
        desk.host.registries_d(registry.address(), &format!("file://{store}"), None);
        let shop = Self { desk, registry, list, policy, store };
        shop.list.push(&shop.name(":1"), &[]);
        shop
    }

    fn name(&self, rest: &str) -> String {
        format!("{}/birds/bluebird{rest}", self.registry.address())
    }

    /// 0 is amd64, 1 is arm64.
    fn instance(&self, number: usize) -> Digest {
        Digest::sha256(self.list.members()[number].as_bytes())
    }

    fn sign(&self, digest: &Digest) {
        let (key, digest) = (keys::secret("alice"), digest.to_string());
        let args = ["sign", &self.name(":1"), "--key", text(&key), "--digest", &digest, "--to", &self.store];
        self.desk.run(&args).accepted();
    }

    fn ask(&self, command: &str, name: &str, extra: &[&str]) -> (Value, i32) {
        self.desk.json(&[&[command, name, "--policy", &self.policy, "--tls-verify=false"], extra].concat())
    }

    fn verify(&self, rest: &str, extra: &[&str]) -> (Value, i32) {
        self.ask("verify", &self.name(rest), extra)
    }

    /// Whether skopeo pulls it for an architecture.
    fn skopeo(&self, rest: &str, architecture: &str) -> bool {
        let out = tempfile::tempdir().unwrap();
        let (from, to) = (format!("docker://{}", self.name(rest)), format!("dir:{}", text(out.path())));
        let args = ["--policy", &self.policy, "--override-arch", architecture, "copy", "--src-tls-verify=false"];
        self.desk.host.skopeo(&[&args[..], &[&from, &to]].concat()).ok
    }
}

#[test]
fn the_chosen_instance_is_judged() {
    let shop = Shop::new();
    let list = shop.list.digest();
    let by_digest = format!("@{list}");
    let unsigned = "A signature was required, but no signature exists";
    // The list's own signature is worth nothing.
    shop.sign(&list);
    for rest in [":1", &by_digest] {
        let (verdict, code) = shop.verify(rest, &["--platform", "linux/amd64"]);
        assert_eq!((&verdict["reason"], code), (&unsigned.into(), 1), "{verdict}");
        assert!(!shop.skopeo(rest, "amd64"));
    }
    shop.sign(&shop.instance(1));
    for rest in [":1", &by_digest] {
        let (verdict, code) = shop.verify(rest, &["--platform", "linux/arm64/v8"]);
        assert_eq!(code, 0, "{verdict}");
        assert_eq!(
            (&verdict["digest"], &verdict["list"], &verdict["platform"], &verdict["reference"]),
            (&json!(shop.instance(1)), &json!(list), &"linux/arm64".into(), &shop.name(rest).into())
        );
        assert!(shop.skopeo(rest, "arm64"));
        let (verdict, code) = shop.verify(rest, &["--platform", "linux/amd64"]);
        assert_eq!((&verdict["digest"], code), (&json!(shop.instance(0)), 1));
        assert!(!shop.skopeo(rest, "amd64"));
    }
    // The name of the signature is the user's, not the instance's.
    shop.list.push(&shop.name(":2"), &[]);
    let (verdict, code) = shop.verify(":2", &["--platform", "linux/arm64"]);
    assert!(code == 1 && verdict["reason"].as_str().unwrap().starts_with("Signature for identity"), "{verdict}");
    assert!(!shop.skopeo(":2", "arm64"));
    // By its own digest an instance is an image like any other.
    let (verdict, code) = shop.verify(&format!("@{}", shop.instance(1)), &[]);
    assert_eq!((code, &verdict["list"]), (0, &Value::Null), "{verdict}");

    let (verdict, code) = shop.verify(":1", &["--platform", "linux/s390x"]);
    let sentence = format!(
        "choosing an image from manifest list docker://{}: no image found in image index for architecture \"s390x\", variant \"\", OS \"linux\"",
        shop.name(":1")
    );
    assert_eq!((&verdict["reason"], code), (&sentence.into(), 1));
    let text = shop.desk.run(&[
        "verify",
        &shop.name(":1"),
        "--policy",
        &shop.policy,
        "--tls-verify=false",
        "--platform",
        "linux/arm64",
    ]);
    assert!(text.stdout.contains(&format!("list    {list}, instance for linux/arm64")), "{text:#?}");
}

#[test]
fn all_instances() {
    let shop = Shop::new();
    shop.sign(&shop.instance(0));
    let (verdict, code) = shop.verify(":1", &["--all"]);
    assert_eq!(code, 1);
    assert_eq!((&verdict["digest"], &verdict["list"]), (&json!(shop.list.digest()), &json!(shop.list.digest())));
    assert_eq!(verdict["reason"], "A signature was required, but no signature exists");
    let decisions = |verdict: &Value| {
        let all = verdict["instances"].as_array().unwrap().clone();
        all.iter().map(|one| format!("{} {}", one["platform"], one["decision"]).replace('"', "")).collect::<Vec<_>>()
    };
    assert_eq!(decisions(&verdict), ["linux/amd64 accepted", "linux/arm64 rejected"]);
    assert_eq!(verdict["signatures"].as_array().unwrap().len(), 1);
    shop.sign(&shop.instance(1));
    let (verdict, code) = shop.verify(":1", &["--all"]);
    assert_eq!((code, &verdict["decision"], &verdict["reason"]), (0, &"accepted".into(), &Value::Null), "{verdict}");
    assert_eq!(decisions(&verdict), ["linux/amd64 accepted", "linux/arm64 accepted"]);

    shop.sign(&shop.list.digest());
    let (listed, code) = shop.ask("inspect", &shop.name(":1"), &[]);
    assert_eq!(code, 0);
    let filed: Vec<_> =
        listed.as_array().unwrap().iter().map(|one| (one["digest"].clone(), one["platform"].clone())).collect();
    assert_eq!(
        filed,
        [
            (json!(shop.list.digest()), Value::Null),
            (json!(shop.instance(0)), json!("linux/amd64")),
            (json!(shop.instance(1)), json!("linux/arm64")),
        ]
    );
    // One image is all there is of itself.
    let (verdict, code) = shop.verify(&format!("@{}", shop.instance(0)), &["--all"]);
    assert_eq!((code, verdict.get("instances")), (0, None), "{verdict}");
}

#[test]
fn a_list_from_a_file() {
    let shop = Shop::new();
    shop.sign(&shop.instance(1));
    let list = shop.desk.host.write("list.json", shop.list.manifest());
    let [amd, arm] = ["amd64", "arm64"]
        .iter()
        .zip(shop.list.members())
        .map(|(name, manifest)| text(&shop.desk.host.write(&format!("{name}.json"), manifest)).to_owned())
        .collect::<Vec<_>>()
        .try_into()
        .unwrap();
    let from = ["--manifest", text(&list), "--lookaside", &shop.store];
    let verify = |rest: &str, extra: &[&str]| shop.verify(rest, &[&from, extra].concat());
    // Nothing but the list is known, and it names the instance's digest.
    for extra in [&["--platform", "linux/arm64"][..], &["--instance", &arm]] {
        let (verdict, code) = verify(":1", extra);
        assert_eq!((code, &verdict["digest"]), (0, &json!(shop.instance(1))), "{verdict}");
    }
    let (verdict, code) = verify(":1", &["--instance", &amd]);
    assert_eq!((code, &verdict["digest"]), (1, &json!(shop.instance(0))), "{verdict}");
    assert_eq!(verify(":1", &["--all"]).1, 1);
    assert_eq!(verify(&format!("@{}", shop.list.digest()), &["--platform", "linux/arm64"]).1, 0);
    // The name's digest is the list's.
    let other = shop.instance(1);
    let (verdict, code) = verify(&format!("@{other}"), &["--platform", "linux/arm64"]);
    let sentence = format!("Manifest does not match provided manifest digest {other}");
    assert_eq!((code, &verdict["reason"]), (1, &sentence.into()));
    let stranger = text(&shop.desk.host.write("stranger.json", "{}")).to_owned();
    let ran =
        shop.desk.run(&["verify", "q.io/x:1", "--policy", &shop.policy, from[0], from[1], "--instance", &stranger]);
    assert!(ran.code == Some(2) && ran.stderr.contains("which the list does not name"), "{ran:#?}");
}

#[test]
fn a_list_of_lists_and_an_empty_one() {
    let shop = Shop::new();
    let inner = shop.list.manifest();
    let outer = |members: Value| {
        json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": members})
            .to_string()
    };
    let nested = outer(json!([{"mediaType": "application/vnd.oci.image.index.v1+json", "size": inner.len(),
        "digest": Digest::sha256(inner), "platform": {"os": "linux", "architecture": "arm64"}}]));
    let nested = text(&shop.desk.host.write("nested.json", nested)).to_owned();
    let inner = text(&shop.desk.host.write("inner.json", inner)).to_owned();
    let lookaside = ["--lookaside", &shop.store];
    let (verdict, code) = shop.verify(":1", &[&["--manifest", &nested, "--instance", &inner][..], &lookaside].concat());
    assert_eq!(
        (&verdict["reason"], code),
        (&"Unexpectedly received a manifest list instead of a manifest for a single image".into(), 1)
    );
    let empty = text(&shop.desk.host.write("empty.json", outer(json!([])))).to_owned();
    for extra in [&["--all"][..], &[]] {
        let (verdict, code) = shop.verify(":1", &[&["--manifest", &empty], extra, &lookaside].concat());
        assert_eq!((&verdict["decision"], code), (&"rejected".into(), 1), "{verdict}");
    }
}

/// Without a registry a digest can be judged where no signature matters, and nothing else.
#[test]
fn no_registry_at_all() {
    let desk = Desk::new();
    let name = format!("127.0.0.1:1/x@{}", Digest::sha256(b""));
    let verify = |name: &str, policy: Value| {
        let policy = desk.policy("policy.json", policy);
        desk.run(&["--format", "json", "verify", name, "--policy", text(&policy)])
    };
    for (policy, code) in [("reject", 1), ("insecureAcceptAnything", 0)] {
        let ran = verify(&name, json!([{"type": policy}]));
        assert_eq!(ran.code, Some(code), "{ran:#?}");
        let verdict: Value = serde_json::from_str(&ran.stdout).unwrap();
        let rejected = format!("Running image docker://{name} is rejected by policy.");
        assert_eq!(verdict["reason"], if code == 1 { rejected.into() } else { Value::Null });
        let warnings = verdict["warnings"].to_string();
        assert!(warnings.contains("whether it is a list") && warnings.contains("could not be read"), "{warnings}");
    }
    for (name, policy) in [(&name[..], signed_by("alice", None)), ("127.0.0.1:1/x:1", json!([{"type": "reject"}]))] {
        let ran = verify(name, policy);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:#?}");
        assert!(ran.stderr.contains("pinging container registry 127.0.0.1:1"), "{ran:#?}");
    }
}
