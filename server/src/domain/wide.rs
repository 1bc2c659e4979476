//! 256-bit integers for sums.

/// A signed 256-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct I256 {
    high: i128,
    low: u128,
}

impl I256 {
    /// Zero.
    pub const ZERO: I256 = I256 { high: 0, low: 0 };

    /// Whether the value is zero.
    pub fn is_zero(self) -> bool {
        self == I256::ZERO
    }
}
