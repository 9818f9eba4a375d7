//! Signatures in a bucket: what the first request for a digest costs, and what the next ones do.

use std::path::Path;
use std::time::Instant;

use crate::load::{Drive, drive};
use crate::peers::Peer;
use crate::support::http;
use crate::support::moto::Moto;
use crate::tree;

/// So few that moto can give them all anew within the life of a cached set.
const DIGESTS: usize = 50;

pub fn run(work: &Path) {
    let moto = Moto::start();
    let bucket = moto.bucket();
    let keys: Vec<String> = (0..DIGESTS).map(tree::key).collect();
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(moto.put(&format!("{bucket}/{}", key.replace('@', "%40").replace('=', "%3D")), &tree::blob(n)), 200);
    }
    let paths = work.join("s3-paths");
    tree::draw(&paths, "/lookaside/", &keys);
    let server = Peer::countersign_with(&["--store", &format!("s3://{bucket}")], &moto.variables());
    let start = Instant::now();
    for key in &keys {
        assert_eq!(http::get(server.address(), &format!("/lookaside/{key}")).status, 200);
    }
    let cold = start.elapsed().as_secs_f64() * 1e6 / keys.len() as f64;
    let warm = drive(&server, Drive::hits(&paths, 5));
    println!("lookaside over S3 (moto, which is slow itself)");
    println!("  first request for a digest {cold:>8.0} us; then {:>8.0} /s, p99 {} us", warm.rate, warm.p99);
}
