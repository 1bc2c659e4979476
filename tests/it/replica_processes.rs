//! Several server processes over one Postgres and one Redis: what one acknowledges, all have, at the same positions.

use std::time::Duration;

use tapefeed_proto::v1 as proto;
use tapefeed_proto::v1::subscribe_ticks_request::Start;
use tapefeed_tests::checker::{Findings, Scope, Seen, judge};
use tapefeed_tests::combination::Ground;
use tapefeed_tests::file::StoreFile;
use tapefeed_tests::refusal::Refusal;
use tapefeed_tests::scrape::Scrape;
use tapefeed_tests::values::tick;
use tapefeed_tests::wait::now_unix_nano;
use tapefeed_tests::{Combination, Publisher, Server, Stubs, eventually};
use tonic::Code;

use crate::live::{Subscription, after, ids, positions, request, trades};

/// How long replicas may take to agree, on a busy machine.
const AGREEMENT: Duration = Duration::from_secs(10);

/// How long compaction may take, with the lease of a holder that was killed: 10 s.
const COMPACTION: Duration = Duration::from_secs(60);

/// Three replicas with stubs of each. `None` where the machine has no Postgres or no Redis.
async fn replicas(arguments: &[&str]) -> Option<(Ground, [Server; 3], [Stubs; 3])> {
    let ground = Combination::PostgresRedis.prepare().await?;
    let servers: [Server; 3] = ground.servers(arguments).await;
    let stubs = [servers[0].stubs().await, servers[1].stubs().await, servers[2].stubs().await];
    Some((ground, servers, stubs))
}

