"""What producers send, made from the seed, and what readers make of it: rows and columns to numbers.

Each tick's content follows from the seed, its producer and its batch. It shares no code with the server or its clients.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from zlib import crc32

from google.protobuf.timestamp_pb2 import Timestamp
from tapefeed.v1.decimal_pb2 import Decimal
from tapefeed.v1.tick_columns_pb2 import ColumnInstrument, TickColumns
from tapefeed.v1.tick_pb2 import ORIGIN_BACKFILL, ORIGIN_LIVE, ORIGIN_UNSPECIFIED, Side, Tick, TickBatch

from record import Batch, Ticks, batch_name, spelled, tick_name

SECOND = 1_000_000_000
# Instruments at the beginning; one more joins with every so many batches of a producer.
FIRST_INSTRUMENTS = 8
NEW_INSTRUMENT_EVERY = 30
MOST_INSTRUMENTS = 40

# Sizes of batches with their weights: the last one exceeds what a message of a stream, or of the bus, may hold.
SIZES = [((1, 5), 30), ((10, 60), 58), ((150, 400), 11), ((2_500, 3_500), 1)]


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

    instrument: int
    time: int
    # In ten-thousandths, and in hundredths.
    price: int
    quantity: int | None
    side: Side.ValueType


@dataclass(frozen=True)
class Source:
    """Makes the batches of a run."""

    seed: int
    # Unix nanoseconds at which the run began.
    start: int

    def batch(self, producer: int, number: int) -> list[Made]:
        """Make the ticks of a batch."""
        choose = random.Random(f"{self.seed} {producer} {number}")
        (least, most), _ = choose.choices(SIZES, [weight for _, weight in SIZES])[0]
        known = min(FIRST_INSTRUMENTS + number // NEW_INSTRUMENT_EVERY, MOST_INSTRUMENTS)
        chosen = [choose.randrange(known) for _ in range(choose.randint(1, 6))]
        return [self._tick(choose, choose.choice(chosen), number) for _ in range(choose.randint(least, most))]

    def _tick(self, choose: random.Random, number: int, batch: int) -> Made:
        # Every third instrument trades today, the others on a day that is over and tidied up. Some ticks are late.
        age = 600 if number % 3 == 0 else 26 * 3_600
        late = choose.randrange(30) if choose.random() < 0.1 else 0
        return Made(
            instrument=number,
            time=self.start - (age + late) * SECOND + batch * 3_000_000 + choose.randrange(1_000),
            price=choose.randrange(-500, 10_000_000),
            quantity=None if choose.random() < 0.1 else choose.randrange(100_000),
            side=choose.choice((Side.SIDE_UNSPECIFIED, Side.SIDE_BUY, Side.SIDE_SELL)),
        )


def sums_of(tick: Made, origin: int) -> int:
    """Sum up what a made tick will say."""
    venue, symbol = instrument(tick.instrument)
    quantity = None if tick.quantity is None else canonical(tick.quantity, -2)
    return content_sum(venue, symbol, tick.time, canonical(tick.price, -4), quantity, tick.side, origin)


def record_of(ticks: list[Made], backfill: bool) -> Batch:
    """Make the record of a batch before it is sent."""
    origin = ORIGIN_BACKFILL if backfill else ORIGIN_LIVE
    return Batch(
        array("H", [tick.instrument for tick in ticks]),
        array("I", [sums_of(tick, origin) for tick in ticks]),
        array("I", [tick.quantity or 0 for tick in ticks]),
        backfill,
    )


def trade_ids(producer: int, number: int, count: int) -> list[str]:
    """Spell the names of a batch's ticks."""
    batch = batch_name(producer, number)
    return [spelled(tick_name(batch, index)) for index in range(count)]


def rows(ticks: list[Made], ids: list[str]) -> TickBatch:
    """Write ticks as rows."""
    message = TickBatch()
    for tick, trade_id in zip(ticks, ids, strict=True):
        venue, symbol = instrument(tick.instrument)
        row = message.ticks.add(venue=venue, symbol=symbol, side=tick.side, trade_id=trade_id)
        row.event_time.CopyFrom(Timestamp(seconds=tick.time // SECOND, nanos=tick.time % SECOND))
        mantissa, exponent = canonical(tick.price, -4)
        row.price.CopyFrom(Decimal(mantissa=mantissa, exponent=exponent))
        if tick.quantity is not None:
            mantissa, exponent = canonical(tick.quantity, -2)
            row.quantity.CopyFrom(Decimal(mantissa=mantissa, exponent=exponent))
    return message


def columns(ticks: list[Made], ids: list[str]) -> TickColumns:
    """Write ticks as columns."""
    message = TickColumns(trade_id=ids, side=[tick.side for tick in ticks])
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
        message.price_mantissa.append(tick.price - last_price.get(place, 0))
        message.quantity.append(0 if tick.quantity is None else tick.quantity + 1)
        last_time, last_price[place] = tick.time, tick.price
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


def read_row(row: Tick, into: Ticks) -> int:
    """Note a row, and return its event time."""
    price, time = row.price, nanos(row.event_time)
    quantity = (row.quantity.mantissa, row.quantity.exponent) if row.HasField("quantity") else None
    said = content_sum(row.venue, row.symbol, time, (price.mantissa, price.exponent), quantity, row.side, row.origin)
    into.add(row.log_seq, name_in(row.trade_id), said, crc32(b"%d" % nanos(row.receive_time)))
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
    for place, log_seq, time, stamp, delta, quantity, side, origin, trade_id in zip(
        message.instrument_index,
        log_seqs,
        times,
        stamps,
        message.price_mantissa,
        quantities,
        sides,
        origins,
        ids,
        strict=True,
    ):
        venue, symbol, price_exponent, quantity_exponent = table[place]
        prices[place] += delta
        price = canonical(prices[place], price_exponent)
        amount = canonical(quantity - 1, quantity_exponent) if quantity else None
        said = content_sum(venue, symbol, time, price, amount, side, origin or ORIGIN_UNSPECIFIED)
        into.add(log_seq, name_in(trade_id), said, crc32(b"%d" % stamp))


def _summed(deltas: Iterable[int]) -> Iterator[int]:
    value = 0
    for delta in deltas:
        value += delta
        yield value
