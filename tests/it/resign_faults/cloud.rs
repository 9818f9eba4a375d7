//! A bucket that fails in every way it can.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Job;
use crate::support::client::text;
use crate::support::faulty_relay::{Asked, Fault, INTERNAL, Relay, SLOW_DOWN};
use crate::support::http;
use crate::support::moto::Moto;

const COUNT: usize = 40;

fn address(moto: &Moto) -> String {
    moto.endpoint().trim_start_matches("http://").to_owned()
}

/// The environment that leads to the bucket by way of a relay.
fn through(moto: &Moto, relay: &Relay) -> BTreeMap<String, String> {
    let mut variables = moto.variables();
    variables.insert("AWS_ENDPOINT_URL_S3".to_owned(), format!("http://{}", relay.address));
    variables
}

/// Runs a job until it says that all is done; each run but the last may have failed items only.
fn until_done(job: &Job, from: &str, to: &str, variables: &BTreeMap<String, String>) {
    let journal = job.host.path().join("journal");
    let mut last = String::new();
    for _ in 0..12 {
        let mut command = job.command_from(from, to, &["--jobs", "8", "--journal", text(&journal)]);
        let output = command.envs(variables).output().unwrap();
        if output.status.success() {
            return;
        }
        last = format!("{output:?}");
        assert_eq!(output.status.code(), Some(1), "{last}");
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(summary["refused"], 0, "a failing server is no reason to refuse: {summary}");
        assert_ne!(summary["failed"], 0, "{summary}");
    }
    panic!("twelve runs were not enough: {last}");
}

/// Every claim is there exactly once: as many objects as claims, and a run without faults finds
/// each claim.
fn exactly_once(job: &Job, moto: &Moto, bucket: &str) {
    let listing = http::get(&address(moto), &format!("/{bucket}?list-type=2&prefix=to/")).text();
    assert_eq!(listing.matches("<Key>").count(), COUNT, "{listing}");
    let to = format!("s3://{bucket}/to");
    let output = job.command(&to, &[]).envs(moto.variables()).output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["signed"], &summary["already"]), (&0.into(), &COUNT.into()), "{output:?}");
}

fn survives(plan: impl Fn(&Asked) -> Fault + Send + Sync + 'static) {
    let job = Job::new(COUNT);
    let moto = Moto::shared();
    let bucket = moto.bucket();
    let relay = Relay::start(&address(moto), plan);
    until_done(&job, text(&job.from), &format!("s3://{bucket}/to"), &through(moto, &relay));
    assert!(relay.faults() > 5, "only {} requests went wrong", relay.faults());
    exactly_once(&job, moto, &bucket);
}

#[test]
fn a_bucket_that_answers_500_and_503() {
    survives(|asked| match asked.number % 5 {
        1 => SLOW_DOWN,
        3 => INTERNAL,
        _ => Fault::None,
    });
}

#[test]
fn a_slow_bucket() {
    survives(|asked| if asked.number % 9 == 0 { Fault::Slow(Duration::from_secs(2)) } else { Fault::None });
}

#[test]
fn a_create_that_succeeds_and_is_denied_or_never_answered() {
    survives(|asked| match (asked.method.as_str(), asked.number % 4) {
        ("PUT", 0) => Fault::Lost,
        ("PUT", 1) => Fault::DoneAndDenied,
        _ => Fault::None,
    });
}

#[test]
fn torn_answers_of_the_source() {
    let job = Job::new(COUNT);
    let moto = Moto::shared();
    let bucket = moto.bucket();
    for (key, blob) in job.files() {
        assert_eq!(moto.put(&format!("{bucket}/from/{key}"), &blob), 200);
    }
    let relay = Relay::start(&address(moto), |asked| match (asked.method.as_str(), asked.number % 7) {
        ("GET", 3) => Fault::Torn,
        ("GET", 5) => Fault::Lost,
        _ => Fault::None,
    });
    let (from, to) = (format!("s3://{bucket}/from"), format!("s3://{bucket}/to"));
    until_done(&job, &from, &to, &through(moto, &relay));
    assert!(relay.faults() > 5);
    exactly_once(&job, moto, &bucket);
}
