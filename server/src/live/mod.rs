//! Floor 3: the streams.
//!
//! A [`Session`] is one subscription: a position in the log, a [`Matcher`] and a clock. It follows the hub, and where
//! it lags the store; it never holds more than one step of blocks. `start` finds the position, `snapshot` reads what
//! comes before it, `round` merges what a conflated stream leaves out. Start reading at [`Live::subscribe`].

mod alarm;
pub mod bars;
mod delivery;
mod event;
mod matcher;
mod round;
mod session;
mod snapshot;
mod start;
#[cfg(test)]
pub(crate) mod tests;
mod wait;

pub use bars::{BarEvent, BarMessage, BarSession, BarSubscription, NamedBar};
pub use delivery::{SLOW_LAG_BYTES, SlowReader};
pub use event::{Ack, Event, Message, Picks, Run, Ticks};
pub use matcher::{Matcher, Outcome, Selector};
pub use session::Session;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::{Clock, Cursor, Epoch, InstrumentId, UnixNanos};
use crate::metrics::Metrics;
use crate::store::{LogHead, Store, StoreError};
use crate::tape::{BarReader, Follower, Hub, Lineage, NewestTicks, Registry, View};
use alarm::{Alarm, Draining, Flush};
use delivery::Delivery;
use snapshot::Snapshot;

/// Heartbeats that may be asked for.
pub const HEARTBEATS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);

/// The heartbeat of a subscription that asks for none.
pub const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(5);

/// The longest flush window that may be asked for.
pub const MAX_FLUSH_WINDOW: Duration = Duration::from_millis(10);

/// The longest time between two conflation rounds that may be asked for.
pub const MAX_MIN_INTERVAL: Duration = Duration::from_secs(60);

/// Instruments that the selectors of one stream may match together, each selector counted for itself. They bound the
/// memory of what a stream knows about instruments.
pub const MOST_INSTRUMENTS: u32 = 2_000_000;

/// Memory of blocks that one stream holds at most while its reader is busy, beyond one block.
const STEP_BYTES: usize = 1 << 20;

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next commit.
    Live,
    /// With the latest tick of each instrument.
    Snapshot,
    /// After a position.
    After(Cursor),
    /// With the first entry appended at or after a time.
    Since(UnixNanos),
}

/// What happens if the start is older than the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfUnavailable {
    /// The subscription is refused.
    Fail,
    /// It starts with the oldest entry, and says what is missing.
    FromOldest,
    /// It starts with a snapshot.
    Snapshot,
}

/// A wish to follow ticks.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Which instruments; at least one selector.
    pub selectors: Vec<Selector>,
    /// From where.
    pub start: Start,
    /// What happens if that is no longer in the log.
    pub if_unavailable: IfUnavailable,
    /// Whether backfilled ticks are wanted.
    pub include_backfill: bool,
    /// How often progress is told, inside [`HEARTBEATS`].
    pub heartbeat: Duration,
    /// How long ticks may wait for more before they are sent; zero sends at once.
    pub flush_window: Duration,
    /// The shortest time between two conflation rounds; `None` is a lossless stream.
    pub conflated: Option<Duration>,
    /// What happens to a lossless stream whose reader is too slow.
    pub slow_reader: SlowReader,
    /// Whether instruments are named before their first ticks.
    pub definitions: bool,
    /// Ticks of one event of a snapshot or a round at most, at least 1. Runs of a block are as long as they are.
    pub message_ticks: usize,
}

/// What is known about the current log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFacts {
    /// Its name.
    pub epoch: Epoch,
    /// The log that it continues, and the last position that both share.
    pub fork: Option<(Epoch, u64)>,
    /// The cursor before the oldest entry that can be read.
    pub oldest: Cursor,
    /// The head.
    pub newest: Cursor,
}

