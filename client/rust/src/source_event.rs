//! What feeds say about themselves: lost data, data that came back, and whether they deliver at all.
//!
//! These stand in the log between ticks, are streamed and replayed like ticks, and are published like ticks.

use tapefeed_proto::v1 as proto;

use crate::{Error, UnixNanos};

/// A feed lost data: what is missing, and whether it can come back.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SourceGap {
    /// The name of the feed. Required when publishing: 1 to 64 bytes of `A-Z a-z 0-9 _ -`.
    pub source: String,
    /// The venue that the gap is on. Required when publishing.
    pub venue: String,
    /// The symbols that the gap is on. Empty: all symbols of the venue.
    pub symbols: Vec<String>,
    /// The start of the time without data, inclusive. `None` if not known.
    pub start_time: Option<UnixNanos>,
    /// The end of the time without data, exclusive. `None` if not known, or not over.
    pub end_time: Option<UnixNanos>,
    /// The first number of the source's own sequence that is missing.
    pub first_source_seq: Option<u64>,
    /// The last number of the source's own sequence that is missing.
    pub last_source_seq: Option<u64>,
    /// Why data was lost.
    pub cause: SourceGapCause,
    /// Whether the source can deliver the data later.
    pub recoverable: bool,
    /// A sentence for people, at most 256 bytes.
    pub detail: String,
    /// The position of this entry in its epoch's log. Ignored when publishing.
    pub log_seq: u64,
}

/// A feed got back what an earlier [`SourceGap`] told as lost.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SourceGapFilled {
    /// The name of the feed. Required when publishing.
    pub source: String,
    /// The venue that the gap was on. Required when publishing.
    pub venue: String,
    /// The symbols that were filled. Empty: all symbols of the gap.
    pub symbols: Vec<String>,
    /// The start of the filled time, inclusive. `None`: that of the gap.
    pub start_time: Option<UnixNanos>,
    /// The end of the filled time, exclusive. `None`: that of the gap.
    pub end_time: Option<UnixNanos>,
    /// The first number of the source's own sequence that was filled.
    pub first_source_seq: Option<u64>,
    /// The last number of the source's own sequence that was filled.
    pub last_source_seq: Option<u64>,
    /// The position of the [`SourceGap`] that is filled, if known.
    pub gap_log_seq: Option<u64>,
    /// The position of this entry in its epoch's log. Ignored when publishing.
    pub log_seq: u64,
}

/// A feed went down, or came up again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// The name of the feed. Required when publishing.
    pub source: String,
    /// The venue that the feed delivers. Required when publishing.
    pub venue: String,
    /// The symbols that the status is about. Empty: all symbols of the venue.
    pub symbols: Vec<String>,
    /// Whether the feed delivers now. If not, silence says nothing about the market.
    pub up: bool,
    /// The time of the change by the source's clock. `None` when publishing: the server stamps it.
    pub change_time: Option<UnixNanos>,
    /// A sentence for people, at most 256 bytes.
    pub detail: String,
    /// The position of this entry in its epoch's log. Ignored when publishing.
    pub log_seq: u64,
}

/// Why a feed lost data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SourceGapCause {
    /// Not known.
    #[default]
    Unknown,
    /// The connection to the source was cut.
    Disconnected,
    /// The source's own numbers have a hole.
    SequenceHole,
    /// The feed could not keep up and dropped data.
    Overload,
    /// The source announced that it lost data itself.
    Upstream,
}

/// A venue is complete up to a time: it ends bars where no tick does, because the venue is quiet or closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The venue.
    pub venue: String,
    /// No tick with an earlier event time is expected any more.
    pub complete_time: UnixNanos,
}

/// What a source says beside ticks, to publish it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// The source lost data.
    Gap(SourceGap),
    /// The source got lost data back.
    GapFilled(SourceGapFilled),
    /// The source went down or up.
    Status(SourceStatus),
    /// A venue is complete up to a time.
    Watermark(Watermark),
}

impl SourceGap {
    pub(crate) fn from_wire(gap: proto::SourceGap) -> Result<SourceGap, Error> {
        let proto::SourceGap {
            source,
            venue,
            symbols,
            start_time,
            end_time,
            first_source_seq,
            last_source_seq,
            cause,
            recoverable,
            detail,
            log_seq,
        } = gap;
        Ok(SourceGap {
            source,
            venue,
            symbols,
            start_time: UnixNanos::from_wire_optional(start_time, "source_gap.start_time")?,
            end_time: UnixNanos::from_wire_optional(end_time, "source_gap.end_time")?,
            first_source_seq,
            last_source_seq,
            cause: SourceGapCause::from_wire(cause),
            recoverable,
            detail,
            log_seq,
        })
    }

