//! Which traces are kept: what the variables say, and none that begins with a statement.

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use crate::config::{SampledShare, Traces};

/// The sampler of the variables. The server also looks at its store by itself, several times a second; a trace of such
/// a look would tell nothing, so a statement that nobody caused is left out.
#[derive(Clone, Debug)]
pub(super) struct Sampled(Sampler);

impl Sampled {
    pub(super) fn new(traces: &Traces) -> Sampled {
        let root = match traces.sampled {
            SampledShare::All => Sampler::AlwaysOn,
            SampledShare::None => Sampler::AlwaysOff,
            SampledShare::Ratio(ratio) => Sampler::TraceIdRatioBased(ratio),
        };
        Sampled(if traces.parent_based { Sampler::ParentBased(Box::new(root)) } else { root })
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
        let has_parent = parent.is_some_and(|parent| parent.span().span_context().is_valid());
        if *kind == SpanKind::Client && !has_parent {
            return SamplingResult {
                decision: SamplingDecision::Drop,
                attributes: Vec::new(),
                trace_state: TraceState::default(),
            };
        }
        self.0.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}
