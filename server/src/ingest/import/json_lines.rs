//! One tick a line as a JSON object, in the form that `tapefeed history --json` prints: `venue`, `symbol`,
//! `event_time`, `price`, and perhaps `receive_time`, `quantity`, `side`, `trade_id`. Other fields are passed over.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::ImportError;
use super::format::{BatchBuilder, Frame, Line, Reader, RejectCode};
use super::json::{self, Scalar};
use super::options::{FileFormat, Fits, ImportOptions, TimeUnit};
use super::value;
use crate::domain::{Action, Decimal, NewTick, Side, TradeId, UnixNanos};

/// A reader of ticks in JSON.
#[derive(Debug)]
pub(super) struct JsonLines {
    options: ImportOptions,
}

/// One line.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Fields<'a> {
    /// Set in what `watch --json` prints beside ticks.
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow)]
    venue: Option<&'a RawValue>,
    #[serde(borrow)]
    symbol: Option<&'a RawValue>,
    #[serde(borrow)]
    event_time: Option<&'a RawValue>,
    #[serde(borrow)]
    receive_time: Option<&'a RawValue>,
    #[serde(borrow)]
    price: Option<&'a RawValue>,
    #[serde(borrow)]
    quantity: Option<&'a RawValue>,
    #[serde(borrow)]
    side: Option<&'a RawValue>,
    #[serde(borrow)]
    trade_id: Option<&'a RawValue>,
    #[serde(borrow)]
    action: Option<&'a RawValue>,
}

/// Why a line is refused.
type Refused = (RejectCode, String);

fn invalid(reason: impl Into<String>) -> Refused {
    (RejectCode::FieldInvalid, reason.into())
}

impl JsonLines {
    /// What the first line lacks or has twice, all lines will: it is told before anything is stored.
    pub(super) fn open(given: &ImportOptions, first_line: &[u8]) -> Result<JsonLines, ImportError> {
        given.refuse_unfit(FileFormat::JsonLines, Fits { symbol: true, units: true })?;
        if let Ok(first) = json::object::<Fields>(json::without_mark(first_line)) {
            let option = |field, problem: &str| Err(ImportError::Option { field, problem: problem.to_owned() });
            if first.venue.is_some() && given.venue.is_some() {
                return option("options.venue", "the lines of the file have a venue: leave the option out");
            }
            if first.symbol.is_some() && given.symbol.is_some() {
                return option("options.symbol", "the lines of the file have a symbol: leave the option out");
            }
            for (time, unit, field) in [
                (first.event_time, given.time_unit, "options.time_unit"),
                (first.receive_time, given.receive_time_unit, "options.receive_time_unit"),
            ] {
                if time.is_some_and(is_number) && unit.is_none() {
                    return option(
                        field,
                        "the times of the file are numbers: give seconds, milliseconds, microseconds or nanoseconds",
                    );
                }
            }
        }
        Ok(JsonLines { options: ImportOptions { format: Some(FileFormat::JsonLines), ..given.clone() } })
    }

