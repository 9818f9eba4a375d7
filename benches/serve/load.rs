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
  if args[2] == "close" then
    headers["Connection"] = "close"
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

/// Each connection waits for a millisecond after an answer: neither server is asked for all that it
/// can do.
const PACE: &str = "
function delay()
  return 1
end
";

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
    /// A new connection for each request.
    pub reconnect: bool,
    /// A millisecond between an answer and the next question of its connection.
    pub paced: bool,
    /// Whether answers are 404, all of them; else all are 200.
    pub missing: bool,
    /// How long, in seconds.
    pub seconds: u32,
}

impl<'a> Drive<'a> {
    /// Asks for what is there, as often as possible, on connections that stay.
    pub fn hits(paths: &'a Path, seconds: u32) -> Self {
        Self { paths, reconnect: false, paced: false, missing: false, seconds }
    }
}

/// Drives one server for a while.
pub fn drive(peer: &Peer, how: Drive<'_>) -> Round {
    let mut script = tempfile::NamedTempFile::new().unwrap();
    script.write_all(SCRIPT.as_bytes()).unwrap();
    if how.paced {
        script.write_all(PACE.as_bytes()).unwrap();
    }
    let before = peer.cpu_seconds();
    let mut command = Command::new("wrk");
    command.args(["--threads", "2", "--connections", "64", "--duration", &format!("{}s", how.seconds), "--latency"]);
    command.arg("--script").arg(script.path()).arg(&peer.url).arg("--").arg(how.paths);
    if how.reconnect {
        command.arg("close");
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
/// Before each round its server is warmed up for a whole life of a cached set (5 s), which may be over
/// when the other had its turn: nginx keeps files for 300 s here.
pub fn compare(ours: (&Peer, Drive<'_>), theirs: (&Peer, Drive<'_>)) -> (Round, Round) {
    const ROUNDS: usize = 5;
    const WARM_UP: u32 = 5;
    let (mut our, mut their) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for ((peer, how), rounds) in [(ours, &mut our), (theirs, &mut their)] {
            drive(peer, Drive { seconds: WARM_UP, ..how });
            rounds.push(drive(peer, how));
        }
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

/// What a comparison has to show, each as a share of the other's.
#[derive(Clone, Copy, Default)]
pub struct Bars {
    /// The rate, at least.
    pub rate: Option<f64>,
    /// The processor time of a request, at most.
    pub cpu: Option<f64>,
    /// The 99th percentile of the time to an answer, at most.
    pub p99: Option<f64>,
}

impl Bars {
    /// No worse in anything.
    pub const ALL: Self = Self { rate: Some(1.0), cpu: Some(1.0), p99: Some(1.0) };
}

/// Prints a comparison with its bars.
pub fn print(what: &str, (our, their): (Round, Round), bars: Bars) {
    println!("{what}");
    for (name, round) in [("countersign", &our), ("the other", &their)] {
        println!(
            "  {name:<12} {:>8.0} /s   {:>7.1} us cpu a request   p50 {:>6} us   p99 {:>7} us",
            round.rate, round.cpu_micros, round.p50, round.p99
        );
    }
    let (rate, cpu) = (our.rate / their.rate, our.cpu_micros / their.cpu_micros);
    let p99 = our.p99 as f64 / their.p99 as f64;
    let rate = judged(rate, bars.rate.map(|bar| (bar, rate >= bar)));
    let cpu = judged(cpu, bars.cpu.map(|bar| (bar, cpu <= bar)));
    let p99 = judged(p99, bars.p99.map(|bar| (bar, p99 <= bar)));
    println!("  ratio        {rate}   cpu {cpu}   p99 {p99}");
}

/// Says what a ratio is and, with its bar and whether that is met, how it stands.
pub fn judged(ratio: f64, bar: Option<(f64, bool)>) -> String {
    match bar {
        Some((bar, met)) => format!("{ratio:.2} (bar {bar:.2}: {})", if met { "met" } else { "NOT met" }),
        None => format!("{ratio:.2}"),
    }
}
