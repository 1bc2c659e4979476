//! Values come out as they went in: nanoseconds, 18 decimals, and every optional field, on every path.

use std::time::Duration;

use bytes::Bytes;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_tests::{Cli, Options, Publisher, Server, Stubs, eventually, values, within};

/// 2024-08-08T00:00:00.123456789Z.
const TIME: i64 = 1_723_075_200_123_456_789;

/// A value, under a symbol of its own.
struct Value {
    symbol: &'static str,
    event_unix_nano: i64,
    receive_unix_nano: i64,
    price: &'static str,
    quantity: Option<&'static str>,
    side: proto::Side,
    trade_id: &'static str,
}

const VALUES: &[Value] = &[
    Value {
        symbol: "FINE",
        event_unix_nano: TIME,
        receive_unix_nano: TIME + 1_000_000_001,
        price: "0.123456789012345678",
        quantity: Some("0.000000000000000001"),
        side: proto::Side::Sell,
        trade_id: "id-1",
    },
    Value {
        symbol: "LARGE",
        event_unix_nano: TIME + 1,
        // Before the event: real captures have it.
        receive_unix_nano: TIME - 1_300_000_000,
        price: "999999999999999",
        quantity: Some("999999999999999"),
        side: proto::Side::Buy,
        trade_id: "18446744073709551615",
    },
    Value {
        symbol: "NEGATIVE",
        event_unix_nano: TIME + 2,
        receive_unix_nano: TIME,
        price: "-37.63",
        quantity: Some("0"),
        side: proto::Side::Unspecified,
        trade_id: "007",
    },
    Value {
        symbol: "ZERO.WITHOUT-QUANTITY",
        event_unix_nano: TIME + 3,
        receive_unix_nano: TIME,
        price: "0",
        quantity: None,
        side: proto::Side::Unspecified,
        trade_id: "",
    },
    Value {
        symbol: "FIRST:DAY",
        event_unix_nano: 0,
        receive_unix_nano: 0,
        price: "1.5",
        quantity: None,
        side: proto::Side::Buy,
        trade_id: "zwölf",
    },
    Value {
        symbol: "LAST/DAY",
        // 2261-12-31T23:59:59.999999999Z.
        event_unix_nano: 9_214_646_399_999_999_999,
        receive_unix_nano: 9_214_646_399_999_999_999,
        price: "61837.63",
        quantity: Some("0.02"),
        side: proto::Side::Sell,
        trade_id: "x",
    },
];

impl Value {
    fn tick(&self) -> proto::Tick {
        proto::Tick {
            receive_time: Some(values::timestamp(self.receive_unix_nano)),
            quantity: self.quantity.map(values::decimal),
            side: self.side.into(),
            trade_id: self.trade_id.to_owned(),
            ..values::tick("TEST", self.symbol, self.event_unix_nano, self.price)
        }
    }
}

fn columns() -> proto::TickColumns {
    let mut columns = proto::TickColumns::default();
    let (mut event, mut receive) = (0, 0);
    for (index, value) in (0..).zip(VALUES) {
        let price = values::decimal(value.price);
        let quantity = value.quantity.map(values::decimal);
        columns.instruments.push(proto::ColumnInstrument {
            venue: "TEST".to_owned(),
            symbol: value.symbol.to_owned(),
            price_exponent: price.exponent,
            quantity_exponent: quantity.map_or(0, |quantity| quantity.exponent),
            ..Default::default()
        });
        columns.instrument_index.push(index);
        columns.event_time_unix_nano_delta.push(value.event_unix_nano.wrapping_sub(event));
        columns.receive_time_unix_nano_delta.push(value.receive_unix_nano.wrapping_sub(receive));
        (event, receive) = (value.event_unix_nano, value.receive_unix_nano);
        columns.price_mantissa.push(price.mantissa);
        columns.quantity.push(quantity.map_or(0, |quantity| quantity.mantissa.unsigned_abs() + 1));
        columns.side.push(value.side.into());
        columns.trade_id.push(value.trade_id.to_owned());
    }
    columns
}

