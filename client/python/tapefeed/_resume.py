"""What a subscription knows: where it is, where it resumes, and when it is stale. Nothing here waits or does I/O.

The same for sync and asyncio, which open calls, read messages and sleep. They call `take` for each message,
`failed` for each end of a call, and `hand_out` for each event that goes to the caller.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from typing import Final

from . import _requests
from ._backoff import Backoff
from .bars import Bar
from .errors import TapefeedError, unavailable
from .events import Bars, Disconnected, Event, Message, Reconnected, StreamGap, Subscribed, Ticks, event_from_wire
from .ticks import Tick
from .v1 import live_service_pb2, stream_event_pb2
from .values import Cursor, cursor_from_wire, nanos_from_wire

log = logging.getLogger("tapefeed")

# Seconds within which the server sends something, unless it grants something else.
_DEFAULT_HEARTBEAT: Final = 5.0
# After so many heartbeats without any message the connection counts as dead. Data is never what is waited for: a quiet
# market is not a dead connection.
_MISSED_HEARTBEATS: Final = 3


class Resume:
    """The state of one subscription."""

    def __init__(self, request: _requests.Subscribe, backoff: Backoff) -> None:
        self._request = request
        self._backoff = backoff
        # Where the next connection goes on: the last cursor that arrived and was not empty.
        self._resume: Cursor | None = None
        # Where the caller is: the cursor after the last event that was handed out.
        self.cursor: Cursor | None = None
        self.events: deque[tuple[Event, Cursor | None]] = deque()
        self.ticks: deque[Tick] = deque()
        self._ticks_cursor: Cursor | None = None
        self._attempt = 0
        self._epoch = 0
        # Ticks in the order of the log are resumable one by one; those of conflation rounds are not. Those of snapshots
        # come without a cursor, and so do not move it.
        self._in_log_order = (
            isinstance(request, live_service_pb2.SubscribeTicksRequest)
            and request.delivery != stream_event_pb2.DELIVERY_CONFLATED
        )
        self.bars: deque[Bar] = deque()
        asked = nanos_from_wire(request.heartbeat_interval) / 1e9 if request.HasField("heartbeat_interval") else 0.0
        self._heartbeat = _granted(asked)

    @property
    def silence(self) -> float:
        """How many seconds the server may be silent."""
        return self._heartbeat * _MISSED_HEARTBEATS

    def stale(self) -> TapefeedError:
        """Return the error of a server that was silent for too long."""
        return unavailable(f"no message for {self.silence:g} s, {_MISSED_HEARTBEATS} heartbeats")

    def request(self) -> _requests.Subscribe:
        """Return what the next connection asks for."""
        request = copy.deepcopy(self._request)
        if self._resume is not None:
            _requests.resume_after(request, self._resume)
        return request

    def take(self, message: Message) -> None:
        """Take one message of the server."""
        cursor = cursor_from_wire(message.cursor)
        event = event_from_wire(message, cursor)
        if isinstance(event, Subscribed):
            self._epoch = event.epoch
            self._heartbeat = _granted(event.heartbeat_nanos / 1e9)
            if self._attempt:
                self.events.append((Reconnected(self._attempt, self._resume), None))
                self._attempt = 0
        else:
            self._backoff.reset()
        if isinstance(event, StreamGap):
            log.warning("log positions %d to %d are missing: %s", event.from_log_seq, event.to_log_seq, event.cause)
        if event is not None:
            self.events.append((event, cursor))
        elif cursor is not None:
            # An event that this version does not know, or nothing in it: its cursor counts all the same.
            if self.events:
                last, _ = self.events.pop()
                self.events.append((last, cursor))
            else:
                self.cursor = cursor
        if cursor is not None:
            self._resume = cursor

    def failed(self, error: TapefeedError) -> float:
        """Take the end of a call: return after how many seconds to connect again, or raise the error if it is fatal."""
        if not error.is_retryable:
            raise error
        self._attempt += 1
        retry_in = self._backoff.next(error.retry_delay)
        log.info("subscription was cut (%s), attempt %d in %.2f s", error, self._attempt, retry_in)
        self.events.append((Disconnected(error, self._attempt, retry_in), None))
        return retry_in

    def hand_out(self) -> Event | None:
        """Return the next event that waits, and move the cursor behind it. None if none waits."""
        if not self.events:
            return None
        event, cursor = self.events.popleft()
        if isinstance(event, Ticks) and self.ticks:
            # Those that were handed out one by one are behind the caller.
            event = Ticks(tuple(self.ticks), event.cursor)
            self.ticks.clear()
        if isinstance(event, Bars) and self.bars:
            event = Bars(tuple(self.bars), event.cursor)
            self.bars.clear()
        if cursor is not None:
            self.cursor = cursor
        return event

    def hand_out_tick(self) -> Tick | None:
        """Return the next tick that waits, and move the cursor behind it. None if none waits."""
        while not self.ticks:
            if not self.events:
                return None
            event, cursor = self.events[0]
            if isinstance(event, Ticks):
                self.ticks.extend(event.ticks)
                self._ticks_cursor = cursor
            else:
                self.hand_out()
        tick = self.ticks.popleft()
        if not self.ticks:
            self.hand_out()
        elif self._in_log_order and self._ticks_cursor is not None:
            self.cursor = Cursor(bytes(self._ticks_cursor), (self._epoch, tick.log_seq))
        return tick

    def hand_out_bar(self) -> Bar | None:
        """Return the next bar that waits; behind the last of a message the cursor moves. None if none waits."""
        while not self.bars:
            if not self.events:
                return None
            event, _ = self.events[0]
            if isinstance(event, Bars):
                self.bars.extend(event.bars)
            else:
                self.hand_out()
        bar = self.bars.popleft()
        if not self.bars:
            self.hand_out()
        return bar


def _granted(heartbeat: float) -> float:
    """Heartbeats lie between 1 and 60 s; a server that grants nothing gets the default."""
    return min(max(heartbeat, 1.0), 60.0) if heartbeat > 0 else _DEFAULT_HEARTBEAT
