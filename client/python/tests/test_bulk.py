"""Reading in bulk: the same ticks as a list of them, as arrays and tables, exact, and whole after cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pytest
from conftest import Proxy, Server

import tapefeed
import tapefeed.aio
from tapefeed import Cursor, NewTick, Side, Tick, UnixNanos
from tapefeed.arrays import TickArrays

NANOS = UnixNanos("2024-08-08T23:54:15.342000789Z")
SIDES = (None, Side.BUY, Side.SELL)


def publish(client: tapefeed.Client, ticks: list[NewTick]) -> Cursor:
    with client.publisher("bulk-" + ticks[0].symbol) as publisher:
        publisher.send_all(ticks)
        cursor = publisher.flush().cursor
    assert cursor is not None
    return cursor


@pytest.fixture(scope="module")
def odd(shared_server: Server) -> Iterator[Cursor]:
    """Ticks of two venues with everything that is hard to hold in arrays."""
    prices = ["195.52", "9.000000000000000001", "0", "-3.25", "300", "999999999999999"]
    ids = ["7", "", "x\u00e4", "18446744073709551615"]
    with tapefeed.Client(shared_server.address) as client:
        yield publish(
            client,
            [
                NewTick(
                    "B1" if index % 3 else "B2",
                    "ODD",
                    NANOS + index // 2,
                    prices[index % 6],
                    None if index % 5 == 0 else f"{index}.5",
                    side=SIDES[index % 3],
                    trade_id=ids[index % 4],
                    receive_time=NANOS + 7 * index,
                )
                for index in range(500)
            ],
        )


@pytest.fixture(scope="module")
def plain(shared_server: Server) -> Iterator[Cursor]:
    """Ticks of one instrument as most are: cents, and names that count."""
    with tapefeed.Client(shared_server.address) as client:
        yield publish(
            client,
            [
                NewTick(
                    "B", "PLAIN", NANOS + index, f"{100 + index % 7}.{index % 100:02}", index + 1, trade_id=str(index)
                )
                for index in range(20_000)
            ],
        )


def check(arrays: TickArrays, ticks: list[Tick]) -> None:
    """Compare every value of arrays with a list."""
    assert len(arrays) == len(ticks)
    assert arrays.event_time.dtype == arrays.receive_time.dtype == np.dtype("datetime64[ns]")
    assert arrays.event_time.view(np.int64).tolist() == [tick.event_time for tick in ticks]
    assert arrays.receive_time.view(np.int64).tolist() == [tick.receive_time for tick in ticks]
    assert arrays.price.to_list() == [tick.price for tick in ticks]
    assert arrays.quantity.to_list() == [tick.quantity for tick in ticks]
    assert [SIDES[side] for side in arrays.side.tolist()] == [tick.side for tick in ticks]
    assert [str(name) for name in arrays.trade_id.tolist()] == [tick.trade_id for tick in ticks]
    assert arrays.log_seq.tolist() == [tick.log_seq for tick in ticks]
    names = [arrays.instruments[index] for index in arrays.instrument.tolist()]
    assert names == [(tick.venue, tick.symbol) for tick in ticks]
    assert not arrays.backfill.any()


def test_arrays_hold_what_a_list_holds(client: tapefeed.Client, odd: Cursor, plain: Cursor) -> None:
    for symbol, cursor in (("ODD", odd), ("PLAIN", plain)):
        arrays = client.read_ticks(symbol, min_cursor=cursor)
        ticks = list(client.ticks(symbol, page_size=10_000))
        check(arrays, ticks)
        assert arrays.as_of is not None and arrays.now is not None
        assert arrays.price[1] == ticks[1].price and arrays.quantity[0] == ticks[0].quantity
    assert arrays.price.mantissa.dtype == np.int64 and arrays.price.exponent == -2
    assert arrays.quantity.valid is None and arrays.trade_id.dtype == np.uint64
    one = client.read_ticks("ODD", venue="B2", start=NANOS + 10, end=NANOS + 20)
    check(one, list(client.ticks("ODD", venue="B2", start=NANOS + 10, end=NANOS + 20)))


def test_batches_are_the_whole_in_parts(client: tapefeed.Client, plain: Cursor) -> None:
    whole = client.read_ticks("PLAIN", min_cursor=plain)
    batches = list(client.read_tick_batches("PLAIN", batch_size=1))
    assert len(batches) > 2
    assert [batch.as_of is None for batch in batches] == [True] * (len(batches) - 1) + [False]
    assert np.concatenate([batch.log_seq for batch in batches]).tolist() == whole.log_seq.tolist()
    assert [price for batch in batches for price in batch.price.to_list()] == whole.price.to_list()
    with client.read_tick_batches("PLAIN", batch_size=1) as some:
        next(some)
    assert list(some) == []
    with pytest.raises(ValueError, match="batch_size=0"):
        client.read_tick_batches("PLAIN", batch_size=0)


def test_nothing_and_nobody(client: tapefeed.Client, plain: Cursor) -> None:
    empty = client.read_ticks("PLAIN", end=1, min_cursor=plain)
    assert len(empty) == 0 and empty.as_of is not None
    assert len(empty.to_pandas()) == len(empty.to_polars()) == len(empty.to_arrow()) == 0
    with pytest.raises(tapefeed.InstrumentUnknown):
        client.read_ticks("NOBODY")
    with pytest.raises(tapefeed.RangeInverted):
        client.read_ticks("PLAIN", start=2, end=1)


@pytest.mark.parametrize("symbol", ["ODD", "PLAIN"])
def test_tables_hold_every_digit(client: tapefeed.Client, odd: Cursor, plain: Cursor, symbol: str) -> None:
    client.read_ticks("ODD", min_cursor=odd)
    arrays = client.read_ticks(symbol, min_cursor=plain)
    ticks = list(client.ticks(symbol, page_size=10_000))
    table = arrays.to_arrow()
    assert pyarrow.types.is_decimal128(table.schema.field("price").type)
    assert table.schema.field("event_time").type == pyarrow.timestamp("ns", tz="UTC")
    frame, polar = arrays.to_pandas(), arrays.to_polars()

    def same(column: str, expected: list[Any]) -> None:
        assert table[column].to_pylist() == expected
        assert polar[column].to_list() == expected
        told = frame[column]
        assert [None if none else value for value, none in zip(told, told.isna(), strict=True)] == expected

    same("price", [tick.price for tick in ticks])
    same("quantity", [tick.quantity for tick in ticks])
    same("venue", [tick.venue for tick in ticks])
    same("symbol", [tick.symbol for tick in ticks])
    same("side", [tick.side and str(tick.side) for tick in ticks])
    same("log_seq", [tick.log_seq for tick in ticks])
    assert [str(name) for name in table["trade_id"].to_pylist()] == [tick.trade_id for tick in ticks]
    nanos = [int(tick.event_time) for tick in ticks]
    assert table["event_time"].cast(pyarrow.int64()).to_pylist() == nanos
    assert frame["event_time"].astype("int64").tolist() == nanos
    assert polar["event_time"].dt.timestamp("ns").to_list() == nanos
    assert isinstance(frame.dtypes["event_time"], pandas.DatetimeTZDtype) and polar.schema["price"] == polars.Decimal(
        38, -arrays.price.exponent
    )


def test_floats_and_mantissas_only_when_asked(client: tapefeed.Client, odd: Cursor, plain: Cursor) -> None:
    arrays = client.read_ticks("PLAIN", min_cursor=plain)
    floats = arrays.to_pandas(prices="float")
    assert floats["price"].dtype == np.float64
    assert floats["price"].tolist() == [float(price) for price in arrays.price.to_list() if price is not None]
    scaled = arrays.to_polars(prices="scaled")
    assert scaled["price_mantissa"].to_list() == arrays.price.mantissa.tolist()
    wide = client.read_ticks("ODD", min_cursor=odd)
    assert wide.price.mantissa.dtype == object and wide.price.exponent == -18
    assert wide.price[1] in (Decimal("9.000000000000000001"), Decimal("195.52"))
    with pytest.raises(ValueError, match="64 bits"):
        wide.to_pandas(prices="scaled")
    with pytest.raises(ValueError, match="give decimal, float or scaled"):
        arrays.to_arrow(prices="money")  # type: ignore[arg-type]
    assert np.isnan(wide.to_arrow(prices="float")["quantity"].to_numpy()).sum() == 100


def test_a_reading_goes_on_after_cuts(server: Server, proxy: Proxy) -> None:
    with tapefeed.Client(server.address) as writer:
        count = 200_000
        cursor = publish(
            writer, [NewTick("B", "CUT", NANOS + index, index + 1, trade_id=f"t{index}") for index in range(count)]
        )
        proxy.cuts_after = [300_000, 700_000, 500_000]
        with tapefeed.Client(proxy.address) as client:
            batches = client.read_tick_batches("CUT", batch_size=1, min_cursor=cursor)
            log_seqs = [log_seq for batch in batches for log_seq in batch.log_seq.tolist()]
        assert proxy.cuts_after == [] and proxy.connections == 4
        assert log_seqs == writer.read_ticks("CUT").log_seq.tolist()
        assert len(log_seqs) == count


def test_the_same_from_asyncio(shared_server: Server, client: tapefeed.Client, plain: Cursor) -> None:
    whole = client.read_ticks("PLAIN", min_cursor=plain)

    async def read() -> None:
        async with tapefeed.aio.Client(shared_server.address) as reading:
            arrays = await reading.read_ticks("PLAIN")
            assert arrays.log_seq.tolist() == whole.log_seq.tolist() and arrays.as_of is not None
            batches = [batch async for batch in reading.read_tick_batches("PLAIN", batch_size=1)]
            assert sum(map(len, batches)) == len(whole) and len(batches) > 2
            async with reading.read_tick_batches("PLAIN", batch_size=1) as some:
                await anext(some)
            with pytest.raises(tapefeed.InstrumentUnknown):
                await reading.read_ticks("NOBODY")

    asyncio.run(read())
