//! ReadTicks and `tapefeed export`: ranges in bulk, whole and exact, whatever happens on the way.

use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use tapefeed_client::{Client, Query, Tick};
use tapefeed_proto::v1 as proto;
use tapefeed_tests::memory::Peak;
use tapefeed_tests::scrape::Scrape;
use tapefeed_tests::values::{decimal, timestamp};
use tapefeed_tests::{Cli, Options, Publisher, Server, eventually, within};

/// 2024-08-08T00:00:00Z.
const TIME: i64 = 1_723_075_200_000_000_000;

/// How long reading everything may take, on a busy machine.
const READING: Duration = Duration::from_secs(120);

const STREAMS: &str = "tapefeed_rpc_streams{rpc_method=\"tapefeed.v1.HistoryService/ReadTicks\"}";

/// Ticks of BULK on XTST, a second apart, of which every tenth comes late; `numbers` counts them.
fn columns(numbers: std::ops::Range<i64>) -> proto::TickColumns {
    let time = |number: i64| TIME + number * 1_000_000_000 - if number % 10 == 9 { 3_600_000_000_000 } else { 0 };
    let mut columns = proto::TickColumns {
        instruments: vec![proto::ColumnInstrument {
            venue: "XTST".to_owned(),
            symbol: "BULK".to_owned(),
            price_exponent: -2,
            quantity_exponent: -3,
            ..Default::default()
        }],
        ..Default::default()
    };
    let (mut last_time, mut last_price) = (0, 0);
    for number in numbers {
        let price = 10_000 + number * 7_919 % 1_000;
        columns.instrument_index.push(0);
        columns.event_time_unix_nano_delta.push(time(number) - last_time);
        columns.price_mantissa.push(price - last_price);
        columns.quantity.push((number % 5) as u64);
        columns.side.push((number % 3) as i32);
        columns.trade_id.push(number.to_string());
        (last_time, last_price) = (time(number), price);
    }
    columns
}

/// A server with so many ticks of BULK, and what the last acknowledgement covers.
async fn server_with(count: i64) -> (Server, Vec<u8>) {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim_as(&stubs, "bulk", true).await.expect("granted");
    let mut cursor = Vec::new();
    for first in (0..count).step_by(10_000) {
        let ack = publisher.columns(columns(first..count.min(first + 10_000))).await.expect("stored");
        cursor = ack.cursor.to_vec();
    }
    publisher.close().await.expect("closed");
    (server, cursor)
}

/// Whether ticks are those of [`columns`], each once and in order.
fn check(ticks: &[Tick], count: i64) {
    assert_eq!(ticks.len() as i64, count);
    assert!(ticks.is_sorted_by_key(|tick| (tick.event_time, tick.log_seq)));
    let mut numbers: Vec<i64> = ticks.iter().map(|tick| tick.trade_id.parse().expect("a number")).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..count));
}

