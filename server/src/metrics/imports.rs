//! Files: what their lines came to, and how runs ended.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::Labelled;

/// How a run can end here.
const STATES: [&str; 5] = ["succeeded", "known", "failed", "cancelled", "interrupted"];

/// What a rejected line can be blamed on: a field of a tick, or the line itself. Of rejects
/// that a run does not keep, only the number is known. All are exposed from the start, so that an increase from nothing
/// is seen.
const BLAMED: [&str; 10] =
    ["event_time", "receive_time", "venue", "symbol", "price", "quantity", "side", "trade_id", "line", "not_kept"];

/// What imports count.
#[derive(Debug)]
pub struct ImportMetrics {
    /// Lines whose batch is stored, rejected ones included.
    pub lines: Counter,
    rejects: Labelled,
    runs: Labelled,
}

impl ImportMetrics {
    pub(super) fn new(registry: &mut Registry) -> ImportMetrics {
        let metrics =
            ImportMetrics { lines: Counter::default(), rejects: Labelled::default(), runs: Labelled::default() };
        for state in STATES {
            drop(metrics.runs.get_or_create(&[("state", state)]));
        }
        for field in BLAMED {
            metrics.rejected(field, 0);
        }
        registry.register("tapefeed_import_lines", "Lines of files whose batch is stored", metrics.lines.clone());
        registry.register(
            "tapefeed_import_rejects",
            "Lines of files that were rejected, by the field that was wrong",
            metrics.rejects.clone(),
        );
        registry.register("tapefeed_import_runs", "Imports that ended, by how", metrics.runs.clone());
        metrics
    }

    /// Lines were rejected because of a field.
    pub fn rejected(&self, field: &'static str, lines: u64) {
        self.rejects.get_or_create(&[("field", field)]).inc_by(lines);
    }

    /// An import ended.
    pub fn ended(&self, state: &'static str) {
        self.runs.get_or_create(&[("state", state)]).inc();
    }
}
