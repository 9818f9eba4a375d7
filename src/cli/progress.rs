//! How a long job shows how far it is, on stderr: a bar on a terminal, a line every ten seconds
//! elsewhere, nothing for jobs that are over before.

use std::collections::VecDeque;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::resign::{Position, Progress};

const REDRAW: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(10);
/// The rate is that of this time, so that it follows what happens and does not jump.
const WINDOW: Duration = Duration::from_secs(15);

/// A job's progress on stderr, until dropped.
pub struct Display {
    bar: Option<ProgressBar>,
    /// Its end ends the thread that draws.
    stop: Option<Sender<()>>,
    drawing: Option<JoinHandle<()>>,
}

impl Display {
    /// Begins to show it; `what` is the command's name.
    pub fn start(what: &'static str, progress: Arc<Progress>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style("{spinner} "));
            bar
        });
        let (stop, stopped) = channel();
        let shown = bar.clone();
        let draw = move || {
            let (start, mut pace, mut ends) = (Instant::now(), Pace::default(), false);
            let pause = if shown.is_some() { REDRAW } else { LINE };
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let position = progress.position();
                let line = sentence(&position, pace.note(start.elapsed(), position.done));
                let Some(bar) = &shown else {
                    output::talk(&format!("{what}: {line}"));
                    continue;
                };
                if position.total.is_some() && !std::mem::replace(&mut ends, true) {
                    bar.set_style(style("{bar:24} {percent:>3} % "));
                }
                bar.set_length(position.total.unwrap_or(position.found));
                bar.set_position(position.done);
                bar.set_message(line);
                bar.tick();
            }
        };
        let drawing = std::thread::Builder::new().name("progress".to_owned()).spawn(draw).ok();
        Self { bar, stop: Some(stop), drawing }
    }

    /// Lets something be written above the bar, if there is one.
    pub fn beside<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(drawing) = self.drawing.take() {
            let _ = drawing.join();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(before: &str) -> ProgressStyle {
    ProgressStyle::with_template(&format!("{before}{{msg}}")).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// How many images are done in a second, lately.
#[derive(Default)]
struct Pace(VecDeque<(Duration, u64)>);

impl Pace {
    /// Notes how many are done at a time, and returns the rate.
    fn note(&mut self, at: Duration, done: u64) -> f64 {
        if self.0.is_empty() {
            self.0.push_back((Duration::ZERO, 0));
        }
        // The last one before the window stays: the rate is that since then.
        while self.0.get(1).is_some_and(|(second, _)| *second + WINDOW <= at) {
            self.0.pop_front();
        }
        self.0.push_back((at, done));
        let (since, before) = self.0.front().copied().unwrap_or_default();
        let seconds = at.saturating_sub(since).as_secs_f64();
        if seconds > 0.0 { done.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }
}

/// `120000 of 1000000 images, 8123/s, refused 3, failed 0, 2 m left`. Sources are listed only a
/// little ahead of the work: before the total is known nobody can tell how long it takes.
fn sentence(position: &Position, rate: f64) -> String {
    let Position { found: _, total, done, refused, failed } = position;
    let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
    let left = total.map(|total| total.saturating_sub(*done) as f64 / rate).filter(|left| left.is_finite());
    let left = left.map(|left| format!(", {} left", duration(left))).unwrap_or_default();
    let rate = if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") };
    format!("{done}{of} images, {rate}/s, refused {refused}, failed {failed}{left}")
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} m", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line() {
        let listing = Position { found: 121_000, total: None, done: 120_000, refused: 3, failed: 0 };
        assert_eq!(sentence(&listing, 8123.4), "120000 images, 8123/s, refused 3, failed 0");
        let counted = Position { total: Some(1_000_000), ..listing };
        assert_eq!(sentence(&counted, 8123.4), "120000 of 1000000 images, 8123/s, refused 3, failed 0, 2 m left");
        let ending = Position { done: 999_980, ..counted };
        assert_eq!(sentence(&ending, 2.04), "999980 of 1000000 images, 2.0/s, refused 3, failed 0, 10 s left");
        let beginning = Position { done: 0, ..counted };
        assert_eq!(sentence(&beginning, 10.0), "0 of 1000000 images, 10/s, refused 3, failed 0, 27.8 h left");
        assert_eq!(sentence(&beginning, 0.0), "0 of 1000000 images, 0.0/s, refused 3, failed 0");
    }

    #[test]
    fn the_rate_is_a_recent_one() {
        let mut pace = Pace::default();
        let mut rate = 0.0;
        for second in 1..=60 {
            rate = pace.note(Duration::from_secs(second), second.min(30) * 100);
            assert!(second > 30 || (rate - 100.0).abs() < 1e-9, "{second}: {rate}");
        }
        assert!(rate < 1e-9, "nothing was done for a while: {rate}");
        assert!(pace.0.len() <= 18);
    }
}