async fn all(client: &Client, query: Query) -> Vec<Tick> {
    let batches: Vec<_> = within("all ticks", READING, client.read_ticks(query).try_collect()).await.expect("read");
    batches.into_iter().flat_map(|batch| batch.ticks).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reading_goes_on_where_it_was_when_the_server_was_killed() {
    let (mut server, cursor) = server_with(400_000).await;
    let client = Client::builder(server.url()).reconnect_delays(Duration::from_secs(2), Duration::from_secs(5));
    let client = client.lazy().unwrap();
    let query = Query::symbol("BULK").min_cursor(tapefeed_client::Cursor::from_bytes(cursor).unwrap());
    let mut batches = std::pin::pin!(client.read_ticks(query));
    let mut ticks = Vec::new();
    let mut count = 0;
    while let Some(batch) = within("a batch", READING, batches.next()).await {
        ticks.extend(batch.expect("cuts are not told").ticks);
        count += 1;
        if count == 3 {
            server.kill9().await;
            server.restart().await;
        }
    }
    assert!(count > 60, "{count} batches: the network held everything, and the kill was too late");
    check(&ticks, 400_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_slowly_or_goes_away_keeps_nothing_busy() {
    let (server, cursor) = server_with(400_000).await;
    let stubs = server.stubs().await;
    let mut history = stubs.history.clone();
    let request = proto::ReadTicksRequest {
        symbol: "BULK".to_owned(),
        encoding: proto::Encoding::Columns.into(),
        min_cursor: cursor.into(),
        ..Default::default()
    };
    let peak = Peak::begin(server.pid());
    let mut messages = history.read_ticks(request.clone()).await.unwrap().into_inner();
    let first = within("a message", READING, messages.message()).await.unwrap().unwrap();
    assert!(!first.page_token.is_empty() && first.as_of.is_empty());
    let scrape = || Scrape::of(server.address());
    assert_eq!(scrape().await.value(STREAMS), 1.0);
    // Nobody reads: once what is on the way is full, nothing more is read from the store.
    let misses = || async { scrape().await.value("tapefeed_chunk_cache_misses_total{tier=\"stored\"}") };
    eventually("the reading stands still", READING, || async {
        let before = misses().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        (misses().await == before).then_some(())
    })
    .await;
    drop(messages);
    eventually("the reading is over", READING, || async { (scrape().await.value(STREAMS) == 0.0).then_some(()) }).await;
    // Some at once, to their ends: memory does not grow with what is read.
    let client = Client::lazy(server.url()).unwrap();
    for _ in 0..3 {
        let both = tokio::join!(all(&client, Query::symbol("BULK")), all(&client, Query::symbol("BULK")));
        check(&both.0, 400_000);
        check(&both.1, 400_000);
    }
    let growth = peak.growth() >> 20;
    assert!(growth < 64, "{growth} MiB");
}

/// Ticks with everything that is hard to write and read again.
fn awkward() -> Vec<proto::Tick> {
    let prices = ["0.123456789012345678", "999999999999999", "-37.63", "0", "100.10"];
    let quantities = [Some("0.000000000000000001"), Some("999999999999999"), Some("0"), None];
    let ids = ["", "7", "18446744073709551615", "007", "a,b", "\"quoted\"", " spaced ", "\u{e4}\u{f6}", "-1", "=1+1"];
    let tick = |number: usize| proto::Tick {
        venue: ["XA", "XB"][number % 2].to_owned(),
        symbol: "EDGE/A.B".to_owned(),
        event_time: Some(timestamp(TIME + (number as i64 / 3) * 1_000_000_007)),
        receive_time: Some(timestamp(TIME + number as i64)),
        price: Some(decimal(prices[number % prices.len()])),
        quantity: quantities[number % quantities.len()].map(decimal),
        side: (number % 3) as i32,
        trade_id: ids[number % ids.len()].to_owned(),
        ..proto::Tick::default()
    };
    (0..240).map(tick).collect()
}

/// A server with those ticks, where queries have seen them.
async fn server_with_awkward() -> Server {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim_as(&stubs, "edge", true).await.expect("granted");
    let ack = publisher.rows(awkward()).await.expect("stored");
    let request = proto::ListInstrumentsRequest { min_cursor: ack.cursor, ..Default::default() };
    stubs.instruments.clone().list_instruments(request).await.expect("the cursor is reached");
    server
}

/// The ticks of a symbol, without what the server gives them.
async fn told(server: &Server, symbol: &str) -> Vec<Value> {
    let mut ticks = Cli::new(server, ["history", symbol, "--all", "--json"]).ok().await.json();
    for tick in &mut ticks {
        let tick = tick.as_object_mut().expect("each line is an object");
        for own in ["log_seq", "instrument_id", "origin", "cursor"] {
            tick.remove(own);
        }
    }
    ticks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_are_imported_as_the_same_ticks() {
    let server = server_with_awkward().await;
    let expected = told(&server, "EDGE/A.B").await;
    assert_eq!(expected.len(), 240);
    for format in ["csv", "jsonl"] {
        let file = server.folder().join(format!("edge.{format}"));
        let path = file.display().to_string();
        let printed = Cli::new(&server, ["export", "EDGE/A.B", "--format", format, "--output", &path]).ok().await;
        assert!(printed.stdout.contains("240 ticks"), "{printed:?}");
        // The same on standard output.
        let piped = Cli::new(&server, ["export", "EDGE/A.B", "--format", format]).ok().await;
        assert_eq!(piped.stdout.as_bytes(), std::fs::read(&file).unwrap());
        let other = Server::start(Options::serve()).await;
        Cli::new(&other, ["import", &path]).ok().await;
        assert_eq!(told(&other, "EDGE/A.B").await, expected, "{format}");
        // In the order of the file, that is of history.
        let venue = Cli::new(&other, ["export", "EDGE/A.B", "--venue", "XB", "--format", format]).ok().await;
        assert_eq!(venue.stdout.lines().count(), 120 + usize::from(format == "csv"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_whole_or_not_there() {
    let server = server_with_awkward().await;
    let file = server.folder().join("edge.parquet");
    let path = file.display().to_string();
    let whole = ["export", "EDGE/A.B", "--format", "parquet", "--output", &path];
    let printed = Cli::new(&server, whole.iter().copied().chain(["--json"])).ok().await;
    let told = &printed.json()[0];
    assert_eq!((told["tick_count"].as_u64(), told["as_of"].is_string()), (Some(240), true));
    let bytes = std::fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    // What fails leaves the file as it was, and nothing beside it.
    Cli::new(&server, ["export", "NOBODY", "--output", &path]).refused().await;
    assert_eq!(std::fs::read(&file).unwrap(), bytes);
    let names = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names(server.folder()).all(|name| !name.to_string_lossy().starts_with(".tmp")));
    // Nothing in the range is a file without ticks.
    let empty = server.folder().join("empty.csv").display().to_string();
    Cli::new(&server, ["export", "EDGE/A.B", "--end", "2000-01-01", "--output", &empty]).ok().await;
    assert_eq!(std::fs::read_to_string(&empty).unwrap().lines().count(), 1);
}
