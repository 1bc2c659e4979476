//! Times and sizes as people write them: `24h`, `8GiB`.

use std::str::FromStr;
use std::time::Duration;

/// A span of time: a whole number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

/// A number of bytes: a whole number and nothing, `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ByteCount(pub(super) u64);

/// Splits a text after its digits.
fn number(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let wrong = || format!("{text:?} is no time: write a number and ms, s, m, h or d, as in 24h");
        let (number, unit) = number(text).ok_or_else(wrong)?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let ms = number.checked_mul(unit_ms).ok_or_else(wrong)?;
        Ok(Span(Duration::from_millis(ms)))
    }
}

impl FromStr for ByteCount {
    type Err = String;

    fn from_str(text: &str) -> Result<ByteCount, String> {
        let wrong = || format!("{text:?} is no size: write a number and KiB, MiB, GiB or TiB, as in 8GiB");
        let (number, unit) = number(text).ok_or_else(wrong)?;
        let shift = match unit {
            "" | "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err(wrong()),
        };
        number.checked_mul(1 << shift).map(ByteCount).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_read_with_their_unit() {
        let ms = |text: &str| text.parse::<Span>().ok().map(|span| span.0.as_millis());
        assert_eq!(ms("24h"), Some(86_400_000));
        assert_eq!(ms("7d"), Some(604_800_000));
        assert_eq!(ms("250ms"), Some(250));
        assert_eq!(ms("90s"), Some(90_000));
        for wrong in ["", "24", "h", "1.5h", "-1h", "24 h", "24H", "18446744073709551615d"] {
            assert_eq!(ms(wrong), None, "{wrong}");
        }
        let bytes = |text: &str| text.parse::<ByteCount>().ok().map(|count| count.0);
        assert_eq!(bytes("8GiB"), Some(8 << 30));
        assert_eq!(bytes("1024"), Some(1_024));
        for wrong in ["", "GiB", "8GB", "8 GiB", "18446744073709551615KiB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
