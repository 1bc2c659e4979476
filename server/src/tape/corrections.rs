//! The corrections of one instrument's trades, and what its trades are by them.
//!
//! Hot ticks and chunks are as they were told. A question at a position applies the corrections up to there: [`Patch`]
//! makes a holding of it in which nothing is left to correct, so that no query knows of them. A correction that is old
//! enough is settled: its chunks are written anew (`settle.rs`), and from then on what is cut is corrected on its way.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::{ChunkHeader, Chunks, Holding, HotBlock};
use crate::domain::chunk::Chunk;
use crate::domain::correction::{Standing, Verdict};
use crate::domain::segment::{self, Entries};
use crate::domain::{Control, Correction, Origin, Tick, TradeId, UnixNanos};
use crate::store::{ChunkId, CorrectionRow, StoreError};

/// Corrections that a log may have at most, about 150 bytes of memory each. More are refused.
pub const MOST_CORRECTIONS: usize = 1 << 20;

/// A correction as the log has it.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Its position.
    pub log_seq: u64,
    /// When it was appended.
    pub append_time: UnixNanos,
    /// Whether chunks are as it says.
    pub standing: Standing,
    /// Whether the store has it beside the log, with this standing.
    pub stored: bool,
    /// What it says.
    pub correction: Correction,
}

impl Logged {
    /// One that was just met in the log.
    pub(super) fn new(log_seq: u64, append_time: UnixNanos, correction: &Correction) -> Logged {
        let (standing, stored) = (Standing::Waiting, false);
        Logged { log_seq, append_time, standing, stored, correction: correction.clone() }
    }

    /// As the store keeps it.
    pub(super) fn row(&self, standing: Standing) -> CorrectionRow {
        let control = Control::Correction(self.correction.clone());
        let entries = Entries { ticks: Vec::new(), controls: vec![(1, control)] };
        CorrectionRow {
            log_seq: self.log_seq,
            instrument: self.correction.instrument,
            day: self.correction.event_time.day(),
            append_time: self.append_time,
            standing,
            bytes: Bytes::from(segment::encode(&entries, 1)),
        }
    }

    /// What the store kept.
    pub(super) fn read(row: &CorrectionRow) -> Result<Logged, StoreError> {
        let corrupt =
            |problem: String| StoreError::Corrupt { table: "corrections", row: row.log_seq.to_string(), problem };
        let entries = segment::decode(&row.bytes, 1, Origin::Live).map_err(|error| corrupt(error.to_string()))?;
        let Some((_, Control::Correction(correction))) = entries.controls.into_iter().next() else {
            return Err(corrupt("it is no correction".into()));
        };
        let CorrectionRow { log_seq, append_time, standing, .. } = *row;
        Ok(Logged { log_seq, append_time, standing, stored: true, correction })
    }
}

/// Everything that was said of an instrument's trades later.
#[derive(Clone, Debug, Default)]
pub struct Corrections {
    /// By the event time of the trade, then by position.
    list: Vec<Arc<Logged>>,
    counts: CorrectionCounts,
}

/// How many corrections there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CorrectionCounts {
    /// All.
    pub all: usize,
    /// Those that no chunk has been changed by yet.
    pub waiting: usize,
    /// Those that were looked for in every chunk, and no trade was found.
    pub unmatched: usize,
    /// Those that the store does not have beside the log as they are.
    pub unstored: usize,
}

impl CorrectionCounts {
    fn of(list: &[Arc<Logged>]) -> CorrectionCounts {
        let count = |is: fn(&Logged) -> bool| list.iter().filter(|logged| is(logged)).count();
        CorrectionCounts {
            all: list.len(),
            waiting: count(|logged| logged.standing == Standing::Waiting),
            unmatched: count(|logged| logged.standing == Standing::Unmatched),
            unstored: count(|logged| !logged.stored),
        }
    }

    /// The counts of a whole of which one part has changed.
    pub(super) fn changed(self, from: CorrectionCounts, to: CorrectionCounts) -> CorrectionCounts {
        CorrectionCounts {
            all: self.all + to.all - from.all,
            waiting: self.waiting + to.waiting - from.waiting,
            unmatched: self.unmatched + to.unmatched - from.unmatched,
            unstored: self.unstored + to.unstored - from.unstored,
        }
    }
}

impl Corrections {
    /// How many.
    pub fn counts(&self) -> CorrectionCounts {
        self.counts
    }

    /// All, by the event time of the trade, then by position.
    pub fn iter(&self) -> impl Iterator<Item = &Logged> {
        self.list.iter().map(|logged| &**logged)
    }

