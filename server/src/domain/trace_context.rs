//! The name of a span in a trace that is recorded, as a value that travels with what the trace is about.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// The traces of the batches of a block, which end where somebody is given the block for the first time.
#[derive(Debug, Default)]
pub struct Traced {
    batches: Box<[TraceContext]>,
    delivered: AtomicBool,
}

impl Traced {
    /// Of batches that are recorded.
    pub fn new(batches: impl Iterator<Item = TraceContext>) -> Traced {
        Traced { batches: batches.collect(), delivered: AtomicBool::new(false) }
    }

    /// The batches, for whoever delivers them first; for everybody after that, none.
    pub fn deliver(&self) -> &[TraceContext] {
        if self.batches.is_empty() || self.delivered.swap(true, Ordering::Relaxed) {
            return &[];
        }
        &self.batches
    }
}
