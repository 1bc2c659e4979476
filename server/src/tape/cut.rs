//! Hot ticks on their way into chunks: cut by day, encoded, and read back before they replace anything.

use std::collections::BTreeMap;

use super::Holding;
use crate::domain::chunk::{self, CHUNK_TICKS};
use crate::domain::correction::Standing;
use crate::domain::statistics::Statistics;
use crate::domain::{InstrumentId, Tick};
use crate::store::{ChunkId, ChunkRow, CorrectionRow, NewChunk, StoreError};

/// Those of one day.
#[derive(Debug, Default)]
pub(super) struct DayCut {
    /// New ordinary chunks.
    pub(super) chunks: Vec<NewChunk>,
    /// Ticks that came after an ordinary chunk of a later time.
    pub(super) late: Vec<Tick>,
}

/// The ticks of one instrument that leave the hot set.
#[derive(Debug, Default)]
pub(super) struct Cut {
    /// By day. Empty if all of them were taken back.
    pub(super) days: BTreeMap<u32, DayCut>,
    /// The greatest position among all of them.
    pub(super) last_seq: u64,
    /// Corrections that waited in vain, and have found their trades.
    pub(super) matched: Vec<CorrectionRow>,
}

/// Cuts the first hot ticks of an instrument, in the order of the log, by day, as its settled corrections say.
pub(super) fn cut(instrument: InstrumentId, holding: &Holding, take: usize) -> Result<Cut, StoreError> {
    let mut ticks = Vec::with_capacity(take);
    ticks.extend(holding.hot_ticks().take(take).cloned());
    let last_seq = ticks.last().map_or(0, |tick| tick.log_seq);
    let mut matched: BTreeMap<u64, CorrectionRow> = BTreeMap::new();
    if let Some(corrections) = holding.corrections.as_deref().filter(|_| holding.hot_named) {
        for tick in &ticks {
            let named = corrections.of(tick.event_time, &tick.trade_id);
            let named = named.filter(|logged| logged.standing == Standing::Unmatched);
            matched.extend(named.map(|logged| (logged.log_seq, logged.row(Standing::Settled))));
        }
        if let Some(corrected) = corrections.corrected(&ticks, corrections.settled()) {
            ticks = corrected;
        }
    }
    // The order of history is also that of days.
    ticks.sort_unstable_by_key(Tick::key);
    let of_day = |ticks: &[Tick]| {
        let day = ticks.first().map_or(0, |tick| tick.event_time.day());
        let last = holding.chunks.of_day(day).next_back().and_then(|last| holding.chunks.get(last));
        let late = last.map_or(0, |last| ticks.partition_point(|tick| tick.key() < last.last_key()));
        let (late, ordinary) = ticks.split_at(late);
        let ranges = chunk::cuts(ordinary, CHUNK_TICKS);
        let chunks = ranges.into_iter().map(|range| new_chunk(instrument, day, false, &ordinary[range]));
        Ok((day, DayCut { chunks: chunks.collect::<Result<_, StoreError>>()?, late: late.to_vec() }))
    };
    let days = ticks.chunk_by(|one, next| one.event_time.day() == next.event_time.day()).map(of_day);
    let matched = matched.into_values().collect();
    Ok(Cut { days: days.collect::<Result<_, StoreError>>()?, last_seq, matched })
}

/// A chunk of ticks of one instrument and day, in the order of history.
pub(super) fn new_chunk(
    instrument: InstrumentId,
    day: u32,
    late: bool,
    ticks: &[Tick],
) -> Result<NewChunk, StoreError> {
    let bytes = chunk::encode(ticks);
    let read = chunk::read_back(&bytes, instrument, ticks).map_err(|problem| StoreError::Corrupt {
        table: "chunks",
        row: "not stored yet".into(),
        problem: problem.to_string(),
    })?;
    let statistics = Statistics::of_chunk(&read);
    let (first, last) = (ticks.first().expect("a cut is never empty"), ticks.last().expect("a cut is never empty"));
    let row = ChunkRow {
        id: ChunkId(0),
        instrument,
        day,
        late,
        tick_count: ticks.len() as u32,
        first_time: first.event_time,
        last_time: last.event_time,
        min_seq: ticks.iter().map(|tick| tick.log_seq).min().unwrap_or(0),
        max_seq: ticks.iter().map(|tick| tick.log_seq).max().unwrap_or(0),
        byte_count: bytes.len() as u32,
        statistics: statistics.encode().into(),
    };
    Ok(NewChunk { row, bytes: bytes.into() })
}
