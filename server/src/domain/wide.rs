//! 256-bit integers for sums.
//!
//! The sums of prices, quantities and notionals outgrow 128 bits: one worst-case notional is 10^66 units of 10^-36.
//! Two's complement in two halves keeps additions at two instructions; whatever is rarer goes through the limbs of the
//! magnitude. Nothing here wraps: an operation either is checked or stops with its reason.

use std::ops::{Add, AddAssign, Neg, Sub};

use super::varint::Reader;

/// A signed 256-bit integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct I256 {
    // The derived order is the order of the values because the signed half comes first.
    high: i128,
    low: u128,
}

/// Why the operators may stop instead of answering: see [`I256`]'s bounds on sums.
const NO_OVERFLOW: &str = "sums of ten billion worst-case ticks stay below 2^255";

impl I256 {
    /// Zero.
    pub const ZERO: I256 = I256 { high: 0, low: 0 };

    /// The greatest value, 2^255 - 1.
    pub const MAX: I256 = I256 { high: i128::MAX, low: u128::MAX };

    /// The smallest value, -2^255.
    pub const MIN: I256 = I256 { high: i128::MIN, low: 0 };

    /// Widens.
    pub const fn from_i128(value: i128) -> I256 {
        I256 { high: value >> 127, low: value as u128 }
    }

    /// Whether the value is zero.
    pub fn is_zero(self) -> bool {
        self == I256::ZERO
    }

    /// True for values below zero.
    pub fn is_negative(self) -> bool {
        self.high < 0
    }

    /// The value as an `i128` if it fits.
    pub fn to_i128(self) -> Option<i128> {
        let low = self.low as i128;
        (self.high == low >> 127).then_some(low)
    }

    /// The sum, or `None` when it does not fit.
    pub fn checked_add(self, other: I256) -> Option<I256> {
        let (low, carry) = self.low.overflowing_add(other.low);
        let (high, first) = self.high.overflowing_add(other.high);
        let (high, second) = high.overflowing_add(i128::from(carry));
        // The carry may bring a sum back that overflowed downwards by one.
        (first == second).then_some(I256 { high, low })
    }

    /// The difference, or `None` when it does not fit.
    pub fn checked_sub(self, other: I256) -> Option<I256> {
        let (low, borrow) = self.low.overflowing_sub(other.low);
        let (high, first) = self.high.overflowing_sub(other.high);
        let (high, second) = high.overflowing_sub(i128::from(borrow));
        (first == second).then_some(I256 { high, low })
    }

    /// The negated value, or `None` for [`I256::MIN`].
    pub fn checked_neg(self) -> Option<I256> {
        I256::ZERO.checked_sub(self)
    }

    /// The absolute value, or `None` for [`I256::MIN`].
    pub fn checked_abs(self) -> Option<I256> {
        if self.is_negative() { self.checked_neg() } else { Some(self) }
    }

    /// The sum with a narrow number, or `None` when it does not fit.
    pub fn checked_add_i128(self, other: i128) -> Option<I256> {
        self.checked_add(I256::from_i128(other))
    }

    /// The full product of two narrow numbers; it always fits.
    pub fn product(a: i128, b: i128) -> I256 {
        // Together fewer than 127 bits: most products end here, without a checked multiplication of 128 bits.
        if a.unsigned_abs().leading_zeros() + b.unsigned_abs().leading_zeros() > 129 {
            return I256::from_i128(a * b);
        }
        let (a_high, a_low) = halves(a.unsigned_abs());
        let (b_high, b_low) = halves(b.unsigned_abs());
        let bottom = a_low * b_low;
        // Each cross product is at most (2^64 - 1)^2, so that one 64-bit carry can be added to it without overflow.
        let middle = a_high * b_low + (bottom >> 64);
        let (middle_high, middle_low) = halves(middle);
        let middle_low = a_low * b_high + middle_low;
        let low = (middle_low << 64) | (bottom & u128::from(u64::MAX));
        let high = a_high * b_high + middle_high + (middle_low >> 64);
        let magnitude = I256 { high: high as i128, low };
        if (a < 0) == (b < 0) { magnitude } else { -magnitude }
    }

