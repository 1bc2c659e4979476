//! Captures of Binance's WebSocket: one message a line, as it came, mostly behind the time of its receipt.
//!
//! `<time> {"stream":"btcusdt@trade","data":{...}}`, or the data alone, or either without the time. Trades become
//! ticks; whatever else the socket sends is counted by its type.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::ImportError;
use super::format::{BatchBuilder, Frame, Line, Reader};
use super::json::{self, Scalar};
use super::options::{FileFormat, Fits, ImportOptions, TimeUnit};
use super::value;
use crate::domain::{NewTick, Side, TradeId, Venue};

/// A reader of captures.
#[derive(Debug)]
pub(super) struct BinanceCapture {
    options: ImportOptions,
    venue: Venue,
    /// The unit of the exchange's times.
    time_unit: TimeUnit,
    /// The unit of the times before the messages.
    receive_time_unit: TimeUnit,
}

/// The venue, unless another is given.
const VENUE: &str = "BINANCE";

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
        Ok(BinanceCapture { options, venue, time_unit, receive_time_unit })
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
            "trade" => self.trade(event, event.trade_id, received, batch),
            "aggTrade" => self.trade(event, event.aggregate_id, received, batch),
            _ => Ok(Line::Ignored(kind(event, &name, stream))),
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
        batch.batch.ticks.push(NewTick { instrument, event_time, receive_time, price, quantity, side, trade_id });
        Ok(Line::Tick)
    }
}

impl Reader for BinanceCapture {
    fn options(&self) -> &ImportOptions {
        &self.options
    }

