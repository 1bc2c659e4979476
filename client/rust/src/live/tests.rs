//! Subscriptions against scripted servers.

use std::time::{Duration, Instant};

use proto::subscribe_ticks_request::Start;
use proto::subscribe_ticks_response::Event as WireEvent;
use tapefeed_proto::v1 as proto;
use tonic::{Code, Status};

use super::*;
use crate::testing::{FakeLive, Proxy, Step, builder, refusal, serve_live, wire_tick};
use crate::{ErrorReason, Tick};

/// A cursor of the fake: the position in eight bytes.
fn cursor(log_seq: u64) -> Vec<u8> {
    log_seq.to_be_bytes().to_vec()
}

fn send(log_seq: u64, event: WireEvent) -> Step {
    Step::Send(Box::new(proto::SubscribeTicksResponse { cursor: cursor(log_seq).into(), event: Some(event) }))
}

fn without_cursor(event: WireEvent) -> Step {
    Step::Send(Box::new(proto::SubscribeTicksResponse { cursor: Vec::new().into(), event: Some(event) }))
}

fn ack_of(epoch: u64, delivery: proto::Delivery) -> WireEvent {
    WireEvent::Ack(proto::SubscriptionAck {
        epoch,
        delivery: delivery.into(),
        heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..proto::SubscriptionAck::default()
    })
}

fn ack() -> WireEvent {
    ack_of(7, proto::Delivery::Lossless)
}

fn ticks(log_seqs: std::ops::RangeInclusive<u64>) -> Step {
    let rows = proto::TickBatch { ticks: log_seqs.clone().map(wire_tick).collect(), merged_counts: Vec::new() };
    send(*log_seqs.end(), WireEvent::Rows(rows))
}

/// The log of the fake, one message for every two ticks, from a position on.
fn log_after(position: u64, end: u64) -> Vec<Step> {
    let mut steps = vec![send(position, ack())];
    let mut next = position + 1;
    while next <= end {
        let last = (next + 1).min(end);
        steps.push(ticks(next..=last));
        next = last + 1;
    }
    steps
}

/// Reads until a tick at `last` has come; the positions of all ticks, and all other events by name.
async fn read_to(stream: &mut SubscriptionStream, last: u64) -> (Vec<u64>, Vec<String>) {
    let (mut positions, mut events) = (Vec::new(), Vec::new());
    while positions.last() != Some(&last) {
        let event = tokio::time::timeout(Duration::from_secs(10), stream.next()).await;
        match event.expect("the next event comes").unwrap().unwrap() {
            Event::Ticks { ticks, .. } => positions.extend(ticks.iter().map(|tick| tick.log_seq)),
            other => {
                let name = format!("{other:?}");
                let name = name.split([' ', '(']).next().unwrap();
                events.push(name.to_owned());
            }
        }
    }
    (positions, events)
}

#[tokio::test]
async fn a_cut_after_any_message_loses_and_repeats_nothing() {
    const END: u64 = 9;
    let cuts = [
        Step::Fail(Status::unavailable("planned")),
        Step::Fail(Status::internal("a proxy's words")),
        Step::Fail(refusal(Code::Unavailable, "SHUTTING_DOWN", &[])),
        Step::Fail(refusal(Code::Unavailable, "STORE_UNAVAILABLE", &[])),
        Step::End,
    ];
    let whole = log_after(0, END);
    for cut in &cuts {
        for after in 0..=whole.len() {
            let mut first = whole[..after].to_vec();
            first.push(cut.clone());
            // Messages sent: the acknowledgement, then two ticks each.
            let seen = (after.saturating_sub(1) as u64 * 2).min(END);
            let mut second = log_after(seen, END + 1);
            second.push(Step::Hang);
            let fake = FakeLive::new([first, second]);
            let client = builder(&serve_live(fake.clone()).await).lazy().unwrap();
            let mut stream = client.subscribe(Subscription::new());
            let (positions, events) = read_to(&mut stream, END + 1).await;
            assert_eq!(positions, (1..=END + 1).collect::<Vec<_>>(), "{cut:?} after {after}");
            let reconnects = events.iter().filter(|name| *name == "Reconnected");
            assert_eq!(reconnects.count(), 1);
            let start = fake.requests()[1].start.clone();
            let expected = match after {
                0 => Start::Live(proto::StartLive {}),
                _ => Start::Cursor(cursor(seen).into()),
            };
            assert_eq!(start, Some(expected), "{cut:?} after {after}");
            assert_eq!(stream.duplicates_dropped(), 0);
            assert_eq!(stream.cursor().unwrap().as_bytes(), cursor(END + 1));
        }
    }
}

