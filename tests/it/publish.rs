//! PublishTicks on bare stubs: claims, numbers, credit, and what is refused.

use std::time::Duration;

use sqlx::Connection as _;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::publish_ticks_request::Message as Said;
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::values::{decimal, timestamp};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Options, Publisher, Server, Stubs, within};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Ticks of one symbol with trade ids `first..first + count`, as they happen.
fn ticks(symbol: &str, first: i64, count: i64) -> Vec<proto::Tick> {
    let now = now_unix_nano();
    let tick = |number: i64| proto::Tick {
        venue: "XTST".to_owned(),
        symbol: symbol.to_owned(),
        event_time: Some(timestamp(now / 1_000_000 * 1_000_000 + number)),
        price: Some(decimal(&format!("{}.25", 100 + number % 7))),
        quantity: (number % 3 != 0).then(|| decimal("1.5")),
        side: (number % 3) as i32,
        trade_id: number.to_string(),
        ..proto::Tick::default()
    };
    (first..first + count).map(tick).collect()
}

fn rows(ticks: Vec<proto::Tick>) -> Content {
    Content::Rows(proto::TickBatch { ticks, merged_counts: Vec::new() })
}

/// The trade ids of a symbol in the order of the log.
async fn stored(stubs: &Stubs, symbol: &str) -> Vec<String> {
    let request =
        proto::ListTicksRequest { symbol: symbol.to_owned(), page_size: 10_000, ..proto::ListTicksRequest::default() };
    let answer = stubs.history.clone().list_ticks(request).await;
    let mut ticks = match answer {
        Ok(answer) => answer.into_inner().ticks,
        Err(status) => {
            assert_eq!(Refusal::of(&status).reason, "INSTRUMENT_UNKNOWN");
            Vec::new()
        }
    };
    ticks.sort_by_key(|tick| tick.log_seq);
    ticks.into_iter().map(|tick| tick.trade_id).collect()
}

/// Waits until queries have seen an acknowledged batch.
async fn seen(stubs: &Stubs, ack: &proto::PublishAck) {
    let request =
        proto::ListInstrumentsRequest { min_cursor: ack.cursor.clone(), ..proto::ListInstrumentsRequest::default() };
    stubs.instruments.clone().list_instruments(request).await.expect("the cursor is reached");
}

