"""A producer: claims its id, sends batches, and sends again what it does not know to be stored.

It goes to another replica when one does not answer, and now and then for no reason; then the stream of its older claim
is still open, and it sends a batch there that must be refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import grpc.aio
from tapefeed.v1 import ingest_service_pb2 as ingest

import calls
from cluster import REPLICAS
from content import Source, columns, record_of, rows
from record import Outcome
from world import World

# How long an answer may take before another replica is asked, in seconds.
PATIENCE = 3.0
# How many batches may be on their way: the least that servers grant.
CREDIT = 8


@dataclass(slots=True)
class Pending:
    """A batch that is not known to be stored."""

    name: int
    message: ingest.PublishBatch


if TYPE_CHECKING:
    Call = grpc.aio.StreamStreamCall[ingest.PublishTicksRequest, ingest.PublishTicksResponse]


class Stream:
    """One PublishTicks stream under one claim."""

    def __init__(self, channel: grpc.aio.Channel, call: Call, last_batch_seq: int) -> None:
        self.channel = channel
        self.call = call
        self.last_batch_seq = last_batch_seq

    async def send(self, batch: ingest.PublishBatch) -> None:
        """Send a batch."""
        async with asyncio.timeout(PATIENCE):
            await self.call.write(ingest.PublishTicksRequest(batch=batch))

    async def acknowledgement(self) -> ingest.PublishAck:
        """Wait for the next acknowledgement."""
        async with asyncio.timeout(PATIENCE):
            answer = await self.call.read()
        if not isinstance(answer, ingest.PublishTicksResponse):
            raise ConnectionError
        return answer.ack

    async def close(self) -> None:
        """End the stream at once."""
        self.call.cancel()
        await self.channel.close()


class Producer:
    """A producer of one id."""

    def __init__(self, world: World, number: int, share: float, backfill: bool) -> None:
        self._world = world
        self._number = number
        self._share = share
        self._backfill = backfill
        self._choose = world.choose(f"producer {number}")
        self._pending: deque[Pending] = deque()
        # Batches of which only a grant said that they are stored, with their numbers.
        self._granted: list[tuple[int, int]] = []
        self._source = Source(world.history.seed, world.start, number)
        self._sent_ticks = 0

    async def run(self) -> None:
        """Publish until enough was sent and every fault has struck, and everything is acknowledged."""
        replica = self._choose.randrange(REPLICAS)
        old: Stream | None = None
        while not self._world.is_over() and (self._pending or not self._world.load_is_done()):
            stream = None
            try:
                stream = await self._claim(replica)
                if old is not None:
                    await self._trespass(old, stream)
                self._settle(stream)
                await self._publish(stream)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionError, TimeoutError):
                await asyncio.sleep(self._choose.uniform(0.02, 0.2))
                if stream is not None:
                    await stream.close()
                    stream = None
            finally:
                if old is not None:
                    await old.close()
            # A stream that came here whole is left open: its claim is about to end.
            old = stream
            replica = (replica + self._choose.randrange(1, REPLICAS)) % REPLICAS
        if old is not None:
            await old.close()

    async def _claim(self, replica: int) -> Stream:
        channel = calls.channel(self._world.address(replica))
        call = calls.ingest(channel).PublishTicks()
        try:
            claim = ingest.ProducerClaim(producer_id=f"producer-{self._number}", backfill=self._backfill)
            async with asyncio.timeout(PATIENCE):
                await call.write(ingest.PublishTicksRequest(claim=claim))
                answer = await call.read()
            if not isinstance(answer, ingest.PublishTicksResponse):
                raise ConnectionError
            return Stream(channel, call, answer.grant.last_batch_seq)
        except BaseException:
            call.cancel()
            await channel.close()
            raise

    async def _trespass(self, old: Stream, new: Stream) -> None:
        """Send a batch on the stream of the older claim. It may never be stored."""
        name, message = self._make(new.last_batch_seq + 1)
        self._world.history.batches[name].outcome = Outcome.FENCED
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, ConnectionError, TimeoutError):
            await old.send(message)
            acknowledgement = await old.acknowledgement()
            self._world.history.batches[name].cursor = acknowledgement.cursor

    def _settle(self, stream: Stream) -> None:
        """Find out what of the pending batches is to be sent again, and under which number."""
        last = stream.last_batch_seq
        for batch_seq, name in self._granted:
            # A later grant that stops before it says that it is lost.
            self._world.history.batches[name].disowned |= batch_seq > last
        self._granted = [each for each in self._granted if each[0] <= last]
        if self._pending and self._pending[0].message.batch_seq > last + 1:
            # The log has lost acknowledged batches: who publishes goes on where it stands.
            for offset, each in enumerate(self._pending):
                each.message.batch_seq = last + 1 + offset
        elif self._choose.random() < 0.3:
            # The grant says what is stored. Otherwise it is sent again, and must not be stored again.
            while self._pending and self._pending[0].message.batch_seq <= last:
                stored = self._pending.popleft()
                self._granted.append((stored.message.batch_seq, stored.name))
                self._world.acknowledge(stored.name, b"")

    async def _publish(self, stream: Stream) -> None:
        """Send until it is time to go elsewhere, and leave nothing unacknowledged."""
        for each in list(self._pending):
            await stream.send(each.message)
        following = self._pending[-1].message.batch_seq + 1 if self._pending else stream.last_batch_seq + 1
        rounds = self._choose.randrange(2, 20)
        while True:
            while self._pending:
                acknowledged = await stream.acknowledgement()
                first = self._pending.popleft()
                if acknowledged.batch_seq != first.message.batch_seq:
                    raise ConnectionError
                self._world.acknowledge(first.name, acknowledged.cursor)
            if rounds == 0 or self._world.load_is_done():
                return
            rounds -= 1
            await self._keep_pace()
            for _ in range(self._choose.randint(1, CREDIT)):
                name, message = self._make(following)
                following += 1
                self._pending.append(Pending(name, message))
                await stream.send(message)
            if self._choose.random() < 0.1:
                # The connection breaks before the acknowledgements come: what became of the batches is not known.
                raise ConnectionError

    def _make(self, batch_seq: int) -> tuple[int, ingest.PublishBatch]:
        """Make the next batch, and put it on record before anybody can see it."""
        name, ticks = self._source.batch()
        self._world.history.batches[name] = record_of(ticks, self._backfill)
        self._sent_ticks += len(ticks)
        if self._choose.random() < 0.5:
            return name, ingest.PublishBatch(batch_seq=batch_seq, rows=rows(ticks))
        return name, ingest.PublishBatch(batch_seq=batch_seq, columns=columns(ticks))

    async def _keep_pace(self) -> None:
        """Wait until the next batches are due, so that the load lasts as long as the faults."""
        form = self._world.form
        due = self._sent_ticks / (self._share * form.ticks) * form.seconds
        await asyncio.sleep(min(max(0.0, due - self._world.now()), 0.5))
