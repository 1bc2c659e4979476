"""Publishing: nothing lost and nothing doubled, over kills and cuts; over a real server."""

from __future__ import annotations

import asyncio
import time

import pytest
from conftest import PATIENCE, Proxy, Server

import tapefeed
import tapefeed.aio
from tapefeed import NewTick, UnixNanos

START = UnixNanos("2024-08-08T23:54:15.342000789Z")


def tick(symbol: str, number: int, price: str = "1.25") -> NewTick:
    return NewTick("P", symbol, START + number, price)


def stored(client: tapefeed.Client, symbol: str, receipt: tapefeed.Receipt) -> list[int]:
    """What is in history at the position of a receipt; without it, history may be a moment behind."""
    return [tick.event_time - START for tick in client.ticks(symbol, min_cursor=receipt.cursor)]


def test_what_is_flushed_is_stored(client: tapefeed.Client) -> None:
    with client.publisher("flush") as publisher:
        assert publisher.flush().batch_seq == 0
        publisher.send(tick("FLUSH", 0), tick("FLUSH", 1))
        receipt = publisher.flush(PATIENCE)
        assert receipt.batch_seq == 1 and not receipt.duplicate and receipt.cursor is not None
        assert list(client.ticks("FLUSH", min_cursor=receipt.cursor))[1].event_time == START + 1
        publisher.send(tick("FLUSH", 2))
        status = publisher.status
        assert status.connected and status.acknowledged_ticks == 2 and status.fence >= 1
    assert stored(client, "FLUSH", publisher.close()) == [0, 1, 2]
    with pytest.raises(tapefeed.Closed):
        publisher.send(tick("FLUSH", 3))
    assert publisher.close().batch_seq == 2, "closing again does nothing"


def test_ticks_go_out_by_themselves_after_the_linger(client: tapefeed.Client) -> None:
    with client.publisher("linger", linger=0.05) as publisher:
        publisher.send(tick("LINGER", 0))
        deadline = time.monotonic() + PATIENCE
        while publisher.status.pending_ticks and time.monotonic() < deadline:
            time.sleep(0.01)
        assert publisher.status.acknowledged_ticks == 1


def test_many_ticks_stay_within_the_credit(client: tapefeed.Client) -> None:
    with client.publisher("many", batch_size=100) as publisher:
        publisher.send_all(tick("MANY", number) for number in range(5_000))
        assert publisher.flush().batch_seq == 50
        assert publisher.status.acknowledged_batches == 50
    assert stored(client, "MANY", publisher.close()) == list(range(5_000))


def test_large_ticks_make_batches_that_fit_a_message(client: tapefeed.Client) -> None:
    with client.publisher("large", batch_size=100_000, linger=10) as publisher:
        ticks = [tick("LARGE", number) for number in range(20_000)]
        for each in ticks:
            each.trade_id = "t" * 64
        publisher.send_all(ticks)
        assert publisher.flush().batch_seq > 1
    assert client.instrument("LARGE", venue="P", min_cursor=publisher.close().cursor).tick_count == 20_000


def test_killed_servers_lose_and_double_nothing(server: Server) -> None:
    with tapefeed.Client(server.address, reconnect_delays=(0.02, 0.2)) as client:
        with client.publisher("kill", batch_size=10, linger=0) as publisher:
            for round_ in range(5):
                for number in range(400):
                    publisher.send(tick("KILL", 400 * round_ + number))
                    if number == 200:
                        server.kill()
                        server.start()
            publisher.flush(PATIENCE)
            status = publisher.status
        assert stored(client, "KILL", publisher.close()) == list(range(2_000))
        assert status.acknowledged_ticks == 2_000 and status.pending_ticks == 0 and status.reconnects >= 1
        assert status.forgotten_batches == 0


def test_cut_connections_lose_and_double_nothing(server: Server, proxy: Proxy) -> None:
    with (
        tapefeed.Client(proxy.address, reconnect_delays=(0.01, 0.05)) as client,
        client.publisher("cut", batch_size=10, linger=0) as publisher,
    ):
        for number in range(3_000):
            publisher.send(tick("CUT", number))
            if number % 250 == 100:
                proxy.cut()
        publisher.flush(PATIENCE)
        assert publisher.status.reconnects >= 5
    with tapefeed.Client(server.address) as client:
        assert stored(client, "CUT", publisher.close()) == list(range(3_000))