fn numbers(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// How the stream ends, acknowledgements passed over.
async fn end(publisher: &mut Publisher) -> Status {
    loop {
        match publisher.ack().await {
            Ok(Some(_)) => (),
            Ok(None) => panic!("the stream ended with OK"),
            Err(status) => return status,
        }
    }
}

/// Claims, and what they tell after closing, another claim and a kill.
pub(crate) async fn claims(options: Options) {
    let mut server = Server::start(options).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed-1").await.expect("granted");
    let first = publisher.grant;
    assert_eq!(first.last_batch_seq, 0);
    assert_eq!((first.credit_batches, first.credit_bytes), (8, 8 << 20));
    for batch in 0..3 {
        let ack = publisher.rows(ticks("CLAIM", batch * 10, 10)).await.expect("stored");
        assert!(!ack.duplicate);
        assert!(ack.cursor.len() <= 20 && !ack.cursor.is_empty());
        assert_eq!((ack.credit_batches, ack.credit_bytes), (8, 8 << 20));
        seen(&stubs, &ack).await;
    }
    publisher.close().await.expect("the stream ends with OK once all is acknowledged");
    let again = Publisher::claim(&stubs, "feed-1").await.expect("granted").grant;
    assert_eq!(again.last_batch_seq, 3);
    assert!(again.fence > first.fence);
    let other = Publisher::claim(&stubs, "feed-2").await.expect("granted").grant;
    assert_eq!(other.last_batch_seq, 0, "producers number for themselves");
    // What was acknowledged outlives a kill, and so does what the producer knows.
    server.kill9().await;
    server.restart().await;
    let stubs = server.stubs().await;
    let later = Publisher::claim(&stubs, "feed-1").await.expect("granted").grant;
    assert_eq!(later.last_batch_seq, 3);
    assert!(later.fence > again.fence);
    assert_eq!(stored(&stubs, "CLAIM").await, numbers(0..30));
}

/// Batches sent again, on the same stream and the next.
pub(crate) async fn repeats(options: Options) {
    let server = Server::start(options).await;
    let stubs = server.stubs().await;
    let batches: Vec<Content> = (0..3).map(|batch| rows(ticks("AGAIN", batch * 10, 10))).collect();
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let mut last = None;
    for batch in &batches {
        last = Some(publisher.content(batch.clone()).await.expect("stored"));
    }
    // On the same stream, then on the next.
    for _ in 0..2 {
        for (index, batch) in batches.iter().enumerate() {
            publisher.send(index as u64 + 1, batch.clone()).await;
            let ack = publisher.ack().await.expect("known").expect("the stream is open");
            assert_eq!((ack.batch_seq, ack.duplicate), (index as u64 + 1, true));
        }
        publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    }
    assert_eq!(publisher.grant.last_batch_seq, 3);
    seen(&stubs, &last.expect("three were sent")).await;
    assert_eq!(stored(&stubs, "AGAIN").await, numbers(0..30));
}

/// Columns of ticks, as a program would send them: times as differences, one table entry for each name and exponents.
fn columns(ticks: &[proto::Tick]) -> proto::TickColumns {
    let mut columns = proto::TickColumns::default();
    let mut last_price: Vec<i64> = Vec::new();
    let (mut last_event, mut last_receive) = (0, 0);
    let nanos = |time: &prost_types::Timestamp| time.seconds * 1_000_000_000 + i64::from(time.nanos);
    for tick in ticks {
        let price = tick.price.expect("a tick has a price");
        let entry = proto::ColumnInstrument {
            instrument_id: 0,
            venue: tick.venue.clone(),
            symbol: tick.symbol.clone(),
            price_exponent: price.exponent,
            quantity_exponent: -1,
        };
        let index = columns.instruments.iter().position(|known| *known == entry);
        let index = index.unwrap_or_else(|| {
            columns.instruments.push(entry);
            last_price.push(0);
            last_price.len() - 1
        });
        columns.instrument_index.push(index as u32);
        let event = tick.event_time.as_ref().map_or(0, nanos);
        columns.event_time_unix_nano_delta.push(event - last_event);
        last_event = event;
        if let Some(receive) = tick.receive_time.as_ref().map(nanos) {
            columns.receive_time_unix_nano_delta.push(receive - last_receive);
            last_receive = receive;
        }
        columns.price_mantissa.push(price.mantissa - last_price[index]);
        last_price[index] = price.mantissa;
        columns.quantity.push(tick.quantity.map_or(0, |quantity| quantity.mantissa as u64 + 1));
        columns.side.push(tick.side);
        columns.trade_id.push(tick.trade_id.clone());
    }
    columns
}

#[tokio::test]
async fn rows_and_columns_of_the_same_ticks_are_the_same_batch() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let mut plain = ticks("BOTH", 0, 50);
    for (index, tick) in plain.iter_mut().enumerate() {
        tick.venue = ["XTST", "XALT"][index % 2].to_owned();
    }
    let mut stamped = ticks("BOTH", 50, 50);
    for tick in &mut stamped {
        tick.receive_time = tick.event_time;
    }
    let mut seq = 0;
    let mut ack = proto::PublishAck::default();
    for ticks in [plain, stamped] {
        let columns = Content::Columns(columns(&ticks));
        let rows = rows(ticks.clone());
        for (first, second) in [(rows.clone(), columns.clone()), (columns, rows)] {
            seq += 1;
            publisher.send(seq, first).await;
            ack = publisher.ack().await.expect("stored").expect("the stream is open");
            assert_eq!((ack.batch_seq, ack.duplicate), (seq, false));
            publisher.send(seq, second).await;
            ack = publisher.ack().await.expect("known").expect("the stream is open");
            assert_eq!((ack.batch_seq, ack.duplicate), (seq, true));
        }
    }
    seen(&stubs, &ack).await;
    let expected = [numbers(0..50), numbers(0..50), numbers(50..100), numbers(50..100)].concat();
    assert_eq!(stored(&stubs, "BOTH").await, expected);
}

