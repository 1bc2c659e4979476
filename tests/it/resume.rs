//! Subscribers that die and come back see exactly the log.
//!
//! Bare stubs, so that nothing filters: what the server sends is what is judged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::subscribe_ticks_request::Start;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_tests::checker::{Findings, Scope, Seen, judge};
use tapefeed_tests::values::{decimal, timestamp};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Options, Publisher, Server, Stubs, cut, within};
use tonic::Streaming;
use tonic::transport::Endpoint;

/// Ticks that flow.
const TICKS: u64 = 200_000;
/// Ticks of a batch at most.
const BATCH: u64 = 120;
/// How often the subscriber is killed.
const KILLS: u64 = 50;
/// How far publishers may be ahead of the subscriber that is killed, so that it dies while ticks flow.
const AHEAD: u64 = 6_000;
/// How long a message may take, on a busy machine.
const MESSAGE: Duration = Duration::from_secs(60);
/// What is traded: symbols on two venues.
const SYMBOLS: [&str; 5] = ["AAA", "BBB", "CCC", "DDD", "EEE"];
const VENUES: [&str; 2] = ["XONE", "XTWO"];

/// What all parts of the test know of each other.
#[derive(Debug, Default)]
struct Progress {
    published: AtomicU64,
    received: AtomicU64,
    /// The position of the last tick of all, once it is acknowledged.
    end: AtomicU64,
}

impl Progress {
    fn end(&self) -> Option<u64> {
        Some(self.end.load(Ordering::Acquire)).filter(|end| *end > 0)
    }
}

