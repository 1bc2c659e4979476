//! Live ticks: subscriptions that reconnect and resume by themselves.
//!
//! [`Client::subscribe`] gives a stream of [`Event`]s. A task of its own reads the network on a connection of its own
//! into a bounded queue, and after any cut subscribes again after the last cursor: nothing is lost, nothing comes twice.
//! Start reading at [`Subscription`]; the task is in `reader`.

mod bars;
mod event;
mod queue;
mod reader;
#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tapefeed_proto::v1 as proto;
use tokio::task::AbortHandle;

pub use bars::BarSubscription;
pub use event::{Delivery, Event, SelectorResult, SelectorStatus, StreamGapCause, SubscriptionAck};

use crate::client::live_service;
use crate::time::duration_to_wire;
use crate::{Client, Cursor, Error, Selector, UnixNanos};

/// How many ticks may wait for a slow consumer, unless the subscription says otherwise: some 10 MB.
const DEFAULT_QUEUE_TICKS: u32 = 65_536;

/// What to stream, from where, and how.
///
/// By default: everything, from now on, every tick.
///
/// ```no_run
/// # async fn example(client: tapefeed_client::Client) -> Result<(), tapefeed_client::Error> {
/// use tapefeed_client::{Event, Subscription};
///
/// let mut stream = client.subscribe(Subscription::new().venue("NASDAQ").symbol("AAPL"));
/// while let Some(event) = stream.next().await {
///     match event? {
///         Event::Ticks { ticks, cursor } => println!("{} ticks, resume after {cursor:?}", ticks.len()),
///         Event::StreamGap { from_log_seq, to_log_seq, .. } => println!("lost {from_log_seq} to {to_log_seq}"),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Subscription {
    venue: String,
    selectors: Vec<Selector>,
    start: Start,
    columns: bool,
    conflated: Option<Duration>,
    include_backfill: bool,
    heartbeat_interval: Option<Duration>,
    flush_window: Option<Duration>,
    disconnect_when_slow: bool,
    if_unavailable: IfUnavailable,
    queue_ticks: u32,
}

#[derive(Clone, Debug)]
enum Start {
    Live,
    Snapshot,
    After(Cursor),
    AfterPosition { epoch: u64, log_seq: u64 },
    From(UnixNanos),
}

/// What happens if the start is older than what the server can replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IfUnavailable {
    /// The stream ends with `CURSOR_EXPIRED`, whose metadata names the oldest cursor.
    #[default]
    Fail,
    /// The stream begins at the oldest position, after an [`Event::StreamGap`].
    FromOldest,
    /// The stream begins with a snapshot.
    Snapshot,
}

/// A running subscription: a stream of events that ends only with a fatal error. Dropping it ends the subscription.
///
/// A fatal error is one that repeating cannot cure, such as `CURSOR_EXPIRED` or `EPOCH_CHANGED`; it is the last item.
/// Everything else is cured by connecting again, told by [`Event::Disconnected`] and [`Event::Reconnected`].
///
/// # Slow consumers
///
/// Events wait in a queue of 65,536 ticks ([`Subscription::queue_ticks`]). While it is full, the task stops reading; the
/// network then holds up to 2 MiB more, and the server goes on from its log as soon as there is room, told by
/// [`Event::SlowConsumer`]. Nothing is lost within the server's replay window, memory stays bounded, and no other call
/// waits, because the connection belongs to this subscription alone.
#[derive(Debug)]
pub struct SubscriptionStream {
    queue: queue::Receiver,
    cursor: Option<Cursor>,
    duplicates: Arc<AtomicU64>,
    reader: AbortHandle,
}

/// How far cursors reach back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayWindow {
    /// The epoch of the log: it names a log that has lost nothing since it began.
    pub epoch: u64,
    /// The epoch that this one forked from, and the last position that both share.
    pub fork: Option<(u64, u64)>,
    /// The oldest entry that can be re-read. `None` in an empty log.
    pub oldest: Option<ReplayEdge>,
    /// The newest entry. `None` in an empty log.
    pub newest: Option<ReplayEdge>,
}

/// One edge of the replay window.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayEdge {
    /// The position of the entry.
    pub log_seq: u64,
    /// The time at which the entry was appended, by the store's clock.
    pub append_time: UnixNanos,
    /// The cursor to resume with so that this entry was the last one seen.
    pub cursor: Option<Cursor>,
}

// === impl Subscription ===

impl Default for Subscription {
    fn default() -> Subscription {
        Subscription::new()
    }
}

