//! The values of one field of a text file, read straight from its bytes.

use crate::domain::time::TimeInvalid;
use crate::domain::{Decimal, DecimalInvalid, Side, UnixNanos};

use super::options::TimeUnit;

/// Reads a decimal. Short plain numbers, almost all of them, take a path without wide arithmetic.
pub(super) fn decimal(bytes: &[u8]) -> Result<Decimal, DecimalInvalid> {
    if let Some(value) = short_decimal(bytes) {
        return value;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => text.parse(),
        Err(_) => Err(DecimalInvalid::Syntax),
    }
}

/// Digits with at most one point, at most 18 of them; anything else is for the thorough reader.
fn short_decimal(bytes: &[u8]) -> Option<Result<Decimal, DecimalInvalid>> {
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    if digits.len() > 18 {
        return None;
    }
    let mut mantissa = 0i64;
    let mut count = 0usize;
    let mut point = None;
    for &byte in digits {
        match byte {
            b'0'..=b'9' => {
                mantissa = mantissa * 10 + i64::from(byte - b'0');
                count += 1;
            }
            b'.' if point.is_none() => point = Some(count),
            _ => return None,
        }
    }
    if count == 0 {
        return None;
    }
    let decimals = point.map_or(0, |point| count - point);
    let mantissa = if negative { -mantissa } else { mantissa };
    Some(Decimal::new(mantissa, -(decimals as i32)))
}

/// Why a time was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TimeProblem {
    #[error("not a number of {0}")]
    NotNumber(&'static str),
    #[error("not a time of RFC 3339 with its offset, as in 2024-08-08T23:54:15.342Z")]
    NotText,
    #[error("finer than a nanosecond")]
    TooFine,
    #[error(transparent)]
    Range(#[from] TimeInvalid),
}

/// Reads a time in its unit.
pub(super) fn time(bytes: &[u8], unit: TimeUnit) -> Result<UnixNanos, TimeProblem> {
    match unit {
        TimeUnit::Seconds => number_time(bytes, 9, "seconds"),
        TimeUnit::Milliseconds => number_time(bytes, 6, "milliseconds"),
        TimeUnit::Microseconds => number_time(bytes, 3, "microseconds"),
        TimeUnit::Nanoseconds => number_time(bytes, 0, "nanoseconds"),
        TimeUnit::Text => text_time(bytes),
    }
}

/// Digits with an optional point; `scale` is how many decimals of the unit make a nanosecond.
fn number_time(bytes: &[u8], scale: usize, unit: &'static str) -> Result<UnixNanos, TimeProblem> {
    let (negative, unsigned) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        all => (false, all),
    };
    let (whole, fraction) = match unsigned.iter().position(|&byte| byte == b'.') {
        Some(point) => (&unsigned[..point], &unsigned[point + 1..]),
        None => (unsigned, &[][..]),
    };
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return Err(TimeProblem::NotNumber(unit));
    }
    if negative {
        return Err(TimeInvalid::TooEarly.into());
    }
    let (kept, finer) = fraction.split_at(fraction.len().min(scale));
    if finer.iter().any(|&byte| byte != b'0') {
        return Err(TimeProblem::TooFine);
    }
    let zeros = std::iter::repeat_n(&b'0', scale - kept.len());
    let mut nanos = 0i64;
    for digit in whole.iter().chain(kept).chain(zeros) {
        nanos = nanos
            .checked_mul(10)
            .and_then(|shifted| shifted.checked_add(i64::from(digit - b'0')))
            .ok_or(TimeInvalid::TooLate)?;
    }
    Ok(UnixNanos::new(nanos)?)
}

fn text_time(bytes: &[u8]) -> Result<UnixNanos, TimeProblem> {
    let text = std::str::from_utf8(bytes).map_err(|_| TimeProblem::NotText)?;
    let time: jiff::Timestamp = text.parse().map_err(|_| TimeProblem::NotText)?;
    let nanos = time.as_nanosecond();
    if nanos < 0 {
        return Err(TimeInvalid::TooEarly.into());
    }
    let nanos = i64::try_from(nanos).map_err(|_| TimeInvalid::TooLate)?;
    Ok(UnixNanos::new(nanos)?)
}

