//! A segment's entries in memory.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::segment::{self, Entries, SegmentCorrupt};
use super::{Control, Correction, Cursor, Epoch, InstrumentId, Origin, Traced, UnixNanos};

/// The entries of one committed segment, or of some that follow each other, decoded once and shared by everything that
/// follows the log.
#[derive(Debug)]
pub struct Block {
    /// The log it belongs to.
    pub epoch: Epoch,
    /// Position of its first entry.
    pub first_seq: u64,
    /// How many entries it holds, at least 1.
    pub entry_count: u32,
    /// When its last entry was appended.
    pub append_time: UnixNanos,
    /// Whether it is backfill.
    pub backfill: bool,
    /// Its link to everything before it.
    pub chain: [u8; 16],
    /// The entries, with absolute positions.
    pub entries: Entries,
    /// Its ticks as readers get them.
    pub encodings: Encodings,
    /// The traces of its batches, if it was made here and they are recorded.
    pub traced: Traced,
    /// The segments that it is made of; none if it is one.
    pub segments: Vec<Joined>,
}

/// One of the segments of a block that is made of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Position of its last entry.
    pub last_seq: u64,
    /// When it was appended.
    pub append_time: UnixNanos,
}

/// A block's ticks as readers get them, each form made once by whoever needs it first and shared by all. What the bytes
/// mean, only their maker knows.
#[derive(Debug, Default)]
pub struct Encodings {
    /// Complete messages with all ticks as rows.
    pub row_messages: OnceLock<Bytes>,
    /// Complete messages with all ticks as columns.
    pub column_messages: OnceLock<Bytes>,
    /// Each tick as a row, for readers of some.
    pub rows: OnceLock<Rows>,
    /// Where each instrument's ticks are.
    places: OnceLock<Vec<(InstrumentId, u32)>>,
}

/// The rows of a block one after the other.
#[derive(Debug)]
pub struct Rows {
    /// All of them.
    pub bytes: Bytes,
    /// Where each one ends.
    pub ends: Vec<u32>,
}

impl Rows {
    /// The row of a tick, by its index in the block.
    pub fn row(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..self.ends[index] as usize]
    }
}

/// What a tick's encodings cost in memory once all of them are made, about.
const ENCODED_BYTES: usize = 256;

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
        let (traced, encodings) = (Traced::default(), Encodings::default());
        let segments = Vec::new();
        Ok(Block { epoch, first_seq, entry_count, append_time, backfill, chain, entries, traced, encodings, segments })
    }

    /// How its ticks came into the log.
    pub fn origin(&self) -> Origin {
        if self.backfill { Origin::Backfill } else { Origin::Live }
    }

    /// Whether it can be joined to others: a segment of ticks alone.
    pub fn is_joinable(&self) -> bool {
        self.segments.is_empty() && self.entries.controls.is_empty()
    }

    /// Several segments as one block: joinable blocks that follow each other, either all backfill or none.
    pub fn join(blocks: &[Arc<Block>]) -> Block {
        let (first, last) = (&blocks[0], &blocks[blocks.len() - 1]);
        let segment = |block: &Arc<Block>| Joined { last_seq: block.last_seq(), append_time: block.append_time };
        let ticks = blocks.iter().flat_map(|block| block.entries.ticks.iter().cloned());
        Block {
            epoch: first.epoch,
            first_seq: first.first_seq,
            entry_count: blocks.iter().map(|block| block.entry_count).sum(),
            append_time: last.append_time,
            backfill: first.backfill,
            chain: last.chain,
            entries: Entries { ticks: ticks.collect(), controls: Vec::new() },
            encodings: Encodings::default(),
            traced: Traced::new(blocks.iter().flat_map(|block| block.traced.deliver()).copied()),
            segments: blocks.iter().map(segment).collect(),
        }
    }

    /// When the entry after a position was appended, which the block has.
    pub fn appended_after(&self, position: u64) -> UnixNanos {
        let next = self.segments.partition_point(|segment| segment.last_seq <= position);
        self.segments.get(next).map_or(self.append_time, |segment| segment.append_time)
    }

    /// The last position up to which everything was appended before a time; the one before the block if nothing was.
    pub fn appended_before(&self, time: UnixNanos) -> u64 {
        if self.append_time < time {
            return self.last_seq();
        }
        let earlier = self.segments.partition_point(|segment| segment.append_time < time);
        earlier.checked_sub(1).map_or(self.first_seq - 1, |last| self.segments[last].last_seq)
    }

    /// Position of its last entry.
    pub fn last_seq(&self) -> u64 {
        self.first_seq + u64::from(self.entry_count) - 1
    }

    /// The cursor behind its last entry.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.last_seq() }
    }

    /// The greatest id among the instruments of its ticks and corrections.
    pub fn greatest_instrument(&self) -> Option<InstrumentId> {
        let ticks = self.by_instrument().last().map(|(instrument, _)| *instrument);
        let corrected = self.corrections().map(|(_, correction)| correction.instrument);
        corrected.max().max(ticks)
    }

    /// Its corrections and cancels, with their positions.
    pub fn corrections(&self) -> impl Iterator<Item = (u64, &Correction)> {
        self.entries.controls.iter().filter_map(|(log_seq, control)| match control {
            Control::Correction(correction) => Some((*log_seq, correction)),
            _ => None,
        })
    }

    /// The indexes of an instrument's ticks, ascending.
    pub fn places(&self, instrument: InstrumentId) -> impl Iterator<Item = u32> {
        let places = self.by_instrument();
        let from = places.partition_point(|(each, _)| *each < instrument);
        places[from..].iter().take_while(move |(each, _)| *each == instrument).map(|(_, index)| *index)
    }

    /// The instruments of its ticks, ascending.
    pub fn instruments(&self) -> impl Iterator<Item = InstrumentId> {
        self.by_instrument().chunk_by(|one, next| one.0 == next.0).map(|places| places[0].0)
    }

    fn by_instrument(&self) -> &[(InstrumentId, u32)] {
        self.encodings.places.get_or_init(|| {
            let ticks = self.entries.ticks.iter().enumerate();
            let mut places: Vec<_> = ticks.map(|(index, tick)| (tick.instrument, index as u32)).collect();
            places.sort_unstable();
            places
        })
    }

    /// About how much memory it holds, in bytes.
    pub fn memory(&self) -> usize {
        let controls = self.entries.controls.iter().map(|(_, control)| control.memory()).sum::<usize>();
        let segments = self.segments.len() * std::mem::size_of::<Joined>();
        std::mem::size_of::<Block>() + self.entries.ticks.len() * (TICK_BYTES + ENCODED_BYTES) + controls + segments
    }
}
