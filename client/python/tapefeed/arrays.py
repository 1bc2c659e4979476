"""Ticks as numpy arrays, and from there as tables of pandas, polars and Arrow. Needs numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from . import _columns
from .errors import ProtocolError
from .v1 import tick_pb2
from .values import Cursor, UnixNanos

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["Decimals", "Prices", "TickArrays"]

Prices = Literal["decimal", "float", "scaled"]
"""How tables hold prices and quantities. `decimal`: exact, as Arrow's decimal128. `scaled`: exact, as int64 columns
`price_mantissa` and `quantity_mantissa`, whose powers of ten are `TickArrays.price.exponent` and
`TickArrays.quantity.exponent`. `float`: the nearest float64, which is NOT exact."""

# Digits of decimal128.
_DIGITS: Final = 38
_MOST: Final = 2**63 - 1


@dataclass(frozen=True)
class Decimals:
    """Exact decimals: `mantissa * 10**exponent`, one exponent for all."""

    mantissa: NDArray[Any]
    """int64; Python ints where 64 bits do not hold all of them at one exponent. 0 where there is no value."""
    exponent: int
    """The power of ten of all mantissas."""
    valid: NDArray[np.bool_] | None = None
    """Where there is a value. None: everywhere."""

    def __len__(self) -> int:
        return len(self.mantissa)

    def __getitem__(self, index: int) -> Decimal | None:
        """Return one number, exactly; None where there is none."""
        if self.valid is not None and not self.valid[index]:
            return None
        return _decimal(int(self.mantissa[index]), self.exponent)

    def to_list(self) -> list[Decimal | None]:
        """Return all as Decimal, exactly, and None where there is none. Slow: an object each."""
        numbers: list[Decimal | None] = [_decimal(number, self.exponent) for number in self.mantissa.tolist()]
        if self.valid is not None:
            for index in np.flatnonzero(~self.valid).tolist():
                numbers[index] = None
        return numbers

    def to_float(self) -> NDArray[np.float64]:
        """Return all as float64, NaN where there is none. NOT exact: most decimals have no float."""
        power = float(10 ** abs(self.exponent))
        mantissa = self.mantissa.astype(np.float64)
        floats: NDArray[np.float64] = mantissa / power if self.exponent < 0 else mantissa * power
        if self.valid is not None:
            floats[~self.valid] = np.nan
        return floats

    def to_arrow(self) -> pyarrow.Decimal128Array:
        """Return all as decimal128, exactly."""
        import pyarrow

        scale = max(0, -self.exponent)
        kind = pyarrow.decimal128(_DIGITS, scale)
        if self.mantissa.dtype == object or self.exponent > 0:
            return pyarrow.array(self.to_list(), type=kind)
        # Two words each, the lower one first; the upper one is the sign.
        words = np.empty((len(self.mantissa), 2), dtype=np.int64)
        words[:, 0] = self.mantissa
        np.right_shift(self.mantissa, 63, out=words[:, 1])
        valid = None if self.valid is None else pyarrow.py_buffer(np.packbits(self.valid, bitorder="little"))
        return pyarrow.Array.from_buffers(kind, len(self.mantissa), [valid, pyarrow.py_buffer(words)])


@dataclass(frozen=True)
class TickArrays:
    """Ticks of one range as arrays of one length, ordered by (event_time, log_seq)."""

    event_time: NDArray[np.datetime64]
    """The time of each trade by the venue's clock, datetime64[ns], UTC."""
    receive_time: NDArray[np.datetime64]
    """The time at which each trade was received, datetime64[ns], UTC."""
    price: Decimals
    """The prices, exact."""
    quantity: Decimals
    """The quantities, exact; invalid where the source does not tell them."""
    side: NDArray[np.uint8]
    """The aggressor: 0 where the source does not tell it, 1 a buyer, 2 a seller."""
    trade_id: NDArray[Any]
    """The venue's names for the trades: uint64 if all are numbers, else str, empty where there is none."""
    log_seq: NDArray[np.uint64]
    """The position of each tick in its epoch's log."""
    backfill: NDArray[np.bool_]
    """Whether each tick was imported or filled in later."""
    instrument: NDArray[np.uint32]
    """For each tick the index of its instrument in `instruments`."""
    instruments: Sequence[tuple[str, str]]
    """The instruments of these ticks: (venue, symbol)."""
    as_of: Cursor | None
    """The cursor at which the range was read: subscribe after it to go on live. None before the last batch."""
    now: UnixNanos | None
    """The server's now that a period looked back from. None before the last batch."""

    def __len__(self) -> int:
        return len(self.log_seq)

    def to_arrow(self, *, prices: Prices = "decimal") -> pyarrow.Table:
        """Return an Arrow table. Needs pyarrow.

        Args:
            prices: how prices and quantities are held; see `Prices`. Default: exact decimals.
        """
        import pyarrow

        time = pyarrow.timestamp("ns", tz="UTC")
        venues, symbols = zip(*self.instruments, strict=True) if self.instruments else ((), ())
        columns: dict[str, Any] = {
            "event_time": pyarrow.array(self.event_time.view(np.int64)).view(time),
            "venue": self._names(venues),
            "symbol": self._names(symbols),
            **self._numbers(prices, lambda numbers: numbers.to_arrow()),
            "side": pyarrow.DictionaryArray.from_arrays(
                pyarrow.array(self.side.astype(np.int8) - 1, mask=self.side == 0), ["buy", "sell"]
            ),
            "trade_id": pyarrow.array(self.trade_id)
            if self.trade_id.dtype == np.uint64
            else pyarrow.array(self.trade_id, type=pyarrow.string()),
            "receive_time": pyarrow.array(self.receive_time.view(np.int64)).view(time),
            "log_seq": pyarrow.array(self.log_seq),
            "backfill": pyarrow.array(self.backfill),
        }
        return pyarrow.table(columns)

    def to_pandas(self, *, prices: Prices = "decimal") -> pandas.DataFrame:
        """Return a DataFrame of pandas. Needs pandas, and pyarrow for exact decimals.

        Times are datetime64[ns, UTC], names and sides are categories, decimals are of the type decimal128 of pyarrow.

        Args:
            prices: how prices and quantities are held; see `Prices`. Default: exact decimals.
        """
        import pandas

        def exact(numbers: Decimals) -> Any:
            return pandas.arrays.ArrowExtensionArray(numbers.to_arrow())

        venues, symbols = zip(*self.instruments, strict=True) if self.instruments else ((), ())
        columns: dict[str, Any] = {
            "event_time": pandas.DatetimeIndex(self.event_time, tz="UTC"),
            "venue": self._categories(venues),
            "symbol": self._categories(symbols),
            **self._numbers(prices, exact),
            "side": pandas.Categorical.from_codes(self.side.astype(np.int8) - 1, ["buy", "sell"]),
            "trade_id": self.trade_id,
            "receive_time": pandas.DatetimeIndex(self.receive_time, tz="UTC"),
            "log_seq": self.log_seq,
            "backfill": self.backfill,
        }
        return pandas.DataFrame(columns, copy=False)

    def to_polars(self, *, prices: Prices = "decimal") -> polars.DataFrame:
        """Return a DataFrame of polars. Needs polars and pyarrow.

        Args:
            prices: how prices and quantities are held; see `Prices`. Default: exact decimals.
        """
        import polars

        frame = polars.from_arrow(self.to_arrow(prices=prices))
        assert isinstance(frame, polars.DataFrame), "a table becomes a frame"
        return frame

    def _numbers(self, prices: Prices, exact: Any) -> dict[str, Any]:
        if prices == "decimal":
            return {"price": exact(self.price), "quantity": exact(self.quantity)}
        if prices == "float":
            return {"price": self.price.to_float(), "quantity": self.quantity.to_float()}
        if prices == "scaled":
            for numbers in (self.price, self.quantity):
                if numbers.mantissa.dtype == object:
                    raise ValueError("64 bits do not hold these numbers at one exponent: ask for decimals")
            return {"price_mantissa": self.price.mantissa, "quantity_mantissa": self._quantity_mantissa()}
        raise ValueError(f"prices={prices!r}: give decimal, float or scaled")

    def _quantity_mantissa(self) -> NDArray[np.int64]:
        # An integer column of numpy has no other way to say that there is none, and no quantity is negative.
        mantissa: NDArray[np.int64] = self.quantity.mantissa
        return mantissa if self.quantity.valid is None else np.where(self.quantity.valid, mantissa, -1)

    def _names(self, names: Sequence[str]) -> Any:
        import pyarrow

        distinct = sorted(set(names))
        codes = np.array([distinct.index(name) for name in names], dtype=np.int32)
        return pyarrow.DictionaryArray.from_arrays(
            pyarrow.array(codes[self.instrument] if names else codes), pyarrow.array(distinct, type=pyarrow.string())
        )

    def _categories(self, names: Sequence[str]) -> Any:
        import pandas

        distinct = sorted(set(names))
        codes = np.array([distinct.index(name) for name in names], dtype=np.int32)
        return pandas.Categorical.from_codes(codes[self.instrument] if names else codes, distinct)