/// A tick as it must come out: what was sent, and decimals without trailing zeros. What the server adds is left out.
fn bare(tick: &proto::Tick) -> proto::Tick {
    let canonical = |value: proto::Decimal| {
        let mut value = value;
        while value.mantissa != 0 && value.mantissa % 10 == 0 {
            value.mantissa /= 10;
            value.exponent += 1;
        }
        value
    };
    proto::Tick {
        instrument_id: 0,
        log_seq: 0,
        origin: 0,
        action: 0,
        price: tick.price.map(canonical),
        quantity: tick.quantity.map(canonical),
        ..tick.clone()
    }
}

async fn history(stubs: &Stubs, symbol: &str) -> Vec<proto::Tick> {
    let request = proto::ListTicksRequest { symbol: symbol.to_owned(), ..Default::default() };
    let answer = stubs.history.clone().list_ticks(request).await.expect("a list");
    answer.into_inner().ticks
}

async fn latest(stubs: &Stubs, symbol: &str) -> proto::Tick {
    let request = proto::ListLatestTicksRequest { selectors: vec![values::selector(symbol)], ..Default::default() };
    let answer = stubs.history.clone().list_latest_ticks(request).await.expect("a latest tick");
    let mut ticks = answer.into_inner().latest_ticks;
    assert_eq!(ticks.len(), 1, "{ticks:?}");
    ticks.remove(0).tick.expect("it has a tick")
}

/// The epoch of the log, as a subscription tells it.
async fn epoch(stubs: &Stubs) -> u64 {
    let request = proto::SubscribeTicksRequest { selectors: vec![values::selector("*")], ..Default::default() };
    let mut stream = stubs.live.clone().subscribe_ticks(request).await.expect("a stream").into_inner();
    let first = within("the first event", Duration::from_secs(10), stream.message()).await;
    match first.expect("no error").expect("no end").event {
        Some(Event::Ack(ack)) => ack.epoch,
        other => panic!("{other:?}"),
    }
}

/// All ticks from the beginning of the log, as rows.
async fn subscription(stubs: &Stubs, count: usize) -> Vec<proto::Tick> {
    let mut live = stubs.live.clone();
    let start = proto::StartPosition { epoch: epoch(stubs).await, log_seq: 0 };
    let request = proto::SubscribeTicksRequest {
        selectors: vec![values::selector("*")],
        include_backfill: true,
        start: Some(proto::subscribe_ticks_request::Start::Position(start)),
        ..Default::default()
    };
    let mut stream = live.subscribe_ticks(request).await.expect("a stream").into_inner();
    let mut ticks = Vec::new();
    while ticks.len() < count {
        let message = within("ticks of the log", Duration::from_secs(20), stream.message()).await;
        let message = message.expect("no error").expect("no end");
        if let Some(Event::Rows(rows)) = message.event {
            ticks.extend(rows.ticks);
        }
    }
    ticks
}

/// Everything that can be asked gives back what was sent.
async fn assert_unchanged(stubs: &Stubs) {
    let mut logged = subscription(stubs, VALUES.len()).await;
    logged.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    let mut sent: Vec<proto::Tick> = VALUES.iter().map(|value| bare(&value.tick())).collect();
    sent.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    assert_eq!(logged.iter().map(bare).collect::<Vec<_>>(), sent, "by subscription");
    for tick in sent {
        let listed: Vec<proto::Tick> = history(stubs, &tick.symbol).await.iter().map(bare).collect();
        assert_eq!(listed, std::slice::from_ref(&tick), "by ListTicks");
        assert_eq!(bare(&latest(stubs, &tick.symbol).await), tick, "by ListLatestTicks");
    }
}

async fn published(content: proto::publish_batch::Content) -> (Server, Stubs) {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    // As backfill: one of the times lies far ahead.
    let mut publisher = Publisher::claim_as(&stubs, "values", true).await.expect("a claim");
    publisher.content(content).await.expect("good ticks");
    publisher.close().await.expect("a good end");
    (server, stubs)
}