def test_an_acknowledgement_that_was_lost_is_recognised(server: Server, proxy: Proxy) -> None:
    with tapefeed.Client(proxy.address, reconnect_delays=(0.01, 0.05)) as client, client.publisher("lost") as publisher:
        publisher.send(tick("LOST", 0))
        publisher.flush()
        proxy.mute.set()
        publisher.send(tick("LOST", 1))
        with pytest.raises(TimeoutError, match="1 ticks"):
            publisher.flush(0.5)
        proxy.mute.clear()
        proxy.cut()
        receipt = publisher.flush(PATIENCE)
        assert receipt.duplicate and receipt.batch_seq == 2 and publisher.status.duplicate_batches == 1
    with tapefeed.Client(server.address) as client:
        assert stored(client, "LOST", publisher.close()) == [0, 1]


def test_a_refused_batch_comes_back_with_its_violating_ticks_and_the_rest_is_stored(client: tapefeed.Client) -> None:
    with client.publisher("refused", batch_size=3, linger=10) as publisher:
        publisher.send_all(tick("REFUSED", number) for number in range(3))
        bad = NewTick("P", "no symbol", START, 1)
        far = NewTick("P", "REFUSED", START + 4, "1E+15")
        publisher.send(tick("REFUSED", 3), bad, far)
        publisher.send_all(tick("REFUSED", number) for number in range(6, 9))
        with pytest.raises(tapefeed.BatchesRefused) as raised:
            publisher.flush(PATIENCE)
        assert raised.value.reason is tapefeed.ErrorReason.BATCH_INVALID
        assert not raised.value.is_retryable
        (batch,) = raised.value.batches
        assert len(batch.ticks) == 3 and batch.violating_ticks() == [bad, far]
        assert [violation.index for violation in batch.violations] == [1, 2]
        assert batch.violation_count == 2 and isinstance(batch.error, tapefeed.BatchInvalid)
        publisher.send(batch.ticks[0])
        assert publisher.flush(PATIENCE).batch_seq == 3, "refused batches leave no hole"
        assert publisher.status.refused_batches == 1
    assert stored(client, "REFUSED", publisher.close()) == [0, 1, 2, 3, 6, 7, 8]


def test_a_newer_publisher_of_the_same_id_ends_the_older(client: tapefeed.Client) -> None:
    older = client.publisher("fenced")
    older.send(tick("FENCED", 0))
    older.flush()
    with client.publisher("fenced") as newer:
        newer.send(tick("FENCED", 1))
        newer.flush()
        with pytest.raises(tapefeed.ProducerFenced):
            # The older learns of it at its own time: from now on, or while it waits.
            older.send(tick("FENCED", 2))
            older.flush(PATIENCE)
        with pytest.raises(tapefeed.ProducerFenced):
            older.send(tick("FENCED", 3))
        with pytest.raises(tapefeed.ProducerFenced):
            older.close()
    assert stored(client, "FENCED", newer.close()) == [0, 1]


def test_a_publisher_that_was_cut_never_takes_its_id_back(server: Server, proxy: Proxy) -> None:
    with (
        tapefeed.Client(server.address) as client,
        tapefeed.Client(proxy.address, reconnect_delays=(0.02, 0.2)) as cut_off,
    ):
        older = cut_off.publisher("taken")
        older.send(tick("TAKEN", 0))
        older.flush()
        proxy.cut()
        older.send(tick("TAKEN", 1))
        assert older.flush(PATIENCE).batch_seq == 2, "nobody else has claimed the id"
        proxy.mute.set()
        with client.publisher("taken") as newer:
            # The older does not hear that its stream ends, and connects again.
            proxy.mute.clear()
            proxy.cut()
            with pytest.raises(tapefeed.ProducerFenced):
                older.send(tick("TAKEN", 90))
                older.flush(PATIENCE)
            newer.send(tick("TAKEN", 2))
            newer.flush()
            assert newer.status.reconnects == 0
        with pytest.raises(tapefeed.ProducerFenced):
            older.close()
        assert stored(client, "TAKEN", newer.close()) == [0, 1, 2]


