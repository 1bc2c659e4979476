//! Captures of Binance's WebSocket: one message a line, as it came, mostly behind the time of its receipt.
//!
//! `<time> {"stream":"btcusdt@trade","data":{...}}`, or the data alone, or either without the time. Trades become
//! ticks; whatever else the socket sends is counted by its type.
//!
//! A capture of both trades and aggregate trades has every trade twice, so an aggregate becomes a tick only where its
//! trades are not in the file. Which are, is collected while the file arrives.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::{FileDefect, ImportError};
use super::format::{BatchBuilder, Frame, Line, Place, Reader};
use super::json::{self, Scalar};
use super::options::{FileFormat, Fits, ImportOptions, TimeUnit};
use super::value;
use crate::domain::{Action, NewTick, Side, TradeId, Venue};

/// A reader of captures.
#[derive(Debug)]
pub(super) struct BinanceCapture {
    options: ImportOptions,
    venue: Venue,
    /// The unit of the exchange's times.
    time_unit: TimeUnit,
    /// The unit of the times before the messages.
    receive_time_unit: TimeUnit,
    /// The first and the last id of the trades in the file, by symbol.
    trades: HashMap<Box<str>, (u64, u64)>,
}

/// The venue, unless another is given.
const VENUE: &str = "BINANCE";

/// Symbols whose trades are remembered: several times as many as the exchange has. Of further ones aggregates are
/// ticks.
const TRADED_SYMBOLS: usize = 10_000;

/// Trades of the futures market that happened outside its book, by their `X`: the insurance fund takes over positions
/// at prices of its own, and positions are closed against each other. The exchange leaves them out of its aggregates
/// and candles.
const OFF_BOOK: [(&str, &str); 2] = [("INSURANCE_FUND", "trade:INSURANCE_FUND"), ("ADL", "trade:ADL")];

/// The types of messages that hold no trade, as the exchange names them.
const NO_TRADES: [&str; 15] = [
    "bookTicker",
    "depthUpdate",
    "kline",
    "continuous_kline",
    "24hrTicker",
    "24hrMiniTicker",
    "1hTicker",
    "4hTicker",
    "1dTicker",
    "avgPrice",
    "markPriceUpdate",
    "indexPriceUpdate",
    "forceOrder",
    "contractInfo",
    "assetIndexUpdate",
];

/// A message of the socket: the envelope of a combined stream, or an event. What is not asked for is passed over.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(rename = "e", borrow)]
    event: Option<&'a RawValue>,
    #[serde(rename = "s", borrow)]
    symbol: Option<&'a RawValue>,
    #[serde(rename = "t", borrow)]
    trade_id: Option<&'a RawValue>,
    /// The id of an aggregate trade; in other events the best ask, or a list of asks.
    #[serde(rename = "a", borrow)]
    aggregate_id: Option<&'a RawValue>,
    #[serde(rename = "p", borrow)]
    price: Option<&'a RawValue>,
    #[serde(rename = "q", borrow)]
    quantity: Option<&'a RawValue>,
    /// The first and the last trade of an aggregate.
    #[serde(rename = "f", borrow)]
    first_trade_id: Option<&'a RawValue>,
    #[serde(rename = "l", borrow)]
    last_trade_id: Option<&'a RawValue>,
    /// How a trade of the futures market came about.
    #[serde(rename = "X", borrow)]
    execution: Option<&'a RawValue>,
    #[serde(rename = "T", borrow)]
    trade_time: Option<&'a RawValue>,
    #[serde(rename = "m", borrow)]
    buyer_is_maker: Option<&'a RawValue>,
    #[serde(rename = "u", borrow)]
    update_id: Option<&'a RawValue>,
    #[serde(rename = "B", borrow)]
    bid_quantity: Option<&'a RawValue>,
    #[serde(rename = "A", borrow)]
    ask_quantity: Option<&'a RawValue>,
    /// Begins a snapshot of the book, from a stream of partial depth or put into the capture by the program that made
    /// it.
    #[serde(rename = "lastUpdateId", borrow)]
    snapshot_id: Option<&'a RawValue>,
    /// The answer to a request, with its number.
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
}

impl Message<'_> {
    /// The best prices: the one event of the spot market that does not name itself.
    fn is_book_ticker(&self) -> bool {
        self.update_id.is_some() && self.bid_quantity.is_some() && self.ask_quantity.is_some()
    }
}