    fn tick(&self, fields: &Fields<'_>, batch: &mut BatchBuilder) -> Result<(), Refused> {
        let Fields { event: _, venue, symbol, event_time, receive_time, price, quantity, side, trade_id, action } =
            fields;
        let action = match action.map(Scalar::of) {
            None => Action::New,
            Some(Scalar::Text(action)) if action == "new" => Action::New,
            Some(Scalar::Text(action)) if action == "correct" => Action::Correct,
            Some(Scalar::Text(action)) if action == "cancel" => Action::Cancel,
            Some(_) => return Err(invalid("action: must be new, correct or cancel")),
        };
        let event_time = event_time.ok_or_else(|| invalid("event_time is missing"))?;
        let event_time = time(event_time, self.options.time_unit, "event_time")?;
        let receive_time = match receive_time {
            Some(raw) => Some(time(raw, self.options.receive_time_unit, "receive_time")?),
            None => None,
        };
        let price = match price {
            Some(price) => json::decimal(price).map_err(|problem| invalid(format!("price: {problem}")))?,
            None if action == Action::Cancel => Decimal::ZERO,
            None => return Err(invalid("price is missing")),
        };
        let quantity = match quantity {
            Some(raw) => Some(json::decimal(raw).map_err(|problem| invalid(format!("quantity: {problem}")))?),
            None => None,
        };
        if quantity.is_some_and(|quantity| quantity.is_negative()) {
            return Err(invalid("quantity: must not be negative"));
        }
        let side = match side {
            Some(raw) => json::text(raw)
                .and_then(|side| value::side(side.as_bytes()))
                .ok_or_else(|| invalid("side: must be buy, sell or empty"))?,
            None => Side::Unspecified,
        };
        let trade_id = match trade_id {
            Some(raw) => {
                let text = json::identifier(raw).ok_or_else(|| invalid("trade_id: must be text or a whole number"))?;
                TradeId::new(&text).map_err(|problem| invalid(format!("trade_id: {problem}")))?
            }
            None => TradeId::None,
        };
        if action != Action::New && trade_id == TradeId::None {
            return Err(invalid("trade_id is missing: it says which trade is meant"));
        }
        let fixed = self.options.venue.as_ref().map(|venue| venue.as_str());
        let venue = name(*venue, fixed, "venue")?;
        let fixed = self.options.symbol.as_ref().map(|symbol| symbol.as_str());
        let symbol = name(*symbol, fixed, "symbol")?;
        let instrument =
            batch.instrument(venue.as_bytes(), symbol.as_bytes()).map_err(|problem| invalid(problem.to_string()))?;
        let tick = NewTick { instrument, event_time, receive_time, price, quantity, side, trade_id, action };
        batch.batch.ticks.push(tick);
        Ok(())
    }
}

impl Reader for JsonLines {
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
        let fields: Fields = match json::object(json::without_mark(line)) {
            Ok(fields) => fields,
            Err(problem) => return Line::invalid(format!("not a tick in JSON: {problem}")),
        };
        if fields.event.is_some() {
            return Line::Ignored("event");
        }
        match self.tick(&fields, batch) {
            Ok(()) => Line::Tick,
            Err((code, reason)) => Line::Rejected { code, reason },
        }
    }
}

/// Whether a first line is certain to be a tick: the two fields that every tick has.
pub(super) fn is_tick(line: &[u8]) -> bool {
    json::object::<Fields>(line)
        .is_ok_and(|fields| fields.event.is_some() || (fields.event_time.is_some() && fields.price.is_some()))
}

/// A name from the line or, where the line has none, from the options.
fn name<'a>(
    raw: Option<&'a RawValue>,
    fixed: Option<&'a str>,
    field: &str,
) -> Result<std::borrow::Cow<'a, str>, Refused> {
    let own = match raw {
        Some(raw) => Some(json::text(raw).ok_or_else(|| invalid(format!("{field}: must be text")))?),
        None => None,
    };
    match (own, fixed) {
        (Some(own), Some(fixed)) if own != fixed => {
            Err(invalid(format!("{field}: the line names another than the option")))
        }
        (Some(own), _) => Ok(own),
        (None, Some(fixed)) => Ok(fixed.into()),
        (None, None) => Err(invalid(format!("{field} is missing"))),
    }
}

/// Whether a time is a number, perhaps in quotes: it then needs a unit.
fn is_number(raw: &RawValue) -> bool {
    match Scalar::of(raw) {
        Scalar::Number(_) => true,
        Scalar::Text(text) => {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b'-')
                && text.bytes().filter(|byte| *byte == b'-').count() < 2
        }
        _ => false,
    }
}

