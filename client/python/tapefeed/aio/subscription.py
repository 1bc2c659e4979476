"""Live ticks: a subscription that reconnects and resumes by itself, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

import grpc
import grpc.aio

from .._channel import Settings
from .._requests import Subscribe
from .._resume import Resume
from ..bars import Bar
from ..errors import TapefeedError, error_of, unavailable
from ..events import Event, Message
from ..ticks import Tick
from ..v1 import live_service_pb2, live_service_pb2_grpc
from ..values import Cursor

__all__ = ["BarSubscription", "Subscription"]


class Subscription:
    """A running subscription: iterate it for ticks, or `events()` for everything it says.

    It connects when it is first iterated, on a connection of its own. After a cut, or three missed heartbeats, it
    connects again by itself, for ever, with growing and jittered delays, and goes on after the last cursor: every tick
    comes exactly once, in the order of the log. It ends only with a fatal error, which is raised.

    Nothing is read ahead of the caller beyond HTTP/2's window of some 2 MiB: a slow reader slows nobody, and the server
    goes on from its log.

    A task that is cancelled while it waits here ends the call with it, so nothing is left behind; nothing is lost
    either, because iterating again resumes. Let one task at a time iterate.
    """

    def __init__(self, settings: Settings, request: Subscribe) -> None:
        self._settings = settings
        self._state = Resume(request, settings.backoff())
        self._channel: grpc.aio.Channel | None = None
        self._call: grpc.aio.UnaryStreamCall[Subscribe, Message] | None = None
        self._closed = False
        self._retry_in = 0.0

    @property
    def cursor(self) -> Cursor | None:
        """The cursor after the last tick or event that was handed out, to go on after a restart of this program.

        Store `str(cursor)`. None until the server has told one. In the middle of a message it also names the tick, so
        that nothing comes twice.
        """
        return self._state.cursor

    def __aiter__(self) -> AsyncIterator[Tick]:
        return self

    async def __anext__(self) -> Tick:
        while True:
            tick = self._state.hand_out_tick()
            if tick is not None:
                return tick
            if not await self._advance():
                raise StopAsyncIteration

    def events(self) -> AsyncIterator[Event]:
        """Iterate over all events: ticks in groups, heartbeats, gaps, states of sources, cuts and reconnects."""
        return _Events(self)

    async def close(self) -> None:
        """End the subscription: iterating ends. May be called more than once."""
        self._closed = True
        await self._hang_up()

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _next_event(self) -> Event:
        while True:
            event = self._state.hand_out()
            if event is not None:
                return event
            if not await self._advance():
                raise StopAsyncIteration

    async def _advance(self) -> bool:
        """Wait for one message, or for the end of a connection. False once closed."""
        if self._retry_in:
            await asyncio.sleep(self._retry_in)
            self._retry_in = 0.0
        if self._closed:
            return False
        call = self._call or self._open()
        # A task of its own, because grpc tells a call that `close` has cancelled as if the reader were cancelled.
        reading = asyncio.ensure_future(call.read())
        try:
            await asyncio.wait([reading], timeout=self._state.silence)
        except asyncio.CancelledError:
            reading.cancel()
            await self._hang_up()
            raise
        if not reading.done():
            reading.cancel()
            error: TapefeedError = self._state.stale()
        elif reading.cancelled():
            error = unavailable("the call was cancelled")
        else:
            try:
                message = reading.result()
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure)
            else:
                if message is not grpc.aio.EOF:
                    # The stubs read nothing else, which their types do not tell.
                    self._state.take(message)  # type: ignore[arg-type]
                    return True
                # The status of a call that ended with an error is raised by reading; this one ended without.
                error = unavailable("the server ended the stream without a status")
        await self._hang_up()
        if self._closed:
            return False
        try:
            self._retry_in = self._state.failed(error)
        except TapefeedError:
            self._closed = True
            raise
        return True

    def _open(self) -> grpc.aio.UnaryStreamCall[Subscribe, Message]:
        # A connection of its own for each attempt: one that went mute must not be used again.
        options = self._settings.channel_options(own_connection=True)
        self._channel = grpc.aio.insecure_channel(self._settings.target(), options)
        stub = live_service_pb2_grpc.LiveServiceStub(self._channel)
        request = self._state.request()
        # The stub takes the kind of its channel, which its type does not tell.
        if isinstance(request, live_service_pb2.SubscribeBarsRequest):
            self._call = stub.SubscribeBars(request)  # type: ignore[assignment]
        else:
            self._call = stub.SubscribeTicks(request)  # type: ignore[assignment]
        assert self._call is not None, "the stub has just made it"
        return self._call

    async def _hang_up(self) -> None:
        call, self._call = self._call, None
        channel, self._channel = self._channel, None
        if call is not None:
            call.cancel()
        if channel is not None:
            await channel.close()


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

    def __aiter__(self) -> AsyncIterator[Bar]:
        return self

    async def __anext__(self) -> Bar:
        while True:
            bar = self._stream._state.hand_out_bar()
            if bar is not None:
                return bar
            if not await self._stream._advance():
                raise StopAsyncIteration

    def events(self) -> AsyncIterator[Event]:
        """Iterate over all events: bars, complete intervals, heartbeats, gaps, states of sources, cuts."""
        return self._stream.events()

    async def close(self) -> None:
        """End the subscription: iterating ends. May be called more than once."""
        await self._stream.close()

    async def __aenter__(self) -> BarSubscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class _Events(AsyncIterator[Event]):
    """The events of a subscription. No generator, because a cancelled one cannot be iterated again."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def __anext__(self) -> Event:
        return await self._subscription._next_event()
