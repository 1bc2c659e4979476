//! One upload: from its first byte to the end of its run.
//!
//! The call that brings the bytes may go away at any time; the task that owns the upload decides then. Bytes are
//! unpacked and checked on a blocking thread behind a short channel, so a slow disk slows its own client.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::Instrument as _;

use super::Inner;
use super::container::{Intake, too_large};
use super::content::Spooled;
use super::error::ImportError;
use super::registry::{Entry, Phase};
use super::status::RunStatus;
use super::work::{Source, Work};
use crate::ingest::IngestError;
use crate::store::{Lease, NewRun, Run, RunClaim, RunOwner, RunRequest};
use crate::trace;

/// Messages between the call and the blocking thread: at most 1 MiB each.
const CHANNEL_MESSAGES: usize = 4;

/// What the call passes on.
#[derive(Debug)]
enum Message {
    Data(Bytes),
    /// The client has closed its side: the file is complete.
    End,
}

/// The end of an import that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The run: of a file that is known, the earlier one.
    pub run: RunStatus,
    /// Whether this upload stored nothing because another one has, or does.
    pub duplicate: bool,
}

/// The handle of the call that brings the bytes. Dropping it before [`Upload::complete`] ends the upload.
#[derive(Debug)]
pub struct Upload {
    messages: mpsc::Sender<Message>,
    outcome: oneshot::Receiver<Result<Imported, ImportError>>,
}

impl Upload {
    /// Starts the task of an upload.
    pub(super) fn start(inner: &Arc<Inner>, entry: Arc<Entry>, slot: OwnedSemaphorePermit) -> Upload {
        let (messages, received) = mpsc::channel(CHANNEL_MESSAGES);
        let (reply, outcome) = oneshot::channel();
        let task = Task { inner: inner.clone(), entry };
        let span = tracing::debug_span!("import", tapefeed.run.id = task.entry.start.run.as_str());
        let told = span.clone();
        inner.tasks.spawn(
            async move {
                let imported = task.run(received, slot).await;
                if let Err(error) = &imported {
                    trace::set(&told, "error.type", error.reason());
                }
                task.conclude(&imported);
                // The client may be gone; the run's row tells its end.
                let _ = reply.send(imported);
            }
            .instrument(span),
        );
        Upload { messages, outcome }
    }

    /// Passes bytes on, waiting while the disk is behind. False once the import has ended: ask [`Upload::outcome`].
    pub async fn push(&self, bytes: Bytes) -> bool {
        self.messages.send(Message::Data(bytes)).await.is_ok()
    }

    /// Says that the file is complete.
    pub async fn complete(&self) {
        // Whoever is not there any more has an outcome.
        let _ = self.messages.send(Message::End).await;
    }

    /// Waits for the end of the import. It may come before the file is complete. May be dropped and asked again
    /// until it has answered.
    pub async fn outcome(&mut self) -> Result<Imported, ImportError> {
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ImportError::Defect("its task ended without an outcome".to_owned())),
        }
    }
}

/// Receives an upload on a blocking thread.
fn receive(mut intake: Intake, mut messages: mpsc::Receiver<Message>, entry: &Entry) -> Result<Spooled, ImportError> {
    loop {
        match messages.blocking_recv() {
            Some(Message::Data(bytes)) => {
                entry.uploaded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                intake.push(&bytes)?;
            }
            Some(Message::End) => return intake.finish(entry.start.size_bytes),
            None => return Err(ImportError::Cut(entry.uploaded.load(Ordering::Relaxed))),
        }
    }
}

struct Task {
    inner: Arc<Inner>,
    entry: Arc<Entry>,
}

impl Task {
    async fn run(
        &self,
        messages: mpsc::Receiver<Message>,
        slot: OwnedSemaphorePermit,
    ) -> Result<Imported, ImportError> {
        let max = self.inner.limits.upload_bytes;
        if let Some(told) = self.entry.start.size_bytes.filter(|told| *told > max) {
            return Err(too_large(max, Some(told)));
        }
        let spooled = self.received(messages, slot).instrument(tracing::debug_span!("upload")).await?;
        let owner = self.inner.owner();
        let claim = self.inner.store.begin_run(self.request(&spooled, owner)).await?;
        match claim {
            RunClaim::Yours(run) => self.work(run, owner, spooled).await,
            RunClaim::Done(run) | RunClaim::Leased(run) => {
                let id = run.run.id;
                self.entry.end(Phase::Stored(id.clone()));
                Ok(Imported { run: self.inner.status(&id).await?, duplicate: true })
            }
            RunClaim::OtherOptions(run) => Err(ImportError::Conflict {
                run: run.run.id,
                problem: "the same bytes were imported with other options: set again to import them once more",
            }),
            RunClaim::OtherParser(run) => Err(ImportError::Conflict {
                run: run.run.id,
                problem: "a run of the same bytes is unfinished, begun by another version of the parser: finish it with the \
                          server that began it",
            }),
            RunClaim::IdTaken(run) => Err(ImportError::Exists(run.run.id)),
        }
    }

