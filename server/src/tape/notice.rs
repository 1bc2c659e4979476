//! Notice: before the window of the log moves past a stream, the stream is told.

use std::sync::Arc;
use std::time::Duration;

use super::Hub;
use super::compactor::Policy;
use crate::domain::UnixNanos;
use crate::store::{Store, StoreError};

/// Streams are told that what they have yet to read leaves the log when this share of its time, or of its bytes, is left.
const SHARE: u32 = 10;

/// How often it is looked at what leaves the log soon, at most.
const INTERVAL: Duration = Duration::from_secs(5);

/// Tells a hub what leaves the log soon.
#[derive(Debug)]
pub(super) struct Notice {
    readers: Arc<Hub>,
    /// When it is looked at next.
    due: UnixNanos,
}

impl Notice {
    /// For the readers of a hub.
    pub(super) fn new(readers: Arc<Hub>) -> Notice {
        Notice { readers, due: UnixNanos::MIN }
    }

    /// Looks, if it is time.
    pub(super) async fn give(&mut self, store: &dyn Store, policy: &Policy, now: UnixNanos) -> Result<(), StoreError> {
        if now < self.due {
            return Ok(());
        }
        let Policy { sweep_interval, log_retention, log_retention_bytes, .. } = *policy;
        self.due = now.saturating_add(INTERVAL.min(sweep_interval / 4));
        let kept = now.saturating_sub(log_retention - log_retention / SHARE);
        let young = store.position_at(kept).await?;
        let head = store.head().await?;
        let old = young.map_or(head.position, |edge| edge.first_seq - 1);
        let room = log_retention_bytes - log_retention_bytes / u64::from(SHARE);
        let entries = u128::from((head.position + 1).saturating_sub(head.oldest));
        let over = u128::from(head.log_bytes.saturating_sub(room));
        // By the mean size of an entry: which of them are large is not worth a look at all segments.
        let large = u128::from(head.oldest - 1) + entries * over / u128::from(head.log_bytes.max(1));
        self.readers.expires(old.max(large as u64));
        Ok(())
    }
}
