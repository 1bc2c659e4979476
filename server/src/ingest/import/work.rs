//! Storing a checked file: batches of the same input lines, for ever, each once.
//!
//! Batch k holds the lines after (k - 1) x 10,000, so a run continues after its last batch wherever it stopped, in
//! whatever process. A lease says who works on it; each append proves it still holds.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::Inner;
use super::content::Spooled;
use super::error::ImportError;
use super::format::{BatchBuilder, Line};
use super::limits::{BATCH_LINES, KEPT_REJECTS, LEASE, LEASE_RENEWAL, OUTSTANDING, REJECT_TEXT_BYTES, STORE_PATIENCE};
use crate::domain::{Batch, Published};
use crate::ingest::{IngestError, Receipt, Sender, Submission};
use crate::store::{Lease, Reject, Run, RunEnd, RunId, RunOwner, RunProgress, RunState};

/// The first wait after the store did not answer; it doubles up to [`LAST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// A checked file. One thread at a time reads it.
#[derive(Debug)]
pub(super) struct Source(pub(super) Spooled);

/// A batch of lines, read.
#[derive(Debug)]
struct Parsed {
    number: u64,
    batch: Batch,
    published: Published<u32>,
    progress: RunProgress,
}

/// Where reading begins, and what it may find.
#[derive(Clone, Copy, Debug)]
struct From {
    /// The last batch that is stored.
    last_batch: u64,
    /// Lines rejected in it and before.
    rejected: u64,
    max_rejects: u64,
}

