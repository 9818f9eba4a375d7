//! Where results and talk go: results on stdout, talk on stderr. Alone prints, but for results that grow
//! (stream.rs), bars (progress.rs) and the log (telemetry); tests/it/printing.rs looks for others.
//!
//! What is printed comes as lines, and each goes through [`escape::line`]: whatever a value holds, the
//! program alone decides where a line ends.

use std::io::Write as _;

use serde::Serialize;

use crate::escape;

/// The form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document, for machines.
    Json,
}

/// What a command found out; it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, or accepted: exit 0.
    Yes,
    /// Rejected, not found, or some items failed: exit 1.
    No,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// Prints a result: `lines` for people, or `value` as one line of JSON.
///
/// # Errors
/// When stdout cannot be written; a reader that went away (`| head`) is no error.
pub fn result(format: Format, lines: &[impl AsRef<str>], value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = match format {
        Format::Text => rendered(lines),
        Format::Json => escape::json::to_string(value)?,
    };
    if text.is_empty() {
        return Ok(());
    }
    text.push('\n');
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Writes a signature, which is no text, to stdout.
///
/// # Errors
/// When stdout cannot be written; without its reader a signature is lost.
pub fn signature(blob: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    Ok(stdout.write_all(blob).and_then(|()| stdout.flush())?)
}

/// Says one line on stderr, for people.
pub fn talk(line: &str) {
    talk_lines(&[line]);
}

/// Says some lines on stderr, for people.
pub fn talk_lines(lines: &[impl AsRef<str>]) {
    // Nobody is left to be told when stderr is gone.
    let _ = writeln!(std::io::stderr(), "{}", rendered(lines));
}

/// Has a panic, whose message may hold anything, told as everything else is.
pub fn tell_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        let message = panic.payload_as_str().unwrap_or("something without words");
        talk(&format!("countersign: internal error: thread '{name}' panicked at {place}: {message}"));
        // With RUST_BACKTRACE.
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            talk_lines(&trace.to_string().lines().collect::<Vec<_>>());
        }
    }));
}

/// Puts lines one below the other, each of them one line.
pub fn rendered(lines: &[impl AsRef<str>]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| escape::line(line.as_ref())).collect();
    lines.join("\n").trim_end_matches('\n').to_owned()
}

/// Tells an error with its causes, each once: many of our sentences already end with their cause's.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut told = String::new();
    let mut last = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told.clone_from(&cause);
        } else if !last.to_lowercase().contains(&bare(&cause)) {
            told.push_str(": ");
            told.push_str(&cause);
        } else {
            continue;
        }
        last = cause;
    }
    told
}

/// A cause without what our sentences leave out: the system's numbers, and Go's lower case.
fn bare(cause: &str) -> String {
    cause.split(" (os error").next().unwrap_or_default().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("reading x: {source}")]
    struct Outer {
        source: std::num::ParseIntError,
    }

    #[test]
    fn a_cause_is_told_once() {
        use anyhow::Context as _;
        let source = "x".parse::<u8>().unwrap_err();
        let error = Err::<(), _>(Outer { source }).context("--flag").unwrap_err();
        assert_eq!(sentence(&error), "--flag: reading x: invalid digit found in string");
        assert_eq!(sentence(&anyhow::anyhow!("a").context("b").context("c")), "c: b: a");
        let gone = || std::io::Error::from_raw_os_error(2);
        assert_eq!(sentence(&anyhow::Error::from(gone()).context("x")), "x: No such file or directory (os error 2)");
        let told = anyhow::Error::from(gone()).context("open x: no such file or directory");
        assert_eq!(sentence(&told), "open x: no such file or directory");
    }

    #[test]
    fn a_value_ends_no_line() {
        let lines = ["a: x\n  accepted", "", "b\u{1b}[31m\u{202e}\u{85}c", "", ""];
        assert_eq!(rendered(&lines), "a: x\\n  accepted\n\nb\\u{1b}[31m\\u{202e}\\u{85}c");
    }
}
