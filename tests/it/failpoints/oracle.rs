//! What the answers must be: counted tick by tick over the log, which is read from the file.
//!
//! Of the server only the codec of segments is used, to turn stored bytes into ticks. Order, sums, means and extremes
//! are this file's own, as plain as they can be written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sqlx::{Connection as _, SqliteConnection};
use tapefeed_proto::v1 as proto;
use tapefeed_server::domain::{Origin, segment};
use tapefeed_tests::database;
use tapefeed_tests::exact::{self, Sums, half_even, text, text_at};
use tapefeed_tests::values::timestamp;

/// A tick of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its position.
    pub log_seq: u64,
    /// Its instrument: venue and symbol.
    pub name: (String, String),
    /// When it happened, in nanoseconds since 1970.
    pub time: i64,
    /// Its price, in the oracle's units.
    pub price: i128,
    /// Its quantity.
    pub quantity: Option<i128>,
    /// Its trade id.
    pub trade_id: String,
}

// Numbers of one width in both stores.
const NAMES: &str = "SELECT CAST(id AS BIGINT), venue, symbol FROM instruments";
const SEGMENTS: &str =
    "SELECT CAST(first_seq AS BIGINT), CAST(entry_count AS BIGINT), bytes FROM segments ORDER BY first_seq";

/// The log, and the same ticks by instrument.
#[derive(Debug, Default)]
pub struct Log {
    /// All ticks in the order of the log.
    pub ticks: Vec<Logged>,
    instruments: BTreeMap<(String, String), Vec<usize>>,
}

impl Log {
    /// Reads the log from a store file while the server may run.
    pub async fn read(store: &Path) -> Log {
        let url = format!("sqlite://{}?mode=ro", store.display());
        let mut file = SqliteConnection::connect(&url).await.expect("the file can be read");
        let names = sqlx::query_as(NAMES).fetch_all(&mut file).await.expect("a table");
        Log::made_of(names, sqlx::query_as(SEGMENTS).fetch_all(&mut file).await.expect("a table"))
    }

    /// Reads the log from a database while servers may run.
    pub async fn read_database(url: &str) -> Log {
        let mut database = database::connect(url).await.expect("it takes connections");
        let names = sqlx::query_as(NAMES).fetch_all(&mut database).await.expect("a table");
        Log::made_of(names, sqlx::query_as(SEGMENTS).fetch_all(&mut database).await.expect("a table"))
    }

    /// The log of instruments (id, venue, symbol) and segments (first position, count of entries, bytes) in order.
    fn made_of(names: Vec<(i64, String, String)>, segments: Vec<(i64, i64, Vec<u8>)>) -> Log {
        let names: BTreeMap<i64, (String, String)> =
            names.into_iter().map(|(id, venue, symbol)| (id, (venue, symbol))).collect();
        let mut log = Log::default();
        let mut next = 1;
        for (first, count, bytes) in segments {
            assert_eq!(first, next, "the log is dense");
            next += count;
            let entries = segment::decode(&bytes, first as u64, Origin::Live).expect("the segment is sound");
            assert_eq!((entries.ticks.len(), entries.controls.len()), (count as usize, 0));
            for tick in entries.ticks {
                let units = |value: tapefeed_server::domain::Decimal| {
                    let exponent = i32::from(value.exponent());
                    exact::of_decimal(&proto::Decimal { mantissa: value.mantissa(), exponent })
                };
                log.push(Logged {
                    log_seq: tick.log_seq,
                    name: names[&i64::from(tick.instrument.0)].clone(),
                    time: tick.event_time.nanos(),
                    price: units(tick.price),
                    quantity: tick.quantity.map(units),
                    trade_id: tick.trade_id.to_string(),
                });
            }
        }
        log
    }

    /// Adds the next tick of the log.
    pub fn push(&mut self, tick: Logged) {
        self.instruments.entry(tick.name.clone()).or_default().push(self.ticks.len());
        self.ticks.push(tick);
    }

    /// The instruments of a symbol, or of all symbols, on a venue or on all, in the order of their names.
    pub fn names(&self, venue: &str, symbol: &str) -> Vec<&(String, String)> {
        let matches =
            |name: &&(String, String)| (venue.is_empty() || name.0 == venue) && (symbol == "*" || name.1 == symbol);
        self.instruments.keys().filter(matches).collect()
    }

