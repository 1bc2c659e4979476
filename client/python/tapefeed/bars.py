"""Bars: open, high, low, close and volume by interval."""

from __future__ import annotations

import enum
from decimal import Decimal
from typing import Final, NamedTuple

from .errors import ProtocolError
from .v1 import bar_pb2, price_pb2
from .values import UnixNanos, decimal_from_wire, time_from_wire

__all__ = ["Bar", "BarFill", "MovingAverage"]


_STATES: Final = (bar_pb2.BAR_STATE_FORMING, bar_pb2.BAR_STATE_FINAL)


class BarFill(str, enum.Enum):
    """What stands for an interval without ticks."""

    SKIP = "skip"
    """Nothing."""
    NULL = "null"
    """A bar without prices."""
    PREVIOUS = "previous"
    """A bar whose prices are the close before it; nothing before the first tick."""

    def __str__(self) -> str:
        return self.value


class Bar(NamedTuple):
    """The trades of one interval: the ticks whose event time lies in `[start, end)`.

    A list of bars is what pandas.DataFrame takes.
    """

    venue: str
    """The venue. Empty if the bar pools all venues of its symbol."""
    symbol: str
    """The symbol."""
    instrument_id: int | None
    """The number of the instrument. None if the bar pools all venues of its symbol."""
    start: UnixNanos
    """The start of the interval, inclusive: a whole multiple of the interval since 1970."""
    end: UnixNanos
    """The end of the interval, exclusive."""
    open: Decimal | None
    """The price of the first tick by (event_time, log_seq). None if empty, or the close before as `fill` says."""
    high: Decimal | None
    """The greatest price. None or filled as `open`."""
    low: Decimal | None
    """The smallest price. None or filled as `open`."""
    close: Decimal | None
    """The price of the last tick. None or filled as `open`."""
    open_time: UnixNanos | None
    """The event time of the first tick. None in an empty bar."""
    high_time: UnixNanos | None
    """The event time of the first tick with the greatest price. None in an empty bar."""
    low_time: UnixNanos | None
    """The event time of the first tick with the smallest price. None in an empty bar."""
    close_time: UnixNanos | None
    """The event time of the last tick. None in an empty bar."""
    volume: Decimal
    """The exact sum of all quantities."""
    notional: Decimal
    """The exact sum of price times quantity."""
    vwap: Decimal | None
    """The volume-weighted mean price, rounded half-even. None if no tick had a quantity above zero."""
    tick_count: int
    """How many ticks the bar holds. 0 in an empty bar."""
    is_final: bool
    """Whether only late ticks can change the bar; it grows otherwise."""
    revision: int
    """The greatest position that contributed. 0 in an empty bar. A late tick raises it."""
    has_source_gap: bool
    """Whether a feed lost data inside the interval and has not got it back."""


class MovingAverage(NamedTuple):
    """An average up to a tick or bar. A list of them is what pandas.DataFrame takes."""

    end_time: UnixNanos
    """The event time of the tick, or the end of the bar, that completes the window."""
    log_seq: int
    """The position of that tick, or the revision of that bar."""
    average: Decimal
    """The average, rounded half-even to the decimals of the request."""
    price: Decimal
    """The price of that tick, or the close of that bar."""


def moving_average_from_wire(point: price_pb2.MovingAveragePoint) -> MovingAverage:
    """Read an average of the contract."""
    return MovingAverage(
        time_from_wire(point.end_time), point.log_seq, Decimal(point.average_price), decimal_from_wire(point.price)
    )


def bar_from_wire(bar: bar_pb2.Bar) -> Bar:
    """Read a bar of the contract."""
    state = bar.state
    if state not in _STATES:
        raise ProtocolError(f"bar state {state} is not known")
    priced, timed = bar.HasField("open_price"), bar.HasField("open_time")
    # By place, in the order of the fields: a page has thousands.
    return Bar(
        bar.venue,
        bar.symbol,
        bar.instrument_id or None,
        time_from_wire(bar.start_time),
        time_from_wire(bar.end_time),
        decimal_from_wire(bar.open_price) if priced else None,
        decimal_from_wire(bar.high_price) if priced else None,
        decimal_from_wire(bar.low_price) if priced else None,
        decimal_from_wire(bar.close_price) if priced else None,
        time_from_wire(bar.open_time) if timed else None,
        time_from_wire(bar.high_time) if timed else None,
        time_from_wire(bar.low_time) if timed else None,
        time_from_wire(bar.close_time) if timed else None,
        Decimal(bar.volume),
        Decimal(bar.notional),
        Decimal(bar.vwap) if bar.HasField("vwap") else None,
        bar.tick_count,
        state == bar_pb2.BAR_STATE_FINAL,
        bar.revision,
        bar.has_source_gap,
    )
