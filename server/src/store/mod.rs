//! Floor 1: the durable truth.
//!
//! [`Store`] speaks of segments, producers, instruments, chunks and runs; it knows no query and no arithmetic, and it
//! never looks into the bytes it keeps. One conformance suite (`conformance.rs`) holds for every backend.
//!
//! Every write is owned by the store: a caller that goes away while it waits does not interrupt the write, it only
//! does not learn the outcome.

mod bars;
#[cfg(test)]
mod conformance;
pub mod faults;
mod manifest;
mod marks;
mod memory;
mod postgres;
mod published;
mod retention;
mod run;
mod sqlite;

pub use bars::{BarKey, BarRow, BarsChange, BarsMark};
pub use manifest::{ChunkId, ChunkRow, CorrectionRow, ManifestChange, ManifestCommit, ManifestDelta, NewChunk};
pub use memory::{MemoryStore, Standby};
#[cfg(test)]
pub(crate) use postgres::tests::TestServer;
pub use postgres::{DiskUse, PostgresOpenError, PostgresOptions, PostgresStore, PostgresUrl, PostgresUrlInvalid};
pub use run::{
    Ignored, Lease, NewRun, Reject, Run, RunClaim, RunEnd, RunError, RunFailure, RunId, RunIdInvalid, RunOwner,
    RunProgress, RunRequest, RunState,
};
pub use sqlite::{OpenError, SqliteOptions, SqliteStore};

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::{
    Cursor, Epoch, Instrument, InstrumentDetails, InstrumentId, Published, PublishedBar, PublishedBarKey, Symbol,
    UnixNanos, Venue,
};

/// Links a segment to everything before it: the first 16 bytes of SHA-256 over the predecessor's chain, the epoch,
/// the position and the segment's columns and bytes. See [`crate::domain::segment::chain`].
pub type Chain = [u8; 16];

/// A batch's digest, by [`crate::domain::Batch::digest`].
pub type Digest = [u8; 16];

/// How many digests a producer row keeps: the credit window, so every batch that may be re-sent is known.
pub const PRODUCER_WINDOW: usize = 8;

/// How many segments a page of the log holds at most, however small they are: a page is read in one transaction.
pub const PAGE_SEGMENTS: usize = 1024;

/// What is wrong with the store, or with what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be reached or cannot write now (a full disk, a lost connection); the same call may work later.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Stored bytes fail their check. Names the table and what identifies the row.
    #[error("stored data is damaged: {table} {row}: {problem}")]
    Corrupt {
        /// The table.
        table: &'static str,
        /// What identifies the row.
        row: String,
        /// What does not hold.
        problem: String,
    },
    /// The log is not the one the caller knows.
    #[error("the log's epoch is now {0}")]
    EpochChanged(Epoch),
}

impl StoreError {
    /// A change drops a chunk that is not there.
    fn not_live(id: ChunkId) -> StoreError {
        StoreError::Corrupt { table: "chunks", row: format!("id {}", id.0), problem: "is not live".to_owned() }
    }
}

/// The log's head row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// The log's name.
    pub epoch: Epoch,
    /// The last position; 0 while the log is empty.
    pub position: u64,
    /// The chain of the last segment; zeros while the log is empty.
    pub chain: Chain,
    /// The append time of the last segment.
    pub append_time: UnixNanos,
    /// The first position that can still be read from the log; `position + 1` when nothing can.
    pub oldest: u64,
    /// The smallest position that is not in chunks yet; `position + 1` when everything is. Reading the log after
    /// `hot_floor - 1` finds every hot tick.
    pub hot_floor: u64,
    /// The version of the last manifest commit; 0 before the first.
    pub manifest_version: u64,
    /// Bytes of all segments still in the log.
    pub log_bytes: u64,
}

/// One commit of the log, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The log it belongs to.
    pub epoch: Epoch,
    /// Position of its first entry.
    pub first_seq: u64,
    /// How many entries it holds, at least 1.
    pub entry_count: u32,
    /// How many of them are ticks.
    pub tick_count: u32,
    /// When it was appended; never before its predecessor's.
    pub append_time: UnixNanos,
    /// Whether it is backfill.
    pub backfill: bool,
    /// The ingestion run that wrote it.
    pub run_id: Option<RunId>,
    /// Its link to everything before it.
    pub chain: Chain,
    /// Its entries, by [`crate::domain::segment`].
    pub bytes: Bytes,
}

