//! Bulk jobs: claims, lists, rules, journals and reports by strangers.

use std::path::Path;

use countersign::image::Digest;
use countersign::signature::Claim;
use serde_json::{Value, json};

use super::{Desk, HOSTILE, HOSTILE_NAME, MANIFEST, clean, hostile, is_hidden, keys, tells_whole, text};

/// A report holds what it holds, but nothing that is obeyed; in a page no word of a stranger is markup.
fn clean_report(path: &Path) -> String {
    let report = std::fs::read_to_string(path).unwrap();
    clean(text(path), &report);
    report
}

#[test]
fn a_job() {
    let desk = Desk::new();
    // One that can be signed anew, whose maker is a stranger by name only.
    let good = Claim {
        reference: "old.example/a/b:1".to_owned(),
        digest: Digest::sha256(MANIFEST),
        creator: Some(HOSTILE.to_owned()),
        timestamp: None,
    };
    let set = format!("tree/a/b@{}", Digest::sha256(MANIFEST).path_form());
    desk.host.write(&format!("{set}/signature-4"), keys::signed(&keys::signer("alice"), &good));
    desk.host.write(&format!("{set}/signature-6"), hostile("alice", &Digest::sha256(MANIFEST)));
    let (key, policy, tree) = (keys::secret("carol"), text(&desk.policy), text(&desk.tree));
    let base = ["resign", "--from", tree, "--to", tree, "--policy", policy, "--key", text(&key)];
    let rename = ["--rename", "old.example=new.example", "--rename", "127.0.0.1:1=new.example"];
    let run = |extra: &[&str]| desk.clean(&[&base[..], &rename, extra].concat());
    for form in ["json", "md", "html"] {
        let report = desk.path(&format!("dry {HOSTILE_NAME}.{form}"));
        run(&["--dry-run", "--report", text(&report)]);
        clean_report(&report);
    }
    for (name, images) in [
        ("list", format!("a/b\n{HOSTILE}\na/b:{HOSTILE}\n")),
        ("names", format!("{HOSTILE_NAME}\n127.0.0.1:1/a/b:1 {HOSTILE_NAME}\n")),
        (HOSTILE_NAME, "A/B\n".to_owned()),
    ] {
        let images = desk.host.write(&format!("images/{name}"), images);
        run(&["--dry-run", "--images", text(&images)]);
    }
    let quoted = json!(HOSTILE).to_string();
    for rules in [
        format!("rules: [{quoted}]\n"),
        format!("rules: [a.example={quoted}]\n"),
        format!("rules: ['a.example=b.example']\nexceptions: {{{quoted}: {quoted}}}\n"),
        format!("{quoted}: 1\n"),
        HOSTILE.to_owned(),
    ] {
        let file = desk.host.write(HOSTILE_NAME, rules);
        desk.clean(&[&base[..], &["--dry-run", "--rename-file", text(&file)]].concat());
    }
    let file = desk.host.write(HOSTILE_NAME, "rules: ['old.example=new.example']\n");
    desk.clean(&[&base[..], &["--dry-run", "--rename-file", text(&file)]].concat());
    for extra in [
        &["--rename", HOSTILE_NAME][..],
        &["--rename", &format!("a.example={HOSTILE_NAME}")],
        &["--key-for", &format!("{HOSTILE_NAME}=k")],
        &["--key-for", &format!("new.example={HOSTILE_NAME}")],
        &["--as-of", HOSTILE_NAME],
        &["--shard", HOSTILE_NAME],
        &["--report", HOSTILE_NAME],
        &["--from", HOSTILE_NAME],
        &["--to", &format!("docker://{HOSTILE_NAME}")],
        &["--to", &format!("https://{HOSTILE_NAME}")],
    ] {
        run(extra);
    }
    for journal in
        [HOSTILE.to_owned(), json!({"journal": HOSTILE, "job": {HOSTILE: HOSTILE}, "id": HOSTILE}).to_string()]
    {
        let journal = desk.host.write(&format!("journal {HOSTILE_NAME}"), journal + "\n");
        run(&["--journal", text(&journal)]);
    }

    let (journal, report) = (desk.path(&format!("new {HOSTILE_NAME}")), desk.path("job.json"));
    run(&["--journal", text(&journal), "--report", text(&report)]);
    clean("the journal", &std::fs::read_to_string(&journal).unwrap());
    let told: Value = serde_json::from_str(&clean_report(&report)).unwrap();
    let names: Vec<&str> =
        told["items"].as_array().unwrap().iter().filter_map(|i| i["old_reference"].as_str()).collect();
    assert!(names.contains(&format!("127.0.0.1:1/a/b:1{HOSTILE}").as_str()), "{told:#}");

    let public = keys::public("carol");
    let audit =
        |report: &Path| desk.clean(&["resign", "audit", text(report), "--policy", policy, "--new-key", text(&public)]);
    audit(&report);
    forged(&desk, &told, audit);
}

