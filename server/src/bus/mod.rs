//! Floor 1: the hint that something was committed.
//!
//! A bus may lose, repeat or reorder; whoever listens heals from the store. It carries nothing before its commit.

mod local;

pub use local::LocalBus;

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::domain::{Block, Epoch};

/// A committed range of the log, with its entries unless they were too large for the bus.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// The log.
    pub epoch: Epoch,
    /// Position of the first entry.
    pub first_seq: u64,
    /// Position of the last entry.
    pub last_seq: u64,
    /// The entries, when the bus carries them.
    pub block: Option<Arc<Block>>,
}

/// Spreads announcements to the hubs of all replicas.
pub trait Bus: Send + Sync + std::fmt::Debug {
    /// Announces a commit. Never waits; may drop.
    fn announce(&self, announcement: Announcement);

    /// Announcements from now on. A receiver that lags loses the oldest.
    fn subscribe(&self) -> broadcast::Receiver<Announcement>;
}
