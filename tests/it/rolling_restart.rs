//! Three replicas restarted one after another under load, with clients that know all of them and clients that know one:
//! no gap, no repeat, and nobody waits long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tapefeed_client::{Client, Event, NewTick, Subscription, UnixNanos};
use tapefeed_tests::combination::urls;
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Combination, Server, eventually, within};

/// How long a client may hear nothing while ticks flow.
const SILENCE: Duration = Duration::from_secs(3);
/// Producers, each with batches of its own rhythm.
const PRODUCERS: u64 = 3;
/// Subscribers of everything that know all replicas; as many know one each, and come back to it.
const SUBSCRIBERS: usize = 3;
/// Ticks of a batch.
const BATCH: u64 = 5;
/// How long a producer waits before its next batch.
const RHYTHM: Duration = Duration::from_millis(20);
/// How long the load runs before the first restart, between restarts, and after the last.
const STEADY: Duration = Duration::from_secs(2);

/// What a producer did.
#[derive(Debug, Default)]
struct Published {
    ticks: u64,
    resent: u64,
    moves: u64,
    longest: Duration,
}

/// Publishes in its rhythm until told to stop. Each batch waits for its acknowledgement, so the longest of them is how
/// long the producer stood still.
async fn publish(client: Client, number: u64, stop: Arc<AtomicBool>) -> Published {
    let publisher = client.publisher(format!("rolling-{number}")).start().await.expect("granted");
    let mut published = Published::default();
    while !stop.load(Ordering::Relaxed) {
        let tick = |index: u64| {
            NewTick::new("XTST", format!("R{number}"), UnixNanos(now_unix_nano()), "1.25".parse().expect("a decimal"))
                .trade_id(format!("{number}-{}", published.ticks + index))
        };
        let begin = Instant::now();
        publisher.publish_batch((0..BATCH).map(tick).collect()).await.expect("stored, here or there");
        published.longest = published.longest.max(begin.elapsed());
        published.ticks += BATCH;
        tokio::time::sleep(RHYTHM).await;
    }
    let status = publisher.status();
    assert_eq!((status.pending_ticks, status.refused_batches, status.forgotten_batches), (0, 0, 0));
    published.resent = status.duplicate_batches;
    published.moves = status.reconnects;
    published
}

/// What a subscriber saw.
#[derive(Debug)]
struct Heard {
    positions: Vec<u64>,
    ids: Vec<String>,
    longest: Duration,
    cuts: u32,
    doubled: u64,
    others: Vec<String>,
}

