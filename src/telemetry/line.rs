//! Log lines, each of them one: what strangers wrote into a message or a field ends no line and steers no
//! terminal. The subscriber's own formats escape less: not a newline, and no mark of direction.

use std::fmt;
use std::io::IsTerminal as _;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::escape;

/// Lines for people; on a terminal their level has a colour.
pub(super) struct Text<F> {
    format: F,
    coloured: bool,
}

impl<F> Text<F> {
    pub(super) fn new(format: F) -> Self {
        Self { format, coloured: std::io::stderr().is_terminal() }
    }
}

/// JSON lines.
pub(super) struct Json<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for Text<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let line = one(&self.format, context, event)?;
        let line = escape::line(&line);
        if self.coloured {
            let level = *event.metadata().level();
            return writeln!(out, "{}", line.replacen(level.as_str(), &coloured(level), 1));
        }
        writeln!(out, "{line}")
    }
}

impl<S, N, F> FormatEvent<S, N> for Json<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writeln!(out, "{}", escape::json::visible(&one(&self.0, context, event)?))
    }
}

/// The event as a subscriber's format writes it, without the end of its line.
fn one<S, N, F>(format: &F, context: &FmtContext<'_, S, N>, event: &Event<'_>) -> Result<String, fmt::Error>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    let mut line = String::new();
    format.format_event(context, Writer::new(&mut line), event)?;
    if line.ends_with('\n') {
        line.pop();
    }
    Ok(line)
}

fn coloured(level: Level) -> String {
    let colour = match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    };
    format!("\u{1b}[{colour}m{level}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Written {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    const HOSTILE: &str =
        "a\n2026-01-01T00:00:00Z  INFO forged\r\t\u{0}\u{1b}[31m\u{7f}\u{85}\u{9b}2J\u{202e}\u{2028}b";

    #[derive(Debug, thiserror::Error)]
    #[error("outer {HOSTILE}")]
    struct Failure {
        source: std::io::Error,
    }

    fn log() {
        let error = Failure { source: std::io::Error::other(HOSTILE) };
        let dynamic: &(dyn std::error::Error + 'static) = &error;
        let span = tracing::info_span!("span", shown = %HOSTILE, quoted = HOSTILE);
        span.in_scope(
            || tracing::error!(shown = %HOSTILE, debug = ?HOSTILE, quoted = HOSTILE, error = dynamic, "{HOSTILE}"),
        );
    }

    fn written(subscriber: impl FnOnce(Written) -> tracing::Dispatch) -> String {
        let written = Written::default();
        tracing::dispatcher::with_default(&subscriber(written.clone()), log);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_line_of_text() {
        let text = written(|written| {
            let builder = tracing_subscriber::fmt().with_writer(written).with_ansi(false);
            builder.map_event_format(|format| Text { format, coloured: false }).finish().into()
        });
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(escape::is_hidden), "{line}");
        assert_eq!(line.matches("forged").count(), 8, "{line}");
        let coloured = written(|written| {
            let builder = tracing_subscriber::fmt().with_writer(written).with_ansi(false);
            builder.map_event_format(|format| Text { format, coloured: true }).finish().into()
        });
        assert!(coloured.contains(" \u{1b}[31mERROR\u{1b}[0m span{"), "{coloured}");
        assert_eq!(coloured.matches('\u{1b}').count(), 2, "{coloured}");
    }

    #[test]
    fn an_event_is_one_line_of_json_and_its_values_stay() {
        let text = written(|written| {
            let builder = tracing_subscriber::fmt().with_writer(written).with_ansi(false);
            builder.json().flatten_event(true).map_event_format(Json).finish().into()
        });
        let line = text.strip_suffix('\n').unwrap();
        assert!(!line.contains(escape::is_hidden), "{line}");
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        for field in ["message", "shown", "quoted"] {
            assert_eq!(value[field], HOSTILE, "{field}");
        }
        assert_eq!(value["span"]["shown"], HOSTILE);
    }
}
