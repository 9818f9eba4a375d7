//! The account of a bulk job: what it says, that it is checked, and that no change of it, or of
//! what it tells of, goes unseen.

#[path = "resign_report/adversary.rs"]
mod adversary;
#[path = "resign_report/parts.rs"]
mod parts;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::openpgp::gpg;
use crate::support::client::{Host, Ran, text};
use crate::support::keys;
use crate::support::web::{Said, Web};

const A: char = 'a';

fn digest(c: char) -> String {
    format!("sha256:{}", c.to_string().repeat(64))
}

/// A tree with something of each kind, and the job that moves it.
struct Desk {
    host: Host,
    from: PathBuf,
    to: PathBuf,
    policy: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let host = Host::new(Path::new("/nonexistent"));
        let (from, to) = (host.path().join("from"), host.path().join("to"));
        let policy = host.signed_by_policy("old.json", &keys::public("alice"));
        let desk = Self { host, from, to, policy };
        for (name, c, key) in [
            ("registry.ng.bluemix.net/a/good:1", A, "alice"),
            ("registry.ng.bluemix.net/a/good:2", A, "alice"),
            ("registry.ng.bluemix.net/b/more:1", 'b', "alice"),
            ("registry.bluemix.net/c/other-key:1", 'c', "bob"),
            ("elsewhere.example/d/unrelated:1", 'd', "alice"),
            ("registry.bluemix.net/e/already:1", 'e', "alice"),
        ] {
            desk.sign(name, c, key, &desk.from);
        }
        desk.sign("icr.io/e/already:1", 'e', "carol", &desk.to);
        desk
    }

    fn sign(&self, name: &str, c: char, key: &str, to: &Path) {
        let (key, digest) = (keys::secret(key), digest(c));
        let args = ["sign", name, "--key", text(&key), "--digest", &digest, "--to", text(to)];
        self.host.countersign(&args).accepted();
    }

    fn resign(&self, extra: &[&str]) -> Ran {
        let key = keys::secret("carol");
        let fixed = ["resign", "--from", text(&self.from), "--to", text(&self.to), "--policy", text(&self.policy)];
        let rename: &[&str] = if extra.contains(&"--rename-file") { &[] } else { &["--rename", "ibm"] };
        self.host.countersign(&[&fixed[..], &["--key", text(&key)], rename, extra].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    /// Runs the job and returns its report.
    fn report(&self, name: &str, extra: &[&str]) -> (PathBuf, Value) {
        let path = self.path(name);
        let ran = self.resign(&[&["--report", text(&path)], extra].concat());
        assert!(ran.code == Some(1) || ran.code == Some(0), "{ran:?}");
        let report = read(&path);
        (path, report)
    }

    fn audit(&self, report: &Path, extra: &[&str]) -> Ran {
        let key = keys::public("carol");
        let fixed = ["--format", "json", "resign", "audit", text(report), "--policy", text(&self.policy)];
        self.host.countersign(&[&fixed[..], &["--new-key", text(&key)], extra].concat())
    }

    /// Audits and insists that it is told that `what` is wrong.
    #[track_caller]
    fn wrong(&self, report: &Path, what: &str) {
        let ran = self.audit(report, &[]);
        assert!(ran.code == Some(1) && ran.stdout.contains(what), "{what}: {ran:#?}");
    }

    /// Audits and insists that all is well.
    #[track_caller]
    fn right(&self, report: &Path) -> Value {
        let ran = self.audit(report, &[]).accepted();
        serde_json::from_str(&ran.stdout).unwrap()
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn items<'a>(report: &'a Value, state: &str) -> Vec<&'a Value> {
    report["items"].as_array().unwrap().iter().filter(|item| item["state"] == state).collect()
}

fn folder(tree: &Path, name: &str, c: char) -> PathBuf {
    tree.join(format!("{name}@{}", digest(c).replace(':', "=")))
}

#[test]
fn a_report_says_what_was_done_and_is_true() {
    let desk = Desk::new();
    // One that cannot be written: its place is taken by a file.
    std::fs::create_dir_all(desk.to.join("b")).unwrap();
    let blocked = folder(&desk.to, "b/more", 'b');
    std::fs::write(&blocked, "in the way").unwrap();
    let journal = desk.path("journal");
    let with_journal = ["--journal", text(&journal)];
    let (path, report) = desk.report("job.json", &with_journal);
    assert_eq!(
        report["totals"],
        json!({"signed": 2, "already": 1, "unmatched": 1, "refused": 1, "failed": 1}),
        "{report:#}"
    );
    assert_eq!(report["report"], "countersign resign 1");
    assert_eq!(report["job"]["shard"], "1/1");
    assert!(report["creator"].as_str().unwrap().starts_with("countersign "));
    let signed = items(&report, "signed")[0];
    for member in ["old_reference", "new_reference", "digest", "blob", "signer", "scope", "rule", "place", "time"] {
        assert!(signed[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {signed}");
    }
    assert_eq!(signed["new_blobs"].as_array().unwrap().len(), 1);
    let already = items(&report, "already")[0];
    assert_eq!(already["new_blobs"].as_array().unwrap().len(), 1, "which one it was: {already}");
    assert_eq!(report["refusals"].as_object().unwrap().values().collect::<Vec<_>>(), [&json!(1)]);
    let audited = desk.right(&path);
    assert_eq!((&audited["signatures"], &audited["wrong"], &audited["unexplained"]), (&3.into(), &0.into(), &0.into()));

    // The next run of the same job does the rest; its report tells of both.
    std::fs::remove_file(&blocked).unwrap();
    let (path, report) = desk.report("job.json", &with_journal);
    assert_eq!(report["totals"], json!({"signed": 3, "already": 1, "unmatched": 1, "refused": 1, "failed": 0}));
    desk.right(&path);
    for page in ["job.md", "job.html"] {
        desk.resign(&[&with_journal[..], &["--report", text(&desk.path(page))]].concat());
        let page = std::fs::read_to_string(desk.path(page)).unwrap();
        assert!(page.contains("us.icr.io/a/good:2") && page.contains("New signatures (3)"), "{page}");
    }
    // Without a journal there is a report, and nothing else is left beside it.
    let (path, report) = desk.report("again.json", &[]);
    assert_eq!(report["totals"]["already"], 4);
    desk.right(&path);
    let left: Vec<_> = std::fs::read_dir(desk.host.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".countersign")), "{left:?}");
    // A signature by the job's key that the report does not tell of.
    desk.sign("us.icr.io/a/good:3", A, "carol", &desk.to);
    assert_eq!(desk.right(&path)["unexplained"], 1);
    let ran = desk.resign(&["--report", "job.pdf"]);
    assert!(ran.code == Some(2) && ran.stderr.contains(".json, .md or .html"), "{ran:?}");
}

#[test]
fn a_dry_run_shows_everything_first() {
    let desk = Desk::new();
    let rules = desk.host.write(
        "rules.yaml",
        "rules: [ibm]\nexceptions:\n  registry.ng.bluemix.net/b: de.icr.io/b\n  registry.bluemix.net/e: null\n",
    );
    let path = desk.path("plan.json");
    let ran = desk.resign(&["--rename-file", text(&rules), "--dry-run", "--report", text(&path)]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("rules.yaml:3") && ran.stderr.contains("(stays, not signed)"), "{ran:?}");
    let carol = ran.stderr.lines().find_map(|line| line.split_once(" is ").map(|(_, key)| key.to_owned())).unwrap();
    for said in [
        format!("would sign {}: registry.ng.bluemix.net/b/more:1 -> de.icr.io/b/more:1", digest('b')),
        format!("(rule registry.ng.bluemix.net/b=de.icr.io/b) by {carol}; the old signature is by "),
        format!("refused c/other-key@{}: registry.bluemix.net/c/other-key:1: ", digest('c')),
        "Would sign: 3, already there: 0, refused: 1".to_owned(),
    ] {
        assert!(ran.stdout.contains(&said), "{said}: {ran:#?}");
    }
    assert!(!folder(&desk.to, "b/more", 'b').exists());
    let report = read(&path);
    assert_eq!((&report["dry_run"], &report["totals"]["signed"]), (&true.into(), &3.into()));
    let stays = items(&report, "unmatched").into_iter().find(|item| item["repository"] == "e/already").unwrap();
    assert_eq!(stays["reason"], "its name stays: an exception for registry.bluemix.net/e");
    let ran = desk.audit(&path, &[]);
    assert!(ran.code == Some(2) && ran.stderr.contains("dry run"), "{ran:?}");
    // Rules that would go round in circles are refused before anything is opened.
    let rules = desk.host.write("bad.yaml", "rules:\n - old.example=new.example\n - new.example=old.example\n");
    let ran = desk.resign(&["--rename-file", text(&rules)]);
    assert!(ran.code == Some(2) && ran.stderr.contains("bad.yaml:3) makes names that rule"), "{ran:?}");
    let ran = desk.resign(&["--rename", "us.icr.io=x.example", "--rename", "uk.icr.io=x.example", "--dry-run"]);
    assert!(ran.code == Some(2) && ran.stderr.contains("renames again"), "{ran:?}");
}

#[test]
fn tampering_is_found() {
    let desk = Desk::new();
    let (path, report) = desk.report("job.json", &[]);
    desk.right(&path);
    let signed = items(&report, "signed");
    let more = signed.iter().find(|item| item["repository"] == "b/more").unwrap();
    let hash = more["new_blobs"][0].as_str().unwrap();

    // The stores change.
    let new = folder(&desk.to, "b/more", 'b').join("signature-1");
    let kept = std::fs::read(&new).unwrap();
    std::fs::remove_file(&new).unwrap();
    desk.wrong(&path, &format!("the new signature {hash} is not at b/more@"));
    // (By another key: the same claim by the same key in the same second is the same signature.)
    desk.sign("us.icr.io/b/more:1", 'b', "bob", &desk.to);
    desk.wrong(&path, &format!("the new signature {hash} is not at b/more@"));
    std::fs::write(&new, &kept).unwrap();
    desk.right(&path);
    let old = folder(&desk.from, "b/more", 'b').join("signature-1");
    let kept = std::fs::read(&old).unwrap();
    std::fs::remove_file(&old).unwrap();
    desk.wrong(&path, "is not in the source");
    std::fs::write(&old, kept).unwrap();
    // Other keys are trusted.
    let other = desk.host.signed_by_policy("other.json", &keys::public("bob"));
    let ran = desk.audit(&path, &["--policy", text(&other)]);
    assert_eq!(ran.code, Some(2), "given twice: {ran:?}");
    let args = ["resign", "audit", text(&path), "--policy", text(&other), "--new-policy", text(&other)];
    let ran = desk.host.countersign(&args);
    assert!(ran.code == Some(1) && ran.stdout.contains("the old policy does not accept the old signature"), "{ran:?}");
    assert!(ran.stdout.contains("the report says that it was refused, but the old policy accepts it"), "{ran:?}");
    assert!(ran.stdout.contains("note: the old policy is not the one that the job used"), "{ran:?}");

    // The report changes.
    let edited = desk.path("edited.json");
    let fingerprint = "F".repeat(40);
    let position = report["items"].as_array().unwrap().iter().position(|item| item["repository"] == "b/more").unwrap();
    let item = |member: &str| format!("/items/{position}/{member}");
    for (pointer, value, what) in [
        (item("new_reference"), json!("us.icr.io/b/evil:1"), "the report says new name us.icr.io/b/evil:1"),
        (item("old_reference"), json!("registry.ng.bluemix.net/b/x:1"), "the report says old name"),
        (item("rule"), json!("registry.ng.bluemix.net=x.example"), "the report says rule"),
        (item("place"), json!(format!("b/x@{}", digest('b').replace(':', "="))), "the report says place"),
        (item("place"), json!("../../x"), "the report says place"),
        (item("scope"), json!("us.icr.io"), "the report says policy scope"),
        (item("signer"), json!(fingerprint), "the report says old signer"),
        (item("blob"), json!("0".repeat(64)), "is not in the source"),
        (item("new_blobs/0"), json!("0".repeat(64)), "the new signature 0000"),
        (item("signed_by/0"), json!(fingerprint), "the report names the new signers FFFF"),
        (item("signed_by"), json!([]), "the report names the new signers (none)"),
        (item("digest"), json!(digest('c')), "is not in the source"),
        (item("time"), json!("2001-01-01T00:00:00Z"), "is not between"),
        (item("state"), json!("refused"), "the old policy accepts it"),
        ("/totals/signed".to_owned(), json!(7), "its totals say 7 signed"),
        ("/job/rename rules".to_owned(), json!("registry.ng.bluemix.net=x.example"), "the report says"),
        ("/incomplete".to_owned(), json!("a shard"), "incomplete: a shard"),
    ] {
        let mut changed = report.clone();
        *changed.pointer_mut(&pointer).unwrap() = value;
        write(&edited, &changed);
        desk.wrong(&edited, what);
    }
    let mut doubled = report.clone();
    doubled["items"].as_array_mut().unwrap().push((*more).clone());
    doubled["totals"]["signed"] = json!(4);
    write(&edited, &doubled);
    desk.wrong(&edited, "more than once");
    let mut fewer = report.clone();
    fewer["items"].as_array_mut().unwrap().retain(|item| item["old_reference"] != "registry.ng.bluemix.net/a/good:2");
    write(&edited, &fewer);
    desk.wrong(&edited, "its items are 2 signed");
    fewer["totals"]["signed"] = json!(2);
    write(&edited, &fewer);
    desk.wrong(&edited, "the source has this signature, and the report does not tell of it");
    std::fs::write(&edited, "{}").unwrap();
    assert_eq!(desk.audit(&edited, &[]).code, Some(2));
}

#[test]
fn old_signatures_of_one_claim_come_to_one_end() {
    let desk = Desk::new();
    // The same claim by the same key in the same second would be the same signature.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    desk.sign("registry.ng.bluemix.net/b/more:1", 'b', "alice", &desk.from);
    let state = |report: &Value| {
        let all = report["items"].as_array().unwrap().iter();
        let mut states: Vec<String> = all
            .filter(|item| item["repository"] == "b/more")
            .map(|item| item["state"].as_str().unwrap().to_owned())
            .collect();
        states.sort();
        states.join(" ")
    };
    // The new registry does not have it: nothing is there "already".
    let empty = Web::start(|heard| Said::new(if heard.path == "/v2/" { "200 OK" } else { "404 Not Found" }));
    let check = ["--check", "exists", "--check-registry", &empty.address, "--to-tls-verify=false"];
    let (path, report) = desk.report("checked.json", &check);
    assert_eq!(state(&report), "unmatched unmatched", "{report:#}");
    desk.right(&path);
    // It cannot be written.
    std::fs::create_dir_all(desk.to.join("b")).unwrap();
    let blocked = folder(&desk.to, "b/more", 'b');
    std::fs::write(&blocked, "in the way").unwrap();
    let (path, report) = desk.report("blocked.json", &[]);
    assert_eq!(state(&report), "failed failed", "{report:#}");
    desk.right(&path);
    std::fs::remove_file(&blocked).unwrap();
    let (path, report) = desk.report("done.json", &[]);
    assert_eq!(state(&report), "already signed", "{report:#}");
    desk.right(&path);
}

#[test]
fn a_refused_signature_by_the_new_key_is_told_of() {
    let mut desk = Desk::new();
    // By the new key for the old name, which the old policy does not know.
    for name in ["registry.ng.bluemix.net/a/good:1", "registry.ng.bluemix.net/b/more:1"] {
        desk.sign(name, if name.contains("good") { A } else { 'b' }, "carol", &desk.from);
    }
    desk.to = desk.from.clone();
    let (path, report) = desk.report("job.json", &[]);
    assert_eq!(report["totals"]["refused"], 3, "{report:#}");
    assert_eq!(desk.right(&path)["unexplained"], 0);
}

#[test]
fn a_report_that_cannot_be_is_told_before_the_work() {
    let desk = Desk::new();
    let (journal, nowhere) = (desk.path("same.json"), desk.path("nowhere/job.json"));
    let folder = desk.path("folder.json");
    std::fs::create_dir(&folder).unwrap();
    for (report, said) in [(&journal, "name the same file"), (&nowhere, "No such file"), (&folder, "is a directory")] {
        let ran = desk.resign(&["--journal", text(&journal), "--report", text(report)]);
        assert!(ran.code == Some(2) && ran.stderr.contains(said), "{said}: {ran:?}");
        assert!(!desk.to.join("a").exists() && !journal.exists(), "{said}");
    }
    std::os::unix::fs::symlink(&journal, desk.path("link.json")).unwrap();
    desk.resign(&["--journal", text(&journal)]);
    let ran = desk.resign(&["--journal", text(&journal), "--report", text(&desk.path("link.json"))]);
    assert!(ran.code == Some(2) && ran.stderr.contains("name the same file"), "{ran:?}");
}

#[test]
fn the_policy_of_a_pipe_is_recorded_too() {
    let desk = Desk::new();
    let (journal, key) = (desk.path("journal"), keys::secret("carol"));
    let run = |policy: &Path| {
        let program = "exec \"$0\" resign --from \"$1\" --to \"$2\" --rename ibm --key \"$3\" --journal \"$4\" \
                       --policy /dev/fd/3 3< <(cat \"$5\")";
        let places = [env!("CARGO_BIN_EXE_countersign"), text(&desk.from), text(&desk.to), text(&key), text(&journal)];
        std::process::Command::new("bash").args(["-c", program]).args(places).arg(policy).output().unwrap()
    };
    let said = run(&desk.policy);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    // The same keys, so that the policy itself is all that differs.
    let other = desk.host.write("other.json", std::fs::read_to_string(&desk.policy).unwrap() + "\n");
    let said = run(&other);
    let stderr = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(2) && stderr.contains("its policy was"), "{said:?}");
}

