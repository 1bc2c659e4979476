//! Where a stream begins, and what becomes of positions of other logs.

use super::{LiveError, LogFacts};
use crate::domain::{Cursor, UnixNanos};
use crate::store::{LogHead, Store, StoreError};
use crate::tape::Lineage;

/// What is known about a log, for those whose position is not in it.
fn facts(lineage: &Lineage, head: &LogHead) -> LogFacts {
    let at = |position| Cursor { epoch: head.epoch, position };
    LogFacts { epoch: head.epoch, fork: lineage.fork(), oldest: at(head.oldest - 1), newest: at(head.position) }
}

/// The position of a cursor in a log, or why it has none.
pub(super) fn resolve(lineage: &Lineage, head: &LogHead, cursor: Cursor) -> Result<Cursor, LiveError> {
    let carried = lineage.carry(cursor).filter(|carried| carried.position <= head.position);
    carried.ok_or_else(|| LiveError::EpochChanged(facts(lineage, head)))
}

/// Why a stream ends whose log became another one: it can go on in the new one, or it cannot.
pub(super) fn mid_stream(lineage: &Lineage, head: &LogHead, done: Cursor) -> LiveError {
    match resolve(lineage, head, done) {
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
