//! Which spans are recorded: those that the variables say, none that begins a trace with a statement, and none while
//! the queue to the collector is full.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::export::Room;
use crate::config::{SampledShare, Traces};

/// The sampler of the variables. The server also looks at its store by itself, several times a second; a trace of such
/// a look would tell nothing, so a statement that nobody caused is left out.
#[derive(Clone, Debug)]
pub(super) struct Sampled {
    sampler: Sampler,
    room: Room,
}

impl Sampled {
    pub(super) fn new(traces: &Traces, room: Room) -> Sampled {
        let root = match traces.sampled {
            SampledShare::All => Sampler::AlwaysOn,
            SampledShare::None => Sampler::AlwaysOff,
            SampledShare::Ratio(ratio) => Sampler::TraceIdRatioBased(ratio),
        };
        let sampler = if traces.parent_based { Sampler::ParentBased(Box::new(root)) } else { root };
        Sampled { sampler, room }
    }
}

impl ShouldSample for Sampled {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let none = SamplingResult {
            decision: SamplingDecision::Drop,
            attributes: Vec::new(),
            trace_state: TraceState::default(),
        };
        let has_parent = parent.is_some_and(|parent| parent.span().span_context().is_valid());
        if *kind == SpanKind::Client && !has_parent {
            return none;
        }
        let told = self.sampler.should_sample(parent, trace_id, name, kind, attributes, links);
        // Asked last: only what would have been recorded counts as dropped.
        if told.decision == SamplingDecision::RecordAndSample && !self.room.is_there() { none } else { told }
    }
}
