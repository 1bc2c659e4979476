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

    /// The sums without a part of these ticks, or `None` if that is no part of them.
    pub fn without(&self, part: &Sums) -> Option<Sums> {
        Some(Sums {
            count: self.count.checked_sub(part.count)?,
            price_sum: self.price_sum.checked_sub(part.price_sum)?,
            volume_count: self.volume_count.checked_sub(part.volume_count)?,
            volume: self.volume.checked_sub(part.volume)?,
            notional: self.notional.checked_sub(part.notional)?,
        })
    }
}

impl From<&Totals> for Sums {
    fn from(totals: &Totals) -> Sums {
        let Totals { count, price_sum, volume_count, volume, notional, .. } = *totals;
        Sums { count, price_sum, volume_count, volume, notional }
    }
}

/// Sums of a chunk's columns at their own exponents, which widening makes [`Sums`] of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct ColumnSums {
    pub(crate) count: u64,
    pub(crate) price: i128,
    pub(crate) volume_count: u64,
    pub(crate) volume: i128,
    pub(crate) notional: i128,
}

impl ColumnSums {
    /// The sums of prices and quantities, which are zero where one is absent. `None` when a sum of products might leave
    /// 128 bits.
    ///
    /// The other sums always fit: a chunk has at most 2^20 values of 63 bits.
    pub(crate) fn of(prices: &[i64], quantities: Option<&[i64]>) -> Option<ColumnSums> {
        // One plain loop a column, each a few instructions a tick. Most sums fit 64 bits, as the bits of what is added
        // tell; then they were right as they wrapped.
        let (mut price_bits, mut price) = (0, 0_i64);
        for &value in prices {
            price_bits |= value.unsigned_abs();
            price = price.wrapping_add(value);
        }
        let fits = |bits: u128| bits.checked_mul(prices.len() as u128).is_some_and(|most| most <= i64::MAX as u128);
        let price = match fits(u128::from(price_bits)) {
            true => i128::from(price),
            false => prices.iter().map(|&value| i128::from(value)).sum(),
        };
        let (mut volume_count, mut volume, mut notional) = (0, 0, 0);
        if let Some(quantities) = quantities {
            let (mut quantity_bits, mut short) = (0, 0_i64);
            for &quantity in quantities {
                // An absent quantity stands as zero and counts as none.
                let quantity = quantity.max(0);
                quantity_bits |= quantity.unsigned_abs();
                volume_count += u64::from(quantity > 0);
                short = short.wrapping_add(quantity);
            }
            volume = match fits(u128::from(quantity_bits)) {
                true => i128::from(short),
                false => quantities.iter().map(|&quantity| i128::from(quantity.max(0))).sum(),
            };
            let pairs = prices.iter().zip(quantities);
            let product_bits = u128::from(price_bits) * u128::from(quantity_bits);
            if fits(product_bits) {
                notional = i128::from(pairs.map(|(&price, &quantity)| price * quantity.max(0)).sum::<i64>());
            } else {
                let most = product_bits.checked_mul(prices.len() as u128);
                most.filter(|&most| most <= i128::MAX as u128)?;
                notional = pairs.map(|(&price, &quantity)| i128::from(price) * i128::from(quantity.max(0))).sum();
            }
        }
        Some(ColumnSums { count: prices.len() as u64, price, volume_count, volume, notional })
    }

    /// The sums of both, or `None` when one leaves 128 bits.
    pub(crate) fn checked_add(self, other: ColumnSums) -> Option<ColumnSums> {
        Some(ColumnSums {
            count: self.count.checked_add(other.count)?,
            price: self.price.checked_add(other.price)?,
            volume_count: self.volume_count.checked_add(other.volume_count)?,
            volume: self.volume.checked_add(other.volume)?,
            notional: self.notional.checked_add(other.notional)?,
        })
    }

    /// The sums in the units that all share.
    pub(crate) fn widen(self, price_exponent: i8, quantity_exponent: i8) -> Sums {
        let ColumnSums { count, price, volume_count, volume, notional } = self;
        let price_power = (price_exponent + UNIT_DECIMALS) as u8;
        let quantity_power = (quantity_exponent + UNIT_DECIMALS) as u8;
        Sums {
            count,
            price_sum: widen(price, price_power),
            volume_count,
            volume: widen(volume, quantity_power),
            notional: widen(notional, price_power + quantity_power),
        }
    }
}

/// A sum of mantissas in the units that all sums share.
pub(super) fn widen(sum: i128, power: u8) -> I256 {
    I256::from_i128(sum).checked_mul_pow10(power).expect("values inside the door rule sum up below 2^255")
}
