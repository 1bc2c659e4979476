"""Values: times in nanoseconds, exact decimals, cursors. Nothing here speaks to the network."""

from __future__ import annotations

import base64
import binascii
import re
import time
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Final, Union

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from .v1 import decimal_pb2

__all__ = ["Cursor", "CursorLike", "DecimalLike", "PeriodLike", "TimeLike", "UnixNanos"]

_NANOS_PER_SECOND: Final = 1_000_000_000
_MIN_NANOS: Final = -(2**63)
_MAX_NANOS: Final = 2**63 - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)
_PERIOD: Final = re.compile(r"(\d+)(ns|us|ms|s|m|h|d)", re.ASCII)
_PERIOD_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": _NANOS_PER_SECOND,
    "m": 60 * _NANOS_PER_SECOND,
    "h": 3_600 * _NANOS_PER_SECOND,
    "d": 86_400 * _NANOS_PER_SECOND,
}


class UnixNanos(int):
    """A time: UTC nanoseconds since 1970-01-01T00:00:00Z, as an int that prints itself as RFC 3339.

    It is an int in every respect, so times compare, sort and subtract exactly; the result of arithmetic is a plain
    int of nanoseconds. From 1677-09-21 to 2262-04-11, else ValueError; the server takes 1970 and later.
    """

    __slots__ = ()

    def __new__(cls, value: TimeLike) -> UnixNanos:
        """Take nanoseconds, an aware datetime, or RFC 3339 text with its offset and up to 9 decimals."""
        if isinstance(value, str):
            nanos = _nanos_of_text(value)
        elif isinstance(value, datetime):
            nanos = _nanos_of_datetime(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            nanos = int(value)
        else:
            raise TypeError(
                f"{value!r} is not a time: give int nanoseconds since 1970, an aware datetime, or RFC 3339 text; "
                "a float cannot hold nanoseconds"
            )
        if not _MIN_NANOS <= nanos <= _MAX_NANOS:
            raise ValueError(f"{value!r} lies outside of 1677-09-21 to 2262-04-11")
        return super().__new__(cls, nanos)

    @classmethod
    def now(cls) -> UnixNanos:
        """Return the time of this machine's clock."""
        return cls(time.time_ns())

    def isoformat(self) -> str:
        """Return RFC 3339 in UTC, always with 9 decimals, such as `2024-08-09T00:00:55.342000789Z`."""
        seconds, nanos = divmod(int(self), _NANOS_PER_SECOND)
        moment = _EPOCH + timedelta(seconds=seconds)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanos:09}Z"

    def datetime(self) -> datetime:
        """Return an aware datetime in UTC. It LOSES the nanoseconds below a microsecond, which are cut off."""
        return _EPOCH + timedelta(microseconds=int(self) // 1_000)

    def __str__(self) -> str:
        return self.isoformat()

    def __repr__(self) -> str:
        return f"UnixNanos({int(self)})"

    def __format__(self, spec: str) -> str:
        return format(int(self), spec) if spec else self.isoformat()


class Cursor:
    """A position of the log: everything up to it has been seen. Opaque, with a text to store.

    Cursors come from answers (`as_of`), acknowledgements and streams, and go into subscriptions and `min_cursor`. A
    cursor taken in the middle of a message also holds the position of the last tick, so that nothing comes twice.
    """

    __slots__ = ("_bytes", "_position")

    def __init__(self, data: bytes, position: tuple[int, int] | None = None) -> None:
        """Take a cursor's bytes as the server sent them. `position` is for this package: (epoch, log_seq)."""
        if not data:
            raise ValueError("a cursor is never empty")
        self._bytes = bytes(data)
        self._position = position

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read the text that `str(cursor)` gave. ValueError if it is another."""
        data, at, position = text.partition("@")
        try:
            if not at:
                return cls(base64.b64decode(data, validate=True))
            epoch, _, log_seq = position.partition(":")
            return cls(base64.b64decode(data, validate=True), (int(epoch), int(log_seq)))
        except (binascii.Error, ValueError):
            raise ValueError(f"{text!r} is not a cursor: give the text as it was printed") from None

    @property
    def position(self) -> tuple[int, int] | None:
        """The epoch and log_seq of the last tick, of a cursor from the middle of a message; else None."""
        return self._position

    def __bytes__(self) -> bytes:
        return self._bytes

    def __str__(self) -> str:
        text = base64.b64encode(self._bytes).decode("ascii")
        return text if self._position is None else f"{text}@{self._position[0]}:{self._position[1]}"

    def __repr__(self) -> str:
        return f"Cursor({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Cursor):
            return NotImplemented
        return (self._bytes, self._position) == (other._bytes, other._position)

    def __hash__(self) -> int:
        return hash((self._bytes, self._position))


TimeLike = Union[int, datetime, str]
"""A time: int nanoseconds since 1970 (such as UnixNanos), an aware datetime, or RFC 3339 text with its offset."""

DecimalLike = Union[Decimal, int, str]
"""An exact number. Never a float: 0.1 is not a tenth."""

PeriodLike = Union[timedelta, str]
"""A length of time: a timedelta, or text such as `500ms`, `30s`, `5m`, `2h`, `1d`."""

CursorLike = Union[Cursor, bytes, str]
"""A cursor, its bytes, or its text."""


def _nanos_of_text(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a time: write RFC 3339 with its offset, such as 2024-08-09T00:00:55.342000789Z"
        )
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, offset_hours, offset_minutes = match.groups()[6:]
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a time: {error}") from None
    nanos = _nanos_of_datetime(moment) + int((fraction or "").ljust(9, "0"))
    if sign:
        if int(offset_hours) > 23 or int(offset_minutes) > 59:
            raise ValueError(f"{text!r} is not a time: its offset is no time of a day")
        offset = (int(offset_hours) * 3_600 + int(offset_minutes) * 60) * _NANOS_PER_SECOND
        nanos += offset if sign == "-" else -offset
    return nanos


def _nanos_of_datetime(moment: datetime) -> int:
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(f"{moment!r} has no timezone: give an aware datetime, such as datetime.now(timezone.utc)")
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1_000


def time_to_wire(value: TimeLike) -> Timestamp:
    """Make a time of the contract."""
    nanos = value if isinstance(value, UnixNanos) else UnixNanos(value)
    seconds, nanos_of_second = divmod(int(nanos), _NANOS_PER_SECOND)
    return Timestamp(seconds=seconds, nanos=nanos_of_second)


def time_from_wire(value: Timestamp) -> UnixNanos:
    """Read a time of the contract."""
    # The constructor's checks would cost more than all other work on a tick.
    return int.__new__(UnixNanos, value.seconds * _NANOS_PER_SECOND + value.nanos)


def period_to_wire(value: PeriodLike, name: str) -> Duration:
    """Make a length of time of the contract. `name` is the argument, for the message of a refusal."""
    if isinstance(value, timedelta):
        nanos = value // timedelta(microseconds=1) * 1_000
    elif isinstance(value, str):
        match = _PERIOD.fullmatch(value)
        if match is None:
            raise ValueError(f"{name}={value!r} is not a length of time: write 500ms, 30s, 5m, 2h or 1d")
        nanos = int(match[1]) * _PERIOD_UNITS[match[2]]
    else:
        raise TypeError(f"{name}={value!r} is not a length of time: give a timedelta, or text such as '5m'")
    sign = -1 if nanos < 0 else 1
    seconds, nanos_of_second = divmod(abs(nanos), _NANOS_PER_SECOND)
    if seconds > 315_576_000_000:
        raise ValueError(f"{name}={value!r} is longer than 10,000 years")
    return Duration(seconds=sign * seconds, nanos=sign * nanos_of_second)


def nanos_from_wire(value: Duration) -> int:
    """Read a length of time of the contract, in nanoseconds."""
    return value.seconds * _NANOS_PER_SECOND + value.nanos


def to_decimal(value: DecimalLike, name: str) -> Decimal:
    """Take an exact number as a Decimal, every digit of it. `name` is the argument, for the message of a refusal."""
    if isinstance(value, float):
        raise TypeError(
            f"{name}={value!r} is a float, which is not exact: give a Decimal, an int, or text such as Decimal('1.25')"
        )
    if isinstance(value, bool) or not isinstance(value, (Decimal, int, str)):
        raise TypeError(f"{name}={value!r} is not a number: give a Decimal, an int, or text")
    try:
        number = Decimal(value)
    except ArithmeticError:
        raise ValueError(f"{name}={value!r} is not a decimal number") from None
    if not number.is_finite():
        raise ValueError(f"{name}={value!r} is not a finite number")
    return number


def decimal_to_wire(value: Decimal, name: str) -> decimal_pb2.Decimal:
    """Make a decimal of the contract, in the canonical form."""
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int), "to_decimal lets only finite numbers through"
    text = "".join(map(str, digits))
    stripped = text.rstrip("0")
    if not stripped:
        return decimal_pb2.Decimal()
    exponent += len(text) - len(stripped)
    mantissa = -int(stripped) if sign else int(stripped)
    if not -(2**63) <= mantissa < 2**63 or not -(2**31) <= exponent < 2**31:
        raise ValueError(f"{name}={value} has more digits than the contract can carry: 18 are always possible")
    return decimal_pb2.Decimal(mantissa=mantissa, exponent=exponent)


def decimal_from_wire(value: decimal_pb2.Decimal) -> Decimal:
    """Read a decimal of the contract, exactly and in any context of this thread."""
    exponent = value.exponent
    if 0 <= exponent <= 18:
        # 300 and not 3E+2: what people see is what they would write.
        return Decimal(value.mantissa * 10**exponent) if exponent else Decimal(value.mantissa)
    return Decimal(f"{value.mantissa}E{exponent}")


def cursor_from_wire(data: bytes) -> Cursor | None:
    """Read a cursor of the contract, where empty means that there is none."""
    return Cursor(data) if data else None


def to_cursor(value: CursorLike) -> Cursor:
    """Take a cursor in any of its forms."""
    if isinstance(value, Cursor):
        return value
    if isinstance(value, str):
        return Cursor.parse(value)
    if isinstance(value, bytes):
        return Cursor(value)
    raise TypeError(f"{value!r} is not a cursor: give a Cursor, its bytes, or its text")


def cursor_to_wire(value: CursorLike | None) -> bytes:
    """Make a `min_cursor` of the contract: empty if there is none."""
    return b"" if value is None else bytes(to_cursor(value))
