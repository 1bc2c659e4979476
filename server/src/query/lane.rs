//! The ticks of one instrument for a scan, window by window.

use std::ops::Range;
use std::sync::Arc;

use crate::domain::InstrumentId;
use crate::domain::chunk::Chunk;
use crate::store::ChunkId;
use crate::tape::{ChunkHeader, Holding};

use super::ahead::{AHEAD_CHUNKS, Asked};
use super::keys::{Bounds, Key, successor};
use super::scan::{Extent, HotStretch, Order, Stretch};

/// The ticks of one instrument.
#[derive(Debug)]
pub(super) struct Lane {
    instrument: InstrumentId,
    pub(super) holding: Arc<Holding>,
    /// What no window has covered yet.
    rest: Bounds,
    /// The ordinary chunks that no window has covered to their ends.
    ahead: Range<usize>,
    /// Where the hot ticks of the extent are, ascending by key.
    hot: Arc<Vec<HotTick>>,
    /// Chunks of the last window that reach beyond it.
    held: Vec<(ChunkId, Arc<Chunk>)>,
    /// Ticks at hand, each run ascending by key.
    pub(super) runs: Vec<Run>,
    /// Nothing in windows to come lies before this key, in the direction of the scan; `None` if no window is to come.
    next: Option<Key>,
}

/// Where a hot tick is.
#[derive(Clone, Copy, Debug)]
pub(super) struct HotTick {
    key: Key,
    pub(super) block: u32,
    pub(super) index: u32,
}

/// A stretch of keys.
#[derive(Debug)]
pub(super) struct Window {
    bounds: Bounds,
    /// The ordinary chunks that are left after it.
    ahead: Range<usize>,
}

impl Window {
    /// The key at which it ends in the direction of a scan.
    pub(super) fn edge(&self, order: Order) -> Key {
        match order {
            Order::Ascending => self.bounds.high,
            Order::Descending => self.bounds.low,
        }
    }

    /// Whether a chunk has keys beyond it.
    fn is_left_by(&self, header: &ChunkHeader, order: Order) -> bool {
        match order {
            Order::Ascending => header.last_key() >= self.bounds.high,
            Order::Descending => header.first_key() < self.bounds.low,
        }
    }
}

impl Lane {
    pub(super) fn new(instrument: InstrumentId, holding: Arc<Holding>, extent: Extent) -> Lane {
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
        let mut lane = Lane {
            instrument,
            rest: bounds,
            ahead: bounds.stretch(&holding.chunks),
            hot: Arc::new(hot),
            held: Vec::new(),
            runs: Vec::new(),
            next: None,
            holding,
        };
        lane.next = lane.nearest(extent);
        lane
    }

    /// Where the next window would begin, if there is nothing at hand.
    pub(super) fn closed(&self) -> Option<Key> {
        self.next.filter(|_| self.runs.is_empty())
    }

    /// Whether everything was taken.
    pub(super) fn is_over(&self) -> bool {
        self.runs.is_empty() && self.next.is_none()
    }

    /// Nothing that is left lies before this key; `None` if nothing is left.
    fn nearest(&self, extent: Extent) -> Option<Key> {
        if self.rest.is_empty() {
            return None;
        }
        let (ordinary, _) = self.next_ordinary(extent.order);
        let chunks = ordinary.iter().chain(self.late(extent.position));
        match extent.order {
            Order::Ascending => {
                let hot = self.hot.partition_point(|tick| tick.key < self.rest.low);
                let hot = self.hot.get(hot).map(|tick| tick.key);
                chunks.map(|header| header.first_key().max(self.rest.low)).chain(hot).min()
            }
            Order::Descending => {
                let hot = self.hot.partition_point(|tick| tick.key < self.rest.high);
                let hot = self.hot[..hot].last().map(|tick| tick.key);
                chunks.map(|header| header.last_key().min(self.rest.high)).chain(hot).max()
            }
        }
    }

    /// The ordinary chunk that comes next, and those that follow it.
    fn next_ordinary(&self, order: Order) -> (Option<Arc<ChunkHeader>>, Range<usize>) {
        let mut ahead = self.ahead.clone();
        let next = match order {
            Order::Ascending => ahead.next(),
            Order::Descending => ahead.next_back(),
        };
        (next.and_then(|index| self.holding.chunks.get(index)), ahead)
    }

    /// The late chunks with ticks in what is left.
    fn late(&self, position: u64) -> impl Iterator<Item = &Arc<ChunkHeader>> {
        let late = self.holding.late.iter();
        late.filter(move |header| self.rest.overlaps(header) && header.min_seq <= position)
    }

    /// The next window. It ends where the first chunk does, so that all of its chunks overlap each other.
    pub(super) fn window(&self, extent: Extent) -> Window {
        let (ordinary, following) = self.next_ordinary(extent.order);
        let mut window = Window { bounds: self.rest, ahead: self.ahead.clone() };
        let bounds = &mut window.bounds;
        for header in ordinary.iter().chain(self.late(extent.position)) {
            match extent.order {
                Order::Ascending => bounds.high = bounds.high.min(successor(header.last_key())),
                Order::Descending => bounds.low = bounds.low.max(header.first_key()),
            }
        }
        if ordinary.is_some_and(|header| !window.is_left_by(&header, extent.order)) {
            window.ahead = following;
        }
        window
    }

