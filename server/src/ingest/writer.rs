//! The one task that appends.
//!
//! One append is in flight at a time; whatever has gathered meanwhile goes into the next one. A group is all or
//! nothing: batches that the store refuses are answered and left out, and the rest is tried again. After an unknown
//! outcome the same group is sent again: its marks tell whether it was stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use rand::rngs::SmallRng;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::{Ingest, IngestError, QUEUE_BATCHES, QUEUE_BYTES, Receipt, STORE_PATIENCE, Sender, Submission, counts};
use crate::bus::{Announcement, Bus};
use crate::domain::block::Encodings;
use crate::domain::correction::Values;
use crate::domain::segment::{self, Entries};
use crate::domain::{
    Action, Block, Clock, Control, Correction, Cursor, Epoch, InstrumentId, NewTick, Origin, Tick, Traced, UnixNanos,
};
use crate::metrics::Metrics;
use crate::store::{Appended, Chain, Group, Mark, RunId, Store, StoreError, Verdict};
use crate::tape::{Current, Tape};
use crate::trace;

/// Entries of one append at most, beyond its first batch: about 2 ms of encoding.
const GROUP_ENTRIES: usize = 50_000;

/// Attempts of an append whose outcome is unknown before its senders are told so.
const ATTEMPTS: u32 = 5;

/// How long a group waits for a store that did not answer the one before: who queued meanwhile has waited already.
const UNANSWERED_PATIENCE: Duration = Duration::from_secs(1);

/// The first wait between attempts; it doubles, and each is jittered.
const FIRST_WAIT: Duration = Duration::from_millis(20);

/// A batch with its way back.
#[derive(Debug)]
pub struct Command {
    pub(super) submission: Submission,
    /// The log whose instruments these are.
    pub(super) epoch: Epoch,
    /// Ids for the batch's instrument table.
    pub(super) instruments: Vec<InstrumentId>,
    /// Stamps ticks whose source gives no receive time.
    pub(super) received: UnixNanos,
    pub(super) reply: oneshot::Sender<Result<Receipt, IngestError>>,
    /// The batch's, for as long as it waits.
    pub(super) span: Span,
    /// Gives its bytes back to the queue's budget when the command is done.
    pub(super) _budget: OwnedSemaphorePermit,
}

impl Command {
    /// What all batches of one segment share.
    fn kind(&self) -> (Epoch, bool, Option<&RunId>) {
        let run = match &self.submission.sender {
            Sender::Run { run, .. } => Some(run),
            Sender::Producer { .. } => None,
        };
        (self.epoch, self.submission.backfill, run)
    }

    /// Tells the sender. One that went away learns by its next claim.
    fn answer(self, outcome: Result<Receipt, IngestError>) {
        // A span ends where it was left for the last time: inside it, so that the wait for the log belongs to it.
        let Command { span, reply, .. } = self;
        let _ = span.in_scope(|| reply.send(outcome));
    }

    fn mark(&self) -> Mark {
        let entry_count = self.submission.batch.entry_count() as u32;
        match &self.submission.sender {
            Sender::Producer { producer, fence, batch_seq } => Mark::Producer {
                producer: producer.clone(),
                fence: *fence,
                batch_seq: *batch_seq,
                digest: self.submission.batch.digest(),
                entry_count,
            },
            Sender::Run { run, owner, batch, progress, published } => Mark::Run {
                run: run.clone(),
                owner: *owner,
                batch: *batch,
                progress: progress.clone(),
                published: published.named(|instrument| self.instruments[*instrument as usize]),
                entry_count,
            },
        }
    }
}

/// What the writer works with.
#[derive(Debug)]
pub struct Writer {
    /// The log.
    pub store: Arc<dyn Store>,
    /// Told after each commit.
    pub bus: Arc<dyn Bus>,
    /// Stamps.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub random: SmallRng,
    /// Whether the store did not answer the last append. Begins as false.
    pub unanswered: bool,
    /// Counts.
    pub metrics: Metrics,
}

impl Writer {
    /// Starts the task and returns the door to it. The task ends when every handle is gone, or after `stop`, when the
    /// queue is empty; what was queued before is stored and answered.
    pub fn start(
        self,
        tapes: Current<Tape>,
        hot_tick_limit: usize,
        stop: CancellationToken,
    ) -> (Ingest, JoinHandle<()>) {
        let (queue, commands) = mpsc::channel(QUEUE_BATCHES);
        let ingest = Ingest {
            queue,
            budget: Arc::new(Semaphore::new(QUEUE_BYTES)),
            tapes,
            store: self.store.clone(),
            clock: self.clock.clone(),
            hot_tick_limit,
            metrics: self.metrics.clone(),
        };
        (ingest, tokio::spawn(self.run(commands, stop)))
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        let mut next: Option<Command> = None;
        loop {
            let first = match next.take() {
                Some(command) => command,
                None => {
                    let received = tokio::select! {
                        biased;
                        received = commands.recv() => received,
                        () = stop.cancelled(), if !commands.is_closed() => {
                            commands.close();
                            continue;
                        }
                    };
                    let Some(command) = received else { return };
                    command
                }
            };
            let mut entries = first.submission.batch.entry_count();
            let mut group = vec![first];
            while entries < GROUP_ENTRIES {
                let Ok(command) = commands.try_recv() else {
                    break;
                };
                if command.kind() != group[0].kind() {
                    next = Some(command);
                    break;
                }
                entries += command.submission.batch.entry_count();
                group.push(command);
            }
            let spans = Spans::begin(&group);
            if self.commit(group, spans).await.is_err() {
                // What waited behind it would wait as long in its turn; none of it has been tried.
                self.refuse_all(next.take().into_iter().collect(), &IngestError::Unavailable);
                while let Ok(command) = commands.try_recv() {
                    self.refuse_all(vec![command], &IngestError::Unavailable);
                }
            }
        }
    }

