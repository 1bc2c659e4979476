//! A store whose reads stumble where a test says so.
//!
//! Failures of writes are the embedded store's own.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tapefeed_server::domain::{
    Cursor, Epoch, Instrument, InstrumentDetails, InstrumentId, PublishedBar, PublishedBarKey, Symbol, UnixNanos, Venue,
};
use tapefeed_server::store::faults::Faults;
use tapefeed_server::store::{
    Appended, BarsChange, BarsMark, ChunkId, EpochStart, Group, Lease, LogEdge, LogHead, LogPage, ManifestChange,
    ManifestCommit, ManifestDelta, ProducerClaim, ProducerId, Reject, ReplicaId, Retention, Run, RunClaim, RunEnd,
    RunId, RunOwner, RunRequest, Store, StoreError, Swept,
};

/// The manifest is read for the next view.
pub const VIEW_MANIFEST: &str = "view.manifest";
/// The log is read, because the bus did not bring it.
pub const VIEW_LOG: &str = "view.log";
/// Chunks are read for a query or a merge.
pub const QUERY_CHUNKS: &str = "query.chunks";
/// The head is read, or a place in the log is looked up.
pub const LOG_HEAD: &str = "log.head";
/// Instruments, epochs, claims and leases: what is asked seldom.
pub const SELDOM: &str = "seldom";

/// A store whose reads stumble.
#[derive(Debug)]
pub struct Stumbling {
    inner: Arc<dyn Store>,
    faults: Faults,
}

impl Stumbling {
    /// The same store, with reads that stumble.
    pub fn over(inner: Arc<dyn Store>, faults: Faults) -> Stumbling {
        Stumbling { inner, faults }
    }
}

#[async_trait]
impl Store for Stumbling {
    async fn segments(&self, after: u64, max_bytes: usize) -> Result<LogPage, StoreError> {
        self.faults.hit(VIEW_LOG).await?;
        self.inner.segments(after, max_bytes).await
    }

    async fn manifest(&self, since: u64) -> Result<ManifestDelta, StoreError> {
        self.faults.hit(VIEW_MANIFEST).await?;
        self.inner.manifest(since).await
    }

    async fn chunk_bytes(&self, ids: &[ChunkId]) -> Result<Vec<(ChunkId, Bytes)>, StoreError> {
        self.faults.hit(QUERY_CHUNKS).await?;
        self.inner.chunk_bytes(ids).await
    }

    async fn head(&self) -> Result<LogHead, StoreError> {
        self.faults.hit(LOG_HEAD).await?;
        self.inner.head().await
    }

    async fn position_at(&self, append_time: UnixNanos) -> Result<Option<LogEdge>, StoreError> {
        self.faults.hit(LOG_HEAD).await?;
        self.inner.position_at(append_time).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    async fn register(&self, instruments: &[(Venue, Symbol)]) -> Result<Vec<Instrument>, StoreError> {
        self.faults.hit(SELDOM).await?;
        self.inner.register(instruments).await
    }

    async fn instruments(&self, after: InstrumentId) -> Result<Vec<Instrument>, StoreError> {
        self.faults.hit(SELDOM).await?;
        self.inner.instruments(after).await
    }

    async fn claim_or_renew(
        &self,
        producer: &ProducerId,
        held_fence: Option<u64>,
    ) -> Result<Option<ProducerClaim>, StoreError> {
        self.faults.hit(SELDOM).await?;
        self.inner.claim_or_renew(producer, held_fence).await
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

    async fn bars_mark(&self) -> Result<BarsMark, StoreError> {
        self.faults.hit(SELDOM).await?;
        self.inner.bars_mark().await
    }

    async fn record_bars(&self, change: BarsChange) -> Result<bool, StoreError> {
        self.inner.record_bars(change).await
    }

    async fn epochs(&self) -> Result<Vec<EpochStart>, StoreError> {
        self.faults.hit(SELDOM).await?;
        self.inner.epochs().await
    }

    async fn renew_epoch(&self, epoch: Epoch) -> Result<LogHead, StoreError> {
        self.inner.renew_epoch(epoch).await
    }

    async fn fork_epoch(&self, epoch: Epoch, common: Cursor) -> Result<LogHead, StoreError> {
        self.inner.fork_epoch(epoch, common).await
    }

    async fn lead(&self, replica: ReplicaId, lease: Duration) -> Result<bool, StoreError> {
        self.faults.hit(SELDOM).await?;
        self.inner.lead(replica, lease).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
