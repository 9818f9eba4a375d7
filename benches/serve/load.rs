//! The load driver `wrk`, and what a server spent while it was driven.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::peers::Peer;

/// Cycles through the paths of a file, each thread from another place.
const SCRIPT: &str = r#"
local threads = 0
function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end
function init(args)
  requests, at = {}, 0
  local headers = {}
  for i = 2, #args do
    local name, value = args[i]:match("^([^:]+): (.*)$")
    headers[name] = value
  end
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", line, headers)
  end
  at = number * math.floor(#requests / 3)
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests":%d,"micros":%d,"p50":%d,"p99":%d,"statuses":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout))
end
"#;

/// What one round of load saw.
#[derive(Clone, Copy, Deserialize)]
struct Seen {
    requests: u64,
    micros: u64,
    p50: u64,
    p99: u64,
    statuses: u64,
    broken: u64,
}

/// What one round showed.
#[derive(Clone, Copy)]
pub struct Round {
    /// Requests a second.
    pub rate: f64,
    /// Microseconds of the server's processors for one request.
    pub cpu_micros: f64,
    /// Microseconds.
    pub p50: u64,
    /// Microseconds.
    pub p99: u64,
}

/// How to drive.
#[derive(Clone, Copy)]
pub struct Drive<'a> {
    /// The file of paths.
    pub paths: &'a Path,
    /// `Name: value`.
    pub headers: &'a [&'a str],
    /// A new connection for each request.
    pub reconnect: bool,
    /// Whether answers are 404, all of them; else all are 200.
    pub missing: bool,
    /// How long, in seconds.
    pub seconds: u32,
}

/// Drives one server for a while.
pub fn drive(peer: &Peer, how: Drive<'_>) -> Round {
    let mut script = tempfile::NamedTempFile::new().unwrap();
    script.write_all(SCRIPT.as_bytes()).unwrap();
    let before = peer.cpu_seconds();
    let mut command = Command::new("wrk");
    command.args(["--threads", "2", "--connections", "64", "--duration", &format!("{}s", how.seconds), "--latency"]);
    command.arg("--script").arg(script.path()).arg(&peer.url).arg("--").arg(how.paths).args(how.headers);
    if how.reconnect {
        command.arg("Connection: close");
    }
    let output = command.output().expect("wrk is installed");
    let cpu = peer.cpu_seconds() - before;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let seen: Seen = serde_json::from_str(line.unwrap_or_else(|| panic!("{output:?}"))).unwrap();
    let wrong = if how.missing { seen.requests - seen.statuses } else { seen.statuses };
    assert_eq!(wrong, 0, "{}: {wrong} of {} answers have the wrong status", peer.name, seen.requests);
    // wrk counts the end of a connection that was announced as a read error only now and then.
    if seen.broken * 1000 > seen.requests {
        println!("  {}: {} of {} connections broke", peer.name, seen.broken, seen.requests);
    }
    Round {
        rate: seen.requests as f64 / (seen.micros as f64 / 1e6),
        cpu_micros: cpu * 1e6 / seen.requests as f64,
        p50: seen.p50,
        p99: seen.p99,
    }
}

/// Drives two servers in turn, so that both have the same weather, and returns the median of each
/// quantity: the tail of one round says little, and least of the round whose rate is the middle one.
pub fn compare(ours: (&Peer, Drive<'_>), theirs: (&Peer, Drive<'_>)) -> (Round, Round) {
    const ROUNDS: usize = 5;
    let (mut our, mut their) = (Vec::new(), Vec::new());
    for (peer, how) in [ours, theirs] {
        drive(peer, Drive { seconds: 2, ..how });
    }
    for _ in 0..ROUNDS {
        our.push(drive(ours.0, ours.1));
        their.push(drive(theirs.0, theirs.1));
    }
    (middle(&our), middle(&their))
}

fn middle(rounds: &[Round]) -> Round {
    let of = |quantity: fn(&Round) -> f64| median(rounds.iter().map(quantity).collect());
    Round {
        rate: of(|round| round.rate),
        cpu_micros: of(|round| round.cpu_micros),
        p50: of(|round| round.p50 as f64) as u64,
        p99: of(|round| round.p99 as f64) as u64,
    }
}

/// Returns the one in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints a comparison with its bars: at least `share` of the other's rate, and where `strict`,
/// no more processor time and no worse tail.
pub fn print(what: &str, (our, their): (Round, Round), share: f64, strict: bool) {
    let met = |good: bool| if good { "met" } else { "NOT met" };
    println!("{what}");
    let line = |name: &str, round: &Round| {
        println!(
            "  {name:<12} {:>8.0} /s   {:>7.1} us cpu a request   p50 {:>6} us   p99 {:>7} us",
            round.rate, round.cpu_micros, round.p50, round.p99
        );
    };
    line("countersign", &our);
    line("the other", &their);
    let ratio = our.rate / their.rate;
    print!("  ratio        {ratio:>8.2}    (bar {share:.2}: {})", met(ratio >= share));
    let (cpu, tail) = (our.cpu_micros / their.cpu_micros, our.p99 as f64 / their.p99 as f64);
    if strict {
        println!("   cpu {cpu:.2} (bar 1: {})   p99 {tail:.2} (bar 1: {})", met(cpu <= 1.0), met(tail <= 1.0));
    } else {
        println!("   cpu {cpu:.2}   p99 {tail:.2}");
    }
}
