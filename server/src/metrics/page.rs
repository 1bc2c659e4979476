//! States that are read when somebody asks.

use std::fmt::{self, Debug};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Where states are written to.
#[derive(Debug)]
pub struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
    /// The first defect; nothing more is written then.
    outcome: fmt::Result,
}

impl Page<'_> {
    /// A state.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.write(name, help, MetricType::Gauge, |metric| ConstGauge::new(value).encode(metric));
    }

    /// A state for each value of a label.
    pub fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, f64)>,
    ) {
        self.write(name, help, MetricType::Gauge, |mut metric| {
            for (value_of_label, value) in values {
                ConstGauge::new(value).encode(metric.encode_family(&[(label, value_of_label)])?)?;
            }
            Ok(())
        });
    }

    /// A number that only grows; its name is written with `_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.write(name, help, MetricType::Counter, |metric| ConstCounter::new(value).encode(metric));
    }

    /// Seconds that only grow; its name is written with `_total`.
    pub fn seconds(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.write(name, help, MetricType::Counter, |metric| ConstCounter::new(value).encode(metric));
    }

    fn write(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        values: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) {
        if self.outcome.is_ok() {
            self.outcome = self.encoder.encode_descriptor(name, help, None, kind).and_then(values);
        }
    }
}

/// Something that writes states.
pub(super) struct Observed<F>(F);

impl<F: Fn(&mut Page<'_>) + Send + Sync + 'static> Observed<F> {
    pub(super) fn new(write: F) -> Observed<F> {
        Observed(write)
    }
}

impl<F> Debug for Observed<F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Observed").finish_non_exhaustive()
    }
}

impl<F: Fn(&mut Page<'_>) + Send + Sync + 'static> Collector for Observed<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder, outcome: Ok(()) };
        (self.0)(&mut page);
        page.outcome
    }
}