impl Source {
    /// Reads batches after the last stored one, until the file ends or nobody takes them any more.
    fn read(&mut self, from: From, out: &mpsc::Sender<Parsed>) -> Result<(), ImportError> {
        let mut lines = self.0.lines()?;
        for _ in 0..from.last_batch * BATCH_LINES {
            if !lines.next()? {
                return Ok(());
            }
        }
        let mut builder = BatchBuilder::default();
        let mut rejected = from.rejected;
        let mut first_rejects = Vec::new();
        for number in from.last_batch + 1.. {
            let mut progress = RunProgress::default();
            while progress.lines < BATCH_LINES && lines.next()? {
                progress.lines += 1;
                match self.0.parser.line(lines.text(), &mut builder) {
                    Line::Tick => progress.ticks += 1,
                    Line::Published => progress.published += 1,
                    Line::Ignored(kind) => progress.ignored.count(kind),
                    Line::Rejected { code, reason } => {
                        progress.rejected += 1;
                        rejected += 1;
                        let reject = Reject {
                            line: lines.number(),
                            code: code.name().into(),
                            reason,
                            text: shown(lines.text()),
                        };
                        if first_rejects.len() < 3 {
                            first_rejects.push(reject.clone());
                        }
                        if rejected <= KEPT_REJECTS {
                            progress.rejects.push(reject);
                        }
                        if rejected > from.max_rejects {
                            return Err(ImportError::TooManyRejects {
                                max: from.max_rejects,
                                rejected,
                                first: first_rejects,
                                unstored: progress.rejected,
                                rejects: progress.rejects,
                            });
                        }
                    }
                }
            }
            if progress.lines == 0 {
                return Ok(());
            }
            let (batch, published) = builder.take();
            let parsed = Parsed { number, batch, published, progress };
            if out.blocking_send(parsed).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The start of a line as text: what is not printable is written as `\xNN`.
fn shown(line: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    let start = &line[..line.len().min(REJECT_TEXT_BYTES)];
    for chunk in start.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() {
                escape(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(character);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    fn escape(text: &mut String, bytes: &[u8]) {
        for byte in bytes {
            write!(text, "\\x{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    text.truncate(text.floor_char_boundary(REJECT_TEXT_BYTES));
    text
}

/// The work on a run under a lease.
pub(super) struct Work<'a> {
    pub(super) inner: &'a Inner,
    pub(super) run: RunId,
    pub(super) owner: RunOwner,
    pub(super) max_rejects: u64,
}

type Waiting = VecDeque<oneshot::Receiver<Result<Receipt, IngestError>>>;

impl Work<'_> {
    /// Stores what is left of the file, and ends the run.
    pub(super) async fn go(&self, run: Run, source: Source) -> Result<(), ImportError> {
        let stored = {
            let storing = self.store_all(run, source);
            let renewing = self.renew();
            tokio::pin!(storing);
            tokio::select! {
                stored = &mut storing => stored,
                never = renewing => match never {},
            }
        };
        match stored {
            Ok(()) => self.finish(RunEnd::Succeeded).await,
            Err(ImportError::Ingest(IngestError::Fenced | IngestError::Unknown)) => Err(self.lost().await),
            // The store may not know what it has, or we are stopping: the lease ends by itself, and the next upload
            // goes on from there.
            Err(error @ ImportError::Ingest(_)) => Err(error),
            Err(error) => {
                self.finish(RunEnd::Failed(error.failure())).await?;
                Err(error)
            }
        }
    }

    /// Prolongs the lease for as long as it is polled. Whether it still holds, the next append tells.
    async fn renew(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(LEASE_RENEWAL).await;
            let now = self.inner.clock.now();
            let lease = Lease { owner: self.owner, now, until: now.saturating_add(LEASE) };
            if let Err(error) = self.inner.store.renew_lease(&self.run, lease).await {
                self.inner.metrics.tape.store_failed("import");
                tracing::warn!(run = self.run.as_str(), %error, "a lease could not be renewed");
            }
        }
    }

    /// Passes over the file until everything is stored, beginning anew where the store stands after it was away.
    async fn store_all(&self, mut run: Run, mut source: Source) -> Result<(), ImportError> {
        let mut wait = FIRST_WAIT;
        let mut give_up = Instant::now() + STORE_PATIENCE;
        loop {
            let (returned, stored) = self.pass(&run, source).await?;
            source = returned;
            let Err(error) = stored else { return Ok(()) };
            let may_pass = matches!(
                &error,
                ImportError::Ingest(
                    IngestError::Unavailable
                        | IngestError::QueueFull { .. }
                        | IngestError::EpochChanged(_)
                        | IngestError::OutOfOrder { .. }
                )
            );
            if !may_pass || Instant::now() >= give_up {
                return Err(error);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.inner.stop.cancelled() => return Err(IngestError::ShuttingDown.into()),
            }
            wait = (wait * 2).min(LAST_WAIT);
            match self.inner.store.run(&self.run).await {
                Ok(Some(fresh)) if fresh.owner == self.owner && fresh.state == RunState::Running => {
                    if fresh.last_batch > run.last_batch {
                        wait = FIRST_WAIT;
                        give_up = Instant::now() + STORE_PATIENCE;
                    }
                    run = fresh;
                }
                Ok(_) => return Err(IngestError::Fenced.into()),
                Err(error) => tracing::debug!(%error, "the store does not answer yet"),
            }
        }
    }

    /// Reads on one thread and appends from here, until the file ends or a batch is not stored.
    async fn pass(&self, run: &Run, mut source: Source) -> Result<(Source, Result<(), ImportError>), ImportError> {
        // One batch is read ahead while others are appended.
        let (out, mut parsed) = mpsc::channel(1);
        let from = From { last_batch: run.last_batch, rejected: run.progress.rejected, max_rejects: self.max_rejects };
        let reading = tokio::task::spawn_blocking(move || {
            let read = source.read(from, &out);
            (source, read)
        });
        let mut waiting = Waiting::new();
        let mut stored = Ok(());
        while stored.is_ok()
            && let Some(next) = parsed.recv().await
        {
            stored = self.submit(next, &mut waiting).await;
        }
        drop(parsed);
        // Nothing may be on its way when the run is read or ended.
        while let Some(receipt) = waiting.pop_front() {
            stored = stored.and(acknowledged(receipt).await);
        }
        let (source, read) = reading.await.map_err(|error| ImportError::Defect(error.to_string()))?;
        Ok((source, stored.and(read)))
    }

    /// Submits a batch, after an earlier one is acknowledged if enough are on their way.
    async fn submit(&self, parsed: Parsed, waiting: &mut Waiting) -> Result<(), ImportError> {
        if waiting.len() == OUTSTANDING
            && let Some(receipt) = waiting.pop_front()
        {
            acknowledged(receipt).await?;
        }
        if self.inner.stop.is_cancelled() {
            return Err(IngestError::ShuttingDown.into());
        }
        let Parsed { number, batch, published, progress } = parsed;
        let sender = Sender::Run { run: self.run.clone(), owner: self.owner, batch: number, progress, published };
        let span = tracing::debug_span!(
            "batch",
            tapefeed.run.id = self.run.as_str(),
            tapefeed.batch.seq = number,
            tapefeed.batch.ticks = batch.ticks.len(),
        );
        let submission = Submission { batch, sender, backfill: true };
        waiting.push_back(self.inner.ingest.submit(submission).instrument(span).await?);
        Ok(())
    }

    /// Ends the run, with patience: everything is stored already.
    async fn finish(&self, end: RunEnd) -> Result<(), ImportError> {
        let give_up = Instant::now() + STORE_PATIENCE;
        loop {
            match self.inner.store.finish_run(&self.run, &self.owner, end.clone()).await {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(self.lost().await),
                Err(error) if Instant::now() >= give_up => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(%error, "the store does not answer yet");
                    tokio::time::sleep(LAST_WAIT).await;
                }
            }
        }
    }

    /// Why the run is not ours any more.
    async fn lost(&self) -> ImportError {
        match self.inner.store.run(&self.run).await {
            Ok(Some(run)) if run.state == RunState::Cancelled => ImportError::Cancelled(self.run.clone()),
            Ok(_) => ImportError::Superseded(self.run.clone()),
            Err(error) => error.into(),
        }
    }
}

async fn acknowledged(receipt: oneshot::Receiver<Result<Receipt, IngestError>>) -> Result<(), ImportError> {
    receipt.await.unwrap_or(Err(IngestError::ShuttingDown))?;
    Ok(())
}
