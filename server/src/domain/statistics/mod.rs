//! Exact statistics of ticks, and how those of parts combine.
//!
//! [`Totals`] add up in any order; [`Statistics`] also carry the time-weighted integral, which needs the order. Both
//! are kept per chunk, so that a query over years adds a few hundred of them instead of decoding. The columns of a
//! chunk are summed without assembling ticks: see [`Totals::of_range`].

mod sums;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::ops::Range;

pub(super) use sums::ColumnSums;
pub use sums::Sums;

use super::chunk::Points;
use super::varint::{self, Reader};
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
    /// The most decimals of a price.
    pub price_decimals: u8,
    /// The most decimals of a quantity.
    pub quantity_decimals: u8,
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

impl PricePoint {
    /// The price of a tick.
    pub fn of(tick: &Tick) -> PricePoint {
        PricePoint { price: tick.price, event_time: tick.event_time, log_seq: tick.log_seq }
    }

    /// The order of ticks in history.
    pub fn key(&self) -> (UnixNanos, u64) {
        (self.event_time, self.log_seq)
    }

    /// Price times the nanoseconds until a later instant, in units of 10^-18 * 1 ns.
    pub fn weight_until(&self, end: UnixNanos) -> I256 {
        I256::product(self.price.units_e18(), i128::from(end.nanos()) - i128::from(self.event_time.nanos()))
    }
}

impl Totals {
    /// Adds one tick, in any order.
    pub fn add(&mut self, tick: &Tick) {
        self.add_point(PricePoint::of(tick), tick.quantity);
    }

    /// Adds one tick by the values that count, in any order.
    pub fn add_point(&mut self, point: PricePoint, quantity: Option<Decimal>) {
        let price = point.price.units_e18();
        self.count += 1;
        self.price_sum += price;
        self.price_decimals = self.price_decimals.max(point.price.decimals());
        self.quantity_decimals = self.quantity_decimals.max(quantity.map_or(0, Decimal::decimals));
        if let Some(quantity) = quantity.filter(|quantity| quantity.is_positive()) {
            let quantity = quantity.units_e18();
            self.volume_count += 1;
            self.volume += quantity;
            self.notional += I256::product(price, quantity);
        }
        self.extend(point, point, point, point);
    }

    /// The totals of some neighbouring ticks of a chunk.
    ///
    /// The columns are summed at their own exponents in 128 bits and widened once. When a sum of products might not
    /// fit there, which takes prices and quantities near the limits of 64 bits, ticks are added one by one.
    pub fn of_range(points: &Points, range: Range<usize>) -> Totals {
        if range.is_empty() {
            return Totals::default();
        }
        let prices = &points.price_mantissas()[range.clone()];
        let quantities = points.quantity_mantissas().map(|quantities| &quantities[range.clone()]);
        let (price_exponent, quantity_exponent) = (points.price_exponent(), points.quantity_exponent());
        let Some(sums) = ColumnSums::of(prices, quantities) else {
            let mut totals = Totals::default();
            for index in range {
                totals.add_point(points.point(index), points.positive_quantity(index));
            }
            return totals;
        };
        let sums = sums.widen(price_exponent, quantity_exponent);
        let Sums { count, price_sum, volume_count, volume, notional } = sums;
        let (low, high) = extremes(prices);
        Totals {
            count,
            price_sum,
            volume_count,
            volume,
            notional,
            low: Some(points.point(range.start + low)),
            high: Some(points.point(range.start + high)),
            first: Some(points.point(range.start)),
            last: Some(points.point(range.end - 1)),
            price_decimals: decimals(prices, price_exponent),
            quantity_decimals: quantities.map_or(0, |mantissas| decimals(mantissas, quantity_exponent)),
        }
    }

    /// Adds the totals of other ticks, in any order.
    pub fn merge(&mut self, other: &Totals) {
        self.count += other.count;
        self.price_sum += other.price_sum;
        self.volume_count += other.volume_count;
        self.volume += other.volume;
        self.notional += other.notional;
        self.price_decimals = self.price_decimals.max(other.price_decimals);
        self.quantity_decimals = self.quantity_decimals.max(other.quantity_decimals);
        if let (Some(low), Some(high), Some(first), Some(last)) = (other.low, other.high, other.first, other.last) {
            self.extend(low, high, first, last);
        }
    }

