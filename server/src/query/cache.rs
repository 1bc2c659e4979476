//! Chunks at hand, bounded by bytes: decoded ones for those that are read again and again, each as far as somebody
//! needed it, and stored bytes, which take a tenth of the memory, for the many that are touched now and then.
//!
//! Chunks never change and their ids are never reused, so nothing here is ever invalid: what a view no longer names is
//! pushed out by what is read. Two calls that miss the same chunk at once both read it; the bytes are small and the
//! second decoding is cheaper than a queue.

use std::fmt::Display;
use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::domain::chunk::{CHUNK_TICKS, Chunk, ChunkCorrupt, Points, Prefix, StoredChunk};
use crate::domain::{InstrumentId, UnixNanos};
use crate::metrics::Metrics;
use crate::store::{ChunkId, Store, StoreError};
use crate::tape::ChunkHeader;

/// Chunks that one read of the store asks for at most: about 1.3 MB of bytes in flight for a call.
const MOST_CHUNKS_A_READ: usize = 64;

/// Ticks of chunks that one call holds decoded to add them up: 64 full ordinary chunks, or one full late one.
const PART_TICKS: usize = 64 * CHUNK_TICKS;

/// How many chunks are decoded together, of which so many ticks each are wanted: at least one, if any is.
pub(super) fn part(ticks: impl Iterator<Item = usize>) -> usize {
    let mut before = 0;
    let fitting = ticks.take_while(|ticks| {
        let first = before == 0;
        before += ticks;
        first || before <= PART_TICKS
    });
    fitting.count()
}

/// Memory of one full chunk, to size the tables of the caches: decoded, and as stored.
const DECODED_BYTES: u64 = 256 << 10;
const STORED_BYTES: u64 = 16 << 10;

/// Why chunks could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ChunkError {
    /// The store no longer has the chunk: another one has its ticks since, and a newer view names that.
    #[error("chunk {} is gone", .0.0)]
    Gone(ChunkId),
    /// The store failed, or the chunk's bytes are damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A decoded chunk, as far as somebody needed it.
#[derive(Clone, Debug)]
pub enum Decoded {
    /// Without the columns that only ticks as a whole need.
    Points(Arc<Points>),
    /// All of it.
    Whole(Arc<Chunk>),
}

/// What of a chunk a question needs.
pub trait Needed: Sized {
    /// It, if that much is decoded.
    fn of(decoded: &Decoded) -> Option<Self>;

    /// Decodes a chunk of an instrument that far.
    fn decode(stored: &StoredChunk, instrument: InstrumentId) -> Result<Self, ChunkCorrupt>;

    /// It, to be kept.
    fn decoded(&self) -> Decoded;
}

impl Needed for Arc<Points> {
    fn of(decoded: &Decoded) -> Option<Arc<Points>> {
        Some(match decoded {
            Decoded::Points(points) => points.clone(),
            Decoded::Whole(chunk) => chunk.points().clone(),
        })
    }

    fn decode(stored: &StoredChunk, _: InstrumentId) -> Result<Arc<Points>, ChunkCorrupt> {
        stored.points().map(Arc::new)
    }

    fn decoded(&self) -> Decoded {
        Decoded::Points(self.clone())
    }
}

impl Needed for Arc<Chunk> {
    fn of(decoded: &Decoded) -> Option<Arc<Chunk>> {
        match decoded {
            Decoded::Points(_) => None,
            Decoded::Whole(chunk) => Some(chunk.clone()),
        }
    }

    fn decode(stored: &StoredChunk, instrument: InstrumentId) -> Result<Arc<Chunk>, ChunkCorrupt> {
        stored.decode(instrument).map(Arc::new)
    }

    fn decoded(&self) -> Decoded {
        Decoded::Whole(self.clone())
    }
}

#[derive(Clone, Debug)]
struct Memory;

