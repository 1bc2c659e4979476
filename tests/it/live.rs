//! SubscribeTicks on bare stubs: how a stream starts, what it promises, and what is refused.

mod slow;

use std::time::{Duration, Instant};

use prost_types::Duration as Span;
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::subscribe_ticks_request::Start;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::values::{selector, tick};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Options, Publisher, Server, Stubs, eventually, within};
use tonic::{Code, Status, Streaming};

/// How long a message may take, on a busy machine.
const MESSAGE: Duration = Duration::from_secs(30);

/// A subscription, and what it was told.
pub(crate) struct Subscription {
    stream: Streaming<proto::SubscribeTicksResponse>,
    pub(crate) ack: proto::SubscriptionAck,
    /// The cursor of the last message.
    pub(crate) cursor: Vec<u8>,
}

pub(crate) fn request(symbol: &str, start: Option<Start>) -> proto::SubscribeTicksRequest {
    proto::SubscribeTicksRequest {
        selectors: vec![selector(symbol)],
        start,
        heartbeat_interval: Some(Span { seconds: 1, nanos: 0 }),
        ..proto::SubscribeTicksRequest::default()
    }
}

pub(crate) fn after(cursor: &[u8]) -> Option<Start> {
    Some(Start::Cursor(cursor.to_vec().into()))
}

impl Subscription {
    pub(crate) async fn open(stubs: &Stubs, request: proto::SubscribeTicksRequest) -> Result<Self, Status> {
        let mut live = stubs.live.clone();
        let mut stream = within("a subscription", MESSAGE, live.subscribe_ticks(request)).await?.into_inner();
        let first = within("the acknowledgement", MESSAGE, stream.message()).await?;
        let first = first.expect("a subscription does not end with OK");
        let Some(Event::Ack(ack)) = first.event else { panic!("the first event is {:?}", first.event) };
        let cursor = first.cursor.to_vec();
        Ok(Self { stream, ack, cursor })
    }

    pub(crate) async fn event(&mut self) -> Event {
        self.next().await.expect("the stream is open")
    }

    /// The next event, or how the stream ended.
    pub(crate) async fn next(&mut self) -> Result<Event, Status> {
        let message = within("a message", MESSAGE, self.stream.message()).await?;
        let message = message.expect("a subscription does not end with OK");
        assert!(!message.cursor.is_empty() && message.cursor.len() <= 20);
        self.cursor = message.cursor.to_vec();
        Ok(message.event.expect("every message has an event"))
    }

    /// The next ticks, at least so many.
    pub(crate) async fn ticks(&mut self, count: usize) -> Vec<proto::Tick> {
        let mut ticks = Vec::new();
        while ticks.len() < count {
            if let Event::Rows(rows) = self.event().await {
                assert!(!rows.ticks.is_empty());
                ticks.extend(rows.ticks);
            }
        }
        ticks
    }

    /// The next Progress.
    pub(crate) async fn progress(&mut self) -> proto::Progress {
        loop {
            if let Event::Progress(progress) = self.event().await {
                return progress;
            }
        }
    }
}

pub(crate) fn trades(symbol: &str, ids: std::ops::Range<usize>) -> Vec<proto::Tick> {
    let now = now_unix_nano();
    let trade = |id: usize| proto::Tick { trade_id: id.to_string(), ..tick("XTST", symbol, now, "10.5") };
    ids.map(trade).collect()
}

pub(crate) fn ids(ticks: &[proto::Tick]) -> Vec<usize> {
    let id = |tick: &proto::Tick| tick.trade_id.parse().expect("ids are numbers");
    ticks.iter().map(id).collect()
}

pub(crate) fn positions(ticks: &[proto::Tick]) -> Vec<u64> {
    ticks.iter().map(|tick| tick.log_seq).collect()
}

