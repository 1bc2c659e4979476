"""What producers send, made from the seed, and what readers make of it: rows and columns to numbers.

Each tick's content follows from the seed, its producer and its batch. It shares no code with the server or its clients.
A trade is named by its trade id, a correction or a cancel by its receive time, because its trade id is that of a trade.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from zlib import crc32

from google.protobuf.timestamp_pb2 import Timestamp
from tapefeed.v1.decimal_pb2 import Decimal
from tapefeed.v1.tick_columns_pb2 import ColumnInstrument, TickColumns
from tapefeed.v1.tick_pb2 import (
    ACTION_CANCEL,
    ACTION_CORRECT,
    ACTION_NEW,
    ORIGIN_BACKFILL,
    ORIGIN_LIVE,
    ORIGIN_UNSPECIFIED,
    Action,
    Side,
    Tick,
    TickBatch,
)

from record import Batch, Correction, Ticks, batch_name, spelled, tick_name

SECOND = 1_000_000_000
# Instruments at the beginning; one more joins with every so many batches of a producer.
FIRST_INSTRUMENTS = 8
NEW_INSTRUMENT_EVERY = 30
MOST_INSTRUMENTS = 40

# Sizes of batches with their weights: the last one exceeds what a message of a stream, or of the bus, may hold.
SIZES = [((1, 5), 30), ((10, 60), 58), ((150, 400), 11), ((2_500, 3_500), 1)]

# The part of ticks that are about an earlier trade, and the part of those that take it back.
CORRECTIONS = 0.04
CANCELS = 0.4
# Trades of a producer that it may come back to: new ones take the places of any. Few, so that some are corrected again.
REMEMBERED = 1_000


# Price, quantity, side and origin.
Values = tuple[tuple[int, int], tuple[int, int] | None, int, int]


def instrument(number: int) -> tuple[str, str]:
    """Name an instrument: venue and symbol."""
    return ("XA", "XB")[number % 2], f"S{number // 2}"


def canonical(mantissa: int, exponent: int) -> tuple[int, int]:
    """Write a decimal without trailing zeros."""
    if mantissa == 0:
        return 0, 0
    while mantissa % 10 == 0:
        mantissa //= 10
        exponent += 1
    return mantissa, exponent


def content_sum(
    venue: str, symbol: str, time: int, price: tuple[int, int], quantity: tuple[int, int] | None, side: int, origin: int
) -> int:
    """Sum up what a tick says."""
    return crc32(f"{venue} {symbol} {time} {price} {quantity} {side} {origin}".encode())


@dataclass(slots=True)
class Made:
    """A tick to send."""

    # Its own name, and that of the trade that it is or is about.
    name: int
    trade: int
    action: Action.ValueType
    instrument: int
    time: int
    # In ten-thousandths, and in hundredths.
    price: int
    quantity: int | None
    side: Side.ValueType


class Source:
    """Makes the batches of one producer, one after the other."""

    def __init__(self, seed: int, start: int, producer: int) -> None:
        """`start`: Unix nanoseconds at which the run began."""
        self._seed = seed
        self._start = start
        self._producer = producer
        self._made = 0
        self._remembered: list[Made] = []

    def batch(self) -> tuple[int, list[Made]]:
        """Make the next batch: its name and its ticks."""
        self._made += 1
        choose = random.Random(f"{self._seed} {self._producer} {self._made}")
        name = batch_name(self._producer, self._made)
        (least, most), _ = choose.choices(SIZES, [weight for _, weight in SIZES])[0]
        known = min(FIRST_INSTRUMENTS + self._made // NEW_INSTRUMENT_EVERY, MOST_INSTRUMENTS)
        chosen = [choose.randrange(known) for _ in range(choose.randint(1, 6))]
        ticks = []
        for index in range(choose.randint(least, most)):
            if self._remembered and choose.random() < CORRECTIONS:
                ticks.append(self._correction(choose, tick_name(name, index)))
            else:
                ticks.append(self._trade(choose, tick_name(name, index), choose.choice(chosen)))
        return name, ticks

    def _trade(self, choose: random.Random, name: int, number: int) -> Made:
        # Every third instrument trades today, the others on a day that is over and tidied up. Some ticks are late.
        age = 600 if number % 3 == 0 else 26 * 3_600
        late = choose.randrange(30) if choose.random() < 0.1 else 0
        trade = Made(
            name=name,
            trade=name,
            action=ACTION_NEW,
            instrument=number,
            time=self._start - (age + late) * SECOND + self._made * 3_000_000 + choose.randrange(1_000),
            price=_price(choose),
            quantity=_quantity(choose),
            side=_side(choose),
        )
        if len(self._remembered) < REMEMBERED:
            self._remembered.append(trade)
        else:
            self._remembered[choose.randrange(REMEMBERED)] = trade
        return trade

    def _correction(self, choose: random.Random, name: int) -> Made:
        trade = choose.choice(self._remembered)
        if choose.random() < CANCELS:
            side = Side.SIDE_UNSPECIFIED
            return replace(trade, name=name, action=ACTION_CANCEL, price=0, quantity=None, side=side)
        price, quantity, side = _price(choose), _quantity(choose), _side(choose)
        return replace(trade, name=name, action=ACTION_CORRECT, price=price, quantity=quantity, side=side)


def _price(choose: random.Random) -> int:
    return choose.randrange(-500, 10_000_000)


def _quantity(choose: random.Random) -> int | None:
    return None if choose.random() < 0.1 else choose.randrange(100_000)


def _side(choose: random.Random) -> Side.ValueType:
    return choose.choice((Side.SIDE_UNSPECIFIED, Side.SIDE_BUY, Side.SIDE_SELL))


def sum_of_trade(tick: Made, origin: int) -> int:
    """Sum up what a trade will say by a made tick."""
    venue, symbol = instrument(tick.instrument)
    quantity = None if tick.quantity is None else canonical(tick.quantity, -2)
    return content_sum(venue, symbol, tick.time, canonical(tick.price, -4), quantity, tick.side, origin)


def sum_of_correction(action: int, trade: int, content: int) -> int:
    """Sum up what a tick says that is about a trade: `content` is what the trade would say by it."""
    return crc32(f"{action} {trade} {content}".encode())


def record_of(ticks: list[Made], backfill: bool) -> Batch:
    """Make the record of a batch before it is sent."""
    origin = ORIGIN_BACKFILL if backfill else ORIGIN_LIVE
    contents, corrections = array("I"), {}
    for index, tick in enumerate(ticks):
        content = sum_of_trade(tick, origin)
        if tick.action != ACTION_NEW:
            corrections[index] = Correction(tick.trade, None if tick.action == ACTION_CANCEL else content)
            content = sum_of_correction(tick.action, tick.trade, content)
        contents.append(content)
    return Batch(
        array("H", [tick.instrument for tick in ticks]),
        contents,
        array("I", [tick.quantity or 0 for tick in ticks]),
        backfill,
        corrections=corrections,
    )


def rows(ticks: list[Made]) -> TickBatch:
    """Write ticks as rows."""
    message = TickBatch()
    for tick in ticks:
        venue, symbol = instrument(tick.instrument)
        row = message.ticks.add(venue=venue, symbol=symbol, side=tick.side, trade_id=spelled(tick.trade))
        row.event_time.CopyFrom(Timestamp(seconds=tick.time // SECOND, nanos=tick.time % SECOND))
        if tick.action != ACTION_NEW:
            row.action = tick.action
            row.receive_time.CopyFrom(Timestamp(seconds=tick.name // SECOND, nanos=tick.name % SECOND))
        if tick.action != ACTION_CANCEL:
            mantissa, exponent = canonical(tick.price, -4)
            row.price.CopyFrom(Decimal(mantissa=mantissa, exponent=exponent))
        if tick.quantity is not None:
            mantissa, exponent = canonical(tick.quantity, -2)
            row.quantity.CopyFrom(Decimal(mantissa=mantissa, exponent=exponent))
    return message


def columns(ticks: list[Made]) -> TickColumns:
    """Write ticks as columns."""
    message = TickColumns(trade_id=[spelled(tick.trade) for tick in ticks], side=[tick.side for tick in ticks])
    places: dict[int, int] = {}
    last_price: dict[int, int] = {}
    last_time = 0
    for tick in ticks:
        place = places.get(tick.instrument)
        if place is None:
            place = places[tick.instrument] = len(places)
            venue, symbol = instrument(tick.instrument)
            message.instruments.append(
                ColumnInstrument(venue=venue, symbol=symbol, price_exponent=-4, quantity_exponent=-2)
            )
        message.instrument_index.append(place)
        message.event_time_unix_nano_delta.append(tick.time - last_time)
        last_time = tick.time
        if tick.action == ACTION_CANCEL:
            message.price_mantissa.append(0)
        else:
            message.price_mantissa.append(tick.price - last_price.get(place, 0))
            last_price[place] = tick.price
        message.quantity.append(0 if tick.quantity is None else tick.quantity + 1)
    if any(tick.action != ACTION_NEW for tick in ticks):
        message.action.extend(tick.action for tick in ticks)
        # All ticks of a message have a receive time, or none.
        last_name = 0
        for tick in ticks:
            message.receive_time_unix_nano_delta.append(tick.name - last_name)
            last_name = tick.name
    return message


def name_in(trade_id: str) -> int:
    """Read the name of a tick; 0 if nobody of us made it."""
    try:
        producer, number, index = map(int, trade_id.split("-"))
    except ValueError:
        return 0
    return tick_name(batch_name(producer, number), index)


def nanos(time: Timestamp) -> int:
    """Unix nanoseconds of a time."""
    return time.seconds * SECOND + time.nanos


def _note(
    into: Ticks, log_seq: int, action: int, trade_id: str, stamp: int, told: tuple[str, str, int], values: Values
) -> None:
    """Note a tick that was told: venue, symbol and event time, and its values, which a cancel has none of."""
    name = name_in(trade_id)
    price, quantity, side, origin = values
    if action == ACTION_CANCEL:
        price, quantity, side = (0, 0), None, Side.SIDE_UNSPECIFIED
    said = content_sum(*told, price, quantity, side, origin)
    if action != ACTION_NEW:
        name, said = stamp, sum_of_correction(action, name, said)
    into.add(log_seq, name, said, crc32(b"%d" % stamp))


def read_row(row: Tick, into: Ticks) -> int:
    """Note a row, and return its event time."""
    price, time = row.price, nanos(row.event_time)
    quantity = (row.quantity.mantissa, row.quantity.exponent) if row.HasField("quantity") else None
    values = ((price.mantissa, price.exponent), quantity, row.side, row.origin)
    told = (row.venue, row.symbol, time)
    _note(into, row.log_seq, row.action, row.trade_id, nanos(row.receive_time), told, values)
    return time


def read_columns(message: TickColumns, names: Callable[[int], tuple[str, str]], into: Ticks) -> None:
    """Note the ticks of a message of columns. `names` knows the names of instruments by their numbers."""
    table = [
        (*names(entry.instrument_id), entry.price_exponent, entry.quantity_exponent) for entry in message.instruments
    ]
    count = len(message.instrument_index)
    prices = [0] * len(table)
    log_seqs = _summed(message.log_seq_delta)
    times = _summed(message.event_time_unix_nano_delta)
    stamps = _summed(message.receive_time_unix_nano_delta)
    quantities = message.quantity or [0] * count
    sides = message.side or [Side.SIDE_UNSPECIFIED] * count
    origins = message.origin or [ORIGIN_LIVE] * count
    ids = message.trade_id or [""] * count
    actions = message.action or [ACTION_NEW] * count
    for place, log_seq, time, stamp, delta, quantity, side, origin, trade_id, action in zip(
        message.instrument_index,
        log_seqs,
        times,
        stamps,
        message.price_mantissa,
        quantities,
        sides,
        origins,
        ids,
        actions,
        strict=True,
    ):
        venue, symbol, price_exponent, quantity_exponent = table[place]
        prices[place] += delta
        price = canonical(prices[place], price_exponent)
        amount = canonical(quantity - 1, quantity_exponent) if quantity else None
        values = (price, amount, side, origin or ORIGIN_UNSPECIFIED)
        _note(into, log_seq, action, trade_id, stamp, (venue, symbol, time), values)


def _summed(deltas: Iterable[int]) -> Iterator[int]:
    value = 0
    for delta in deltas:
        value += delta
        yield value
