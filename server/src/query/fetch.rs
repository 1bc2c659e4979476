//! Finding single ticks of which the keys are known.

use std::sync::Arc;

use crate::domain::chunk::Chunk;
use crate::domain::{InstrumentId, Tick};
use crate::store::ChunkId;
use crate::tape::Holding;

use super::cache::{ChunkCache, ChunkError};
use super::keys::{Bounds, Key, successor};

/// Gathers keys of several instruments and reads their ticks together. A key of which no tick is found gives `None`.
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
            let ordinary = holding.chunks.partition_point(|header| header.last_key() < key);
            let ordinary = holding.chunks.get(ordinary).into_iter();
            for header in ordinary.chain(holding.late.iter().cloned()) {
                let seqs = header.min_seq..=header.max_seq;
                let keys = header.first_key()..=header.last_key();
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
    pub(super) async fn read(mut self, chunks: &ChunkCache) -> Result<Vec<Option<Tick>>, ChunkError> {
        // In parts, so that a long list of instruments does not hold all its chunks at once.
        for (wanted, asked) in self.wanted.chunks(PART).zip(self.asked.chunks(PART)) {
            let loaded: Vec<Arc<Chunk>> = chunks.load(wanted).await?;
            for (chunk, &(at, wanted)) in loaded.iter().zip(asked) {
                let only = Bounds { low: wanted, high: successor(wanted) };
                if let Some(index) = only.indexes(chunk).next() {
                    self.found[at] = Some(chunk.tick(index));
                }
            }
        }
        Ok(self.found)
    }
}

/// Chunks that a fetch holds at once.
const PART: usize = 64;
