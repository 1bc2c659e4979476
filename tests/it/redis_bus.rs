//! The Redis bus against a real Redis that is killed, emptied, frozen and lied to. Nothing is lost at the hubs, which
//! read the store meanwhile, and the bus is back within three seconds of Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tapefeed_server::bus::redis::latest::{LatestPrice, Written};
use tapefeed_server::bus::redis::{LatestPrices, STREAM_BYTES};
use tapefeed_server::bus::{Announcement, Bus as _, ManifestNews, RedisBus, RedisUrl};
use tapefeed_server::domain::segment::Entries;
use tapefeed_server::domain::{Block, Epoch, UnixNanos};
use tapefeed_server::live::Start;
use tapefeed_server::replica::{Parts, Replica};
use tapefeed_server::tape::compactor::Policy;
use tapefeed_tests::http;
use tapefeed_tests::redis_server::{PASSWORD, RedisServer};
use tapefeed_tests::server::{Options, Server};
use tokio::sync::broadcast;
use tokio::time::timeout;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::replicas::world::{Heard, PATIENCE, Source, World, follow, view_at};

/// How soon the bus must carry again once Redis is back.
const BACK: Duration = Duration::from_secs(3);

struct End {
    bus: Arc<RedisBus>,
    replica: Replica,
}

async fn end(world: &mut World, redis: &RedisServer, number: u64) -> End {
    let url = RedisUrl::new(redis.url());
    let bus = Arc::new(RedisBus::start(&url, number, number).expect("the address is one"));
    let replica = world.replica_with(Arc::new(world.store.reopen()), bus.clone()).await;
    End { bus, replica }
}

