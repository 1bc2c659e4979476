//! The order of ticks in history, and intervals of it.

use crate::domain::{TimeRange, UnixNanos};
use crate::tape::ChunkHeader;

/// What ticks are ordered by: event time, then position. No two ticks of a log share one.
pub type Key = (UnixNanos, u64);

/// Greater than every tick's key.
const END: Key = (UnixNanos::MAX, u64::MAX);

/// The smallest key greater than this one.
pub(super) fn successor((time, log_seq): Key) -> Key {
    (time, log_seq.saturating_add(1))
}

/// The key of a chunk's first tick.
pub(super) fn first_key(header: &ChunkHeader) -> Key {
    let first = &header.statistics.totals.first;
    first.map_or((header.first_time, 0), |point| {
        (point.event_time, point.log_seq)
    })
}

/// The key of a chunk's last tick.
pub(super) fn last_key(header: &ChunkHeader) -> Key {
    let last = &header.statistics.totals.last;
    last.map_or((header.last_time, u64::MAX), |point| {
        (point.event_time, point.log_seq)
    })
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
        Bounds {
            low: (range.start().unwrap_or(UnixNanos::MIN), 0),
            high: range.end().map_or(END, |end| (end, 0)),
        }
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
        first_key(header) < self.high && last_key(header) >= self.low
    }

    /// Whether a chunk's span lies wholly inside.
    pub(super) fn covers(self, header: &ChunkHeader) -> bool {
        self.low <= first_key(header) && last_key(header) < self.high
    }

    /// The stretch of ordinary chunks, which are disjoint and ascending, that overlap.
    pub(super) fn stretch(self, chunks: &[std::sync::Arc<ChunkHeader>]) -> std::ops::Range<usize> {
        if self.is_empty() {
            return 0..0;
        }
        let from = chunks.partition_point(|header| last_key(header) < self.low);
        let to = chunks.partition_point(|header| first_key(header) < self.high);
        from..to.max(from)
    }
}
