//! Imports end to end, below the contract: bytes in, runs and ticks out.

mod any_bytes;
mod containers;
pub(crate) mod cotahist;
mod files;
pub(crate) mod published;
mod runs;
mod sample;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;

use super::*;
use crate::bus::LocalBus;
use crate::domain::{Clock, Epoch, Origin, Tick, UnixNanos, segment};
use crate::metrics::Metrics;
use crate::replica::{HOT_TICK_LIMIT, HUB_BYTES, Parts, Replica};
use crate::store::{MemoryStore, StoreError};
use crate::tape::compactor::Policy;

/// A clock that stands until it is moved.
#[derive(Debug)]
pub(crate) struct StandingClock(AtomicI64);

impl StandingClock {
    fn new() -> Arc<StandingClock> {
        Arc::new(StandingClock(AtomicI64::new(1_750_000_000_000_000_000)))
    }

    fn advance(&self, by: std::time::Duration) {
        self.0.fetch_add(by.as_nanos() as i64, Ordering::Relaxed);
    }
}

impl Clock for StandingClock {
    fn now(&self) -> UnixNanos {
        UnixNanos::new(self.0.load(Ordering::Relaxed)).unwrap()
    }
}

/// Imports over a replica.
pub(crate) struct Bench {
    pub(crate) imports: Imports,
    pub(crate) replica: Replica,
    pub(crate) clock: Arc<StandingClock>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn over(store: Arc<dyn Store>, clock: Arc<StandingClock>, limits: Limits) -> Bench {
        let parts = Parts {
            prices: None,
            store: store.clone(),
            bus: Arc::new(LocalBus::new()),
            clock: clock.clone(),
            seed: 1,
            policy: Policy::default(),
            hub_bytes: HUB_BYTES,
            hot_tick_limit: HOT_TICK_LIMIT,
            chunk_cache_bytes: crate::query::CHUNK_CACHE_BYTES,
            header_cache_bytes: crate::tape::HEADER_CACHE_BYTES,
            bars_table: false,
            metrics: Metrics::new(),
        };
        let replica = Replica::start(parts).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let stop = CancellationToken::new();
        let imports = Imports::new(ImportsConfig {
            ingest: replica.ingest.clone(),
            store,
            clock: clock.clone(),
            spool_folder: folder.path().to_owned(),
            limits,
            first_owner: 1_000,
            stop: stop.clone(),
            metrics: Metrics::new(),
        });
        Bench { imports, replica, clock, stop, _folder: folder }
    }

    pub(crate) async fn new(limits: Limits) -> Bench {
        let clock = StandingClock::new();
        Bench::over(Arc::new(MemoryStore::new(clock.clone(), Epoch(7))), clock, limits).await
    }

    async fn import(&self, start: ImportStart, bytes: &[u8]) -> Result<Imported, ImportError> {
        let mut upload = self.imports.begin(start)?;
        for piece in bytes.chunks(64 << 10) {
            if !upload.push(Bytes::copy_from_slice(piece)).await {
                return upload.outcome().await;
            }
        }
        upload.complete().await;
        upload.outcome().await
    }

    pub(crate) fn advance(&self, by: std::time::Duration) {
        self.clock.advance(by);
    }

    pub(crate) async fn ticks(&self) -> Vec<Tick> {
        stored_ticks(&*self.replica.store).await.unwrap()
    }
}

/// All ticks of the log, by position.
async fn stored_ticks(store: &dyn Store) -> Result<Vec<Tick>, StoreError> {
    let mut ticks = Vec::new();
    let mut after = 0;
    loop {
        let page = store.segments(after, 1 << 20).await?;
        let Some(last) = page.segments.last() else {
            return Ok(ticks);
        };
        after = last.last_seq();
        for stored in &page.segments {
            assert!(stored.backfill);
            let entries = segment::decode(&stored.bytes, stored.first_seq, Origin::Backfill).unwrap();
            ticks.extend(entries.ticks);
        }
    }
}

fn start(name: &str) -> ImportStart {
    ImportStart {
        run: RunId::new(name).unwrap(),
        file_name: "trades.csv".to_owned(),
        size_bytes: None,
        options: ImportOptions::default(),
        max_rejects: DEFAULT_MAX_REJECTS,
        again: false,
        trace_id: String::new(),
    }
}

/// A file of `lines` trades: every tenth of another instrument.
pub(crate) fn trades(lines: usize) -> Vec<u8> {
    use std::io::Write as _;

    let mut file = b"venue,symbol,trade_id,event_time_ms,receive_time_ns,price,quantity,buyer_is_maker\n".to_vec();
    for line in 0..lines {
        let symbol = if line % 10 == 0 { "ETHUSDT" } else { "BTCUSDT" };
        let (time, price) = (1_723_161_255_342 + line as u64 * 7, 61_000 + line % 900);
        let maker = line % 3 == 0;
        writeln!(file, "TEST,{symbol},{line},{time},{time}123456,{price}.63000000,0.02{line:06},{maker}").unwrap();
    }
    file
}
