//! What a subscription says.

use std::time::Duration;

use tapefeed_proto::v1 as proto;

use crate::time::duration_from_wire;
use crate::{Bar, Cursor, Error, Selector, SourceGap, SourceGapFilled, SourceStatus, Tick, UnixNanos};

/// One event of a subscription. Later versions add events: pass over those that you do not know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server grants the subscription. The first event of every connection, after [`Event::Reconnected`].
    Ack(SubscriptionAck),

    /// Ticks, in the order of the log. Inside a snapshot or a conflation round, each instrument at most once.
    Ticks {
        /// The ticks. Never empty.
        ticks: Vec<Tick>,
        /// The cursor after the last of them. `None` before the end of a snapshot.
        cursor: Option<Cursor>,
    },

    /// Bars that changed, by start, then by venue and symbol. In streams of bars only.
    Bars {
        /// The bars. Each takes the place of the one with its start, venue and symbol.
        bars: Vec<Bar>,
        /// The cursor after them. `None` before the end of a snapshot.
        cursor: Option<Cursor>,
    },

    /// Every bar of an interval that has ticks is final and has been delivered. In streams of bars only.
    IntervalComplete {
        /// The start of the interval, inclusive.
        start: UnixNanos,
        /// The end of the interval, exclusive.
        end: UnixNanos,
        /// The cursor after the mark.
        cursor: Option<Cursor>,
    },

    /// The heartbeat: everything up to the cursor has been delivered.
    Progress {
        /// The position up to which the stream is complete.
        log_seq: u64,
        /// The server's clock when the event was made.
        server_time: UnixNanos,
        /// The cursor at that position.
        cursor: Option<Cursor>,
    },

    /// A snapshot begins: the ticks up to its end are the latest of each instrument, outside the order of the log.
    SnapshotBegin {
        /// The position at which the snapshot was read.
        log_seq: u64,
        /// How many ticks it has.
        tick_count: u32,
    },

    /// The snapshot is complete; live begins at the next position.
    SnapshotEnd {
        /// The position at which the snapshot was read.
        log_seq: u64,
        /// The selectors with an exact symbol for which there is no tick.
        without_data: Vec<Selector>,
    },

    /// What was in the log when the stream began has been delivered; live begins.
    ReplayCompleted {
        /// The last position of the replayed part.
        log_seq: u64,
    },

    /// A feed lost data.
    SourceGap(SourceGap),

    /// A feed got lost data back.
    SourceGapFilled(SourceGapFilled),

    /// A feed went down or up.
    SourceStatus(SourceStatus),

    /// This stream misses positions of the log, and they cannot be re-read.
    StreamGap {
        /// The first position that is missing.
        from_log_seq: u64,
        /// The last position that is missing.
        to_log_seq: u64,
        /// Why they are missing.
        cause: StreamGapCause,
    },

    /// Catching up from the log began or ended, because this consumer was slower than the stream, or what it has yet to
    /// get is about to leave the replay window.
    SlowConsumer {
        /// Whether the stream is behind from now on.
        catching_up: bool,
        /// How many ticks of the log the stream is behind, at most.
        lag_ticks: u64,
        /// The age of the oldest entry not sent yet.
        lag: Duration,
        /// Whether the oldest entry not sent yet leaves the replay window soon. What has not come until then is lost to
        /// this stream, and a [`Event::StreamGap`] says so.
        expiring: bool,
    },

    /// The connection broke, or could not be made. The client tries again by itself.
    Disconnected {
        /// What happened.
        error: Error,
        /// How many attempts have failed since the last success, from 1.
        attempt: u32,
        /// How long the client waits before the next.
        retry_in: Duration,
    },

    /// The client is connected again and goes on where it was.
    Reconnected {
        /// How many attempts it took.
        attempts: u32,
        /// The cursor that the stream goes on after. `None`: none had been seen, so the stream starts as at first.
        resumed_after: Option<Cursor>,
    },
}

