//! Instants and ranges of time: UTC nanoseconds since 1970 in an `i64`.

use std::fmt;

/// UTC nanoseconds since 1970-01-01, never negative: 1970 to 2262-04-11.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixNanos(i64);

/// Nanoseconds in a UTC day.
pub const NANOS_PER_DAY: i64 = 86_400 * NANOS_PER_SECOND;

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Why an instant was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeInvalid {
    /// Before 1970-01-01T00:00:00Z.
    #[error("before 1970-01-01T00:00:00Z")]
    TooEarly,
    /// After 2262-04-11T23:47:16.854775807Z.
    #[error("after 2262-04-11T23:47:16.854775807Z")]
    TooLate,
    /// The sub-second part is not 0 to 999,999,999.
    #[error("nanos must lie in 0 to 999999999")]
    NanosOutOfRange,
}

impl UnixNanos {
    /// 1970-01-01T00:00:00Z.
    pub const MIN: UnixNanos = UnixNanos(0);
    /// 2262-04-11T23:47:16.854775807Z.
    pub const MAX: UnixNanos = UnixNanos(i64::MAX);

    /// Checks that the instant lies at or after 1970.
    pub fn new(nanos: i64) -> Result<UnixNanos, TimeInvalid> {
        if nanos < 0 { Err(TimeInvalid::TooEarly) } else { Ok(UnixNanos(nanos)) }
    }

    /// From whole seconds and a sub-second part, as in protobuf's `Timestamp`.
    pub fn from_seconds(seconds: i64, nanos: i32) -> Result<UnixNanos, TimeInvalid> {
        if !(0..1_000_000_000).contains(&nanos) {
            return Err(TimeInvalid::NanosOutOfRange);
        }
        if seconds < 0 {
            return Err(TimeInvalid::TooEarly);
        }
        seconds
            .checked_mul(NANOS_PER_SECOND)
            .and_then(|whole| whole.checked_add(i64::from(nanos)))
            .map(UnixNanos)
            .ok_or(TimeInvalid::TooLate)
    }

    /// Nanoseconds since 1970.
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970 and the nanoseconds inside the second.
    pub fn seconds_and_nanos(self) -> (i64, i32) {
        (self.0 / NANOS_PER_SECOND, (self.0 % NANOS_PER_SECOND) as i32)
    }

    /// Days since 1970 of the UTC day that holds this instant.
    pub fn day(self) -> u32 {
        // 2262 is day 106,751: it fits.
        (self.0 / NANOS_PER_DAY) as u32
    }

    /// Later by a span, at most [`UnixNanos::MAX`].
    pub fn saturating_add(self, span: std::time::Duration) -> UnixNanos {
        let span = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        UnixNanos(self.0.saturating_add(span))
    }

    /// Earlier by a span, at least [`UnixNanos::MIN`].
    pub fn saturating_sub(self, span: std::time::Duration) -> UnixNanos {
        let span = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        UnixNanos(self.0.saturating_sub(span).max(0))
    }
}

/// A half-open range `[start, end)` of event time; an absent side is unbounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TimeRange {
    start: Option<UnixNanos>,
    end: Option<UnixNanos>,
}

/// The end of a range lies before its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("end_time lies before start_time: swap them")]
pub struct RangeInverted;

impl TimeRange {
    /// Everything.
    pub const ALL: TimeRange = TimeRange { start: None, end: None };

    /// Checks that the end does not lie before the start. Equal ends make an empty range.
    pub fn new(start: Option<UnixNanos>, end: Option<UnixNanos>) -> Result<TimeRange, RangeInverted> {
        match (start, end) {
            (Some(start), Some(end)) if end < start => Err(RangeInverted),
            _ => Ok(TimeRange { start, end }),
        }
    }

    /// The inclusive start; `None` is unbounded.
    pub fn start(self) -> Option<UnixNanos> {
        self.start
    }

    /// The exclusive end; `None` is unbounded.
    pub fn end(self) -> Option<UnixNanos> {
        self.end
    }

    /// Whether an instant lies inside.
    pub fn contains(self, time: UnixNanos) -> bool {
        self.start.is_none_or(|start| time >= start) && self.end.is_none_or(|end| time < end)
    }

    /// Whether the inclusive span `[first, last]` has an instant inside the range.
    pub fn overlaps(self, first: UnixNanos, last: UnixNanos) -> bool {
        self.start.is_none_or(|start| last >= start) && self.end.is_none_or(|end| first < end)
    }

    /// Whether the inclusive span `[first, last]` lies wholly inside the range.
    pub fn covers(self, first: UnixNanos, last: UnixNanos) -> bool {
        self.contains(first) && self.contains(last)
    }
}

impl fmt::Display for UnixNanos {
    /// RFC 3339 in UTC with nine decimals.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = self.seconds_and_nanos();
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let second = seconds % 86_400;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

/// Year, month and day of a count of days since 1970, by Howard Hinnant's `civil_from_days`.
pub(super) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn instants_outside_1970_to_2262_are_refused() {
        assert_eq!(UnixNanos::new(-1), Err(TimeInvalid::TooEarly));
        assert_eq!(UnixNanos::from_seconds(-1, 999_999_999), Err(TimeInvalid::TooEarly));
        assert_eq!(UnixNanos::from_seconds(9_223_372_036, 854_775_807), Ok(UnixNanos::MAX));
        assert_eq!(UnixNanos::from_seconds(9_223_372_036, 854_775_808), Err(TimeInvalid::TooLate));
        assert_eq!(UnixNanos::from_seconds(i64::MAX, 0), Err(TimeInvalid::TooLate));
        assert_eq!(UnixNanos::from_seconds(0, -1), Err(TimeInvalid::NanosOutOfRange));
        assert_eq!(UnixNanos::from_seconds(0, 1_000_000_000), Err(TimeInvalid::NanosOutOfRange));
    }

    #[test]
    fn instants_print_as_rfc_3339_with_nanoseconds() {
        assert_eq!(UnixNanos::MIN.to_string(), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(UnixNanos::MAX.to_string(), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(UnixNanos(951_827_696_000_000_789).to_string(), "2000-02-29T12:34:56.000000789Z");
    }

    proptest! {
        #[test]
        fn printing_agrees_with_jiff(nanos in 0..i64::MAX) {
            let theirs = jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap();
            prop_assert_eq!(UnixNanos(nanos).to_string(), format!("{theirs:.9}"));
        }

        #[test]
        fn parts_round_trip(nanos in 0..i64::MAX) {
            let (seconds, sub) = UnixNanos(nanos).seconds_and_nanos();
            prop_assert_eq!(UnixNanos::from_seconds(seconds, sub), Ok(UnixNanos(nanos)));
        }
    }
}
