//! What ten thousand connections cost that nobody uses.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use crate::peers::Peer;
use crate::tree;

const CONNECTIONS: usize = 10_000;
const BAR_KIB: f64 = 20.0;

pub fn run(work: &Path) {
    let tree = tree::grow(&work.join("idle-tree"), 10);
    let config = work.join("idle.yaml");
    std::fs::write(&config, format!("limits: {{{}}}\n", LIMITS.join(", "))).unwrap();
    let store = tree.root.to_str().unwrap();
    let server = Peer::countersign(&["--store", store, "--config", config.to_str().unwrap()], None);
    let ask = |stream: &mut TcpStream, key: &str| {
        write!(stream, "GET /lookaside/{key} HTTP/1.1\r\nHost: bench\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        let length = stream.read(&mut answer).unwrap();
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..length]));
    };
    ask(&mut TcpStream::connect(server.address()).unwrap(), &tree.keys[0]);
    let before = server.memory().0;
    let mut held = Vec::with_capacity(CONNECTIONS);
    for n in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        ask(&mut stream, &tree.keys[n % tree.keys.len()]);
        held.push(stream);
    }
    let each = (server.memory().0 - before) as f64 / CONNECTIONS as f64;
    let met = if each < BAR_KIB { "met" } else { "NOT met" };
    println!("{CONNECTIONS} idle keep-alive connections, each after one request");
    println!("  {each:>6.2} KiB a connection (bar {BAR_KIB}: {met})");
}

/// What lets one client hold so many for the length of the bench.
const LIMITS: [&str; 3] = ["connections: 16384", "connections_per_client: 16384", "idle_seconds: 600"];