    pub(crate) fn to_wire(&self) -> proto::SourceGap {
        proto::SourceGap {
            source: self.source.clone(),
            venue: self.venue.clone(),
            symbols: self.symbols.clone(),
            start_time: self.start_time.map(UnixNanos::to_wire),
            end_time: self.end_time.map(UnixNanos::to_wire),
            first_source_seq: self.first_source_seq,
            last_source_seq: self.last_source_seq,
            cause: self.cause.to_wire(),
            recoverable: self.recoverable,
            detail: self.detail.clone(),
            log_seq: 0,
        }
    }
}

impl SourceGapFilled {
    pub(crate) fn from_wire(filled: proto::SourceGapFilled) -> Result<SourceGapFilled, Error> {
        let proto::SourceGapFilled {
            source,
            venue,
            symbols,
            start_time,
            end_time,
            first_source_seq,
            last_source_seq,
            gap_log_seq,
            log_seq,
        } = filled;
        Ok(SourceGapFilled {
            source,
            venue,
            symbols,
            start_time: UnixNanos::from_wire_optional(start_time, "source_gap_filled.start_time")?,
            end_time: UnixNanos::from_wire_optional(end_time, "source_gap_filled.end_time")?,
            first_source_seq,
            last_source_seq,
            gap_log_seq,
            log_seq,
        })
    }

    pub(crate) fn to_wire(&self) -> proto::SourceGapFilled {
        proto::SourceGapFilled {
            source: self.source.clone(),
            venue: self.venue.clone(),
            symbols: self.symbols.clone(),
            start_time: self.start_time.map(UnixNanos::to_wire),
            end_time: self.end_time.map(UnixNanos::to_wire),
            first_source_seq: self.first_source_seq,
            last_source_seq: self.last_source_seq,
            gap_log_seq: self.gap_log_seq,
            log_seq: 0,
        }
    }
}

impl SourceStatus {
    pub(crate) fn from_wire(status: proto::SourceStatus) -> Result<SourceStatus, Error> {
        let proto::SourceStatus { source, venue, symbols, state, change_time, detail, log_seq } = status;
        Ok(SourceStatus {
            source,
            venue,
            symbols,
            up: proto::SourceState::try_from(state) == Ok(proto::SourceState::Up),
            change_time: UnixNanos::from_wire_optional(change_time, "source_status.change_time")?,
            detail,
            log_seq,
        })
    }

    pub(crate) fn to_wire(&self) -> proto::SourceStatus {
        let state = match self.up {
            true => proto::SourceState::Up,
            false => proto::SourceState::Down,
        };
        proto::SourceStatus {
            source: self.source.clone(),
            venue: self.venue.clone(),
            symbols: self.symbols.clone(),
            state: state.into(),
            change_time: self.change_time.map(UnixNanos::to_wire),
            detail: self.detail.clone(),
            log_seq: 0,
        }
    }
}

impl Watermark {
    pub(crate) fn to_wire(&self) -> proto::Watermark {
        proto::Watermark { venue: self.venue.clone(), complete_time: Some(self.complete_time.to_wire()) }
    }
}

impl SourceGapCause {
    /// A word for the cause: `unknown`, `disconnected`, `sequence_hole`, `overload` or `upstream`.
    pub fn as_str(self) -> &'static str {
        match self {
            SourceGapCause::Unknown => "unknown",
            SourceGapCause::Disconnected => "disconnected",
            SourceGapCause::SequenceHole => "sequence_hole",
            SourceGapCause::Overload => "overload",
            SourceGapCause::Upstream => "upstream",
        }
    }

    fn from_wire(cause: i32) -> SourceGapCause {
        match proto::SourceGapCause::try_from(cause) {
            Ok(proto::SourceGapCause::Disconnected) => SourceGapCause::Disconnected,
            Ok(proto::SourceGapCause::SequenceHole) => SourceGapCause::SequenceHole,
            Ok(proto::SourceGapCause::Overload) => SourceGapCause::Overload,
            Ok(proto::SourceGapCause::Upstream) => SourceGapCause::Upstream,
            Ok(proto::SourceGapCause::Unspecified) | Err(_) => SourceGapCause::Unknown,
        }
    }

    fn to_wire(self) -> i32 {
        let cause = match self {
            SourceGapCause::Unknown => proto::SourceGapCause::Unspecified,
            SourceGapCause::Disconnected => proto::SourceGapCause::Disconnected,
            SourceGapCause::SequenceHole => proto::SourceGapCause::SequenceHole,
            SourceGapCause::Overload => proto::SourceGapCause::Overload,
            SourceGapCause::Upstream => proto::SourceGapCause::Upstream,
        };
        cause.into()
    }
}
