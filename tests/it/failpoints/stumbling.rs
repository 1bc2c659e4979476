//! A store whose reads fail where a plan says so, the reads that make a new view and those that fetch chunks; and a bus
//! that loses, repeats and reorders.
//!
//! Failures of writes are the embedded store's own.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tapefeed_server::bus::{Announcement, Bus, BusState, LocalBus, ManifestNews};
use tapefeed_server::domain::{
    Cursor, Epoch, Instrument, InstrumentDetails, InstrumentId, PublishedBar, PublishedBarKey, Symbol, UnixNanos, Venue,
};
use tapefeed_server::store::faults::FaultAction;
use tapefeed_server::store::{
    Appended, ChunkId, EpochStart, Group, Lease, LogEdge, LogHead, LogPage, ManifestChange, ManifestCommit,
    ManifestDelta, ProducerClaim, ProducerId, Reject, ReplicaId, Retention, Run, RunClaim, RunEnd, RunId, RunOwner,
    RunRequest, Store, StoreError, Swept,
};

use super::replica::Plan;

/// The manifest is read for the next view.
pub const VIEW_MANIFEST: &str = "view.manifest";
/// The log is read, because the bus did not bring it.
pub const VIEW_LOG: &str = "view.log";
/// Chunks are read for a query or a merge.
pub const QUERY_CHUNKS: &str = "query.chunks";

/// A store under a plan.
#[derive(Debug)]
pub struct Stumbling {
    inner: Arc<dyn Store>,
    plan: Arc<Plan>,
}

impl Stumbling {
    /// The same store, with reads that stumble.
    pub fn over(inner: Arc<dyn Store>, plan: Arc<Plan>) -> Stumbling {
        Stumbling { inner, plan }
    }

    async fn reach(&self, point: &'static str) -> Result<(), StoreError> {
        match self.plan.reach(point, false) {
            FaultAction::Continue => Ok(()),
            FaultAction::Delay(span) => {
                tokio::time::sleep(span).await;
                Ok(())
            }
            FaultAction::Fail | FaultAction::Abort => Err(StoreError::Unavailable(format!("planned at {point}"))),
        }
    }
}

#[async_trait]
impl Store for Stumbling {
    async fn segments(&self, after: u64, max_bytes: usize) -> Result<LogPage, StoreError> {
        self.reach(VIEW_LOG).await?;
        self.inner.segments(after, max_bytes).await
    }

    async fn manifest(&self, since: u64) -> Result<ManifestDelta, StoreError> {
        self.reach(VIEW_MANIFEST).await?;
        self.inner.manifest(since).await
    }

    async fn chunk_bytes(&self, ids: &[ChunkId]) -> Result<Vec<(ChunkId, Bytes)>, StoreError> {
        self.reach(QUERY_CHUNKS).await?;
        self.inner.chunk_bytes(ids).await
    }

    async fn head(&self) -> Result<LogHead, StoreError> {
        self.inner.head().await
    }

