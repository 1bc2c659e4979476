//! The whole server in one place: what is made from what, in which order it starts, and in which it stops.
//!
//! The only module that names concrete backends, and the only reader of the system's clock. [`App::start`] is the
//! assembly; [`crate::shutdown`] has the order of the end.

mod disk;
mod monitor;
mod process;
mod scrape;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::accept::{self, Listener};
use crate::bus::redis::LatestPrices;
use crate::bus::{Bus, LocalBus, RedisBus, RedisUrlInvalid};
use crate::config::{BusUrl, ServeConfig, StoreUrl};
use crate::domain::{Clock, Epoch, UnixNanos};
use crate::grpc::health::Health;
use crate::grpc::history_service::HistoryService;
use crate::grpc::ingest_service::IngestService;
use crate::grpc::ingest_service::publish_ticks::Publishing;
use crate::grpc::instrument_service::InstrumentService;
use crate::grpc::layers::guard::Ends;
use crate::grpc::limits::MAX_RESPONSE_BYTES;
use crate::grpc::live_service::LiveService;
use crate::grpc::proto::instrument_service_server::InstrumentServiceServer;
use crate::ingest::feed::{self, demo::DemoOptions};
use crate::ingest::import::{self, Imports, ImportsConfig};
use crate::metrics::Metrics;
use crate::replica::{HOT_TICK_LIMIT, HUB_BYTES, Parts, Replica};
use crate::shutdown::{Shutdown, Times};
use crate::store::faults::Faults;
use crate::store::{
    OpenError, PostgresOpenError, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore, Store, StoreError,
};
use crate::tape::compactor::Policy;
use crate::{grpc, http};
use disk::Disk;
use monitor::Monitor;
use scrape::Scrape;
use std::path::PathBuf;

