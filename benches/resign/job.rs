//! One run of the real program.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cpu;
use crate::tree::Key;

/// What it took.
pub struct Ran {
    pub seconds: f64,
    pub cpu: f64,
    /// KiB.
    pub peak: u64,
}

/// Re-signs `count` signatures; the number that were signed must be that.
pub fn resign(from: &str, to: &str, key: &Key, count: usize, extra: &[&str], environment: &[(String, String)]) -> Ran {
    let before = cpu::children();
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_countersign"))
        .args(["--format", "json", "resign", "--rename", "ibm", "--from", from, "--to", to, "--policy"])
        .arg(&key.policy)
        .arg("--key")
        .arg(&key.file)
        .args(extra)
        .envs(environment.iter().cloned())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let peak = watch(&mut child);
    let seconds = start.elapsed().as_secs_f64();
    let output = child.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["signed"], count, "{summary}");
    Ran { seconds, cpu: (cpu::children() - before).as_secs_f64(), peak }
}

fn watch(child: &mut std::process::Child) -> u64 {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(peak);
        std::thread::sleep(Duration::from_millis(10));
    }
    peak
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
