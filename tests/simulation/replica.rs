//! One host of the simulation: a whole replica behind its real accept loop and layers, and how clients reach it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tapefeed_server::accept::{self, Limits, Listener, Stop};
use tapefeed_server::domain::{Clock, UnixNanos};
use tapefeed_server::grpc::health::Health;
use tapefeed_server::grpc::ingest_service::IngestService;
use tapefeed_server::grpc::ingest_service::publish_ticks::Publishing;
use tapefeed_server::grpc::layers::guard::Ends;
use tapefeed_server::grpc::live_service::LiveService;
use tapefeed_server::grpc::proto::ingest_service_server::IngestServiceServer;
use tapefeed_server::ingest::import::{self, Imports, ImportsConfig};
use tapefeed_server::metrics::Metrics;
use tapefeed_server::replica::{Parts, Replica};
use tapefeed_server::store::MemoryStore;
use tapefeed_server::store::faults::Faults;
use tapefeed_server::tape::compactor::Policy;
use tapefeed_server::{grpc, http};
use tapefeed_tests::Stubs;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Endpoint;
use tower::service_fn;

use super::bus::{End, Ether};
use super::weather::Weather;
use tapefeed_tests::stumbling::Stumbling;

/// Where replicas serve.
const PORT: u16 = 50_051;

/// 9 August 2024, 12:00 UTC.
pub const NOON: i64 = 1_723_204_800_000_000_000;

/// How long a client waits for a connection.
const CONNECT: Duration = Duration::from_secs(1);

/// The name of a replica's host.
pub fn name(number: usize) -> String {
    format!("replica-{number}")
}

/// The simulated clock, as one host has it.
#[derive(Debug)]
pub struct SimClock {
    /// How far it is wrong.
    pub skew: i64,
}

impl Clock for SimClock {
    fn now(&self) -> UnixNanos {
        // Outside all hosts nothing asks for the time.
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        UnixNanos::new(NOON + self.skew + elapsed.as_nanos() as i64).expect("a time of this century")
    }
}

/// What a host keeps over its crashes.
#[derive(Debug)]
pub struct Site {
    pub number: usize,
    pub store: MemoryStore,
    pub clock: Arc<SimClock>,
    pub weather: Arc<Weather>,
    pub ether: Arc<Ether>,
    pub policy: Policy,
    pub hub_bytes: usize,
    pub seed: u64,
    /// How often it was started.
    pub starts: AtomicU64,
    /// Cancel it to stop the replica in order.
    pub asked: Mutex<CancellationToken>,
}

struct SimListener(turmoil::net::TcpListener);

impl Listener for SimListener {
    type Io = turmoil::net::TcpStream;

    async fn accept(&mut self) -> io::Result<(Self::Io, SocketAddr)> {
        self.0.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves until asked to stop.
pub async fn serve(site: Arc<Site>) -> turmoil::Result {
    let starts = site.starts.fetch_add(1, Ordering::Relaxed);
    let asked = CancellationToken::new();
    *site.asked.lock().expect("one thread") = asked.clone();
    let seed = site.seed + starts * 1_000;
    let bus = Arc::new(End::open(site.ether.clone(), site.number).await?);
    let replica = loop {
        let faults = Faults::new(site.weather.clone());
        let store = site.store.reopen().with_faults(faults.clone());
        let parts = Parts {
            store: Arc::new(Stumbling::over(Arc::new(store), faults)),
            bus: bus.clone(),
            prices: None,
            clock: site.clock.clone(),
            seed,
            policy: site.policy,
            hub_bytes: site.hub_bytes,
            hot_tick_limit: 1_000_000,
            chunk_cache_bytes: tapefeed_server::query::CHUNK_CACHE_BYTES,
            header_cache_bytes: tapefeed_server::tape::HEADER_CACHE_BYTES,
            bars_table: false,
            metrics: Metrics::new(),
        };
        match Replica::start(parts).await {
            Ok(replica) => break replica,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    };
    let listener = SimListener(turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?);
    let stop = Stop { finishing: replica.draining.clone(), ..Stop::default() };
    let ends = Ends { draining: replica.draining.clone(), ending: CancellationToken::new() };
    let router = router(&site, &replica, seed, ends.clone()).await?;
    let serving = tokio::spawn(accept::serve(listener, router, Limits::default(), stop.clone()));
    asked.cancelled().await;
    stop.accepting.cancel();
    replica.draining.cancel();
    tokio::time::sleep(Duration::from_millis(400)).await;
    ends.ending.cancel();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.abort.cancel();
    serving.await?;
    replica.stop().await;
    Ok(())
}

async fn router(
    site: &Site,
    replica: &Replica,
    seed: u64,
    ends: Ends,
) -> Result<axum::Router, grpc::DescriptorsBroken> {
    let metrics = Metrics::new();
    let imports = Imports::new(ImportsConfig {
        ingest: replica.ingest.clone(),
        store: replica.store.clone(),
        clock: site.clock.clone(),
        spool_folder: std::path::PathBuf::new(),
        limits: import::Limits::default(),
        first_owner: seed,
        stop: replica.draining.clone(),
        metrics: metrics.clone(),
    });
    let publishing = Publishing {
        ingest: replica.ingest.clone(),
        clock: site.clock.clone(),
        claims: Arc::default(),
        draining: replica.draining.clone(),
    };
    let live = LiveService {
        live: replica.live.clone(),
        server_name: name(site.number).into(),
        next_stream: Arc::new(AtomicU64::new(seed)),
    };
    let routes = Routes::default().add_service(IngestServiceServer::new(IngestService { publishing, imports }));
    let (_, health) = Health::new().await;
    let calls = grpc::stack(live.serve(routes), health, ends, metrics.rpc.clone())?;
    let (_, ready) = watch::channel(http::Readiness::default());
    let address = SocketAddr::from(([0, 0, 0, 0], PORT));
    Ok(http::router(address, ready, metrics, grpc::is_call, calls))
}

/// A connection to a replica; `None` where nobody answers. A small window makes a reader that stalls be felt at once.
pub async fn connect(number: usize, window: u32) -> Option<Stubs> {
    let endpoint = Endpoint::from_shared(format!("http://{}:{PORT}", name(number))).expect("a plain address");
    let endpoint = endpoint.initial_stream_window_size(window).initial_connection_window_size(window);
    let dial = service_fn(|uri: ::http::Uri| async move {
        let host = uri.host().unwrap_or_default().to_owned();
        Ok::<_, io::Error>(TokioIo::new(turmoil::net::TcpStream::connect((host.as_str(), PORT)).await?))
    });
    let channel = tokio::time::timeout(CONNECT, endpoint.connect_with_connector(dial)).await;
    Some(Stubs::over(channel.ok()?.ok()?))
}
