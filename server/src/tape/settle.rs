//! Settling: chunks are written anew as old corrections say, so that their statistics count again.
//!
//! A correction waits until no question is pinned to a position before it any more. Corrections of an instrument settle
//! in the order of the log.

use std::collections::{BTreeMap, BTreeSet};

use super::late::LATE_CHUNK_TICKS;
use super::merge::{self, Rewrite};
use super::{Holding, View};
use crate::domain::chunk::{self, CHUNK_TICKS};
use crate::domain::correction::Standing;
use crate::domain::{InstrumentId, Tick, UnixNanos};
use crate::store::{CorrectionRow, Store, StoreError};

/// Chunks that one step looks at, at most, beyond those of its last correction: bounds its memory.
const STEP_CHUNKS: usize = 64;

/// Corrections that one step settles at most: bounds how long a writer waits for its commit.
const STEP_CORRECTIONS: usize = 4_096;

/// One step over the corrections of an instrument that were appended before a time, at least one; `None` when none of
/// them waits.
pub(super) async fn step(
    store: &dyn Store,
    instrument: InstrumentId,
    holding: &Holding,
    before: UnixNanos,
) -> Result<Option<Rewrite>, StoreError> {
    let Some(corrections) = holding.corrections.as_deref().filter(|corrections| corrections.counts().waiting > 0)
    else {
        return Ok(None);
    };
    let mut ripe = corrections.ripe(before);
    ripe.truncate(STEP_CORRECTIONS);
    let mut wanted = BTreeMap::new();
    let mut fitting = 0;
    for logged in &ripe {
        if wanted.len() >= STEP_CHUNKS {
            break;
        }
        wanted.extend(holding.chunks_at(logged.correction.event_time).map(|chunk| (chunk.0.id, chunk)));
        fitting += 1;
    }
    ripe.truncate(fitting);
    let Some(position) = ripe.last().map(|logged| logged.log_seq) else {
        return Ok(None);
    };
    let mut settled = Rewrite::default();
    // What a trade was found for.
    let mut found: BTreeSet<u64> = BTreeSet::new();
    let mut see = |ticks: &[Tick]| {
        for tick in ticks {
            found.extend(corrections.of(tick.event_time, &tick.trade_id).map(|logged| logged.log_seq));
        }
    };
    for (header, late) in wanted.into_values() {
        let ticks = merge::read(store, instrument, &[header.id]).await?;
        see(&ticks);
        let Some(ticks) = corrections.corrected(&ticks, position) else { continue };
        settled.dropped.push(header.id);
        for range in chunk::cuts(&ticks, if late { LATE_CHUNK_TICKS } else { CHUNK_TICKS }) {
            settled.added.push((header.day, late, ticks[range].to_vec()));
        }
    }
    if holding.hot_named {
        holding.hot.iter().for_each(|block| see(block));
    }
    for logged in ripe {
        // A trade that was taken back before is in no chunk any more, but it was there.
        let mut of_same = corrections.of(logged.correction.event_time, &logged.correction.trade_id);
        let known = found.contains(&logged.log_seq) || of_same.any(|one| one.standing == Standing::Settled);
        settled.corrections.push(logged.row(if known { Standing::Settled } else { Standing::Unmatched }));
    }
    Ok(Some(settled))
}

/// Adds the corrections that the store does not have beside the log: whatever a commit allows the log to lose is stored
/// with it.
pub(super) fn keep_corrections(view: &View, corrections: &mut Vec<CorrectionRow>) {
    if view.corrections().unstored == 0 {
        return;
    }
    let changed: BTreeSet<u64> = corrections.iter().map(|row| row.log_seq).collect();
    for (_, holding) in view.holdings().filter(|(_, holding)| holding.correction_counts().unstored > 0) {
        let unstored = holding.corrections.iter().flat_map(|corrections| corrections.iter());
        let unstored = unstored.filter(|logged| !logged.stored && !changed.contains(&logged.log_seq));
        corrections.extend(unstored.map(|logged| logged.row(logged.standing)));
    }
}
