//! Bars: open, high, low, close and volume by interval.

use std::time::Duration;

use futures_util::Stream;
use tapefeed_proto::v1 as proto;

use super::{Query, decimals_to_wire};
use crate::client::history_service;
use crate::page::{Page, pages};
use crate::time::duration_to_wire;
use crate::{Client, Cursor, Decimal, Error, UnixNanos, WideDecimal};

/// The trades of one interval.
///
/// A bar holds the ticks whose event time lies in `[start, end)`. Bars of [`Client::list_bars`] and of
/// [`Client::subscribe_bars`] are equal, revision by revision.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bar {
    /// The venue. Empty if the bar pools all venues of its symbol.
    pub venue: String,
    /// The symbol.
    pub symbol: String,
    /// The number of the instrument. `None` if the bar pools all venues of its symbol.
    pub instrument_id: Option<u32>,
    /// The start of the interval, inclusive: a whole multiple of the interval since 1970.
    pub start: UnixNanos,
    /// The end of the interval, exclusive.
    pub end: UnixNanos,
    /// The prices. `None` in an empty bar of [`BarFill::Null`]; the close before it in one of [`BarFill::Previous`].
    pub prices: Option<BarPrices>,
    /// When those prices were traded. `None` in an empty bar.
    pub times: Option<BarTimes>,
    /// The exact sum of all quantities.
    pub volume: WideDecimal,
    /// The exact sum of price times quantity.
    pub notional: WideDecimal,
    /// The volume-weighted mean price, rounded half-even. `None` if no tick had a quantity above zero.
    pub vwap: Option<WideDecimal>,
    /// How many ticks the bar holds. 0 in an empty bar.
    pub tick_count: u64,
    /// Whether only late ticks can change the bar; it grows otherwise.
    pub is_final: bool,
    /// The greatest position that contributed. 0 in an empty bar. A late tick raises it.
    pub revision: u64,
    /// Whether a feed lost data inside the interval and has not got it back.
    pub has_source_gap: bool,
}

/// The four prices of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BarPrices {
    /// Of the first tick by (`event_time`, `log_seq`).
    pub open: Decimal,
    /// The greatest.
    pub high: Decimal,
    /// The smallest.
    pub low: Decimal,
    /// Of the last tick.
    pub close: Decimal,
}

/// The event times of the first ticks that had the four prices of a bar, of the close that of the last tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BarTimes {
    /// Of the first tick.
    pub open: UnixNanos,
    /// Of the greatest price.
    pub high: UnixNanos,
    /// Of the smallest price.
    pub low: UnixNanos,
    /// Of the last tick.
    pub close: UnixNanos,
}

/// What stands for an interval without ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum BarFill {
    /// Nothing.
    #[default]
    Skip,
    /// A bar without prices.
    Null,
    /// A bar whose prices are the close before it; nothing before the first tick.
    Previous,
}

/// Which bars to list, and how.
#[derive(Clone, Debug)]
pub struct BarQuery {
    query: Query,
    interval: Duration,
    last_count: i32,
    include_forming: bool,
    fill: BarFill,
    decimals: Option<u32>,
    page_size: i32,
    page_token: String,
}

// === impl BarQuery ===

impl BarQuery {
    /// The final bars of a range. The interval is a whole number of seconds up to a day, or of days up to 366.
    pub fn new(query: Query, interval: Duration) -> BarQuery {
        BarQuery {
            query,
            interval,
            last_count: 0,
            include_forming: false,
            fill: BarFill::default(),
            decimals: None,
            page_size: 0,
            page_token: String::new(),
        }
    }

    /// Only the last bars of the range, 1 to 100,000.
    pub fn last(mut self, count: u32) -> BarQuery {
        self.last_count = i32::try_from(count).unwrap_or(i32::MAX);
        self
    }

    /// Also bars that still grow.
    pub fn include_forming(mut self) -> BarQuery {
        self.include_forming = true;
        self
    }

    /// What stands for an interval without ticks. Default: nothing.
    pub fn fill(mut self, fill: BarFill) -> BarQuery {
        self.fill = fill;
        self
    }

