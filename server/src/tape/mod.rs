//! Floor 2: this replica's picture of the log.
//!
//! The [`Hub`] holds the newest blocks, contiguous by position; whoever follows the log reads it and, where it lags,
//! the store. The [`View`] is the immutable picture that queries read: chunk headers and hot ticks at one position.
//! The [`feeder`] fills the hub from the bus and the store; the [`builder`] makes the next view from the hub and the
//! manifest; the [`compactor`] turns hot ticks into chunks; the [`recorder`] shows final bars to SQL. All of it belongs to one epoch, as a [`Tape`]: when the log
//! goes on as another one, a replica makes another tape and drops this one as a whole.

pub mod bars;
pub mod builder;
pub mod chunks;
pub mod compactor;
pub mod corrections;
mod current;
mod cut;
pub mod feeder;
pub mod follower;
pub mod hub;
mod late;
pub mod latest;
pub mod lineage;
mod merge;
mod notice;
pub mod recorder;
pub mod registry;
mod settle;
mod trail;
pub mod venues;
pub mod view;
mod waiting;

use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::Epoch;

pub use bars::{BarReader, Finish};
pub use chunks::{Chunks, HEADER_CACHE_BYTES, LEAST_HEADER_CACHE_BYTES, Shelf};
pub use corrections::{CorrectionCounts, Corrections, Patch};
pub use current::Current;
pub use follower::{FollowError, Follower};
pub use hub::Hub;
pub use lineage::Lineage;
pub use registry::Registry;
pub use venues::{VenueFacts, Venues, VenuesCorrupt};
pub use view::{ChunkHeader, Holding, HotBlock, NewestTicks, View};

/// What a replica knows of one epoch of the log.
#[derive(Clone, Debug)]
pub struct Tape {
    /// The log.
    pub epoch: Epoch,
    /// The epochs before it.
    pub lineage: Arc<Lineage>,
    /// Instruments by name and number.
    pub registry: Arc<Registry>,
    /// The newest blocks.
    pub hub: Arc<Hub>,
    /// What the views unpack.
    pub shelf: Arc<Shelf>,
    /// The views, newest last.
    pub views: watch::Receiver<Arc<View>>,
}

#[cfg(test)]
mod tests;
