//! How a stream is delivered: every tick, or rounds; and what it holds on the way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::round::{Round, Sending};
use crate::domain::Block;

/// A reader that asked to be disconnected is slow when the blocks between it and the head take more memory than this.
pub const SLOW_LAG_BYTES: u64 = 16 << 20;

/// What happens to a lossless stream whose reader is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowReader {
    /// It goes on from the log and is told so.
    CatchUp,
    /// It ends.
    Disconnect,
}

/// How entries become messages.
#[derive(Debug)]
pub(super) enum Delivery {
    /// Every tick.
    Lossless {
        /// Blocks that are not sent yet, in order.
        blocks: VecDeque<Arc<Block>>,
        slow_reader: SlowReader,
        /// Whether the reader was told that it lags.
        catching_up: bool,
        /// Whether the stream has left its replay behind and got what the hub had: only then a lag is the reader's.
        settled: bool,
    },
    /// Rounds.
    Conflated {
        min_interval: Duration,
        /// When the next round may begin.
        due: Instant,
        /// The round that is gathered, and the position that it must reach.
        gathering: Option<(Round, u64)>,
        /// The round that is sent.
        sending: Option<Box<Sending>>,
    },
}