impl BinanceCapture {
    pub(super) fn open(given: &ImportOptions) -> Result<BinanceCapture, ImportError> {
        given.refuse_unfit(FileFormat::BinanceCapture, Fits { symbol: false, units: true })?;
        for (unit, field) in
            [(given.time_unit, "options.time_unit"), (given.receive_time_unit, "options.receive_time_unit")]
        {
            if unit == Some(TimeUnit::Text) {
                let problem = "the times of a capture are numbers: give their unit, or leave it out".to_owned();
                return Err(ImportError::Option { field, problem });
            }
        }
        let venue = given.venue.clone().unwrap_or_else(|| Venue::new(VENUE).expect("a valid name"));
        // These are the protocol's own units, no guesses; the exchange can be asked to send microseconds.
        let time_unit = given.time_unit.unwrap_or(TimeUnit::Milliseconds);
        let receive_time_unit = given.receive_time_unit.unwrap_or(TimeUnit::Nanoseconds);
        let options = ImportOptions {
            format: Some(FileFormat::BinanceCapture),
            venue: Some(venue.clone()),
            time_unit: Some(time_unit),
            receive_time_unit: Some(receive_time_unit),
            ..ImportOptions::default()
        };
        Ok(BinanceCapture { options, venue, time_unit, receive_time_unit, trades: HashMap::new() })
    }

    fn read(&self, line: &[u8], batch: &mut BatchBuilder) -> Result<Line, String> {
        let (received, json) = split_time(line);
        let message: Message = json::object(json).map_err(not_json)?;
        let Some(data) = message.data else {
            return self.event(&message, "", received, batch);
        };
        let stream = message.stream.and_then(json::text).unwrap_or_default();
        if !data.get().starts_with('{') {
            // Streams over all symbols send lists.
            return Ok(Line::Ignored("other"));
        }
        let event: Message = json::object(data.get().as_bytes()).map_err(not_json)?;
        self.event(&event, &stream, received, batch)
    }

    fn event(
        &self,
        event: &Message<'_>,
        stream: &str,
        received: Option<&[u8]>,
        batch: &mut BatchBuilder,
    ) -> Result<Line, String> {
        let name = event.event.and_then(json::text).unwrap_or_default();
        match &*name {
            "trade" => match no_market_trade(event) {
                Some(kind) => Ok(Line::Ignored(kind)),
                None => self.trade(event, event.trade_id, received, batch),
            },
            "aggTrade" if self.has_trades_of(event) => Ok(Line::Ignored("aggTrade")),
            "aggTrade" => self.trade(event, event.aggregate_id, received, batch),
            _ => Ok(Line::Ignored(kind(event, &name, stream))),
        }
    }

    /// Whether the file has the trades of an aggregate: it has its last one. Those before the capture of trades began
    /// are not missed.
    fn has_trades_of(&self, aggregate: &Message<'_>) -> bool {
        let known = aggregate.symbol.and_then(json::text).and_then(|symbol| self.trades.get(&*symbol));
        let (Some((first, last)), Some(id)) = (known, aggregate.last_trade_id.and_then(number)) else {
            return false;
        };
        (*first..=*last).contains(&id)
    }

    /// Remembers the id of a trade. What cannot be read is told when the line is.
    fn note_trade(&mut self, line: &[u8]) {
        let (_, json) = split_time(line);
        let Ok(message) = json::object::<Message>(json) else { return };
        let event = match message.data {
            Some(data) => json::object::<Message>(data.get().as_bytes()),
            None => Ok(message),
        };
        let Ok(event) = event else { return };
        if event.event.and_then(json::text).as_deref() != Some("trade") {
            return;
        }
        let (Some(symbol), Some(id)) = (event.symbol.and_then(json::text), event.trade_id.and_then(number)) else {
            return;
        };
        if let Some((first, last)) = self.trades.get_mut(&*symbol) {
            (*first, *last) = ((*first).min(id), (*last).max(id));
        } else if self.trades.len() < TRADED_SYMBOLS {
            self.trades.insert((&*symbol).into(), (id, id));
        }
    }

