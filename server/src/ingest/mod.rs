//! Floor 3: the writes.
//!
//! Whoever has ticks submits batches to [`Ingest`]; one [`writer`] task appends them in groups and announces what it
//! committed. Files come in through `import`, invented data through `feed`.

mod counts;
pub mod feed;
pub mod import;
pub mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::Span;

use crate::domain::{Action, Batch, Clock, Cursor, Epoch, Published};
use crate::metrics::Metrics;
use crate::store::{ProducerClaim, ProducerId, RunId, RunOwner, RunProgress, Store, StoreError};
use crate::tape::corrections::MOST_CORRECTIONS;
use crate::tape::{Current, Tape};

/// Batches that wait for the writer. Each producer has at most its credit outstanding, so this covers a hundred of them.
const QUEUE_BATCHES: usize = 1_024;

/// Memory of batches that wait for the writer, in bytes.
const QUEUE_BYTES: usize = 64 << 20;

/// About the memory of a published bar, with its texts.
const PUBLISHED_BYTES: usize = 320;

/// How long the store may take for one batch, or for one claim, until its sender is told that it does not answer.
const STORE_PATIENCE: Duration = Duration::from_secs(4);

/// What the store answers in time. The store owns its writes: one that is given up here still happens, or not, as a
/// whole.
async fn within<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STORE_PATIENCE, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {STORE_PATIENCE:?}"))),
    }
}

/// Who sends a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A producer under a claim.
    Producer {
        /// The producer.
        producer: ProducerId,
        /// The fence of its claim.
        fence: u64,
        /// The batch's number.
        batch_seq: u64,
    },
    /// An ingestion run under its lease.
    Run {
        /// The run.
        run: RunId,
        /// The holder of the lease.
        owner: RunOwner,
        /// The batch's number.
        batch: u64,
        /// What the batch adds to the run's counts.
        progress: RunProgress,
        /// What the batch publishes beside ticks; instruments by their index in the batch's table.
        published: Published<u32>,
    },
}

impl Sender {
    /// How many things the batch publishes beside ticks.
    fn published(&self) -> usize {
        match self {
            Sender::Producer { .. } => 0,
            Sender::Run { published, .. } => published.bars.len() + published.details.len(),
        }
    }
}

/// A batch on its way to the log.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Its entries; none only for a run's batch whose lines were all rejected or ignored.
    pub batch: Batch,
    /// Who sends it.
    pub sender: Sender,
    /// Whether it is backfill.
    pub backfill: bool,
}

/// A batch is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Behind the batch's last entry.
    pub cursor: Cursor,
    /// Whether it had been stored before.
    pub duplicate: bool,
}

/// Why a batch was not stored, or why it is not known whether it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// A newer claim of the producer exists; for a run: another owner, or it no longer runs.
    #[error("a newer claim exists")]
    Fenced,
    /// The producer is not known: claim again.
    #[error("the producer is not known")]
    Unknown,
    /// A batch number is missing.
    #[error("batch {expected} is expected next")]
    OutOfOrder {
        /// The number that is expected.
        expected: u64,
    },
    /// A known number with other content.
    #[error("the batch number is known with other content")]
    Conflict,
    /// More ticks wait for compaction than the limit allows.
    #[error("{hot_ticks} ticks wait for compaction; the limit is {limit}")]
    QueueFull {
        /// Ticks that wait.
        hot_ticks: usize,
        /// The limit.
        limit: usize,
    },
    /// More corrections are kept than the limit allows.
    #[error("{kept} corrections are kept; the limit is {limit}")]
    TooManyCorrections {
        /// Corrections that are kept.
        kept: usize,
        /// The limit.
        limit: usize,
    },
    /// The store does not answer; whether the batch is stored is not known. The same batch may be sent again.
    #[error("the store is not available")]
    Unavailable,
    /// The log is another one: start over.
    #[error("the log's epoch is now {0}")]
    EpochChanged(Epoch),
    /// The server stops.
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl IngestError {
    /// Its name among the counts and the attributes of a span.
    pub fn name(&self) -> &'static str {
        match self {
            IngestError::Fenced => "fenced",
            IngestError::Unknown => "unknown_producer",
            IngestError::OutOfOrder { .. } => "out_of_order",
            IngestError::Conflict => "conflict",
            IngestError::QueueFull { .. } => "queue_full",
            IngestError::TooManyCorrections { .. } => "corrections_limit",
            IngestError::Unavailable => "store_unavailable",
            IngestError::EpochChanged(_) => "epoch_changed",
            IngestError::ShuttingDown => "shutting_down",
        }
    }
}