impl Segment {
    /// Position of its last entry.
    pub fn last_seq(&self) -> u64 {
        self.first_seq + u64::from(self.entry_count) - 1
    }
}

/// A stretch of the log, read in one transaction.
#[derive(Clone, Debug)]
pub struct LogPage {
    /// The head at the time of the reading.
    pub head: LogHead,
    /// Consecutive segments, the first of which holds or follows the asked position. Empty at the head, and when the
    /// asked position lies before `head.oldest`: compare.
    pub segments: Vec<Segment>,
}

/// Where a segment of the log begins, and when it was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEdge {
    /// Position of its first entry.
    pub first_seq: u64,
    /// When it was appended.
    pub append_time: UnixNanos,
}

/// One append: everything in it is stored, or nothing.
#[derive(Clone, Debug)]
pub struct Group {
    /// The log that the writer believes in; another one refuses the group.
    pub epoch: Epoch,
    /// The encoded entries; empty when there are none (a run's batch whose lines were all rejected).
    pub bytes: Bytes,
    /// How many entries the bytes hold.
    pub entry_count: u32,
    /// How many of them are ticks.
    pub tick_count: u32,
    /// Whether the group is backfill.
    pub backfill: bool,
    /// The ingestion run that writes it. All of a group belongs to one run or to none.
    pub run_id: Option<RunId>,
    /// Who sent what, in the order of the entries. Entries that nobody's mark counts come last.
    pub marks: Vec<Mark>,
}

/// What makes a re-sent batch recognisable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A batch of a publishing producer.
    Producer {
        /// The producer.
        producer: ProducerId,
        /// The fence of its claim.
        fence: u64,
        /// The batch's number, last + 1.
        batch_seq: u64,
        /// The batch's content.
        digest: Digest,
        /// How many of the group's entries are the batch's.
        entry_count: u32,
    },
    /// A batch of an ingestion run.
    Run {
        /// The run.
        run: RunId,
        /// Who holds its lease.
        owner: RunOwner,
        /// The batch's number, last + 1.
        batch: u64,
        /// What the batch adds to the run's counts.
        progress: RunProgress,
        /// What the batch publishes beside ticks, stored with its mark: a bar replaces that of its key, details replace
        /// those of an earlier day or of their own.
        published: Published<InstrumentId>,
        /// How many of the group's entries are the batch's.
        entry_count: u32,
    },
}

/// What an append found for one [`Mark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen before.
    New,
    /// Stored before, up to this position.
    Duplicate {
        /// Position of the batch's last entry.
        last_seq: u64,
    },
    /// A number that does not follow the last one.
    OutOfOrder {
        /// The number that is expected next.
        expected: u64,
    },
    /// A known number with other content, or one older than the window of digests.
    Conflict,
    /// A newer claim exists; for a run: another owner, or no longer running.
    Fenced,
    /// The producer is not known: forgotten after idling, or never claimed.
    Unknown,
}

/// The outcome of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Stored and durable.
    Committed {
        /// Position of the group's first entry; of the next append's when the group was empty.
        first_seq: u64,
        /// The segment's append time.
        append_time: UnixNanos,
        /// The segment's chain.
        chain: Chain,
    },
    /// At least one verdict is not [`Verdict::New`]: nothing was stored. One verdict for each mark, in order; a batch
    /// that follows a `New` one of the same producer in the group is judged as if that one had been stored. A
    /// `Duplicate` of a batch of the same group may therefore be acknowledged only once that batch is stored.
    Refused(Vec<Verdict>),
}

/// A producer's name: 1 to 64 bytes of `A-Z a-z 0-9 _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(Arc<str>);

/// A producer id with other characters, or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 characters of A-Z a-z 0-9 _ -")]
pub struct ProducerIdInvalid;

