//! Several replicas over one store: equal, each complete, and together through losses of the bus, of each other, and of
//! the newest commits.

pub(crate) mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tapefeed_server::domain::{Cursor, Epoch, Symbol};
use tapefeed_server::ingest::IngestError;
use tapefeed_server::live::{LiveError, LogFacts, Start};
use tapefeed_server::replica::Replica;
use tapefeed_server::store::faults::{self, Fault, FaultAction, Faults};
use tapefeed_server::store::{MemoryStore, Store as _};
use tapefeed_server::tape::compactor::Policy;
use tapefeed_tests::stumbling::{Stumbling, VIEW_LOG};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::failpoints::replica::{Plan, Sin};
use world::{Heard, PATIENCE, Source, World, follow, ticks_of, view_at};

/// Publishes some batches on a replica, a new symbol with each.
async fn load(world: &World, replica: &Replica, name: &str, batches: u64) -> u64 {
    let mut source = Source::claim(world, replica, name).await;
    let mut last = 0;
    for number in 0..batches {
        let symbol = format!("{name}-{number}");
        last = source.publish(replica, &symbol, 1 + number % 7).await.expect("nothing is wrong").cursor.position;
    }
    last
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_show_one_sequence_whoever_writes_and_compact_once() {
    let mut world = World::new(11);
    world.policy =
        Policy { interval: Duration::from_millis(5), age_cap: Duration::from_millis(100), ..Policy::default() };
    let replicas = [world.replica().await, world.replica().await, world.replica().await];
    let mut sessions = Vec::new();
    for replica in &replicas {
        sessions.push(follow(replica, Start::Live).await);
    }
    let lasts = tokio::join!(
        load(&world, &replicas[0], "a", 60),
        load(&world, &replicas[1], "b", 60),
        load(&world, &replicas[2], "c", 60),
    );
    let last = lasts.0.max(lasts.1).max(lasts.2);
    let mut heard = Vec::new();
    for (replica, session) in replicas.iter().zip(&mut sessions) {
        let mut all = Heard::default();
        assert!(all.until(replica, session, last).await.is_none());
        assert!(all.ticks.keys().copied().eq(1..=last), "everything, from the first to {last}");
        heard.push(all.ticks);
    }
    assert!(heard.windows(2).all(|pair| pair[0] == pair[1]));

    // The manifest that one of them writes is adopted by all.
    for replica in &replicas {
        let tidy = async {
            loop {
                let view = view_at(replica, last).await;
                assert_eq!(ticks_of(&view), last as usize, "a tick is hot or in a chunk, never both or neither");
                if view.hot_ticks() == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, tidy).await.expect("everything is compacted, and everybody knows");
    }
    for replica in replicas {
        replica.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_dies_before_it_announces_hides_nothing() {
    let mut world = World::new(12);
    let (a, b) = (world.replica().await, world.replica().await);
    let mut session = follow(&b, Start::Live).await;
    world.ether.silence(true);
    let last = load(&world, &a, "quiet", 5).await;
    let begin = Instant::now();
    let mut heard = Heard::default();
    assert!(heard.until(&b, &mut session, last).await.is_none());
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(heard.ticks.len() as u64, last);
    // What nobody announced is known by name on the other replica, too.
    let known = b.tapes.get().registry.with_symbol(&Symbol::new("quiet-4").expect("a symbol"));
    assert_eq!(known.len(), 1);
    // A producer goes on where it likes.
    let mut source = Source::claim(&world, &b, "quiet").await;
    assert_eq!(source.claim.last_batch_seq, 5);
    source.publish(&b, "quiet-4", 1).await.expect("the claim is good here");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_come_and_go_one_after_the_other_and_a_stream_goes_on_exactly() {
    let mut world = World::new(13);
    let mut replicas = vec![world.replica().await, world.replica().await, world.replica().await];
    let mut session = follow(&replicas[0], Start::Live).await;
    let (mut heard, mut sent) = (Heard::default(), 0);
    for round in 0..6 {
        // The oldest goes, with its stream; a new one, which has everything to catch up with, comes first.
        replicas.push(world.replica().await);
        for replica in &replicas {
            sent = sent.max(load(&world, replica, &format!("round-{round}"), 4).await);
        }
        let old = replicas.remove(0);
        old.draining.cancel();
        let end = heard.until(&old, &mut session, u64::MAX).await;
        assert!(matches!(end, Some(LiveError::ShuttingDown)), "{end:?}");
        let cursor = session.cursor().expect("a replay has a cursor from its beginning");
        assert_eq!(Some(cursor), heard.cursor.or(Some(cursor)));
        old.stop().await;
        session = follow(&replicas[round % 3], Start::After(cursor)).await;
        let mut more = Heard { ticks: std::mem::take(&mut heard.ticks), cursor: Some(cursor) };
        assert!(more.until(&replicas[round % 3], &mut session, sent).await.is_none());
        // The next round ends the stream of the replica that goes next.
        let cursor = more.cursor.expect("it listened");
        session = follow(&replicas[0], Start::After(cursor)).await;
        heard = more;
    }
    assert!(heard.ticks.keys().copied().eq(1..=sent), "nothing twice and nothing missing up to {sent}");
    for replica in replicas {
        replica.stop().await;
    }
}

/// A standby without the newest commits takes over: those who saw what is lost are told so, everybody else goes on.
async fn failover(world: &mut World, noticed: bool) {
    let (a, b) = (world.replica().await, world.replica().await);
    let shared = load(world, &a, "kept", 20).await;
    let standby = world.store.standby();
    let epoch = a.tapes.get().epoch;

    // Two streams saw the loss, one stopped reading before.
    let mut streams = [follow(&a, Start::After(Cursor { epoch, position: 0 })).await, follow(&b, Start::Live).await];
    let mut behind = follow(&b, Start::After(Cursor { epoch, position: shared })).await;
    let mut source = Source::claim(world, &b, "lost").await;
    let lost = source.publish(&b, "LOST", 9).await.expect("nothing is wrong").cursor.position;
    let mut heard = [Heard::default(), Heard::default()];
    assert!(heard[0].until(&a, &mut streams[0], lost).await.is_none());
    assert!(heard[1].until(&b, &mut streams[1], lost).await.is_none());
    view_at(&a, lost).await;

    world.store.promote(standby, noticed.then_some(Epoch(4_711))).await;

    let ends =
        [heard[0].until(&a, &mut streams[0], u64::MAX).await, heard[1].until(&b, &mut streams[1], u64::MAX).await];
    for end in &ends {
        let Some(LiveError::EpochChanged(LogFacts { epoch: now, fork, newest, .. })) = end else { panic!("{end:?}") };
        assert_ne!(*now, epoch);
        assert_eq!(*fork, Some((epoch, shared)), "the lost range is named");
        assert_eq!(newest.position, shared);
    }
    // The one that was not told of the loss yet goes on exactly, under the new name.
    let mut untold = Heard { cursor: Some(Cursor { epoch, position: shared }), ..Heard::default() };
    let end = loop {
        match timeout(PATIENCE, behind.next()).await.expect("an end in time") {
            Err(end) => break end,
            Ok(_) => continue,
        }
    };
    // It may have delivered the lost ticks before the loss, as any live stream may.
    assert!(matches!(end, LiveError::EpochRenewed | LiveError::EpochChanged(_)), "{end:?}");

    // Both replicas serve the new epoch, without what was lost, and without a restart.
    for replica in [&a, &b] {
        let wait = async {
            while replica.tapes.get().epoch == epoch {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the new epoch");
        let tape = replica.tapes.get();
        assert!(tape.registry.with_symbol(&Symbol::new("LOST").expect("a symbol")).is_empty());
        let view = view_at(replica, shared).await;
        assert_eq!(ticks_of(&view), shared as usize);
        // A cursor of the parent is good up to the fork, and no further.
        let mut resumed = follow(replica, Start::After(Cursor { epoch, position: shared - 1 })).await;
        let mut again = Heard::default();
        assert!(again.until(replica, &mut resumed, shared).await.is_none());
        assert!(again.ticks.keys().copied().eq([shared]));
        let query = replica.query.get();
        query.view(Some(Cursor { epoch, position: shared })).await.expect("a cursor at the fork");
        assert!(query.view(Some(Cursor { epoch, position: shared + 1 })).await.is_err());
    }
    assert_eq!(a.tapes.get().epoch, b.tapes.get().epoch, "one new epoch, whoever began it");
    assert_eq!(world.store.epochs().await.expect("the store answers").len(), 2);

    // Positions go on at the fork, under claims of the new epoch.
    let refused = source.publish(&b, "LOST", 1).await.expect_err("the claim ended with its epoch");
    assert!(
        matches!(refused, IngestError::Fenced | IngestError::Unknown | IngestError::OutOfOrder { .. }),
        "{refused:?}"
    );
    let mut new = follow(&a, Start::After(Cursor { epoch, position: shared })).await;
    let mut source = Source::claim(world, &b, "lost").await;
    assert_eq!(source.claim.last_batch_seq, 0, "the mark of the lost batch is lost with it");
    let receipt = source.publish(&b, "NEW", 3).await.expect("the new claim is good");
    assert_eq!(receipt.cursor, Cursor { epoch: a.tapes.get().epoch, position: shared + 3 });
    assert!(untold.until(&a, &mut new, shared + 3).await.is_none());
    assert!(untold.ticks.values().all(|symbol| symbol == "NEW"));
    assert_eq!(untold.ticks.len(), 3);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_the_store_notices_begins_one_epoch_and_names_what_is_lost() {
    failover(&mut World::new(14), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_only_the_hubs_notice_begins_one_epoch_and_names_what_is_lost() {
    failover(&mut World::new(15), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_history_of_the_same_length_is_found_by_its_chain() {
    let mut world = World::new(16);
    let replica = world.replica().await;
    let shared = load(&world, &replica, "kept", 5).await;
    let standby = world.store.standby();
    let last = load(&world, &replica, "else", 3).await;
    replica.stop().await;
    let other = world.store.standby();
    world.store.promote(standby, None).await;
    // The same positions again, with other ticks, which one replica sees.
    let a = world.replica().await;
    let epoch = a.tapes.get().epoch;
    assert_eq!(load(&world, &a, "lost", 3).await, last);
    view_at(&a, last).await;
    world.store.promote(other, None).await;
    let wait = async {
        while a.tapes.get().epoch == epoch {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the new epoch");
    let start = world.store.epochs().await.expect("the store answers")[0];
    // The hub began behind the fork or at it, and knows for certain what it shares.
    assert_eq!((start.parent, start.fork), (Some(epoch), shared));
    let mut session = follow(&a, Start::After(Cursor { epoch, position: shared })).await;
    let mut heard = Heard::default();
    assert!(heard.until(&a, &mut session, last).await.is_none());
    assert!(heard.ticks.values().all(|symbol| symbol.starts_with("else")), "{heard:?}");
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_upkeep_moves_when_its_holder_is_gone() {
    let mut world = World::new(17);
    world.policy =
        Policy { interval: Duration::from_millis(5), age_cap: Duration::from_millis(50), ..Policy::default() };
    let (a, b) = (world.replica().await, world.replica().await);
    let first = load(&world, &a, "one", 3).await;
    for replica in [&a, &b] {
        while view_at(replica, first).await.hot_ticks() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    a.stop().await;
    let second = load(&world, &b, "two", 3).await;
    world.clock.advance(Duration::from_secs(11));
    let wait = async {
        while view_at(&b, second).await.hot_ticks() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("the other one goes on");
    b.stop().await;
}

/// A store whose appends stand still while the gate is shut.
#[derive(Debug)]
struct Gate(watch::Receiver<bool>);

#[async_trait]
impl Fault for Gate {
    async fn hit(&self, point: &'static str) -> FaultAction {
        if point == faults::APPEND_BEFORE {
            let _ = self.0.clone().wait_for(|open| *open).await;
        }
        FaultAction::Continue
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stands_still_refuses_in_time_and_nothing_else_ends() {
    let mut world = World::new(18);
    let (gate, open) = watch::channel(true);
    let store = MemoryStore::new(world.clock.clone(), Epoch(18)).with_faults(Faults::new(Arc::new(Gate(open))));
    world.store = store;
    let a = world.replica().await;
    let last = load(&world, &a, "before", 3).await;
    let mut session = follow(&a, Start::Live).await;
    let mut sources = Vec::new();
    for number in 0..20 {
        sources.push(Source::claim(&world, &a, &format!("p{number}")).await);
        // Known before, so that nobody waits for a registration.
        sources[number].publish(&a, "SAME", 1).await.expect("the gate is open");
    }
    gate.send_replace(false);
    for _ in 0..2 {
        let begin = Instant::now();
        let mut tasks = Vec::new();
        for source in &mut sources {
            tasks.push(source.publish(&a, "SAME", 1));
        }
        for outcome in futures_util::future::join_all(tasks).await {
            assert!(matches!(outcome, Err(IngestError::Unavailable)), "{outcome:?}");
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    }
    // The stream stays, with progress at what is known; questions are answered.
    let mut heard = Heard::default();
    assert!(heard.until(&a, &mut session, last + 20).await.is_none());
    assert_eq!(view_at(&a, last).await.position(), last + 20);
    gate.send_replace(true);
    // What was given up may have been stored: the same number and content tell. Nothing is stored twice.
    let mut stored = 0;
    for source in &mut sources {
        source.claim = a.ingest.claim(&source.producer).await.expect("the store is back");
        stored += source.claim.last_batch_seq;
        source.publish(&a, "SAME", 1).await.expect("the store is back");
    }
    assert!((20..=60).contains(&stored), "{stored}");
    let position = world.store.head().await.expect("the store answers").position;
    assert_eq!(position, last + stored + 20);
    assert!(heard.until(&a, &mut session, position).await.is_none());
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_slept_longer_than_the_log_is_kept_begins_anew_under_the_same_epoch() {
    let mut world = World::new(19);
    world.policy = Policy {
        interval: Duration::from_millis(5),
        age_cap: Duration::from_millis(20),
        sweep_interval: Duration::from_millis(20),
        log_retention: Duration::ZERO,
        ..Policy::default()
    };
    let b = world.replica().await;
    let plan = Plan::over(std::path::Path::new("nowhere"));
    let sleepy = Stumbling::over(Arc::new(world.store.reopen()), plan.reads());
    let end = world.ether.end();
    let a = world.replica_with(Arc::new(sleepy), end).await;
    let mut session = follow(&a, Start::Live).await;
    let epoch = a.tapes.get().epoch;
    world.ether.silence(true);
    plan.arm(VIEW_LOG, 0, Sin::Fail(u32::MAX));
    let last = load(&world, &b, "b", 10).await;
    let swept = async {
        while world.store.head().await.expect("the store answers").oldest <= last {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, swept).await.expect("the log is swept");
    plan.disarm();
    let view = view_at(&a, last).await;
    assert_eq!((view.epoch(), ticks_of(&view)), (epoch, last as usize));
    // Its streams end, and a new one says that the position is gone.
    let end = Heard::default().until(&a, &mut session, last).await;
    assert!(matches!(end, Some(LiveError::EpochRenewed)), "{end:?}");
    assert_eq!(session.cursor().map(|cursor| cursor.epoch), Some(epoch));
    a.stop().await;
    b.stop().await;
}
