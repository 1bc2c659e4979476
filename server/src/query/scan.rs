//! Ticks in order: one instrument, or several merged, at one position, forward or backward.
//!
//! A [`Scan`] goes window by window. A window is the stretch of keys up to the end of the next ordinary chunk (going
//! backward: down to its start); late chunks and hot ticks that fall into it are merged in. So it holds, for each
//! instrument, one ordinary chunk, the late chunks of one day, and an index of the instrument's hot ticks in range.
//! It remembers the last key that it gave out: on another view it goes on from there.

use std::ops::Range;
use std::sync::Arc;

use crate::domain::chunk::Chunk;
use crate::domain::{InstrumentId, Tick, TimeRange};
use crate::store::ChunkId;
use crate::tape::{ChunkHeader, Holding, View};

use super::cache::{ChunkCache, ChunkError};
use super::keys::{Bounds, Key, successor};

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
    fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::of(self.range);
        match (self.after, self.order) {
            (Some(key), Order::Ascending) => bounds.low = bounds.low.max(successor(key)),
            (Some(key), Order::Descending) => bounds.high = bounds.high.min(key),
            (None, _) => {}
        }
        bounds
    }
}

/// Reads ticks in order, a batch at a time.
#[derive(Debug)]
pub struct Scan {
    extent: Extent,
    lanes: Vec<Lane>,
}

impl Scan {
    /// A scan over the ticks of instruments, merged by key. Reads nothing yet.
    pub fn new(view: &View, instruments: &[InstrumentId], extent: Extent) -> Scan {
        let lanes =
            instruments.iter().filter_map(|&id| Some(Lane::new(id, view.holding(id)?.clone(), extent))).collect();
        Scan { extent, lanes }
    }

    /// The same scan on another view of the same log, going on after the last tick that was given. Also for readers
    /// that pause: between batches nothing but the extent has to be kept.
    pub fn resume(self, view: &View, instruments: &[InstrumentId]) -> Scan {
        Scan::new(view, instruments, self.extent)
    }

    /// What is left to give.
    pub fn extent(&self) -> Extent {
        self.extent
    }

    /// Appends the next ticks until `ticks` has `most`; fewer means the end. After an error the scan is to be resumed
    /// on another view; `ticks` keeps what was given.
    pub async fn read(&mut self, chunks: &ChunkCache, most: usize, ticks: &mut Vec<Tick>) -> Result<(), ChunkError> {
        while ticks.len() < most && self.fill(chunks).await? {
            self.merge(most, ticks);
        }
        Ok(())
    }

    /// Opens windows until every lane that has not ended has ticks at hand; false when all have ended.
    async fn fill(&mut self, chunks: &ChunkCache) -> Result<bool, ChunkError> {
        let mut wanted = Vec::new();
        let mut plans = Vec::new();
        loop {
            for (index, lane) in self.lanes.iter().enumerate() {
                if lane.runs.is_empty() && !lane.ended {
                    let from = wanted.len();
                    let window = lane.plan(self.extent, &mut wanted);
                    plans.push((index, window, from..wanted.len()));
                }
            }
            if plans.is_empty() {
                self.lanes.retain(|lane| !lane.runs.is_empty());
                return Ok(!self.lanes.is_empty());
            }
            let loaded = chunks.load(&wanted).await?;
            for (index, window, share) in plans.drain(..) {
                self.lanes[index].open(self.extent, window, &loaded[share]);
            }
            wanted.clear();
        }
    }

    /// Gives ticks while every lane has some at hand.
    fn merge(&mut self, most: usize, ticks: &mut Vec<Tick>) {
        let order = self.extent.order;
        while ticks.len() < most {
            // The run with the nearest key gives until the runner-up is nearer; usually there is only one run.
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
            let Some((_, lane_index, run_index)) = best else {
                return;
            };
            let lane = &mut self.lanes[lane_index];
            let run = &mut lane.runs[run_index];
            while !run.rest.is_empty() && ticks.len() < most {
                let key = run.peek(order);
                if next.is_some_and(|next| order.before(next, key)) {
                    break;
                }
                ticks.push(run.take(&lane.holding, order));
                self.extent.after = Some(key);
            }
            if run.rest.is_empty() {
                lane.runs.swap_remove(run_index);
                if lane.runs.is_empty() {
                    return;
                }
            }
        }
    }
}

impl Order {
    /// Whether a key comes before another in this direction.
    fn before(self, key: Key, other: Key) -> bool {
        match self {
            Order::Ascending => key < other,
            Order::Descending => key > other,
        }
    }
}

/// The ticks of one instrument.
#[derive(Debug)]
struct Lane {
    instrument: InstrumentId,
    holding: Arc<Holding>,
    /// What no window has covered yet.
    rest: Bounds,
    /// The ordinary chunks whose windows are still to come.
    ahead: Range<usize>,
    /// Where the hot ticks of the extent are, ascending by key, those still to come.
    hot: Arc<Vec<HotTick>>,
    /// Ticks at hand, each run ascending by key.
    runs: Vec<Run>,
    /// Whether the last window was opened.
    ended: bool,
}

/// Where a hot tick is.
#[derive(Clone, Copy, Debug)]
struct HotTick {
    key: Key,
    block: u32,
    index: u32,
}

/// A stretch of keys, and the chunks that have ticks in it.
#[derive(Debug)]
struct Window {
    bounds: Bounds,
    /// The ordinary chunks that are left after this window.
    ahead: Range<usize>,
    /// Whether no window follows.
    last: bool,
}

