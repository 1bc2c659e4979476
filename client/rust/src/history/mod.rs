//! Questions about stored ticks, each answered at one position of the log. Their answers are in `answer`; what venues
//! publish themselves is in `published`, and what is read in bulk in `read`.

mod answer;
mod bars;
mod moving;
mod published;
mod read;

use std::time::Duration;

use futures_util::Stream;
use tapefeed_proto::v1 as proto;

pub use answer::{Average, Latest, LatestTick, PricePoint, Statistics};
pub use bars::{Bar, BarFill, BarPrices, BarQuery, BarTimes};
pub use moving::{MovingAverage, MovingAverageQuery, MovingMethod};
pub use published::{PublishedBar, PublishedBarQuery};
pub use read::{ReadBatch, ReadQuery};

use crate::client::history_service;
use crate::page::{Page, pages};
use crate::time::duration_to_wire;
use crate::{Client, Cursor, Error, Selector, Tick, UnixNanos};

/// What to look at: a symbol, on one venue or all, over a range of event time or a period.
///
/// Without a range: everything. Ranges are half-open, `[start, end)`; a period looks back from the server's now and
/// excludes a range.
#[derive(Clone, Debug, Default)]
pub struct Query {
    venue: String,
    symbol: String,
    start: Option<UnixNanos>,
    end: Option<UnixNanos>,
    period: Option<Duration>,
    min_cursor: Option<Cursor>,
}

/// Which ticks to list, and how.
#[derive(Clone, Debug, Default)]
pub struct TickQuery {
    query: Query,
    newest_first: bool,
    page_size: i32,
    page_token: String,
}

/// How to average.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// The arithmetic mean of all prices, each tick with the same weight.
    #[default]
    Mean,
    /// The volume-weighted mean, over the ticks with a quantity above zero.
    Vwap,
    /// The time-weighted mean of one instrument: a price holds until the next.
    Twap,
}

/// How to average, and to how many decimals the average is rounded, half-even.
#[derive(Clone, Copy, Debug, Default)]
pub struct Averaging {
    method: Method,
    decimals: Option<u32>,
}

// === impl Query ===

impl Query {
    /// All ticks of a symbol, exactly, over all venues.
    pub fn symbol(symbol: impl Into<String>) -> Query {
        Query { symbol: symbol.into(), ..Query::default() }
    }

    /// On one venue only. Empty: all venues.
    pub fn venue(mut self, venue: impl Into<String>) -> Query {
        self.venue = venue.into();
        self
    }

    /// From this event time on, inclusive.
    pub fn start(mut self, start: UnixNanos) -> Query {
        self.start = Some(start);
        self
    }

    /// Up to this event time, exclusive.
    pub fn end(mut self, end: UnixNanos) -> Query {
        self.end = Some(end);
        self
    }

    /// From this long before the server's now. Must be positive, and excludes `start` and `end`.
    pub fn period(mut self, period: Duration) -> Query {
        self.period = Some(period);
        self
    }

    /// Waits until the answer includes this cursor, up to the deadline: read your own writes on any replica.
    pub fn min_cursor(mut self, cursor: Cursor) -> Query {
        self.min_cursor = Some(cursor);
        self
    }

    fn min_cursor_to_wire(&self) -> bytes::Bytes {
        let cursor = self.min_cursor.as_ref();
        cursor.map(Cursor::to_wire).unwrap_or_default()
    }
}

// === impl TickQuery ===

impl TickQuery {
    /// The newest first. Default: the oldest first.
    pub fn newest_first(mut self) -> TickQuery {
        self.newest_first = true;
        self
    }

    /// How many ticks a page holds at most. Default 1,000; more than 10,000 counts as 10,000.
    pub fn page_size(mut self, page_size: u32) -> TickQuery {
        self.page_size = i32::try_from(page_size).unwrap_or(i32::MAX);
        self
    }

    /// Goes on after the page that had this token. All else but the page size must be as it was.
    pub fn page_token(mut self, token: impl Into<String>) -> TickQuery {
        self.page_token = token.into();
        self
    }
}

impl From<Query> for TickQuery {
    fn from(query: Query) -> TickQuery {
        TickQuery { query, ..TickQuery::default() }
    }
}

// === impl Averaging ===

impl Averaging {
    /// The arithmetic mean, to 9 decimals.
    pub fn mean() -> Averaging {
        Averaging::by(Method::Mean)
    }

    /// The volume-weighted mean, to 9 decimals.
    pub fn vwap() -> Averaging {
        Averaging::by(Method::Vwap)
    }

    /// The time-weighted mean, to 9 decimals.
    pub fn twap() -> Averaging {
        Averaging::by(Method::Twap)
    }

    /// A method, to 9 decimals.
    pub fn by(method: Method) -> Averaging {
        Averaging { method, decimals: None }
    }

    /// Rounds to this many decimals, 0 to 36, half-even.
    pub fn decimals(mut self, decimals: u32) -> Averaging {
        self.decimals = Some(decimals);
        self
    }
}

