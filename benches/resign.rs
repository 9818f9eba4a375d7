//! Bulk re-signing against its physical bounds and against the tools of today, in one run.
//!
//! `make bench`, or `cargo bench --bench resign -- [COUNT]`. Prints ratios; asserts nothing about time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench")]
#![allow(missing_docs, reason = "a bench")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use countersign::image::Digest;
use countersign::openpgp::{Keyring, Signer, SoftSigner, VerifyOptions, verify};
use countersign::signature::Claim;

/// How long each micro-benchmark runs.
const SHORT: Duration = Duration::from_secs(2);
const KEYS: [&str; 3] = ["rsa2048", "rsa4096", "ed25519"];

fn main() {
    let count = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(100_000);
    let work = tempfile::Builder::new().prefix("countersign-bench").tempdir_in(target()).unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    println!("bulk re-signing of {count} signatures on {cores} cores, folder {}", work.path().display());
    let disk = disk_rate(&work.path().join("disk"), count.min(20_000), cores);
    println!("  durable small files, one barrier a group   {disk:>9.0} /s");
    for key in KEYS {
        bench_key(work.path(), key, count, cores, disk);
    }
}

fn target() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    std::fs::create_dir_all(&target).unwrap();
    target
}

fn bench_key(work: &Path, algorithm: &str, count: usize, cores: usize, disk: f64) {
    println!("{algorithm}");
    let home = work.join(format!("gnupg-{algorithm}"));
    let secret = generate(&home, algorithm);
    let now = SystemTime::now();
    let signer = SoftSigner::load(&secret, None, now).unwrap();
    let (verifies, signs) = micro(&signer, &secret, now);
    let processor = cores as f64 / (1.0 / verifies + 1.0 / signs);
    println!("  one verification                           {verifies:>9.0} /s a core");
    println!("  one signature                              {signs:>9.0} /s a core");

    let from = work.join(format!("from-{algorithm}"));
    generate_tree(&from, &signer, count, cores, now);
    let key = work.join(format!("{algorithm}.key"));
    std::fs::write(&key, &secret).unwrap();
    let policy = work.join(format!("{algorithm}.json"));
    let requirement = serde_json::json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": key});
    std::fs::write(&policy, serde_json::json!({"default": [requirement]}).to_string()).unwrap();
    let to = work.join(format!("to-{algorithm}"));
    let (seconds, peak) = resign(&from, &to, &policy, &key, count);
    let rate = count as f64 / seconds;
    let bound = processor.min(disk);
    let which = if processor < disk { "processors" } else { "disk" };
    println!("  countersign resign                         {rate:>9.0} /s, peak memory {} MiB", peak / 1024);
    println!("  bound ({which:<10})                         {bound:>9.0} /s -> {:.0} % of it", 100.0 * rate / bound);
    if algorithm == "rsa2048" {
        let (gpg, skopeo) = (gpg_loop(&home, work), skopeo_loop(&home, work));
        println!("  gpg --sign in a loop                       {gpg:>9.1} /s -> {:.0} times", rate / gpg);
        println!("  skopeo standalone-sign in a loop           {skopeo:>9.1} /s -> {:.0} times", rate / skopeo);
    }
    std::fs::remove_dir_all(&from).unwrap();
    std::fs::remove_dir_all(&to).unwrap();
    let _ = Command::new("gpgconf").arg("--homedir").arg(&home).args(["--kill", "all"]).status();
}

fn gpg(home: &Path) -> Command {
    let mut command = Command::new("gpg");
    command.arg("--homedir").arg(home).args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"]);
    command.args(["--passphrase", "", "--trust-model", "always"]);
    command
}

fn generate(home: &Path, algorithm: &str) -> Vec<u8> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir(home).unwrap();
    std::fs::set_permissions(home, std::fs::Permissions::from_mode(0o700)).unwrap();
    let made = gpg(home).args(["--quick-gen-key", "bench@test.invalid", algorithm, "sign", "never"]).status();
    assert!(made.expect("gpg is installed").success());
    gpg(home).args(["--export-secret-keys"]).output().unwrap().stdout
}

