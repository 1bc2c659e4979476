//! The newest blocks of the log, contiguous by position.
//!
//! One task feeds it ([`super::feeder`]); whoever follows the log reads it. A hub belongs to one epoch: when the log goes
//! on as another one, the hub is over, and so is whoever followed it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::waiting::{Place, Waiting};
use super::{Lineage, trail::Trail};
use crate::domain::{Block, Cursor, Epoch, UnixNanos};
use crate::store::{Chain, LogHead, Segment, Store, StoreError};

/// Bytes of segments that one reading of the store brings at most, beyond its first segment.
pub(super) const READ_BYTES: usize = 1 << 20;

/// How long a reading of the store's head serves those who ask for it.
const CONFIRMED: Duration = Duration::from_millis(50);

/// How long the store may take to say where its head is.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);

/// Blocks that are joined at least: fewer are as cheap one by one.
const JOINED_BLOCKS: usize = 8;

/// Ticks of joined blocks at most, about a message of 64 KiB in rows.
const JOINED_TICKS: usize = 512;

/// Where the log ends, as far as the hub has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The log.
    pub epoch: Epoch,
    /// The last position.
    pub position: u64,
    /// The chain of the last segment: two logs that agree in it agree in everything up to it.
    pub chain: Chain,
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
    /// The log goes on as another one.
    Over(Arc<Successor>),
}

/// The log that took the place of a hub's.
#[derive(Debug)]
pub struct Successor {
    /// Its head when it was found.
    pub head: LogHead,
    /// Its epochs.
    pub lineage: Lineage,
}

/// The newest blocks, bounded by bytes. Shared; one task feeds it.
#[derive(Debug)]
pub struct Hub {
    /// Guards the ring and the head that belongs to it. Never held across an await.
    ring: Mutex<Ring>,
    head: watch::Sender<Head>,
    waiting: Arc<Waiting>,
    /// Set once, before everybody who waits is woken for the last time.
    over: OnceLock<Arc<Successor>>,
    /// The store's head as it was last read, and when. Held while it is read, so that many who ask read it once.
    confirmed: tokio::sync::Mutex<Option<(Instant, LogHead)>>,
    /// Everything up to here leaves the log soon.
    expiring: AtomicU64,
    /// Wakes the feeder, because the store has more than the hub.
    pub(super) behind: Notify,
}

#[derive(Debug)]
struct Ring {
    head: Head,
    /// Each with the number of bytes that were pushed before it.
    blocks: VecDeque<(u64, Arc<Block>)>,
    /// How many bytes were ever pushed.
    pushed: u64,
    bytes: usize,
    byte_limit: usize,
    trail: Trail,
}

impl Ring {
    /// The place of the first block that ends after a position; mostly it is the last one.
    fn after(&self, position: u64) -> usize {
        let blocks = &self.blocks;
        match blocks.back() {
            Some((_, last)) if last.first_seq <= position + 1 && position < last.last_seq() => blocks.len() - 1,
            _ => blocks.partition_point(|(_, block)| block.last_seq() <= position),
        }
    }
}

