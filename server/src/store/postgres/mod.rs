//! The store of several servers: one Postgres database.
//!
//! Every write is one call of a function of the database (`migrations/postgres`), committed by itself: a server that
//! freezes holds no lock. Everything runs in tasks of their own on connections by use ([`connections`]). The statements
//! stand beside what they serve: [`append`], [`bars`], [`log`], [`manifest`], [`published`], [`registry`], [`runs`],
//! [`sweep`], [`epochs`].
//!
//! The database's own identity and timeline belong to the log's epoch: whichever transaction first finds another one
//! begins a new epoch before it does anything else (`lock_head` in the migrations).

mod append;
mod bars;
mod connections;
mod epochs;
mod failure;
mod log;
mod manifest;
mod open;
mod published;
mod registry;
mod rows;
mod runs;
mod size;
mod stumble;
mod sweep;
mod terms;
#[cfg(test)]
pub(super) mod tests;
mod url;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

pub use open::{PostgresOpenError, PostgresOptions};
pub use size::DiskUse;
pub use url::{PostgresUrl, PostgresUrlInvalid};

use super::faults::{self, Faults};
use super::{
    Appended, BarsChange, BarsMark, ChunkId, EpochStart, Group, Lease, LogEdge, LogHead, LogPage, ManifestChange,
    ManifestCommit, ManifestDelta, ProducerClaim, ProducerId, Reject, ReplicaId, Retention, Run, RunClaim, RunEnd,
    RunId, RunOwner, RunRequest, Store, StoreError, Swept,
};
use crate::domain::{
    Cursor, Epoch, Instrument, InstrumentDetails, InstrumentId, PublishedBar, PublishedBarKey, Symbol, UnixNanos, Venue,
};
use connections::Connections;
use terms::TermsSource;

/// A store in a Postgres database.
#[derive(Debug)]
pub struct PostgresStore {
    place: String,
    appends: Connections,
    writes: Connections,
    reads: Connections,
    looks: Connections,
    terms: TermsSource,
    faults: Faults,
    /// The epoch of the manifest that was read last; 0 before the first. Chunks of another epoch may have the same ids
    /// and its manifest the same versions, so both are refused until the manifest has been read again.
    manifest_epoch: AtomicU64,
}

impl PostgresStore {
    /// Where it is, without the password.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Bytes that the database takes on its server's disk, and its server's write-ahead log where this user may look
    /// at it (`GRANT pg_monitor`).
    pub async fn size_on_disk(&self) -> Result<DiskUse, StoreError> {
        self.reads.run(|connection| Box::pin(size::read(connection))).instrument(statement("read", "read size")).await
    }

    fn manifest_epoch(&self) -> Option<Epoch> {
        match self.manifest_epoch.load(Ordering::Acquire) {
            0 => None,
            epoch => Some(Epoch(epoch)),
        }
    }
}

/// The span of something that is asked of the database, with the names of OpenTelemetry's conventions.
fn statement(operation: &'static str, summary: &'static str) -> Span {
    tracing::debug_span!(
        "statement",
        otel.name = summary,
        otel.kind = "client",
        db.system.name = "postgresql",
        db.operation.name = operation,
        db.query.summary = summary,
        db.operation.batch.size = Empty,
    )
}

#[async_trait]
impl Store for PostgresStore {
    async fn head(&self) -> Result<LogHead, StoreError> {
        let check_identity = self.terms.check_identity;
        let (head, moved) = self
            .looks
            .run(move |connection| Box::pin(log::head(connection, check_identity)))
            .instrument(statement("read", "read log head"))
            .await?;
        if !moved {
            return Ok(head);
        }
        // Without this a log that nobody writes to would keep its old name.
        let terms = self.terms.terms();
        let head = self
            .writes
            .run(move |connection| Box::pin(log::settle(connection, terms)))
            .instrument(statement("settle", "settle log head"))
            .await?;
        tracing::warn!(epoch = %head.epoch, position = head.position, "the database was promoted or restored");
        Ok(head)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let ping = "SELECT position FROM log_head WHERE partition = 0";
        self.looks
            .run(move |connection| {
                Box::pin(async move {
                    sqlx::query(ping).fetch_one(connection).await?;
                    Ok(())
                })
            })
            .await
    }