#[test]
fn other_keys_behind_the_same_policy_are_another_job() {
    let desk = Desk::new();
    let trusted = desk.host.write("trusted.asc", std::fs::read(keys::public("alice")).unwrap());
    let policy = desk.host.signed_by_policy("same.json", &trusted);
    let (journal, key) = (desk.path("journal"), keys::secret("carol"));
    let (from, to) = (text(&desk.from), text(&desk.to));
    let flags = ["resign", "--from", from, "--to", to, "--rename", "ibm", "--policy", text(&policy)];
    let run = || desk.host.countersign(&[&flags[..], &["--key", text(&key), "--journal", text(&journal)]].concat());
    assert_eq!(run().code, Some(1));
    std::fs::write(&trusted, std::fs::read(keys::public("bob")).unwrap()).unwrap();
    let said = run();
    assert!(said.code == Some(2) && said.stderr.contains("its policy's keys was"), "{said:?}");
}

/// Writes a report as serde_json would not: its first member first.
pub(crate) fn write(path: &Path, report: &Value) {
    let mut members = report.as_object().unwrap().clone();
    let format = members.remove("report").unwrap();
    let items = members.remove("items").unwrap();
    let head = Value::Object(members).to_string();
    let head = head.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
    std::fs::write(path, format!("{{\"report\":{format},{head},\"items\":{items}}}")).unwrap();
}

