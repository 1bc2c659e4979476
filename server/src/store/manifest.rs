//! The set of chunks: their rows, how it changes, and what changed since.

use bytes::Bytes;

use crate::domain::correction::Standing;
use crate::domain::{Epoch, InstrumentId, UnixNanos};

/// Identifies a chunk for ever: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub u64);

/// The indexed columns of a chunk's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRow {
    /// Its id; ignored on the way in.
    pub id: ChunkId,
    /// Whose ticks.
    pub instrument: InstrumentId,
    /// The UTC day of its ticks, in days since 1970.
    pub day: u32,
    /// Whether its ticks came after an ordinary chunk of a later time.
    pub late: bool,
    /// How many ticks.
    pub tick_count: u32,
    /// The event time of its first tick.
    pub first_time: UnixNanos,
    /// The event time of its last tick.
    pub last_time: UnixNanos,
    /// The smallest position among its ticks.
    pub min_seq: u64,
    /// The greatest position among its ticks.
    pub max_seq: u64,
    /// Length of its bytes.
    pub byte_count: u32,
    /// Its own statistics, by [`crate::domain::statistics`].
    pub statistics: Bytes,
}

/// A chunk to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChunk {
    /// Its columns.
    pub row: ChunkRow,
    /// Its ticks, by [`crate::domain::chunk`].
    pub bytes: Bytes,
}

/// A correction or a cancel, kept beside the chunks for good: trimming the log does not lose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrectionRow {
    /// Its position in the log.
    pub log_seq: u64,
    /// The instrument of its trade.
    pub instrument: InstrumentId,
    /// The UTC day of its trade, in days since 1970.
    pub day: u32,
    /// When it was appended.
    pub append_time: UnixNanos,
    /// Whether chunks are as it says.
    pub standing: Standing,
    /// The entry of the log, by [`crate::domain::segment`].
    pub bytes: Bytes,
}

/// A change of the set of chunks, stored all or not at all.
#[derive(Clone, Debug, Default)]
pub struct ManifestChange {
    /// The log that the change was computed from; any other refuses it with [`StoreError::EpochChanged`]. `None` where
    /// the caller knows that there is but one.
    pub epoch: Option<Epoch>,
    /// The version that the change was computed from; any other refuses it.
    pub expected_version: u64,
    /// New chunks.
    pub added: Vec<NewChunk>,
    /// Chunks that the new ones replace.
    pub dropped: Vec<ChunkId>,
    /// Instruments whose ticks up to a position are all in chunks now.
    pub compacted: Vec<(InstrumentId, u64)>,
    /// The new smallest position that is not in chunks.
    pub hot_floor: u64,
    /// What is known of venues at a position at or above the hot floor, by [`crate::tape::Venues`]; empty leaves what
    /// was stored before.
    pub venues: Bytes,
    /// Corrections that are new, or whose standing is another one.
    pub corrections: Vec<CorrectionRow>,
}

/// The outcome of a manifest commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestCommit {
    /// Stored under this version.
    Committed {
        /// The new version.
        version: u64,
    },
    /// Somebody else committed first.
    Conflict {
        /// The current version.
        version: u64,
    },
}

/// What changed in the manifest since a version, read in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestDelta {
    /// The log it belongs to.
    pub epoch: Epoch,
    /// The version that the delta starts from: the one asked for, or 0 when the store no longer knows everything that
    /// was dropped since, or never had that version. From 0 the delta is the whole manifest: replace, do not merge.
    pub since: u64,
    /// The version that the delta leads to.
    pub version: u64,
    /// The smallest position that is not in chunks.
    pub hot_floor: u64,
    /// Live chunks that are new since, by id.
    pub added: Vec<ChunkRow>,
    /// Chunks that were live at `since` and were dropped after it, by id, and whose they were.
    pub dropped: Vec<(ChunkId, InstrumentId)>,
    /// Compaction positions that changed since, by instrument.
    pub compacted: Vec<(InstrumentId, u64)>,
    /// What is known of venues, as it was stored last; empty in a delta that is not from 0, and if it never was.
    pub venues: Bytes,
    /// Corrections that are new since, or whose standing changed, by position.
    pub corrections: Vec<CorrectionRow>,
}
