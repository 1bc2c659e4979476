//! Final bars as rows that other programs read.

use crate::domain::bar::{Bar, Interval};
use crate::domain::{Decimal, Epoch, InstrumentId, UnixNanos, ratio};

/// Which bar a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarKey {
    /// Whose.
    pub instrument: InstrumentId,
    /// The length of the bar.
    pub interval: Interval,
    /// Its start.
    pub start: UnixNanos,
}

impl BarKey {
    /// The start in seconds since 1970. Bars begin at whole seconds.
    pub(super) fn start_seconds(&self) -> i64 {
        self.start.seconds_and_nanos().0
    }
}

/// A bar with ticks, as a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BarRow {
    /// Which bar.
    pub key: BarKey,
    /// First price.
    pub open: Decimal,
    /// Highest price.
    pub high: Decimal,
    /// Lowest price.
    pub low: Decimal,
    /// Last price.
    pub close: Decimal,
    /// The sum of the known quantities, as exact decimal text.
    pub volume: String,
    /// The sum of price times quantity, as exact decimal text.
    pub notional: String,
    /// How many ticks, at least 1.
    pub trade_count: u64,
    /// The greatest position that contributed.
    pub revision: u64,
    /// Whether a feed lost data inside it and has not got it back.
    pub has_gap: bool,
}

impl BarRow {
    /// The row of an instrument's bar; `None` if it has no ticks.
    pub fn of(instrument: InstrumentId, interval: Interval, bar: &Bar) -> Option<BarRow> {
        let totals = &bar.contents.totals;
        Some(BarRow {
            key: BarKey { instrument, interval, start: bar.start },
            open: totals.first?.price,
            high: totals.high?.price,
            low: totals.low?.price,
            close: totals.last?.price,
            volume: ratio::fixed_point(totals.volume, 18),
            notional: ratio::fixed_point(totals.notional, 36),
            trade_count: totals.count,
            revision: bar.contents.revision,
            has_gap: bar.has_gap,
        })
    }
}

/// Where the table of bars stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BarsMark {
    /// Changes so far.
    pub version: u64,
    /// The log of the last change; `None` before the first.
    pub epoch: Option<Epoch>,
    /// Every final bar up to this position is in the table; `None` until it is filled from history.
    pub position: Option<u64>,
}

/// A change of the table of bars: everything in it is stored, or nothing.
#[derive(Clone, Debug)]
pub struct BarsChange {
    /// The log that the bars are of.
    pub epoch: Epoch,
    /// The version of the mark that is expected.
    pub version: u64,
    /// The position of the mark from now on.
    pub position: Option<u64>,
    /// Rows of a revision above this go first.
    pub forget_above: Option<u64>,
    /// Rows that go. One that is not there is passed over.
    pub gone: Vec<BarKey>,
    /// Rows that come, no two of one key. Each replaces that of its key, unless the one there has a greater revision.
    pub rows: Vec<BarRow>,
}
