//! Times and periods as people write them.

use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp, civil};
use tapefeed_client::UnixNanos;

/// Reads a point in time: RFC 3339, a date alone, or Unix time with a unit or by the count of its digits.
pub(crate) fn parse_time(text: &str) -> Result<UnixNanos, String> {
    if let Some(time) = unix_time(text)? {
        return Ok(time);
    }
    let timestamp = match text.parse::<civil::Date>() {
        // A date's parser also takes a date and time without an offset, which would be a guess.
        Ok(date) if !text.contains(['T', 't', ' ', ':']) => {
            date.at(0, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp())
        }
        _ => text.parse::<Timestamp>(),
    };
    let timestamp = timestamp.map_err(|_| {
        "write a time as 2024-08-09T12:00:00Z, as 2024-08-09, or as 1723161255s (or ms, us, ns)".to_owned()
    })?;
    i64::try_from(timestamp.as_nanosecond()).map(UnixNanos).map_err(|_| "times lie between 1677 and 2262".to_owned())
}

/// The day of the calendar that begins at a time in UTC, as the contract writes it.
pub(crate) fn date_of(time: UnixNanos) -> Result<String, String> {
    let text = time.to_string();
    match text.split_once('T') {
        Some((date, "00:00:00.000000000Z")) => Ok(date.to_owned()),
        _ => Err("write a date as 2024-08-09".to_owned()),
    }
}

/// Reads digits with an optional unit and decimals; `None` if the text is something else.
fn unix_time(text: &str) -> Result<Option<UnixNanos>, String> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() {
        return Ok(None);
    }
    let decimals: usize = match unit {
        "s" => 9,
        "ms" => 6,
        "us" | "µs" => 3,
        "ns" => 0,
        "" => match whole.len() {
            0..=11 => 9,
            12..=14 => 6,
            15..=17 => 3,
            _ => 0,
        },
        _ => return Ok(None),
    };
    if fraction.len() > decimals {
        return Err("times are exact to the nanosecond: too many decimals".to_owned());
    }
    format!("{whole}{fraction:0<decimals$}")
        .parse::<i64>()
        .map(|nanos| Some(UnixNanos(nanos)))
        .map_err(|_| "times lie between 1677 and 2262".to_owned())
}

/// Reads a length of time such as `90s`, `5m`, `1h30m` or `2d`. A day has 24 hours.
pub(crate) fn parse_period(text: &str) -> Result<Duration, String> {
    let invalid = || "write a period as 90s, 5m, 1h30m or 2d; m stands for minutes".to_owned();
    let span: Span = text.parse().map_err(|_| invalid())?;
    let days = SpanRelativeTo::days_are_24_hours();
    let duration: SignedDuration = span.to_duration(days).map_err(|_| invalid())?;
    match Duration::try_from(duration) {
        Ok(period) if !period.is_zero() => Ok(period),
        _ => Err("a period is positive".to_owned()),
    }
}

/// Reads a length of time that may be 0.
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { parse_period(text) }
}

/// A time for people: as many decimals as it needs, by threes.
pub(crate) fn short(time: UnixNanos) -> String {
    let text = time.to_string();
    let (seconds, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let fraction = fraction.trim_end_matches('Z');
    let digits = match time.nanos() {
        nanos if nanos % 1_000_000 == 0 => 3,
        nanos if nanos % 1_000 == 0 => 6,
        _ => 9,
    };
    format!("{seconds}.{}Z", &fraction[..digits])
}

/// A length of time for people: `350ms`, `12.3s`, `5m 07s`, `3h 12m`, `2d 4h`, with a sign if negative.
pub(crate) fn short_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let millis = nanos.unsigned_abs() / 1_000_000;
    let seconds = millis / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match seconds {
        0 => format!("{sign}{millis}ms"),
        1..=59 => format!("{sign}{seconds}.{}s", millis % 1_000 / 100),
        60..=3_599 => format!("{sign}{minutes}m {:02}s", seconds % 60),
        3_600..=86_399 => format!("{sign}{hours}h {:02}m", minutes % 60),
        _ => format!("{sign}{days}d {}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_days_of_the_calendar() {
        for text in ["1986-01-02", "2024-02-29", "2262-01-01"] {
            assert_eq!(date_of(parse_time(text).unwrap()).as_deref(), Ok(text));
        }
        for text in ["2024-08-09T12:00:00Z", "1723161255", "2024-08-09T00:00:00.000000001Z"] {
            assert!(date_of(parse_time(text).unwrap()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_are_read_in_every_documented_form() {
        const NANOS: i64 = 1_723_161_255_342_000_000;
        for (text, nanos) in [
            ("2024-08-08T23:54:15.342Z", NANOS),
            ("2024-08-09T01:54:15.342+02:00", NANOS),
            ("2024-08-08T23:54:15.342000789Z", NANOS + 789),
            ("2024-08-08", 1_723_075_200_000_000_000),
            ("1723161255", 1_723_161_255_000_000_000),
            ("1723161255s", 1_723_161_255_000_000_000),
            ("1723161255.342", NANOS),
            ("1723161255.342s", NANOS),
            ("1723161255342", NANOS),
            ("1723161255342ms", NANOS),
            ("1723161255342000", NANOS),
            ("1723161255342000us", NANOS),
            ("1723161255342000µs", NANOS),
            ("1723161255342000000", NANOS),
            ("1723161255342000000ns", NANOS),
            ("5ms", 5_000_000),
            ("0", 0),
        ] {
            assert_eq!(parse_time(text), Ok(UnixNanos(nanos)), "{text}");
        }
    }

    #[test]
    fn times_are_refused_rather_than_guessed() {
        for text in [
            "",
            "soon",
            "2024-08-09T12:00:00",
            "2024-08-09 12:00:00",
            "12:00",
            "5m",
            "1.5ns",
            "1723161255.3420000001",
            "99999999999999999999",
            "99999999999s",
            "-5s",
            "3000-01-01",
        ] {
            assert!(parse_time(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn periods_are_read_or_refused() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("1h30m", 5_400), ("2d", 172_800)] {
            assert_eq!(parse_period(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse_period("250ms"), Ok(Duration::from_millis(250)));
        for text in ["", "5", "0s", "-5m", "1mo", "1y", "five"] {
            assert!(parse_period(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_are_shown_as_short_as_they_are() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_723_161_255_342_000_000, "2024-08-08T23:54:15.342Z"),
            (1_723_161_255_342_001_000, "2024-08-08T23:54:15.342001Z"),
            (1_723_161_255_342_001_002, "2024-08-08T23:54:15.342001002Z"),
        ] {
            assert_eq!(short(UnixNanos(nanos)), text);
        }
    }

    #[test]
    fn durations_are_shown_in_two_units() {
        const SECOND: i64 = 1_000_000_000;
        for (nanos, text) in [
            (0, "0ms"),
            (350_000_000, "350ms"),
            (12_345_000_000, "12.3s"),
            (307 * SECOND, "5m 07s"),
            (11_520 * SECOND, "3h 12m"),
            (187_200 * SECOND, "2d 4h"),
            (-12_345_000_000, "-12.3s"),
        ] {
            assert_eq!(short_duration(nanos), text);
        }
    }
}
