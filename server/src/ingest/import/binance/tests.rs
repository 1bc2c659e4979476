//! Lines of captures.

use super::*;
use crate::domain::{Action, UnixNanos};

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
        action: Action::New,
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
    let symbol = ImportOptions { symbol: Some(crate::domain::Symbol::new("S").unwrap()), ..ImportOptions::default() };
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
fn trades_outside_the_market_are_no_ticks() {
    let execution = |name: &str| DATA.replace(r#""m":true"#, &format!(r#""X":"{name}","m":true"#));
    let nothing = execution("NA").replace("61837.63000000", "0").replace("0.02000000", "0");
    for (line, expected) in [
        (nothing.clone(), Line::Ignored("trade:NA")),
        (format!(r#"1 {{"stream":"btcusdt@trade","data":{nothing}}}"#), Line::Ignored("trade:NA")),
        (execution("INSURANCE_FUND"), Line::Ignored("trade:INSURANCE_FUND")),
        (execution("ADL"), Line::Ignored("trade:ADL")),
        (execution("MARKET"), Line::Tick),
        // Whatever else there may be, it has a price and a quantity.
        (execution("NA"), Line::Tick),
        (execution("RPI"), Line::Tick),
        (execution("NA").replace("61837.63000000", "0"), Line::Tick),
        (nothing.replace(r#""X":"NA","#, ""), Line::Tick),
    ] {
        let (outcome, tick) = read(&line);
        assert_eq!((&outcome, tick.is_some()), (&expected, expected == Line::Tick), "{line}");
    }
}

#[test]
fn an_aggregate_is_a_tick_only_where_its_trades_are_not_in_the_file() {
    let trade = |symbol: &str, id: u64| DATA.replace("BTCUSDT", symbol).replace("3735683259", &id.to_string());
    let aggregate = |symbol: &str, first: u64, last: u64| {
        let range = format!(r#""a":7,"f":{first},"l":{last}"#);
        trade(symbol, 0).replace(r#""trade""#, r#""aggTrade""#).replace(r#""t":0"#, &range)
    };
    let file = [
        aggregate("BTCUSDT", 8, 9),
        aggregate("BTCUSDT", 9, 10),
        trade("BTCUSDT", 12),
        format!(r#"5 {{"stream":"btcusdt@trade","data":{}}}"#, trade("BTCUSDT", 10)),
        aggregate("BTCUSDT", 11, 12),
        aggregate("BTCUSDT", 12, 13),
        aggregate("ETHUSDT", 10, 10),
        trade("SOLUSDT", 4),
        aggregate("BTCUSDT", 12, 12).replace(r#","l":12"#, ""),
    ];
    let mut parser = BinanceCapture::open(&ImportOptions::default()).unwrap();
    for (index, line) in file.iter().enumerate() {
        parser.judge(line.as_bytes(), Place { line: index as u64 + 1, byte: 0 }).unwrap();
    }
    let mut builder = BatchBuilder::default();
    let outcomes = file.each_ref().map(|line| parser.line(line.as_bytes(), &mut builder));
    let known = Line::Ignored("aggTrade");
    let tick = Line::Tick;
    assert_eq!(outcomes.each_ref(), [&tick, &known, &tick, &tick, &known, &tick, &tick, &tick, &tick]);
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
