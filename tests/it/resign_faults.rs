//! Bulk re-signing under fire: killed at any moment, on several machines, over a poor source.

#[path = "resign_faults/cloud.rs"]
mod cloud;
#[path = "resign_faults/disk.rs"]
mod disk;
#[path = "resign_faults/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use countersign::image::Digest;
use countersign::openpgp::inspect;
use countersign::signature::Claim;

use crate::support::client::{Host, text};
use crate::support::keys;
use crate::support::moto::Moto;

/// The n-th claim of a moved registry, and the key of its file in a tree.
fn file(n: usize) -> (Claim, String) {
    let digest = Digest::sha256(format!("image {n}").as_bytes());
    let path = format!("team{}/app{}", n % 7, n % 61);
    let key = format!("{path}@{}/signature-1", digest.path_form());
    let reference = format!("registry.ng.bluemix.net/{path}:build{n}");
    (Claim { reference, digest, creator: None, timestamp: None }, key)
}

/// Signs `count` claims of a moved registry into a plain tree, as skopeo would have left it.
fn tree(root: &Path, count: usize) {
    let carol = keys::signer("carol");
    for n in 0..count {
        let (claim, key) = file(n);
        let path = root.join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, keys::signed(&carol, &claim)).unwrap();
    }
}

/// All claims below a folder, with how often each is there; everything must be readable.
fn claims(root: &Path) -> BTreeMap<(String, String), usize> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        let mut numbers = BTreeSet::new();
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let Some(number) = name.strip_prefix("signature-") else { panic!("foreign file {name}") };
            // What a killed writer left beside a name is no signature and is read by nobody.
            let Ok(number) = number.parse::<u32>() else { continue };
            numbers.insert(number);
            let blob = std::fs::read(&path).unwrap();
            let claim =
                Claim::parse(&inspect(&blob).unwrap_or_else(|e| panic!("{}: {e}", path.display())).content).unwrap();
            *found.entry((claim.reference, claim.digest.to_string())).or_default() += 1;
        }
        let dense = (1..=u32::try_from(numbers.len()).unwrap()).collect::<BTreeSet<_>>();
        assert_eq!(numbers, dense, "a gap in {}", folder.display());
    }
    found
}

/// What killed writers left below a folder.
fn leftovers(root: &Path) -> Vec<PathBuf> {
    let files = crate::resign::walk(root).into_iter().filter(|key| key.contains('#'));
    files.map(PathBuf::from).collect()
}

struct Job {
    host: Host,
    count: usize,
    from: PathBuf,
    policy: PathBuf,
}

impl Job {
    fn new(count: usize) -> Self {
        let host = Host::new(Path::new("/nonexistent"));
        let from = host.path().join("from");
        tree(&from, count);
        let policy = host.signed_by_policy("old.json", &keys::public("carol"));
        Self { host, count, from, policy }
    }

    /// The source's files: their keys and what is in them.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        (0..self.count)
            .map(|n| file(n).1)
            .map(|key| (key.clone(), std::fs::read(self.from.join(key)).unwrap()))
            .collect()
    }

    fn command(&self, to: &str, extra: &[&str]) -> Command {
        self.command_from(text(&self.from), to, extra)
    }

    fn command_from(&self, from: &str, to: &str, extra: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command
            .args(["--format", "json", "resign", "--rename", "ibm", "--from", from, "--to", to])
            .args(["--policy", text(&self.policy), "--key", text(&keys::secret("alice"))])
            .args(extra)
            .env("HOME", self.host.path())
            .stdin(Stdio::null());
        command
    }

    fn finish(&self, to: &str, extra: &[&str]) -> serde_json::Value {
        let output = self.command(to, extra).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn kill(mut child: Child) {
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_job_killed_a_hundred_times_loses_and_doubles_nothing() {
    const COUNT: usize = 2_000;
    let job = Job::new(COUNT);
    let to = job.host.path().join("to");
    let journal = job.host.path().join("journal");
    let flags = ["--journal", text(&journal)];
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    for _ in 0..100 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let child = job.command(text(&to), &flags).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(30 + seed % 90));
        kill(child);
    }
    let last = job.finish(text(&to), &flags);
    assert_eq!((&last["refused"], &last["failed"]), (&0.into(), &0.into()));
    let undisturbed = job.host.path().join("undisturbed");
    job.finish(text(&undisturbed), &[]);
    let wanted = claims(&undisturbed);
    assert_eq!(wanted.len(), COUNT);
    assert!(wanted.values().all(|count| *count == 1));
    assert_eq!(claims(&to), wanted);
    assert_eq!(leftovers(&to), Vec::<PathBuf>::new(), "each run takes away what those before it left");

    // Finished: a further run compares everything and writes nothing.
    let before = std::fs::read(&journal).unwrap();
    let again = job.finish(text(&to), &flags);
    assert_eq!((&again["signed"], &again["already"]), (&0.into(), &COUNT.into()));
    assert_eq!(std::fs::read(&journal).unwrap(), before);
    // Other rules are another job.
    let output = job.command(text(&to), &["--journal", text(&journal), "--as-of", "2025-01-01"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn four_shards_share_a_bucket_and_one_is_killed() {
    const COUNT: usize = 120;
    let job = Job::new(COUNT);
    let moto = Moto::shared();
    let bucket = format!("s3://{}/tree", moto.bucket());
    let spawn = |shard: u32| {
        let mut command = job.command(&bucket, &["--shard", &format!("{shard}/4"), "--jobs", "4"]);
        command.envs(moto.variables()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut children: Vec<Child> = (1..=4).map(spawn).collect();
    std::thread::sleep(Duration::from_millis(700));
    kill(children.remove(2));
    children.push(spawn(3));
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    // One undivided run finds that all is there.
    let output = job.command(&bucket, &[]).envs(moto.variables()).output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["signed"], &summary["already"]), (&0.into(), &COUNT.into()), "{output:?}");
}
