"""Where a reading in bulk is: what to ask for next, and what has come. The same for sync and asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._channel import Settings
from .errors import TapefeedError, unavailable
from .v1 import history_service_pb2
from .values import Cursor, UnixNanos

if TYPE_CHECKING:
    from ._columns import Part
    from .arrays import TickArrays

METHOD: Final = "/tapefeed.v1.HistoryService/ReadTicks"

BATCH_SIZE: Final = 100_000
"""About how many ticks a batch has unless told otherwise."""

WHOLE: Final = 2**63
"""A batch of this size is the whole range."""

# Attempts without a message between them.
_ATTEMPTS: Final = 4


class Reading:
    """A range that is being read, over as many connections as it takes."""

    def __init__(self, settings: Settings, request: history_service_pb2.ReadTicksRequest, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: give at least 1")
        try:
            from . import _columns, arrays
        except ImportError as error:
            raise ImportError("reading ticks as arrays needs numpy: pip install 'tapefeed[numpy]'") from error
        self._read, self._join = _columns.message, arrays.arrays
        self.request = request
        self._batch_size = batch_size
        self._backoff = settings.backoff()
        self._failures = 0
        self._parts: list[Part] = []
        self._count = 0
        self._as_of: Cursor | None = None
        self._now: UnixNanos | None = None
        self.ended = False

    def take(self, data: bytes) -> None:
        """Take a message."""
        message = self._read(data)
        self._failures = 0
        self._backoff.reset()
        self.request.page_token = message.page_token
        if message.part is not None:
            self._parts.append(message.part)
            self._count += message.part.count
        if message.as_of is not None:
            self._as_of, self._now = message.as_of, message.now
            self.ended = True

    @property
    def is_full(self) -> bool:
        """Whether a batch is complete."""
        return self.ended or self._count >= self._batch_size

    def batch(self) -> TickArrays:
        """Return what has come since the last batch."""
        parts, self._parts, self._count = self._parts, [], 0
        return self._join(parts, self._as_of, self._now)

    def failed(self, error: TapefeedError) -> float:
        """Return the seconds to wait before the next attempt, or raise the error if there is none."""
        self._failures += 1
        if not error.is_retryable or self._failures == _ATTEMPTS:
            raise error
        return self._backoff.next(error.retry_delay)

    def cut(self) -> TapefeedError:
        """Return the error of a stream that ended before its last message."""
        return unavailable("the server ended the stream before its last message")
