//! A bucket to a bucket, each request 20 ms away.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use countersign::openpgp::Signer as _;

use crate::job::resign;
use crate::moto::{Moto, venv};
use crate::s3_server::Objects;
use crate::tree::{Key, claim};
use crate::{Bench, bar, relay, row};

const DELAY: Duration = Duration::from_millis(20);

pub fn run(bench: &Bench) {
    println!("S3 with {} ms added to each request, Ed25519", DELAY.as_millis());
    let work = bench.path("s3");
    std::fs::create_dir(&work).unwrap();
    let key = Key::generate(&work, "ed25519");
    moto();
    println!("  (so a server of the bench's own, behind the delaying relay, answers here)");
    let rates = [(1, 100), (16, 2_000), (64, 5_000), (128, 8_000)].map(|(jobs, count)| {
        let objects = Arc::new(Objects::default());
        for n in 0..count {
            let (claim, place) = claim(n, 1);
            let blob = key.signer.sign(&claim.render().unwrap(), SystemTime::now()).unwrap();
            objects.put(&format!("from/{place}"), blob);
        }
        let endpoint = format!("http://{}", relay::start(objects.serve(), DELAY));
        let environment: Vec<(String, String)> = [
            ("AWS_ENDPOINT_URL_S3", endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "bench"),
            ("AWS_SECRET_ACCESS_KEY", "bench"),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let jobs_text = jobs.to_string();
        let ran = resign("s3://b/from", "s3://b/to", &key, count, &["--jobs", &jobs_text], &environment);
        assert_eq!(objects.len(), 2 * count);
        let rate = count as f64 / ran.seconds;
        row(&format!("countersign resign --jobs {jobs}"), rate, "/s");
        rate
    });
    let best = rates.iter().copied().fold(0.0, f64::max);
    bar("the best to one job", best / rates[0], "", ">= 20", best / rates[0] >= 20.0);
}

/// What moto can do by itself: one client after the other's answer, as many as help.
fn moto() {
    if !venv().join("bin/python").exists() {
        println!("  moto is not installed (make needs-test), so what it can do is not measured");
        return;
    }
    let moto = Moto::start();
    let bucket = moto.bucket();
    let start = Instant::now();
    let done: usize = std::thread::scope(|scope| {
        let one = |part: usize| {
            let mut done = 0;
            while start.elapsed() < Duration::from_secs(3) {
                assert_eq!(moto.put(&format!("{bucket}/{part}/{done}"), b"signature"), 200);
                done += 1;
            }
            done
        };
        let threads: Vec<_> = (0..16).map(|part| scope.spawn(move || one(part))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    row("moto alone, PUTs, 16 clients", done as f64 / start.elapsed().as_secs_f64(), "/s");
}
