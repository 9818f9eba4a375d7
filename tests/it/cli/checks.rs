//! `policy check` and `registries-d check`.

use serde_json::json;

use super::{Desk, signed_by};
use crate::support::client::text;

#[test]
fn policies() {
    let desk = Desk::new();
    let good = desk.policy("good.json", signed_by("alice", None));
    let lax = desk.policy("lax.json", json!([{"type": "insecureAcceptAnything"}]));
    let bad = desk.host.write("bad.json", r#"{"default":[{"type":"reject"}],"defualt":[]}"#);
    let (good, lax, bad) = (text(&good), text(&lax), text(&bad));
    let check = |files: &[&str]| desk.json(&[&["policy", "check"], files].concat());
    assert_eq!(check(&[good]), (json!({"file": good, "valid": true, "error": null, "warnings": []}), 0));
    let (value, code) = check(&[lax]);
    assert_eq!((code, value["valid"].clone()), (0, json!(true)));
    assert!(value["warnings"][0].as_str().unwrap().contains("accepts anything"), "{value}");
    let error = format!("invalid policy in \"{bad}\": Unknown key \"defualt\"");
    assert_eq!(check(&[bad]), (json!({"file": bad, "valid": false, "error": error, "warnings": []}), 1));
    let (all, code) = check(&[good, bad]);
    assert_eq!((all[0]["valid"].clone(), all[1]["valid"].clone(), code), (json!(true), json!(false), 1));
    let missing = "open /nowhere/p: no such file or directory";
    let ran = desk.run(&["--format", "json", "policy", "check", "/nowhere/p", bad]);
    assert_eq!((ran.code, ran.stderr), (Some(2), format!("countersign: {missing}\n")));
    let all: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(all[0], json!({"file": "/nowhere/p", "valid": false, "error": missing, "warnings": []}));
}

#[test]
fn a_policy_as_a_table() {
    let desk = Desk::new();
    let policy = desk.host.write(
        "policy.json",
        json!({"default": [{"type": "reject"}], "transports": {"docker": {
            "q.io": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/nowhere/key", "signedIdentity": {"type": "matchRepository"}},
                {"type": "sigstoreSigned", "keyData": "AAAA"}],
            "https://quay.io": [{"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/x"}],
        }, "docker-daemon": {"": [{"type": "insecureAcceptAnything"}]}}})
        .to_string(),
    );
    let ran = desk.run(&["policy", "check", text(&policy)]).accepted();
    insta::assert_snapshot!(ran.stdout.replace(text(&policy), "policy.json"), @r#"
        policy.json: valid
          default                   reject
          docker "https://quay.io"  signedBy, keyPath /x, keyType X509Certificates, signedIdentity matchRepoDigestOrExact
          docker "q.io"             signedBy, keyPath /nowhere/key, keyType GPGKeys, signedIdentity matchRepository
                                    sigstoreSigned, keyData of 4 characters, signedIdentity matchRepoDigestOrExact
          docker-daemon ""          insecureAcceptAnything
          warning: docker scope "https://quay.io": never matches: names have no scheme; write "quay.io" instead of https://…
          warning: docker scope "https://quay.io": keyType X509Certificates is not implemented and always rejects
          warning: docker scope "q.io": an image must fulfil all 2 requirements of the list (signedBy, sigstoreSigned), not one of them; to accept any of several keys, list them as keyPaths of one requirement
          warning: docker scope "q.io": open /nowhere/key: no such file or directory
          warning: docker scope "q.io": there is no key, so it always rejects
          warning: docker scope "q.io": keyData is no public key that clients read, and accepts no image: PEM decoding failed
        "#);
}

#[test]
fn registries_d() {
    let desk = Desk::new();
    let a = desk.host.write("rd/a.yaml", "docker: {q.io: {lookaside: 'https://h', lookasid-staging: 'file:///s'}}");
    let b = desk.host.write("rd/b.yaml", "default-docker: {sigstore: 'file:///s'}");
    desk.host.write("rd/c.yml", "[");
    let folder = desk.path("rd");
    let (folder, a, b) = (text(&folder), text(&a), text(&b));
    let check = |paths: &[&str]| desk.json(&[&["registries-d", "check"], paths].concat());
    let (value, code) = check(&[folder]);
    assert_eq!((&value["file"], &value["valid"], code), (&folder.into(), &true.into(), 0));
    assert_eq!(
        value["warnings"],
        json!([
            format!("{a}: docker namespace \"q.io\": nobody reads the key \"lookasid-staging\""),
            format!("{b}: default-docker: sigstore is the old name of lookaside"),
            format!("{folder}/c.yml: nobody reads it, names must end in .yaml"),
        ])
    );
    let ran = desk.run(&["registries-d", "check", folder]).accepted();
    insta::assert_snapshot!(ran.stdout.replace(folder, "rd"), @r#"
        rd: valid
          rd/a.yaml
            "q.io"  lookaside https://h
          rd/b.yaml
            default-docker  sigstore file:///s
          warning: rd/a.yaml: docker namespace "q.io": nobody reads the key "lookasid-staging"
          warning: rd/b.yaml: default-docker: sigstore is the old name of lookaside
          warning: rd/c.yml: nobody reads it, names must end in .yaml
        "#);

    // Files are read as if in one folder.
    let again = desk.host.write("other/x.yaml", "docker: {q.io: }");
    let again = text(&again);
    let sentence = format!(
        "Error parsing signature storage configuration: \"docker\" namespace \"q.io\" defined both in \"{a}\" and \"{again}\""
    );
    let (all, code) = check(&[a, b, again]);
    assert_eq!((&all[1]["valid"], &all[2]["error"], code), (&true.into(), &sentence.into(), 1));
    let sentence = format!("parsing {folder}/c.yml: yaml: line 1: did not find expected node content");
    let (value, code) = check(&[&format!("{folder}/c.yml")]);
    assert_eq!((&value["error"], code), (&sentence.into(), 1));
    let ran = desk.run(&["registries-d", "check", "/nowhere/d"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), "countersign: open /nowhere/d: no such file or directory\n"));
    std::fs::write(desk.path("rd/d.yaml"), "docker: {q.io: }").unwrap();
    let (value, code) = check(&[folder]);
    assert!(code == 1 && value["error"].as_str().unwrap().contains("\"q.io\" defined both in"), "{value}");
}
