//! Tidying a closed day: late ticks go to their place, and small neighbours become full chunks.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::late::LATE_CHUNK_TICKS;
use super::{ChunkHeader, Holding};
use crate::domain::chunk::{self, CHUNK_TICKS, Chunk};
use crate::domain::{InstrumentId, Tick};
use crate::store::{ChunkId, CorrectionRow, Store, StoreError};

/// Ordinary chunks that one step rewrites at most: bounds its memory.
const STEP_CHUNKS: usize = 64;

/// One commit's worth of chunks of an instrument that take the place of others.
#[derive(Debug, Default)]
pub(super) struct Rewrite {
    /// New chunks: day, whether late, and their ticks in order.
    pub(super) added: Vec<(u32, bool, Vec<Tick>)>,
    /// The chunks that they replace.
    pub(super) dropped: Vec<ChunkId>,
    /// What became of the instrument's corrections by it.
    pub(super) corrections: Vec<CorrectionRow>,
}

/// Days with late chunks, or with two neighbours that fit one chunk, ascending.
pub(super) fn untidy_days(holding: &Holding) -> BTreeSet<u32> {
    let mut days: BTreeSet<u32> = holding.late.iter().map(|chunk| chunk.day).collect();
    days.extend(holding.chunks.joinable_days());
    days
}

/// One step of tidying a day: at most [`STEP_CHUNKS`] ordinary chunks, and the late ticks that belong among them. Empty
/// when nothing can be gained.
pub(super) async fn step(
    store: &dyn Store,
    instrument: InstrumentId,
    day: u32,
    holding: &Holding,
) -> Result<Rewrite, StoreError> {
    let ordinary: Vec<Arc<ChunkHeader>> = holding.chunks.range(holding.chunks.of_day(day)).collect();
    let late: Vec<_> = holding.late.iter().filter(|chunk| chunk.day == day).collect();
    // Begin where the earliest late tick belongs, or at the first small neighbours.
    let start = match late.iter().map(|chunk| chunk.first_key()).min() {
        Some(first) => ordinary.partition_point(|chunk| chunk.last_key() < first),
        None => {
            let Some(start) = ordinary.windows(2).position(|pair| pair[0].fits_with(&pair[1])) else {
                return Ok(Rewrite::default());
            };
            start
        }
    };
    let end = ordinary.len().min(start + STEP_CHUNKS);
    let window = &ordinary[start..end];
    let mut dropped: Vec<ChunkId> = window.iter().map(|chunk| chunk.id).collect();
    let mut ticks = read(store, instrument, &dropped).await?;
    let late_ids: Vec<ChunkId> = late.iter().map(|chunk| chunk.id).collect();
    let mut rest = read(store, instrument, &late_ids).await?;
    dropped.extend(&late_ids);
    if let Some(next) = ordinary.get(end) {
        rest.sort_unstable_by_key(Tick::key);
        let later = rest.split_off(rest.partition_point(|tick| tick.key() < next.first_key()));
        ticks.append(&mut rest);
        rest = later;
    } else {
        ticks.append(&mut rest);
    }
    ticks.sort_unstable_by_key(Tick::key);
    let mut added = Vec::new();
    for range in chunk::cuts(&ticks, CHUNK_TICKS) {
        added.push((day, false, ticks[range].to_vec()));
    }
    for range in chunk::cuts(&rest, LATE_CHUNK_TICKS) {
        added.push((day, true, rest[range].to_vec()));
    }
    // Small neighbours that share no exponent stay apart: rewriting them again would gain nothing.
    if late.is_empty() && added.len() >= dropped.len() {
        return Ok(Rewrite::default());
    }
    Ok(Rewrite { added, dropped, corrections: Vec::new() })
}

/// All ticks of some chunks of an instrument, chunk after chunk.
pub(super) async fn read(
    store: &dyn Store,
    instrument: InstrumentId,
    ids: &[ChunkId],
) -> Result<Vec<Tick>, StoreError> {
    let chunks = load(store, instrument, ids).await?;
    Ok(chunks.iter().flat_map(|(_, chunk)| chunk.ticks()).collect())
}

/// Some chunks of an instrument.
pub(super) async fn load(
    store: &dyn Store,
    instrument: InstrumentId,
    ids: &[ChunkId],
) -> Result<Vec<(ChunkId, Chunk)>, StoreError> {
    let found = store.chunk_bytes(ids).await?;
    if found.len() != ids.len() {
        return Err(StoreError::Unavailable("another compactor has replaced these chunks".into()));
    }
    let decode = |(id, bytes): (ChunkId, bytes::Bytes)| match chunk::decode(&bytes, instrument) {
        Ok(chunk) => Ok((id, chunk)),
        Err(problem) => {
            Err(StoreError::Corrupt { table: "chunks", row: id.0.to_string(), problem: problem.to_string() })
        }
    };
    found.into_iter().map(decode).collect()
}