#[tokio::test]
async fn a_hole_in_the_numbers_is_refused_and_names_the_next() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    publisher.rows(ticks("HOLE", 0, 5)).await.expect("stored");
    publisher.send(3, rows(ticks("HOLE", 5, 5))).await;
    let refusal = Refusal::of(&end(&mut publisher).await);
    refusal.assert(Code::FailedPrecondition, "BATCH_OUT_OF_ORDER", &["expected_batch_seq"]);
    assert_eq!(refusal.metadata["expected_batch_seq"], "2");
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    assert_eq!(publisher.grant.last_batch_seq, 1);
    let ack = publisher.rows(ticks("HOLE", 5, 5)).await.expect("stored");
    seen(&stubs, &ack).await;
    assert_eq!(stored(&stubs, "HOLE").await, numbers(0..10));
}

/// Known numbers with other content, and numbers that are too old.
pub(crate) async fn conflicts(options: Options) {
    let server = Server::start(options).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let batches: Vec<_> = (0..10).map(|batch| rows(ticks("OTHER", batch, 1))).collect();
    for batch in &batches {
        publisher.content(batch.clone()).await.expect("stored");
    }
    // Number 10 with other content; number 2, which the window of eight has forgotten.
    for (seq, content) in [(10, rows(ticks("OTHER", 99, 1))), (2, batches[1].clone())] {
        publisher.send(seq, content).await;
        let refusal = Refusal::of(&end(&mut publisher).await);
        refusal.assert(Code::AlreadyExists, "BATCH_CONFLICT", &["batch_seq", "expected_batch_seq"]);
        assert_eq!(refusal.metadata["batch_seq"], seq.to_string());
        assert_eq!(refusal.metadata["expected_batch_seq"], "11");
        publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
        assert_eq!(publisher.grant.last_batch_seq, 10);
    }
    // Number 3 is the oldest of the window.
    publisher.send(3, batches[2].clone()).await;
    assert!(publisher.ack().await.expect("known").expect("the stream is open").duplicate);
    assert_eq!(stored(&stubs, "OTHER").await, numbers(0..10));
}

/// Two claims of one producer.
pub(crate) async fn newer_claims(options: Options) {
    let server = Server::start(options).await;
    let stubs = server.stubs().await;
    let mut older = Publisher::claim(&stubs, "feed").await.expect("granted");
    older.rows(ticks("FENCE", 0, 5)).await.expect("stored");
    let mut newer = Publisher::claim(&server.stubs().await, "feed").await.expect("granted");
    assert_eq!(newer.grant.last_batch_seq, 1);
    older.send(2, rows(ticks("FENCE", 90, 5))).await;
    let refusal = Refusal::of(&end(&mut older).await);
    refusal.assert(Code::Aborted, "PRODUCER_FENCED", &["producer_id"]);
    assert_eq!(refusal.metadata["producer_id"], "feed");
    let ack = newer.rows(ticks("FENCE", 5, 5)).await.expect("stored");
    assert!(!ack.duplicate);
    seen(&stubs, &ack).await;
    assert_eq!(stored(&stubs, "FENCE").await, numbers(0..10));

    // The older one had perhaps not heard of it when its connection was cut.
    let status = Publisher::renew(&stubs, "feed", older.grant.fence).await.expect_err("another has claimed the id");
    Refusal::of(&status).assert(Code::Aborted, "PRODUCER_FENCED", &["producer_id"]);
    newer.rows(ticks("FENCE", 10, 5)).await.expect("a refused claim ends nobody's stream");
    let mut again = Publisher::renew(&stubs, "feed", newer.grant.fence).await.expect("granted");
    assert_eq!(again.grant.last_batch_seq, 3);
    Refusal::of(&end(&mut newer).await).assert(Code::Aborted, "PRODUCER_FENCED", &["producer_id"]);
    again.rows(ticks("FENCE", 15, 5)).await.expect("stored");
}

