"""Events: what a subscription says beside its ticks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Union

from .bars import Bar, bar_from_wire
from .errors import TapefeedError
from .ticks import Selector, Tick, batch_from_wire, selector_from_wire
from .v1 import live_service_pb2, selector_pb2, source_event_pb2, stream_event_pb2
from .values import Cursor, UnixNanos, nanos_from_wire, time_from_wire

__all__ = [
    "Bars",
    "Disconnected",
    "Event",
    "IntervalComplete",
    "Progress",
    "Reconnected",
    "ReplayCompleted",
    "SelectorResult",
    "SlowConsumer",
    "SnapshotBegin",
    "SnapshotEnd",
    "SourceGap",
    "SourceGapFilled",
    "SourceStatus",
    "StreamGap",
    "Subscribed",
    "Ticks",
]


@dataclass(frozen=True)
class SelectorResult:
    """What became of one selector."""

    selector: Selector
    """The selector as it was sent."""
    matched_count: int
    """How many instruments it matches at the start."""
    status: str
    """`matched`, `unknown` (matches none yet), `not_permitted` or `limit` (nothing of it is sent)."""


@dataclass(frozen=True)
class Subscribed:
    """The server grants the subscription. The first event of every connection, after Reconnected."""

    stream_id: str
    """The server's name for this stream, also in its log."""
    server_name: str
    """The name of the replica that serves the stream."""
    epoch: int
    """The epoch of the log that the stream reads."""
    head_log_seq: int
    """The newest position of the log at the start. 0 in an empty log."""
    oldest_log_seq: int
    """The oldest position that can still be re-read. 0 in an empty log."""
    heartbeat_nanos: int
    """The longest silence between two messages, in nanoseconds."""
    selector_results: tuple[SelectorResult, ...]
    """What became of each selector, in the order of the subscription."""


@dataclass(frozen=True)
class Ticks:
    """Ticks, in the order of the log. Never empty."""

    ticks: tuple[Tick, ...]
    """The ticks."""
    cursor: Cursor | None
    """The cursor after the last of them. None before the end of a snapshot."""


@dataclass(frozen=True)
class Bars:
    """Bars that changed, by start, then by venue and symbol. Never empty. In streams of bars only."""

    bars: tuple[Bar, ...]
    """The bars. Each takes the place of the one with its start, venue and symbol."""
    cursor: Cursor | None
    """The cursor after them. None before the end of a snapshot."""


@dataclass(frozen=True)
class IntervalComplete:
    """Every bar of an interval that has ticks is final and has been delivered. In streams of bars only."""

    start: UnixNanos
    """The start of the interval, inclusive."""
    end: UnixNanos
    """The end of the interval, exclusive."""
    cursor: Cursor | None
    """The cursor after the mark."""


@dataclass(frozen=True)
class Progress:
    """The heartbeat: everything up to the cursor has been delivered."""

    log_seq: int
    """The position up to which the stream is complete. 0 in an empty log."""
    server_time: UnixNanos
    """The server's clock when the event was made."""
    cursor: Cursor | None
    """The cursor at that position."""


@dataclass(frozen=True)
class SnapshotBegin:
    """A snapshot begins: the ticks up to its end are the latest of each instrument, outside the order of the log."""

    log_seq: int
    """The position at which the snapshot was read."""
    tick_count: int
    """How many ticks it has."""


@dataclass(frozen=True)
class SnapshotEnd:
    """The snapshot is complete; live begins at the next position."""

    log_seq: int
    """The position at which the snapshot was read."""
    without_data: tuple[Selector, ...]
    """The selectors with an exact symbol for which there is no tick."""


@dataclass(frozen=True)
class ReplayCompleted:
    """What was in the log when the stream began has been delivered; live begins."""

    log_seq: int
    """The last position of the replayed part. 0 in an empty log."""


@dataclass(frozen=True)
class SourceGap:
    """A feed lost data."""

    source: str
    """The name of the feed."""
    venue: str
    """The venue that the gap is on."""
    symbols: tuple[str, ...]
    """The symbols that the gap is on. Empty: all symbols of the venue."""
    start_time: UnixNanos | None
    """The start of the time without data, inclusive. None if not known."""
    end_time: UnixNanos | None
    """The end of the time without data, exclusive. None if not known, or not over."""
    first_source_seq: int | None
    """The first missing number of the source's own sequence. None if the source does not number."""
    last_source_seq: int | None
    """The last missing number of the source's own sequence. None if the source does not number, or not over."""
    cause: str
    """`unknown`, `disconnected`, `sequence_hole`, `overload` or `upstream`."""
    recoverable: bool
    """Whether the source can deliver the data later."""
    detail: str
    """A sentence for people. May be empty."""
    log_seq: int
    """The position of this entry in its epoch's log."""