impl quick_cache::Weighter<ChunkId, Decoded> for Memory {
    fn weight(&self, _: &ChunkId, decoded: &Decoded) -> u64 {
        match decoded {
            Decoded::Points(points) => points.memory() as u64,
            Decoded::Whole(chunk) => chunk.memory() as u64,
        }
    }
}

impl quick_cache::Weighter<ChunkId, StoredChunk> for Memory {
    fn weight(&self, _: &ChunkId, stored: &StoredChunk) -> u64 {
        stored.memory() as u64
    }
}

/// Reads and keeps chunks.
pub struct ChunkCache {
    store: Arc<dyn Store>,
    decoded: Cache<ChunkId, Decoded, Memory>,
    stored: Cache<ChunkId, StoredChunk, Memory>,
    metrics: Metrics,
}

/// What one of the two caches holds.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Chunks.
    pub entries: usize,
    /// Their memory.
    pub bytes: u64,
    /// The memory that they may take.
    pub byte_limit: u64,
}

impl std::fmt::Debug for ChunkCache {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ChunkCache")
            .field("decoded", &self.decoded.len())
            .field("decoded_bytes", &self.decoded.weight())
            .field("stored", &self.stored.len())
            .field("stored_bytes", &self.stored.weight())
            .finish_non_exhaustive()
    }
}

impl ChunkCache {
    /// Keeps at most about `bytes`, half of them for decoded chunks and half for chunks as stored.
    pub fn new(store: Arc<dyn Store>, bytes: u64, metrics: Metrics) -> ChunkCache {
        let half = bytes / 2;
        let chunks = |size: u64| (half / size).max(16) as usize;
        ChunkCache {
            store,
            decoded: Cache::with_weighter(chunks(DECODED_BYTES), half, Memory),
            stored: Cache::with_weighter(chunks(STORED_BYTES), half, Memory),
            metrics,
        }
    }

    /// What is held decoded, and as stored.
    pub fn held(&self) -> (Held, Held) {
        let (decoded, stored) = (&self.decoded, &self.stored);
        (
            Held { entries: decoded.len(), bytes: decoded.weight(), byte_limit: decoded.capacity() },
            Held { entries: stored.len(), bytes: stored.weight(), byte_limit: stored.capacity() },
        )
    }