/// Why the server does not start. Each message says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another program listens there.
    #[error("{0} is in use by another program: stop that one, or give another address with --listen")]
    AddressInUse(SocketAddr),
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {problem}; give another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database does not open.
    #[error(transparent)]
    OpenPostgres(#[from] PostgresOpenError),
    /// The store opens, but cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Uploads have no place to wait.
    #[error("the folder {folder} for uploads cannot be made: {problem}", folder = folder.display())]
    Spool {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The bus has no address.
    #[error(transparent)]
    Bus(#[from] RedisUrlInvalid),
    /// There is no store to work on.
    #[error("{0} does not exist: give the file of a store with --store")]
    NoStore(String),
    /// The program was built wrong.
    #[error(transparent)]
    Descriptors(#[from] grpc::DescriptorsBroken),
}

/// The system's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that is passed in everywhere else")]
    fn now(&self) -> UnixNanos {
        // A clock before 1970 or after 2262 is not set: the nearest end keeps the server up, and its ticks say so.
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixNanos::MIN.saturating_add(since)
    }
}

/// What comes from outside the configuration, so that tests can bring their own.
#[derive(Debug)]
pub struct Outside {
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// What every random number of this process is drawn from.
    pub seed: u64,
    /// When the steps of the end happen.
    pub times: Times,
    /// Counts; whoever has more to expose adds it before the start.
    pub metrics: Metrics,
}

impl Outside {
    /// The system's clock and randomness.
    pub fn system() -> Outside {
        Outside { clock: Arc::new(SystemClock), seed: rand::random(), times: Times::default(), metrics: Metrics::new() }
    }
}

/// A running server.
#[derive(Debug)]
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    /// Cancel `shutdown.asked` to stop it.
    pub shutdown: Shutdown,
    /// What the store holds, for people.
    pub store: StoreSummary,
    ended: JoinHandle<()>,
}

/// What the store held when the server started.
#[derive(Clone, Debug)]
pub struct StoreSummary {
    /// Where it is.
    pub place: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// Entries that the log ever had.
    pub entries: u64,
    /// Instruments that it knows.
    pub instruments: usize,
}

impl App {
    /// Opens the store and starts everything over it. Returns when calls are served.
    ///
    /// # Errors
    ///
    /// The store does not open, or cannot be read.
    pub async fn start<L: Listener>(config: &ServeConfig, listener: L, outside: Outside) -> Result<App, StartError> {
        let Outside { clock, seed, times, metrics } = outside;
        let mut random = SmallRng::seed_from_u64(seed);
        let address =
            listener.local_addr().map_err(|problem| StartError::Listen { address: config.listen, problem })?;

        let shutdown = Shutdown::default();
        let Opened { store, home, place, bytes } = open_store(&config.store, clock.clone(), &mut random).await?;
        let (bus, prices) = open_bus(&config.bus, &mut random)?;
        let replica = Replica::start(Parts {
            store: store.clone(),
            bus: bus.clone(),
            prices,
            clock: clock.clone(),
            seed: random.random(),
            policy: policy(config),
            hub_bytes: HUB_BYTES,
            hot_tick_limit: HOT_TICK_LIMIT,
            chunk_cache_bytes: config.chunk_cache_bytes,
            header_cache_bytes: config.header_cache_bytes,
            bars_table: config.bars_table,
            metrics: metrics.clone(),
        })
        .await?;
        let tape = replica.tapes.get();
        let summary =
            StoreSummary { place, bytes, entries: tape.hub.head().position, instruments: tape.registry.len() };

        let spool_folder = spool_folder(config)?;
        let imports = Imports::new(ImportsConfig {
            ingest: replica.ingest.clone(),
            store: store.clone(),
            clock: clock.clone(),
            spool_folder,
            limits: import::Limits::default(),
            first_owner: random.random(),
            stop: replica.draining.clone(),
            metrics: metrics.clone(),
        });
        let publishing = Publishing {
            ingest: replica.ingest.clone(),
            clock: clock.clone(),
            claims: Arc::default(),
            draining: replica.draining.clone(),
        };
        let ingest = IngestService { publishing, imports: imports.clone() };
        let demo = config.demo.map(|demo| {
            let options = DemoOptions { rate: demo.ticks_per_second, seed: demo.seed };
            let demo = feed::demo::Demo::new(replica.ingest.clone(), clock.clone(), options, replica.draining.clone());
            tokio::spawn(async move {
                if let Err(error) = demo.run().await {
                    tracing::error!(%error, "the synthetic feeds have stopped");
                }
            })
        });

        let shutdown = Shutdown { draining: replica.draining.clone(), ..shutdown };
        let stop = accept::Stop {
            finishing: shutdown.draining.clone(),
            abort: shutdown.abort.clone(),
            ..accept::Stop::default()
        };
        let ends = Ends { draining: shutdown.draining.clone(), ending: shutdown.ending.clone() };
        let (health, health_server) = Health::new().await;
        let (readiness, ready) = watch::channel(http::Readiness::default());
        let monitor = Monitor {
            store,
            bus,
            tapes: replica.tapes.clone(),
            health: health.clone(),
            readiness,
            metrics: metrics.clone(),
        };
        let disk = match home {
            Home::File(path) => Disk::File(path),
            Home::Database(database) => Disk::of_database(database, config.store_space, shutdown.asked.clone()),
        };
        let scrape = Scrape {
            tapes: replica.tapes.clone(),
            ingest: replica.ingest.clone(),
            query: replica.query.clone(),
            metrics: metrics.clone(),
            imports: imports.clone(),
            readiness: ready.clone(),
            clock: clock.clone(),
            started: clock.now(),
            disk,
            log_limit_bytes: config.log_retention_bytes,
        };
        scrape.register();
        let calls = grpc::stack(
            services(&replica, ingest, address, random.random()),
            health_server,
            ends,
            metrics.rpc.clone(),
        )?;
        let router = http::router(address, ready, metrics.clone(), grpc::is_call, calls);

        let monitor = monitor.start(shutdown.asked.clone()).await;
        let serving = tokio::spawn(accept::serve(listener, router, config.limits, stop.clone()));
        let told = async move {
            // The monitor has seen the same token and says the last word on readiness.
            let _ = monitor.await;
            stop.accepting.cancel();
        };
        let disconnected = async move {
            let _ = serving.await;
        };
        let stopped = async move {
            // What feeds and runs have queued is still written: the writer ends after them.
            if let Some(demo) = demo {
                let _ = demo.await;
            }
            imports.finished().await;
            replica.stop().await;
            metrics.close();
        };
        let ended = tokio::spawn(shutdown.clone().run(times, told, disconnected, stopped));
        Ok(App { address, shutdown, store: summary, ended })
    }

    /// Waits until the server has stopped.
    pub async fn ended(self) {
        if let Err(error) = self.ended.await {
            tracing::error!(%error, "stopping did not come to its end");
        }
    }
}

/// The services of the contract. Calls that none of them takes are answered with NOT_SERVED.
fn services(replica: &Replica, ingest: IngestService, address: SocketAddr, stream_seed: u64) -> Routes {
    let instruments = InstrumentService::new(replica.query.clone());
    let history = HistoryService::new(replica.query.clone());
    let live = LiveService {
        live: replica.live.clone(),
        server_name: address.to_string().into(),
        next_stream: Arc::new(AtomicU64::new(stream_seed)),
    };
    let routes = Routes::default()
        .add_service(InstrumentServiceServer::new(instruments).max_encoding_message_size(MAX_RESPONSE_BYTES));
    live.serve(history.serve(ingest.serve(routes)))
}

fn policy(config: &ServeConfig) -> Policy {
    Policy {
        log_retention: config.log_retention,
        log_retention_bytes: config.log_retention_bytes,
        history_retention: config.history_retention,
        age_cap: config.compact_age,
        merge_delay: config.merge_delay,
        ..Policy::default()
    }
}

/// Where uploads wait for their end. Files in it have no names, so that servers may share it.
fn spool_folder(config: &ServeConfig) -> Result<PathBuf, StartError> {
    let folder = config.spool.clone();
    match std::fs::create_dir_all(&folder) {
        Ok(()) => Ok(folder),
        Err(problem) => Err(StartError::Spool { folder, problem }),
    }
}

/// Listens on an address of this machine.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|problem| match problem.kind() {
        ErrorKind::AddrInUse => StartError::AddressInUse(address),
        _ => StartError::Listen { address, problem },
    })
}

