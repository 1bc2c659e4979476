//! Reading the log forward from a position: from the hub, or from the store where the hub does not reach back.
//!
//! One loop, no special case: behind the hub means read the store, at the head means wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Lineage;
use super::hub::{Head, Held, Hub, READ_BYTES, decode};
use crate::domain::{Block, Cursor, Epoch};
use crate::store::{LogHead, Store, StoreError};

/// Memory of blocks that one step takes from the hub at most, beyond the first block.
const STEP_BYTES: usize = 4 << 20;

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
    /// The position belongs to another log, or lies above the head.
    #[error("the position belongs to another log")]
    EpochChanged {
        /// The log's head.
        head: LogHead,
        /// The log that it forked from, and the last position that they share.
        fork: Option<(Epoch, u64)>,
    },
    /// The log goes on under another name, and the position is exact there too: follow anew from it.
    #[error("the log has a new epoch, which has the position too")]
    Moved {
        /// The position under its new name.
        to: Cursor,
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
}

/// Follows the log from a position.
#[derive(Debug)]
pub struct Follower {
    hub: Arc<Hub>,
    store: Arc<dyn Store>,
    head: watch::Receiver<Head>,
    position: Cursor,
}

impl Follower {
    /// Follows after a position, which need not be the end of a block.
    pub fn new(hub: Arc<Hub>, store: Arc<dyn Store>, after: Cursor) -> Follower {
        let head = hub.watch();
        Follower { hub, store, head, position: after }
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
        let Held::Blocks(blocks) = self.hub.read(self.position, STEP_BYTES) else {
            return None;
        };
        self.position.position = blocks.last()?.last_seq();
        Some(Step { blocks, from_log: false })
    }

    /// The next entries; waits at the head, and for a store that does not answer. A call that is dropped has returned
    /// nothing and lost nothing.
    pub async fn next(&mut self) -> Result<Step, FollowError> {
        loop {
            self.head.borrow_and_update();
            match self.hub.read(self.position, STEP_BYTES) {
                Held::Blocks(blocks) => {
                    self.position.position = blocks.last().expect("the hub returns at least one block").last_seq();
                    return Ok(Step { blocks, from_log: false });
                }
                Held::Nothing => {
                    // The hub keeps the sender, so the channel cannot close while it is held here.
                    let _ = self.head.changed().await;
                }
                Held::Over(successor) => return Err(self.lost(successor.head, &successor.lineage)),
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
                    let head = self.store.head().await?;
                    if head.epoch == self.position.epoch && head.position >= self.position.position {
                        // Another replica's cursor: the hub has not got there yet.
                        let _ = self.head.changed().await;
                        continue;
                    }
                    return Err(self.lost(head, &Lineage::load(&*self.store).await?));
                }
            }
        }
    }

    /// What a log with another name means for the position.
    fn lost(&self, head: LogHead, lineage: &Lineage) -> FollowError {
        match lineage.carry(self.position) {
            Some(to) => FollowError::Moved { to },
            None => FollowError::EpochChanged { head, fork: lineage.fork() },
        }
    }

    async fn read_log(&mut self) -> Result<Option<Step>, FollowError> {
        let page = self.store.segments(self.position.position, READ_BYTES).await?;
        let head = page.head;
        if head.epoch != self.position.epoch {
            return Err(self.lost(head, &Lineage::load(&*self.store).await?));
        }
        if head.oldest > self.position.position + 1 {
            return Err(FollowError::Expired { oldest: head.oldest, head });
        }
        let mut blocks = Vec::with_capacity(page.segments.len());
        for segment in &page.segments {
            blocks.push(decode(segment)?);
        }
        let Some(last) = blocks.last() else {
            return Ok(None);
        };
        self.position.position = last.last_seq();
        Ok(Some(Step { blocks, from_log: true }))
    }
}
