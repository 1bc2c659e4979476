//! Count, sums and extremes of a range: everything that adds up in any order.
//!
//! The chunks that lie wholly inside the range are one stretch, whose sums are a subtraction. What is left are the
//! chunks at its two edges, late chunks and hot ticks: they simply add, wherever they overlap. [`sums`] needs no
//! extremes and reads of an edge only what stands before it; [`totals`] decodes edges.

use std::ops::Range;
use std::sync::Arc;

use crate::domain::chunk::{Points, Prefix};
use crate::domain::statistics::{Sums, Totals};
use crate::domain::tally::Tally;
use crate::domain::{InstrumentId, TimeRange, UnixNanos};
use crate::store::ChunkId;
use crate::tape::{ChunkHeader, Chunks, Holding, HotBlock, View};

use super::cache::{self, ChunkCache, ChunkError};
use super::keys::Bounds;

/// Edges that are read at once.
const PART: usize = 64;

/// Sums of a range, and when its first and last ticks happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summed {
    pub(super) sums: Sums,
    pub(super) first: Option<UnixNanos>,
    pub(super) last: Option<UnixNanos>,
}

impl Summed {
    fn add(&mut self, sums: &Sums, first: UnixNanos, last: UnixNanos) {
        if sums.count == 0 {
            return;
        }
        self.sums.add(sums);
        self.first = Some(self.first.map_or(first, |held| held.min(first)));
        self.last = Some(self.last.map_or(last, |held| held.max(last)));
    }

    fn add_totals(&mut self, totals: &Totals) {
        if let (Some(first), Some(last)) = (totals.first, totals.last) {
            self.add(&Sums::from(totals), first.event_time, last.event_time);
        }
    }
}

impl From<&Totals> for Summed {
    fn from(totals: &Totals) -> Summed {
        let mut summed = Summed::default();
        summed.add_totals(totals);
        summed
    }
}

/// The sums of several instruments together.
pub(super) async fn sums(
    chunks: &ChunkCache,
    view: &View,
    instruments: &[InstrumentId],
    range: TimeRange,
) -> Result<Summed, ChunkError> {
    let bounds = Bounds::of(range);
    let mut summed = Summed::default();
    let mut edges: Vec<Arc<ChunkHeader>> = Vec::new();
    for holding in holdings(view, instruments, bounds) {
        let Parts { covered, edges: own } = Parts::of(holding, bounds);
        if let Some((first, last)) = ends(&holding.chunks, &covered) {
            summed.add(&holding.chunks.sums(covered), first.first_time, last.last_time);
        }
        for header in own {
            if bounds.covers(&header) {
                summed.add_totals(&header.statistics.totals);
            } else {
                edges.push(header);
            }
        }
        add_hot(holding, bounds, |totals| summed.add_totals(totals));
    }
    for part in edges.chunks(PART) {
        // Whole before the start and whole after the end need no reading.
        let mut asked: Vec<(ChunkId, UnixNanos)> = Vec::with_capacity(2 * part.len());
        let (start, end) = (range.start(), range.end());
        for header in part {
            asked.extend(start.filter(|start| header.first_time < *start).map(|at| (header.id, at)));
            asked.extend(end.filter(|end| header.last_time >= *end).map(|at| (header.id, at)));
        }
        let mut read = chunks.prefixes(&asked).await?.into_iter();
        for header in part {
            let mut take = |cut: bool| if cut { read.next() } else { None };
            let before: Option<Prefix> = take(start.is_some_and(|start| header.first_time < start));
            let until: Option<Prefix> = take(end.is_some_and(|end| header.last_time >= end));
            let (mut inside, last) = match until {
                Some(until) => (until.sums, until.last_before),
                None => (Sums::from(&header.statistics.totals), Some(header.last_time)),
            };
            let mut first = Some(header.first_time);
            if let Some(before) = before {
                let damaged = || cache::corrupt(header.id, &"its index has sums that its header has not");
                inside = inside.without(&before.sums).ok_or_else(damaged)?;
                first = before.first_after;
            }
            if let (Some(first), Some(last)) = (first, last) {
                summed.add(&inside, first, last);
            }
        }
    }
    Ok(summed)
}

/// Where and at which position to add up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// By event time.
    pub(super) range: TimeRange,
    /// Ticks after it do not count.
    pub(super) position: u64,
}

