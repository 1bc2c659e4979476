//! Floor 1: the hint that something was committed.
//!
//! A bus may lose, repeat or reorder; whoever listens heals from the store. It carries nothing before its commit.

mod local;
pub mod redis;

pub use self::redis::{RedisBus, RedisUrl, RedisUrlInvalid};
pub use local::LocalBus;

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

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
    /// The block's segment as stored, so that a hub can check its link to what came before. A block without them is
    /// read from the store again.
    pub bytes: Option<Bytes>,
}

/// A version that the set of chunks has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManifestNews {
    /// The log.
    pub epoch: Epoch,
    /// The version.
    pub version: u64,
}

/// How a bus is, for health checks and measurements.
#[derive(Clone, Debug)]
pub struct BusState {
    /// What kind of bus: `local` or `redis`.
    pub kind: &'static str,
    /// Why it brings nothing from other replicas now; never a secret. `None` while it works.
    pub problem: Option<String>,
    /// Since when it has worked, or not.
    pub since: Instant,
    /// Announcements that were not passed on, because the bus was down or slower than the commits.
    pub dropped: u64,
    /// Messages that were no announcements.
    pub malformed: u64,
}

/// Spreads announcements to the hubs of all replicas.
pub trait Bus: Send + Sync + std::fmt::Debug {
    /// Announces a commit. Never waits; may drop.
    fn announce(&self, announcement: Announcement);

    /// Announcements from now on. A receiver that lags loses the oldest.
    fn subscribe(&self) -> broadcast::Receiver<Announcement>;

    /// Announces a commit of the manifest. Never waits; may drop.
    fn announce_manifest(&self, news: ManifestNews);

    /// The newest commit of the manifest that the bus has heard of.
    fn manifests(&self) -> watch::Receiver<Option<ManifestNews>>;

    /// Tells which log is followed from now on, so that the announcements of another one are not carried.
    fn follow(&self, _epoch: Epoch) {}

    /// Somebody has read commits from the store that the bus did not bring: it may look whether its connection lives.
    fn doubt(&self) {}

    /// How it is.
    fn state(&self) -> BusState;
}
