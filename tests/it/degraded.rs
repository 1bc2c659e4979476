//! Servers whose Redis or Postgres is gone: what still works does, what does not says so, and nothing needs a restart.

use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_tests::database::{Database, FreshDatabase};
use tapefeed_tests::redis_server::RedisServer;
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::{Options, Publisher, Server, Stubs, eventually, http, within};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::live::{Subscription, ids, request, trades};

/// How soon health has to tell what happened: a look each second, with its deadline.
const HEALTH: Duration = Duration::from_secs(10);

/// How long a tick may take to another replica without the bus: half a second, and a busy machine.
const BY_THE_STORE: Duration = Duration::from_secs(3);

async fn health(stubs: &Stubs, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    stubs.health.clone().check(request).await.expect("health is served").into_inner().status()
}

/// Waits until `/readyz` has this status and says this.
async fn readiness(server: &Server, status: u16, says: &str) -> String {
    eventually(&format!("{status} with {says}"), HEALTH, async || {
        let answer = http::get(server.address(), "/readyz").await;
        (answer.status == status && answer.text().contains(says)).then(|| answer.text())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_replicas_serve_everything_from_the_store_and_say_what_is_missing() {
    let Some(database) = FreshDatabase::make().await else { return };
    let Some(mut redis) = RedisServer::start().await else { return };
    let options = Options::serve().database(database.url()).argument("--bus").argument(redis.url());
    let (a, b) = (Server::start(options.clone()).await, Server::start(options).await);
    let stubs = [a.stubs().await, b.stubs().await];
    for server in [&a, &b] {
        readiness(server, 200, "\"name\":\"redis\",\"state\":\"up\"").await;
    }
    let mut stream = Subscription::open(&stubs[1], request("*", None)).await.expect("granted");
    let mut publisher = Publisher::claim(&stubs[0], "feed").await.expect("granted");
    publisher.rows(trades("LEFT", 0..10)).await.expect("stored");
    assert_eq!(ids(&stream.ticks(10).await), (0..10).collect::<Vec<_>>());

    redis.kill().await;
    for (server, stubs) in [&a, &b].into_iter().zip(&stubs) {
        let told = readiness(server, 200, "\"name\":\"redis\",\"state\":\"degraded\"").await;
        assert!(told.contains("come from the store"), "{told}");
        assert_eq!(health(stubs, "tapefeed.redis").await, ServingStatus::NotServing);
        assert_eq!(health(stubs, "tapefeed.store").await, ServingStatus::Serving);
        assert_eq!(health(stubs, "").await, ServingStatus::Serving, "the server serves all the same");
    }
    for batch in 1..4 {
        let ack = publisher.rows(trades("LEFT", batch * 10..(batch + 1) * 10)).await.expect("Redis is no part of it");
        let came = within("ticks of the other replica", BY_THE_STORE, stream.ticks(10)).await;
        assert_eq!(ids(&came), (batch * 10..(batch + 1) * 10).collect::<Vec<_>>());
        let request =
            proto::GetAveragePriceRequest { symbol: "LEFT".to_owned(), min_cursor: ack.cursor, ..Default::default() };
        let average = stubs[1].history.clone().get_average_price(request).await.expect("there are ticks").into_inner();
        assert_eq!(average.tick_count as usize, (batch + 1) * 10);
    }
    // What starts meanwhile serves, too.
    let mut c = Server::start(Options { listen: None, ..a.options().clone() }).await;
    readiness(&c, 200, "\"name\":\"redis\",\"state\":\"degraded\"").await;
    c.terminate().await;

    redis.run().await;
    for (server, stubs) in [&a, &b].into_iter().zip(&stubs) {
        readiness(server, 200, "\"name\":\"redis\",\"state\":\"up\"").await;
        assert_eq!(health(stubs, "tapefeed.redis").await, ServingStatus::Serving);
    }
    publisher.rows(trades("LEFT", 40..50)).await.expect("stored");
    assert_eq!(ids(&stream.ticks(10).await), (40..50).collect::<Vec<_>>());
}

fn assert_unavailable(status: &Status) {
    let refusal = Refusal::of(status);
    assert_eq!((status.code(), refusal.reason.as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"), "{status:?}");
    assert!(Refusal::has_retry_info(status), "{status:?}");
}

/// The newest tick of a symbol: its trade id, and its age in nanoseconds.
async fn latest(stubs: &Stubs, symbol: &str) -> (String, i64) {
    let selector = proto::Selector { symbol: symbol.to_owned(), ..Default::default() };
    let request = proto::ListLatestTicksRequest { selectors: vec![selector], ..Default::default() };
    let answer = stubs.history.clone().list_latest_ticks(request).await.expect("it is in memory").into_inner();
    let latest = &answer.latest_ticks[0];
    let age = latest.age.as_ref().expect("every latest tick has an age");
    let trade_id = latest.tick.as_ref().expect("every latest tick has one").trade_id.clone();
    (trade_id, age.seconds * 1_000_000_000 + i64::from(age.nanos))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_postgres_writes_are_refused_streams_stay_at_the_truth_and_all_comes_back_by_itself() {
    let Some(database) = Database::start() else { return };
    let Some(redis) = RedisServer::given_or_own().await else { return };
    let options = database.options().argument("--bus").argument(redis.url());
    let servers = [Server::start(options.clone()).await, Server::start(options).await];
    let stubs = [servers[0].stubs().await, servers[1].stubs().await];
    let pids = [servers[0].pid(), servers[1].pid()];
    let mut streams = Vec::new();
    for stubs in &stubs {
        streams.push(Subscription::open(stubs, request("*", None)).await.expect("granted"));
    }
    let mut publisher = Publisher::claim(&stubs[0], "feed").await.expect("granted");
    publisher.rows(trades("DOWN", 0..30)).await.expect("stored");
    for stream in &mut streams {
        assert_eq!(stream.ticks(30).await.len(), 30);
    }

    database.crash().await;
    // The stream that was open is told, and so is a claim, on each replica.
    let refused = publisher.rows(trades("DOWN", 30..40)).await.expect_err("nothing can be stored");
    assert_unavailable(&refused);
    for stubs in &stubs {
        let claim = within("a refusal", Duration::from_secs(10), Publisher::claim(stubs, "other")).await;
        assert_unavailable(&claim.expect_err("nothing can be stored"));
    }
    for (server, stubs) in servers.iter().zip(&stubs) {
        readiness(server, 503, "\"name\":\"store\",\"state\":\"down\"").await;
        assert_eq!(health(stubs, "tapefeed.store").await, ServingStatus::NotServing);
        assert_eq!(health(stubs, "").await, ServingStatus::NotServing);
    }
    // Streams live on and claim nothing that nobody can know.
    for stream in &mut streams {
        for _ in 0..3 {
            assert_eq!(stream.progress().await.log_seq, 30);
        }
    }
    // What is in memory is answered, and says how old it is.
    for stubs in &stubs {
        let (first, then) = (latest(stubs, "DOWN").await, latest(stubs, "DOWN").await);
        assert_eq!((first.0.as_str(), then.0.as_str()), ("29", "29"));
        assert!(first.1 > 2_000_000_000 && then.1 > first.1, "{first:?} {then:?}");
        let request = proto::GetAveragePriceRequest { symbol: "DOWN".to_owned(), ..Default::default() };
        let average = stubs.history.clone().get_average_price(request).await.expect("it is in memory").into_inner();
        assert_eq!(average.tick_count, 30);
    }

    database.again().await;
    for server in &servers {
        eventually("SERVING", HEALTH, async || server.is_serving().await.then_some(())).await;
        readiness(server, 200, "\"name\":\"store\",\"state\":\"up\"").await;
    }
    // The batch whose answer said UNAVAILABLE may be sent again, here or there; it is stored once.
    let mut publisher = Publisher::claim(&stubs[1], "feed").await.expect("granted");
    assert_eq!(publisher.grant.last_batch_seq, 1, "what was refused was not stored");
    publisher.rows(trades("DOWN", 30..40)).await.expect("stored");
    for stream in &mut streams {
        let came = stream.ticks(10).await;
        assert_eq!(ids(&came), (30..40).collect::<Vec<_>>(), "the same streams go on");
        assert_eq!(came[0].log_seq, 31);
    }
    assert_eq!(pids, [servers[0].pid(), servers[1].pid()], "nothing was restarted");
}
