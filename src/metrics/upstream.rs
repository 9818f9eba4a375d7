//! The registries behind us: one series for each that the configuration names.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::cell::Cells;
use super::exposition::{Kind, Sink};
use super::family::Histogram;
use super::label::{Label as _, Labels as _, UpstreamOutcome};

/// How many upstreams have a series of their own; further ones share the last.
const MOST: usize = 256;
const FURTHER: &str = "further";

static ALL: Mutex<Vec<Arc<UpstreamMetrics>>> = Mutex::new(Vec::new());

/// What is counted of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    name: String,
    requests: Cells<{ UpstreamOutcome::COUNT }>,
    first_byte: Histogram,
}

impl UpstreamMetrics {
    /// Returns the counters of the upstream that is called `name`, `registry.example:5000`. The
    /// name must come from the configuration.
    pub fn of(name: &str) -> Arc<Self> {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if all.len() < MOST { name } else { FURTHER };
        if let Some(known) = all.iter().find(|known| known.name == name) {
            return known.clone();
        }
        let new = Arc::new(Self { name: name.to_owned(), requests: Cells::new(), first_byte: Histogram::new() });
        all.push(new.clone());
        new
    }

    /// Counts an answer, and the time until its head came.
    pub fn answered(&self, status: u16, took: Duration) {
        self.requests.add(UpstreamOutcome::of_status(status).index(), 1);
        self.first_byte.observe(took);
    }

    /// Counts a request that got no answer.
    pub fn failed(&self, outcome: UpstreamOutcome) {
        self.requests.add(outcome.index(), 1);
    }
}

pub(super) fn expose(sink: &mut Sink) {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner).clone();
    sink.family("countersign_upstream_requests_total", "Requests to the registries behind this server.", Kind::Counter);
    for upstream in &all {
        for outcome in UpstreamOutcome::ALL {
            let labels = [("upstream", upstream.name.as_str()), (UpstreamOutcome::KEY, outcome.value())];
            sink.sample("", &labels, upstream.requests.sum(outcome.index()) as f64);
        }
    }
    sink.family(
        "countersign_upstream_first_byte_seconds",
        "Time until the head of a registry's answer came.",
        Kind::Histogram,
    );
    for upstream in &all {
        upstream.first_byte.expose(sink, &[("upstream", upstream.name.as_str())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Format;

    #[test]
    fn bounded_and_shared_by_name() {
        let one = UpstreamMetrics::of("one.example");
        assert!(Arc::ptr_eq(&one, &UpstreamMetrics::of("one.example")));
        one.answered(503, Duration::from_millis(3));
        one.failed(UpstreamOutcome::Timeout);
        for n in 0..2 * MOST {
            UpstreamMetrics::of(&format!("{n}.example"));
        }
        assert!(Arc::ptr_eq(&UpstreamMetrics::of("beyond.example"), &UpstreamMetrics::of("further")));
        let mut sink = Sink::new(Format::Text);
        expose(&mut sink);
        let text = sink.finish();
        assert!(text.contains("requests_total{upstream=\"one.example\",outcome=\"5xx\"} 1\n"));
        assert!(text.contains("requests_total{upstream=\"one.example\",outcome=\"timeout\"} 1\n"));
        assert!(text.contains("first_byte_seconds_bucket{upstream=\"one.example\",le=\"0.005\"} 1\n"));
        assert_eq!(text.matches("outcome=\"2xx\"").count(), MOST + 1);
    }
}