impl From<StoreError> for IngestError {
    fn from(error: StoreError) -> IngestError {
        match error {
            StoreError::EpochChanged(epoch) => IngestError::EpochChanged(epoch),
            StoreError::Unavailable(_) | StoreError::Corrupt { .. } => {
                tracing::error!(%error, "the store cannot be written");
                IngestError::Unavailable
            }
        }
    }
}

/// The door of the log: a handle on the writer.
#[derive(Clone, Debug)]
pub struct Ingest {
    queue: mpsc::Sender<writer::Command>,
    /// Bytes that may still wait.
    budget: Arc<Semaphore>,
    tapes: Current<Tape>,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    hot_tick_limit: usize,
    metrics: Metrics,
}

/// What waits for the writer, and how much may.
#[derive(Clone, Copy, Debug)]
pub struct Queue {
    /// Batches that wait.
    pub batches: usize,
    /// Memory of batches that wait or are being appended.
    pub bytes: usize,
    /// Batches that may wait.
    pub batch_limit: usize,
    /// Memory that they may take.
    pub byte_limit: usize,
}

impl Ingest {
    /// The log that batches go to now. A claim ends with it.
    pub fn epoch(&self) -> Epoch {
        self.tapes.get().epoch
    }

    /// What waits for the writer now.
    pub fn queue(&self) -> Queue {
        Queue {
            batches: QUEUE_BATCHES - self.queue.capacity(),
            bytes: QUEUE_BYTES - self.budget.available_permits(),
            batch_limit: QUEUE_BATCHES,
            byte_limit: QUEUE_BYTES,
        }
    }

    /// Claims a producer, which ends its older streams.
    pub async fn claim(&self, producer: &ProducerId) -> Result<ProducerClaim, IngestError> {
        Ok(within(self.store.claim_producer(producer)).await?)
    }

    /// Claims a producer again for whoever had been granted this fence.
    ///
    /// # Errors
    ///
    /// [`IngestError::Fenced`] if another has claimed it since.
    pub async fn renew(&self, producer: &ProducerId, held_fence: u64) -> Result<ProducerClaim, IngestError> {
        within(self.store.claim_or_renew(producer, Some(held_fence))).await?.ok_or(IngestError::Fenced)
    }

    /// Queues a batch, waiting while the queue is full. The receiver yields the outcome after the commit; batches of
    /// one sender are stored in the order in which they were queued. The span that is entered is the batch's: call it
    /// inside a span of the batch's own.
    pub async fn submit(
        &self,
        submission: Submission,
    ) -> Result<oneshot::Receiver<Result<Receipt, IngestError>>, IngestError> {
        // One tape from here to the append: an id of one epoch means nothing in another.
        let tape = self.tapes.get();
        let (hot_ticks, kept) = {
            let view = tape.views.borrow();
            (view.hot_ticks(), view.corrections().all)
        };
        if kept >= MOST_CORRECTIONS && submission.batch.ticks.iter().any(|tick| tick.action != Action::New) {
            let refused = IngestError::TooManyCorrections { kept, limit: MOST_CORRECTIONS };
            self.metrics.ingest.refused(refused.name(), 1);
            return Err(refused);
        }
        if hot_ticks > self.hot_tick_limit {
            let refused = IngestError::QueueFull { hot_ticks, limit: self.hot_tick_limit };
            self.metrics.ingest.refused(refused.name(), 1);
            return Err(refused);
        }
        let instruments = within(tape.registry.resolve(&submission.batch.instruments)).await?;
        let bytes = submission.batch.memory() + submission.sender.published() * PUBLISHED_BYTES;
        let bytes = bytes.clamp(1, QUEUE_BYTES) as u32;
        let permit = self.budget.clone().acquire_many_owned(bytes).await.map_err(|_| IngestError::ShuttingDown)?;
        let (reply, receipt) = oneshot::channel();
        let received = self.clock.now();
        let command = writer::Command {
            submission,
            epoch: tape.epoch,
            instruments,
            received,
            reply,
            span: Span::current(),
            _budget: permit,
        };
        self.queue.send(command).await.map_err(|_| IngestError::ShuttingDown)?;
        Ok(receipt)
    }
}