/// A report as the program writes it: its kind first, its items last.
fn written(report: &Value) -> String {
    let mut head = report.as_object().unwrap().clone();
    let (kind, items) = (head.remove("report").unwrap(), head.remove("items").unwrap());
    let head = Value::from(head).to_string();
    format!("{{\"report\":{kind},{},\"items\":{items}}}", &head[1..head.len() - 1])
}

/// The same report with a stranger's words wherever it has words.
fn forged(desk: &Desk, told: &Value, audit: impl Fn(&Path) -> (super::Ran, super::Ran)) {
    let mut report = told.clone();
    for (number, item) in report["items"].as_array_mut().unwrap().iter_mut().enumerate() {
        for field in ["old_reference", "new_reference", "reason", "rule", "scope", "signer", "place"] {
            item[field] = HOSTILE.into();
        }
        item["blob"] = format!("{HOSTILE}{number}").into();
        item["signed_by"] = json!([HOSTILE]);
        item["new_blobs"] = json!([HOSTILE]);
        item["repository"] = HOSTILE.into();
    }
    let mut refusals = serde_json::Map::new();
    let refused = report["totals"]["refused"].clone();
    refusals.insert(HOSTILE.to_owned(), refused);
    report["refusals"] = refusals.into();
    report["creator"] = HOSTILE.into();
    report["incomplete"] = HOSTILE.into();
    for (name, value) in [(HOSTILE, HOSTILE), ("as-of time", "now")] {
        report["job"][name] = value.into();
    }
    let path = desk.host.write(&format!("forged {HOSTILE_NAME}.json"), written(&report));
    for form in ["json", "md", "html"] {
        let joined = desk.path(&format!("joined {HOSTILE_NAME}.{form}"));
        let (_, machines) = desk.clean(&["resign", "merge-reports", text(&path), "-o", text(&joined)]);
        assert_eq!(machines.code, Some(0), "{machines:?}");
        tells_whole(&machines, text(&joined));
        let page = clean_report(&joined);
        if form != "json" {
            assert!(page.contains("FORGED"), "{page}");
        }
    }
    audit(&path);
    for field in ["started", "ended", "creator", "report"] {
        let mut report = told.clone();
        report[field] = HOSTILE.into();
        audit(&desk.host.write("field.json", written(&report)));
    }
    for field in ["source", "destination", "rename rules", "as-of time", "shard", "policy", "registry of the check"] {
        let mut report = told.clone();
        report["job"][field] = HOSTILE.into();
        audit(&desk.host.write("field.json", written(&report)));
    }
    for field in ["state", "digest", "time", "list", HOSTILE] {
        let mut report = told.clone();
        report["items"][0][field] = HOSTILE.into();
        let path = desk.host.write("field.json", written(&report));
        audit(&path);
        desk.clean(&["resign", "merge-reports", text(&path), "-o", text(&desk.path("x.md"))]);
    }
    audit(&desk.host.write(HOSTILE_NAME, HOSTILE));
    desk.clean(&["resign", "merge-reports", HOSTILE_NAME, "-o", HOSTILE_NAME]);
    assert!(HOSTILE.contains(is_hidden));
}