/// The totals of each instrument, in the order asked.
pub(super) async fn totals(
    chunks: &ChunkCache,
    view: &View,
    instruments: &[InstrumentId],
    reach: Reach,
) -> Result<Vec<Totals>, ChunkError> {
    if reach.position < view.position() {
        return totals_before(chunks, view, instruments, reach).await;
    }
    let bounds = Bounds::of(reach.range);
    let mut all = Vec::with_capacity(instruments.len());
    for &instrument in instruments {
        let mut own = Totals::default();
        for holding in holdings(view, &[instrument], bounds) {
            let Parts { covered, edges } = Parts::of(holding, bounds);
            own.merge(&holding.chunks.totals(covered));
            let mut wanted = Vec::new();
            for header in edges {
                if bounds.covers(&header) {
                    own.merge(&header.statistics.totals);
                } else {
                    wanted.push(header);
                }
            }
            add_hot(holding, bounds, |totals| own.merge(totals));
            let mut wanted = &wanted[..];
            while !wanted.is_empty() {
                for (_, points) in &chunks.load_part::<Arc<Points>>(instrument, &mut wanted).await? {
                    own.merge(&Totals::of_range(points, bounds.indexes(points)));
                }
            }
        }
        all.push(own);
    }
    Ok(all)
}

/// The totals at a position before the view's, which a page was pinned to. Any chunk may hold later ticks: there are no
/// stretches, and a chunk with later ticks is decoded.
async fn totals_before(
    chunks: &ChunkCache,
    view: &View,
    instruments: &[InstrumentId],
    Reach { range, position }: Reach,
) -> Result<Vec<Totals>, ChunkError> {
    let bounds = Bounds::of(range);
    let mut all = Vec::with_capacity(instruments.len());
    for &instrument in instruments {
        let mut own = Totals::default();
        for holding in holdings(view, &[instrument], bounds) {
            let mut wanted = Vec::new();
            let ordinary = holding.chunks.range(bounds.stretch(&holding.chunks));
            let late = holding.late.iter().filter(|header| bounds.overlaps(header)).cloned();
            for header in ordinary.chain(late).filter(|header| header.min_seq <= position) {
                if header.max_seq <= position && bounds.covers(&header) {
                    own.merge(&header.statistics.totals);
                } else {
                    wanted.push(header);
                }
            }
            let mut tally = Tally::default();
            let known = holding.hot_ticks().filter(|tick| tick.log_seq <= position && bounds.contains(tick.key()));
            known.for_each(|tick| tally.add(tick));
            own.merge(&tally.totals());
            let mut wanted = &wanted[..];
            while !wanted.is_empty() {
                for (_, points) in &chunks.load_part::<Arc<Points>>(instrument, &mut wanted).await? {
                    let seqs = points.log_seqs();
                    for index in bounds.indexes(points).filter(|&index| seqs[index] <= position) {
                        own.add_point(points.point(index), points.positive_quantity(index));
                    }
                }
            }
        }
        all.push(own);
    }
    Ok(all)
}

/// The instruments that have ticks, if a tick can lie inside bounds at all.
fn holdings<'a>(view: &'a View, instruments: &'a [InstrumentId], bounds: Bounds) -> impl Iterator<Item = &'a Holding> {
    let asked = if bounds.is_empty() { &[] } else { instruments };
    asked.iter().filter_map(|&instrument| view.holding(instrument).map(|holding| &**holding))
}

/// The chunks of an instrument that have ticks inside bounds. A view holds nothing that came after its position.
struct Parts {
    /// The stretch of ordinary chunks that lie wholly inside.
    covered: Range<usize>,
    /// The others: at most two ordinary chunks, and late ones, of which some may lie wholly inside.
    edges: Vec<Arc<ChunkHeader>>,
}

impl Parts {
    fn of(holding: &Holding, bounds: Bounds) -> Parts {
        let mut covered = bounds.stretch(&holding.chunks);
        let reaches_out = |index: usize| holding.chunks.get(index).filter(|header| !bounds.covers(header));
        let mut edges = Vec::new();
        // Ordinary chunks are disjoint: only the first and the last can reach out.
        if let Some(header) = reaches_out(covered.start).filter(|_| !covered.is_empty()) {
            edges.push(header);
            covered.start += 1;
        }
        if !covered.is_empty()
            && let Some(header) = reaches_out(covered.end - 1)
        {
            edges.push(header);
            covered.end -= 1;
        }
        edges.extend(holding.late.iter().filter(|header| bounds.overlaps(header)).cloned());
        Parts { covered, edges }
    }
}

/// The first and the last of a stretch of chunks.
fn ends(chunks: &Chunks, stretch: &Range<usize>) -> Option<(Arc<ChunkHeader>, Arc<ChunkHeader>)> {
    let last = stretch.clone().next_back()?;
    Some((chunks.get(stretch.start)?, chunks.get(last)?))
}

/// Adds hot ticks: blocks that lie wholly inside by their totals, which are kept, others tick by tick.
fn add_hot(holding: &Holding, bounds: Bounds, mut add: impl FnMut(&Totals)) {
    let outside = |block: &HotBlock| block.last_key() < bounds.low || block.first_key() >= bounds.high;
    for block in holding.hot.iter().filter(|block| !outside(block)) {
        if bounds.contains(block.first_key()) && bounds.contains(block.last_key()) {
            add(block.totals());
            continue;
        }
        let mut tally = Tally::default();
        block.iter().filter(|tick| bounds.contains(tick.key())).for_each(|tick| tally.add(tick));
        add(&tally.totals());
    }
}
