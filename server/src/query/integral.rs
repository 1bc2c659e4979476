//! The time-weighted sum of one instrument's prices, and the price that held before an instant.
//!
//! Unlike totals, the integral depends on which tick follows which. A chunk's own integral counts only where no late
//! or hot tick falls inside its span; there the ticks are merged by key first.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::domain::chunk::Points;
use crate::domain::statistics::{PricePoint, Statistics};
use crate::domain::{I256, InstrumentId, UnixNanos};
use crate::store::ChunkId;
use crate::tape::{ChunkHeader, Holding};

use super::cache::{self, ChunkCache, ChunkError};
use super::keys::{Bounds, Key};

/// A run of ticks in order: its ends, and the price between them added up over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Integral {
    /// The first tick.
    pub(super) first: Option<PricePoint>,
    /// The last tick.
    pub(super) last: Option<PricePoint>,
    /// Price times nanoseconds from the first tick to the last, in units of 10^-18 * 1 ns.
    pub(super) sum: I256,
}

impl Integral {
    /// Lets the last price hold until an instant, which does not lie before the last tick.
    pub(super) fn hold(&mut self, until: UnixNanos) {
        if let Some(last) = self.last {
            self.sum += last.weight_until(until);
        }
    }

    /// Adds a tick after the last one.
    fn push(&mut self, point: PricePoint) {
        self.hold(point.event_time);
        self.first.get_or_insert(point);
        self.last = Some(point);
    }

    /// Adds a run of ticks that all come after the last one, by its ends and its own sum.
    fn append(&mut self, first: Option<PricePoint>, last: Option<PricePoint>, sum: I256) {
        let (Some(first), Some(last)) = (first, last) else {
            return;
        };
        self.hold(first.event_time);
        self.first.get_or_insert(first);
        self.last = Some(last);
        self.sum += sum;
    }
}

/// One instrument's ticks at one position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticks<'a> {
    pub(super) chunks: &'a ChunkCache,
    pub(super) instrument: InstrumentId,
    pub(super) holding: &'a Holding,
    pub(super) position: u64,
    /// Whether that is the view's own position, after which nothing in the view comes.
    pub(super) current: bool,
}