/// Follows the log from its beginning until `end`, which is 0 while nobody knows it.
async fn follow(client: Client, epoch: u64, end: Arc<AtomicU64>, ready: tokio::sync::oneshot::Sender<()>) -> Heard {
    let wish = Subscription::new().after_position(epoch, 0).heartbeat_interval(Duration::from_secs(1));
    let mut stream = client.subscribe(wish);
    let mut heard = Heard {
        positions: Vec::new(),
        ids: Vec::new(),
        longest: Duration::ZERO,
        cuts: 0,
        doubled: 0,
        others: Vec::new(),
    };
    let (mut ready, mut last) = (Some(ready), None::<Instant>);
    loop {
        let event = within("an event", Duration::from_secs(30), stream.next()).await;
        match event.expect("it goes on").expect("nothing is refused") {
            Event::Ticks { ticks, .. } => {
                // Only ticks count: a server that sends heartbeats alone while ticks flow is silent.
                let now = Instant::now();
                heard.longest = heard.longest.max(last.map_or(Duration::ZERO, |last| now - last));
                last = Some(now);
                heard.positions.extend(ticks.iter().map(|tick| tick.log_seq));
                heard.ids.extend(ticks.into_iter().map(|tick| tick.trade_id));
            }
            Event::Disconnected { .. } => heard.cuts += 1,
            Event::Ack(_) => {
                ready.take().map(|ready| ready.send(()));
            }
            Event::Progress { .. } | Event::Reconnected { .. } | Event::ReplayCompleted { .. } => {}
            other => heard.others.push(format!("{other:?}")),
        }
        let end = end.load(Ordering::Acquire);
        if end > 0 && heard.positions.last().is_some_and(|last| *last >= end) {
            heard.doubled = stream.duplicates_dropped();
            return heard;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_restarted_under_load_leave_no_gap_no_repeat_and_no_long_silence() {
    let Some(ground) = Combination::PostgresRedis.prepare().await else { return };
    let mut servers: [Server; 3] = ground.servers(&[]).await;
    let urls = urls(&servers);
    let client = || Client::lazy(&urls).expect("addresses");
    let alone = |number: usize| Client::lazy(servers[number].url()).expect("an address");
    let epoch = client().replay_window().await.expect("a window").epoch;
    let (stop, end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut subscribers = Vec::new();
    for number in 0..2 * SUBSCRIBERS {
        let client = if number < SUBSCRIBERS { client() } else { alone(number - SUBSCRIBERS) };
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        subscribers.push(tokio::spawn(follow(client, epoch, end.clone(), ready)));
        is_ready.await.expect("it subscribes");
    }
    let producers: Vec<_> =
        (0..PRODUCERS).map(|number| tokio::spawn(publish(client(), number, stop.clone()))).collect();
    tokio::time::sleep(STEADY).await;
    for server in &mut servers {
        let begin = Instant::now();
        assert!(server.terminate().await.success());
        let ended = begin.elapsed();
        server.restart().await;
        println!("{}: ended after {ended:?}, served again after {:?}", server.url(), begin.elapsed());
        tokio::time::sleep(STEADY).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (mut ticks, mut moves) = (0, 0);
    for producer in producers {
        let published = within("a producer's end", Duration::from_secs(30), producer).await.expect("a producer");
        println!("{published:?}");
        assert!(published.longest <= SILENCE, "a producer stood still: {published:?}");
        ticks += published.ticks;
        moves += published.moves;
    }
    end.store(ticks, Ordering::Release);
    // The end is told to those who wait for a message by one more tick.
    let last = client().publisher("rolling-end").start().await.expect("granted");
    let tick = NewTick::new("XTST", "END", UnixNanos(now_unix_nano()), "1".parse().expect("a decimal"));
    last.publish_batch(vec![tick.trade_id("end")]).await.expect("stored");
    let mut cuts = 0;
    let mut first: Option<Vec<String>> = None;
    for subscriber in subscribers {
        let mut heard = within("a subscriber's end", Duration::from_secs(30), subscriber).await.expect("a subscriber");
        println!("cut {} times, silent for at most {:?}, {} sent twice", heard.cuts, heard.longest, heard.doubled);
        assert_eq!(heard.others, Vec::<String>::new(), "no gap and no lag was told");
        heard.positions.truncate(ticks as usize);
        heard.ids.truncate(ticks as usize);
        assert!(heard.positions.iter().copied().eq(1..=ticks), "every position once, in order");
        assert_eq!(heard.doubled, 0, "nor was anything sent twice and dropped by the client");
        assert!(heard.longest <= SILENCE, "silent for {:?}", heard.longest);
        cuts += heard.cuts;
        let same = first.get_or_insert_with(|| heard.ids.clone());
        assert!(*same == heard.ids, "all saw the same");
    }
    let mut ids = first.expect("there are subscribers");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len() as u64, ticks, "every tick that was acknowledged, and each once");
    // Each replica had somebody who had to move.
    assert!(cuts >= 2 * SUBSCRIBERS as u32 && moves >= PRODUCERS, "{cuts} cuts, {moves} moves");
    eventually("all replicas serve", Duration::from_secs(5), async || {
        for server in &servers {
            if !server.is_serving().await {
                return None;
            }
        }
        Some(())
    })
    .await;
}
