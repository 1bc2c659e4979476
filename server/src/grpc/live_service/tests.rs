//! SubscribeTicks and GetReplayWindow as a client sees them: what is refused and how, and what messages hold.

use prost::Message as _;
use tokio_stream::StreamExt as _;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::LiveService;
use super::frames::MAX_MESSAGE_BYTES;
use crate::domain::{Action, Batch, Cursor, Decimal, Epoch, NewTick, Side, Symbol, TradeId, UnixNanos, Venue};
use crate::grpc::proto;
use crate::grpc::proto::live_service_server::LiveService as _;
use crate::live::tests::world::{ROOMY, START, TIGHT, World, status};
use proto::subscribe_ticks_request::Start;
use proto::subscribe_ticks_response::Event;

fn service(world: &World) -> LiveService {
    LiveService { live: world.replica.live.clone(), server_name: "test".into(), next_stream: std::sync::Arc::default() }
}

fn selector(venue: &str, symbol: &str) -> proto::Selector {
    proto::Selector { venue: venue.into(), symbol: symbol.into() }
}

fn request(start: Option<Start>) -> proto::SubscribeTicksRequest {
    proto::SubscribeTicksRequest { selectors: vec![selector("", "*")], start, ..Default::default() }
}

fn after(epoch: u64, position: u64) -> Option<Start> {
    Some(Start::Cursor(Cursor { epoch: Epoch(epoch), position }.into()))
}

fn span(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

/// Code, reason and metadata.
fn told(status: &Status) -> (Code, String, std::collections::HashMap<String, String>) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    (status.code(), info.reason.clone(), info.metadata.clone())
}

async fn refused(service: &LiveService, request: proto::SubscribeTicksRequest) -> Status {
    service.subscribe_ticks(Request::new(request)).await.err().expect("the call is refused")
}

/// Messages until the replay is complete.
async fn replay(service: &LiveService, request: proto::SubscribeTicksRequest) -> Vec<proto::SubscribeTicksResponse> {
    let mut stream = service.subscribe_ticks(Request::new(request)).await.unwrap().into_inner();
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await {
        let message = message.unwrap();
        assert!(message.encoded_len() <= MAX_MESSAGE_BYTES, "{} bytes", message.encoded_len());
        let last = matches!(message.event, Some(Event::ReplayCompleted(_) | Event::SnapshotEnd(_)));
        messages.push(message);
        if last {
            break;
        }
    }
    messages
}

#[tokio::test(start_paused = true)]
async fn wishes_that_break_a_rule_are_refused_with_their_field() {
    let world = World::new(TIGHT).await;
    let service = service(&world);
    let ok = || request(None);
    type Wish = proto::SubscribeTicksRequest;
    let cases: Vec<(&str, Wish)> = vec![
        ("selectors", Wish { selectors: vec![], ..ok() }),
        ("selectors[0].symbol", Wish { selectors: vec![selector("V", "")], ..ok() }),
        ("start_time", request(Some(Start::StartTime(prost_types::Timestamp { seconds: -1, nanos: 0 })))),
        ("encoding", Wish { encoding: 9, ..ok() }),
        ("delivery", Wish { delivery: 9, ..ok() }),
        ("min_interval", Wish { min_interval: span(1, 0), ..ok() }),
        ("min_interval", Wish { delivery: 2, min_interval: span(-1, 0), ..ok() }),
        ("heartbeat_interval", Wish { heartbeat_interval: span(-1, 0), ..ok() }),
        ("flush_window", Wish { flush_window: span(0, -1), ..ok() }),
        ("slow_reader", Wish { slow_reader: 9, ..ok() }),
        ("slow_reader", Wish { delivery: 2, slow_reader: 2, ..ok() }),
        ("if_unavailable", Wish { if_unavailable: 9, ..ok() }),
    ];
    for (field, wish) in cases {
        let status = refused(&service, wish).await;
        let details = status.get_error_details();
        assert_eq!((status.code(), told(&status).1.as_str()), (Code::InvalidArgument, "FIELD_INVALID"), "{field}");
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, field);
    }
    let many = Wish { selectors: vec![selector("", "A"); 10_001], ..ok() };
    let (code, reason, metadata) = told(&refused(&service, many).await);
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "LIMIT_EXCEEDED"));
    assert_eq!((metadata["limit"].as_str(), metadata["max"].as_str()), ("selectors", "10000"));
    let broken = request(Some(Start::Cursor(vec![1; 20].into())));
    assert_eq!(told(&refused(&service, broken).await).1, "CURSOR_INVALID");
}

