//! A local tree to a local tree: against the processors and the disk of this machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use countersign::openpgp::{Keyring, Signer, SoftSigner, VerifyOptions, verify};

use crate::job::{resign, text};
use crate::tree::{Key, claim, generate};
use crate::{Bench, bar, cpu, row};

/// How long each micro-benchmark runs.
const SHORT: Duration = Duration::from_secs(2);

pub fn run(bench: &Bench) {
    let count = bench.count.unwrap_or(100_000);
    println!("local tree to local tree, {count} signatures of as many images, with a journal");
    for algorithm in ["rsa2048", "rsa4096", "ed25519"] {
        one(bench, algorithm, count);
    }
}

fn one(bench: &Bench, algorithm: &str, count: usize) {
    println!(" {algorithm}");
    let key = Key::generate(bench.work.path(), algorithm);
    let (verifies, signs) = micro(&key.signer, &key.secret, bench.cores);
    row("one verification, of one core", verifies, "/s");
    row("one signature, of one core", signs, "/s");
    let alone = 1.0 / verifies + 1.0 / signs;
    let processors = bench.cores as f64 / alone;
    row("bound (a): cores / (verification + signature)", processors, "/s");
    let disk = disk_rate(&bench.path(&format!("disk-{algorithm}")), count.min(20_000), bench.cores);
    row("bound (b): durable small files, in groups", disk, "/s");

    let (from, to) = (bench.path(&format!("from-{algorithm}")), bench.path(&format!("to-{algorithm}")));
    generate(&from, &key.signer, count, 1, bench.cores);
    let journal = bench.path(&format!("journal-{algorithm}"));
    let ran = resign(text(&from), text(&to), &key, count, &["--journal", text(&journal)], &[]);
    let rate = count as f64 / ran.seconds;
    row("countersign resign", rate, "/s");
    row("its peak memory", ran.peak as f64 / 1024.0, "MiB");
    row("its processor time a signature", ran.cpu / count as f64 * 1e6, "us");
    row("of that, verification and signature", 100.0 * alone * count as f64 / ran.cpu, "%");
    let share = 100.0 * rate / processors.min(disk);
    let which = if processors < disk { "share of the bound (a: processors)" } else { "share of the bound (b: disk)" };
    bar(which, share, "%", ">= 85", share >= 85.0);
}

/// Verifications and signatures that a core does in a second of its time, on distinct messages,
/// while the other cores do the same.
fn micro(signer: &SoftSigner, key: &[u8], cores: usize) -> (f64, f64) {
    let now = SystemTime::now();
    let keyring = &Keyring::parse([key]);
    let rates: Vec<(f64, f64)> = std::thread::scope(|scope| {
        let one = |part: usize| {
            let mut messages = Vec::new();
            let signs = rate(|n| {
                let payload = claim(n * cores + part, 1).0.render().unwrap();
                messages.push(signer.sign(&payload, now).unwrap());
            });
            let verifies = rate(|n| {
                verify(&messages[n % messages.len()], keyring, &VerifyOptions::at(now)).unwrap();
            });
            (verifies, signs)
        };
        let threads: Vec<_> = (0..cores).map(|part| scope.spawn(move || one(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mean = |of: fn(&(f64, f64)) -> f64| rates.iter().map(of).sum::<f64>() / rates.len() as f64;
    (mean(|rate| rate.0), mean(|rate| rate.1))
}

fn rate(mut once: impl FnMut(usize)) -> f64 {
    let (start, used) = (Instant::now(), cpu::thread());
    let mut done = 0;
    while start.elapsed() < SHORT {
        once(done);
        done += 1;
    }
    done as f64 / (cpu::thread() - used).as_secs_f64()
}

/// Files in folders of their own, durable by two barriers a group, as fast as this disk makes them.
fn disk_rate(root: &Path, count: usize, cores: usize) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for part in 0..cores {
            scope.spawn(move || {
                let mine: Vec<PathBuf> = (part..count).step_by(cores).map(|n| root.join(claim(n, 1).1)).collect();
                for group in mine.chunks(2048) {
                    for file in group {
                        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                        std::fs::write(file.with_extension("staged"), [0x5a; 480]).unwrap();
                    }
                    rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
                    for file in group {
                        std::fs::rename(file.with_extension("staged"), file).unwrap();
                    }
                    rustix::fs::syncfs(std::fs::File::open(root).unwrap()).unwrap();
                }
            });
        }
    });
    count as f64 / start.elapsed().as_secs_f64()
}
