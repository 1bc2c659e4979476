//! The newest blocks of the log, contiguous by position.
//!
//! One task feeds it ([`super::feeder`]); whoever follows the log reads it. A hub belongs to one epoch: when the log goes
//! on as another one, the hub is over, and so is whoever followed it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::sync::watch;

use super::{Lineage, trail::Trail};
use crate::domain::{Block, Cursor, Epoch, UnixNanos};
use crate::store::{Chain, LogHead, Segment, StoreError};

/// Bytes of segments that one reading of the store brings at most, beyond its first segment.
pub(super) const READ_BYTES: usize = 1 << 20;

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
    Blocks(Vec<Arc<Block>>),
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
    /// Set once, before the watchers of the head are woken for the last time.
    over: OnceLock<Arc<Successor>>,
}

#[derive(Debug)]
struct Ring {
    blocks: VecDeque<Arc<Block>>,
    bytes: usize,
    byte_limit: usize,
    trail: Trail,
}

impl Hub {
    /// An empty hub at the store's head.
    pub fn new(head: &LogHead, byte_limit: usize) -> Hub {
        let LogHead { epoch, position, chain, append_time, .. } = *head;
        let trail = Trail::beginning(position, chain);
        let ring = Ring { blocks: VecDeque::new(), bytes: 0, byte_limit, trail };
        let head = Head { epoch, position, chain, append_time };
        Hub { ring: Mutex::new(ring), head: watch::Sender::new(head), over: OnceLock::new() }
    }

    /// Where the log ends.
    pub fn head(&self) -> Head {
        *self.head.borrow()
    }

    /// Tells when the head moves.
    pub fn watch(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// Blocks after a position, at least one if there is one, then as many as fit `max_bytes` of memory.
    pub fn read(&self, after: Cursor, max_bytes: usize) -> Held {
        if let Some(successor) = self.over.get() {
            return Held::Over(successor.clone());
        }
        let ring = self.ring.lock().expect("no holder of the lock panics");
        let head = self.head();
        if after.epoch != head.epoch || after.position > head.position {
            return Held::Foreign;
        }
        if after.position == head.position {
            return Held::Nothing;
        }
        let start = ring.blocks.partition_point(|block| block.last_seq() <= after.position);
        match ring.blocks.get(start) {
            Some(first) if first.first_seq <= after.position + 1 => (),
            _ => return Held::Behind,
        }
        let mut blocks = Vec::new();
        let mut bytes = 0;
        for block in ring.blocks.range(start..) {
            bytes += block.memory();
            if !blocks.is_empty() && bytes > max_bytes {
                break;
            }
            blocks.push(block.clone());
        }
        Held::Blocks(blocks)
    }

    /// Appends the block that follows the head.
    pub(super) fn push(&self, block: Arc<Block>) {
        let mut ring = self.ring.lock().expect("no holder of the lock panics");
        // The hub's epoch, not the block's: a forked log also has blocks that were stored under the name before.
        let head = Head {
            epoch: self.head().epoch,
            position: block.last_seq(),
            chain: block.chain,
            append_time: block.append_time,
        };
        ring.trail.push(head.position, head.chain);
        ring.bytes += block.memory();
        ring.blocks.push_back(block);
        while ring.bytes > ring.byte_limit && ring.blocks.len() > 1 {
            let oldest = ring.blocks.pop_front().expect("the ring has more than one block");
            ring.bytes -= oldest.memory();
        }
        self.head.send_replace(head);
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
