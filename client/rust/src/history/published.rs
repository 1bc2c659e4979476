//! Daily bars as venues publish them.

use futures_util::Stream;
use tapefeed_proto::v1 as proto;

use crate::client::history_service;
use crate::page::{Page, pages};
use crate::{Client, Decimal, Error};

/// A day of an instrument as its venue published it: imported as it is, not adjusted, and not computed from ticks.
///
/// Prices are for one unit, in the currency of [`Instrument::details`](crate::Instrument::details). Codes are the
/// venue's own. Days are written `YYYY-MM-DD`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublishedBar {
    /// The day of the session.
    pub date: String,
    /// The venue's code of the market.
    pub market: u32,
    /// The term of a forward in days. `None` if the venue gives none.
    pub term_days: Option<u32>,
    /// The venue's code of the board or lot.
    pub board: String,
    /// The first price.
    pub open: Decimal,
    /// The greatest price.
    pub high: Decimal,
    /// The smallest price.
    pub low: Decimal,
    /// The average price, as the venue rounds it.
    pub average: Decimal,
    /// The last price.
    pub close: Decimal,
    /// The best bid at the end of the session. `None` if the venue gives none.
    pub bid: Option<Decimal>,
    /// The best ask at the end of the session. `None` if the venue gives none.
    pub ask: Option<Decimal>,
    /// How many trades there were, as far as the venue's own field reaches.
    pub trade_count: u64,
    /// How many units were traded.
    pub quantity: Decimal,
    /// What was paid for them together.
    pub value: Decimal,
    /// How many units a price was for where the venue published it; the prices here are divided by it already.
    pub quote_factor: u32,
    /// The strike of an option, in currency. `None` if the venue gives none.
    pub strike: Option<Decimal>,
    /// The strike of an option, in points. `None` if the venue gives none.
    pub strike_points: Option<Decimal>,
    /// The day of expiry. `None` if nothing expires.
    pub expiry_date: Option<String>,
    /// The venue's code of the correction of strikes. May be empty.
    pub strike_correction: String,
    /// The venue's number of the distribution. May be empty.
    pub distribution: String,
}

/// Which published bars to list.
#[derive(Clone, Debug)]
pub struct PublishedBarQuery {
    venue: String,
    symbol: String,
    start_date: Option<String>,
    end_date: Option<String>,
    page_size: i32,
    page_token: String,
}

// === impl PublishedBarQuery ===

impl PublishedBarQuery {
    /// All published bars of an instrument.
    pub fn of(venue: impl Into<String>, symbol: impl Into<String>) -> PublishedBarQuery {
        PublishedBarQuery {
            venue: venue.into(),
            symbol: symbol.into(),
            start_date: None,
            end_date: None,
            page_size: 0,
            page_token: String::new(),
        }
    }

    /// From this day on, inclusive: `YYYY-MM-DD`.
    pub fn start_date(mut self, date: impl Into<String>) -> PublishedBarQuery {
        self.start_date = Some(date.into());
        self
    }

    /// Up to this day, exclusive: `YYYY-MM-DD`.
    pub fn end_date(mut self, date: impl Into<String>) -> PublishedBarQuery {
        self.end_date = Some(date.into());
        self
    }

    /// How many bars a page holds at most. Default 1,000; more than 10,000 counts as 10,000.
    pub fn page_size(mut self, page_size: u32) -> PublishedBarQuery {
        self.page_size = i32::try_from(page_size).unwrap_or(i32::MAX);
        self
    }

    /// Goes on after the page that had this token. All else but the page size must be as it was.
    pub fn page_token(mut self, token: impl Into<String>) -> PublishedBarQuery {
        self.page_token = token.into();
        self
    }
}

// === impl PublishedBar ===

impl PublishedBar {
    fn from_wire(bar: proto::PublishedBar) -> Result<PublishedBar, Error> {
        let optional = |number: Option<proto::Decimal>, field: &str| {
            number.map(|number| Decimal::from_wire(&number, field)).transpose()
        };
        let required = |number, field: &str| {
            optional(number, field)?.ok_or_else(|| Error::protocol(format!("published_bars.{field} is missing")))
        };
        Ok(PublishedBar {
            date: bar.date,
            market: bar.market,
            term_days: bar.term_days,
            board: bar.board,
            open: required(bar.open_price, "open_price")?,
            high: required(bar.high_price, "high_price")?,
            low: required(bar.low_price, "low_price")?,
            average: required(bar.average_price, "average_price")?,
            close: required(bar.close_price, "close_price")?,
            bid: optional(bar.bid_price, "bid_price")?,
            ask: optional(bar.ask_price, "ask_price")?,
            trade_count: bar.trade_count,
            quantity: required(bar.quantity, "quantity")?,
            value: required(bar.value, "value")?,
            quote_factor: bar.quote_factor,
            strike: optional(bar.strike_price, "strike_price")?,
            strike_points: optional(bar.strike_points, "strike_points")?,
            expiry_date: bar.expiry_date,
            strike_correction: bar.strike_correction,
            distribution: bar.distribution,
        })
    }
}