/// The replay window as a replica tells it.
async fn window(stubs: &Stubs) -> proto::GetReplayWindowResponse {
    let answer = stubs.live.clone().get_replay_window(proto::GetReplayWindowRequest {}).await;
    answer.expect("a window").into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_acknowledges_all_show_at_once_in_the_same_order_and_under_the_same_cursors() {
    let Some((_ground, _servers, [a, b, c])) = replicas(&[]).await else { return };
    let mut streams = [
        Subscription::open(&b, request("*", None)).await.expect("granted"),
        Subscription::open(&c, request("*", None)).await.expect("granted"),
    ];
    let mut publisher = Publisher::claim(&a, "feed").await.expect("granted");
    let (mut sent, mut cursors) = (Vec::new(), Vec::new());
    for batch in 0..40 {
        let symbol = format!("S{}", batch % 7);
        let ticks = trades(&symbol, batch * 25..(batch + 1) * 25);
        let ack = publisher.rows(ticks.clone()).await.expect("stored");
        sent.extend(ticks);
        cursors.push(ack.cursor.clone());
        // Asked elsewhere right behind the acknowledgement, the answer has it.
        for other in [&b, &c] {
            let request = proto::GetPriceStatisticsRequest {
                symbol: symbol.clone(),
                min_cursor: ack.cursor.clone(),
                ..Default::default()
            };
            let known = other.history.clone().get_price_statistics(request).await.expect("known").into_inner();
            assert_eq!(known.tick_count as usize, (batch / 7 + 1) * 25, "{symbol}");
        }
    }
    for stream in &mut streams {
        let heard = stream.ticks(sent.len()).await;
        let seen: Vec<Seen> = heard.iter().cloned().map(Seen::Tick).collect();
        assert_eq!(judge(&sent, &seen, Scope::Everything), Findings::default());
    }
    // A's cursor means the same on B and C: everything after it and nothing before.
    let half = cursors[19].clone();
    for other in [&b, &c] {
        let mut rest = Subscription::open(other, request("*", after(&half))).await.expect("the cursor is good here");
        let rest = rest.ticks(500).await;
        assert_eq!(ids(&rest), (500..1_000).collect::<Vec<_>>());
        assert_eq!(positions(&rest), (501..=1_000).collect::<Vec<_>>());
    }
    eventually("all tell the same replay window", AGREEMENT, async || {
        let windows = [window(&a).await, window(&b).await, window(&c).await];
        let newest = windows[0].newest.as_ref().map(|edge| edge.log_seq);
        (windows[0] == windows[1] && windows[1] == windows[2] && newest == Some(1_000)).then_some(())
    })
    .await;
    let oldest = window(&b).await.oldest.expect("the log is not empty");
    assert_eq!(oldest.log_seq, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_goes_on_at_another_replica_and_its_older_stream_is_fenced() {
    let Some((_ground, _servers, [a, b, c])) = replicas(&[]).await else { return };
    let mut on_a = Publisher::claim(&a, "feed").await.expect("granted");
    for batch in 0..3 {
        on_a.rows(trades("MOVE", batch * 10..(batch + 1) * 10)).await.expect("stored");
    }
    let mut on_b = Publisher::claim(&b, "feed").await.expect("granted");
    assert_eq!(on_b.grant.last_batch_seq, 3, "B knows what A has acknowledged");
    assert!(on_b.grant.fence > on_a.grant.fence);
    let fourth = trades("MOVE", 30..40);
    let content = |ticks: &[proto::Tick]| {
        proto::publish_batch::Content::Rows(proto::TickBatch { ticks: ticks.to_vec(), merged_counts: Vec::new() })
    };
    let stored = on_b.content(content(&fourth)).await.expect("stored");
    assert!(!stored.duplicate);
    // A's stream holds the older claim: its next batch ends it and is not stored.
    let fenced = on_a.content(content(&trades("MOVE", 90..95))).await.expect_err("the claim is taken");
    assert_eq!((fenced.code(), Refusal::of(&fenced).reason.as_str()), (Code::Aborted, "PRODUCER_FENCED"));
    // The same batch again on C, as after a lost acknowledgement.
    let mut on_c = Publisher::claim(&c, "feed").await.expect("granted");
    assert_eq!(on_c.grant.last_batch_seq, 4);
    on_c.send(4, content(&fourth)).await;
    let again = on_c.ack().await.expect("known").expect("the stream is open");
    assert!(again.duplicate);
    assert_eq!(again.cursor, stored.cursor, "where it was stored");
    let epoch = window(&a).await.epoch;
    let start = Start::Position(proto::StartPosition { epoch, log_seq: 0 });
    let mut all = Subscription::open(&a, request("*", Some(start))).await.expect("granted");
    let all = all.ticks(40).await;
    assert_eq!(ids(&all), (0..40).collect::<Vec<_>>(), "each once, in order, and nothing of the fenced batch");
}

/// Ticks that a replica has compacted since it started.
async fn compacted(server: &Server) -> u64 {
    Scrape::of(server.address()).await.value("tapefeed_compacted_ticks_total") as u64
}

/// Waits until every tick is in a chunk and every replica answers so many.
async fn settled(servers: &[&Server], ticks: u64) {
    eventually("everything is in chunks", COMPACTION, async || {
        let compaction = StoreFile::of(servers[0]).await.ok()?.compaction().await.ok()?;
        (compaction.is_complete() && compaction.head == ticks).then_some(())
    })
    .await;
    for server in servers {
        let mut history = server.stubs().await.history;
        let request = proto::GetPriceStatisticsRequest { symbol: "KEEP".to_owned(), ..Default::default() };
        let answer = history.get_price_statistics(request).await.expect("known").into_inner();
        assert_eq!(answer.tick_count, ticks, "on {}", server.url());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_goes_on_at_another_replica_when_the_one_that_did_it_is_killed() {
    let Some((_ground, mut servers, stubs)) = replicas(&["--compact-age=100ms"]).await else { return };
    let mut publisher = Publisher::claim(&stubs[0], "keep").await.expect("granted");
    publisher.rows(trades("KEEP", 0..2_000)).await.expect("stored");
    settled(&servers.each_ref(), 2_000).await;
    let mut shares = Vec::new();
    for server in &servers {
        shares.push(compacted(server).await);
    }
    assert_eq!(shares.iter().sum::<u64>(), 2_000, "each tick was compacted once: {shares:?}");
    let holder = shares.iter().position(|share| *share == 2_000).expect("one replica did all of it");
    servers[holder].kill9().await;
    let left: Vec<&Server> =
        servers.iter().enumerate().filter(|(place, _)| *place != holder).map(|(_, one)| one).collect();
    // Nobody knows at once; writes and answers do not wait for it.
    let stubs = left[0].stubs().await;
    let mut publisher = Publisher::claim(&stubs, "keep").await.expect("granted");
    let now = now_unix_nano();
    let more: Vec<proto::Tick> =
        (0..1_500).map(|id| proto::Tick { trade_id: format!("m{id}"), ..tick("XTST", "KEEP", now, "11.5") }).collect();
    publisher.rows(more).await.expect("stored");
    settled(&left, 3_500).await;
    let shares = [compacted(left[0]).await, compacted(left[1]).await];
    assert!(shares.contains(&1_500) && shares.contains(&0), "one of the others took it over: {shares:?}");
}
