//! Somebody who may write the report, but has no key: whatever is changed, taken out or put in, the
//! audit says so.

use countersign::openpgp::Signer as _;
use countersign::resign::Shard;
use countersign::signature::Claim;
use serde_json::{Value, json};

use super::{A, Desk, digest, items, read, text, write};
use crate::support::keys;

/// The place of an item in the report, by its repository.
fn position(report: &Value, repository: &str) -> usize {
    report["items"].as_array().unwrap().iter().position(|item| item["repository"] == repository).unwrap()
}

/// Makes totals and reasons for refusals those of the items, as somebody careful would.
fn balance(report: &mut Value) {
    for state in ["signed", "already", "unmatched", "refused", "failed"] {
        report["totals"][state] = json!(items(report, state).len());
    }
    if items(report, "refused").is_empty() {
        report["refusals"] = json!({});
    }
}

#[test]
fn what_was_not_signed_is_found_out_anew() {
    let desk = Desk::new();
    // One that fails: its place is taken by a file.
    std::fs::create_dir_all(desk.to.join("b")).unwrap();
    std::fs::write(super::folder(&desk.to, "b/more", 'b'), "in the way").unwrap();
    let (path, report) = desk.report("job.json", &[]);
    let audited = desk.right(&path);
    assert_eq!(audited["trusted"], 1, "that it failed cannot be found out: {audited}");
    let on_trust = audited["on_trust"].to_string();
    assert!(
        on_trust.contains("of 1 item(s), that they failed") && on_trust.contains("wording of reasons"),
        "{on_trust}"
    );

    let edited = desk.path("edited.json");
    let fingerprint = "F".repeat(40);
    let (refused, unmatched, failed) = ("c/other-key", "d/unrelated", "b/more");
    for (repository, member, value, what) in [
        // What was refused.
        (refused, "old_reference", json!("registry.bluemix.net/c/other:1"), "the report says old name"),
        (refused, "blob", json!("0".repeat(64)), "is not in the source"),
        (refused, "digest", json!(digest('d')), "is not in the source"),
        (refused, "repository", json!("c/nowhere"), "is not in the source"),
        (refused, "blob", Value::Null, "but not which signature"),
        (refused, "new_reference", json!("icr.io/c/other-key:1"), "the report says new name"),
        (refused, "rule", json!("registry.bluemix.net=icr.io"), "the report says rule"),
        (refused, "signer", json!(fingerprint), "the report says old signer"),
        (refused, "scope", json!("default"), "the report says policy scope"),
        (refused, "reason", json!("no rename rule for this name"), "a reason of another kind"),
        (refused, "reason", Value::Null, "a reason of another kind"),
        (refused, "state", json!("unmatched"), "was left alone, but it is refused"),
        (refused, "state", json!("failed"), "was accepted and failed, but it is refused"),
        (refused, "state", json!("signed"), "the old policy does not accept the old signature"),
        (refused, "new_blobs", json!(["0".repeat(64)]), "names new signatures of what it says was refused"),
        (refused, "time", json!("2001-01-01T00:00:00Z"), "is not between"),
        // What no rule concerns.
        (unmatched, "old_reference", json!("elsewhere.example/d/other:1"), "the report says old name"),
        (unmatched, "blob", json!("0".repeat(64)), "is not in the source"),
        (unmatched, "place", json!("d/unrelated"), "the report says place"),
        (unmatched, "reason", json!("its name stays: an exception for d"), "a reason of another kind"),
        (unmatched, "state", json!("refused"), "was refused, but it is none of the job's"),
        (unmatched, "state", json!("failed"), "was accepted and failed, but it is none of the job's"),
        (unmatched, "blob", Value::Null, "but not which signature"),
        // What failed.
        (failed, "old_reference", json!("registry.ng.bluemix.net/b/x:1"), "the report says old name"),
        (failed, "new_reference", json!("us.icr.io/b/x:1"), "the report says new name"),
        (failed, "rule", json!("registry.ng.bluemix.net=x.example"), "the report says rule"),
        (failed, "signer", json!(fingerprint), "the report says old signer"),
        (failed, "scope", json!("docker"), "the report says policy scope"),
        (failed, "blob", json!("0".repeat(64)), "is not in the source"),
        (failed, "state", json!("refused"), "the old policy accepts it"),
        (failed, "state", json!("unmatched"), "the job left nothing out"),
    ] {
        let mut changed = report.clone();
        let at = position(&report, repository);
        changed["items"][at][member] = value;
        balance(&mut changed);
        write(&edited, &changed);
        desk.wrong(&edited, what);
    }
}