#[tokio::test]
async fn the_acknowledgement_comes_first_and_at_once() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let begin = Instant::now();
    let mut wish = request("*", None);
    wish.selectors.push(selector("NONE"));
    wish.flush_window = Some(Span { seconds: 3, nanos: 0 });
    let empty = Subscription::open(&stubs, wish).await.expect("granted");
    assert!(begin.elapsed() < Duration::from_secs(5), "nothing to wait for");
    let ack = &empty.ack;
    assert!(!ack.stream_id.is_empty() && ack.stream_id.len() <= 64);
    assert!(!ack.server_name.is_empty() && ack.server_name.len() <= 64);
    assert_eq!((ack.head_log_seq, ack.oldest_log_seq), (0, 0), "the log is empty");
    assert_ne!(ack.epoch, 0);
    assert_eq!(ack.heartbeat_interval.map(|span| span.seconds), Some(1));
    let longest = Span { seconds: 0, nanos: 10_000_000 };
    assert_eq!(ack.flush_window, Some(longest), "longer counts as 10 ms");
    assert_eq!(ack.delivery(), proto::Delivery::Lossless);
    assert_eq!(ack.encoding(), proto::Encoding::Rows);
    assert_eq!(ack.selector_results.len(), 2);
    for (result, symbol) in ack.selector_results.iter().zip(["*", "NONE"]) {
        assert_eq!(result.selector, Some(selector(symbol)));
        assert_eq!((result.matched_count, result.status()), (0, proto::SelectorStatus::Unknown));
    }
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    publisher.rows(trades("A", 1..4)).await.expect("stored");
    let filled = Subscription::open(&stubs, request("A", None)).await.expect("granted");
    let ack = &filled.ack;
    assert_eq!((ack.head_log_seq, ack.oldest_log_seq), (3, 1));
    assert_eq!(ack.epoch, empty.ack.epoch);
    let result = &ack.selector_results[0];
    assert_eq!((result.matched_count, result.status()), (1, proto::SelectorStatus::Matched));
}

#[tokio::test]
async fn heartbeats_are_brought_into_their_bounds() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    for (asked, granted) in [(None, 5), (Some(0), 1), (Some(7), 7), (Some(3_600), 60)] {
        let wish = proto::SubscribeTicksRequest {
            heartbeat_interval: asked.map(|seconds| Span { seconds, nanos: 0 }),
            ..request("*", None)
        };
        let opened = Subscription::open(&stubs, wish).await.expect("granted");
        let heartbeat = opened.ack.heartbeat_interval.map(|span| span.seconds);
        assert_eq!(heartbeat, Some(granted), "asked for {asked:?}");
    }
}

/// Live, from the beginning, after a cursor, from a time, and by a snapshot.
pub(crate) async fn starts(options: Options) {
    let server = Server::start(options).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let first = publisher.rows(trades("A", 1..6)).await.expect("stored");
    publisher.rows(trades("B", 6..11)).await.expect("stored");
    let mut live = Subscription::open(&stubs, request("*", None)).await.expect("granted");
    let epoch = live.ack.epoch;
    let position = |log_seq| Some(Start::Position(proto::StartPosition { epoch, log_seq }));
    let mut from_cursor = Subscription::open(&stubs, request("*", after(&first.cursor))).await.expect("granted");
    let mut from_middle = Subscription::open(&stubs, request("*", position(3))).await.expect("granted");
    let mut from_zero = Subscription::open(&stubs, request("*", position(0))).await.expect("granted");
    publisher.rows(trades("A", 11..14)).await.expect("stored");
    assert_eq!(ids(&live.ticks(3).await), [11, 12, 13]);
    for (stream, first) in [(&mut from_cursor, 6), (&mut from_middle, 4), (&mut from_zero, 1)] {
        let mut came = Vec::new();
        let mut boundary = None;
        while came.len() < 14 - first {
            match stream.event().await {
                Event::Rows(rows) => came.extend(rows.ticks),
                Event::ReplayCompleted(replay) => {
                    assert!(boundary.replace((replay.log_seq, came.len())).is_none(), "once");
                }
                Event::Progress(_) => (),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ids(&came), (first..14).collect::<Vec<_>>());
        assert_eq!(positions(&came), (first as u64..14).collect::<Vec<_>>());
        // What was stored when the stream began lies before the boundary, all else behind it.
        assert_eq!(boundary, Some((10, 11 - first)));
    }
    // A cursor inside a batch: every message's cursor is a resume point.
    let again = after(&from_cursor.cursor);
    let mut resumed = Subscription::open(&stubs, request("*", again)).await.expect("granted");
    publisher.rows(trades("B", 14..15)).await.expect("stored");
    assert_eq!(ids(&resumed.ticks(1).await), [14]);
}

#[tokio::test]
async fn progress_comes_on_time_and_says_what_is_complete() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut all = Subscription::open(&stubs, request("*", None)).await.expect("granted");
    let mut none = Subscription::open(&stubs, request("OTHER", None)).await.expect("granted");
    let begin = Instant::now();
    for _ in 0..3 {
        assert_eq!(all.progress().await.log_seq, 0);
    }
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(15), "{took:?}");
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    publisher.rows(trades("A", 1..8)).await.expect("stored");
    // A subscription that wants none of it still moves on.
    while none.progress().await.log_seq < 7 {}
    let progress = loop {
        let progress = all.progress().await;
        if progress.log_seq == 7 {
            break progress;
        }
    };
    let told = progress.server_time.expect("always set");
    let ahead = tapefeed_tests::values::unix_nano(&told) - now_unix_nano();
    assert!(ahead.abs() < 60_000_000_000, "the server's clock is {ahead} ns off");
    // Its cursor resumes after everything that it says is complete.
    let again = after(&none.cursor);
    let mut resumed = Subscription::open(&stubs, request("*", again)).await.expect("granted");
    publisher.rows(trades("A", 8..9)).await.expect("stored");
    assert_eq!(ids(&resumed.ticks(1).await), [8]);
}

