//! Every `signedIdentity` by tag and by digest, and the whole shape of `verify`'s document.

use countersign::image::Digest;
use serde_json::{Value, json};

use super::{Desk, MANIFEST, signed_by};
use crate::support::client::text;
use crate::support::keys;

#[test]
fn every_identity_by_tag_and_by_digest() {
    let desk = Desk::new();
    let digest = Digest::sha256(MANIFEST);
    let manifest = desk.host.write("manifest.json", MANIFEST);
    let signed_name = "vendor.example/birds/bluebird:1";
    let signature = desk.sign("signature", signed_name, "alice", &digest);
    let kind = |kind: &str| json!({"type": kind});
    let remap = |prefix: &str| json!({"type": "remapIdentity", "prefix": prefix, "signedPrefix": "vendor.example"});
    let reference = |name: &str| json!({"type": "exactReference", "dockerReference": name});
    let repository = |name: &str| json!({"type": "exactRepository", "dockerRepository": name});
    let repo = "vendor.example/birds/bluebird";
    // The image's repository, the identity, accepted as :1, as :2, by digest.
    let cases: &[(&str, Option<Value>, [bool; 3])] = &[
        (repo, None, [true, false, true]),
        (repo, Some(kind("matchRepoDigestOrExact")), [true, false, true]),
        (repo, Some(kind("matchExact")), [true, false, false]),
        (repo, Some(kind("matchRepository")), [true, true, true]),
        (repo, Some(reference(signed_name)), [true, true, true]),
        (repo, Some(reference("vendor.example/birds/bluebird:2")), [false, false, false]),
        (repo, Some(repository(repo)), [true, true, true]),
        (repo, Some(repository("vendor.example/birds/other")), [false, false, false]),
        (repo, Some(remap("elsewhere.example")), [true, false, true]),
        ("mirror.example/birds/bluebird", None, [false, false, false]),
        ("mirror.example/birds/bluebird", Some(kind("matchRepository")), [false, false, false]),
        ("mirror.example/birds/bluebird", Some(reference(signed_name)), [true, true, true]),
        ("mirror.example/birds/bluebird", Some(repository(repo)), [true, true, true]),
        ("mirror.example/birds/bluebird", Some(remap("mirror.example")), [true, false, true]),
        ("mirror.example/birds/bluebird", Some(remap("mirror.example/other")), [false, false, false]),
    ];
    let signature = text(&signature);
    for (repository, identity, accepted) in cases {
        let policy = desk.policy("policy.json", signed_by("alice", identity.clone()));
        let names = [format!("{repository}:1"), format!("{repository}:2"), format!("{repository}@{digest}")];
        for (name, accepted) in names.iter().zip(accepted) {
            let (verdict, code) = desk.json(&[
                "verify",
                name,
                "--manifest",
                text(&manifest),
                "--signature",
                signature,
                "--policy",
                text(&policy),
            ]);
            let about = format!("{name} {identity:?}: {verdict}");
            assert_eq!(verdict["decision"], if *accepted { "accepted" } else { "rejected" }, "{about}");
            assert_eq!(code, i32::from(!accepted), "{about}");
            let reason = format!("Signature for identity {signed_name:?} is not accepted");
            assert_eq!(verdict["reason"], if *accepted { Value::Null } else { reason.into() }, "{about}");
        }
    }
}

#[test]
fn the_document_of_verify() {
    let desk = Desk::new();
    let digest = Digest::sha256(MANIFEST);
    let manifest = desk.host.write("manifest.json", MANIFEST);
    let good = desk.sign("good", "q.io/x:1", "alice", &digest);
    let other_key = desk.sign("other-key", "q.io/x:1", "bob", &digest);
    let other_digest = desk.sign("other-digest", "q.io/x:1", "alice", &Digest::sha256(b"other"));
    let policy = desk.host.write(
        "policy.json",
        json!({"default": [{"type": "reject"}], "transports": {"docker": {
            "q.io": signed_by("alice", None), "": [{"type": "insecureAcceptAnything"}],
        }}})
        .to_string(),
    );
    let verify = |name: &str, signatures: &[&std::path::Path]| {
        let mut args = vec!["verify", name, "--manifest", text(&manifest), "--policy", text(&policy)];
        args.extend(signatures.iter().flat_map(|path| ["--signature", text(path)]));
        desk.json(&args)
    };
    let (verdict, code) = verify("docker://q.io/x:1", &[&other_digest, &good, &other_key]);
    assert_eq!(code, 0);
    let fingerprint = verdict["signatures"][1]["fingerprint"].as_str().unwrap().to_owned();
    assert!(fingerprint.len() == 40 && fingerprint.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()));
    let created = verdict["signatures"][1]["created"].clone();
    assert!(created.as_str().unwrap().ends_with('Z'), "{created}");
    let mut shown = verdict.clone();
    // The texts about keys that are not there are those of the OpenPGP room.
    assert!(shown["signatures"][2]["reason"].take().is_string());
    let other_created = shown["signatures"][0]["created"].take();
    assert!(other_created.is_string());
    assert_eq!(
        shown,
        json!({
            "reference": "q.io/x:1", "digest": digest, "decision": "accepted", "scope": "q.io", "reason": null,
            "policy": policy, "requirements": ["signedBy"], "list": null, "platform": null,
            "signatures": [
                {"source": other_digest, "claimed_reference": "q.io/x:1", "claimed_digest": Digest::sha256(b"other"),
                 "fingerprint": fingerprint, "created": null, "decision": "rejected",
                 "reason": format!("Signature for digest {} does not match", Digest::sha256(b"other"))},
                {"source": good, "claimed_reference": "q.io/x:1", "claimed_digest": digest,
                 "fingerprint": fingerprint, "created": created, "decision": "accepted", "reason": null},
                {"source": other_key, "claimed_reference": null, "claimed_digest": null,
                 "fingerprint": null, "created": null, "decision": "rejected", "reason": null},
            ],
        })
    );
    // Scopes: a transport's default, the policy's default.
    let (verdict, code) = verify("elsewhere.example/x:1", &[&good]);
    assert_eq!((&verdict["scope"], &verdict["decision"], code), (&"".into(), &"accepted".into(), 0));
    let none = desk.run(&[
        "verify",
        "busybox",
        "--manifest",
        text(&manifest),
        "--signature",
        text(&good),
        "--policy",
        text(&desk.policy("reject.json", json!([{"type": "reject"}]))),
    ]);
    assert_eq!(none.code, Some(1));
    assert!(none.stdout.contains("Running image docker://busybox:latest is rejected by policy."), "{none:#?}");
    assert!(none.stdout.contains("scope default"), "{none:#?}");
    // Sentences about several and about none.
    let (verdict, _) = verify("q.io/x:1", &[&other_digest, &other_key]);
    let reason = verdict["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("None of the signatures were accepted, reasons: Signature for digest sha256:"),
        "{reason}"
    );
    let empty = desk.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let (verdict, code) = desk.json(&[
        "verify",
        "q.io/x:1",
        "--manifest",
        text(&manifest),
        "--lookaside",
        text(&empty),
        "--policy",
        text(&policy),
    ]);
    assert_eq!(
        (&verdict["reason"], code, &verdict["signatures"]),
        (&"A signature was required, but no signature exists".into(), 1, &json!([]))
    );
    let (verdict, code) = desk.json(&[
        "verify",
        "elsewhere.example/x:1",
        "--manifest",
        text(&manifest),
        "--lookaside",
        text(&empty),
        "--policy",
        text(&policy),
        "--require-signed",
    ]);
    assert_eq!(
        (&verdict["reason"], code),
        (&"No signature verification policy found for image docker:elsewhere.example/x:1".into(), 1)
    );
}

