//! The stored signatures that are asked for, and who asks for which how often.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use countersign::image::Digest;

/// About what an RSA-2048 signature of a claim takes.
const BLOB_BYTES: usize = 560;
/// How many requests the load driver cycles through.
const DRAWS: usize = 50_000;

/// A tree of `count` digests with one signature each, and the paths to them.
pub struct Tree {
    pub root: PathBuf,
    /// `team1/app1@sha256=…/signature-1`.
    pub keys: Vec<String>,
}

pub fn grow(root: &Path, count: usize) -> Tree {
    let keys: Vec<String> = (0..count).map(key).collect();
    for (n, key) in keys.iter().enumerate() {
        let file = root.join(key);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, blob(n)).unwrap();
    }
    Tree { root: root.to_owned(), keys }
}

pub fn key(n: usize) -> String {
    let digest = Digest::sha256(format!("image {n}").as_bytes());
    format!("team{}/app{}@{}/signature-1", n % 97, n % 1009, digest.path_form())
}

/// Bytes of the form of an OpenPGP message, different for each number.
pub fn blob(n: usize) -> Vec<u8> {
    let mut state = n as u64 ^ 0x9E37_79B9_7F4A_7C15;
    let mut blob = vec![0x90, 0x0d, 0x03];
    while blob.len() < BLOB_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        blob.extend_from_slice(&state.to_le_bytes());
    }
    blob.truncate(BLOB_BYTES);
    blob
}

/// Writes the request paths, one a line, drawn by Zipf's law with exponent 1.
pub fn draw(file: &Path, prefix: &str, keys: &[String]) {
    let mut sums = Vec::with_capacity(keys.len());
    let mut total = 0.0;
    for rank in 1..=keys.len() {
        total += 1.0 / rank as f64;
        sums.push(total);
    }
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut lines = String::new();
    for _ in 0..DRAWS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = (state >> 11) as f64 / (1u64 << 53) as f64 * total;
        let rank = sums.partition_point(|sum| *sum < at).min(keys.len() - 1);
        writeln!(lines, "{prefix}{}", keys[rank]).unwrap();
    }
    std::fs::write(file, lines).unwrap();
}
