"""What of a publisher is not acknowledged: gathering ticks, waiting batches, batches on their way, their numbers.

A batch gets its number when it is first sent, and keeps it until it is acknowledged. It loses the number only when the
server says that nothing from this number on is stored: after a refused batch, or when the server has forgotten. Nothing
here waits or does I/O; the same for sync and asyncio.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from .errors import BatchesRefused, ErrorReason, ProtocolError, TapefeedError
from .ticks import NewTick, tick_to_wire
from .v1 import ingest_service_pb2, tick_pb2
from .values import Cursor, cursor_from_wire

log = logging.getLogger("tapefeed")

# Below the 1 MiB that the server takes as a message.
_MAX_BATCH_BYTES: Final = 960 * 1024
# What a tick costs in a batch beside its own bytes: its tag and length.
_TICK_FRAME_BYTES: Final = 6
# How many batches may wait for credit. Then whoever sends waits.
_MAX_READY: Final = 2
# How many refused batches wait to be asked for. Then the publisher stops rather than forget any.
_MAX_REFUSED: Final = 8
# Seconds that the answer to a claim may take.
GRANT_TIMEOUT: Final = 10.0
# Seconds that the oldest batch may wait for its acknowledgement before the connection counts as dead.
ACK_TIMEOUT: Final = 30.0


@dataclass(frozen=True)
class Receipt:
    """What is on the server's disk."""

    batch_seq: int
    """The number of the last stored batch. 0 if this producer id has stored none."""
    duplicate: bool
    """Whether that batch had been stored before, by an attempt whose acknowledgement was lost."""
    cursor: Cursor | None
    """The cursor after it, for `min_cursor` or a subscription. None if this publisher has stored nothing yet."""


@dataclass
class PublisherStatus:
    """The counts of a publisher, from its start on."""

    connected: bool = False
    """Whether a claim is granted right now."""
    fence: int = 0
    """The number of the claim; it grows with each claim of the producer id."""
    batch_seq: int = 0
    """The number of the last acknowledged batch."""
    acknowledged_batches: int = 0
    """How many batches are acknowledged."""
    acknowledged_ticks: int = 0
    """How many ticks are acknowledged."""
    duplicate_batches: int = 0
    """How many of those batches the server had before, by an attempt whose acknowledgement was lost."""
    refused_batches: int = 0
    """How many batches were refused."""
    pending_ticks: int = 0
    """How many ticks are gathered or sent, and not acknowledged."""
    reconnects: int = 0
    """How many claims were granted after the first."""
    forgotten_batches: int = 0
    """How many acknowledged batches the server did not know any more at a later claim: it lost its newest part."""


@dataclass(frozen=True)
class TickViolation:
    """A tick that breaks a rule."""

    index: int | None
    """The index into RefusedBatch.ticks. None if the rule is not about one tick."""
    field: str
    """The path of the field in the request."""
    description: str
    """What is wrong with it."""


@dataclass(frozen=True)
class RefusedBatch:
    """One batch that the server refused: nothing of it is stored."""

    ticks: list[NewTick]
    """Its ticks, to correct and send again."""
    violations: list[TickViolation]
    """The ticks that break a rule, the first 20."""
    violation_count: int
    """How many violations there are in all."""
    error: TapefeedError
    """What the server said."""

    def violating_ticks(self) -> list[NewTick]:
        """Return the ticks that `violations` names, each once."""
        indices = sorted({violation.index for violation in self.violations if violation.index is not None})
        return [self.ticks[index] for index in indices]


class _Batch:
    """A batch that is sealed and not acknowledged."""

    __slots__ = ("bytes", "number", "rows", "sent", "ticks")

    def __init__(self, ticks: list[NewTick], rows: list[tick_pb2.Tick], size: int) -> None:
        self.ticks = ticks
        # The same message each time, so that the server recognises it.
        self.rows = rows
        self.bytes = size
        self.number: int | None = None
        self.sent = 0.0


