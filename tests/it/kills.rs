//! The server killed again and again under load: nothing acknowledged is lost, nothing is stored twice or torn, and a
//! subscriber that comes back sees exactly the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::publish_batch::Content;
use tapefeed_proto::v1::subscribe_ticks_request::Start;
use tapefeed_proto::v1::subscribe_ticks_response::Event;
use tapefeed_tests::checker::{Findings, Scope, Seen, judge};
use tapefeed_tests::values::{decimal, selector, timestamp};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Options, Publisher, Server, Stubs};
use tonic::Status;
use tonic::transport::Endpoint;

/// How often the server is killed.
const KILLS: u32 = 20;
/// Producers at once.
const PRODUCERS: usize = 3;
/// Ticks that have to be acknowledged at least.
const TICKS: u64 = 50_000;
/// What is traded.
const SYMBOLS: [&str; 4] = ["AAA", "BBB", "CCC", "DDD"];
/// A server that was killed serves again within this time.
pub(crate) const RESTART: Duration = Duration::from_secs(5);

/// What one producer sent, by batch, and which batches were acknowledged.
#[derive(Debug, Default)]
struct Sent {
    batches: BTreeMap<u64, Vec<proto::Tick>>,
    acknowledged: Vec<u64>,
    /// The cursor of the last acknowledgement.
    cursor: bytes::Bytes,
}

