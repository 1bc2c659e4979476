//! Late ticks: those that came after a chunk of a later time of their day.
//!
//! They go to chunks of their own, which overlap the ordinary ones, until the day is closed and tidied (`merge.rs`).

use super::cut::new_chunk;
use super::{Holding, merge};
use crate::domain::chunk;
use crate::domain::{InstrumentId, Tick};
use crate::store::{ChunkId, NewChunk, Store, StoreError};

/// Late chunks of similar size that become one: an instrument and day has at most so many for each power of it up to
/// [`LATE_CHUNK_TICKS`], and a late tick is written about once for each.
const LATE_FAN: usize = 8;

/// Ticks of one late chunk at most. A day with more has several.
pub(super) const LATE_CHUNK_TICKS: usize = 1 << 18;

/// A late chunk of new late ticks; the day's late chunks become one with it where too many are of its size.
pub(super) async fn chunks(
    store: &dyn Store,
    instrument: InstrumentId,
    day: u32,
    holding: &Holding,
    mut late: Vec<Tick>,
) -> Result<(Vec<NewChunk>, Vec<ChunkId>), StoreError> {
    let sizes = holding.late.iter().filter(|chunk| chunk.day == day).map(|chunk| (chunk.tick_count(), chunk.id));
    let dropped = similar_late(late.len(), sizes.collect());
    if !dropped.is_empty() {
        late.extend(merge::read(store, instrument, &dropped).await?);
        late.sort_unstable_by_key(Tick::key);
    }
    let ranges = chunk::cuts(&late, LATE_CHUNK_TICKS);
    let chunks = ranges.into_iter().map(|range| new_chunk(instrument, day, true, &late[range]));
    Ok((chunks.collect::<Result<_, _>>()?, dropped))
}

/// Which late chunks of a day become one with so many new ticks.
fn similar_late(new: usize, mut present: Vec<(usize, ChunkId)>) -> Vec<ChunkId> {
    // A chunk that is more than half full would only be written again, and cut again.
    present.retain(|(ticks, _)| *ticks <= LATE_CHUNK_TICKS / 2);
    present.sort_unstable();
    let (mut taken, mut total) = (0, new.max(1));
    loop {
        let size = total.ilog(LATE_FAN);
        let similar = present.partition_point(|(ticks, _)| ticks.ilog(LATE_FAN) <= size);
        if similar - taken + 1 < LATE_FAN {
            break;
        }
        total += present[taken..similar].iter().map(|(ticks, _)| ticks).sum::<usize>();
        taken = similar;
    }
    present.truncate(taken);
    present.into_iter().map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::chunk::CHUNK_TICKS;

    #[test]
    fn late_ticks_are_written_a_few_times_however_many_there_are() {
        for step in [1, 100, CHUNK_TICKS, 3 * CHUNK_TICKS] {
            let (mut chunks, mut next, mut written, mut added) = (Vec::new(), 0, 0, 0);
            for _ in 0..2_000 {
                let dropped = similar_late(step, chunks.clone());
                let (merged, kept): (Vec<_>, Vec<_>) = chunks.into_iter().partition(|(_, id)| dropped.contains(id));
                chunks = kept;
                let mut ticks = step + merged.iter().map(|(ticks, _)| ticks).sum::<usize>();
                (written, added) = (written + ticks, added + step);
                while ticks > 0 {
                    let part = ticks.min(LATE_CHUNK_TICKS);
                    ticks -= part;
                    next += 1;
                    chunks.push((part, ChunkId(next)));
                }
            }
            assert_eq!(chunks.iter().map(|(ticks, _)| ticks).sum::<usize>(), added);
            assert!(written <= 8 * added, "{written} ticks written for {added}");
            let full = added / (LATE_CHUNK_TICKS / 2);
            assert!(chunks.len() <= full + 7 * LATE_FAN, "{} chunks of {step} ticks", chunks.len());
        }
    }
}