fn time(raw: &RawValue, unit: Option<TimeUnit>, field: &str) -> Result<UnixNanos, Refused> {
    let unit = match unit {
        Some(unit) if unit != TimeUnit::Text && is_number(raw) => unit,
        _ if is_number(raw) => return Err(invalid(format!("{field}: a number without a unit"))),
        _ => TimeUnit::Text,
    };
    let read = match Scalar::of(raw) {
        Scalar::Text(text) => value::time(text.as_bytes(), unit),
        Scalar::Number(written) => value::time(written.as_bytes(), unit),
        _ => return Err(invalid(format!("{field}: must be text or a number"))),
    };
    read.map_err(|problem| invalid(format!("{field}: {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Symbol, Venue};

    const TIME: i64 = 1_723_161_255_342_000_789;

    fn open(given: &ImportOptions, first: &str) -> Result<JsonLines, String> {
        JsonLines::open(given, first.as_bytes()).map_err(|error| error.to_string())
    }

    fn read_with(given: &ImportOptions, line: &str) -> (Line, Option<NewTick>) {
        let mut parser = open(given, "").unwrap();
        let mut builder = BatchBuilder::default();
        let outcome = parser.line(line.as_bytes(), &mut builder);
        (outcome, builder.take().0.ticks.pop())
    }

    fn read(line: &str) -> (Line, Option<NewTick>) {
        read_with(&ImportOptions::default(), line)
    }

    fn named() -> ImportOptions {
        ImportOptions {
            venue: Some(Venue::new("V").unwrap()),
            symbol: Some(Symbol::new("S").unwrap()),
            ..ImportOptions::default()
        }
    }

    #[test]
    fn what_history_prints_becomes_a_tick() {
        let line = concat!(
            r#"{"venue":"BINANCE","symbol":"BTC/USDT","event_time":"2024-08-08T23:54:15.342000789Z","#,
            r#""receive_time":"2024-08-08T23:54:15.343000000Z","price":"61837.63","quantity":"0.00012","#,
            r#""side":"sell","trade_id":"37","instrument_id":3,"log_seq":9,"origin":"live","#,
            r#""action":"new","cursor":"AQID+g=="}"#
        );
        let expected = NewTick {
            instrument: 0,
            event_time: UnixNanos::new(TIME).unwrap(),
            receive_time: Some(UnixNanos::new(1_723_161_255_343_000_000).unwrap()),
            price: "61837.63".parse().unwrap(),
            quantity: Some("0.00012".parse().unwrap()),
            side: Side::Sell,
            trade_id: TradeId::Number(37),
            action: Action::New,
        };
        assert_eq!(read(line), (Line::Tick, Some(expected.clone())));
        let by_hand =
            line.replace(r#""61837.63""#, "61837.630").replace(r#""37""#, "37").replace(r#""0.00012""#, "1.2e-4");
        assert_eq!(read(&by_hand), (Line::Tick, Some(expected)));
    }

    #[test]
    fn short_lines_take_names_and_units_from_the_options() {
        let given = ImportOptions { time_unit: Some(TimeUnit::Nanoseconds), ..named() };
        for line in [
            r#"{"event_time":1723161255342000789,"price":1.5}"#,
            r#"{"event_time":"1723161255342000789","price":"1.50","venue":null,"side":null}"#,
            r#"{"event_time":"2024-08-08T23:54:15.342000789Z","price":"1.5","side":"","unknown":{"a":[1]}}"#,
            r#"{"event_time":"2024-08-08T23:54:15.342000789Z","price":"1.5","venue":"V","symbol":"S"}"#,
        ] {
            let (outcome, tick) = read_with(&given, line);
            assert_eq!(outcome, Line::Tick, "{line}");
            let tick = tick.unwrap();
            assert_eq!((tick.event_time.nanos(), tick.price.to_string()), (TIME, "1.5".to_owned()), "{line}");
        }
    }

    #[test]
    fn lines_that_change_or_cancel_a_trade_name_it() {
        for (text, action) in [("new", Action::New), ("correct", Action::Correct), ("cancel", Action::Cancel)] {
            let line = format!(
                r#"{{"venue":"V","symbol":"S","event_time":"2024-08-08T23:54:15Z","trade_id":"7","action":"{text}","price":"1"}}"#
            );
            let (outcome, tick) = read(&line);
            assert_eq!((outcome, tick.map(|tick| tick.action)), (Line::Tick, Some(action)), "{line}");
            let (outcome, tick) = read(&line.replace(r#","price":"1""#, ""));
            let taken = action == Action::Cancel;
            assert_eq!((outcome == Line::Tick, tick.is_some()), (taken, taken), "{line}");
        }
    }

    #[test]
    fn what_is_no_tick_is_passed_over() {
        assert_eq!(read(r#"{"event":"progress","log_seq":7}"#).0, Line::Ignored("event"));
        assert_eq!(read("").0, Line::Ignored("blank"));
    }

    #[test]
    fn bad_lines_are_rejected_with_the_field_and_the_reason() {
        const LINE: &str =
            r#"{"venue":"V","symbol":"S","event_time":"2024-08-08T23:54:15Z","price":"1","quantity":"2"}"#;
        for (from, to, expected) in [
            (r#""venue":"V","#, "", "venue is missing"),
            (r#""venue":"V""#, r#""venue":7"#, "venue: must be text"),
            (r#""venue":"V""#, r#""venue":"V/W""#, "venue: byte 1"),
            (r#""symbol":"S","#, "", "symbol is missing"),
            (r#""symbol":"S","#, r#""symbol":"S","symbol":"S","#, "duplicate field"),
            (r#""event_time":"2024-08-08T23:54:15Z","#, "", "event_time is missing"),
            ("2024-08-08T23:54:15Z", "2024-08-08T23:54:15", "event_time: not a time of RFC 3339"),
            (r#""2024-08-08T23:54:15Z""#, "1723161255342", "event_time: a number without a unit"),
            (r#""2024-08-08T23:54:15Z""#, r#""1723161255342""#, "event_time: a number without a unit"),
            (r#""2024-08-08T23:54:15Z""#, "[]", "event_time: must be text or a number"),
            ("2024-08-08T23:54:15Z", "1969-08-08T23:54:15Z", "event_time: before 1970"),
            (r#","price":"1""#, "", "price is missing"),
            (r#""price":"1""#, r#""price":"1,5""#, "price: not a decimal"),
            (r#""price":"1""#, r#""price":true"#, "price: not a decimal"),
            (r#""quantity":"2""#, r#""quantity":-2"#, "quantity: must not be negative"),
            (r#""quantity":"2""#, r#""quantity":{}"#, "quantity: not a decimal"),
            (r#""quantity""#, r#""side":"up","quantity""#, "side: must be"),
            (r#""quantity""#, r#""trade_id":1.5,"quantity""#, "trade_id: must be"),
            (r#""quantity""#, r#""action":"undo","quantity""#, "action: must be new, correct or cancel"),
            (r#""quantity""#, r#""receive_time":5,"quantity""#, "receive_time: a number without a unit"),
            ("}", "", "not a tick in JSON"),
            ("}", "}}", "not a tick in JSON"),
            ("{", "[", "not a tick in JSON"),
        ] {
            assert!(LINE.contains(from), "{from}");
            let line = LINE.replace(from, to);
            let (outcome, tick) = read(&line);
            let Line::Rejected { code: RejectCode::FieldInvalid, reason } = outcome else {
                panic!("{line}: {outcome:?}")
            };
            assert!(reason.contains(expected), "{line}: {reason}");
            assert_eq!(tick, None);
        }
        for action in ["correct", "cancel"] {
            let line = LINE.replace(r#""quantity""#, &format!(r#""action":"{action}","quantity""#));
            let Line::Rejected { reason, .. } = read(&line).0 else { panic!("{line}") };
            assert!(reason.starts_with("trade_id is missing"), "{reason}");
        }
        let other = LINE.replace(r#""venue":"V""#, r#""venue":"W""#);
        let Line::Rejected { reason, .. } = read_with(&named(), &other).0 else { panic!("{other}") };
        assert!(reason.contains("names another"), "{reason}");
    }

    #[test]
    fn what_all_lines_lack_or_have_twice_is_refused_before_anything_is_stored() {
        let units = ImportOptions { time_unit: Some(TimeUnit::Milliseconds), ..ImportOptions::default() };
        for (given, first, expected) in [
            (ImportOptions::default(), r#"{"event_time":1,"price":1}"#, Some("options.time_unit")),
            (ImportOptions::default(), r#"{"event_time":"1.5","price":1}"#, Some("options.time_unit")),
            (units.clone(), r#"{"event_time":1,"receive_time":1,"price":1}"#, Some("options.receive_time_unit")),
            (units, r#"{"event_time":1,"price":1}"#, None),
            (named(), r#"{"venue":"V","price":1}"#, Some("options.venue")),
            (named(), r#"{"symbol":"S","price":1}"#, Some("options.symbol")),
            (ImportOptions { delimiter: Some(b';'), ..named() }, "", Some("options.delimiter")),
        ] {
            let opened = open(&given, first);
            match (opened, expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) => assert!(error.starts_with(expected), "{first}: {error}"),
                (opened, _) => panic!("{first}: {opened:?}"),
            }
        }
    }
}