#[test]
fn a_broken_place_is_told_even_where_it_does_not_matter() {
    let desk = Desk::new();
    let digest = Digest::sha256(MANIFEST);
    let manifest = desk.host.write("manifest.json", MANIFEST);
    let store = desk.path("store");
    desk.host.write(&format!("store/x@{}/signature-1", digest.path_form()), "<html>");
    let args = |policy: &std::path::Path| {
        desk.json(&[
            "verify",
            "q.io/x:1",
            "--manifest",
            text(&manifest),
            "--lookaside",
            text(&store),
            "--policy",
            text(policy),
        ])
    };
    let (verdict, code) = args(&desk.policy("signed.json", signed_by("alice", None)));
    let path = store.join(format!("x@{}/signature-1", digest.path_form()));
    let sentence =
        format!("parsing signature {:?}: unrecognized signature format, starting with binary 0x3c", text(&path));
    assert_eq!((&verdict["reason"], code), (&sentence.into(), 1));
    // A folder where a file should be is an error, not an end.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let (verdict, code) = args(&desk.policy("any.json", json!([{"type": "insecureAcceptAnything"}])));
    assert_eq!(code, 0);
    assert!(verdict["warnings"][0].as_str().unwrap().contains("which fails pulls that copy them"), "{verdict}");
}

#[test]
fn inspect_shows_files_and_images() {
    let desk = Desk::new();
    let digest = Digest::sha256(MANIFEST);
    let manifest = desk.host.write("manifest.json", MANIFEST);
    let file = desk.sign("file", "q.io/x:1", "alice", &digest);
    let (shown, code) = desk.json(&["inspect", text(&file)]);
    assert_eq!(code, 0);
    for (member, value) in [("verified", json!(false)), ("reference", json!("q.io/x:1")), ("digest", json!(digest))] {
        assert_eq!(shown[member], value, "{member}");
    }
    for member in ["creator", "timestamp", "key_id", "fingerprint", "created"] {
        assert!(!shown[member].is_null(), "{member}");
    }
    let store = desk.path("store");
    for (name, key) in [("q.io/x:1", "alice"), ("q.io/x:2", "alice"), ("q.io/x:1", "bob")] {
        let (key, digest) = (keys::secret(key), digest.to_string());
        desk.run(&["sign", name, "--key", text(&key), "--digest", &digest, "--to", text(&store)]).accepted();
    }
    let policy = desk.policy("policy.json", signed_by("alice", None));
    let from = ["--manifest", text(&manifest), "--lookaside", text(&store), "--policy", text(&policy)];
    let (listed, code) = desk.json(&[&["inspect", "q.io/x:1"][..], &from].concat());
    assert_eq!(code, 0);
    let told = |at: usize, member: &str| listed[at][member].clone();
    assert_eq!([told(0, "decision"), told(1, "decision"), told(2, "decision")], ["accepted", "rejected", "rejected"]);
    assert_eq!(told(1, "claimed_reference"), "q.io/x:2");
    assert_eq!((told(0, "digest"), told(0, "unverified")), (json!(digest), Value::Null));
    assert_eq!(told(2, "unverified")["reference"], "q.io/x:1");
    assert_eq!(told(2, "fingerprint"), Value::Null);
    assert_eq!(desk.run(&[&["inspect", "q.io/none:1"][..], &from].concat()).code, Some(1));
}