/// Publishes until the other end's bus brings a block; how long that took. Nothing may be missing at its hub meanwhile.
async fn until_carried(from: &End, source: &mut Source, to: &mut broadcast::Receiver<Announcement>) -> Duration {
    let begin = Instant::now();
    loop {
        while to.try_recv().is_ok() {}
        let sent = source.publish(&from.replica, "AAPL", 3).await.expect("Redis is no part of writing");
        let heard = timeout(Duration::from_millis(50), async {
            loop {
                match to.recv().await {
                    Ok(Announcement { last_seq, block: Some(_), .. }) if last_seq == sent.cursor.position => return,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => (),
                    Err(broadcast::error::RecvError::Closed) => panic!("the bus lives"),
                }
            }
        });
        if heard.await.is_ok() {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < PATIENCE, "the bus does not come back");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_redis_hubs_miss_nothing_and_the_bus_comes_back() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let mut world = World::new(31);
    let (a, b) = (end(&mut world, &redis, 1).await, end(&mut world, &redis, 2).await);
    let mut announcements = b.bus.subscribe();
    let mut session = follow(&b.replica, Start::Live).await;
    let mut source = Source::claim(&world, &a.replica, "p").await;
    println!("first: {:?}", until_carried(&a, &mut source, &mut announcements).await);
    let key = format!("tapefeed:log:{}", a.replica.tapes.get().epoch);
    let mut heard = Heard::default();

    for fault in ["kill", "flush", "freeze", "client kill", "wrong type", "garbage", "oversized"] {
        let down = match fault {
            "kill" => {
                redis.kill().await;
                wait_down(&b.bus).await;
                let took = source.publish(&a.replica, "AAPL", 2).await.expect("Redis is no part of writing");
                assert!(heard.until(&b.replica, &mut session, took.cursor.position).await.is_none());
                redis.run().await;
                true
            }
            "freeze" => {
                redis.freeze(true).await;
                let begin = Instant::now();
                wait_down(&b.bus).await;
                wait_down(&a.bus).await;
                assert!(begin.elapsed() < Duration::from_secs(3), "a frozen Redis is noticed: {:?}", begin.elapsed());
                for _ in 0..600 {
                    source.publish(&a.replica, "AAPL", 1).await.expect("Redis is no part of writing");
                }
                assert!(a.bus.state().dropped > 0, "the queue is bounded, and what it drops is counted");
                redis.freeze(false).await;
                true
            }
            _ => {
                let mut own = redis.connect().await.expect("Redis is there");
                match fault {
                    "flush" => redis::cmd("FLUSHALL").exec_async(&mut own).await,
                    "client kill" => {
                        redis::cmd("CLIENT")
                            .arg("KILL")
                            .arg("TYPE")
                            .arg("normal")
                            .arg("SKIPME")
                            .arg("yes")
                            .exec_async(&mut own)
                            .await
                    }
                    "wrong type" => {
                        redis::cmd("SET").arg(&key).arg("no stream").exec_async(&mut own).await.expect("it is set");
                        source.publish(&a.replica, "AAPL", 1).await.expect("Redis is no part of writing");
                        wait_down(&a.bus).await;
                        let problem = a.bus.state().problem.expect("it is down");
                        assert!(problem.contains("WRONGTYPE"), "{problem}");
                        redis::cmd("DEL").arg(&key).exec_async(&mut own).await
                    }
                    "garbage" => {
                        for field in ["m", "x"] {
                            let mut add = redis::cmd("XADD");
                            add.arg(&key)
                                .arg("*")
                                .arg(field)
                                .arg("no announcement")
                                .exec_async(&mut own)
                                .await
                                .expect("added");
                        }
                        Ok(())
                    }
                    _ => {
                        let mut add = redis::cmd("XADD");
                        add.arg(&key).arg("*").arg("m").arg(vec![7u8; 10 << 20]).exec_async(&mut own).await
                    }
                }
                .expect("Redis does as it is told");
                false
            }
        };
        let took = until_carried(&a, &mut source, &mut announcements).await;
        println!("{fault}: carried again after {took:?} (was down: {down})");
        assert!(took < BACK, "{fault}: {took:?}");
        let last = a.replica.tapes.get().hub.head().position;
        assert!(heard.until(&b.replica, &mut session, last).await.is_none());
        assert!(heard.ticks.keys().copied().eq(1..=last), "{fault}: nothing is missing");
    }
    assert!(b.bus.state().malformed >= 2, "{:?}", b.bus.state());
    assert!(!format!("{:?}{:?}", a.bus, a.bus.state()).contains(PASSWORD));
    a.replica.stop().await;
    b.replica.stop().await;
    a.bus.stop().await;
    b.bus.stop().await;
}

async fn wait_down(bus: &RedisBus) {
    let wait = async {
        while bus.state().problem.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the bus notices");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_is_bounded_and_goes_with_its_epoch() {
    let Some(redis) = RedisServer::given_or_own().await else { return };
    let bus = RedisBus::start(&RedisUrl::new(redis.url()), 1, 1).expect("the address is one");
    let other = RedisBus::start(&RedisUrl::new(redis.url()), 2, 2).expect("the address is one");
    bus.follow(Epoch(5));
    other.follow(Epoch(5));
    let mut manifests = other.manifests();
    let told = async {
        for version in 1.. {
            bus.announce_manifest(ManifestNews { epoch: Epoch(5), version });
            if timeout(Duration::from_millis(20), manifests.changed()).await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("manifests are told");

    // Sixty megabytes of announcements, as fast as Redis takes them.
    let epoch = Epoch(5);
    let mut own = redis.connect().await.expect("Redis is there");
    let key = format!("tapefeed:log:{epoch}");
    let noise = Bytes::from(rand::random_iter::<u8>().take(60_000).collect::<Vec<u8>>());
    let (mut most, mut sent) = (0, 0);
    for first_seq in 1..=1_000 {
        let dropped = bus.state().dropped;
        bus.announce(announcement(epoch, first_seq, noise.clone()));
        sent += u64::from(bus.state().dropped == dropped);
        if first_seq % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let used: Option<usize> =
                redis::cmd("MEMORY").arg("USAGE").arg(&key).query_async(&mut own).await.expect("Redis answers");
            most = most.max(used.unwrap_or(0));
        }
    }
    println!("{sent} of 1000 announcements of 60 KB sent, at most {most} bytes held");
    assert!(sent > 500 && most > STREAM_BYTES / 4 && most < 2 * STREAM_BYTES, "{sent} {most}");
    let life: i64 = redis::cmd("TTL").arg(&key).query_async(&mut own).await.expect("Redis answers");
    assert!(life > 80_000, "a stream that is left alone ends by itself: {life}");

    // Another epoch begins: the stream of the one before is nobody's any more.
    bus.follow(Epoch(6));
    let gone = async {
        while redis::cmd("EXISTS").arg(&key).query_async::<i64>(&mut own).await.expect("Redis answers") == 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the old stream goes");
    bus.stop().await;
    other.stop().await;
}

/// An announcement whose bytes are nothing that anybody could read.
fn announcement(epoch: Epoch, first_seq: u64, bytes: Bytes) -> Announcement {
    let block = Block {
        epoch,
        first_seq,
        entry_count: 1,
        append_time: UnixNanos::MIN,
        backfill: false,
        chain: [0; 16],
        entries: Entries::default(),
        traced: Default::default(),
        encodings: Default::default(),
        segments: Vec::new(),
    };
    Announcement { epoch, first_seq, last_seq: first_seq, block: Some(Arc::new(block)), bytes: Some(bytes) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn latest_prices_are_one_hget_away_exact_and_of_the_newest_epoch() {
    let Some(redis) = RedisServer::start().await else { return };
    let world = World::new(33);
    let url = RedisUrl::new(redis.url());
    let (a, b) = (priced(&world, &url, 1).await, priced(&world, &url, 2).await);
    let mut own = redis.connect().await.expect("Redis is there");
    let mut source = Source::claim(&world, &a, "p").await;
    source.publish(&a, "AAPL", 5).await.expect("nothing is wrong");
    let last = source.publish(&a, "AAPL", 3).await.expect("nothing is wrong").cursor.position;
    let price = shown(&mut own, last).await;
    assert_eq!(price["price"], "100.02");
    assert_eq!(price["epoch"], a.tapes.get().epoch.to_string());
    assert!(price["event_time"].as_str().is_some_and(|time| time.starts_with("2024-08-09T12:")));

    // Somebody empties Redis: it is all there again, though nothing was traded.
    redis::cmd("FLUSHALL").exec_async(&mut own).await.expect("Redis does as it is told");
    assert_eq!(shown(&mut own, last).await, price);

    // A new epoch has fewer ticks: its prices replace those of the one before all the same.
    let standby = world.store.standby();
    world.clock.advance(Duration::from_secs(5));
    let lost = source.publish(&b, "AAPL", 2).await.expect("nothing is wrong").cursor.position;
    shown(&mut own, lost).await;
    world.store.promote(standby, Some(Epoch(77))).await;
    let price = shown(&mut own, last).await;
    assert_eq!(price["epoch"], Epoch(77).to_string());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_price_goes_with_the_last_of_its_trades_and_nothing_older_brings_it_back() {
    let Some(redis) = RedisServer::start().await else { return };
    let world = World::new(35);
    let url = RedisUrl::new(redis.url());
    let replica = priced(&world, &url, 1).await;
    let epoch = replica.tapes.get().epoch;
    let mut own = redis.connect().await.expect("Redis is there");
    let mut source = Source::claim(&world, &replica, "p").await;
    let traded = source.publish(&replica, "AAPL", 2).await.expect("nothing is wrong").cursor.position;
    assert_eq!(shown(&mut own, traded).await["price"], "100.01");

    let view = view_at(&replica, traded).await;
    let tick = view.holdings().find_map(|(_, holding)| holding.hot_latest.as_deref().cloned());
    let old = LatestPrice { field: "XNAS/AAPL".to_owned(), log_seq: traded, tick: Some(tick.expect("it is hot")) };
    let taken_back = source.take_back(&replica, "AAPL", 2).await.expect("nothing is wrong").cursor.position;
    let mut lagging = LatestPrices::new(&url).expect("the address is one");
    for emptied in [false, true] {
        if emptied {
            redis::cmd("FLUSHALL").exec_async(&mut own).await.expect("Redis does as it is told");
        }
        gone(&mut own, taken_back).await;
        assert_eq!(value(&mut own).await, None, "every trade was taken back");
        assert_eq!(lagging.write(epoch, UnixNanos::MIN, std::slice::from_ref(&old)).await, Written::Yes);
        assert_eq!(value(&mut own).await, None, "a replica that lags brings nothing back");
    }

    // It trades again. That all was taken back before is older now.
    world.clock.advance(Duration::from_secs(1));
    let again = source.publish(&replica, "AAPL", 1).await.expect("nothing is wrong").cursor.position;
    let price = shown(&mut own, again).await;
    let nothing = LatestPrice { log_seq: taken_back, tick: None, ..old };
    assert_eq!(lagging.write(epoch, UnixNanos::MIN, &[nothing]).await, Written::Yes);
    assert_eq!(shown(&mut own, again).await, price);
    replica.stop().await;
}

/// A replica that shows its prices.
async fn priced(world: &World, url: &RedisUrl, number: u64) -> Replica {
    let parts = Parts {
        store: Arc::new(world.store.reopen()),
        bus: Arc::new(RedisBus::start(url, number, number).expect("the address is one")),
        prices: Some(LatestPrices::new(url).expect("the address is one")),
        clock: world.clock.clone(),
        seed: number,
        policy: Policy::default(),
        hub_bytes: 1 << 20,
        hot_tick_limit: 1_000_000,
        chunk_cache_bytes: tapefeed_server::query::CHUNK_CACHE_BYTES,
        header_cache_bytes: tapefeed_server::tape::HEADER_CACHE_BYTES,
        bars_table: false,
        metrics: Default::default(),
    };
    Replica::start(parts).await.expect("the replica starts")
}

/// What the hash has of AAPL.
async fn value(own: &mut redis::aio::MultiplexedConnection) -> Option<String> {
    redis::cmd("HGET").arg("tapefeed:latest").arg("XNAS/AAPL").query_async(own).await.expect("Redis answers")
}

/// Waits until it is known that AAPL has no price by a position.
async fn gone(own: &mut redis::aio::MultiplexedConnection, log_seq: u64) {
    let wait = async {
        loop {
            let mut ask = redis::cmd("HGET");
            ask.arg("tapefeed:latest:gone").arg("XNAS/AAPL");
            let known: Option<u64> = ask.query_async(own).await.expect("Redis answers");
            if known == Some(log_seq) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the price goes");
}

/// What the hash shows of AAPL, once it is of a position.
async fn shown(own: &mut redis::aio::MultiplexedConnection, log_seq: u64) -> serde_json::Value {
    let wait = async {
        loop {
            let value = value(own).await.unwrap_or_default();
            let value: serde_json::Value = serde_json::from_str(&value).unwrap_or_default();
            if value["log_seq"] == log_seq {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the price is shown")
}

/// What `/readyz` says, once it says a word about Redis.
async fn readiness(server: &Server, word: &str) -> String {
    let wait = async {
        loop {
            let answer = http::get(server.address(), "/readyz").await;
            assert_eq!(answer.status, 200, "without Redis everything is served: {answer:?}");
            let state = answer.text();
            if state.contains(&format!("\"name\":\"redis\",\"state\":\"{word}\"")) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the state of Redis is told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_serves_without_its_redis_says_so_and_never_tells_the_password() {
    let Some(mut redis) = RedisServer::start().await else { return };
    let server = Server::start(Options::demo().argument("--bus").argument(redis.url())).await;
    let mut health = server.stubs().await.health;
    let mut check = async || {
        let request = tonic_health::pb::HealthCheckRequest { service: "tapefeed.redis".to_owned() };
        health.check(request).await.expect("a dependency of this server").into_inner().status()
    };
    readiness(&server, "up").await;
    assert_eq!(check().await, ServingStatus::Serving);
    redis.kill().await;
    let state = readiness(&server, "degraded").await;
    assert!(state.contains("come from the store"), "{state}");
    assert_eq!(check().await, ServingStatus::NotServing);
    redis.run().await;
    let begin = Instant::now();
    readiness(&server, "up").await;
    assert!(begin.elapsed() < BACK + Duration::from_secs(1), "{:?}", begin.elapsed());
    assert!(!server.output().contains(PASSWORD), "{}", server.output());
    // The demo's prices are there for other programs.
    let mut own = redis.connect().await.expect("Redis is there");
    let shown = async {
        while redis::cmd("HLEN").arg("tapefeed:latest").query_async::<u64>(&mut own).await.expect("Redis answers") == 0
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, shown).await.expect("latest prices are shown");

    let wrong =
        Server::try_start(Options::serve().argument("--bus").argument(format!("rediss://:{PASSWORD}@host"))).await;
    let wrong = wrong.expect_err("there is no TLS yet");
    assert!(wrong.output.contains("redis://") && !wrong.output.contains(PASSWORD), "{}", wrong.output);
}
