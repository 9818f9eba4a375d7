//! Uploads to the lookaside of a real countersign server that knows its users.

use std::process::Command;

use super::Desk;
use crate::support::client::text;
use crate::support::server::Server;

use countersign::image::Digest;

#[test]
fn uploads_to_a_real_lookaside_with_users() {
    let desk = Desk::new();
    let made = Command::new("htpasswd").args(["-Bbn", "bob", "p@ss/word"]).output();
    let made = made.expect("htpasswd is installed (Debian package apache2-utils)").stdout;
    let users = desk.host.write("htpasswd", made);
    let file = text(&users);
    let audit_log = desk.path("audit.jsonl");
    let config =
        format!("access: {{read: [{{htpasswd: {file}}}], write: [{{htpasswd: {file}}}]}}\naudit_log: {audit_log}\n");
    let config = desk.host.write("countersign.yaml", config);
    let store = desk.host.path().join("taken");
    std::fs::create_dir(&store).unwrap();
    let server = Server::start(&["--store", text(&store), "--config", text(&config)]);

    let tree = desk.host.path().join("old");
    let digests: Vec<Digest> = (0u8..8).map(|seed| Digest::sha256(&[seed])).collect();
    for digest in &digests {
        desk.sign_into(&tree, "birds/robin:1", digest);
    }
    let (journal, report) = (desk.path("journal"), desk.path("report.json"));
    let account = ["--journal", journal.as_str(), "--report", report.as_str()];
    let base = |password: &str| format!("http://bob:{password}@{}/lookaside", server.address);

    // The wrong password: nothing is stored, all is told, nothing is given away.
    let ran = desk.resign(text(&tree), &base("wr0ng-secret"), &account);
    assert_eq!((ran.code, super::totals(&ran)), (Some(1), [0, 0, 0, 0, 8]), "{ran:?}");
    assert!(ran.stderr.contains("401 Unauthorized"), "{ran:?}");
    assert_eq!(super::walk_count(&store), 0);
    let read = |file: &str| std::fs::read_to_string(file).unwrap();
    for told in [&ran.stderr, &ran.stdout, &read(&journal), &read(&report)] {
        assert!(!told.contains("wr0ng-secret"), "{told}");
    }

    // The right one, by the same journal: a password is not what makes a job another.
    let ran = desk.resign(text(&tree), &base("p%40ss%2Fword"), &account);
    assert_eq!((ran.code, super::totals(&ran)), (Some(0), [8, 0, 0, 0, 0]), "{ran:?}");
    for digest in &digests {
        assert_eq!(desk.claims("taken", "birds/robin", digest), ["us.icr.io/birds/robin:1"]);
    }
    assert!(read(&audit_log).contains("bob"), "the server's own account says who it was");
    for told in [&ran.stderr, &ran.stdout, &read(&journal), &read(&report)] {
        assert!(!told.contains("p%40ss") && !told.contains("p@ss"), "{told}");
    }
    // Again: nothing is there twice.
    let ran = desk.resign(text(&tree), &base("p%40ss%2Fword"), &[]);
    assert_eq!((ran.code, super::totals(&ran)), (Some(0), [0, 8, 0, 0, 0]), "{ran:?}");
    assert_eq!(super::walk_count(&store), 8);

    // The report is checked through the same door.
    let ran = desk.audit(&report, &[]);
    assert!(ran.code == Some(2) && ran.stderr.contains("a report keeps no secrets"), "{ran:?}");
    let ran = desk.audit(&report, &["--to", &base("p%40ss%2Fword")]).accepted();
    assert_eq!(super::json(&ran)["signatures"], 8);
    assert!(!ran.stdout.contains("p%40ss"), "{ran:?}");
    let ran = desk.audit(&report, &["--to", &base("wr0ng-secret")]);
    assert!(ran.code == Some(2) && ran.stdout.contains("unknown") && !ran.stdout.contains("wr0ng-secret"), "{ran:?}");
}
