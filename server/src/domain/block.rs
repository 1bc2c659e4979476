//! A segment's entries in memory.

use super::segment::{self, Entries, SegmentCorrupt};
use super::{Cursor, Epoch, Origin, Traced, UnixNanos};

/// The entries of one committed segment, decoded once and shared by everything that follows the log.
#[derive(Debug)]
pub struct Block {
    /// The log it belongs to.
    pub epoch: Epoch,
    /// Position of its first entry.
    pub first_seq: u64,
    /// How many entries it holds, at least 1.
    pub entry_count: u32,
    /// When it was appended.
    pub append_time: UnixNanos,
    /// Whether it is backfill.
    pub backfill: bool,
    /// Its link to everything before it.
    pub chain: [u8; 16],
    /// The entries, with absolute positions.
    pub entries: Entries,
    /// The traces of its batches, if it was made here and they are recorded.
    pub traced: Traced,
}

/// What a tick costs in memory, for byte bounds.
pub const TICK_BYTES: usize = std::mem::size_of::<super::Tick>();

impl Block {
    /// Decodes a segment's bytes.
    pub fn decode(
        (epoch, first_seq, entry_count): (Epoch, u64, u32),
        append_time: UnixNanos,
        backfill: bool,
        chain: [u8; 16],
        bytes: &[u8],
    ) -> Result<Block, SegmentCorrupt> {
        let origin = if backfill { Origin::Backfill } else { Origin::Live };
        let entries = segment::decode(bytes, first_seq, origin)?;
        if entries.ticks.len() + entries.controls.len() != entry_count as usize {
            return Err(SegmentCorrupt("its row counts other entries than its bytes hold"));
        }
        Ok(Block { epoch, first_seq, entry_count, append_time, backfill, chain, entries, traced: Traced::default() })
    }

    /// Position of its last entry.
    pub fn last_seq(&self) -> u64 {
        self.first_seq + u64::from(self.entry_count) - 1
    }

    /// The cursor behind its last entry.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.last_seq() }
    }

    /// About how much memory it holds, in bytes.
    pub fn memory(&self) -> usize {
        std::mem::size_of::<Block>() + self.entries.ticks.len() * TICK_BYTES + self.entries.controls.len() * 128
    }
}
