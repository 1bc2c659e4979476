//! The corrections of one instrument's trades, and what its trades are by them.
//!
//! Hot ticks and chunks are as they were told. A question at a position applies the corrections up to there: [`Patch`]
//! makes a holding of it in which nothing is left to correct, so that no query knows of them. A correction that is old
//! enough is settled: its chunks are written anew (`settle.rs`), and from then on what is cut is corrected on its way.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::{ChunkHeader, Holding, HotBlock};
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
    /// By the event time of the trade, then by position: neighbours together, none of the parts empty. A view shares
    /// with the one before the parts in which nothing is new.
    parts: Vec<Arc<Vec<Arc<Logged>>>>,
    counts: CorrectionCounts,
}

/// Corrections that lie together at most, before they become two parts.
const PART: usize = 512;

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
    fn of(logged: &Logged) -> CorrectionCounts {
        CorrectionCounts {
            all: 1,
            waiting: usize::from(logged.standing == Standing::Waiting),
            unmatched: usize::from(logged.standing == Standing::Unmatched),
            unstored: usize::from(!logged.stored),
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
        self.parts.iter().flat_map(|part| part.iter()).map(|logged| &**logged)
    }

    /// Takes a correction in: a new one, or a known one that the store has now, or has with another standing.
    fn take(&mut self, logged: Logged) {
        let key = logged.key();
        let number = self.parts.partition_point(|part| part.last().is_some_and(|last| last.key() < key));
        // Behind the last one it joins the last part.
        let number = number.min(self.parts.len().saturating_sub(1));
        if self.parts.is_empty() {
            self.parts.push(Arc::default());
        }
        let place = self.parts[number].binary_search_by_key(&key, |known| known.key());
        let (before, after) = match place {
            Ok(place) if logged.stored => {
                (CorrectionCounts::of(&self.parts[number][place]), CorrectionCounts::of(&logged))
            }
            Ok(_) => return,
            Err(_) => (CorrectionCounts::default(), CorrectionCounts::of(&logged)),
        };
        self.counts = self.counts.changed(before, after);
        let part = Arc::make_mut(&mut self.parts[number]);
        match place {
            Ok(place) => part[place] = Arc::new(logged),
            Err(place) => part.insert(place, Arc::new(logged)),
        }
        if part.len() > PART {
            let second = part.split_off(PART / 2);
            self.parts.insert(number + 1, Arc::new(second));
        }
    }

    /// Those of trades that happened at a time or later.
    fn since(&self, from: UnixNanos) -> impl Iterator<Item = &Logged> {
        let before = |logged: &Arc<Logged>| logged.correction.event_time < from;
        let number = self.parts.partition_point(|part| part.last().is_some_and(before));
        let (first, rest) = self.parts[number..]
            .split_first()
            .map_or((&[][..], &[][..]), |(first, rest)| (&first[first.partition_point(before)..], rest));
        first.iter().chain(rest.iter().flat_map(|part| part.iter())).map(|logged| &**logged)
    }

    /// Those of trades that happened in `[from, until)`, up to a position.
    pub fn between(
        &self,
        (from, until): (UnixNanos, Option<UnixNanos>),
        position: u64,
    ) -> impl Iterator<Item = &Logged> {
        let inside = move |logged: &&Logged| until.is_none_or(|until| logged.correction.event_time < until);
        self.since(from).take_while(inside).filter(move |logged| logged.log_seq <= position)
    }

    /// All corrections of one trade, in the order of the log.
    pub(super) fn of(&self, event_time: UnixNanos, trade_id: &TradeId) -> impl Iterator<Item = &Logged> {
        let same_time = self.since(event_time).take_while(move |logged| logged.correction.event_time == event_time);
        same_time.filter(move |logged| logged.correction.trade_id == *trade_id)
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
        let mut new = Corrections::default();
        let corrections = Arc::make_mut(self.corrections.get_or_insert_default());
        for logged in news {
            new.take(logged.clone());
            corrections.take(logged);
        }
        let named = |block: &HotBlock| {
            let first = new.since(block.first_key().0).next();
            let inside = first.is_some_and(|logged| logged.correction.event_time <= block.last_key().0);
            inside && block.iter().any(|tick| new.name(tick))
        };
        // Nothing that was said is ever forgotten: whatever named a hot tick still does.
        self.hot_named = self.hot_named || self.hot.iter().any(|block| named(block));
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
        changes.then(|| Patch { holding: self, corrections, position, gone: HashSet::new(), loose: Vec::new() })
    }

    /// The chunks in which a trade may stand, and whether each is a late one.
    pub(super) fn chunks_at(&self, event_time: UnixNanos) -> impl Iterator<Item = (Arc<ChunkHeader>, bool)> {
        let from = self.chunks.partition_point(|header| header.last_time < event_time);
        let to = self.chunks.partition_point(|header| header.first_time <= event_time);
        let ordinary = self.chunks.range(from..to.max(from)).map(|header| (header, false));
        let late = self.late.iter();
        let late = late.filter(move |header| header.first_time <= event_time && event_time <= header.last_time);
        ordinary.chain(late.map(|header| (header.clone(), true)))
    }
}

