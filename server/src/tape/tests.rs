//! The whole floor over the in-memory store: writer, hub, builder and compactor against what was sent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::compactor::{Compactor, Policy};
use super::feeder::Feeder;
use super::{Current, Follower, Hub, Lineage, Registry, Shelf, Tape, View, builder::Builder};
use crate::bus::{Announcement, Bus, BusState, LocalBus, ManifestNews};
use crate::domain::chunk::{self, CHUNK_TICKS};
use crate::domain::{
    Action, Batch, Clock, Cursor, Epoch, InstrumentId, NewTick, Side, Symbol, Tick, TradeId, UnixNanos, Venue,
};
use crate::ingest::writer::Writer;
use crate::ingest::{Ingest, Sender, Submission};
use crate::store::{MemoryStore, ProducerId, Store};

const DAY: i64 = crate::domain::time::NANOS_PER_DAY;

#[derive(Debug)]
struct ManualClock(AtomicI64);

impl Clock for ManualClock {
    fn now(&self) -> UnixNanos {
        UnixNanos::new(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

/// Loses, repeats and reorders.
#[derive(Debug)]
struct BadBus {
    inner: LocalBus,
    state: Mutex<(SmallRng, Vec<Announcement>)>,
}

impl Bus for BadBus {
    fn announce(&self, announcement: Announcement) {
        let mut state = self.state.lock().unwrap();
        match state.0.random_range(0..6) {
            0 => (),
            1 => state.1.push(announcement),
            2 => {
                self.inner.announce(announcement.clone());
                self.inner.announce(announcement);
            }
            _ => {
                self.inner.announce(announcement);
                for early in std::mem::take(&mut state.1) {
                    self.inner.announce(early);
                }
            }
        }
    }

    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Announcement> {
        self.inner.subscribe()
    }

    fn announce_manifest(&self, _: ManifestNews) {}

    fn manifests(&self) -> watch::Receiver<Option<ManifestNews>> {
        self.inner.manifests()
    }

    fn state(&self) -> BusState {
        self.inner.state()
    }
}

struct Stack {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    hub: Arc<Hub>,
    ingest: Ingest,
    views: watch::Receiver<Arc<View>>,
    compactor: Compactor,
    stop: CancellationToken,
}

impl Stack {
    async fn start(store: Arc<MemoryStore>, clock: Arc<ManualClock>, bus: Arc<dyn Bus>, hub_bytes: usize) -> Stack {
        let stop = CancellationToken::new();
        let dynamic: Arc<dyn Store> = store.clone();
        let registry = Arc::new(Registry::load(dynamic.clone()).await.unwrap());
        let announcements = bus.subscribe();
        let head = store.head().await.unwrap();
        let hub = Arc::new(Hub::new(&head, hub_bytes));
        let feeder = Feeder {
            hub: hub.clone(),
            store: dynamic.clone(),
            bus: bus.clone(),
            announcements,
            registry: registry.clone(),
            metrics: crate::metrics::Metrics::new(),
        };
        tokio::spawn(feeder.run(stop.clone()));
        let changed = Arc::new(Notify::new());
        let counts = crate::metrics::Metrics::new();
        let shelf = Shelf::new(16 << 10);
        let builder =
            Builder::open(dynamic.clone(), hub.clone(), registry.clone(), shelf.clone(), changed.clone(), counts);
        let builder = builder.await.unwrap();
        let views = builder.views();
        tokio::spawn(builder.run(stop.clone()));
        let policy = Policy::default();
        let metrics = crate::metrics::Metrics::new();
        let compactor = Compactor::new(dynamic.clone(), views.clone(), changed, clock.clone(), policy, metrics.clone());
        let lineage = Arc::new(Lineage::load(&*dynamic).await.unwrap());
        let tape = Tape { epoch: head.epoch, lineage, registry, hub: hub.clone(), shelf, views: views.clone() };
        let random = SmallRng::seed_from_u64(1);
        let writer = Writer { store: dynamic, bus, clock: clock.clone(), random, unanswered: false, metrics };
        let (ingest, _) = writer.start(Current::from(Arc::new(tape)), usize::MAX, stop.clone());
        Stack { store, clock, hub, ingest, views, compactor, stop }
    }

    async fn view_at(&mut self, position: u64) -> Arc<View> {
        let reached = self.views.wait_for(|view| view.position() >= position);
        tokio::time::timeout(Duration::from_secs(5), reached).await.unwrap().unwrap().clone()
    }

    async fn compact(&mut self) {
        while self.compactor.round().await.unwrap() {}
    }
}

/// Random ticks: several instruments, mostly forward in time, some late, over a few days.
fn batch(random: &mut SmallRng, now: &mut i64, count: usize) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..count {
        let name = (
            Venue::new(if random.random() { "A" } else { "B" }).unwrap(),
            Symbol::new(&format!("S{}", random.random_range(0..3))).unwrap(),
        );
        let index = batch.instruments.iter().position(|known| *known == name).unwrap_or_else(|| {
            batch.instruments.push(name);
            batch.instruments.len() - 1
        });
        *now += random.random_range(0..20_000_000_000);
        let late = if random.random_bool(0.02) { random.random_range(0..DAY) } else { 0 };
        batch.ticks.push(NewTick {
            instrument: index as u32,
            event_time: UnixNanos::new(*now - late).unwrap(),
            receive_time: None,
            price: crate::domain::Decimal::new(random.random_range(-50..50_000), -2).unwrap(),
            quantity: None,
            side: Side::Buy,
            trade_id: TradeId::Number(random.random()),
            action: Action::New,
        });
    }
    batch
}

/// Every tick of a view, from chunks and hot lists, and the rules that its chunks keep.
async fn contents(store: &MemoryStore, view: &View) -> BTreeMap<u64, Tick> {
    let mut ticks = BTreeMap::new();
    for (instrument, holding) in view.holdings() {
        let ordinary: Vec<_> = holding.chunks.iter().collect();
        for pair in ordinary.windows(2) {
            assert!(pair[0].last_key() < pair[1].first_key(), "ordinary chunks are disjoint and ascending");
        }
        for chunk in ordinary.iter().chain(holding.late.iter()) {
            let bytes = store.chunk_bytes(&[chunk.id]).await.unwrap().remove(0).1;
            let decoded = chunk::decode(&bytes, instrument).unwrap();
            for index in 0..decoded.len() {
                let tick = decoded.tick(index);
                assert_eq!(tick.event_time.day(), chunk.day);
                assert!((chunk.min_seq..=chunk.max_seq).contains(&tick.log_seq));
                assert!(ticks.insert(tick.log_seq, tick).is_none(), "a tick stands in one place");
            }
        }
        for tick in holding.hot_ticks() {
            assert!(tick.log_seq > holding.compacted);
            assert!(ticks.insert(tick.log_seq, tick.clone()).is_none(), "a tick stands in one place");
        }
    }
    ticks
}

#[tokio::test]
async fn what_was_sent_is_in_the_view_through_compaction_merges_and_restarts() {
    let clock = Arc::new(ManualClock(AtomicI64::new(1_000 * DAY)));
    let store = Arc::new(MemoryStore::new(clock.clone(), Epoch(7)));
    let mut stack = Stack::start(store, clock, Arc::new(LocalBus::new()), 1 << 20).await;
    let mut random = SmallRng::seed_from_u64(3);
    let producer = ProducerId::new("p").unwrap();
    let mut now = 990 * DAY;
    let mut sent: BTreeMap<u64, (UnixNanos, TradeId)> = BTreeMap::new();
    let (mut batch_seq, mut claim) = (0, stack.ingest.claim(&producer).await.unwrap());
    for round in 0..12 {
        for _ in 0..30 {
            batch_seq += 1;
            let count = random.random_range(1..400);
            let batch = batch(&mut random, &mut now, count);
            let identities: Vec<_> = batch.ticks.iter().map(|tick| (tick.event_time, tick.trade_id.clone())).collect();
            let sender = Sender::Producer { producer: producer.clone(), fence: claim.fence, batch_seq };
            let submission = Submission { batch, sender, backfill: false };
            let receipt = stack.ingest.submit(submission).await.unwrap().await.unwrap().unwrap();
            assert!(!receipt.duplicate);
            let first = receipt.cursor.position + 1 - identities.len() as u64;
            sent.extend(identities.into_iter().enumerate().map(|(index, identity)| (first + index as u64, identity)));
        }
        // Rounds: full chunks only, then aged remainders, then merged days, then a restart.
        let step = [0, 2 * 3_600_000_000_000, 20 * 60_000_000_000, 3 * 3_600_000_000_000][round % 4];
        stack.view_at(sent.len() as u64).await;
        stack.compact().await;
        stack.clock.0.fetch_add(step, Ordering::SeqCst);
        stack.compact().await;
        if round % 4 == 3 {
            stack.stop.cancel();
            let store = Arc::new(stack.store.reopen());
            stack = Stack::start(store, stack.clock.clone(), Arc::new(LocalBus::new()), 1 << 20).await;
            claim = stack.ingest.claim(&producer).await.unwrap();
            assert_eq!(claim.last_batch_seq, batch_seq);
        }
        let view = stack.view_at(sent.len() as u64).await;
        let contents = contents(&stack.store, &view).await;
        let found: BTreeMap<_, _> =
            contents.into_iter().map(|(seq, tick)| (seq, (tick.event_time, tick.trade_id))).collect();
        assert!(found == sent, "round {round}");
        for (_, holding) in view.holdings() {
            for day in holding.late.iter().map(|chunk| chunk.day) {
                assert!(holding.late.iter().filter(|chunk| chunk.day == day).count() <= 9);
            }
        }
    }
    // A quiet day later everything is tidy: nothing late, and no two neighbours that fit one chunk.
    stack.clock.0.fetch_add(2 * DAY, Ordering::SeqCst);
    stack.compact().await;
    stack.clock.0.fetch_add(DAY, Ordering::SeqCst);
    stack.compact().await;
    let view = stack.view_at(sent.len() as u64).await;
    assert_eq!(view.hot_ticks(), 0);
    for (_, holding) in view.holdings() {
        assert!(holding.late.is_empty());
        let ordinary: Vec<_> = holding.chunks.iter().collect();
        for pair in ordinary.windows(2).filter(|pair| pair[0].day == pair[1].day) {
            assert!(pair[0].tick_count() + pair[1].tick_count() > CHUNK_TICKS);
        }
    }
    assert_eq!(contents(&stack.store, &view).await.len(), sent.len());
}

#[tokio::test]
async fn a_bus_that_loses_repeats_and_reorders_changes_nothing() {
    let clock = Arc::new(ManualClock(AtomicI64::new(1_000 * DAY)));
    let store = Arc::new(MemoryStore::new(clock.clone(), Epoch(7)));
    let bus = BadBus { inner: LocalBus::new(), state: Mutex::new((SmallRng::seed_from_u64(5), Vec::new())) };
    // A hub of few blocks, so that followers also read the store.
    let mut stack = Stack::start(store, clock, Arc::new(bus), 64 << 10).await;
    let start = Cursor { epoch: Epoch(7), position: 0 };
    let dynamic: Arc<dyn Store> = stack.store.clone();
    let follow = |pause: u64| {
        let mut follower = Follower::new(stack.hub.clone(), dynamic.clone(), start, 1 << 20);
        tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.last() < Some(&40_000) {
                let after = follower.position().position;
                for block in follower.next().await.unwrap().blocks {
                    seen.extend(block.entries.ticks.iter().map(|tick| tick.log_seq).filter(|seq| *seq > after));
                }
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            seen
        })
    };
    let followers = [follow(0), follow(3)];
    let mut random = SmallRng::seed_from_u64(9);
    let producer = ProducerId::new("p").unwrap();
    let claim = stack.ingest.claim(&producer).await.unwrap();
    let mut now = 990 * DAY;
    let mut receipts = Vec::new();
    for batch_seq in 1..=400 {
        let sender = Sender::Producer { producer: producer.clone(), fence: claim.fence, batch_seq };
        let batch = batch(&mut random, &mut now, 100);
        receipts.push(stack.ingest.submit(Submission { batch, sender, backfill: false }).await.unwrap());
    }
    for receipt in receipts {
        receipt.await.unwrap().unwrap();
    }
    let expected: Vec<u64> = (1..=40_000).collect();
    for follower in followers {
        assert!(tokio::time::timeout(Duration::from_secs(20), follower).await.unwrap().unwrap() == expected);
    }
    let view = stack.view_at(40_000).await;
    assert_eq!(contents(&stack.store, &view).await.len(), 40_000);
    assert!(view.holding(InstrumentId(1)).is_some());
}

/// A store whose ticks are all in chunks, of which a standby has none, and lacks `lost` batches of the log. The standby
/// takes over, and nobody says so.
async fn without_manifest(lost: u64) -> (Stack, usize) {
    let clock = Arc::new(ManualClock(AtomicI64::new(1_000 * DAY)));
    let store = Arc::new(MemoryStore::new(clock.clone(), Epoch(7)));
    let mut stack = Stack::start(store, clock, Arc::new(LocalBus::new()), 1 << 20).await;
    let (mut random, mut now) = (SmallRng::seed_from_u64(4), 990 * DAY);
    let producer = ProducerId::new("p").unwrap();
    let claim = stack.ingest.claim(&producer).await.unwrap();
    let (mut standby, mut sent) = (None, 0);
    for batch_seq in 1..=9 {
        if batch_seq == 10 - lost {
            standby = Some(stack.store.standby());
        }
        let batch = batch(&mut random, &mut now, 500);
        let sender = Sender::Producer { producer: producer.clone(), fence: claim.fence, batch_seq };
        let submission = Submission { batch, sender, backfill: false };
        sent = stack.ingest.submit(submission).await.unwrap().await.unwrap().unwrap().cursor.position;
    }
    let standby = standby.unwrap_or_else(|| stack.store.standby());
    stack.view_at(sent).await;
    stack.compact().await;
    stack.clock.0.fetch_add(2 * 3_600_000_000_000, Ordering::SeqCst);
    stack.compact().await;
    assert_eq!(stack.views.borrow().hot_ticks(), 0);
    stack.store.promote(standby, None).await;
    // Longer than the manifest goes unread.
    tokio::time::sleep(Duration::from_secs(5)).await;
    (stack, sent as usize)
}

#[tokio::test(start_paused = true)]
async fn a_view_keeps_what_it_has_when_a_standby_without_the_newest_commits_takes_over() {
    let (stack, sent) = without_manifest(3).await;
    let view = stack.views.borrow().clone();
    let held = |holding: &super::Holding| {
        holding.chunks.iter().chain(holding.late.iter().cloned()).map(|chunk| chunk.tick_count()).sum::<usize>()
            + holding.hot_count()
    };
    assert_eq!(view.holdings().map(|(_, holding)| held(holding)).sum::<usize>(), sent, "no answer has a hole");
    assert!(stack.views.has_changed().is_ok(), "the feeder ends the epoch, not the builder");
}

#[tokio::test(start_paused = true)]
async fn a_view_is_made_anew_when_only_chunks_are_lost() {
    let (stack, _) = without_manifest(0).await;
    assert!(stack.views.has_changed().is_err(), "the builder has ended, and its replica begins again");
}
