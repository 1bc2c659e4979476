//! Days, and the clock of São Paulo.

use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};

use super::error::ImportError;
use crate::domain::UnixNanos;

/// A day written `YYYYMMDD`.
pub(super) fn compact_date(text: &[u8]) -> Option<Date> {
    let [y1, y2, y3, y4, m1, m2, d1, d2] = text else { return None };
    let year = i16::try_from(number(&[*y1, *y2, *y3, *y4])?).ok()?;
    let month = i8::try_from(number(&[*m1, *m2])?).ok()?;
    let day = i8::try_from(number(&[*d1, *d2])?).ok()?;
    Date::new(year, month, day).ok()
}

/// A day written `YYYY-MM-DD`.
pub(super) fn dashed_date(text: &[u8]) -> Option<Date> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    compact_date(&[*y1, *y2, *y3, *y4, *m1, *m2, *d1, *d2])
}

/// Digits as a number, at most 18 of them.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// The days from 1970 to a day; `None` for one before.
pub(super) fn day_number(date: Date) -> Option<u32> {
    let days = date.since(Date::constant(1970, 1, 1)).ok()?.get_days();
    u32::try_from(days).ok()
}

/// A time of day written `HHMMSSmmm`. Leading zeros may be lost, as they are where it went through a number.
pub(super) fn compact_time(text: &[u8]) -> Option<Time> {
    if text.len() > 9 {
        return None;
    }
    let number = number(text)?;
    // Each part is below 1,000.
    let part = |divisor: u64, size: u64| (number / divisor % size) as i32;
    let (hour, minute, second) = (part(10_000_000, 100), part(100_000, 100), part(1_000, 100));
    if second > 59 {
        return None;
    }
    Time::new(hour as i8, minute as i8, second as i8, part(1, 1_000) * 1_000_000).ok()
}

/// The clock of B3. Its rules are part of the program, so that every machine reads a file alike.
#[derive(Clone, Debug)]
pub(super) struct SaoPaulo(TimeZone);

/// Why a local time is no instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LocalTimeProblem {
    #[error("the clocks of Sao Paulo were set forward over this time on that day")]
    Skipped,
    #[error("outside 1970 to 2262")]
    OutOfRange,
}

impl SaoPaulo {
    pub(super) fn new() -> Result<SaoPaulo, ImportError> {
        let zone = TimeZoneDatabase::bundled().get("America/Sao_Paulo");
        zone.map(SaoPaulo).map_err(|error| ImportError::Defect(format!("the rules of Sao Paulo's clock: {error}")))
    }

    /// The instant of a local time.
    ///
    /// Brazil had summer time until 2019, and changed its clocks at midnight. Of a time that came twice (23:00 to
    /// 24:00 on the last evening of summer) the first is taken: the file does not say which, and both are hours after
    /// the market's end. A time that never came is refused.
    pub(super) fn instant(&self, date: Date, time: Time) -> Result<UnixNanos, LocalTimeProblem> {
        let ambiguous = self.0.to_ambiguous_timestamp(date.to_datetime(time));
        if let AmbiguousOffset::Gap { .. } = ambiguous.offset() {
            return Err(LocalTimeProblem::Skipped);
        }
        let instant = ambiguous.earlier().map_err(|_| LocalTimeProblem::OutOfRange)?;
        let nanos = i64::try_from(instant.as_nanosecond()).map_err(|_| LocalTimeProblem::OutOfRange)?;
        UnixNanos::new(nanos).map_err(|_| LocalTimeProblem::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_or_refused() {
        for (text, expected) in [
            ("19700101", Some(0)),
            ("20030212", Some(12_095)),
            ("20240229", Some(19_782)),
            ("99991231", Some(2_932_896)),
            ("19691231", None),
            ("20230229", None),
            ("20031301", None),
            ("00000000", None),
            ("2003021", None),
            ("2003 212", None),
        ] {
            assert_eq!(compact_date(text.as_bytes()).and_then(day_number), expected, "{text}");
        }
        assert_eq!(dashed_date(b"2025-04-28"), Some(Date::constant(2025, 4, 28)));
        for text in ["2025/04/28", "20250428", "2025-4-28", "2025-04-31", "28-04-2025"] {
            assert_eq!(dashed_date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn times_of_day_may_have_lost_their_zeros() {
        for (text, expected) in [
            ("024810098", Some((2, 48, 10, 98))),
            ("24810098", Some((2, 48, 10, 98))),
            ("235959999", Some((23, 59, 59, 999))),
            ("7", Some((0, 0, 0, 7))),
            ("000000000", Some((0, 0, 0, 0))),
            ("240000000", None),
            ("236000000", None),
            ("235960000", None),
            ("0248100980", None),
            ("", None),
            ("02:48:10", None),
        ] {
            let expected =
                expected.map(|(hour, minute, second, millis)| Time::constant(hour, minute, second, millis * 1_000_000));
            assert_eq!(compact_time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn the_clock_of_sao_paulo_knows_its_summers() {
        let clock = SaoPaulo::new().unwrap();
        let instant = |text: &str| {
            let (date, time) = text.split_once(' ').unwrap();
            let instant = clock.instant(dashed_date(date.as_bytes()).unwrap(), compact_time(time.as_bytes()).unwrap());
            instant.map(|instant| jiff::Timestamp::from_nanosecond(i128::from(instant.nanos())).unwrap().to_string())
        };
        for (local, expected) in [
            ("2025-04-28 024810098", Ok("2025-04-28T05:48:10.098Z")),
            // In summer, until 2019, the clock was an hour ahead of today's.
            ("2016-01-04 103000000", Ok("2016-01-04T12:30:00Z")),
            // No summer since.
            ("2020-01-06 103000000", Ok("2020-01-06T13:30:00Z")),
            // The last evening of a summer had 23:00 to 24:00 twice: the first is taken.
            ("2018-02-17 225959999", Ok("2018-02-18T00:59:59.999Z")),
            ("2018-02-17 233000000", Ok("2018-02-18T01:30:00Z")),
            ("2018-02-18 000000000", Ok("2018-02-18T03:00:00Z")),
            // The first day of a summer began at 01:00.
            ("2018-11-04 000000000", Err(LocalTimeProblem::Skipped)),
            ("2018-11-04 005959999", Err(LocalTimeProblem::Skipped)),
            ("2018-11-04 010000000", Ok("2018-11-04T03:00:00Z")),
            ("1969-12-31 120000000", Err(LocalTimeProblem::OutOfRange)),
            ("2300-01-01 120000000", Err(LocalTimeProblem::OutOfRange)),
            ("9999-12-31 235959999", Err(LocalTimeProblem::OutOfRange)),
        ] {
            assert_eq!(instant(local), expected.map(str::to_owned), "{local}");
        }
    }
}
