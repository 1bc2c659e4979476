"""Live ticks: a subscription that reconnects and resumes by itself. The asyncio form is in `tapefeed.aio`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol

import grpc

from ._channel import Settings
from ._requests import Subscribe
from ._resume import Resume
from .bars import Bar
from .errors import TapefeedError, error_of, unavailable
from .events import Event, Message
from .ticks import Tick
from .v1 import live_service_pb2, live_service_pb2_grpc
from .values import Cursor

__all__ = ["BarSubscription", "Subscription"]


class Subscription:
    """A running subscription: iterate it for ticks, or `events()` for everything it says.

    It connects when it is first iterated, on a connection of its own. After a cut, or three missed heartbeats, it
    connects again by itself, for ever, with growing and jittered delays, and goes on after the last cursor: every tick
    comes exactly once, in the order of the log. It ends only with a fatal error, which is raised.

    Nothing is read ahead of the caller beyond HTTP/2's window of some 2 MiB: a slow reader slows nobody, and the server
    goes on from its log. Use it from one thread; `close` may come from any.
    """

    def __init__(self, settings: Settings, request: Subscribe) -> None:
        self._settings = settings
        self._state = Resume(request, settings.backoff())
        self._channel: grpc.Channel | None = None
        self._call: _Call | None = None
        self._watchdog: _Watchdog | None = None
        self._closed = threading.Event()
        self._retry_in = 0.0

    @property
    def cursor(self) -> Cursor | None:
        """The cursor after the last tick or event that was handed out, to go on after a restart of this program.

        Store `str(cursor)`. None until the server has told one. In the middle of a message it also names the tick, so
        that nothing comes twice.
        """
        return self._state.cursor

    def __iter__(self) -> Iterator[Tick]:
        return self

    def __next__(self) -> Tick:
        while True:
            tick = self._state.hand_out_tick()
            if tick is not None:
                return tick
            if not self._advance():
                raise StopIteration

    def events(self) -> Iterator[Event]:
        """Iterate over all events: ticks in groups, heartbeats, gaps, states of sources, cuts and reconnects."""
        while True:
            event = self._state.hand_out()
            if event is not None:
                yield event
            elif not self._advance():
                return

    def close(self) -> None:
        """End the subscription: iterating ends. May be called from any thread, and more than once."""
        self._closed.set()
        self._hang_up()
        if self._watchdog is not None:
            self._watchdog.stop()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Of an instance whose constructor failed, there is nothing to close.
        if hasattr(self, "_closed"):
            self.close()

    def _advance(self) -> bool:
        """Wait for one message, or for the end of a connection. False once closed."""
        if self._closed.wait(self._retry_in) if self._retry_in else self._closed.is_set():
            return False
        self._retry_in = 0.0
        call = self._call or self._open()
        watchdog = self._watchdog
        assert watchdog is not None, "opening a call makes the watchdog"
        watchdog.arm(call, self._state.silence)
        try:
            message = next(call)
        except StopIteration:
            error: TapefeedError = unavailable("the server ended the stream without a status")
        except grpc.RpcError as failure:
            error = self._state.stale() if watchdog.fired else error_of(failure)
        except BaseException:
            # Interrupted in the middle of a wait, the call is in no known state. Iterating again resumes.
            self._hang_up()
            raise
        else:
            self._state.take(message)
            return True
        finally:
            watchdog.disarm()
        self._hang_up()
        if self._closed.is_set():
            return False
        try:
            self._retry_in = self._state.failed(error)
        except TapefeedError:
            self.close()
            raise
        return True

    def _open(self) -> _Call:
        # A connection of its own for each attempt: one that went mute must not be used again.
        options = self._settings.channel_options(own_connection=True)
        self._channel = grpc.insecure_channel(self._settings.target(), options)
        stub = live_service_pb2_grpc.LiveServiceStub(self._channel)
        request = self._state.request()
        if isinstance(request, live_service_pb2.SubscribeBarsRequest):
            self._call = stub.SubscribeBars(request)
        else:
            self._call = stub.SubscribeTicks(request)
        if self._watchdog is None:
            self._watchdog = _Watchdog()
        if self._closed.is_set():
            # Closed by another thread meanwhile.
            self._call.cancel()
        return self._call

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        channel, self._channel = self._channel, None
        if call is not None:
            call.cancel()
        if channel is not None:
            channel.close()


class BarSubscription:
    """A running subscription to bars: iterate it for bars, or `events()` for everything it says.

    It connects, reconnects and resumes as a Subscription does. A final bar may come again after a cut, and comes again
    with a greater revision when a late tick changes it: keep the last one of its start, venue and symbol.
    """

    def __init__(self, settings: Settings, request: Subscribe) -> None:
        self._stream = Subscription(settings, request)

    @property
    def cursor(self) -> Cursor | None:
        """The cursor after the last message of which all bars were handed out. None until the server has told one."""
        return self._stream.cursor

    def __iter__(self) -> Iterator[Bar]:
        return self

    def __next__(self) -> Bar:
        while True:
            bar = self._stream._state.hand_out_bar()
            if bar is not None:
                return bar
            if not self._stream._advance():
                raise StopIteration

    def events(self) -> Iterator[Event]:
        """Iterate over all events: bars, complete intervals, heartbeats, gaps, states of sources, cuts."""
        return self._stream.events()

    def close(self) -> None:
        """End the subscription: iterating ends. May be called from any thread, and more than once."""
        self._stream.close()

    def __enter__(self) -> BarSubscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Call(Protocol):
    """A call whose messages are read one by one."""

    def __next__(self) -> Message: ...

    def cancel(self) -> bool: ...


class _Watchdog:
    """Cancels a call whose next message does not come in time, because waiting for one has no timeout in grpc.

    One thread for each subscription. It knows nothing of the subscription, which can so be forgotten and collected.
    """

    def __init__(self) -> None:
        self.fired = False
        self._call: _Call | None = None
        self._deadline = float("inf")
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        threading.Thread(target=self._run, name="tapefeed-watchdog", daemon=True).start()

    def arm(self, call: _Call, seconds: float) -> None:
        with self._lock:
            self.fired = False
            self._call = call
            self._deadline = time.monotonic() + seconds

    def disarm(self) -> None:
        with self._lock:
            self._call = None
            self._deadline = float("inf")

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        # Looking twice a second instead of being woken for each message keeps arming cheap.
        while not self._stopped.wait(0.5):
            with self._lock:
                call = self._call
                if call is None or time.monotonic() < self._deadline:
                    continue
                self.fired = True
                self._call = None
            call.cancel()
