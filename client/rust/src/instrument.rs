//! The registry of instruments, and selectors that match them.

use futures_util::Stream;
use tapefeed_proto::v1 as proto;

use crate::client::instrument_service;
use crate::page::{Page, pages};
use crate::tick::Names;
use crate::{Client, Cursor, Error, Tick};

/// A predicate over instruments: it matches those that exist now and those created later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector {
    venue: String,
    symbol: String,
}

/// What the server knows about one instrument: a symbol on a venue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Instrument {
    /// The number of the instrument. It never changes within an epoch.
    pub instrument_id: u32,
    /// The venue.
    pub venue: String,
    /// The symbol.
    pub symbol: String,
    /// The first tick by (`event_time`, `log_seq`). `None` if no tick is kept.
    pub first_tick: Option<Tick>,
    /// The last tick by (`event_time`, `log_seq`). `None` if no tick is kept.
    pub last_tick: Option<Tick>,
    /// How many trades are kept, without those that were cancelled.
    pub tick_count: u64,
    /// The greatest number of decimals seen in a price, 0 to 18.
    pub price_decimals: u32,
    /// The greatest number of decimals seen in a quantity, 0 to 18.
    pub quantity_decimals: u32,
    /// What the venue says about the instrument. `None` if nothing was imported. It has no position in the log.
    pub details: Option<InstrumentDetails>,
    /// How many corrections and cancels are about no trade that is kept, as far as they were looked for: about 15 minutes
    /// after they were stored.
    pub unmatched_correction_count: u64,
}

/// What a venue published about an instrument on a day. Texts are the venue's own.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstrumentDetails {
    /// The ISIN, or the venue's internal code in its place. May be empty.
    pub isin: String,
    /// The short name of the issuer. May be empty.
    pub issuer: String,
    /// The class of the share and its marks. May be empty.
    pub share_class: String,
    /// The currency of prices as the venue writes it. May be empty.
    pub currency: String,
    /// The day on which the venue published this, `YYYY-MM-DD`.
    pub as_of_date: String,
}

/// Which instruments to list, and what the answer must have seen.
#[derive(Clone, Debug, Default)]
pub struct InstrumentQuery {
    venue: String,
    symbol: String,
    min_cursor: Option<Cursor>,
    page_size: i32,
    page_token: String,
}

// === impl Selector ===

impl Selector {
    /// Everything.
    pub fn all() -> Selector {
        Selector::symbol("*")
    }

    /// A symbol, exactly, on all venues. `*` stands for all symbols.
    pub fn symbol(symbol: impl Into<String>) -> Selector {
        Selector { venue: String::new(), symbol: symbol.into() }
    }

    /// The same on one venue only. Empty: all venues.
    pub fn on(mut self, venue: impl Into<String>) -> Selector {
        self.venue = venue.into();
        self
    }

    /// The venue to match, or the empty text for all.
    pub fn venue_name(&self) -> &str {
        &self.venue
    }

    /// The symbol to match, or `*` for all.
    pub fn symbol_name(&self) -> &str {
        &self.symbol
    }

    pub(crate) fn to_wire(&self) -> proto::Selector {
        proto::Selector { venue: self.venue.clone(), symbol: self.symbol.clone() }
    }

    pub(crate) fn from_wire(selector: proto::Selector) -> Selector {
        Selector { venue: selector.venue, symbol: selector.symbol }
    }
}

// === impl InstrumentQuery ===

impl InstrumentQuery {
    /// All instruments.
    pub fn all() -> InstrumentQuery {
        InstrumentQuery::default()
    }

    /// Only those of one venue.
    pub fn venue(mut self, venue: impl Into<String>) -> InstrumentQuery {
        self.venue = venue.into();
        self
    }

    /// Only those with this symbol, exactly.
    pub fn symbol(mut self, symbol: impl Into<String>) -> InstrumentQuery {
        self.symbol = symbol.into();
        self
    }

    /// Waits until the answer includes this cursor, up to the deadline.
    pub fn min_cursor(mut self, cursor: Cursor) -> InstrumentQuery {
        self.min_cursor = Some(cursor);
        self
    }

