//! Memory must not depend on the size of the job.

use crate::job::{resign, text};
use crate::tree::{Key, generate};
use crate::{Bench, bar, row};

/// Signatures an image: a million folders would take a disk and an hour.
const EACH: usize = 20;

pub fn run(bench: &Bench, alone: bool) {
    let large = bench.count.filter(|_| alone).unwrap_or(1_000_000);
    let small = large / 100;
    println!("memory, Ed25519, {EACH} signatures an image, with a journal");
    let key = Key::generate(bench.work.path(), "ed25519");
    let peaks = [small, large].map(|count| {
        let [from, to, journal] = ["from", "to", "journal"].map(|what| bench.path(&format!("memory-{what}-{count}")));
        generate(&from, &key.signer, count, EACH, bench.cores);
        let ran = resign(text(&from), text(&to), &key, count, &["--journal", text(&journal)], &[]);
        row(&format!("peak for {count} signatures"), ran.peak as f64 / 1024.0, "MiB");
        ran.peak as f64
    });
    let ratio = peaks[1] / peaks[0];
    bar("the larger to the smaller", ratio, "", "<= 1.2", ratio <= 1.2);
}
