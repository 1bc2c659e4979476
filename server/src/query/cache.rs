//! Decoded chunks, bounded by bytes.
//!
//! Chunks never change and their ids are never reused, so nothing here is ever invalid: what a view no longer names is
//! pushed out by what is read. Two calls that miss the same chunk at once both read it; the bytes are small and the
//! second decoding is cheaper than a queue.

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::domain::InstrumentId;
use crate::domain::chunk::{self, Chunk};
use crate::store::{ChunkId, Store, StoreError};

/// Chunks that one read of the store asks for at most: about 1.3 MB of bytes in flight for a call.
const MOST_CHUNKS_A_READ: usize = 64;

/// Memory of one full chunk, to size the cache's table.
const CHUNK_MEMORY: u64 = 256 << 10;

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

#[derive(Clone, Debug)]
struct Memory;

impl quick_cache::Weighter<ChunkId, Arc<Chunk>> for Memory {
    fn weight(&self, _: &ChunkId, chunk: &Arc<Chunk>) -> u64 {
        chunk.memory() as u64
    }
}

/// Reads and keeps decoded chunks.
pub struct ChunkCache {
    store: Arc<dyn Store>,
    decoded: Cache<ChunkId, Arc<Chunk>, Memory>,
}

impl std::fmt::Debug for ChunkCache {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ChunkCache")
            .field("chunks", &self.decoded.len())
            .field("bytes", &self.decoded.weight())
            .finish_non_exhaustive()
    }
}

impl ChunkCache {
    /// Keeps at most about `bytes` of decoded chunks.
    pub fn new(store: Arc<dyn Store>, bytes: u64) -> ChunkCache {
        let chunks = (bytes / CHUNK_MEMORY).max(16) as usize;
        ChunkCache {
            store,
            decoded: Cache::with_weighter(chunks, bytes, Memory),
        }
    }

    /// Chunks in the order asked. Those that are not kept are read in batches and decoded on the calling task, about
    /// 50 microseconds for a full one.
    pub async fn load(
        &self,
        wanted: &[(ChunkId, InstrumentId)],
    ) -> Result<Vec<Arc<Chunk>>, ChunkError> {
        let mut found: Vec<Option<Arc<Chunk>>> =
            wanted.iter().map(|(id, _)| self.decoded.get(id)).collect();
        let missing: Vec<usize> = (0..wanted.len())
            .filter(|&index| found[index].is_none())
            .collect();
        for batch in missing.chunks(MOST_CHUNKS_A_READ) {
            let ids: Vec<ChunkId> = batch.iter().map(|&index| wanted[index].0).collect();
            let read = self.store.chunk_bytes(&ids).await?;
            for &index in batch {
                let (id, instrument) = wanted[index];
                let (_, bytes) = read
                    .iter()
                    .find(|(found, _)| *found == id)
                    .ok_or(ChunkError::Gone(id))?;
                let decoded =
                    chunk::decode(bytes, instrument).map_err(|error| StoreError::Corrupt {
                        table: "chunks",
                        row: id.0.to_string(),
                        problem: error.to_string(),
                    })?;
                let decoded = Arc::new(decoded);
                self.decoded.insert(id, decoded.clone());
                found[index] = Some(decoded);
            }
        }
        Ok(found.into_iter().flatten().collect())
    }
}