/// What the server grants.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionAck {
    /// The server's name for this stream, also in its log.
    pub stream_id: String,
    /// The name of the replica that serves the stream.
    pub server_name: String,
    /// The epoch of the log that the stream reads.
    pub epoch: u64,
    /// The newest position of the log at the start.
    pub head_log_seq: u64,
    /// The oldest position that can still be re-read.
    pub oldest_log_seq: u64,
    /// The longest silence between two messages.
    pub heartbeat_interval: Duration,
    /// How long the server gathers ticks into one message.
    pub flush_window: Duration,
    /// The kind of delivery.
    pub delivery: Delivery,
    /// The shortest time between two conflation rounds.
    pub min_interval: Duration,
    /// What became of each selector, in the order of the subscription.
    pub selector_results: Vec<SelectorResult>,
}

/// Whether every tick is sent, or only the newest of each instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Every tick.
    Lossless,
    /// Rounds with the newest tick of each instrument.
    Conflated,
}

/// What became of one selector.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SelectorResult {
    /// The selector.
    pub selector: Selector,
    /// How many instruments it matches at the start.
    pub matched_count: u32,
    /// Whether it is served.
    pub status: SelectorStatus,
}

/// Whether a selector is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SelectorStatus {
    /// It is served and matches at least one instrument.
    Matched,
    /// It is served and matches no instrument yet.
    Unknown,
    /// The caller may not read what it matches.
    NotPermitted,
    /// A limit of the server is reached; nothing of it is sent.
    Limit,
}

/// Why a stream misses positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamGapCause {
    /// Not told.
    Unknown,
    /// They left the replay window.
    Retention,
    /// A rule of the server or of the subscription forbids sending them.
    Policy,
}

impl StreamGapCause {
    /// `unknown`, `retention` or `policy`.
    pub fn as_str(self) -> &'static str {
        match self {
            StreamGapCause::Unknown => "unknown",
            StreamGapCause::Retention => "retention",
            StreamGapCause::Policy => "policy",
        }
    }

    pub(super) fn from_wire(cause: i32) -> StreamGapCause {
        match proto::StreamGapCause::try_from(cause) {
            Ok(proto::StreamGapCause::Retention) => StreamGapCause::Retention,
            Ok(proto::StreamGapCause::Policy) => StreamGapCause::Policy,
            Ok(proto::StreamGapCause::Unspecified) | Err(_) => StreamGapCause::Unknown,
        }
    }
}

impl SubscriptionAck {
    pub(super) fn from_wire(ack: proto::SubscriptionAck) -> SubscriptionAck {
        let delivery = match proto::Delivery::try_from(ack.delivery) {
            Ok(proto::Delivery::Conflated) => Delivery::Conflated,
            Ok(proto::Delivery::Lossless | proto::Delivery::Unspecified) | Err(_) => Delivery::Lossless,
        };
        let selector_results = ack.selector_results.into_iter();
        SubscriptionAck {
            stream_id: ack.stream_id,
            server_name: ack.server_name,
            epoch: ack.epoch,
            head_log_seq: ack.head_log_seq,
            oldest_log_seq: ack.oldest_log_seq,
            heartbeat_interval: duration_from_wire(ack.heartbeat_interval),
            flush_window: duration_from_wire(ack.flush_window),
            delivery,
            min_interval: duration_from_wire(ack.min_interval),
            selector_results: selector_results.map(SelectorResult::from_wire).collect(),
        }
    }
}

impl SelectorResult {
    fn from_wire(result: proto::SelectorResult) -> SelectorResult {
        let status = match proto::SelectorStatus::try_from(result.status) {
            Ok(proto::SelectorStatus::Matched) => SelectorStatus::Matched,
            Ok(proto::SelectorStatus::NotPermitted) => SelectorStatus::NotPermitted,
            Ok(proto::SelectorStatus::Limit) => SelectorStatus::Limit,
            Ok(proto::SelectorStatus::Unknown | proto::SelectorStatus::Unspecified) | Err(_) => SelectorStatus::Unknown,
        };
        SelectorResult {
            selector: Selector::from_wire(result.selector.unwrap_or_default()),
            matched_count: result.matched_count,
            status,
        }
    }
}
