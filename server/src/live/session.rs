//! One subscription: events in the order of the log, as fast as its reader takes them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::{LiveError, Matcher};
use crate::domain::{Block, Clock, Cursor, Tick, UnixNanos};
use crate::metrics::{Metrics, ReaderMark};
use crate::tape::Follower;
use crate::trace;

/// Ticks of one message at most: keeps a message of rows below 64 KiB.
const MESSAGE_TICKS: usize = 400;

/// What a subscriber is told. Every event but the acknowledgement belongs behind what came before it.
#[derive(Clone, Debug)]
pub enum Event {
    /// Always first: what was granted.
    Ack {
        /// Where the subscription starts.
        cursor: Cursor,
        /// The log's head.
        head: u64,
        /// The first position that can be read again.
        oldest: u64,
        /// The granted heartbeat.
        heartbeat: Duration,
        /// The granted flush window.
        flush_window: Duration,
        /// How many instruments each selector matches now.
        matched: Vec<u32>,
    },
    /// Ticks in the order of the log.
    Ticks {
        /// Continues after them.
        cursor: Cursor,
        /// At least one.
        ticks: Vec<Tick>,
    },
    /// Everything that was stored when the subscription began has been delivered.
    ReplayCompleted {
        /// The boundary.
        cursor: Cursor,
    },
    /// Everything that matches up to here has been delivered.
    Progress {
        /// Complete up to here.
        cursor: Cursor,
        /// The server's clock.
        time: UnixNanos,
    },
    /// The reader lags behind what the hub keeps, or has caught up again.
    SlowConsumer {
        /// Delivered up to here.
        cursor: Cursor,
        /// Whether catching up begins (or has ended).
        catching_up: bool,
        /// How many entries lie between the reader and the head.
        lag: u64,
        /// How long ago the reader's next entry was appended.
        lag_time: Duration,
    },
}

/// One subscription. Whoever polls [`Session::next`] sets its pace; dropping it ends it.
#[derive(Debug)]
pub struct Session {
    pub(super) follower: Follower,
    pub(super) matcher: Matcher,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) draining: CancellationToken,
    pub(super) include_backfill: bool,
    pub(super) heartbeat: Duration,
    pub(super) flush_window: Duration,
    /// Events that are due, in order.
    pub(super) ready: VecDeque<Event>,
    /// Everything up to here is delivered or in `ready`.
    pub(super) done: Cursor,
    /// Where the replay ends, until it has.
    pub(super) replay_end: Option<u64>,
    /// Whether the reader was told that it lags.
    pub(super) catching_up: bool,
    pub(super) last_progress: Instant,
    /// Of blocks that are delivered here first, until their last message is taken.
    pub(super) delivering: Vec<Span>,
    pub(super) metrics: Metrics,
    /// Where the reader is, for whoever looks at all readers.
    pub(super) mark: ReaderMark,
    /// The ends of live blocks of which there are ticks in `ready`.
    pub(super) fresh: Vec<u64>,
}

/// What ended a wait.
enum Woken {
    Draining,
    Heartbeat,
    Blocks(Vec<Arc<Block>>, bool),
}

impl Session {
    /// The next event. After an error there is none. A call that is dropped loses nothing.
    pub async fn next(&mut self) -> Result<Event, LiveError> {
        let event = self.wait().await?;
        self.count(&event);
        Ok(event)
    }

    /// Notes what is handed over.
    fn count(&mut self, event: &Event) {
        let live = &self.metrics.live;
        live.messages.inc();
        match event {
            Event::Ticks { cursor, ticks } => {
                live.ticks.inc_by(ticks.len() as u64);
                self.mark.reached(cursor.position);
                for last_seq in self.fresh.drain(..) {
                    self.metrics.ingest.deliveries.delivered(last_seq, || self.clock.now().nanos());
                }
            }
            Event::SlowConsumer { catching_up: true, .. } => {
                live.catch_ups.inc();
            }
            _ => {}
        }
    }