impl Subscription {
    /// Everything, from now on, every tick.
    pub fn new() -> Subscription {
        Subscription {
            venue: String::new(),
            selectors: Vec::new(),
            start: Start::Live,
            columns: false,
            conflated: None,
            include_backfill: false,
            heartbeat_interval: None,
            flush_window: None,
            disconnect_when_slow: false,
            if_unavailable: IfUnavailable::Fail,
            queue_ticks: DEFAULT_QUEUE_TICKS,
        }
    }

    /// Adds a symbol, exactly, or `*` for all. Without any, all symbols are streamed.
    pub fn symbol(mut self, symbol: impl Into<String>) -> Subscription {
        self.selectors.push(Selector::symbol(symbol));
        self
    }

    /// Only this venue, for all symbols added by [`Subscription::symbol`]. Default: all venues.
    pub fn venue(mut self, venue: impl Into<String>) -> Subscription {
        self.venue = venue.into();
        self
    }

    /// Adds a selector, which may have a venue of its own. At most 10,000.
    pub fn selector(mut self, selector: Selector) -> Subscription {
        self.selectors.push(selector);
        self
    }

    /// Starts after a cursor, exclusive: from a stream, an acknowledgement, or the `as_of` of an answer.
    pub fn after(mut self, cursor: Cursor) -> Subscription {
        self.start = Start::After(cursor);
        self
    }

    /// Starts after a position, exclusive: `epoch` from [`SubscriptionAck`], `log_seq` from any tick.
    pub fn after_position(mut self, epoch: u64, log_seq: u64) -> Subscription {
        self.start = Start::AfterPosition { epoch, log_seq };
        self
    }

    /// Starts at the first entry appended at or after this time, by the store's clock.
    pub fn from_time(mut self, time: UnixNanos) -> Subscription {
        self.start = Start::From(time);
        self
    }

    /// Starts with the latest tick of each matching instrument. After a cut inside the snapshot it is sent anew, from its
    /// [`Event::SnapshotBegin`] on.
    pub fn snapshot(mut self) -> Subscription {
        self.start = Start::Snapshot;
        self
    }

    /// Asks for ticks in columns: a third of the bytes, half the work; the events are the same. Default: rows.
    pub fn columns(mut self) -> Subscription {
        self.columns = true;
        self
    }

    /// Only the newest tick of each instrument, in rounds at least `min_interval` apart (zero: as fast as they are read).
    pub fn conflated(mut self, min_interval: Duration) -> Subscription {
        self.conflated = Some(min_interval);
        self
    }

    /// Also streams ticks that were imported or filled in.
    pub fn include_backfill(mut self) -> Subscription {
        self.include_backfill = true;
        self
    }

    /// The longest silence before a [`Event::Progress`]: 1 to 60 s, default 5 s. After three of them without any message
    /// the connection counts as dead.
    pub fn heartbeat_interval(mut self, interval: Duration) -> Subscription {
        self.heartbeat_interval = Some(interval);
        self
    }

    /// How long the server may gather ticks into one message: 0 to 10 ms, default 0. 1 ms saves most of the work.
    pub fn flush_window(mut self, window: Duration) -> Subscription {
        self.flush_window = Some(window);
        self
    }

    /// Asks the server to end the stream when it lags, instead of catching up from the log. It is then resumed. Not for
    /// conflated streams, which do not lag: the server refuses it there.
    pub fn disconnect_when_slow(mut self) -> Subscription {
        self.disconnect_when_slow = true;
        self
    }

    /// What happens if the start is older than what the server can replay. Default: the stream fails.
    pub fn if_unavailable(mut self, policy: IfUnavailable) -> Subscription {
        self.if_unavailable = policy;
        self
    }

    /// How many ticks may wait for a slow consumer. Default 65,536, at least 1.
    pub fn queue_ticks(mut self, ticks: u32) -> Subscription {
        self.queue_ticks = ticks.max(1);
        self
    }

