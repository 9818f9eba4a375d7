//! The kinds of metrics: counters, gauges and histograms, each a family over its labels.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::cell::Cells;
use super::exposition::{Exposed, Kind, Sink};
use super::label::Labels;

/// Upper bounds of the histograms' buckets in nanoseconds: a cached signature takes some ten
/// microseconds, a push through a slow upstream many seconds.
const BOUNDS: [u64; 18] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];
/// The cells of one histogram: the buckets, what is beyond them, and the sum.
pub(super) const WIDTH: usize = BOUNDS.len() + 2;
const SUM: usize = WIDTH - 1;

/// Numbers that only grow. `N` must be `L::COUNT`.
#[derive(Debug)]
pub struct Counters<L, const N: usize> {
    name: &'static str,
    help: &'static str,
    cells: Cells<N>,
    labels: PhantomData<fn(L)>,
}

impl<L: Labels, const N: usize> Counters<L, N> {
    /// Makes a family; the name ends in `_total`.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        assert!(N == L::COUNT, "a cell for each combination of labels");
        Self { name, help, cells: Cells::new(), labels: PhantomData }
    }

    /// Counts one.
    pub fn inc(&self, labels: L) {
        self.add(labels, 1);
    }

    /// Counts several.
    pub fn add(&self, labels: L, by: u64) {
        self.cells.add(labels.place(), by);
    }

    /// Returns a number as it is now.
    pub fn get(&self, labels: L) -> u64 {
        self.cells.sum(labels.place())
    }
}

impl<L: Labels, const N: usize> Exposed for Counters<L, N> {
    fn expose(&self, sink: &mut Sink) {
        sink.family(self.name, self.help, Kind::Counter);
        L::each(|labels, texts| {
            let count = self.get(labels);
            // Large families show what has happened; small ones are always whole, so that a rate
            // sees the first time, too.
            if count > 0 || N <= 32 {
                sink.sample("", texts, count as f64);
            }
        });
    }
}

/// Durations. `N` must be `L::COUNT` times the cells of one histogram.
#[derive(Debug)]
pub struct Histograms<L, const N: usize> {
    name: &'static str,
    help: &'static str,
    cells: Cells<N>,
    labels: PhantomData<fn(L)>,
}

impl<L: Labels, const N: usize> Histograms<L, N> {
    /// Makes a family; the name ends in `_seconds`.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        assert!(N == L::COUNT * WIDTH, "the cells of a histogram for each combination of labels");
        Self { name, help, cells: Cells::new(), labels: PhantomData }
    }

    /// Counts one that took so long.
    pub fn observe(&self, labels: L, took: Duration) {
        let start = labels.place() * WIDTH;
        let nanos = nanoseconds(took);
        self.cells.add(start + bucket(nanos), 1);
        self.cells.add(start + SUM, nanos);
    }
}

impl<L: Labels, const N: usize> Exposed for Histograms<L, N> {
    fn expose(&self, sink: &mut Sink) {
        sink.family(self.name, self.help, Kind::Histogram);
        L::each(|labels, texts| histogram(sink, texts, |at| self.cells.sum(labels.place() * WIDTH + at)));
    }
}

/// One histogram whose labels are known only to its owner.
#[derive(Debug)]
pub(super) struct Histogram(Cells<WIDTH>);

impl Histogram {
    pub(super) const fn new() -> Self {
        Self(Cells::new())
    }

    pub(super) fn observe(&self, took: Duration) {
        let nanos = nanoseconds(took);
        self.0.add(bucket(nanos), 1);
        self.0.add(SUM, nanos);
    }

    pub(super) fn expose(&self, sink: &mut Sink, labels: &[(&str, &str)]) {
        histogram(sink, labels, |at| self.0.sum(at));
    }
}

fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

fn bucket(nanos: u64) -> usize {
    BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len())
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

