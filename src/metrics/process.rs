//! The process as its system sees it, read from `/proc` when somebody asks.
//!
//! Names and units are those of Prometheus' client libraries. What cannot be read is left out.

use std::fs;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use super::exposition::{Kind, Sink};

/// The unit of times in `/proc`: the same on every architecture that Linux still runs on but Alpha.
const TICKS_PER_SECOND: f64 = 100.0;

/// A hardened service may not see when the system was started, from which `/proc` counts.
static STARTED: OnceLock<SystemTime> = OnceLock::new();

/// Notes that the process begins now.
pub fn note_start() {
    STARTED.get_or_init(SystemTime::now);
}

pub(super) fn expose(sink: &mut Sink) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    // The folder is itself open while it is read.
    let files = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1) as f64);
    let kilobytes = |name| number(&status, name).map(|kb| kb * 1024.0);

    let mut tell = |name, help, kind, value: Option<f64>| {
        if let Some(value) = value {
            sink.family(name, help, kind);
            sink.sample("", &[], value);
        }
    };
    let start = STARTED.get().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs_f64());
    tell("process_start_time_seconds", "Start of the process, since the epoch.", Kind::Gauge, start);
    let cpu = processor_ticks(&stat).map(|ticks| ticks / TICKS_PER_SECOND);
    tell("process_cpu_seconds_total", "Processor time spent.", Kind::Counter, cpu);
    tell("process_open_fds", "Open file descriptors.", Kind::Gauge, files);
    let most = number(&limits, "Max open files");
    tell("process_max_fds", "File descriptors that may be open.", Kind::Gauge, most);
    tell("process_resident_memory_bytes", "Resident memory.", Kind::Gauge, kilobytes("VmRSS:"));
    tell("process_virtual_memory_bytes", "Virtual memory.", Kind::Gauge, kilobytes("VmSize:"));
    tell("process_threads", "Threads of the process.", Kind::Gauge, number(&status, "Threads:"));
}

/// Reads the time in user and system mode out of `/proc/self/stat`.
fn processor_ticks(stat: &str) -> Option<f64> {
    // The program's name, in brackets, may hold blanks and brackets itself.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(14 - 3);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some(ticks()? + ticks()?)
}

/// Returns the first number of the line that begins with `name`.
fn number(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Format;

    #[test]
    fn this_process() {
        note_start();
        let mut sink = Sink::new(Format::Text);
        expose(&mut sink);
        let text = sink.finish();
        let value = |name: &str| number(&text, &format!("{name} ")).unwrap_or_else(|| panic!("{name}: {text}"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..86400.0).contains(&(now - value("process_start_time_seconds"))), "{text}");
        assert!(value("process_resident_memory_bytes") > 1e6 && value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
    }

    #[test]
    fn a_program_of_any_name() {
        let stat = "1 (a) b (c) S 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18";
        assert_eq!(processor_ticks(stat), Some(29.0));
        assert!(processor_ticks("").is_none() && processor_ticks("1 (x) S").is_none());
    }
}
