//! Division and printing of wide sums: the one place where rounding happens, half-even.
//!
//! Start with [`mean`], [`vwap`] and [`twap`]: they know the units of the sums. Rounding is half-even on the magnitude,
//! so that a value and its negative print the same digits, and "-0" is never printed.

mod print;

use std::cmp::Ordering;

use super::I256;
use super::wide::{MAX_POW10_STEP, div_rem_small};
use print::print;

/// Most decimals that a quotient is asked for.
pub const MAX_QUOTIENT_DECIMALS: u8 = 36;

/// A numerator of 255 bits times 10^36 has 375 bits.
type Limbs = [u64; 6];

/// The mean of `count` prices from their sum in units of 10^-18. `None` without prices.
pub fn mean(price_sum: I256, count: u64, decimals: u8) -> Option<String> {
    quotient(price_sum, I256::product(i128::from(count), UNITS), decimals)
}

/// The volume-weighted mean price from the notional in units of 10^-36 and the volume in units of 10^-18. `None`
/// without volume.
pub fn vwap(notional: I256, volume: I256, decimals: u8) -> Option<String> {
    quotient(notional, volume.checked_mul_pow10(UNIT_DECIMALS)?, decimals)
}

/// The time-weighted mean price from the integral in units of 10^-18 * 1 ns over `total_ns` nanoseconds. `None` over no
/// time at all: then the last price stands for the mean.
pub fn twap(integral: I256, total_ns: u64, decimals: u8) -> Option<String> {
    quotient(integral, I256::product(i128::from(total_ns), UNITS), decimals)
}

/// The mean of `count` prices from their sum in units of 10^-18, rounded half-even to units of 10^-36. Zero without
/// prices.
pub fn fine_mean(price_sum: I256, count: u64) -> I256 {
    let fine = price_sum.checked_mul_pow10(UNIT_DECIMALS).expect("sums of prices stay below 2^195");
    divide(fine, count.max(1))
}

/// The exponential average after a price in units of 10^-18, from the one before it in units of 10^-36, over a window of
/// `count`: `(2 * price + (count - 1) * before) / (count + 1)`, rounded half-even to units of 10^-36.
pub fn exponential(before: I256, price: i128, count: u64) -> I256 {
    const FITS: &str = "averages stay below 10^51 units, and windows are short";
    let price = I256::product(price, 2 * UNITS);
    let kept = before.checked_mul_u64(count.saturating_sub(1)).expect(FITS);
    divide(kept.checked_add(price).expect(FITS), count + 1)
}

/// A value in units of 10^-36 as text, rounded half-even.
pub fn fine(value: I256, decimals: u8) -> Option<String> {
    quotient(value, I256::product(UNITS, UNITS), decimals)
}

/// `numerator / divisor`, rounded half-even. The divisor is not zero.
fn divide(numerator: I256, divisor: u64) -> I256 {
    let (mut quotient, rest) = div_rem_small(&numerator.magnitude(), divisor);
    if rounds_up(quotient[0] % 2 == 1, rest.cmp(&(divisor - rest))) {
        for limb in &mut quotient {
            let (sum, carry) = limb.overflowing_add(1);
            *limb = sum;
            if !carry {
                break;
            }
        }
    }
    I256::from_magnitude(numerator.is_negative(), quotient).expect("a quotient is not longer than its numerator")
}

/// Decimals of the unit of prices and quantities.
const UNIT_DECIMALS: u8 = 18;

/// How many units of prices and quantities make one.
const UNITS: i128 = 10i128.pow(UNIT_DECIMALS as u32);

/// `numerator / denominator` as decimal text with at most `decimals` (0 to 36) decimals, rounded half-even, without
/// trailing zeros. `None` when the denominator is zero.
pub fn quotient(numerator: I256, denominator: I256, decimals: u8) -> Option<String> {
    if denominator.is_zero() {
        return None;
    }
    let decimals = decimals.min(MAX_QUOTIENT_DECIMALS);
    let negative = numerator.is_negative() != denominator.is_negative();
    let dividend = scale_up(numerator.magnitude(), decimals);
    let divisor = denominator.magnitude();
    let mut quotient = match (narrow(&dividend), narrow(&divisor)) {
        (Some(dividend), Some(divisor)) => {
            let (quotient, remainder) = (dividend / divisor, dividend % divisor);
            let up = rounds_up(quotient % 2 == 1, remainder.cmp(&(divisor - remainder)));
            // Rounding up cannot overflow: a quotient of 2^128 - 1 has divisor 1 and no remainder.
            widen(quotient + u128::from(up))
        }
        _ => {
            let (mut quotient, remainder) = div_rem(&dividend, &divisor);
            let twice = compare(&remainder, &minus(&divisor, &remainder));
            if rounds_up(quotient[0] % 2 == 1, twice) {
                increment(&mut quotient);
            }
            quotient
        }
    };
    Some(print(negative, &mut quotient, decimals))
}