impl Client {
    /// Returns one page of the daily bars that a venue published of an instrument, the oldest first. They have no
    /// position of the log, so the page has no `as_of`.
    ///
    /// # Errors
    ///
    /// `INSTRUMENT_UNKNOWN`, `FIELD_INVALID`, `RANGE_INVERTED`, `PAGE_TOKEN_INVALID`; an instrument without published
    /// bars is an empty page.
    pub async fn list_published_bars(&self, query: &PublishedBarQuery) -> Result<Page<PublishedBar>, Error> {
        let request = proto::ListPublishedBarsRequest {
            venue: query.venue.clone(),
            symbol: query.symbol.clone(),
            start_date: query.start_date.clone(),
            end_date: query.end_date.clone(),
            page_size: query.page_size,
            page_token: query.page_token.clone(),
        };
        let answer =
            self.call(request, |channel, request| async move {
                history_service(channel).list_published_bars(request).await
            })
            .await?;
        let bars = answer.published_bars.into_iter().map(PublishedBar::from_wire);
        Ok(Page {
            items: bars.collect::<Result<_, _>>()?,
            next_page_token: answer.next_page_token,
            as_of: None,
            now: None,
        })
    }

    /// Returns all pages of published bars, each asked for when the stream is polled.
    pub fn published_bar_pages(
        &self,
        query: PublishedBarQuery,
    ) -> impl Stream<Item = Result<Page<PublishedBar>, Error>> + Send + use<> {
        let client = self.clone();
        pages(query.page_token.clone(), move |token| {
            let client = client.clone();
            let query = query.clone().page_token(token);
            async move { client.list_published_bars(&query).await }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;
    use crate::testing::{FakeHistory, builder, serve_history};

    fn bar(date: &str) -> proto::PublishedBar {
        let price = |mantissa| Some(proto::Decimal { mantissa, exponent: -2 });
        proto::PublishedBar {
            date: date.into(),
            market: 10,
            open_price: price(1_001),
            high_price: price(1_050),
            low_price: price(999),
            average_price: price(1_012),
            close_price: price(1_013),
            quantity: price(120_000),
            value: price(1_214_450),
            quote_factor: 1,
            ..Default::default()
        }
    }

    fn page(dates: &[&str], token: &str) -> proto::ListPublishedBarsResponse {
        let published_bars = dates.iter().map(|date| bar(date)).collect();
        proto::ListPublishedBarsResponse { published_bars, next_page_token: token.into() }
    }

    #[tokio::test]
    async fn bars_come_in_pages_with_what_is_absent_absent() {
        let fake = FakeHistory::default();
        fake.published_answers.lock().unwrap().extend([page(&["2024-08-08"], "a"), page(&["2024-08-09"], "")]);
        let client = builder(&serve_history(fake.clone()).await).lazy().unwrap();
        let query = PublishedBarQuery::of("B3", "PETR4").start_date("2024-08-08").page_size(1);
        let pages: Vec<_> = client.published_bar_pages(query).try_collect().await.unwrap();
        let dates: Vec<&str> = pages.iter().flat_map(|page| &page.items).map(|bar| bar.date.as_str()).collect();
        assert_eq!(dates, ["2024-08-08", "2024-08-09"]);
        let first = &pages[0].items[0];
        assert_eq!((first.close.to_string(), first.quantity.to_string()), ("10.13".into(), "1200".into()));
        assert_eq!((first.bid, first.strike, first.term_days, &first.expiry_date), (None, None, None, &None));
        let requests = fake.published_requests.lock().unwrap();
        let asked: Vec<_> = requests.iter().map(|r| (r.start_date.as_deref(), r.page_token.as_str())).collect();
        assert_eq!(asked, [(Some("2024-08-08"), ""), (Some("2024-08-08"), "a")]);
        assert!(requests.iter().all(|r| r.end_date.is_none() && r.venue == "B3" && r.page_size == 1));
    }

    #[tokio::test]
    async fn a_bar_without_a_price_is_not_taken() {
        let fake = FakeHistory::default();
        let broken = proto::PublishedBar { close_price: None, ..bar("2024-08-08") };
        let answer = proto::ListPublishedBarsResponse { published_bars: vec![broken], ..Default::default() };
        fake.published_answers.lock().unwrap().push_back(answer);
        let client = builder(&serve_history(fake).await).lazy().unwrap();
        let error = client.list_published_bars(&PublishedBarQuery::of("B3", "PETR4")).await.unwrap_err();
        assert!(error.to_string().contains("published_bars.close_price is missing"), "{error}");
    }
}