    /// Chunks in the order asked. Those that are not at hand are decoded on the calling task, about 70 microseconds for
    /// a full one and half of that for its points, after one read of the store for each batch of them.
    pub async fn load<T: Needed>(&self, wanted: &[(ChunkId, InstrumentId)]) -> Result<Vec<T>, ChunkError> {
        let at_hand = |(id, _): &(ChunkId, InstrumentId)| self.decoded.get(id).as_ref().and_then(T::of);
        let mut found: Vec<Option<T>> = wanted.iter().map(at_hand).collect();
        let missing: Vec<usize> = (0..wanted.len()).filter(|&index| found[index].is_none()).collect();
        self.metrics.chunks.decoded.count(wanted.len() - missing.len(), missing.len());
        for batch in missing.chunks(MOST_CHUNKS_A_READ) {
            let ids: Vec<ChunkId> = batch.iter().map(|&index| wanted[index].0).collect();
            let read = self.stored(&ids).await?;
            for (&index, stored) in batch.iter().zip(read) {
                let (id, instrument) = wanted[index];
                // Meanwhile another call may have decoded as much, or more.
                let needed = match self.decoded.peek(&id).as_ref().and_then(T::of) {
                    Some(needed) => needed,
                    None => {
                        let needed = T::decode(&stored, instrument).map_err(|error| corrupt(id, &error))?;
                        self.decoded.insert(id, needed.decoded());
                        needed
                    }
                };
                found[index] = Some(needed);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// The chunks that a list of an instrument's headers begins with, as many as one call holds at once, and leaves the
    /// rest of the list.
    pub(super) async fn load_part<'a, T: Needed>(
        &self,
        instrument: InstrumentId,
        wanted: &mut &'a [Arc<ChunkHeader>],
    ) -> Result<Vec<(&'a ChunkHeader, T)>, ChunkError> {
        let (first, rest) = wanted.split_at(part(wanted.iter().map(|header| header.tick_count())));
        *wanted = rest;
        let asked: Vec<(ChunkId, InstrumentId)> = first.iter().map(|header| (header.id, instrument)).collect();
        Ok(first.iter().map(|header| &**header).zip(self.load(&asked).await?).collect())
    }

    /// What chunks hold before instants, in the order asked. Nothing is kept decoded for it.
    pub async fn prefixes(&self, asked: &[(ChunkId, UnixNanos)]) -> Result<Vec<Prefix>, ChunkError> {
        let ids: Vec<ChunkId> = asked.iter().map(|(id, _)| *id).collect();
        let mut prefixes = Vec::with_capacity(asked.len());
        for (part, ids) in asked.chunks(MOST_CHUNKS_A_READ).zip(ids.chunks(MOST_CHUNKS_A_READ)) {
            let read = self.stored(ids).await?;
            for (&(id, until), stored) in part.iter().zip(read) {
                prefixes.push(stored.prefix(until).map_err(|error| corrupt(id, &error))?);
            }
        }
        Ok(prefixes)
    }

    /// Chunks as stored that are at hand or in the store, without keeping what is read. One that is damaged may never be
    /// needed.
    pub(super) async fn stored_once(&self, ids: &[ChunkId]) -> Result<Vec<(ChunkId, Stored)>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        let mut missing = Vec::new();
        for &id in ids {
            match self.stored.get(&id) {
                Some(stored) => found.push((id, Ok(stored))),
                None => missing.push(id),
            }
        }
        self.metrics.chunks.stored.count(found.len(), missing.len());
        for batch in missing.chunks(MOST_CHUNKS_A_READ) {
            found.extend(self.read(batch).await?);
        }
        Ok(found)
    }

    /// Chunks as stored, in the order asked.
    async fn stored(&self, ids: &[ChunkId]) -> Result<Vec<StoredChunk>, ChunkError> {
        let mut found: Vec<Option<StoredChunk>> = ids.iter().map(|id| self.stored.get(id)).collect();
        let missing: Vec<ChunkId> =
            ids.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(id, _)| *id).collect();
        self.metrics.chunks.stored.count(ids.len() - missing.len(), missing.len());
        if !missing.is_empty() {
            for (id, stored) in self.read(&missing).await? {
                let stored = stored?;
                self.stored.insert(id, stored.clone());
                for (_, found) in ids.iter().zip(&mut found).filter(|(wanted, _)| **wanted == id) {
                    *found = Some(stored.clone());
                }
            }
        }
        let found = ids.iter().zip(found);
        found.map(|(&id, stored)| stored.ok_or(ChunkError::Gone(id))).collect()
    }

    /// Reads the store.
    async fn read(&self, ids: &[ChunkId]) -> Result<impl Iterator<Item = (ChunkId, Stored)> + use<>, StoreError> {
        let read = self.store.chunk_bytes(ids).await?.into_iter();
        Ok(read.map(|(id, bytes)| (id, StoredChunk::verify(bytes).map_err(|error| corrupt(id, &error)))))
    }
}

/// A chunk as stored, or how it is damaged.
pub(super) type Stored = Result<StoredChunk, StoreError>;

/// A chunk that has not what was stored.
pub(super) fn corrupt(id: ChunkId, problem: &dyn Display) -> StoreError {
    StoreError::Corrupt { table: "chunks", row: id.0.to_string(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_decoded_together_up_to_so_many_ticks() {
        let late = PART_TICKS;
        for (ticks, together) in [
            (vec![], 0),
            (vec![1; 1_000], 1_000),
            (vec![CHUNK_TICKS; 100], 64),
            (vec![late; 3], 1),
            (vec![2 * late, 1], 1),
            (vec![CHUNK_TICKS, late], 1),
        ] {
            assert_eq!(part(ticks.iter().copied()), together, "{ticks:?}");
        }
    }
}
