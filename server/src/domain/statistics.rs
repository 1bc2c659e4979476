//! Exact statistics of ticks, and how those of parts combine.

use super::{Decimal, I256, Tick, UnixNanos};

/// A price with the moment and position of its tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PricePoint {
    /// The price.
    pub price: Decimal,
    /// The tick's event time.
    pub event_time: UnixNanos,
    /// The tick's position.
    pub log_seq: u64,
}

/// Count, sums and extremes: what can be added up in any order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Totals {
    /// How many ticks.
    pub count: u64,
    /// The sum of prices, in units of 10^-18.
    pub price_sum: I256,
    /// How many ticks have a quantity above zero.
    pub volume_count: u64,
    /// The sum of quantities, in units of 10^-18.
    pub volume: I256,
    /// The sum of price times quantity, in units of 10^-36.
    pub notional: I256,
    /// The tick of the lowest price; among equals the earliest by (event_time, log_seq).
    pub low: Option<PricePoint>,
    /// The tick of the highest price; among equals the earliest.
    pub high: Option<PricePoint>,
    /// The earliest tick by (event_time, log_seq).
    pub first: Option<PricePoint>,
    /// The latest tick by (event_time, log_seq).
    pub last: Option<PricePoint>,
}

/// [`Totals`] and the time-weighted integral of a run of ticks in order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Statistics {
    /// What can be added up in any order.
    pub totals: Totals,
    /// The sum over neighbours of price times the nanoseconds until the next tick, in units of 10^-18 * 1 ns, from the
    /// first tick's time to the last's.
    pub integral: I256,
}

/// A blob that is no statistics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("statistics are damaged: {0}")]
pub struct StatisticsCorrupt(pub &'static str);

impl Totals {
    /// Adds one tick, in any order.
    pub fn add(&mut self, tick: &Tick) {
        let _ = tick;
        todo!()
    }

    /// Adds the totals of other ticks, in any order.
    pub fn merge(&mut self, other: &Totals) {
        let _ = other;
        todo!()
    }
}

impl Statistics {
    /// Adds a tick that is not before the last one by (event_time, log_seq).
    pub fn push(&mut self, tick: &Tick) {
        let _ = tick;
        todo!()
    }

    /// Adds the statistics of ticks that all come after these.
    pub fn append(&mut self, later: &Statistics) {
        let _ = later;
        todo!()
    }

    /// One versioned, checksummed blob.
    pub fn encode(&self) -> Vec<u8> {
        todo!()
    }

    /// Reads the blob.
    pub fn decode(bytes: &[u8]) -> Result<Statistics, StatisticsCorrupt> {
        let _ = bytes;
        todo!()
    }
}
