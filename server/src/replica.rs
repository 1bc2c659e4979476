//! One replica: the moving parts over a store and a bus, in the order in which they start and stop.
//!
//! What a replica knows of the log belongs to one epoch: an [`Era`]. One task keeps the current era; when the log goes on
//! as another one, it makes the next era from nothing, swaps it in for queries, streams and writes, and ends the old
//! one's streams. The writer and the bus outlive the eras: each batch names the epoch that its instruments are of.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::bus::redis::LatestPrices;
use crate::domain::{Clock, Epoch};
use crate::ingest::Ingest;
use crate::ingest::writer::Writer;
use crate::live::{Live, MOST_INSTRUMENTS};
use crate::metrics::Metrics;
use crate::query::Query;
use crate::store::{LogHead, ReplicaId, Store, StoreError};
use crate::tape::builder::Builder;
use crate::tape::compactor::{Compactor, Policy};
use crate::tape::feeder::{FeedEnd, Feeder};
use crate::tape::hub::Successor;
use crate::tape::latest::LatestWriter;
use crate::tape::recorder::Recorder;
use crate::tape::{Current, Hub, Lineage, Registry, Shelf, Tape};

/// Bytes of blocks that the hub keeps for readers that lag, unless told otherwise.
pub const HUB_BYTES: usize = 64 << 20;

/// Ticks that may wait for compaction before writes are refused, unless told otherwise: about 1 GiB of memory.
pub const HOT_TICK_LIMIT: usize = 8_000_000;

/// How often the first era is tried: other replicas may sweep the log, or begin an epoch, while it is read.
const START_ATTEMPTS: u32 = 5;

/// How long to wait before the next era is tried again.
const ERA_WAIT: Duration = Duration::from_millis(250);

/// What a replica is made from.
#[derive(Debug)]
pub struct Parts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The hint.
    pub bus: Arc<dyn Bus>,
    /// Where latest prices are shown to other programs, if anywhere.
    pub prices: Option<LatestPrices>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Seeds jitter, the names of new epochs, and the replica's own. No two replicas may have the same.
    pub seed: u64,
    /// When what is compacted.
    pub policy: Policy,
    /// Bytes of blocks that the hub keeps.
    pub hub_bytes: usize,
    /// Ticks that may wait for compaction.
    pub hot_tick_limit: usize,
    /// Memory for chunks that are asked for again and again.
    pub chunk_cache_bytes: u64,
    /// Memory for what is known of chunks without reading them.
    pub header_cache_bytes: u64,
    /// Whether final bars are kept in a table, too.
    pub bars_table: bool,
    /// Counts.
    pub metrics: Metrics,
}

/// A running replica.
#[derive(Debug)]
pub struct Replica {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// What is known of the current epoch.
    pub tapes: Current<Tape>,
    /// The door of the log.
    pub ingest: Ingest,
    /// Answers.
    pub query: Current<Query>,
    /// Subscriptions.
    pub live: Current<Live>,
    /// Cancel it to end every stream with its cursor.
    pub draining: CancellationToken,
    stop_writing: CancellationToken,
    stop: CancellationToken,
    writer: JoinHandle<()>,
    keeper: JoinHandle<()>,
}