    fn trade(
        &self,
        event: &Message<'_>,
        id: Option<&RawValue>,
        received: Option<&[u8]>,
        batch: &mut BatchBuilder,
    ) -> Result<Line, String> {
        let Some(Scalar::Number(time)) = event.trade_time.map(Scalar::of) else {
            return Err("event_time: T is no number".to_owned());
        };
        let event_time =
            value::time(time.as_bytes(), self.time_unit).map_err(|problem| format!("event_time: T is {problem}"))?;
        let receive_time = match received {
            Some(time) => {
                Some(value::time(time, self.receive_time_unit).map_err(|problem| format!("receive_time: {problem}"))?)
            }
            None => None,
        };
        let decimal = |raw: Option<&RawValue>, field: &str| {
            let raw = raw.ok_or_else(|| format!("{field} is missing"))?;
            json::decimal(raw).map_err(|problem| format!("{field}: {problem}"))
        };
        let price = decimal(event.price, "price")?;
        let quantity = decimal(event.quantity, "quantity")?;
        if quantity.is_negative() {
            return Err("quantity: must not be negative".to_owned());
        }
        // The maker was there before: the other side was the aggressor.
        let side = match event.buyer_is_maker.map(Scalar::of) {
            Some(Scalar::True) => Side::Sell,
            Some(Scalar::False) => Side::Buy,
            None => Side::Unspecified,
            Some(_) => return Err("side: m must be true or false".to_owned()),
        };
        let id = match id {
            Some(raw) => json::identifier(raw).ok_or("trade_id: must be text or a whole number")?,
            None => Cow::Borrowed(""),
        };
        let trade_id = TradeId::new(&id).map_err(|problem| format!("trade_id: {problem}"))?;
        let symbol = event.symbol.and_then(json::text).ok_or("symbol: s is missing, or no text")?;
        let instrument = batch
            .instrument(self.venue.as_str().as_bytes(), symbol.as_bytes())
            .map_err(|problem| problem.to_string())?;
        let quantity = Some(quantity);
        let action = Action::New;
        let tick = NewTick { instrument, event_time, receive_time, price, quantity, side, trade_id, action };
        batch.batch.ticks.push(tick);
        Ok(Line::Tick)
    }
}

impl Reader for BinanceCapture {
    fn options(&self) -> &ImportOptions {
        &self.options
    }

    fn version(&self) -> u32 {
        2
    }

    fn frame(&self) -> Frame {
        Frame { header: 0, trailer: 0 }
    }

    fn line(&mut self, line: &[u8], batch: &mut BatchBuilder) -> Line {
        if line.iter().all(u8::is_ascii_whitespace) {
            return Line::Ignored("blank");
        }
        self.read(json::without_mark(line), batch).unwrap_or_else(Line::invalid)
    }

    fn judges(&self) -> bool {
        true
    }

    fn judge(&mut self, line: &[u8], _place: Place) -> Result<(), FileDefect> {
        // Most lines are of other types, and need not be parsed twice.
        if std::str::from_utf8(line).is_ok_and(|line| line.contains(r#""trade""#)) {
            self.note_trade(json::without_mark(line));
        }
        Ok(())
    }
}

/// What an event of a trade is instead, if it is none of the market.
fn no_market_trade(event: &Message<'_>) -> Option<&'static str> {
    let execution = event.execution.and_then(json::text)?;
    // Among the trades of the futures market there are ids without a trade: no price, no quantity, and this.
    let is_zero =
        |raw: Option<&RawValue>| raw.is_some_and(|raw| json::decimal(raw).is_ok_and(|value| value.mantissa() == 0));
    if execution == "NA" && is_zero(event.price) && is_zero(event.quantity) {
        return Some("trade:NA");
    }
    OFF_BOOK.into_iter().find(|(known, _)| *known == execution).map(|(_, kind)| kind)
}

/// A whole number.
fn number(raw: &RawValue) -> Option<u64> {
    json::identifier(raw)?.parse().ok()
}

/// Whether a first line is certain to be of a capture.
pub(super) fn is_capture(line: &[u8]) -> bool {
    let (received, json) = split_time(line);
    let Ok(message) = json::object::<Message>(json) else {
        return false;
    };
    received.is_some()
        || (message.stream.is_some() && message.data.is_some())
        || message.event.is_some_and(|name| json::text(name).is_some())
        || message.is_book_ticker()
        // Captures begin with the answer to their subscription.
        || (message.id.is_some() && message_is_answer(json))
}

/// Whether an object has nothing but a result and a number. A result of null is there too, so names are looked at.
fn message_is_answer(json: &[u8]) -> bool {
    let names: Result<std::collections::BTreeMap<Cow<'_, str>, serde::de::IgnoredAny>, _> =
        serde_json::from_slice(json);
    names.is_ok_and(|names| names.keys().map(|name| &**name).eq(["id", "result"]))
}

/// The digits before a message, and the message.
fn split_time(line: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match line.get(digits) {
        Some(b' ' | b'\t') if digits > 0 => (Some(&line[..digits]), &line[digits + 1..]),
        _ => (None, line),
    }
}

/// The type of an event that is no trade.
fn kind(event: &Message<'_>, name: &str, stream: &str) -> &'static str {
    if let Some(known) = NO_TRADES.into_iter().find(|known| *known == name) {
        return known;
    }
    // Two messages of the spot market do not name themselves.
    let channel = stream.split_once('@').map_or("", |(_, channel)| channel);
    if name.is_empty() && (channel == "bookTicker" || (channel.is_empty() && event.is_book_ticker())) {
        "bookTicker"
    } else if name.is_empty() && event.snapshot_id.is_some() {
        "depthSnapshot"
    } else {
        "other"
    }
}

fn not_json(error: String) -> String {
    format!("not a message in JSON: {error}")
}

#[cfg(test)]
mod tests;
