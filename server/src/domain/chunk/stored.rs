//! Stored chunks that are kept to be read again and again.

use bytes::Bytes;

use super::{Chunk, ChunkCorrupt, Points, Prefix, codec, prefix};
use crate::domain::{InstrumentId, UnixNanos};

/// The bytes of a stored chunk, whose checksum was verified once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChunk(Bytes);

impl StoredChunk {
    /// Verifies the checksum.
    ///
    /// # Errors
    ///
    /// The bytes are not those of a chunk as it was written.
    pub fn verify(bytes: Bytes) -> Result<StoredChunk, ChunkCorrupt> {
        let length = codec::verified(&bytes)?.len();
        Ok(StoredChunk(bytes.slice(..length)))
    }

    /// Memory that it holds, in bytes.
    pub fn memory(&self) -> usize {
        self.0.len()
    }

    /// The chunk, of an instrument.
    ///
    /// # Errors
    ///
    /// It was written by a newer version, or by a defect.
    pub fn decode(&self, instrument: InstrumentId) -> Result<Chunk, ChunkCorrupt> {
        Ok(codec::chunk(&self.0, instrument)?.0)
    }

    /// The columns of the chunk that sums, extremes and bars are made of, in about half the time.
    ///
    /// # Errors
    ///
    /// As for [`StoredChunk::decode`], as far as it was read.
    pub fn points(&self) -> Result<Points, ChunkCorrupt> {
        codec::points(&self.0)
    }

    /// What the ticks add up to whose event time lies before an instant.
    ///
    /// # Errors
    ///
    /// As for [`StoredChunk::decode`], as far as it was read.
    pub fn prefix(&self, until: UnixNanos) -> Result<Prefix, ChunkCorrupt> {
        prefix::prefix(&self.0, until)
    }
}
