//! Reading ahead, for scans that read a lot and read it once.
//!
//! The bytes of the chunks that come next are read with those of the chunk that is due, so that the store is asked
//! once for many. They stay out of the cache, which is for what is asked again and again.

use std::collections::HashMap;
use std::sync::Arc;

use crate::domain::InstrumentId;
use crate::domain::chunk::Chunk;
use crate::store::ChunkId;

use super::cache::{self, ChunkCache, ChunkError, Stored};

/// Chunks that are read ahead at most, for all instruments of a scan together: about 0.5 MB of bytes.
pub(super) const AHEAD_CHUNKS: usize = 32;

/// The chunks of a step of a scan.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Needed now.
    pub(super) wanted: Vec<(ChunkId, InstrumentId)>,
    /// Ordinary ones that the next windows need, each instrument's in its order.
    pub(super) soon: Vec<Vec<ChunkId>>,
}

/// Bytes at hand before they are needed.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    pub(super) held: HashMap<ChunkId, Stored>,
}

impl Ahead {
    /// Wanted chunks in the order asked.
    pub(super) async fn load(&mut self, chunks: &ChunkCache, asked: &Asked) -> Result<Vec<Arc<Chunk>>, ChunkError> {
        let Asked { wanted, soon } = asked;
        if wanted.iter().any(|(id, _)| !self.held.contains_key(id)) {
            let missing = |id: &ChunkId| !self.held.contains_key(id);
            let taken = wanted.iter().filter(|(id, _)| !missing(id)).count();
            let room = AHEAD_CHUNKS.saturating_sub(self.held.len() - taken);
            let share = room.div_ceil(soon.len().max(1));
            let soon = soon.iter().flat_map(|ids| ids.iter().take(share).copied()).filter(missing).take(room);
            let ids: Vec<ChunkId> = wanted.iter().map(|(id, _)| *id).filter(missing).chain(soon).collect();
            self.held.extend(chunks.stored_once(&ids).await?);
        }
        let mut loaded = Vec::with_capacity(wanted.len());
        for &(id, instrument) in wanted {
            let stored = self.held.remove(&id).ok_or(ChunkError::Gone(id))??;
            loaded.push(Arc::new(stored.decode(instrument).map_err(|error| cache::corrupt(id, &error))?));
        }
        Ok(loaded)
    }
}