#[test]
fn times_that_are_none_prove_nothing() {
    let desk = Desk::new();
    let (_, mut report) = desk.report("job.json", &[]);
    let edited = desk.path("edited.json");
    report["started"] = json!("never");
    let at = position(&report, "c/other-key");
    report["items"][at]["time"] = json!("never");
    write(&edited, &report);
    desk.wrong(&edited, "is not between never and");
}

#[test]
fn an_item_that_is_taken_out_is_missed() {
    let desk = Desk::new();
    let (path, report) = desk.report("job.json", &[]);
    let edited = desk.path("edited.json");
    for repository in ["c/other-key", "d/unrelated", "b/more", "e/already"] {
        let mut changed = report.clone();
        let at = position(&report, repository);
        changed["items"].as_array_mut().unwrap().remove(at);
        balance(&mut changed);
        write(&edited, &changed);
        desk.wrong(&edited, "the source has this signature, and the report does not tell of it");
        // Its new signature is seen, too, though no item names its place.
        let unexplained = u64::from(["b/more", "e/already"].contains(&repository));
        let said: Value = serde_json::from_str(&desk.audit(&edited, &[]).stdout).unwrap();
        assert_eq!((&said["wrong"], &said["unexplained"]), (&1.into(), &unexplained.into()), "{repository}: {said}");
    }
    // What came after the job is no fault of the report.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    desk.sign("registry.ng.bluemix.net/f/later:1", 'f', "alice", &desk.from);
    assert_eq!(desk.right(&path)["later"], 1);
    // A part that the report does not tell of is not missed in it; one that it should tell of is.
    let (part, report) = desk.report("part.json", &["--shard", "1/2"]);
    desk.right(&part);
    let mut changed = report.clone();
    changed["shards"] = json!(["1/2", "2/2"]);
    write(&edited, &changed);
    desk.wrong(&edited, "the report does not tell of it");
}

#[test]
fn a_signature_beside_the_job_cannot_be_hidden() {
    let desk = Desk::new();
    let (path, report) = desk.report("job.json", &[]);
    // By the job's own key, where the job has signed something, and where it has not.
    desk.sign("us.icr.io/a/good:evil", A, "carol", &desk.to);
    desk.sign("us.icr.io/z/evil:1", 'f', "carol", &desk.to);
    assert_eq!(desk.right(&path)["unexplained"], 2);
    // Other names than the rules make are others' business.
    desk.sign("quay.io/z/other:1", 'f', "carol", &desk.to);
    assert_eq!(desk.right(&path)["unexplained"], 2);
    // An item is made up for it, which says that nobody need care.
    let folder = super::folder(&desk.to, "a/good", A);
    let hash =
        |file: &str| countersign::image::Digest::sha256(&std::fs::read(folder.join(file)).unwrap()).hex().to_owned();
    let told: Vec<&Value> =
        report["items"].as_array().unwrap().iter().flat_map(|i| i["new_blobs"].as_array()).flatten().collect();
    let evil = (1..=3).map(|n| hash(&format!("signature-{n}"))).find(|hash| !told.contains(&&json!(hash))).unwrap();
    let edited = desk.path("edited.json");
    let (unrelated, good) = (position(&report, "d/unrelated"), position(&report, "a/good"));
    for (state, reason) in [("unmatched", "no rename rule for this name"), ("refused", "no"), ("failed", "no")] {
        let mut changed = report.clone();
        let mut item = report["items"][unrelated].clone();
        (item["repository"], item["digest"]) = (json!("a/good"), json!(digest(A)));
        (item["blob"], item["old_reference"]) = (json!(evil), json!("us.icr.io/a/good:evil"));
        (item["state"], item["reason"]) = (json!(state), json!(reason));
        changed["items"].as_array_mut().unwrap().insert(good, item.clone());
        balance(&mut changed);
        write(&edited, &changed);
        desk.wrong(&edited, &format!("the old signature {evil} is not in the source"));
        // With the new place, and as if it had been made.
        item["place"] = report["items"][good]["place"].clone();
        item["new_blobs"] = json!([evil]);
        changed["items"][good] = item;
        write(&edited, &changed);
        desk.wrong(&edited, "is not in the source");
    }
    // Beside another new signature, or in its place.
    for blobs in [vec![told[0].clone(), json!(evil)], vec![json!(evil)]] {
        let mut changed = report.clone();
        changed["items"][good]["new_blobs"] = json!(blobs);
        write(&edited, &changed);
        desk.wrong(&edited, &evil);
    }
    // A failure that is none, with the signature that is said not to be there.
    let mut changed = report.clone();
    changed["items"][good]["state"] = json!("failed");
    changed["items"][good]["new_blobs"] = json!([evil]);
    balance(&mut changed);
    write(&edited, &changed);
    desk.wrong(&edited, "it is for us.icr.io/a/good:evil");
}

