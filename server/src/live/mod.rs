//! Floor 3: the streams.
//!
//! A [`Session`] is one subscription: a position in the log, a [`Matcher`] and a clock. It follows the hub, and where
//! it lags the store; it never holds more than one step of blocks.

mod matcher;
mod session;

pub use matcher::{Matcher, Selector};
pub use session::{Event, Session};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::{Clock, Cursor, Epoch};
use crate::store::{LogHead, Store, StoreError};
use crate::tape::{FollowError, Follower, Registry, Tape};

/// Heartbeats that may be asked for.
pub const HEARTBEATS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// The heartbeat of a subscription that asks for none.
pub const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);

/// The longest flush window that may be asked for.
pub const MAX_FLUSH_WINDOW: Duration = Duration::from_millis(10);

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next commit.
    Live,
    /// After a position.
    After(Cursor),
}

/// A wish to follow ticks, lossless and in rows.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Which instruments; at least one selector.
    pub selectors: Vec<Selector>,
    /// From where.
    pub start: Start,
    /// Whether backfilled ticks are wanted.
    pub include_backfill: bool,
    /// How often progress is told, inside [`HEARTBEATS`].
    pub heartbeat: Duration,
    /// How long ticks may wait for more before they are sent; zero sends at once.
    pub flush_window: Duration,
}

/// Why a subscription cannot start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The position is older than the log reaches.
    #[error("the cursor is older than the replay window")]
    Expired {
        /// The cursor before the oldest entry that can be read.
        oldest: Cursor,
        /// The log's head.
        newest: Cursor,
    },
    /// The position is of another log, or lies above the head.
    #[error("the cursor belongs to another epoch")]
    EpochChanged {
        /// The current log.
        epoch: Epoch,
        /// The cursor before its oldest entry.
        oldest: Cursor,
        /// Its head.
        newest: Cursor,
        /// The log that it forked from, and the last position that they share.
        fork: Option<(Epoch, u64)>,
    },
    /// The log has a new epoch, in which the cursor is exact: subscribe again with it.
    #[error("the log has a new epoch")]
    Moved {
        /// Everything up to here was delivered.
        cursor: Cursor,
    },
    /// The log cannot be read now.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server stops; the cursor continues the subscription elsewhere or later.
    #[error("the server is shutting down")]
    ShuttingDown {
        /// Everything up to here was delivered.
        cursor: Cursor,
    },
}

impl LiveError {
    fn expired(oldest: u64, head: &LogHead) -> LiveError {
        let at = |position| Cursor { epoch: head.epoch, position };
        LiveError::Expired { oldest: at(oldest - 1), newest: at(head.position) }
    }

    fn epoch_changed(head: &LogHead, fork: Option<(Epoch, u64)>) -> LiveError {
        let at = |position| Cursor { epoch: head.epoch, position };
        LiveError::EpochChanged { epoch: head.epoch, oldest: at(head.oldest - 1), newest: at(head.position), fork }
    }
}

impl From<FollowError> for LiveError {
    fn from(error: FollowError) -> LiveError {
        match error {
            FollowError::Expired { oldest, head } => LiveError::expired(oldest, &head),
            FollowError::EpochChanged { head, fork } => LiveError::epoch_changed(&head, fork),
            FollowError::Moved { to } => LiveError::Moved { cursor: to },
            FollowError::Store(error) => LiveError::Store(error),
        }
    }
}

/// Where subscriptions come from.
#[derive(Clone, Debug)]
pub struct Live {
    tape: Tape,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    /// Cancelled when the server begins to stop: every session then ends with its cursor.
    draining: CancellationToken,
}

impl Live {
    /// Subscriptions to one epoch of the log.
    pub fn new(tape: Tape, store: Arc<dyn Store>, clock: Arc<dyn Clock>, draining: CancellationToken) -> Live {
        Live { tape, store, clock, draining }
    }

    /// The names behind the ids in events.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.tape.registry
    }

    /// Starts a subscription, or says why its position cannot be continued.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<Session, LiveError> {
        let head = self.store.head().await?;
        if head.epoch != self.tape.epoch {
            // Another replica knows already what this one learns in a moment; its cursors must not be refused.
            return Err(StoreError::Unavailable("this replica has not begun the log's new epoch yet".into()).into());
        }
        let after = match subscription.start {
            Start::Live => self.tape.hub.head().cursor(),
            Start::After(cursor) => {
                // An older epoch's cursor is good as long as nothing up to it was lost.
                let carried = self.tape.lineage.carry(cursor).filter(|cursor| cursor.epoch == head.epoch);
                let Some(cursor) = carried.filter(|cursor| cursor.position <= head.position) else {
                    return Err(LiveError::epoch_changed(&head, self.tape.lineage.fork()));
                };
                if cursor.position + 1 < head.oldest {
                    return Err(LiveError::expired(head.oldest, &head));
                }
                cursor
            }
        };
        let matcher = Matcher::new(subscription.selectors, self.tape.registry.clone());
        let ack = Event::Ack {
            cursor: after,
            head: head.position,
            oldest: head.oldest,
            heartbeat: subscription.heartbeat,
            flush_window: subscription.flush_window,
            matched: matcher.counts(),
        };
        Ok(Session {
            follower: Follower::new(self.tape.hub.clone(), self.store.clone(), after),
            matcher,
            clock: self.clock.clone(),
            draining: self.draining.clone(),
            include_backfill: subscription.include_backfill,
            heartbeat: subscription.heartbeat,
            flush_window: subscription.flush_window,
            ready: VecDeque::from([ack]),
            done: after,
            replay_end: matches!(subscription.start, Start::After(_)).then_some(head.position),
            catching_up: false,
            last_progress: tokio::time::Instant::now(),
        })
    }
}