/// The bus, and where latest prices are shown: with Redis alone.
fn open_bus(url: &BusUrl, random: &mut SmallRng) -> Result<(Arc<dyn Bus>, Option<LatestPrices>), StartError> {
    match url {
        BusUrl::Local => Ok((Arc::new(LocalBus::new()), None)),
        BusUrl::Redis(url) => {
            let bus = RedisBus::start(url, random.random(), random.random())?;
            Ok((Arc::new(bus), Some(LatestPrices::new(url)?)))
        }
    }
}

/// Where a store keeps its ticks.
enum Home {
    File(PathBuf),
    /// The store itself: only a database knows its size.
    Database(Arc<PostgresStore>),
}

/// A store that is open, and what people want to know about it.
struct Opened {
    store: Arc<dyn Store>,
    home: Home,
    place: String,
    bytes: u64,
}

async fn open_store(url: &StoreUrl, clock: Arc<dyn Clock>, random: &mut SmallRng) -> Result<Opened, StartError> {
    let epoch = new_epoch(random);
    match url {
        StoreUrl::Sqlite(path) => {
            let options = SqliteOptions { clock, epoch, faults: Faults::default() };
            let store = SqliteStore::open(path, options).await?;
            let (place, bytes) = (store.path().display().to_string(), store.size_on_disk().await.unwrap_or(0));
            Ok(Opened { store, home: Home::File(path.clone()), place, bytes })
        }
        StoreUrl::Postgres(url) => {
            // Replicas have clocks of their own; what the store stamps comes from the one that they share.
            let options = PostgresOptions { clock: None, epoch, seed: random.random(), faults: Faults::default() };
            let store = PostgresStore::open(url, options).await?;
            let place = store.place().to_owned();
            let bytes = store.size_on_disk().await.map_or(0, |taken| taken.bytes);
            Ok(Opened { store: store.clone(), home: Home::Database(store), place, bytes })
        }
    }
}

/// A name for a log that no other log has.
fn new_epoch(random: &mut SmallRng) -> Epoch {
    Epoch(random.random_range(1..=u64::MAX))
}

/// Begins a new epoch in a store; the log's new name and its last position. An embedded store must have no server, the
/// servers of a shared one notice.
pub async fn renew_epoch(url: &StoreUrl, outside: &Outside) -> Result<(Epoch, u64), StartError> {
    if let StoreUrl::Sqlite(path) = url
        && !path.exists()
    {
        return Err(StartError::NoStore(path.display().to_string()));
    }
    let mut random = SmallRng::seed_from_u64(outside.seed);
    let Opened { store, .. } = open_store(url, outside.clock.clone(), &mut random).await?;
    let renewed = store.renew_epoch(new_epoch(&mut random)).await;
    store.close().await;
    let head = renewed?;
    Ok((head.epoch, head.position))
}

#[cfg(test)]
mod tests;