#[test]
fn in_one_tree_new_names_of_others_are_counted_apart() {
    let mut desk = Desk::new();
    desk.to = desk.from.clone();
    // It lies there before the job, so that the job itself says that no rule concerns it.
    desk.sign("us.icr.io/a/good:evil", A, "carol", &desk.to);
    let (path, report) = desk.report("job.json", &[]);
    assert_eq!(report["totals"]["unmatched"], 2, "{report:#}");
    let audited = desk.right(&path);
    assert_eq!((&audited["beside"], &audited["unexplained"]), (&1.into(), &0.into()), "{audited}");
    assert!(audited["beside_at"][0].as_str().unwrap().starts_with("a/good@"), "{audited}");
    let key = keys::public("carol");
    let args = ["resign", "audit", text(&path), "--policy", text(&desk.policy), "--new-key", text(&key)];
    let said = desk.host.countersign(&args).accepted().stdout;
    assert!(said.contains("1 signature(s) by the job's keys for new names were, says the report, there"), "{said}");
    assert!(said.contains("at the report's word: the job's own flags"), "{said}");
    // The next run's report, which finds all of it, is as right; its own names are no old ones.
    let (path, _) = desk.report("again.json", &[]);
    let audited = desk.right(&path);
    assert_eq!((&audited["beside"], &audited["unexplained"], &audited["later"]), (&1.into(), &0.into(), &0.into()));
}

#[test]
fn choices_of_the_job_are_taken_at_its_word_and_named() {
    let desk = Desk::new();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    // A newer image of the same name.
    desk.sign("registry.ng.bluemix.net/b/more:1", 'c', "alice", &desk.from);
    let (path, report) = desk.report("newest.json", &["--newest"]);
    let older = items(&report, "unmatched").into_iter().find(|item| item["repository"] == "b/more").unwrap();
    assert!(older["reason"].as_str().unwrap().contains("a newer signature names"), "{older}");
    assert_eq!(desk.right(&path)["trusted"], 1);
    // A job that chose nothing has no such items, and names are what they are in any case.
    let edited = desk.path("edited.json");
    let mut changed = report.clone();
    changed["job"]["claims"] = json!("all");
    write(&edited, &changed);
    desk.wrong(&edited, "the job left nothing out");
    let mut changed = read(&path);
    let at = report["items"].as_array().unwrap().iter().position(|item| item == older).unwrap();
    changed["items"][at]["new_reference"] = json!("us.icr.io/b/more:2");
    write(&edited, &changed);
    desk.wrong(&edited, "the report says new name us.icr.io/b/more:2");
    // Of a list only what it led to is known.
    let list = desk.host.write("images.txt", format!("a/good@{}\nx/absent@{}\n", digest(A), digest(A)));
    let (path, report) = desk.report("list.json", &["--images", text(&list)]);
    assert_eq!(report["totals"]["unmatched"], 1, "{report:#}");
    let audited = desk.right(&path);
    assert!(audited["on_trust"].to_string().contains("what the job's list named"), "{audited}");
    let mut changed = report.clone();
    let at = position(&report, "x/absent");
    (changed["items"][at]["repository"], changed["items"][at]["digest"]) = (json!("c/other-key"), json!(digest('c')));
    write(&edited, &changed);
    desk.wrong(&edited, "has no signatures of it, but it has 1");
}

