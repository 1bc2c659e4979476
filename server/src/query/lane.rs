//! The ticks of one instrument for a scan, window by window.

use std::ops::Range;
use std::sync::Arc;

use crate::domain::InstrumentId;
use crate::domain::chunk::Chunk;
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
    /// The ordinary chunks whose windows are still to come.
    ahead: Range<usize>,
    /// Where the hot ticks of the extent are, ascending by key, those still to come.
    hot: Arc<Vec<HotTick>>,
    /// Ticks at hand, each run ascending by key.
    pub(super) runs: Vec<Run>,
    /// Whether the last window was opened.
    pub(super) ended: bool,
}

/// Where a hot tick is.
#[derive(Clone, Copy, Debug)]
pub(super) struct HotTick {
    key: Key,
    pub(super) block: u32,
    pub(super) index: u32,
}

/// A stretch of keys, and the chunks that have ticks in it.
#[derive(Debug)]
pub(super) struct Window {
    bounds: Bounds,
    /// The ordinary chunks that are left after this window.
    ahead: Range<usize>,
    /// Whether no window follows.
    last: bool,
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
    pub(super) fn plan(&self, extent: Extent, asked: &mut Asked) -> Window {
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
        for (header, late) in self.touched(bounds, extent.position) {
            asked.wanted.push((header.id, self.instrument));
            asked.again.push(late);
        }
        let soon = self.holding.chunks[ahead.clone()].iter().filter(|header| header.min_seq <= extent.position);
        let soon = soon.map(|header| header.id);
        asked.soon.push(match extent.order {
            Order::Ascending => soon.take(AHEAD_CHUNKS).collect(),
            Order::Descending => soon.rev().take(AHEAD_CHUNKS).collect(),
        });
        Window { bounds, ahead, last: next.is_none() }
    }

    /// The chunks with ticks in a window at a position, and whether they are late ones. The window ends at the edge of
    /// an ordinary chunk, so at most one of those is among them.
    fn touched(&self, bounds: Bounds, position: u64) -> impl Iterator<Item = (&Arc<ChunkHeader>, bool)> {
        let ordinary = &self.holding.chunks[bounds.stretch(&self.holding.chunks)];
        let ordinary = ordinary.iter().map(|header| (header, false));
        let late = self.holding.late.iter().map(|header| (header, true));
        ordinary.chain(late).filter(move |(header, _)| bounds.overlaps(header) && header.min_seq <= position)
    }

    /// Forgets runs of which everything was taken.
    pub(super) fn forget_empty_runs(&mut self) {
        self.runs.retain(|run| !run.rest.is_empty());
    }

    /// Takes the chunks of a planned window in.
    pub(super) fn open(&mut self, extent: Extent, window: Window, loaded: &[Arc<Chunk>]) {
        let headers = self.touched(window.bounds, extent.position);
        let mut runs: Vec<Run> = headers
            .zip(loaded)
            .map(|((header, _), chunk)| Run::of_chunk(header, chunk, window.bounds, extent.position))
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
