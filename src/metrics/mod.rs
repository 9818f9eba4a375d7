//! What the process counts, and how Prometheus reads it; may be used by all rooms and uses none.
//!
//! `catalogue` has every name, `label` every label and its values: all known at compile time, so
//! no request can make a series. Only upstreams are named by the configuration (`upstream`).
//!
//! Own cells rather than a library: counting is done many times a request, and costs one atomic
//! addition to a cell of the own thread (`cell`). The `prometheus-client` crate (0.24) hashes labels,
//! takes a lock for each histogram observation, escapes no label value and writes only OpenMetrics;
//! what would be left of it is shorter than its use.

mod catalogue;
mod cell;
mod exposition;
mod family;
mod label;
mod process;
mod upstream;

pub use catalogue::*;
pub use exposition::{Format, expose};
pub use family::{Counters, Gauge, Histograms, Level, Open};
pub use label::{
    AccessVerdict, AppendResult, Direction, Face, GateVerdict, Label, Labels, LoadResult, LookupResult, MethodClass,
    Nothing, Outcome, Recorded, Right, StoreOperation, StoreOutcome, UpstreamOutcome,
};
pub use process::note_start;
pub use upstream::UpstreamMetrics;
