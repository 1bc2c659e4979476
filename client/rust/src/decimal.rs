//! Exact decimal numbers: prices and quantities in 64 bits, sums and means of any size.
//!
//! No binary float anywhere: what the venue wrote is what arrives.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use tapefeed_proto::v1 as proto;

use crate::Error;

/// The most decimals that a price or quantity may have.
pub const MAX_DECIMALS: i32 = 18;

/// Absolute values of prices and quantities lie below ten to this power.
const MAX_MAGNITUDE: i32 = 15;

/// The longest text that is read, in bytes.
const MAX_TEXT_BYTES: usize = 64;

/// A price or quantity, exact: `mantissa * 10^exponent`.
///
/// Always canonical (the mantissa has no trailing zeros, zero is (0, 0)), with an absolute value below 10^15 and at most
/// 18 decimals, so that equal numbers are equal values. `rust_decimal::Decimal` converts both ways.
///
/// ```
/// use tapefeed_client::Decimal;
/// let price: Decimal = "61837.6300".parse()?;
/// assert_eq!((price.mantissa(), price.exponent()), (6183763, -2));
/// assert_eq!(price.to_string(), "61837.63");
/// # Ok::<(), tapefeed_client::DecimalInvalid>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Decimal {
    mantissa: i64,
    exponent: i8,
}

/// Why a number is not a [`Decimal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecimalInvalid {
    /// Not digits with an optional sign and point; also `NaN`, infinities, exponents and empty text.
    #[error("not a decimal number: write digits with an optional sign and point, such as -61837.63")]
    Syntax,
    /// The text is longer than 64 bytes.
    #[error("a number has at most 64 characters")]
    TooLong,
    /// The absolute value is 10^15 or more.
    #[error("the absolute value must be below 10^15")]
    TooLarge,
    /// There are more than 18 decimals, trailing zeros aside.
    #[error("at most 18 decimals are kept")]
    TooFine,
    /// There are more significant digits than 64 bits hold: 18 always fit.
    #[error("more significant digits than 64 bits hold; 18 always fit")]
    TooPrecise,
}

impl Decimal {
    /// Zero.
    pub const ZERO: Decimal = Decimal { mantissa: 0, exponent: 0 };

    /// Makes `mantissa * 10^exponent` canonical.
    ///
    /// # Errors
    ///
    /// [`DecimalInvalid::TooLarge`] from 10^15 on, [`DecimalInvalid::TooFine`] with more than 18 decimals.
    pub fn new(mut mantissa: i64, mut exponent: i32) -> Result<Decimal, DecimalInvalid> {
        if mantissa == 0 {
            return Ok(Decimal::ZERO);
        }
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent = exponent.saturating_add(1);
        }
        if exponent < -MAX_DECIMALS {
            return Err(DecimalInvalid::TooFine);
        }
        let digits = mantissa.unsigned_abs().ilog10() as i32 + 1;
        if exponent > MAX_MAGNITUDE - digits {
            return Err(DecimalInvalid::TooLarge);
        }
        Ok(Decimal { mantissa, exponent: exponent as i8 })
    }

    /// The digits with their sign.
    pub fn mantissa(self) -> i64 {
        self.mantissa
    }

    /// The power of ten that the mantissa is multiplied by, -18 to 14.
    pub fn exponent(self) -> i32 {
        i32::from(self.exponent)
    }

    /// How many decimals follow the point: 0 to 18.
    pub fn decimals(self) -> u32 {
        u32::from(self.exponent.min(0).unsigned_abs())
    }

    /// Whether the value lies below zero.
    pub fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// The mantissa at a finer or equal exponent, or `None` if it does not fit 64 bits or would lose digits.
    pub(crate) fn mantissa_at(self, exponent: i32) -> Option<i64> {
        if self.mantissa == 0 {
            return Some(0);
        }
        let shift = u32::try_from(self.exponent() - exponent).ok()?;
        self.mantissa.checked_mul(10i64.checked_pow(shift)?)
    }

    /// The value in units of 10^-18: exact, below 10^33.
    fn units(self) -> i128 {
        i128::from(self.mantissa) * 10i128.pow((self.exponent() + MAX_DECIMALS) as u32)
    }

    pub(crate) fn to_wire(self) -> proto::Decimal {
        proto::Decimal { mantissa: self.mantissa, exponent: self.exponent() }
    }

    /// Reads a number of an answer; `field` names it in the error.
    pub(crate) fn from_wire(number: &proto::Decimal, field: &str) -> Result<Decimal, Error> {
        Decimal::new(number.mantissa, number.exponent).map_err(|why| Error::protocol(format!("{field}: {why}")))
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        self.units().cmp(&other.units())
    }
}

