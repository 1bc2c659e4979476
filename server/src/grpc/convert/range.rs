//! Ranges of event time: `start_time` and `end_time`, or `period`.

use crate::domain::{TimeRange, UnixNanos};
use crate::grpc::error::Refusal;
use crate::grpc::violation::Violations;

use super::time;

/// The range of a request: half-open, by event time, unbounded where a side is absent. A period looks back from `now`.
///
/// `Ok(None)` says that a violation was added; a range that ends before it begins has a reason of its own.
pub fn time_range(
    violations: &mut Violations,
    start_time: Option<prost_types::Timestamp>,
    end_time: Option<prost_types::Timestamp>,
    period: Option<prost_types::Duration>,
    now: UnixNanos,
) -> Result<Option<TimeRange>, Refusal> {
    if let Some(period) = period {
        if start_time.is_some() || end_time.is_some() {
            violations.add("period", "excludes start_time and end_time: set one or the other");
            return Ok(None);
        }
        let period = violations.take("period", time::positive_span(period));
        return Ok(period.and_then(|period| TimeRange::new(Some(now.saturating_sub(period)), Some(now)).ok()));
    }
    let start = bound(violations, "start_time", start_time);
    let end = bound(violations, "end_time", end_time);
    let (Some(start), Some(end)) = (start, end) else {
        return Ok(None);
    };
    match (TimeRange::new(start, end), start, end) {
        (Ok(range), _, _) => Ok(Some(range)),
        (Err(_), Some(start), Some(end)) => Err(Refusal::range_inverted(start, end)),
        (Err(inverted), _, _) => Err(Refusal::field("end_time", inverted)),
    }
}

/// One bound: outside `None` is a violation, inside `None` is unbounded.
fn bound(violations: &mut Violations, field: &str, wire: Option<prost_types::Timestamp>) -> Option<Option<UnixNanos>> {
    match wire {
        None => Some(None),
        Some(wire) => violations.take(field, UnixNanos::try_from(wire)).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::proto::ErrorReason;

    type Bounds = (Option<UnixNanos>, Option<UnixNanos>);
    type Wire = (Option<i64>, Option<i64>, Option<i64>);

    fn read((start, end, period): Wire) -> (Result<Option<TimeRange>, Refusal>, Violations) {
        let mut violations = Violations::default();
        let at = |seconds| prost_types::Timestamp { seconds, nanos: 0 };
        let range = time_range(
            &mut violations,
            start.map(at),
            end.map(at),
            period.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            UnixNanos::from_seconds(1_000, 0).unwrap(),
        );
        (range, violations)
    }

    #[test]
    fn ranges_are_read_as_asked() {
        let at = |seconds| UnixNanos::from_seconds(seconds, 0).ok();
        let cases: [(&str, Wire, Bounds); 6] = [
            ("everything", (None, None, None), (None, None)),
            ("from", (Some(5), None, None), (at(5), None)),
            ("both", (Some(5), Some(9), None), (at(5), at(9))),
            ("empty", (Some(5), Some(5), None), (at(5), at(5))),
            ("a period", (None, None, Some(60)), (at(940), at(1_000))),
            ("a period before 1970", (None, None, Some(5_000)), (at(0), at(1_000))),
        ];
        for (name, wire, (start, end)) in cases {
            let (range, violations) = read(wire);
            assert_eq!(range.unwrap(), TimeRange::new(start, end).ok(), "{name}");
            assert!(violations.is_empty(), "{name}");
        }
    }

    #[test]
    fn ranges_that_break_a_rule_name_their_field() {
        let cases: [(&str, Wire, &[&str]); 5] = [
            ("1969", (Some(-1), None, None), &["start_time"]),
            ("1969 and 2300", (Some(-1), Some(10_413_792_000), None), &["start_time", "end_time"]),
            ("a range and a period", (Some(1), None, Some(60)), &["period"]),
            ("a period of zero", (None, None, Some(0)), &["period"]),
            ("a negative period", (None, None, Some(-60)), &["period"]),
        ];
        for (name, wire, fields) in cases {
            let (range, violations) = read(wire);
            assert_eq!(range.unwrap(), None, "{name}");
            let found: Vec<_> = violations.first().iter().map(|v| v.field.as_str()).collect();
            assert_eq!(found, fields, "{name}");
        }
        let (inverted, _) = read((Some(9), Some(5), None));
        assert_eq!(inverted.unwrap_err().reason(), ErrorReason::RangeInverted);
    }
}
