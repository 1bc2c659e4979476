//! Servers behind a PgBouncer that hands out connections by transaction, and a database that is replaced behind it.

use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_tests::redis_server::RedisServer;
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::{Database, Options, Publisher, Server, Stubs, eventually, within};
use tonic::Code;

use crate::live::{Subscription, after, ids, request, trades};
use crate::{live, publish, values as exact};

/// How long a failover may take until every replica serves the new epoch, on a busy machine.
const FAILOVER: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behaviour_is_the_same_behind_a_pgbouncer_that_pools_transactions() {
    for number in 0..5 {
        let Some(database) = Database::start() else { return };
        let Some(bouncer) = database.bouncer() else { return };
        let options = Options::serve().database(bouncer.url());
        match number {
            0 => publish::claims(options).await,
            1 => exact::own_writes(options).await,
            2 => live::starts(options).await,
            3 => live::expiry(options).await,
            _ => live::resumes(options).await,
        }
    }
}

/// The log's epoch; `None` while the replica cannot know it.
async fn epoch(stubs: &Stubs) -> Option<u64> {
    let answer = stubs.live.clone().get_replay_window(proto::GetReplayWindowRequest {}).await;
    Some(answer.ok()?.into_inner().epoch)
}

/// Waits until the stream is ended; what it brought before does not matter.
async fn end(stream: &mut Subscription) -> tonic::Status {
    loop {
        match within("the end of a stream", FAILOVER, stream.next()).await {
            Ok(_) => (),
            Err(status) => return status,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_promoted_behind_pgbouncer_begins_one_new_epoch_that_names_what_is_lost() {
    let Some(primary) = Database::start() else { return };
    let Some(bouncer) = primary.bouncer() else { return };
    let Some(redis) = RedisServer::given_or_own().await else { return };
    let options = Options::serve().database(bouncer.url()).argument("--bus").argument(redis.url());
    let servers = [Server::start(options.clone()).await, Server::start(options).await];
    let [a, b] = [servers[0].stubs().await, servers[1].stubs().await];
    let old = epoch(&a).await.expect("a window");
    let mut publisher = Publisher::claim(&a, "feed").await.expect("granted");
    let kept = publisher.rows(trades("KEPT", 0..20)).await.expect("stored");

    // The standby has everything so far, and is cut off before the next batch.
    let standby = primary.standby();
    eventually("the standby has the log", FAILOVER, async || {
        let mut connection = standby.connect().await;
        let position: i64 =
            sqlx::query_scalar("SELECT position FROM log_head").fetch_one(&mut connection).await.ok()?;
        (position == 20).then_some(())
    })
    .await;
    standby.cut_off().await;
    let mut saw = Subscription::open(&a, request("*", after(&kept.cursor))).await.expect("granted");
    let mut behind = Subscription::open(&b, request("KEPT", after(&kept.cursor))).await.expect("granted");
    let lost = publisher.rows(trades("LOST", 20..30)).await.expect("stored on the primary alone");
    assert_eq!(saw.ticks(10).await.len(), 10);

    primary.crash().await;
    standby.promote().await;
    bouncer.point(&standby).await;

    let is_new = async |stubs: &Stubs| epoch(stubs).await.filter(|now| *now != old);
    let new = eventually("the new epoch", FAILOVER, async || is_new(&a).await).await;
    let there = eventually("the new epoch on the other replica", FAILOVER, async || is_new(&b).await).await;
    assert_eq!(there, new, "one new epoch, whichever replica began it");
    let epochs: i64 = {
        let mut connection = standby.connect().await;
        sqlx::query_scalar("SELECT count(*) FROM epochs").fetch_one(&mut connection).await.expect("the table is there")
    };
    assert_eq!(epochs, 2);
    // Who saw what is lost is told; who did not may come back.
    let ended = end(&mut saw).await;
    let refusal = Refusal::of(&ended);
    assert_eq!((ended.code(), refusal.reason.as_str()), (Code::FailedPrecondition, "EPOCH_CHANGED"), "{ended:?}");
    let ended = end(&mut behind).await;
    let code = ended.code();
    assert!(matches!(code, Code::Unavailable | Code::FailedPrecondition), "{ended:?}");
    for stubs in [&a, &b] {
        let refused = Subscription::open(stubs, request("*", after(&lost.cursor))).await.err().expect("it is lost");
        assert_eq!(Refusal::of(&refused).reason, "EPOCH_CHANGED");
    }

    // The log goes on at the fork, for those who were there before.
    let mut resumed = Subscription::open(&b, request("*", after(&kept.cursor))).await.expect("a cursor at the fork");
    let mut publisher = eventually("a claim", FAILOVER, async || Publisher::claim(&a, "feed").await.ok()).await;
    assert_eq!(publisher.grant.last_batch_seq, 1, "the mark of the lost batch is lost with it");
    publisher.rows(trades("NEXT", 20..25)).await.expect("stored");
    let came = resumed.ticks(5).await;
    assert_eq!((ids(&came), came[0].log_seq), ((20..25).collect(), 21));
}
