//! `tapefeed replay`: what an import would store, at the pace that was asked for, live or as backfill.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_tests::import::gzip;
use tapefeed_tests::values::selector;
use tapefeed_tests::{Cli, Options, Server, Stubs, within};

/// How long a message may take, on a busy machine.
const MESSAGE: Duration = Duration::from_secs(30);

/// The file's first event time in milliseconds: 9 August 2024.
const BEGIN_MS: i64 = 1_723_161_600_000;

/// Trades of one instrument, 20 ms apart, every tenth in the millisecond of the one before it, and one that comes a
/// second late.
fn file(trades: i64) -> String {
    let mut lines = String::from("venue,symbol,trade_id,event_time_ms,price,quantity,side\n");
    for number in 0..trades {
        let at = BEGIN_MS + 20 * if number % 10 == 9 { number - 1 } else { number };
        let at = if number == 77 { at - 1_000 } else { at };
        let (cents, side) = (10_000 + number % 7, if number % 3 == 0 { "buy" } else { "sell" });
        writeln!(lines, "V,REPLAYED,{number},{at},{}.{:02},1.5,{side}", cents / 100, cents % 100)
            .expect("memory takes everything");
    }
    lines
}

async fn replay(server: &Server, path: &Path, more: &[&str]) -> serde_json::Value {
    let mut arguments = vec!["replay", path.to_str().expect("the path is UTF-8"), "--json"];
    arguments.extend(more);
    let printed = Cli::new(server, arguments).run().await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    serde_json::from_str(&printed.stdout).expect("one object")
}

/// Every tick of the instrument, in the order of the log.
async fn stored(stubs: &Stubs) -> Vec<proto::Tick> {
    let mut history = stubs.history.clone();
    let request = proto::ListTicksRequest {
        venue: "V".to_owned(),
        symbol: "REPLAYED".to_owned(),
        page_size: 10_000,
        ..proto::ListTicksRequest::default()
    };
    let mut ticks = history.list_ticks(request).await.expect("a page").into_inner().ticks;
    ticks.sort_by_key(|tick| tick.log_seq);
    ticks
}

/// What a replay must not change: everything but the position and the origin, and the receive time that it may stamp.
fn content(tick: &proto::Tick) -> proto::Tick {
    let mut tick = tick.clone();
    (tick.log_seq, tick.origin, tick.receive_time) = (0, 0, None);
    tick
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_stores_what_an_import_would_under_a_new_producer_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trades.csv.gz");
    std::fs::write(&path, gzip(file(500).as_bytes())).expect("the file is written");

    let imported = Server::start(Options::serve()).await;
    let printed = Cli::new(&imported, ["import", path.to_str().expect("UTF-8")]).run().await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let expected: Vec<proto::Tick> = stored(&imported.stubs().await).await.iter().map(content).collect();
    assert_eq!(expected.len(), 500);

    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let first = replay(&server, &path, &["--speed", "max"]).await;
    assert_eq!(first["replayed_ticks"], 500, "{first}");
    assert_eq!(first["acknowledged_ticks"], 500, "{first}");
    let ticks = stored(&stubs).await;
    assert!(ticks.iter().all(|tick| tick.origin == proto::Origin::Backfill as i32));
    assert_eq!(ticks.iter().map(content).collect::<Vec<_>>(), expected, "in the order of the file");

    let second = replay(&server, &path, &["--speed", "max"]).await;
    assert_ne!(first["producer"], second["producer"]);
    let ticks = stored(&stubs).await;
    assert_eq!(ticks.len(), 1_000, "a second replay is a second day");
    assert_eq!(ticks[500..].iter().map(content).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_as_live_keeps_the_pace_of_the_file_for_every_watcher() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("trades.csv");
    // 4 seconds of the file.
    std::fs::write(&path, file(200)).expect("the file is written");
    let server = Server::start(Options::serve()).await;
    let mut live = server.stubs().await.live;
    let request = proto::SubscribeTicksRequest {
        selectors: vec![selector("REPLAYED")],
        ..proto::SubscribeTicksRequest::default()
    };
    let mut stream =
        within("a subscription", MESSAGE, live.subscribe_ticks(request)).await.expect("granted").into_inner();
    let first = within("the acknowledgement", MESSAGE, stream.message()).await.expect("open").expect("a message");
    assert!(matches!(first.event, Some(Event::Ack(_))));

    let watcher = tokio::spawn(async move {
        let mut arrived = Vec::new();
        while arrived.len() < 200 {
            let message = within("ticks", MESSAGE, stream.message()).await.expect("open").expect("a message");
            let now = Instant::now();
            if let Some(Event::Rows(rows)) = message.event {
                arrived.extend(rows.ticks.into_iter().map(|tick| (tick, now)));
            }
        }
        arrived
    });
    // Four times the pace of the file: a second.
    let summary = replay(&server, &path, &["--speed", "4", "--as-live"]).await;
    let arrived = watcher.await.expect("the watcher has seen everything");

    let numbers: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let seen: Vec<&str> = arrived.iter().map(|(tick, _)| tick.trade_id.as_str()).collect();
    assert_eq!(seen, numbers, "in the order of the file, the late one too");
    assert!(arrived.iter().all(|(tick, _)| tick.origin == proto::Origin::Live as i32));
    assert!(summary["seconds"].as_f64().expect("a number") >= 0.98, "{summary}");

    // A tick never comes before it is due: the first was due when it arrived or earlier.
    let begun = arrived[0].1;
    for (number, (_, at)) in arrived.iter().enumerate().filter(|(number, _)| number % 10 == 0 && *number != 77) {
        let due = Duration::from_millis(20 * number as u64 / 4);
        // The publisher gathers for 5 ms, and the first tick waited for others too.
        let early = due.saturating_sub(at.duration_since(begun));
        assert!(early <= Duration::from_millis(250), "tick {number} came {early:?} early");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_replayed_is_said_before_or_with_the_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(Options::serve()).await;
    let write = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("the file is written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let missing = folder.path().join("missing.csv").to_str().expect("UTF-8").to_owned();
    let no_symbol = write("a.csv", "event_time_ms,price\n1000,1\n");
    let bad_lines = write("b.csv", "venue,symbol,event_time_ms,price\nV,S,1000,1\nV,S,1000,NaN\nV,S,1000,2\n");
    let cases = [
        (vec![missing.as_str()], "missing.csv"),
        (vec![no_symbol.as_str()], "venue"),
        (vec![bad_lines.as_str(), "--max-rejects", "0"], "--max-rejects allows 0"),
    ];
    for (arguments, expected) in cases {
        let mut all = vec!["replay", "--speed", "max"];
        all.extend(&arguments);
        let printed = Cli::new(&server, all).run().await;
        assert_eq!(printed.code, Some(1), "{arguments:?}: {printed:?}");
        assert!(printed.stderr.contains(expected), "{arguments:?}: {printed:?}");
    }
    // Without the limit the good lines around the bad one are stored, and the bad one is shown.
    let printed = Cli::new(&server, ["replay", "--speed", "max", bad_lines.as_str()]).run().await;
    assert_eq!(printed.code, Some(0), "{printed:?}");
    assert!(printed.stdout.contains("2 ticks replayed") && printed.stdout.contains("1 line rejected"), "{printed:?}");
    assert!(printed.stderr.contains("line 3"), "{printed:?}");
}