    /// The next window, and the chunks to load for it, in the order of [`Lane::touched`].
    pub(super) fn plan(&self, extent: Extent, asked: &mut Asked) -> Window {
        let window = self.window(extent);
        let new = self.touched(window.bounds, extent.position).filter(|header| self.held(header.id).is_none());
        asked.wanted.extend(new.map(|header| (header.id, self.instrument)));
        let (_, following) = self.next_ordinary(extent.order);
        let soon = self.holding.chunks.range(following).filter(|header| header.min_seq <= extent.position);
        let soon = soon.map(|header| header.id);
        asked.soon.push(match extent.order {
            Order::Ascending => soon.take(AHEAD_CHUNKS).collect(),
            Order::Descending => soon.rev().take(AHEAD_CHUNKS).collect(),
        });
        window
    }

    /// The chunks with ticks in a window at a position.
    fn touched(&self, bounds: Bounds, position: u64) -> impl Iterator<Item = Arc<ChunkHeader>> {
        let ordinary = self.holding.chunks.range(bounds.stretch(&self.holding.chunks));
        let chunks = ordinary.chain(self.holding.late.iter().cloned());
        chunks.filter(move |header| bounds.overlaps(header) && header.min_seq <= position)
    }

    fn held(&self, id: ChunkId) -> Option<&Arc<Chunk>> {
        self.held.iter().find(|(held, _)| *held == id).map(|(_, chunk)| chunk)
    }

    /// Forgets runs of which everything was taken.
    pub(super) fn forget_empty_runs(&mut self) {
        self.runs.retain(|run| !run.rest.is_empty());
    }

    /// Takes the chunks of a planned window in.
    pub(super) fn open(&mut self, extent: Extent, window: Window, loaded: &[Arc<Chunk>]) {
        let (mut runs, mut held) = (Vec::new(), Vec::new());
        let mut loaded = loaded.iter();
        for header in self.touched(window.bounds, extent.position) {
            let Some(chunk) = self.held(header.id).or_else(|| loaded.next()) else { break };
            runs.push(Run::of_chunk(&header, chunk, window.bounds, extent.position));
            if window.is_left_by(&header, extent.order) {
                held.push((header.id, chunk.clone()));
            }
        }
        let from = self.hot.partition_point(|tick| tick.key < window.bounds.low);
        let to = self.hot.partition_point(|tick| tick.key < window.bounds.high);
        runs.push(Run { source: Source::Hot(self.hot.clone()), rest: from..to.max(from) });
        runs.retain(|run| !run.rest.is_empty());
        (self.runs, self.held) = (runs, held);
        match extent.order {
            Order::Ascending => self.rest.low = window.bounds.high,
            Order::Descending => self.rest.high = window.bounds.low,
        }
        self.ahead = window.ahead;
        self.next = self.nearest(extent);
    }
}

/// Ticks of one source inside one window, ascending by key; taken from the front or from the back.
#[derive(Debug)]
pub(super) struct Run {
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

    /// The key of the nearest tick. There must be one.
    pub(super) fn peek(&self, order: Order) -> Key {
        self.key(self.nearest(order))
    }

    fn key(&self, index: usize) -> Key {
        match &self.source {
            Source::Chunk(chunk) => chunk.key(index),
            Source::Picked(chunk, picked) => chunk.key(picked[index]),
            Source::Hot(hot) => hot[index].key,
        }
    }

    /// Takes the nearest ticks up to a key, at least one and at most `most`, that lie side by side: the key of the
    /// last one in this direction, and where they are.
    pub(super) fn take(&mut self, order: Order, until: Option<Key>, most: usize) -> (Key, Range<usize>) {
        let most = most.min(self.rest.len());
        // The index of the nth tick in this direction.
        let rest = self.rest.clone();
        let nth = |n: usize| match order {
            Order::Ascending => rest.start + n,
            Order::Descending => rest.end - 1 - n,
        };
        let mut count = match until {
            None => most,
            Some(until) => {
                let near = (1..most).take_while(|&n| order.before(self.key(nth(n)), until));
                near.count() + 1
            }
        };
        if let Source::Picked(_, picked) = &self.source {
            let beside = (1..count).take_while(|&n| picked[nth(n)].abs_diff(picked[nth(n - 1)]) == 1);
            count = beside.count() + 1;
        }
        let last = self.key(nth(count - 1));
        let taken = match order {
            Order::Ascending => rest.start..rest.start + count,
            Order::Descending => rest.end - count..rest.end,
        };
        match order {
            Order::Ascending => self.rest.start += count,
            Order::Descending => self.rest.end -= count,
        }
        (last, taken)
    }

    /// What [`Run::take`] took.
    pub(super) fn stretch<'a>(&'a self, holding: &'a Holding, taken: Range<usize>) -> Stretch<'a> {
        match &self.source {
            Source::Chunk(chunk) => Stretch::Chunk(chunk, taken),
            Source::Picked(chunk, picked) => Stretch::Chunk(chunk, picked[taken.start]..picked[taken.end - 1] + 1),
            Source::Hot(hot) => Stretch::Hot(HotStretch { holding, places: &hot[taken] }),
        }
    }
}
