//! Answers about stored ticks, typed.

use std::time::Duration;

use tapefeed_proto::v1 as proto;

use super::Method;
use crate::tick::Names;
use crate::time::duration_from_wire;
use crate::{Cursor, Decimal, Error, Selector, Tick, UnixNanos, WideDecimal};

/// An average price, and the exact sums that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Average {
    /// The average, rounded half-even.
    pub price: WideDecimal,
    /// The method that was used.
    pub method: Method,
    /// How many ticks lie in the range.
    pub tick_count: u64,
    /// The exact sum of all prices.
    pub price_sum: WideDecimal,
    /// The exact sum of all quantities.
    pub volume: WideDecimal,
    /// The exact sum of price times quantity.
    pub notional: WideDecimal,
    /// The event time of the first tick in the range. `None` if there is none.
    pub first_event_time: Option<UnixNanos>,
    /// The event time of the last tick in the range. `None` if there is none.
    pub last_event_time: Option<UnixNanos>,
    /// The time that a TWAP is averaged over. `None` for other methods.
    pub time_weight: Option<Duration>,
    /// The exact sum of price times seconds that a TWAP comes from. `None` for other methods.
    pub time_weighted_sum: Option<WideDecimal>,
    /// The server's now that a period looked back from.
    pub now: UnixNanos,
    /// The cursor at which the call was answered.
    pub as_of: Option<Cursor>,
}

/// Statistics of prices over a range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// How many ticks lie in the range. All prices are `None` if there are none.
    pub tick_count: u64,
    /// The first tick by (`event_time`, `log_seq`).
    pub first: Option<PricePoint>,
    /// The last tick by (`event_time`, `log_seq`).
    pub last: Option<PricePoint>,
    /// The greatest price, and the earliest tick that had it.
    pub highest: Option<PricePoint>,
    /// The smallest price, and the earliest tick that had it.
    pub lowest: Option<PricePoint>,
    /// The arithmetic mean, rounded half-even.
    pub mean: Option<WideDecimal>,
    /// The volume-weighted mean, rounded half-even. `None` if no tick has a quantity above zero.
    pub vwap: Option<WideDecimal>,
    /// The exact sum of all prices.
    pub price_sum: WideDecimal,
    /// The exact sum of all quantities.
    pub volume: WideDecimal,
    /// The exact sum of price times quantity.
    pub notional: WideDecimal,
    /// The server's now that a period looked back from.
    pub now: UnixNanos,
    /// The cursor at which the call was answered.
    pub as_of: Option<Cursor>,
}

/// The price of one tick, and which tick that was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PricePoint {
    /// The price.
    pub price: Decimal,
    /// The time of the trade by the venue's clock.
    pub event_time: UnixNanos,
    /// The position of the tick in its epoch's log.
    pub log_seq: u64,
    /// The venue of the tick.
    pub venue: String,
    /// The symbol of the tick.
    pub symbol: String,
}

/// The newest tick of each matching instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latest {
    /// The ticks, each instrument once, ordered by the first selector that matches, then by venue and symbol.
    pub ticks: Vec<LatestTick>,
    /// The selectors with an exact symbol whose instruments have no tick.
    pub without_data: Vec<Selector>,
    /// The server's now that ages were measured against.
    pub now: UnixNanos,
    /// The cursor at which the call was answered.
    pub as_of: Option<Cursor>,
}

/// The newest tick of an instrument.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatestTick {
    /// The tick that is the greatest by (`event_time`, `log_seq`).
    pub tick: Tick,
    /// The server's now less the tick's event time, in nanoseconds. Negative if that lies ahead.
    pub age_nanos: i64,
}

impl Average {
    pub(super) fn from_wire(answer: proto::GetAveragePriceResponse) -> Result<Average, Error> {
        let method = Method::from_wire(answer.method)?;
        let twap = method == Method::Twap;
        let wide = WideDecimal::from_wire;
        let time = UnixNanos::from_wire_optional;
        let time_weighted_sum = match twap {
            true => Some(wide(answer.time_weighted_sum, "time_weighted_sum")?),
            false => None,
        };
        Ok(Average {
            price: wide(answer.average_price, "average_price")?,
            method,
            tick_count: answer.tick_count,
            price_sum: wide(answer.price_sum, "price_sum")?,
            volume: wide(answer.volume, "volume")?,
            notional: wide(answer.notional, "notional")?,
            first_event_time: time(answer.first_event_time, "first_event_time")?,
            last_event_time: time(answer.last_event_time, "last_event_time")?,
            time_weight: twap.then(|| duration_from_wire(answer.time_weight)),
            time_weighted_sum,
            now: UnixNanos::from_wire(answer.now, "now")?,
            as_of: Cursor::from_bytes(answer.as_of),
        })
    }
}

impl Statistics {
    pub(super) fn from_wire(answer: proto::GetPriceStatisticsResponse) -> Result<Statistics, Error> {
        let wide = WideDecimal::from_wire;
        let mean = answer.mean.map(|mean| wide(mean, "mean"));
        let vwap = answer.vwap.map(|vwap| wide(vwap, "vwap"));
        Ok(Statistics {
            tick_count: answer.tick_count,
            first: PricePoint::from_wire(answer.first)?,
            last: PricePoint::from_wire(answer.last)?,
            highest: PricePoint::from_wire(answer.highest)?,
            lowest: PricePoint::from_wire(answer.lowest)?,
            mean: mean.transpose()?,
            vwap: vwap.transpose()?,
            price_sum: wide(answer.price_sum, "price_sum")?,
            volume: wide(answer.volume, "volume")?,
            notional: wide(answer.notional, "notional")?,
            now: UnixNanos::from_wire(answer.now, "now")?,
            as_of: Cursor::from_bytes(answer.as_of),
        })
    }
}

impl PricePoint {
    fn from_wire(point: Option<proto::PricePoint>) -> Result<Option<PricePoint>, Error> {
        let Some(point) = point else { return Ok(None) };
        let price = point.price.unwrap_or_default();
        Ok(Some(PricePoint {
            price: Decimal::from_wire(&price, "price")?,
            event_time: UnixNanos::from_wire(point.event_time, "event_time")?,
            log_seq: point.log_seq,
            venue: point.venue,
            symbol: point.symbol,
        }))
    }
}

impl Latest {
    pub(super) fn from_wire(answer: proto::ListLatestTicksResponse) -> Result<Latest, Error> {
        let mut names = Names::default();
        let mut ticks = Vec::with_capacity(answer.latest_ticks.len());
        for latest in answer.latest_ticks {
            let tick = latest.tick.ok_or_else(|| Error::protocol("latest_ticks.tick is missing"))?;
            let age = latest.age.unwrap_or_default();
            ticks.push(LatestTick {
                tick: Tick::from_wire(tick, 1, &mut names)?,
                age_nanos: age.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(age.nanos)),
            });
        }
        let without_data = answer.selectors_without_data.into_iter();
        Ok(Latest {
            ticks,
            without_data: without_data.map(Selector::from_wire).collect(),
            now: UnixNanos::from_wire(answer.now, "now")?,
            as_of: Cursor::from_bytes(answer.as_of),
        })
    }
}
