//! Logging set-up: talk goes to stderr, as text or as JSON lines; results never do.

mod line;
#[cfg(feature = "otlp")]
mod otlp;

#[cfg(feature = "otlp")]
pub use otlp::SPANS;
use tracing_subscriber::EnvFilter;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogForm {
    /// For people.
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Starts logging at `level`, which is a level (`info`) or a filter (`countersign=debug,hyper=warn`).
///
/// # Errors
/// The sentence that says what is wrong with `level`, or with the collector of spans.
pub fn start(level: &str, form: LogForm) -> Result<(), String> {
    let wrong = |e| format!("--log {level:?} is not a log filter: {e}");
    let mut filter = EnvFilter::try_new(level).map_err(wrong)?;
    // It warns of what strangers send in a handshake, a line each; a filter that names it counts more.
    if !level.contains("rustls") {
        filter = filter.add_directive("rustls=error".parse().map_err(wrong)?);
    }
    // It writes down addresses that it cannot read, with whatever a client has put into their query.
    filter = filter.add_directive("h2::server=info".parse().map_err(wrong)?);
    start_with(filter, form)
}

/// Ends what was started: the last spans are sent.
pub fn finish() {
    #[cfg(feature = "otlp")]
    otlp::finish();
}

#[cfg(feature = "otlp")]
use otlp::start as start_with;

#[cfg(not(feature = "otlp"))]
fn start_with(filter: EnvFilter, form: LogForm) -> Result<(), String> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let builder = builder.with_ansi(false);
    // A second start, as in tests that run several commands in one process, keeps the first.
    let _ = match form {
        LogForm::Text => builder.map_event_format(line::Text::new).try_init(),
        LogForm::Json => builder.json().flatten_event(true).map_event_format(line::Json).try_init(),
    };
    Ok(())
}
