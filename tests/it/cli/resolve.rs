//! `resolve`: the document, addresses with and without a digest, and what a real registry adds.

use countersign::image::Digest;
use serde_json::{Value, json};

use super::{Desk, MANIFEST};
use crate::support::client::text;
use crate::support::docker_registry::{DockerRegistry, Settings};
use crate::support::image_folder::ImageFolder;

const REGISTRIES_D: &str = "\
default-docker:
  lookaside: https://default.example/s
  use-sigstore-attachments: true
docker:
  q.io/birds:
    lookaside: https://u:secret@read.example/base/?token=x
    sigstore-staging: file:///stage
  q.io:
    lookaside-staging: https://write.example/s
  bare.example:
    lookaside: /bare
  broken.example:
    lookaside: https://ok.example
    lookaside-staging: ':emptyscheme'
";

fn desk() -> (Desk, String, String) {
    let desk = Desk::new();
    let folder = desk.host.write("rd/a.yaml", REGISTRIES_D).parent().unwrap().to_owned();
    let policy = desk.host.write(
        "policy.json",
        json!({"default": [{"type": "reject"}], "transports": {"docker": {
            "*.io": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}],
            "": [{"type": "insecureAcceptAnything"}],
        }}})
        .to_string(),
    );
    let (folder, policy) = (text(&folder).to_owned(), text(&policy).to_owned());
    (desk, folder, policy)
}

#[test]
fn the_document() {
    let (desk, folder, policy) = desk();
    let digest = Digest::sha256(MANIFEST);
    let name = format!("q.io/birds/bluebird@{digest}");
    let (value, code) = desk.json(&["resolve", &name, "--registries-d", &folder, "--policy", &policy]);
    assert_eq!(code, 0);
    let file = format!("{folder}/a.yaml");
    let address = |n: u8| {
        format!("https://u:xxxxx@read.example/base//birds/bluebird@{}/signature-{n}?token=x", digest.path_form())
    };
    let mut shown = value.clone();
    assert_eq!(shown["searched"].take().as_array().unwrap().len(), 6);
    assert_eq!(
        shown,
        json!({
            "reference": name, "digest": digest, "list": null, "mechanism": null,
            "lookaside": {
                "read": {"url": "https://u:xxxxx@read.example/base/?token=x", "from": file, "namespace": "q.io/birds",
                    "key": "lookaside"},
                "write": {"url": "file:///stage", "from": file, "namespace": "q.io/birds", "key": "sigstore-staging"},
            },
            "use_sigstore_attachments": {"enabled": true, "from": file, "namespace": "default-docker"},
            "signature_urls": [address(1), address(2)],
            "candidates": [name, "q.io/birds/bluebird", "q.io/birds", "q.io", "*.io", "default-docker"],
            "searched": null,
            "policy": {"transport": "docker", "scope": "*.io", "from": policy, "requirements": [
                {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k",
                 "signedIdentity": {"type": "matchRepoDigestOrExact"}}]},
            "notes": [],
        })
    );
    assert_eq!(
        value["searched"][2],
        json!({"namespace": "q.io/birds", "file": file, "read_key": "lookaside", "write_key": "sigstore-staging",
            "use_sigstore_attachments": null})
    );
    let text = desk.run(&["resolve", &name, "--registries-d", &folder, "--policy", &policy]).accepted().stdout;
    assert!(!text.contains("secret") && text.contains(&address(2)), "{text}");
}