    /// The product with a small number, or `None` when it does not fit.
    pub fn checked_mul_u64(self, factor: u64) -> Option<I256> {
        let mut limbs = self.magnitude();
        let mut carry = 0;
        for limb in &mut limbs {
            let wide = u128::from(*limb) * u128::from(factor) + carry;
            *limb = wide as u64;
            carry = wide >> 64;
        }
        if carry == 0 { I256::from_magnitude(self.is_negative(), limbs) } else { None }
    }

    /// The product with `10^power`, or `None` when it does not fit.
    pub fn checked_mul_pow10(self, power: u8) -> Option<I256> {
        // Two narrow numbers always have a product.
        if let (Some(narrow), Some(&unit)) = (self.to_i128(), POW10_WIDE.get(usize::from(power))) {
            return Some(I256::product(narrow, unit));
        }
        let mut value = self;
        let mut left = power;
        while left > 0 {
            let step = left.min(MAX_POW10_STEP);
            value = value.checked_mul_u64(10u64.pow(u32::from(step)))?;
            left -= step;
        }
        Some(value)
    }

    /// The absolute value in four limbs, the least significant first. It has room for [`I256::MIN`].
    pub(super) fn magnitude(self) -> [u64; 4] {
        let (mut high, mut low) = (self.high as u128, self.low);
        if self.is_negative() {
            // Two's complement: invert and add one. The halves have exactly the width at which wrapping is right.
            low = (!low).wrapping_add(1);
            high = (!high).wrapping_add(u128::from(low == 0));
        }
        [low as u64, (low >> 64) as u64, high as u64, (high >> 64) as u64]
    }

    /// The value of a sign and four limbs, or `None` when it does not fit.
    pub(super) fn from_magnitude(negative: bool, limbs: [u64; 4]) -> Option<I256> {
        let low = u128::from(limbs[0]) | u128::from(limbs[1]) << 64;
        let high = u128::from(limbs[2]) | u128::from(limbs[3]) << 64;
        match i128::try_from(high) {
            Ok(high) if negative => I256 { high, low }.checked_neg(),
            Ok(high) => Some(I256 { high, low }),
            Err(_) if negative && high == 1 << 127 && low == 0 => Some(I256::MIN),
            Err(_) => None,
        }
    }

    /// The 32 bytes of the value in two's complement, the least significant first.
    pub fn to_le_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.low.to_le_bytes());
        bytes[16..].copy_from_slice(&self.high.to_le_bytes());
        bytes
    }

    /// The value of [`I256::to_le_bytes`].
    pub fn from_le_bytes(bytes: [u8; 32]) -> I256 {
        let half = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).expect("a slice of sixteen bytes");
        I256 { high: i128::from_le_bytes(half(16)), low: u128::from_le_bytes(half(0)) }
    }

    /// Appends a short form: sign and count of decimal zeros, count of bytes, bytes of the magnitude without them.
    /// Sums of market prices are short numbers with many decimal zeros, because their units are as small as 10^-36.
    pub(super) fn put(self, out: &mut Vec<u8>) {
        let mut limbs = self.magnitude();
        let mut zeros = 0;
        if !self.is_zero() {
            for step in [16, 8, 4, 2, 1] {
                let divisor = 10u64.pow(u32::from(step));
                while let (rest, 0) = div_rem_small(&limbs, divisor) {
                    limbs = rest;
                    zeros += step;
                }
            }
        }
        let mut bytes = [0; 32];
        for (place, limb) in bytes.chunks_exact_mut(8).zip(limbs) {
            place.copy_from_slice(&limb.to_le_bytes());
        }
        let length = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        out.push(zeros | if self.is_negative() { NEGATIVE } else { 0 });
        out.push(length as u8);
        out.extend_from_slice(&bytes[..length]);
    }

    /// Reads what [`I256::put`] wrote, or `None` when that is not what stands there.
    pub(super) fn take(reader: &mut Reader<'_>) -> Option<I256> {
        let head = reader.byte()?;
        let length = usize::from(reader.byte()?);
        let mut bytes = [0; 32];
        bytes.get_mut(..length)?.copy_from_slice(reader.bytes(length)?);
        let mut limbs = [0; 4];
        for (limb, place) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
            *limb = u64::from_le_bytes(place.try_into().expect("a chunk of eight bytes"));
        }
        I256::from_magnitude(head & NEGATIVE != 0, limbs)?.checked_mul_pow10(head & !NEGATIVE)
    }
}

