"""A subscriber: follows a stream, and goes on after each end where it was, by a cursor, a tick or a bookmark.

Some stay at their replica, some leave at random and go on at another one, some read slowly. What they are told is put
on record as it comes; judging it is not their business.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from tapefeed.v1 import live_service_pb2 as live
from tapefeed.v1.position_pb2 import StartPosition
from tapefeed.v1.selector_pb2 import Selector
from tapefeed.v1.stream_event_pb2 import ENCODING_COLUMNS, ENCODING_ROWS

import calls
from cluster import REPLICAS
from content import instrument, read_columns, read_row
from record import Gap, Progress, Session, Subscription
from world import World

HEARTBEAT = 1
# How long a stream may be silent before a reader that may go elsewhere does, and before one that stays begins again.
ROAMER_PATIENCE = 4.0
LOYAL_PATIENCE = 40.0


@dataclass(frozen=True)
class Habit:
    """How a subscriber behaves."""

    home: int
    columns: bool
    # Seconds after which it leaves, at random between these; None: it stays.
    leaves: tuple[float, float] | None = None
    # Whether it stops reading for seconds, now and then.
    slow: bool = False
    # Seconds of the run at which it begins, from the beginning of the log; None: live, before the load.
    joins: float | None = None


@dataclass(slots=True)
class Bookmark:
    """A place to resume at: a cursor, and what position it stands for."""

    epoch: int
    log_seq: int
    cursor: bytes = b""


class Subscriber:
    """One logical subscription, over as many streams as it takes."""

    def __init__(self, world: World, subscription: Subscription, habit: Habit) -> None:
        self._world = world
        self._subscription = subscription
        self._habit = habit
        self._choose = world.choose(subscription.name)
        self._names: dict[int, tuple[str, str]] = {}
        # Where the last message ended, the last tick, and the last Progress; None before the first session.
        self._here: Bookmark | None = None
        self._last_tick: Bookmark | None = None
        self._progress: Bookmark | None = None
        # Set when its first stream has begun.
        self.ready = asyncio.Event()
        # The end of the log: epoch and position. None while it grows.
        self.target: tuple[int, int] | None = None

    @property
    def joins(self) -> float | None:
        """When it begins, in seconds of the run; None: before the load."""
        return self._habit.joins

    def _is_done(self) -> bool:
        here = self._here
        if self.target is None or here is None:
            return False
        return here.epoch == self.target[0] and here.log_seq >= self.target[1]

    async def run(self) -> None:
        """Follow the log to its end."""
        await asyncio.sleep(self._habit.joins or 0.0)
        replica = self._habit.home
        while not self._is_done():
            await self._follow(replica)
            if self._habit.leaves is not None:
                replica = self._choose.randrange(REPLICAS)
            await asyncio.sleep(self._choose.uniform(0.02, 0.2))

    def _request(self, start: Bookmark | None) -> live.SubscribeTicksRequest:
        wanted = self._subscription.instruments
        if wanted is None:
            selectors = [Selector(symbol="*")]
        else:
            pairs = [instrument(number) for number in sorted(wanted)]
            selectors = [Selector(venue=venue, symbol=symbol) for venue, symbol in pairs]
        request = live.SubscribeTicksRequest(
            selectors=selectors,
            encoding=ENCODING_COLUMNS if self._habit.columns else ENCODING_ROWS,
            include_backfill=self._subscription.include_backfill,
            heartbeat_interval=Duration(seconds=HEARTBEAT),
        )
        if start is None:
            request.live.SetInParent()
        elif start.cursor:
            request.cursor = start.cursor
        else:
            request.position.CopyFrom(StartPosition(epoch=start.epoch, log_seq=start.log_seq))
        return request

    async def _start(self, replica: int) -> Bookmark | None:
        """Choose where to go on. None: live, at the very beginning of the run."""
        if self._here is None and self._habit.joins is not None:
            channel = calls.channel(self._world.address(replica))
            try:
                window = await calls.live(channel).GetReplayWindow(live.GetReplayWindowRequest(), timeout=3)
            finally:
                await channel.close()
            return Bookmark(window.epoch, 0)
        places = [each for each in (self._here, self._last_tick, self._progress) if each is not None]
        if not places:
            return None
        newest = max(place.log_seq for place in places if self._here and place.epoch == self._here.epoch)
        # A bookmark is as good as it is old; one of another epoch may be lost with it.
        return self._choose.choice(
            [place for place in places if self._here and place.epoch == self._here.epoch and place.log_seq <= newest]
        )

    async def _follow(self, replica: int) -> None:
        """Read one stream to its end."""
        channel = calls.channel(self._world.address(replica))
        session: Session | None = None
        start: Bookmark | None = None
        try:
            start = await self._start(replica)
            session = Session(replica, start.epoch if start else 0, start.log_seq if start else 0)
            call = calls.live(channel).SubscribeTicks(self._request(start))
            await self._read(call, session)
        except TimeoutError:
            if session is not None:
                session.end = "QUIET"
        except grpc.aio.AioRpcError as error:
            reason, fork = calls.reason_of(error)
            if session is not None:
                session.end, session.fork = reason, fork
                if session.epoch == 0 and reason not in ("TRANSPORT", "STORE_UNAVAILABLE", "SHUTTING_DOWN"):
                    self._subscription.sessions.append(session)
                if reason == "EPOCH_CHANGED":
                    self._go_back(session, fork)
        finally:
            await channel.close()

    def _go_back(self, session: Session, fork: Any) -> None:
        """Go back to what the old epoch and the new one share; without a word on that, to the beginning."""
        epoch = session.epoch or session.asked_epoch
        at = self._here.log_seq if session.epoch and self._here else session.asked
        self._last_tick = self._progress = None
        if fork is not None and fork.parent == epoch:
            self._here = Bookmark(epoch, min(fork.log_seq, at))
        elif fork is not None:
            self._here = Bookmark(fork.epoch, 0)

    async def _read(self, call: Any, session: Session) -> None:
        clock = asyncio.get_running_loop()
        leaves = self._habit.leaves
        patience = LOYAL_PATIENCE if leaves is None else ROAMER_PATIENCE
        leave_at = float("inf") if leaves is None else clock.time() + self._choose.uniform(*leaves)
        async with asyncio.timeout(patience) as silence:
            async for message in call:
                self._note(message, session)
                if self._is_done() or clock.time() >= leave_at:
                    return
                if self._habit.slow and self.target is None and self._choose.random() < 0.006:
                    silence.reschedule(None)
                    await asyncio.sleep(self._choose.uniform(1, 8))
                silence.reschedule(clock.time() + patience)

    def _note(self, message: live.SubscribeTicksResponse, session: Session) -> None:
        """Put one message on record."""
        event = message.WhichOneof("event")
        ticks = session.ticks
        position = self._here.log_seq if self._here is not None else 0
        if event == "ack":
            session.epoch = message.ack.epoch
            if session.asked_epoch == 0:
                session.asked_epoch, session.asked = message.ack.epoch, message.ack.head_log_seq
            self._subscription.sessions.append(session)
            self._names.clear()
            self.ready.set()
            position = session.asked
        elif event == "rows":
            for row in message.rows.ticks:
                read_row(row, ticks)
        elif event == "columns":
            read_columns(message.columns, self._name_of, ticks)
        elif event == "instrument_definitions":
            for each in message.instrument_definitions.definitions:
                self._names[each.instrument_id] = (each.venue, each.symbol)
        elif event == "progress":
            position = message.progress.log_seq
            session.notices.append(Progress(len(ticks), position))
        elif event == "stream_gap":
            gap = message.stream_gap
            position = gap.to_log_seq
            session.notices.append(Gap(len(ticks), gap.from_log_seq, gap.to_log_seq))
        if event in ("rows", "columns"):
            position = ticks.log_seqs[-1]
            self._last_tick = Bookmark(session.epoch, position)
        self._here = Bookmark(session.epoch, position, message.cursor)
        if event == "progress":
            self._progress = self._here

    def _name_of(self, number: int) -> tuple[str, str]:
        return self._names.get(number, ("", ""))
