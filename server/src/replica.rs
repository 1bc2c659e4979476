//! One replica: the moving parts over a store and a bus, in the order in which they start and stop.

use std::sync::Arc;

use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::domain::Clock;
use crate::ingest::Ingest;
use crate::ingest::writer::Writer;
use crate::live::{Live, MOST_INSTRUMENTS};
use crate::metrics::Metrics;
use crate::query::{CHUNK_CACHE_BYTES, Query};
use crate::store::{Store, StoreError};
use crate::tape::builder::Builder;
use crate::tape::compactor::{Compactor, Policy};
use crate::tape::hub::Feeder;
use crate::tape::{Hub, Registry, View};

/// Bytes of blocks that the hub keeps for readers that lag, unless told otherwise.
pub const HUB_BYTES: usize = 64 << 20;

/// Ticks that may wait for compaction before writes are refused, unless told otherwise: about 1 GiB of memory.
pub const HOT_TICK_LIMIT: usize = 8_000_000;

/// What a replica is made from.
#[derive(Debug)]
pub struct Parts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The hint.
    pub bus: Arc<dyn Bus>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Seeds jitter.
    pub seed: u64,
    /// When what is compacted.
    pub policy: Policy,
    /// Bytes of blocks that the hub keeps.
    pub hub_bytes: usize,
    /// Ticks that may wait for compaction.
    pub hot_tick_limit: usize,
    /// Counts.
    pub metrics: Metrics,
}

/// A running replica.
#[derive(Debug)]
pub struct Replica {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// Instruments by name and number.
    pub registry: Arc<Registry>,
    /// The newest blocks.
    pub hub: Arc<Hub>,
    /// The views, newest last.
    pub views: watch::Receiver<Arc<View>>,
    /// The door of the log.
    pub ingest: Ingest,
    /// Answers.
    pub query: Arc<Query>,
    /// Subscriptions.
    pub live: Live,
    /// Cancel it to end every stream with its cursor.
    pub draining: CancellationToken,
    stop_writing: CancellationToken,
    stop: CancellationToken,
    writer: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Replica {
    /// Reads what the store has and starts every task. Returns when the first view is complete.
    pub async fn start(parts: Parts) -> Result<Replica, StoreError> {
        let Parts { store, bus, clock, seed, policy, hub_bytes, hot_tick_limit, metrics } = parts;
        let (draining, stop_writing, stop) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let registry = Arc::new(Registry::load(store.clone()).await?);
        // Listening before the head is read: a commit between the two is announced, not missed.
        let announcements = bus.subscribe();
        let head = store.head().await?;
        let hub = Arc::new(Hub::new(&head, hub_bytes));
        let feeder = Feeder {
            hub: hub.clone(),
            store: store.clone(),
            announcements,
            registry: registry.clone(),
            metrics: metrics.clone(),
        };
        let manifest_changed = Arc::new(Notify::new());
        let builder = Builder::open(store.clone(), hub.clone(), manifest_changed.clone(), metrics.clone()).await?;
        let views = builder.views();
        let compactor =
            Compactor::new(store.clone(), views.clone(), manifest_changed, clock.clone(), policy, metrics.clone());
        let writer = Writer {
            store: store.clone(),
            bus,
            clock: clock.clone(),
            random: SmallRng::seed_from_u64(seed),
            epoch: head.epoch,
            metrics: metrics.clone(),
        };
        let (ingest, writer) = writer.start(registry.clone(), views.clone(), hot_tick_limit, stop_writing.clone());
        let query = Arc::new(Query::new(
            views.clone(),
            registry.clone(),
            store.clone(),
            clock.clone(),
            CHUNK_CACHE_BYTES,
            metrics.clone(),
        ));
        let live = Live {
            hub: hub.clone(),
            store: store.clone(),
            registry: registry.clone(),
            views: views.clone(),
            newest: query.clone(),
            clock,
            draining: draining.clone(),
            most_instruments: MOST_INSTRUMENTS,
            metrics,
        };
        let tasks = vec![
            tokio::spawn(feeder.run(stop.clone())),
            tokio::spawn(builder.run(stop.clone())),
            tokio::spawn(compactor.run(stop.clone())),
        ];
        Ok(Replica { store, registry, hub, views, ingest, query, live, draining, stop_writing, stop, writer, tasks })
    }

    /// Ends streams, stores and answers what is queued, stops every task, and closes the store.
    pub async fn stop(self) {
        self.draining.cancel();
        self.stop_writing.cancel();
        let _ = self.writer.await;
        self.stop.cancel();
        for task in self.tasks {
            let _ = task.await;
        }
        self.store.close().await;
    }
}