/// A connection, as soon as there is one.
async fn connect(endpoint: &Endpoint) -> Stubs {
    loop {
        if let Ok(channel) = endpoint.connect().await {
            return Stubs::over(channel);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Publishes until told to stop, and then until all of it is acknowledged.
async fn publish(endpoint: Endpoint, number: usize, acknowledged: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> Sent {
    let mut random = SmallRng::seed_from_u64(number as u64);
    let mut sent = Sent::default();
    let mut pending: VecDeque<u64> = VecDeque::new();
    while !(stop.load(Ordering::Relaxed) && pending.is_empty()) {
        let stubs = connect(&endpoint).await;
        let Ok(mut publisher) = Publisher::claim(&stubs, &format!("producer-{number}")).await else { continue };
        while pending.front().is_some_and(|batch| *batch <= publisher.grant.last_batch_seq) {
            pending.pop_front();
        }
        for batch in &pending {
            publisher.send(*batch, rows(&sent.batches[batch])).await;
        }
        let ended: Status = loop {
            while pending.len() < 4 && !stop.load(Ordering::Relaxed) {
                let batch = sent.batches.len() as u64 + 1;
                let ticks = ticks(&mut random, number, batch);
                publisher.send(batch, rows(&ticks)).await;
                sent.batches.insert(batch, ticks);
                pending.push_back(batch);
            }
            let Some(next) = pending.front() else { return sent };
            match publisher.ack().await {
                Ok(ack) => {
                    let ack = ack.expect("we did not close");
                    assert_eq!(ack.batch_seq, *next);
                    sent.cursor = ack.cursor;
                }
                Err(status) => break status,
            }
            acknowledged.fetch_add(sent.batches[next].len() as u64, Ordering::Relaxed);
            sent.acknowledged.extend(pending.pop_front());
        };
        // The connection broke; a server that answers must not refuse.
        let broken = matches!(ended.code(), tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled);
        assert!(broken, "{ended:?}");
    }
    sent
}

fn rows(ticks: &[proto::Tick]) -> Content {
    Content::Rows(proto::TickBatch { ticks: ticks.to_vec(), merged_counts: Vec::new() })
}

fn ticks(random: &mut SmallRng, producer: usize, batch: u64) -> Vec<proto::Tick> {
    let now = now_unix_nano();
    let count = random.random_range(1..80);
    let tick = |index: usize| proto::Tick {
        venue: "XTST".to_owned(),
        symbol: SYMBOLS[random.random_range(0..SYMBOLS.len())].to_owned(),
        event_time: Some(timestamp(now - random.random_range(0..3_600_000_000_000))),
        price: Some(decimal(&format!("{}.{}7", random.random_range(1..900), index % 10))),
        trade_id: format!("{producer}-{batch}-{index}"),
        ..proto::Tick::default()
    };
    (0..count).map(tick).collect()
}

/// Subscribes to everything again and again until the whole log has come.
async fn follow(endpoint: Endpoint, first: proto::StartPosition, end: Arc<AtomicU64>) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut start = Start::Position(first);
    let mut reached = 0;
    loop {
        let stubs = connect(&endpoint).await;
        let request = proto::SubscribeTicksRequest {
            selectors: vec![selector("*")],
            start: Some(start.clone()),
            heartbeat_interval: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..proto::SubscribeTicksRequest::default()
        };
        let Ok(stream) = stubs.live.clone().subscribe_ticks(request).await else { continue };
        let mut stream = stream.into_inner();
        while let Ok(Some(message)) = stream.message().await {
            start = Start::Cursor(message.cursor);
            match message.event {
                Some(Event::Rows(rows)) => {
                    reached = rows.ticks.last().map_or(reached, |tick| tick.log_seq);
                    seen.extend(rows.ticks.into_iter().map(Seen::Tick));
                }
                Some(Event::Progress(progress)) => {
                    reached = reached.max(progress.log_seq);
                    seen.push(Seen::Complete(progress.log_seq));
                }
                Some(Event::StreamGap(gap)) => seen.push(Seen::Gap(gap.from_log_seq, gap.to_log_seq)),
                _ => (),
            }
            let end = end.load(Ordering::Acquire);
            if end > 0 && reached >= end {
                return seen;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_twenty_times_loses_tears_and_doubles_nothing() {
    killed(Options::serve(), kill_server, RESTART).await;
}

/// Kills the server and starts it again.
pub(crate) async fn kill_server(server: &mut Server) {
    server.kill9().await;
    server.restart().await;
}

/// Kills something again and again under load, over any store. Killing ends when the server serves again, within a time.
pub(crate) async fn killed(options: Options, mut kill: impl AsyncFnMut(&mut Server), restart: Duration) {
    let mut server = Server::start(options).await;
    let endpoint = server.endpoint();
    let window = proto::SubscribeTicksRequest { selectors: vec![selector("*")], ..Default::default() };
    let mut probe = server.stubs().await.live.subscribe_ticks(window).await.expect("granted").into_inner();
    let ack = probe.message().await.expect("open").and_then(|message| message.event);
    let Some(Event::Ack(ack)) = ack else { panic!("{ack:?} is not the acknowledgement") };
    let (acknowledged, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let end = Arc::new(AtomicU64::new(0));
    let first = proto::StartPosition { epoch: ack.epoch, log_seq: 0 };
    let follower = tokio::spawn(follow(endpoint.clone(), first, end.clone()));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|number| tokio::spawn(publish(endpoint.clone(), number, acknowledged.clone(), stop.clone())))
        .collect();
    let mut random = SmallRng::seed_from_u64(20);
    let mut slowest = Duration::ZERO;
    for number in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(random.random_range(50..600))).await;
        let begin = Instant::now();
        kill(&mut server).await;
        slowest = slowest.max(begin.elapsed());
        // Every life has to have done something before it ends.
        let before = acknowledged.load(Ordering::Relaxed);
        while acknowledged.load(Ordering::Relaxed) == before && number + 1 < KILLS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    while acknowledged.load(Ordering::Relaxed) < TICKS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    for producer in producers {
        sent.push(producer.await.expect("a producer"));
    }
    let stubs = server.stubs().await;
    for sent in &sent {
        // What was acknowledged is asked for by its cursor: an answer need not show it before.
        let request = proto::ListInstrumentsRequest { min_cursor: sent.cursor.clone(), ..Default::default() };
        stubs.instruments.clone().list_instruments(request).await.expect("the cursor is reached");
    }
    let log = log(&stubs).await;
    end.store(log.len() as u64, Ordering::Release);
    let seen = follower.await.expect("the subscriber");
    let indeterminate = check(&log, &sent);
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    println!(
        "{KILLS} kills, serving again after at most {slowest:?}; {acknowledged} ticks acknowledged, {} stored, \
         {indeterminate} batches stored whose acknowledgement was lost",
        log.len()
    );
    assert!(slowest < restart, "{slowest:?}");
    let findings = judge(&log, &seen, Scope::Everything);
    println!("subscriber: {findings:?}");
    assert_eq!(findings, Findings::default());
}

/// Everything stored, in the order of the log.
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

/// Every batch is stored once and whole, in its producer's order. Returns how many were never acknowledged.
fn check(log: &[proto::Tick], sent: &[Sent]) -> usize {
    let mut stored: Vec<Vec<u64>> = vec![Vec::new(); sent.len()];
    let mut at = 0;
    while at < log.len() {
        assert_eq!(log[at].log_seq, at as u64 + 1, "the log is dense");
        let mut parts = log[at].trade_id.split('-').map(|part| part.parse::<u64>().expect("ids are ours"));
        let (Some(producer), Some(batch)) = (parts.next(), parts.next()) else { panic!("ids have three parts") };
        let ticks = &sent[producer as usize].batches[&batch];
        let found = log.get(at..at + ticks.len()).unwrap_or_default();
        let same = |(found, sent): (&proto::Tick, &proto::Tick)| tapefeed_tests::checker::same_content(sent, found);
        assert!(found.len() == ticks.len() && found.iter().zip(ticks).all(same), "batch {batch} of {producer} is torn");
        stored[producer as usize].push(batch);
        at += ticks.len();
    }
    let mut indeterminate = 0;
    for (stored, sent) in stored.iter().zip(sent) {
        let expected: Vec<u64> = sent.batches.keys().copied().collect();
        assert_eq!(*stored, expected, "each once and in order");
        indeterminate += stored.len() - sent.acknowledged.len();
    }
    indeterminate
}