    /// Takes corrections in: new ones, and known ones that the store has now, or has with another standing.
    fn take(&mut self, news: Vec<Logged>) {
        let known = self.list.len();
        for logged in news {
            let key = (logged.correction.event_time, logged.log_seq);
            let place = self.list[..known].binary_search_by_key(&key, |known| known.key());
            match place {
                Ok(place) if logged.stored => self.list[place] = Arc::new(logged),
                Ok(_) => (),
                Err(_) => self.list.push(Arc::new(logged)),
            }
        }
        self.list.sort_by_key(|logged| logged.key());
        self.counts = CorrectionCounts::of(&self.list);
    }

    /// Those of trades that happened in `[from, until)`, up to a position.
    pub fn between(
        &self,
        (from, until): (UnixNanos, Option<UnixNanos>),
        position: u64,
    ) -> impl Iterator<Item = &Logged> {
        let start = self.list.partition_point(|logged| logged.correction.event_time < from);
        let inside = move |logged: &&Logged| until.is_none_or(|until| logged.correction.event_time < until);
        let known = self.list[start..].iter().map(|logged| &**logged).take_while(inside);
        known.filter(move |logged| logged.log_seq <= position)
    }

    /// All corrections of one trade, in the order of the log.
    pub(super) fn of(&self, event_time: UnixNanos, trade_id: &TradeId) -> impl Iterator<Item = &Logged> {
        let start = self.list.partition_point(|logged| logged.correction.event_time < event_time);
        let same_time = self.list[start..].iter().take_while(move |logged| logged.correction.event_time == event_time);
        same_time.filter(move |logged| logged.correction.trade_id == *trade_id).map(|logged| &**logged)
    }

    /// What becomes of a trade by all that is said of it up to a position.
    fn verdict(&self, event_time: UnixNanos, trade_id: &TradeId, position: u64) -> Option<Verdict> {
        let known = self.of(event_time, trade_id).filter(|logged| logged.log_seq <= position);
        Verdict::of(known.map(|logged| &logged.correction))
    }

    /// Whether anything is said of a tick.
    pub(super) fn name(&self, tick: &Tick) -> bool {
        self.of(tick.event_time, &tick.trade_id).next().is_some()
    }

    /// Ticks as they are at a position; `None` if they are as they were told.
    pub(super) fn corrected(&self, ticks: &[Tick], position: u64) -> Option<Vec<Tick>> {
        let verdict = |tick: &Tick| self.verdict(tick.event_time, &tick.trade_id, position);
        if !ticks.iter().any(|tick| verdict(tick).is_some()) {
            return None;
        }
        let corrected = ticks.iter().filter_map(|tick| match verdict(tick) {
            Some(verdict) => verdict.apply(tick),
            None => Some(tick.clone()),
        });
        Some(corrected.collect())
    }

    /// Those that no chunk has been changed by and that were appended before a time, in the order of the log: nothing
    /// that waits stands between them.
    pub(super) fn ripe(&self, before: UnixNanos) -> Vec<&Logged> {
        let mut waiting: Vec<&Logged> = self.iter().filter(|logged| logged.standing == Standing::Waiting).collect();
        waiting.sort_unstable_by_key(|logged| logged.log_seq);
        waiting.truncate(waiting.partition_point(|logged| logged.append_time < before));
        waiting
    }

    /// Chunks are as all corrections up to here say.
    pub(super) fn settled(&self) -> u64 {
        let settled = self.iter().filter(|logged| logged.standing != Standing::Waiting);
        settled.map(|logged| logged.log_seq).max().unwrap_or(0)
    }
}

impl Logged {
    fn key(&self) -> (UnixNanos, u64) {
        (self.correction.event_time, self.log_seq)
    }
}

impl Holding {
    /// How many corrections there are of its trades.
    pub fn correction_counts(&self) -> CorrectionCounts {
        self.corrections.as_ref().map_or_else(CorrectionCounts::default, |corrections| corrections.counts())
    }

    /// Takes corrections in, or what the store knows of them.
    pub(super) fn correct(&mut self, news: Vec<Logged>) {
        Arc::make_mut(self.corrections.get_or_insert_default()).take(news);
        self.look_for_named();
    }

    /// Looks whether anything is said of a hot tick.
    pub(super) fn look_for_named(&mut self) {
        let named = |corrections: &Arc<Corrections>| self.hot_ticks().any(|tick| corrections.name(tick));
        self.hot_named = self.corrections.as_ref().is_some_and(named);
    }