#[tokio::test]
async fn instruments_created_later_join_a_running_stream() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut exact = Subscription::open(&stubs, request("LATER", None)).await.expect("granted");
    let mut all = Subscription::open(&stubs, request("*", None)).await.expect("granted");
    let mut on_venue = request("*", None);
    on_venue.selectors[0].venue = "XTST".to_owned();
    let mut on_venue = Subscription::open(&stubs, on_venue).await.expect("granted");
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let mut batch = trades("OTHER", 0..1);
    batch.extend(trades("LATER", 1..3));
    batch.push(proto::Tick { venue: "XALT".to_owned(), ..trades("LATER", 3..4).remove(0) });
    publisher.rows(batch).await.expect("stored");
    assert_eq!(ids(&exact.ticks(3).await), [1, 2, 3]);
    assert_eq!(ids(&on_venue.ticks(3).await), [0, 1, 2]);
    let told = all.ticks(4).await;
    assert_eq!(ids(&told), [0, 1, 2, 3]);
    for tick in &told {
        assert!(tick.instrument_id > 0 && tick.receive_time.is_some());
        assert_eq!((tick.origin(), tick.action()), (proto::Origin::Live, proto::Action::New));
    }
}

/// A cursor, a kill, and the rest.
pub(crate) async fn resumes(options: Options) {
    let mut server = Server::start(options).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let mut stream = Subscription::open(&stubs, request("*", None)).await.expect("granted");
    publisher.rows(trades("A", 1..4)).await.expect("stored");
    assert_eq!(stream.ticks(3).await.len(), 3);
    publisher.rows(trades("A", 4..6)).await.expect("stored");
    server.kill9().await;
    server.restart().await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let again = after(&stream.cursor);
    let mut resumed = Subscription::open(&stubs, request("*", again)).await.expect("granted");
    publisher.rows(trades("A", 6..8)).await.expect("stored");
    let told = resumed.ticks(4).await;
    assert_eq!(ids(&told), [4, 5, 6, 7]);
    assert_eq!(positions(&told), [4, 5, 6, 7]);
    assert_eq!(resumed.ack.epoch, stream.ack.epoch, "nothing was lost, so the log keeps its name");
}

#[tokio::test]
async fn a_reader_that_lags_goes_on_from_the_log_and_misses_nothing() {
    /// More than the hub keeps in memory, so that the rest has to come from the log.
    const BATCHES: usize = 70;
    const BATCH: usize = 15_000;
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut slow = Subscription::open(&server.stubs().await, request("*", None)).await.expect("granted");
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    for batch in 0..BATCHES {
        publisher.rows(trades("A", batch * BATCH..(batch + 1) * BATCH)).await.expect("stored");
    }
    let (mut next, mut notices) = (0, Vec::new());
    while next < BATCHES * BATCH {
        match slow.event().await {
            Event::Rows(rows) => {
                for tick in rows.ticks {
                    assert_eq!((tick.log_seq, tick.trade_id), (next as u64 + 1, next.to_string()));
                    next += 1;
                }
            }
            Event::SlowConsumer(notice) => notices.push(notice.catching_up),
            Event::Progress(progress) => assert_eq!(progress.log_seq, next as u64),
            other => panic!("{other:?}"),
        }
    }
    println!("{next} ticks, all of them; catching up began and ended: {notices:?}");
    assert!(notices.iter().enumerate().all(|(index, began)| *began == (index % 2 == 0)));
    assert!(!notices.is_empty(), "the reader was behind and was told so");
}

