"""History: every value exact, pages, cursors; over a real server."""

from __future__ import annotations

import asyncio
import decimal
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from conftest import Server

import tapefeed
import tapefeed.aio
from tapefeed import Cursor, Method, NewTick, Origin, Side, UnixNanos

NANOS = UnixNanos("2024-08-08T23:54:15.342000789Z")
PRICES = ["195.52", "9.000000000000000001", "0", "-3.25", "300", "999999999999999"]


def exact_sum(numbers: list[Decimal]) -> Decimal:
    with decimal.localcontext() as context:
        context.prec = 100
        return sum(numbers, Decimal(0))


@pytest.fixture(scope="module")
def published(shared_server: Server) -> Iterator[Cursor]:
    ticks = [
        NewTick("H1", "HIST", NANOS + index, price, 10 * index or None, side="buy", trade_id=f"t{index}")
        for index, price in enumerate(PRICES)
    ]
    ticks.append(NewTick("H2", "HIST", NANOS + 100, "7.5", "0.125", side=Side.SELL, receive_time=NANOS + 111))
    with tapefeed.Client(shared_server.address) as client, client.publisher("history") as publisher:
        publisher.send_all(ticks)
        cursor = publisher.flush().cursor
    assert cursor is not None
    yield cursor


def test_ticks_are_exact_to_the_nanosecond_and_the_last_decimal(client: tapefeed.Client, published: Cursor) -> None:
    ticks = client.ticks("HIST", min_cursor=published)
    assert ticks.as_of is None
    found = list(ticks)
    assert [tick.event_time for tick in found] == [*range(NANOS, NANOS + 6), NANOS + 100]
    assert [tick.price for tick in found] == [*map(Decimal, PRICES), Decimal("7.5")]
    assert [tick.quantity for tick in found] == [None, 10, 20, 30, 40, 50, Decimal("0.125")]
    assert found[0].event_time.isoformat() == "2024-08-08T23:54:15.342000789Z"
    assert (found[0].side, found[0].trade_id, found[0].venue) == (Side.BUY, "t0", "H1")
    assert found[0].origin is Origin.LIVE and found[0].action is tapefeed.Action.NEW
    assert found[-1].side is Side.SELL and found[-1].receive_time == NANOS + 111
    assert [tick.log_seq for tick in found] == sorted({tick.log_seq for tick in found})
    assert ticks.as_of is not None and ticks.now is not None
    assert NewTick.of(found[-1]) == NewTick(
        "H2", "HIST", NANOS + 100, "7.5", "0.125", side="sell", receive_time=NANOS + 111
    )


def test_pages_limits_ranges_and_both_directions(client: tapefeed.Client, published: Cursor) -> None:
    everything = list(client.ticks("HIST", min_cursor=published))
    assert list(client.ticks("HIST", page_size=2)) == everything
    assert [len(page.items) for page in client.ticks("HIST", page_size=3).pages()] == [3, 3, 1]
    assert list(client.ticks("HIST", reverse=True, page_size=2, limit=3)) == everything[:-4:-1]
    assert list(client.ticks("HIST", limit=4, page_size=3)) == everything[:4]
    assert list(client.ticks("HIST", venue="H2")) == everything[-1:]
    assert list(client.ticks("HIST", start=NANOS + 1, end=str(UnixNanos(NANOS + 3)))) == everything[1:3]
    assert list(client.ticks("HIST", period=timedelta(hours=1))) == []
    assert list(client.ticks("HIST", period="1d")) == []


def test_answers_are_exact_and_name_their_position(client: tapefeed.Client, published: Cursor) -> None:
    latest = client.latest([("HIST", "H1"), tapefeed.Selector("HIST")], min_cursor=published)
    assert [each.tick.venue for each in latest.ticks] == ["H1", "H2"]
    assert latest.ticks[0].tick.event_time == NANOS + 5
    assert latest.ticks[0].age_nanos == latest.now - latest.ticks[0].tick.event_time
    assert latest.as_of is not None and latest.without_data == []
    assert client.latest("HIST", venue="H2").ticks[0].tick.price == Decimal("7.5")

    prices = list(map(Decimal, PRICES))
    mean = client.average("HIST", venue="H1", decimals=18)
    assert mean.method is Method.MEAN and mean.tick_count == 6
    assert mean.price_sum == exact_sum(prices) == Decimal("1000000000000500.270000000000000001")
    assert mean.price == Decimal("166666666666750.045")
    assert (mean.first_event_time, mean.last_event_time) == (NANOS, NANOS + 5)
    assert mean.as_of is not None and mean.time_weight_nanos is None and mean.time_weighted_sum is None
    vwap = client.average("HIST", venue="H2", method="vwap")
    assert vwap.price == Decimal("7.5") and vwap.notional == Decimal("0.9375") and vwap.volume == Decimal("0.125")
    twap = client.average("HIST", venue="H1", method=Method.TWAP, end=NANOS + 4, decimals=36)
    assert twap.time_weight_nanos == 4 and twap.time_weighted_sum == exact_sum(prices[:4]) / 10**9
    assert twap.price == exact_sum(prices[:4]) / 4

    statistics = client.statistics("HIST", venue="H1")
    assert statistics.tick_count == 6
    for point, price in (
        (statistics.first, "195.52"),
        (statistics.last, "999999999999999"),
        (statistics.highest, "999999999999999"),
        (statistics.lowest, "-3.25"),
    ):
        assert point is not None and point.price == Decimal(price) and point.symbol == "HIST"
    assert statistics.price_sum == exact_sum(prices)
    empty = client.statistics("HIST", end=1)
    assert (empty.tick_count, empty.first, empty.mean, empty.vwap) == (0, None, None, None)


