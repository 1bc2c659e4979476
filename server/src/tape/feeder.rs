//! Feeds a hub: from the bus what it brings, from the store what it does not.
//!
//! A hole waits 10 ms for the missing announcement, silence is checked against the store's head every 250 ms. So the bus
//! may lose, repeat or reorder, and whoever follows the hub still sees exactly the log. Every block must continue the
//! chain of the one before it: a log whose next block does not, or whose head lies below what the hub has, is another
//! history, and the feeder ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::hub::{READ_BYTES, decode};
use super::{Hub, Registry};
use crate::bus::{Announcement, Bus};
use crate::domain::segment::{self, Link};
use crate::domain::{Block, Cursor, InstrumentId};
use crate::metrics::Metrics;
use crate::store::{LogPage, Segment, Store, StoreError};

/// How long a hole waits for its announcement before the store is read.
const REORDER_WAIT: Duration = Duration::from_millis(10);

/// How long the bus may be silent before the store's head is compared, and how long a store that cannot be read is left
/// alone.
const SILENCE: Duration = Duration::from_millis(250);

/// Announcements that wait for a hole before them; the farthest are forgotten and read from the store.
const REORDER_LIMIT: usize = 64;

/// Memory of announcements that wait for a hole, or for the store, in bytes.
const REORDER_BYTES: usize = 16 << 20;

/// How long one reading of the store may take.
const STORE_PATIENCE: Duration = Duration::from_secs(5);

/// Why a hub is no longer fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedEnd {
    /// The feeder was told to stop.
    Stopped,
    /// The store has lost what the hub has seen, has another history, or another epoch.
    OtherLog {
        /// The last place that the hub is known to share with the store's log.
        common: Cursor,
    },
    /// The log no longer reaches back to the hub's head: the replica slept longer than the log is kept.
    Behind,
}

/// Feeds a hub until it is told to stop, or the log is another one.
#[derive(Debug)]
pub struct Feeder {
    /// The hub.
    pub hub: Arc<Hub>,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The hint.
    pub bus: Arc<dyn Bus>,
    /// What the bus brings. Subscribe before the hub is made, or the first commits are found only by the check of
    /// silence.
    pub announcements: broadcast::Receiver<Announcement>,
    /// Learns instruments that other replicas registered.
    pub registry: Arc<Registry>,
    /// Counts.
    pub metrics: Metrics,
}

/// Announcements that came before their turn.
#[derive(Debug, Default)]
struct Early {
    waiting: BTreeMap<u64, Announcement>,
    bytes: usize,
    /// Since when the first of them waits.
    since: Option<Instant>,
}

/// What an announcement is good for.
enum Turn {
    /// It is the next block.
    Next(Arc<Block>),
    /// The next block is known to exist and has to be read.
    Read,
    /// A hole lies before it.
    Hole,
    /// None waits.
    Nothing,
}

