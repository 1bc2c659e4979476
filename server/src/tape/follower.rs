//! Reading the log forward from a position: from the hub, or from the store where the hub does not reach back.
//!
//! One loop, no special case: behind the hub means read the store, at the head means wait.

use std::sync::Arc;
use std::time::Duration;

use super::Lineage;
use super::hub::{Head, Held, Hub, Successor, decode};
use super::waiting::Place;
use crate::domain::{Block, Cursor, InstrumentId};
use crate::store::{LogHead, Store, StoreError};

/// How many times the bytes of a stored segment its ticks take in memory, roughly.
const UNPACKED: usize = 8;

/// How long a store that does not answer is left alone.
const RETRY_WAIT: Duration = Duration::from_millis(250);

/// Why the log cannot be followed from a position.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The next entry is no longer in the log.
    #[error("the position is older than the log")]
    Expired {
        /// The first position that can be read.
        oldest: u64,
        /// The log's head.
        head: LogHead,
    },
    /// The log is another one than the position's, or ends below it.
    #[error("the position belongs to another log")]
    EpochChanged {
        /// The log's head.
        head: LogHead,
        /// Its epochs: they tell which positions of other logs it shares.
        lineage: Lineage,
    },
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Entries after a position.
#[derive(Debug)]
pub struct Step {
    /// Consecutive blocks. The first may begin before the position: skip what lies at or below it.
    pub blocks: Vec<Arc<Block>>,
    /// Whether they came from the store, because the hub no longer had them.
    pub from_log: bool,
    /// How much memory everything from the first block to the head takes, if the hub still had it.
    pub lag_bytes: u64,
}

impl Step {
    /// How many segments it holds.
    pub fn commits(&self) -> usize {
        self.blocks.iter().map(|block| block.segments.len().max(1)).sum()
    }
}

/// Follows the log from a position.
#[derive(Debug)]
pub struct Follower {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    place: Place,
    position: Cursor,
    step_bytes: usize,
}

impl Follower {
    /// Follows after a position, which need not be the end of a block. One step takes blocks of `step_bytes` of memory
    /// at most, beyond the first block.
    pub fn new(hub: Arc<Hub>, store: Arc<dyn Store>, after: Cursor, step_bytes: usize) -> Follower {
        let place = hub.place();
        Follower { hub, store, place, position: after, step_bytes }
    }

    /// Says which instruments are worth waking up for, beside new ones and entries about feeds; `None` is whatever comes.
    /// Instruments are only ever added, behind those that were told before. [`Follower::next`] may then pass over blocks
    /// that have none of them.
    pub fn want(&mut self, wanted: Option<&[InstrumentId]>) {
        self.place.want(wanted);
    }

    /// After a call of [`Follower::next`] that was dropped: up to where there was nothing to wake up for, if it waited.
    pub fn pass(&mut self) -> Option<Cursor> {
        let passed = self.place.pass()?;
        self.position.position = self.position.position.max(passed);
        Some(self.position)
    }

    /// Goes on after another position of the same log.
    pub fn seek(&mut self, position: u64) {
        self.position.position = position;
    }

    /// Whether the hub has everything that comes next.
    pub fn is_near(&self) -> bool {
        self.hub.reaches(self.position)
    }

    /// Whether what comes next leaves the log soon.
    pub fn expires(&self, position: u64) -> bool {
        position < self.hub.expiring()
    }

    /// Whether the hub has nothing that comes next.
    pub fn is_at_head(&self) -> bool {
        self.position == self.hub.head().cursor()
    }

    /// Where the log of the store ends, read just now.
    pub async fn confirm(&self) -> Result<LogHead, StoreError> {
        self.hub.confirm(&*self.store).await
    }

    /// Everything up to here has been returned.
    pub fn position(&self) -> Cursor {
        self.position
    }

    /// Where the log ends, as far as the hub has it.
    pub fn head(&self) -> Head {
        self.hub.head()
    }

    /// What the hub has now, without waiting; `None` at the head or behind the hub.
    pub fn ready(&mut self) -> Option<Step> {
        let Held::Blocks { blocks, lag_bytes } = self.hub.read(self.position, self.step_bytes) else {
            return None;
        };
        self.position.position = blocks.last()?.last_seq();
        Some(Step { blocks, from_log: false, lag_bytes })
    }

    /// The next entries; waits at the head, and for a store that does not answer. A call that is dropped has returned
    /// nothing and lost nothing.
    pub async fn next(&mut self) -> Result<Step, FollowError> {
        loop {
            match self.hub.read(self.position, self.step_bytes) {
                Held::Blocks { blocks, lag_bytes } => {
                    self.position.position = blocks.last().expect("the hub returns at least one block").last_seq();
                    return Ok(Step { blocks, from_log: false, lag_bytes });
                }
                Held::Nothing => {
                    self.wait().await;
                }
                Held::Over(successor) => {
                    let Successor { head, lineage } = &*successor;
                    return Err(FollowError::EpochChanged { head: *head, lineage: lineage.clone() });
                }
                Held::Behind => match self.read_log().await {
                    Ok(Some(step)) => return Ok(step),
                    Ok(None) => (),
                    // Who lags is late, not wrong: the stream stays, and goes on when the store answers again.
                    Err(FollowError::Store(StoreError::Unavailable(problem))) => {
                        tracing::debug!(%problem, "a reader behind the hub waits for the store");
                        tokio::time::sleep(RETRY_WAIT).await;
                    }
                    Err(error) => return Err(error),
                },
                Held::Foreign => {
                    let mut moved = self.hub.watch();
                    let head = self.store.head().await?;
                    if head.epoch == self.position.epoch && head.position >= self.position.position {
                        // Another replica's cursor: the hub has not got there yet. It lives as long as it is held here.
                        let _ = moved.changed().await;
                        continue;
                    }
                    return Err(self.changed(head).await);
                }
            }
        }
    }

    /// Waits until the hub has something to look at behind the position, and passes over what it has before that.
    async fn wait(&mut self) {
        let after = self.position.position;
        std::future::poll_fn(|cx| self.place.poll(after, cx)).await;
        self.pass();
    }

    /// Says that the store's log is another one.
    async fn changed(&self, head: LogHead) -> FollowError {
        match Lineage::load(&*self.store).await {
            Ok(lineage) => FollowError::EpochChanged { head, lineage },
            Err(error) => error.into(),
        }
    }

    async fn read_log(&mut self) -> Result<Option<Step>, FollowError> {
        let page = self.store.segments(self.position.position, self.step_bytes / UNPACKED).await?;
        let head = page.head;
        if head.epoch != self.position.epoch {
            return Err(self.changed(head).await);
        }
        if head.oldest > self.position.position + 1 {
            return Err(FollowError::Expired { oldest: head.oldest, head });
        }
        let mut blocks = Vec::with_capacity(page.segments.len());
        // What the hub has not reached is left to it: it sees to it that the instruments are known first.
        let reached = self.hub.head().position;
        for segment in page.segments.iter().take_while(|segment| segment.last_seq() <= reached) {
            blocks.push(decode(segment, head.epoch)?);
        }
        let Some(last) = blocks.last() else {
            return Ok(None);
        };
        self.position.position = last.last_seq();
        Ok(Some(Step { blocks, from_log: true, lag_bytes: 0 }))
    }
}