#[tokio::test(start_paused = true)]
async fn what_is_granted_is_told_within_its_bounds() {
    let world = World::new(TIGHT).await;
    let service = service(&world);
    let wish = proto::SubscribeTicksRequest {
        delivery: proto::Delivery::Conflated.into(),
        encoding: proto::Encoding::Columns.into(),
        min_interval: span(100, 0),
        heartbeat_interval: span(0, 5),
        flush_window: span(1, 0),
        ..request(None)
    };
    let mut stream = service.subscribe_ticks(Request::new(wish)).await.unwrap().into_inner();
    let Some(Event::Ack(ack)) = stream.next().await.unwrap().unwrap().event else { panic!() };
    assert_eq!((ack.delivery(), ack.encoding()), (proto::Delivery::Conflated, proto::Encoding::Columns));
    assert_eq!(
        (ack.min_interval, ack.heartbeat_interval, ack.flush_window),
        (span(60, 0), span(1, 0), span(0, 10_000_000))
    );
}

#[tokio::test(start_paused = true)]
async fn refused_positions_carry_what_is_needed_to_go_on() {
    let mut world = World::new(TIGHT).await;
    for second in 0..20 {
        world.publish(&[("V", "A", second)]).await;
    }
    world.forget_up_to(10).await;
    crate::store::Store::renew_epoch(&*world.store, Epoch(8)).await.unwrap();
    let world = world.restart().await;
    let service = service(&world);
    let base64 = |position| {
        use base64::Engine as _;
        let cursor = Cursor { epoch: Epoch(8), position };
        base64::engine::general_purpose::STANDARD.encode(cursor.encode())
    };
    let (code, reason, metadata) = told(&refused(&service, request(after(8, 9))).await);
    assert_eq!((code, reason.as_str()), (Code::OutOfRange, "CURSOR_EXPIRED"));
    assert_eq!((&metadata["oldest_cursor"], metadata["oldest_log_seq"].as_str()), (&base64(10), "11"));
    let (code, reason, metadata) = told(&refused(&service, request(after(7, 21))).await);
    assert_eq!((code, reason.as_str()), (Code::FailedPrecondition, "EPOCH_CHANGED"));
    assert_eq!((metadata["epoch"].as_str(), metadata["parent_epoch"].as_str()), ("8", "7"));
    assert_eq!(metadata["fork_log_seq"], "20");
    assert_eq!((&metadata["oldest_cursor"], &metadata["newest_cursor"]), (&base64(10), &base64(20)));

    let window = service.get_replay_window(Request::new(proto::GetReplayWindowRequest {})).await.unwrap().into_inner();
    assert_eq!((window.epoch, window.parent_epoch, window.fork_log_seq), (8, Some(7), Some(20)));
    let (oldest, newest) = (window.oldest.unwrap(), window.newest.unwrap());
    assert_eq!((oldest.log_seq, newest.log_seq), (11, 20));
    assert_eq!(Cursor::decode(&oldest.cursor).unwrap(), Cursor { epoch: Epoch(8), position: 11 });
    assert!(oldest.append_time.is_some() && newest.append_time.is_some());
}