fn rows() -> proto::TickBatch {
    proto::TickBatch { ticks: VALUES.iter().map(Value::tick).collect(), merged_counts: Vec::new() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_come_out_as_they_went_in() {
    let (mut server, stubs) = published(proto::publish_batch::Content::Rows(rows())).await;
    assert_unchanged(&stubs).await;
    server.kill9().await;
    server.restart().await;
    assert_unchanged(&server.stubs().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_come_out_as_they_went_in() {
    let (_server, stubs) = published(proto::publish_batch::Content::Columns(columns())).await;
    assert_unchanged(&stubs).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_of_the_command_line_can_be_published_again_unchanged() {
    let (server, _) = published(proto::publish_batch::Content::Rows(rows())).await;
    let mut lines = String::new();
    for value in VALUES {
        let printed = Cli::new(&server, ["history", value.symbol, "--all", "--json"]).ok().await;
        let json = printed.json();
        assert_eq!(json.len(), 1, "{json:?}");
        assert_eq!(json[0]["price"], value.price, "decimals are strings");
        lines.push_str(&printed.stdout);
    }
    assert!(lines.contains("\"2024-08-08T00:00:00.123456789Z\""), "nanoseconds: {lines}");

    let other = Server::start(Options::serve()).await;
    Cli::new(&other, ["publish", "--backfill"]).stdin(lines.clone()).ok().await;
    assert_unchanged(&other.stubs().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_subscriber_sees_the_nanoseconds_in_rows_and_in_columns() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut streams = Vec::new();
    for encoding in [proto::Encoding::Rows, proto::Encoding::Columns] {
        let request = proto::SubscribeTicksRequest {
            selectors: vec![values::selector("FINE")],
            encoding: encoding.into(),
            ..Default::default()
        };
        let mut live = stubs.live.clone();
        let mut stream = live.subscribe_ticks(request).await.expect("served").into_inner();
        let first = within("the first event", Duration::from_secs(10), stream.message());
        let first = first.await.expect("no error").expect("no end");
        assert!(matches!(first.event, Some(Event::Ack(_))), "{first:?}");
        streams.push(stream);
    }

    let mut publisher = Publisher::claim(&stubs, "values").await.expect("a claim");
    let ack = publisher.rows(vec![VALUES[0].tick()]).await.expect("a good tick");
    for mut stream in streams {
        let (cursor, event) = next_ticks(&mut stream).await;
        assert_eq!(cursor, ack.cursor);
        match event {
            Event::Rows(rows) => assert_eq!(bare(&rows.ticks[0]), bare(&VALUES[0].tick())),
            Event::Columns(columns) => {
                assert_eq!(columns.event_time_unix_nano_delta, [TIME]);
                let exponent = columns.instruments[0].price_exponent;
                let price = proto::Decimal { mantissa: columns.price_mantissa[0], exponent };
                assert_eq!(values::decimal_text(price), VALUES[0].price);
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn next_ticks(stream: &mut tonic::Streaming<proto::SubscribeTicksResponse>) -> (Bytes, Event) {
    loop {
        let message = within("a tick", Duration::from_secs(10), stream.message()).await;
        let message = message.expect("no error").expect("no end");
        if let Some(event @ (Event::Rows(_) | Event::Columns(_))) = message.event {
            return (message.cursor, event);
        }
    }
}

/// Every acknowledgement's cursor, asked for at once.
pub(crate) async fn own_writes(options: Options) {
    let server = Server::start(options).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "values").await.expect("a claim");
    for index in 0..50 {
        let tick = values::tick("TEST", "OWN", TIME + index, "1.5");
        let ack = publisher.rows(vec![tick]).await.expect("a good tick");
        let request = proto::ListTicksRequest {
            symbol: "OWN".to_owned(),
            min_cursor: ack.cursor,
            order: proto::Order::Descending.into(),
            page_size: 1,
            ..Default::default()
        };
        let answer = stubs.history.clone().list_ticks(request).await.expect("a list");
        let ticks = answer.into_inner().ticks;
        assert_eq!(ticks[0].event_time, Some(values::timestamp(TIME + index)));
    }
    // The registry agrees with what was published.
    eventually("fifty ticks", Duration::from_secs(5), || async {
        let request =
            proto::GetInstrumentRequest { venue: "TEST".to_owned(), symbol: "OWN".to_owned(), ..Default::default() };
        let answer = stubs.instruments.clone().get_instrument(request).await.ok()?;
        (answer.into_inner().instrument?.tick_count == 50).then_some(())
    })
    .await;
}