impl Ticks<'_> {
    /// The integral over the ticks inside bounds.
    pub(super) async fn integral(&self, bounds: Bounds) -> Result<Integral, ChunkError> {
        let mut integral = Integral::default();
        if bounds.is_empty() {
            return Ok(integral);
        }
        let mut late: VecDeque<&Arc<ChunkHeader>> = self.late(bounds).collect();
        late.make_contiguous().sort_unstable_by_key(|header| header.first_key());
        // Ticks outside ordinary chunks that are still to come, ascending. Late chunks join when their first tick is
        // reached, so this holds the hot ticks and those of late chunks that overlap.
        let mut loose = self.hot(bounds);
        let chunks = &*self.holding.chunks;
        let mut stretch = bounds.stretch(chunks);
        while let Some(index) = stretch.next() {
            let Some(header) = chunks.get(index) else { break };
            let (first, last) = (header.first_key(), header.last_key());
            while late.front().is_some_and(|header| header.first_key() < last) {
                let joining = part_before(&mut late, last);
                push_before(&mut integral, &mut loose, joining[0].first_key().min(first));
                self.join(&mut loose, &joining, bounds).await?;
            }
            push_before(&mut integral, &mut loose, first);
            let mixed = loose.front().is_some_and(|point| point.key() < last);
            if !mixed && header.max_seq <= self.position && bounds.covers(&header) {
                let calm = index..self.calm_until(index..stretch.end, bounds, &loose, &late);
                stretch.start = calm.end;
                let last = chunks.get(calm.end - 1).and_then(|header| header.statistics.totals.last);
                integral.append(header.statistics.totals.first, last, chunks.integral(calm));
                continue;
            }
            if header.min_seq > self.position {
                continue;
            }
            let points = self.load(&header).await?;
            if !mixed && header.max_seq <= self.position {
                let Statistics { totals, integral: sum } = Statistics::of_range(&points, bounds.indexes(&points));
                integral.append(totals.first, totals.last, sum);
                continue;
            }
            for point in self.inside(&points, bounds) {
                push_before(&mut integral, &mut loose, point.key());
                integral.push(point);
            }
        }
        while !late.is_empty() {
            let joining = part_before(&mut late, bounds.high);
            push_before(&mut integral, &mut loose, joining[0].first_key());
            self.join(&mut loose, &joining, bounds).await?;
        }
        for point in loose {
            integral.push(point);
        }
        Ok(integral)
    }

    /// The end of the run of chunks, from one that is known to count as a whole, into which nothing else falls.
    fn calm_until(
        &self,
        stretch: Range<usize>,
        bounds: Bounds,
        loose: &VecDeque<PricePoint>,
        late: &VecDeque<&Arc<ChunkHeader>>,
    ) -> usize {
        if !self.current {
            return stretch.start + 1;
        }
        let loose = loose.front().map(PricePoint::key);
        let late = late.front().map(|header| header.first_key());
        let disturbed = loose.into_iter().chain(late).chain([bounds.high]).min().unwrap_or(bounds.high);
        let calm = self.holding.chunks.partition_point(|header| header.last_key() < disturbed);
        calm.clamp(stretch.start + 1, stretch.end)
    }

    /// The last tick before an instant.
    pub(super) async fn last_before(&self, instant: UnixNanos) -> Result<Option<PricePoint>, ChunkError> {
        let bounds = Bounds { low: (UnixNanos::MIN, 0), high: (instant, 0) };
        let mut newest = self.hot(bounds).back().copied();
        let ordinary = self.holding.chunks.range(bounds.stretch(&self.holding.chunks));
        for header in ordinary.rev() {
            // Only when every tick of a chunk comes after the position does the one before it matter.
            if let Some(point) = self.last_of(&header, bounds, newest).await? {
                newest = Some(later(newest, point));
                break;
            }
        }
        for header in self.late(bounds) {
            if let Some(point) = self.last_of(header, bounds, newest).await? {
                newest = Some(later(newest, point));
            }
        }
        Ok(newest)
    }

    /// The last tick of a chunk inside bounds; `None` also when it cannot lie after `newest`.
    async fn last_of(
        &self,
        header: &Arc<ChunkHeader>,
        bounds: Bounds,
        newest: Option<PricePoint>,
    ) -> Result<Option<PricePoint>, ChunkError> {
        if header.min_seq > self.position {
            return Ok(None);
        }
        if header.max_seq <= self.position && bounds.covers(header) {
            return Ok(header.statistics.totals.last);
        }
        if newest.is_some_and(|newest| header.last_key() < newest.key()) {
            return Ok(None);
        }
        let points = self.load(header).await?;
        Ok(self.inside(&points, bounds).next_back())
    }

    /// The late chunks that have ticks inside bounds.
    fn late(&self, bounds: Bounds) -> impl Iterator<Item = &Arc<ChunkHeader>> {
        let position = self.position;
        let late = self.holding.late.iter();
        late.filter(move |header| header.min_seq <= position && bounds.overlaps(header))
    }

    /// The hot ticks inside bounds, ascending by key.
    fn hot(&self, bounds: Bounds) -> VecDeque<PricePoint> {
        let ticks = self.holding.hot_ticks();
        let inside = ticks.filter(|tick| tick.log_seq <= self.position && bounds.contains(tick.key()));
        let mut points: Vec<PricePoint> = inside.map(PricePoint::of).collect();
        points.sort_unstable_by_key(PricePoint::key);
        points.into()
    }

    /// Mixes late chunks into the loose ticks.
    async fn join(
        &self,
        loose: &mut VecDeque<PricePoint>,
        late: &[&Arc<ChunkHeader>],
        bounds: Bounds,
    ) -> Result<(), ChunkError> {
        let wanted: Vec<(ChunkId, InstrumentId)> = late.iter().map(|header| (header.id, self.instrument)).collect();
        for points in self.chunks.load::<Arc<Points>>(&wanted).await? {
            loose.extend(self.inside(&points, bounds));
        }
        loose.make_contiguous().sort_by_key(PricePoint::key);
        Ok(())
    }

    async fn load(&self, header: &ChunkHeader) -> Result<Arc<Points>, ChunkError> {
        let mut loaded = self.chunks.load(&[(header.id, self.instrument)]).await?;
        loaded.pop().ok_or(ChunkError::Gone(header.id))
    }

    /// A chunk's ticks inside bounds at the position.
    fn inside(&self, points: &Points, bounds: Bounds) -> impl DoubleEndedIterator<Item = PricePoint> {
        let indexes = bounds.indexes(points);
        indexes.map(|index| points.point(index)).filter(|point| point.log_seq <= self.position)
    }
}

/// Takes late chunks that begin before a key, as many as are decoded together: at least one, if any does.
fn part_before<'a>(late: &mut VecDeque<&'a Arc<ChunkHeader>>, before: Key) -> Vec<&'a Arc<ChunkHeader>> {
    let joining = late.iter().take_while(|header| header.first_key() < before);
    let part = cache::part(joining.map(|header| header.tick_count()));
    late.drain(..part).collect()
}

/// Moves loose ticks before a key into the integral.
fn push_before(integral: &mut Integral, loose: &mut VecDeque<PricePoint>, before: Key) {
    while let Some(point) = loose.pop_front_if(|point| point.key() < before) {
        integral.push(point);
    }
}

fn later(newest: Option<PricePoint>, point: PricePoint) -> PricePoint {
    newest.filter(|newest| newest.key() > point.key()).unwrap_or(point)
}
