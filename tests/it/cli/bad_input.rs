//! Wrong questions: a clear sentence, the right status, nothing on stdout, nothing written.

use countersign::image::Digest;
use serde_json::json;

use super::{Desk, MANIFEST, signed_by};
use crate::support::client::text;
use crate::support::keys;

#[test]
fn a_sentence_and_a_status() {
    let desk = Desk::new();
    let reject = desk.policy("reject.json", json!([{"type": "reject"}]));
    let broken = desk.host.write("broken.json", "{\"default\":[{\"type\":\"x\"}]}");
    let twice = desk.path("twice");
    desk.host.write("twice/a.yaml", "docker: {q.io: {lookaside: 'file:///a'}}");
    desk.host.write("twice/b.yaml", "docker: {q.io: {lookaside: 'file:///b'}}");
    desk.host.write("url/a.yaml", "docker: {q.io: {lookaside: ':emptyscheme'}}");
    let url = desk.path("url");
    let manifest = desk.host.write("manifest.json", MANIFEST);
    let big = desk.host.write("big", vec![0xA3; 4 * 1024 * 1024 + 1]);
    let (reject, broken, twice, url, manifest, big) =
        (text(&reject), text(&broken), text(&twice), text(&url), text(&manifest), text(&big));
    let [twice_a, twice_b] = ["a", "b"].map(|name| format!("{twice}/{name}.yaml"));
    let key = keys::secret("alice");
    let key = text(&key);
    let digest = format!("sha256:{}", "a".repeat(64));
    let both = format!("q.io/x:t@{digest}");
    let by_digest = format!("q.io/x@{digest}");
    let output = desk.path("never-written");
    let output = text(&output);
    let cases: &[(&[&str], i32, &str)] = &[
        (&[], 2, "Usage:"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
        (&["verify"], 2, "required arguments were not provided"),
        (&["verify", "a b", "--policy", reject], 2, "image name \"a b\": invalid reference format\n"),
        (
            &["verify", "[::1]:5000/a/b:1", "--policy", reject],
            2,
            "image name \"[::1]:5000/a/b:1\": invalid reference format\n",
        ),
        (&["inspect", "[::1]/a:1"], 2, "image name \"[::1]/a:1\": invalid reference format\n"),
        (&["doctor", "::1/a:1"], 2, "image name \"::1/a:1\": invalid reference format\n"),
        (
            &["verify", &both, "--policy", reject],
            2,
            "Docker references with both a tag and digest are currently not supported\n",
        ),
        (&["verify", "q.io/X", "--policy", reject], 2, "invalid reference format: repository name must be lowercase\n"),
        (
            &["verify", "q.io/x", "--policy", broken],
            2,
            &format!("countersign: invalid policy in \"{broken}\": Unknown policy requirement type \"x\"\n"),
        ),
        (
            &["verify", "q.io/x", "--policy", "/nowhere/p"],
            2,
            "countersign: open /nowhere/p: no such file or directory\n",
        ),
        (
            &["verify", &by_digest, "--policy", reject, "--registries-d", twice],
            2,
            &format!(
                "countersign: Error parsing signature storage configuration: \"docker\" namespace \"q.io\" defined both in \"{twice_a}\" and \"{twice_b}\"\n"
            ),
        ),
        (
            &["resolve", "q.io/x", "--policy", reject, "--registries-d", twice],
            2,
            "Error parsing signature storage configuration",
        ),
        (
            &["resolve", "q.io/x", "--policy", reject, "--registries-d", url],
            2,
            "Invalid signature storage URL :emptyscheme: parse \":emptyscheme\": missing protocol scheme\n",
        ),
        (
            &["verify", "q.io/x", "--policy", reject, "--manifest", "/nowhere/m"],
            2,
            "reading /nowhere/m: No such file or directory",
        ),
        (&["verify", "q.io/x", "--policy", reject, "--manifest", big], 2, "is larger than 4194304 bytes"),
        (
            &["verify", "q.io/x", "--policy", reject, "--manifest", manifest, "--instance", manifest],
            2,
            "--instance is for a list, and --manifest is none\n",
        ),
        (&["verify", "q.io/x", "--instance", manifest], 2, "--manifest <FILE>"),
        (&["verify", "q.io/x", "--platform", "linux"], 2, "is no platform; write os/architecture"),
        (&["verify", "q.io/x", "--all", "--platform", "linux/arm"], 2, "cannot be used with"),
        (
            &["verify", "q.io/x", "--policy", reject, "--manifest", manifest, "--signature", "/nowhere/s"],
            2,
            "reading /nowhere/s",
        ),
        (&["verify", "q.io/x", "--signature", manifest, "--lookaside", "/x"], 2, "cannot be used with"),
        (&["verify", "q.io/x", "--policy", reject, "--manifest", manifest, "--lookaside", "ftp2://x"], 2, "ftp2"),
        (&["resolve", "q.io/x", "--digest", "sha256:x"], 2, "invalid checksum digest length"),
        (&["resolve", "q.io/x", "--digest", &digest, "--manifest", manifest], 2, "cannot be used with"),
        (&["inspect", "no such file"], 2, "is no file here, so it was taken for the name of an image"),
        (&["inspect", manifest], 1, "unrecognized signature format, starting with binary 0x7b\n"),
        (&["policy"], 2, "Usage:"),
        (&["policy", "check"], 2, "<FILE>"),
        (&["registries-d", "check"], 2, "<DIR|FILE>"),
        (&["sign", "q.io/x:1", "--key", key, "-o", output], 2, "which image? give --manifest FILE or --digest"),
        (&["sign", "q.io/x", "--key", key, "--digest", &digest, "-o", output], 2, "has neither tag nor digest"),
        (&["sign", "[::1]:5000/x:1", "--key", key, "--digest", &digest, "-o", output], 2, "invalid reference format"),
        (
            &["sign", "q.io/x:1", "--key", key, "--digest", "sha256:x", "-o", output],
            2,
            "invalid checksum digest length",
        ),
        (&["sign", "q.io/x:1", "--key", manifest, "--digest", &digest, "-o", output], 2, "loading key"),
        (&["sign", "q.io/x:1", "--key", "/nowhere/k", "--digest", &digest, "-o", output], 2, "reading key /nowhere/k"),
        (&["sign", &by_digest, "--key", key, "--manifest", manifest, "-o", output], 2, "but the manifest's digest is"),
        (&["sign", "q.io/x:1", "--key", key, "--digest", &digest], 2, "--output <FILE>"),
    ];
    for (args, code, sentence) in cases {
        let ran = desk.run(args);
        assert_eq!(ran.code, Some(*code), "{args:?}: {ran:#?}");
        assert!(ran.stderr.contains(sentence), "{args:?} should say {sentence:?}: {ran:#?}");
        assert_eq!(ran.stdout, "", "{args:?}");
        assert!(!ran.stderr.contains("panicked"), "{args:?}: {ran:#?}");
    }
    assert!(!std::path::Path::new(output).exists());
}

/// What strangers wrote reaches JSON letter by letter, and does not steer a terminal.
#[test]
fn sentences_arrive_whole() {
    let desk = Desk::new();
    let policy = desk.host.write("p.json", "{\"default\":[{\"type\":\"\\u001b[31m\\\"<é\\u202e>&\"}]}");
    let (checked, code) = desk.json(&["policy", "check", text(&policy)]);
    assert_eq!(code, 1);
    let sentence = format!(
        "invalid policy in \"{}\": Unknown policy requirement type \"\\x1b[31m\\\"<é\\u202e>&\"",
        text(&policy)
    );
    assert_eq!(checked["error"], sentence);
    let ran = desk.run(&["verify", "q.io/x", "--policy", text(&policy)]);
    assert_eq!(ran.stderr, format!("countersign: {sentence}\n"));

    let folder = desk.host.write("rd/a.yaml", "docker: [1]\nx: y: z");
    let ran = desk.run(&["resolve", "q.io/x", "--registries-d", text(folder.parent().unwrap())]);
    assert_eq!(
        (ran.code, ran.stderr),
        (
            Some(2),
            format!(
                "countersign: parsing {}: yaml: line 2: mapping values are not allowed in this context\n",
                text(&folder)
            )
        )
    );
}

#[test]
fn a_manifest_of_another_digest_is_rejected() {
    let desk = Desk::new();
    let manifest = desk.host.write("manifest.json", MANIFEST);
    let other = Digest::sha256(b"other");
    let signature = desk.sign("s", "q.io/x:1", "alice", &Digest::sha256(MANIFEST));
    let sentence = format!("Manifest does not match provided manifest digest {other}");
    let anything = json!([{"type": "insecureAcceptAnything"}]);
    for (name, policy) in [("signed.json", signed_by("alice", None)), ("any.json", anything)] {
        let policy = desk.policy(name, policy);
        let name = format!("q.io/x@{other}");
        let args = [
            "verify",
            &name,
            "--manifest",
            text(&manifest),
            "--signature",
            text(&signature),
            "--policy",
            text(&policy),
        ];
        let (verdict, code) = desk.json(&args);
        assert_eq!((&verdict["decision"], &verdict["reason"], code), (&"rejected".into(), &sentence.clone().into(), 1));
        let ran = desk.run(&args);
        assert!(ran.stdout.contains(&sentence), "{ran:#?}");
    }
    // A schema 1 manifest that cannot be decoded has no digest; that is a rejection, no accident.
    let schema1 = desk.host.write("schema1.json", r#"{"schemaVersion":1,"signatures":[{"protected":"!"}]}"#);
    let policy = desk.policy("signed.json", signed_by("alice", None));
    let (verdict, code) = desk.json(&[
        "verify",
        "q.io/x:1",
        "--manifest",
        text(&schema1),
        "--signature",
        text(&signature),
        "--policy",
        text(&policy),
    ]);
    assert_eq!((&verdict["decision"], &verdict["digest"], code), (&"rejected".into(), &serde_json::Value::Null, 1));
}