def arrays(parts: Sequence[_columns.Part], as_of: Cursor | None, now: UnixNanos | None) -> TickArrays:
    """Join the ticks of messages."""
    instruments: dict[tuple[str, str], int] = {}
    for part in parts:
        for entry in part.entries:
            instruments.setdefault((entry.venue, entry.symbol), len(instruments))

    def instrument(part: _columns.Part) -> NDArray[np.uint32]:
        own = np.array([instruments[entry.venue, entry.symbol] for entry in part.entries], dtype=np.uint32)
        return np.repeat(own, part.count) if part.index is None else own[part.index]

    def backfill(part: _columns.Part) -> NDArray[np.bool_]:
        if part.origin is None:
            return np.zeros(part.count, dtype=np.bool_)
        late: NDArray[np.bool_] = part.origin == tick_pb2.ORIGIN_BACKFILL
        return late

    quantities = [part.quantity for part in parts]
    valid = None
    if any(quantity is None or not quantity.all() for quantity in quantities):
        there = [
            np.zeros(part.count, dtype=np.bool_) if part.quantity is None else part.quantity != 0 for part in parts
        ]
        valid = _joined(there, np.bool_)
    quantity, quantity_exponent = _at_one_exponent(
        [
            (part, np.zeros(part.count, dtype=np.int64) if part.quantity is None else _less_one(part.quantity))
            for part in parts
        ],
        "quantity_exponent",
    )
    price, price_exponent = _at_one_exponent([(part, part.price) for part in parts], "price_exponent")
    return TickArrays(
        event_time=_joined([part.event_time for part in parts], np.int64).view("datetime64[ns]"),
        receive_time=_joined([part.receive_time for part in parts], np.int64).view("datetime64[ns]"),
        price=Decimals(price, price_exponent),
        quantity=Decimals(quantity, quantity_exponent, valid),
        side=_joined(
            [np.zeros(part.count, dtype=np.uint8) if part.side is None else part.side for part in parts], np.uint8
        ),
        trade_id=_trade_ids(parts),
        log_seq=_joined([part.log_seq for part in parts], np.uint64),
        backfill=_joined([backfill(part) for part in parts], np.bool_),
        instrument=_joined([instrument(part) for part in parts], np.uint32),
        instruments=list(instruments),
        as_of=as_of,
        now=now,
    )


