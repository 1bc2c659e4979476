//! The length of bars, and where they begin.

use std::time::Duration;

use crate::domain::UnixNanos;
use crate::domain::time::{NANOS_PER_DAY, NANOS_PER_SECOND};

/// Most days of a bar.
pub const MOST_DAYS: i64 = 366;

/// The length of a bar: whole seconds up to a day, or whole days up to [`MOST_DAYS`].
///
/// Bars begin at whole multiples of it since 1970-01-01T00:00:00Z, so that every interval that divides a day begins at
/// midnight UTC; weeks begin on Thursdays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(i64);

/// Not the length of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be whole seconds from 1 s to 1 d, or whole days up to {MOST_DAYS}")]
pub struct IntervalInvalid;

impl Interval {
    /// One minute.
    pub const MINUTE: Interval = Interval(60 * NANOS_PER_SECOND);
    /// One hour.
    pub const HOUR: Interval = Interval(3_600 * NANOS_PER_SECOND);
    /// One day.
    pub const DAY: Interval = Interval(NANOS_PER_DAY);

    /// Checks the length.
    pub fn new(length: Duration) -> Result<Interval, IntervalInvalid> {
        let nanos = i64::try_from(length.as_nanos()).map_err(|_| IntervalInvalid)?;
        let seconds = (NANOS_PER_SECOND..=NANOS_PER_DAY).contains(&nanos) && nanos % NANOS_PER_SECOND == 0;
        let days = (NANOS_PER_DAY..=MOST_DAYS * NANOS_PER_DAY).contains(&nanos) && nanos % NANOS_PER_DAY == 0;
        if seconds || days { Ok(Interval(nanos)) } else { Err(IntervalInvalid) }
    }

    /// The length in nanoseconds.
    pub fn nanos(self) -> i64 {
        self.0
    }

    /// The length in seconds.
    pub fn seconds(self) -> i64 {
        self.0 / NANOS_PER_SECOND
    }

    /// The start of the bar that an instant belongs to.
    pub fn start_of(self, time: UnixNanos) -> UnixNanos {
        at(time.nanos() - time.nanos() % self.0)
    }

    /// The end of the bar that begins at `start`; `None` past the last instant that there is.
    pub fn end_of(self, start: UnixNanos) -> Option<UnixNanos> {
        start.nanos().checked_add(self.0).map(at)
    }

    /// The first start at or after an instant; `None` past the last instant that there is.
    pub fn next_start(self, time: UnixNanos) -> Option<UnixNanos> {
        let start = self.start_of(time);
        if start == time { Some(start) } else { self.end_of(start) }
    }

    /// The start of the bar that many bars later; `None` past the last instant that there is.
    pub fn later(self, start: UnixNanos, bars: usize) -> Option<UnixNanos> {
        let span = self.0.checked_mul(i64::try_from(bars).ok()?)?;
        start.nanos().checked_add(span).map(at)
    }

    /// The start of the bar that many bars earlier, at least the first one.
    pub fn earlier(self, start: UnixNanos, bars: usize) -> UnixNanos {
        let span = i64::try_from(bars).ok().and_then(|bars| self.0.checked_mul(bars)).unwrap_or(i64::MAX);
        let earlier = start.nanos().saturating_sub(span).max(0);
        at(earlier)
    }
}

fn at(nanos: i64) -> UnixNanos {
    UnixNanos::new(nanos).expect("bars of instants after 1970 begin and end after 1970")
}