#[tokio::test(start_paused = true)]
async fn planned_ends_carry_the_cursor_and_when_to_come_back() {
    let mut world = World::new(TIGHT).await;
    let service = service(&world);
    let slow =
        proto::SubscribeTicksRequest { slow_reader: proto::SlowReaderPolicy::Disconnect.into(), ..request(None) };
    let mut slow = service.subscribe_ticks(Request::new(slow)).await.unwrap().into_inner();
    let mut idle = service.subscribe_ticks(Request::new(request(None))).await.unwrap().into_inner();
    slow.next().await.unwrap().unwrap();
    for _ in 0..200 {
        world.commit_anything().await;
    }
    let mut last = idle.next().await.unwrap().unwrap().cursor;
    world.replica.draining.cancel();
    for (stream, reason) in [(&mut idle, "SHUTTING_DOWN")] {
        let status = loop {
            match stream.next().await.unwrap() {
                Ok(message) => last = message.cursor,
                Err(status) => break status,
            }
        };
        let (code, told, metadata) = told(&status);
        assert_eq!((code, told.as_str()), (Code::Unavailable, reason));
        use base64::Engine as _;
        assert_eq!(metadata["cursor"], base64::engine::general_purpose::STANDARD.encode(&last));
        assert!(status.get_error_details().retry_info().is_some());
        assert!(stream.next().await.is_none());
    }
    assert!(slow.next().await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_ends_with_its_reason_and_its_cursor() {
    let mut world = World::new(TIGHT).await;
    let service = service(&world);
    let slow =
        proto::SubscribeTicksRequest { slow_reader: proto::SlowReaderPolicy::Disconnect.into(), ..request(None) };
    let mut slow = service.subscribe_ticks(Request::new(slow)).await.unwrap().into_inner();
    let ack = slow.next().await.unwrap().unwrap();
    for _ in 0..200 {
        world.commit_anything().await;
    }
    let status = slow.next().await.unwrap().unwrap_err();
    let (code, reason, metadata) = told(&status);
    assert_eq!((code, reason.as_str()), (Code::Unavailable, "SLOW_CONSUMER"));
    use base64::Engine as _;
    assert_eq!(metadata["cursor"], base64::engine::general_purpose::STANDARD.encode(&ack.cursor));
    assert!(status.get_error_details().retry_info().is_some());
}

/// Ticks whose every field is as long as it may be, on many instruments.
async fn longest(world: &mut World, count: usize) {
    let name = |number: usize| format!("{number:064}");
    let mut batch = Batch::default();
    for number in 0..count {
        batch.instruments.push((Venue::new(&"V".repeat(32)).unwrap(), Symbol::new(&name(number)).unwrap()));
        batch.ticks.push(NewTick {
            instrument: number as u32,
            event_time: UnixNanos::new(START + number as i64).unwrap(),
            receive_time: Some(UnixNanos::MAX),
            price: Decimal::new(-999_999_999_999_999_937, -3).unwrap(),
            quantity: Some(Decimal::new(999_999_999_999_999_937, -18).unwrap()),
            side: Side::Sell,
            trade_id: TradeId::new(&"é".repeat(32)).unwrap(),
            action: Action::New,
        });
    }
    world.submit(batch, true).await;
}

#[tokio::test(start_paused = true)]
async fn no_message_is_larger_than_64_kib_and_each_ends_at_its_cursor() {
    let mut world = World::new(ROOMY).await;
    longest(&mut world, 3_000).await;
    let service = service(&world);
    for (encoding, conflated) in [(1, false), (2, false), (1, true), (2, true)] {
        let wish = proto::SubscribeTicksRequest {
            encoding,
            include_backfill: true,
            delivery: if conflated { 2 } else { 1 },
            ..request(after(7, 0))
        };
        let messages = replay(&service, wish).await;
        let mut log_seqs: Vec<u64> = Vec::new();
        let mut defined = std::collections::HashSet::new();
        for message in &messages {
            let cursor = Cursor::decode(&message.cursor).unwrap().position;
            match message.event.as_ref().unwrap() {
                Event::InstrumentDefinitions(page) => {
                    defined.extend(page.definitions.iter().map(|definition| definition.instrument_id));
                }
                Event::Rows(rows) => log_seqs.extend(rows.ticks.iter().map(|tick| tick.log_seq)),
                Event::Columns(columns) => {
                    let mut seq = 0i64;
                    for (delta, index) in columns.log_seq_delta.iter().zip(&columns.instrument_index) {
                        seq += delta;
                        log_seqs.push(seq.cast_unsigned());
                        assert!(defined.contains(&columns.instruments[*index as usize].instrument_id));
                    }
                }
                _ => continue,
            }
            if conflated {
                assert_eq!(cursor, if log_seqs.len() == 3_000 { 3_000 } else { 0 });
            } else {
                assert_eq!(cursor, log_seqs.last().copied().unwrap_or(0));
            }
        }
        assert_eq!(log_seqs, (1..=3_000).collect::<Vec<_>>());
    }
    // The snapshot has them all too, without a cursor before its end.
    let messages = replay(&service, request(Some(Start::Snapshot(proto::StartSnapshot {})))).await;
    let (end, before) = messages.split_last().unwrap();
    assert!(before.iter().all(|message| message.cursor.is_empty()) && !end.cursor.is_empty());
}

#[tokio::test(start_paused = true)]
async fn rows_and_columns_hold_the_same() {
    let mut world = World::new(ROOMY).await;
    for _ in 0..60 {
        world.commit_anything().await;
    }
    let service = service(&world);
    let wish = |encoding: proto::Encoding| proto::SubscribeTicksRequest {
        encoding: encoding.into(),
        include_backfill: true,
        ..request(after(7, 0))
    };
    let rows = replay(&service, wish(proto::Encoding::Rows)).await;
    let rows = rows.into_iter().filter_map(|message| match message.event {
        Some(Event::Rows(rows)) => Some(rows.ticks),
        _ => None,
    });
    let rows: Vec<proto::Tick> = rows.flatten().collect();
    let mut names = std::collections::HashMap::new();
    let mut unpacked = Vec::new();
    for message in replay(&service, wish(proto::Encoding::Columns)).await {
        match message.event.unwrap() {
            Event::InstrumentDefinitions(page) => {
                names.extend(page.definitions.into_iter().map(|it| (it.instrument_id, (it.venue, it.symbol))));
            }
            Event::Columns(columns) => unpacked.extend(unpack(&columns, &names)),
            Event::Rows(_) => panic!("rows in a stream of columns"),
            _ => (),
        }
    }
    assert!(rows.iter().any(|tick| tick.action() == proto::Action::Cancel));
    assert!(rows == unpacked);
}

/// The ticks of a message, by the contract's words.
fn unpack(columns: &proto::TickColumns, names: &std::collections::HashMap<u32, (String, String)>) -> Vec<proto::Tick> {
    let time = |nanos: i64| {
        let time = UnixNanos::new(nanos).unwrap();
        Some(prost_types::Timestamp::from(time))
    };
    let number = |mantissa, exponent| Some(Decimal::new(mantissa, exponent).unwrap().into());
    let (mut event, mut receive, mut seq) = (0, 0, 0);
    let mut prices = vec![0i64; columns.instruments.len()];
    let mut ticks = Vec::new();
    for at in 0..columns.instrument_index.len() {
        let index = columns.instrument_index[at] as usize;
        let entry = &columns.instruments[index];
        assert!(entry.venue.is_empty() && entry.symbol.is_empty(), "names come in definitions");
        let (venue, symbol) = names[&entry.instrument_id].clone();
        event += columns.event_time_unix_nano_delta[at];
        receive += columns.receive_time_unix_nano_delta[at];
        seq += columns.log_seq_delta[at];
        prices[index] += columns.price_mantissa[at];
        let quantity = columns.quantity.get(at).copied().unwrap_or(0);
        let action = columns.action.get(at).copied().unwrap_or(proto::Action::New.into());
        let cancels = action == i32::from(proto::Action::Cancel);
        ticks.push(proto::Tick {
            venue,
            symbol,
            instrument_id: entry.instrument_id,
            event_time: time(event),
            receive_time: time(receive),
            price: number(prices[index], entry.price_exponent).filter(|_| !cancels),
            quantity: quantity.checked_sub(1).and_then(|it| number(it.cast_signed(), entry.quantity_exponent)),
            side: columns.side.get(at).copied().unwrap_or(0),
            trade_id: columns.trade_id.get(at).cloned().unwrap_or_default(),
            log_seq: seq.cast_unsigned(),
            origin: columns.origin.get(at).copied().unwrap_or(proto::Origin::Live.into()),
            action,
        });
    }
    ticks
}

#[tokio::test(start_paused = true)]
async fn source_events_come_in_full() {
    let mut world = World::new(ROOMY).await;
    world.say(status("V", &["A", "B"], false)).await;
    let messages = replay(&service(&world), request(after(7, 0))).await;
    let told: Vec<_> = messages
        .iter()
        .filter_map(|message| match &message.event {
            Some(Event::SourceStatus(status)) => Some((Cursor::decode(&message.cursor).unwrap().position, status)),
            _ => None,
        })
        .collect();
    let [(1, status)] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((status.source.as_str(), status.venue.as_str(), status.log_seq), ("feed", "V", 1));
    assert_eq!((status.symbols.len(), status.state()), (2, proto::SourceState::Down));
    assert!(status.change_time.is_some());
}

/// The pieces of a stream until a position, as they leave for the wire.
async fn pieces_to(service: &LiveService, request: proto::SubscribeTicksRequest, position: u64) -> Vec<bytes::Bytes> {
    let mut stream = std::pin::pin!(
        super::subscribe_ticks::subscribe_ticks(service, request, Default::default()).await.ok().unwrap()
    );
    let mut pieces: Vec<bytes::Bytes> = Vec::new();
    loop {
        let reached = pieces.last().and_then(|piece| super::route::split(piece.clone()).pop());
        let cursor = reached.and_then(|message| Cursor::decode(&message.unwrap().cursor).ok());
        if cursor.is_some_and(|cursor| cursor.position >= position) {
            return pieces;
        }
        pieces.push(stream.next().await.unwrap().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_written_by_hand_is_what_prost_writes_and_readers_share_it() {
    let mut world = World::new(ROOMY).await;
    for _ in 0..60 {
        world.commit_anything().await;
    }
    // More than one message holds, in one commit.
    let many: Vec<(&str, &str, i64)> =
        (0..3_000).map(|number| ("V", ["A", "B", "C"][number % 3], number as i64)).collect();
    let head = world.publish(&many).await.position;
    let service = service(&world);
    let epoch = world.replica.tapes.get().hub.head().epoch.0;
    let selectors = [vec![selector("", "*")], vec![selector("V", "A")], vec![selector("V", "A"), selector("", "C")]];
    for encoding in [proto::Encoding::Rows, proto::Encoding::Columns] {
        for selectors in &selectors {
            for start in [0, 7, head - 1_500] {
                let wish = proto::SubscribeTicksRequest {
                    selectors: selectors.clone(),
                    encoding: encoding.into(),
                    include_backfill: true,
                    ..request(after(epoch, start))
                };
                let pieces = pieces_to(&service, wish.clone(), head).await;
                let mut last = start;
                for message in pieces.iter().flat_map(|piece| super::route::split(piece.clone())) {
                    let message = message.unwrap();
                    assert!(message.encoded_len() <= MAX_MESSAGE_BYTES);
                    let position = Cursor::decode(&message.cursor).unwrap().position;
                    assert!(position >= last, "cursors do not go back");
                    last = position;
                }
                // Every byte is one that prost writes for the same messages. Small pieces have filler besides.
                for piece in &pieces {
                    let mut written = Vec::new();
                    for message in super::route::split(piece.clone()) {
                        let message = message.unwrap();
                        written.push(0);
                        written.extend_from_slice(&(message.encoded_len() as u32).to_be_bytes());
                        message.encode(&mut written).unwrap();
                    }
                    if written.len() < 256 {
                        assert!((256..=258).contains(&piece.len()), "{}", piece.len());
                    } else {
                        assert_eq!(piece[..], written);
                    }
                }
                if start == 0 && selectors.len() == 1 && selectors[0].symbol == "*" {
                    let again = pieces_to(&service, wish, head).await;
                    let shared =
                        pieces.iter().filter(|piece| again.iter().any(|other| piece.as_ptr() == other.as_ptr()));
                    assert!(shared.count() > 0, "large blocks are the same memory for both readers");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_bars_is_granted_ends_bars_and_marks_intervals() {
    use proto::subscribe_bars_response::Event;
    let mut world = World::new(ROOMY).await;
    world.publish(&[("V", "A", 0)]).await;
    let service = service(&world);
    type Wish = proto::SubscribeBarsRequest;
    let ok = || Wish { selectors: vec![selector("V", "A")], interval: span(10, 0), ..Default::default() };
    for (field, wish) in [
        ("selectors", Wish { selectors: vec![], ..ok() }),
        ("interval", Wish { interval: None, ..ok() }),
        ("interval", Wish { interval: span(1, 5), ..ok() }),
        ("min_interval", Wish { min_interval: span(-1, 0), ..ok() }),
        ("heartbeat_interval", Wish { heartbeat_interval: span(-1, 0), ..ok() }),
        ("if_unavailable", Wish { if_unavailable: 9, ..ok() }),
        ("decimals", Wish { decimals: Some(37), ..ok() }),
    ] {
        let status = service.subscribe_bars(Request::new(wish)).await.err().expect("the call is refused");
        let details = status.get_error_details();
        let violated = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
        assert_eq!((status.code(), violated.as_deref()), (Code::InvalidArgument, Some(field)), "{field}");
    }

    let mut stream = service.subscribe_bars(Request::new(ok())).await.unwrap().into_inner();
    let mut next = async || stream.next().await.unwrap().unwrap();
    let Some(Event::Ack(ack)) = next().await.event else { panic!("no acknowledgement") };
    assert_eq!((ack.encoding, ack.delivery), (0, proto::Delivery::Lossless.into()));
    assert_eq!((ack.min_interval, ack.flush_window), (span(1, 0), span(0, 0)));
    assert_eq!(ack.selector_results[0].matched_count, 1);
    world.publish(&[("V", "A", 3)]).await;
    let end = world.publish(&[("V", "A", 12)]).await;
    let message = next().await;
    let Some(Event::Bars(batch)) = message.event else { panic!("{message:?}") };
    let [bar] = batch.bars.as_slice() else { panic!("{batch:?}") };
    assert_eq!((bar.venue.as_str(), bar.symbol.as_str(), bar.tick_count), ("V", "A", 2));
    assert_eq!((bar.state, bar.revision), (proto::BarState::Final.into(), 2));
    assert!(bar.open_price.is_some() && bar.close_time.is_some() && bar.vwap.is_some());
    let mark = next().await;
    let Some(Event::IntervalComplete(complete)) = mark.event else { panic!("{mark:?}") };
    assert_eq!((complete.start_time, complete.end_time), (bar.start_time, bar.end_time));
    assert_eq!(mark.cursor, bytes::Bytes::from(end));
}