#[tokio::test]
async fn positions_that_cannot_be_resumed_are_refused_with_the_reason() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let ack = publisher.rows(trades("A", 1..4)).await.expect("stored");
    let granted = Subscription::open(&stubs, request("*", after(&ack.cursor))).await.expect("granted");
    let epoch = granted.ack.epoch;
    let mut flipped = ack.cursor.to_vec();
    flipped[12] ^= 1;
    for broken in [Vec::new(), vec![1; 7], vec![9; 20], vec![0; 64], flipped] {
        let refused = Subscription::open(&stubs, request("*", after(&broken))).await;
        let refusal = Refusal::of(&refused.err().expect("no cursor"));
        refusal.assert(Code::InvalidArgument, "CURSOR_INVALID", &[]);
    }
    let other = Server::start(Options::serve()).await;
    let foreign = other.stubs().await;
    let mut elsewhere = Publisher::claim(&foreign, "feed").await.expect("granted");
    let of_other = elsewhere.rows(trades("A", 1..4)).await.expect("stored").cursor;
    let ahead = proto::StartPosition { epoch, log_seq: 4 };
    for start in [after(&of_other), Some(Start::Position(ahead))] {
        let refused = Subscription::open(&stubs, request("*", start)).await;
        let refusal = Refusal::of(&refused.err().expect("not of this log"));
        let facts = ["epoch", "oldest_cursor", "newest_cursor"];
        refusal.assert(Code::FailedPrecondition, "EPOCH_CHANGED", &facts);
        assert_eq!(refusal.metadata["epoch"], epoch.to_string());
    }
}

/// A log that is kept shortly.
pub(crate) async fn expiry(options: Options) {
    let options = options.argument("--log-retention=1s").argument("--compact-age=100ms");
    let server = Server::start(options).await;
    let stubs = server.stubs().await;
    let mut publisher = Publisher::claim(&stubs, "feed").await.expect("granted");
    let old = publisher.rows(trades("A", 1..4)).await.expect("stored");
    publisher.rows(trades("A", 4..7)).await.expect("stored");
    // The sweep comes once a minute.
    let status = eventually("the old cursor expires", Duration::from_secs(150), || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Subscription::open(&stubs, request("*", after(&old.cursor))).await.err()
    })
    .await;
    let refusal = Refusal::of(&status);
    refusal.assert(Code::OutOfRange, "CURSOR_EXPIRED", &["oldest_cursor", "oldest_log_seq"]);
    let oldest: u64 = refusal.metadata["oldest_log_seq"].parse().expect("a position");
    assert!(oldest > 4, "{oldest}");
    // History is not forgotten with the log.
    let request = proto::GetInstrumentRequest {
        venue: "XTST".to_owned(),
        symbol: "A".to_owned(),
        ..proto::GetInstrumentRequest::default()
    };
    let known = stubs.instruments.clone().get_instrument(request).await.expect("known").into_inner();
    assert_eq!(known.instrument.map(|instrument| instrument.tick_count), Some(6));
}

#[tokio::test]
async fn wishes_that_contradict_themselves_are_refused() {
    let server = Server::start(Options::serve()).await;
    let stubs = server.stubs().await;
    let span = |seconds| Some(Span { seconds, nanos: 0 });
    let cases: &[fn(&mut proto::SubscribeTicksRequest)] = &[
        |wish| wish.selectors.clear(),
        |wish| wish.selectors[0].symbol = String::new(),
        |wish| wish.selectors[0].venue = "no venue".to_owned(),
    ];
    let mut wishes: Vec<_> = cases
        .iter()
        .map(|change| {
            let mut wish = request("*", None);
            change(&mut wish);
            wish
        })
        .collect();
    wishes.push(proto::SubscribeTicksRequest { heartbeat_interval: span(-1), ..request("*", None) });
    wishes.push(proto::SubscribeTicksRequest { flush_window: span(-1), ..request("*", None) });
    // Only conflated streams have rounds.
    wishes.push(proto::SubscribeTicksRequest { min_interval: span(1), ..request("*", None) });
    for wish in wishes {
        let refused = Subscription::open(&stubs, wish.clone()).await;
        let refusal = Refusal::of(&refused.err().unwrap_or_else(|| panic!("granted: {wish:?}")));
        refusal.assert(Code::InvalidArgument, "FIELD_INVALID", &[]);
    }
}
