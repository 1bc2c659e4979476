//! What a stored batch of a file adds to the counts of imports.

use super::import::Field;
use crate::metrics::ImportMetrics;
use crate::store::RunProgress;

/// Counts the lines of a batch that is stored.
pub(super) fn stored(metrics: &ImportMetrics, progress: &RunProgress) {
    metrics.lines.inc_by(progress.lines);
    for reject in &progress.rejects {
        metrics.rejected(field(&reject.reason), 1);
    }
    // A run keeps its first thousand rejects; of the rest only the number is known.
    let more = progress.rejected.saturating_sub(progress.rejects.len() as u64);
    if more > 0 {
        metrics.rejected("not_kept", more);
    }
}

/// The field that a reason begins with; others are about the line itself.
fn field(reason: &str) -> &'static str {
    let begin = reason.split(':').next().unwrap_or_default();
    Field::named(begin).map_or("line", Field::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_by_their_field() {
        assert_eq!(field("price: not a decimal"), "price");
        assert_eq!(field("trade_id: not UTF-8"), "trade_id");
        assert_eq!(field("has 3 fields, and the header has 4"), "line");
        assert_eq!(field("AAPL: not of this world"), "line");
    }
}