impl Lane {
    fn new(instrument: InstrumentId, holding: Arc<Holding>, extent: Extent) -> Lane {
        let bounds = extent.bounds();
        let mut hot = Vec::new();
        for (block, ticks) in holding.hot.iter().enumerate() {
            for (index, tick) in ticks.iter().enumerate() {
                // Blocks are in the order of the log: the rest of this one came later still.
                if tick.log_seq > extent.position {
                    break;
                }
                if bounds.contains(tick.key()) {
                    hot.push(HotTick { key: tick.key(), block: block as u32, index: index as u32 });
                }
            }
        }
        hot.sort_unstable_by_key(|tick| tick.key);
        Lane {
            instrument,
            rest: bounds,
            ahead: bounds.stretch(&holding.chunks),
            hot: Arc::new(hot),
            runs: Vec::new(),
            ended: bounds.is_empty(),
            holding,
        }
    }

    /// The next window, and the chunks to load for it: ordinary first, in the order of [`Lane::touched`].
    fn plan(&self, extent: Extent, wanted: &mut Vec<(ChunkId, InstrumentId)>) -> Window {
        let mut bounds = self.rest;
        let mut ahead = self.ahead.clone();
        let next = match extent.order {
            Order::Ascending => ahead.next(),
            Order::Descending => ahead.next_back(),
        };
        if let Some(index) = next {
            let header = &self.holding.chunks[index];
            match extent.order {
                Order::Ascending => bounds.high = bounds.high.min(successor(header.last_key())),
                Order::Descending => bounds.low = bounds.low.max(header.first_key()),
            }
        }
        let touched = self.touched(bounds, extent.position);
        wanted.extend(touched.map(|header| (header.id, self.instrument)));
        Window { bounds, ahead, last: next.is_none() }
    }

    /// The chunks with ticks in a window at a position. The window ends at the edge of an ordinary chunk, so at most
    /// one of those is among them.
    fn touched(&self, bounds: Bounds, position: u64) -> impl Iterator<Item = &Arc<ChunkHeader>> {
        let ordinary = &self.holding.chunks[bounds.stretch(&self.holding.chunks)];
        let late = self.holding.late.iter();
        ordinary.iter().chain(late).filter(move |header| bounds.overlaps(header) && header.min_seq <= position)
    }

    /// Takes the chunks of a planned window in.
    fn open(&mut self, extent: Extent, window: Window, loaded: &[Arc<Chunk>]) {
        let headers = self.touched(window.bounds, extent.position);
        let mut runs: Vec<Run> = headers
            .zip(loaded)
            .map(|(header, chunk)| Run::of_chunk(header, chunk, window.bounds, extent.position))
            .collect();
        let from = self.hot.partition_point(|tick| tick.key < window.bounds.low);
        let to = self.hot.partition_point(|tick| tick.key < window.bounds.high);
        runs.push(Run { source: Source::Hot(self.hot.clone()), rest: from..to.max(from) });
        runs.retain(|run| !run.rest.is_empty());
        self.runs = runs;
        match extent.order {
            Order::Ascending => self.rest.low = window.bounds.high,
            Order::Descending => self.rest.high = window.bounds.low,
        }
        self.ahead = window.ahead;
        self.ended = window.last || self.rest.is_empty();
    }
}

/// Ticks of one source inside one window, ascending by key; taken from the front or from the back.
#[derive(Debug)]
struct Run {
    source: Source,
    rest: Range<usize>,
}

#[derive(Debug)]
enum Source {
    /// A stretch of a chunk.
    Chunk(Arc<Chunk>),
    /// These ticks of a chunk, which also has later positions than the scan's.
    Picked(Arc<Chunk>, Vec<usize>),
    /// Hot ticks.
    Hot(Arc<Vec<HotTick>>),
}

impl Run {
    fn of_chunk(header: &ChunkHeader, chunk: &Arc<Chunk>, bounds: Bounds, position: u64) -> Run {
        let rest = bounds.indexes(chunk);
        if header.max_seq <= position {
            return Run { source: Source::Chunk(chunk.clone()), rest };
        }
        let log_seqs = chunk.log_seqs();
        let picked: Vec<usize> = rest.filter(|&index| log_seqs[index] <= position).collect();
        Run { rest: 0..picked.len(), source: Source::Picked(chunk.clone(), picked) }
    }

    fn nearest(&self, order: Order) -> usize {
        match order {
            Order::Ascending => self.rest.start,
            Order::Descending => self.rest.end - 1,
        }
    }

    fn peek(&self, order: Order) -> Key {
        let index = self.nearest(order);
        match &self.source {
            Source::Chunk(chunk) => chunk.key(index),
            Source::Picked(chunk, picked) => chunk.key(picked[index]),
            Source::Hot(hot) => hot[index].key,
        }
    }

    fn take(&mut self, holding: &Holding, order: Order) -> Tick {
        let index = self.nearest(order);
        match order {
            Order::Ascending => self.rest.start += 1,
            Order::Descending => self.rest.end -= 1,
        }
        match &self.source {
            Source::Chunk(chunk) => chunk.tick(index),
            Source::Picked(chunk, picked) => chunk.tick(picked[index]),
            Source::Hot(hot) => {
                let HotTick { block, index, .. } = hot[index];
                holding.hot[block as usize][index as usize].clone()
            }
        }
    }
}