#[test]
fn the_text() {
    let (desk, folder, policy) = desk();
    let ran = desk.run(&["resolve", "q.io/x:1", "--registries-d", &folder, "--policy", &policy]).accepted();
    let home = desk.host.path().display().to_string();
    insta::assert_snapshot!(ran.stdout.replace(&home, "~"), @r#"
        q.io/x:1
          read        https://default.example/s
                      by lookaside of default-docker in ~/rd/a.yaml
          write       https://write.example/s
                      by lookaside-staging of q.io in ~/rd/a.yaml
          mechanism   the lookaside, unless the registry has the signature extension (--online asks)
          attachments looked for, by default-docker in ~/rd/a.yaml
          signatures  https://default.example/s/x@sha256=<hex>/signature-1
                      and so on, until one is missing
          policy      ~/policy.json, scope *.io
                      signedBy, keyPath /k, keyType GPGKeys, signedIdentity matchRepoDigestOrExact
          registries.d was searched for
            q.io/x:1  not there
            q.io/x  not there
            q.io  in ~/rd/a.yaml: reads nothing, writes lookaside-staging
            *.io  not there
            default-docker  in ~/rd/a.yaml: reads lookaside, writes lookaside
          note: Writing directly to a https lookaside https://write.example/s/x@sha256=<hex>/signature-1 is not supported. Configure a lookaside-staging: location
        "#);
}

#[test]
fn without_a_digest_only_the_pattern_is_known() {
    let (desk, folder, policy) = desk();
    let options = ["--registries-d", &folder, "--policy", &policy];
    let resolve = |name: &str, extra: &[&str]| desk.json(&[&["resolve", name][..], &options, extra].concat()).0;
    let value = resolve("busybox", &[]);
    assert_eq!(
        (&value["reference"], &value["signature_urls"]),
        (&"docker.io/library/busybox:latest".into(), &json!([]))
    );
    assert_eq!(value["policy"]["scope"], "*.io");
    let text = desk.run(&[&["resolve", "busybox"][..], &options].concat()).accepted().stdout;
    assert!(text.contains("https://default.example/s/library/busybox@sha256=<hex>/signature-1"), "{text}");

    let manifest = desk.host.write("manifest.json", MANIFEST);
    let digest = Digest::sha256(MANIFEST);
    let wanted = json!([
        format!("https://default.example/s/library/busybox@{}/signature-1", digest.path_form()),
        format!("https://default.example/s/library/busybox@{}/signature-2", digest.path_form()),
    ]);
    assert_eq!(resolve("busybox", &["--digest", &digest.to_string()])["signature_urls"], wanted);
    assert_eq!(resolve("busybox", &["--manifest", text_of(&manifest)])["signature_urls"], wanted);

    let notes = |name: &str| resolve(name, &[])["notes"].clone();
    assert_eq!(
        notes("q.io/x:1"),
        json!([
            "Writing directly to a https lookaside https://write.example/s/x@sha256=<hex>/signature-1 is not supported. Configure a lookaside-staging: location"
        ])
    );
    assert_eq!(
        notes("bare.example/x:1"),
        json!([
            "Unsupported scheme when reading signature from /bare/x@sha256=<hex>/signature-1",
            "Unsupported scheme when writing signature to /bare/x@sha256=<hex>/signature-1",
        ])
    );
    let broken = resolve("broken.example/x:1", &[]);
    assert_eq!(
        broken["lookaside"]["write"],
        json!({"url": null, "from": null, "namespace": null, "key": null,
            "error": "Invalid signature storage URL :emptyscheme: parse \":emptyscheme\": missing protocol scheme"})
    );
    assert_eq!(
        (&broken["lookaside"]["read"]["url"], &broken["policy"]["scope"]),
        (&"https://ok.example".into(), &"".into())
    );
}

fn text_of(path: &std::path::Path) -> &str {
    text(path)
}

#[test]
fn nothing_configured_is_the_built_in_default() {
    let desk = Desk::new();
    let policy = desk.policy("policy.json", json!([{"type": "reject"}]));
    let empty = desk.path("missing");
    let args = ["--format", "json", "resolve", "q.io/x", "--policy", text(&policy), "--registries-d", text(&empty)];
    let url = |variables: &[(&str, &str)]| {
        let value: Value = serde_json::from_str(&desk.run_with(variables, &args).accepted().stdout).unwrap();
        let side = value["lookaside"]["write"].clone();
        assert_eq!((&side, &side["from"]), (&value["lookaside"]["read"], &"built-in default".into()));
        side["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(url(&[]), format!("file://{}/.local/share/containers/sigstore", desk.host.path().display()));
    assert_eq!(url(&[("_CONTAINERS_ROOTLESS_UID", "0")]), "file:///var/lib/containers/sigstore");
}

#[test]
fn a_host_without_a_policy_is_told_all_the_rest() {
    let (desk, folder, _) = desk();
    let ran = desk.run_with(
        &[("CONTAINERS_POLICY_JSON", "/nowhere/p")],
        &["--format", "json", "resolve", "busybox", "--registries-d", &folder],
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), "countersign: open /nowhere/p: no such file or directory\n"));
    let value: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(value["policy"]["error"], "open /nowhere/p: no such file or directory");
    assert_eq!(value["lookaside"]["read"]["url"], "https://default.example/s");
}

#[test]
fn a_registry_tells_the_digest_and_its_mechanism() {
    let (desk, folder, policy) = desk();
    let options = ["--registries-d", &folder, "--policy", &policy, "--online", "--tls-verify=false"];
    let list = ImageFolder::list("resolve");
    let arm = Digest::sha256(list.members()[1].as_bytes());
    for extension in [false, true] {
        let registry = if extension {
            Settings::default().header("X-Registry-Supports-Signatures", "1").start()
        } else {
            DockerRegistry::start()
        };
        let name = format!("{}/birds/bluebird:1", registry.address());
        list.push(&name, &[]);
        let (value, code) = desk.json(&[&["resolve", &name, "--platform", "linux/arm64"][..], &options].concat());
        assert_eq!(code, 0, "{value}");
        assert_eq!((&value["digest"], &value["list"]), (&json!(arm), &json!(list.digest())));
        if extension {
            let url = format!("{}/extensions/v2/birds/bluebird/signatures/{arm}", registry.url());
            assert_eq!((&value["mechanism"], &value["signature_urls"]), (&"extension".into(), &json!([url])));
            assert!(value["notes"][1].as_str().unwrap().contains("is not asked"), "{value}");
        } else {
            let url = format!("https://default.example/s/birds/bluebird@{}/signature-1", arm.path_form());
            assert_eq!((&value["mechanism"], &value["signature_urls"][0]), (&"lookaside".into(), &url.into()));
        }
        let gone = format!("{}/birds/gone:1", registry.address());
        let ran = desk.run(&[&["resolve", &gone][..], &options].concat());
        assert!(ran.code == Some(2) && ran.stderr.contains("reading manifest 1 in "), "{ran:#?}");
    }
    let ran = desk.run(&[&["resolve", "127.0.0.1:1/x:1"][..], &options].concat());
    assert!(ran.code == Some(2) && ran.stderr.contains("pinging container registry 127.0.0.1:1"), "{ran:#?}");
}
