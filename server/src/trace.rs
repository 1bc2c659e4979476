//! Floor 1: spans among the traces of OpenTelemetry.
//!
//! Modules make spans with the macros of `tracing`; here is what those macros cannot say: where a span's trace came
//! from, what it is linked to, and what it is called outside. Without a collector every answer is `None` and costs next
//! to nothing. Traces that are not recorded count as none: an id that leads nowhere is not told.

use http::HeaderMap;
use opentelemetry::propagation::Extractor;
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceContextExt as _, TraceFlags, TraceState};
use opentelemetry::{Context, Value, global};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::domain::{TraceContext, TraceId};

/// The recorded span that is entered now.
pub fn current() -> Option<TraceContext> {
    of(&Span::current())
}

/// A span, if it is recorded.
pub fn of(span: &Span) -> Option<TraceContext> {
    if span.is_disabled() { None } else { recorded(&span.context()) }
}

fn recorded(context: &Context) -> Option<TraceContext> {
    if !context.has_active_span() {
        return None;
    }
    let span = context.span();
    let context = span.span_context();
    (context.is_valid() && context.is_sampled()).then(|| TraceContext {
        trace_id: TraceId(u128::from_be_bytes(context.trace_id().to_bytes())),
        span_id: u64::from_be_bytes(context.span_id().to_bytes()),
    })
}

/// Makes a span that was not entered yet the child of another one, which may have ended.
pub fn continue_from(span: &Span, parent: TraceContext) {
    // The only failure is a span that nobody records.
    let _ = span.set_parent(Context::new().with_remote_span_context(named(parent)));
}

/// Gives a recorded span that has begun another name.
pub fn rename(span: &Span, name: &'static str) {
    span.context().span().update_name(name);
}

/// Adds an attribute that the log need not have.
pub fn set(span: &Span, key: &'static str, value: impl Into<Value>) {
    span.set_attribute(key, value);
}

/// Says that the server has failed at what the span is about.
pub fn fail(span: &Span, kind: &'static str) {
    span.set_attribute("error.type", kind);
    span.set_status(Status::error(""));
}

/// Links a span to another one that it belongs to without being its child.
pub fn link(span: &Span, to: TraceContext) {
    span.add_link(named(to));
}

fn named(context: TraceContext) -> SpanContext {
    let trace_id = opentelemetry::trace::TraceId::from_bytes(context.trace_id.0.to_be_bytes());
    let span_id = SpanId::from_bytes(context.span_id.to_be_bytes());
    SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, TraceState::default())
}

/// Makes a span that was not entered yet the child of the caller's, if the caller told one.
pub fn follow_caller(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() || !headers.contains_key(TRACEPARENT) {
        return;
    }
    let caller = global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &Headers(headers))
    });
    if caller.has_active_span() {
        // The only failure is a span that nobody records.
        let _ = span.set_parent(caller);
    }
}

/// Whether a call continues a trace of its caller.
pub fn has_caller(headers: &HeaderMap) -> bool {
    headers.contains_key(TRACEPARENT)
        && global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&Context::new(), &Headers(headers)).has_active_span()
        })
}

const TRACEPARENT: &str = "traceparent";

/// Metadata as the propagator reads it.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