def test_ticks_that_cannot_be_sent_are_refused_at_once(client: tapefeed.Client) -> None:
    with client.publisher("wrong") as publisher:
        with pytest.raises(ValueError, match="quantity=-1"):
            publisher.send(tick("WRONG", 0), NewTick("P", "WRONG", START, 1, -1))
        with pytest.raises(TypeError, match=r"NewTick\.of"):
            publisher.send("AAPL")  # type: ignore[arg-type]
        changed = tick("WRONG", 0)
        changed.price = 0.1  # type: ignore[assignment]
        with pytest.raises(TypeError, match="float"):
            publisher.send(changed)
        assert publisher.status.pending_ticks == 0


def test_a_claim_needs_a_server() -> None:
    with tapefeed.Client("http://127.0.0.1:1", timeout=0.5) as client, pytest.raises(tapefeed.Unavailable):
        client.publisher("nobody")


def test_a_block_that_is_left_by_an_exception_gives_up(client: tapefeed.Client) -> None:
    with pytest.raises(ZeroDivisionError), client.publisher("given-up", linger=60) as publisher:
        publisher.send(tick("GIVEN_UP", 0))
        raise ZeroDivisionError
    with pytest.raises(tapefeed.Closed):
        publisher.flush()
    with pytest.raises(tapefeed.InstrumentUnknown):
        list(client.ticks("GIVEN_UP"))


# The same from asyncio.


def test_asyncio_publishes_over_kills_and_cuts(server: Server, proxy: Proxy) -> None:
    async def publish() -> tapefeed.Receipt:
        async with tapefeed.aio.Client(proxy.address, reconnect_delays=(0.02, 0.2)) as client:
            async with client.publisher("async", batch_size=10, linger=0) as publisher:
                for round_ in range(4):
                    for number in range(400):
                        await publisher.send(tick("ASYNC", 400 * round_ + number))
                        if number == 200 and round_ % 2:
                            await asyncio.to_thread(server.kill)
                            await asyncio.to_thread(server.start)
                        elif number == 200:
                            await publisher.flush()
                            proxy.cut()
                await publisher.flush(PATIENCE)
                status = publisher.status
                assert status.acknowledged_ticks == 1_600 and status.reconnects >= 1
            with pytest.raises(tapefeed.Closed):
                await publisher.send(tick("ASYNC", 0))
            return await publisher.close()

    receipt = asyncio.run(publish())
    with tapefeed.Client(server.address) as client:
        assert stored(client, "ASYNC", receipt) == list(range(1_600))


def test_asyncio_tells_refusals_fences_timeouts_and_cancels(server: Server, proxy: Proxy) -> None:
    async def publish() -> tapefeed.Receipt:
        async with tapefeed.aio.Client(proxy.address, timeout=1, reconnect_delays=(0.02, 0.2)) as client:
            publisher = await client.publisher("same", linger=0.01)
            await publisher.send(NewTick("P", "no symbol", START, 1))
            with pytest.raises(tapefeed.BatchesRefused) as raised:
                await publisher.flush(PATIENCE)
            assert len(raised.value.batches[0].violating_ticks()) == 1
            await publisher.send(tick("SAME", 0))
            assert (await publisher.flush()).cursor is not None
            proxy.mute.set()
            await publisher.send(tick("SAME", 1))
            with pytest.raises(TimeoutError):
                await publisher.flush(0.3)
            flushing = asyncio.create_task(publisher.flush())
            await asyncio.sleep(0.1)
            flushing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await flushing
            proxy.mute.clear()
            proxy.cut()
            receipt = await publisher.flush(PATIENCE)
            assert receipt.duplicate
            async with client.publisher("same") as newer:
                await newer.flush()
                with pytest.raises(tapefeed.ProducerFenced):
                    await publisher.send(tick("SAME", 2))
                    await publisher.flush(PATIENCE)
            with pytest.raises(tapefeed.ProducerFenced):
                await publisher.close()
            with pytest.raises(tapefeed.Closed):
                await client.publisher("never").send(tick("SAME", 3))
            with pytest.raises(tapefeed.InvalidArgument):
                await client.publisher("not an id")
            with pytest.raises(ZeroDivisionError):
                async with client.publisher("given-up", linger=60) as publisher:
                    await publisher.send(tick("SAME", 4))
                    raise ZeroDivisionError
        async with tapefeed.aio.Client("http://127.0.0.1:1", timeout=0.3) as client:
            with pytest.raises(tapefeed.Unavailable):
                await client.publisher("nobody")
        return receipt

    receipt = asyncio.run(publish())
    with tapefeed.Client(server.address) as client:
        assert stored(client, "SAME", receipt) == [0, 1]
