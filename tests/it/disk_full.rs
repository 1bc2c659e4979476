//! A disk without room: writes are refused, nothing acknowledged is lost, reads go on, and with room writes do, too.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_proto::v1 as proto;
use tapefeed_tests::process::installed;
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::values::{decimal, timestamp};
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Database, Options, Publisher, Server};
use tonic::{Code, Status};

use crate::live::{Subscription, ids, request};

/// Ticks of a batch. Their ids are random, so that nothing makes them small.
const BATCH: usize = 5_000;
/// Batches within which the disk must be full.
const MOST: usize = 200;
/// How long after there is room again a write may still be refused.
const RECOVERY: Duration = Duration::from_secs(15);

/// A producer that counts what was acknowledged.
struct Feed {
    random: SmallRng,
    acknowledged: usize,
    /// Behind the last batch that was acknowledged.
    cursor: Bytes,
}

impl Feed {
    fn new() -> Self {
        Self { random: SmallRng::seed_from_u64(53), acknowledged: 0, cursor: Bytes::new() }
    }

    /// The next batch: trade ids begin with their number.
    fn next(&mut self) -> Vec<proto::Tick> {
        let now = now_unix_nano();
        let mut tick = |number: usize| {
            let noise: String = (0..48).map(|_| char::from(self.random.random_range(b'!'..=b'~'))).collect();
            proto::Tick {
                venue: "XTST".to_owned(),
                symbol: "FULL".to_owned(),
                event_time: Some(timestamp(now)),
                price: Some(decimal("1.5")),
                trade_id: format!("{number:07}{noise}"),
                ..proto::Tick::default()
            }
        };
        (self.acknowledged..self.acknowledged + BATCH).map(&mut tick).collect()
    }

    /// Sends a batch on a new stream, under the number that the server expects.
    async fn send(&mut self, server: &Server, batch: &[proto::Tick]) -> Result<(), Status> {
        let mut publisher = Publisher::claim(&server.stubs().await, "feed").await?;
        assert_eq!(publisher.grant.last_batch_seq as usize * BATCH, self.acknowledged, "no refused batch was stored");
        self.cursor = publisher.rows(batch.to_vec()).await?.cursor;
        self.acknowledged += batch.len();
        Ok(())
    }

    /// Publishes until the disk is full; the batch that was refused.
    async fn until_full(&mut self, server: &Server) -> Vec<proto::Tick> {
        for _ in 0..MOST {
            let batch = self.next();
            if let Err(refused) = self.send(server, &batch).await {
                assert_refused(&refused);
                return batch;
            }
        }
        panic!("{} ticks found room", self.acknowledged);
    }

    /// Sends the batch that was refused until it is stored; how often it was refused again.
    async fn until_taken(&mut self, server: &Server, refused: &[proto::Tick]) -> usize {
        let (mut refusals, begin) = (0, Instant::now());
        loop {
            self.check(server, "without room").await;
            let Err(status) = self.send(server, refused).await else { return refusals };
            assert_refused(&status);
            assert!(begin.elapsed() < RECOVERY, "writes are still refused, {refusals} of them");
            refusals += 1;
        }
    }

    /// Every answer is what was acknowledged, neither more nor less.
    async fn check(&self, server: &Server, when: &str) {
        let mut history = server.stubs().await.history;
        let statistics = proto::GetPriceStatisticsRequest {
            symbol: "FULL".to_owned(),
            min_cursor: self.cursor.clone(),
            ..Default::default()
        };
        let known = history.get_price_statistics(statistics).await.expect("known").into_inner();
        assert_eq!(known.tick_count as usize, self.acknowledged, "{when}");
        let last = proto::ListTicksRequest {
            symbol: "FULL".to_owned(),
            page_size: 1,
            order: proto::Order::Descending.into(),
            ..Default::default()
        };
        let last = history.list_ticks(last).await.expect("a page").into_inner().ticks;
        assert_eq!(last[0].log_seq as usize, self.acknowledged, "{when}");
    }

    /// Everything that was acknowledged comes out of the log, once and in order.
    async fn replay(&self, server: &Server) {
        let stubs = server.stubs().await;
        let window = stubs.live.clone().get_replay_window(proto::GetReplayWindowRequest {}).await.expect("a window");
        let position = proto::StartPosition { epoch: window.into_inner().epoch, log_seq: 0 };
        let start = Some(proto::subscribe_ticks_request::Start::Position(position));
        let mut stream = Subscription::open(&stubs, request("FULL", start)).await.expect("granted");
        let mut ticks = stream.ticks(self.acknowledged).await;
        for tick in &mut ticks {
            tick.trade_id.truncate(7);
        }
        assert!(ids(&ticks).into_iter().eq(0..self.acknowledged));
    }
}

fn assert_refused(status: &Status) {
    let refusal = Refusal::of(status);
    assert_eq!((status.code(), refusal.reason.as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"), "{status:?}");
    assert!(Refusal::has_retry_info(status), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_without_room_refuses_writes_keeps_what_was_acknowledged_and_goes_on_with_room() {
    let Some(database) = Database::start() else { return };
    let mut server = Server::start(database.options()).await;
    let mut feed = Feed::new();
    let first = feed.next();
    feed.send(&server, &first).await.expect("there is room");
    // No file may grow beyond that: as large as a file of the write-ahead log, and a little more.
    database.room(Some(17 << 20)).await;
    let refused = feed.until_full(&server).await;
    assert!(feed.acknowledged > BATCH, "some found room");
    for _ in 0..3 {
        assert_refused(&feed.send(&server, &refused).await.expect_err("there is no room"));
        feed.check(&server, "without room").await;
    }
    assert!(server.is_serving().await, "reads are served");
    // A server that starts meanwhile serves what is there.
    server.kill9().await;
    server.restart().await;
    feed.check(&server, "after a restart without room").await;
    assert_refused(&feed.send(&server, &refused).await.expect_err("there is no room"));

    database.room(None).await;
    feed.until_taken(&server, &refused).await;
    let more = feed.next();
    feed.send(&server, &more).await.expect("there is room");
    feed.check(&server, "with room").await;
    server.kill9().await;
    server.restart().await;
    feed.check(&server, "after a restart").await;
    feed.replay(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_without_room_refuses_writes_keeps_what_was_acknowledged_and_goes_on_with_room() {
    if installed("strace").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("tapefeed.db");
    let log = format!("{}-wal", store.display());
    // The kernel's answer to writes of the thread that writes: from the 1,000th to the 1,040th there is no room.
    let full = ["-e", "trace=pwrite64", "-e", "inject=pwrite64:error=ENOSPC:when=1000..1040"];
    let under = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", &log].into_iter().chain(full);
    let mut server = Server::start(Options::serve().store(&store).under(under)).await;
    let mut feed = Feed::new();
    let refused = feed.until_full(&server).await;
    assert!(feed.acknowledged > BATCH, "some found room");
    let refusals = feed.until_taken(&server, &refused).await;
    assert!(refusals >= 2, "{refusals} writes found no room");
    assert!(server.output().contains("is full"), "{}", server.output());
    feed.check(&server, "with room").await;
    let more = feed.next();
    feed.send(&server, &more).await.expect("there is room");
    server.kill9().await;
    server.options_mut().under.clear();
    server.restart().await;
    feed.check(&server, "after a restart").await;
    feed.replay(&server).await;
}
