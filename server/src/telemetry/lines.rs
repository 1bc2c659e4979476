//! Lines of the log: the subscriber's own formats, with the id of the trace that a line belongs to at its end.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{self, Format, FormatEvent, FormatFields, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, format as formatted};
use tracing_subscriber::registry::LookupSpan;

use crate::trace;

/// Lines for people.
pub(super) struct Text {
    plain: Format<Full>,
    colored: Format<Full>,
}

impl Default for Text {
    fn default() -> Text {
        Text { plain: formatted().with_ansi(false), colored: formatted().with_ansi(true) }
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let format = if out.has_ansi_escapes() { &self.colored } else { &self.plain };
        let Some(here) = trace::current() else {
            return format.format_event(context, out, event);
        };
        let mut line = String::new();
        format.format_event(context, Writer::new(&mut line), event)?;
        writeln!(out, "{} trace_id={}", line.trim_end_matches('\n'), here.trace_id)
    }
}

/// One JSON object a line.
pub(super) struct Json(Format<format::Json>);

impl Default for Json {
    fn default() -> Json {
        Json(formatted().json().flatten_event(true).with_current_span(true).with_span_list(false))
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(here) = trace::current() else {
            return self.0.format_event(context, out, event);
        };
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');
        match line.strip_suffix('}') {
            Some(open) => writeln!(out, "{open},\"trace_id\":\"{}\"}}", here.trace_id),
            None => writeln!(out, "{line}"),
        }
    }
}