    async fn register(&self, instruments: &[(Venue, Symbol)]) -> Result<Vec<Instrument>, StoreError> {
        let (wanted, terms) = (instruments.to_vec(), self.terms.terms());
        self.writes
            .run(move |connection| Box::pin(registry::register(connection, wanted, terms)))
            .instrument(statement("register", "register instruments"))
            .await
    }

    async fn instruments(&self, after: InstrumentId) -> Result<Vec<Instrument>, StoreError> {
        self.reads
            .run(move |connection| Box::pin(registry::list(connection, after)))
            .instrument(statement("list", "list instruments"))
            .await
    }

    async fn claim_or_renew(
        &self,
        producer: &ProducerId,
        held_fence: Option<u64>,
    ) -> Result<Option<ProducerClaim>, StoreError> {
        let (producer, terms) = (producer.clone(), self.terms.terms());
        self.writes
            .run(move |connection| Box::pin(registry::claim_or_renew(connection, producer, held_fence, terms)))
            .instrument(statement("claim", "claim producer"))
            .await
    }

    async fn append(&self, group: Group) -> Result<Appended, StoreError> {
        let span = statement("append", "append log");
        span.record("db.operation.batch.size", group.marks.len());
        let (terms, faults) = (self.terms.terms(), self.faults.clone());
        let appended = self
            .appends
            .run(move |connection| Box::pin(append::append(connection, group, terms, faults)))
            .instrument(span)
            .await?;
        if matches!(appended, Appended::Committed { .. }) {
            self.faults.hit(faults::APPEND_AFTER).await?;
        }
        Ok(appended)
    }

    async fn segments(&self, after: u64, max_bytes: usize) -> Result<LogPage, StoreError> {
        self.reads
            .run(move |connection| Box::pin(log::page(connection, after, max_bytes)))
            .instrument(statement("read", "read log"))
            .await
    }

    async fn position_at(&self, append_time: UnixNanos) -> Result<Option<LogEdge>, StoreError> {
        self.reads
            .run(move |connection| Box::pin(log::position_at(connection, append_time)))
            .instrument(statement("seek", "seek log"))
            .await
    }

    async fn manifest(&self, since: u64) -> Result<ManifestDelta, StoreError> {
        let delta = self
            .reads
            .run(move |connection| Box::pin(manifest::delta(connection, since)))
            .instrument(statement("read", "read manifest"))
            .await?;
        self.manifest_epoch.store(delta.epoch.0, Ordering::Release);
        Ok(delta)
    }

    async fn commit_manifest(&self, change: ManifestChange) -> Result<ManifestCommit, StoreError> {
        let epoch = change.epoch.or(self.manifest_epoch());
        let (terms, faults) = (self.terms.terms(), self.faults.clone());
        let commit = self
            .writes
            .run(move |connection| Box::pin(manifest::commit(connection, change, epoch, terms, faults)))
            .instrument(statement("commit", "commit manifest"))
            .await?;
        if matches!(commit, ManifestCommit::Committed { .. }) {
            self.faults.hit(faults::MANIFEST_AFTER).await?;
        }
        Ok(commit)
    }

    async fn chunk_bytes(&self, ids: &[ChunkId]) -> Result<Vec<(ChunkId, Bytes)>, StoreError> {
        let span = statement("read", "read chunks");
        span.record("db.operation.batch.size", ids.len());
        let (ids, epoch) = (ids.to_vec(), self.manifest_epoch());
        self.reads.run(move |connection| Box::pin(manifest::chunk_bytes(connection, ids, epoch))).instrument(span).await
    }

