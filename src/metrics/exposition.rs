//! The text that Prometheus scrapes: its own format 0.0.4, and OpenMetrics 1.0 for who asks for it.

use std::fmt::Write as _;

use super::{catalogue, process, upstream};

/// The form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text exposition format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Returns the form for an `Accept` header.
    pub fn for_accept(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// Returns the media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes all metrics of the process, as they are now.
pub fn expose(format: Format) -> String {
    let mut sink = Sink::new(format);
    for family in catalogue::FAMILIES {
        family.expose(&mut sink);
    }
    upstream::expose(&mut sink);
    process::expose(&mut sink);
    sink.finish()
}

/// The kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// What can be written.
pub(super) trait Exposed: Sync {
    fn expose(&self, sink: &mut Sink);
}

/// The text as it grows.
pub(super) struct Sink {
    format: Format,
    name: &'static str,
    text: String,
}

impl Sink {
    pub(super) fn new(format: Format) -> Self {
        Self { format, name: "", text: String::with_capacity(32 * 1024) }
    }

    /// Begins a family; `help` is one line without backslashes.
    pub(super) fn family(&mut self, name: &'static str, help: &str, kind: Kind) {
        self.name = name;
        let kind_name = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // An OpenMetrics counter is named without the suffix of its samples.
        let family = match self.format {
            Format::OpenMetrics if kind == Kind::Counter => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let _ = writeln!(self.text, "# HELP {family} {help}\n# TYPE {family} {kind_name}");
    }

    /// Writes one sample of the family that was begun last.
    pub(super) fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (at, (key, value)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            self.text.push_str(key);
            self.text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn label_values_are_escaped() {
        let mut sink = Sink::new(Format::Text);
        sink.family("x", "X.", Kind::Gauge);
        sink.sample("", &[("a", "\\ \" \n é")], 1.5);
        assert_eq!(sink.finish(), "# HELP x X.\n# TYPE x gauge\nx{a=\"\\\\ \\\" \\n é\"} 1.5\n");
    }

    #[test]
    fn each_form_has_its_names() {
        let text = expose(Format::Text);
        assert!(text.contains("# TYPE countersign_requests_total counter\n") && !text.contains("# EOF"));
        let open = expose(Format::OpenMetrics);
        assert!(open.contains("# TYPE countersign_requests counter\n") && open.ends_with("\n# EOF\n"));
        assert!(open.contains("\ncountersign_connections_total 0\n"), "{open}");
        assert_eq!(Format::for_accept("application/openmetrics-text;version=1.0.0,*/*;q=0.1"), Format::OpenMetrics);
        assert_eq!(Format::for_accept("text/plain"), Format::Text);
    }

    #[test]
    fn names_are_unique_and_of_good_form() {
        let text = expose(Format::Text);
        let mut seen = BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(seen.insert(name.to_owned()), "{name} twice");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
            assert!(name.starts_with("countersign_") || name.starts_with("process_"), "{name}");
        }
        assert!(seen.len() > 15);
        let samples: BTreeSet<_> =
            text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(' ').next()).collect();
        assert_eq!(samples.len(), text.lines().filter(|l| !l.starts_with('#')).count(), "a sample twice");
    }
}
