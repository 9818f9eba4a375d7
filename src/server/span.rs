//! The span of a request, for an OpenTelemetry collector (feature `otlp`).

use http::{HeaderMap, Request, StatusCode};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::metrics::{Face, Label as _};
use crate::server::shown_path::shown_path;
use crate::server::trace_context;
use crate::telemetry::SPANS;

/// Begins the span of a request, in the trace that the request names, if it does.
pub(crate) fn begin<B>(request: &Request<B>, id: u64) -> Span {
    let path = request.uri().path();
    let span = tracing::info_span!(
        target: SPANS,
        "request",
        otel.kind = "server",
        http.request.method = request.method().as_str(),
        url.path = &*shown_path(path),
        http.response.status_code = Empty,
        countersign.face = Empty,
        countersign.request_id = format!("{id:016x}"),
    );
    if let Some(parent) = parent(request.headers()) {
        let context = opentelemetry::Context::new().with_remote_span_context(parent);
        // Without a collector there is nothing to set it on.
        let _ = span.set_parent(context);
    }
    span
}

/// Notes how it ended.
pub(crate) fn end(span: &Span, face: Face, status: StatusCode) {
    span.record("http.response.status_code", i64::from(status.as_u16()));
    span.record("countersign.face", face.value());
}

fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let parent = trace_context::parent(headers)?;
    Some(SpanContext::new(
        TraceId::from_hex(parent.trace).ok()?,
        SpanId::from_hex(parent.span).ok()?,
        TraceFlags::new(u8::from_str_radix(parent.flags, 16).ok()?),
        true,
        TraceState::default(),
    ))
}

/// Returns the `traceparent` for requests on behalf of the one that is being answered.
pub(crate) fn current() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    let (trace, id, flags) = (span.trace_id(), span.span_id(), span.trace_flags().to_u8());
    span.is_valid().then(|| format!("00-{trace}-{id}-{flags:02x}"))
}
