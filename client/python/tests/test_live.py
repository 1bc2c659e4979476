"""Live ticks: exactly once, over kills, cuts and silence; over a real server."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal

import pytest
from conftest import PATIENCE, Proxy, Server, until

import tapefeed
import tapefeed.aio
from tapefeed import Cursor, Disconnected, NewTick, Origin, Reconnected, ReplayCompleted, Subscribed, Tick, Ticks

START = tapefeed.UnixNanos("2024-08-08T23:54:15.342000789Z")


def publish(address: str, symbol: str, count: int, first: int = 0, *, backfill: bool = False) -> Cursor:
    """Publish ticks that are numbered by their nanoseconds."""
    with tapefeed.Client(address) as client, client.publisher(f"for-{symbol}", backfill=backfill) as publisher:
        publisher.send_all(NewTick("L", symbol, START + index, index) for index in range(first, first + count))
        cursor = publisher.flush().cursor
    assert cursor is not None
    return cursor


def numbers(ticks: list[Tick]) -> list[int]:
    return [tick.event_time - START for tick in ticks]


def begin(address: str, symbol: str) -> Cursor:
    """Make the instrument, and return the cursor from which everything that follows is seen."""
    return publish(address, symbol, 1)


class Publishing:
    """A thread that publishes without end, over every kill of the server, in small batches."""

    def __init__(self, address: str, symbol: str) -> None:
        self.sent = 0
        self._stop = threading.Event()
        self._client = tapefeed.Client(address, reconnect_delays=(0.02, 0.2))
        self._publisher = self._client.publisher(f"for-{symbol}", batch_size=7, linger=0.001)
        self._symbol = symbol
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.002):
            for _ in range(10):
                self.sent += 1
                self._publisher.send(NewTick("L", self._symbol, START + self.sent, self.sent))

    def __enter__(self) -> Publishing:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self._publisher.close(PATIENCE)
        self._client.close()


def test_a_list_goes_on_live_without_a_hole_or_a_repeat(client: tapefeed.Client, shared_server: Server) -> None:
    ticks = client.ticks("CONTINUE", min_cursor=publish(shared_server.address, "CONTINUE", 5))
    assert numbers(list(ticks)) == [0, 1, 2, 3, 4]
    publish(shared_server.address, "CONTINUE", 5, 5)
    with client.subscribe("CONTINUE", cursor=ticks.as_of) as subscription:
        found = [next(subscription) for _ in range(5)]
        assert numbers(found) == [5, 6, 7, 8, 9]
        assert found[0].event_time.isoformat() == "2024-08-08T23:54:15.342000794Z"
        publish(shared_server.address, "CONTINUE", 1, 10)
        assert numbers([next(subscription)]) == [10]
    assert list(subscription) == [], "a closed subscription ends"


def test_events_tell_all_that_happens(client: tapefeed.Client, shared_server: Server) -> None:
    cursor = begin(shared_server.address, "EVENTS")
    publish(shared_server.address, "EVENTS", 3, 1)
    with client.subscribe(("EVENTS", "L"), "LATER", cursor=cursor, heartbeat="1s") as subscription:
        events = subscription.events()
        granted = next(events)
        assert isinstance(granted, Subscribed)
        assert granted.heartbeat_nanos == 10**9
        assert [(result.selector.symbol, result.status) for result in granted.selector_results] == [
            ("EVENTS", "matched"),
            ("LATER", "unknown"),
        ]
        ticks: list[Tick] = []
        kinds = set()
        for event in events:
            kinds.add(type(event))
            if isinstance(event, Ticks):
                ticks += event.ticks
                assert subscription.cursor == event.cursor
            if isinstance(event, tapefeed.Progress):
                assert event.cursor is not None and event.server_time > START
                break
        assert numbers(ticks) == [1, 2, 3]
        assert kinds == {Ticks, ReplayCompleted, tapefeed.Progress}


def test_a_cursor_from_the_middle_of_a_message_resumes_at_the_next_tick(
    client: tapefeed.Client, shared_server: Server
) -> None:
    cursor = begin(shared_server.address, "MIDDLE")
    publish(shared_server.address, "MIDDLE", 9, 1)
    seen = []
    text = str(cursor)
    for _ in range(9):
        # A program that ends after each tick, and stores the text of its cursor.
        with client.subscribe("MIDDLE", cursor=text) as subscription:
            seen.append(next(subscription))
            text = str(subscription.cursor)
            assert subscription.cursor is not None
            assert client.latest("MIDDLE", min_cursor=subscription.cursor).as_of is not None
    assert numbers(seen) == list(range(1, 10))
    with client.subscribe("MIDDLE", cursor=cursor) as subscription:
        assert numbers([next(subscription)]) == [1]
        rest: list[Tick] = []
        for event in subscription.events():
            if isinstance(event, Ticks):
                rest += event.ticks
            if len(rest) >= 8:
                break
        assert numbers(rest) == list(range(2, 10)), "events go on where ticks were"


def test_backfill_comes_only_when_it_is_asked_for(client: tapefeed.Client, shared_server: Server) -> None:
    cursor = begin(shared_server.address, "BACKFILL")
    publish(shared_server.address, "BACKFILL", 2, 1, backfill=True)
    publish(shared_server.address, "BACKFILL", 1, 3)
    with client.subscribe("BACKFILL", cursor=cursor) as subscription:
        assert numbers([next(subscription)]) == [3]
    with client.subscribe("BACKFILL", cursor=cursor, include_backfill=True) as subscription:
        found = [next(subscription) for _ in range(3)]
        assert numbers(found) == [1, 2, 3]
        assert [tick.origin for tick in found] == [Origin.BACKFILL, Origin.BACKFILL, Origin.LIVE]


def test_a_killed_and_restarted_server_costs_no_tick_and_doubles_none(server: Server) -> None:
    cursor = begin(server.address, "KILL")
    with tapefeed.Client(server.address, reconnect_delays=(0.02, 0.2)) as client:
        subscription = client.subscribe("KILL", cursor=cursor)
        found: list[Tick] = []
        with Publishing(server.address, "KILL") as publishing:
            for _ in range(3):
                target = len(found) + 150
                found += take(subscription, target - len(found))
                server.kill()
                server.start()
        found += take(subscription, publishing.sent - len(found))
        subscription.close()
        assert numbers(found) == list(range(1, publishing.sent + 1))
        history = client.ticks("KILL", start=START + 1, min_cursor=subscription.cursor)
        assert [tick.log_seq for tick in found] == [tick.log_seq for tick in history]


def test_cut_connections_cost_no_tick_and_double_none(server: Server, proxy: Proxy) -> None:
    cursor = begin(server.address, "CUT")
    with tapefeed.Client(proxy.address, reconnect_delays=(0.01, 0.05)) as client:
        subscription = client.subscribe("CUT", cursor=cursor)
        ticks: list[Tick] = []
        cuts = 0
        reconnects: list[Reconnected] = []
        with Publishing(proxy.address, "CUT") as publishing:
            for event in subscription.events():
                if isinstance(event, Disconnected):
                    assert event.error.is_retryable
                if isinstance(event, Reconnected):
                    assert event.resumed_after is not None
                    reconnects.append(event)
                if isinstance(event, Ticks):
                    ticks += event.ticks
                if len(ticks) >= 100 * (cuts + 1) and len(reconnects) == cuts:
                    cuts += 1
                    if cuts > 8:
                        break
                    proxy.cut()
        while len(ticks) < publishing.sent:
            ticks += take(subscription, 1)
        subscription.close()
        assert numbers(ticks) == list(range(1, publishing.sent + 1))
        assert len(reconnects) == 8


def test_a_mute_connection_is_noticed_by_missing_heartbeats(server: Server, proxy: Proxy) -> None:
    cursor = begin(server.address, "MUTE")
    with tapefeed.Client(proxy.address) as client:
        subscription = client.subscribe("MUTE", cursor=cursor, heartbeat="1s")
        publish(server.address, "MUTE", 1, 1)
        assert numbers(take(subscription, 1)) == [1]
        began = time.monotonic()
        proxy.mute.set()
        publish(server.address, "MUTE", 1, 2)
        cut = next(event for event in subscription.events() if isinstance(event, Disconnected))
        assert "3 heartbeats" in str(cut.error)
        assert 2 <= time.monotonic() - began < PATIENCE
        proxy.mute.clear()
        assert numbers(take(subscription, 1)) == [2]
        subscription.close()


def test_a_quiet_market_is_not_a_dead_connection(server: Server, proxy: Proxy) -> None:
    cursor = begin(server.address, "QUIET")
    with tapefeed.Client(proxy.address) as client:
        subscription = client.subscribe("QUIET", cursor=cursor, heartbeat="1s")
        timer = threading.Timer(4, publish, (server.address, "QUIET", 1, 1))
        timer.start()
        assert numbers(take(subscription, 1)) == [1]
        timer.join()
        assert proxy.connections == 1
        subscription.close()


def test_a_subscription_waits_for_a_server_that_is_not_there_yet(server: Server) -> None:
    cursor = begin(server.address, "LATE")
    publish(server.address, "LATE", 1, 1)
    server.kill()
    with tapefeed.Client(server.address, reconnect_delays=(0.05, 0.1)) as client:
        subscription = client.subscribe("LATE", cursor=cursor)
        events = subscription.events()
        for attempt in (1, 2):
            event = next(events)
            assert isinstance(event, Disconnected) and event.attempt == attempt
            assert isinstance(event.error, tapefeed.Unavailable)
        server.start()
        assert numbers(take(subscription, 1)) == [1]
        subscription.close()


def test_a_slow_reader_is_late_and_misses_nothing(server: Server) -> None:
    cursor = begin(server.address, "SLOW")
    with tapefeed.Client(server.address) as client:
        subscription = client.subscribe("SLOW", cursor=cursor)
        publish(server.address, "SLOW", 20_000, 1)
        first = take(subscription, 1)
        publish(server.address, "SLOW", 20_000, 20_001)
        time.sleep(1)
        assert numbers(first + take(subscription, 39_999)) == list(range(1, 40_001))
        subscription.close()


def test_close_from_another_thread_ends_the_wait(client: tapefeed.Client, shared_server: Server) -> None:
    cursor = begin(shared_server.address, "CLOSE")
    subscription = client.subscribe("CLOSE", cursor=cursor)
    timer = threading.Timer(0.3, subscription.close)
    timer.start()
    assert list(subscription) == []
    timer.join()


def test_fatal_errors_end_a_subscription(server: Server) -> None:
    cursor = begin(server.address, "FATAL")
    server.kill()
    (server.folder / "store.db").unlink()
    for rest in server.folder.glob("store.db-*"):
        rest.unlink()
    server.start()
    with tapefeed.Client(server.address) as client:
        subscription = client.subscribe("FATAL", cursor=cursor)
        with pytest.raises(tapefeed.EpochChanged) as raised:
            next(subscription)
        assert raised.value.metadata["epoch"]
        assert list(subscription) == [], "after its error it has ended"


def take(subscription: Iterator[Tick], count: int) -> list[Tick]:
    """Take so many ticks."""
    return [next(subscription) for _ in range(count)]


# The same from asyncio.


def at_most_one_connection(proxy: Proxy) -> bool:
    # A call is cancelled at once, but the frames of the last one may keep its idle connection until the next is made.
    gc.collect()
    return proxy.open_connections <= 1


async def take_async(subscription: tapefeed.aio.Subscription, count: int) -> list[Tick]:
    return [await asyncio.wait_for(subscription.__anext__(), PATIENCE) for _ in range(count)]


def test_asyncio_resumes_over_kills_and_cuts(server: Server, proxy: Proxy) -> None:
    cursor = begin(server.address, "ASYNC")

    async def follow() -> None:
        async with tapefeed.aio.Client(proxy.address, reconnect_delays=(0.02, 0.2)) as client:
            found: list[Tick] = []
            with Publishing(server.address, "ASYNC") as publishing:
                async with client.subscribe("ASYNC", cursor=cursor) as subscription:
                    for round_ in range(6):
                        found += await take_async(subscription, 100)
                        if round_ % 2:
                            await asyncio.to_thread(server.kill)
                            await asyncio.to_thread(server.start)
                        else:
                            proxy.cut()
                    last = subscription.cursor
                # A program that starts again goes on from its cursor.
                subscription = client.subscribe("ASYNC", cursor=str(last))
                found += await take_async(subscription, 50)
                await asyncio.to_thread(publishing.__exit__)
            found += await take_async(subscription, publishing.sent - len(found))
            await subscription.close()
            assert numbers(found) == list(range(1, publishing.sent + 1))

    asyncio.run(follow())


def test_asyncio_cancelled_while_it_waits_closes_the_call_and_can_go_on(server: Server, proxy: Proxy) -> None:
    cursor = begin(server.address, "CANCEL")

    async def follow() -> None:
        async with tapefeed.aio.Client(proxy.address) as client:
            subscription = client.subscribe("CANCEL", cursor=cursor)
            task = asyncio.create_task(subscription.__anext__())
            await asyncio.to_thread(until, lambda: proxy.open_connections == 1)
            await asyncio.sleep(0.2)
            call = subscription._call
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert call is not None and call.cancelled() and subscription._call is None
            for _ in range(5):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(subscription.__anext__(), 0.1)
            del call
            await asyncio.to_thread(until, lambda: at_most_one_connection(proxy))
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(subscription.__anext__(), 0.3)
            publish(server.address, "CANCEL", 2, 1)
            assert numbers(await take_async(subscription, 2)) == [1, 2]
            events = subscription.events()
            with pytest.raises(asyncio.TimeoutError):

                async def no_tick() -> None:
                    async for event in events:
                        assert not isinstance(event, Ticks)

                await asyncio.wait_for(no_tick(), 0.3)
            publish(server.address, "CANCEL", 1, 3)
            assert numbers(await take_async(subscription, 1)) == [3]
            await subscription.close()
            assert [tick async for tick in subscription] == []
            await asyncio.to_thread(until, lambda: at_most_one_connection(proxy))

    asyncio.run(follow())


def test_asyncio_notices_a_mute_connection_and_closing(server: Server, proxy: Proxy) -> None:
    cursor = begin(server.address, "AMUTE")

    async def follow() -> None:
        async with tapefeed.aio.Client(proxy.address) as client:
            subscription = client.subscribe("AMUTE", cursor=cursor, heartbeat="1s")
            publish(server.address, "AMUTE", 1, 1)
            assert numbers(await take_async(subscription, 1)) == [1]
            proxy.mute.set()
            async for event in subscription.events():
                if isinstance(event, Disconnected):
                    assert "3 heartbeats" in str(event.error)
                    break
            proxy.mute.clear()
            publish(server.address, "AMUTE", 1, 2)
            assert numbers(await take_async(subscription, 1)) == [2]

            async def rest() -> list[Tick]:
                return [tick async for tick in subscription]

            waiting = asyncio.create_task(rest())
            await asyncio.sleep(0.2)
            await subscription.close()
            assert await asyncio.wait_for(waiting, PATIENCE) == []
            with pytest.raises(tapefeed.CursorInvalid):
                await client.subscribe("AMUTE", cursor=b"broken").__anext__()

    asyncio.run(follow())


def test_live_bars_are_those_of_the_list_and_resume(server: Server, proxy: Proxy) -> None:
    start = tapefeed.UnixNanos("2024-08-09T12:00:00Z")

    def tick(second: float, price: str) -> NewTick:
        return NewTick("B1", "BAR", start + int(second * 10**9), price, "2")

    with tapefeed.Client(proxy.address) as client, client.publisher("bars") as publisher:
        publisher.send_all([tick(0.1, "10"), tick(0.9, "12")])
        cursor = publisher.flush().cursor
        with client.subscribe_bars("BAR", venue="B1", interval="1s", cursor=cursor, heartbeat="1s") as bars:
            publisher.send_all([tick(1.5, "11"), tick(3.0, "13")])
            publisher.flush()
            first = next(bars)
            assert (first.start, first.open, first.close, first.is_final) == (start, Decimal(10), Decimal(12), True)
            proxy.cut()
            publisher.send(tick(0.5, "9"))
            publisher.flush()
            # What the cut swallowed may come again before the revision.
            revised = next(bar for bar in bars if bar.tick_count == 3)
            assert (revised.start, revised.low, revised.is_final) == (start, Decimal(9), True)
            assert revised.revision > first.revision and bars.cursor is not None
            publisher.send(tick(6, "14"))
            last = publisher.flush().cursor
            later = [next(bars), next(bars)]
            listed = client.bars("BAR", "1s", venue="B1", min_cursor=last)
            assert list(listed) == [revised, *later]
            mark = next(event for event in bars.events() if isinstance(event, tapefeed.IntervalComplete))
            assert (mark.start, mark.end) == (start + 10**9, start + 2 * 10**9)

    async def follow() -> None:
        async with (
            tapefeed.aio.Client(server.address) as asking,
            asking.subscribe_bars("BAR", interval="1s", venue="B1", snapshot=True) as growing,
        ):
            assert [bar.start async for bar in _first(growing, 1)] == [start + 6 * 10**9]

    asyncio.run(follow())


async def _first(bars: tapefeed.aio.BarSubscription, count: int) -> AsyncIterator[tapefeed.Bar]:
    async for bar in bars:
        yield bar
        count -= 1
        if not count:
            return


def test_of_several_servers_whichever_is_there_goes_on(server: Server) -> None:
    """Of two addresses one has no server; after a kill the other has one again."""
    address = f"127.0.0.1:1,{server.address}"
    cursor = begin(address, "SEVERAL")
    client = tapefeed.Client(address, reconnect_delays=(0.02, 0.2))
    with client, client.subscribe("SEVERAL", cursor=cursor) as subscription:
        publish(address, "SEVERAL", 5, 1)
        assert numbers([next(subscription) for _ in range(5)]) == [1, 2, 3, 4, 5]
        server.kill()
        server.start()
        publish(address, "SEVERAL", 5, 6)
        assert numbers([next(subscription) for _ in range(5)]) == [6, 7, 8, 9, 10]
        assert client.average("SEVERAL").tick_count == 11
