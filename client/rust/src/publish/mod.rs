//! Publishing: batches with numbers, so that nothing is lost and nothing is stored twice.
//!
//! [`Client::publisher`] sets up a [`Publisher`]. One task owns the stream: it gathers ticks into batches, keeps what is
//! not acknowledged, stays within the server's credit, and after any cut claims the producer id again and sends the
//! unacknowledged batches with the numbers that they had. The task is in `task`, numbers and credit in `backlog`, batches in
//! `batch`.

mod backlog;
mod batch;
mod task;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use batch::Content;
use task::{Command, Task};

use crate::{Client, Cursor, Error, NewTick, SourceEvent};

/// How many ticks a batch holds at most, unless the builder says otherwise.
const DEFAULT_BATCH_SIZE: usize = 1_000;

/// How long the first tick of a batch waits for others, unless the builder says otherwise.
const DEFAULT_LINGER: Duration = Duration::from_millis(5);

/// How many sent ticks may wait for the task, beyond those in batches. Then [`Publisher::send`] waits.
const COMMAND_QUEUE: usize = 1_024;

/// How many refused batches are kept for whoever asks. The publisher stops at the next one rather than forget any.
pub(crate) const MAX_REFUSED_BATCHES: usize = 8;

/// Sets up a [`Publisher`].
#[derive(Clone, Debug)]
pub struct PublisherBuilder {
    client: Client,
    options: Options,
}

#[derive(Clone, Debug)]
struct Options {
    producer_id: String,
    backfill: bool,
    batch_size: usize,
    linger: Duration,
    rows: bool,
}

/// A publisher of one producer id.
///
/// ```no_run
/// # async fn example(client: tapefeed_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use tapefeed_client::{NewTick, UnixNanos};
///
/// let publisher = client.publisher("nasdaq-feed").start().await?;
/// let time = UnixNanos(1_723_161_655_342_000_000);
/// publisher.send(NewTick::new("NASDAQ", "AAPL", time, "213.31".parse()?)).await?;
/// let receipt = publisher.close().await?;
/// println!("on disk, cursor {:?}", receipt.cursor);
/// # Ok(())
/// # }
/// ```
///
/// # What is promised
///
/// A tick counts as stored when a [`Receipt`] covers it: it is then on the server's disk. Until then the publisher keeps
/// it in memory, and a cut, a restart of the server or a lost acknowledgement makes it send the same batch with the same
/// number again, which the server stores once.
///
/// # Refused batches
///
/// A batch is stored as a whole or not at all. One that breaks a rule is taken out and handed back by the next
/// [`Publisher::flush`] (or by the [`Publisher::publish_batch`] that made it) as [`RefusedBatch`], with its ticks and the
/// violations; the batches behind it are renumbered and stored. If eight are waiting to be asked for, the publisher
/// stops, because nobody seems to look.
///
/// # End
///
/// A fatal error (such as `PRODUCER_FENCED`: another publisher claimed the id) ends the publisher; every later call
/// returns it, and [`PublisherStatus::pending_ticks`] says how many ticks are not acknowledged. Dropping the publisher
/// gives up what is not acknowledged: [`Publisher::close`] first.
pub struct Publisher {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<PublisherStatus>,
    /// Why the task ended. Set before it stops taking commands.
    failure: Arc<OnceLock<Error>>,
    resumed_after: u64,
    task: JoinHandle<()>,
}

/// What is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The number of the last stored batch. 0 if this producer id has stored none.
    pub batch_seq: u64,
    /// Whether that batch had been stored before, by an attempt whose acknowledgement was lost.
    pub duplicate: bool,
    /// The cursor after it, for `min_cursor` or a subscription. `None` if this publisher has stored nothing yet.
    pub cursor: Option<Cursor>,
}