/// A holding on its way to what its trades are at a position.
#[derive(Debug)]
pub struct Patch<'a> {
    holding: &'a Holding,
    corrections: &'a Corrections,
    position: u64,
    /// Chunks whose ticks are loose now.
    gone: HashSet<ChunkId>,
    loose: Vec<Arc<HotBlock>>,
}

impl<'a> Patch<'a> {
    /// The chunks that [`Patch::take`] needs: those in which a trade may stand that waits for its correction. Others than
    /// a question is about may be left out.
    pub fn chunks(&self) -> Vec<Arc<ChunkHeader>> {
        let waiting = self.corrections.iter().filter(|logged| logged.standing == Standing::Waiting);
        let known = waiting.filter(|logged| logged.log_seq <= self.position);
        let holding = self.holding;
        let chunks = known.flat_map(|logged| holding.chunks_at(logged.correction.event_time));
        let chunks: BTreeMap<ChunkId, Arc<ChunkHeader>> = chunks.map(|(header, _)| (header.id, header)).collect();
        chunks.into_values().collect()
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
        let mut patched = Holding { patched: true, ..holding.clone() };
        if !gone.is_empty() {
            patched.chunks = Arc::new(holding.chunks.without(&gone));
            let kept = holding.late.iter().filter(|header| !gone.contains(&header.id));
            patched.late = Arc::new(kept.cloned().collect());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::InstrumentId;

    /// The nth correction: many share their times, and some their trades.
    fn logged(log_seq: u64, standing: Standing, stored: bool) -> Logged {
        let mixed = log_seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let correction = Correction {
            instrument: InstrumentId(1),
            trade_id: TradeId::Number(mixed % 3),
            event_time: UnixNanos::new((mixed % 701) as i64).unwrap(),
            receive_time: UnixNanos::MIN,
            values: None,
        };
        Logged { log_seq, append_time: UnixNanos::MIN, standing, stored, correction }
    }

    fn seqs<'a>(found: impl Iterator<Item = &'a Logged>) -> Vec<(u64, Standing, bool)> {
        found.map(|logged| (logged.log_seq, logged.standing, logged.stored)).collect()
    }

    #[test]
    fn corrections_are_those_of_a_plain_list_however_they_come() {
        let mut holding = Holding::default();
        let mut list: BTreeMap<(UnixNanos, u64), Logged> = BTreeMap::new();
        let standings = [Standing::Waiting, Standing::Unmatched, Standing::Settled];
        for round in 0..60u64 {
            // New ones, and old ones that the store has now, or has been said to have before.
            let new = (0..100).map(|n| logged(100 * round + n + 1, Standing::Waiting, round % 7 == 0));
            let known =
                (0..100 * round).step_by(13).map(|n| logged(n + 1, standings[(n + round) as usize % 3], n % 2 == 0));
            let news: Vec<Logged> =
                if round % 2 == 0 { new.chain(known).collect() } else { known.chain(new).collect() };
            for logged in &news {
                let known = list.entry(logged.key()).or_insert_with(|| logged.clone());
                if logged.stored {
                    *known = logged.clone();
                }
            }
            holding.correct(news);
            let corrections = holding.corrections.as_deref().unwrap();
            assert!(corrections.parts.iter().all(|part| (1..=PART).contains(&part.len())));
            assert_eq!(seqs(corrections.iter()), seqs(list.values()));
            let count = |is: fn(&Logged) -> bool| list.values().filter(|logged| is(logged)).count();
            let counts = CorrectionCounts {
                all: list.len(),
                waiting: count(|logged| logged.standing == Standing::Waiting),
                unmatched: count(|logged| logged.standing == Standing::Unmatched),
                unstored: count(|logged| !logged.stored),
            };
            assert_eq!(corrections.counts(), counts);
            for time in (0..=701).step_by(50) {
                let from = UnixNanos::new(time).unwrap();
                let until = from.saturating_add(std::time::Duration::from_nanos(60));
                let position = 70 * round;
                let inside = list.range((from, 0)..(until, 0)).map(|(_, logged)| logged);
                let inside = inside.filter(|logged| logged.log_seq <= position);
                assert_eq!(seqs(corrections.between((from, Some(until)), position)), seqs(inside));
                let trade = TradeId::Number(1);
                let of = list.values().filter(|logged| logged.correction.is_about(from, &trade));
                assert_eq!(seqs(corrections.of(from, &trade)), seqs(of));
            }
        }
    }

    #[test]
    fn a_correction_leaves_those_of_other_times_where_they_are() {
        let mut holding = Holding::default();
        holding.correct((1..=100_000).map(|log_seq| logged(log_seq, Standing::Waiting, false)).collect());
        let before = holding.corrections.clone().unwrap();
        holding.correct(vec![logged(100_001, Standing::Waiting, false)]);
        let after = holding.corrections.as_deref().unwrap();
        let shared = after.parts.iter().filter(|part| before.parts.iter().any(|old| Arc::ptr_eq(old, part))).count();
        assert!(after.parts.len() > 200 && shared >= after.parts.len() - 2, "{shared} of {}", after.parts.len());
    }
}
