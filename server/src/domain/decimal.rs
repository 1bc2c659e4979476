//! Exact decimal numbers: a 64-bit mantissa and a power-of-ten exponent, as in FIX and SBE.

use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroI8;
use std::str::FromStr;

use super::wide::POW10_WIDE;

/// An exact decimal, `mantissa * 10^exponent`, in canonical form: no trailing zeros, zero is (0, 0).
///
/// Every value is inside the door rule: absolute value below 10^15 and at most 18 decimals.
// Nine bytes, and as many when it is optional: ticks are copied and kept by the million.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(Rust, packed)]
pub struct Decimal {
    mantissa: i64,
    exponent: Exponent,
}

/// An exponent, held so that it is never zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Exponent(NonZeroI8);

impl Exponent {
    /// One more than the greatest.
    const ABOVE: i8 = MAX_MAGNITUDE;
    const ZERO: Exponent = Exponent::new(0);

    const fn new(exponent: i8) -> Exponent {
        match NonZeroI8::new(exponent - Exponent::ABOVE) {
            Some(held) => Exponent(held),
            None => panic!("the door rule keeps an exponent below its bound"),
        }
    }

    const fn get(self) -> i8 {
        self.0.get() + Exponent::ABOVE
    }
}

/// Most decimals a price or quantity may have.
pub const MAX_DECIMALS: i8 = 18;

/// Absolute values must stay below 10 to this power.
pub const MAX_MAGNITUDE: i8 = 15;

/// Longest text that [`Decimal::from_str`] reads, in bytes. Zero-padded exchange prices stay far below it.
pub const MAX_TEXT_BYTES: usize = 64;

/// Powers of ten that fit an `i64`: 10^0 to 10^18.
pub const POW10: [i64; 19] = {
    let mut table = [1i64; 19];
    let mut power = 1;
    while power < 19 {
        table[power] = table[power - 1] * 10;
        power += 1;
    }
    table
};

/// Why a number was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecimalInvalid {
    /// Not digits with an optional sign and point; also NaN, infinities and empty text.
    #[error("not a decimal number: write digits with an optional sign and decimal point, as in -61837.63")]
    Syntax,
    /// The text is longer than 64 bytes.
    #[error("longer than {MAX_TEXT_BYTES} characters")]
    TooLong,
    /// The absolute value is 10^15 or more.
    #[error("absolute value must be below 10^15")]
    TooLarge,
    /// More than 18 decimals, after trailing zeros are removed.
    #[error("at most 18 decimals are kept exactly")]
    TooFine,
    /// More significant digits than a 64-bit mantissa holds.
    #[error("more significant digits than a 64-bit mantissa holds (about 18)")]
    TooPrecise,
}

impl Decimal {
    /// Zero.
    pub const ZERO: Decimal = Decimal { mantissa: 0, exponent: Exponent::ZERO };

    /// Makes `mantissa * 10^exponent` canonical and checks the door rule.
    pub fn new(mut mantissa: i64, exponent: i32) -> Result<Decimal, DecimalInvalid> {
        if mantissa == 0 {
            return Ok(Decimal::ZERO);
        }
        // A mantissa has at most 19 digits, so anything outside this band fails the door rule whatever its zeros.
        if exponent > 32 {
            return Err(DecimalInvalid::TooLarge);
        }
        if exponent < -64 {
            return Err(DecimalInvalid::TooFine);
        }
        let mut exponent = exponent as i8;
        if mantissa % 10 == 0 {
            // Venues pad quantities with many zeros: halves of what there can be, and halves of that.
            for power in [16, 8, 4, 2, 1] {
                if mantissa % POW10[power] == 0 {
                    mantissa /= POW10[power];
                    exponent += power as i8;
                }
            }
        }
        if exponent < -MAX_DECIMALS {
            return Err(DecimalInvalid::TooFine);
        }
        if digits(mantissa) + exponent > MAX_MAGNITUDE {
            return Err(DecimalInvalid::TooLarge);
        }
        Ok(Decimal { mantissa, exponent: Exponent::new(exponent) })
    }

