//! One subscription: a position in the log and a filter, which make messages as fast as their reader takes them.
//!
//! [`Session::next`] is one loop. What is due is given at once (`due`); else the session waits for the log, the clock or
//! the end (`wait`) and looks again. Blocks are cut into messages only when the reader asks for one, so that a reader who
//! stands still costs the blocks of one step and nothing more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::alarm::{Alarm, Draining, Flush};
use super::delivery::{Delivery, SLOW_LAG_BYTES, SlowReader};
use super::event::{Event, Message, Run, Ticks};
use super::round::Round;
use super::snapshot::Snapshot;
use super::{LiveError, Matcher};
use crate::domain::{Block, Clock, Control, Cursor, InstrumentId, UnixNanos};
use crate::metrics::{Metrics, ReaderMark};
use crate::tape::Follower;
use crate::tape::follower::Step;
use crate::trace;

/// Instruments that one message defines at most: keeps it below 64 KiB.
const MESSAGE_DEFINITIONS: usize = 512;

/// How long a Progress waits for entries that the store has and the hub does not have yet.
const PROGRESS_PATIENCE: Duration = Duration::from_secs(1);

/// A Progress that is due, but stands in line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heartbeat {
    /// It waits until the stream has got here.
    behind: u64,
    /// It waits no longer than this.
    pub(super) until: Instant,
}

/// One subscription. Whoever polls [`Session::next`] sets its pace; dropping it ends it.
#[derive(Debug)]
pub struct Session {
    pub(super) follower: Follower,
    pub(super) matcher: Matcher,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) draining: Draining,
    pub(super) include_backfill: bool,
    /// Whether it feeds a stream of bars: it hears of watermarks too, and counts no ticks, which nobody is sent.
    pub(super) feeds_bars: bool,
    pub(super) heartbeat: Duration,
    /// How long ticks wait for more, if they do.
    pub(super) flush: Option<Flush>,
    /// Ticks of one event of a snapshot or a round at most.
    pub(super) message_ticks: usize,
    /// Entries appended before this are passed over.
    pub(super) not_before: UnixNanos,
    /// What comes before everything else.
    pub(super) opening: VecDeque<Message>,
    /// Instruments up to this id have been defined; `None` in streams without definitions.
    pub(super) defined: Option<InstrumentId>,
    /// The snapshot, until its end has been told.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) delivery: Delivery,
    /// Whether the reader was told that what comes next leaves the log soon.
    pub(super) warned: bool,
    /// Everything up to here has been returned, or is not for this stream.
    pub(super) done: Cursor,
    /// Where the replay ends, until it has.
    pub(super) replay_end: Option<u64>,
    pub(super) next_heartbeat: Instant,
    pub(super) due_heartbeat: Option<Heartbeat>,
    /// Rings when a heartbeat is due.
    pub(super) alarm: Alarm,
    pub(super) metrics: Metrics,
    /// Where the reader is, for whoever looks at all readers.
    pub(super) mark: ReaderMark,
}

impl Session {
    /// Where to go on if the stream ends now; `None` before the end of a snapshot.
    pub fn cursor(&self) -> Option<Cursor> {
        self.snapshot.is_none().then_some(self.done)
    }

    /// The same session as the source of a stream of bars.
    pub(super) fn feeding_bars(self) -> Session {
        Session { feeds_bars: true, ..self }
    }

    /// Everything up to here has been returned, or is not for this stream.
    pub(super) fn position(&self) -> Cursor {
        self.done
    }

    /// What comes before everything else, a message at a time.
    pub(super) fn ready_opening(&mut self) -> Option<Message> {
        self.opening.pop_front()
    }

    /// The next message. After an error there is none. A call that is dropped loses nothing.
    pub async fn next(&mut self) -> Result<Message, LiveError> {
        let message = self.await_message().await?;
        self.count(&message);
        Ok(message)
    }

    async fn await_message(&mut self) -> Result<Message, LiveError> {
        loop {
            if let Some(message) = self.opening.pop_front() {
                return Ok(message);
            }
            if self.draining.has_begun() {
                return Err(LiveError::ShuttingDown);
            }
            if let Some(message) = self.definitions() {
                return Ok(message);
            }
            if self.snapshot.is_some() {
                let draining = self.draining.token();
                tokio::select! {
                    biased;
                    () = draining.cancelled() => return Err(LiveError::ShuttingDown),
                    message = self.next_of_snapshot() => return message,
                }
            }
            self.pass();
            if let Some(notice) = self.expiring() {
                return Ok(notice);
            }
            self.begin_heartbeat().await;
            let before = self.done;
            if let Some(message) = self.due() {
                return Ok(message);
            }
            // What was passed over without a message may have made something due.
            if self.done == before {
                self.wait().await?;
            }
        }
    }

