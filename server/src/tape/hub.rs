//! The newest blocks of the log, contiguous by position.
//!
//! The hub listens to the bus and keeps what it brings in order. What the bus does not bring is read from the store:
//! a hole waits 10 ms for the missing announcement, silence is checked against the store's head every 250 ms. So the
//! bus may lose, repeat or reorder, and whoever follows the hub still sees exactly the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Registry;
use crate::bus::Announcement;
use crate::domain::{Block, Cursor, Epoch, InstrumentId, UnixNanos};
use crate::metrics::Metrics;
use crate::store::{LogHead, Segment, Store, StoreError};

/// How long a hole waits for its announcement before the store is read.
const REORDER_WAIT: Duration = Duration::from_millis(10);

/// How long the bus may be silent before the store's head is compared.
const SILENCE: Duration = Duration::from_millis(250);

/// Announcements that wait for a hole before them; more are forgotten and read from the store.
const REORDER_LIMIT: usize = 64;

/// Bytes of segments that one reading of the store brings at most, beyond its first segment.
pub(super) const READ_BYTES: usize = 1 << 20;

/// How long a reading of the store's head serves those who ask for it.
const CONFIRMED: Duration = Duration::from_millis(50);

/// How long the store may take to say where its head is.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);

/// Where the log ends, as far as the hub has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The log.
    pub epoch: Epoch,
    /// The last position.
    pub position: u64,
    /// When it was appended.
    pub append_time: UnixNanos,
}

impl Head {
    /// The head as a cursor.
    pub fn cursor(self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.position }
    }
}

/// What the hub has after a position.
#[derive(Debug)]
pub enum Held {
    /// Consecutive blocks, the first of which holds the next entry.
    Blocks {
        /// At least one.
        blocks: Vec<Arc<Block>>,
        /// How much memory everything from the first of them to the head takes.
        lag_bytes: u64,
    },
    /// Nothing yet: the position is the head.
    Nothing,
    /// The next entry is older than what the hub keeps: read the store.
    Behind,
    /// The position belongs to another log, or lies above the head.
    Foreign,
}

/// The newest blocks, bounded by bytes. Shared; one task feeds it.
#[derive(Debug)]
pub struct Hub {
    /// Guards the ring and the head that belongs to it. Never held across an await.
    ring: Mutex<Ring>,
    head: watch::Sender<Head>,
    /// The store's head as it was last read, and when. Held while it is read, so that many who ask read it once.
    confirmed: tokio::sync::Mutex<Option<(Instant, LogHead)>>,
    /// Wakes the feeder, because the store has more than the hub.
    behind: Notify,
}

#[derive(Debug)]
struct Ring {
    /// Each with the number of bytes that were pushed before it.
    blocks: VecDeque<(u64, Arc<Block>)>,
    /// How many bytes were ever pushed.
    pushed: u64,
    bytes: usize,
    byte_limit: usize,
}

impl Hub {
    /// An empty hub at the store's head.
    pub fn new(head: &LogHead, byte_limit: usize) -> Hub {
        let ring = Ring { blocks: VecDeque::new(), pushed: 0, bytes: 0, byte_limit };
        let head = Head { epoch: head.epoch, position: head.position, append_time: head.append_time };
        Hub {
            ring: Mutex::new(ring),
            head: watch::Sender::new(head),
            confirmed: tokio::sync::Mutex::default(),
            behind: Notify::new(),
        }
    }

    /// Where the log of the store ends, read just now: whatever the bus has not told, the hub then fetches at once.
    pub async fn confirm(&self, store: &dyn Store) -> Result<LogHead, StoreError> {
        let mut confirmed = self.confirmed.lock().await;
        let now = Instant::now();
        if let Some((read, head)) = *confirmed
            && now < read + CONFIRMED
        {
            return Ok(head);
        }
        let reading = tokio::time::timeout(CONFIRM_PATIENCE, store.head()).await;
        let head = reading.map_err(|_| StoreError::Unavailable("the head is not read in time".to_owned()))??;
        *confirmed = Some((now, head));
        let own = self.head();
        if head.epoch != own.epoch || head.position > own.position {
            self.behind.notify_one();
        }
        Ok(head)
    }

    /// Where the log ends.
    pub fn head(&self) -> Head {
        *self.head.borrow()
    }

