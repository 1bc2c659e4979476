//! Calls: how long, how they ended, and which streams are open.

use std::time::Duration;

use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Labelled;

/// Bounds of calls, as OpenTelemetry's conventions advise for `rpc.server.call.duration`, with finer ones at the start.
const CALLS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Method and code.
type Outcome = [(&'static str, &'static str); 2];

/// Makes the histogram of a new outcome.
#[derive(Clone, Copy, Debug)]
struct Calls;

impl MetricConstructor<Histogram> for Calls {
    fn new_metric(&self) -> Histogram {
        Histogram::new(CALLS)
    }
}

/// What is counted of calls.
#[derive(Debug)]
pub struct RpcMetrics {
    duration: Family<Outcome, Histogram, Calls>,
    streams: Family<[(&'static str, &'static str); 1], Gauge>,
    refusals: Labelled,
}

impl RpcMetrics {
    pub(super) fn new(registry: &mut Registry) -> RpcMetrics {
        let metrics = RpcMetrics {
            duration: Family::new_with_constructor(Calls),
            streams: Family::default(),
            refusals: Labelled::default(),
        };
        registry.register(
            "rpc_server_call_duration_seconds",
            "How long calls took, from their headers to their status; of streams their whole life",
            metrics.duration.clone(),
        );
        registry.register("tapefeed_rpc_streams", "Streaming calls that are open", metrics.streams.clone());
        registry.register(
            "tapefeed_rpc_refusals",
            "Calls that ended with a reason of the contract",
            metrics.refusals.clone(),
        );
        metrics
    }

    /// A call ended.
    pub fn ended(&self, method: &'static str, code: &'static str, took: Duration) {
        let outcome = [("rpc_method", method), ("rpc_response_status_code", code)];
        self.duration.get_or_create(&outcome).observe(took.as_secs_f64());
    }

    /// A streaming call begins.
    pub fn stream_opened(&self, method: &'static str) {
        self.streams.get_or_create(&[("rpc_method", method)]).inc();
    }

    /// A streaming call has ended.
    pub fn stream_closed(&self, method: &'static str) {
        self.streams.get_or_create(&[("rpc_method", method)]).dec();
    }

    /// A call ended with a reason.
    pub fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&[("reason", reason)]).inc();
    }
}
