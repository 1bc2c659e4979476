//! `google.protobuf.Timestamp` and `Duration`.

use std::time::Duration;

use crate::domain::time::NANOS_PER_SECOND;
use crate::domain::{TimeInvalid, UnixNanos};

/// Most seconds of a protobuf duration, about 10,000 years.
const MAX_SPAN_SECONDS: i64 = 315_576_000_000;

/// Why a span of time was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanInvalid {
    /// Below zero.
    #[error("must not be negative")]
    Negative,
    /// Zero or below, where only longer spans make sense.
    #[error("must be longer than 0")]
    NotPositive,
    /// Not in protobuf's form.
    #[error("seconds and nanos must have the same sign, nanos below 1000000000, seconds at most 315576000000")]
    Malformed,
}

impl TryFrom<prost_types::Timestamp> for UnixNanos {
    type Error = TimeInvalid;

    fn try_from(time: prost_types::Timestamp) -> Result<UnixNanos, TimeInvalid> {
        let prost_types::Timestamp { seconds, nanos } = time;
        UnixNanos::from_seconds(seconds, nanos)
    }
}

impl From<UnixNanos> for prost_types::Timestamp {
    fn from(time: UnixNanos) -> prost_types::Timestamp {
        let (seconds, nanos) = time.seconds_and_nanos();
        prost_types::Timestamp { seconds, nanos }
    }
}

/// A span of time that may be zero.
pub fn span(span: prost_types::Duration) -> Result<Duration, SpanInvalid> {
    let prost_types::Duration { seconds, nanos } = span;
    let mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    let nanos_fit = i64::from(nanos).unsigned_abs() < NANOS_PER_SECOND.unsigned_abs();
    if mixed || !nanos_fit || seconds.unsigned_abs() > MAX_SPAN_SECONDS.unsigned_abs() {
        return Err(SpanInvalid::Malformed);
    }
    match (u64::try_from(seconds), u32::try_from(nanos)) {
        (Ok(seconds), Ok(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err(SpanInvalid::Negative),
    }
}

/// A span of time that is longer than zero.
pub fn positive_span(wire: prost_types::Duration) -> Result<Duration, SpanInvalid> {
    match span(wire) {
        Ok(Duration::ZERO) | Err(SpanInvalid::Negative) => Err(SpanInvalid::NotPositive),
        other => other,
    }
}

/// A span of time on its way out; longer ones than the wire takes are cut there.
pub fn wire_span(span: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(span.as_secs()).map_or(MAX_SPAN_SECONDS, |seconds| seconds.min(MAX_SPAN_SECONDS)),
        nanos: span.subsec_nanos() as i32,
    }
}

/// The age of an instant, negative if it lies ahead of now.
pub fn wire_age(now: UnixNanos, then: UnixNanos) -> prost_types::Duration {
    // Both lie in 0 to i64::MAX, so the difference fits.
    let nanos = now.nanos() - then.nanos();
    prost_types::Duration { seconds: nanos / NANOS_PER_SECOND, nanos: (nanos % NANOS_PER_SECOND) as i32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp(seconds: i64, nanos: i32) -> Result<UnixNanos, TimeInvalid> {
        prost_types::Timestamp { seconds, nanos }.try_into()
    }

    #[test]
    fn times_outside_1970_to_2262_are_refused() {
        let cases = [
            ("the epoch", (0, 0), Ok(0)),
            ("a tick ending in 789", (1_700_000_000, 123_456_789), Ok(1_700_000_000_123_456_789)),
            ("the last nanosecond", (9_223_372_036, 854_775_807), Ok(i64::MAX)),
            ("one more", (9_223_372_036, 854_775_808), Err(TimeInvalid::TooLate)),
            ("1969", (-1, 999_999_999), Err(TimeInvalid::TooEarly)),
            ("2300", (10_413_792_000, 0), Err(TimeInvalid::TooLate)),
            ("the end of i64", (i64::MAX, 0), Err(TimeInvalid::TooLate)),
            ("the start of i64", (i64::MIN, 0), Err(TimeInvalid::TooEarly)),
            ("negative nanos", (0, -1), Err(TimeInvalid::NanosOutOfRange)),
            ("a whole second of nanos", (0, 1_000_000_000), Err(TimeInvalid::NanosOutOfRange)),
        ];
        for (name, (seconds, nanos), expected) in cases {
            assert_eq!(timestamp(seconds, nanos).map(UnixNanos::nanos), expected, "{name}");
        }
    }

    #[test]
    fn times_go_out_as_they_came_in() {
        for nanos in [0, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789, i64::MAX] {
            let time = UnixNanos::new(nanos).unwrap();
            assert_eq!(UnixNanos::try_from(prost_types::Timestamp::from(time)), Ok(time));
        }
    }

    #[test]
    fn spans_are_read_exactly_or_refused() {
        let cases = [
            ("zero", (0, 0), Ok(Duration::ZERO)),
            ("a nanosecond", (0, 1), Ok(Duration::from_nanos(1))),
            ("the longest", (MAX_SPAN_SECONDS, 0), Ok(Duration::from_secs(315_576_000_000))),
            ("longer", (MAX_SPAN_SECONDS + 1, 0), Err(SpanInvalid::Malformed)),
            ("negative", (-1, 0), Err(SpanInvalid::Negative)),
            ("negative nanos", (0, -1), Err(SpanInvalid::Negative)),
            ("mixed signs", (1, -1), Err(SpanInvalid::Malformed)),
            ("a second of nanos", (0, 1_000_000_000), Err(SpanInvalid::Malformed)),
            ("the extremes", (i64::MIN, i32::MIN), Err(SpanInvalid::Malformed)),
        ];
        for (name, (seconds, nanos), expected) in cases {
            assert_eq!(span(prost_types::Duration { seconds, nanos }), expected, "{name}");
        }
        let zero = prost_types::Duration::default();
        assert_eq!(positive_span(zero), Err(SpanInvalid::NotPositive));
    }

    #[test]
    fn ages_may_be_negative() {
        let at = |nanos| UnixNanos::new(nanos).unwrap();
        let age = wire_age(at(1), at(2_000_000_002));
        assert_eq!((age.seconds, age.nanos), (-2, -1));
        let age = wire_age(at(i64::MAX), at(0));
        assert_eq!((age.seconds, age.nanos), (9_223_372_036, 854_775_807));
        assert_eq!(wire_span(Duration::MAX).seconds, MAX_SPAN_SECONDS);
    }
}
