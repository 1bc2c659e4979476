//! Count, sums and extremes of a range: everything that adds up in any order.
//!
//! A chunk that lies wholly inside the range and wholly at or before the position gives its own statistics; one at an
//! edge is decoded. Late chunks and hot ticks simply add, wherever they overlap.

use std::ops::Range;
use std::sync::Arc;

use crate::domain::chunk::Chunk;
use crate::domain::statistics::{Statistics, Totals};
use crate::domain::tally::Tally;
use crate::domain::{InstrumentId, TimeRange};
use crate::store::ChunkId;
use crate::tape::{ChunkHeader, Holding, View};

use super::cache::{ChunkCache, ChunkError};
use super::keys::Bounds;

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
    let bounds = Bounds::of(reach.range);
    let mut totals = Vec::with_capacity(instruments.len());
    let mut edges = Vec::new();
    let mut owners: Vec<Range<usize>> = Vec::new();
    for &instrument in instruments {
        let mut own = Totals::default();
        let from = edges.len();
        if let Some(holding) = view.holding(instrument).filter(|_| !bounds.is_empty()) {
            let mut edge = |header: &ChunkHeader| edges.push((header.id, instrument));
            add_headers(holding, bounds, reach.position, &mut own, &mut edge);
            add_hot(holding, bounds, reach.position, &mut own);
        }
        totals.push(own);
        owners.push(from..edges.len());
    }
    if edges.is_empty() {
        return Ok(totals);
    }
    for (own, owner) in totals.iter_mut().zip(owners) {
        // An instrument has few edges: two, and its late chunks there.
        for part in edges[owner].chunks(PART) {
            add_edges(chunks, part, bounds, reach.position, own).await?;
        }
    }
    Ok(totals)
}

/// Edges that are held decoded at once.
const PART: usize = 64;

fn add_headers(
    holding: &Holding,
    bounds: Bounds,
    position: u64,
    totals: &mut Totals,
    edge: &mut impl FnMut(&ChunkHeader),
) {
    let ordinary = &holding.chunks[bounds.stretch(&holding.chunks)];
    let late = holding.late.iter().filter(|header| bounds.overlaps(header));
    for header in ordinary.iter().chain(late) {
        if header.max_seq <= position && bounds.covers(header) {
            totals.merge(&header.statistics.totals);
        } else if header.min_seq <= position {
            edge(header);
        }
    }
}

fn add_hot(holding: &Holding, bounds: Bounds, position: u64, totals: &mut Totals) {
    if holding.hot.is_empty() {
        return;
    }
    let mut tally = Tally::default();
    for tick in holding.hot_ticks() {
        if tick.log_seq <= position && bounds.contains(tick.key()) {
            tally.add(tick);
        }
    }
    totals.merge(&tally.totals());
}

async fn add_edges(
    chunks: &ChunkCache,
    edges: &[(ChunkId, InstrumentId)],
    bounds: Bounds,
    position: u64,
    totals: &mut Totals,
) -> Result<(), ChunkError> {
    let loaded: Vec<Arc<Chunk>> = chunks.load(edges).await?;
    for chunk in &loaded {
        let (inside, seqs) = (bounds.indexes(chunk), chunk.log_seqs());
        if seqs[inside.clone()].iter().all(|&seq| seq <= position) {
            totals.merge(&Statistics::of_range(chunk, inside).totals);
            continue;
        }
        for index in inside.filter(|&index| seqs[index] <= position) {
            totals.add_point(chunk.point(index), chunk.quantity(index));
        }
    }
    Ok(())
}
