//! What a stored batch of a file adds to the counts of imports.

use super::import::Field;
use crate::metrics::ImportMetrics;
use crate::store::{Reject, RunProgress};

/// Counts the lines of a batch that is stored.
pub(super) fn stored(metrics: &ImportMetrics, progress: &RunProgress) {
    metrics.lines.inc_by(progress.lines);
    for reject in &progress.rejects {
        metrics.rejected(blamed(reject), 1);
    }
    // A run keeps its first thousand rejects; of the rest only the number is known.
    let more = progress.rejected.saturating_sub(progress.rejects.len() as u64);
    if more > 0 {
        metrics.rejected("not_kept", more);
    }
}

/// The field that a reason begins with; others are about the line itself.
fn blamed(reject: &Reject) -> &'static str {
    let begin = reject.reason.split(':').next().unwrap_or_default();
    Field::named(begin).map_or("line", Field::name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::import::RejectCode;

    #[test]
    fn reasons_are_counted_by_their_field() {
        let blamed_for = |reason: &str| {
            let code = RejectCode::FieldInvalid.name().into();
            blamed(&Reject { line: 1, code, reason: reason.to_owned(), text: String::new() })
        };
        assert_eq!(blamed_for("price: not a decimal"), "price");
        assert_eq!(blamed_for("trade_id: not UTF-8"), "trade_id");
        assert_eq!(blamed_for("has 3 fields, and the header has 4"), "line");
        assert_eq!(blamed_for("AAPL: not of this world"), "line");
    }
}
