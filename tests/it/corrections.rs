//! Trades that are corrected and taken back: what streams tell, and every answer before and after they are in chunks and
//! the server was killed.

use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::subscribe_ticks_request::Start;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_tests::exact::units;
use tapefeed_tests::file::StoreFile;
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::values::{decimal, decimal_text, selector, timestamp};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Options, Publisher, Server, Stubs, eventually, within};
use tonic::Code;

const SYMBOL: &str = "FIXED";

/// How long it may take until everything is in chunks.
const COMPACTION: Duration = Duration::from_secs(60);

/// How long a stream may take.
const STREAM: Duration = Duration::from_secs(30);

/// A tick about the trade of a number: its time follows from that.
fn tick(first: i64, number: i64, action: proto::Action, price: &str) -> proto::Tick {
    proto::Tick {
        venue: "XTST".to_owned(),
        symbol: SYMBOL.to_owned(),
        event_time: Some(timestamp(first + number)),
        price: (action != proto::Action::Cancel).then(|| decimal(price)),
        quantity: (action != proto::Action::Cancel).then(|| decimal("2")),
        trade_id: format!("T{number}"),
        action: action.into(),
        ..proto::Tick::default()
    }
}

/// The trades of every kind of answer must be these: number and price.
async fn check(stubs: &Stubs, cursor: &bytes::Bytes, expected: &[(i64, &str)], when: &str) {
    let history = || stubs.history.clone();
    let request = proto::ListTicksRequest {
        symbol: SYMBOL.to_owned(),
        min_cursor: cursor.clone(),
        ..proto::ListTicksRequest::default()
    };
    let ticks = history().list_ticks(request).await.expect("served").into_inner().ticks;
    let found: Vec<(String, String)> = ticks
        .iter()
        .map(|tick| (tick.trade_id.clone(), decimal_text(tick.price.expect("a trade has a price"))))
        .collect();
    let named = |(number, price): &(i64, &str)| (format!("T{number}"), (*price).to_owned());
    assert_eq!(found, expected.iter().map(named).collect::<Vec<_>>(), "{when}");
    assert!(ticks.iter().all(|tick| tick.action() == proto::Action::New), "{when}");

    let request = proto::GetPriceStatisticsRequest { symbol: SYMBOL.to_owned(), ..Default::default() };
    let statistics = history().get_price_statistics(request).await.expect("served").into_inner();
    let (count, volume) = (expected.len() as u64, (2 * expected.len()).to_string());
    assert_eq!((statistics.tick_count, &statistics.volume), (count, &volume), "{when}");

    let sum: i128 = expected.iter().map(|(_, price)| units(price)).sum();
    let request = proto::GetAveragePriceRequest {
        symbol: SYMBOL.to_owned(),
        method: proto::AverageMethod::Mean.into(),
        ..Default::default()
    };
    let average = history().get_average_price(request).await.expect("served").into_inner();
    assert_eq!(units(&average.price_sum), sum, "{when}");

    let request = proto::ListLatestTicksRequest { selectors: vec![selector(SYMBOL)], ..Default::default() };
    let latest = history().list_latest_ticks(request).await.expect("served").into_inner().latest_ticks;
    let newest = latest[0].tick.as_ref().map(|tick| tick.trade_id.clone());
    assert_eq!(newest, expected.last().map(|(number, _)| format!("T{number}")), "{when}");

    let request = proto::ListBarsRequest {
        symbol: SYMBOL.to_owned(),
        interval: Some(prost_types::Duration { seconds: 86_400, nanos: 0 }),
        include_forming: true,
        ..Default::default()
    };
    let bars = history().list_bars(request).await.expect("served").into_inner().bars;
    assert_eq!(bars.iter().map(|bar| bar.tick_count).sum::<u64>(), count, "{when}");

    let request = proto::GetInstrumentRequest {
        venue: "XTST".to_owned(),
        symbol: SYMBOL.to_owned(),
        ..proto::GetInstrumentRequest::default()
    };
    let instrument = stubs.instruments.clone().get_instrument(request).await.expect("served").into_inner();
    assert_eq!(instrument.instrument.expect("known").tick_count, count, "{when}");
}

