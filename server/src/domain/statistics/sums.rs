//! Counts and sums alone: unlike extremes, what a whole has beyond a part is a difference.

use super::{Totals, UNIT_DECIMALS};
use crate::domain::I256;

/// Count and exact sums of ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sums {
    /// How many ticks.
    pub count: u64,
    /// The sum of prices, in units of 10^-18.
    pub price_sum: I256,
    /// How many ticks have a quantity above zero.
    pub volume_count: u64,
    /// The sum of quantities, in units of 10^-18.
    pub volume: I256,
    /// The sum of price times quantity, in units of 10^-36.
    pub notional: I256,
}

impl Sums {
    /// Adds other ticks.
    pub fn add(&mut self, other: &Sums) {
        self.count += other.count;
        self.price_sum += other.price_sum;
        self.volume_count += other.volume_count;
        self.volume += other.volume;
        self.notional += other.notional;
    }

    /// Takes a part of these ticks away.
    pub fn subtract(&mut self, part: &Sums) {
        self.count -= part.count;
        self.price_sum = self.price_sum - part.price_sum;
        self.volume_count -= part.volume_count;
        self.volume = self.volume - part.volume;
        self.notional = self.notional - part.notional;
    }
}

impl From<&Totals> for Sums {
    fn from(totals: &Totals) -> Sums {
        let Totals { count, price_sum, volume_count, volume, notional, .. } = *totals;
        Sums { count, price_sum, volume_count, volume, notional }
    }
}

impl Sums {
    /// The sums of a chunk's columns, each at its own exponent; quantities are zero where one is absent. `None` when a
    /// sum of products might leave 128 bits.
    ///
    /// The other sums always fit: a chunk has at most 2^20 values of 63 bits.
    pub(crate) fn of_columns(
        prices: &[i64],
        price_exponent: i8,
        quantities: Option<&[i64]>,
        quantity_exponent: i8,
    ) -> Option<Sums> {
        // One plain loop a column: each is a few instructions a tick.
        let (mut widest, mut price) = (0, 0);
        for &value in prices {
            widest = value.unsigned_abs().max(widest);
            price += i128::from(value);
        }
        let (mut volume_count, mut volume, mut notional) = (0, 0, 0);
        if let Some(quantities) = quantities {
            let mut largest = 0;
            for &quantity in quantities {
                // An absent quantity stands as zero and counts as none.
                let quantity = quantity.max(0);
                largest = quantity.max(largest);
                volume_count += u64::from(quantity > 0);
                volume += i128::from(quantity);
            }
            let bound = (u128::from(widest) * largest as u128).checked_mul(prices.len() as u128);
            bound.filter(|&bound| bound <= i128::MAX as u128)?;
            for (&price, &quantity) in prices.iter().zip(quantities) {
                notional += i128::from(price) * i128::from(quantity.max(0));
            }
        }
        let price_power = (price_exponent + UNIT_DECIMALS) as u8;
        let quantity_power = (quantity_exponent + UNIT_DECIMALS) as u8;
        Some(Sums {
            count: prices.len() as u64,
            price_sum: widen(price, price_power),
            volume_count,
            volume: widen(volume, quantity_power),
            notional: widen(notional, price_power + quantity_power),
        })
    }
}

/// A sum of mantissas in the units that all sums share.
pub(super) fn widen(sum: i128, power: u8) -> I256 {
    I256::from_i128(sum).checked_mul_pow10(power).expect("values inside the door rule sum up below 2^255")
}
