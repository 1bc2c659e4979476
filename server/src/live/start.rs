//! Where a stream begins, and what becomes of positions of other logs.

use super::{LiveError, LogFacts};
use crate::domain::{Cursor, Epoch, UnixNanos};
use crate::store::{EpochStart, LogHead, Store, StoreError};

/// Where the current log has a position of any log, if it shares that position with it.
///
/// A log shares with its parent what lies at or below its fork; with its grandparent what lies at or below both forks.
/// `epochs` has the newest first.
pub(super) fn shared(epochs: &[EpochStart], head: &LogHead, cursor: Cursor) -> Option<Cursor> {
    let mut epoch = head.epoch;
    let mut limit = head.position;
    loop {
        if cursor.epoch == epoch {
            return (cursor.position <= limit).then_some(Cursor { epoch: head.epoch, position: cursor.position });
        }
        let start = epochs.iter().find(|start| start.epoch == epoch)?;
        epoch = start.parent?;
        limit = limit.min(start.fork);
    }
}

/// What is known about the current log, for those whose position is not in it.
pub(super) fn facts(epochs: &[EpochStart], head: &LogHead) -> LogFacts {
    let at = |position| Cursor { epoch: head.epoch, position };
    LogFacts {
        epoch: head.epoch,
        fork: fork(epochs, head.epoch),
        oldest: at(head.oldest - 1),
        newest: at(head.position),
    }
}

/// The parent of a log, and the last position that it shares with it.
pub(super) fn fork(epochs: &[EpochStart], epoch: Epoch) -> Option<(Epoch, u64)> {
    let start = epochs.iter().find(|start| start.epoch == epoch)?;
    start.parent.map(|parent| (parent, start.fork))
}

/// The position of a cursor in the current log, or why it has none.
pub(super) async fn resolve(store: &dyn Store, head: &LogHead, cursor: Cursor) -> Result<Cursor, LiveError> {
    if cursor.epoch == head.epoch && cursor.position <= head.position {
        return Ok(cursor);
    }
    let epochs = store.epochs().await?;
    shared(&epochs, head, cursor).ok_or_else(|| LiveError::EpochChanged(facts(&epochs, head)))
}

/// Why a stream ends whose log became another one: it can go on in the new one, or it cannot.
pub(super) async fn mid_stream(store: &dyn Store, head: &LogHead, done: Cursor) -> LiveError {
    match resolve(store, head, done).await {
        Ok(_) => LiveError::EpochRenewed,
        Err(error) => error,
    }
}

/// Where a time lies in the log.
pub(super) struct Since {
    /// The log's head, read after the search.
    pub(super) head: LogHead,
    /// The last position before the first entry that is appended at or after the time.
    pub(super) after: u64,
    /// Whether older entries of that time may have left the log.
    pub(super) expired: bool,
}

/// Finds the first entry appended at or after a time.
pub(super) async fn since(store: &dyn Store, time: UnixNanos) -> Result<Since, StoreError> {
    loop {
        let edge = store.position_at(time).await?;
        let head = store.head().await?;
        let Some(edge) = edge else {
            // Everything is older: what comes later is looked at by its own time. A log that has lost its newest entry
            // of that time to retention does not know better.
            let expired = head.oldest > head.position && head.position > 0 && time <= head.append_time;
            return Ok(Since { after: head.position, expired, head });
        };
        if edge.first_seq < head.oldest {
            // It left the log between the two readings.
            continue;
        }
        let expired = edge.first_seq == head.oldest && head.oldest > 1 && time < edge.append_time;
        return Ok(Since { after: edge.first_seq - 1, expired, head });
    }
}
