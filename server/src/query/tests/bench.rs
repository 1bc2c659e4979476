//! A replica over any store, whose compactor works when it is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::world::ManualClock;
use crate::bus::LocalBus;
use crate::domain::{Batch, Clock, Epoch};
use crate::ingest::writer::Writer;
use crate::ingest::{Ingest, Sender, Submission};
use crate::metrics::Metrics;
use crate::query::Query;
use crate::store::faults::Faults;
use crate::store::{
    MemoryStore, PostgresOptions, PostgresStore, PostgresUrl, ProducerId, SqliteOptions, SqliteStore, Store,
};
use crate::tape::builder::Builder;
use crate::tape::compactor::{Compactor, Policy};
use crate::tape::feeder::Feeder;
use crate::tape::{Current, HEADER_CACHE_BYTES, Hub, Lineage, Registry, Shelf, Tape, View};

/// Where the log is kept.
pub(super) enum Backing {
    Memory(Arc<MemoryStore>),
    Sqlite(PathBuf, Arc<ManualClock>),
    Postgres(PostgresUrl, Arc<ManualClock>),
}

impl Backing {
    async fn open(&mut self) -> Arc<dyn Store> {
        match self {
            Backing::Memory(store) => {
                *store = Arc::new(store.reopen());
                store.clone()
            }
            Backing::Sqlite(path, clock) => {
                let options = SqliteOptions { clock: clock.clone(), epoch: Epoch(77), faults: Faults::default() };
                SqliteStore::open(path, options).await.unwrap()
            }
            Backing::Postgres(url, clock) => {
                let (clock, faults) = (Some(clock.clone() as Arc<dyn Clock>), Faults::default());
                let options = PostgresOptions { clock, epoch: Epoch(77), seed: 1, faults };
                PostgresStore::open(url, options).await.unwrap()
            }
        }
    }
}

/// A replica over a store.
pub(super) struct Bench {
    pub(super) store: Arc<dyn Store>,
    pub(super) query: Arc<Query>,
    ingest: Ingest,
    pub(super) views: watch::Receiver<Arc<View>>,
    compactor: Compactor,
    pub(super) stop: CancellationToken,
    /// Fence and last number of the producer.
    producer: (u64, u64),
}

impl Bench {
    /// What is hot for longer than `age_cap` is cut.
    pub(super) async fn start(backing: &mut Backing, clock: Arc<ManualClock>, age_cap: Duration) -> Bench {
        let store = backing.open().await;
        let (stop, bus, metrics) = (CancellationToken::new(), Arc::new(LocalBus::new()), Metrics::new());
        let registry = Arc::new(Registry::load(store.clone()).await.unwrap());
        let head = store.head().await.unwrap();
        let hub = Arc::new(Hub::new(&head, 1 << 20));
        let announcements = crate::bus::Bus::subscribe(&*bus);
        let (metrics_of_feeder, bus_of_feeder) = (metrics.clone(), bus.clone());
        let feeder = Feeder {
            hub: hub.clone(),
            store: store.clone(),
            bus: bus_of_feeder,
            announcements,
            registry: registry.clone(),
            metrics: metrics_of_feeder,
        };
        tokio::spawn(feeder.run(stop.clone()));
        let changed = Arc::new(tokio::sync::Notify::new());
        let shelf = Shelf::new(HEADER_CACHE_BYTES);
        let counts = metrics.clone();
        let builder =
            Builder::open(store.clone(), hub.clone(), registry.clone(), shelf.clone(), changed.clone(), counts);
        let builder = builder.await.unwrap();
        let views = builder.views();
        tokio::spawn(builder.run(stop.clone()));
        let policy = Policy { log_retention: Duration::from_secs(1), age_cap, ..Policy::default() };
        let compactor = Compactor::new(store.clone(), views.clone(), changed, clock.clone(), policy, metrics.clone());
        let lineage = Arc::new(Lineage::load(&*store).await.unwrap());
        let query = Query::new(views.clone(), registry.clone(), store.clone(), clock.clone(), 1 << 20, metrics.clone());
        let tape = Tape { epoch: head.epoch, lineage, registry, hub, shelf, views: views.clone() };
        let random = SmallRng::seed_from_u64(1);
        let writer = Writer { store: store.clone(), bus, clock, random, unanswered: false, metrics };
        let (ingest, _) = writer.start(Current::from(Arc::new(tape)), usize::MAX, stop.clone());
        let claim = ingest.claim(&ProducerId::new("p").unwrap()).await.unwrap();
        let producer = (claim.fence, claim.last_batch_seq);
        Bench { store, query: Arc::new(query), ingest, views, compactor, stop, producer }
    }

    /// Stores a batch; returns the position of its first entry when queries see it.
    pub(super) async fn submit(&mut self, batch: Batch, backfill: bool) -> u64 {
        let (fence, last) = &mut self.producer;
        *last += 1;
        let count = batch.entry_count() as u64;
        let sender = Sender::Producer { producer: ProducerId::new("p").unwrap(), fence: *fence, batch_seq: *last };
        let receipt = self.ingest.submit(Submission { batch, sender, backfill }).await.unwrap().await.unwrap().unwrap();
        let reached = self.views.wait_for(|view| view.position() >= receipt.cursor.position);
        tokio::time::timeout(Duration::from_secs(5), reached).await.unwrap().unwrap();
        receipt.cursor.position + 1 - count
    }

    pub(super) async fn compact(&mut self) {
        while self.compactor.round().await.unwrap() {}
    }
}
