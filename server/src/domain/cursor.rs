//! Cursors: one position in one log, as opaque bytes.

use std::fmt;

/// The name of a log that has lost nothing since it began. Random, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(pub u64);

/// Everything up to and including `position` of `epoch`'s log. Position 0 is before the first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Which log.
    pub epoch: Epoch,
    /// The last entry that lies behind the cursor.
    pub position: u64,
}

/// Bytes that no server made, or that were damaged on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this service: pass the bytes of a response unchanged")]
pub struct CursorInvalid;

/// Length of an encoded cursor in bytes.
pub const CURSOR_BYTES: usize = 20;

const VERSION: u8 = 1;

impl Cursor {
    /// Version, epoch, position, and three bytes of CRC32C over them, all little-endian.
    pub fn encode(self) -> [u8; CURSOR_BYTES] {
        let mut bytes = [0; CURSOR_BYTES];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[9..17].copy_from_slice(&self.position.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..17]).to_le_bytes();
        bytes[17..].copy_from_slice(&checksum[..3]);
        bytes
    }

    /// Reads the bytes of [`Cursor::encode`] and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Cursor, CursorInvalid> {
        let bytes: &[u8; CURSOR_BYTES] = bytes.try_into().map_err(|_| CursorInvalid)?;
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("a slice of eight bytes"));
        let cursor = Cursor { epoch: Epoch(number(1)), position: number(9) };
        if cursor.encode() == *bytes { Ok(cursor) } else { Err(CursorInvalid) }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_round_trip_and_a_flipped_bit_is_detected(epoch: u64, position: u64, bit in 0usize..CURSOR_BYTES * 8) {
            let cursor = Cursor { epoch: Epoch(epoch), position };
            let mut bytes = cursor.encode();
            prop_assert_eq!(Cursor::decode(&bytes), Ok(cursor));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Cursor::decode(&bytes), Err(CursorInvalid));
        }

        #[test]
        fn foreign_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Cursor::decode(&bytes), Err(CursorInvalid));
        }
    }
}