    /// The digits of the canonical form.
    pub fn mantissa(self) -> i64 {
        self.mantissa
    }

    /// The power of ten of the canonical form, -18 to 14.
    pub fn exponent(self) -> i8 {
        self.exponent.get()
    }

    /// True for values below zero.
    pub fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// True for values above zero.
    pub fn is_positive(self) -> bool {
        self.mantissa > 0
    }

    /// The mantissa at a finer or equal exponent, or `None` when it does not fit 64 bits or would lose digits.
    pub fn mantissa_at(self, exponent: i8) -> Option<i64> {
        if self.mantissa == 0 {
            return Some(0);
        }
        let shift = usize::try_from(self.exponent().checked_sub(exponent)?).ok()?;
        self.mantissa.checked_mul(*POW10.get(shift)?)
    }

    /// The value in units of 10^-18: exact for every decimal, below 10^33.
    pub fn units_e18(self) -> i128 {
        // The door rule bounds the product by 10^33, far inside an i128.
        i128::from(self.mantissa) * POW10_WIDE[(self.exponent() + MAX_DECIMALS) as usize]
    }

    /// How many decimals the canonical form shows after the point.
    pub fn decimals(self) -> u8 {
        self.exponent().min(0).unsigned_abs()
    }
}

/// How many decimal digits a non-zero number has, at most 19.
fn digits(value: i64) -> i8 {
    value.unsigned_abs().ilog10() as i8 + 1
}

impl Default for Decimal {
    fn default() -> Decimal {
        Decimal::ZERO
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        if self.exponent == other.exponent {
            return self.mantissa().cmp(&other.mantissa());
        }
        self.units_e18().cmp(&other.units_e18())
    }
}

impl FromStr for Decimal {
    type Err = DecimalInvalid;