impl Feeder {
    /// Feeds the hub. Ends when `stop` is cancelled, or when the hub's log is no longer the store's.
    pub async fn run(mut self, stop: CancellationToken) -> FeedEnd {
        let mut early = Early::default();
        let mut failing = false;
        loop {
            let healed = match self.feed(&mut early, &stop).await {
                Ok(Some(quiet)) => self.heal(&mut early, quiet).await,
                Ok(None) => return FeedEnd::Stopped,
                Err(error) => Err(error),
            };
            match healed {
                Ok(None) => failing = false,
                Ok(Some(end)) => return end,
                Err(error) => {
                    self.metrics.tape.store_failed("follow");
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "the log cannot be read; live streams wait");
                    }
                    if stop.run_until_cancelled(self.listen(&mut early, SILENCE)).await.is_none() {
                        return FeedEnd::Stopped;
                    }
                }
            }
        }
    }

    /// Takes what the bus brings as long as it continues the log. Returns when the store has to be read, with whether
    /// that is because the bus was silent; `None` to stop.
    async fn feed(&mut self, early: &mut Early, stop: &CancellationToken) -> Result<Option<bool>, StoreError> {
        loop {
            let deadline = match self.turn(early) {
                Turn::Next(block) => {
                    self.know_instruments(&block).await?;
                    self.hub.push(block);
                    continue;
                }
                Turn::Read => return Ok(Some(false)),
                Turn::Hole => early.since.unwrap_or_else(Instant::now) + REORDER_WAIT,
                Turn::Nothing => Instant::now() + SILENCE,
            };
            let quiet = early.waiting.is_empty();
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                // Somebody has read the store's head; the bus may be about to tell the same.
                () = self.hub.behind.notified() => return Ok(Some(false)),
                heard = tokio::time::timeout_at(deadline, self.announcements.recv()) => heard,
            };
            match heard {
                Ok(Ok(announcement)) => early.hear(announcement),
                Ok(Err(RecvError::Lagged(_))) => return Ok(Some(false)),
                // Nobody is left to announce; the store is looked at as often as in silence.
                Ok(Err(RecvError::Closed)) => {
                    tokio::time::sleep_until(deadline).await;
                    return Ok(Some(quiet));
                }
                Err(_) => return Ok(Some(quiet)),
            }
        }
    }

    /// Looks at the first announcement, past those that bring nothing new.
    fn turn(&self, early: &mut Early) -> Turn {
        let head = self.hub.head();
        while let Some(announcement) = early.first() {
            if announcement.epoch != head.epoch {
                // Whether the log has another name now is for the store to say.
                early.pop();
                return Turn::Read;
            }
            if announcement.last_seq <= head.position {
                early.pop();
                continue;
            }
            if announcement.first_seq > head.position + 1 {
                return Turn::Hole;
            }
            let Announcement { block: Some(block), bytes: Some(bytes), .. } = announcement else {
                return Turn::Read;
            };
            let follows = block.first_seq == head.position + 1 && block.chain == link(&head.chain, block, bytes);
            let block = block.clone();
            early.pop();
            return if follows { Turn::Next(block) } else { Turn::Read };
        }
        Turn::Nothing
    }

    /// Reads the store from the hub's head to the store's. Says how the feeding ends, if it does.
    async fn heal(&mut self, early: &mut Early, quiet: bool) -> Result<Option<FeedEnd>, StoreError> {
        // What waits was committed before it was announced, so the store has it, or nobody does.
        *early = Early::default();
        let mut found = false;
        loop {
            let head = self.hub.head();
            let LogPage { head: stored, segments } = self.page(early, head.position).await?;
            if stored.epoch != head.epoch
                || stored.position < head.position
                || (stored.position == head.position && stored.chain != head.chain)
            {
                return self.other_log().await.map(Some);
            }
            if stored.oldest > head.position + 1 {
                tracing::warn!(position = head.position, oldest = stored.oldest, "this replica slept too long");
                return Ok(Some(FeedEnd::Behind));
            }
            if segments.is_empty() {
                if quiet && found {
                    self.bus.doubt();
                }
                return Ok(None);
            }
            found = true;
            for segment in &segments {
                let head = self.hub.head();
                if segment.last_seq() <= head.position {
                    continue;
                }
                if segment.first_seq != head.position + 1 || !continues(&head.chain, segment) {
                    return self.other_log().await.map(Some);
                }
                let block = decode(segment, head.epoch)?;
                self.know_instruments(&block).await?;
                self.hub.push(block);
            }
        }
    }

    /// A page of the store. What the bus brings meanwhile is kept within bounds, however long the store takes.
    async fn page(&mut self, early: &mut Early, after: u64) -> Result<LogPage, StoreError> {
        let store = self.store.clone();
        let reading = tokio::time::timeout(STORE_PATIENCE, store.segments(after, READ_BYTES));
        tokio::select! {
            biased;
            page = reading => page.map_err(|_| StoreError::Unavailable(format!("no answer within {STORE_PATIENCE:?}")))?,
            () = self.listen(early, Duration::MAX) => Err(StoreError::Unavailable("nobody is left to wait for".into())),
        }
    }

    /// Keeps what the bus brings, for a time.
    async fn listen(&mut self, early: &mut Early, span: Duration) {
        let hear = async {
            loop {
                match self.announcements.recv().await {
                    Ok(announcement) => early.hear(announcement),
                    Err(RecvError::Lagged(_)) => (),
                    Err(RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        let _: Result<(), _> = tokio::time::timeout(span, hear).await;
    }

    async fn other_log(&self) -> Result<FeedEnd, StoreError> {
        let head = self.hub.head();
        let position = self.hub.trail().shared_with(&*self.store).await?;
        if position == head.position && self.store.head().await?.epoch == head.epoch {
            // The histories agree in all that the hub has, so it is what follows that is broken.
            return Err(StoreError::Corrupt {
                table: "segments",
                row: (position + 1).to_string(),
                problem: "it does not continue the chain before it".into(),
            });
        }
        let common = Cursor { epoch: head.epoch, position };
        tracing::warn!(epoch = %head.epoch, position = head.position, shared = position, "the log is another one now");
        Ok(FeedEnd::OtherLog { common })
    }

    /// Whoever follows the hub may look up every instrument of its blocks.
    async fn know_instruments(&self, block: &Block) -> Result<(), StoreError> {
        let ticks = block.entries.ticks.iter().map(|tick| tick.instrument);
        let greatest = ticks.chain(block.corrections().map(|(_, correction)| correction.instrument)).max();
        if greatest > Some(InstrumentId(self.registry.len() as u32)) {
            let refresh = tokio::time::timeout(STORE_PATIENCE, self.registry.refresh());
            refresh.await.map_err(|_| StoreError::Unavailable(format!("no answer within {STORE_PATIENCE:?}")))??;
        }
        Ok(())
    }
}

impl Early {
    fn first(&self) -> Option<&Announcement> {
        self.waiting.first_key_value().map(|(_, announcement)| announcement)
    }

    fn pop(&mut self) {
        if let Some((_, announcement)) = self.waiting.pop_first() {
            self.bytes -= memory(&announcement);
        }
        // Whatever is first now has its own hole before it.
        self.since = (!self.waiting.is_empty()).then(Instant::now);
    }

    /// Keeps an announcement within the bounds: the nearest are worth most.
    fn hear(&mut self, announcement: Announcement) {
        self.since.get_or_insert_with(Instant::now);
        self.bytes += memory(&announcement);
        if let Some(repeated) = self.waiting.insert(announcement.first_seq, announcement) {
            self.bytes -= memory(&repeated);
        }
        while self.waiting.len() > REORDER_LIMIT || (self.bytes > REORDER_BYTES && self.waiting.len() > 1) {
            if let Some((_, farthest)) = self.waiting.pop_last() {
                self.bytes -= memory(&farthest);
            }
        }
    }
}

fn memory(announcement: &Announcement) -> usize {
    let block = announcement.block.as_ref().map_or(0, |block| block.memory());
    let bytes = announcement.bytes.as_ref().map_or(0, |bytes| bytes.len());
    size_of::<Announcement>() + block + bytes
}

/// The chain of a block behind a predecessor's.
fn link(previous: &[u8; 16], block: &Block, bytes: &[u8]) -> [u8; 16] {
    let link = Link {
        epoch: block.epoch,
        first_seq: block.first_seq,
        entry_count: block.entry_count,
        tick_count: block.entries.ticks.len() as u32,
        append_time: block.append_time.nanos(),
        backfill: block.backfill,
        bytes,
    };
    segment::chain(previous, link)
}

/// Whether a stored segment continues a chain.
fn continues(previous: &[u8; 16], segment: &Segment) -> bool {
    let link = Link {
        epoch: segment.epoch,
        first_seq: segment.first_seq,
        entry_count: segment.entry_count,
        tick_count: segment.tick_count,
        append_time: segment.append_time.nanos(),
        backfill: segment.backfill,
        bytes: &segment.bytes,
    };
    segment.chain == segment::chain(previous, link)
}