fn claim(n: usize) -> (Claim, String) {
    let digest = Digest::sha256(format!("image {n}").as_bytes());
    let path = format!("team{}/app{}", n % 97, n % 1009);
    let place = format!("{path}@{}", digest.path_form());
    (Claim { reference: format!("registry.ng.bluemix.net/{path}:b{n}"), digest, creator: None, timestamp: None }, place)
}

/// Verifications and signatures a second of one thread, on distinct messages.
fn micro(signer: &SoftSigner, key: &[u8], now: SystemTime) -> (f64, f64) {
    let mut messages = Vec::new();
    let start = Instant::now();
    while start.elapsed() < SHORT {
        messages.push(signer.sign(&claim(messages.len()).0.render().unwrap(), now).unwrap());
    }
    let signs = messages.len() as f64 / start.elapsed().as_secs_f64();
    let keyring = Keyring::parse([key]);
    let start = Instant::now();
    let mut verified = 0;
    for message in messages.iter().cycle() {
        verify(message, &keyring, &VerifyOptions::at(now)).unwrap();
        verified += 1;
        if start.elapsed() > SHORT {
            break;
        }
    }
    (f64::from(verified) / start.elapsed().as_secs_f64(), signs)
}

fn generate_tree(root: &Path, signer: &SoftSigner, count: usize, cores: usize, now: SystemTime) {
    std::thread::scope(|scope| {
        for part in 0..cores {
            scope.spawn(move || {
                for n in (part..count).step_by(cores) {
                    let (claim, place) = claim(n);
                    let folder = root.join(place);
                    std::fs::create_dir_all(&folder).unwrap();
                    let blob = signer.sign(&claim.render().unwrap(), now).unwrap();
                    std::fs::write(folder.join("signature-1"), blob).unwrap();
                }
            });
        }
    });
    // What the generator left to be written is not to be paid by the job.
    rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
}

/// Files in folders of their own, durable by two barriers a group, as fast as this disk makes them.
fn disk_rate(root: &Path, count: usize, cores: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for part in 0..cores {
            scope.spawn(move || {
                let mine: Vec<PathBuf> = (part..count).step_by(cores).map(|n| root.join(claim(n).1)).collect();
                for group in mine.chunks(2048) {
                    for folder in group {
                        std::fs::create_dir_all(folder).unwrap();
                        std::fs::write(folder.join("staged"), [0x5a; 480]).unwrap();
                    }
                    rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
                    for folder in group {
                        std::fs::rename(folder.join("staged"), folder.join("signature-1")).unwrap();
                    }
                    rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
                }
            });
        }
    });
    count as f64 / start.elapsed().as_secs_f64()
}

/// Runs the real binary; returns its wall time and its peak memory in KiB.
fn resign(from: &Path, to: &Path, policy: &Path, key: &Path, count: usize) -> (f64, u64) {
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["--format", "json", "resign", "--rename", "ibm", "--from"])
        .arg(from)
        .arg("--to")
        .arg(to)
        .arg("--policy")
        .arg(policy)
        .arg("--key")
        .arg(key)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(10));
    }
    let seconds = start.elapsed().as_secs_f64();
    let output = child.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["signed"], count, "{summary}");
    (seconds, peak)
}

fn gpg_loop(home: &Path, work: &Path) -> f64 {
    let payload = work.join("payload");
    std::fs::write(&payload, claim(0).0.render().unwrap()).unwrap();
    rate(|| gpg(home).arg("--output").arg(work.join("signed")).arg("--sign").arg(&payload).status())
}

fn skopeo_loop(home: &Path, work: &Path) -> f64 {
    let manifest = work.join("manifest.json");
    std::fs::write(&manifest, "{}").unwrap();
    rate(|| {
        Command::new("skopeo")
            .env("GNUPGHOME", home)
            .arg("standalone-sign")
            .arg(&manifest)
            .args(["us.icr.io/birds/bluebird:1", "bench@test.invalid", "-o"])
            .arg(work.join("signed"))
            .status()
    })
}

fn rate(mut once: impl FnMut() -> std::io::Result<std::process::ExitStatus>) -> f64 {
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < 2 * SHORT {
        assert!(once().unwrap().success());
        done += 1;
    }
    f64::from(done) / start.elapsed().as_secs_f64()
}
