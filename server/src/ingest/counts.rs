//! What a stored batch of a file adds to the counts of imports.

use super::import::{Field, RejectCode};
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

/// The field that a reason begins with; others are about the line itself, or about what it does to another.
fn blamed(reject: &Reject) -> &'static str {
    if reject.code == RejectCode::ActionNotSupported.name() {
        return "action";
    }
    let begin = reject.reason.split(':').next().unwrap_or_default();
    Field::named(begin).map_or("line", Field::name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_by_their_field() {
        let blamed_for = |code: RejectCode, reason: &str| {
            blamed(&Reject { line: 1, code: code.name().into(), reason: reason.to_owned(), text: String::new() })
        };
        assert_eq!(blamed_for(RejectCode::FieldInvalid, "price: not a decimal"), "price");
        assert_eq!(blamed_for(RejectCode::FieldInvalid, "trade_id: not UTF-8"), "trade_id");
        assert_eq!(blamed_for(RejectCode::FieldInvalid, "has 3 fields, and the header has 4"), "line");
        assert_eq!(blamed_for(RejectCode::FieldInvalid, "AAPL: not of this world"), "line");
        assert_eq!(blamed_for(RejectCode::ActionNotSupported, "action: a log cannot undo"), "action");
    }
}