    fn version(&self) -> u32 {
        1
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
mod tests {
    use super::*;
    use crate::domain::UnixNanos;

    const DATA: &str = r#"{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":3735683259,"p":"61837.63000000","q":"0.02000000","T":1723161255342,"m":true,"M":true}"#;

    fn read(line: &str) -> (Line, Option<NewTick>) {
        let mut parser = BinanceCapture::open(&ImportOptions::default()).unwrap();
        let mut builder = BatchBuilder::default();
        let outcome = parser.line(line.as_bytes(), &mut builder);
        (outcome, builder.take().0.ticks.pop())
    }

    #[test]
    fn a_trade_becomes_a_tick_in_every_form_of_line() {
        let received = UnixNanos::new(1_723_161_254_087_896_568).unwrap();
        let expected = NewTick {
            instrument: 0,
            event_time: UnixNanos::new(1_723_161_255_342_000_000).unwrap(),
            receive_time: Some(received),
            price: "61837.63".parse().unwrap(),
            quantity: Some("0.02".parse().unwrap()),
            side: Side::Sell,
            trade_id: TradeId::Number(3_735_683_259),
        };
        let bare = NewTick { receive_time: None, ..expected.clone() };
        let combined = format!(r#"{{"stream":"btcusdt@trade","data":{DATA}}}"#);
        let aggregate = DATA.replace(r#""trade""#, r#""aggTrade""#).replace(r#""t":"#, r#""l":5,"a":"#);
        let numbers = DATA.replace(r#""61837.63000000""#, "61837.63").replace(r#""0.02000000""#, "2e-2");
        for (line, expected) in [
            (format!("1723161254087896568 {combined}"), &expected),
            (format!("1723161254087896568\t{DATA}"), &expected),
            (format!("1723161254087896568 {aggregate}"), &expected),
            (format!("1723161254087896568 {numbers}"), &expected),
            (combined.clone(), &bare),
            (DATA.to_owned(), &bare),
            (format!("\u{feff}{DATA}"), &bare),
        ] {
            assert_eq!(read(&line), (Line::Tick, Some(expected.clone())), "{line}");
        }
        let bought = read(&DATA.replace(r#""m":true"#, r#""m":false"#)).1.unwrap();
        assert_eq!(bought.side, Side::Buy);
    }

    #[test]
    fn venue_and_units_may_be_given() {
        let given = ImportOptions {
            venue: Some(Venue::new("BINANCE-US").unwrap()),
            time_unit: Some(TimeUnit::Microseconds),
            receive_time_unit: Some(TimeUnit::Seconds),
            ..ImportOptions::default()
        };
        let mut parser = BinanceCapture::open(&given).unwrap();
        let mut builder = BatchBuilder::default();
        let line = format!("1723161254 {}", DATA.replace("1723161255342", "1723161255342001"));
        assert_eq!(parser.line(line.as_bytes(), &mut builder), Line::Tick);
        let (batch, _) = builder.take();
        assert_eq!(batch.instruments[0].0.as_str(), "BINANCE-US");
        assert_eq!(batch.ticks[0].event_time.nanos(), 1_723_161_255_342_001_000);
        assert_eq!(batch.ticks[0].receive_time.map(UnixNanos::nanos), Some(1_723_161_254_000_000_000));
        assert_eq!(parser.options().venue, given.venue);
        let text = ImportOptions { time_unit: Some(TimeUnit::Text), ..ImportOptions::default() };
        assert!(BinanceCapture::open(&text).unwrap_err().to_string().contains("options.time_unit"));
        let symbol =
            ImportOptions { symbol: Some(crate::domain::Symbol::new("S").unwrap()), ..ImportOptions::default() };
        assert!(BinanceCapture::open(&symbol).unwrap_err().to_string().contains("options.symbol"));
    }

    #[test]
    fn what_is_no_trade_is_counted_by_its_type() {
        for (line, kind) in [
            (
                r#"1 {"stream":"btcusdt@bookTicker","data":{"u":5,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}}"#,
                "bookTicker",
            ),
            (r#"{"u":5,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}"#, "bookTicker"),
            (r#"{"e":"bookTicker","u":5,"s":"BTCUSDT"}"#, "bookTicker"),
            (r#"1 {"stream":"b@depth@100ms","data":{"e":"depthUpdate","b":[["1","2"]],"a":[]}}"#, "depthUpdate"),
            (r#"{"stream":"b@depth5","data":{"lastUpdateId":1,"bids":[],"asks":[]}}"#, "depthSnapshot"),
            (r#"1 {"lastUpdateId":1,"bids":[],"asks":[]}"#, "depthSnapshot"),
            (r#"{"e":"kline","k":{"t":1}}"#, "kline"),
            (r#"{"e":"24hrTicker","p":"1"}"#, "24hrTicker"),
            (r#"{"e":"somethingNew","p":"1"}"#, "other"),
            (r#"{"stream":"!ticker@arr","data":[{"e":"24hrTicker"}]}"#, "other"),
            (r#"{"stream":"b@x","data":null}"#, "other"),
            (r#"{"result":null,"id":1}"#, "other"),
            ("{}", "other"),
            (" ", "blank"),
        ] {
            assert_eq!(read(line).0, Line::Ignored(kind), "{line}");
        }
    }

    #[test]
    fn bad_trades_are_rejected_with_the_field_and_the_reason() {
        for (from, to, expected) in [
            (r#""p":"61837.63000000","#, "", "price is missing"),
            (r#""61837.63000000""#, r#""NaN""#, "price: not a decimal"),
            (r#""61837.63000000""#, "[1]", "price: not a decimal"),
            (r#""61837.63000000""#, "1e15", "price: absolute value"),
            (r#""q":"0.02000000","#, "", "quantity is missing"),
            (r#""0.02000000""#, r#""-1""#, "quantity: must not be negative"),
            (r#","T":1723161255342"#, "", "event_time: T is no number"),
            (r#""T":1723161255342"#, r#""T":"1723161255342""#, "event_time: T is no number"),
            (r#""T":1723161255342"#, r#""T":-1"#, "event_time: T is before 1970"),
            (r#""T":1723161255342"#, r#""T":1e12"#, "event_time: T is not a number of milliseconds"),
            (r#""T":1723161255342"#, r#""T":1723161255342000000"#, "event_time: T is after 2262"),
            (r#""m":true"#, r#""m":"true""#, "side: m must be"),
            (r#""t":3735683259"#, r#""t":1.5"#, "trade_id: must be"),
            (r#""s":"BTCUSDT""#, r#""s":7"#, "symbol: s is missing, or no text"),
            (r#""s":"BTCUSDT""#, r#""s":"BTC USDT""#, "symbol: byte 3"),
            (r#""s":"BTCUSDT""#, r#""s":"""#, "symbol: must not be empty"),
            (r#""s":"BTCUSDT","#, r#""s":"A","s":"B","#, "duplicate field"),
            (r#","M":true}"#, "", "not a message in JSON"),
            (r#"{"e""#, r#"17231612540878965680000 {"e""#, "receive_time: after 2262"),
            (r#"{"e""#, r#"[{"e""#, "not a message in JSON"),
            (r#"{"e""#, r#"soon {"e""#, "not a message in JSON"),
        ] {
            assert!(DATA.contains(from), "{from}");
            let line = DATA.replace(from, to);
            let (outcome, tick) = read(&line);
            let Line::Rejected { reason, .. } = outcome else { panic!("{line}: {outcome:?}") };
            assert!(reason.contains(expected), "{line}: {reason}");
            assert_eq!(tick, None);
        }
    }
}