    async fn sweep(&self, retention: Retention) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            let (terms, faults) = (self.terms.terms(), self.faults.clone());
            // One portion at a time, so that appends get their turn between them.
            let portion = self
                .writes
                .run(move |connection| Box::pin(sweep::portion(connection, retention, terms, faults)))
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
        let terms = self.terms.terms();
        self.writes
            .run(move |connection| Box::pin(runs::begin(connection, request, terms)))
            .instrument(statement("begin", "begin run"))
            .await
    }

    async fn renew_lease(&self, run: &RunId, lease: Lease) -> Result<bool, StoreError> {
        let run = run.clone();
        self.writes
            .run(move |connection| Box::pin(runs::renew_lease(connection, run, lease)))
            .instrument(statement("renew", "renew lease"))
            .await
    }

    async fn finish_run(&self, run: &RunId, owner: &RunOwner, end: RunEnd) -> Result<bool, StoreError> {
        let (run, owner, now) = (run.clone(), *owner, self.terms.now());
        self.writes
            .run(move |connection| Box::pin(runs::finish(connection, run, owner, end, now)))
            .instrument(statement("finish", "finish run"))
            .await
    }

    async fn cancel_run(&self, run: &RunId) -> Result<Option<Run>, StoreError> {
        let (run, now) = (run.clone(), self.terms.now());
        self.writes
            .run(move |connection| Box::pin(runs::cancel(connection, run, now)))
            .instrument(statement("cancel", "cancel run"))
            .await
    }

    async fn run(&self, run: &RunId) -> Result<Option<Run>, StoreError> {
        let run = run.clone();
        self.reads
            .run(move |connection| Box::pin(runs::by_id(connection, run)))
            .instrument(statement("read", "read run"))
            .await
    }

    async fn runs(&self, before: Option<&RunId>, limit: usize) -> Result<Vec<Run>, StoreError> {
        let before = before.cloned();
        self.reads
            .run(move |connection| Box::pin(runs::list(connection, before, limit)))
            .instrument(statement("list", "list runs"))
            .await
    }

    async fn rejects(&self, run: &RunId, after_line: u64, limit: usize) -> Result<Vec<Reject>, StoreError> {
        let run = run.clone();
        self.reads
            .run(move |connection| Box::pin(runs::rejects(connection, run, after_line, limit)))
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
        self.reads
            .run(move |connection| Box::pin(published::bars(connection, instrument, days, after, limit)))
            .instrument(statement("list", "list published bars"))
            .await
    }

    async fn instrument_details(
        &self,
        instruments: &[InstrumentId],
    ) -> Result<Vec<(InstrumentId, InstrumentDetails)>, StoreError> {
        let instruments = instruments.to_vec();
        self.reads
            .run(move |connection| Box::pin(published::details(connection, instruments)))
            .instrument(statement("read", "read instrument details"))
            .await
    }

    async fn bars_mark(&self) -> Result<BarsMark, StoreError> {
        self.reads
            .run(|connection| Box::pin(bars::mark(connection)))
            .instrument(statement("read", "read bars mark"))
            .await
    }

    async fn record_bars(&self, change: BarsChange) -> Result<bool, StoreError> {
        let span = statement("record", "record bars");
        span.record("db.operation.batch.size", change.rows.len());
        self.faults.hit(faults::BARS_BEFORE).await?;
        let terms = self.terms.terms();
        let recorded = self
            .writes
            .run(move |connection| Box::pin(bars::record(connection, change, terms)))
            .instrument(span)
            .await?;
        self.faults.hit(faults::BARS_AFTER).await?;
        Ok(recorded)
    }

    async fn epochs(&self) -> Result<Vec<EpochStart>, StoreError> {
        self.reads
            .run(|connection| Box::pin(epochs::list(connection)))
            .instrument(statement("list", "list epochs"))
            .await
    }

    async fn renew_epoch(&self, epoch: Epoch) -> Result<LogHead, StoreError> {
        let terms = self.terms.terms_of(epoch);
        self.writes
            .run(move |connection| Box::pin(epochs::renew(connection, terms)))
            .instrument(statement("renew", "renew epoch"))
            .await
    }

    async fn fork_epoch(&self, epoch: Epoch, common: Cursor) -> Result<LogHead, StoreError> {
        let terms = self.terms.terms_of(epoch);
        self.writes
            .run(move |connection| Box::pin(epochs::fork(connection, common, terms)))
            .instrument(statement("fork", "fork epoch"))
            .await
    }

    async fn lead(&self, replica: ReplicaId, lease: Duration) -> Result<bool, StoreError> {
        let now = self.terms.now();
        self.writes
            .run(move |connection| Box::pin(epochs::lead(connection, replica, lease, now)))
            .instrument(statement("lead", "lead upkeep"))
            .await
    }

    async fn close(&self) {
        self.appends.close().await;
        self.writes.close().await;
        self.reads.close().await;
        self.looks.close().await;
    }
}
