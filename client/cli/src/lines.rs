//! Ticks as JSON lines: what `history --json` and `watch --json` print and `publish` reads.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use tapefeed_client::{Action, Cursor, Decimal, NewTick, Tick};

use crate::table::{Align, Table};
use crate::time::{parse_time, short};

/// One tick as a line.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(crate) struct TickLine<'a> {
    venue: &'a str,
    symbol: &'a str,
    event_time: String,
    receive_time: String,
    price: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    quantity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    trade_id: &'a str,
    instrument_id: u32,
    log_seq: u64,
    origin: &'static str,
    action: &'static str,
    #[serde(skip_serializing_if = "is_one")]
    merged_count: u32,
    /// The cursor of the message, on its last tick.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

fn is_one(count: &u32) -> bool {
    *count == 1
}

impl<'a> TickLine<'a> {
    pub(crate) fn new(tick: &'a Tick, cursor: Option<&Cursor>) -> TickLine<'a> {
        TickLine {
            venue: &tick.venue,
            symbol: &tick.symbol,
            event_time: tick.event_time.to_string(),
            receive_time: tick.receive_time.to_string(),
            price: tick.price.to_string(),
            quantity: tick.quantity.map(|quantity| quantity.to_string()),
            side: tick.side.map(|side| side.as_str()),
            trade_id: &tick.trade_id,
            instrument_id: tick.instrument_id,
            log_seq: tick.log_seq,
            origin: tick.origin.as_str(),
            action: tick.action.as_str(),
            merged_count: tick.merged_count,
            cursor: cursor.map(Cursor::to_string),
        }
    }
}

/// A line to publish. What only the server sets (positions, ids, cursors) is passed over.
#[derive(Debug, Deserialize)]
struct NewTickLine {
    event: Option<String>,
    venue: Option<String>,
    symbol: Option<String>,
    event_time: Option<Text>,
    receive_time: Option<Text>,
    price: Option<Text>,
    quantity: Option<Text>,
    side: Option<String>,
    trade_id: Option<Text>,
    action: Option<String>,
}

/// Text, or a whole number, which JSON keeps exactly. A fraction that is not text loses digits in many writers: refused.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Text {
    Written(String),
    Whole(i64),
    Other(IgnoredAny),
}

impl Text {
    fn read(self, field: &str) -> Result<String, String> {
        match self {
            Text::Written(text) => Ok(text),
            Text::Whole(number) => Ok(number.to_string()),
            Text::Other(_) => Err(format!("{field}: write decimals as text, in quotes")),
        }
    }
}

/// Reads a line to publish. `None` for a line that is no tick: an event of `watch --json`.
pub(crate) fn read_tick(line: &str) -> Result<Option<NewTick>, String> {
    let line: NewTickLine = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if line.event.is_some() {
        return Ok(None);
    }
    let missing = |field: &str| format!("{field} is missing");
    let in_field = |field: &'static str| move |why: String| format!("{field}: {why}");
    let time = |time: Text, field: &'static str| parse_time(&time.read(field)?).map_err(in_field(field));
    let number = |number: Text, field: &'static str| {
        number.read(field)?.parse().map_err(|why: tapefeed_client::DecimalInvalid| format!("{field}: {why}"))
    };
    let event_time = line.event_time.ok_or_else(|| missing("event_time"))?;
    let action: Option<Action> = match &line.action {
        Some(action) => Some(action.parse().map_err(|why| format!("action: {why}"))?),
        None => None,
    };
    let price = match line.price {
        None if action == Some(Action::Cancel) => Decimal::ZERO,
        price => number(price.ok_or_else(|| missing("price"))?, "price")?,
    };
    let mut tick = NewTick::new(
        line.venue.ok_or_else(|| missing("venue"))?,
        line.symbol.ok_or_else(|| missing("symbol"))?,
        time(event_time, "event_time")?,
        price,
    );
    if let Some(receive_time) = line.receive_time {
        tick.receive_time = Some(time(receive_time, "receive_time")?);
    }
    if let Some(quantity) = line.quantity {
        tick.quantity = Some(number(quantity, "quantity")?);
    }
    if let Some(side) = line.side.filter(|side| !side.is_empty()) {
        tick.side = Some(side.parse().map_err(|why| format!("side: {why}"))?);
    }
    if let Some(trade_id) = line.trade_id {
        tick.trade_id = trade_id.read("trade_id")?;
    }
    tick.action = action.unwrap_or_default();
    Ok(Some(tick))
}

/// The table of ticks for people.
pub(crate) fn tick_table() -> Table {
    Table::new(&[
        ("TIME", Align::Left),
        ("VENUE", Align::Left),
        ("SYMBOL", Align::Left),
        ("PRICE", Align::Right),
        ("QUANTITY", Align::Right),
        ("SIDE", Align::Left),
        ("TRADE ID", Align::Left),
    ])
}

