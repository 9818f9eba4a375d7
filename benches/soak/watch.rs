//! What the server takes, sampled every second: it must not grow.

use std::time::Duration;

use crate::audit::AuditTrail;
use crate::support::process::Process;
use crate::tally::Tally;
use crate::world::World;

/// Room for what differs from one moment to the next.
const MEMORY_SLACK: f64 = 1.10;
const MEMORY_SLACK_KIB: usize = 8 * 1024;
const DESCRIPTOR_SLACK: usize = 16;
/// Connections to the registry that are kept for later.
const LEFT_OPEN: usize = 48;
const RELOAD_EVERY: usize = 3;
const ROTATE_EVERY: usize = 20;

pub struct Watch {
    pub audit: AuditTrail,
    process: Process,
    every: usize,
    at_rest: usize,
    samples: Vec<Sample>,
    asked: u64,
}

struct Sample {
    resident: usize,
    descriptors: usize,
}

impl Watch {
    pub fn new(world: &World, length: Duration) -> Self {
        let process = Process::of(world.server.pid());
        let every = usize::try_from(length.as_secs() / 20).unwrap_or(1).max(5);
        println!(
            "{:>8} {:>10} {:>10} {:>12} {:>8} {:>12}",
            "seconds", "done", "a second", "memory KiB", "threads", "descriptors"
        );
        Self {
            audit: AuditTrail::new(&world.audit),
            process,
            every,
            at_rest: process.descriptors(),
            samples: Vec::new(),
            asked: 0,
        }
    }

    /// Called every second; the server is told to reload every few of them.
    pub fn sample(&mut self, world: &World, tally: &Tally, since: Duration) {
        let sample = Sample { resident: self.process.resident(), descriptors: self.process.descriptors() };
        let n = self.samples.len() + 1;
        if n.is_multiple_of(self.every) {
            let done = tally.sum();
            let rate = (done - self.asked) / self.every as u64;
            let (seconds, threads) = (since.as_secs(), self.process.threads());
            println!(
                "{seconds:>8} {done:>10} {rate:>10} {:>12} {threads:>8} {:>12}",
                sample.resident, sample.descriptors
            );
            self.asked = done;
        }
        self.samples.push(sample);
        if n.is_multiple_of(RELOAD_EVERY) {
            world.server.signal("HUP");
        }
        if n.is_multiple_of(ROTATE_EVERY) {
            self.audit.rotate();
        }
    }

    /// Compares the second quarter, when all is warm, with the last.
    pub fn verdict(&self, world: &World) -> Vec<String> {
        let quarter = self.samples.len() / 4;
        let middle = |from: usize, of: fn(&Sample) -> usize| {
            let mut values: Vec<usize> = self.samples[from..from + quarter].iter().map(of).collect();
            values.sort_unstable();
            values.get(quarter / 2).copied().unwrap_or_default()
        };
        let mut found = Vec::new();
        let (warm, end) = (middle(quarter, |s| s.resident), middle(3 * quarter, |s| s.resident));
        println!(
            "memory: {warm} KiB in the second quarter, {end} KiB in the last, {} KiB at most",
            self.process.peak()
        );
        if end as f64 > warm as f64 * MEMORY_SLACK + MEMORY_SLACK_KIB as f64 {
            found.push(format!("memory grew from {warm} KiB to {end} KiB"));
        }
        let (warm, end) = (middle(quarter, |s| s.descriptors), middle(3 * quarter, |s| s.descriptors));
        std::thread::sleep(Duration::from_secs(3));
        let rest = self.process.descriptors();
        println!(
            "descriptors: {} at rest, {warm} in the second quarter, {end} in the last, {rest} afterwards",
            self.at_rest
        );
        if end > warm + DESCRIPTOR_SLACK {
            found.push(format!("descriptors grew from {warm} to {end}"));
        }
        if rest > self.at_rest + LEFT_OPEN {
            found.push(format!("{rest} descriptors are open when all clients are gone"));
        }
        if self.process.resident() == 0 {
            found.push(format!("the server is gone: {}", world.server.log()));
        }
        found
    }
}