/// The aggressor's side; `None` for text that is none.
pub(super) fn side(bytes: &[u8]) -> Option<Side> {
    const BUY: [&[u8]; 2] = [b"buy", b"b"];
    const SELL: [&[u8]; 2] = [b"sell", b"s"];
    const NEITHER: [&[u8]; 4] = [b"", b"unknown", b"none", b"n/a"];
    let is = |names: &[&[u8]]| names.iter().any(|name| bytes.eq_ignore_ascii_case(name));
    if is(&BUY) {
        Some(Side::Buy)
    } else if is(&SELL) {
        Some(Side::Sell)
    } else {
        is(&NEITHER).then_some(Side::Unspecified)
    }
}

/// The aggressor's side from whether the buyer was the maker: then the seller took.
pub(super) fn taker(bytes: &[u8]) -> Option<Side> {
    const TRUE: [&[u8]; 3] = [b"true", b"t", b"1"];
    const FALSE: [&[u8]; 3] = [b"false", b"f", b"0"];
    let is = |names: &[&[u8]]| names.iter().any(|name| bytes.eq_ignore_ascii_case(name));
    if is(&TRUE) {
        Some(Side::Sell)
    } else if is(&FALSE) {
        Some(Side::Buy)
    } else {
        bytes.is_empty().then_some(Side::Unspecified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_exact_in_every_unit() {
        use TimeUnit::*;
        let cases: &[(&str, TimeUnit, Result<i64, TimeProblem>)] = &[
            ("1723161255342", Milliseconds, Ok(1_723_161_255_342_000_000)),
            ("1723161255.342", Seconds, Ok(1_723_161_255_342_000_000)),
            ("1723161255.", Seconds, Ok(1_723_161_255_000_000_000)),
            ("1723161255.123456789000", Seconds, Ok(1_723_161_255_123_456_789)),
            ("1723161255.1234567891", Seconds, Err(TimeProblem::TooFine)),
            ("1723161254087896568", Nanoseconds, Ok(1_723_161_254_087_896_568)),
            ("1723161254087896568.5", Nanoseconds, Err(TimeProblem::TooFine)),
            ("1723161254087896.568", Microseconds, Ok(1_723_161_254_087_896_568)),
            ("0", Seconds, Ok(0)),
            ("-1", Seconds, Err(TimeProblem::Range(TimeInvalid::TooEarly))),
            ("10413792000", Seconds, Err(TimeProblem::Range(TimeInvalid::TooLate))),
            ("99999999999999999999", Nanoseconds, Err(TimeProblem::Range(TimeInvalid::TooLate))),
            ("", Milliseconds, Err(TimeProblem::NotNumber("milliseconds"))),
            ("1e9", Seconds, Err(TimeProblem::NotNumber("seconds"))),
            ("2024-08-08T23:54:15.342Z", Seconds, Err(TimeProblem::NotNumber("seconds"))),
            ("2024-08-08T23:54:15.342Z", Text, Ok(1_723_161_255_342_000_000)),
            ("2024-08-09T01:54:15.342+02:00", Text, Ok(1_723_161_255_342_000_000)),
            ("2024-08-08T23:54:15.342", Text, Err(TimeProblem::NotText)),
            ("1723161255342", Text, Err(TimeProblem::NotText)),
            ("1969-12-31T23:59:59Z", Text, Err(TimeProblem::Range(TimeInvalid::TooEarly))),
            ("2300-01-01T00:00:00Z", Text, Err(TimeProblem::Range(TimeInvalid::TooLate))),
        ];
        for (text, unit, expected) in cases {
            let read = time(text.as_bytes(), *unit).map(UnixNanos::nanos);
            assert_eq!(read, *expected, "{text} {unit:?}");
        }
    }

    #[test]
    fn sides_are_those_of_the_aggressor() {
        for (text, expected) in [
            ("buy", Some(Side::Buy)),
            ("SELL", Some(Side::Sell)),
            ("B", Some(Side::Buy)),
            ("", Some(Side::Unspecified)),
            ("maybe", None),
        ] {
            assert_eq!(side(text.as_bytes()), expected, "{text}");
        }
        for (text, expected) in [
            ("true", Some(Side::Sell)),
            ("False", Some(Side::Buy)),
            ("0", Some(Side::Buy)),
            ("", Some(Side::Unspecified)),
            ("buy", None),
        ] {
            assert_eq!(taker(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn both_readers_of_decimals_agree(text in "-?[0-9]{0,12}(\\.[0-9]{0,12})?") {
            prop_assert_eq!(decimal(text.as_bytes()), text.parse());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decimal(&bytes);
            for unit in [TimeUnit::Seconds, TimeUnit::Nanoseconds, TimeUnit::Text] {
                let _ = time(&bytes, unit);
            }
        }
    }
}
