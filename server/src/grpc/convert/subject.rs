//! What a history call looks at: the subject, the span of event time, and to how many decimals it rounds.

#[cfg(test)]
use crate::domain::TimeRange;
use crate::domain::ratio::MAX_QUOTIENT_DECIMALS;
use crate::grpc::error::Refusal;
use crate::grpc::violation::Violations;
use crate::query::{Span, Subject};

use super::{name, range, time};

/// Decimals of a mean if the request does not say.
const DEFAULT_DECIMALS: u8 = 9;

/// More decimals than a quotient has, or fewer than none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must lie in 0 to {MAX_QUOTIENT_DECIMALS}")]
pub struct DecimalsInvalid;

/// One instrument, or one symbol over all venues; `None` if a violation was added.
pub fn subject(violations: &mut Violations, venue: &str, symbol: &str) -> Option<Subject> {
    let venue = violations.take("venue", name::venue_or_all(venue));
    let symbol = violations.take("symbol", name::symbol(symbol));
    Some(Subject { venue: venue?, symbol: symbol? })
}

/// A range or a look-back, by the rules of [`range::time_range`].
pub fn span(
    violations: &mut Violations,
    start_time: Option<prost_types::Timestamp>,
    end_time: Option<prost_types::Timestamp>,
    period: Option<prost_types::Duration>,
) -> Result<Option<Span>, Refusal> {
    let Some(period) = period else {
        let now = crate::domain::UnixNanos::MIN;
        let range = range::time_range(violations, start_time, end_time, None, now)?;
        return Ok(range.map(Span::Range));
    };
    if start_time.is_some() || end_time.is_some() {
        violations.add("period", "excludes start_time and end_time: set one or the other");
        return Ok(None);
    }
    let period = violations.take("period", time::positive_span(period));
    Ok(period.map(Span::Period))
}

/// Decimals of a mean.
pub fn decimals(wire: Option<i32>) -> Result<u8, DecimalsInvalid> {
    match wire {
        None => Ok(DEFAULT_DECIMALS),
        Some(wire) => {
            u8::try_from(wire).ok().filter(|&decimals| decimals <= MAX_QUOTIENT_DECIMALS).ok_or(DecimalsInvalid)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_nine_unless_told() {
        let cases = [
            (None, Ok(9)),
            (Some(0), Ok(0)),
            (Some(36), Ok(36)),
            (Some(37), Err(DecimalsInvalid)),
            (Some(-1), Err(DecimalsInvalid)),
            (Some(i32::MAX), Err(DecimalsInvalid)),
        ];
        for (wire, expected) in cases {
            assert_eq!(decimals(wire), expected, "{wire:?}");
        }
    }

    #[test]
    fn a_span_is_a_range_or_a_period_and_not_both() {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let long = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let mut violations = Violations::default();
        let all = span(&mut violations, None, None, None).unwrap();
        assert_eq!(all, Some(Span::Range(TimeRange::ALL)));
        let period = span(&mut violations, None, None, long(60)).unwrap();
        let minute = std::time::Duration::from_secs(60);
        assert_eq!(period, Some(Span::Period(minute)));
        assert!(violations.is_empty());
        for (start, end, period) in
            [(at(1), None, long(60)), (None, at(1), long(60)), (None, None, long(0)), (None, None, long(-1))]
        {
            let mut violations = Violations::default();
            assert_eq!(span(&mut violations, start, end, period).unwrap(), None);
            assert_eq!(violations.first()[0].field, "period");
        }
    }
}