    /// Appends a group and answers every batch of it. An error: the store does not answer.
    async fn commit(&mut self, mut commands: Vec<Command>, spans: Spans) -> Result<(), Unanswered> {
        let give_up = Instant::now() + if self.unanswered { UNANSWERED_PATIENCE } else { STORE_PATIENCE };
        let mut attempt = 0;
        let (mut group, mut entries) = self.encode(&commands);
        loop {
            let begun = Instant::now();
            let appending = self.store.append(group.clone()).instrument(spans.group.clone());
            let appended = tokio::time::timeout_at(give_up, appending).await;
            let appended = appended.unwrap_or_else(|_| Err(StoreError::Unavailable("no answer in time".into())));
            self.metrics.ingest.appended_in(begun.elapsed());
            self.unanswered = matches!(appended, Err(StoreError::Unavailable(_)));
            match appended {
                Ok(Appended::Committed { first_seq, append_time, chain }) => {
                    self.answer(commands, entries, spans, group, (first_seq, append_time, chain));
                    return Ok(());
                }
                Ok(Appended::Refused(verdicts)) => {
                    commands = self.refuse(commands, &verdicts);
                    if commands.is_empty() {
                        return Ok(());
                    }
                    (group, entries) = self.encode(&commands);
                }
                Err(StoreError::EpochChanged(epoch)) => {
                    self.refuse_all(commands, &IngestError::EpochChanged(epoch));
                    return Ok(());
                }
                Err(error) => {
                    attempt += 1;
                    spans.group.record("tapefeed.append.attempts", attempt);
                    spans.group.in_scope(|| {
                        tracing::warn!(%error, attempt, "an append has an unknown outcome; sending it again");
                    });
                    self.metrics.tape.store_failed("append");
                    if attempt == ATTEMPTS || Instant::now() >= give_up {
                        self.metrics.ingest.given_up();
                        self.refuse_all(commands, &IngestError::Unavailable);
                        return Err(Unanswered);
                    }
                    self.metrics.ingest.retried();
                    let wait = FIRST_WAIT * 2u32.pow(attempt);
                    tokio::time::sleep(wait.mul_f64(self.random.random_range(0.5..1.5))).await;
                }
            }
        }
    }

    /// The group's segment, and its entries with positions counted from zero.
    fn encode(&self, commands: &[Command]) -> (Group, Entries) {
        let (epoch, backfill, run) = commands[0].kind();
        let origin = if backfill { Origin::Backfill } else { Origin::Live };
        let count = commands.iter().map(|command| command.submission.batch.ticks.len()).sum();
        let mut ticks = Vec::with_capacity(count);
        let mut controls = Vec::new();
        for command in commands {
            for tick in &command.submission.batch.ticks {
                if tick.action != Action::New {
                    let log_seq = (ticks.len() + controls.len()) as u64;
                    controls.push((log_seq, Control::Correction(correction(command, tick))));
                    continue;
                }
                ticks.push(Tick {
                    instrument: command.instruments[tick.instrument as usize],
                    log_seq: (ticks.len() + controls.len()) as u64,
                    event_time: tick.event_time,
                    receive_time: tick.receive_time.unwrap_or(command.received),
                    price: tick.price,
                    quantity: tick.quantity,
                    side: tick.side,
                    trade_id: tick.trade_id.clone(),
                    origin,
                });
            }
            for control in &command.submission.batch.controls {
                let log_seq = (ticks.len() + controls.len()) as u64;
                controls.push((log_seq, stamped(control.clone(), command.received)));
            }
        }
        let tick_count = ticks.len() as u32;
        let entries = Entries { ticks, controls };
        let bytes = if entries.is_empty() { Bytes::new() } else { segment::encode(&entries, 0).into() };
        let group = Group {
            epoch,
            bytes,
            entry_count: entries.len() as u32,
            tick_count,
            backfill,
            run_id: run.cloned(),
            marks: commands.iter().map(Command::mark).collect(),
        };
        (group, entries)
    }