def test_bars_of_a_range_and_the_last_ones(client: tapefeed.Client, published: Cursor) -> None:
    bars = client.bars("HIST", "1m", venue="H1", include_forming=True, decimals=3, min_cursor=published)
    (bar,) = list(bars)
    prices = list(map(Decimal, PRICES))
    assert (bar.open, bar.high, bar.low, bar.close) == (prices[0], prices[5], prices[3], prices[5])
    assert (bar.open_time, bar.high_time, bar.low_time, bar.close_time) == (NANOS, NANOS + 5, NANOS + 3, NANOS + 5)
    assert bar.start.isoformat() == "2024-08-08T23:54:00.000000000Z" and bar.end - bar.start == 60 * 10**9
    assert (bar.tick_count, bar.volume, bar.is_final, bar.has_source_gap) == (6, Decimal(150), False, False)
    assert bar.notional == exact_sum([price * 10 * index for index, price in enumerate(prices)])
    assert bar.vwap is not None and abs(bar.vwap * 150 - bar.notional) <= Decimal("0.075")
    assert bars.as_of is not None and bar.revision > 0 and bar.instrument_id is not None
    assert list(client.bars("HIST", "1m")) == []
    (pooled,) = client.bars("HIST", timedelta(days=1), last=3, include_forming=True)
    assert (pooled.venue, pooled.instrument_id, pooled.tick_count) == ("", None, 7)
    filled = client.bars("HIST", "1s", venue="H1", start=NANOS - 10**9, end=NANOS + 10**9, fill="null", page_size=1)
    assert [(each.tick_count, each.open, each.vwap) for each in filled] == []
    with pytest.raises(ValueError):
        client.bars("HIST", "1m", last=0)
    with pytest.raises(tapefeed.InvalidArgument):
        list(client.bars("HIST", "90001s"))


def test_moving_averages_over_ticks_and_bars(client: tapefeed.Client, published: Cursor) -> None:
    prices = list(map(Decimal, PRICES))
    simple = list(client.moving_averages("HIST", 3, venue="H1", decimals=18, page_size=2, min_cursor=published))
    assert [point.end_time for point in simple] == [NANOS + index for index in range(2, 6)]
    assert [point.price for point in simple] == prices[2:]
    assert abs(simple[0].average - exact_sum(prices[:3]) / 3) < Decimal("1e-17")
    exponential = list(client.moving_averages("HIST", 3, venue="H1", exponential=True, decimals=36, start=NANOS + 3))
    assert exponential[1].average == (exponential[0].average + prices[4]) / 2
    assert list(client.moving_averages("HIST", 1, interval="1m")) == []
    with pytest.raises(tapefeed.InvalidArgument):
        list(client.moving_averages("HIST", 0))


def test_instruments(client: tapefeed.Client, published: Cursor) -> None:
    found = list(client.instruments("HIST", page_size=1, min_cursor=published))
    assert [(each.venue, each.tick_count) for each in found] == [("H1", 6), ("H2", 1)]
    one = client.instrument("HIST", venue="H1")
    assert one.price_decimals == 18 and one.quantity_decimals == 0 and one.as_of is not None
    assert one.first_tick is not None and one.first_tick.event_time == NANOS
    assert one.last_tick is not None and one.last_tick.event_time == NANOS + 5
    assert list(client.instruments(venue="nowhere")) == []


def test_the_same_from_asyncio(shared_server: Server, client: tapefeed.Client, published: Cursor) -> None:
    everything = list(client.ticks("HIST", min_cursor=published))

    async def ask() -> None:
        async with tapefeed.aio.Client(shared_server.address) as asking:
            ticks = asking.ticks("HIST", page_size=2, min_cursor=published)
            assert [tick async for tick in ticks] == everything
            assert ticks.as_of is not None and ticks.now is not None
            assert [tick async for tick in asking.ticks("HIST", limit=3, page_size=2)] == everything[:3]
            assert [len(page.items) async for page in asking.ticks("HIST", page_size=3).pages()] == [3, 3, 1]
            latest, mean, statistics, one = await asyncio.gather(
                asking.latest(["HIST"]),
                asking.average("HIST", venue="H1"),
                asking.statistics("HIST"),
                asking.instrument("HIST", venue="H1"),
            )
            assert [each.tick for each in latest.ticks] == [everything[5], everything[6]]
            assert mean.price == client.average("HIST", venue="H1").price
            assert statistics.tick_count == 7
            assert one.instrument_id == everything[0].instrument_id
            assert [each.venue async for each in asking.instruments("HIST")] == ["H1", "H2"]
            bars = [bar async for bar in asking.bars("HIST", "1m", include_forming=True)]
            assert bars == list(client.bars("HIST", "1m", include_forming=True)) and len(bars) == 1
            with pytest.raises(tapefeed.InstrumentUnknown):
                await asking.average("NOBODY")
        with pytest.raises(tapefeed.Closed):
            await asking.latest("HIST")

    asyncio.run(ask())
