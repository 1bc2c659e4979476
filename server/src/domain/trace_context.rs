//! The name of a span in a trace that is recorded, as a value that travels with what the trace is about.

use std::fmt;

/// A trace and a span of it, as W3C Trace Context names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not zero.
    pub trace_id: TraceId,
    /// The span; not zero.
    pub span_id: u64,
}

/// A trace. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

impl fmt::Display for TraceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:032x}", self.0)
    }
}