impl ProducerId {
    /// Checks length and alphabet.
    pub fn new(text: &str) -> Result<ProducerId, ProducerIdInvalid> {
        if run::is_plain_name(text) { Ok(ProducerId(text.into())) } else { Err(ProducerIdInvalid) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A granted claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerClaim {
    /// Greater than that of every earlier claim of this producer.
    pub fence: u64,
    /// The number of the producer's last stored batch; 0 for a new producer.
    pub last_batch_seq: u64,
}

/// Names a replica for as long as its process lives. Random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplicaId(pub u64);

/// Where an epoch began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch.
    pub epoch: Epoch,
    /// The epoch before it; `None` for the first.
    pub parent: Option<Epoch>,
    /// The last position that it shares with its parent: cursors of the parent up to here stay exact.
    pub fork: u64,
    /// When it began.
    pub start_time: UnixNanos,
}

/// What may be forgotten.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Log segments appended before this may go, never past the hot floor.
    pub log_before: UnixNanos,
    /// The log may hold at most this many bytes, except past the hot floor.
    pub log_bytes: u64,
    /// Chunks of days that ended before this may go; `None` keeps history for ever.
    pub history_before: Option<UnixNanos>,
    /// Bytes of chunks dropped longer ago than this may go.
    pub chunk_grace: Duration,
    /// Producers that idled longer than this may go.
    pub producer_idle: Duration,
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Log segments.
    pub segments: u64,
    /// Chunks whose rows and bytes are gone.
    pub chunks: u64,
    /// Producers.
    pub producers: u64,
}

/// The durable truth behind one or more replicas.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    /// The log's head, read now.
    async fn head(&self) -> Result<LogHead, StoreError>;

    /// Answers when a trivial read works; the health check.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Registers what is not known yet, in one transaction, and returns all in the order asked. Ids are dense from 1.
    async fn register(&self, instruments: &[(Venue, Symbol)]) -> Result<Vec<Instrument>, StoreError>;

    /// All instruments with an id greater than `after`, ascending.
    async fn instruments(&self, after: InstrumentId) -> Result<Vec<Instrument>, StoreError>;

    /// Raises the producer's fence, so that older claims are refused, and creates the producer if it is new.
    async fn claim_producer(&self, producer: &ProducerId) -> Result<ProducerClaim, StoreError> {
        Ok(self.claim_or_renew(producer, None).await?.expect("only a renewal is refused"))
    }

    /// Claims a producer; with a fence for whoever was granted it, which is `None` if another has claimed it since. A
    /// fence that this log has not handed out yet counts as none.
    async fn claim_or_renew(
        &self,
        producer: &ProducerId,
        held_fence: Option<u64>,
    ) -> Result<Option<ProducerClaim>, StoreError>;

    /// Appends a group. `Ok(Committed)` means durable. `Err(EpochChanged)`: nothing stored. Any other error leaves the
    /// outcome unknown: the same group may be sent again, its marks tell.
    async fn append(&self, group: Group) -> Result<Appended, StoreError>;

    /// Consecutive segments from the one that holds `after + 1`, at least one if there is one, then as many as fit
    /// `max_bytes`, but at most [`PAGE_SEGMENTS`].
    async fn segments(&self, after: u64, max_bytes: usize) -> Result<LogPage, StoreError>;

    /// The first segment that was appended at or after a time, of those still in the log; `None` if there is none.
    async fn position_at(&self, append_time: UnixNanos) -> Result<Option<LogEdge>, StoreError>;

    /// The manifest's changes since a version; everything since 0, and whenever [`ManifestDelta::since`] says 0.
    async fn manifest(&self, since: u64) -> Result<ManifestDelta, StoreError>;

    /// Commits a change of the manifest if its expected version is still the current one.
    async fn commit_manifest(&self, change: ManifestChange) -> Result<ManifestCommit, StoreError>;

    /// The bytes of chunks. A chunk that is gone is missing from the answer.
    async fn chunk_bytes(&self, ids: &[ChunkId]) -> Result<Vec<(ChunkId, Bytes)>, StoreError>;

