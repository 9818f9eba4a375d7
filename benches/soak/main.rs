//! `make soak`: half an hour (`SOAK_SECONDS`) of mixed load against one server before a real registry.
//!
//! Every answer is compared with a model of what must be there; memory and descriptors of the server
//! are sampled and must not grow. A wrong answer or growth ends it with exit code 1.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a bench")]
#![allow(missing_docs, reason = "a bench")]

mod audit;
mod blobs;
mod connection;
mod model;
mod signatures;
#[allow(dead_code, reason = "a soak needs only some of what tests share")]
#[path = "../../tests/support/mod.rs"]
mod support;
mod tally;
mod watch;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use connection::Connection;
use tally::Tally;
use watch::Watch;
use world::World;

/// Who does what at a time. Each has a connection of its own, kept or made anew.
const SIGNERS: usize = 5;
const CROWD: usize = 3;
const PULLERS: usize = 3;
const TROUBLE: usize = 2;

/// A small generator: runs need not repeat, only differ.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % end.max(1)
    }
}

/// What a worker does once; the error is a wrong answer.
type Turn = fn(&World, &Tally, &mut Connection, &mut Random) -> Result<(), String>;

fn main() {
    let asked = std::env::var("SOAK_SECONDS").ok();
    if asked.is_none() && !std::env::args().any(|arg| arg == "--bench") {
        println!("nothing soaked: `make soak` does, or SOAK_SECONDS=60 cargo test --bench soak");
        return;
    }
    let seconds = asked.map_or(1800, |text| text.parse().expect("SOAK_SECONDS is a number"));
    let length = Duration::from_secs(seconds);
    let world = World::start();
    println!("{} images, {} blobs; {seconds} seconds of load", world.model.exact.len(), world.blobs.len());
    let (tally, stop, wrong) = (Tally::default(), AtomicBool::new(false), Mutex::new(Vec::new()));
    let begun = Instant::now();
    let mut watch = Watch::new(&world, length);
    let turns = [(signatures::turn as Turn, SIGNERS), (signatures::crowd, CROWD), (blobs::turn, PULLERS)];
    let turns = turns.into_iter().chain([(blobs::trouble as Turn, TROUBLE)]);
    let workers = turns.flat_map(|(turn, count)| std::iter::repeat_n(turn, count)).enumerate();
    std::thread::scope(|scope| {
        for (n, turn) in workers {
            let (world, tally, stop, wrong) = (&world, &tally, &stop, &wrong);
            scope.spawn(move || {
                let mut random = Random::new(n as u64 + 1);
                let mut connection = Connection::new(&world.server.address);
                while !stop.load(Ordering::Relaxed) {
                    let turned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        turn(world, tally, &mut connection, &mut random)
                    }));
                    if let Err(what) = turned.unwrap_or_else(|_| Err("the driver panicked".to_owned())) {
                        wrong.lock().unwrap().push(format!("after {:?}: {what}", begun.elapsed()));
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
        while begun.elapsed() < length && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
            watch.sample(&world, &tally, begun.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let mut wrong = wrong.into_inner().unwrap();
    if wrong.is_empty() {
        let mut connection = Connection::new(&world.server.address);
        wrong.extend(signatures::all(&world, &tally, &mut connection).err());
        drop(connection);
        wrong.extend(watch.audit.finish(&tally).err());
        wrong.extend(watch.verdict(&world));
    }
    wrong.extend(world.complaints());
    println!("{tally}");
    if wrong.is_empty() {
        println!("no wrong answer, no growth");
        return;
    }
    wrong.iter().for_each(|what| println!("WRONG: {what}"));
    drop(world);
    std::process::exit(1);
}
