//! Moving averages: over the last N ticks or bars.

use std::time::Duration;

use futures_util::Stream;
use tapefeed_proto::v1 as proto;

use super::{Query, decimals_to_wire};
use crate::client::history_service;
use crate::page::{Page, pages};
use crate::time::duration_to_wire;
use crate::{Client, Cursor, Decimal, Error, UnixNanos, WideDecimal};

/// How prices of a moving window are averaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum MovingMethod {
    /// The arithmetic mean of the last N prices.
    #[default]
    Simple,
    /// Each price with the weight 2 / (N + 1), what was before with the rest; it begins as the simple mean of the N prices
    /// up to the first point of the range.
    Exponential,
}

/// Which moving averages to list, and how.
#[derive(Clone, Debug)]
pub struct MovingAverageQuery {
    query: Query,
    method: MovingMethod,
    window: i32,
    bar_interval: Option<Duration>,
    decimals: Option<u32>,
    page_size: i32,
    page_token: String,
}

/// An average up to a tick or bar.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MovingAverage {
    /// The event time of the tick, or the end of the bar, that completes the window.
    pub end_time: UnixNanos,
    /// The position of that tick, or the revision of that bar.
    pub log_seq: u64,
    /// The average, rounded half-even.
    pub average: WideDecimal,
    /// The price of that tick, or the close of that bar.
    pub price: Decimal,
}

impl MovingAverageQuery {
    /// The simple averages over the last `window` ticks (1 to 10,000), for each tick of a range.
    pub fn new(query: Query, window: u32) -> MovingAverageQuery {
        MovingAverageQuery {
            query,
            method: MovingMethod::Simple,
            window: i32::try_from(window).unwrap_or(i32::MAX),
            bar_interval: None,
            decimals: None,
            page_size: 0,
            page_token: String::new(),
        }
    }

    /// The exponential averages instead.
    pub fn exponential(mut self) -> MovingAverageQuery {
        self.method = MovingMethod::Exponential;
        self
    }

    /// Over the closes of final bars of this length instead of ticks; bars without ticks are left out.
    pub fn over_bars(mut self, interval: Duration) -> MovingAverageQuery {
        self.bar_interval = Some(interval);
        self
    }

    /// Rounds to this many decimals, 0 to 36, half-even. Default 9.
    pub fn decimals(mut self, decimals: u32) -> MovingAverageQuery {
        self.decimals = Some(decimals);
        self
    }

    /// How many points a page holds at most. Default 1,000; more than 10,000 counts as 10,000.
    pub fn page_size(mut self, page_size: u32) -> MovingAverageQuery {
        self.page_size = i32::try_from(page_size).unwrap_or(i32::MAX);
        self
    }

    /// Goes on after the page that had this token. All else but the page size must be as it was.
    pub fn page_token(mut self, token: impl Into<String>) -> MovingAverageQuery {
        self.page_token = token.into();
        self
    }
}

impl MovingAverage {
    fn from_wire(point: proto::MovingAveragePoint) -> Result<MovingAverage, Error> {
        let price = point.price.ok_or_else(|| Error::protocol("points.price is missing"))?;
        Ok(MovingAverage {
            end_time: UnixNanos::from_wire(point.end_time, "points.end_time")?,
            log_seq: point.log_seq,
            average: WideDecimal::from_wire(point.average_price, "points.average_price")?,
            price: Decimal::from_wire(&price, "points.price")?,
        })
    }
}

impl Client {
    /// Returns one page of moving averages, the oldest first. Prices before the range count, so that its first points are
    /// whole; there is none before as many prices as the window has.
    ///
    /// # Errors
    ///
    /// `INSTRUMENT_UNKNOWN`, `RANGE_INVERTED`, `PAGE_TOKEN_INVALID`; a range without ticks is an empty page.
    pub async fn list_moving_averages(&self, list: &MovingAverageQuery) -> Result<Page<MovingAverage>, Error> {
        let query = &list.query;
        let method = match list.method {
            MovingMethod::Simple => proto::MovingAverageMethod::Simple,
            MovingMethod::Exponential => proto::MovingAverageMethod::Exponential,
        };
        let request = proto::ListMovingAveragesRequest {
            venue: query.venue.clone(),
            symbol: query.symbol.clone(),
            start_time: query.start.map(UnixNanos::to_wire),
            end_time: query.end.map(UnixNanos::to_wire),
            period: query.period.map(duration_to_wire),
            min_cursor: query.min_cursor_to_wire(),
            method: method.into(),
            window_count: list.window,
            bar_interval: list.bar_interval.map(duration_to_wire),
            decimals: decimals_to_wire(list.decimals),
            page_size: list.page_size,
            page_token: list.page_token.clone(),
        };
        let answer =
            self.call(request, |channel, request| async move {
                history_service(channel).list_moving_averages(request).await
            })
            .await?;
        Ok(Page {
            items: answer.points.into_iter().map(MovingAverage::from_wire).collect::<Result<_, _>>()?,
            next_page_token: answer.next_page_token,
            as_of: Cursor::from_bytes(answer.as_of),
            now: UnixNanos::from_wire_optional(answer.now, "now")?,
        })
    }

    /// Returns all pages of moving averages, each asked for when the stream is polled. All are answered at one position.
    pub fn moving_average_pages(
        &self,
        list: MovingAverageQuery,
    ) -> impl Stream<Item = Result<Page<MovingAverage>, Error>> + Send + 'static {
        let client = self.clone();
        pages(list.page_token.clone(), move |token| {
            let client = client.clone();
            let list = list.clone().page_token(token);
            async move { client.list_moving_averages(&list).await }
        })
    }
}