impl Hub {
    /// An empty hub at the store's head.
    pub fn new(head: &LogHead, byte_limit: usize) -> Hub {
        let LogHead { epoch, position, chain, append_time, .. } = *head;
        let trail = Trail::beginning(position, chain);
        let head = Head { epoch, position, chain, append_time };
        let ring = Ring { head, blocks: VecDeque::new(), pushed: 0, bytes: 0, byte_limit, trail };
        Hub {
            ring: Mutex::new(ring),
            head: watch::Sender::new(head),
            waiting: Arc::new(Waiting::new(position)),
            over: OnceLock::new(),
            confirmed: tokio::sync::Mutex::default(),
            expiring: AtomicU64::new(0),
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

    /// A place to wait at the head, for whatever comes.
    pub(super) fn place(&self) -> Place {
        Place::new(self.waiting.clone())
    }

    /// Whether the hub has everything after a position.
    pub fn reaches(&self, after: Cursor) -> bool {
        !matches!(self.read(after, 0), Held::Behind | Held::Foreign | Held::Over(_))
    }

    /// Blocks after a position, at least one if there is one, then as many as fit `max_bytes` of memory.
    pub fn read(&self, after: Cursor, max_bytes: usize) -> Held {
        let mut held = self.look(after, max_bytes);
        if let Held::Blocks { blocks, .. } = &mut held
            && blocks.len() >= JOINED_BLOCKS
        {
            self.join(blocks);
        }
        held
    }

    fn look(&self, after: Cursor, max_bytes: usize) -> Held {
        if let Some(successor) = self.over.get() {
            return Held::Over(successor.clone());
        }
        let ring = self.ring.lock().expect("no holder of the lock panics");
        let head = ring.head;
        if after.epoch != head.epoch || after.position > head.position {
            return Held::Foreign;
        }
        if after.position == head.position {
            return Held::Nothing;
        }
        let start = ring.after(after.position);
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

    /// Up to where the log is about to be cut off: streams that have yet to read it are told.
    pub fn expiring(&self) -> u64 {
        self.expiring.load(Ordering::Relaxed)
    }

    /// Notes that everything up to a position leaves the log soon.
    pub(super) fn expires(&self, position: u64) {
        self.expiring.store(position, Ordering::Relaxed);
    }

    /// Joins neighbours that are small, in the ring too.
    fn join(&self, blocks: &mut Vec<Arc<Block>>) {
        let mut start = 0;
        while start < blocks.len() {
            let backfill = blocks[start].backfill;
            let mut ticks = 0;
            let small = blocks[start..].iter().take_while(|block| {
                ticks += block.entries.ticks.len();
                ticks <= JOINED_TICKS && block.backfill == backfill && block.is_joinable()
            });
            let count = small.count();
            if count >= JOINED_BLOCKS {
                let joined = Arc::new(Block::join(&blocks[start..start + count]));
                self.replace(&blocks[start..start + count], &joined);
                blocks.splice(start..start + count, [joined]);
            }
            start += count.max(1);
        }
    }

    /// Puts one block in the place of those that it was made of, unless they have left the ring or were joined already.
    fn replace(&self, blocks: &[Arc<Block>], joined: &Arc<Block>) {
        let mut ring = self.ring.lock().expect("no holder of the lock panics");
        let start = ring.blocks.partition_point(|(_, block)| block.last_seq() < joined.first_seq);
        let present = ring.blocks.range(start..).map(|(_, block)| block);
        if present.zip(blocks).filter(|(one, other)| Arc::ptr_eq(one, other)).count() < blocks.len() {
            return;
        }
        let pushed = ring.blocks[start].0;
        ring.blocks.drain(start..start + blocks.len());
        ring.blocks.insert(start, (pushed, joined.clone()));
        ring.bytes -= blocks.iter().map(|block| block.memory()).sum::<usize>();
        ring.bytes += joined.memory();
    }

    /// When the entry after a position was appended; `None` at the head, and where the hub does not reach back.
    pub fn appended_after(&self, position: u64) -> Option<UnixNanos> {
        let ring = self.ring.lock().expect("no holder of the lock panics");
        let start = ring.after(position);
        let (_, next) = ring.blocks.get(start)?;
        (next.first_seq <= position + 1).then(|| next.appended_after(position))
    }

    /// Appends the block that follows the head.
    pub(super) fn push(&self, block: Arc<Block>) {
        let mut ring = self.ring.lock().expect("no holder of the lock panics");
        let head = Head {
            epoch: ring.head.epoch,
            position: block.last_seq(),
            chain: block.chain,
            append_time: block.append_time,
        };
        ring.trail.push(head.position, head.chain);
        ring.head = head;
        let (bytes, pushed) = (block.memory(), ring.pushed);
        ring.bytes += bytes;
        ring.pushed += bytes as u64;
        ring.blocks.push_back((pushed, block.clone()));
        while ring.bytes > ring.byte_limit && ring.blocks.len() > 1 {
            let (_, oldest) = ring.blocks.pop_front().expect("the ring has more than one block");
            ring.bytes -= oldest.memory();
        }
        self.head.send_replace(head);
        drop(ring);
        self.waiting.pushed(&block);
    }

    /// The positions and chains that the hub has passed, for finding out what it shares with another log.
    pub(super) fn trail(&self) -> Trail {
        self.ring.lock().expect("no holder of the lock panics").trail.clone()
    }

    /// Ends the hub and wakes everybody who waits at its head.
    pub fn end(&self, successor: Successor) {
        // A second end changes nothing: the first one was true already.
        let _ = self.over.set(Arc::new(successor));
        self.head.send_modify(|_| ());
        self.waiting.end();
    }
}

/// Decodes a segment that the store delivered. The block has the name of the log that it is read in: a forked log also
/// has segments that were stored under the name before, some of them behind the fork, and cursors of that name would not
/// be good there.
pub(super) fn decode(segment: &Segment, epoch: Epoch) -> Result<Arc<Block>, StoreError> {
    let place = (epoch, segment.first_seq, segment.entry_count);
    Block::decode(place, segment.append_time, segment.backfill, segment.chain, &segment.bytes).map(Arc::new).map_err(
        |problem| StoreError::Corrupt {
            table: "segments",
            row: segment.first_seq.to_string(),
            problem: problem.to_string(),
        },
    )
}