    /// Lets other ticks' extremes compete.
    fn extend(&mut self, low: PricePoint, high: PricePoint, first: PricePoint, last: PricePoint) {
        let beats = |point: &PricePoint, held: &PricePoint, wanted: Ordering| {
            let order = point.price.cmp(&held.price);
            order == wanted || order == Ordering::Equal && point.key() < held.key()
        };
        if self.low.as_ref().is_none_or(|held| beats(&low, held, Ordering::Less)) {
            self.low = Some(low);
        }
        if self.high.as_ref().is_none_or(|held| beats(&high, held, Ordering::Greater)) {
            self.high = Some(high);
        }
        if self.first.as_ref().is_none_or(|held| first.key() < held.key()) {
            self.first = Some(first);
        }
        if self.last.as_ref().is_none_or(|held| last.key() >= held.key()) {
            self.last = Some(last);
        }
    }
}

impl Statistics {
    /// The statistics of a whole chunk.
    pub fn of_chunk(points: &Points) -> Statistics {
        Statistics::of_range(points, 0..points.len())
    }

    /// The statistics of some neighbouring ticks of a chunk.
    pub fn of_range(points: &Points, range: Range<usize>) -> Statistics {
        let prices = &points.price_mantissas()[range.clone()];
        // It always fits: at most the greatest price times the whole span of 63 bits.
        let mut integral = 0;
        for (&value, pair) in prices.iter().zip(points.event_times()[range.clone()].windows(2)) {
            integral += i128::from(value) * i128::from(pair[1] - pair[0]);
        }
        let integral = sums::widen(integral, (points.price_exponent() + UNIT_DECIMALS) as u8);
        Statistics { totals: Totals::of_range(points, range), integral }
    }

    /// Adds a tick that is not before the last one by (event_time, log_seq).
    pub fn push(&mut self, tick: &Tick) {
        self.push_point(PricePoint::of(tick), tick.quantity);
    }

    /// Adds a tick by the values that count; it is not before the last one by (event_time, log_seq).
    pub fn push_point(&mut self, point: PricePoint, quantity: Option<Decimal>) {
        if let Some(last) = self.totals.last {
            debug_assert!(last.key() <= point.key(), "ticks are pushed in order");
            self.integral += last.weight_until(point.event_time);
        }
        self.totals.add_point(point, quantity);
    }

    /// Adds the statistics of ticks that all come after these.
    pub fn append(&mut self, later: &Statistics) {
        if let (Some(last), Some(first)) = (self.totals.last, later.totals.first) {
            debug_assert!(last.key() <= first.key(), "statistics are appended in order");
            self.integral += last.weight_until(first.event_time);
        }
        self.integral += later.integral;
        self.totals.merge(&later.totals);
    }

