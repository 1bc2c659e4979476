//! Points in time: nanoseconds since 1970 in UTC.
//!
//! Nothing here reads a clock.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Error;

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A point in time: UTC nanoseconds since 1970-01-01T00:00:00Z, from 1677 to 2262.
///
/// Its text form is RFC 3339 with nine decimals, for example `2024-08-09T00:00:55.342000000Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixNanos(pub i64);

impl UnixNanos {
    /// The nanoseconds since 1970-01-01T00:00:00Z.
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// The time that lies `nanos` nanoseconds later (or earlier, if negative), or `None` outside of 1677 to 2262.
    pub fn checked_add_nanos(self, nanos: i64) -> Option<UnixNanos> {
        self.0.checked_add(nanos).map(UnixNanos)
    }

    pub(crate) fn to_wire(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.0.div_euclid(NANOS_PER_SECOND),
            nanos: self.0.rem_euclid(NANOS_PER_SECOND) as i32,
        }
    }

    /// Reads a required time of an answer; `field` names it in the error.
    pub(crate) fn from_wire(time: Option<prost_types::Timestamp>, field: &str) -> Result<UnixNanos, Error> {
        let time = time.ok_or_else(|| Error::protocol(format!("{field} is missing")))?;
        UnixNanos::from_timestamp(time).ok_or_else(|| Error::protocol(format!("{field} lies outside of 1677 to 2262")))
    }

    /// Reads a time that may be absent.
    pub(crate) fn from_wire_optional(
        time: Option<prost_types::Timestamp>,
        field: &str,
    ) -> Result<Option<UnixNanos>, Error> {
        match time {
            Some(time) => UnixNanos::from_wire(Some(time), field).map(Some),
            None => Ok(None),
        }
    }

    fn from_timestamp(time: prost_types::Timestamp) -> Option<UnixNanos> {
        time.seconds.checked_mul(NANOS_PER_SECOND)?.checked_add(i64::from(time.nanos)).map(UnixNanos)
    }
}

impl fmt::Display for UnixNanos {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(NANOS_PER_SECOND);
        let nanos = self.0.rem_euclid(NANOS_PER_SECOND);
        let (year, month, day) = civil_date(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
    }
}

impl fmt::Debug for UnixNanos {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl From<i64> for UnixNanos {
    fn from(nanos: i64) -> UnixNanos {
        UnixNanos(nanos)
    }
}

/// A time lies outside of what 64 bits of nanoseconds hold: 1677 to 2262.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("times lie between 1677 and 2262")]
pub struct TimeOutOfRange;

impl TryFrom<SystemTime> for UnixNanos {
    type Error = TimeOutOfRange;

    fn try_from(time: SystemTime) -> Result<UnixNanos, TimeOutOfRange> {
        let nanos = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()),
            Err(before) => i64::try_from(before.duration().as_nanos()).map(|nanos| -nanos),
        };
        nanos.map(UnixNanos).map_err(|_| TimeOutOfRange)
    }
}

/// The Gregorian date of a day since 1970-01-01, by Howard Hinnant's `civil_from_days`.
fn civil_date(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the leap day is the last day of a year.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// A duration on the wire. Longer than 68 years counts as 68 years, far past every bound of the contract.
pub(crate) fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::from(i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)),
        nanos: duration.subsec_nanos() as i32,
    }
}

/// A duration of an answer; absent, negative and malformed ones count as zero.
pub(crate) fn duration_from_wire(duration: Option<prost_types::Duration>) -> Duration {
    duration.and_then(|duration| Duration::try_from(duration).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_has_nine_decimals_and_a_z() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (1_723_161_655_342_000_789, "2024-08-09T00:00:55.342000789Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00.000000000Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(UnixNanos(nanos).to_string(), text);
        }
    }

    #[test]
    fn system_time_converts_both_sides_of_1970() {
        let after = UNIX_EPOCH + Duration::from_nanos(7);
        let before = UNIX_EPOCH - Duration::from_nanos(7);
        assert_eq!(UnixNanos::try_from(after), Ok(UnixNanos(7)));
        assert_eq!(UnixNanos::try_from(before), Ok(UnixNanos(-7)));
        let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
        assert_eq!(UnixNanos::try_from(far), Err(TimeOutOfRange));
    }

    proptest! {
        #[test]
        fn wire_keeps_every_nanosecond(nanos in any::<i64>()) {
            let time = UnixNanos(nanos);
            // The first second of the range does not start inside it; its wire form still names the same instant.
            if nanos > i64::MIN + NANOS_PER_SECOND {
                prop_assert_eq!(UnixNanos::from_wire(Some(time.to_wire()), "t").unwrap(), time);
            }
            let parsed: prost_types::Timestamp = time.to_string().parse().unwrap();
            prop_assert_eq!(parsed, time.to_wire());
        }
    }
}
