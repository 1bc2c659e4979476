//! Ticks: as the server sends them, and as a publisher makes them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tapefeed_proto::v1 as proto;

use crate::{Decimal, Error, UnixNanos};

/// One trade as it stands in the log.
///
/// In history, ticks are ordered by (`event_time`, `log_seq`); in a stream, by `log_seq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    /// The venue that the trade happened on.
    pub venue: Arc<str>,
    /// The symbol that was traded, in the venue's spelling.
    pub symbol: Arc<str>,
    /// The number that stands for venue and symbol. It never changes within an epoch.
    pub instrument_id: u32,
    /// The time of the trade by the venue's clock.
    pub event_time: UnixNanos,
    /// The time at which the trade was received: by the source if it said so, else by the server.
    pub receive_time: UnixNanos,
    /// The price of one unit. Zero and negative prices are valid; of an [`Action::Cancel`] it carries no meaning.
    pub price: Decimal,
    /// The quantity that was traded, zero or positive. `None` if the source does not tell it.
    pub quantity: Option<Decimal>,
    /// The side of the aggressor. `None` if the source does not tell it.
    pub side: Option<Side>,
    /// The venue's name for this trade, at most 64 bytes. Empty if it has none.
    pub trade_id: String,
    /// The position of the tick in its epoch's log, at least 1.
    pub log_seq: u64,
    /// How the tick came into the log.
    pub origin: Origin,
    /// What the tick does to earlier ones.
    pub action: Action,
    /// How many ticks of a conflated stream were merged into this one, itself included. Everywhere else 1.
    pub merged_count: u32,
}

/// A trade to publish.
///
/// ```
/// use tapefeed_client::{NewTick, Side, UnixNanos};
/// let tick = NewTick::new("NASDAQ", "AAPL", UnixNanos(1_723_161_655_342_000_000), "213.31".parse()?)
///     .quantity("100".parse()?)
///     .side(Side::Buy)
///     .trade_id("71829");
/// # Ok::<(), tapefeed_client::DecimalInvalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTick {
    /// The venue that the trade happened on: 1 to 32 bytes of `A-Z a-z 0-9 . _ - : ^ = $ +`.
    pub venue: Arc<str>,
    /// The symbol that was traded: 1 to 64 bytes of the same and `/`. A new venue and symbol make a new instrument.
    pub symbol: Arc<str>,
    /// The time of the trade by the venue's clock, from 1970 on. Live ticks lie at most 5 minutes ahead of the server.
    pub event_time: UnixNanos,
    /// The time at which the source received the trade. `None`: the server stamps it.
    pub receive_time: Option<UnixNanos>,
    /// The price of one unit.
    pub price: Decimal,
    /// The quantity that was traded, zero or positive. `None`: not told.
    pub quantity: Option<Decimal>,
    /// The side of the aggressor. `None`: not told.
    pub side: Option<Side>,
    /// The venue's name for this trade, at most 64 bytes. Empty: none. Trades are not de-duplicated by it.
    pub trade_id: String,
    /// What the tick does to earlier ones with the same trade id.
    pub action: Action,
}

/// The side of the aggressor of a trade, who took the liquidity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The buyer.
    Buy,
    /// The seller.
    Sell,
}

/// How a tick came into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Origin {
    /// It was published as it happened.
    #[default]
    Live,
    /// It was imported, or published to fill in history.
    Backfill,
}

/// What a tick does to earlier ticks of its instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Action {
    /// It is a new trade.
    #[default]
    New,
    /// It replaces price, quantity and side of the trade with the same id and event time.
    Correct,
    /// It takes that trade back.
    Cancel,
}

/// A text is not one of an enumeration's names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is none of {expected}")]
pub struct NameUnknown {
    found: String,
    expected: &'static str,
}

// === impl Tick ===

impl Tick {
    pub(crate) fn from_wire(tick: proto::Tick, merged_count: u32, last: &mut Names) -> Result<Tick, Error> {
        let action = Action::from_wire(tick.action)?;
        let price = match &tick.price {
            Some(price) => Decimal::from_wire(price, "tick.price")?,
            None if action == Action::Cancel => Decimal::ZERO,
            None => return Err(Error::protocol("tick.price is missing")),
        };
        let quantity = match &tick.quantity {
            Some(quantity) => Some(Decimal::from_wire(quantity, "tick.quantity")?),
            None => None,
        };
        let event_time = UnixNanos::from_wire(tick.event_time, "tick.event_time")?;
        let receive_time = UnixNanos::from_wire(tick.receive_time, "tick.receive_time")?;
        let (venue, symbol) = last.share(&tick.venue, &tick.symbol);
        Ok(Tick {
            venue,
            symbol,
            instrument_id: tick.instrument_id,
            event_time,
            receive_time,
            price,
            quantity,
            side: Side::from_wire(tick.side),
            trade_id: tick.trade_id,
            log_seq: tick.log_seq,
            origin: Origin::from_wire(tick.origin),
            action,
            merged_count,
        })
    }

    pub(crate) fn from_rows(batch: proto::TickBatch) -> Result<Vec<Tick>, Error> {
        let mut names = Names::default();
        let mut ticks = Vec::with_capacity(batch.ticks.len());
        let merged_counts = batch.merged_counts;
        for (index, tick) in batch.ticks.into_iter().enumerate() {
            let merged_count = merged_counts.get(index).copied().unwrap_or(1);
            ticks.push(Tick::from_wire(tick, merged_count, &mut names)?);
        }
        Ok(ticks)
    }
}

/// The names of the tick before: ticks of one message mostly share them.
#[derive(Debug, Default)]
pub(crate) struct Names(Option<(Arc<str>, Arc<str>)>);

