//! Wide numbers as decimal text.

use super::Limbs;

/// Digits in one group of printing.
const GROUP: usize = 19;

/// Digits that 384 bits have room for, in whole groups.
const DIGITS: usize = 7 * GROUP;

/// Prints `limbs * 10^-scale`, without trailing zeros, using up the limbs. The scale is at most 100.
pub(super) fn print(negative: bool, limbs: &mut Limbs, scale: u8) -> String {
    let mut digits = [b'0'; DIGITS];
    let mut groups = digits.rchunks_exact_mut(GROUP);
    let mut written = 0;
    let mut size = limbs.len();
    loop {
        // Most values have few limbs, and each division passes over all that are left.
        size = limbs[..size].iter().rposition(|&limb| limb != 0).map_or(0, |last| last + 1);
        if size == 0 {
            break;
        }
        let mut rest = take_group(&mut limbs[..size]);
        let group = groups.next().expect("seven groups hold 384 bits");
        written += GROUP;
        for pair in group.rchunks_mut(2) {
            let two = (rest % 100) as u8;
            rest /= 100;
            pair[pair.len() - 1] = b'0' + two % 10;
            if let [tens, _] = pair {
                *tens = b'0' + two / 10;
            }
        }
    }
    let (whole, fraction) = digits.split_at(DIGITS - usize::from(scale));
    // Before what was written there are only zeros; one digit stays.
    let empty = (DIGITS - written).min(whole.len() - 1);
    let leading = empty + whole[empty..whole.len() - 1].iter().take_while(|&&digit| digit == b'0').count();
    let trailing = fraction.iter().rev().take_while(|&&digit| digit == b'0').count();
    let (whole, fraction) = (&whole[leading..], &fraction[..fraction.len() - trailing]);
    let mut text = String::with_capacity(whole.len() + fraction.len() + 2);
    if negative && (whole != b"0" || !fraction.is_empty()) {
        text.push('-');
    }
    text.push_str(str::from_utf8(whole).expect("digits"));
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(str::from_utf8(fraction).expect("digits"));
    }
    text
}

/// Divides by 10^19 in place; the remainder is the lowest group of digits.
fn take_group(limbs: &mut [u64]) -> u64 {
    const DIVISOR: u128 = 10u128.pow(GROUP as u32);
    let mut rest = 0;
    for limb in limbs.iter_mut().rev() {
        let wide = rest << 64 | u128::from(*limb);
        // The remainder of the limb above is smaller than the divisor, so that the quotient fits a limb.
        *limb = (wide / DIVISOR) as u64;
        rest = wide % DIVISOR;
    }
    rest as u64
}