    /// Rounds volume-weighted means to this many decimals, 0 to 36, half-even. Default 9.
    pub fn decimals(mut self, decimals: u32) -> BarQuery {
        self.decimals = Some(decimals);
        self
    }

    /// How many bars a page holds at most. Default 1,000; more than 8,000 counts as 8,000.
    pub fn page_size(mut self, page_size: u32) -> BarQuery {
        self.page_size = i32::try_from(page_size).unwrap_or(i32::MAX);
        self
    }

    /// Goes on after the page that had this token. All else but the page size must be as it was.
    pub fn page_token(mut self, token: impl Into<String>) -> BarQuery {
        self.page_token = token.into();
        self
    }
}

// === impl BarFill ===

impl BarFill {
    pub(crate) fn to_wire(self) -> i32 {
        let fill = match self {
            BarFill::Skip => proto::BarFill::Skip,
            BarFill::Null => proto::BarFill::Null,
            BarFill::Previous => proto::BarFill::Previous,
        };
        fill.into()
    }
}

// === impl Bar ===

impl Bar {
    pub(crate) fn from_wire(bar: proto::Bar) -> Result<Bar, Error> {
        let is_final = match proto::BarState::try_from(bar.state) {
            Ok(proto::BarState::Final) => true,
            Ok(proto::BarState::Forming) => false,
            Ok(proto::BarState::Unspecified) | Err(_) => return Err(Error::protocol("bars.state is not told")),
        };
        let prices = match (bar.open_price, bar.high_price, bar.low_price, bar.close_price) {
            (Some(open), Some(high), Some(low), Some(close)) => Some(BarPrices {
                open: Decimal::from_wire(&open, "bars.open_price")?,
                high: Decimal::from_wire(&high, "bars.high_price")?,
                low: Decimal::from_wire(&low, "bars.low_price")?,
                close: Decimal::from_wire(&close, "bars.close_price")?,
            }),
            (None, None, None, None) => None,
            _ => return Err(Error::protocol("a bar has some of its prices")),
        };
        let times = match (bar.open_time, bar.high_time, bar.low_time, bar.close_time) {
            (None, None, None, None) => None,
            (open, high, low, close) => Some(BarTimes {
                open: UnixNanos::from_wire(open, "bars.open_time")?,
                high: UnixNanos::from_wire(high, "bars.high_time")?,
                low: UnixNanos::from_wire(low, "bars.low_time")?,
                close: UnixNanos::from_wire(close, "bars.close_time")?,
            }),
        };
        Ok(Bar {
            venue: bar.venue,
            symbol: bar.symbol,
            instrument_id: (bar.instrument_id != 0).then_some(bar.instrument_id),
            start: UnixNanos::from_wire(bar.start_time, "bars.start_time")?,
            end: UnixNanos::from_wire(bar.end_time, "bars.end_time")?,
            prices,
            times,
            volume: WideDecimal::from_wire(bar.volume, "bars.volume")?,
            notional: WideDecimal::from_wire(bar.notional, "bars.notional")?,
            vwap: bar.vwap.map(|vwap| WideDecimal::from_wire(vwap, "bars.vwap")).transpose()?,
            tick_count: bar.tick_count,
            is_final,
            revision: bar.revision,
            has_source_gap: bar.has_source_gap,
        })
    }
}

impl Client {
    /// Returns one page of bars, the oldest first. Go on live by [`Client::subscribe_bars`] after its `as_of`.
    ///
    /// # Errors
    ///
    /// `INSTRUMENT_UNKNOWN`, `RANGE_INVERTED`, `PAGE_TOKEN_INVALID`; a range without ticks is an empty page.
    pub async fn list_bars(&self, list: &BarQuery) -> Result<Page<Bar>, Error> {
        let query = &list.query;
        let request = proto::ListBarsRequest {
            venue: query.venue.clone(),
            symbol: query.symbol.clone(),
            start_time: query.start.map(UnixNanos::to_wire),
            end_time: query.end.map(UnixNanos::to_wire),
            period: query.period.map(duration_to_wire),
            min_cursor: query.min_cursor_to_wire(),
            interval: Some(duration_to_wire(list.interval)),
            last_count: list.last_count,
            include_forming: list.include_forming,
            fill: list.fill.to_wire(),
            decimals: decimals_to_wire(list.decimals),
            page_size: list.page_size,
            page_token: list.page_token.clone(),
        };
        let answer = self
            .call(request, |channel, request| async move { history_service(channel).list_bars(request).await })
            .await?;
        Ok(Page {
            items: answer.bars.into_iter().map(Bar::from_wire).collect::<Result<_, _>>()?,
            next_page_token: answer.next_page_token,
            as_of: Cursor::from_bytes(answer.as_of),
            now: UnixNanos::from_wire_optional(answer.now, "now")?,
        })
    }

