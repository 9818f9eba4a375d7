//! Memory must not depend on the size of the job.

use crate::job::{resign, text};
use crate::tree::{Key, generate};
use crate::{Bench, bar, row};

/// Signatures an image: a million folders would take a disk and an hour.
const EACH: usize = 20;
/// A job of some seconds has its peak as chance has it: the median of so many counts.
const RUNS: usize = 5;

pub fn run(bench: &Bench, alone: bool) {
    let large = bench.count.filter(|_| alone).unwrap_or(1_000_000);
    println!("memory, Ed25519, {EACH} signatures an image, with a journal");
    let key = Key::generate(bench.work.path(), "ed25519");
    let peaks = [(large / 100, RUNS), (large, 1)].map(|(count, runs)| {
        let from = bench.path(&format!("memory-from-{count}"));
        generate(&from, &key.signer, count, EACH, bench.cores);
        let one = |run| {
            let [to, journal] = ["to", "journal"].map(|what| bench.path(&format!("memory-{what}-{count}-{run}")));
            resign(text(&from), text(&to), &key, count, &["--journal", text(&journal)], &[]).peak
        };
        let mut peaks: Vec<u64> = (0..runs).map(one).collect();
        peaks.sort_unstable();
        let peak = peaks[runs / 2] as f64 / 1024.0;
        row(&format!("peak for {count} signatures, median of {runs}"), peak, "MiB");
        peak
    });
    let ratio = peaks[1] / peaks[0];
    bar("the larger to the smaller", ratio, "", "<= 1.2", ratio <= 1.2);
}