#[test]
fn the_begin_that_a_report_gives_hides_nothing() {
    let desk = Desk::new();
    let (path, report) = desk.report("job.json", &[]);
    desk.right(&path);
    let edited = desk.path("edited.json");
    let mut changed = report.clone();
    changed["started"] = json!("1970-01-01T00:00:00Z");
    let all = changed["items"].as_array_mut().unwrap();
    all.retain(|item| item["repository"] == "c/other-key");
    balance(&mut changed);
    write(&edited, &changed);
    // Nothing was signed, so that nothing bears out when the job began.
    desk.wrong(&edited, "no signature of the job bears out");
    let said: Value = serde_json::from_str(&desk.audit(&edited, &[]).stdout).unwrap();
    assert_eq!((&said["wrong"], &said["later"]), (&5.into(), &0.into()), "{said}");
    // Of a list, too: what it says was not to be found.
    let list = desk.host.write("images.txt", format!("x/absent@{}\n", digest(A)));
    let (_, mut changed) = desk.report("list.json", &["--images", text(&list)]);
    changed["started"] = json!("1970-01-01T00:00:00Z");
    let at = position(&changed, "x/absent");
    (changed["items"][at]["repository"], changed["items"][at]["digest"]) = (json!("c/other-key"), json!(digest('c')));
    write(&edited, &changed);
    desk.wrong(&edited, "no signature of the job bears out");
    // With something signed an old signature of long before is none of after.
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    let claim = Claim {
        reference: "registry.ng.bluemix.net/f/before:1".to_owned(),
        digest: countersign::image::Digest::parse(&digest('f')).unwrap(),
        creator: None,
        timestamp: None,
    };
    let blob = keys::signer("alice").sign(&claim.render().unwrap(), hour_ago).unwrap();
    let folder = super::folder(&desk.from, "f/before", 'f');
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("signature-1"), blob).unwrap();
    desk.sign("registry.ng.bluemix.net/g/now:1", 'e', "alice", &desk.from);
    let (path, mut changed) = desk.report("again.json", &[]);
    assert_eq!(changed["totals"]["signed"], 2, "{changed:#}");
    desk.right(&path);
    let at = position(&changed, "f/before");
    changed["started"] = json!("1970-01-01T00:00:00Z");
    changed["items"].as_array_mut().unwrap().remove(at);
    balance(&mut changed);
    write(&edited, &changed);
    desk.wrong(&edited, "no signature of the job bears out");
}

#[test]
fn a_failure_explains_nothing_but_what_it_left_at_its_place() {
    let desk = Desk::new();
    let (path, report) = desk.report("job.json", &[]);
    desk.right(&path);
    let (good, more) = (position(&report, "a/good"), position(&report, "b/more"));
    let other = report["items"].as_array().unwrap().iter().rposition(|item| item["repository"] == "a/good").unwrap();
    assert_ne!(good, other);
    let dropped = report["items"][other].clone();
    let edited = desk.path("edited.json");
    let missed = "the source has this signature, and the report does not tell of it";
    // In the group of its image, and in another; at its own place, and at the dropped one's.
    for (at, place) in [(good, good), (more, more), (more, good)] {
        let mut changed = report.clone();
        changed["items"][at]["state"] = json!("failed");
        changed["items"][at]["new_blobs"] = json!([dropped["blob"]]);
        changed["items"][at]["place"] = report["items"][place]["place"].clone();
        changed["items"].as_array_mut().unwrap().remove(other);
        balance(&mut changed);
        write(&edited, &changed);
        desk.wrong(&edited, missed);
    }
}

#[test]
fn false_parts_hide_no_image() {
    let desk = Desk::new();
    let (path, report) = desk.report("job.json", &[]);
    desk.right(&path);
    let edited = desk.path("edited.json");
    let others = |index: u32, count: u32, repository: &str| Shard { index, count }.has(repository);
    // One image is dropped, and the parts are all but its own.
    let count = 1000;
    let its = (1..=count).find(|index| others(*index, count, "b/more")).unwrap();
    let all: Vec<String> = (1..=count).filter(|index| *index != its).map(|index| format!("{index}/{count}")).collect();
    let without = |shards: &[String], job: &str| {
        let mut changed = report.clone();
        changed["items"].as_array_mut().unwrap().remove(position(&report, "b/more"));
        changed["shards"] = json!(shards);
        changed["job"]["shard"] = json!(job);
        balance(&mut changed);
        write(&edited, &changed);
    };
    without(&all, "1/1");
    desk.wrong(&edited, "but its job is part 1/1");
    without(&all, &all.join(" "));
    desk.wrong(&edited, "does not say that it is incomplete");
    // A part that some of the items are not of.
    let its = (1..=count).find(|index| others(*index, count, "a/good")).unwrap();
    let part = format!("{its}/{count}");
    without(std::slice::from_ref(&part), &part);
    desk.wrong(&edited, &format!("it is of no part of the job that the report tells of ({part})"));
    let args = ["resign", "merge-reports", text(&edited), "--allow-missing", "-o", text(&path)];
    let ran = desk.host.countersign(&args);
    assert!(ran.code == Some(2) && ran.stderr.contains("is of no part of the job"), "{ran:?}");
}
