"""Ticks: as the server sends them, and as a publisher makes them; and selectors, which match instruments."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple, Union

from .errors import ProtocolError
from .v1 import selector_pb2, tick_pb2
from .values import (
    DecimalLike,
    TimeLike,
    UnixNanos,
    decimal_from_wire,
    decimal_to_wire,
    time_from_wire,
    time_to_wire,
    to_decimal,
)

__all__ = ["Action", "NewTick", "Origin", "Selector", "SelectorLike", "Side", "Tick"]


class _Name(str, enum.Enum):
    """An enumeration whose members are their names in lower case."""

    def __str__(self) -> str:
        return str(self.value)


class Side(_Name):
    """The side of the aggressor of a trade, who took the liquidity."""

    BUY = "buy"
    SELL = "sell"


class Origin(_Name):
    """How a tick came into the log: published as it happened, or imported or filled in later."""

    LIVE = "live"
    BACKFILL = "backfill"


class Action(_Name):
    """What a tick does to earlier ones with the same trade_id and event_time."""

    NEW = "new"
    CORRECT = "correct"
    CANCEL = "cancel"


class Tick(NamedTuple):
    """One trade as it stands in the log.

    In history, ticks are ordered by (event_time, log_seq); in a stream, by log_seq. A list of ticks is what
    pandas.DataFrame takes.
    """

    venue: str
    """The venue that the trade happened on."""
    symbol: str
    """The symbol that was traded, in the venue's spelling."""
    event_time: UnixNanos
    """The time of the trade by the venue's clock."""
    price: Decimal
    """The price of one unit, exact. Zero and negative prices are valid; of Action.CANCEL it carries no meaning."""
    quantity: Decimal | None
    """The quantity that was traded, zero or positive, exact. None if the source does not tell it."""
    side: Side | None
    """The side of the aggressor. None if the source does not tell it."""
    trade_id: str
    """The venue's name for this trade. Empty if it has none."""
    receive_time: UnixNanos
    """The time at which the trade was received: by the source if it said so, else by the server."""
    log_seq: int
    """The position of the tick in its epoch's log, at least 1. No two ticks of an epoch share it."""
    instrument_id: int
    """The number that stands for venue and symbol. It never changes within an epoch."""
    origin: Origin
    """How the tick came into the log."""
    action: Action
    """What the tick does to earlier ones."""
    merged_count: int
    """How many ticks of a conflated stream were merged into this one, itself included. Everywhere else 1."""


class NewTick:
    """A trade to publish. Its values are checked here, so that a mistake is told where it is made.

    Args:
        venue: 1 to 32 bytes of `A-Z a-z 0-9 . _ - : ^ = $ +`.
        symbol: 1 to 64 bytes of the same and `/`. A new venue and symbol make a new instrument.
        event_time: the time of the trade by the venue's clock, from 1970 on. Live ticks lie at most 5 minutes ahead of
            the server's clock.
        price: the price of one unit, exact: absolute value below 10^15, at most 18 decimals.
        quantity: zero or positive, bounds as of the price. Default None: not told.
        side: the side of the aggressor, also as `buy` or `sell`. Default None: not told.
        trade_id: the venue's name for the trade, at most 64 bytes. Trades are not de-duplicated by it.
        receive_time: when the source received the trade. Default None: the server stamps it.
        action: whether it is a trade, or corrects or cancels the one with its trade_id and event_time.

    Raises:
        TypeError: a number is a float, or a value is of another kind.
        ValueError: a value cannot be carried.
    """

    __slots__ = ("action", "event_time", "price", "quantity", "receive_time", "side", "symbol", "trade_id", "venue")

    venue: str
    symbol: str
    event_time: UnixNanos
    price: Decimal
    quantity: Decimal | None
    side: Side | None
    trade_id: str
    receive_time: UnixNanos | None
    action: Action

    def __init__(
        self,
        venue: str,
        symbol: str,
        event_time: TimeLike,
        price: DecimalLike,
        quantity: DecimalLike | None = None,
        *,
        side: Side | str | None = None,
        trade_id: str = "",
        receive_time: TimeLike | None = None,
        action: Action | str = Action.NEW,
    ) -> None:
        self.venue = venue
        self.symbol = symbol
        self.event_time = event_time if isinstance(event_time, UnixNanos) else UnixNanos(event_time)
        self.price = to_decimal(price, "price")
        self.quantity = None if quantity is None else to_decimal(quantity, "quantity")
        self.side = None if side is None else Side(side)
        self.trade_id = trade_id
        self.receive_time = None if receive_time is None else UnixNanos(receive_time)
        self.action = Action(action)

    @classmethod
    def of(cls, tick: Tick) -> NewTick:
        """Make the same trade again, to publish it elsewhere."""
        return cls(
            tick.venue,
            tick.symbol,
            tick.event_time,
            tick.price,
            tick.quantity,
            side=tick.side,
            trade_id=tick.trade_id,
            receive_time=tick.receive_time,
            action=tick.action,
        )

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in NewTick.__slots__)
        return f"NewTick({values})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NewTick):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in NewTick.__slots__)

    __hash__ = None  # type: ignore[assignment]  # It can be changed, so it has no lasting hash.


