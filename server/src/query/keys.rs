//! The order of ticks in history, and intervals of it.

use std::ops::Range;

use crate::domain::chunk::Points;
use crate::domain::{TimeRange, UnixNanos};
use crate::tape::{ChunkHeader, Chunks};

/// What ticks are ordered by: event time, then position. No two ticks of a log share one.
pub type Key = (UnixNanos, u64);

/// Greater than every tick's key.
const END: Key = (UnixNanos::MAX, u64::MAX);

/// The smallest key greater than this one.
pub(super) fn successor((time, log_seq): Key) -> Key {
    (time, log_seq.saturating_add(1))
}

/// The half-open interval `[low, high)` of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) low: Key,
    pub(super) high: Key,
}

impl Bounds {
    /// The keys of the instants of a range.
    pub(super) fn of(range: TimeRange) -> Bounds {
        Bounds { low: (range.start().unwrap_or(UnixNanos::MIN), 0), high: range.end().map_or(END, |end| (end, 0)) }
    }

    /// Whether no key lies inside.
    pub(super) fn is_empty(self) -> bool {
        self.low >= self.high
    }

    /// Whether a key lies inside.
    pub(super) fn contains(self, key: Key) -> bool {
        self.low <= key && key < self.high
    }

    /// Whether a chunk's span has a key inside.
    pub(super) fn overlaps(self, header: &ChunkHeader) -> bool {
        header.first_key() < self.high && header.last_key() >= self.low
    }

    /// Whether a chunk's span lies wholly inside.
    pub(super) fn covers(self, header: &ChunkHeader) -> bool {
        self.low <= header.first_key() && header.last_key() < self.high
    }

    /// The indexes of a decoded chunk's ticks inside.
    pub(super) fn indexes(self, points: &Points) -> Range<usize> {
        let from = index_of(points, self.low);
        from..index_of(points, self.high).max(from)
    }

    /// The stretch of ordinary chunks, which are disjoint and ascending, that overlap.
    pub(super) fn stretch(self, chunks: &Chunks) -> Range<usize> {
        if self.is_empty() {
            return 0..0;
        }
        let from = chunks.partition_point(|header| header.last_key() < self.low);
        let to = chunks.partition_point(|header| header.first_key() < self.high);
        from..to.max(from)
    }
}

/// How many of a chunk's ticks come before a key.
fn index_of(points: &Points, (time, log_seq): Key) -> usize {
    match log_seq.checked_sub(1) {
        Some(before) => points.index_after((time, before)),
        None => points.index_at(time),
    }
}