#[tokio::test]
async fn a_connection_that_dies_without_a_word_is_replaced() {
    let mut first = log_after(0, 5);
    first.push(Step::Hang);
    let mut second = log_after(5, 9);
    second.push(Step::Hang);
    let fake = FakeLive::new([first, second]);
    let proxy = Proxy::start(&serve_live(fake.clone()).await).await;
    let client = builder(&proxy.address).lazy().unwrap();
    let mut stream = client.subscribe(Subscription::new());
    let (before, _) = read_to(&mut stream, 5).await;
    proxy.cut();
    let (after, events) = read_to(&mut stream, 9).await;
    assert_eq!([before, after].concat(), (1..=9).collect::<Vec<_>>());
    assert_eq!(events, ["Disconnected", "Reconnected", "Ack"]);
}

#[tokio::test]
async fn what_comes_twice_is_dropped_and_counted() {
    let gap = |log_seq| {
        let gap = proto::SourceGap { log_seq, ..proto::SourceGap::default() };
        send(log_seq, WireEvent::SourceGap(gap))
    };
    let fake = FakeLive::new([
        vec![send(0, ack()), ticks(1..=4), gap(5), Step::End],
        vec![send(5, ack()), ticks(3..=4), gap(5), ticks(6..=7), Step::Hang],
    ]);
    let client = builder(&serve_live(fake).await).lazy().unwrap();
    let mut stream = client.subscribe(Subscription::new());
    let (positions, events) = read_to(&mut stream, 7).await;
    assert_eq!(positions, [1, 2, 3, 4, 6, 7]);
    assert_eq!(events.iter().filter(|name| *name == "SourceGap").count(), 1);
    assert_eq!(stream.duplicates_dropped(), 3);
}

#[tokio::test]
async fn a_new_epoch_begins_its_own_count() {
    let fake = FakeLive::new([
        vec![send(0, ack()), ticks(1..=4), Step::End],
        vec![send(2, ack_of(8, proto::Delivery::Lossless)), ticks(3..=5), Step::Hang],
    ]);
    let client = builder(&serve_live(fake).await).lazy().unwrap();
    let mut stream = client.subscribe(Subscription::new());
    let (positions, _) = read_to(&mut stream, 5).await;
    assert_eq!(positions, [1, 2, 3, 4, 3, 4, 5]);
    assert_eq!(stream.duplicates_dropped(), 0);
}

#[tokio::test]
async fn conflated_ticks_may_repeat() {
    let fake = FakeLive::new([vec![
        send(0, ack_of(7, proto::Delivery::Conflated)),
        ticks(4..=4),
        ticks(3..=3),
        ticks(9..=9),
        Step::Hang,
    ]]);
    let client = builder(&serve_live(fake).await).lazy().unwrap();
    let mut stream = client.subscribe(Subscription::new().conflated(Duration::ZERO));
    let (positions, _) = read_to(&mut stream, 9).await;
    assert_eq!(positions, [4, 3, 9]);
}

#[tokio::test]
async fn a_snapshot_that_is_cut_is_asked_for_again() {
    let begin = || without_cursor(WireEvent::SnapshotBegin(proto::SnapshotBegin { log_seq: 20, tick_count: 2 }));
    let snapshot = |log_seq| {
        without_cursor(WireEvent::Rows(proto::TickBatch { ticks: vec![wire_tick(log_seq)], merged_counts: Vec::new() }))
    };
    let end = send(20, WireEvent::SnapshotEnd(proto::SnapshotEnd { log_seq: 20, selectors_without_data: Vec::new() }));
    let fake = FakeLive::new([
        vec![without_cursor(ack()), begin(), snapshot(12), Step::End],
        vec![without_cursor(ack()), begin(), snapshot(12), snapshot(3), end, ticks(21..=22), Step::Hang],
    ]);
    let client = builder(&serve_live(fake.clone()).await).lazy().unwrap();
    let mut stream = client.subscribe(Subscription::new().snapshot());
    let (positions, events) = read_to(&mut stream, 22).await;
    assert_eq!(positions, [12, 12, 3, 21, 22]);
    assert_eq!(events, ["Ack", "SnapshotBegin", "Disconnected", "Reconnected", "Ack", "SnapshotBegin", "SnapshotEnd"]);
    let starts: Vec<_> = fake.requests().into_iter().map(|r| r.start).collect();
    let snapshot = Some(Start::Snapshot(proto::StartSnapshot {}));
    assert_eq!(starts, [snapshot.clone(), snapshot]);
}