class Selector(NamedTuple):
    """A predicate over instruments: it matches those that exist now and those created later."""

    symbol: str
    """The symbol, exactly, or `*` for all."""
    venue: str = ""
    """The venue, exactly. Empty: all venues."""


SelectorLike = Union[str, Selector, tuple[str, str]]
"""A symbol on all venues, or a Selector, or (symbol, venue). The symbol `*` stands for all."""


_SIDES: Final = {None: tick_pb2.SIDE_UNSPECIFIED, Side.BUY: tick_pb2.SIDE_BUY, Side.SELL: tick_pb2.SIDE_SELL}
_ACTIONS: Final = {
    Action.NEW: tick_pb2.ACTION_NEW,
    Action.CORRECT: tick_pb2.ACTION_CORRECT,
    Action.CANCEL: tick_pb2.ACTION_CANCEL,
}
# Sides and origins that this version does not know are not told, rather than an error: the trade stands without them.
_SIDES_FROM_WIRE: Final[dict[int, Side]] = {int(tick_pb2.SIDE_BUY): Side.BUY, int(tick_pb2.SIDE_SELL): Side.SELL}
_ORIGINS_FROM_WIRE: Final[dict[int, Origin]] = {int(tick_pb2.ORIGIN_BACKFILL): Origin.BACKFILL}
_ACTIONS_FROM_WIRE: Final[dict[int, Action]] = {
    int(tick_pb2.ACTION_UNSPECIFIED): Action.NEW,
    int(tick_pb2.ACTION_NEW): Action.NEW,
    int(tick_pb2.ACTION_CORRECT): Action.CORRECT,
    int(tick_pb2.ACTION_CANCEL): Action.CANCEL,
}


def tick_from_wire(tick: tick_pb2.Tick, merged_count: int = 1) -> Tick:
    """Read a tick of the contract."""
    action = _ACTIONS_FROM_WIRE.get(tick.action)
    if action is None:
        # What an unknown action would do to earlier ticks cannot be guessed.
        raise ProtocolError(f"tick.action {tick.action} is not known")
    return Tick(
        tick.venue,
        tick.symbol,
        time_from_wire(tick.event_time),
        decimal_from_wire(tick.price),
        decimal_from_wire(tick.quantity) if tick.HasField("quantity") else None,
        _SIDES_FROM_WIRE.get(tick.side),
        tick.trade_id,
        time_from_wire(tick.receive_time),
        tick.log_seq,
        tick.instrument_id,
        _ORIGINS_FROM_WIRE.get(tick.origin, Origin.LIVE),
        action,
        merged_count,
    )


def ticks_from_wire(ticks: Iterable[tick_pb2.Tick]) -> list[Tick]:
    """Read ticks of the contract."""
    return [tick_from_wire(tick) for tick in ticks]


def batch_from_wire(batch: tick_pb2.TickBatch) -> tuple[Tick, ...]:
    """Read a message of rows."""
    if not batch.merged_counts:
        return tuple(map(tick_from_wire, batch.ticks))
    return tuple(tick_from_wire(tick, count) for tick, count in zip(batch.ticks, batch.merged_counts, strict=False))


def tick_to_wire(tick: NewTick) -> tick_pb2.Tick:
    """Make a tick of the contract. ValueError or TypeError if a value cannot be carried."""
    if tick.quantity is not None and tick.quantity < 0:
        raise ValueError(f"quantity={tick.quantity} of {tick.symbol}: quantities are zero or positive")
    return tick_pb2.Tick(
        venue=tick.venue,
        symbol=tick.symbol,
        event_time=time_to_wire(tick.event_time),
        receive_time=None if tick.receive_time is None else time_to_wire(tick.receive_time),
        price=decimal_to_wire(to_decimal(tick.price, "price"), "price"),
        quantity=None if tick.quantity is None else decimal_to_wire(to_decimal(tick.quantity, "quantity"), "quantity"),
        side=_SIDES[tick.side],
        trade_id=tick.trade_id,
        action=_ACTIONS[tick.action],
    )


def selectors_to_wire(selectors: Iterable[SelectorLike] | SelectorLike, venue: str = "") -> list[selector_pb2.Selector]:
    """Make selectors of the contract. `venue` is that of selectors without one of their own."""
    # A tuple of two texts could be one selector or two symbols; a list never is a selector.
    if isinstance(selectors, (str, Selector)):
        selectors = [selectors]
    made = []
    for selector in selectors:
        if isinstance(selector, str):
            selector = Selector(selector)
        elif not isinstance(selector, tuple) or len(selector) != 2:
            raise TypeError(f"{selector!r} is not a selector: give a symbol, a Selector, or (symbol, venue)")
        made.append(selector_pb2.Selector(symbol=selector[0], venue=selector[1] or venue))
    return made


def selector_from_wire(selector: selector_pb2.Selector) -> Selector:
    """Read a selector of the contract."""
    return Selector(selector.symbol, selector.venue)
