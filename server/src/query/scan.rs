//! Ticks in order: one instrument, or several merged, at one position, forward or backward.
//!
//! A [`Scan`] goes window by window. A window is the stretch of keys up to the end of the next chunk, ordinary or late
//! (going backward: down to its start); hot ticks that fall into it are merged in. An instrument's window is opened when
//! its turn comes. So a scan holds those chunks, ordinary and late, that overlap where it is, for each instrument that
//! has ticks there, and an index of the instruments' hot ticks in range.
//! It gives neighbours of one source together, as a [`Stretch`]: mostly a whole chunk. It remembers the last key that it
//! gave out: on another view it goes on from there.

use std::ops::Range;

use crate::domain::chunk::Chunk;
use crate::domain::{InstrumentId, Tick, TimeRange};
use crate::tape::{Holding, View};

use super::ahead::{Ahead, Asked};
use super::cache::{ChunkCache, ChunkError};
use super::keys::{Bounds, Key, successor};
use super::lane::{HotTick, Lane};

/// The direction of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest first, by (event_time, log_seq).
    Ascending,
    /// The newest first.
    Descending,
}

/// Which ticks of an instrument a scan gives, and in which order.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Where the ticks lie, by event time.
    pub range: TimeRange,
    /// Ticks after this position are left out; the view must have reached it.
    pub position: u64,
    /// The direction.
    pub order: Order,
    /// Only ticks beyond this key, in the direction of the scan.
    pub after: Option<Key>,
}

impl Extent {
    pub(super) fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::of(self.range);
        match (self.after, self.order) {
            (Some(key), Order::Ascending) => bounds.low = bounds.low.max(successor(key)),
            (Some(key), Order::Descending) => bounds.high = bounds.high.min(key),
            (None, _) => {}
        }
        bounds
    }
}

/// Neighbours in the order of a scan that lie in one place. Going backward, the last of them is the first.
#[derive(Clone, Debug)]
pub enum Stretch<'a> {
    /// These ticks of a chunk.
    Chunk(&'a Chunk, Range<usize>),
    /// Ticks that lie in no chunk yet.
    Hot(HotStretch<'a>),
}

/// Hot ticks of one instrument in the order of history.
#[derive(Clone, Copy, Debug)]
pub struct HotStretch<'a> {
    pub(super) holding: &'a Holding,
    pub(super) places: &'a [HotTick],
}

impl<'a> HotStretch<'a> {
    /// The ticks, by (event_time, log_seq).
    pub fn ticks(self) -> impl DoubleEndedIterator<Item = &'a Tick> + ExactSizeIterator {
        self.places.iter().map(move |place| &self.holding.hot[place.block as usize][place.index as usize])
    }
}

impl Stretch<'_> {
    fn append(self, order: Order, ticks: &mut Vec<Tick>) {
        let from = ticks.len();
        match self {
            Stretch::Chunk(chunk, range) => ticks.extend(range.map(|index| chunk.tick(index))),
            Stretch::Hot(hot) => ticks.extend(hot.ticks().cloned()),
        }
        if order == Order::Descending {
            ticks[from..].reverse();
        }
    }
}

/// Reads ticks in order, a batch at a time.
#[derive(Debug)]
pub struct Scan {
    extent: Extent,
    lanes: Vec<Lane>,
    /// Of a scan in bulk: what was read ahead.
    pub(super) ahead: Option<Ahead>,
}

impl Scan {
    /// A scan over the ticks of instruments, merged by key. Reads nothing yet.
    pub fn new(view: &View, instruments: &[InstrumentId], extent: Extent) -> Scan {
        let lanes =
            instruments.iter().filter_map(|&id| Some(Lane::new(id, view.holding(id)?.clone(), extent))).collect();
        Scan { extent, lanes, ahead: None }
    }

    /// Reads ahead, and keeps what is read only once out of the cache.
    pub fn in_bulk(self) -> Scan {
        Scan { ahead: Some(Ahead::default()), ..self }
    }

    /// The same scan on another view of the same log, going on after the last tick that was given. Also for readers
    /// that pause: between batches nothing but the extent has to be kept.
    pub fn resume(self, view: &View, instruments: &[InstrumentId]) -> Scan {
        Scan { ahead: self.ahead.map(|_| Ahead::default()), ..Scan::new(view, instruments, self.extent) }
    }