    /// The newest time of the venues of some ticks, up to a position; 0 without any.
    pub fn reached(&self, ticks: &[&Logged], as_of: u64) -> i64 {
        let venues: BTreeSet<&str> = ticks.iter().map(|tick| tick.name.0.as_str()).collect();
        let seen = self.ticks.iter().filter(|tick| tick.log_seq <= as_of && venues.contains(tick.name.0.as_str()));
        seen.map(|tick| tick.time).max().unwrap_or(0)
    }

    /// The ticks of some instruments up to a position, by (time, log_seq).
    pub fn of(&self, venue: &str, symbol: &str, as_of: u64) -> Vec<&Logged> {
        let names = self.names(venue, symbol);
        let indices = names.iter().flat_map(|name| &self.instruments[*name]);
        let ticks = indices.map(|&index| &self.ticks[index]);
        let mut ticks: Vec<_> = ticks.filter(|tick| tick.log_seq <= as_of).collect();
        ticks.sort_by_key(|tick| (tick.time, tick.log_seq));
        ticks
    }
}

/// A stretch of time, half-open; `None` is unbounded.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The first instant that counts.
    pub start: Option<i64>,
    /// The first that no longer counts.
    pub end: Option<i64>,
}

impl Span {
    /// Whether an instant counts.
    pub fn has(self, time: i64) -> bool {
        self.start.is_none_or(|start| time >= start) && self.end.is_none_or(|end| time < end)
    }
}

/// The statistics of ticks in order. `now` and `as_of` are left as they are.
pub fn statistics(ticks: &[&Logged]) -> proto::GetPriceStatisticsResponse {
    let mut sums = Sums::default();
    let (mut low, mut high): (Option<&Logged>, Option<&Logged>) = (None, None);
    for tick in ticks {
        sums.add(tick.price, tick.quantity);
        if low.is_none_or(|low| tick.price < low.price) {
            low = Some(tick);
        }
        if high.is_none_or(|high| tick.price > high.price) {
            high = Some(tick);
        }
    }
    let point = |tick: Option<&Logged>| {
        tick.map(|tick| proto::PricePoint {
            price: Some(exact::to_decimal(tick.price)),
            event_time: Some(timestamp(tick.time)),
            log_seq: tick.log_seq,
            venue: tick.name.0.clone(),
            symbol: tick.name.1.clone(),
        })
    };
    proto::GetPriceStatisticsResponse {
        tick_count: sums.count,
        first: point(ticks.first().copied()),
        last: point(ticks.last().copied()),
        highest: point(high),
        lowest: point(low),
        mean: sums.mean(),
        vwap: sums.vwap(),
        price_sum: text(sums.price),
        volume: text(sums.volume),
        notional: text_at(sums.notional, 18),
        ..Default::default()
    }
}

/// How long after its end a bar waits for ticks, in nanoseconds.
const LATENESS: i64 = 2_000_000_000;

/// The bars of ticks in order, of the log up to a position; whose bars they are is left out. `length` is in nanoseconds.
pub fn bars(log: &Log, ticks: &[&Logged], as_of: u64, length: i64) -> Vec<proto::Bar> {
    let newest = log.reached(ticks, as_of);
    let mut bars: Vec<proto::Bar> = Vec::new();
    for own in ticks.chunk_by(|one, next| one.time / length == next.time / length) {
        let statistics = statistics(own);
        let start = own[0].time / length * length;
        let is_final = start + length <= newest - LATENESS;
        let point = |point: &Option<proto::PricePoint>| {
            let point = point.as_ref().expect("a bar has ticks");
            (point.price, point.event_time)
        };
        let (open, high) = (point(&statistics.first), point(&statistics.highest));
        let (low, close) = (point(&statistics.lowest), point(&statistics.last));
        bars.push(proto::Bar {
            start_time: Some(timestamp(start)),
            end_time: Some(timestamp(start + length)),
            open_price: open.0,
            high_price: high.0,
            low_price: low.0,
            close_price: close.0,
            open_time: open.1,
            high_time: high.1,
            low_time: low.1,
            close_time: close.1,
            volume: statistics.volume,
            notional: statistics.notional,
            vwap: statistics.vwap,
            tick_count: own.len() as u64,
            state: if is_final { proto::BarState::Final } else { proto::BarState::Forming }.into(),
            revision: own.iter().map(|tick| tick.log_seq).max().unwrap_or(0),
            ..Default::default()
        });
    }
    bars
}