    /// Tells when the head moves.
    pub fn watch(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// Whether the hub has everything after a position.
    pub fn reaches(&self, after: Cursor) -> bool {
        !matches!(self.read(after, 0), Held::Behind | Held::Foreign)
    }

    /// Blocks after a position, at least one if there is one, then as many as fit `max_bytes` of memory.
    pub fn read(&self, after: Cursor, max_bytes: usize) -> Held {
        let ring = self.ring.lock().expect("no holder of the lock panics");
        let head = self.head();
        if after.epoch != head.epoch || after.position > head.position {
            return Held::Foreign;
        }
        if after.position == head.position {
            return Held::Nothing;
        }
        let start = ring.blocks.partition_point(|(_, block)| block.last_seq() <= after.position);
        let lag_bytes = match ring.blocks.get(start) {
            Some((pushed, first)) if first.first_seq <= after.position + 1 => ring.pushed - pushed,
            _ => return Held::Behind,
        };
        let mut blocks = Vec::new();
        let mut bytes = 0;
        for (_, block) in ring.blocks.range(start..) {
            bytes += block.memory();
            if !blocks.is_empty() && bytes > max_bytes {
                break;
            }
            blocks.push(block.clone());
        }
        Held::Blocks { blocks, lag_bytes }
    }

    /// When the entry after a position was appended; `None` at the head, and where the hub does not reach back.
    pub fn appended_after(&self, position: u64) -> Option<UnixNanos> {
        let ring = self.ring.lock().expect("no holder of the lock panics");
        let start = ring.blocks.partition_point(|(_, block)| block.last_seq() <= position);
        let (_, next) = ring.blocks.get(start)?;
        (next.first_seq <= position + 1).then_some(next.append_time)
    }

    fn push(&self, block: Arc<Block>) {
        let mut ring = self.ring.lock().expect("no holder of the lock panics");
        let head = Head { epoch: block.epoch, position: block.last_seq(), append_time: block.append_time };
        let (bytes, pushed) = (block.memory(), ring.pushed);
        ring.bytes += bytes;
        ring.pushed += bytes as u64;
        ring.blocks.push_back((pushed, block));
        while ring.bytes > ring.byte_limit && ring.blocks.len() > 1 {
            let (_, oldest) = ring.blocks.pop_front().expect("the ring has more than one block");
            ring.bytes -= oldest.memory();
        }
        self.head.send_replace(head);
    }

    /// Starts over at the head of another log.
    fn restart(&self, head: &LogHead) {
        let mut ring = self.ring.lock().expect("no holder of the lock panics");
        ring.blocks.clear();
        ring.bytes = 0;
        self.head.send_replace(Head { epoch: head.epoch, position: head.position, append_time: head.append_time });
    }
}

/// Decodes a segment that the store delivered.
pub(super) fn decode(segment: &Segment) -> Result<Arc<Block>, StoreError> {
    let place = (segment.epoch, segment.first_seq, segment.entry_count);
    Block::decode(place, segment.append_time, segment.backfill, segment.chain, &segment.bytes).map(Arc::new).map_err(
        |problem| StoreError::Corrupt {
            table: "segments",
            row: segment.first_seq.to_string(),
            problem: problem.to_string(),
        },
    )
}

/// Feeds a hub until it is told to stop.
#[derive(Debug)]
pub struct Feeder {
    /// The hub.
    pub hub: Arc<Hub>,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The hint. Subscribe before the hub is made, or the first commits are found only by the check of silence.
    pub announcements: broadcast::Receiver<Announcement>,
    /// Learns instruments that other replicas registered.
    pub registry: Arc<Registry>,
    /// Counts.
    pub metrics: Metrics,
}

impl Feeder {
    /// Feeds the hub. Ends when `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut early: BTreeMap<u64, Announcement> = BTreeMap::new();
        loop {
            let patience = if early.is_empty() { SILENCE } else { REORDER_WAIT };
            let heard = tokio::select! {
                () = stop.cancelled() => return,
                heard = tokio::time::timeout(patience, self.announcements.recv()) => Some(heard),
                () = self.hub.behind.notified() => None,
            };
            let heal = match heard {
                Some(Ok(Ok(announcement))) => {
                    early.insert(announcement.first_seq, announcement);
                    early.len() > REORDER_LIMIT
                }
                Some(Ok(Err(broadcast::error::RecvError::Lagged(_))) | Err(_)) | None => true,
                Some(Ok(Err(broadcast::error::RecvError::Closed))) => {
                    tokio::time::sleep(SILENCE).await;
                    true
                }
            };
            if self.take_contiguous(&mut early).await && !heal {
                continue;
            }
            if heal {
                early.clear();
                if let Err(error) = self.heal().await {
                    self.metrics.tape.store_failed("follow");
                    tracing::warn!(%error, "the log cannot be read; live streams wait");
                    tokio::time::sleep(SILENCE).await;
                }
            }
        }
    }

    /// Moves early announcements into the hub as far as they follow its head. True when none is left waiting.
    async fn take_contiguous(&mut self, early: &mut BTreeMap<u64, Announcement>) -> bool {
        while let Some(entry) = early.first_entry() {
            let head = self.hub.head();
            let announcement = entry.get();
            if announcement.epoch == head.epoch && announcement.last_seq <= head.position {
                entry.remove();
                continue;
            }
            let follows = announcement.epoch == head.epoch && announcement.first_seq == head.position + 1;
            let Some(block) = announcement.block.clone().filter(|_| follows) else {
                return false;
            };
            entry.remove();
            if self.know_instruments(&block).await.is_err() {
                return false;
            }
            self.hub.push(block);
        }
        true
    }

    /// Reads the store from the hub's head to the store's.
    async fn heal(&mut self) -> Result<(), StoreError> {
        loop {
            let head = self.hub.head();
            let page = self.store.segments(head.position, READ_BYTES).await?;
            let lost = page.head.position < head.position || page.head.oldest > head.position + 1;
            if page.head.epoch != head.epoch || lost {
                tracing::warn!(epoch = %page.head.epoch, position = page.head.position, "the log is another one now");
                self.hub.restart(&page.head);
                return Ok(());
            }
            if page.segments.is_empty() {
                return Ok(());
            }
            for segment in &page.segments {
                if segment.first_seq == self.hub.head().position + 1 {
                    let block = decode(segment)?;
                    self.know_instruments(&block).await?;
                    self.hub.push(block);
                }
            }
        }
    }

    /// Whoever follows the hub may look up every instrument of its blocks.
    async fn know_instruments(&self, block: &Block) -> Result<(), StoreError> {
        let greatest = block.entries.ticks.iter().map(|tick| tick.instrument).max();
        if greatest > Some(InstrumentId(self.registry.len() as u32)) {
            self.registry.refresh().await?;
        }
        Ok(())
    }
}
