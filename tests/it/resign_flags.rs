//! What the flags of a bulk job mean, which of them are refused, and what of them nobody gets to
//! see.

use std::path::PathBuf;

use crate::support::client::{Host, Ran, text};
use crate::support::keys;
use crate::support::web::{Said, Web};

struct Desk {
    host: Host,
    from: PathBuf,
    policy: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let host = Host::new(std::path::Path::new("/nonexistent"));
        let from = host.path().join("from");
        let policy = host.signed_by_policy("old.json", &keys::public("alice"));
        let desk = Self { host, from, policy };
        for c in ['a', 'b', 'c'] {
            let (key, digest, name) = (keys::secret("alice"), digest(c), format!("registry.ng.bluemix.net/{c}/app:1"));
            let args = ["sign", &name, "--key", text(&key), "--digest", &digest, "--to", text(&desk.from)];
            desk.host.countersign(&args).accepted();
        }
        desk
    }

    fn resign(&self, extra: &[&str]) -> Ran {
        let (to, key) = (self.host.path().join("to"), keys::secret("carol"));
        let places = ["--from", text(&self.from), "--to", text(&to), "--rename", "ibm"];
        self.run(&[&places[..], &["--key", text(&key)], extra].concat())
    }

    fn run(&self, args: &[&str]) -> Ran {
        let fixed = ["--format", "json", "resign", "--policy", text(&self.policy)];
        self.host.countersign(&[&fixed[..], args].concat())
    }
}

fn digest(c: char) -> String {
    format!("sha256:{}", c.to_string().repeat(64))
}

fn json(ran: &Ran) -> serde_json::Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

#[test]
fn a_list_of_images_may_grow_under_its_journal() {
    let desk = Desk::new();
    let line = |c: char| format!("{c}/app@{}\n", digest(c));
    let list = desk.host.write("images.txt", line('a'));
    let journal = desk.host.path().join("journal");
    let flags = ["--images", text(&list), "--journal", text(&journal)];
    let first = desk.resign(&flags).accepted();
    assert_eq!(json(&first)["signed"], 1, "{first:?}");
    // After its end, and before it: what was settled stays so, what is new is done.
    desk.host.write("images.txt", line('a') + &line('b'));
    let second = desk.resign(&flags).accepted();
    assert_eq!((&json(&second)["signed"], &json(&second)["already"]), (&1.into(), &1.into()), "{second:?}");
    let lines = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, lines.replace("{\"finished\":true}\n", "")).unwrap();
    desk.host.write("images.txt", line('a') + &line('b') + &line('c'));
    let third = desk.resign(&flags).accepted();
    assert_eq!((&json(&third)["signed"], &json(&third)["resumed"]), (&1.into(), &2.into()), "{third:?}");
    // Another list is another job.
    let other = desk.host.write("others.txt", line('a'));
    let ran = desk.resign(&["--images", text(&other), "--journal", text(&journal)]);
    assert!(ran.code == Some(2) && ran.stderr.contains("its list of images was"), "{ran:?}");
}

#[test]
fn flags_that_would_do_nothing_are_refused() {
    let desk = Desk::new();
    let bob = keys::secret("bob");
    let route = |prefix: &str| format!("{prefix}={}", text(&bob));
    for (extra, said) in [
        (["--jobs", "0"], "\"0\" is not a number above zero"),
        (["--key-for", &route("us.icr.oi")], "--key-for us.icr.oi: no rename rule makes a name at or below it"),
        (["--key-for", &route("registry.ng.bluemix.net")], "so its key would sign nothing"),
    ] {
        let ran = desk.resign(&extra);
        assert!(ran.code == Some(2) && ran.stderr.contains(said), "{said}: {ran:?}");
        assert!(!desk.host.path().join("to").exists(), "{said}");
    }
    desk.resign(&["--key-for", &route("us.icr.io/b")]).accepted();
    let ran = desk.host.countersign(&[
        "resign",
        "audit",
        "x.json",
        "--policy",
        text(&desk.policy),
        "--new-key",
        "k",
        "--jobs",
        "0",
    ]);
    assert!(ran.code == Some(2) && ran.stderr.contains("is not a number above zero"), "{ran:?}");
    let to = desk.host.path().join("none");
    let ran = desk.run(&["--from", text(&desk.from), "--to", text(&to), "--key", text(&bob)]);
    assert!(ran.code == Some(2) && ran.stderr.contains("--rename-file") && !to.exists(), "{ran:?}");
}

#[test]
fn secrets_in_places_are_shown_to_nobody() {
    const SECRET: &str = "geh3im";
    let desk = Desk::new();
    let web = Web::start(|heard| {
        let known = heard.header("authorization").is_some();
        Said::new(if known { "503 Service Unavailable" } else { "401 Unauthorized" }).header("Retry-After", "0")
    });
    let web_place = format!("http://user:{SECRET}@{}/base?token={SECRET}", web.address);
    let list = desk.host.write("images.txt", format!("a/app@{}\n", digest('a')));
    let (journal, report) = (desk.host.path().join("journal"), desk.host.path().join("report.json"));
    let (tree, key) = (text(&desk.from).to_owned(), keys::secret("carol"));
    let other_tree = desk.host.path().join("to");
    let places = [
        web_place,
        format!("http://user:{SECRET}@{}/base", web.address),
        format!("s3://key:{SECRET}@bucket/prefix"),
        format!("s3:key:{SECRET}@bucket"),
        format!("docker://user:{SECRET}@127.0.0.1:1/birds"),
        format!("file://user:{SECRET}@host/tree"),
        format!("ftp://user:{SECRET}@host/tree"),
        format!("az://user:{SECRET}@container"),
        format!("gs://user:{SECRET}@bucket"),
    ];
    for place in &places {
        for (from, to) in [(place.as_str(), text(&other_tree)), (tree.as_str(), place.as_str())] {
            for dry_run in [&[][..], &["--dry-run"]] {
                let places = ["--from", from, "--to", to, "--rename", "ibm", "--key", text(&key)];
                let account = ["--images", text(&list), "--journal", text(&journal), "--report", text(&report)];
                let ran = desk.run(&[&places[..], &account, dry_run].concat());
                assert!(matches!(ran.code, Some(1 | 2)), "{place}: {ran:?}");
                let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap_or_default();
                for told in [&ran.stdout, &ran.stderr, &read(&journal), &read(&report)] {
                    assert!(!told.contains(SECRET), "{place}: {told}");
                }
                for file in [&journal, &report] {
                    let _ = std::fs::remove_file(file);
                }
            }
        }
    }
    // A report that was told the places without, and an audit that is told them.
    desk.resign(&["--report", text(&report)]).accepted();
    let public = keys::public("carol");
    for place in &places {
        let args = ["resign", "audit", text(&report), "--policy", text(&desk.policy), "--new-key", text(&public)];
        let ran = desk.host.countersign(&[&args[..], &["--from", place]].concat());
        assert!(
            ran.code != Some(0) && !ran.stdout.contains(SECRET) && !ran.stderr.contains(SECRET),
            "{place}: {ran:?}"
        );
    }
}
