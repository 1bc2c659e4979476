//! `/metrics`: it counts what was done, names no symbol, and Prometheus and the files in deploy/ work with it.

mod prometheus;

use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_tests::process::repository;
use tapefeed_tests::scrape::Scrape;
use tapefeed_tests::values::{selector, tick};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Options, Publisher, Server, Stubs, eventually, http, import, within};
use tonic::Streaming;

/// How long something may take to show, on a busy machine.
const SHOWS: Duration = Duration::from_secs(30);

/// A file with five lines: three trades, a wrong price and a wrong time.
const FILE: &str = "venue,symbol,time_ms,price,quantity\n\
    XFIL,AAA,1723161255342,195.52,10\n\
    XFIL,AAA,1723161255343,195.53,10\n\
    XFIL,AAA,1723161255344,many,10\n\
    XFIL,AAA,now,195.55,10\n\
    XFIL,AAA,1723161255346,195.56,10\n";

fn ticks(symbol: &str, count: usize) -> Vec<proto::Tick> {
    (0..count).map(|_| tick("XTST", symbol, now_unix_nano(), "10.5")).collect()
}

async fn subscribe(stubs: &Stubs) -> Streaming<proto::SubscribeTicksResponse> {
    let request = proto::SubscribeTicksRequest { selectors: vec![selector("*")], ..Default::default() };
    let mut live = stubs.live.clone();
    let mut stream = within("a stream", SHOWS, live.subscribe_ticks(request)).await.expect("granted").into_inner();
    let first = within("the acknowledgement", SHOWS, stream.message()).await.expect("open").expect("no end");
    assert!(matches!(first.event, Some(Event::Ack(_))));
    stream
}

/// Reads so many ticks.
async fn read(stream: &mut Streaming<proto::SubscribeTicksResponse>, count: usize) {
    let mut read = 0;
    while read < count {
        let message = within("ticks", SHOWS, stream.message()).await.expect("open").expect("no end");
        if let Some(Event::Rows(rows)) = message.event {
            read += rows.ticks.len();
        }
    }
}

/// A scrape for which something holds, and then everything else of it can be compared.
async fn scrape_when(server: &Server, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
    eventually(what, SHOWS, || async {
        let scrape = Scrape::of(server.address()).await;
        holds(&scrape).then_some(scrape)
    })
    .await
}

