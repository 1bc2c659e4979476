//! The embedded store: one SQLite file, one server.
//!
//! One task owns the only connection that writes ([`writer`]); it takes jobs from a bounded queue, so that a caller who
//! goes away cannot interrupt a write. Reads have a few read-only connections of their own ([`readers`]). Every commit
//! is synced before it is answered (`synchronous = FULL`). The statements stand beside what they serve: [`log`],
//! [`manifest`], [`bars`], [`producers`], [`published`], [`registry`], [`runs`], [`rejects`], [`sweep`].
//!
//! A second server is kept off by a lock on `<file>.lock`, never by a lock on the database: other programs may read it.

mod bars;
mod epochs;
mod failure;
mod log;
mod manifest;
mod open;
mod producers;
mod published;
mod readers;
mod registry;
mod rejects;
mod rows;
mod runs;
mod sweep;
#[cfg(test)]
mod tests;
mod writer;

use std::ops::Range;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

pub use open::{OpenError, SqliteOptions};

use super::{
    Appended, BarsChange, BarsMark, ChunkId, EpochStart, Group, Lease, LogEdge, LogHead, LogPage, ManifestChange,
    ManifestCommit, ManifestDelta, ProducerClaim, ProducerId, Reject, Retention, Run, RunClaim, RunEnd, RunId,
    RunOwner, RunRequest, Store, StoreError, Swept,
};
use crate::domain::{
    Cursor, Epoch, Instrument, InstrumentDetails, InstrumentId, PublishedBar, PublishedBarKey, Symbol, UnixNanos, Venue,
};
use readers::Readers;
use writer::Writer;

/// Something for the writer to do, with the answer's way back inside.
type Job = Box<dyn for<'w> FnOnce(&'w mut Writer) -> BoxFuture<'w, ()> + Send>;

/// How many jobs may wait for the writer: one append in flight, and the claims, leases and commits beside it. Further
/// callers wait at the door.
const JOBS_WAITING: usize = 64;

/// The embedded store.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    readers: Readers,
}