fn histogram(sink: &mut Sink, labels: &[(&str, &str)], cell: impl Fn(usize) -> u64) {
    let mut count = 0;
    for (at, bound) in BOUNDS.iter().enumerate() {
        count += cell(at);
        let bound = seconds(*bound).to_string();
        sink.sample("_bucket", &[labels, &[("le", bound.as_str())]].concat(), count as f64);
    }
    count += cell(BOUNDS.len());
    sink.sample("_bucket", &[labels, &[("le", "+Inf")]].concat(), count as f64);
    sink.sample("_sum", labels, seconds(cell(SUM)));
    sink.sample("_count", labels, count as f64);
}

/// How many of something there are at the moment.
#[derive(Debug)]
pub struct Gauge {
    name: &'static str,
    help: &'static str,
    cells: Cells<1>,
}

/// One of what a [`Gauge`] counts; dropping it ends it.
#[derive(Debug)]
#[must_use = "it is over when this is dropped"]
pub struct Open(&'static Gauge);

impl Gauge {
    /// Makes a gauge.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, cells: Cells::new() }
    }

    /// Counts one until the returned value is dropped.
    pub fn open(&'static self) -> Open {
        self.cells.add(0, 1);
        Open(self)
    }

    /// Returns how many there are now.
    pub fn get(&self) -> u64 {
        // Rows are read one after the other: what moves from one to another meanwhile may be
        // missed for the moment, and the sum be below zero.
        u64::try_from(self.cells.sum(0).cast_signed()).unwrap_or(0)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.cells.add(0, u64::MAX);
    }
}

impl Exposed for Gauge {
    fn expose(&self, sink: &mut Sink) {
        sink.family(self.name, self.help, Kind::Gauge);
        sink.sample("", &[], self.get() as f64);
    }
}

/// A number that is set when it is known.
#[derive(Debug)]
pub struct Level {
    name: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Level {
    /// Makes a level of 0.
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self { name, help, value: AtomicU64::new(0) }
    }

    /// Sets it.
    pub fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }
}

impl Exposed for Level {
    fn expose(&self, sink: &mut Sink) {
        sink.family(self.name, self.help, Kind::Gauge);
        sink.sample("", &[], self.value.load(Ordering::Relaxed) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::label::{Direction, Nothing};
    use crate::metrics::{Format, Label as _};

    fn text(exposed: &dyn Exposed) -> String {
        let mut sink = Sink::new(Format::Text);
        exposed.expose(&mut sink);
        sink.finish()
    }

    #[test]
    fn buckets_are_cumulative_and_bounds_belong_below() {
        static TIMES: Histograms<Nothing, WIDTH> = Histograms::new("x_seconds", "X.");
        for micros in [1, 50, 51, 100, 31_000_000] {
            TIMES.observe(Nothing, Duration::from_micros(micros));
        }
        let text = text(&TIMES);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2 + BOUNDS.len() + 3);
        assert_eq!(
            lines[2..5],
            [
                "x_seconds_bucket{le=\"0.00005\"} 2",
                "x_seconds_bucket{le=\"0.0001\"} 4",
                "x_seconds_bucket{le=\"0.00025\"} 4"
            ]
        );
        assert!(text.contains("x_seconds_bucket{le=\"30\"} 4\nx_seconds_bucket{le=\"+Inf\"} 5\n"), "{text}");
        assert!(text.ends_with("x_seconds_sum 31.000202\nx_seconds_count 5\n"), "{text}");
        TIMES.observe(Nothing, Duration::MAX);
    }

    #[test]
    fn a_gauge_goes_up_and_down_across_threads() {
        static OPEN: Gauge = Gauge::new("x", "X.");
        let held: Vec<_> = (0..5).map(|_| OPEN.open()).collect();
        assert_eq!(OPEN.get(), 5);
        std::thread::spawn(move || drop(held)).join().unwrap();
        assert_eq!(OPEN.get(), 0);
    }

    #[test]
    fn small_families_are_whole() {
        static BYTES: Counters<Direction, { Direction::ALL.len() }> = Counters::new("x_total", "X.");
        BYTES.add(Direction::Upload, 7);
        assert_eq!(
            text(&BYTES),
            "# HELP x_total X.\n# TYPE x_total counter\nx_total{direction=\"upload\"} 7\nx_total{direction=\"download\"} 0\n"
        );
    }
}