/// Everything that can be counted, once or a few times: 30 live ticks in 3 batches, 10 ticks of backfill, a duplicate,
/// a conflict, a file with two rejects, the same file again, and three queries. The subscription stays open.
async fn work(server: &Server, stubs: &Stubs) -> Streaming<proto::SubscribeTicksResponse> {
    let mut stream = subscribe(stubs).await;
    let mut publisher = Publisher::claim(stubs, "live").await.expect("granted");
    let third = ticks("AAA", 10);
    for batch in [ticks("AAA", 10), ticks("BBB", 10), third.clone()] {
        publisher.rows(batch).await.expect("stored");
    }
    let again = |ticks| Content::Rows(proto::TickBatch { ticks, merged_counts: Vec::new() });
    publisher.send(3, again(third)).await;
    assert!(publisher.ack().await.expect("known").expect("open").duplicate);
    publisher.send(3, again(ticks("CCC", 1))).await;
    publisher.ack().await.expect_err("other content");

    let mut backfill = Publisher::claim_as(stubs, "past", true).await.expect("granted");
    backfill.rows(ticks("AAA", 10)).await.expect("stored");
    backfill.close().await.expect("a good end");
    read(&mut stream, 30).await;

    for run in ["first", "second"] {
        import::bytes(stubs, import::start(run), FILE).await.expect("imported");
    }
    for _ in 0..3 {
        let request = proto::ListTicksRequest { symbol: "AAA".into(), page_size: 5, ..Default::default() };
        stubs.history.clone().list_ticks(request).await.expect("known");
    }
    assert!(server.is_serving().await);
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_what_was_done() {
    let server = Server::start(Options::serve().argument("--compact-age=100ms")).await;
    let stubs = server.stubs().await;
    let before = Scrape::of(server.address()).await;
    let stream = work(&server, &stubs).await;
    let scrape = scrape_when(&server, "everything is compacted, and the file was read", |scrape| {
        let value = |series: &str| scrape.series.get(series).copied();
        value("tapefeed_hot_ticks") == Some(0.0)
            && value("tapefeed_hot_floor_lag_entries") == Some(0.0)
            // The server looks at its store once a second.
            && value("tapefeed_manifest_version") >= Some(1.0)
            && value("tapefeed_manifest_version") == value("tapefeed_view_manifest_version")
            && value("tapefeed_imports_running") == Some(0.0)
            && value("tapefeed_rpc_streams{rpc_method=\"tapefeed.v1.IngestService/PublishTicks\"}") == Some(0.0)
    })
    .await;

    let list_ticks = "rpc_method=\"tapefeed.v1.HistoryService/ListTicks\",rpc_response_status_code=\"OK\"";
    let exact = [
        ("tapefeed_ticks_appended_total{origin=\"live\"}", 30.0),
        ("tapefeed_ticks_appended_total{origin=\"backfill\"}", 13.0),
        ("tapefeed_batches_appended_total{origin=\"live\"}", 3.0),
        ("tapefeed_batches_appended_total{origin=\"backfill\"}", 2.0),
        ("tapefeed_batches_duplicate_total", 1.0),
        ("tapefeed_batches_refused_total{reason=\"conflict\"}", 1.0),
        ("tapefeed_batches_refused_total{reason=\"queue_full\"}", 0.0),
        ("tapefeed_rpc_refusals_total{reason=\"BATCH_CONFLICT\"}", 1.0),
        ("tapefeed_ack_latency_seconds_count", 5.0),
        ("tapefeed_delivery_latency_seconds_count", 3.0),
        ("tapefeed_append_retries_total", 0.0),
        ("tapefeed_log_head_position", 43.0),
        ("tapefeed_log_oldest_position", 1.0),
        ("tapefeed_view_lag_entries", 0.0),
        ("tapefeed_uncompacted_bytes", 0.0),
        ("tapefeed_compacted_ticks_total", 43.0),
        // Two of the batches, one of the batch in conflict, which names its instruments first, and one of the file.
        ("tapefeed_instruments", 4.0),
        ("tapefeed_ingest_queue_batches", 0.0),
        ("tapefeed_ingest_queue_bytes", 0.0),
        ("tapefeed_live_streams", 1.0),
        ("tapefeed_live_ticks_total", 30.0),
        ("tapefeed_live_lag_max_entries", 0.0),
        ("tapefeed_live_streams_by_lag{lag=\"under_100ms\"}", 1.0),
        ("tapefeed_rpc_streams{rpc_method=\"tapefeed.v1.LiveService/SubscribeTicks\"}", 1.0),
        ("tapefeed_import_lines_total", 5.0),
        ("tapefeed_import_rejects_total{field=\"price\"}", 1.0),
        ("tapefeed_import_rejects_total{field=\"event_time\"}", 1.0),
        ("tapefeed_import_runs_total{state=\"succeeded\"}", 1.0),
        ("tapefeed_import_runs_total{state=\"known\"}", 1.0),
        ("tapefeed_store_errors_total{operation=\"append\"}", 0.0),
        ("tapefeed_dependency_up{dependency=\"store\"}", 1.0),
        ("tapefeed_ready", 1.0),
        ("tapefeed_build_info{version=\"0.1.0\"}", 1.0),
        ("tapefeed_spans_dropped_total", 0.0),
        (&format!("rpc_server_call_duration_seconds_count{{{list_ticks}}}"), 3.0),
    ];
    for (series, value) in exact {
        assert_eq!(scrape.value(series), value, "{series} in:\n{}", scrape.text);
    }
    assert!(scrape.value("tapefeed_chunks") >= 3.0);
    assert!(scrape.value("tapefeed_append_duration_seconds_count") >= 4.0);
    assert!(scrape.value("tapefeed_log_bytes") > 100.0);
    // Everything happened since the first scrape, and the live ticks before this moment.
    let silence = scrape.value("tapefeed_feed_silence_seconds{origin=\"live\"}");
    assert!((0.0..60.0).contains(&silence), "{silence}");
    for growing in ["process_cpu_seconds_total", "tapefeed_views_published_total", "tapefeed_log_head_position"] {
        assert!(scrape.value(growing) > before.value(growing), "{growing}");
    }
    assert!(scrape.value("process_resident_memory_bytes") > 1e6);
    assert!(scrape.value("process_open_fds") > 5.0);
    let started = scrape.value("process_start_time_seconds");
    assert!((now_unix_nano() as f64 / 1e9 - started).abs() < 300.0, "{started}");

    drop(stream);
    scrape_when(&server, "a subscriber that left is gone", |scrape| {
        scrape.value("tapefeed_live_streams") == 0.0
            && scrape.value("tapefeed_rpc_streams{rpc_method=\"tapefeed.v1.LiveService/SubscribeTicks\"}") == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_from_chunks_is_counted() {
    let server = Server::start(Options::serve().argument("--compact-age=100ms")).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "chunks").await.expect("granted");
    publisher.rows(ticks("AAA", 100)).await.expect("stored");
    scrape_when(&server, "the ticks are in a chunk", |scrape| scrape.value("tapefeed_chunks") == 1.0).await;
    for _ in 0..3 {
        let request = proto::ListTicksRequest { symbol: "AAA".into(), ..Default::default() };
        let page = stubs.history.clone().list_ticks(request).await.expect("known").into_inner();
        assert_eq!(page.ticks.len(), 100);
    }
    let scrape = Scrape::of(server.address()).await;
    assert_eq!(scrape.value("tapefeed_chunk_cache_misses_total{tier=\"decoded\"}"), 1.0, "{}", scrape.text);
    assert_eq!(scrape.value("tapefeed_chunk_cache_hits_total{tier=\"decoded\"}"), 2.0);
    assert_eq!(scrape.value("tapefeed_chunk_cache_misses_total{tier=\"stored\"}"), 1.0);
    assert_eq!(scrape.value("tapefeed_chunk_cache_entries{tier=\"decoded\"}"), 1.0);
    assert!(scrape.value("tapefeed_chunk_cache_bytes{tier=\"decoded\"}") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_does_not_read_lags_and_is_seen() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut stream = subscribe(&stubs).await;
    let other = server.stubs().await;
    let mut publisher = Publisher::claim(&other, "fast").await.expect("granted");
    // More than the windows of a connection hold, whatever they are set to.
    for _ in 0..120 {
        publisher.rows(ticks("AAA", 1_500)).await.expect("stored");
    }
    let scrape = scrape_when(&server, "the lag has grown past a second", |scrape| {
        scrape.value("tapefeed_live_lag_max_seconds") > 1.0
    })
    .await;
    assert!(scrape.value("tapefeed_live_lag_max_entries") >= 1.0);
    assert_eq!(scrape.value("tapefeed_live_streams_by_lag{lag=\"under_100ms\"}"), 0.0);
    read(&mut stream, 180_000).await;
    scrape_when(&server, "the subscriber is at the head", |scrape| {
        scrape.value("tapefeed_live_lag_max_entries") == 0.0 && scrape.value("tapefeed_live_lag_max_seconds") == 0.0
    })
    .await;
}

/// The series of a scrape by name and labels, without those whose label tells a method or a reason that was called
/// for the first time.
fn names(scrape: &Scrape) -> Vec<&String> {
    scrape.series.keys().filter(|series| !series.contains("rpc_method") && !series.contains("rpc_refusals")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn symbols_make_no_series() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "many").await.expect("granted");
    publisher.rows(ticks("FIRST", 1)).await.expect("stored");
    let before = Scrape::of(server.address()).await;
    let many: Vec<_> = (0..500)
        .map(|index| tick(&format!("XV{}", index % 50), &format!("SYMB{index}"), now_unix_nano(), "1"))
        .collect();
    publisher.rows(many).await.expect("stored");
    let unknown = proto::ListTicksRequest { symbol: "SYMBNONE".into(), ..Default::default() };
    stubs.history.clone().list_ticks(unknown).await.expect_err("unknown");
    let file = "venue,symbol,time_ms,price\nXV1,SYMBFILE,1723161255342,SYMBPRICE\nSYMB SYMB: x,SYMB,1,1\n";
    import::bytes(&stubs, import::start("SYMBRUN"), file).await.expect("imported");
    let after = Scrape::of(server.address()).await;
    assert_eq!(names(&before), names(&after));
    assert_eq!(after.value("tapefeed_instruments"), 501.0);
    for text in ["SYMB", "FIRST", "XV1", "XTST", "many"] {
        assert!(!after.series.keys().any(|series| series.contains(text)), "{text}");
    }
    assert!(after.series.len() < 500, "{} series", after.series.len());
}

#[tokio::test]
async fn every_series_is_described_and_every_documented_one_is_there() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let _stream = work(&server, &stubs).await;
    let scrape = Scrape::of(server.address()).await;
    for series in scrape.series.keys() {
        let family = scrape.family(series);
        assert!(scrape.kinds.contains_key(family), "{series} has no TYPE");
        assert!(scrape.helped.contains(family), "{series} has no HELP");
        let known = ["tapefeed_", "process_", "rpc_server_"].iter().any(|prefix| family.starts_with(prefix));
        assert!(known, "{family} begins with no prefix of ours");
        assert_eq!(scrape.kinds[family] == "counter", family.ends_with("_total"), "{family}");
    }
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("there is a README");
    let mut documented = 0;
    for cells in readme.lines().filter_map(|line| line.strip_prefix("| `")) {
        let first = cells.split(" | ").next().expect("a first cell");
        for name in first.split('`').filter(|part| part.contains("tapefeed_") || part.contains("rpc_server_")) {
            let family = name.split('{').next().unwrap_or(name);
            assert!(scrape.kinds.contains_key(family), "the README names {family}, and the server does not");
            documented += 1;
        }
    }
    assert!(documented >= 20, "the README documents {documented} series");
}

#[tokio::test]
async fn openmetrics_is_answered_to_who_asks_for_it() {
    let server = Server::start(Options::serve()).await;
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let answer = http::get_as(server.address(), "/metrics", accept).await;
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/openmetrics-text; version=1.0.0"), "{}", answer.head);
    assert!(answer.text().ends_with("# EOF\n"));
}