    /// Reads digits with an optional sign and decimal point. No exponent form, no separators, no NaN.
    fn from_str(text: &str) -> Result<Decimal, DecimalInvalid> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(DecimalInvalid::TooLong);
        }
        let (negative, unsigned) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            all => (false, all),
        };
        let (whole, fraction) = match unsigned.iter().position(|&byte| byte == b'.') {
            Some(point) => (&unsigned[..point], &unsigned[point + 1..]),
            None => (unsigned, &[][..]),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(DecimalInvalid::Syntax);
        }
        if !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
            return Err(DecimalInvalid::Syntax);
        }
        let significant = fraction.iter().rposition(|&byte| byte != b'0').map_or(0, |last| last + 1);
        let fraction = &fraction[..significant];
        if fraction.len() > MAX_DECIMALS as usize {
            return Err(DecimalInvalid::TooFine);
        }
        let leading_zeros = whole.iter().take_while(|&&byte| byte == b'0').count();
        let whole = &whole[leading_zeros..];
        if whole.len() > MAX_MAGNITUDE as usize {
            return Err(DecimalInvalid::TooLarge);
        }
        // At most 15 + 18 digits: the sum stays below 10^33.
        let mut value = 0i128;
        for digit in whole.iter().chain(fraction) {
            value = value * 10 + i128::from(digit - b'0');
        }
        let mut exponent = -(fraction.len() as i32);
        while value != 0 && value % 10 == 0 {
            value /= 10;
            exponent += 1;
        }
        let value = if negative { -value } else { value };
        let mantissa = i64::try_from(value).map_err(|_| DecimalInvalid::TooPrecise)?;
        Decimal::new(mantissa, exponent)
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.mantissa < 0 { "-" } else { "" };
        let magnitude = self.mantissa.unsigned_abs();
        if self.exponent() >= 0 {
            return write!(out, "{sign}{}", u128::from(magnitude) * 10u128.pow(self.exponent() as u32));
        }
        let decimals = self.decimals() as usize;
        let digits = format!("{magnitude:0>width$}", width = decimals + 1);
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        write!(out, "{sign}{whole}.{fraction}")
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_read_exactly_or_refused_with_the_reason() {
        type Case = (&'static str, Result<(i64, i8), DecimalInvalid>);
        let cases: &[Case] = &[
            ("61837.63000000", Ok((6183763, -2))),
            ("-0.000", Ok((0, 0))),
            ("+5.970", Ok((597, -2))),
            (".5", Ok((5, -1))),
            ("5.", Ok((5, 0))),
            ("1000", Ok((1, 3))),
            ("000000000000000000001", Ok((1, 0))),
            ("999999999999999", Ok((999_999_999_999_999, 0))),
            ("1000000000000000", Err(DecimalInvalid::TooLarge)),
            ("9.223372036854775807", Ok((i64::MAX, -18))),
            ("-9.223372036854775808", Ok((i64::MIN, -18))),
            ("9.223372036854775808", Err(DecimalInvalid::TooPrecise)),
            ("0.0000000000000000001", Err(DecimalInvalid::TooFine)),
            ("0.1000000000000000000", Ok((1, -1))),
            ("NaN", Err(DecimalInvalid::Syntax)),
            ("inf", Err(DecimalInvalid::Syntax)),
            ("1e5", Err(DecimalInvalid::Syntax)),
            ("1,5", Err(DecimalInvalid::Syntax)),
            ("", Err(DecimalInvalid::Syntax)),
            ("-", Err(DecimalInvalid::Syntax)),
            (".", Err(DecimalInvalid::Syntax)),
            ("1.2.3", Err(DecimalInvalid::Syntax)),
            (" 1", Err(DecimalInvalid::Syntax)),
        ];
        for (text, expected) in cases {
            let read = text.parse::<Decimal>().map(|value| (value.mantissa(), value.exponent()));
            assert_eq!(read, *expected, "{text:?}");
        }
        assert_eq!("1".repeat(400).parse::<Decimal>(), Err(DecimalInvalid::TooLong));
    }

    #[test]
    fn the_door_rule_holds_at_its_edges() {
        assert_eq!(Decimal::new(1, 15), Err(DecimalInvalid::TooLarge));
        assert_eq!(Decimal::new(1, 14).map(|value| value.to_string()), Ok("100000000000000".into()));
        assert_eq!(Decimal::new(i64::MAX, -4), Ok("922337203685477.5807".parse().unwrap()));
        assert_eq!(Decimal::new(i64::MAX, -3), Err(DecimalInvalid::TooLarge));
        assert_eq!(Decimal::new(1, -19), Err(DecimalInvalid::TooFine));
        assert_eq!(Decimal::new(10, -19).map(|value| value.exponent()), Ok(-18));
        assert_eq!(Decimal::new(0, i32::MAX), Ok(Decimal::ZERO));
        assert_eq!(Decimal::new(1, i32::MAX), Err(DecimalInvalid::TooLarge));
        assert_eq!(Decimal::new(1, i32::MIN), Err(DecimalInvalid::TooFine));
        assert_eq!(
            Decimal::new(1_000_000_000_000_000_000, -36).map(|v| v.to_string()),
            Ok("0.000000000000000001".into())
        );
    }

    proptest! {
        #[test]
        fn text_round_trips(mantissa in any::<i64>(), exponent in -40i32..40) {
            if let Ok(value) = Decimal::new(mantissa, exponent) {
                prop_assert_eq!(value.to_string().parse::<Decimal>(), Ok(value));
                prop_assert!(value.units_e18().unsigned_abs() < 10u128.pow(33));
                prop_assert!(value.mantissa() == 0 || value.mantissa() % 10 != 0);
            }
        }

        #[test]
        fn order_is_the_order_of_the_values(a in any::<i64>(), b in any::<i64>(), ea in -18i32..0, eb in -18i32..0) {
            if let (Ok(a), Ok(b)) = (Decimal::new(a, ea), Decimal::new(b, eb)) {
                prop_assert_eq!(a.cmp(&b), a.units_e18().cmp(&b.units_e18()));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            let _ = text.parse::<Decimal>();
        }
    }
}
