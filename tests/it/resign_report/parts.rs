//! Reports of the parts of a job, made one account.

use super::*;

#[test]
fn parts_are_joined() {
    let desk = Desk::new();
    let parts: Vec<PathBuf> =
        (1..=3).map(|index| desk.report(&format!("{index}.json"), &["--shard", &format!("{index}/3")]).0).collect();
    let all = desk.path("all.json");
    let merge = |parts: &[&Path], extra: &[&str]| {
        let parts: Vec<&str> = parts.iter().map(|path| text(path)).collect();
        desk.host.countersign(&[&["resign", "merge-reports"], &parts[..], &["-o", text(&all)], extra].concat())
    };
    merge(&[&parts[0], &parts[1], &parts[2]], &[]).accepted();
    let merged = read(&all);
    assert_eq!(merged["totals"], json!({"signed": 3, "already": 1, "unmatched": 1, "refused": 1, "failed": 0}));
    assert_eq!((&merged["incomplete"], &merged["job"]["shard"]), (&Value::Null, &json!("1/1")));
    assert_eq!(desk.right(&all)["signatures"], 4);
    let ran = merge(&[&parts[2], &parts[0]], &[]);
    assert!(ran.code == Some(1) && ran.stdout.contains("missing: part 2/3"), "{ran:?}");
    merge(&[&parts[2], &parts[0]], &["--allow-missing"]).accepted();
    assert_eq!(read(&all)["incomplete"], "no report of part 2/3");
    desk.wrong(&all, "no report of part 2/3");
    let ran = merge(&[&parts[0], &parts[0]], &[]);
    assert!(ran.code == Some(2) && ran.stderr.contains("both tell of part 1/3"), "{ran:?}");
    let other = desk.report("other.json", &["--rename", "x.example=y.example", "--shard", "2/3"]).0;
    let ran = merge(&[&parts[0], &other], &[]);
    assert!(ran.code == Some(2) && ran.stderr.contains("different jobs: rename rules"), "{ran:?}");
}

#[test]
fn pods_of_an_indexed_job_make_one_account() {
    let desk = Desk::new();
    let key = keys::secret("carol");
    let pod = |index: u32, journal: u32| {
        let (journal, report) = (desk.path(&format!("journal-{journal}")), desk.path(&format!("pod-{index}.json")));
        let places = ["--from", text(&desk.from), "--to", text(&desk.to), "--policy", text(&desk.policy)];
        let account = ["--journal", text(&journal), "--report", text(&report)];
        std::process::Command::new(env!("CARGO_BIN_EXE_countersign"))
            .args(["resign", "--shard", "auto", "--rename", "ibm", "--key", text(&key)])
            .args(places)
            .args(account)
            .env("JOB_COMPLETION_INDEX", index.to_string())
            .env("COUNTERSIGN_SHARDS", "3")
            .output()
            .unwrap()
    };
    for index in 0..3 {
        // A pod that was started again does its part once.
        for _ in 0..2 {
            let ran = Ran::of(pod(index, index));
            assert!(ran.code == Some(0) || ran.code == Some(1), "{ran:?}");
        }
        assert_eq!(read(&desk.path(&format!("pod-{index}.json")))["shards"], json!([format!("{}/3", index + 1)]));
    }
    let ran = Ran::of(pod(0, 1));
    assert!(ran.code == Some(2) && ran.stderr.contains("its shard was \"2/3\", now it is \"1/3\""), "{ran:?}");
    let pods = [0, 1, 2].map(|index| desk.path(&format!("pod-{index}.json")));
    let all = desk.path("all.json");
    let args = ["resign", "merge-reports", text(&pods[0]), text(&pods[1]), text(&pods[2]), "-o", text(&all)];
    desk.host.countersign(&args).accepted();
    assert_eq!(read(&all)["totals"], json!({"signed": 3, "already": 1, "unmatched": 1, "refused": 1, "failed": 0}));
    assert_eq!(desk.right(&all)["signatures"], 4);
}