    /// Forgets what the retention allows.
    async fn sweep(&self, retention: Retention) -> Result<Swept, StoreError>;

    /// Begins an ingestion run, continues one, or says why not. A run that is continued forgets the rejects of the batch
    /// in which it failed.
    async fn begin_run(&self, request: RunRequest) -> Result<RunClaim, StoreError>;

    /// Prolongs a lease; false when the run is no longer the owner's or no longer running.
    async fn renew_lease(&self, run: &RunId, lease: Lease) -> Result<bool, StoreError>;

    /// Ends a run of the owner's; false when it is no longer the owner's or no longer running.
    async fn finish_run(&self, run: &RunId, owner: &RunOwner, end: RunEnd) -> Result<bool, StoreError>;

    /// Cancels a run if it is running; its owner learns at its next append. Returns the run, `None` if unknown.
    async fn cancel_run(&self, run: &RunId) -> Result<Option<Run>, StoreError>;

    /// A run.
    async fn run(&self, run: &RunId) -> Result<Option<Run>, StoreError>;

    /// Runs from the newest, older than the run `before` if given, at most `limit`.
    async fn runs(&self, before: Option<&RunId>, limit: usize) -> Result<Vec<Run>, StoreError>;

    /// The rejects of a run behind a line (0: from the first), by line, at most `limit`: those of its stored batches,
    /// then those of the batch in which it failed.
    async fn rejects(&self, run: &RunId, after_line: u64, limit: usize) -> Result<Vec<Reject>, StoreError>;

    /// The published bars of an instrument on days of a half-open range, in days since 1970, ordered by key; only those
    /// behind `after` if it is given; at most `limit`.
    async fn published_bars(
        &self,
        instrument: InstrumentId,
        days: Range<u32>,
        after: Option<PublishedBarKey>,
        limit: usize,
    ) -> Result<Vec<PublishedBar>, StoreError>;

    /// The published details of instruments, by id. An instrument about which nothing was published is missing from the
    /// answer.
    async fn instrument_details(
        &self,
        instruments: &[InstrumentId],
    ) -> Result<Vec<(InstrumentId, InstrumentDetails)>, StoreError>;

    /// Where the table of bars stands.
    async fn bars_mark(&self) -> Result<BarsMark, StoreError>;

    /// Changes the table of bars and moves its mark on by one version. False, and nothing stored, when the mark has
    /// another version than is expected: somebody else has changed the table. `Err(EpochChanged)`: nothing stored. Any
    /// other error leaves the outcome unknown; the mark tells.
    async fn record_bars(&self, change: BarsChange) -> Result<bool, StoreError>;

    /// Every epoch that the log has had, the newest first.
    async fn epochs(&self) -> Result<Vec<EpochStart>, StoreError>;

    /// Begins a new epoch after the current head, for restores and copied files. Every claim of a producer ends. The
    /// current epoch itself changes nothing.
    async fn renew_epoch(&self, epoch: Epoch) -> Result<LogHead, StoreError>;

    /// Begins a new epoch because the log lost what followers of `common.epoch` saw behind `common`: a standby without
    /// the newest commits was promoted, or an older copy was put in place. The new epoch shares with its parent what
    /// lies at or below both `common` and the head. Every claim of a producer ends.
    ///
    /// When the current epoch is not `common.epoch`, another replica was first, and nothing happens. Like every write
    /// one transaction under the lock of the head row; the answer is the head after it.
    async fn fork_epoch(&self, epoch: Epoch, common: Cursor) -> Result<LogHead, StoreError>;

    /// Takes or prolongs the lease of the store's upkeep (compaction and sweeps) for a replica: true while it holds it,
    /// false while another does. The lease only saves work, because every commit of the manifest is compare-and-set;
    /// it moves when its holder has not prolonged it in time. A store of a single process has nobody to share with.
    /// In Postgres it is a row with the holder and an end by the database's clock.
    async fn lead(&self, _replica: ReplicaId, _lease: Duration) -> Result<bool, StoreError> {
        Ok(true)
    }

    /// Finishes what can be finished (SQLite: a checkpoint) and closes. Later calls fail.
    async fn close(&self);
}