impl SqliteStore {
    /// The database file, as it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes on disk: the database and its write-ahead log.
    pub async fn size_on_disk(&self) -> std::io::Result<u64> {
        let mut bytes = tokio::fs::metadata(&self.path).await?.len();
        for suffix in ["-wal", "-shm"] {
            match tokio::fs::metadata(open::beside(&self.path, suffix)).await {
                Ok(metadata) => bytes += metadata.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => (),
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// Has the writer do something and waits for the answer. Once the job is queued it will be done, waited for or not.
    async fn write<T, W>(&self, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'w> FnOnce(&'w mut Writer) -> BoxFuture<'w, Result<T, StoreError>> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let span = Span::current();
        let job: Job = Box::new(move |writer| {
            let done = async move {
                // A caller who has gone away does not want the answer.
                let _ = reply.send(work(writer).await);
            };
            Box::pin(done.instrument(span))
        });
        self.jobs.send(job).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// The span of something that is asked of the database, with the names of OpenTelemetry's conventions.
fn statement(operation: &'static str, summary: &'static str) -> Span {
    tracing::debug_span!(
        "statement",
        otel.name = summary,
        otel.kind = "client",
        db.system.name = "sqlite",
        db.operation.name = operation,
        db.query.summary = summary,
        db.operation.batch.size = Empty,
    )
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}

#[async_trait]
impl Store for SqliteStore {
    async fn head(&self) -> Result<LogHead, StoreError> {
        self.readers
            .read(|connection| Box::pin(async { Ok(rows::read_head(connection).await?.log) }))
            .instrument(statement("read", "read log head"))
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.readers.read(|connection| Box::pin(rows::ping(connection))).await
    }

    async fn register(&self, instruments: &[(Venue, Symbol)]) -> Result<Vec<Instrument>, StoreError> {
        let wanted = instruments.to_vec();
        self.write(move |writer| Box::pin(writer.register(wanted)))
            .instrument(statement("register", "register instruments"))
            .await
    }

    async fn instruments(&self, after: InstrumentId) -> Result<Vec<Instrument>, StoreError> {
        self.readers
            .read(move |connection| Box::pin(registry::list(connection, after)))
            .instrument(statement("list", "list instruments"))
            .await
    }

    async fn claim_or_renew(
        &self,
        producer: &ProducerId,
        held_fence: Option<u64>,
    ) -> Result<Option<ProducerClaim>, StoreError> {
        let producer = producer.clone();
        self.write(move |writer| Box::pin(writer.claim_or_renew(producer, held_fence)))
            .instrument(statement("claim", "claim producer"))
            .await
    }

    async fn append(&self, group: Group) -> Result<Appended, StoreError> {
        let span = statement("append", "append log");
        span.record("db.operation.batch.size", group.marks.len());
        self.write(move |writer| Box::pin(writer.append(group))).instrument(span).await
    }

    async fn segments(&self, after: u64, max_bytes: usize) -> Result<LogPage, StoreError> {
        self.readers
            .read(move |connection| Box::pin(log::page(connection, after, max_bytes)))
            .instrument(statement("read", "read log"))
            .await
    }

    async fn position_at(&self, append_time: UnixNanos) -> Result<Option<LogEdge>, StoreError> {
        self.readers
            .read(move |connection| Box::pin(log::position_at(connection, append_time)))
            .instrument(statement("seek", "seek log"))
            .await
    }

    async fn manifest(&self, since: u64) -> Result<ManifestDelta, StoreError> {
        self.readers
            .read(move |connection| Box::pin(manifest::delta(connection, since)))
            .instrument(statement("read", "read manifest"))
            .await
    }

    async fn commit_manifest(&self, change: ManifestChange) -> Result<ManifestCommit, StoreError> {
        self.write(move |writer| Box::pin(writer.commit_manifest(change)))
            .instrument(statement("commit", "commit manifest"))
            .await
    }

    async fn chunk_bytes(&self, ids: &[ChunkId]) -> Result<Vec<(ChunkId, Bytes)>, StoreError> {
        let ids = ids.to_vec();
        let span = statement("read", "read chunks");
        span.record("db.operation.batch.size", ids.len());
        self.readers.read(move |connection| Box::pin(manifest::chunk_bytes(connection, ids))).instrument(span).await
    }

    async fn sweep(&self, retention: Retention) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            // One portion at a time, so that appends get their turn between them.
            let portion = self
                .write(move |writer| Box::pin(writer.sweep_portion(retention)))
                .instrument(statement("sweep", "sweep"))
                .await?;
            swept.segments += portion.swept.segments;
            swept.chunks += portion.swept.chunks;
            swept.producers += portion.swept.producers;
            if portion.done {
                return Ok(swept);
            }
        }
    }

    async fn begin_run(&self, request: RunRequest) -> Result<RunClaim, StoreError> {
        self.write(move |writer| Box::pin(writer.begin_run(request))).instrument(statement("begin", "begin run")).await
    }

    async fn renew_lease(&self, run: &RunId, lease: Lease) -> Result<bool, StoreError> {
        let run = run.clone();
        self.write(move |writer| Box::pin(writer.renew_lease(run, lease)))
            .instrument(statement("renew", "renew lease"))
            .await
    }

    async fn finish_run(&self, run: &RunId, owner: &RunOwner, end: RunEnd) -> Result<bool, StoreError> {
        let (run, owner) = (run.clone(), *owner);
        self.write(move |writer| Box::pin(writer.finish_run(run, owner, end)))
            .instrument(statement("finish", "finish run"))
            .await
    }

    async fn cancel_run(&self, run: &RunId) -> Result<Option<Run>, StoreError> {
        let run = run.clone();
        self.write(move |writer| Box::pin(writer.cancel_run(run))).instrument(statement("cancel", "cancel run")).await
    }

    async fn run(&self, run: &RunId) -> Result<Option<Run>, StoreError> {
        let run = run.clone();
        self.readers
            .read(move |connection| Box::pin(async move { runs::by_id(connection, &run).await }))
            .instrument(statement("read", "read run"))
            .await
    }

    async fn runs(&self, before: Option<&RunId>, limit: usize) -> Result<Vec<Run>, StoreError> {
        let before = before.cloned();
        self.readers
            .read(move |connection| Box::pin(runs::list(connection, before, limit)))
            .instrument(statement("list", "list runs"))
            .await
    }

    async fn rejects(&self, run: &RunId, after_line: u64, limit: usize) -> Result<Vec<Reject>, StoreError> {
        let run = run.clone();
        self.readers
            .read(move |connection| Box::pin(rejects::list(connection, run, after_line, limit)))
            .instrument(statement("list", "list rejects"))
            .await
    }

    async fn published_bars(
        &self,
        instrument: InstrumentId,
        days: Range<u32>,
        after: Option<PublishedBarKey>,
        limit: usize,
    ) -> Result<Vec<PublishedBar>, StoreError> {
        self.readers
            .read(move |connection| Box::pin(published::bars(connection, instrument, days, after, limit)))
            .instrument(statement("list", "list published bars"))
            .await
    }

    async fn instrument_details(
        &self,
        instruments: &[InstrumentId],
    ) -> Result<Vec<(InstrumentId, InstrumentDetails)>, StoreError> {
        let instruments = instruments.to_vec();
        self.readers
            .read(move |connection| Box::pin(published::details(connection, instruments)))
            .instrument(statement("read", "read instrument details"))
            .await
    }

    async fn bars_mark(&self) -> Result<BarsMark, StoreError> {
        self.readers
            .read(|connection| Box::pin(bars::mark(connection)))
            .instrument(statement("read", "read bars mark"))
            .await
    }

    async fn record_bars(&self, change: BarsChange) -> Result<bool, StoreError> {
        let span = statement("record", "record bars");
        span.record("db.operation.batch.size", change.rows.len());
        self.write(move |writer| Box::pin(writer.record_bars(change))).instrument(span).await
    }

    async fn epochs(&self) -> Result<Vec<EpochStart>, StoreError> {
        self.readers
            .read(|connection| Box::pin(epochs::list(connection)))
            .instrument(statement("list", "list epochs"))
            .await
    }

    async fn renew_epoch(&self, epoch: Epoch) -> Result<LogHead, StoreError> {
        self.write(move |writer| Box::pin(writer.renew_epoch(epoch)))
            .instrument(statement("renew", "renew epoch"))
            .await
    }

    async fn fork_epoch(&self, epoch: Epoch, common: Cursor) -> Result<LogHead, StoreError> {
        self.write(move |writer| Box::pin(writer.fork_epoch(epoch, common)))
            .instrument(statement("fork", "fork epoch"))
            .await
    }

    async fn close(&self) {
        self.readers.close().await;
        // An error means that somebody else has closed it already.
        let _ = self.write(|writer| Box::pin(writer.close())).await;
    }
}
