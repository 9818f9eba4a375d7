//! Against what people do today: a program started for each signature.

use std::time::{Duration, Instant};

use crate::job::{resign, text};
use crate::tree::{Key, claim, generate, gpg};
use crate::{Bench, bar, row};

const LONG: Duration = Duration::from_secs(4);

pub fn run(bench: &Bench) {
    let count = bench.count.unwrap_or(100_000).min(20_000);
    println!("peers, RSA-2048, {count} signatures");
    let work = bench.path("peers");
    std::fs::create_dir(&work).unwrap();
    let key = Key::generate(&work, "rsa2048");
    let (payload, manifest, signed) = (work.join("payload"), work.join("manifest.json"), work.join("signed"));
    std::fs::write(&payload, claim(0, 1).0.render().unwrap()).unwrap();
    std::fs::write(&manifest, "{}").unwrap();
    let with_gpg = rate(|| gpg(&key.home).arg("--output").arg(&signed).arg("--sign").arg(&payload).status());
    let with_skopeo = rate(|| {
        std::process::Command::new("skopeo")
            .env("GNUPGHOME", &key.home)
            .arg("standalone-sign")
            .arg(&manifest)
            .args(["us.icr.io/birds/bluebird:1", "bench@test.invalid", "-o"])
            .arg(&signed)
            .status()
    });
    let (from, to) = (work.join("from"), work.join("to"));
    generate(&from, &key.signer, count, 1, bench.cores);
    let ours = count as f64 / resign(text(&from), text(&to), &key, count, &[], &[]).seconds;
    row("gpg --sign in a loop", with_gpg, "/s");
    row("skopeo standalone-sign in a loop", with_skopeo, "/s");
    row("countersign resign, which verifies too", ours, "/s");
    bar("times gpg", ours / with_gpg, "", ">= 30", ours / with_gpg >= 30.0);
    bar("times skopeo", ours / with_skopeo, "", ">= 150", ours / with_skopeo >= 150.0);
}

fn rate(mut once: impl FnMut() -> std::io::Result<std::process::ExitStatus>) -> f64 {
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < LONG {
        assert!(once().unwrap().success());
        done += 1;
    }
    f64::from(done) / start.elapsed().as_secs_f64()
}
