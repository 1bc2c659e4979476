//! Floor 2: this replica's picture of the log.
//!
//! The [`Hub`] holds the newest blocks, contiguous by position; whoever follows the log reads it and, where it lags,
//! the store. The [`View`] is the immutable picture that queries read: chunk headers and hot ticks at one position.
//! The [`builder`] makes the next view from the hub and the manifest; the [`compactor`] turns hot ticks into chunks.

pub mod builder;
pub mod chunks;
pub mod compactor;
pub mod follower;
pub mod hub;
mod merge;
pub mod registry;
pub mod view;

pub use chunks::Chunks;
pub use follower::{FollowError, Follower};
pub use hub::Hub;
pub use registry::Registry;
pub use view::{ChunkHeader, Holding, HotBlock, NewestTicks, View};

#[cfg(test)]
mod tests;