    /// What can be told without waiting, after a call of [`Session::next`].
    pub fn ready(&mut self) -> Option<Message> {
        let message = match self.opening.pop_front() {
            Some(message) => message,
            None if self.snapshot.is_some() => return None,
            None => self.definitions().or_else(|| self.due())?,
        };
        self.count(&message);
        Some(message)
    }

    /// Notes what is handed over.
    fn count(&mut self, message: &Message) {
        if self.feeds_bars {
            return self.mark.reached(self.done.position);
        }
        let live = &self.metrics.live;
        live.messages.inc();
        match &message.event {
            Event::Run(run) => {
                live.ticks.inc_by(run.len() as u64);
                self.mark.reached(self.done.position);
                // What a replay brings was not sent late, it was asked for late.
                if !run.block.backfill && self.replay_end.is_none() {
                    self.measure(&run.block);
                }
                trace_delivery(&run.block);
            }
            Event::Correction { .. } => {
                live.ticks.inc();
                self.mark.reached(self.done.position);
            }
            Event::Ticks(ticks) => {
                live.ticks.inc_by(ticks.ticks.len() as u64);
                self.mark.reached(self.done.position);
            }
            Event::Progress { .. } => self.mark.reached(self.done.position),
            Event::SlowConsumer { catching_up: true, .. } => {
                live.catch_ups.inc();
            }
            _ => {}
        }
    }

    /// Notes that a block's commits are delivered now, if nobody was given them before.
    fn measure(&self, block: &Block) {
        let deliveries = &self.metrics.ingest.deliveries;
        let first = deliveries.delivered(block.last_seq(), || self.clock.now().nanos());
        // Whoever has had the last of joined commits has had them all.
        for segment in block.segments.iter().filter(|_| first) {
            deliveries.delivered(segment.last_seq, || self.clock.now().nanos());
        }
    }

    /// A message at a position.
    fn message(&self, event: Event) -> Message {
        Message { cursor: self.cursor(), event }
    }

    /// Names of wanted instruments that have not been told yet.
    fn definitions(&mut self) -> Option<Message> {
        let (instruments, defined) = self.matcher.definitions(self.defined?, MESSAGE_DEFINITIONS);
        self.defined = Some(defined);
        (!instruments.is_empty()).then(|| self.message(Event::Definitions(instruments)))
    }

    async fn next_of_snapshot(&mut self) -> Result<Message, LiveError> {
        let Some(snapshot) = &mut self.snapshot else { return Err(LiveError::ShuttingDown) };
        let position = snapshot.view.position();
        if !snapshot.begun {
            snapshot.begun = true;
            let event = Event::SnapshotBegin { position, tick_count: snapshot.tick_count };
            return Ok(Message { cursor: None, event });
        }
        let ticks = snapshot.page(&mut self.matcher, self.message_ticks).await?;
        if ticks.is_empty() {
            let without_data = std::mem::take(&mut snapshot.without_data);
            self.snapshot = None;
            self.next_heartbeat = Instant::now() + self.heartbeat;
            return Ok(self.message(Event::SnapshotEnd { position, without_data }));
        }
        let merged =
            if matches!(self.delivery, Delivery::Conflated { .. }) { vec![1; ticks.len()] } else { Vec::new() };
        Ok(Message { cursor: None, event: Event::Ticks(Ticks { ticks, merged, before: None }) })
    }

    /// When a heartbeat is due, asks the store how far its Progress has to wait: what another replica has committed and
    /// not announced comes before it.
    async fn begin_heartbeat(&mut self) {
        if self.due_heartbeat.is_some() || Instant::now() < self.next_heartbeat {
            return;
        }
        // What a round has not sent is not claimed, so there is nothing to wait for. And a store that does not answer
        // takes nothing from what is complete so far.
        let behind = match self.delivery {
            Delivery::Conflated { .. } => self.done.position,
            Delivery::Lossless { .. } => {
                let confirmed = self.follower.confirm().await;
                confirmed.map_or(self.done.position, |head| head.position)
            }
        };
        self.due_heartbeat = Some(Heartbeat { behind, until: Instant::now() + PROGRESS_PATIENCE });
    }

