//! Division and printing of wide sums: the one place where rounding happens, half-even.

use super::I256;

/// `numerator / denominator` as decimal text with at most `decimals` (0 to 36) decimals, rounded half-even, without
/// trailing zeros. `None` when the denominator is zero.
pub fn quotient(numerator: I256, denominator: I256, decimals: u8) -> Option<String> {
    let _ = (numerator, denominator, decimals);
    todo!()
}

/// `value * 10^-scale` as exact decimal text without trailing zeros.
pub fn fixed_point(value: I256, scale: u8) -> String {
    let _ = (value, scale);
    todo!()
}