    /// Announces the commit, then tells the senders.
    fn answer(
        &self,
        commands: Vec<Command>,
        mut entries: Entries,
        spans: Spans,
        group: Group,
        (first_seq, append_time, chain): (u64, UnixNanos, Chain),
    ) {
        let entry_count = entries.len() as u32;
        let Group { epoch, backfill, bytes, .. } = group;
        let traced = spans.traced(&commands);
        // The append has ended; what follows is the batches' own.
        drop(spans);
        let metrics = &self.metrics.ingest;
        metrics.stored(backfill, commands.len() as u64, u64::from(entry_count), append_time.nanos());
        if entry_count > 0 {
            for tick in &mut entries.ticks {
                tick.log_seq += first_seq;
            }
            for (log_seq, _) in &mut entries.controls {
                *log_seq += first_seq;
            }
            let (encodings, segments) = (Encodings::default(), Vec::new());
            let block = Block {
                epoch,
                first_seq,
                entry_count,
                append_time,
                backfill,
                chain,
                entries,
                traced,
                encodings,
                segments,
            };
            if !backfill {
                let received = commands.iter().map(|command| command.received.nanos()).min();
                metrics.deliveries.begin(block.last_seq(), received.unwrap_or(append_time.nanos()));
            }
            self.bus.announce(Announcement {
                epoch,
                first_seq,
                last_seq: block.last_seq(),
                block: Some(Arc::new(block)),
                bytes: Some(bytes),
            });
        }
        let mut position = first_seq - 1;
        let now = self.clock.now().nanos();
        for command in commands {
            position += command.submission.batch.entry_count() as u64;
            let cursor = Cursor { epoch, position };
            metrics.acknowledged(now - command.received.nanos());
            if let Sender::Run { progress, .. } = &command.submission.sender {
                counts::stored(&self.metrics.imports, progress);
            }
            command.answer(Ok(Receipt { cursor, duplicate: false }));
        }
    }

    /// Answers what was refused and returns the rest.
    fn refuse(&self, commands: Vec<Command>, verdicts: &[Verdict]) -> Vec<Command> {
        let mut rest = Vec::new();
        for (command, verdict) in commands.into_iter().zip(verdicts) {
            let outcome = match *verdict {
                Verdict::New => {
                    rest.push(command);
                    continue;
                }
                Verdict::Duplicate { last_seq } => {
                    Ok(Receipt { cursor: Cursor { epoch: command.epoch, position: last_seq }, duplicate: true })
                }
                Verdict::OutOfOrder { expected } => Err(IngestError::OutOfOrder { expected }),
                Verdict::Conflict => Err(IngestError::Conflict),
                Verdict::Fenced => Err(IngestError::Fenced),
                Verdict::Unknown => Err(IngestError::Unknown),
            };
            match &outcome {
                Ok(_) => self.metrics.ingest.duplicate(),
                Err(error) => self.metrics.ingest.refused(error.name(), 1),
            }
            command.answer(outcome);
        }
        rest
    }

    fn refuse_all(&self, commands: Vec<Command>, error: &IngestError) {
        self.metrics.ingest.refused(error.name(), commands.len() as u64);
        for command in commands {
            command.answer(Err(error.clone()));
        }
    }
}

/// The store did not answer a group.
struct Unanswered;

/// A correction or a cancel as it stands in the log.
fn correction(command: &Command, tick: &NewTick) -> Correction {
    let NewTick { instrument, event_time, receive_time, price, quantity, side, trade_id, action } = tick;
    let values = Values { price: *price, quantity: *quantity, side: *side };
    Correction {
        instrument: command.instruments[*instrument as usize],
        trade_id: trade_id.clone(),
        event_time: *event_time,
        receive_time: receive_time.unwrap_or(command.received),
        values: (*action == Action::Correct).then_some(values),
    }
}

/// A status whose source gives no time changed when it was received.
fn stamped(mut control: Control, received: UnixNanos) -> Control {
    if let Control::SourceStatus(status) = &mut control {
        status.change_time.get_or_insert(received);
    }
    control
}

/// The spans of one append: the first batch's trace has the append itself, the others have one of the same length that
/// is linked to it.
#[derive(Debug)]
struct Spans {
    group: Span,
    others: Vec<Span>,
}

impl Spans {
    fn begin(commands: &[Command]) -> Spans {
        let mut spans = Spans { group: Span::none(), others: Vec::new() };
        let mut first = None;
        for command in commands {
            let Some(batch) = trace::of(&command.span) else { continue };
            let span = tracing::debug_span!(
                parent: &command.span,
                "append",
                tapefeed.append.batches = commands.len(),
                tapefeed.append.attempts = Empty,
            );
            match first {
                None => {
                    first = trace::of(&span);
                    spans.group = span;
                }
                Some(first) => {
                    trace::link(&span, first);
                    trace::link(&spans.group, batch);
                    spans.others.push(span);
                }
            }
        }
        spans
    }

    /// Where the traces of the batches go on.
    fn traced(&self, commands: &[Command]) -> Traced {
        if self.group.is_disabled() {
            return Traced::default();
        }
        Traced::new(commands.iter().filter_map(|command| trace::of(&command.span)))
    }
}
