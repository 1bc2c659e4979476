"""Publishing for asyncio: batches with numbers, so that nothing is lost and nothing is stored twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any

import grpc
import grpc.aio

from .._backlog import GRANT_TIMEOUT, Backlog, PublisherStatus, Receipt, encode_all
from .._channel import Settings
from ..errors import Closed, TapefeedError, error_of, unavailable
from ..ticks import NewTick
from ..v1 import ingest_service_pb2_grpc

__all__ = ["Publisher"]


class Publisher:
    """A publisher of one producer id. Made by `Client.publisher`: await it, or enter it by `async with`.

    A tick counts as stored when `flush` or `close` has returned after it: it is then on the server's disk. Until then
    it is kept here, and a cut, a restart of the server or a lost acknowledgement makes the publisher send the same
    batch with the same number again, which the server stores once.

    A batch is stored as a whole or not at all. One that breaks a rule is taken out and told by the next `flush` or
    `close` as BatchesRefused, with its ticks and the violations; the batches behind it are stored. If more than eight
    wait to be asked for, the publisher ends, because nobody seems to look.

    A fatal error, such as ProducerFenced, ends the publisher; every later call raises it.

    As a context manager it closes at the end of the block. A block that is left by an exception, or by being cancelled,
    gives up what is not acknowledged.
    """

    def __init__(self, settings: Settings, backlog: Backlog) -> None:
        self._settings = settings
        self._backlog = backlog
        self._closed = False
        self._last_error: TapefeedError | None = None
        self._task: asyncio.Task[None] | None = None
        # Those who wait for a change of the backlog. Each is woken by every change and looks again.
        self._waiters: set[asyncio.Future[None]] = set()

    def __await__(self) -> Generator[Any, None, Publisher]:
        return self._start().__await__()

    async def __aenter__(self) -> Publisher:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await self.close()
        else:
            await self._abandon()

    @property
    def status(self) -> PublisherStatus:
        """The counts right now, as a copy."""
        return replace(self._backlog.status)

    async def send(self, *ticks: NewTick) -> None:
        """Take ticks. Returns before they are stored; waits while the server is slower than the ticks come.

        Raises:
            TypeError, ValueError: a tick cannot be sent. None of this call's ticks is taken.
            TapefeedError: the fatal error that ended the publisher, Closed after `close`.
        """
        await self.send_all(ticks)

    async def send_all(self, ticks: Iterable[NewTick]) -> None:
        """Take many ticks at once, as `send`. A call that is cancelled has taken the first of them."""
        encoded = encode_all(ticks)
        self._check()
        for tick, row, size in encoded:
            if not self._backlog.has_room:
                self._wake()
                await self._wait_for(lambda: self._backlog.has_room, None)
            self._backlog.gather(tick, row, size)
        self._wake()

    async def flush(self, timeout: float | None = None) -> Receipt:
        """Wait until everything taken before is on the server's disk.

        Args:
            timeout: seconds to wait at most. Default None: as long as it takes, over any number of reconnects.

        Raises:
            BatchesRefused: batches were refused since the last call; what came between and after them is stored.
            TimeoutError: not everything is stored yet. The publisher goes on.
            TapefeedError: the fatal error that ended the publisher, Closed after `close`.
        """
        self._check()
        self._backlog.seal()
        target = self._backlog.sealed
        self._wake()
        if not await self._wait_for(lambda: self._backlog.settled >= target, timeout):
            raise TimeoutError(f"{self._backlog.status.pending_ticks} ticks are not stored after {timeout} s")
        self._backlog.take_refused()
        return self._backlog.receipt

    async def close(self, timeout: float | None = None) -> Receipt:
        """Wait until everything is on the server's disk, and end the publisher. Arguments and errors as `flush`."""
        if self._closed:
            return self._backlog.receipt
        try:
            return await self.flush(timeout)
        finally:
            await self._abandon()

    async def _start(self) -> Publisher:
        if self._task is not None:
            return self
        self._task = asyncio.create_task(self._run(), name="tapefeed-publisher")
        try:
            if await self._wait_for(lambda: self._backlog.granted, self._settings.timeout):
                return self
        except BaseException:
            await self._abandon()
            raise
        error = self._last_error or unavailable("the claim was not answered in time")
        await self._abandon()
        raise error

    async def _abandon(self) -> None:
        self._closed = True
        self._wake()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _check(self) -> None:
        self._backlog.check()
        if self._closed or self._task is None:
            raise Closed("the publisher is closed" if self._closed else "await the publisher, or enter it, first")

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _change(self, timeout: float | None) -> None:
        """Wait until something in the backlog changes, or for so many seconds."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=timeout)
        finally:
            self._waiters.discard(waiter)

    async def _wait_for(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until something is so. False if the time is over; raises what ended the publisher."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while True:
            self._check()
            if done():
                return True
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return False
            await self._change(left)

    # The task that owns the connection.

    async def _run(self) -> None:
        backoff = self._settings.backoff()
        while True:
            settled = self._backlog.settled
            try:
                error = await self._connection()
            except asyncio.CancelledError:
                raise
            except Exception as defect:
                # Nobody awaits this task: whoever waits for the publisher must hear of it.
                error = TapefeedError(f"the publisher has a defect: {defect!r}")
            self._last_error = error
            try:
                again = self._backlog.cut(error)
            except TapefeedError as fatal:
                self._backlog.failure = fatal
                return
            finally:
                self._wake()
            if self._backlog.settled > settled:
                backoff.reset()
            if not again:
                await asyncio.sleep(backoff.next(error.retry_delay))

    async def _connection(self) -> TapefeedError:
        """Publish over one connection; returns why it ended."""
        options = self._settings.channel_options(own_connection=True)
        async with grpc.aio.insecure_channel(self._settings.target(), options) as channel:
            # The stub takes the kind of its channel, which its type does not tell.
            stub: Any = ingest_service_pb2_grpc.IngestServiceStub(channel)
            call = stub.PublishTicks()
            sending = asyncio.create_task(self._send_requests(call))
            receiving = asyncio.create_task(self._receive(call))
            try:
                await asyncio.wait([sending, receiving], return_when=asyncio.FIRST_COMPLETED)
                why = sending.result() if sending.done() else None
                if why is not None:
                    return unavailable(why)
                # Sending ends early when the server has ended the call; reading then tells the status.
                return await receiving
            finally:
                call.cancel()
                sending.cancel()
                receiving.cancel()
                await asyncio.wait([sending, receiving])
                self._backlog.status.connected = False

    async def _receive(self, call: Any) -> TapefeedError:
        try:
            while True:
                message = await call.read()
                if message is grpc.aio.EOF:
                    return unavailable("the server ended the stream")
                self._backlog.take(message)
                self._wake()
        except grpc.aio.AioRpcError as failure:
            return error_of(failure)
        except TapefeedError as broken:
            return broken

    async def _send_requests(self, call: Any) -> str | None:
        """Send what may be sent. Returns why the connection counts as dead, or None if the call has ended."""
        loop = asyncio.get_running_loop()
        try:
            await call.write(self._backlog.claim)
            give_up = loop.time() + GRANT_TIMEOUT
            while not self._backlog.status.connected:
                if loop.time() >= give_up:
                    return "no grant in time"
                await self._change(give_up - loop.time())
            while not self._backlog.is_overdue():
                request = self._backlog.next_request()
                if request is None:
                    await self._change(self._backlog.wait())
                    continue
                self._wake()
                await call.write(request)
            return "no acknowledgement in time"
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return None