impl FromStr for Decimal {
    type Err = DecimalInvalid;

    /// Reads digits with an optional sign and decimal point. No exponent form, no separators.
    fn from_str(text: &str) -> Result<Decimal, DecimalInvalid> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(DecimalInvalid::TooLong);
        }
        let (negative, digits) = match text.strip_prefix(['-', '+']) {
            Some(digits) => (text.starts_with('-'), digits),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !all_digits(whole) || !all_digits(fraction) {
            return Err(DecimalInvalid::Syntax);
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > MAX_DECIMALS as usize {
            return Err(DecimalInvalid::TooFine);
        }
        if whole.len() > MAX_MAGNITUDE as usize {
            return Err(DecimalInvalid::TooLarge);
        }
        // At most 15 + 18 digits: the value stays below 10^33.
        let mut value = 0i128;
        for digit in whole.bytes().chain(fraction.bytes()) {
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
        let magnitude = u128::from(self.mantissa.unsigned_abs());
        let text = if self.exponent >= 0 {
            (magnitude * 10u128.pow(u32::from(self.exponent.unsigned_abs()))).to_string()
        } else {
            let decimals = self.decimals() as usize;
            let digits = format!("{magnitude:0>width$}", width = decimals + 1);
            let (whole, fraction) = digits.split_at(digits.len() - decimals);
            format!("{whole}.{fraction}")
        };
        out.pad_integral(self.mantissa >= 0, "", &text)
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl From<i32> for Decimal {
    fn from(number: i32) -> Decimal {
        Decimal::new(i64::from(number), 0).expect("32 bits stay below 10^15")
    }
}

impl From<Decimal> for rust_decimal::Decimal {
    fn from(number: Decimal) -> rust_decimal::Decimal {
        let mantissa = i128::from(number.mantissa);
        if number.exponent >= 0 {
            let value = mantissa * 10i128.pow(u32::from(number.exponent.unsigned_abs()));
            return rust_decimal::Decimal::from_i128_with_scale(value, 0);
        }
        rust_decimal::Decimal::from_i128_with_scale(mantissa, number.decimals())
    }
}

impl TryFrom<rust_decimal::Decimal> for Decimal {
    type Error = DecimalInvalid;

    fn try_from(number: rust_decimal::Decimal) -> Result<Decimal, DecimalInvalid> {
        let number = number.normalize();
        let mut mantissa = number.mantissa();
        let mut exponent = -(number.scale() as i32);
        while mantissa != 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        match i64::try_from(mantissa) {
            Ok(mantissa) => Decimal::new(mantissa, exponent),
            Err(_) if exponent < -MAX_DECIMALS => Err(DecimalInvalid::TooFine),
            Err(_) => Err(DecimalInvalid::TooPrecise),
        }
    }
}

/// A sum or mean, exact, of any size: a decimal number as text.
///
/// Sums over billions of ticks pass 64 and 128 bits, so they travel as text. Convert with [`str::parse`] on
/// [`WideDecimal::as_str`] into the big-number type of your choice, or with `TryFrom` into [`Decimal`] or
/// `rust_decimal::Decimal` where the value fits.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WideDecimal(Box<str>);

impl WideDecimal {
    /// The number as text: digits with an optional minus sign and decimal point.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks a number of an answer; `field` names it in the error.
    pub(crate) fn from_wire(text: String, field: &str) -> Result<WideDecimal, Error> {
        let unsigned = text.strip_prefix('-').unwrap_or(&text);
        let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(Error::protocol(format!("{field} is not a decimal number")));
        }
        Ok(WideDecimal(text.into()))
    }
}

impl fmt::Display for WideDecimal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.0)
    }
}

impl fmt::Debug for WideDecimal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl TryFrom<&WideDecimal> for Decimal {
    type Error = DecimalInvalid;

    fn try_from(number: &WideDecimal) -> Result<Decimal, DecimalInvalid> {
        number.0.parse()
    }
}

impl TryFrom<&WideDecimal> for rust_decimal::Decimal {
    type Error = rust_decimal::Error;