/// `value * 10^-scale` as exact decimal text without trailing zeros.
pub fn fixed_point(value: I256, scale: u8) -> String {
    let magnitude = value.magnitude();
    print(value.is_negative(), &mut [magnitude[0], magnitude[1], magnitude[2], magnitude[3], 0, 0], scale)
}

/// Half-even: above the half up, below it down, at the half to the even neighbour. `twice` compares twice the
/// remainder with the divisor.
fn rounds_up(odd: bool, twice: Ordering) -> bool {
    twice == Ordering::Greater || twice == Ordering::Equal && odd
}

/// A magnitude times a power of ten of at most 36.
fn scale_up(magnitude: [u64; 4], decimals: u8) -> Limbs {
    let mut limbs = [magnitude[0], magnitude[1], magnitude[2], magnitude[3], 0, 0];
    let mut left = decimals;
    while left > 0 {
        let step = left.min(MAX_POW10_STEP);
        let factor = u128::from(10u64.pow(u32::from(step)));
        let mut carry = 0;
        for limb in &mut limbs {
            let wide = u128::from(*limb) * factor + carry;
            *limb = wide as u64;
            carry = wide >> 64;
        }
        left -= step;
    }
    limbs
}

/// The value of limbs if it fits 128 bits.
fn narrow(limbs: &[u64]) -> Option<u128> {
    let fits = limbs[2..].iter().all(|&limb| limb == 0);
    fits.then_some(u128::from(limbs[0]) | u128::from(limbs[1]) << 64)
}

/// The limbs of 128 bits.
fn widen(value: u128) -> Limbs {
    [value as u64, (value >> 64) as u64, 0, 0, 0, 0]
}

/// Compares limbs of equal count.
fn compare(a: &[u64; 4], b: &[u64; 4]) -> Ordering {
    a.iter().rev().cmp(b.iter().rev())
}

/// `a - b` for `a >= b`.
fn minus(a: &[u64; 4], b: &[u64; 4]) -> [u64; 4] {
    let mut difference = *a;
    let mut borrow = false;
    for (place, &limb) in difference.iter_mut().zip(b) {
        let (partial, first) = place.overflowing_sub(limb);
        let (partial, second) = partial.overflowing_sub(u64::from(borrow));
        *place = partial;
        borrow = first || second;
    }
    difference
}

/// Adds one. The limbs have room: they hold at most 375 bits.
fn increment(limbs: &mut Limbs) {
    for limb in limbs {
        let (sum, carry) = limb.overflowing_add(1);
        *limb = sum;
        if !carry {
            return;
        }
    }
}

/// Quotient and remainder of long division in base 2^64: Knuth, The Art of Computer Programming 4.3.1, algorithm D.
/// The divisor is not zero.
fn div_rem(dividend: &Limbs, divisor: &[u64; 4]) -> (Limbs, [u64; 4]) {
    let size = divisor.iter().rposition(|&limb| limb != 0).map_or(0, |last| last + 1);
    if size <= 1 {
        let (quotient, remainder) = div_rem_small(dividend, divisor[0]);
        return (quotient, [remainder, 0, 0, 0]);
    }
    // Normalized: with the divisor's top bit set, an estimate of a digit is at most two too high.
    let shift = divisor[size - 1].leading_zeros();
    let divisor: [u64; 4] = shift_left(divisor, shift);
    let mut rest: [u64; 7] = shift_left(dividend, shift);
    let (top, second) = (u128::from(divisor[size - 1]), u128::from(divisor[size - 2]));
    let mut quotient = [0; 6];
    for place in (0..=6 - size).rev() {
        let head = u128::from(rest[place + size]) << 64 | u128::from(rest[place + size - 1]);
        let mut digit = head / top;
        let mut over = head % top;
        while digit > LIMB || digit * second > (over << 64 | u128::from(rest[place + size - 2])) {
            digit -= 1;
            over += top;
            if over > LIMB {
                break;
            }
        }
        let window = &mut rest[place..=place + size];
        if subtract_product(window, &divisor[..size], digit as u64) {
            digit -= 1;
            add_back(window, &divisor[..size]);
        }
        quotient[place] = digit as u64;
    }
    let mut remainder = [0; 4];
    for (index, place) in remainder.iter_mut().enumerate().take(size) {
        let above = u128::from(rest[index + 1]) << 64;
        *place = ((above | u128::from(rest[index])) >> shift) as u64;
    }
    (quotient, remainder)
}