/// The powers of ten that fit an `i128`: 10^0 to 10^38.
pub(super) const POW10_WIDE: [i128; 39] = {
    let mut table = [1i128; 39];
    let mut power = 1;
    while power < table.len() {
        table[power] = table[power - 1] * 10;
        power += 1;
    }
    table
};

/// The greatest power of ten that fits a limb.
pub(super) const MAX_POW10_STEP: u8 = 19;

/// The sign in the short form; the other seven bits have room for the 76 zeros that 255 bits can end in.
const NEGATIVE: u8 = 0x80;

/// The upper and the lower 64 bits.
fn halves(value: u128) -> (u128, u128) {
    (value >> 64, value & u128::from(u64::MAX))
}

/// Quotient and remainder of limbs, the least significant first, by one limb that is not zero.
pub(super) fn div_rem_small<const N: usize>(limbs: &[u64; N], divisor: u64) -> ([u64; N], u64) {
    let mut quotient = [0; N];
    let mut remainder = 0;
    for (place, limb) in quotient.iter_mut().zip(limbs).rev() {
        let wide = u128::from(remainder) << 64 | u128::from(*limb);
        // The remainder is below the divisor, so the quotient of this step fits one limb.
        *place = (wide / u128::from(divisor)) as u64;
        remainder = (wide % u128::from(divisor)) as u64;
    }
    (quotient, remainder)
}

impl From<i128> for I256 {
    fn from(value: i128) -> I256 {
        I256::from_i128(value)
    }
}

impl Add for I256 {
    type Output = I256;

    /// The sum. Stops on overflow, which no sum of valid ticks reaches; use [`I256::checked_add`] for anything else.
    fn add(self, other: I256) -> I256 {
        self.checked_add(other).expect(NO_OVERFLOW)
    }
}

impl Add<i128> for I256 {
    type Output = I256;

    /// The sum with a narrow number; stops on overflow.
    fn add(self, other: i128) -> I256 {
        self.checked_add_i128(other).expect(NO_OVERFLOW)
    }
}

impl Sub for I256 {
    type Output = I256;

    /// The difference; stops on overflow.
    fn sub(self, other: I256) -> I256 {
        self.checked_sub(other).expect(NO_OVERFLOW)
    }
}

impl Neg for I256 {
    type Output = I256;

    /// The negated value; stops at [`I256::MIN`].
    fn neg(self) -> I256 {
        self.checked_neg().expect(NO_OVERFLOW)
    }
}

impl AddAssign for I256 {
    fn add_assign(&mut self, other: I256) {
        *self = *self + other;
    }
}

