"""Ticks in bulk, batch after batch. The asyncio form is `tapefeed.aio.TickBatches`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from . import _reading
from ._channel import Settings
from .errors import TapefeedError, error_of

if TYPE_CHECKING:
    from .arrays import TickArrays

__all__ = ["TickBatches"]


class TickBatches:
    """The ticks of a range in batches, all read at one position. Iterate it once, from one thread at a time.

    After a cut it goes on by itself where it was. Nothing is read ahead but what the network holds.
    """

    def __init__(self, settings: Settings, reading: _reading.Reading) -> None:
        self._settings = settings
        self._reading = reading
        self._channel: grpc.Channel | None = None
        self._call: Any = None
        self._finished = False

    def __iter__(self) -> Iterator[TickArrays]:
        return self

    def __next__(self) -> TickArrays:
        if self._finished:
            raise StopIteration
        try:
            while not self._reading.is_full:
                self._advance()
        except BaseException:
            self.close()
            raise
        if self._reading.ended:
            self.close()
        return self._reading.batch()

    def close(self) -> None:
        """End the reading: iterating ends. May be called more than once."""
        self._finished = True
        self._hang_up()

    def __enter__(self) -> TickBatches:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_finished"):
            self.close()

    def _advance(self) -> None:
        if self._call is None:
            # A connection of its own, so that a slow reader holds up no call.
            options = self._settings.channel_options(own_connection=True)
            self._channel = grpc.insecure_channel(self._settings.target(), options)
            ask: Any = self._channel.unary_stream(
                _reading.METHOD,
                request_serializer=lambda request: request.SerializeToString(),
                # The bytes are read by numpy.
                response_deserializer=None,
            )
            self._call = ask(self._reading.request)
        try:
            self._reading.take(next(self._call))
            return
        except StopIteration:
            error: TapefeedError = self._reading.cut()
        except grpc.RpcError as failure:
            error = error_of(failure)
        self._hang_up()
        time.sleep(self._reading.failed(error))

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        channel, self._channel = self._channel, None
        if call is not None:
            call.cancel()
        if channel is not None:
            channel.close()
