//! Values of the contract, made from what a test can write down.

use prost_types::Timestamp;
use tapefeed_proto::v1 as proto;

/// A decimal from its text, digits kept as written: `1.250` is (1250, -3).
///
/// # Panics
///
/// If the text is no decimal with a 64-bit mantissa.
pub fn decimal(text: &str) -> proto::Decimal {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mantissa = format!("{whole}{fraction}");
    proto::Decimal {
        mantissa: mantissa.parse().unwrap_or_else(|_| panic!("{text} is no decimal")),
        exponent: -i32::try_from(fraction.len()).expect("a short text"),
    }
}

/// A decimal as people write it.
pub fn decimal_text(value: proto::Decimal) -> String {
    let sign = if value.mantissa < 0 { "-" } else { "" };
    let digits = value.mantissa.unsigned_abs().to_string();
    let Ok(places) = usize::try_from(-i64::from(value.exponent)) else {
        let zeros = usize::try_from(value.exponent).expect("positive here");
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    };
    if places == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = places + 1);
    let (whole, fraction) = padded.split_at(padded.len() - places);
    format!("{sign}{whole}.{fraction}")
}

/// A time from nanoseconds since 1970.
pub fn timestamp(unix_nano: i64) -> Timestamp {
    Timestamp {
        seconds: unix_nano.div_euclid(1_000_000_000),
        nanos: i32::try_from(unix_nano.rem_euclid(1_000_000_000)).expect("below 10^9"),
    }
}

/// Nanoseconds since 1970 of a time.
pub fn unix_nano(time: &Timestamp) -> i64 {
    time.seconds * 1_000_000_000 + i64::from(time.nanos)
}

/// A tick as a producer sends it, without quantity.
pub fn tick(venue: &str, symbol: &str, event_unix_nano: i64, price: &str) -> proto::Tick {
    proto::Tick {
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        event_time: Some(timestamp(event_unix_nano)),
        price: Some(decimal(price)),
        ..proto::Tick::default()
    }
}

/// A selector of one symbol over all venues; `*` is every symbol.
pub fn selector(symbol: &str) -> proto::Selector {
    proto::Selector { venue: String::new(), symbol: symbol.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{decimal, decimal_text};

    #[test]
    fn decimal_text_and_back_is_the_same() {
        for text in ["0.000000000000000001", "-1.5", "0.25", "42", "0", "-0.001"] {
            assert_eq!(decimal_text(decimal(text)), text);
        }
        let millions = tapefeed_proto::v1::Decimal { mantissa: -3, exponent: 6 };
        assert_eq!(decimal_text(millions), "-3000000");
    }
}