#[test]
fn what_fails_after_the_end_is_in_the_report_until_it_does_no_more() {
    let desk = Desk::new();
    let journal = desk.path("journal");
    let run = || {
        let (path, report) = desk.report("job.json", &["--journal", text(&journal)]);
        desk.audit(&path, &[]).accepted();
        (report["totals"]["signed"].clone(), report["totals"]["failed"].clone())
    };
    assert_eq!(run(), (json!(3), json!(0)));
    // The place of a new signature cannot be read.
    let (new, away) = (folder(&desk.to, "b/more", 'b'), desk.path("away"));
    std::fs::rename(&new, &away).unwrap();
    std::fs::write(&new, "in the way").unwrap();
    assert_eq!(run(), (json!(2), json!(1)));
    std::fs::remove_file(&new).unwrap();
    std::fs::rename(&away, &new).unwrap();
    assert_eq!(run(), (json!(3), json!(0)));
    // An old signature cannot be read, because it is still being written, and its image comes to no end.
    let old = folder(&desk.from, "b/more", 'b').join("signature-1");
    std::fs::rename(&old, &away).unwrap();
    let young = || {
        let file = std::fs::File::create(&old).unwrap();
        // The clocks of file servers may go ahead: younger than five seconds for nine from now.
        file.set_modified(SystemTime::now() + Duration::from_secs(4)).unwrap();
    };
    young();
    let (path, report) = desk.report("job.json", &["--journal", text(&journal)]);
    assert_eq!(report["totals"]["failed"], 1, "{report:#}");
    young();
    assert!(desk.audit(&path, &[]).code != Some(0), "nor can it be checked");
    std::fs::remove_file(&old).unwrap();
    std::fs::rename(&away, &old).unwrap();
    assert_eq!(run(), (json!(3), json!(0)));
}

