//! Bars: what the ticks of one interval add up to, and when such an interval is over.
//!
//! [`BarBuilder`] makes every bar, those of history out of chunks and those of streams out of ticks: whatever the pieces
//! and their order, equal ticks give equal bars. [`Interval`] says which bar an instant belongs to, and [`final_until`]
//! which bars can only change by late ticks; a clock has no say in either.

mod interval;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;
use std::time::Duration;

use super::chunk::Points;
use super::statistics::{PricePoint, Totals};
use super::{Decimal, Tick, UnixNanos};

pub use interval::{Interval, IntervalInvalid, MOST_DAYS};

/// How long after the end of a bar its ticks are still waited for, by event time.
pub const LATENESS: Duration = Duration::from_secs(2);

/// Bars that end at or before this are final: the newest event time of a venue lies a lateness behind it, or the venue
/// was told to be complete up to there.
pub fn final_until(newest: Option<UnixNanos>, watermark: Option<UnixNanos>) -> UnixNanos {
    let settled = newest.map_or(UnixNanos::MIN, |newest| newest.saturating_sub(LATENESS));
    settled.max(watermark.unwrap_or(UnixNanos::MIN))
}

/// What the ticks of one bar add up to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Contents {
    /// Count, sums, and the points of open, high, low and close.
    pub totals: Totals,
    /// The greatest position among the ticks and the corrections of trades inside; 0 where there is none.
    pub revision: u64,
}

impl Contents {
    /// Adds ticks, in any order.
    pub fn add(&mut self, totals: &Totals, last_seq: u64) {
        self.totals.merge(totals);
        self.revision = self.revision.max(last_seq);
    }
}

/// What to give for an interval without ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Fill {
    /// Nothing.
    #[default]
    Skip,
    /// A bar without prices.
    Null,
    /// A bar whose prices are the close before it; nothing before the first tick.
    Previous,
}

/// The bar of one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// The start of the interval, inclusive.
    pub start: UnixNanos,
    /// The end of the interval, exclusive.
    pub end: UnixNanos,
    /// Its ticks.
    pub contents: Contents,
    /// The close before it, in an empty bar of [`Fill::Previous`].
    pub carried: Option<Decimal>,
    /// Whether only late ticks can change it.
    pub is_final: bool,
    /// Whether a feed lost data inside the interval and has not got it back.
    pub has_gap: bool,
}

/// Adds ticks up by interval, in any order and in pieces of any size.
#[derive(Clone, Debug)]
pub struct BarBuilder {
    interval: Interval,
    bars: BTreeMap<UnixNanos, Contents>,
}

impl BarBuilder {
    /// No ticks yet.
    pub fn new(interval: Interval) -> BarBuilder {
        BarBuilder { interval, bars: BTreeMap::new() }
    }

    /// Adds one tick. Returns the start of its bar.
    pub fn push(&mut self, tick: &Tick) -> UnixNanos {
        self.push_point(PricePoint::of(tick), tick.quantity)
    }

    /// Adds one tick by the values that count. Returns the start of its bar.
    pub fn push_point(&mut self, point: PricePoint, quantity: Option<Decimal>) -> UnixNanos {
        let start = self.interval.start_of(point.event_time);
        let contents = self.bars.entry(start).or_default();
        contents.totals.add_point(point, quantity);
        contents.revision = contents.revision.max(point.log_seq);
        start
    }

    /// Adds ticks that all belong to the bar that begins at `start`; `last_seq` is the greatest position among them.
    pub fn push_whole(&mut self, start: UnixNanos, totals: &Totals, last_seq: u64) {
        self.bars.entry(start).or_default().add(totals, last_seq);
    }

    /// Adds neighbouring ticks of a chunk, column by column.
    pub fn push_columns(&mut self, points: &Points, ticks: Range<usize>) {
        let mut rest = ticks;
        while !rest.is_empty() {
            let start = self.interval.start_of(points.event_time(rest.start));
            let end = self.interval.end_of(start);
            let end = end.map_or(rest.end, |end| points.index_at_from(rest.start, end).min(rest.end));
            let own = rest.start..end;
            let last_seq = points.log_seqs()[own.clone()].iter().copied().max().unwrap_or(0);
            self.push_whole(start, &Totals::of_range(points, own), last_seq);
            rest.start = end;
        }
    }

    /// Takes in that something was said of a trade of this time, at a position.
    pub fn revise(&mut self, event_time: UnixNanos, log_seq: u64) {
        let contents = self.bars.entry(self.interval.start_of(event_time)).or_default();
        contents.revision = contents.revision.max(log_seq);
    }

    /// The same without bars that have no ticks.
    pub fn with_ticks(mut self) -> BarBuilder {
        self.bars.retain(|_, contents| contents.totals.count > 0);
        self
    }

    /// Puts a bar in the place of the one with its start.
    pub fn insert(&mut self, start: UnixNanos, contents: Contents) {
        self.bars.insert(start, contents);
    }

    /// The contents of the bar that begins at `start`.
    pub fn get(&self, start: UnixNanos) -> Option<&Contents> {
        self.bars.get(&start)
    }

    /// The first bar.
    pub fn first(&self) -> Option<(UnixNanos, &Contents)> {
        self.bars.first_key_value().map(|(start, contents)| (*start, contents))
    }

    /// Takes the first bar out if it ends at or before an instant.
    pub fn pop_until(&mut self, instant: UnixNanos) -> Option<(UnixNanos, Contents)> {
        let first = self.bars.first_entry()?;
        let ended = self.interval.end_of(*first.key()).is_some_and(|end| end <= instant);
        ended.then(|| first.remove_entry())
    }

    /// How many bars there are.
    pub fn len(&self) -> usize {
        self.bars.len()
    }

    /// Whether there are no ticks.
    pub fn is_empty(&self) -> bool {
        self.bars.is_empty()
    }

    /// The bars that have ticks, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (UnixNanos, &Contents)> {
        self.bars.iter().map(|(start, contents)| (*start, contents))
    }

    /// The bars that have ticks, ascending.
    pub fn into_bars(self) -> BTreeMap<UnixNanos, Contents> {
        self.bars
    }

    /// Adds the ticks of another builder of the same interval.
    pub fn merge(&mut self, other: BarBuilder) {
        for (start, contents) in other.bars {
            match self.bars.entry(start) {
                Entry::Vacant(entry) => {
                    entry.insert(contents);
                }
                Entry::Occupied(mut entry) => entry.get_mut().add(&contents.totals, contents.revision),
            }
        }
    }
}