#[tokio::test]
async fn a_fatal_refusal_is_the_last_item() {
    let expired = refusal(Code::OutOfRange, "CURSOR_EXPIRED", &[("oldest_cursor", "AQID")]);
    for steps in [vec![Step::Fail(expired.clone())], vec![send(0, ack()), Step::Fail(expired.clone())]] {
        let fake = FakeLive::new([steps]);
        let client = builder(&serve_live(fake.clone()).await).lazy().unwrap();
        let start = "AAAA".parse().unwrap();
        let mut stream = client.subscribe(Subscription::new().after(start));
        let error = loop {
            match stream.next().await.unwrap() {
                Ok(event) => assert!(matches!(event, Event::Ack(_))),
                Err(error) => break error,
            }
        };
        assert_eq!(error.reason(), ErrorReason::CursorExpired);
        assert_eq!(error.metadata("oldest_cursor"), Some("AQID"));
        assert!(stream.next().await.is_none());
        assert_eq!(fake.requests().len(), 1);
    }
}

#[tokio::test]
async fn three_silent_heartbeats_are_a_cut() {
    let mut second = log_after(2, 4);
    second.push(Step::Hang);
    let fake = FakeLive::new([vec![send(0, ack()), ticks(1..=2), Step::Hang], second]);
    let client = builder(&serve_live(fake).await).lazy().unwrap();
    let mut stream = client.subscribe(Subscription::new());
    let begun = Instant::now();
    let (positions, events) = read_to(&mut stream, 4).await;
    assert_eq!(positions, [1, 2, 3, 4]);
    assert_eq!(events, ["Ack", "Disconnected", "Reconnected", "Ack"]);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(3), "{waited:?}");
    assert!(waited < Duration::from_secs(8), "{waited:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_and_waited_for() {
    let client = builder("http://127.0.0.1:1").lazy().unwrap();
    let mut stream = client.subscribe(Subscription::new());
    for expected in 1..=3 {
        match stream.next().await.unwrap().unwrap() {
            Event::Disconnected { attempt, error, .. } => {
                assert_eq!(attempt, expected);
                assert!(matches!(error, Error::Transport(_)), "{error:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn columns_give_the_same_ticks_as_rows() {
    let definitions = proto::InstrumentDefinitions {
        definitions: vec![proto::InstrumentDefinition { instrument_id: 1, venue: "X".into(), symbol: "A".into() }],
    };
    let columns = proto::TickColumns {
        instruments: vec![proto::ColumnInstrument { instrument_id: 1, ..proto::ColumnInstrument::default() }],
        instrument_index: vec![0, 0],
        event_time_unix_nano_delta: vec![1, 1],
        receive_time_unix_nano_delta: vec![1, 1],
        price_mantissa: vec![1, 0],
        log_seq_delta: vec![1, 1],
        ..proto::TickColumns::default()
    };
    let fake = FakeLive::new([vec![
        send(0, ack()),
        send(0, WireEvent::InstrumentDefinitions(definitions)),
        send(2, WireEvent::Columns(columns)),
        Step::Hang,
    ]]);
    let client = builder(&serve_live(fake.clone()).await).lazy().unwrap();
    let mut stream = client.subscribe(Subscription::new().columns());
    assert!(matches!(stream.next().await, Some(Ok(Event::Ack(_)))));
    let Some(Ok(Event::Ticks { ticks, .. })) = stream.next().await else {
        panic!("no ticks");
    };
    let rows = proto::TickBatch { ticks: vec![wire_tick(1), wire_tick(2)], merged_counts: Vec::new() };
    assert_eq!(ticks, Tick::from_rows(rows).unwrap());
    let encoding = fake.requests()[0].encoding;
    assert_eq!(encoding, i32::from(proto::Encoding::Columns));
}

#[tokio::test]
async fn an_event_from_the_future_is_passed_over_and_its_cursor_kept() {
    let unknown = Step::Send(Box::new(proto::SubscribeTicksResponse { cursor: cursor(6).into(), event: None }));
    let mut second = log_after(6, 7);
    second.push(Step::Hang);
    let fake = FakeLive::new([vec![send(0, ack()), unknown, Step::End], second]);
    let client = builder(&serve_live(fake.clone()).await).lazy().unwrap();
    let mut stream = client.subscribe(Subscription::new());
    let (positions, _) = read_to(&mut stream, 7).await;
    assert_eq!(positions, [7]);
    let start = fake.requests()[1].start.clone();
    assert_eq!(start, Some(Start::Cursor(cursor(6).into())));
}

#[tokio::test]
async fn a_slow_consumer_gets_everything_in_the_end() {
    let mut steps = log_after(0, 2_000);
    steps.push(Step::Hang);
    let fake = FakeLive::new([steps]);
    let client = builder(&serve_live(fake).await).lazy().unwrap();
    let mut stream = client.subscribe(Subscription::new().queue_ticks(3));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (positions, _) = read_to(&mut stream, 2_000).await;
    assert_eq!(positions, (1..=2_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_queue_holds_no_more_than_its_ticks() {
    let (sender, mut receiver) = queue::bounded(5);
    let event = |count: u64| {
        let rows = proto::TickBatch { ticks: (1..=count).map(wire_tick).collect(), merged_counts: Vec::new() };
        Event::Ticks { ticks: Tick::from_rows(rows).unwrap(), cursor: None }
    };
    sender.push(event(3), None).await.unwrap();
    let full = tokio::time::timeout(Duration::from_millis(20), sender.push(event(3), None));
    assert!(full.await.is_err(), "there is room for two ticks only");
    drop(std::future::poll_fn(|context| receiver.poll(context)).await);
    sender.push(event(3), None).await.unwrap();
    drop(std::future::poll_fn(|context| receiver.poll(context)).await);
    // One larger than the queue takes all of it.
    sender.push(event(50), None).await.unwrap();
    drop(receiver);
    assert!(sender.push(event(1), None).await.is_err());
}

#[test]
fn selectors_default_to_everything_and_take_the_venue() {
    let selectors = |subscription: Subscription| {
        let selectors = subscription.to_wire().selectors.into_iter();
        selectors.map(|selector| (selector.venue, selector.symbol)).collect::<Vec<_>>()
    };
    let pair = |venue: &str, symbol: &str| (venue.to_owned(), symbol.to_owned());
    assert_eq!(selectors(Subscription::new()), [pair("", "*")]);
    assert_eq!(selectors(Subscription::new().venue("X")), [pair("X", "*")]);
    let several = Subscription::new().symbol("A").selector(Selector::symbol("B").on("Y")).venue("X");
    assert_eq!(selectors(several), [pair("X", "A"), pair("Y", "B")]);
}

#[tokio::test]
async fn bars_are_typed_and_the_stream_resumes_after_what_was_complete() {
    use proto::subscribe_bars_request::Start as BarStart;
    use proto::subscribe_bars_response::Event as BarEvent;
    let second = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let message = |at: Option<u64>, event| proto::SubscribeBarsResponse {
        cursor: at.map(cursor).unwrap_or_default().into(),
        event: Some(event),
    };
    let bar = proto::Bar {
        symbol: "A".into(),
        start_time: second(60),
        end_time: second(120),
        volume: "0".into(),
        notional: "0".into(),
        state: proto::BarState::Final.into(),
        revision: 4,
        ..Default::default()
    };
    let complete = proto::IntervalComplete { start_time: second(60), end_time: second(120) };
    let granted = proto::SubscriptionAck { epoch: 7, ..Default::default() };
    let fake = FakeLive::default();
    fake.bars.lock().unwrap().push_back(vec![
        message(Some(3), BarEvent::Ack(granted)),
        // Bars and mark belong to position 5: inside, the cursor is still that before it.
        message(Some(3), BarEvent::Bars(proto::BarBatch { bars: vec![bar] })),
        message(Some(5), BarEvent::IntervalComplete(complete)),
    ]);
    let client = builder(&serve_live(fake.clone()).await).lazy().unwrap();
    let minute = Duration::from_secs(60);
    let wish = crate::BarSubscription::new(minute).venue("V").symbol("A").include_forming().decimals(2);
    let mut stream = client.subscribe_bars(wish);
    assert!(matches!(stream.next().await.unwrap().unwrap(), Event::Ack(_)));
    let Event::Bars { bars, cursor: at } = stream.next().await.unwrap().unwrap() else { panic!("no bars") };
    assert_eq!((bars[0].revision, bars[0].is_final, bars[0].start.nanos()), (4, true, 60_000_000_000));
    assert_eq!(at, Cursor::from_bytes(cursor(3)));
    let Event::IntervalComplete { start, end, .. } = stream.next().await.unwrap().unwrap() else { panic!("no mark") };
    assert_eq!((start.nanos(), end.nanos()), (60_000_000_000, 120_000_000_000));
    assert!(matches!(stream.next().await.unwrap().unwrap(), Event::Disconnected { .. }));
    let again = async {
        while fake.bar_requests.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.unwrap();
    let requests = fake.bar_requests.lock().unwrap();
    assert!(matches!(requests[0].start, Some(BarStart::Live(_))));
    assert_eq!(requests[1].start, Some(BarStart::Cursor(cursor(5).into())));
    assert_eq!((requests[1].decimals, requests[1].include_forming), (Some(2), true));
    assert_eq!((requests[1].selectors[0].venue.as_str(), requests[1].interval.unwrap().seconds), ("V", 60));
}
