//! The codec of history's chunks: seven columns of one instrument and one UTC day, compressed by pco.

use std::ops::Range;

use super::{InstrumentId, Tick};

/// Ticks in a full chunk.
pub const CHUNK_TICKS: usize = 4_096;

/// Stored bytes that are no chunk: damaged, or from a newer version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk is damaged: {0}")]
pub struct ChunkCorrupt(pub &'static str);

/// A decoded chunk: columns of equal length, sorted by (event_time, log_seq).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    ticks: Vec<Tick>,
}

/// Cuts ticks sorted by (event_time, log_seq), of one instrument and one UTC day, into ranges that each fit one chunk:
/// at most `most` ticks, one price exponent, one quantity exponent.
pub fn cuts(ticks: &[Tick], most: usize) -> Vec<Range<usize>> {
    let _ = (ticks, most);
    todo!()
}

/// Encodes ticks that fit one chunk, by [`cuts`].
pub fn encode(ticks: &[Tick]) -> Vec<u8> {
    let _ = ticks;
    todo!()
}

/// Decodes a chunk of an instrument.
pub fn decode(bytes: &[u8], instrument: InstrumentId) -> Result<Chunk, ChunkCorrupt> {
    let _ = (bytes, instrument);
    todo!()
}

impl Chunk {
    /// How many ticks.
    pub fn len(&self) -> usize {
        self.ticks.len()
    }

    /// Whether there are none; a stored chunk has at least one.
    pub fn is_empty(&self) -> bool {
        self.ticks.is_empty()
    }

    /// The tick at an index.
    pub fn tick(&self, index: usize) -> Tick {
        self.ticks[index].clone()
    }

    /// Event times in nanoseconds since 1970, ascending.
    pub fn event_times(&self) -> &[i64] {
        todo!()
    }

    /// Positions, in the order of the event times.
    pub fn log_seqs(&self) -> &[u64] {
        todo!()
    }

    /// Memory that it holds, in bytes.
    pub fn memory(&self) -> usize {
        todo!()
    }
}