#[tokio::test]
async fn a_bad_batch_names_its_first_twenty_violations_and_stores_nothing() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    publisher.rows(ticks("BAD", 0, 5)).await.expect("stored");
    let good = ticks("BAD", 5, 1_000);
    let mut bad = good.clone();
    for tick in bad.iter_mut().skip(100).take(30) {
        tick.price = Some(proto::Decimal { mantissa: 1, exponent: 15 });
    }
    publisher.send(2, rows(bad)).await;
    let status = end(&mut publisher).await;
    let refusal = Refusal::of(&status);
    refusal.assert(Code::InvalidArgument, "BATCH_INVALID", &[]);
    assert_eq!(refusal.metadata["violation_count"], "30");
    assert_eq!(refusal.metadata["expected_batch_seq"], "2");
    let violations = status.get_details_bad_request().expect("it names fields").field_violations;
    assert_eq!(violations.len(), 20);
    assert!(violations[0].field.contains("100"), "{:?}", violations[0]);
    assert!(status.details().len() <= 4 * 1024, "{} bytes of details", status.details().len());
    // The number is not used up.
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    assert_eq!(publisher.grant.last_batch_seq, 1);
    let ack = publisher.rows(good).await.expect("stored");
    seen(&stubs, &ack).await;
    assert_eq!(stored(&stubs, "BAD").await, numbers(0..1_005));
}

#[tokio::test]
async fn batches_without_a_tick_are_refused() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let empty = [Some(rows(Vec::new())), Some(Content::Columns(proto::TickColumns::default())), None];
    for content in empty {
        let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
        assert_eq!(publisher.grant.last_batch_seq, 0);
        let batch = proto::PublishBatch { batch_seq: 1, content };
        publisher.say(Said::Batch(batch)).await;
        let refusal = Refusal::of(&end(&mut publisher).await);
        refusal.assert(Code::InvalidArgument, "BATCH_INVALID", &["expected_batch_seq"]);
    }
}

#[tokio::test]
async fn a_stream_claims_once_and_first() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let claim = proto::ProducerClaim { producer_id: "feed".to_owned(), backfill: false, held_fence: 0 };
    publisher.say(Said::Claim(claim)).await;
    let refusal = Refusal::of(&end(&mut publisher).await);
    refusal.assert(Code::InvalidArgument, "FIELD_INVALID", &[]);
    let batch = proto::PublishBatch { batch_seq: 1, content: Some(rows(ticks("FIRST", 0, 1))) };
    let request = proto::PublishTicksRequest { message: Some(Said::Batch(batch)) };
    let mut ingest = stubs.ingest.clone();
    let outcome = match ingest.publish_ticks(tokio_stream::once(request)).await {
        Ok(answers) => answers.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    let refusal = Refusal::of(&outcome.expect_err("nothing is claimed"));
    refusal.assert(Code::InvalidArgument, "FIELD_INVALID", &[]);
    for id in ["", "a b", &"x".repeat(65)] {
        let status = Publisher::claim(&stubs, id).await.expect_err("no producer id");
        Refusal::of(&status).assert(Code::InvalidArgument, "FIELD_INVALID", &[]);
    }
    assert_eq!(stored(&stubs, "FIRST").await, numbers(0..0));
}