    /// What is left to give.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Appends the next ticks until `ticks` has `most`; fewer means the end. After an error the scan is to be resumed
    /// on another view; `ticks` keeps what was given.
    pub async fn read(&mut self, chunks: &ChunkCache, most: usize, ticks: &mut Vec<Tick>) -> Result<(), ChunkError> {
        let order = self.extent.order;
        while ticks.len() < most {
            let Some(stretch) = self.next(chunks, most - ticks.len()).await? else { break };
            stretch.append(order, ticks);
        }
        Ok(())
    }

    /// The next ticks, at least one and at most `most`; `None` at the end. After an error the scan is to be resumed on
    /// another view.
    pub async fn next(&mut self, chunks: &ChunkCache, most: usize) -> Result<Option<Stretch<'_>>, ChunkError> {
        self.fill(chunks).await?;
        Ok(self.take(most))
    }

    /// Opens windows until every lane that may have the next tick has ticks at hand, and forgets those that are over.
    pub(super) async fn fill(&mut self, chunks: &ChunkCache) -> Result<(), ChunkError> {
        self.lanes.iter_mut().for_each(Lane::forget_empty_runs);
        self.lanes.retain(|lane| !lane.is_over());
        let mut plans = Vec::new();
        while let Some(until) = self.until() {
            let mut asked = Asked::default();
            for (index, lane) in self.lanes.iter().enumerate() {
                if lane.closed().is_some_and(|next| !self.extent.order.before(until, next)) {
                    let from = asked.wanted.len();
                    let window = lane.plan(self.extent, &mut asked);
                    plans.push((index, window, from..asked.wanted.len()));
                }
            }
            if plans.is_empty() {
                return Ok(());
            }
            let loaded = match &mut self.ahead {
                Some(ahead) => ahead.load(chunks, &asked).await?,
                None => chunks.load(&asked.wanted).await?,
            };
            for (index, window, share) in plans.drain(..) {
                self.lanes[index].open(self.extent, window, &loaded[share]);
            }
        }
        Ok(())
    }

    /// Up to which key lanes have to be open: that of the nearest tick at hand; while there is none, the end of the
    /// nearest window. `None` at the end.
    fn until(&self) -> Option<Key> {
        let order = self.extent.order;
        let nearer = |a: Key, b: Key| if order.before(b, a) { b } else { a };
        let at_hand = self.lanes.iter().flat_map(|lane| &lane.runs).map(|run| run.peek(order));
        at_hand.reduce(nearer).or_else(|| {
            let closed = self.lanes.iter().filter_map(|lane| Some((lane.closed()?, lane)));
            let (_, nearest) = closed.reduce(|a, b| if order.before(b.0, a.0) { b } else { a })?;
            Some(nearest.window(self.extent).edge(order))
        })
    }

    /// Takes ticks from the run with the nearest key until the runner-up, or a window to come, is nearer; usually there
    /// is only one run.
    pub(super) fn take(&mut self, most: usize) -> Option<Stretch<'_>> {
        let order = self.extent.order;
        let mut best: Option<(Key, usize, usize)> = None;
        let mut next: Option<Key> = None;
        for (lane_index, lane) in self.lanes.iter().enumerate() {
            for (run_index, run) in lane.runs.iter().enumerate() {
                let key = run.peek(order);
                match best {
                    Some((nearest, ..)) if !order.before(key, nearest) => {
                        if next.is_none_or(|next| order.before(key, next)) {
                            next = Some(key);
                        }
                    }
                    _ => {
                        next = best.map(|(nearest, ..)| nearest);
                        best = Some((key, lane_index, run_index));
                    }
                }
            }
        }
        for closed in self.lanes.iter().filter_map(Lane::closed) {
            if next.is_none_or(|next| order.before(closed, next)) {
                next = Some(closed);
            }
        }
        let (_, lane, run) = best?;
        let Lane { runs, holding, .. } = &mut self.lanes[lane];
        let (last, taken) = runs[run].take(order, next, most);
        self.extent.after = Some(last);
        Some(runs[run].stretch(holding, taken))
    }
}

impl Order {
    /// Whether a key comes before another in this direction.
    pub(super) fn before(self, key: Key, other: Key) -> bool {
        match self {
            Order::Ascending => key < other,
            Order::Descending => key > other,
        }
    }
}