    fn try_from(number: &WideDecimal) -> Result<rust_decimal::Decimal, rust_decimal::Error> {
        rust_decimal::Decimal::from_str_exact(&number.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_is_read_exactly_or_refused_with_the_reason() {
        for (text, expected) in [
            ("61837.63000000", Ok((6_183_763, -2))),
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
            ("+-1", Err(DecimalInvalid::Syntax)),
            (".", Err(DecimalInvalid::Syntax)),
            ("1.2.3", Err(DecimalInvalid::Syntax)),
            (" 1", Err(DecimalInvalid::Syntax)),
        ] {
            let read = text.parse::<Decimal>().map(|number| (number.mantissa(), number.exponent()));
            assert_eq!(read, expected, "{text:?}");
        }
        assert_eq!("1".repeat(400).parse::<Decimal>(), Err(DecimalInvalid::TooLong));
    }

    #[test]
    fn bounds_hold_at_their_edges() {
        assert_eq!(Decimal::new(1, 15), Err(DecimalInvalid::TooLarge));
        assert_eq!(Decimal::new(1, 14).map(|n| n.to_string()), Ok("100000000000000".into()));
        assert_eq!(Decimal::new(1, -19), Err(DecimalInvalid::TooFine));
        assert_eq!(Decimal::new(1, i32::MAX), Err(DecimalInvalid::TooLarge));
        assert_eq!(Decimal::new(10, i32::MAX), Err(DecimalInvalid::TooLarge));
        assert_eq!(Decimal::new(1, i32::MIN), Err(DecimalInvalid::TooFine));
        assert_eq!(Decimal::new(0, i32::MIN), Ok(Decimal::ZERO));
    }

    #[test]
    fn display_pads_like_a_number() {
        let number: Decimal = "-1.25".parse().unwrap();
        assert_eq!(format!("{number:>8}"), "   -1.25");
    }

    #[test]
    fn wide_numbers_are_checked_and_convert_where_they_fit() {
        let wide = WideDecimal::from_wire("-61837.630000000".into(), "mean").unwrap();
        assert_eq!(Decimal::try_from(&wide), Ok("-61837.63".parse::<Decimal>().unwrap()));
        assert_eq!(rust_decimal::Decimal::try_from(&wide).unwrap().to_string(), "-61837.630000000");
        let huge = WideDecimal::from_wire("9".repeat(80), "sum").unwrap();
        assert!(Decimal::try_from(&huge).is_err());
        assert!(rust_decimal::Decimal::try_from(&huge).is_err());
        for text in ["", "-", "1.", ".1", "1e3", "NaN", "1.2.3", "--1"] {
            assert!(WideDecimal::from_wire(text.into(), "sum").is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(mantissa in any::<i64>(), exponent in -40i32..40) {
            if let Ok(number) = Decimal::new(mantissa, exponent) {
                prop_assert_eq!(number.to_string().parse::<Decimal>(), Ok(number));
                prop_assert!(number.mantissa() == 0 || number.mantissa() % 10 != 0);
            }
        }

        #[test]
        fn rust_decimal_round_trips(mantissa in any::<i64>(), exponent in -18i32..=14) {
            if let Ok(number) = Decimal::new(mantissa, exponent) {
                let other = rust_decimal::Decimal::from(number);
                prop_assert_eq!(other.normalize().to_string(), number.to_string());
                prop_assert_eq!(Decimal::try_from(other), Ok(number));
            }
        }

        #[test]
        fn wire_round_trips(mantissa in any::<i64>(), exponent in -18i32..=14) {
            if let Ok(number) = Decimal::new(mantissa, exponent) {
                prop_assert_eq!(Decimal::from_wire(&number.to_wire(), "price").unwrap(), number);
            }
        }

        #[test]
        fn order_is_that_of_the_values(a in any::<i64>(), b in any::<i64>(), ea in -18i32..0, eb in -18i32..0) {
            if let (Ok(a), Ok(b)) = (Decimal::new(a, ea), Decimal::new(b, eb)) {
                let (left, right) = (rust_decimal::Decimal::from(a), rust_decimal::Decimal::from(b));
                prop_assert_eq!(a.cmp(&b), left.cmp(&right));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            let _ = text.parse::<Decimal>();
        }

        #[test]
        fn mantissa_at_keeps_the_value(mantissa in -1_000_000i64..1_000_000, exponent in -6i32..3, finer in 0i32..6) {
            let number = Decimal::new(mantissa, exponent).unwrap();
            let target = number.exponent() - finer;
            let shifted = number.mantissa_at(target).unwrap();
            prop_assert_eq!(Decimal::new(shifted, target), Ok(number));
        }
    }
}
