//! Decimals: prices and quantities.

use crate::domain::{Decimal, DecimalInvalid};
use crate::grpc::proto;

/// A quantity that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityInvalid {
    /// Not a decimal inside the door rule.
    #[error(transparent)]
    Decimal(#[from] DecimalInvalid),
    /// Below zero.
    #[error("must not be negative")]
    Negative,
}

impl TryFrom<proto::Decimal> for Decimal {
    type Error = DecimalInvalid;

    fn try_from(decimal: proto::Decimal) -> Result<Decimal, DecimalInvalid> {
        let proto::Decimal { mantissa, exponent } = decimal;
        Decimal::new(mantissa, exponent)
    }
}

impl From<Decimal> for proto::Decimal {
    fn from(decimal: Decimal) -> proto::Decimal {
        proto::Decimal { mantissa: decimal.mantissa(), exponent: i32::from(decimal.exponent()) }
    }
}

/// A decimal of zero or more.
pub fn quantity(mantissa: i64, exponent: i32) -> Result<Decimal, QuantityInvalid> {
    let quantity = Decimal::new(mantissa, exponent)?;
    if quantity.is_negative() {
        return Err(QuantityInvalid::Negative);
    }
    Ok(quantity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_rule_holds_on_the_wire() {
        use DecimalInvalid::{TooFine, TooLarge};
        let cases = [
            ("canonical", (125, -2), Ok("1.25")),
            ("trailing zeros", (12_500, -4), Ok("1.25")),
            ("negative", (-6_183_763, -2), Ok("-61837.63")),
            ("zero of any exponent", (0, i32::MIN), Ok("0")),
            ("just below 10^15", (999_999_999_999_999, 0), Ok("999999999999999")),
            ("10^15", (1, 15), Err(TooLarge)),
            ("10^15 in digits", (1_000_000_000_000_000, 0), Err(TooLarge)),
            ("-10^15", (-1, 15), Err(TooLarge)),
            ("the greatest mantissa", (i64::MAX, 0), Err(TooLarge)),
            ("the least mantissa", (i64::MIN, 0), Err(TooLarge)),
            ("the least mantissa, fine", (i64::MIN, -18), Ok("-9.223372036854775808")),
            ("18 decimals", (1, -18), Ok("0.000000000000000001")),
            ("19 decimals", (1, -19), Err(TooFine)),
            ("19 decimals, one a zero", (10, -19), Ok("0.000000000000000001")),
            ("the greatest exponent", (1, i32::MAX), Err(TooLarge)),
            ("the least exponent", (1, i32::MIN), Err(TooFine)),
        ];
        for (name, (mantissa, exponent), expected) in cases {
            let read = Decimal::try_from(proto::Decimal { mantissa, exponent });
            assert_eq!(read.map(|value| value.to_string()), expected.map(str::to_owned), "{name}");
            if let Ok(value) = read {
                assert_eq!(Decimal::try_from(proto::Decimal::from(value)), Ok(value), "{name}");
            }
        }
    }

    #[test]
    fn quantities_are_zero_or_more() {
        assert_eq!(quantity(0, 0), Ok(Decimal::ZERO));
        assert_eq!(quantity(-1, 0), Err(QuantityInvalid::Negative));
        assert_eq!(quantity(1, 15), Err(QuantityInvalid::Decimal(DecimalInvalid::TooLarge)));
    }
}
