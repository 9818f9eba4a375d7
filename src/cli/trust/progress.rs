//! How far a fetch is: a line on stderr every ten seconds, nothing for one that is over before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::cli::output;

const LINE: Duration = Duration::from_secs(10);

/// Shows progress until dropped.
pub struct Progress(JoinHandle<()>);

impl Progress {
    /// Begins to show how many of `total` repositories are `done`.
    pub fn start(done: Arc<AtomicU64>, total: u64) -> Self {
        Self(tokio::spawn(async move {
            let start = Instant::now();
            loop {
                tokio::time::sleep(LINE).await;
                let done = done.load(Ordering::Relaxed);
                output::talk(&line(done, total, start.elapsed()));
            }
        }))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn line(done: u64, total: u64, elapsed: Duration) -> String {
    let left = total.saturating_sub(done);
    let remaining = elapsed.as_secs().checked_mul(left).and_then(|product| product.checked_div(done));
    let left = match remaining {
        None => String::new(),
        Some(seconds @ 0..60) => format!(", about {seconds} s left"),
        Some(seconds) => format!(", about {} min left", seconds.div_ceil(60)),
    };
    format!("trust fetch: {done} of {total} repositories{left}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_long_it_takes_once_that_is_known() {
        assert_eq!(line(0, 5, Duration::from_secs(10)), "trust fetch: 0 of 5 repositories");
        assert_eq!(line(900, 1000, Duration::from_secs(90)), "trust fetch: 900 of 1000 repositories, about 10 s left");
        assert_eq!(line(100, 1000, Duration::from_secs(60)), "trust fetch: 100 of 1000 repositories, about 9 min left");
    }
}