impl AddAssign<i128> for I256 {
    fn add_assign(&mut self, other: i128) {
        *self = *self + other;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use num_bigint::BigInt;
    use proptest::prelude::*;

    /// The same value in the test oracle.
    pub(in crate::domain) fn big(value: I256) -> BigInt {
        BigInt::from_signed_bytes_le(&value.to_le_bytes())
    }

    /// The value of the test oracle, if it fits.
    pub(in crate::domain) fn small(value: &BigInt) -> Option<I256> {
        let bytes = value.to_signed_bytes_le();
        let mut wide = [if value.sign() == num_bigint::Sign::Minus { 0xff } else { 0 }; 32];
        wide.get_mut(..bytes.len())?.copy_from_slice(&bytes);
        Some(I256::from_le_bytes(wide))
    }

    /// Values of every size, and those beside carries and bounds.
    pub(in crate::domain) fn any_wide() -> impl Strategy<Value = I256> {
        let limb = prop_oneof![Just(0), Just(u64::MAX), Just(1), Just(1 << 63), any::<u64>()];
        let mixed = proptest::array::uniform4(limb).prop_map(|limbs| {
            let mut bytes = [0; 32];
            for (place, limb) in bytes.chunks_exact_mut(8).zip(limbs) {
                place.copy_from_slice(&limb.to_le_bytes());
            }
            I256::from_le_bytes(bytes)
        });
        prop_oneof![
            mixed,
            any::<i128>().prop_map(I256::from_i128),
            (any::<i64>(), 0u8..58).prop_map(|(value, power)| {
                I256::from_i128(value.into()).checked_mul_pow10(power).unwrap_or(I256::MIN)
            }),
        ]
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_integers_and_never_wraps(a in any_wide(), b in any_wide(), narrow: i128, factor: u64) {
            prop_assert_eq!(a.checked_add(b), small(&(big(a) + big(b))));
            prop_assert_eq!(a.checked_sub(b), small(&(big(a) - big(b))));
            prop_assert_eq!(a.checked_neg(), small(&-big(a)));
            prop_assert_eq!(a.checked_abs(), small(&BigInt::from(big(a).magnitude().clone())));
            prop_assert_eq!(a.checked_add_i128(narrow), small(&(big(a) + narrow)));
            prop_assert_eq!(a.checked_mul_u64(factor), small(&(big(a) * factor)));
            prop_assert_eq!(a.cmp(&b), big(a).cmp(&big(b)));
            prop_assert_eq!(a.is_negative(), big(a) < BigInt::ZERO);
            prop_assert_eq!(a.to_i128(), i128::try_from(big(a)).ok());
            prop_assert_eq!(big(I256::from_i128(narrow)), BigInt::from(narrow));
        }

        #[test]
        fn products_are_full(a: i128, b: i128, shift_a in 0u32..128, shift_b in 0u32..128) {
            let (a, b) = (a >> shift_a, b >> shift_b);
            prop_assert_eq!(big(I256::product(a, b)), BigInt::from(a) * b);
        }

        #[test]
        fn powers_of_ten_multiply_or_are_refused(value in any_wide(), power in 0u8..90) {
            let expected = small(&(big(value) * BigInt::from(10).pow(power.into())));
            prop_assert_eq!(value.checked_mul_pow10(power), expected);
        }

        #[test]
        fn both_byte_forms_round_trip(value in any_wide()) {
            prop_assert_eq!(I256::from_le_bytes(value.to_le_bytes()), value);
            let mut bytes = Vec::new();
            value.put(&mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(I256::take(&mut reader), Some(value));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = I256::take(&mut Reader::new(&bytes));
        }
    }

    #[test]
    fn the_bounds_are_where_two_complement_puts_them() {
        for a in [i128::MIN, i128::MIN + 1, -1, 0, 1, i128::MAX] {
            for b in [i128::MIN, i128::MIN + 1, -1, 0, 1, i128::MAX] {
                assert_eq!(big(I256::product(a, b)), BigInt::from(a) * b);
            }
        }
        assert_eq!(I256::MAX.checked_add_i128(1), None);
        assert_eq!(I256::MIN.checked_add_i128(-1), None);
        assert_eq!(I256::MIN.checked_neg(), None);
        assert_eq!(I256::MIN.checked_mul_u64(1), Some(I256::MIN));
        assert_eq!(-I256::MAX + I256::from_i128(-1), I256::MIN);
        assert_eq!(I256::MIN - I256::MIN, I256::ZERO);
    }

    #[test]
    #[should_panic(expected = "stay below 2^255")]
    fn an_overflowing_sum_stops_with_its_reason() {
        let _ = I256::MAX + 1;
    }
}
