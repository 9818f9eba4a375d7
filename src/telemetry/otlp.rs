//! Spans of requests for an OpenTelemetry collector (feature `otlp`).
//!
//! They are sent (OTLP over HTTP, in batches, by a thread of their own) when
//! `OTEL_EXPORTER_OTLP_ENDPOINT` or its `_TRACES_` variant names a collector; the other `OTEL_`
//! variables mean what they mean everywhere. A collector that is away costs spans, nothing else.

use std::sync::OnceLock;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, registry};

use super::{LogForm, line};

/// The target of the spans that are sent; log lines do not show them.
pub const SPANS: &str = "countersign::span";

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

fn is_span(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == SPANS
}

/// Starts logging, and sending of spans if there is a collector.
pub(super) fn start(filter: EnvFilter, form: LogForm) -> Result<(), String> {
    let filter = filter.and(filter_fn(|metadata| !is_span(metadata)));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(false);
    let lines = match form {
        LogForm::Text => lines.map_event_format(line::Text::new).boxed(),
        LogForm::Json => lines.json().flatten_event(true).map_event_format(line::Json).boxed(),
    };
    let spans = provider()?.map(|provider| {
        let tracer = provider.tracer("countersign");
        PROVIDER.get_or_init(|| provider);
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter_fn(is_span))
    });
    let _ = registry().with(lines.with_filter(filter)).with(spans).try_init();
    Ok(())
}

fn provider() -> Result<Option<SdkTracerProvider>, String> {
    let said = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !said("OTEL_EXPORTER_OTLP_ENDPOINT") && !said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        return Ok(None);
    }
    let exporter = SpanExporter::builder().with_http().build();
    let exporter = exporter.map_err(|error| format!("spans cannot be sent to the OpenTelemetry collector: {error}"))?;
    let resource = Resource::builder();
    let named = if said("OTEL_SERVICE_NAME") { resource } else { resource.with_service_name("countersign") };
    Ok(Some(SdkTracerProvider::builder().with_resource(named.build()).with_batch_exporter(exporter).build()))
}

/// Sends what is left.
pub(super) fn finish() {
    if let Some(Err(error)) = PROVIDER.get().map(SdkTracerProvider::shutdown) {
        tracing::warn!(error = %error, "the last spans were not sent");
    }
}
