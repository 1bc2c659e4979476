//! What a subscriber is told.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::matcher::Outcome;
use crate::domain::{Block, Control, Correction, Cursor, Epoch, Instrument, Origin, Tick, UnixNanos};

/// One event, and where to go on after it.
#[derive(Clone, Debug)]
pub struct Message {
    /// The stream continues behind this; `None` before the end of a snapshot.
    pub cursor: Option<Cursor>,
    /// What happened.
    pub event: Event,
}

/// What happened. Every event but the acknowledgement belongs behind what came before it.
#[derive(Clone, Debug)]
pub enum Event {
    /// Always first: what was granted.
    Ack(Ack),
    /// Names of instruments, in streams that ask for them: before their first ticks.
    Definitions(Vec<Arc<Instrument>>),
    /// Ticks of a block, in the order of the log.
    Run(Run),
    /// Ticks of a snapshot or a round.
    Ticks(Ticks),
    /// A trade was corrected or cancelled.
    Correction {
        /// The position of the correction.
        log_seq: u64,
        /// What it says.
        correction: Correction,
        /// How it came into the log.
        origin: Origin,
    },
    /// A feed said something about itself.
    Source {
        /// Its position.
        log_seq: u64,
        /// One of the entries that have a scope.
        control: Control,
    },
    /// The snapshot begins.
    SnapshotBegin {
        /// The position at which it is read.
        position: u64,
        /// How many ticks it has.
        tick_count: u32,
    },
    /// The snapshot is complete.
    SnapshotEnd {
        /// The position at which it was read.
        position: u64,
        /// Which selectors have an exact symbol and no tick, ascending.
        without_data: Vec<usize>,
    },
    /// Everything that was stored when the subscription began has been delivered.
    ReplayCompleted {
        /// The boundary.
        position: u64,
    },
    /// Everything that matches has been delivered up to here.
    Progress {
        /// Complete up to here.
        position: u64,
        /// The server's clock.
        time: UnixNanos,
    },
    /// Positions are missing, because they left the replay window.
    StreamGap {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The reader lags behind what the hub keeps, or has caught up again, or what it has yet to read leaves the log soon.
    SlowConsumer {
        /// Whether catching up begins (or has ended).
        catching_up: bool,
        /// Whether the reader's next entry leaves the log soon.
        expiring: bool,
        /// How many entries lie between the reader and the head.
        lag: u64,
        /// How long ago the reader's next entry was appended.
        lag_time: Duration,
    },
}

/// What was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The log.
    pub epoch: Epoch,
    /// The log's head.
    pub head: u64,
    /// The first position that can be read again.
    pub oldest: u64,
    /// The granted heartbeat.
    pub heartbeat: Duration,
    /// The granted flush window.
    pub flush_window: Duration,
    /// The shortest time between two rounds of a conflated stream; `None` in a lossless one.
    pub min_interval: Option<Duration>,
    /// What became of each selector, in their order.
    pub outcomes: Vec<Outcome>,
}

/// Ticks of one block. Each is a place to go on from.
#[derive(Clone, Debug)]
pub struct Run {
    /// The block, shared by all its readers.
    pub block: Arc<Block>,
    /// Which of its ticks; at least one.
    pub picks: Picks,
}

/// Which ticks of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Picks {
    /// All, and the block has no other entries: what everybody gets who reads everything.
    All,
    /// Neighbours, by their indexes.
    Range(Range<usize>),
    /// Some, by their indexes, ascending.
    Some(Vec<u32>),
}

impl Run {
    /// How many ticks.
    pub fn len(&self) -> usize {
        match &self.picks {
            Picks::All => self.block.entries.ticks.len(),
            Picks::Range(range) => range.len(),
            Picks::Some(indexes) => indexes.len(),
        }
    }

    /// Whether there is none, which never is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ticks.
    pub fn ticks(&self) -> Vec<&Tick> {
        let ticks = &self.block.entries.ticks;
        match &self.picks {
            Picks::All => ticks.iter().collect(),
            Picks::Range(range) => ticks[range.clone()].iter().collect(),
            Picks::Some(indexes) => indexes.iter().map(|&index| &ticks[index as usize]).collect(),
        }
    }
}

/// Ticks of one message or more.
#[derive(Clone, Debug)]
pub struct Ticks {
    /// At least one.
    pub ticks: Vec<Tick>,
    /// For how many ticks each stands, itself included; empty in a lossless stream.
    pub merged: Vec<u32>,
    /// Where to go on after some of them, if they do not fit one message: only what came before them is complete.
    pub before: Option<Cursor>,
}