/// The counts of a publisher, from its start on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PublisherStatus {
    /// Whether a claim is granted right now.
    pub connected: bool,
    /// The number of the claim; it grows with each claim of the producer id.
    pub fence: u64,
    /// The number of the last acknowledged batch.
    pub batch_seq: u64,
    /// The cursor after it.
    pub cursor: Option<Cursor>,
    /// How many batches are acknowledged.
    pub acknowledged_batches: u64,
    /// How many ticks are acknowledged.
    pub acknowledged_ticks: u64,
    /// How many of those batches the server had stored before, by an attempt whose acknowledgement was lost.
    pub duplicate_batches: u64,
    /// How many batches were refused.
    pub refused_batches: u64,
    /// How many ticks are gathered or sent, and not acknowledged.
    pub pending_ticks: u64,
    /// How many claims were granted after the first.
    pub reconnects: u64,
    /// How many acknowledged batches the server did not know any more at a later claim: it lost its newest part, or
    /// forgot the producer after 7 idle days.
    pub forgotten_batches: u64,
}

/// Batches that the server refused.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefusedBatches {
    /// The batches, in the order in which they were sent. At least one.
    pub batches: Vec<RefusedBatch>,
}

/// One batch that the server refused: nothing of it is stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RefusedBatch {
    /// Its ticks, to correct and send again. Empty if it was a source event.
    pub ticks: Vec<NewTick>,
    /// The source event, if it was one.
    pub event: Option<SourceEvent>,
    /// The ticks that break a rule, the first 20.
    pub violations: Vec<TickViolation>,
    /// How many violations there are in all.
    pub violation_count: u64,
    /// What the server said.
    pub error: Error,
}

/// A tick that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TickViolation {
    /// The index into [`RefusedBatch::ticks`]. `None` if the rule is not about one tick.
    pub index: Option<usize>,
    /// The path of the field in the request.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

// === impl PublisherBuilder ===

impl Client {
    /// Sets up a publisher. `producer_id` is the name under which batches are numbered: 1 to 64 bytes of
    /// `A-Z a-z 0-9 _ -`. One publisher at a time holds it; a newer one ends the older with `PRODUCER_FENCED`.
    pub fn publisher(&self, producer_id: impl Into<String>) -> PublisherBuilder {
        PublisherBuilder {
            client: self.clone(),
            options: Options {
                producer_id: producer_id.into(),
                backfill: false,
                batch_size: DEFAULT_BATCH_SIZE,
                linger: DEFAULT_LINGER,
                rows: false,
            },
        }
    }
}

impl PublisherBuilder {
    /// How many ticks a batch holds at most. Default 1,000, at least 1. A batch also ends below the server's 1 MiB.
    pub fn batch_size(mut self, ticks: usize) -> PublisherBuilder {
        self.options.batch_size = ticks.max(1);
        self
    }

    /// How long the first tick of a batch waits for others. Default 5 ms.
    pub fn linger(mut self, linger: Duration) -> PublisherBuilder {
        self.options.linger = linger;
        self
    }

    /// Whether the ticks fill in history: of any age, and passed over by subscriptions that do not ask. Default false.
    pub fn backfill(mut self, backfill: bool) -> PublisherBuilder {
        self.options.backfill = backfill;
        self
    }

    /// Sends rows instead of columns: three times the bytes, for debugging.
    pub fn rows(mut self) -> PublisherBuilder {
        self.options.rows = true;
        self
    }

    /// Claims the producer id and starts. Tries again while the server is unavailable, up to the client's deadline.
    ///
    /// # Errors
    ///
    /// Whatever the server refuses the claim with, [`Error::Transport`] if it cannot be reached in time.
    pub async fn start(self) -> Result<Publisher, Error> {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (status_sender, status) = watch::channel(PublisherStatus::default());
        let failure = Arc::new(OnceLock::new());
        let (granted, grant) = oneshot::channel();
        let task = Task::new(self.client, self.options, receiver, status_sender, failure.clone());
        let mut publisher =
            Publisher { commands, status, failure, resumed_after: 0, task: tokio::spawn(task.run(granted)) };
        let resumed_after = grant.await.unwrap_or_else(|_| Err(publisher.failure()))?;
        publisher.resumed_after = resumed_after;
        Ok(publisher)
    }
}