/// Bars of every interval from the start of the span on, or from the first tick, to the newest time of the venue; those
/// without ticks have no prices, or the close before them.
pub fn filled(
    bars: Vec<proto::Bar>,
    ticks: &[&Logged],
    (length, start): (i64, Option<i64>),
    newest: i64,
    fill: proto::BarFill,
) -> Vec<proto::Bar> {
    let Some(first) = ticks.first() else { return bars };
    let begin = start.map_or(first.time / length * length, |start| (start + length - 1) / length * length);
    let mut bars = bars.into_iter().peekable();
    let mut all = Vec::new();
    let mut close = None;
    for start in (first.time.min(begin) / length * length..=newest).step_by(length as usize) {
        if let Some(bar) = bars.next_if(|bar| bar.start_time == Some(timestamp(start))) {
            close = bar.close_price;
            all.push(bar);
            continue;
        }
        if fill == proto::BarFill::Previous && close.is_none() {
            continue;
        }
        let carried = close.filter(|_| fill == proto::BarFill::Previous);
        let is_final = start + length <= newest - LATENESS;
        all.push(proto::Bar {
            start_time: Some(timestamp(start)),
            end_time: Some(timestamp(start + length)),
            open_price: carried,
            high_price: carried,
            low_price: carried,
            close_price: carried,
            volume: "0".to_owned(),
            notional: "0".to_owned(),
            state: if is_final { proto::BarState::Final } else { proto::BarState::Forming }.into(),
            ..Default::default()
        });
    }
    all
}

/// A time-weighted average: the average, the weight in nanoseconds, and the sum of price times seconds.
#[derive(Debug, PartialEq, Eq)]
pub struct TimeWeighted {
    /// To nine decimals.
    pub average: String,
    /// In nanoseconds.
    pub weight: i128,
    /// Exact.
    pub sum: String,
}

/// The time-weighted average of one instrument, given all its ticks in order; `None` if the span has none.
pub fn time_weighted(all: &[&Logged], span: Span, now: i64) -> Option<TimeWeighted> {
    let inside: Vec<&&Logged> = all.iter().filter(|tick| span.has(tick.time)).collect();
    let (first, last) = (*inside.first()?, *inside.last()?);
    let before = all.iter().rfind(|tick| span.start.is_some_and(|start| tick.time < start));
    let end = span.end.map_or(last.time, |end| end.min(now));
    // Each price with the time from which it holds.
    let mut holds: Vec<(i64, i128)> = Vec::new();
    match (before, span.start) {
        (Some(before), Some(start)) => holds.push((start, before.price)),
        _ => holds.push((first.time, first.price)),
    }
    holds.extend(inside.iter().map(|tick| (tick.time, tick.price)));
    let (mut weight, mut sum) = (0, 0);
    for (index, (from, price)) in holds.iter().enumerate() {
        let to = holds.get(index + 1).map_or(end, |next| next.0).min(end);
        let time = i128::from((to - from).max(0));
        weight += time;
        sum += price * time;
    }
    let average = if weight == 0 { text(last.price) } else { text(half_even(sum, weight)) };
    Some(TimeWeighted { average, weight, sum: text_at(sum, 18) })
}

#[test]
fn a_time_weighted_average_by_hand() {
    let tick = |log_seq, time, price: &str| Logged {
        log_seq,
        name: ("V".into(), "S".into()),
        time,
        price: exact::units(price),
        quantity: None,
        trade_id: String::new(),
    };
    let ticks = [tick(1, 0, "1"), tick(2, 10, "2"), tick(3, 10, "4"), tick(4, 30, "8")];
    let ticks: Vec<&Logged> = ticks.iter().collect();
    let average =
        |start, end, now| time_weighted(&ticks, Span { start, end }, now).map(|twap| (twap.average, twap.weight));
    // 10 at 1, nothing at 2, 20 at 4, and 8 holds for no time, or to the end, or to now.
    assert_eq!(average(None, None, 99), Some(("3".into(), 30)));
    assert_eq!(average(None, Some(40), 99), Some(("4.25".into(), 40)));
    assert_eq!(average(None, Some(40), 35), Some(("3.714285714".into(), 35)));
    // Carried in from before.
    assert_eq!(average(Some(5), Some(20), 99), Some(("3".into(), 15)));
    assert_eq!(average(Some(10), Some(11), 99), Some(("4".into(), 1)));
    assert_eq!(average(Some(30), None, 99), Some(("8".into(), 0)));
    assert_eq!(average(Some(11), Some(30), 99), None);
}