/// Everything that a stream from the log's begin tells: trade and action, with the positions ascending.
async fn replay(stubs: &Stubs, encoding: proto::Encoding, count: usize) -> Vec<(String, proto::Action)> {
    let request = proto::SubscribeTicksRequest {
        selectors: vec![selector(SYMBOL)],
        start: Some(Start::StartTime(timestamp(0))),
        encoding: encoding.into(),
        ..proto::SubscribeTicksRequest::default()
    };
    let mut stream =
        within("a stream", STREAM, stubs.live.clone().subscribe_ticks(request)).await.expect("granted").into_inner();
    let mut told = Vec::new();
    let mut last = 0;
    while told.len() < count {
        let message = within("a message", STREAM, stream.message()).await.expect("served").expect("streams do not end");
        match message.event {
            Some(Event::Rows(rows)) => {
                for tick in rows.ticks {
                    assert!(tick.log_seq > last);
                    last = tick.log_seq;
                    told.push((tick.trade_id.clone(), tick.action()));
                }
            }
            Some(Event::Columns(columns)) => {
                for (index, trade_id) in columns.trade_id.iter().enumerate() {
                    let action = columns.action.get(index).copied().unwrap_or(proto::Action::New.into());
                    told.push((trade_id.clone(), proto::Action::try_from(action).expect("known")));
                }
            }
            _ => (),
        }
    }
    told
}

/// Corrections before and after their trades, over compaction and a kill.
pub(crate) async fn corrected(options: Options) {
    use proto::Action::{Cancel, Correct, New};

    let mut server = Server::start(options.argument("--compact-age=100ms").argument("--merge-delay=100ms")).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let first = now_unix_nano() / 1_000_000 * 1_000_000;
    let tick = |number, action, price: &str| tick(first, number, action, price);
    let trades = (0..5).map(|number| tick(number, New, &format!("{}", 100 + number))).collect();
    let mut ack = publisher.rows(trades).await.expect("stored");
    check(&stubs, &ack.cursor, &[(0, "100"), (1, "101"), (2, "102"), (3, "103"), (4, "104")], "as published").await;

    // One batch with all of it, and a correction of a trade that is still to come.
    let batch = vec![
        tick(1, Correct, "50.5"),
        tick(5, New, "105"),
        tick(3, Cancel, ""),
        tick(6, Correct, "7.5"),
        tick(1, Correct, "51"),
    ];
    ack = publisher.rows(batch).await.expect("stored");
    let expected = [(0, "100"), (1, "51"), (2, "102"), (4, "104"), (5, "105")];
    check(&stubs, &ack.cursor, &expected, "corrected").await;
    // A cancel is final, and the trade that was waited for comes.
    ack = publisher.rows(vec![tick(3, Correct, "9"), tick(6, New, "200")]).await.expect("stored");
    let expected = [(0, "100"), (1, "51"), (2, "102"), (4, "104"), (5, "105"), (6, "7.5")];
    check(&stubs, &ack.cursor, &expected, "waited for").await;

    let log: Vec<(String, proto::Action)> = [
        (0, New),
        (1, New),
        (2, New),
        (3, New),
        (4, New),
        (1, Correct),
        (5, New),
        (3, Cancel),
        (6, Correct),
        (1, Correct),
        (3, Correct),
        (6, New),
    ]
    .map(|(number, action)| (format!("T{number}"), action))
    .into();
    assert_eq!(replay(&stubs, proto::Encoding::Rows, log.len()).await, log);
    assert_eq!(replay(&stubs, proto::Encoding::Columns, log.len()).await, log);

    eventually("everything is in chunks", COMPACTION, async || {
        let compaction = StoreFile::of(&server).await.ok()?.compaction().await.ok()?;
        compaction.is_complete().then_some(())
    })
    .await;
    check(&stubs, &ack.cursor, &expected, "in chunks").await;
    ack = publisher.rows(vec![tick(5, Cancel, ""), tick(0, Correct, "1.5")]).await.expect("stored");
    let expected = [(0, "1.5"), (1, "51"), (2, "102"), (4, "104"), (6, "7.5")];
    check(&stubs, &ack.cursor, &expected, "corrected in chunks").await;
    server.kill9().await;
    server.restart().await;
    let stubs = server.stubs().await;
    check(&stubs, &ack.cursor, &expected, "after a kill").await;
    assert_eq!(replay(&stubs, proto::Encoding::Rows, log.len()).await, log);
}

#[tokio::test]
async fn a_correction_that_names_no_trade_is_refused() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    for action in [proto::Action::Correct, proto::Action::Cancel] {
        let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
        let first = now_unix_nano();
        let nameless = proto::Tick { trade_id: String::new(), ..tick(first, 1, action, "1") };
        let status =
            publisher.rows(vec![tick(first, 0, proto::Action::New, "1"), nameless]).await.expect_err("refused");
        let refusal = Refusal::of(&status);
        assert_eq!((status.code(), refusal.reason.as_str()), (Code::InvalidArgument, "BATCH_INVALID"));
    }
}