/// The greatest limb.
const LIMB: u128 = u64::MAX as u128;

/// Limbs moved up by fewer than 64 bits, into as many limbs as the caller has room for.
fn shift_left<const N: usize>(limbs: &[u64], shift: u32) -> [u64; N] {
    let mut shifted = [0; N];
    let mut below = 0;
    for (index, place) in shifted.iter_mut().enumerate() {
        let limb = limbs.get(index).copied().unwrap_or(0);
        let wide = (u128::from(limb) << 64 | u128::from(below)) << shift;
        *place = (wide >> 64) as u64;
        below = limb;
    }
    shifted
}

/// Subtracts `divisor * digit` from a window of one limb more; true when that went below zero.
fn subtract_product(window: &mut [u64], divisor: &[u64], digit: u64) -> bool {
    let mut carry = 0;
    for (place, &limb) in window.iter_mut().zip(divisor) {
        let product = u128::from(limb) * u128::from(digit) + carry;
        let (difference, borrow) = place.overflowing_sub(product as u64);
        *place = difference;
        carry = (product >> 64) + u128::from(borrow);
    }
    let last = &mut window[divisor.len()];
    // The carry is at most 2^64 - 1: the product has one limb more than the divisor.
    let (difference, borrow) = last.overflowing_sub(carry as u64);
    *last = difference;
    borrow
}