impl Names {
    fn share(&mut self, venue: &str, symbol: &str) -> (Arc<str>, Arc<str>) {
        if let Some((last_venue, last_symbol)) = &self.0
            && **last_venue == *venue
            && **last_symbol == *symbol
        {
            return (last_venue.clone(), last_symbol.clone());
        }
        let names = (Arc::from(venue), Arc::from(symbol));
        self.0 = Some(names.clone());
        names
    }
}

// === impl NewTick ===

impl NewTick {
    /// A new trade with a price and nothing else.
    pub fn new(
        venue: impl Into<Arc<str>>,
        symbol: impl Into<Arc<str>>,
        event_time: UnixNanos,
        price: Decimal,
    ) -> NewTick {
        NewTick {
            venue: venue.into(),
            symbol: symbol.into(),
            event_time,
            receive_time: None,
            price,
            quantity: None,
            side: None,
            trade_id: String::new(),
            action: Action::New,
        }
    }

    /// Sets the quantity.
    pub fn quantity(mut self, quantity: Decimal) -> NewTick {
        self.quantity = Some(quantity);
        self
    }

    /// Sets the side of the aggressor.
    pub fn side(mut self, side: Side) -> NewTick {
        self.side = Some(side);
        self
    }

    /// Sets the venue's name for the trade.
    pub fn trade_id(mut self, trade_id: impl Into<String>) -> NewTick {
        self.trade_id = trade_id.into();
        self
    }

    /// Sets the time at which the source received the trade.
    pub fn receive_time(mut self, time: UnixNanos) -> NewTick {
        self.receive_time = Some(time);
        self
    }

    pub(crate) fn to_wire(&self) -> proto::Tick {
        proto::Tick {
            venue: self.venue.as_ref().to_owned(),
            symbol: self.symbol.as_ref().to_owned(),
            event_time: Some(self.event_time.to_wire()),
            receive_time: self.receive_time.map(UnixNanos::to_wire),
            price: Some(self.price.to_wire()),
            quantity: self.quantity.map(Decimal::to_wire),
            side: Side::to_wire(self.side),
            trade_id: self.trade_id.clone(),
            action: self.action.to_wire(),
            ..proto::Tick::default()
        }
    }
}

impl From<Tick> for NewTick {
    /// The same trade, to publish it elsewhere.
    fn from(tick: Tick) -> NewTick {
        NewTick {
            venue: tick.venue,
            symbol: tick.symbol,
            event_time: tick.event_time,
            receive_time: Some(tick.receive_time),
            price: tick.price,
            quantity: tick.quantity,
            side: tick.side,
            trade_id: tick.trade_id,
            action: tick.action,
        }
    }
}

// === impl Side, Origin, Action ===

impl Side {
    /// `buy` or `sell`.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Buy => "buy",
            Side::Sell => "sell",
        }
    }

    pub(crate) fn from_wire(side: i32) -> Option<Side> {
        match proto::Side::try_from(side) {
            Ok(proto::Side::Buy) => Some(Side::Buy),
            Ok(proto::Side::Sell) => Some(Side::Sell),
            Ok(proto::Side::Unspecified) | Err(_) => None,
        }
    }

    pub(crate) fn to_wire(side: Option<Side>) -> i32 {
        let side = match side {
            None => proto::Side::Unspecified,
            Some(Side::Buy) => proto::Side::Buy,
            Some(Side::Sell) => proto::Side::Sell,
        };
        side.into()
    }
}

impl FromStr for Side {
    type Err = NameUnknown;

    fn from_str(text: &str) -> Result<Side, NameUnknown> {
        match text {
            "buy" => Ok(Side::Buy),
            "sell" => Ok(Side::Sell),
            _ => Err(NameUnknown { found: text.to_owned(), expected: "buy, sell" }),
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl Origin {
    /// `live` or `backfill`.
    pub fn as_str(self) -> &'static str {
        match self {
            Origin::Live => "live",
            Origin::Backfill => "backfill",
        }
    }

    pub(crate) fn from_wire(origin: i32) -> Origin {
        match proto::Origin::try_from(origin) {
            Ok(proto::Origin::Backfill) => Origin::Backfill,
            Ok(proto::Origin::Live | proto::Origin::Unspecified) | Err(_) => Origin::Live,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

impl Action {
    /// `new`, `correct` or `cancel`.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::New => "new",
            Action::Correct => "correct",
            Action::Cancel => "cancel",
        }
    }

    /// What an unknown action would do to earlier ticks cannot be guessed, so it is an error.
    pub(crate) fn from_wire(action: i32) -> Result<Action, Error> {
        match proto::Action::try_from(action) {
            Ok(proto::Action::New | proto::Action::Unspecified) => Ok(Action::New),
            Ok(proto::Action::Correct) => Ok(Action::Correct),
            Ok(proto::Action::Cancel) => Ok(Action::Cancel),
            Err(_) => Err(Error::protocol(format!("tick.action {action} is not known"))),
        }
    }

    pub(crate) fn to_wire(self) -> i32 {
        let action = match self {
            Action::New => proto::Action::New,
            Action::Correct => proto::Action::Correct,
            Action::Cancel => proto::Action::Cancel,
        };
        action.into()
    }
}

impl FromStr for Action {
    type Err = NameUnknown;

    fn from_str(text: &str) -> Result<Action, NameUnknown> {
        match text {
            "new" => Ok(Action::New),
            "correct" => Ok(Action::Correct),
            "cancel" => Ok(Action::Cancel),
            _ => Err(NameUnknown { found: text.to_owned(), expected: "new, correct, cancel" }),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}