impl Method {
    /// `mean`, `vwap` or `twap`.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Mean => "mean",
            Method::Vwap => "vwap",
            Method::Twap => "twap",
        }
    }

    fn to_wire(self) -> i32 {
        let method = match self {
            Method::Mean => proto::AverageMethod::Mean,
            Method::Vwap => proto::AverageMethod::Vwap,
            Method::Twap => proto::AverageMethod::Twap,
        };
        method.into()
    }

    fn from_wire(method: i32) -> Result<Method, Error> {
        match proto::AverageMethod::try_from(method) {
            Ok(proto::AverageMethod::Mean) => Ok(Method::Mean),
            Ok(proto::AverageMethod::Vwap) => Ok(Method::Vwap),
            Ok(proto::AverageMethod::Twap) => Ok(Method::Twap),
            Ok(proto::AverageMethod::Unspecified) | Err(_) => Err(Error::protocol("method is not told")),
        }
    }
}

fn decimals_to_wire(decimals: Option<u32>) -> Option<i32> {
    decimals.map(|decimals| i32::try_from(decimals).unwrap_or(i32::MAX))
}

impl Client {
    /// Returns one page of ticks, ordered by (`event_time`, `log_seq`). Go on live by subscribing after its `as_of`.
    ///
    /// # Errors
    ///
    /// `INSTRUMENT_UNKNOWN`, `RANGE_INVERTED`, `PAGE_TOKEN_INVALID`; an empty range is an empty page.
    pub async fn list_ticks(&self, query: impl Into<TickQuery>) -> Result<Page<Tick>, Error> {
        let list = query.into();
        let order = match list.newest_first {
            true => proto::Order::Descending,
            false => proto::Order::Ascending,
        };
        let request = proto::ListTicksRequest {
            min_cursor: list.query.min_cursor_to_wire(),
            venue: list.query.venue,
            symbol: list.query.symbol,
            start_time: list.query.start.map(UnixNanos::to_wire),
            end_time: list.query.end.map(UnixNanos::to_wire),
            period: list.query.period.map(duration_to_wire),
            order: order.into(),
            page_size: list.page_size,
            page_token: list.page_token,
        };
        let answer = self
            .call(request, |channel, request| async move { history_service(channel).list_ticks(request).await })
            .await?;
        Ok(Page {
            items: Tick::from_rows(proto::TickBatch { ticks: answer.ticks, merged_counts: Vec::new() })?,
            next_page_token: answer.next_page_token,
            as_of: Cursor::from_bytes(answer.as_of),
            now: UnixNanos::from_wire_optional(answer.now, "now")?,
        })
    }

    /// Returns all pages of ticks, each asked for when the stream is polled. All are answered at one position.
    pub fn tick_pages(
        &self,
        query: impl Into<TickQuery>,
    ) -> impl Stream<Item = Result<Page<Tick>, Error>> + Send + 'static {
        let client = self.clone();
        let list = query.into();
        pages(list.page_token.clone(), move |token| {
            let client = client.clone();
            let list = list.clone().page_token(token);
            async move { client.list_ticks(list).await }
        })
    }

    /// Returns the newest tick of each instrument that one of the selectors matches: 1 to 1,000 selectors.
    ///
    /// # Errors
    ///
    /// `INSTRUMENT_UNKNOWN` for an exact symbol that matches no instrument.
    pub async fn latest(&self, selectors: &[Selector]) -> Result<Latest, Error> {
        let request = proto::ListLatestTicksRequest {
            selectors: selectors.iter().map(Selector::to_wire).collect(),
            min_cursor: Default::default(),
        };
        let answer = self
            .call(request, |channel, request| async move { history_service(channel).list_latest_ticks(request).await })
            .await?;
        Latest::from_wire(answer)
    }

    /// Returns the average price over a range or period.
    ///
    /// # Errors
    ///
    /// `INSTRUMENT_UNKNOWN`, `RANGE_INVERTED`, `NO_DATA` if nothing can be averaged.
    pub async fn average(&self, query: &Query, averaging: Averaging) -> Result<Average, Error> {
        let request = proto::GetAveragePriceRequest {
            venue: query.venue.clone(),
            symbol: query.symbol.clone(),
            start_time: query.start.map(UnixNanos::to_wire),
            end_time: query.end.map(UnixNanos::to_wire),
            period: query.period.map(duration_to_wire),
            min_cursor: query.min_cursor_to_wire(),
            method: averaging.method.to_wire(),
            decimals: decimals_to_wire(averaging.decimals),
        };
        let answer = self
            .call(request, |channel, request| async move { history_service(channel).get_average_price(request).await })
            .await?;
        Average::from_wire(answer)
    }

    /// Returns statistics of prices over a range or period. `decimals` (0 to 36, default 9) rounds the means, half-even.
    ///
    /// # Errors
    ///
    /// `INSTRUMENT_UNKNOWN`, `RANGE_INVERTED`; a range without ticks has a count of 0.
    pub async fn statistics(&self, query: &Query, decimals: Option<u32>) -> Result<Statistics, Error> {
        let request = proto::GetPriceStatisticsRequest {
            venue: query.venue.clone(),
            symbol: query.symbol.clone(),
            start_time: query.start.map(UnixNanos::to_wire),
            end_time: query.end.map(UnixNanos::to_wire),
            period: query.period.map(duration_to_wire),
            min_cursor: query.min_cursor_to_wire(),
            decimals: decimals_to_wire(decimals),
        };
        let answer =
            self.call(request, |channel, request| async move {
                history_service(channel).get_price_statistics(request).await
            })
            .await?;
        Statistics::from_wire(answer)
    }
}