    /// Makes trades of what was told; `None` where that is the same.
    pub fn patch(&self, position: u64) -> Option<Patch<'_>> {
        let corrections = self.corrections.as_deref()?;
        let changes = !self.patched && (self.hot_named || corrections.counts.waiting > 0);
        changes.then(|| Patch { holding: self, corrections, position, gone: BTreeSet::new(), loose: Vec::new() })
    }

    /// The chunks in which a trade may stand.
    pub(super) fn chunks_at(&self, event_time: UnixNanos) -> impl Iterator<Item = &Arc<ChunkHeader>> {
        let from = self.chunks.partition_point(|header| header.last_time < event_time);
        let ordinary = self.chunks[from..].iter().take_while(move |header| header.first_time <= event_time);
        let late = self.late.iter();
        ordinary.chain(late.filter(move |header| header.first_time <= event_time && event_time <= header.last_time))
    }
}

/// A holding on its way to what its trades are at a position.
#[derive(Debug)]
pub struct Patch<'a> {
    holding: &'a Holding,
    corrections: &'a Corrections,
    position: u64,
    /// Chunks whose ticks are loose now.
    gone: BTreeSet<ChunkId>,
    loose: Vec<Arc<HotBlock>>,
}

impl Patch<'_> {
    /// The chunks that [`Patch::take`] needs: those in which a trade may stand that waits for its correction.
    pub fn chunks(&self) -> Vec<ChunkId> {
        let waiting = self.corrections.iter().filter(|logged| logged.standing == Standing::Waiting);
        let known = waiting.filter(|logged| logged.log_seq <= self.position);
        let chunks = known.flat_map(|logged| self.holding.chunks_at(logged.correction.event_time));
        let ids: BTreeSet<ChunkId> = chunks.map(|header| header.id).collect();
        ids.into_iter().collect()
    }

    /// Looks at one of the chunks.
    pub fn take(&mut self, id: ChunkId, chunk: &Chunk) {
        let (Some(&first), Some(&last)) = (chunk.event_times().first(), chunk.event_times().last()) else { return };
        let (Ok(first), Ok(last)) = (UnixNanos::new(first), UnixNanos::new(last)) else { return };
        let mut known = self.corrections.between((first, None), self.position);
        let named = known.by_ref().take_while(|logged| logged.correction.event_time <= last).any(|logged| {
            let from = chunk.index_at(logged.correction.event_time);
            let mut same_time =
                (from..chunk.len()).take_while(|&at| chunk.event_time(at) == logged.correction.event_time);
            same_time.any(|at| chunk.trade_id(at) == logged.correction.trade_id)
        });
        if !named {
            return;
        }
        let ticks: Vec<Tick> = chunk.ticks().collect();
        let mut ticks = self.corrections.corrected(&ticks, self.position).unwrap_or(ticks);
        ticks.sort_unstable_by_key(|tick| tick.log_seq);
        self.gone.insert(id);
        if !ticks.is_empty() {
            self.loose.push(Arc::new(HotBlock::new(ticks)));
        }
    }

    /// The holding in which nothing is left to correct. Its blocks are each in the order of the log, and no longer that
    /// one after the other.
    pub fn finish(self) -> Holding {
        let Patch { holding, corrections, position, gone, loose } = self;
        let kept = |headers: &[Arc<ChunkHeader>]| -> Vec<Arc<ChunkHeader>> {
            headers.iter().filter(|header| !gone.contains(&header.id)).cloned().collect()
        };
        let mut patched = Holding { patched: true, ..holding.clone() };
        if holding.chunks.iter().any(|header| gone.contains(&header.id)) {
            patched.chunks = Arc::new(Chunks::new(kept(&holding.chunks)));
        }
        if holding.late.iter().any(|header| gone.contains(&header.id)) {
            patched.late = Arc::new(kept(&holding.late));
        }
        if holding.hot_named {
            let blocks = holding.hot.iter().filter_map(|block| match corrections.corrected(block, position) {
                None => Some(block.clone()),
                Some(ticks) => (!ticks.is_empty()).then(|| Arc::new(HotBlock::new(ticks))),
            });
            patched.hot = blocks.collect();
        }
        patched.hot.extend(loose);
        let newest = patched.hot.iter().max_by_key(|block| block.last_key());
        let newest = newest.and_then(|block| block.iter().find(|tick| tick.key() == block.last_key()));
        patched.hot_latest = newest.map(|tick| Arc::new(tick.clone()));
        patched
    }
}