/// Why a subscription cannot start, or why it ended. [`Session::cursor`] says where to go on.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The start is older than the log reaches.
    #[error("the start is older than the replay window")]
    Expired {
        /// The cursor before the oldest entry that can be read.
        oldest: Cursor,
    },
    /// The position was lost by a fork, is of another log, or lies above the head.
    #[error("the position is not in this log")]
    EpochChanged(LogFacts),
    /// The log has another name since, and shares everything that this stream has delivered: come back.
    #[error("the log has another name now")]
    EpochRenewed,
    /// The reader is too slow, and asked to be disconnected then.
    #[error("the reader is too slow")]
    Slow {
        /// What it has been sent.
        cursor: Cursor,
    },
    /// The log cannot be read now.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server stops.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// One entry at an edge of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The entry is the last one behind it.
    pub cursor: Cursor,
    /// When the entry was appended.
    pub append_time: UnixNanos,
}

/// How far cursors reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayWindow {
    /// The log.
    pub epoch: Epoch,
    /// The log that it continues, and the last position that both share.
    pub fork: Option<(Epoch, u64)>,
    /// The oldest entry that can be read; `None` if none can.
    pub oldest: Option<Edge>,
    /// The newest entry; `None` in an empty log.
    pub newest: Option<Edge>,
}

/// Where subscriptions to one epoch of the log come from.
#[derive(Clone, Debug)]
pub struct Live {
    /// The newest blocks.
    pub hub: Arc<Hub>,
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The log's epochs.
    pub lineage: Arc<Lineage>,
    /// Names of instruments.
    pub registry: Arc<Registry>,
    /// What snapshots are read from.
    pub views: watch::Receiver<Arc<View>>,
    /// Who reads them.
    pub newest: Arc<dyn NewestTicks>,
    /// Who reads bars.
    pub bars: Arc<dyn BarReader>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Cancelled when the server begins to stop: every session then ends.
    pub draining: CancellationToken,
    /// Instruments that one stream may match; see [`MOST_INSTRUMENTS`].
    pub most_instruments: u32,
    /// What sessions count.
    pub metrics: Metrics,
}

