//! A large blob through the server, against nginx' `proxy_pass`, both before one registry.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use countersign::image::Digest;
use sha2::Digest as _;

use crate::load::{judged, median};
use crate::peers::Peer;
use crate::support::docker_registry::DockerRegistry;
use crate::support::http;

const BLOB: u64 = 1024 * 1024 * 1024;
const CHUNK: usize = 1024 * 1024;
/// How often the first byte of a blob is waited for.
const FIRST_BYTES: usize = 51;
/// How often a whole blob goes each way.
const ROUNDS: usize = 3;

pub fn run(work: &Path) {
    let registry = DockerRegistry::start();
    let upstream = registry.url();
    let store = work.join("proxy-store");
    let ours = Peer::countersign(&["--upstream", &upstream, "--store", store.to_str().unwrap()], None);
    let inside = format!(
        "    location / {{ proxy_pass {upstream}; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_set_header Host $http_host; proxy_request_buffering off; proxy_buffering on; \
         proxy_max_temp_file_size 0; }}"
    );
    let nginx = Peer::nginx(work, &inside, None);
    // Each upload is of other bytes, since a registry may know a blob already.
    let mut seed = 1;
    let mut up = [Vec::new(), Vec::new()];
    let mut down = [Vec::new(), Vec::new()];
    let mut first = [Vec::new(), Vec::new()];
    let mut known = Vec::new();
    for _ in 0..ROUNDS {
        for (n, peer) in [&ours, &nginx].into_iter().enumerate() {
            let (digest, seconds) = upload(peer.address(), seed);
            seed += 1;
            up[n].push(seconds);
            down[n].push(download(peer.address(), &digest));
            known.push(digest);
        }
    }
    for digest in known.iter().cycle().take(FIRST_BYTES) {
        for (n, peer) in [&ours, &nginx].into_iter().enumerate() {
            first[n].push(begin(peer.address(), digest).2);
            // What the other one does not bring to its end is over then.
            std::thread::sleep(Duration::from_millis(30));
        }
    }
    let gib = BLOB as f64 / (1024.0 * 1024.0 * 1024.0);
    let line = |name: &str, times: [Vec<f64>; 2]| {
        let [our, their] = times.map(median);
        let ratio = their / our;
        println!(
            "{name} of {gib} GiB: countersign {:.0} MiB/s, nginx {:.0} MiB/s, ratio {}",
            1024.0 * gib / our,
            1024.0 * gib / their,
            judged(ratio, Some((0.9, ratio >= 0.9)))
        );
    };
    line("proxy, download", down);
    line("proxy, upload", up);
    let [our, their] = first.map(median);
    let ratio = our / their;
    println!(
        "proxy, time to the first byte: {:.2} ms against {:.2} ms, ratio {}",
        our * 1e3,
        their * 1e3,
        judged(ratio, Some((1.2, ratio <= 1.2)))
    );
    println!("proxy, peak memory after all of it: {} MiB", ours.memory().1 / 1024);
}

/// Fills a chunk with bytes that depend on `seed` and nothing compresses.
fn chunk(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(CHUNK);
    while bytes.len() < CHUNK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn upload(address: &str, seed: u64) -> (Digest, f64) {
    let bytes = chunk(seed);
    let mut hash = sha2::Sha256::new();
    for _ in 0..BLOB / CHUNK as u64 {
        hash.update(&bytes);
    }
    let digest = Digest::parse(&format!("sha256:{}", hex::encode(hash.finalize()))).unwrap();
    let opened = http::request(address, "POST", "/v2/bench/blob/blobs/uploads/", &[], b"");
    let place = opened.header("location").expect("a place to upload to");
    let path = place.split_once("/v2/").unwrap().1;
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "PUT /v2/{path}&digest={digest} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {BLOB}\r\n\r\n"
    )
    .unwrap();
    for _ in 0..BLOB / CHUNK as u64 {
        stream.write_all(&bytes).unwrap();
    }
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    assert!(answer.contains(" 201 "), "{answer}");
    (digest, start.elapsed().as_secs_f64())
}

/// Returns the seconds to the last byte of a blob.
fn download(address: &str, digest: &Digest) -> f64 {
    let start = Instant::now();
    let (mut reader, mut length, _) = begin(address, digest);
    let mut buffer = vec![0; CHUNK];
    while let Ok(more @ 1..) = reader.read(&mut buffer) {
        length += more as u64;
    }
    assert_eq!(length, BLOB);
    start.elapsed().as_secs_f64()
}

/// Returns what brings the rest of a blob, how many of its bytes have come, and the seconds to the first.
fn begin(address: &str, digest: &Digest) -> (BufReader<TcpStream>, u64, f64) {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    let asked = format!("GET /v2/bench/blob/blobs/{digest} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(asked.as_bytes()).unwrap();
    let mut reader = BufReader::with_capacity(CHUNK, stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 "), "{line}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    let length = reader.read(&mut vec![0; CHUNK]).unwrap() as u64;
    assert!(length > 0);
    (reader, length, start.elapsed().as_secs_f64())
}
