//! Results that come one by one: lines for people, or one JSON document with an array that is
//! written as it grows, so that memory does not.

use std::io::{BufWriter, ErrorKind, IsTerminal as _, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::output::{self, Format};
use crate::escape;

/// A growing result on stdout, with a count on stderr when that is a terminal.
pub struct Listing<W: Write> {
    format: Format,
    out: BufWriter<W>,
    /// Each line is wanted at once.
    interactive: bool,
    items: u64,
    /// The reader went away (`| head`): nobody wants the rest.
    gone: bool,
    progress: ProgressBar,
}

impl Listing<std::io::Stdout> {
    /// Begins a result on stdout; `array` is the name of the JSON document's array.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub fn begin(format: Format, array: &str) -> anyhow::Result<Self> {
        let progress = if std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr())
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} looked at, {per_sec}") {
            progress.set_style(style);
        }
        Self::over(std::io::stdout(), std::io::stdout().is_terminal(), progress, format, array)
    }
}

impl<W: Write> Listing<W> {
    fn over(out: W, interactive: bool, progress: ProgressBar, format: Format, array: &str) -> anyhow::Result<Self> {
        let mut listing = Self { format, out: BufWriter::new(out), interactive, items: 0, gone: false, progress };
        if format == Format::Json {
            listing.write(&format!("{{{}:[", escape::json::to_string(array)?))?;
        }
        Ok(listing)
    }

    /// Counts something that was looked at.
    pub fn tick(&self) {
        self.progress.inc(1);
    }

    /// Tells of a failure on stderr, beside the result.
    pub fn talk(&self, error: &impl std::fmt::Display) {
        self.progress.suspend(|| output::talk(&format!("countersign: {error}")));
    }

    /// Tells whether the reader went away.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Writes one element: `lines` (or none) for people, `value` for machines.
    ///
    /// # Errors
    /// When stdout cannot be written; a reader that went away is no error.
    pub fn item(&mut self, lines: &[impl AsRef<str>], value: &impl Serialize) -> anyhow::Result<()> {
        if self.format == Format::Text {
            return self.lines(lines);
        }
        let comma = if self.items > 0 { ",\n" } else { "\n" };
        self.items += 1;
        let json = escape::json::to_string(value)?;
        self.write(&format!("{comma}{json}"))
    }

    /// Writes lines that only people get.
    ///
    /// # Errors
    /// As [`Listing::item`].
    pub fn lines(&mut self, lines: &[impl AsRef<str>]) -> anyhow::Result<()> {
        let text = output::rendered(lines);
        if self.format == Format::Json || text.is_empty() {
            return Ok(());
        }
        self.write(&format!("{text}\n"))
    }

    /// Ends the result: `lines` for people; for machines the members of `rest`, an object, after
    /// the array.
    ///
    /// # Errors
    /// As [`Listing::item`].
    pub fn end(mut self, lines: &[impl AsRef<str>], rest: &impl Serialize) -> anyhow::Result<()> {
        self.progress.finish_and_clear();
        match self.format {
            Format::Text => self.lines(lines)?,
            Format::Json => {
                let rest = escape::json::to_string(rest)?;
                let members = rest.strip_prefix('{').unwrap_or("}");
                let comma = if members == "}" { "" } else { "," };
                self.write(&format!("\n]{comma}{members}\n"))?;
            }
        }
        if self.gone {
            return Ok(());
        }
        ignore_gone(self.out.flush()).map(drop)
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        if self.gone {
            return Ok(());
        }
        let (out, interactive) = (&mut self.out, self.interactive);
        let mut put = || out.write_all(text.as_bytes()).and_then(|()| if interactive { out.flush() } else { Ok(()) });
        let result = if interactive { self.progress.suspend(put) } else { put() };
        self.gone = ignore_gone(result)?;
        Ok(())
    }
}

/// Tells whether the reader went away.
fn ignore_gone(result: std::io::Result<()>) -> anyhow::Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Makes one field of a line out of text of strangers: no character of it ends the field or the
/// line, or steers the terminal.
pub fn field(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { escape::text(text).replace(' ', "\\u{20}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(format: Format, items: &[serde_json::Value], rest: &serde_json::Value) -> String {
        let mut out = Vec::new();
        let mut listing = Listing::over(&mut out, false, ProgressBar::hidden(), format, "sets").unwrap();
        for item in items {
            listing.item(&[format!("item {item}")], item).unwrap();
        }
        listing.end(&["end"], rest).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn one_document() {
        for (items, rest) in [
            (vec![], json!({})),
            (vec![json!(1)], json!({})),
            (vec![json!({"a": "\n"}), json!([2])], json!({"summary": {"n": 2}})),
        ] {
            let text = written(Format::Json, &items, &rest);
            let mut expected = rest.clone();
            expected["sets"] = items.into();
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), expected, "{text}");
        }
        assert_eq!(written(Format::Text, &[json!(1), json!(2)], &json!({})), "item 1\nitem 2\nend\n");
    }

    #[test]
    fn a_reader_that_goes_away_is_no_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut listing = Listing::over(Gone, true, ProgressBar::hidden(), Format::Text, "sets").unwrap();
        assert!(!listing.is_gone());
        listing.lines(&["x"]).unwrap();
        assert!(listing.is_gone());
        listing.end(&["x"], &json!({})).unwrap();
    }

    #[test]
    fn fields_stay_fields() {
        assert_eq!(field("us.icr.io/birds:1"), "us.icr.io/birds:1");
        assert_eq!(field("a b\nc\td\u{1b}\\"), "a\\u{20}b\\nc\\td\\u{1b}\\\\");
        assert_eq!(field(""), "-");
    }
}