pub(crate) fn tick_row(tick: &Tick) -> Vec<String> {
    vec![
        short(tick.event_time),
        tick.venue.to_string(),
        tick.symbol.to_string(),
        if tick.action == Action::Cancel { String::new() } else { tick.price.to_string() },
        tick.quantity.map(|quantity| quantity.to_string()).unwrap_or_default(),
        tick.side.map(|side| side.to_string()).unwrap_or_default(),
        match tick.action {
            Action::New => tick.trade_id.clone(),
            action => format!("{} ({action})", tick.trade_id),
        },
    ]
}

#[cfg(test)]
mod tests {
    use tapefeed_client::{Origin, Side, UnixNanos};

    use super::*;

    fn tick() -> Tick {
        Tick {
            venue: "BINANCE".into(),
            symbol: "BTC/USDT".into(),
            instrument_id: 3,
            event_time: UnixNanos(1_723_161_255_342_000_789),
            receive_time: UnixNanos(1_723_161_255_343_000_000),
            price: "61837.63".parse().unwrap(),
            quantity: Some("0.00012".parse().unwrap()),
            side: Some(Side::Sell),
            trade_id: "37".into(),
            log_seq: 9,
            origin: Origin::Live,
            action: Action::New,
            merged_count: 1,
        }
    }

    #[test]
    fn a_tick_is_one_line_with_exact_text() {
        let cursor = "AQID+g==".parse().unwrap();
        let line = serde_json::to_string(&TickLine::new(&tick(), Some(&cursor))).unwrap();
        assert_eq!(
            line,
            concat!(
                r#"{"venue":"BINANCE","symbol":"BTC/USDT","event_time":"2024-08-08T23:54:15.342000789Z","#,
                r#""receive_time":"2024-08-08T23:54:15.343000000Z","price":"61837.63","quantity":"0.00012","#,
                r#""side":"sell","trade_id":"37","instrument_id":3,"log_seq":9,"origin":"live","#,
                r#""action":"new","cursor":"AQID+g=="}"#
            )
        );
    }

    #[test]
    fn what_is_printed_can_be_published() {
        let mut bare = tick();
        bare.quantity = None;
        bare.side = None;
        bare.trade_id = String::new();
        for tick in [tick(), bare] {
            let line = serde_json::to_string(&TickLine::new(&tick, None)).unwrap();
            assert_eq!(read_tick(&line), Ok(Some(NewTick::from(tick))));
        }
    }

    #[test]
    fn lines_by_hand_may_be_short() {
        let line = r#"{"venue":"X","symbol":"A","event_time":1723161255342,"price":"1.50","side":"buy","trade_id":7}"#;
        let read = read_tick(line).unwrap().unwrap();
        let expected = NewTick::new("X", "A", UnixNanos(1_723_161_255_342_000_000), "1.5".parse().unwrap())
            .side(Side::Buy)
            .trade_id("7");
        assert_eq!(read, expected);
    }

    #[test]
    fn a_cancel_needs_no_price_and_is_named_in_the_table() {
        let line = r#"{"venue":"X","symbol":"A","event_time":1723161255342,"trade_id":7,"action":"cancel"}"#;
        let read = read_tick(line).unwrap().unwrap();
        assert_eq!((read.action, read.trade_id.as_str()), (Action::Cancel, "7"));
        assert!(read_tick(&line.replace("cancel", "correct")).unwrap_err().contains("price is missing"));
        let cancelled = Tick { action: Action::Cancel, ..tick() };
        assert_eq!(tick_row(&cancelled)[3..], ["", "0.00012", "sell", "37 (cancel)"]);
    }

    #[test]
    fn events_are_passed_over() {
        assert_eq!(read_tick(r#"{"event":"progress","log_seq":7}"#), Ok(None));
    }

    #[test]
    fn what_is_wrong_with_a_line_is_named() {
        for (line, part) in [
            ("", "EOF"),
            ("[]", "expected struct"),
            (r#"{"symbol":"A"}"#, "event_time is missing"),
            (r#"{"event_time":"2024-08-09","price":"1","symbol":"A"}"#, "venue is missing"),
            (r#"{"venue":"X","symbol":"A","event_time":"soon","price":"1"}"#, "event_time: write"),
            (r#"{"venue":"X","symbol":"A","event_time":"2024-08-09","price":1.5}"#, "price: write decimals as text"),
            (r#"{"venue":"X","symbol":"A","event_time":"2024-08-09","price":"NaN"}"#, "price: not a decimal"),
            (r#"{"venue":"X","symbol":"A","event_time":"2024-08-09","price":"1","side":"up"}"#, "side: "),
            (r#"{"venue":"X","symbol":"A","event_time":"2024-08-09","price":"1","action":"undo"}"#, "action: "),
        ] {
            let error = read_tick(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
