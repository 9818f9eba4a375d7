//! The names of all metrics, in the order in which they are written.
//!
//! Beside these: `upstream` (one series an upstream) and `process` (read from `/proc`).

use super::exposition::{Exposed, Kind, Sink};
use super::family::{Counters, Gauge, Histograms, Level, WIDTH};
use super::label::{
    AccessVerdict, AppendResult, Direction, Face, GateVerdict, Labels, LoadResult, LookupResult, MethodClass, Nothing,
    Outcome, Recorded, Right, StoreOperation, StoreOutcome,
};

type RequestLabels = (Face, MethodClass, Outcome);
type AccessLabels = (Right, AccessVerdict);
type StoreLabels = (StoreOperation, StoreOutcome);

/// Requests by what answered and how it ended. Combinations that never happened are not written.
pub static REQUESTS: Counters<RequestLabels, { RequestLabels::COUNT }> =
    Counters::new("countersign_requests_total", "Requests answered, or given up by the client.");
/// From a request's head to the head of its answer, by face.
pub static REQUEST_SECONDS: Histograms<Face, { Face::COUNT * WIDTH }> =
    Histograms::new("countersign_request_duration_seconds", "Time from a request's head to its answer's head.");
/// Requests that have no answer yet.
pub static REQUESTS_IN_FLIGHT: Gauge =
    Gauge::new("countersign_requests_in_flight", "Requests that have no answer yet.");
/// Open connections of clients.
pub static CONNECTIONS_OPEN: Gauge = Gauge::new("countersign_connections_open", "Open connections of clients.");
/// Connections that were ever accepted.
pub static CONNECTIONS: Counters<Nothing, 1> =
    Counters::new("countersign_connections_total", "Connections of clients accepted.");
/// Connections that were turned away, for a limit.
pub static CONNECTIONS_REFUSED: Counters<Nothing, 1> =
    Counters::new("countersign_connections_refused_total", "Connections turned away, for a limit.");
/// Bytes of bodies through the proxy.
pub static PROXIED_BYTES: Counters<Direction, { Direction::COUNT }> =
    Counters::new("countersign_proxied_bytes_total", "Bytes of bodies that went through the proxy.");
/// Looks into the cache of signature sets.
pub static CACHE_LOOKUPS: Counters<LookupResult, { LookupResult::COUNT }> =
    Counters::new("countersign_cache_lookups_total", "Looks for a signature set in memory.");
/// Loads into the cache of signature sets.
pub static CACHE_LOADS: Counters<LoadResult, { LoadResult::COUNT }> =
    Counters::new("countersign_cache_loads_total", "Signature sets loaded from the store into memory.");
/// Sets in the cache; set when it is scraped.
pub static CACHE_ENTRIES: Level = Level::new("countersign_cache_entries", "Signature sets in memory.");
/// Their weight; set when it is scraped.
pub static CACHE_BYTES: Level = Level::new("countersign_cache_bytes", "Memory for signature sets, about.");
/// What was asked of the store.
pub static STORE_OPERATIONS: Counters<StoreLabels, { StoreLabels::COUNT }> =
    Counters::new("countersign_store_operations_total", "Operations on the signature store.");
/// How long the store took.
pub static STORE_SECONDS: Histograms<StoreOperation, { StoreOperation::COUNT * WIDTH }> =
    Histograms::new("countersign_store_operation_duration_seconds", "Time that the signature store took.");
/// Questions about a caller's rights.
pub static ACCESS_CHECKS: Counters<AccessLabels, { AccessLabels::COUNT }> =
    Counters::new("countersign_access_checks_total", "Questions whether a caller may read or add signatures.");
/// Verdicts of the gate about uploads.
pub static GATE_VERDICTS: Counters<GateVerdict, { GateVerdict::COUNT }> =
    Counters::new("countersign_gate_verdicts_total", "Verdicts about uploaded signatures.");
/// Signatures added.
pub static APPENDS: Counters<AppendResult, { AppendResult::COUNT }> =
    Counters::new("countersign_appends_total", "Signatures that were to be added to the store.");
/// Refused changes, where there is an audit log.
pub static AUDIT_REFUSALS: Counters<Recorded, { Recorded::COUNT }> =
    Counters::new("countersign_audit_refusals_total", "Refused changes, by whether the audit log has them.");

/// All of the above.
pub(super) static FAMILIES: [&dyn Exposed; 18] = [
    &BuildInfo,
    &REQUESTS,
    &REQUEST_SECONDS,
    &REQUESTS_IN_FLIGHT,
    &CONNECTIONS_OPEN,
    &CONNECTIONS,
    &CONNECTIONS_REFUSED,
    &PROXIED_BYTES,
    &CACHE_LOOKUPS,
    &CACHE_LOADS,
    &CACHE_ENTRIES,
    &CACHE_BYTES,
    &STORE_OPERATIONS,
    &STORE_SECONDS,
    &ACCESS_CHECKS,
    &GATE_VERDICTS,
    &APPENDS,
    &AUDIT_REFUSALS,
];

/// Which build this is. The revision is told to the compiler by `COUNTERSIGN_REVISION`.
struct BuildInfo;

impl Exposed for BuildInfo {
    fn expose(&self, sink: &mut Sink) {
        sink.family("countersign_build_info", "Which build this is; always 1.", Kind::Gauge);
        let revision = option_env!("COUNTERSIGN_REVISION").unwrap_or("unknown");
        sink.sample("", &[("version", env!("CARGO_PKG_VERSION")), ("revision", revision)], 1.0);
    }
}
