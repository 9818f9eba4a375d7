//! Processor time, which other programs on the machine do not change as they change the wall's.

use std::time::Duration;

/// What this thread has used.
pub fn thread() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// What all children used that were waited for, user and system.
pub fn children() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    // After the name, which may hold anything: field 3 is first.
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[13].parse::<u64>().unwrap() + fields[14].parse::<u64>().unwrap();
    // The kernel tells it in hundredths of a second, whatever its own clock.
    Duration::from_millis(ticks * 10)
}
