"""The reader of history: asks all replicas about the past while the load runs, and for everything at its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from typing import TypeVar

import grpc
import grpc.aio
from tapefeed.v1 import history_service_pb2 as history
from tapefeed.v1.instrument_service_pb2 import ListInstrumentsRequest
from tapefeed.v1.live_service_pb2 import GetReplayWindowRequest, SubscribeTicksRequest
from tapefeed.v1.selector_pb2 import Selector

import calls
from cluster import REPLICAS
from content import FIRST_INSTRUMENTS, MOST_INSTRUMENTS, instrument, read_row
from record import Answer, Outcome, Ticks, batch_of
from world import World

Told = TypeVar("Told")

PAGE = 10_000
# Answers with more ticks than this are left to statistics, while the load runs.
FULL_ANSWERS = 5_000
# Seconds between two questions.
PAUSE = 0.25
# Seconds that a call may take while the load runs, and at the end.
PATIENCE = 5.0
LAST_PATIENCE = 60.0


async def _listing(
    channel: grpc.aio.Channel, replica: int, number: int, at_least: tuple[int, bytes], patience: float
) -> Answer:
    """List all ticks of an instrument."""
    venue, symbol = instrument(number)
    name, cursor = at_least
    request = history.ListTicksRequest(venue=venue, symbol=symbol, min_cursor=cursor, page_size=PAGE)
    answer = Answer(replica, number, name)
    ticks = answer.ticks = Ticks()
    while True:
        page = await calls.history(channel).ListTicks(request, timeout=patience)
        for row in page.ticks:
            answer.times.append(read_row(row, ticks))
        if not page.next_page_token:
            return answer
        request.page_token = page.next_page_token


async def _statistic(channel: grpc.aio.Channel, replica: int, number: int, at_least: tuple[int, bytes]) -> Answer:
    """Ask how many ticks an instrument has, and for the sum of their quantities."""
    venue, symbol = instrument(number)
    name, cursor = at_least
    request = history.GetPriceStatisticsRequest(venue=venue, symbol=symbol, min_cursor=cursor)
    told = await calls.history(channel).GetPriceStatistics(request, timeout=PATIENCE)
    volume = Decimal(told.volume) * 100
    return Answer(replica, number, name, count=told.tick_count, volume=int(volume))


async def ask_on(world: World) -> None:
    """Ask until nothing more is sent."""
    choose = world.choose("reader")
    counts: dict[int, int] = {}
    while not world.quiet.is_set():
        await asyncio.sleep(PAUSE)
        replica = choose.randrange(REPLICAS)
        # Most questions are about what was there from the beginning.
        number = choose.randrange(choose.choice((FIRST_INSTRUMENTS, MOST_INSTRUMENTS)))
        at_least = world.newest if choose.random() < 0.5 else (0, b"")
        settled = world.is_settled()
        channel = calls.channel(world.address(replica))
        try:
            if counts.get(number, 0) < FULL_ANSWERS and choose.random() < 0.7:
                answer = await _listing(channel, replica, number, at_least, PATIENCE)
                assert answer.ticks is not None
                counts[number] = len(answer.ticks)
            else:
                answer = await _statistic(channel, replica, number, at_least)
            answer.settled = settled
            world.history.answers.append(answer)
        except grpc.aio.AioRpcError:
            # It is down, or asked about a cursor that was lost, or an instrument that nobody made yet.
            continue
        finally:
            await channel.close()


async def _at_last(ask: Callable[[], Awaitable[Told]]) -> Told:
    """Ask again while the answer is UNAVAILABLE, as it tells clients to: the last fault is only just over."""
    async with asyncio.timeout(LAST_PATIENCE):
        while True:
            try:
                return await ask()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(PAUSE)


async def end_of_log(world: World) -> tuple[int, int]:
    """Read where the log ends: its epoch, and the last position. The first replica's word; the others are compared."""
    channel = calls.channel(world.address(0))
    try:
        live = calls.live(channel)
        window = await _at_last(lambda: live.GetReplayWindow(GetReplayWindowRequest(), timeout=LAST_PATIENCE))
    finally:
        await channel.close()
    return window.epoch, window.newest.log_seq


async def list_everything(world: World) -> None:
    """List all of every instrument on each replica."""
    for replica in range(REPLICAS):
        channel = calls.channel(world.address(replica))
        try:
            instruments = calls.instruments(channel)
            ask = partial(instruments.ListInstruments, ListInstrumentsRequest(), timeout=LAST_PATIENCE)
            registered = await _at_last(ask)
            named = {(each.venue, each.symbol) for each in registered.instruments}
            numbers = [number for number in range(MOST_INSTRUMENTS + 1) if instrument(number) in named]
            listing = [
                await _at_last(partial(_listing, channel, replica, each, world.newest, LAST_PATIENCE))
                for each in numbers
            ]
            world.history.listings.append(listing)
            world.history.instrument_count = len(numbers)
        finally:
            await channel.close()


async def probe_what_is_missing(world: World) -> None:
    """Ask about the cursor of every acknowledged batch that the first replica's log does not have.

    Only a refusal that names the fork makes it a loss that was announced.
    """
    past = world.history
    had = {batch_of(name) for session in past.logs[0].sessions for name in session.ticks.names}
    channel = calls.channel(world.address(0))
    try:
        for name, batch in past.batches.items():
            if name not in had and batch.cursor and batch.outcome is Outcome.ACKNOWLEDGED:
                batch.disowned |= await _at_last(partial(_is_disowned, world, channel, batch.cursor))
    finally:
        await channel.close()


async def _is_disowned(world: World, channel: grpc.aio.Channel, cursor: bytes) -> bool:
    call = calls.live(channel).SubscribeTicks(
        SubscribeTicksRequest(selectors=[Selector(symbol="*")], cursor=cursor), timeout=LAST_PATIENCE
    )
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        reason, fork = calls.reason_of(error)
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            raise
        if fork is not None:
            world.history.probes.append(fork)
        return reason == "EPOCH_CHANGED" and fork is not None
    finally:
        call.cancel()
    return False