/// Adds the divisor to a window that went below zero, which brings it back.
fn add_back(window: &mut [u64], divisor: &[u64]) {
    let mut carry = false;
    for (place, &limb) in window.iter_mut().zip(divisor) {
        let (sum, first) = place.overflowing_add(limb);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        *place = sum;
        carry = first || second;
    }
    let last = &mut window[divisor.len()];
    // This carry cancels the borrow that went below zero.
    *last = last.wrapping_add(u64::from(carry));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::wide::tests::{any_wide, big, small};
    use num_bigint::BigInt;
    use proptest::prelude::*;

    /// The same quotient in arbitrary precision, printed the naive way.
    fn oracle(numerator: &BigInt, denominator: &BigInt, decimals: u8) -> String {
        let ten = BigInt::from(10);
        let dividend = BigInt::from(numerator.magnitude().clone()) * ten.pow(decimals.into());
        let divisor = BigInt::from(denominator.magnitude().clone());
        let mut quotient = &dividend / &divisor;
        let twice: BigInt = (&dividend % &divisor) * 2;
        if twice > divisor || twice == divisor && &quotient % 2 == BigInt::from(1) {
            quotient += 1;
        }
        let mut text = quotient.to_string();
        while text.len() <= decimals.into() {
            text.insert(0, '0');
        }
        text.insert(text.len() - usize::from(decimals), '.');
        let text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
        if numerator.sign() * denominator.sign() == num_bigint::Sign::Minus && text != "0" {
            format!("-{text}")
        } else {
            text
        }
    }

    fn wide(value: i128) -> I256 {
        I256::from_i128(value)
    }

    #[test]
    fn quotients_round_half_even_at_the_asked_decimals() {
        let cases: &[(i128, i128, u8, &str)] = &[
            (1, 3, 0, "0"),
            (1, 3, 5, "0.33333"),
            (2, 3, 5, "0.66667"),
            (-2, 3, 5, "-0.66667"),
            (1, 2, 0, "0"),
            (3, 2, 0, "2"),
            (5, 2, 0, "2"),
            (-1, 2, 0, "0"),
            (-3, 2, 0, "-2"),
            (-5, -2, 0, "2"),
            (25, 1000, 2, "0.02"),
            (35, 1000, 2, "0.04"),
            (999_999, 1_000_000, 5, "1"),
            (-1, 1_000_000, 5, "0"),
            (0, -7, 9, "0"),
            (100, 1, 9, "100"),
            (1, 8, 36, "0.125"),
            (1, 7, 36, "0.142857142857142857142857142857142857"),
            (i128::MIN, -1, 36, "170141183460469231731687303715884105728"),
            (i128::MAX, 2, 0, "85070591730234615865843651857942052864"),
            (i128::MAX, 2, 1, "85070591730234615865843651857942052863.5"),
        ];
        for &(numerator, denominator, decimals, expected) in cases {
            let text = quotient(wide(numerator), wide(denominator), decimals);
            assert_eq!(text.as_deref(), Some(expected), "{numerator} / {denominator} at {decimals}");
        }
        assert_eq!(quotient(wide(1), I256::ZERO, 9), None);
        let seventy_six_digits = quotient(I256::MIN, wide(1), 36).unwrap();
        assert_eq!(
            seventy_six_digits,
            "-57896044618658097711785492504343953926634992332820282019728792003956564819968"
        );
    }

    #[test]
    fn fixed_point_text_is_exact() {
        let cases: &[(i128, u8, &str)] = &[
            (0, 18, "0"),
            (1, 18, "0.000000000000000001"),
            (-1, 36, "-0.000000000000000000000000000000000001"),
            (1_500_000_000_000_000_000, 18, "1.5"),
            (-1_000_000_000_000_000_000, 18, "-1"),
            (12_300, 0, "12300"),
            (12_300, 2, "123"),
            (12_300, 5, "0.123"),
        ];
        for &(value, scale, expected) in cases {
            assert_eq!(fixed_point(wide(value), scale), expected);
        }
    }

    #[test]
    fn averages_know_the_units_of_their_sums() {
        let units = |value: i128| wide(value * UNITS);
        assert_eq!(mean(units(10), 4, 9).as_deref(), Some("2.5"));
        assert_eq!(mean(I256::ZERO, 0, 9), None);
        assert_eq!(vwap(I256::product(70 * UNITS, UNITS), units(3), 3).as_deref(), Some("23.333"));
        assert_eq!(vwap(I256::ZERO, I256::ZERO, 9), None);
        assert_eq!(vwap(I256::ZERO, I256::MAX, 9), None);
        assert_eq!(twap(units(-7), 2, 9).as_deref(), Some("-3.5"));
        assert_eq!(twap(I256::ZERO, 0, 9), None);
    }

    #[test]
    fn an_estimated_digit_that_is_too_high_is_corrected() {
        // Random numbers reach this branch once in 2^63 times.
        let dividend = [0, 0, 1 << 63, (1 << 63) - 1, 0, 0];
        let divisor = [1, 0, 1 << 63, 0];
        let (quotient, remainder) = div_rem(&dividend, &divisor);
        assert_eq!(quotient, [u64::MAX - 1, 0, 0, 0, 0, 0]);
        assert_eq!(remainder, [2, u64::MAX, (1 << 63) - 1, 0]);
    }

    proptest! {
        #[test]
        fn quotients_agree_with_arbitrary_precision(a in any_wide(), b in any_wide(), decimals in 0u8..=36) {
            let text = quotient(a, b, decimals);
            if b.is_zero() {
                prop_assert_eq!(text, None);
            } else {
                prop_assert_eq!(text, Some(oracle(&big(a), &big(b), decimals)));
            }
        }

        #[test]
        fn exact_halves_go_to_the_even_neighbour(whole in any::<i64>(), half in any::<u64>(), decimals in 0u8..=20) {
            // (2 * whole + 1) / 2 * 10^-decimals, with a common factor to reach every path of the division.
            let factor = BigInt::from(u128::from(half) + 1);
            let numerator = (BigInt::from(whole) * 2 + 1) * &factor;
            let denominator = BigInt::from(10).pow(decimals.into()) * 2 * &factor;
            if let (Some(a), Some(b)) = (small(&numerator), small(&denominator)) {
                prop_assert_eq!(quotient(a, b, decimals), Some(oracle(&numerator, &denominator, decimals)));
            }
        }

        #[test]
        fn fixed_point_agrees_with_arbitrary_precision(value in any_wide(), scale in 0u8..=76) {
            prop_assert_eq!(fixed_point(value, scale), oracle(&big(value), &BigInt::from(10).pow(scale.into()), scale));
        }

        #[test]
        fn long_division_leaves_the_right_remainder(a in any_wide(), b in any_wide(), decimals in 0u8..=36) {
            prop_assume!(!b.is_zero());
            let dividend = scale_up(a.magnitude(), decimals);
            let value = |limbs: &[u64]| limbs.iter().rev().fold(BigInt::ZERO, |sum, &limb| (sum << 64) + limb);
            let (quotient, remainder) = div_rem(&dividend, &b.magnitude());
            prop_assert_eq!(value(&quotient), value(&dividend) / value(&b.magnitude()));
            prop_assert_eq!(value(&remainder), value(&dividend) % value(&b.magnitude()));
        }
    }
}