#[test]
fn a_key_that_expired_during_the_job_was_good_at_its_begin() {
    let desk = Desk::new();
    let home = gpg::Home::new();
    let key = home.generate(&[], "Short <short@example.com>", "ed25519", "sign", "seconds=20");
    let claim = countersign::signature::Claim {
        reference: "registry.ng.bluemix.net/s/short:1".to_owned(),
        digest: countersign::image::Digest::parse(&digest('f')).unwrap(),
        creator: None,
        timestamp: None,
    };
    let place = folder(&desk.from, "s/short", 'f');
    std::fs::create_dir_all(&place).unwrap();
    let blob = home.ok(&["--local-user", &key, "--sign"], &claim.render().unwrap());
    std::fs::write(place.join("signature-1"), blob).unwrap();
    let public = desk.host.write("short.gpg", home.public(&key));
    let policy = desk.host.signed_by_policy("short.json", &public);
    let desk = Desk { policy, ..desk };
    let (path, mut report) = desk.report("job.json", &[]);
    assert_eq!(report["totals"]["signed"], 1, "{report:#}");
    desk.right(&path);
    // As if the job had taken a day: it judges all as of its begin.
    let end = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24)).to_string();
    report["ended"] = json!(end);
    report["items"].as_array_mut().unwrap().iter_mut().for_each(|item| item["time"] = json!(end));
    write(&path, &report);
    desk.right(&path);
    report["started"] = json!(end);
    write(&path, &report);
    desk.wrong(&path, "the old policy does not accept the old signature");
}
