"""Messages of ReadTicks as arrays: numpy reads their columns out of the bytes, and no object is made for a tick."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from .errors import ProtocolError
from .v1 import tick_columns_pb2
from .values import Cursor, UnixNanos, cursor_from_wire, time_from_wire

Ints = NDArray[np.int64]

# Wire types of protobuf.
_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5

_NOTHING: Final = memoryview(b"")

_ALL: Final = np.uint64(2**64 - 1)
_BITS: Final = np.uint64(64)
_EIGHT: Final = np.uint64(8)

# How a number's groups of seven bits in eight octets become one: by how much the upper half of each pair moves, and
# which bits are lower and upper halves.
_FOLDS: Final = tuple(
    (np.uint64(shift), np.uint64(low), np.uint64(high))
    for shift, low, high in (
        (1, 0x007F007F007F007F, 0x7F007F007F007F00),
        (2, 0x00003FFF00003FFF, 0x3FFF00003FFF0000),
        (4, 0x000000000FFFFFFF, 0x0FFFFFFF00000000),
    )
)


@dataclass(frozen=True)
class Part:
    """The ticks of one message."""

    count: int
    entries: list[tick_columns_pb2.ColumnInstrument]
    """The table: instruments and their exponents."""
    index: NDArray[np.uint32] | None
    """For each tick its entry; None if there is one entry."""
    event_time: Ints
    receive_time: Ints
    price: Ints
    """Mantissas at the exponents of their entries."""
    quantity: NDArray[np.uint64] | None
    """Mantissas plus 1, and 0 for none; None if no tick has one."""
    side: NDArray[np.uint8] | None
    trade_number: NDArray[np.uint64] | None
    trade_text: list[str] | None
    log_seq: NDArray[np.uint64]
    origin: NDArray[np.uint8] | None


class Message(NamedTuple):
    """One message of the stream."""

    part: Part | None
    page_token: str
    as_of: Cursor | None
    now: UnixNanos | None


def message(data: bytes) -> Message:
    """Read a ReadTicksResponse."""
    part, page_token, as_of, now = None, "", b"", None
    for field, value in _fields(memoryview(data)):
        if field == 2:
            part = _part(_bytes(value))
        elif field == 3:
            page_token = str(_bytes(value), "ascii")
        elif field == 4:
            as_of = bytes(_bytes(value))
        elif field == 5:
            now = time_from_wire(Timestamp.FromString(bytes(_bytes(value))))
        elif field == 1:
            raise ProtocolError("columns were asked for, and rows came")
    return Message(part, page_token, cursor_from_wire(as_of), now)


def _part(data: memoryview) -> Part:
    entries: list[tick_columns_pb2.ColumnInstrument] = []
    texts: list[str] = []
    columns: dict[int, memoryview] = {}
    for field, value in _fields(data):
        if field == 1:
            entries.append(tick_columns_pb2.ColumnInstrument.FromString(bytes(_bytes(value))))
        elif field == 8:
            texts.append(str(_bytes(value), "utf-8"))
        elif isinstance(value, memoryview):
            columns[field] = value
    event_time = columns.get(3, _NOTHING)
    count = int(np.count_nonzero(_octets(event_time) < 0x80))
    if count == 0 or not entries:
        raise ProtocolError("columns without ticks")

    def numbers(field: int) -> NDArray[np.uint64] | None:
        column = columns.get(field)
        return None if column is None else _varints(column, count)

    def codes(field: int) -> NDArray[np.uint8] | None:
        found = numbers(field)
        return None if found is None else found.astype(np.uint8)

    def sums(field: int) -> Ints:
        found = numbers(field)
        if found is None:
            raise ProtocolError(f"columns without field {field}")
        return np.cumsum(_signed(found), dtype=np.int64)

    index = numbers(2)
    if index is None or int(index.max()) >= len(entries):
        raise ProtocolError("columns.instrument_index lies outside of the table")
    one = len(entries) == 1
    entry = None if one else index.astype(np.uint32)
    if entry is None:
        price = sums(5)
    else:
        steps = numbers(5)
        if steps is None:
            raise ProtocolError("columns without prices")
        price = _signed(steps)
        for number in range(len(entries)):
            own = entry == number
            price[own] = np.cumsum(price[own], dtype=np.int64)
    trade_number = numbers(13)
    if trade_number is not None:
        trade_number = np.cumsum(_signed(trade_number), dtype=np.int64).view(np.uint64)
    if texts and len(texts) != count:
        raise ProtocolError("columns of different lengths")
    return Part(
        count=count,
        entries=entries,
        index=entry,
        event_time=sums(3),
        receive_time=sums(4),
        price=price,
        quantity=numbers(6),
        side=codes(7),
        trade_number=trade_number,
        trade_text=texts or None,
        log_seq=sums(9).view(np.uint64),
        origin=codes(10),
    )


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Iterate over the fields of a message: their numbers, and their bytes or number."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        field, kind = tag >> 3, tag & 7
        if kind == _BYTES:
            length, at = _varint(data, at)
            if length > end - at:
                raise ProtocolError("a message is cut off")
            yield field, data[at : at + length]
            at += length
        elif kind == _VARINT:
            value, at = _varint(data, at)
            yield field, value
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ProtocolError(f"a field has the unknown wire type {kind}")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        octet = data[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
    raise ProtocolError("a message is cut off")


def _bytes(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ProtocolError("a field has another wire type than the contract says")
    return value


def _octets(data: memoryview) -> NDArray[np.uint8]:
    return np.frombuffer(data, dtype=np.uint8)


def _varints(data: memoryview, count: int) -> NDArray[np.uint64]:
    """Read a packed column of so many numbers."""
    octets = _octets(data)
    if octets.size == count:
        if octets.max() >= 0x80:
            raise ProtocolError("columns of different lengths")
        return octets.astype(np.uint64)
    last = np.flatnonzero(octets < 0x80)
    if last.size != count or last[-1] != octets.size - 1:
        raise ProtocolError("columns of different lengths")
    first = np.empty_like(last)
    first[0] = 0
    np.add(last[:-1], 1, out=first[1:])
    octets_of = last - first
    octets_of += 1
    # The eight octets from each number's first on, without those of the next number.
    room = np.zeros(octets.size + 8, dtype=np.uint8)
    room[: octets.size] = octets
    windows: NDArray[np.uint64] = np.ndarray((octets.size,), dtype="<u8", buffer=room, strides=(1,))
    values = windows[first]
    values &= _ALL >> (_BITS - np.minimum(octets_of, 8).astype(np.uint64) * _EIGHT)
    # Seven bits of each, brought together by pairs, by fours and by eights.
    for shift, low, high in _FOLDS:
        upper = values & high
        values &= low
        upper >>= shift
        values |= upper
    for place in (8, 9):
        longer = np.flatnonzero(octets_of > place)
        if not longer.size:
            return values
        septet = (octets[first[longer] + place] & 0x7F).astype(np.uint64)
        values[longer] |= septet << np.uint64(7 * place)
    if int(octets_of.max()) > 10:
        raise ProtocolError("a number has more than 64 bits")
    return values


def _signed(values: NDArray[np.uint64]) -> Ints:
    """Read protobuf's sint64: small whatever the sign."""
    result: Ints = (values >> np.uint64(1)).view(np.int64)
    result ^= -(values & np.uint64(1)).view(np.int64)
    return result