    /// Returns all pages of bars, each asked for when the stream is polled. All are answered at one position.
    pub fn bar_pages(&self, list: BarQuery) -> impl Stream<Item = Result<Page<Bar>, Error>> + Send + 'static {
        let client = self.clone();
        pages(list.page_token.clone(), move |token| {
            let client = client.clone();
            let list = list.clone().page_token(token);
            async move { client.list_bars(&list).await }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeHistory, builder, serve_history};

    fn bar() -> proto::Bar {
        let price = |mantissa| Some(proto::Decimal { mantissa, exponent: -1 });
        let second = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        proto::Bar {
            symbol: "X".into(),
            start_time: second(60),
            end_time: second(120),
            open_price: price(15),
            high_price: price(25),
            low_price: price(5),
            close_price: price(20),
            open_time: second(61),
            high_time: second(62),
            low_time: second(63),
            close_time: second(64),
            volume: "3".into(),
            notional: "4.5".into(),
            vwap: Some("1.5".into()),
            tick_count: 4,
            state: proto::BarState::Final.into(),
            revision: 9,
            ..Default::default()
        }
    }

    fn empty() -> proto::Bar {
        let full = bar();
        proto::Bar {
            symbol: full.symbol,
            start_time: full.start_time,
            end_time: full.end_time,
            volume: "0".into(),
            notional: "0".into(),
            state: proto::BarState::Forming.into(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn bars_come_in_pages_with_what_is_absent_absent() {
        let fake = FakeHistory::default();
        let page = |bars, token: &str| proto::ListBarsResponse {
            bars,
            next_page_token: token.into(),
            as_of: Default::default(),
            now: None,
        };
        fake.bar_answers.lock().unwrap().extend([page(vec![bar()], "a"), page(vec![empty()], "")]);
        let client = builder(&serve_history(fake.clone()).await).lazy().unwrap();
        let list = BarQuery::new(Query::symbol("X").venue("V"), Duration::from_secs(60)).last(2).fill(BarFill::Null);
        let mut pages = std::pin::pin!(client.bar_pages(list.include_forming().page_size(1)));
        let mut bars = Vec::new();
        while let Some(page) = futures_util::StreamExt::next(&mut pages).await {
            bars.extend(page.unwrap().items);
        }
        let prices = bars[0].prices.unwrap();
        assert_eq!([prices.open, prices.low].map(|price| price.to_string()), ["1.5", "0.5"]);
        assert_eq!(bars[0].times.unwrap().close.nanos(), 64_000_000_000);
        assert_eq!((bars[0].vwap.as_ref().unwrap().as_str(), bars[0].is_final), ("1.5", true));
        assert_eq!((bars[1].prices, bars[1].times, &bars[1].vwap, bars[1].is_final), (None, None, &None, false));
        let requests = fake.bar_requests.lock().unwrap();
        let asked: Vec<_> = requests.iter().map(|r| (r.last_count, r.include_forming, r.page_token.as_str())).collect();
        assert_eq!(asked, [(2, true, ""), (2, true, "a")]);
    }

    #[tokio::test]
    async fn a_bar_without_a_state_or_with_half_its_prices_is_not_taken() {
        let stateless = proto::Bar { state: 0, ..bar() };
        let half = proto::Bar { low_price: None, ..bar() };
        for broken in [stateless, half] {
            assert!(Bar::from_wire(broken).is_err());
        }
    }
}