    /// Waits until the whole file is here and checked.
    async fn received(
        &self,
        messages: mpsc::Receiver<Message>,
        slot: OwnedSemaphorePermit,
    ) -> Result<Spooled, ImportError> {
        let intake = Intake::new(self.inner.limits.clone(), self.entry.start.options.clone(), self.inner.spool.clone());
        let entry = self.entry.clone();
        let receiving = tokio::task::spawn_blocking(move || {
            let received = receive(intake, messages, &entry);
            drop(slot);
            received
        });
        tokio::select! {
            received = receiving => received.map_err(|error| ImportError::Defect(error.to_string()))?,
            () = self.entry.stop.cancelled() => match self.entry.phase() {
                Phase::Cancelled { .. } => Err(ImportError::Cancelled(self.entry.start.run.clone())),
                _ => Err(ImportError::Superseded(self.entry.start.run.clone())),
            },
            () = self.inner.stop.cancelled() => Err(IngestError::ShuttingDown.into()),
        }
    }

    fn request(&self, spooled: &Spooled, owner: RunOwner) -> RunRequest {
        let start = &self.entry.start;
        let options = spooled.parser.options();
        let parser_version = spooled.parser.version();
        let again = start.again.then_some(&start.run);
        let now = self.inner.clock.now();
        RunRequest {
            run: NewRun {
                id: start.run.clone(),
                identity: options.identity(&spooled.digest, parser_version, again),
                content: spooled.digest,
                parser_version,
                options: options.encode(),
                file_name: start.file_name.clone(),
                size_bytes: self.entry.uploaded.load(Ordering::Relaxed),
                total_lines: spooled.line_count,
                trace_id: start.trace_id.clone(),
                again: start.again,
            },
            lease: Lease { owner, now, until: now.saturating_add(super::limits::LEASE) },
        }
    }

    async fn work(&self, run: Run, owner: RunOwner, spooled: Spooled) -> Result<Imported, ImportError> {
        let id = run.run.id.clone();
        self.entry.end(Phase::Stored(id.clone()));
        if let Phase::Cancelled { .. } = self.entry.phase() {
            // Cancelled between the last byte and the run's beginning.
            self.inner.store.cancel_run(&id).await?;
            return Err(ImportError::Cancelled(id));
        }
        let work =
            Work { inner: &self.inner, run: id.clone(), owner, max_rejects: u64::from(self.entry.start.max_rejects) };
        work.go(run, Source(spooled)).await?;
        Ok(Imported { run: self.inner.status(&id).await?, duplicate: false })
    }

    /// Notes the end of the upload, and forgets it in a while.
    fn conclude(&self, imported: &Result<Imported, ImportError>) {
        let now = self.inner.clock.now();
        let run = self.entry.start.run.as_str();
        self.inner.metrics.imports.ended(match imported {
            Ok(Imported { duplicate: false, .. }) => "succeeded",
            Ok(Imported { duplicate: true, .. }) => "known",
            Err(ImportError::Cancelled(_)) => "cancelled",
            // The run goes on after its last batch when the file comes again.
            Err(ImportError::Ingest(_) | ImportError::Cut(_) | ImportError::Superseded(_)) => "interrupted",
            Err(_) => "failed",
        });
        match imported {
            Ok(Imported { run: status, duplicate }) => {
                tracing::info!(run, ticks = status.ticks, rejected = status.rejected, duplicate, "an import has ended");
            }
            Err(error) => {
                tracing::info!(run, reason = error.reason(), %error, "an import did not succeed");
                let phase = match error {
                    ImportError::Cancelled(_) => Phase::Cancelled { at: now },
                    error => Phase::Failed { error: error.stored(), at: now },
                };
                self.entry.end(phase);
            }
        }
        self.inner.registry.leave(&self.entry, now);
    }
}