    async fn wait(&mut self) -> Result<Event, LiveError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            self.delivering.clear();
            if self.replay_end.is_some_and(|end| self.done.position >= end) {
                self.replay_end = None;
                return Ok(Event::ReplayCompleted { cursor: self.done });
            }
            self.mark.reached(self.done.position);
            let woken = tokio::select! {
                biased;
                () = self.draining.cancelled() => Woken::Draining,
                () = tokio::time::sleep_until(self.last_progress + self.heartbeat) => Woken::Heartbeat,
                step = self.follower.next() => {
                    let step = step?;
                    Woken::Blocks(step.blocks, step.from_log)
                }
            };
            match woken {
                Woken::Draining => return Err(LiveError::ShuttingDown { cursor: self.done }),
                Woken::Heartbeat => {
                    self.last_progress = Instant::now();
                    return Ok(Event::Progress { cursor: self.done, time: self.clock.now() });
                }
                Woken::Blocks(blocks, from_log) => {
                    self.notice_lag(&blocks, from_log);
                    self.take(blocks);
                    if !self.flush_window.is_zero() && !from_log && self.replay_end.is_none() {
                        self.linger().await;
                    }
                }
            }
        }
    }

    /// Waits out the flush window and takes what came meanwhile.
    async fn linger(&mut self) {
        tokio::time::sleep(self.flush_window).await;
        if let Some(step) = self.follower.ready() {
            self.take(step.blocks);
        }
    }

    /// Tells the reader when it leaves the hub for the log, and when it is back.
    fn notice_lag(&mut self, blocks: &[Arc<Block>], from_log: bool) {
        if self.replay_end.is_some() || from_log == self.catching_up {
            return;
        }
        self.catching_up = from_log;
        let appended = blocks.first().map_or(self.clock.now(), |block| block.append_time);
        let lag_nanos = self.clock.now().nanos().saturating_sub(appended.nanos()).max(0);
        self.ready.push_back(Event::SlowConsumer {
            cursor: self.done,
            catching_up: from_log,
            lag: self.follower.head().position.saturating_sub(self.done.position),
            lag_time: Duration::from_nanos(lag_nanos as u64),
        });
    }

    /// Ends the traces of a block's batches here, if nobody was given the block before: a span for each block and batch,
    /// never for a message.
    fn trace(&mut self, block: &Block) {
        for &batch in block.traced.deliver() {
            let span = tracing::debug_span!(parent: None, "deliver", tapefeed.log_seq = block.last_seq());
            trace::continue_from(&span, batch);
            self.delivering.push(span);
        }
    }

    /// Turns blocks into events: consecutive ticks share messages, each message ends at a tick or at a block's end.
    fn take(&mut self, blocks: Vec<Arc<Block>>) {
        let mut ticks: Vec<Tick> = match self.ready.pop_back() {
            Some(Event::Ticks { ticks, .. }) => ticks,
            Some(other) => {
                self.ready.push_back(other);
                Vec::new()
            }
            None => Vec::new(),
        };
        let epoch = self.done.epoch;
        if let Some(last) = blocks.last() {
            self.mark.took(last.append_time.nanos());
        }
        for block in blocks {
            let mut wanted = false;
            if !block.backfill || self.include_backfill {
                for tick in &block.entries.ticks {
                    if tick.log_seq <= self.done.position || !self.matcher.wants(tick.instrument) {
                        continue;
                    }
                    if ticks.len() >= MESSAGE_TICKS {
                        let position = ticks.last().map_or(self.done.position, |tick| tick.log_seq);
                        let ticks = std::mem::take(&mut ticks);
                        self.ready.push_back(Event::Ticks { cursor: Cursor { epoch, position }, ticks });
                    }
                    ticks.push(tick.clone());
                    wanted = true;
                }
            }
            if wanted {
                self.trace(&block);
                // What a replay brings was not sent late, it was asked for late.
                if !block.backfill && self.replay_end.is_none() {
                    self.fresh.push(block.last_seq());
                }
            }
            self.done.position = block.last_seq();
        }
        if !ticks.is_empty() {
            self.ready.push_back(Event::Ticks { cursor: self.done, ticks });
        }
    }
}