class Backlog:
    """The state of one publisher."""

    def __init__(self, producer_id: str, backfill: bool, batch_size: int, linger: float) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: a batch has at least one tick")
        if linger < 0:
            raise ValueError(f"linger={linger}: give seconds, 0 or more")
        self.status = PublisherStatus()
        self.receipt = Receipt(0, False, None)
        self.failure: TapefeedError | None = None
        self.granted = False
        self._claim = ingest_service_pb2.PublishTicksRequest(
            claim=ingest_service_pb2.ProducerClaim(producer_id=producer_id, backfill=backfill)
        )
        self._batch_size = batch_size
        self._linger = linger
        self._ticks: list[NewTick] = []
        self._rows: list[tick_pb2.Tick] = []
        self._bytes = 0
        self._since = 0.0
        self._ready: deque[_Batch] = deque()
        self._inflight: deque[_Batch] = deque()
        self._inflight_bytes = 0
        self._last_number = 0
        self._credit_batches = 1
        self._credit_bytes = 0
        self._refused: list[RefusedBatch] = []
        # How many batches were sealed, and how many of them are acknowledged or refused.
        self.sealed = 0
        self.settled = 0

    # What the caller does.

    def check(self) -> None:
        """Raise the error that ended the publisher."""
        if self.failure is not None:
            # The same error is raised by every call, and must not gather the stacks of all of them.
            raise self.failure.with_traceback(None)

    @property
    def has_room(self) -> bool:
        """Whether another tick may be taken."""
        return len(self._ready) < _MAX_READY

    def gather(self, tick: NewTick, row: tick_pb2.Tick, size: int) -> None:
        """Take a tick, of which `encode` made the row."""
        if self._bytes + size > _MAX_BATCH_BYTES:
            self.seal()
        if not self._ticks:
            self._since = time.monotonic()
        self._ticks.append(tick)
        self._rows.append(row)
        self._bytes += size
        self.status.pending_ticks += 1
        if len(self._ticks) >= self._batch_size:
            self.seal()

    def seal(self) -> None:
        """End the batch that gathers."""
        if self._ticks:
            self._ready.append(_Batch(self._ticks, self._rows, self._bytes))
            self.sealed += 1
            self._ticks, self._rows, self._bytes = [], [], 0

    def take_refused(self) -> None:
        """Raise what was refused since the last call, if anything was."""
        if self._refused:
            refused, self._refused = self._refused, []
            raise BatchesRefused(refused)

    # What the connection does.

    @property
    def claim(self) -> ingest_service_pb2.PublishTicksRequest:
        """The first message of each connection."""
        return self._claim

    def next_request(self) -> ingest_service_pb2.PublishTicksRequest | None:
        """Put the next batch on its way. None if none waits, or there is no credit for it."""
        now = time.monotonic()
        if self._ticks and now >= self._since + self._linger and self.has_room:
            self.seal()
        if not self._ready or not self._may_send(self._ready[0]):
            return None
        batch = self._ready.popleft()
        if batch.number is None:
            self._last_number += 1
            batch.number = self._last_number
        batch.sent = now
        self._inflight_bytes += batch.bytes
        self._inflight.append(batch)
        return ingest_service_pb2.PublishTicksRequest(
            batch=ingest_service_pb2.PublishBatch(batch_seq=batch.number, rows=tick_pb2.TickBatch(ticks=batch.rows))
        )

    def wait(self) -> float | None:
        """Return in how many seconds there is something to do without a message or a tick. None: never."""
        times = []
        if self._ticks and self.has_room:
            times.append(self._since + self._linger)
        if self._inflight:
            times.append(self._inflight[0].sent + ACK_TIMEOUT)
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def is_overdue(self) -> bool:
        """Whether an acknowledgement is missing for so long that the connection counts as dead."""
        return bool(self._inflight) and time.monotonic() >= self._inflight[0].sent + ACK_TIMEOUT

    def take(self, message: ingest_service_pb2.PublishTicksResponse) -> None:
        """Take one message of the server."""
        kind = message.WhichOneof("message")
        if kind == "ack":
            self._acknowledge(message.ack)
        elif kind == "grant" and not self.status.connected:
            self._begin(message.grant)
        elif kind is not None:
            raise ProtocolError(f"a {kind} out of its turn")

    def cut(self, error: TapefeedError) -> bool:
        """Take the end of a connection: whether to connect again at once, because a refused batch was taken out.

        Raises the error if it is fatal.
        """
        self.status.connected = False
        if self._take_out(error):
            return True
        if not error.is_retryable:
            raise error
        return False

    def _may_send(self, batch: _Batch) -> bool:
        # One batch may always be on its way.
        return not self._inflight or (
            len(self._inflight) < self._credit_batches and self._inflight_bytes + batch.bytes <= self._credit_bytes
        )

    def _begin(self, grant: ingest_service_pb2.ProducerGrant) -> None:
        last = grant.last_batch_seq
        self._call_back()
        if not self.granted:
            self.granted = True
            self._last_number = last
            self.receipt = Receipt(last, False, None)
            self.status.batch_seq = last
        else:
            self.status.reconnects += 1
            if last >= self.status.batch_seq:
                self._last_number = max(self._last_number, last)
            else:
                forgotten = self.status.batch_seq - last
                log.warning("the server does not know %d acknowledged batches any more", forgotten)
                self.status.forgotten_batches += forgotten
                self.status.batch_seq = last
                self._renumber_after(last)
        self._credit(grant.credit_batches, grant.credit_bytes)
        # From now on it is claimed again, and no more taken from whoever holds it.
        self._claim.claim.held_fence = grant.fence
        self.status.connected = True
        self.status.fence = grant.fence

    def _acknowledge(self, ack: ingest_service_pb2.PublishAck) -> None:
        if not self._inflight or self._inflight[0].number != ack.batch_seq:
            raise ProtocolError(f"batch {ack.batch_seq} was acknowledged out of its turn")
        batch = self._inflight.popleft()
        self._settle(batch)
        self._credit(ack.credit_batches, ack.credit_bytes)
        cursor = cursor_from_wire(ack.cursor) or self.receipt.cursor
        self.receipt = Receipt(ack.batch_seq, ack.duplicate, cursor)
        self.status.batch_seq = ack.batch_seq
        self.status.acknowledged_batches += 1
        self.status.acknowledged_ticks += len(batch.ticks)
        self.status.duplicate_batches += ack.duplicate

    def _take_out(self, error: TapefeedError) -> bool:
        """Take a refused batch out; those behind it wait again and get its number and the next."""
        number = error.metadata.get("expected_batch_seq", "")
        if error.reason is not ErrorReason.BATCH_INVALID or not number.isdecimal():
            return False
        for batch in self._inflight:
            if batch.number == int(number):
                break
        else:
            return False
        self._inflight.remove(batch)
        self._settle(batch)
        self._call_back()
        self._renumber_after(int(number) - 1)
        self.status.refused_batches += 1
        self._refused.append(_refused(batch, error))
        if len(self._refused) > _MAX_REFUSED:
            self.take_refused()
        return True

    def _credit(self, batches: int, size: int) -> None:
        self._credit_batches = max(batches, 1)
        self._credit_bytes = size

    def _settle(self, batch: _Batch) -> None:
        self._inflight_bytes -= batch.bytes
        self.status.pending_ticks -= len(batch.ticks)
        self.settled += 1

    def _call_back(self) -> None:
        self._ready.extendleft(reversed(self._inflight))
        self._inflight.clear()
        self._inflight_bytes = 0

    def _renumber_after(self, last: int) -> None:
        for batch in self._ready:
            if batch.number is not None and batch.number > last:
                batch.number = None
        self._last_number = last


