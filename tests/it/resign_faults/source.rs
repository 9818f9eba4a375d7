//! A source that is poor, odd, or changes while it is read.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use countersign::image::Digest;
use countersign::openpgp::{Signer, SoftSigner};
use countersign::signature::Claim;

use super::{Job, claims, file};
use crate::openpgp::gpg::Home;
use crate::support::client::{Host, text};
use crate::support::keys;

fn summary(output: &std::process::Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// Every hundredth signature is bad, in seven ways; all others are signed, and none of those.
#[test]
fn one_in_a_hundred_is_bad_in_every_way() {
    const COUNT: usize = 2_000;
    let job = Job::new(COUNT);
    let home = Home::new();
    let past = "20240101T000000";
    let gone = home.generate(&["--faked-system-time", past], "gone@test.invalid", "ed25519", "sign", "1m");
    let lasting = home.generate(&["--faked-system-time", past], "lasting@test.invalid", "ed25519", "sign", "never");
    let keys = [std::fs::read(keys::public("carol")).unwrap(), home.public(&gone), home.public(&lasting)];
    // Each file of keys as it is: armoured and binary ones do not stand in one file.
    let requirement = |path: &Path| serde_json::json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": path});
    let ring = Host::new(Path::new("/nonexistent"));
    let armoured = home.ok(&["--armor", "--export"], b"");
    let path = ring.write("ring.asc", [keys[0].clone(), armoured].concat());
    std::fs::write(&job.policy, serde_json::json!({"default": [requirement(&path)]}).to_string()).unwrap();

    let carol = keys::signer("carol");
    let bob = keys::signer("bob");
    let with_gpg = |n: usize, more: &[&str]| {
        let payload = file(n).0.render().unwrap();
        home.ok(&[&["--faked-system-time", "20240115T000000"], more, &["--sign"]].concat(), &payload)
    };
    let ways = 7;
    let mut expected = [0u64; 7];
    for n in (0..COUNT).step_by(100) {
        let (claim, key) = file(n);
        let way = n / 100 % ways;
        expected[way] += 1;
        let blob = match way {
            0 => {
                let mut bytes = keys::signed(&carol, &claim);
                let last = bytes.len() - 3;
                bytes[last] ^= 1;
                bytes
            }
            1 => with_gpg(n, &["--local-user", &gone]),
            2 => with_gpg(n, &["--local-user", &lasting, "--default-sig-expire", "1m"]),
            3 => keys::signed(&carol, &Claim { reference: "registry.ng.bluemix.net/other/name:1".into(), ..claim }),
            4 => keys::signed(&carol, &Claim { digest: Digest::sha256(b"another"), ..claim }),
            5 => b"<html>Not found</html>".to_vec(),
            _ => keys::signed(&bob, &claim),
        };
        std::fs::write(job.from.join(key), blob).unwrap();
    }
    let to = job.host.path().join("to");
    let output = job.command(text(&to), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (summary, bad) = (summary(&output), COUNT / 100);
    assert_eq!(
        (&summary["signed"], &summary["refused"], &summary["failed"]),
        (&(COUNT - bad).into(), &bad.into(), &0.into()),
        "{summary}"
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.lines().filter(|line| line.starts_with("refused ")).count(), bad, "{said}");
    for (way, reason) in [
        "bad signature",
        "expired on 2024-0",
        "Signature expired on 2024-0",
        "but is stored under team",
        "but is stored under sha256:",
        "unrecognized signature format",
        "Key not found for key ID",
    ]
    .into_iter()
    .enumerate()
    {
        let told = said.lines().filter(|line| line.contains(reason)).count() as u64;
        // "expired on" is said of keys and, in another sentence, of signatures.
        let wanted = if way == 1 { expected[1] + expected[2] } else { expected[way] };
        assert_eq!(told, wanted, "{reason}: {said}");
    }
    let written = claims(&to);
    assert_eq!(written.len(), COUNT - bad);
    for n in (0..COUNT).step_by(100) {
        let digest = file(n).0.digest.to_string();
        assert!(!written.keys().any(|(_, signed)| *signed == digest), "{n} was signed");
    }
}

#[test]
fn what_is_signed_is_what_was_verified_whatever_the_file_becomes() {
    const COUNT: usize = 40;
    let job = Job::new(COUNT);
    let (carol, bob) = (keys::signer("carol"), keys::signer("bob"));
    let versions: Vec<[Vec<u8>; 4]> = (0..COUNT)
        .map(|n| {
            let claim = file(n).0;
            let reference = claim.reference.replace("build", "evil");
            let good = keys::signed(&carol, &claim);
            let torn = good[..good.len() / 2].to_vec();
            let forged = keys::signed(&bob, &Claim { reference, ..claim });
            [good, forged, torn, Vec::new()]
        })
        .collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                for (n, versions) in versions.iter().enumerate() {
                    let path = job.from.join(file(n).1);
                    let bytes = &versions[(round + n) % versions.len()];
                    // Now and then in place, so that a reader may see half of it.
                    if round % 2 == 0 {
                        let beside = path.with_extension("new");
                        std::fs::write(&beside, bytes).unwrap();
                        std::fs::rename(beside, path).unwrap();
                    } else {
                        std::fs::write(path, bytes).unwrap();
                    }
                }
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let mut signed = 0;
        for round in 0..12 {
            let to = job.host.path().join(format!("to-{round}"));
            let output = job.command(text(&to), &[]).stderr(std::process::Stdio::null()).output().unwrap();
            assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
            let written = claims(&to);
            assert!(written.keys().all(|(name, _)| name.starts_with("us.icr.io/") && name.contains(":build")));
            assert_eq!(summary(&output)["signed"], written.len());
            signed += written.len();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(signed > 0, "nothing was ever good while it was read");
    });
}

#[test]
fn gaps_foreign_files_and_links_out_of_the_tree() {
    const COUNT: usize = 30;
    let job = Job::new(COUNT);
    let outside = Job::new(COUNT + 10);
    // A gap: the only signature is the fifth.
    let first = job.from.join(file(0).1);
    std::fs::rename(&first, first.with_file_name("signature-5")).unwrap();
    for (name, content) in [("README", "x"), ("team1/notes.txt", "x"), ("team0/x@sha256=zz/signature-1", "x")] {
        let path = job.from.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(first.with_file_name("signature-x"), "x").unwrap();
    std::fs::write(first.with_file_name("signature-2.sig"), "x").unwrap();
    // Good signatures, but they lie elsewhere: a set, a repository's folder, one file.
    let link = |n: usize, up: &dyn Fn(&Path) -> std::path::PathBuf| {
        let (target, place) = (up(&outside.from.join(file(n).1)), up(&job.from.join(file(n).1)));
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, place).unwrap();
    };
    link(COUNT, &|path| path.parent().unwrap().to_owned());
    link(COUNT + 1, &Path::to_owned);
    std::os::unix::fs::symlink(outside.from.join("team3"), job.from.join("team3-elsewhere")).unwrap();
    let to = job.host.path().join("to");
    let done = job.finish(text(&to), &[]);
    assert_eq!((&done["signed"], &done["refused"], &done["failed"]), (&COUNT.into(), &0.into(), &0.into()));
    let wanted: BTreeSet<String> = (0..COUNT).map(|n| file(n).0.digest.to_string()).collect();
    assert_eq!(claims(&to).into_keys().map(|(_, digest)| digest).collect::<BTreeSet<_>>(), wanted);
}

#[test]
fn ten_thousand_signatures_of_one_image() {
    const COUNT: usize = 10_000;
    let job = Job::new(1);
    let folder = job.from.join(file(0).1).parent().unwrap().to_owned();
    let carol: SoftSigner = keys::signer("carol");
    let (claim, now) = (file(0).0, SystemTime::now());
    // Half of them say the same, the others have a tag each, more than an image can ever have.
    for n in 1..=COUNT {
        let reference = if n % 2 == 0 { claim.reference.clone() } else { format!("{}-{n}", claim.reference) };
        let payload = Claim { reference, ..claim.clone() }.render().unwrap();
        std::fs::write(folder.join(format!("signature-{n}")), carol.sign(&payload, now).unwrap()).unwrap();
    }
    let to = job.host.path().join("to");
    let start = Instant::now();
    let run = || job.command(text(&to), &[]).output().unwrap();
    let output = run();
    let done = summary(&output);
    assert_eq!(output.status.code(), Some(1), "{done}");
    assert_eq!((&done["signed"], &done["refused"]), (&127.into(), &0.into()), "{done}");
    assert_eq!(done["failed"], COUNT / 2 + 1 - 127, "{done}");
    assert_eq!(done["already"], COUNT / 2 - 1, "{done}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("clients fail the pull at one more"), "{}", &said[..said.len().min(600)]);
    assert_eq!(claims(&to).len(), 127);
    let again = summary(&run());
    assert_eq!((&again["signed"], &again["failed"]), (&0.into(), &done["failed"]), "{again}");
    // Not a matter of seconds, but of not growing with the square of the number.
    assert!(start.elapsed() < Duration::from_secs(120), "it took {:?}", start.elapsed());
}