impl Replica {
    /// Reads what the store has and starts every task. Returns when the first view is complete.
    pub async fn start(parts: Parts) -> Result<Replica, StoreError> {
        let Parts { store, bus, prices, clock, seed, policy, .. } = parts;
        let Parts { hub_bytes, hot_tick_limit, chunk_cache_bytes, header_cache_bytes, bars_table, metrics, .. } = parts;
        let mut random = SmallRng::seed_from_u64(seed);
        let (draining, stop_writing, stop) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let ground = Ground {
            store: store.clone(),
            bus: bus.clone(),
            prices,
            clock: clock.clone(),
            id: ReplicaId(random.random()),
            policy,
            hub_bytes,
            chunk_cache_bytes,
            header_cache_bytes,
            bars_table,
            draining: draining.clone(),
            metrics: metrics.clone(),
        };
        let mut attempt = 1;
        let era = loop {
            match ground.begin(&mut random).await {
                Ok(era) => break era,
                Err(error) if attempt == START_ATTEMPTS => return Err(error),
                Err(error) => tracing::debug!(%error, "the log moved while it was read"),
            }
            attempt += 1;
        };
        let (tape_sender, tapes) = Current::begin(Arc::new(era.tape.clone()));
        let (query_sender, query) = Current::begin(era.query.clone());
        let (live_sender, live) = Current::begin(era.live.clone());
        let writer = Writer {
            store: store.clone(),
            bus,
            clock,
            random: SmallRng::from_rng(&mut random),
            unanswered: false,
            metrics,
        };
        let (ingest, writer) = writer.start(tapes.clone(), hot_tick_limit, stop_writing.clone());
        let keeper = Keeper { ground, era, random, tapes: tape_sender, queries: query_sender, lives: live_sender };
        let keeper = tokio::spawn(keeper.run(stop.clone()));
        Ok(Replica { store, tapes, ingest, query, live, draining, stop_writing, stop, writer, keeper })
    }

    /// Ends streams, stores and answers what is queued, stops every task, and closes the store.
    pub async fn stop(self) {
        self.draining.cancel();
        self.stop_writing.cancel();
        let _ = self.writer.await;
        self.stop.cancel();
        let _ = self.keeper.await;
        self.store.close().await;
    }
}

/// What every era stands on.
#[derive(Debug)]
struct Ground {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    prices: Option<LatestPrices>,
    clock: Arc<dyn Clock>,
    id: ReplicaId,
    policy: Policy,
    hub_bytes: usize,
    chunk_cache_bytes: u64,
    header_cache_bytes: u64,
    bars_table: bool,
    draining: CancellationToken,
    metrics: Metrics,
}

