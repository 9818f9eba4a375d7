//! Numbers that many threads add to without meeting: one row a thread (or a few threads), summed
//! when somebody reads.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many rows there are; a power of two.
const SHARDS: usize = 8;

/// A row has cache lines of its own (two, since processors fetch them in pairs).
#[repr(align(128))]
#[derive(Debug)]
struct Row<const N: usize>([AtomicU64; N]);

/// `N` numbers, each the sum of its cells in all rows.
#[derive(Debug)]
pub(super) struct Cells<const N: usize>([Row<N>; SHARDS]);

impl<const N: usize> Cells<N> {
    pub(super) const fn new() -> Self {
        Self([const { Row([const { AtomicU64::new(0) }; N]) }; SHARDS])
    }

    /// Adds; beyond the end nothing is counted.
    pub(super) fn add(&self, at: usize, by: u64) {
        if let Some(cell) = self.0.get(shard()).and_then(|row| row.0.get(at)) {
            cell.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Returns a number. Sums wrap, so that a row may hold the negative part of a gauge.
    pub(super) fn sum(&self, at: usize) -> u64 {
        let cells = self.0.iter().filter_map(|row| row.0.get(at));
        cells.fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
    }
}

fn shard() -> usize {
    thread_local! {
        static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // A thread that is ending has no local values any more; it may use any row.
    SHARD
        .try_with(|shard| {
            if shard.get() == usize::MAX {
                shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
            }
            shard.get()
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        static CELLS: Cells<3> = Cells::new();
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..10_000).for_each(|_| CELLS.add(1, 2)));
            }
        });
        assert_eq!((CELLS.sum(0), CELLS.sum(1), CELLS.sum(2), CELLS.sum(9)), (0, 400_000, 0, 0));
        CELLS.add(9, 1);
    }
}