#[tokio::test]
async fn more_batches_than_the_credit_end_the_stream_and_lose_nothing() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    // Registers the instrument, which needs the writer too.
    publisher.rows(ticks("CREDIT", 0, 1)).await.expect("stored");
    // The server cannot commit while another program holds the lock, so nothing is acknowledged meanwhile.
    let url = format!("sqlite://{}", server.store().display());
    let mut other = sqlx::SqliteConnection::connect(&url).await.expect("the store is a SQLite file");
    sqlx::query("BEGIN IMMEDIATE").execute(&mut other).await.expect("nobody writes");
    for seq in 2..=10 {
        publisher.send(seq, rows(ticks("CREDIT", seq as i64 - 1, 1))).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    sqlx::query("ROLLBACK").execute(&mut other).await.expect("it is ours");
    for seq in 2..=9 {
        let ack = publisher.ack().await.expect("inside the credit").expect("the stream is open");
        assert_eq!((ack.batch_seq, ack.duplicate), (seq, false));
    }
    let refusal = Refusal::of(&end(&mut publisher).await);
    refusal.assert(Code::ResourceExhausted, "LIMIT_EXCEEDED", &["limit", "max"]);
    assert_eq!((refusal.metadata["limit"].as_str(), refusal.metadata["max"].as_str()), ("credit_batches", "8"));
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    assert_eq!(publisher.grant.last_batch_seq, 9);
    let ack = publisher.rows(ticks("CREDIT", 9, 1)).await.expect("stored");
    seen(&stubs, &ack).await;
    assert_eq!(stored(&stubs, "CREDIT").await, numbers(0..10));
}

#[tokio::test]
async fn backfill_is_flagged_and_comes_only_to_those_who_ask() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let subscribe = |include_backfill| {
        let request = proto::SubscribeTicksRequest {
            selectors: vec![tapefeed_tests::values::selector("*")],
            include_backfill,
            ..proto::SubscribeTicksRequest::default()
        };
        let mut live = stubs.live.clone();
        async move { live.subscribe_ticks(request).await.expect("granted").into_inner() }
    };
    let mut without = subscribe(false).await;
    let mut with = subscribe(true).await;
    for stream in [&mut without, &mut with] {
        within("the acknowledgement", Duration::from_secs(10), stream.message()).await.expect("open");
    }
    let mut old = Publisher::claim_as(&stubs, "old", true).await.expect("granted");
    let mut past = ticks("FILL", 0, 4);
    for (number, tick) in past.iter_mut().enumerate() {
        tick.event_time = Some(timestamp(1_000_000_000 * (number as i64 + 1)));
    }
    old.rows(past).await.expect("history may be of any age");
    let mut new = Publisher::claim(&stubs, "new").await.expect("granted");
    new.rows(ticks("FILL", 4, 4)).await.expect("stored");
    for (stream, expected) in [(&mut without, 4..8), (&mut with, 0..8)] {
        let mut came = Vec::new();
        while came.len() < expected.clone().count() {
            let message = within("ticks", Duration::from_secs(10), stream.message()).await;
            let message = message.expect("open").expect("a subscription does not end");
            if let Some(proto::subscribe_ticks_response::Event::Rows(rows)) = message.event {
                came.extend(rows.ticks);
            }
        }
        for tick in &came {
            let number: i64 = tick.trade_id.parse().expect("ids are numbers");
            let origin = if number < 4 { proto::Origin::Backfill } else { proto::Origin::Live };
            assert_eq!(tick.origin(), origin);
            assert_eq!(tick.log_seq, number as u64 + 1);
        }
        let ids: Vec<_> = came.into_iter().map(|tick| tick.trade_id).collect();
        assert_eq!(ids, numbers(expected));
    }
    // The latest price does not move back in event time.
    let request = proto::ListLatestTicksRequest {
        selectors: vec![tapefeed_tests::values::selector("FILL")],
        ..proto::ListLatestTicksRequest::default()
    };
    let latest = stubs.history.clone().list_latest_ticks(request).await.expect("known").into_inner();
    assert_eq!(latest.latest_ticks[0].tick.as_ref().map(|tick| tick.trade_id.as_str()), Some("7"));
}