/// Publishes one half of the ticks, waiting for the subscriber that is killed.
async fn publish(stubs: Stubs, half: u64, progress: Arc<Progress>) -> Vec<proto::Tick> {
    let mut random = SmallRng::seed_from_u64(half);
    let mut publisher = Publisher::claim(&stubs, &format!("feed-{half}")).await.expect("granted");
    let mut sent = Vec::new();
    while (sent.len() as u64) < TICKS / 2 {
        while progress.published.load(Ordering::Relaxed) > progress.received.load(Ordering::Relaxed) + AHEAD {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let count = random.random_range(1..=BATCH).min(TICKS / 2 - sent.len() as u64);
        let now = now_unix_nano();
        let tick = |index: u64| proto::Tick {
            venue: VENUES[random.random_range(0..2)].to_owned(),
            symbol: SYMBOLS[random.random_range(0..SYMBOLS.len())].to_owned(),
            event_time: Some(timestamp(now - random.random_range(0..1_000_000_000))),
            price: Some(tapefeed_tests::exact::to_decimal(random.random_range(1..9_000_000) * 10_000_000)),
            quantity: random.random_bool(0.9).then(|| decimal("1.5")),
            side: random.random_range(0..3),
            trade_id: format!("{half}-{}", sent.len() as u64 + index),
            ..proto::Tick::default()
        };
        let ticks: Vec<proto::Tick> = (0..count).map(tick).collect();
        publisher.rows(ticks.clone()).await.expect("stored");
        sent.extend(ticks);
        progress.published.fetch_add(count, Ordering::Relaxed);
    }
    publisher.close().await.expect("all is acknowledged");
    sent
}

/// A subscriber over all its lives.
#[derive(Debug, Default)]
struct Record {
    seen: Vec<Seen>,
    cursor: Option<Vec<u8>>,
    /// The position that is delivered or claimed to be.
    reached: u64,
}

impl Record {
    async fn subscribe(
        &self,
        stubs: &Stubs,
        selectors: &[proto::Selector],
    ) -> Result<Streaming<proto::SubscribeTicksResponse>, tonic::Status> {
        let start = self.cursor.clone().map(|cursor| Start::Cursor(cursor.into()));
        let request = proto::SubscribeTicksRequest {
            selectors: selectors.to_vec(),
            start,
            heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..proto::SubscribeTicksRequest::default()
        };
        Ok(stubs.live.clone().subscribe_ticks(request).await?.into_inner())
    }

    /// Notes a message.
    fn note(&mut self, message: proto::SubscribeTicksResponse) -> usize {
        assert!(!message.cursor.is_empty());
        self.cursor = Some(message.cursor.to_vec());
        match message.event.expect("every message has an event") {
            Event::Rows(rows) => {
                let count = rows.ticks.len();
                for tick in rows.ticks {
                    self.reached = self.reached.max(tick.log_seq);
                    self.seen.push(Seen::Tick(tick));
                }
                return count;
            }
            Event::Progress(progress) => {
                self.reached = self.reached.max(progress.log_seq);
                self.seen.push(Seen::Complete(progress.log_seq));
            }
            Event::StreamGap(gap) => self.seen.push(Seen::Gap(gap.from_log_seq, gap.to_log_seq)),
            Event::Ack(_) | Event::ReplayCompleted(_) | Event::SlowConsumer(_) => (),
            other => panic!("{other:?} was not asked for"),
        }
        0
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// With the connection after this many bytes.
    AtByte(usize),
    /// With the whole runtime, its sockets and tasks, after this many ticks.
    AtTick(u64),
    /// Not before the end.
    Never,
}

/// One life of the subscriber that is killed, in a runtime of its own. Returns whether it was killed.
fn live(
    endpoint: Endpoint,
    mut record: Record,
    death: Death,
    progress: Arc<Progress>,
    came: Arc<AtomicBool>,
) -> (Record, bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let broke = Arc::new(AtomicBool::new(false));
    let bytes = if let Death::AtByte(bytes) = death { bytes } else { usize::MAX };
    let outcome = runtime.block_on(async {
        let channel = cut::connect(endpoint, bytes, broke.clone()).await.ok()?;
        let stubs = Stubs::over(channel);
        let mut stream = record.subscribe(&stubs, &everything()).await.ok()?;
        let mut left = if let Death::AtTick(ticks) = death { ticks } else { u64::MAX };
        loop {
            let message = within("a message", MESSAGE, stream.message()).await.ok()?;
            let count = record.note(message.expect("a subscription does not end with OK")) as u64;
            came.store(true, Ordering::Release);
            progress.received.fetch_add(count, Ordering::Relaxed);
            left = left.saturating_sub(count);
            // The stream is handed out alive, so that the runtime dies under it.
            if left == 0 || progress.end().is_some_and(|end| record.reached >= end) {
                return Some((stubs, stream, left == 0));
            }
        }
    });
    drop(runtime);
    let killed = outcome.as_ref().map_or(broke.load(Ordering::Relaxed), |(_, _, killed)| *killed);
    (record, killed)
}

fn everything() -> Vec<proto::Selector> {
    vec![tapefeed_tests::values::selector("*")]
}

/// A subscriber that lives on: reads until everything is delivered, with a pause after each message.
async fn follow(
    stubs: Stubs,
    selectors: Vec<proto::Selector>,
    pause: Duration,
    progress: Arc<Progress>,
    ready: tokio::sync::oneshot::Sender<()>,
) -> Record {
    let mut record = Record::default();
    let mut stream = record.subscribe(&stubs, &selectors).await.expect("granted");
    let mut ready = Some(ready);
    loop {
        let message = within("a message", MESSAGE, stream.message()).await.expect("the stream is open");
        record.note(message.expect("a subscription does not end with OK"));
        if let Some(ready) = ready.take() {
            let _ = ready.send(());
        }
        if progress.end().is_some_and(|end| record.reached >= end) {
            return record;
        }
        tokio::time::sleep(pause).await;
    }
}

/// The log by another door: every instrument's history, put in the order of the log.
async fn log(stubs: &Stubs) -> Vec<proto::Tick> {
    let mut all = Vec::new();
    for symbol in SYMBOLS {
        let mut request =
            proto::ListTicksRequest { symbol: symbol.to_owned(), page_size: 10_000, ..Default::default() };
        loop {
            let page = stubs.history.clone().list_ticks(request.clone()).await.expect("a page").into_inner();
            all.extend(page.ticks);
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
    }
    all.sort_by_key(|tick| tick.log_seq);
    all
}

/// Fifty deaths of a subscriber beside three that live.
pub(crate) async fn killed_subscriber(options: Options) {
    let server = Server::start(options).await;
    let progress = Arc::new(Progress::default());
    // The three beside it: one fast, one slow, one that wants little.
    let little: Vec<proto::Selector> = vec![
        proto::Selector { venue: VENUES[0].to_owned(), symbol: SYMBOLS[0].to_owned() },
        proto::Selector { venue: String::new(), symbol: SYMBOLS[1].to_owned() },
    ];
    let beside = [
        ("uninterrupted", everything(), Duration::ZERO),
        ("slow", everything(), Duration::from_millis(4)),
        ("filtered", little.clone(), Duration::ZERO),
    ];
    let mut others = Vec::new();
    for (name, selectors, pause) in beside {
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let follower = follow(server.stubs().await, selectors, pause, progress.clone(), ready);
        others.push((name, tokio::spawn(follower)));
        is_ready.await.expect("it subscribes");
    }
    // The first life begins before the first tick.
    let came = Arc::new(AtomicBool::new(false));
    let killer = tokio::spawn(kill(server.endpoint(), progress.clone(), came.clone()));
    while !came.load(Ordering::Acquire) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut halves = Vec::new();
    for half in 0..2 {
        halves.push(tokio::spawn(publish(server.stubs().await, half, progress.clone())));
    }
    let mut published = Vec::new();
    for half in halves {
        published.extend(half.await.expect("a publisher"));
    }
    assert_eq!(published.len() as u64, TICKS);
    progress.end.store(TICKS, Ordering::Release);
    let (record, kills, in_time) = killer.await.expect("the subscriber that is killed");
    let log = log(&server.stubs().await).await;
    assert_eq!(log.len() as u64, TICKS);
    let exactly = |record: &Record, wanted: &dyn Fn(&proto::Tick) -> bool| {
        let seen = record.seen.iter().filter_map(|seen| match seen {
            Seen::Tick(tick) => Some(tick),
            _ => None,
        });
        seen.eq(log.iter().filter(|tick| wanted(tick)))
    };
    println!("killed {kills} times, {in_time} of them before the last tick was published");
    report("killed", &judge(&published, &record.seen, Scope::Everything));
    assert!(exactly(&record, &|_| true), "the killed subscriber sees the log");
    for (name, other) in others {
        let record = other.await.expect("a subscriber");
        let selected = |tick: &proto::Tick| {
            let matches = |selector: &proto::Selector| {
                selector.symbol == tick.symbol && (selector.venue.is_empty() || selector.venue == tick.venue)
            };
            name != "filtered" || little.iter().any(matches)
        };
        let wanted: Vec<_> = published.iter().filter(|tick| selected(tick)).cloned().collect();
        let scope = if name == "filtered" { Scope::Some } else { Scope::Everything };
        report(name, &judge(&wanted, &record.seen, scope));
        assert!(exactly(&record, &selected), "the {name} subscriber sees the log");
    }
    assert_eq!(kills, KILLS);
    assert!(in_time >= 45, "{in_time} kills came before the last tick");
}

/// Kills and resumes the subscriber. Returns its record, how often it was killed, and how often of these while ticks
/// still flowed.
async fn kill(endpoint: Endpoint, progress: Arc<Progress>, came: Arc<AtomicBool>) -> (Record, u64, u64) {
    let mut random = SmallRng::seed_from_u64(50);
    let mut record = Record::default();
    let (mut kills, mut in_time, mut torn) = (0, 0, 0);
    while kills < KILLS {
        // About 3,000 ticks on average, so that 50 lives fit into all.
        let death = match kills % 2 {
            0 if kills > 0 => Death::AtByte(random.random_range(200..350_000)),
            _ => Death::AtTick(random.random_range(1..6_000)),
        };
        let (endpoint, progress_of_life, came) = (endpoint.clone(), progress.clone(), came.clone());
        let begun = record;
        let life = tokio::task::spawn_blocking(move || live(endpoint, begun, death, progress_of_life, came));
        let (next, killed) = life.await.expect("a life ends without a panic");
        record = next;
        kills += u64::from(killed);
        torn += u64::from(killed && matches!(death, Death::AtByte(_)));
        in_time += u64::from(killed && progress.published.load(Ordering::Relaxed) < TICKS);
        if progress.end().is_some_and(|end| record.reached >= end) {
            break;
        }
    }
    println!("{torn} of the kills at any byte, the others between two messages");
    let progress_of_life = progress.clone();
    let last = tokio::task::spawn_blocking(move || live(endpoint, record, Death::Never, progress_of_life, came));
    let (record, _) = last.await.expect("the last life ends at the end");
    (record, kills, in_time)
}

fn report(name: &str, findings: &Findings) {
    println!("{name:<14} {findings:?}");
    assert_eq!(*findings, Findings::default(), "{name}");
}
