//! Where results and talk go: results on stdout, talk on stderr; the only place that prints.

use std::io::Write as _;

use serde::Serialize;

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

/// Prints a result: `text` for people, or `value` as one line of JSON.
///
/// # Errors
/// When stdout cannot be written; a reader that went away (`| head`) is no error.
pub fn result(format: Format, text: &str, value: &impl Serialize) -> anyhow::Result<()> {
    let mut line = match format {
        Format::Text => text.trim_end().to_owned(),
        Format::Json => serde_json::to_string(value)?,
    };
    if line.is_empty() {
        return Ok(());
    }
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// Says something on stderr, for people.
pub fn talk(text: &str) {
    // Nobody is left to be told when stderr is gone.
    let _ = writeln!(std::io::stderr(), "{}", text.trim_end());
}

/// Tells an error with its causes, each once: many of our sentences already end with their cause's.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut told = String::new();
    let mut last = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told.clone_from(&cause);
        } else if !last.contains(&cause) && !told.ends_with(&cause) {
            told.push_str(": ");
            told.push_str(&cause);
        } else {
            continue;
        }
        last = cause;
    }
    told
}

/// Makes text of strangers safe for a terminal: control characters are shown, not obeyed.
pub fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escape = c.is_control() && c != '\n' && c != '\t';
            let hidden = matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{200E}' | '\u{200F}');
            if escape || hidden { c.escape_unicode().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
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
    }

    #[test]
    fn strangers_do_not_steer_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\u{202e}c\n"), "a\\u{1b}[31mb\\u{202e}c\n");
    }
}