/// Everything that belongs to one epoch.
#[derive(Debug)]
struct Era {
    /// The log's head when it was read.
    head: LogHead,
    tape: Tape,
    query: Arc<Query>,
    live: Arc<Live>,
    stop: CancellationToken,
    feeder: JoinHandle<FeedEnd>,
    builder: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Ground {
    /// Reads the log as it is now, and starts what follows it.
    async fn begin(&self, random: &mut SmallRng) -> Result<Era, StoreError> {
        let Ground { store, bus, clock, metrics, .. } = self;
        let registry = Arc::new(Registry::load(store.clone()).await?);
        // Listening before the head is read: a commit between the two is announced, not missed.
        let announcements = bus.subscribe();
        let manifests = bus.manifests();
        let head = store.head().await?;
        let lineage = Arc::new(Lineage::load(&**store).await?);
        if lineage.newest().is_some_and(|newest| newest.epoch != head.epoch) {
            return Err(StoreError::EpochChanged(head.epoch));
        }
        bus.follow(head.epoch);
        let stop = CancellationToken::new();
        let hub = Arc::new(Hub::new(&head, self.hub_bytes));
        let feeder = Feeder {
            hub: hub.clone(),
            store: store.clone(),
            bus: bus.clone(),
            announcements,
            registry: registry.clone(),
            metrics: metrics.clone(),
        };
        let mut feeder = tokio::spawn(feeder.run(stop.clone()));
        let unfinished = stop.clone().drop_guard();
        let manifest_changed = Arc::new(Notify::new());
        let (changed, counts) = (manifest_changed.clone(), metrics.clone());
        let shelf = Shelf::new(self.header_cache_bytes);
        let builder = Builder::open(store.clone(), hub.clone(), registry.clone(), shelf.clone(), changed, counts);
        let builder = tokio::select! {
            biased;
            opened = builder => opened?.hearing(manifests),
            end = &mut feeder => {
                self.settle(end.unwrap_or(FeedEnd::Behind), random).await?;
                return Err(StoreError::EpochChanged(head.epoch));
            }
        };
        unfinished.disarm();
        let views = builder.views();
        let (policy, counts) = (self.policy, metrics.clone());
        let compactor = Compactor::new(store.clone(), views.clone(), manifest_changed, clock.clone(), policy, counts)
            .shared(self.id, bus.clone())
            .telling(hub.clone());
        let tape = Tape { epoch: head.epoch, lineage, registry, hub, shelf, views };
        let Tape { lineage, registry, hub, views, .. } = tape.clone();
        let (store, clock) = (store.clone(), clock.clone());
        let query = Query::new(views, registry, store.clone(), clock.clone(), self.chunk_cache_bytes, metrics.clone());
        let query = Arc::new(query.descending(lineage.clone()));
        let live = Live {
            hub,
            store: store.clone(),
            lineage,
            registry: tape.registry.clone(),
            views: tape.views.clone(),
            newest: query.clone(),
            bars: query.clone(),
            clock,
            draining: self.draining.clone(),
            most_instruments: MOST_INSTRUMENTS,
            metrics: metrics.clone(),
        };
        let mut tasks = vec![tokio::spawn(compactor.run(stop.clone()))];
        if self.bars_table {
            let recorder = Recorder::new(tape.clone(), store.clone(), query.clone(), metrics.clone());
            tasks.push(tokio::spawn(recorder.run(stop.clone())));
        }
        if let Some(prices) = &self.prices {
            let latest = LatestWriter::new(tape.clone(), store, prices.again());
            tasks.push(tokio::spawn(latest.run(stop.clone())));
        }
        let builder = tokio::spawn(builder.run(stop.clone()));
        Ok(Era { head, tape, query, live: Arc::new(live), stop, feeder, builder, tasks })
    }

    /// After a loss, the first transaction begins a new epoch that says what is lost. Another replica may have been
    /// first: then nothing happens.
    async fn settle(&self, end: FeedEnd, random: &mut SmallRng) -> Result<(), StoreError> {
        if let FeedEnd::OtherLog { common } = end {
            let epoch = Epoch(random.random_range(1..=u64::MAX));
            let head = self.store.fork_epoch(epoch, common).await?;
            tracing::warn!(epoch = %head.epoch, position = head.position, "the log has a new epoch");
        }
        Ok(())
    }
}

/// Owns the current era.
struct Keeper {
    ground: Ground,
    era: Era,
    random: SmallRng,
    tapes: watch::Sender<Arc<Tape>>,
    queries: watch::Sender<Arc<Query>>,
    lives: watch::Sender<Arc<Live>>,
}

impl Keeper {
    /// Replaces the era whenever it has to be. Ends when `stop` is cancelled, with the era.
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let end = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                end = &mut self.era.feeder => end.unwrap_or(FeedEnd::Behind),
                _ = &mut self.era.builder => FeedEnd::Behind,
            };
            self.era.stop.cancel();
            let Some(next) = stop.run_until_cancelled(self.next(end)).await else { break };
            // First the new one for whoever comes, then the end for those who were there: they may come at once.
            self.tapes.send_replace(Arc::new(next.tape.clone()));
            self.queries.send_replace(next.query.clone());
            self.lives.send_replace(next.live.clone());
            let last = std::mem::replace(&mut self.era, next);
            let successor = Successor { head: self.era.head, lineage: Lineage::clone(&self.era.tape.lineage) };
            last.tape.hub.end(successor);
            for task in last.tasks {
                let _ = task.await;
            }
        }
        self.era.stop.cancel();
        for task in self.era.tasks {
            let _ = task.await;
        }
        // Either may have ended before, which is why the era did.
        if !self.era.builder.is_finished() {
            let _ = self.era.builder.await;
        }
        if !self.era.feeder.is_finished() {
            let _ = self.era.feeder.await;
        }
    }

    /// The next era, however long the store takes.
    async fn next(&mut self, end: FeedEnd) -> Era {
        loop {
            let begun = match self.ground.settle(end, &mut self.random).await {
                Ok(()) => self.ground.begin(&mut self.random).await,
                Err(error) => Err(error),
            };
            match begun {
                Ok(era) => return era,
                Err(error) => tracing::warn!(%error, "the log cannot be read anew yet; answers stay as they were"),
            }
            tokio::time::sleep(ERA_WAIT).await;
        }
    }
}