    /// How many instruments a page holds at most. Default 1,000; more than 10,000 counts as 10,000.
    pub fn page_size(mut self, page_size: u32) -> InstrumentQuery {
        self.page_size = i32::try_from(page_size).unwrap_or(i32::MAX);
        self
    }

    /// Goes on after the page that had this token. All else must be as it was.
    pub fn page_token(mut self, token: impl Into<String>) -> InstrumentQuery {
        self.page_token = token.into();
        self
    }
}

impl Instrument {
    fn from_wire(instrument: proto::Instrument) -> Result<Instrument, Error> {
        let mut names = Names::default();
        let mut tick = |tick: Option<proto::Tick>| tick.map(|tick| Tick::from_wire(tick, 1, &mut names)).transpose();
        Ok(Instrument {
            instrument_id: instrument.instrument_id,
            first_tick: tick(instrument.first_tick)?,
            last_tick: tick(instrument.last_tick)?,
            venue: instrument.venue,
            symbol: instrument.symbol,
            tick_count: instrument.tick_count,
            price_decimals: instrument.price_decimals,
            quantity_decimals: instrument.quantity_decimals,
            details: instrument.details.map(InstrumentDetails::from_wire),
            unmatched_correction_count: instrument.unmatched_correction_count,
        })
    }
}

impl InstrumentDetails {
    fn from_wire(details: proto::InstrumentDetails) -> InstrumentDetails {
        let proto::InstrumentDetails { isin, issuer, share_class, currency, as_of_date } = details;
        InstrumentDetails { isin, issuer, share_class, currency, as_of_date }
    }
}

impl Client {
    /// Returns one instrument.
    ///
    /// # Errors
    ///
    /// `INSTRUMENT_UNKNOWN` if there is none.
    pub async fn instrument(&self, venue: &str, symbol: &str) -> Result<Instrument, Error> {
        let request = proto::GetInstrumentRequest {
            venue: venue.to_owned(),
            symbol: symbol.to_owned(),
            min_cursor: Default::default(),
        };
        let answer = self
            .call(request, |channel, request| async move { instrument_service(channel).get_instrument(request).await })
            .await?;
        let instrument = answer.instrument;
        Instrument::from_wire(instrument.ok_or_else(|| Error::protocol("instrument is missing"))?)
    }

    /// Waits until the server's answers include a cursor, such as that of a [`Receipt`](crate::Receipt) or of a
    /// [`Run`](crate::Run), up to the deadline.
    ///
    /// # Errors
    ///
    /// `DEADLINE_EXCEEDED` if the server needs longer, `EPOCH_CHANGED` if it lost that position.
    pub async fn await_cursor(&self, cursor: &Cursor) -> Result<(), Error> {
        let query = InstrumentQuery::all().min_cursor(cursor.clone());
        self.list_instruments(&query.page_size(1)).await.map(drop)
    }

    /// Returns one page of instruments, ordered by venue and symbol.
    ///
    /// # Errors
    ///
    /// Whatever the server refuses; an empty page is not an error.
    pub async fn list_instruments(&self, query: &InstrumentQuery) -> Result<Page<Instrument>, Error> {
        let request = proto::ListInstrumentsRequest {
            venue: query.venue.clone(),
            symbol: query.symbol.clone(),
            page_size: query.page_size,
            page_token: query.page_token.clone(),
            min_cursor: query.min_cursor.as_ref().map(Cursor::to_wire).unwrap_or_default(),
        };
        let answer =
            self.call(request, |channel, request| async move {
                instrument_service(channel).list_instruments(request).await
            })
            .await?;
        let items = answer.instruments.into_iter().map(Instrument::from_wire);
        Ok(Page {
            items: items.collect::<Result<_, _>>()?,
            next_page_token: answer.next_page_token,
            as_of: Cursor::from_bytes(answer.as_of),
            now: None,
        })
    }

    /// Returns all pages of instruments, each asked for when the stream is polled. All are answered at one position.
    pub fn instrument_pages(
        &self,
        query: InstrumentQuery,
    ) -> impl Stream<Item = Result<Page<Instrument>, Error>> + Send + use<> {
        let client = self.clone();
        pages(query.page_token.clone(), move |token| {
            let client = client.clone();
            let query = query.clone().page_token(token);
            async move { client.list_instruments(&query).await }
        })
    }
}