    /// One versioned, checksummed blob.
    pub fn encode(&self) -> Vec<u8> {
        let totals = &self.totals;
        let mut out = Vec::with_capacity(128);
        out.push(VERSION);
        varint::put(&mut out, totals.count);
        if let (Some(first), Some(last), Some(low), Some(high)) = (totals.first, totals.last, totals.low, totals.high) {
            varint::put(&mut out, totals.volume_count);
            totals.price_sum.put(&mut out);
            totals.volume.put(&mut out);
            totals.notional.put(&mut out);
            self.integral.put(&mut out);
            let origin = PricePoint { price: Decimal::ZERO, event_time: UnixNanos::MIN, log_seq: 0 };
            put_point(&mut out, first, origin);
            for point in [last, low, high] {
                put_point(&mut out, point, first);
            }
            out.extend_from_slice(&[totals.price_decimals, totals.quantity_decimals]);
        }
        let checksum = crc32c::crc32c(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads the blob.
    pub fn decode(bytes: &[u8]) -> Result<Statistics, StatisticsCorrupt> {
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(StatisticsCorrupt("too short"))?;
        if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
            return Err(StatisticsCorrupt("the checksum differs"));
        }
        let mut reader = Reader::new(body);
        if reader.byte() != Some(VERSION) {
            return Err(StatisticsCorrupt("not a version that this program knows"));
        }
        let statistics = take(&mut reader).ok_or(StatisticsCorrupt("a value is cut off or out of range"))?;
        if !reader.is_empty() {
            return Err(StatisticsCorrupt("bytes after the end"));
        }
        if !statistics.is_plausible() {
            return Err(StatisticsCorrupt("the values contradict each other"));
        }
        Ok(statistics)
    }

    /// Whether ticks with these statistics can exist. Sums past these bounds could make later additions overflow.
    fn is_plausible(&self) -> bool {
        let totals = &self.totals;
        let (Some(first), Some(last), Some(low), Some(high)) = (totals.first, totals.last, totals.low, totals.high)
        else {
            return true;
        };
        let within =
            |sum: I256, bound: Option<I256>| sum.checked_abs().zip(bound).is_some_and(|(sum, bound)| sum <= bound);
        let price = I256::from_i128(MAX_UNITS);
        let span = last.event_time.nanos().abs_diff(first.event_time.nanos());
        let between = |point: &PricePoint| first.key() <= point.key() && point.key() <= last.key();
        totals.volume_count <= totals.count
            && within(totals.price_sum, price.checked_mul_u64(totals.count))
            && within(totals.volume, price.checked_mul_u64(totals.volume_count))
            && within(totals.notional, I256::product(MAX_UNITS, MAX_UNITS).checked_mul_u64(totals.volume_count))
            && within(self.integral, price.checked_mul_u64(span))
            && !totals.volume.is_negative()
            && low.price <= high.price
            && first.key() <= last.key()
            && between(&low)
            && between(&high)
    }
}

/// Version of the blob.
const VERSION: u8 = 1;

/// Decimals of the unit of prices and quantities.
const UNIT_DECIMALS: i8 = 18;

/// The door rule in units of 10^-18: every price and quantity is smaller.
const MAX_UNITS: i128 = 10i128.pow(33);

/// A blob counts at most this many ticks: far more than a chunk has, far fewer than would overflow a sum.
const MAX_COUNT: u64 = 1 << 32;

/// Appends a point by its distance from a base that both sides know.
fn put_point(out: &mut Vec<u8>, point: PricePoint, base: PricePoint) {
    out.push(point.price.exponent() as u8);
    varint::put_signed(out, point.price.mantissa());
    // Times are never negative, so that their difference fits.
    varint::put_signed(out, point.event_time.nanos() - base.event_time.nanos());
    varint::put_signed(out, point.log_seq.wrapping_sub(base.log_seq) as i64);
}

/// Reads a point written by [`put_point`].
fn take_point(reader: &mut Reader<'_>, base: PricePoint) -> Option<PricePoint> {
    let exponent = reader.byte()? as i8;
    let price = Decimal::new(reader.signed()?, exponent.into()).ok()?;
    let event_time = UnixNanos::new(base.event_time.nanos().checked_add(reader.signed()?)?).ok()?;
    let log_seq = base.log_seq.wrapping_add(reader.signed()? as u64);
    Some(PricePoint { price, event_time, log_seq })
}

/// Reads the values between version and checksum.
fn take(reader: &mut Reader<'_>) -> Option<Statistics> {
    let count = reader.varint().filter(|&count| count <= MAX_COUNT)?;
    if count == 0 {
        return Some(Statistics::default());
    }
    let volume_count = reader.varint()?;
    let price_sum = I256::take(reader)?;
    let volume = I256::take(reader)?;
    let notional = I256::take(reader)?;
    let integral = I256::take(reader)?;
    let origin = PricePoint { price: Decimal::ZERO, event_time: UnixNanos::MIN, log_seq: 0 };
    let first = take_point(reader, origin)?;
    let last = Some(take_point(reader, first)?);
    let low = Some(take_point(reader, first)?);
    let high = Some(take_point(reader, first)?);
    let first = Some(first);
    let mut decimals = || reader.byte().filter(|&decimals| decimals <= UNIT_DECIMALS as u8);
    let (price_decimals, quantity_decimals) = (decimals()?, decimals()?);
    Some(Statistics {
        totals: Totals {
            count,
            price_sum,
            volume_count,
            volume,
            notional,
            low,
            high,
            first,
            last,
            price_decimals,
            quantity_decimals,
        },
        integral,
    })
}

/// The most decimals of mantissas at one exponent, once trailing zeros are gone. An absent quantity stands as zero,
/// which has none.
fn decimals(mantissas: &[i64], exponent: i8) -> u8 {
    let mut decimals = exponent.min(0).unsigned_abs();
    let mut unit = 1;
    while decimals > 0 {
        unit *= 10;
        // One mantissa whose last digit counts is enough, and usually the first has one.
        if mantissas.iter().any(|mantissa| mantissa % unit != 0) {
            break;
        }
        decimals -= 1;
    }
    decimals
}

/// Where the lowest and the highest of some mantissas stand first.
fn extremes(mantissas: &[i64]) -> (usize, usize) {
    let (mut lowest, mut highest) = (mantissas[0], mantissas[0]);
    for &value in mantissas {
        lowest = lowest.min(value);
        highest = highest.max(value);
    }
    let first_of = |extreme: i64| mantissas.iter().position(|&value| value == extreme).unwrap_or(0);
    (first_of(lowest), first_of(highest))
}