@dataclass(frozen=True)
class SourceGapFilled:
    """A feed got back what an earlier SourceGap told as lost."""

    source: str
    """The name of the feed."""
    venue: str
    """The venue that the gap was on."""
    symbols: tuple[str, ...]
    """The symbols that were filled. Empty: all symbols of the gap."""
    start_time: UnixNanos | None
    """The start of the filled time, inclusive. None: that of the gap."""
    end_time: UnixNanos | None
    """The end of the filled time, exclusive. None: that of the gap."""
    first_source_seq: int | None
    """The first filled number of the source's own sequence. None if the source does not number."""
    last_source_seq: int | None
    """The last filled number of the source's own sequence. None if the source does not number."""
    gap_log_seq: int | None
    """The position of the SourceGap that is filled. None if the filler does not know it."""
    log_seq: int
    """The position of this entry in its epoch's log."""


@dataclass(frozen=True)
class SourceStatus:
    """A feed went down, or came up again. While it is down, silence says nothing about the market."""

    source: str
    """The name of the feed."""
    venue: str
    """The venue that the feed delivers."""
    symbols: tuple[str, ...]
    """The symbols that the status is about. Empty: all symbols of the venue."""
    state: str
    """`up`, `down`, or `unknown`."""
    change_time: UnixNanos | None
    """The time of the change by the source's clock."""
    detail: str
    """A sentence for people. May be empty."""
    log_seq: int
    """The position of this entry in its epoch's log."""


@dataclass(frozen=True)
class StreamGap:
    """The stream misses positions of the log, and they cannot be re-read."""

    from_log_seq: int
    """The first position that is missing."""
    to_log_seq: int
    """The last position that is missing."""
    cause: str
    """`retention`, `policy` or `unknown`."""


@dataclass(frozen=True)
class SlowConsumer:
    """Catching up from the log began or ended.

    The reader was slower than the stream, or what it has yet to get is about to leave the replay window.
    """

    catching_up: bool
    """Whether the stream is behind from now on."""
    lag_ticks: int
    """How many ticks of the log the stream is behind, at most."""
    lag_nanos: int
    """The age of the oldest entry not sent yet, in nanoseconds."""
    expiring: bool
    """Whether that entry leaves the replay window soon. What has not come until then is lost to this stream, and a
    `StreamGap` says so.
    """


@dataclass(frozen=True)
class Disconnected:
    """The connection broke, or could not be made. The subscription tries again by itself."""

    error: TapefeedError
    """What happened."""
    attempt: int
    """How many attempts have failed since the last success, from 1."""
    retry_in: float
    """How many seconds are waited before the next."""


@dataclass(frozen=True)
class Reconnected:
    """The subscription is connected again and goes on where it was."""

    attempts: int
    """How many attempts it took."""
    resumed_after: Cursor | None
    """The cursor that the stream goes on after. None: none had been seen, so the stream starts as at first."""


Event = Union[
    Subscribed,
    Ticks,
    Bars,
    IntervalComplete,
    Progress,
    SnapshotBegin,
    SnapshotEnd,
    ReplayCompleted,
    SourceGap,
    SourceGapFilled,
    SourceStatus,
    StreamGap,
    SlowConsumer,
    Disconnected,
    Reconnected,
]
"""One event of a subscription. Later versions add kinds: pass over those that you do not know."""


Message = Union[live_service_pb2.SubscribeTicksResponse, live_service_pb2.SubscribeBarsResponse]
"""One message of a stream."""