def encode(tick: NewTick) -> tuple[tick_pb2.Tick, int]:
    """Make the row of a tick, and what it costs in a batch. ValueError or TypeError if it cannot be sent."""
    if not isinstance(tick, NewTick):
        raise TypeError(f"{tick!r} is not a NewTick; NewTick.of makes one of a Tick")
    row = tick_to_wire(tick)
    size = row.ByteSize() + _TICK_FRAME_BYTES
    if size > _MAX_BATCH_BYTES:
        raise ValueError(f"a tick of {size} bytes is larger than a message may be")
    return row, size


def encode_all(ticks: Iterable[NewTick]) -> list[tuple[NewTick, tick_pb2.Tick, int]]:
    """Make the rows of ticks: all of them, or none if one cannot be sent."""
    return [(tick, *encode(tick)) for tick in ticks]


def _refused(batch: _Batch, error: TapefeedError) -> RefusedBatch:
    violations = []
    for field, description in error.violations:
        match = re.search(r"ticks\[(\d+)\]", field)
        index = int(match[1]) if match and int(match[1]) < len(batch.ticks) else None
        violations.append(TickViolation(index, field, description))
    count = error.metadata.get("violation_count", "")
    return RefusedBatch(
        ticks=batch.ticks,
        violations=violations,
        violation_count=int(count) if count.isdecimal() else len(violations),
        error=error,
    )
