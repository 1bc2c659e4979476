//! The bars of one series, by stretches of intervals, at one position.
//!
//! A chunk that lies wholly inside a bar counts by its statistics, and so does a hot block; of the others the columns
//! are decoded. Late chunks and hot ticks simply add. At a position before the view's, what has later ticks is decoded
//! and they are left out.

use std::sync::Arc;

use crate::domain::bar::{BarBuilder, Interval};
use crate::domain::chunk::Points;
use crate::domain::statistics::PricePoint;
use crate::domain::{InstrumentId, UnixNanos};
use crate::tape::{ChunkHeader, Holding, View};

use crate::query::cache::{ChunkCache, ChunkError};
use crate::query::integral::Ticks;
use crate::query::keys::Bounds;

/// One instrument, or all venues of a symbol together, in one view at one position.
#[derive(Clone, Copy, Debug)]
pub(in crate::query) struct Series<'a> {
    pub(in crate::query) chunks: &'a ChunkCache,
    pub(in crate::query) view: &'a View,
    pub(in crate::query) instruments: &'a [InstrumentId],
    pub(in crate::query) position: u64,
    pub(in crate::query) interval: Interval,
}

impl<'a> Series<'a> {
    /// The bars that begin in `[from, until)`, both starts of bars; without an end, all from there on. Also such that have
    /// no ticks, but corrections: of those nothing but the revision is there.
    pub(in crate::query) async fn window(
        &self,
        from: UnixNanos,
        until: Option<UnixNanos>,
    ) -> Result<BarBuilder, ChunkError> {
        let bounds = bounds(from, until);
        let mut bars = BarBuilder::new(self.interval);
        if bounds.is_empty() {
            return Ok(bars);
        }
        for (instrument, holding) in self.holdings() {
            let mut wanted: Vec<Arc<ChunkHeader>> = Vec::new();
            let ordinary = holding.chunks.range(bounds.stretch(&holding.chunks));
            let late = holding.late.iter().filter(|header| bounds.overlaps(header)).cloned();
            for header in ordinary.chain(late).filter(|header| header.min_seq <= self.position) {
                let start = self.interval.start_of(header.first_time);
                let alone = start == self.interval.start_of(header.last_time) && bounds.covers(&header);
                if alone && header.max_seq <= self.position {
                    bars.push_whole(start, &header.statistics.totals, header.max_seq);
                } else {
                    wanted.push(header);
                }
            }
            self.add_hot(holding, bounds, &mut bars);
            let mut wanted = &wanted[..];
            while !wanted.is_empty() {
                for (header, points) in self.chunks.load_part::<Arc<Points>>(instrument, &mut wanted).await? {
                    self.add_chunk(header, &points, bounds, &mut bars);
                }
            }
            if let Some(corrections) = &holding.corrections {
                for logged in corrections.between((from, until), self.position) {
                    bars.revise(logged.correction.event_time, logged.log_seq);
                }
            }
        }
        Ok(bars)
    }

    fn add_chunk(&self, header: &ChunkHeader, points: &Points, bounds: Bounds, bars: &mut BarBuilder) {
        let inside = bounds.indexes(points);
        if header.max_seq <= self.position {
            bars.push_columns(points, inside);
            return;
        }
        let seqs = points.log_seqs();
        for index in inside.filter(|&index| seqs[index] <= self.position) {
            bars.push_point(points.point(index), points.positive_quantity(index));
        }
    }

    fn add_hot(&self, holding: &Holding, bounds: Bounds, bars: &mut BarBuilder) {
        for block in &holding.hot {
            let (first, last) = (block.first_key(), block.last_key());
            if last < bounds.low || first >= bounds.high {
                continue;
            }
            let start = self.interval.start_of(first.0);
            let last_seq = block.last().map_or(0, |tick| tick.log_seq);
            let alone = start == self.interval.start_of(last.0) && bounds.contains(first) && bounds.contains(last);
            if alone && last_seq <= self.position {
                bars.push_whole(start, block.totals(), last_seq);
                continue;
            }
            // Blocks are in the order of the log: once a tick is too new, so is the rest.
            for tick in block.iter().take_while(|tick| tick.log_seq <= self.position) {
                if bounds.contains(tick.key()) {
                    bars.push(tick);
                }
            }
        }
    }

