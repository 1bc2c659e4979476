//! Exact sums on their way out: decimal text.

use crate::domain::{I256, ratio};

/// A sum of prices or of quantities, kept in units of 10^-18.
pub fn sum(units: I256) -> String {
    ratio::fixed_point(units, 18)
}

/// A sum of price times quantity, kept in units of 10^-36.
pub fn notional(units: I256) -> String {
    ratio::fixed_point(units, 36)
}

/// A sum of price times seconds, kept in units of 10^-18 * 1 ns.
pub fn time_weighted(units: I256) -> String {
    ratio::fixed_point(units, 27)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_printed_in_their_units() {
        let power = |power: u32| I256::from_i128(10i128.pow(power));
        assert_eq!(sum(power(18)), "1");
        assert_eq!(sum(-power(16)), "-0.01");
        assert_eq!(notional(power(37)), "10");
        assert_eq!(time_weighted(power(26)), "0.1");
        assert_eq!(sum(I256::ZERO), "0");
    }
}
