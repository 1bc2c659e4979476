//! Variable-length integers (LEB128) and the reader that codecs share.
//!
//! Everything that reads answers `None` instead of stopping, because what it reads comes from disk.

/// Appends a number in 7-bit groups, the least significant first: one byte below 128, ten bytes at most.
#[inline]
pub(crate) fn put(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else if value < 1 << 56 {
        // All groups at once and then as many bytes as there are: lengths of two to eight bytes cannot be predicted,
        // and a mistaken branch costs more than the whole computation.
        let length = (70 - value.leading_zeros()) / 7;
        let more = CONTINUES & !(u64::MAX << (8 * (length - 1)));
        let end = out.len() + length as usize;
        out.extend_from_slice(&(spread(value) | more).to_le_bytes());
        out.truncate(end);
    } else {
        put_long(out, value);
    }
}

/// Appends a number of nine or ten bytes.
#[cold]
fn put_long(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The bit that says that another byte follows, in each of eight bytes.
const CONTINUES: u64 = 0x8080_8080_8080_8080;

/// Moves eight groups of 7 bits apart into bytes.
#[inline]
fn spread(value: u64) -> u64 {
    let value = (value & 0x0000_0000_0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
    let value = (value & 0x0000_3fff_0000_3fff) | (value & 0x0fff_c000_0fff_c000) << 2;
    (value & 0x007f_007f_007f_007f) | (value & 0x3f80_3f80_3f80_3f80) << 1
}

/// The inverse of [`spread`]; ignores the bits between the groups.
#[inline]
fn gather(value: u64) -> u64 {
    let value = (value & 0x007f_007f_007f_007f) | (value & 0x7f00_7f00_7f00_7f00) >> 1;
    let value = (value & 0x0000_3fff_0000_3fff) | (value & 0x3fff_0000_3fff_0000) >> 2;
    (value & 0x0000_0000_0fff_ffff) | (value & 0x0fff_ffff_0000_0000) >> 4
}

/// Appends a signed number, small magnitudes in few bytes.
#[inline]
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, zigzag(value));
}

/// Appends a signed number of 128 bits, small magnitudes in few bytes.
pub(crate) fn put_signed_wide(out: &mut Vec<u8>, value: i128) {
    let mut rest = ((value << 1) ^ (value >> 127)) as u128;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Interleaves negative and positive numbers, so that small magnitudes become small numbers.
#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Bytes that are read from the front.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    #[inline]
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    /// A number written by [`put`].
    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let (&first, rest) = self.rest.split_first()?;
        if first < 0x80 {
            self.rest = rest;
            return Some(u64::from(first));
        }
        self.long_varint()
    }

    /// A number of two bytes or more.
    #[inline]
    fn long_varint(&mut self) -> Option<u64> {
        if let Some(word) = self.rest.first_chunk::<8>() {
            let word = u64::from_le_bytes(*word);
            let ends = !word & CONTINUES;
            if ends != 0 {
                let bits = ends.trailing_zeros() + 1;
                self.rest = &self.rest[bits as usize / 8..];
                return Some(gather(word & u64::MAX >> (64 - bits)));
            }
        }
        self.rare_varint()
    }

    /// A number of nine or ten bytes, or one of the last bytes.
    #[cold]
    fn rare_varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for (index, &byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                // The tenth byte holds the last bit.
                return (index < 9 || byte <= 1).then_some(value);
            }
        }
        None
    }

    /// A number written by [`put_signed`].
    #[inline]
    pub(crate) fn signed(&mut self) -> Option<i64> {
        self.varint().map(unzigzag)
    }

    /// A number written by [`put_signed_wide`].
    pub(crate) fn signed_wide(&mut self) -> Option<i128> {
        let mut value = 0u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let group = u128::from(byte & 0x7f);
            value |= group << shift;
            if byte < 0x80 {
                // The last byte holds two bits.
                return (value >> shift == group).then_some((value >> 1) as i128 ^ -((value & 1) as i128));
            }
        }
        None
    }

    /// A length, checked against a bound before anything is allocated for it.
    pub(crate) fn length(&mut self, most: usize) -> Option<usize> {
        usize::try_from(self.varint()?).ok().filter(|&length| length <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_that_are_too_long_are_refused() {
        assert_eq!(Reader::new(&[0x80; 11]).varint(), None);
        assert_eq!(Reader::new(&[0x80; 3]).varint(), None);
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).varint(), None);
        assert_eq!(Reader::new(&[]).varint(), None);
        let mut wide = vec![0xff; 18];
        assert_eq!(Reader::new(&wide).signed_wide(), None);
        wide.push(0x04);
        assert_eq!(Reader::new(&wide).signed_wide(), None);
        wide[18] = 0x03;
        assert_eq!(Reader::new(&wide).signed_wide(), Some(i128::MIN));
    }

    #[test]
    fn every_length_is_the_shortest() {
        for bits in 0..64 {
            for value in [(1u64 << bits) - 1, 1 << bits, (1 << bits) + 1] {
                let mut bytes = Vec::new();
                put(&mut bytes, value);
                assert_eq!(bytes.len(), (64 - value.leading_zeros()).div_ceil(7).max(1) as usize);
                // Alone at the end, and with others behind it, it is read by different paths.
                assert_eq!(Reader::new(&bytes).varint(), Some(value));
                bytes.extend_from_slice(&[0xff; 8]);
                let mut reader = Reader::new(&bytes);
                assert_eq!((reader.varint(), reader.rest()), (Some(value), &[0xff; 8][..]));
            }
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip(value: u64, shift in 0u32..64, signed: i64, wide: i128, wide_shift in 0u32..128) {
            let mut bytes = Vec::new();
            put(&mut bytes, value >> shift);
            put_signed(&mut bytes, signed >> shift);
            put_signed_wide(&mut bytes, wide >> wide_shift);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Some(value >> shift));
            prop_assert_eq!(reader.signed(), Some(signed >> shift));
            prop_assert_eq!(reader.signed_wide(), Some(wide >> wide_shift));
            prop_assert!(reader.is_empty());
        }
    }
}
