//! The columns that sums, extremes, averages and bars are made of.

use std::ops::Range;

use super::decimal;
use crate::domain::statistics::PricePoint;
use crate::domain::{Decimal, TimeRange, UnixNanos};

/// When, where in the log, at which prices and how much was traded: columns of equal length, sorted by (event_time,
/// log_seq).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Points {
    pub(super) event_times: Vec<i64>,
    pub(super) log_seqs: Vec<u64>,
    pub(super) price_exponent: i8,
    pub(super) prices: Vec<i64>,
    pub(super) quantity_exponent: i8,
    /// Zero where a quantity is absent; empty when all are.
    pub(super) quantities: Vec<i64>,
}

impl Points {
    /// How many ticks.
    pub fn len(&self) -> usize {
        self.event_times.len()
    }

    /// Whether there are none; a stored chunk has at least one.
    pub fn is_empty(&self) -> bool {
        self.event_times.is_empty()
    }

    /// Event times in nanoseconds since 1970, ascending.
    pub fn event_times(&self) -> &[i64] {
        &self.event_times
    }

    /// Positions, in the order of the event times.
    pub fn log_seqs(&self) -> &[u64] {
        &self.log_seqs
    }

    /// The power of ten that all of [`Points::price_mantissas`] share.
    pub fn price_exponent(&self) -> i8 {
        self.price_exponent
    }

    /// Prices at [`Points::price_exponent`], in the order of the event times. They are not canonical one by one.
    pub fn price_mantissas(&self) -> &[i64] {
        &self.prices
    }

    /// The power of ten that all of [`Points::quantity_mantissas`] share.
    pub fn quantity_exponent(&self) -> i8 {
        self.quantity_exponent
    }

    /// Quantities at [`Points::quantity_exponent`], zero where one is absent; `None` when all are.
    pub fn quantity_mantissas(&self) -> Option<&[i64]> {
        (!self.quantities.is_empty()).then_some(&self.quantities)
    }

    /// The event time at an index.
    pub fn event_time(&self, index: usize) -> UnixNanos {
        UnixNanos::new(self.event_times[index]).expect("decoding checked every time")
    }

    /// The price at an index.
    pub fn price_at(&self, index: usize) -> Decimal {
        decimal(self.prices[index], self.price_exponent)
    }

    /// The quantity at an index, if it is above zero: an absent one stands as zero here.
    pub fn positive_quantity(&self, index: usize) -> Option<Decimal> {
        let quantity = self.quantities.get(index).map(|&quantity| decimal(quantity, self.quantity_exponent));
        quantity.filter(|quantity| quantity.is_positive())
    }

    /// Price, event time and position at an index.
    pub fn point(&self, index: usize) -> PricePoint {
        PricePoint { price: self.price_at(index), event_time: self.event_time(index), log_seq: self.log_seqs[index] }
    }

    /// Event time and position at an index: the order of ticks in history.
    pub fn key(&self, index: usize) -> (UnixNanos, u64) {
        (self.event_time(index), self.log_seqs[index])
    }

    /// How many ticks happened before an instant: the index of the first that did not.
    pub fn index_at(&self, time: UnixNanos) -> usize {
        self.event_times.partition_point(|&each| each < time.nanos())
    }

    /// The same, looked for from an index on that is not behind it: the nearer it is, the faster.
    pub fn index_at_from(&self, from: usize, time: UnixNanos) -> usize {
        let rest = &self.event_times[from..];
        let mut reach = 1;
        while rest.get(reach - 1).is_some_and(|&each| each < time.nanos()) {
            reach *= 2;
        }
        let near = reach / 2..reach.min(rest.len());
        from + near.start + rest[near].partition_point(|&each| each < time.nanos())
    }

    /// How many ticks stand at or before a key in the order of history: the index of the first after it.
    pub fn index_after(&self, (time, log_seq): (UnixNanos, u64)) -> usize {
        let begin = self.index_at(time);
        let same = self.event_times[begin..].partition_point(|&each| each == time.nanos());
        begin + self.log_seqs[begin..begin + same].partition_point(|&each| each <= log_seq)
    }

    /// The indexes of the ticks inside a range of event time.
    pub fn indexes_in(&self, range: TimeRange) -> Range<usize> {
        let begin = range.start().map_or(0, |start| self.index_at(start));
        let end = range.end().map_or(self.len(), |end| self.index_at(end));
        begin..end.max(begin)
    }

    /// Memory that they hold, in bytes.
    pub fn memory(&self) -> usize {
        let numbers = self.event_times.capacity()
            + self.log_seqs.capacity()
            + self.prices.capacity()
            + self.quantities.capacity();
        size_of::<Points>() + numbers * size_of::<u64>()
    }
}
