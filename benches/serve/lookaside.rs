//! Stored signatures over the lookaside, against nginx on the same tree.

use std::path::Path;
use std::time::Instant;

use crate::load::{Bars, Drive, compare, print};
use crate::peers::{Certificate, Peer, certificate};
use crate::support::http;
use crate::tree;

const DIGESTS: usize = 10_000;
const SECONDS: u32 = 5;

pub fn run(work: &Path) {
    let tree = tree::grow(&work.join("tree"), DIGESTS);
    let (paths, missing) = (work.join("paths"), work.join("missing"));
    tree::draw(&paths, "/lookaside/", &tree.keys);
    let second: Vec<String> = tree.keys.iter().map(|key| key.replace("signature-1", "signature-2")).collect();
    tree::draw(&missing, "/lookaside/", &second);
    let tls = certificate(work);
    let start = |tls: Option<&Certificate>| {
        let root = tree.root.to_str().unwrap();
        let nginx = Peer::nginx(work, &format!("    location /lookaside/ {{ alias {root}/; }}"), tls);
        (Peer::countersign(&["--store", root], tls), nginx)
    };
    let hits = Drive::hits(&paths, SECONDS);
    let misses = Drive { paths: &missing, missing: true, ..hits };
    {
        let (ours, nginx) = start(None);
        // Asked for all it can do, a server that answers as fast as the driver asks has the scheduler's
        // slices for a tail (docs/performance.md); so tails are compared where there is a pause.
        let most = Bars { p99: None, ..Bars::ALL };
        let tail = Bars { p99: Some(1.0), ..Bars::default() };
        for (name, how, bars) in [
            ("lookaside, keep-alive", hits, most),
            ("lookaside, keep-alive, a pause between", Drive { paced: true, ..hits }, tail),
            ("lookaside, 404, keep-alive", misses, most),
            ("lookaside, 404, keep-alive, a pause between", Drive { paced: true, ..misses }, tail),
            ("lookaside, a new connection each", Drive { reconnect: true, ..hits }, Bars::ALL),
            ("lookaside, 404, a new connection each", Drive { reconnect: true, ..misses }, Bars::ALL),
        ] {
            print(name, compare((&ours, how), (&nginx, how)), bars);
        }
    }
    {
        let (ours, nginx) = start(Some(&tls));
        for (name, how) in [
            ("lookaside, TLS, keep-alive", hits),
            ("lookaside, TLS, a new connection each", Drive { reconnect: true, ..hits }),
        ] {
            print(name, compare((&ours, how), (&nginx, how)), Bars::ALL);
        }
    }
    cold(&tree, start(None));
}

/// The first request for a digest, when nothing is cached but by the system.
fn cold(tree: &tree::Tree, (ours, nginx): (Peer, Peer)) {
    const ASKED: usize = 1_000;
    let first = |peer: &Peer| {
        let start = Instant::now();
        for key in &tree.keys[..ASKED] {
            assert_eq!(http::get(peer.address(), &format!("/lookaside/{key}")).status, 200);
        }
        start.elapsed().as_secs_f64() * 1e6 / ASKED as f64
    };
    let (ours, nginx) = (first(&ours), first(&nginx));
    println!("lookaside, first request for a digest, one after another, a new connection each");
    println!("  countersign  {ours:>8.0} us   the other {nginx:>8.0} us   ratio {:.2}", ours / nginx);
}
