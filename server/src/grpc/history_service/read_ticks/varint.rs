//! Variable-length numbers, many at once.

/// Bytes of the longest.
pub(super) const LONGEST: usize = 10;

/// A signed number as protobuf's `sint64` has it: small ones stay small, whatever their sign.
#[inline]
pub(super) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Appends numbers. Those up to 56 bits are spread over their bytes without a branch on their length, which in columns
/// of times and differences cannot be predicted.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, values: &[u64]) {
    let mut at = out.len();
    out.resize(at + values.len() * LONGEST, 0);
    for &value in values {
        if value < 0x80 {
            out[at] = value as u8;
            at += 1;
        } else if value < 1 << 56 {
            let bits = 64 - value.leading_zeros();
            let length = bits.div_ceil(7);
            let more = 0x8080_8080_8080_8080 & ((1 << (8 * (length - 1))) - 1);
            out[at..at + 8].copy_from_slice(&(spread(value) | more).to_le_bytes());
            at += length as usize;
        } else {
            let mut rest = value;
            while rest >= 0x80 {
                out[at] = rest as u8 | 0x80;
                rest >>= 7;
                at += 1;
            }
            out[at] = rest as u8;
            at += 1;
        }
    }
    out.truncate(at);
}

/// Seven bits of a number in each byte, the lowest first.
#[inline]
fn spread(value: u64) -> u64 {
    let halves = (value & 0x0fff_ffff) | ((value & 0x00ff_ffff_f000_0000) << 4);
    let quarters = (halves & 0x0000_3fff_0000_3fff) | ((halves & 0x0fff_c000_0fff_c000) << 2);
    (quarters & 0x007f_007f_007f_007f) | ((quarters & 0x3f80_3f80_3f80_3f80) << 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_are_written_as_protobuf_writes_them(values in prop::collection::vec((any::<u64>(), 0u32..64), 0..50)) {
            let values: Vec<u64> = values.into_iter().map(|(value, shift)| value >> shift).collect();
            let (mut ours, mut theirs) = (vec![7], vec![7]);
            put(&mut ours, &values);
            values.iter().for_each(|&value| prost::encoding::encode_varint(value, &mut theirs));
            prop_assert_eq!(ours, theirs);
        }
    }
}
