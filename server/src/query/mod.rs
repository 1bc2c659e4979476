//! Floor 3: answers about stored ticks.
//!
//! Every answer is a function of one [`View`], of the bytes of chunks, and of a position at or before the view's: a
//! page that was pinned earlier is answered from a later view by leaving out what came after its position. The
//! exception is [`published`]: what venues publish has no position. Nothing here knows protobuf, writes, or holds a
//! transaction.
//!
//! Start with [`Query`]. `corrected` is where corrections are met, once, before anything else; [`scan`] reads ticks in
//! order; [`totals`] adds up what needs no order; [`integral`] is the time-weighted sum. One file for each operation
//! stands above them.

pub mod average;
pub mod bars;
pub mod cache;
pub mod instruments;
pub mod latest;
pub mod moving;
pub mod page;
pub mod published;
pub mod read;
pub mod scan;
pub mod statistics;
pub mod subject;
pub mod ticks;

mod ahead;
mod corrected;
mod fetch;
mod integral;
mod keys;
mod lane;
mod totals;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::{Clock, Cursor, Epoch, InstrumentId};
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};
use crate::tape::{Lineage, Registry, View};

pub use average::{Average, AverageError, AverageMethod, AverageRequest};
pub use bars::{BarPage, BarsError, BarsRequest};
pub use cache::{ChunkCache, ChunkError, Held};
pub use instruments::{InstrumentError, InstrumentFacts, InstrumentPage, InstrumentsError, InstrumentsRequest};
pub use keys::Key;
pub use latest::{Latest, LatestAnswer, LatestError};
pub use moving::{MovingError, MovingMethod, MovingPage, MovingPoint, MovingRequest};
pub use page::PageTokenInvalid;
pub use published::{PublishedBarPage, PublishedBarsError, PublishedBarsRequest};
pub use read::{Bookmark, ReadRequest, Reading};
pub use scan::{Extent, HotStretch, Order, Scan, Stretch};
pub use statistics::{PriceStatistics, StatisticsError, StatisticsRequest};
pub use subject::{InstrumentUnknown, Selector, Span, Subject};
pub use ticks::{TickPage, TicksError, TicksRequest};

/// Bytes of chunks that a server keeps unless told otherwise: about 250 full chunks decoded, and 4,000 as stored.
pub const CHUNK_CACHE_BYTES: u64 = 128 << 20;

/// How often one call plans again because a chunk went away under it. Chunks outlive the views that name them by ten
/// minutes, so a second time already means that this replica lags far behind.
const MOST_REPLANS: u32 = 3;

/// How long a call waits for the view in which a chunk that went away is replaced.
const REPLAN_WAIT: Duration = Duration::from_secs(2);

/// Why no view can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The cursor belongs to another log than the one this server follows.
    #[error("the cursor belongs to another log than this server's, which is {}", .current.epoch)]
    EpochChanged {
        /// This server's log and the position of its view.
        current: Cursor,
        /// The log that it forked from, and the last position that they share.
        fork: Option<(Epoch, u64)>,
    },
    /// No more views come: the server stops, or its log is another one now.
    #[error("the server stops, or begins another epoch")]
    Stopping,
}

/// Answers queries from the newest view.
#[derive(Debug)]
pub struct Query {
    views: watch::Receiver<Arc<View>>,
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    chunks: ChunkCache,
    clock: Arc<dyn Clock>,
    /// The epochs before this one, where there can be any.
    lineage: Option<Arc<Lineage>>,
}

impl Query {
    /// Answers from the views of `views`, reading chunks from `store` through a cache of `cache_bytes`.
    pub fn new(
        views: watch::Receiver<Arc<View>>,
        registry: Arc<Registry>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        cache_bytes: u64,
        metrics: Metrics,
    ) -> Query {
        let chunks = ChunkCache::new(store.clone(), cache_bytes, metrics);
        Query { views, registry, store, chunks, clock, lineage: None }
    }

    /// Takes cursors of these epochs too, as far as nothing up to them was lost.
    pub fn descending(self, lineage: Arc<Lineage>) -> Query {
        Query { lineage: Some(lineage), ..self }
    }

    /// The chunks at hand.
    pub fn chunks(&self) -> &ChunkCache {
        &self.chunks
    }

    /// The names behind the ids in answers.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The newest view, once it has reached `min_cursor`. Waits without end: the caller's deadline bounds it.
    pub async fn view(&self, min_cursor: Option<Cursor>) -> Result<Arc<View>, ViewError> {
        let Some(cursor) = min_cursor else {
            return Ok(self.views.borrow().clone());
        };
        self.view_at(cursor).await
    }

    #[tracing::instrument(level = "debug", name = "wait for view", skip_all, fields(tapefeed.log_seq = cursor.position))]
    async fn view_at(&self, mut cursor: Cursor) -> Result<Arc<View>, ViewError> {
        let mut views = self.views.clone();
        loop {
            let view = views.borrow_and_update().clone();
            if view.epoch() != cursor.epoch {
                let lineage = self.lineage.as_deref();
                let Some(carried) = lineage.and_then(|lineage| lineage.carry(cursor)) else {
                    if lineage.is_some() && !matches!(self.store.head().await, Ok(head) if head.epoch == view.epoch()) {
                        // Another replica may know already what this one learns in a moment.
                        return Err(ViewError::Stopping);
                    }
                    let fork = lineage.and_then(Lineage::fork);
                    return Err(ViewError::EpochChanged { current: view.cursor(), fork });
                };
                cursor = carried;
            }
            if view.position() >= cursor.position {
                return Ok(view);
            }
            views.changed().await.map_err(|_| ViewError::Stopping)?;
        }
    }

    /// The ids of a subject's instruments, at least one. What this replica does not know may have been registered by
    /// another since: the store is asked once.
    async fn instruments<E>(&self, subject: &Subject) -> Result<Vec<InstrumentId>, E>
    where
        E: From<InstrumentUnknown> + From<StoreError>,
    {
        let known = subject.instruments(&self.registry);
        if !known.is_empty() {
            return Ok(known);
        }
        self.registry.refresh().await?;
        let known = subject.instruments(&self.registry);
        if known.is_empty() {
            return Err(InstrumentUnknown(subject.clone()).into());
        }
        Ok(known)
    }

    /// A newer view to plan again on, after reading chunks of `view` failed.
    async fn replan(&self, view: &View, error: ChunkError, replans: &mut u32) -> Result<Arc<View>, StoreError> {
        let id = match error {
            ChunkError::Store(error) => return Err(error),
            ChunkError::Gone(id) => id,
        };
        *replans += 1;
        let mut views = self.views.clone();
        let newer = tokio::time::timeout(
            REPLAN_WAIT,
            views
                .wait_for(|newer| newer.epoch() != view.epoch() || newer.manifest_version() != view.manifest_version()),
        );
        match newer.await {
            Ok(Ok(newer)) if newer.epoch() != view.epoch() => Err(StoreError::EpochChanged(newer.epoch())),
            Ok(Ok(newer)) if *replans <= MOST_REPLANS => Ok(newer.clone()),
            _ => Err(StoreError::Unavailable(format!("chunk {} is gone and no view replaces it", id.0))),
        }
    }
}