    /// An instant at or after `from` before which there is no tick; `None` when there is none at all. What it says
    /// costs no reading, so there may still be none right behind it.
    pub(in crate::query) fn next_from(&self, from: UnixNanos) -> Option<UnixNanos> {
        let bounds = bounds(from, None);
        let mut next: Option<UnixNanos> = None;
        let mut see = |first: UnixNanos| {
            let first = first.max(from);
            next = Some(next.map_or(first, |held| held.min(first)));
        };
        for (_, holding) in self.holdings() {
            let mut ordinary = holding.chunks.range(bounds.stretch(&holding.chunks));
            if let Some(header) = ordinary.find(|header| header.min_seq <= self.position) {
                see(header.first_time);
            }
            let late = holding.late.iter().filter(|header| bounds.overlaps(header));
            for header in late.filter(|header| header.min_seq <= self.position) {
                see(header.first_time);
            }
            for block in holding.hot.iter().filter(|block| block.last_key() >= bounds.low) {
                let known = block.iter().take_while(|tick| tick.log_seq <= self.position);
                if let Some(first) = known.map(|tick| tick.event_time).filter(|time| *time >= from).min() {
                    see(first);
                }
            }
        }
        next
    }

    /// The last tick before an instant.
    pub(in crate::query) async fn last_before(&self, instant: UnixNanos) -> Result<Option<PricePoint>, ChunkError> {
        let mut last: Option<PricePoint> = None;
        for (instrument, holding) in self.holdings() {
            let current = self.position == self.view.position();
            let ticks = Ticks { chunks: self.chunks, instrument, holding, position: self.position, current };
            if let Some(point) = ticks.last_before(instant).await?
                && last.is_none_or(|last| last.key() < point.key())
            {
                last = Some(point);
            }
        }
        Ok(last)
    }

    fn holdings(&self) -> impl Iterator<Item = (InstrumentId, &'a Holding)> {
        let view = self.view;
        self.instruments.iter().filter_map(move |&id| view.holding(id).map(|holding| (id, &**holding)))
    }
}

fn bounds(from: UnixNanos, until: Option<UnixNanos>) -> Bounds {
    let everything = Bounds { low: (from, 0), high: (UnixNanos::MAX, u64::MAX) };
    until.map_or(everything, |until| Bounds { high: (until, 0), ..everything })
}

/// The newest event time of an instrument at a position.
pub(in crate::query) async fn newest(
    chunks: &ChunkCache,
    view: &View,
    instrument: InstrumentId,
    position: u64,
) -> Result<Option<UnixNanos>, ChunkError> {
    let Some(holding) = view.holding(instrument) else {
        return Ok(None);
    };
    let mut newest: Option<UnixNanos> = None;
    for block in &holding.hot {
        if block.last().is_some_and(|tick| tick.log_seq <= position) {
            newest = newest.max(Some(block.last_key().0));
        } else {
            let known = block.iter().take_while(|tick| tick.log_seq <= position);
            newest = newest.max(known.map(|tick| tick.event_time).max());
        }
    }
    // Of the ordinary chunks the last one with known ticks has the newest; of late ones each may.
    let known = |header: &Arc<ChunkHeader>| header.min_seq <= position;
    let last = holding.chunks.iter().rev().find(known);
    for header in last.into_iter().chain(holding.late.iter().filter(|header| known(header)).cloned()) {
        if Some(header.last_time) <= newest {
            continue;
        }
        if header.max_seq <= position {
            newest = Some(header.last_time);
            continue;
        }
        for points in chunks.load::<Arc<Points>>(&[(header.id, instrument)]).await? {
            let seqs = points.log_seqs();
            let last = (0..points.len()).rev().find(|&index| seqs[index] <= position);
            newest = newest.max(last.map(|index| points.event_time(index)));
        }
    }
    Ok(newest)
}