/// When a stream's first heartbeat is due: streams that begin together would else have theirs together for ever. The
/// multiples of the golden ratio lie evenly between a half and the whole.
fn spread(heartbeat: Duration, stream: u64) -> Duration {
    let share = (stream.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u32;
    heartbeat - heartbeat / 2 * share / (1 << 16)
}

/// A start that was found in the log.
struct Found {
    /// What the acknowledgement carries.
    asked: Cursor,
    /// The stream goes on behind this: `asked`, unless that is no longer in the log.
    after: Cursor,
    /// Entries appended before this are passed over.
    not_before: UnixNanos,
    head: LogHead,
}

impl Live {
    /// Starts a subscription, or says why its position cannot be continued.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<Session, LiveError> {
        let found = match self.find(&subscription).await {
            Err(LiveError::Expired { .. }) if subscription.if_unavailable == IfUnavailable::Snapshot => None,
            found => found?,
        };
        let (mut matcher, outcomes) =
            Matcher::new(&subscription.selectors, self.registry.clone(), self.most_instruments);
        let (found, snapshot) = match found {
            Some(found) => (found, None),
            None => {
                let view = self.views.borrow().clone();
                let view = match self.newest.corrected(&view).await? {
                    Cow::Borrowed(_) => view.clone(),
                    Cow::Owned(corrected) => Arc::new(corrected),
                };
                let selectors = &subscription.selectors;
                let snapshot = Snapshot::new(view, self.newest.clone(), &mut matcher, selectors, &self.registry);
                let at = snapshot.view.cursor();
                let head = self.head().await?;
                (Found { asked: at, after: at, not_before: UnixNanos::MIN, head }, Some(snapshot))
            }
        };
        let Found { asked, after, not_before, head } = found;
        let ack = Event::Ack(Ack {
            epoch: after.epoch,
            head: head.position,
            oldest: head.oldest,
            heartbeat: subscription.heartbeat,
            flush_window: subscription.flush_window,
            min_interval: subscription.conflated,
            outcomes,
        });
        let acknowledged = snapshot.is_none().then_some(asked);
        let mut opening = VecDeque::from([Message { cursor: acknowledged, event: ack }]);
        if asked.position < after.position {
            let gap = Event::StreamGap { from: asked.position + 1, to: after.position };
            opening.push_back(Message { cursor: Some(after), event: gap });
        }
        let replays = matches!(subscription.start, Start::After(_) | Start::Since(_)) && snapshot.is_none();
        let now = Instant::now();
        let mark = self.metrics.live.enter(after.position, self.clock.now().nanos());
        let next_heartbeat = now + spread(subscription.heartbeat, mark.number());
        let delivery = match subscription.conflated {
            Some(min_interval) => Delivery::Conflated { min_interval, due: now, gathering: None, sending: None },
            None => Delivery::Lossless {
                blocks: VecDeque::new(),
                slow_reader: subscription.slow_reader,
                catching_up: false,
                settled: !replays,
            },
        };
        Ok(Session {
            follower: Follower::new(self.hub.clone(), self.store.clone(), after, STEP_BYTES),
            matcher,
            clock: self.clock.clone(),
            draining: Draining::new(&self.draining),
            include_backfill: subscription.include_backfill,
            feeds_bars: false,
            heartbeat: subscription.heartbeat,
            flush: subscription.conflated.is_none().then(|| Flush::new(subscription.flush_window)).flatten(),
            message_ticks: subscription.message_ticks,
            not_before,
            opening,
            defined: subscription.definitions.then_some(InstrumentId(0)),
            snapshot,
            delivery,
            warned: false,
            done: after,
            replay_end: replays.then_some(head.position),
            next_heartbeat,
            due_heartbeat: None,
            alarm: Alarm::default(),
            metrics: self.metrics.clone(),
            mark,
        })
    }

    /// Finds the start of a subscription in the log; `None` for a snapshot.
    async fn find(&self, subscription: &Subscription) -> Result<Option<Found>, LiveError> {
        let (asked, not_before, head, expired) = match subscription.start {
            Start::Snapshot => return Ok(None),
            Start::Live => {
                let head = self.head().await?;
                (self.hub.head().cursor(), UnixNanos::MIN, head, false)
            }
            Start::After(cursor) => {
                let head = self.head().await?;
                let asked = start::resolve(&self.lineage, &head, cursor)?;
                (asked, UnixNanos::MIN, head, asked.position + 1 < head.oldest)
            }
            Start::Since(time) => {
                let start::Since { head, after, expired } = start::since(&*self.store, time).await?;
                self.follows(&head)?;
                // Nobody knows which of the entries that are gone are of that time: at most all of them.
                let position = if expired { 0 } else { after };
                (Cursor { epoch: head.epoch, position }, time, head, expired)
            }
        };
        let oldest = Cursor { epoch: head.epoch, position: head.oldest - 1 };
        let after = match (expired, subscription.if_unavailable) {
            (false, _) => asked,
            (true, IfUnavailable::FromOldest) => oldest,
            (true, IfUnavailable::Fail | IfUnavailable::Snapshot) => return Err(LiveError::Expired { oldest }),
        };
        Ok(Some(Found { asked, after, not_before, head }))
    }

    /// Where the store's log ends.
    async fn head(&self) -> Result<LogHead, LiveError> {
        let head = self.store.head().await?;
        self.follows(&head)?;
        Ok(head)
    }

    /// Another replica may know already what this one learns in a moment: its cursors must not be refused meanwhile.
    fn follows(&self, head: &LogHead) -> Result<(), LiveError> {
        if head.epoch != self.hub.head().epoch {
            return Err(StoreError::Unavailable("this replica has not begun the log's new epoch yet".into()).into());
        }
        Ok(())
    }

    /// How far cursors reach.
    pub async fn window(&self) -> Result<ReplayWindow, LiveError> {
        let oldest = self.store.position_at(UnixNanos::MIN).await?;
        let head = self.head().await?;
        let edge = |position, append_time| Edge { cursor: Cursor { epoch: head.epoch, position }, append_time };
        Ok(ReplayWindow {
            epoch: head.epoch,
            fork: self.lineage.fork(),
            oldest: oldest.map(|oldest| edge(oldest.first_seq, oldest.append_time)),
            newest: (head.position > 0).then(|| edge(head.position, head.append_time)),
        })
    }
}