    /// What can be told without waiting.
    fn due(&mut self) -> Option<Message> {
        if self.replay_end.is_some_and(|end| self.done.position >= end) {
            self.replay_end = None;
            return Some(self.message(Event::ReplayCompleted { position: self.done.position }));
        }
        let complete = match &self.delivery {
            Delivery::Lossless { .. } => true,
            // Inside a round nothing is complete but the round before it.
            Delivery::Conflated { sending, .. } => sending.is_none(),
        };
        if let Some(heartbeat) = self.due_heartbeat
            && complete
            && (self.done.position >= heartbeat.behind || Instant::now() >= heartbeat.until)
        {
            self.due_heartbeat = None;
            self.next_heartbeat = Instant::now() + self.heartbeat;
            let progress = Event::Progress { position: self.done.position, time: self.clock.now() };
            return Some(self.message(progress));
        }
        match &mut self.delivery {
            Delivery::Lossless { blocks, catching_up, .. } => {
                if *catching_up && blocks.is_empty() && self.follower.is_near() {
                    *catching_up = false;
                    return Some(self.lag(false, self.clock.now()));
                }
                self.cut()
            }
            Delivery::Conflated { sending, .. } => {
                let message = sending.as_mut()?.next(self.message_ticks);
                // The last message carries the round's end, and nothing is left of the round then.
                let end = sending.as_ref()?.end;
                if message.as_ref().is_none_or(|message| message.cursor == Some(end)) {
                    self.done = end;
                    *sending = None;
                }
                message
            }
        }
    }

    /// Cuts the next message off the blocks: wanted ticks of one block, up to an entry of another kind or to where the
    /// replay ends.
    fn cut(&mut self) -> Option<Message> {
        let Delivery::Lossless { blocks, .. } = &mut self.delivery else { return None };
        while let Some(block) = blocks.front() {
            let done = self.done.position;
            if self.replay_end.is_some_and(|end| done >= end) {
                return None;
            }
            if block.last_seq() <= done {
                blocks.pop_front();
                continue;
            }
            let early = block.appended_before(self.not_before);
            if early > done {
                self.done.position = early;
                continue;
            }
            let controls = &block.entries.controls;
            let other = controls.get(controls.partition_point(|(log_seq, _)| *log_seq <= done));
            let mut event = None;
            if let Some((log_seq, control)) = other
                && *log_seq == done + 1
            {
                self.done.position = *log_seq;
                let watermark = self.feeds_bars && matches!(control, Control::Watermark { .. });
                let news = control.scope().is_some_and(|scope| self.matcher.wants_news_of(scope));
                if let Control::Correction(correction) = control {
                    let taken = self.include_backfill || !block.backfill;
                    event = (taken && self.matcher.wants(correction.instrument)).then(|| Event::Correction {
                        log_seq: *log_seq,
                        correction: correction.clone(),
                        origin: block.origin(),
                    });
                } else if news || watermark {
                    event = Some(Event::Source { log_seq: *log_seq, control: control.clone() });
                }
            } else {
                let end = other.map_or(block.last_seq(), |(log_seq, _)| log_seq - 1);
                self.done.position = end;
                if self.include_backfill || !block.backfill {
                    let picks = self.matcher.picks(block, done, end);
                    event = picks.map(|picks| Event::Run(Run { block: block.clone(), picks }));
                }
            }
            if self.done.position == block.last_seq() {
                blocks.pop_front();
            }
            if let Some(event) = event {
                return Some(Message { cursor: Some(self.done), event });
            }
        }
        None
    }

    /// The log was cut off under this stream: says what it misses, and goes on at the oldest entry.
    pub(super) fn miss(&mut self, oldest: u64) {
        if let Delivery::Conflated { gathering, sending, .. } = &mut self.delivery
            && let Some((round, _)) = gathering.take()
        {
            // What was gathered before the cut is a round of its own; the cut is met again after it.
            let end = self.follower.position();
            *sending = Some(round.send(self.done, end));
            return;
        }
        let from = self.done.position + 1;
        self.done.position = oldest - 1;
        self.follower.seek(oldest - 1);
        let gap = self.message(Event::StreamGap { from, to: oldest - 1 });
        self.opening.push_back(gap);
    }