    async fn position_at(&self, append_time: UnixNanos) -> Result<Option<LogEdge>, StoreError> {
        self.inner.position_at(append_time).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    async fn register(&self, instruments: &[(Venue, Symbol)]) -> Result<Vec<Instrument>, StoreError> {
        self.inner.register(instruments).await
    }

    async fn instruments(&self, after: InstrumentId) -> Result<Vec<Instrument>, StoreError> {
        self.inner.instruments(after).await
    }

    async fn claim_producer(&self, producer: &ProducerId) -> Result<ProducerClaim, StoreError> {
        self.inner.claim_producer(producer).await
    }

    async fn append(&self, group: Group) -> Result<Appended, StoreError> {
        self.inner.append(group).await
    }

    async fn commit_manifest(&self, change: ManifestChange) -> Result<ManifestCommit, StoreError> {
        self.inner.commit_manifest(change).await
    }

    async fn sweep(&self, retention: Retention) -> Result<Swept, StoreError> {
        self.inner.sweep(retention).await
    }

    async fn begin_run(&self, request: RunRequest) -> Result<RunClaim, StoreError> {
        self.inner.begin_run(request).await
    }

    async fn renew_lease(&self, run: &RunId, lease: Lease) -> Result<bool, StoreError> {
        self.inner.renew_lease(run, lease).await
    }

    async fn finish_run(&self, run: &RunId, owner: &RunOwner, end: RunEnd) -> Result<bool, StoreError> {
        self.inner.finish_run(run, owner, end).await
    }

    async fn cancel_run(&self, run: &RunId) -> Result<Option<Run>, StoreError> {
        self.inner.cancel_run(run).await
    }

    async fn run(&self, run: &RunId) -> Result<Option<Run>, StoreError> {
        self.inner.run(run).await
    }

    async fn runs(&self, before: Option<&RunId>, limit: usize) -> Result<Vec<Run>, StoreError> {
        self.inner.runs(before, limit).await
    }

    async fn rejects(&self, run: &RunId, after_line: u64, limit: usize) -> Result<Vec<Reject>, StoreError> {
        self.inner.rejects(run, after_line, limit).await
    }

    async fn published_bars(
        &self,
        instrument: InstrumentId,
        days: Range<u32>,
        after: Option<PublishedBarKey>,
        limit: usize,
    ) -> Result<Vec<PublishedBar>, StoreError> {
        self.inner.published_bars(instrument, days, after, limit).await
    }

    async fn instrument_details(
        &self,
        instruments: &[InstrumentId],
    ) -> Result<Vec<(InstrumentId, InstrumentDetails)>, StoreError> {
        self.inner.instrument_details(instruments).await
    }

    async fn epochs(&self) -> Result<Vec<EpochStart>, StoreError> {
        self.inner.epochs().await
    }

    async fn renew_epoch(&self, epoch: Epoch) -> Result<LogHead, StoreError> {
        self.inner.renew_epoch(epoch).await
    }

    async fn fork_epoch(&self, epoch: Epoch, common: Cursor) -> Result<LogHead, StoreError> {
        self.inner.fork_epoch(epoch, common).await
    }

    async fn lead(&self, replica: ReplicaId, lease: Duration) -> Result<bool, StoreError> {
        self.inner.lead(replica, lease).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// A bus on which nothing can be relied.
#[derive(Debug)]
pub struct LooseBus {
    bus: LocalBus,
    /// The dice, and what is held back until the next announcement.
    state: Mutex<(SmallRng, Option<Announcement>)>,
}

impl LooseBus {
    /// A bus whose whims come from a seed.
    pub fn new(seed: u64) -> LooseBus {
        LooseBus { bus: LocalBus::new(), state: Mutex::new((SmallRng::seed_from_u64(seed), None)) }
    }
}

impl Bus for LooseBus {
    fn announce(&self, announcement: Announcement) {
        let mut state = self.state.lock().expect("no holder of the lock panics");
        match state.0.random_range(0..20) {
            0 => (), // Lost.
            1 => {
                self.bus.announce(announcement.clone());
                self.bus.announce(announcement);
            }
            2 => state.1 = Some(announcement),
            3 => self.bus.announce(Announcement { block: None, ..announcement }),
            _ => self.bus.announce(announcement),
        }
        if state.0.random_bool(0.5)
            && let Some(late) = state.1.take()
        {
            self.bus.announce(late);
        }
    }

    fn subscribe(&self) -> tokio::sync::broadcast::Receiver<Announcement> {
        self.bus.subscribe()
    }

    fn announce_manifest(&self, news: ManifestNews) {
        if self.state.lock().expect("no holder of the lock panics").0.random_bool(0.5) {
            self.bus.announce_manifest(news);
        }
    }

    fn manifests(&self) -> tokio::sync::watch::Receiver<Option<ManifestNews>> {
        self.bus.manifests()
    }

    fn state(&self) -> BusState {
        self.bus.state()
    }
}