def _joined(arrays: list[Any], kind: Any) -> Any:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=kind)


def _less_one(quantity: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Read quantities as they are on the wire: one more than their mantissas, and 0 for none."""
    if int(quantity.max()) > _MOST + 1:
        raise ProtocolError("columns.quantity lies above 2^63")
    less: NDArray[np.int64] = np.maximum(quantity, np.uint64(1)).view(np.int64)
    less -= 1
    return less


def _at_one_exponent(parts: list[tuple[_columns.Part, NDArray[np.int64]]], name: str) -> tuple[NDArray[Any], int]:
    """Bring mantissas to the finest exponent of all, in Python's ints if 64 bits are too few."""
    exponents = [[int(getattr(entry, name)) for entry in part.entries] for part, _ in parts]
    finest = min((exponent for each in exponents for exponent in each), default=0)
    scaled: list[NDArray[Any]] = []
    exact = True
    for (part, mantissa), own in zip(parts, exponents, strict=True):
        result: NDArray[Any] = mantissa
        for number, exponent in enumerate(own):
            power = 10 ** (exponent - finest)
            if power == 1:
                continue
            where: Any = slice(None) if part.index is None else part.index == number
            if exact and bool((np.abs(mantissa[where]) <= _MOST // power).all()):
                result = result.copy() if result is mantissa else result
                result[where] *= power
            else:
                exact = False
                result = result.astype(object)
                result[where] *= power
        scaled.append(result)
    joined = _joined(scaled, np.int64)
    return (joined if exact else joined.astype(object)), finest


def _trade_ids(parts: Sequence[_columns.Part]) -> NDArray[Any]:
    if all(part.trade_number is not None for part in parts):
        numbers: NDArray[np.uint64] = _joined([part.trade_number for part in parts], np.uint64)
        return numbers
    texts: list[str] = []
    for part in parts:
        if part.trade_text is not None:
            texts += part.trade_text
        elif part.trade_number is not None:
            texts += map(str, part.trade_number.tolist())
        else:
            texts += [""] * part.count
    return np.array(texts, dtype=object)


def _decimal(mantissa: int, exponent: int) -> Decimal:
    # Text, because arithmetic would round to the digits of this thread's context.
    return Decimal(mantissa * 10**exponent) if exponent >= 0 else Decimal(f"{mantissa}E{exponent}")