    pub(super) fn take(&mut self, step: Step) -> Result<(), LiveError> {
        if let (Some(first), Some(last)) = (step.blocks.first(), step.blocks.last()) {
            self.mark.took(last.append_time.nanos());
            let is_done = match &self.delivery {
                Delivery::Lossless { blocks, .. } => blocks.is_empty(),
                Delivery::Conflated { gathering, sending, .. } => gathering.is_none() && sending.is_none(),
            };
            if is_done {
                // What lies between was passed over.
                self.done.position = self.done.position.max(first.first_seq - 1);
            }
        }
        if matches!(self.delivery, Delivery::Conflated { .. }) {
            self.gather(step);
            return Ok(());
        }
        self.judge_lag(&step)?;
        let Delivery::Lossless { blocks, .. } = &mut self.delivery else { return Ok(()) };
        blocks.extend(step.blocks);
        Ok(())
    }

    /// Says that catching up begins or has ended, and how far behind the stream is.
    fn lag(&self, catching_up: bool, appended: UnixNanos) -> Message {
        let lag_nanos = self.clock.now().nanos().saturating_sub(appended.nanos()).max(0);
        self.message(Event::SlowConsumer {
            catching_up,
            expiring: false,
            lag: self.follower.head().position.saturating_sub(self.done.position),
            lag_time: Duration::from_nanos(lag_nanos as u64),
        })
    }

    /// Tells a stream, once each time it gets there, that what it has yet to send leaves the log soon.
    fn expiring(&mut self) -> Option<Message> {
        let expiring = self.follower.expires(self.done.position);
        if !std::mem::replace(&mut self.warned, expiring) && expiring {
            let (catching_up, next) = match &self.delivery {
                Delivery::Lossless { catching_up, blocks, .. } => (*catching_up, blocks.front()),
                Delivery::Conflated { .. } => (false, None),
            };
            let appended = next.map_or(self.clock.now(), |block| block.append_time);
            let mut notice = self.lag(catching_up, appended);
            if let Event::SlowConsumer { expiring, .. } = &mut notice.event {
                *expiring = true;
            }
            return Some(notice);
        }
        None
    }

    /// Ends a stream whose reader is slower than it may be, or tells the reader that the log is read for it.
    fn judge_lag(&mut self, step: &Step) -> Result<(), LiveError> {
        let done = self.done;
        let Delivery::Lossless { slow_reader, catching_up, settled, .. } = &mut self.delivery else { return Ok(()) };
        if self.replay_end.is_some() {
            return Ok(());
        }
        if *slow_reader == SlowReader::Disconnect {
            if *settled && (step.from_log || step.lag_bytes > SLOW_LAG_BYTES) {
                return Err(LiveError::Slow { cursor: done });
            }
            *settled |= !step.from_log;
            return Ok(());
        }
        if step.from_log && !*catching_up {
            *catching_up = true;
            let appended = step.blocks.first().map_or(self.clock.now(), |block| block.append_time);
            let notice = self.lag(true, appended);
            self.opening.push_back(notice);
        }
        Ok(())
    }

    /// Adds a step to the round, and ends the round where the log ended when it began.
    fn gather(&mut self, step: Step) {
        let head = self.follower.head().position;
        let Delivery::Conflated { min_interval, due, gathering, sending } = &mut self.delivery else { return };
        let (mut round, target) = gathering.take().unwrap_or_else(|| {
            *due = Instant::now() + *min_interval;
            (Round::default(), head)
        });
        let mut next = Some(step);
        while let Some(step) = next {
            for block in &step.blocks {
                let after = self.done.position.max(block.appended_before(self.not_before));
                let with_ticks = self.include_backfill || !block.backfill;
                let reached = round.absorb(block, after, with_ticks, &mut self.matcher);
                if reached < block.last_seq() {
                    // The round is full: the rest is the next one's, which need not wait.
                    self.follower.seek(reached);
                    *due = Instant::now();
                    *sending = Some(round.send(self.done, Cursor { position: reached, ..self.done }));
                    return;
                }
            }
            next = if self.follower.position().position < target { self.follower.ready() } else { None };
        }
        let reached = self.follower.position();
        if reached.position < target {
            *gathering = Some((round, target));
        } else {
            *sending = Some(round.send(self.done, reached));
        }
    }
}

/// Ends the traces of a block's batches here, if nobody was given the block before: a span for each block and batch,
/// never for a message.
fn trace_delivery(block: &Block) {
    for &batch in block.traced.deliver() {
        let span = tracing::debug_span!(parent: None, "deliver", tapefeed.log_seq = block.last_seq());
        trace::continue_from(&span, batch);
        // A span ends where it was left for the last time.
        span.in_scope(|| ());
    }
}
