//! Subscriptions of every kind through the real server: by bare stubs, by the client library, by the command line.

use std::collections::HashMap;
use std::time::Duration;

use tapefeed_client::{
    Client, Event, InstrumentQuery, NewTick, SourceEvent, SourceGap, SourceGapCause, SourceGapFilled, SourceStatus,
    Subscription, SubscriptionStream, Tick, UnixNanos,
};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_tests::mute::Mute;
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Cli, Options, Publisher, Server, values, within};
use tonic::Code;

/// How long an event may take, on a busy machine.
const EVENT: Duration = Duration::from_secs(60);

async fn client(url: &str) -> Client {
    let delays = (Duration::from_millis(20), Duration::from_millis(200));
    Client::builder(url).reconnect_delays(delays.0, delays.1).connect().await.expect("the server is there")
}

async fn next(stream: &mut SubscriptionStream) -> Event {
    let event = within("an event", EVENT, stream.next()).await;
    event.expect("a subscription does not end").expect("no fatal error")
}

/// Ticks until one at a position, and the other events that came with them.
async fn read_to(stream: &mut SubscriptionStream, log_seq: u64) -> (Vec<Tick>, Vec<Event>) {
    let (mut ticks, mut events) = (Vec::<Tick>::new(), Vec::new());
    loop {
        match next(stream).await {
            Event::Ticks { ticks: new, .. } => ticks.extend(new),
            Event::Progress { log_seq: at, .. } if at >= log_seq => return (ticks, events),
            event => events.push(event),
        }
        if ticks.last().is_some_and(|tick| tick.log_seq >= log_seq) {
            return (ticks, events);
        }
    }
}

fn tick(symbol: &str, number: i64) -> NewTick {
    let price = tapefeed_client::Decimal::new(number, -2).expect("a price");
    NewTick::new("XTST", symbol, UnixNanos(now_unix_nano()), price)
}

