//! Days of the calendar as text, `YYYY-MM-DD`. Elsewhere a day is a count of days since 1970.

use std::fmt;

use super::time::civil_from_days;

/// 9999-12-31: venues write it where nothing ever ends.
pub const LAST_DAY: u32 = 2_932_896;

/// A text that is no day of 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a date from 1970-01-01 to 9999-12-31, written YYYY-MM-DD")]
pub struct DateInvalid;

/// A day, for printing.
#[derive(Clone, Copy, Debug)]
pub struct Date(pub u32);

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(i64::from(self.0));
        write!(out, "{year:04}-{month:02}-{day:02}")
    }
}

/// Reads `YYYY-MM-DD` as days since 1970, at most [`LAST_DAY`].
pub fn parse(text: &str) -> Result<u32, DateInvalid> {
    let [y @ .., b'-', m1, m2, b'-', d1, d2] = text.as_bytes() else {
        return Err(DateInvalid);
    };
    let number = |digits: &[u8]| {
        let digit = |sum: u32, byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0'));
        digits.iter().try_fold(0, digit)
    };
    let (Some(year), Some(month), Some(day)) = (number(&y[..y.len().min(5)]), number(&[*m1, *m2]), number(&[*d1, *d2]))
    else {
        return Err(DateInvalid);
    };
    if y.len() != 4 || year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return Err(DateInvalid);
    }
    let days = days_from_civil(year, month, day);
    // A day that its month does not have lies in the next month, and reads back as another.
    if civil_from_days(i64::from(days)) == (year.into(), month.into(), day.into()) {
        Ok(days)
    } else {
        Err(DateInvalid)
    }
}

/// Days since 1970 of a day of 1970 or later, by Howard Hinnant's `days_from_civil`.
fn days_from_civil(year: u32, month: u32, day: u32) -> u32 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let month_index = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_are_read_exactly_or_refused() {
        let cases = [
            ("1970-01-01", Ok(0)),
            ("2000-02-29", Ok(11_016)),
            ("2024-08-09", Ok(19_944)),
            ("9999-12-31", Ok(LAST_DAY)),
            ("1969-12-31", Err(DateInvalid)),
            ("2023-02-29", Err(DateInvalid)),
            ("2024-04-31", Err(DateInvalid)),
            ("2024-00-01", Err(DateInvalid)),
            ("2024-13-01", Err(DateInvalid)),
            ("2024-01-00", Err(DateInvalid)),
            ("10000-01-01", Err(DateInvalid)),
            ("99999999999-01-01", Err(DateInvalid)),
            ("2024-8-9", Err(DateInvalid)),
            ("20240809", Err(DateInvalid)),
            ("2024-08-09T00:00:00Z", Err(DateInvalid)),
            ("+024-08-09", Err(DateInvalid)),
            ("-08-09", Err(DateInvalid)),
            ("", Err(DateInvalid)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn dates_round_trip_and_agree_with_jiff(day in 0..=LAST_DAY) {
            let theirs = jiff::civil::date(1970, 1, 1) + jiff::Span::new().days(day);
            prop_assert_eq!(Date(day).to_string(), theirs.to_string());
            prop_assert_eq!(parse(&theirs.to_string()), Ok(day));
        }

        #[test]
        fn no_text_panics(text in ".{0,12}") {
            let _ = parse(&text);
        }
    }
}