// === impl Publisher ===

impl Publisher {
    /// Takes a tick. Waits while the server is slower than the ticks come; returns before the tick is stored.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a negative quantity, else the fatal error that ended the publisher. Refused batches are
    /// told by [`Publisher::flush`].
    pub async fn send(&self, tick: NewTick) -> Result<(), Error> {
        check(&tick)?;
        self.command(Command::Tick(tick)).await
    }

    /// Takes what the feed says about itself, in order with its ticks.
    ///
    /// # Errors
    ///
    /// The fatal error that ended the publisher.
    pub async fn send_event(&self, event: SourceEvent) -> Result<(), Error> {
        self.command(Command::Event(event)).await
    }

    /// Stores these ticks as one batch of their own, and waits until they are on disk. Ticks sent before go first.
    ///
    /// Several calls may wait at once; batches are numbered in the order of the calls. With one batch per call, the
    /// numbers map to the caller's own positions, so that a producer can go on exactly after [`Publisher::resumed_after`].
    ///
    /// # Errors
    ///
    /// [`Error::BatchesRefused`] with this batch if it breaks a rule, [`Error::Invalid`] if it is empty or larger than a
    /// message may be, else the fatal error that ended the publisher.
    pub async fn publish_batch(&self, ticks: Vec<NewTick>) -> Result<Receipt, Error> {
        for tick in &ticks {
            check(tick)?;
        }
        let content = Content::Ticks(ticks);
        content.check()?;
        self.ask(|reply| Command::Batch(content, reply)).await
    }

    /// Waits until everything taken before is on disk.
    ///
    /// # Errors
    ///
    /// [`Error::BatchesRefused`] with all batches that were refused since the last call; what came between and after
    /// them is stored. Else the fatal error that ended the publisher.
    pub async fn flush(&self) -> Result<Receipt, Error> {
        self.ask(Command::Flush).await
    }

    /// Waits until everything is on disk, and ends the publisher.
    ///
    /// # Errors
    ///
    /// As [`Publisher::flush`].
    pub async fn close(self) -> Result<Receipt, Error> {
        self.flush().await
    }

    /// The counts right now.
    pub fn status(&self) -> PublisherStatus {
        self.status.borrow().clone()
    }

    /// The counts as they change: wait for acknowledgements without a [`Publisher::flush`].
    pub fn watch(&self) -> watch::Receiver<PublisherStatus> {
        self.status.clone()
    }

    /// The number of the last batch that was stored under this producer id before this publisher started. 0: none.
    pub fn resumed_after(&self) -> u64 {
        self.resumed_after
    }

    async fn command(&self, command: Command) -> Result<(), Error> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| self.failure())
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<Receipt, Error>>) -> Command,
    ) -> Result<Receipt, Error> {
        let (reply, answer) = oneshot::channel();
        self.command(command(reply)).await?;
        answer.await.unwrap_or_else(|_| Err(self.failure()))
    }

    fn failure(&self) -> Error {
        self.failure.get().cloned().unwrap_or(Error::Closed)
    }
}

/// What no encoding can hold is refused here, before it can spoil a batch.
fn check(tick: &NewTick) -> Result<(), Error> {
    match tick.quantity {
        Some(quantity) if quantity.is_negative() => {
            Err(Error::Invalid(format!("quantity {quantity} of {}: quantities are zero or positive", tick.symbol)))
        }
        _ => Ok(()),
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Publisher").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

// === impl RefusedBatches ===

impl fmt::Display for RefusedBatches {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ticks: usize = self.batches.iter().map(|batch| batch.ticks.len()).sum();
        match self.batches.len() {
            1 => write!(out, "a batch was refused, {ticks} ticks are not stored")?,
            count => write!(out, "{count} batches were refused, {ticks} ticks are not stored")?,
        }
        if let Some(batch) = self.batches.first() {
            write!(out, ": {}", batch.error)?;
        }
        Ok(())
    }
}