/// Publishes ticks of one symbol and returns the position of the last.
async fn publish(publisher: &tapefeed_client::Publisher, symbol: &str, numbers: std::ops::Range<i64>) {
    for number in numbers {
        publisher.send(tick(symbol, number)).await.expect("taken");
    }
    publisher.flush().await.expect("stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_feeds_say_is_published_once_streamed_in_place_and_replayed() {
    let mut server = Server::start(Options::serve()).await;
    let client = client(&server.url()).await;
    let heartbeat = Duration::from_secs(1);
    let mut all = client.subscribe(Subscription::new().heartbeat_interval(heartbeat).columns());
    let mut other = client.subscribe(Subscription::new().symbol("B").heartbeat_interval(heartbeat));
    for stream in [&mut all, &mut other] {
        assert!(matches!(next(stream).await, Event::Ack(_)));
    }
    let publisher = client.publisher("feed").start().await.expect("claimed");
    let down = SourceStatus {
        source: "feed-1".into(),
        venue: "XTST".into(),
        symbols: vec!["A".into()],
        up: false,
        change_time: None,
        detail: "connection reset".into(),
        log_seq: 0,
    };
    let gap = SourceGap {
        source: "feed-1".into(),
        venue: "XTST".into(),
        symbols: vec![],
        start_time: Some(UnixNanos(5)),
        end_time: Some(UnixNanos(9)),
        first_source_seq: Some(100),
        last_source_seq: Some(120),
        cause: SourceGapCause::SequenceHole,
        recoverable: true,
        detail: "21 messages".into(),
        log_seq: 0,
    };
    let filled = SourceGapFilled {
        source: "feed-1".into(),
        venue: "XTST".into(),
        gap_log_seq: Some(3),
        ..SourceGapFilled::default()
    };
    publisher.send(tick("A", 1)).await.expect("taken");
    publisher.send_event(SourceEvent::Status(down.clone())).await.expect("taken");
    publisher.send_event(SourceEvent::Gap(gap.clone())).await.expect("taken");
    publisher.send(tick("B", 2)).await.expect("taken");
    publisher.send_event(SourceEvent::GapFilled(filled.clone())).await.expect("taken");
    publisher.flush().await.expect("stored");

    let check = |ticks: &[Tick], events: &[Event], everything: bool| {
        let positions: Vec<u64> = ticks.iter().map(|tick| tick.log_seq).collect();
        assert_eq!(positions, if everything { vec![1, 4] } else { vec![4] });
        let mut events = events.iter().filter(|event| !matches!(event, Event::Progress { .. } | Event::Ack(_)));
        if everything {
            let Some(Event::SourceStatus(status)) = events.next() else { panic!("{events:?}") };
            assert!(status.change_time.is_some(), "the server stamps it");
            let expected = SourceStatus { change_time: status.change_time, log_seq: 2, ..down.clone() };
            assert_eq!(*status, expected);
        }
        // The gap is about all symbols of the venue, B too.
        let Some(Event::SourceGap(told)) = events.next() else { panic!("{events:?}") };
        assert_eq!(*told, SourceGap { log_seq: 3, ..gap.clone() });
        let Some(Event::SourceGapFilled(told)) = events.next() else { panic!("{events:?}") };
        assert_eq!(*told, SourceGapFilled { log_seq: 5, ..filled.clone() });
    };
    let (ticks, events) = read_to(&mut all, 5).await;
    check(&ticks, &events, true);
    let (ticks, events) = read_to(&mut other, 5).await;
    check(&ticks, &events, false);

    server.kill9().await;
    server.restart().await;
    let client = self::client(&server.url()).await;
    let window = client.replay_window().await.expect("served");
    assert_eq!((window.oldest.unwrap().log_seq, window.newest.unwrap().log_seq), (1, 5));
    for (symbol, everything) in [("*", true), ("B", false)] {
        let start = Subscription::new().symbol(symbol).after_position(window.epoch, 0).heartbeat_interval(heartbeat);
        let (ticks, mut events) = read_to(&mut client.subscribe(start), 5).await;
        events.retain(|event| !matches!(event, Event::ReplayCompleted { .. }));
        check(&ticks, &events, everything);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_events_are_numbered_like_ticks() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let status = |state: proto::SourceState| {
        Content::SourceStatus(proto::SourceStatus {
            source: "feed-1".into(),
            venue: "XTST".into(),
            state: state.into(),
            ..proto::SourceStatus::default()
        })
    };
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let first = publisher.content(status(proto::SourceState::Down)).await.expect("stored");
    assert!(!first.duplicate);
    publisher.send(1, status(proto::SourceState::Down)).await;
    let again = publisher.ack().await.expect("acknowledged").expect("the stream is open");
    assert!(again.duplicate, "the same content under its number is not stored again");
    publisher.send(1, status(proto::SourceState::Up)).await;
    let refused = Refusal::of(&publisher.ack().await.expect_err("other content under a known number"));
    refused.assert(Code::AlreadyExists, "BATCH_CONFLICT", &["batch_seq", "expected_batch_seq"]);

    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let refused = publisher.content(status(proto::SourceState::Unspecified)).await.expect_err("no state");
    let refused = Refusal::of(&refused);
    refused.assert(Code::InvalidArgument, "BATCH_INVALID", &["violation_count", "expected_batch_seq"]);
    assert_eq!(refused.metadata["expected_batch_seq"], "2", "its number is not used up");
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let second = publisher.rows(vec![values::tick("XTST", "A", now_unix_nano(), "1")]).await.expect("stored");
    assert_eq!(second.batch_seq, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_in_columns_goes_on_live_and_over_a_restart() {
    let mut server = Server::start(Options::serve()).await;
    let client = client(&server.url()).await;
    let publisher = client.publisher("feed").start().await.expect("claimed");
    publish(&publisher, "A", 1..50).await;
    publish(&publisher, "B", 50..60).await;
    // A snapshot is as new as the view, which follows the acknowledgement.
    let stored = publisher.flush().await.expect("stored").cursor.expect("something was published");
    client.list_instruments(&InstrumentQuery::all().min_cursor(stored)).await.expect("the view gets there");
    let wish = Subscription::new().symbol("A").symbol("B").symbol("NONE").snapshot().columns();
    let mut stream = client.subscribe(wish.heartbeat_interval(Duration::from_secs(1)));
    assert!(matches!(next(&mut stream).await, Event::Ack(_)));
    let Event::SnapshotBegin { tick_count, .. } = next(&mut stream).await else { panic!() };
    assert_eq!(tick_count, 2);
    let mut latest = HashMap::new();
    let position = loop {
        match next(&mut stream).await {
            Event::Ticks { ticks, cursor } => {
                assert!(cursor.is_none());
                latest.extend(ticks.into_iter().map(|tick| (tick.symbol.to_string(), tick.log_seq)));
            }
            Event::SnapshotEnd { log_seq, without_data } => {
                let without: Vec<&str> = without_data.iter().map(|selector| selector.symbol_name()).collect();
                assert_eq!(without, ["NONE"]);
                break log_seq;
            }
            event => panic!("{event:?}"),
        }
    };
    assert_eq!((latest["A"], latest["B"], position), (49, 59, 59));
    publish(&publisher, "NONE", 60..70).await;
    let (ticks, _) = read_to(&mut stream, 69).await;
    assert_eq!(ticks.iter().map(|tick| tick.log_seq).collect::<Vec<_>>(), (60..=69).collect::<Vec<_>>());
    assert!(ticks.iter().all(|tick| &*tick.symbol == "NONE"));

    server.kill9().await;
    server.restart().await;
    publish(&publisher, "A", 70..80).await;
    let (ticks, events) = read_to(&mut stream, 79).await;
    assert_eq!(ticks.iter().map(|tick| tick.log_seq).collect::<Vec<_>>(), (70..=79).collect::<Vec<_>>());
    assert!(events.iter().any(|event| matches!(event, Event::Reconnected { resumed_after: Some(_), .. })));
    assert_eq!(stream.duplicates_dropped(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conflated_and_lossless_streams_end_in_the_same_state() {
    let server = Server::start(Options::serve()).await;
    let client = client(&server.url()).await;
    let conflated = |millis| Subscription::new().conflated(Duration::from_millis(millis));
    let mut streams = [
        client.subscribe(Subscription::new()),
        client.subscribe(conflated(0)),
        client.subscribe(conflated(20).columns()),
    ];
    for stream in &mut streams {
        assert!(matches!(next(stream).await, Event::Ack(_)));
    }
    let publisher = client.publisher("feed").start().await.expect("claimed");
    let publishing = tokio::spawn(async move {
        for round in 0..60 {
            for symbol in ["A", "B", "C"] {
                publish(&publisher, symbol, round * 10..round * 10 + 10).await;
            }
        }
        publisher.close().await.expect("all is stored");
    });
    let mut states = Vec::new();
    for stream in &mut streams {
        let mut state: HashMap<String, (UnixNanos, u64)> = HashMap::new();
        let (mut came, mut merged) = (0, 0);
        while merged < 1_800 {
            let Event::Ticks { ticks, .. } = next(stream).await else { continue };
            for tick in ticks {
                came += 1;
                merged += tick.merged_count;
                let known = state.entry(tick.symbol.to_string()).or_insert((tick.event_time, tick.log_seq));
                *known = (*known).max((tick.event_time, tick.log_seq));
            }
        }
        println!("{came} ticks came for {merged}");
        assert_eq!(merged, 1_800);
        states.push(state);
    }
    publishing.await.expect("published");
    assert_eq!(states[0], states[1]);
    assert_eq!(states[0], states[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_goes_mute_is_found_dead_and_nothing_is_lost() {
    let server = Server::start(Options::serve()).await;
    let proxy = Mute::before(server.address()).await;
    let direct = client(&server.url()).await;
    let publisher = direct.publisher("feed").start().await.expect("claimed");
    let mut stream =
        client(&proxy.url()).await.subscribe(Subscription::new().columns().heartbeat_interval(Duration::from_secs(1)));
    assert!(matches!(next(&mut stream).await, Event::Ack(_)));
    publish(&publisher, "A", 1..11).await;
    let (mut all, _) = read_to(&mut stream, 10).await;
    proxy.cut();
    publish(&publisher, "A", 11..31).await;
    let (ticks, events) = read_to(&mut stream, 30).await;
    all.extend(ticks);
    assert!(events.iter().any(|event| matches!(event, Event::Disconnected { .. })), "no message for three heartbeats");
    assert_eq!(all.iter().map(|tick| tick.log_seq).collect::<Vec<_>>(), (1..=30).collect::<Vec<_>>());
    assert_eq!(stream.duplicates_dropped(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_time_begins_with_what_was_stored_then() {
    let server = Server::start(Options::serve()).await;
    let client = client(&server.url()).await;
    let publisher = client.publisher("feed").start().await.expect("claimed");
    publish(&publisher, "A", 1..6).await;
    let first = client.replay_window().await.expect("served").newest.expect("not empty");
    // Append times are the server's: the next batch is stored later, by at least a nanosecond.
    publish(&publisher, "A", 6..9).await;
    for (time, expected) in [(first.append_time.nanos(), 1..=8), (first.append_time.nanos() + 1, 6..=8)] {
        let mut stream = client.subscribe(Subscription::new().from_time(UnixNanos(time)));
        let (ticks, _) = read_to(&mut stream, 8).await;
        let positions: Vec<u64> = ticks.iter().map(|tick| tick.log_seq).collect();
        // Ticks that were sent one by one may have been stored in several batches.
        assert_eq!(positions.last(), Some(&8));
        assert!(positions[0] >= *expected.start() && positions[0] <= 6, "{positions:?}");
        assert_eq!(positions, (positions[0]..=8).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_shows_snapshots_rounds_and_what_feeds_say() {
    let server = Server::start(Options::serve()).await;
    let client = client(&server.url()).await;
    let publisher = client.publisher("feed").start().await.expect("claimed");
    publish(&publisher, "A", 1..6).await;
    let status = SourceStatus {
        source: "feed-1".into(),
        venue: "XTST".into(),
        symbols: vec![],
        up: false,
        change_time: None,
        detail: "maintenance".into(),
        log_seq: 0,
    };
    publisher.send_event(SourceEvent::Status(status)).await.expect("taken");
    publisher.flush().await.expect("stored");

    let arguments = ["watch", "A", "NONE", "--snapshot", "--conflate", "250ms", "--json", "--limit", "1"];
    let printed = Cli::new(&server, arguments).ok().await;
    let lines = printed.json();
    let ticks: Vec<_> = lines.iter().filter(|line| line.get("event").is_none()).collect();
    assert_eq!((ticks.len(), ticks[0]["log_seq"].as_u64()), (1, Some(5)), "{lines:?}");
    assert!(lines.iter().any(|line| line["event"] == "snapshot_begin" && line["tick_count"] == 1));

    let long_ago = ["watch", "--start-time", "2024-08-09", "--limit", "5"];
    let printed = Cli::new(&server, long_ago).ok().await;
    assert!(printed.stdout.matches("XTST").count() >= 5, "{printed:?}");
    let watch = Cli::new(&server, ["watch", "--start-time", "2024-08-09"]).cut_after(Duration::from_secs(3));
    let printed = watch.run().await;
    assert!(printed.stderr.contains("feed-1 on XTST is down"), "{printed:?}");
    assert!(printed.stderr.contains("maintenance"), "{printed:?}");
}