    fn to_wire(&self) -> proto::SubscribeTicksRequest {
        use proto::subscribe_ticks_request::Start as WireStart;

        let mut selectors: Vec<proto::Selector> = self.selectors.iter().map(Selector::to_wire).collect();
        if selectors.is_empty() {
            selectors.push(Selector::all().to_wire());
        }
        for selector in &mut selectors {
            if selector.venue.is_empty() {
                selector.venue.clone_from(&self.venue);
            }
        }
        let start = match &self.start {
            Start::Live => WireStart::Live(proto::StartLive {}),
            Start::Snapshot => WireStart::Snapshot(proto::StartSnapshot {}),
            Start::After(cursor) => WireStart::Cursor(cursor.to_wire()),
            Start::AfterPosition { epoch, log_seq } => {
                WireStart::Position(proto::StartPosition { epoch: *epoch, log_seq: *log_seq })
            }
            Start::From(time) => WireStart::StartTime(time.to_wire()),
        };
        let encoding = match self.columns {
            true => proto::Encoding::Columns,
            false => proto::Encoding::Rows,
        };
        let delivery = match self.conflated {
            Some(_) => proto::Delivery::Conflated,
            None => proto::Delivery::Lossless,
        };
        let slow_reader = match self.disconnect_when_slow {
            true => proto::SlowReaderPolicy::Disconnect,
            false => proto::SlowReaderPolicy::Unspecified,
        };
        proto::SubscribeTicksRequest {
            selectors,
            start: Some(start),
            encoding: encoding.into(),
            delivery: delivery.into(),
            min_interval: self.conflated.map(duration_to_wire),
            include_backfill: self.include_backfill,
            heartbeat_interval: self.heartbeat_interval.map(duration_to_wire),
            flush_window: self.flush_window.map(duration_to_wire),
            slow_reader: slow_reader.into(),
            if_unavailable: self.if_unavailable.to_wire(),
        }
    }
}

// === impl IfUnavailable ===

impl IfUnavailable {
    fn to_wire(self) -> i32 {
        let policy = match self {
            IfUnavailable::Fail => proto::UnavailablePolicy::Fail,
            IfUnavailable::FromOldest => proto::UnavailablePolicy::FromOldest,
            IfUnavailable::Snapshot => proto::UnavailablePolicy::Snapshot,
        };
        policy.into()
    }
}

// === impl SubscriptionStream ===

impl SubscriptionStream {
    /// The next event, or `None` after a fatal error. Safe to cancel.
    pub async fn next(&mut self) -> Option<Result<Event, Error>> {
        StreamExt::next(self).await
    }

    /// The cursor after the last event that was taken: store it to go on after a restart of this program. `None` until
    /// the server has told one.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// How many entries were dropped because they had been delivered before. The server's promises make this 0.
    pub fn duplicates_dropped(&self) -> u64 {
        self.duplicates.load(Ordering::Relaxed)
    }
}

impl Stream for SubscriptionStream {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(delivery) = std::task::ready!(self.queue.poll(context)) else {
            return Poll::Ready(None);
        };
        if delivery.cursor.is_some() {
            self.cursor = delivery.cursor;
        }
        Poll::Ready(Some(delivery.event))
    }
}

impl Drop for SubscriptionStream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Client {
    /// Subscribes to ticks. The stream connects in the background; a server that is not there is tried again for ever,
    /// told by [`Event::Disconnected`]. Must be called inside a tokio runtime.
    pub fn subscribe(&self, subscription: Subscription) -> SubscriptionStream {
        self.stream(reader::Request::Ticks(subscription.to_wire()), subscription.queue_ticks)
    }

    fn stream(&self, request: reader::Request, queue_ticks: u32) -> SubscriptionStream {
        let (sender, queue) = queue::bounded(queue_ticks);
        let duplicates = Arc::new(AtomicU64::new(0));
        let reader = reader::Reader::new(self.clone(), request, sender, duplicates.clone());
        SubscriptionStream { queue, cursor: None, duplicates, reader: tokio::spawn(reader.run()).abort_handle() }
    }

    /// Returns how far cursors reach back.
    ///
    /// # Errors
    ///
    /// Only failures to reach the server.
    pub async fn replay_window(&self) -> Result<ReplayWindow, Error> {
        let answer = self
            .call(proto::GetReplayWindowRequest {}, |channel, request| async move {
                live_service(channel).get_replay_window(request).await
            })
            .await?;
        Ok(ReplayWindow {
            epoch: answer.epoch,
            fork: answer.parent_epoch.zip(answer.fork_log_seq),
            oldest: ReplayEdge::from_wire(answer.oldest)?,
            newest: ReplayEdge::from_wire(answer.newest)?,
        })
    }
}

impl ReplayEdge {
    fn from_wire(edge: Option<proto::ReplayEdge>) -> Result<Option<ReplayEdge>, Error> {
        let Some(edge) = edge else { return Ok(None) };
        Ok(Some(ReplayEdge {
            log_seq: edge.log_seq,
            append_time: UnixNanos::from_wire(edge.append_time, "append_time")?,
            cursor: Cursor::from_bytes(edge.cursor),
        }))
    }
}