def event_from_wire(message: Message, cursor: Cursor | None) -> Event | None:
    """Read one message of a subscription. None if it has an event that this version does not know."""
    kind = message.WhichOneof("event")
    if isinstance(message, live_service_pb2.SubscribeBarsResponse):
        if kind == "bars":
            bars = tuple(map(bar_from_wire, message.bars.bars))
            return Bars(bars, cursor) if bars else None
        if kind == "interval_complete":
            mark = message.interval_complete
            return IntervalComplete(time_from_wire(mark.start_time), time_from_wire(mark.end_time), cursor)
    elif kind == "rows":
        ticks = batch_from_wire(message.rows)
        return Ticks(ticks, cursor) if ticks else None
    if kind == "progress":
        return Progress(message.progress.log_seq, time_from_wire(message.progress.server_time), cursor)
    if kind == "ack":
        return _subscribed(message.ack)
    if kind == "replay_completed":
        return ReplayCompleted(message.replay_completed.log_seq)
    if kind == "source_gap":
        return _source_gap(message.source_gap)
    if kind == "source_gap_filled":
        return _source_gap_filled(message.source_gap_filled)
    if kind == "source_status":
        return _source_status(message.source_status)
    if kind == "stream_gap":
        gap = message.stream_gap
        cause = _name(stream_event_pb2.StreamGapCause.Name, gap.cause, "STREAM_GAP_CAUSE_")
        return StreamGap(gap.from_log_seq, gap.to_log_seq, cause)
    if kind == "slow_consumer":
        slow = message.slow_consumer
        return SlowConsumer(slow.catching_up, slow.lag_ticks, nanos_from_wire(slow.lag), slow.expiring)
    if kind == "snapshot_begin":
        return SnapshotBegin(message.snapshot_begin.log_seq, message.snapshot_begin.tick_count)
    if kind == "snapshot_end":
        end = message.snapshot_end
        return SnapshotEnd(end.log_seq, tuple(map(selector_from_wire, end.selectors_without_data)))
    return None


def _subscribed(ack: stream_event_pb2.SubscriptionAck) -> Subscribed:
    results = tuple(
        SelectorResult(
            selector_from_wire(result.selector),
            result.matched_count,
            _name(selector_pb2.SelectorStatus.Name, result.status, "SELECTOR_STATUS_"),
        )
        for result in ack.selector_results
    )
    return Subscribed(
        ack.stream_id,
        ack.server_name,
        ack.epoch,
        ack.head_log_seq,
        ack.oldest_log_seq,
        nanos_from_wire(ack.heartbeat_interval),
        results,
    )


def _source_gap(gap: source_event_pb2.SourceGap) -> SourceGap:
    return SourceGap(
        source=gap.source,
        venue=gap.venue,
        symbols=tuple(gap.symbols),
        start_time=time_from_wire(gap.start_time) if gap.HasField("start_time") else None,
        end_time=time_from_wire(gap.end_time) if gap.HasField("end_time") else None,
        first_source_seq=gap.first_source_seq if gap.HasField("first_source_seq") else None,
        last_source_seq=gap.last_source_seq if gap.HasField("last_source_seq") else None,
        cause=_name(source_event_pb2.SourceGapCause.Name, gap.cause, "SOURCE_GAP_CAUSE_"),
        recoverable=gap.recoverable,
        detail=gap.detail,
        log_seq=gap.log_seq,
    )


def _source_gap_filled(filled: source_event_pb2.SourceGapFilled) -> SourceGapFilled:
    return SourceGapFilled(
        source=filled.source,
        venue=filled.venue,
        symbols=tuple(filled.symbols),
        start_time=time_from_wire(filled.start_time) if filled.HasField("start_time") else None,
        end_time=time_from_wire(filled.end_time) if filled.HasField("end_time") else None,
        first_source_seq=filled.first_source_seq if filled.HasField("first_source_seq") else None,
        last_source_seq=filled.last_source_seq if filled.HasField("last_source_seq") else None,
        gap_log_seq=filled.gap_log_seq if filled.HasField("gap_log_seq") else None,
        log_seq=filled.log_seq,
    )


def _source_status(status: source_event_pb2.SourceStatus) -> SourceStatus:
    return SourceStatus(
        source=status.source,
        venue=status.venue,
        symbols=tuple(status.symbols),
        state=_name(source_event_pb2.SourceState.Name, status.state, "SOURCE_STATE_"),
        change_time=time_from_wire(status.change_time) if status.HasField("change_time") else None,
        detail=status.detail,
        log_seq=status.log_seq,
    )


def _name(name_of: object, value: int, prefix: str) -> str:
    """Name a value of an enumeration; `unknown` for one that is not told or that this version does not know."""
    assert callable(name_of)
    try:
        name: str = name_of(value)
    except ValueError:
        return "unknown"
    name = name.removeprefix(prefix).lower()
    return "unknown" if name == "unspecified" else name
