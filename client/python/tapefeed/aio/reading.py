"""Ticks in bulk, batch after batch, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from .. import _reading
from .._channel import Settings
from ..errors import TapefeedError, error_of

if TYPE_CHECKING:
    from ..arrays import TickArrays

__all__ = ["TickBatches"]


class TickBatches:
    """The ticks of a range in batches, all read at one position. Iterate it once.

    After a cut it goes on by itself where it was. Nothing is read ahead but what the network holds.
    """

    def __init__(self, settings: Settings, reading: _reading.Reading) -> None:
        self._settings = settings
        self._reading = reading
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None
        self._finished = False

    def __aiter__(self) -> AsyncIterator[TickArrays]:
        return self

    async def __anext__(self) -> TickArrays:
        if self._finished:
            raise StopAsyncIteration
        try:
            while not self._reading.is_full:
                await self._advance()
        except BaseException:
            await self.close()
            raise
        if self._reading.ended:
            await self.close()
        return self._reading.batch()

    async def close(self) -> None:
        """End the reading: iterating ends. May be called more than once."""
        self._finished = True
        await self._hang_up()

    async def __aenter__(self) -> TickBatches:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _advance(self) -> None:
        if self._call is None:
            # A connection of its own, so that a slow reader holds up no call.
            options = self._settings.channel_options(own_connection=True)
            self._channel = grpc.aio.insecure_channel(self._settings.target(), options)
            ask: Any = self._channel.unary_stream(
                _reading.METHOD,
                request_serializer=lambda request: request.SerializeToString(),
                # The bytes are read by numpy.
                response_deserializer=None,
            )
            self._call = ask(self._reading.request)
        try:
            message = await self._call.read()
            if message is not grpc.aio.EOF:
                self._reading.take(message)
                return
            error: TapefeedError = self._reading.cut()
        except grpc.aio.AioRpcError as failure:
            error = error_of(failure)
        await self._hang_up()
        await asyncio.sleep(self._reading.failed(error))

    async def _hang_up(self) -> None:
        call, self._call = self._call, None
        channel, self._channel = self._channel, None
        if call is not None:
            call.cancel()
        if channel is not None:
            await channel.close()
