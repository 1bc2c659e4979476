//! Looking into decoded chunks, and finding single ticks.

use std::ops::Range;
use std::sync::Arc;

use crate::domain::chunk::Chunk;
use crate::domain::statistics::PricePoint;
use crate::domain::{InstrumentId, Tick, UnixNanos};
use crate::store::ChunkId;
use crate::tape::Holding;

use super::cache::{ChunkCache, ChunkError};
use super::keys::{Bounds, Key, first_key, last_key};

/// The key of a chunk's tick.
pub(super) fn key(chunk: &Chunk, index: usize) -> Key {
    // A decoded chunk's times were checked; a negative one cannot be among them.
    let time = UnixNanos::new(chunk.event_times()[index]).unwrap_or(UnixNanos::MIN);
    (time, chunk.log_seqs()[index])
}

/// The price of a chunk's tick.
pub(super) fn point(chunk: &Chunk, index: usize) -> PricePoint {
    let (event_time, log_seq) = key(chunk, index);
    PricePoint {
        price: chunk.tick(index).price,
        event_time,
        log_seq,
    }
}

/// The indices of a chunk's ticks inside bounds.
pub(super) fn stretch(chunk: &Chunk, bounds: Bounds) -> Range<usize> {
    let (times, seqs) = (chunk.event_times(), chunk.log_seqs());
    let below = |(time, log_seq): Key| {
        let from = times.partition_point(|&at| at < time.nanos());
        let to = from + times[from..].partition_point(|&at| at == time.nanos());
        from + seqs[from..to].partition_point(|&seq| seq < log_seq)
    };
    let from = below(bounds.low);
    from..below(bounds.high).max(from)
}

/// Whole ticks of which only the keys are known, for several instruments with one read. A key of which no tick is
/// found gives `None`.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    found: Vec<Option<Tick>>,
    wanted: Vec<(ChunkId, InstrumentId)>,
    /// For each wanted chunk, which tick is looked for in it.
    asked: Vec<(usize, Key)>,
}

impl Fetch {
    /// Asks for a tick of an instrument.
    pub(super) fn ask(&mut self, instrument: InstrumentId, holding: &Holding, key: Key) {
        let at = self.found.len();
        let hot = holding.hot.iter().find_map(|block| {
            let index = block.binary_search_by_key(&key.1, |tick| tick.log_seq);
            index.ok().map(|index| block[index].clone())
        });
        if hot.is_none() {
            let ordinary = holding
                .chunks
                .partition_point(|header| last_key(header) < key);
            let ordinary = holding.chunks.get(ordinary).into_iter();
            for header in ordinary.chain(holding.late.iter()) {
                let seqs = header.min_seq..=header.max_seq;
                let keys = first_key(header)..=last_key(header);
                if seqs.contains(&key.1) && keys.contains(&key) {
                    self.wanted.push((header.id, instrument));
                    self.asked.push((at, key));
                }
            }
        }
        self.found.push(hot);
    }

    /// Takes a tick that is already at hand into the answer.
    pub(super) fn have(&mut self, tick: &Tick) {
        self.found.push(Some(tick.clone()));
    }

    /// The ticks in the order asked.
    pub(super) async fn read(
        mut self,
        chunks: &ChunkCache,
    ) -> Result<Vec<Option<Tick>>, ChunkError> {
        // In parts, so that a long list of instruments does not hold all its chunks at once.
        for (wanted, asked) in self.wanted.chunks(PART).zip(self.asked.chunks(PART)) {
            let loaded: Vec<Arc<Chunk>> = chunks.load(wanted).await?;
            for (chunk, &(at, wanted)) in loaded.iter().zip(asked) {
                let from = stretch(
                    chunk,
                    Bounds {
                        low: wanted,
                        high: super::keys::successor(wanted),
                    },
                );
                if let Some(index) = from.into_iter().next() {
                    self.found[at] = Some(chunk.tick(index));
                }
            }
        }
        Ok(self.found)
    }
}

/// Chunks that a fetch holds at once.
const PART: usize = 64;
